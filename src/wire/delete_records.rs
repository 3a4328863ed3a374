//! DeleteRecords (key 21), v2: moves a log's start.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::delete_records_request as kafka_request;

use super::common::TopicPartitions;
use super::write::{topic_name, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Deletes the beginning of some logs. Sent to their leader.
#[derive(Clone, Debug)]
pub struct DeleteRecordsRequest {
    /// Index of each partition, and its new first offset (-1: the high watermark).
    pub topics: Vec<TopicPartitions<(i32, i64)>>,
    /// How long the broker waits for the followers.
    pub timeout_ms: i32,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct DeleteRecordsResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// What became of each partition.
    pub topics: Vec<TopicPartitions<DeletedRecords>>,
}

/// What became of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletedRecords {
    /// The partition.
    pub index: i32,
    /// Its first offset now.
    pub low_watermark: i64,
    /// Its error.
    pub error: ErrorCode,
}

impl Request for DeleteRecordsRequest {
    const API: ApiKey = ApiKey::DeleteRecords;
    const VERSIONS: RangeInclusive<i16> = 2..=2;
    type Response = DeleteRecordsResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let partition = |&(index, offset): &(i32, i64)| {
            kafka_request::DeleteRecordsPartition::default()
                .with_partition_index(index)
                .with_offset(offset)
        };
        let topics = self.topics.iter().map(|of| {
            kafka_request::DeleteRecordsTopic::default()
                .with_name(topic_name(&of.topic))
                .with_partitions(of.partitions.iter().map(partition).collect())
        });
        let message = kafka::DeleteRecordsRequest::default()
            .with_topics(topics.collect())
            .with_timeout_ms(self.timeout_ms);
        write(&message, version, out, "delete records request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<DeleteRecordsResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let topics = TopicPartitions::read_all(&mut reader, 14, "deleted records", |reader| {
            Ok(DeletedRecords {
                index: reader.i32("partition index")?,
                low_watermark: reader.i64("low watermark")?,
                error: reader.error_code("partition error")?,
            })
        })?;
        reader.skip_tags("delete records response")?;
        reader.finish("delete records response")?;
        Ok(DeleteRecordsResponse { throttle_time_ms, topics })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;
    use kafka_protocol::messages::delete_records_response as kafka_response;

    #[test]
    fn request() {
        let topics = vec![TopicPartitions::new("t", vec![(3, 1 << 40)])];
        let read: kafka::DeleteRecordsRequest =
            written(&DeleteRecordsRequest { topics, timeout_ms: 900 }, 2);
        assert_eq!(read.timeout_ms, 900);
        assert_eq!(read.topics[0].name, topic_name("t"));
        let partition = &read.topics[0].partitions[0];
        assert_eq!((partition.partition_index, partition.offset), (3, 1 << 40));
    }

    #[test]
    fn reads_every_field() {
        let partition = kafka_response::DeleteRecordsPartitionResult::default()
            .with_partition_index(3)
            .with_low_watermark(1 << 40)
            .with_error_code(44);
        let topic = kafka_response::DeleteRecordsTopicResult::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![partition]);
        let message = kafka::DeleteRecordsResponse::default()
            .with_throttle_time_ms(6)
            .with_topics(vec![topic]);
        let read = survives_cuts::<DeleteRecordsRequest>(2, &crate_bytes(&message, 2));
        assert_eq!(read.throttle_time_ms, 6);
        let partition =
            DeletedRecords { index: 3, low_watermark: 1 << 40, error: ErrorCode::POLICY_VIOLATION };
        assert_eq!(read.topics, [TopicPartitions::new("t", vec![partition])]);
    }
}
