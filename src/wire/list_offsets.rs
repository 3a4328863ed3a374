//! ListOffsets (key 2), v7-10: where a log begins and ends, and the offset of a time.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::list_offsets_request as kafka_request;

use super::common::{Isolation, TopicPartitions};
use super::write::{topic_name, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Instead of a time: the end, which for a consumer is the high watermark or the last stable offset.
pub const LATEST: i64 = -1;
/// Instead of a time: the first offset that still exists.
pub const EARLIEST: i64 = -2;
/// The replica id of a consumer.
pub const CONSUMER: i32 = -1;
/// A replica id that no broker has. The leader answers [`LATEST`] with the end of its log, above the high watermark, and a
/// follower refuses; -2, the debugging consumer, would be answered by followers too.
pub const LOG_END_READER: i32 = i32::MAX;

/// Asks the leader of some partitions.
#[derive(Clone, Debug)]
pub struct ListOffsetsRequest {
    /// [`CONSUMER`] or [`LOG_END_READER`].
    pub replica_id: i32,
    /// What counts as the end.
    pub isolation: Isolation,
    /// What is asked.
    pub topics: Vec<TopicPartitions<ListOffsetsPartition>>,
    /// How long the broker may look into tiered storage. Since v10.
    pub timeout_ms: i32,
}

/// What is asked of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListOffsetsPartition {
    /// The partition.
    pub index: i32,
    /// The leader's epoch as the map has it, -1 unknown.
    pub current_leader_epoch: i32,
    /// Milliseconds since 1970, [`LATEST`] or [`EARLIEST`].
    pub timestamp: i64,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct ListOffsetsResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// What was found.
    pub topics: Vec<TopicPartitions<ListedOffset>>,
}

/// What was found in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// The partition.
    pub index: i32,
    /// Its error.
    pub error: ErrorCode,
    /// The time of the record at `offset`; -1 without one.
    pub timestamp: i64,
    /// -1 where no record is so young.
    pub offset: i64,
    /// The epoch of `offset`, -1 unknown.
    pub leader_epoch: i32,
}

impl Request for ListOffsetsRequest {
    const API: ApiKey = ApiKey::ListOffsets;
    const VERSIONS: RangeInclusive<i16> = 7..=10;
    type Response = ListOffsetsResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let partition = |partition: &ListOffsetsPartition| {
            kafka_request::ListOffsetsPartition::default()
                .with_partition_index(partition.index)
                .with_current_leader_epoch(partition.current_leader_epoch)
                .with_timestamp(partition.timestamp)
        };
        let topics = self.topics.iter().map(|of| {
            kafka_request::ListOffsetsTopic::default()
                .with_name(topic_name(&of.topic))
                .with_partitions(of.partitions.iter().map(partition).collect())
        });
        let mut message = kafka::ListOffsetsRequest::default()
            .with_replica_id(kafka::BrokerId(self.replica_id))
            .with_isolation_level(self.isolation as i8)
            .with_topics(topics.collect());
        if version >= 10 {
            message = message.with_timeout_ms(self.timeout_ms);
        }
        write(&message, version, out, "list offsets request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<ListOffsetsResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let topics = TopicPartitions::read_all(&mut reader, 26, "listed offsets", |reader| {
            Ok(ListedOffset {
                index: reader.i32("partition index")?,
                error: reader.error_code("partition error")?,
                timestamp: reader.i64("timestamp")?,
                offset: reader.i64("offset")?,
                leader_epoch: reader.i32("leader epoch")?,
            })
        })?;
        reader.skip_tags("list offsets response")?;
        reader.finish("list offsets response")?;
        Ok(ListOffsetsResponse { throttle_time_ms, topics })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;
    use kafka_protocol::messages::list_offsets_response as kafka_response;

    #[test]
    fn request() {
        let partition =
            |index| ListOffsetsPartition { index, current_leader_epoch: 4, timestamp: EARLIEST };
        let request = ListOffsetsRequest {
            replica_id: LOG_END_READER,
            isolation: Isolation::ReadCommitted,
            topics: vec![TopicPartitions::new("t", vec![partition(0), partition(9)])],
            timeout_ms: 800,
        };
        for version in ListOffsetsRequest::VERSIONS {
            let read: kafka::ListOffsetsRequest = written(&request, version);
            assert_eq!((read.replica_id.0, read.isolation_level), (2_147_483_647, 1));
            assert_eq!(read.timeout_ms, if version >= 10 { 800 } else { 0 });
            assert_eq!(read.topics[0].name, topic_name("t"));
            let partition = &read.topics[0].partitions[1];
            assert_eq!(partition.partition_index, 9);
            assert_eq!((partition.current_leader_epoch, partition.timestamp), (4, -2));
        }
    }

    #[test]
    fn reads_every_field_in_every_version() {
        for version in ListOffsetsRequest::VERSIONS {
            let partition = kafka_response::ListOffsetsPartitionResponse::default()
                .with_partition_index(2)
                .with_error_code(75)
                .with_timestamp(3)
                .with_offset(1 << 40)
                .with_leader_epoch(5);
            let topic = kafka_response::ListOffsetsTopicResponse::default()
                .with_name(topic_name("t"))
                .with_partitions(vec![partition]);
            let message = kafka::ListOffsetsResponse::default()
                .with_throttle_time_ms(6)
                .with_topics(vec![topic]);
            let read =
                survives_cuts::<ListOffsetsRequest>(version, &crate_bytes(&message, version));
            assert_eq!(read.throttle_time_ms, 6);
            let listed = ListedOffset {
                index: 2,
                error: ErrorCode::UNKNOWN_LEADER_EPOCH,
                timestamp: 3,
                offset: 1 << 40,
                leader_epoch: 5,
            };
            assert_eq!(TopicPartitions::flat(&read.topics).collect::<Vec<_>>(), [("t", &listed)]);
        }
    }
}
