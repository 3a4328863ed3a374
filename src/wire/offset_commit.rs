//! OffsetCommit (key 8), v8-9: the group's position, and beside it up to 4096 characters of ours.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::offset_commit_request as kafka_request;

use super::common::TopicPartitions;
use super::write::{text, topic_name, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Commits as a member of a group, or from outside while it has none.
#[derive(Clone, Debug)]
pub struct OffsetCommitRequest {
    /// The group.
    pub group: String,
    /// Generation or member epoch; -1 from outside.
    pub generation: i32,
    /// Empty from outside.
    pub member: String,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// What is committed. A partition that the cluster does not have is answered with an error of its own.
    pub topics: Vec<TopicPartitions<OffsetToCommit>>,
}

impl OffsetCommitRequest {
    /// A commit from outside the group.
    pub fn simple(group: impl Into<String>, topics: Vec<TopicPartitions<OffsetToCommit>>) -> Self {
        Self { group: group.into(), generation: -1, member: String::new(), instance: None, topics }
    }
}

/// The position in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetToCommit {
    /// The partition.
    pub index: i32,
    /// The next offset to read.
    pub offset: i64,
    /// The epoch of the last record that was read, -1 unknown.
    pub leader_epoch: i32,
    /// Free text.
    pub metadata: String,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct OffsetCommitResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// Index and error of every partition.
    pub topics: Vec<TopicPartitions<(i32, ErrorCode)>>,
}

impl Request for OffsetCommitRequest {
    const API: ApiKey = ApiKey::OffsetCommit;
    const VERSIONS: RangeInclusive<i16> = 8..=9;
    type Response = OffsetCommitResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let partition = |partition: &OffsetToCommit| {
            kafka_request::OffsetCommitRequestPartition::default()
                .with_partition_index(partition.index)
                .with_committed_offset(partition.offset)
                .with_committed_leader_epoch(partition.leader_epoch)
                .with_committed_metadata(Some(text(&partition.metadata)))
        };
        let topics = self.topics.iter().map(|of| {
            kafka_request::OffsetCommitRequestTopic::default()
                .with_name(topic_name(&of.topic))
                .with_partitions(of.partitions.iter().map(partition).collect())
        });
        let message = kafka::OffsetCommitRequest::default()
            .with_group_id(kafka::GroupId(text(&self.group)))
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(text(&self.member))
            .with_group_instance_id(self.instance.as_deref().map(text))
            .with_topics(topics.collect());
        write(&message, version, out, "offset commit request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<OffsetCommitResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let topics = TopicPartitions::read_errors(&mut reader, "committed offsets")?;
        reader.skip_tags("offset commit response")?;
        reader.finish("offset commit response")?;
        Ok(OffsetCommitResponse { throttle_time_ms, topics })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;
    use kafka_protocol::messages::offset_commit_response as kafka_response;

    #[test]
    fn request() {
        let position =
            OffsetToCommit {
                index: 3, offset: 1 << 40, leader_epoch: 7, metadata: "é".to_owned()
            };
        let request =
            OffsetCommitRequest::simple("g", vec![TopicPartitions::new("t", vec![position])]);
        for version in OffsetCommitRequest::VERSIONS {
            let read: kafka::OffsetCommitRequest = written(&request, version);
            assert_eq!(&*read.group_id.0, "g");
            assert_eq!((read.generation_id_or_member_epoch, &*read.member_id), (-1, ""));
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
        for version in OffsetCommitRequest::VERSIONS {
            let partition = kafka_response::OffsetCommitResponsePartition::default();
            let partitions = vec![
                partition.clone().with_partition_index(3),
                partition.with_partition_index(4).with_error_code(25),
            ];
            let topic = kafka_response::OffsetCommitResponseTopic::default()
                .with_name(topic_name("t"))
                .with_partitions(partitions);
            let message = kafka::OffsetCommitResponse::default()
                .with_throttle_time_ms(6)
                .with_topics(vec![topic]);
            let body = crate_bytes(&message, version);
            let read = survives_cuts::<OffsetCommitRequest>(version, &body);
            assert_eq!(read.throttle_time_ms, 6);
            let partitions = vec![(3, ErrorCode::NONE), (4, ErrorCode::UNKNOWN_MEMBER_ID)];
            assert_eq!(read.topics, [TopicPartitions::new("t", partitions)]);
        }
    }
}
