//! OffsetForLeaderEpoch (key 23), v4: where a leader epoch ended, to see whether a log was truncated (KIP-320).

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::offset_for_leader_epoch_request as kafka_request;

use super::common::TopicPartitions;
use super::write::{topic_name, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Asks the leader of some partitions, as a consumer.
#[derive(Clone, Debug)]
pub struct OffsetForLeaderEpochRequest {
    /// What is asked.
    pub topics: Vec<TopicPartitions<EpochQuery>>,
}

/// What is asked of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochQuery {
    /// The partition.
    pub index: i32,
    /// The leader's epoch as the map has it, -1 unknown.
    pub current_leader_epoch: i32,
    /// The epoch in question.
    pub leader_epoch: i32,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct OffsetForLeaderEpochResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// What was found.
    pub topics: Vec<TopicPartitions<EpochEndOffset>>,
}

/// What was found in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEndOffset {
    /// The partition.
    pub index: i32,
    /// Its error.
    pub error: ErrorCode,
    /// The largest epoch of the log that is not above the one in question; -1 for none.
    pub leader_epoch: i32,
    /// One past its last offset; -1 for none.
    pub end_offset: i64,
}

impl Request for OffsetForLeaderEpochRequest {
    const API: ApiKey = ApiKey::OffsetForLeaderEpoch;
    const VERSIONS: RangeInclusive<i16> = 4..=4;
    type Response = OffsetForLeaderEpochResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let partition = |query: &EpochQuery| {
            kafka_request::OffsetForLeaderPartition::default()
                .with_partition(query.index)
                .with_current_leader_epoch(query.current_leader_epoch)
                .with_leader_epoch(query.leader_epoch)
        };
        let topics = self.topics.iter().map(|of| {
            kafka_request::OffsetForLeaderTopic::default()
                .with_topic(topic_name(&of.topic))
                .with_partitions(of.partitions.iter().map(partition).collect())
        });
        let message = kafka::OffsetForLeaderEpochRequest::default()
            .with_replica_id(kafka::BrokerId(-1))
            .with_topics(topics.collect());
        write(&message, version, out, "offset for leader epoch request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<Self::Response, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let topics = TopicPartitions::read_all(&mut reader, 18, "epoch ends", |reader| {
            let error = reader.error_code("partition error")?;
            Ok(EpochEndOffset {
                index: reader.i32("partition index")?,
                error,
                leader_epoch: reader.i32("leader epoch")?,
                end_offset: reader.i64("end offset")?,
            })
        })?;
        reader.skip_tags("offset for leader epoch response")?;
        reader.finish("offset for leader epoch response")?;
        Ok(OffsetForLeaderEpochResponse { throttle_time_ms, topics })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;
    use kafka_protocol::messages::offset_for_leader_epoch_response as kafka_response;

    #[test]
    fn request() {
        let query = EpochQuery { index: 3, current_leader_epoch: 8, leader_epoch: 5 };
        let topics = vec![TopicPartitions::new("t", vec![query])];
        let read: kafka::OffsetForLeaderEpochRequest =
            written(&OffsetForLeaderEpochRequest { topics }, 4);
        assert_eq!(read.replica_id.0, -1);
        assert_eq!(read.topics[0].topic, topic_name("t"));
        let partition = &read.topics[0].partitions[0];
        assert_eq!((partition.partition, partition.leader_epoch), (3, 5));
        assert_eq!(partition.current_leader_epoch, 8);
    }

    #[test]
    fn reads_every_field() {
        let partition = kafka_response::EpochEndOffset::default()
            .with_error_code(74)
            .with_partition(3)
            .with_leader_epoch(5)
            .with_end_offset(1 << 40);
        let topic = kafka_response::OffsetForLeaderTopicResult::default()
            .with_topic(topic_name("t"))
            .with_partitions(vec![partition]);
        let message = kafka::OffsetForLeaderEpochResponse::default()
            .with_throttle_time_ms(6)
            .with_topics(vec![topic]);
        let read = survives_cuts::<OffsetForLeaderEpochRequest>(4, &crate_bytes(&message, 4));
        assert_eq!(read.throttle_time_ms, 6);
        let partition = EpochEndOffset {
            index: 3,
            error: ErrorCode::FENCED_LEADER_EPOCH,
            leader_epoch: 5,
            end_offset: 1 << 40,
        };
        assert_eq!(read.topics, [TopicPartitions::new("t", vec![partition])]);
    }
}
