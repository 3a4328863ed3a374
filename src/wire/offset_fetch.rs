//! OffsetFetch (key 9), v8-9: a group's position.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::offset_fetch_request as kafka_request;

use super::common::TopicPartitions;
use super::write::{text, topic_name, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Asks for the offsets of one group, from outside it.
#[derive(Clone, Debug)]
pub struct OffsetFetchRequest {
    /// The group.
    pub group: String,
    /// Which partitions; None for all that it has.
    pub topics: Option<Vec<TopicPartitions<i32>>>,
    /// Answers UNSTABLE_OFFSET_COMMIT, instead of the old value, while a transaction holds a new one.
    pub require_stable: bool,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct OffsetFetchResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// For the group.
    pub error: ErrorCode,
    /// What it has.
    pub topics: Vec<TopicPartitions<StoredOffset>>,
}

/// The position in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOffset {
    /// The partition.
    pub index: i32,
    /// The next offset to read; -1 for none.
    pub offset: i64,
    /// The epoch that was committed with it, -1 unknown.
    pub leader_epoch: i32,
    /// The text that was committed with it.
    pub metadata: String,
    /// Its error.
    pub error: ErrorCode,
}

impl Request for OffsetFetchRequest {
    const API: ApiKey = ApiKey::OffsetFetch;
    const VERSIONS: RangeInclusive<i16> = 8..=9;
    type Response = OffsetFetchResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let topic = |of: &TopicPartitions<i32>| {
            kafka_request::OffsetFetchRequestTopics::default()
                .with_name(topic_name(&of.topic))
                .with_partition_indexes(of.partitions.clone())
        };
        let group = kafka_request::OffsetFetchRequestGroup::default()
            .with_group_id(kafka::GroupId(text(&self.group)))
            .with_topics(self.topics.as_ref().map(|topics| topics.iter().map(topic).collect()));
        let message = kafka::OffsetFetchRequest::default()
            .with_groups(vec![group])
            .with_require_stable(self.require_stable);
        write(&message, version, out, "offset fetch request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<OffsetFetchResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let mut groups = reader.array(5, "offset fetch groups", |reader| {
            reader.string("group")?;
            let topics =
                TopicPartitions::read_all(reader, 19, "stored offsets", StoredOffset::read)?;
            let error = reader.error_code("group error")?;
            reader.skip_tags("offset fetch group")?;
            Ok(OffsetFetchResponse { throttle_time_ms, error, topics })
        })?;
        reader.skip_tags("offset fetch response")?;
        reader.finish("offset fetch response")?;
        match (groups.pop(), groups.is_empty()) {
            (Some(only), true) => Ok(only),
            _ => Err(WireError::BadValue { what: "offset fetch groups" }),
        }
    }
}

impl StoredOffset {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            index: reader.i32("partition index")?,
            offset: reader.i64("committed offset")?,
            leader_epoch: reader.i32("committed leader epoch")?,
            metadata: reader.nullable_owned("commit metadata")?.unwrap_or_default(),
            error: reader.error_code("partition error")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;
    use kafka_protocol::messages::offset_fetch_response as kafka_response;

    #[test]
    fn requests() {
        for version in OffsetFetchRequest::VERSIONS {
            let some = OffsetFetchRequest {
                group: "g".to_owned(),
                topics: Some(vec![TopicPartitions::new("t", vec![1, 5])]),
                require_stable: true,
            };
            let read: kafka::OffsetFetchRequest = written(&some, version);
            assert!(read.require_stable);
            assert_eq!(&*read.groups[0].group_id.0, "g");
            let topics = read.groups[0].topics.clone().unwrap();
            assert_eq!(topics[0].name, topic_name("t"));
            assert_eq!(topics[0].partition_indexes, [1, 5]);
            let all = OffsetFetchRequest { topics: None, require_stable: false, ..some };
            let read: kafka::OffsetFetchRequest = written(&all, version);
            assert!(!read.require_stable && read.groups[0].topics.is_none());
        }
    }

    fn group() -> kafka_response::OffsetFetchResponseGroup {
        let partition = kafka_response::OffsetFetchResponsePartitions::default()
            .with_partition_index(5)
            .with_committed_offset(1 << 40)
            .with_committed_leader_epoch(7)
            .with_metadata(Some(text("ours")))
            .with_error_code(88);
        let bare = kafka_response::OffsetFetchResponsePartitions::default()
            .with_committed_offset(-1)
            .with_metadata(None);
        let topic = kafka_response::OffsetFetchResponseTopics::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![partition, bare]);
        kafka_response::OffsetFetchResponseGroup::default()
            .with_group_id(kafka::GroupId(text("g")))
            .with_topics(vec![topic])
            .with_error_code(30)
    }

    #[test]
    fn reads_every_field_in_every_version() {
        for version in OffsetFetchRequest::VERSIONS {
            let message = kafka::OffsetFetchResponse::default()
                .with_throttle_time_ms(6)
                .with_groups(vec![group()]);
            let read =
                survives_cuts::<OffsetFetchRequest>(version, &crate_bytes(&message, version));
            assert_eq!(read.throttle_time_ms, 6);
            assert_eq!(read.error, ErrorCode::GROUP_AUTHORIZATION_FAILED);
            let stored = StoredOffset {
                index: 5,
                offset: 1 << 40,
                leader_epoch: 7,
                metadata: "ours".to_owned(),
                error: ErrorCode::UNSTABLE_OFFSET_COMMIT,
            };
            assert_eq!(read.topics[0].partitions[0], stored);
            assert_eq!(read.topics[0].partitions[1].offset, -1);
            assert_eq!(read.topics[0].partitions[1].metadata, "");
        }
    }

    #[test]
    fn answers_about_exactly_one_group() {
        for groups in [vec![], vec![group(), group()]] {
            let message = kafka::OffsetFetchResponse::default().with_groups(groups);
            assert!(OffsetFetchRequest::decode(9, &crate_bytes(&message, 9)).is_err());
        }
    }
}
