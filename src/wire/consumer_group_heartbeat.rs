//! ConsumerGroupHeartbeat (key 68), v0-1 (KIP-848): joins, keeps, and leaves a group whose broker assigns; one request for
//! all of it.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::consumer_group_heartbeat_request as kafka_request;
use uuid::Uuid;

use super::write::{text, topic_name, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Epoch of a member that joins.
pub const JOIN: i32 = 0;
/// Epoch of a member that leaves.
pub const LEAVE: i32 = -1;
/// Epoch of a static member that leaves and comes back soon.
pub const LEAVE_FOR_A_WHILE: i32 = -2;

/// A heartbeat. What is `None` has not changed since the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerGroupHeartbeatRequest {
    /// The group.
    pub group: String,
    /// The member's own choice (v1).
    pub member: String,
    /// [`JOIN`], [`LEAVE`], [`LEAVE_FOR_A_WHILE`], or the epoch that the broker gave.
    pub epoch: i32,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// How long the member may take to let go of partitions.
    pub rebalance_timeout_ms: Option<i32>,
    /// By name.
    pub topics: Option<Vec<String>>,
    /// What the member holds, by topic id.
    pub held: Option<Vec<IdPartitions>>,
}

/// Partitions of a topic that is named by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdPartitions {
    /// The topic.
    pub topic_id: Uuid,
    /// Partitions of it.
    pub partitions: Vec<i32>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerGroupHeartbeatResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// FENCED_MEMBER_EPOCH, UNKNOWN_MEMBER_ID: the membership is lost.
    pub error: ErrorCode,
    /// The broker's words.
    pub error_message: Option<String>,
    /// The member's id.
    pub member: Option<String>,
    /// Its epoch from now on.
    pub epoch: i32,
    /// When the next heartbeat is due.
    pub heartbeat_interval_ms: i32,
    /// What the member shall hold; none if that has not changed.
    pub assignment: Option<Vec<IdPartitions>>,
}

impl Request for ConsumerGroupHeartbeatRequest {
    const API: ApiKey = ApiKey::ConsumerGroupHeartbeat;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    type Response = ConsumerGroupHeartbeatResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let held = self.held.as_ref().map(|held| {
            let held = held.iter().map(|of| {
                kafka_request::TopicPartitions::default()
                    .with_topic_id(of.topic_id)
                    .with_partitions(of.partitions.clone())
            });
            held.collect()
        });
        let topics = self.topics.as_ref();
        let message = kafka::ConsumerGroupHeartbeatRequest::default()
            .with_group_id(kafka::GroupId(text(&self.group)))
            .with_member_id(text(&self.member))
            .with_member_epoch(self.epoch)
            .with_instance_id(self.instance.as_deref().map(text))
            .with_rebalance_timeout_ms(self.rebalance_timeout_ms.unwrap_or(-1))
            .with_subscribed_topic_names(
                topics.map(|topics| topics.iter().map(|topic| topic_name(topic)).collect()),
            )
            .with_topic_partitions(held);
        write(&message, version, out, "consumer group heartbeat request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<ConsumerGroupHeartbeatResponse, WireError> {
        let mut reader = Reader::new(body);
        let answer = ConsumerGroupHeartbeatResponse {
            throttle_time_ms: reader.i32("throttle time")?,
            error: reader.error_code("consumer group heartbeat error")?,
            error_message: reader.nullable_owned("consumer group heartbeat error message")?,
            member: reader.nullable_owned("member id")?,
            epoch: reader.i32("member epoch")?,
            heartbeat_interval_ms: reader.i32("heartbeat interval")?,
            assignment: read_assignment(&mut reader)?,
        };
        reader.skip_tags("consumer group heartbeat response")?;
        reader.finish("consumer group heartbeat response")?;
        Ok(answer)
    }
}

/// A nullable struct: one byte says whether it is there.
fn read_assignment(reader: &mut Reader<'_>) -> Result<Option<Vec<IdPartitions>>, WireError> {
    if reader.i8("assignment")? < 0 {
        return Ok(None);
    }
    let assignment = reader.array(18, "assigned topics", |reader| {
        let topic_id = reader.uuid("topic id")?;
        let partitions =
            reader.array(4, "assigned partitions", |reader| reader.i32("partition index"))?;
        reader.skip_tags("assigned topic")?;
        Ok(IdPartitions { topic_id, partitions })
    })?;
    reader.skip_tags("assignment")?;
    Ok(Some(assignment))
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;
    use kafka_protocol::messages::consumer_group_heartbeat_response as kafka_response;

    fn request() -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest {
            group: "g".to_owned(),
            member: "m".to_owned(),
            epoch: JOIN,
            instance: Some("i".to_owned()),
            rebalance_timeout_ms: Some(30_000),
            topics: Some(vec!["t".to_owned()]),
            held: Some(vec![IdPartitions { topic_id: Uuid::from_u128(7), partitions: vec![1, 2] }]),
        }
    }

    #[test]
    fn a_whole_request_and_one_that_says_nothing_new() {
        for version in ConsumerGroupHeartbeatRequest::VERSIONS {
            let read: kafka::ConsumerGroupHeartbeatRequest = written(&request(), version);
            assert_eq!((&*read.group_id.0, &*read.member_id, read.member_epoch), ("g", "m", 0));
            assert_eq!(read.instance_id.as_deref(), Some("i"));
            assert_eq!((read.rebalance_timeout_ms, read.rack_id), (30_000, None));
            assert_eq!(read.subscribed_topic_names, Some(vec![topic_name("t")]));
            assert_eq!((read.subscribed_topic_regex, read.server_assignor), (None, None));
            let held = &read.topic_partitions.unwrap()[0];
            assert_eq!((held.topic_id, &held.partitions[..]), (Uuid::from_u128(7), &[1, 2][..]));

            let nothing_new = ConsumerGroupHeartbeatRequest {
                instance: None,
                rebalance_timeout_ms: None,
                topics: None,
                held: None,
                ..request()
            };
            let read: kafka::ConsumerGroupHeartbeatRequest = written(&nothing_new, version);
            assert_eq!((read.instance_id, read.rebalance_timeout_ms), (None, -1));
            assert_eq!((read.subscribed_topic_names, read.topic_partitions), (None, None));
        }
    }

    #[test]
    fn reads_every_field_in_every_version() {
        for version in ConsumerGroupHeartbeatRequest::VERSIONS {
            let topic = kafka_response::TopicPartitions::default()
                .with_topic_id(Uuid::from_u128(7))
                .with_partitions(vec![1, 2]);
            let assignment =
                kafka_response::Assignment::default().with_topic_partitions(vec![topic]);
            for assignment in [None, Some(assignment)] {
                let given = assignment.is_some();
                let message = kafka::ConsumerGroupHeartbeatResponse::default()
                    .with_throttle_time_ms(6)
                    .with_error_code(110)
                    .with_error_message(Some(text("no")))
                    .with_member_id(Some(text("m")))
                    .with_member_epoch(5)
                    .with_heartbeat_interval_ms(5000)
                    .with_assignment(assignment);
                let body = crate_bytes(&message, version);
                let read = survives_cuts::<ConsumerGroupHeartbeatRequest>(version, &body);
                let partitions = vec![1, 2];
                let assigned = IdPartitions { topic_id: Uuid::from_u128(7), partitions };
                let expected = ConsumerGroupHeartbeatResponse {
                    throttle_time_ms: 6,
                    error: ErrorCode::FENCED_MEMBER_EPOCH,
                    error_message: Some("no".to_owned()),
                    member: Some("m".to_owned()),
                    epoch: 5,
                    heartbeat_interval_ms: 5000,
                    assignment: given.then(|| vec![assigned]),
                };
                assert_eq!(read, expected);
            }
        }
    }
}
