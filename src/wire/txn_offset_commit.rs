//! TxnOffsetCommit (key 28), v3-5: a group's position that counts if, and when, its transaction is committed.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::txn_offset_commit_request as kafka_request;

use super::common::TopicPartitions;
use super::offset_commit::OffsetToCommit;
use super::write::{text, topic_name, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Commits within a transaction, from outside the group.
#[derive(Clone, Debug)]
pub struct TxnOffsetCommitRequest {
    /// The transactional id.
    pub transactional_id: String,
    /// The group.
    pub group: String,
    /// The transaction's producer.
    pub producer_id: i64,
    /// And the epoch of that.
    pub producer_epoch: i16,
    /// What is committed. A partition that the cluster does not have is answered with an error of its own.
    pub topics: Vec<TopicPartitions<OffsetToCommit>>,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct TxnOffsetCommitResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// Index and error of every partition.
    pub topics: Vec<TopicPartitions<(i32, ErrorCode)>>,
}

impl Request for TxnOffsetCommitRequest {
    const API: ApiKey = ApiKey::TxnOffsetCommit;
    const VERSIONS: RangeInclusive<i16> = 3..=5;
    type Response = TxnOffsetCommitResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let partition = |partition: &OffsetToCommit| {
            kafka_request::TxnOffsetCommitRequestPartition::default()
                .with_partition_index(partition.index)
                .with_committed_offset(partition.offset)
                .with_committed_leader_epoch(partition.leader_epoch)
                .with_committed_metadata(Some(text(&partition.metadata)))
        };
        let topics = self.topics.iter().map(|of| {
            kafka_request::TxnOffsetCommitRequestTopic::default()
                .with_name(topic_name(&of.topic))
                .with_partitions(of.partitions.iter().map(partition).collect())
        });
        let message = kafka::TxnOffsetCommitRequest::default()
            .with_transactional_id(kafka::TransactionalId(text(&self.transactional_id)))
            .with_group_id(kafka::GroupId(text(&self.group)))
            .with_producer_id(kafka::ProducerId(self.producer_id))
            .with_producer_epoch(self.producer_epoch)
            .with_generation_id(-1)
            .with_topics(topics.collect());
        write(&message, version, out, "txn offset commit request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<TxnOffsetCommitResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let topics = TopicPartitions::read_errors(&mut reader, "committed offsets")?;
        reader.skip_tags("txn offset commit response")?;
        reader.finish("txn offset commit response")?;
        Ok(TxnOffsetCommitResponse { throttle_time_ms, topics })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;
    use kafka_protocol::messages::txn_offset_commit_response as kafka_response;

    #[test]
    fn request() {
        let metadata = "é".to_owned();
        let position = OffsetToCommit { index: 3, offset: 1 << 40, leader_epoch: 7, metadata };
        let request = TxnOffsetCommitRequest {
            transactional_id: "x".to_owned(),
            group: "g".to_owned(),
            producer_id: 1 << 41,
            producer_epoch: 9,
            topics: vec![TopicPartitions::new("t", vec![position])],
        };
        for version in TxnOffsetCommitRequest::VERSIONS {
            let read: kafka::TxnOffsetCommitRequest = written(&request, version);
            assert_eq!((&*read.transactional_id.0, &*read.group_id.0), ("x", "g"));
            assert_eq!((read.producer_id.0, read.producer_epoch), (1 << 41, 9));
            assert_eq!((read.generation_id, &*read.member_id), (-1, ""));
            assert_eq!(read.group_instance_id, None);
            assert_eq!(read.topics[0].name, topic_name("t"));
            let partition = &read.topics[0].partitions[0];
            assert_eq!((partition.partition_index, partition.committed_offset), (3, 1 << 40));
            assert_eq!(partition.committed_leader_epoch, 7);
            assert_eq!(partition.committed_metadata.as_deref(), Some("é"));
        }
    }

    #[test]
    fn reads_every_field_in_every_version() {
        for version in TxnOffsetCommitRequest::VERSIONS {
            let partition = kafka_response::TxnOffsetCommitResponsePartition::default();
            let partitions = vec![
                partition.clone().with_partition_index(3),
                partition.with_partition_index(4).with_error_code(3),
            ];
            let topic = kafka_response::TxnOffsetCommitResponseTopic::default()
                .with_name(topic_name("t"))
                .with_partitions(partitions);
            let message = kafka::TxnOffsetCommitResponse::default()
                .with_throttle_time_ms(6)
                .with_topics(vec![topic]);
            let body = crate_bytes(&message, version);
            let read = survives_cuts::<TxnOffsetCommitRequest>(version, &body);
            assert_eq!(read.throttle_time_ms, 6);
            let partitions = vec![(3, ErrorCode::NONE), (4, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)];
            assert_eq!(read.topics, [TopicPartitions::new("t", partitions)]);
        }
    }
}
