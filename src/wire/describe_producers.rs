//! DescribeProducers (key 61), v0: what a partition's leader remembers of producers. Needs READ on the topic.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::describe_producers_request as kafka_request;

use super::common::TopicPartitions;
use super::write::{topic_name, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Asks the leader of some partitions.
#[derive(Clone, Debug)]
pub struct DescribeProducersRequest {
    /// Which partitions.
    pub topics: Vec<TopicPartitions<i32>>,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct DescribeProducersResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// The producers of each partition.
    pub topics: Vec<TopicPartitions<Producers>>,
}

/// The producers of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producers {
    /// The partition.
    pub index: i32,
    /// Its error.
    pub error: ErrorCode,
    /// The broker's words.
    pub error_message: Option<String>,
    /// Those that have not expired.
    pub producers: Vec<ProducerState>,
}

/// What the leader remembers of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// Which.
    pub id: i64,
    /// Its epoch; INT32 here, INT16 everywhere else.
    pub epoch: i32,
    /// The sequence number of its last record; -1 for none.
    pub last_sequence: i32,
    /// The largest record time of its last batch: what its expiry counts from.
    pub last_timestamp: i64,
    /// Where its open transaction began; -1 for none.
    pub transaction_start_offset: i64,
}

impl Request for DescribeProducersRequest {
    const API: ApiKey = ApiKey::DescribeProducers;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    type Response = DescribeProducersResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let topics = self.topics.iter().map(|of| {
            kafka_request::TopicRequest::default()
                .with_name(topic_name(&of.topic))
                .with_partition_indexes(of.partitions.clone())
        });
        let message = kafka::DescribeProducersRequest::default().with_topics(topics.collect());
        write(&message, version, out, "describe producers request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<DescribeProducersResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let topics = TopicPartitions::read_all(&mut reader, 8, "producers", |reader| {
            Ok(Producers {
                index: reader.i32("partition index")?,
                error: reader.error_code("partition error")?,
                error_message: reader.nullable_owned("partition error message")?,
                producers: reader.array(37, "producers", ProducerState::read)?,
            })
        })?;
        reader.skip_tags("describe producers response")?;
        reader.finish("describe producers response")?;
        Ok(DescribeProducersResponse { throttle_time_ms, topics })
    }
}

impl ProducerState {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let id = reader.i64("producer id")?;
        let epoch = reader.i32("producer epoch")?;
        let last_sequence = reader.i32("last sequence")?;
        let last_timestamp = reader.i64("last timestamp")?;
        reader.i32("coordinator epoch")?;
        let transaction_start_offset = reader.i64("transaction start offset")?;
        reader.skip_tags("producer")?;
        Ok(Self { id, epoch, last_sequence, last_timestamp, transaction_start_offset })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::super::write::text;
    use super::*;
    use kafka_protocol::messages::describe_producers_response as kafka_response;

    #[test]
    fn request() {
        let topics = vec![TopicPartitions::new("t", vec![0, 3])];
        let read: kafka::DescribeProducersRequest =
            written(&DescribeProducersRequest { topics }, 0);
        assert_eq!(read.topics[0].name, topic_name("t"));
        assert_eq!(read.topics[0].partition_indexes, [0, 3]);
    }

    #[test]
    fn reads_every_field() {
        let producer = kafka_response::ProducerState::default()
            .with_producer_id(kafka::ProducerId(1 << 61))
            .with_producer_epoch(4)
            .with_last_sequence(99)
            .with_last_timestamp(1 << 40)
            .with_coordinator_epoch(2)
            .with_current_txn_start_offset(-1);
        let partition = kafka_response::PartitionResponse::default()
            .with_partition_index(3)
            .with_error_code(6)
            .with_error_message(Some(text("moved")))
            .with_active_producers(vec![producer]);
        let topic = kafka_response::TopicResponse::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![partition]);
        let message = kafka::DescribeProducersResponse::default()
            .with_throttle_time_ms(6)
            .with_topics(vec![topic]);
        let read = survives_cuts::<DescribeProducersRequest>(0, &crate_bytes(&message, 0));
        assert_eq!(read.throttle_time_ms, 6);
        let producer = ProducerState {
            id: 1 << 61,
            epoch: 4,
            last_sequence: 99,
            last_timestamp: 1 << 40,
            transaction_start_offset: -1,
        };
        let partition = Producers {
            index: 3,
            error: ErrorCode::NOT_LEADER_OR_FOLLOWER,
            error_message: Some("moved".to_owned()),
            producers: vec![producer],
        };
        assert_eq!(read.topics, [TopicPartitions::new("t", vec![partition])]);
    }
}
