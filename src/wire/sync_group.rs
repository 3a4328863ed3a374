//! SyncGroup (key 14), v5: the leader of a classic group hands in who gets what; every member hears its own part.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;

use super::write::{text, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// A member's part is asked for, and the leader's word is brought.
#[derive(Clone, Debug)]
pub struct SyncGroupRequest {
    /// The group.
    pub group: String,
    /// The generation that was joined.
    pub generation: i32,
    /// The member.
    pub member: String,
    /// Its `group.instance.id`, if it is a static one.
    pub instance: Option<String>,
    /// `consumer`.
    pub protocol_type: String,
    /// The assignor that the group agreed on.
    pub protocol: String,
    /// Member and part; empty from all but the leader.
    pub assignments: Vec<(String, Bytes)>,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct SyncGroupResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// REBALANCE_IN_PROGRESS: join again.
    pub error: ErrorCode,
    /// As the leader wrote it; empty with an error.
    pub assignment: Bytes,
}

impl Request for SyncGroupRequest {
    const API: ApiKey = ApiKey::SyncGroup;
    const VERSIONS: RangeInclusive<i16> = 5..=5;
    type Response = SyncGroupResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let assignments = self.assignments.iter().map(|(member, assignment)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(member))
                .with_assignment(assignment.clone())
        });
        let message = kafka::SyncGroupRequest::default()
            .with_group_id(kafka::GroupId(text(&self.group)))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.member))
            .with_group_instance_id(self.instance.as_deref().map(text))
            .with_protocol_type(Some(text(&self.protocol_type)))
            .with_protocol_name(Some(text(&self.protocol)))
            .with_assignments(assignments.collect());
        write(&message, version, out, "sync group request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<SyncGroupResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let error = reader.error_code("sync group error")?;
        reader.nullable_string("protocol type")?;
        reader.nullable_string("protocol name")?;
        let assignment = reader.nullable_bytes("assignment")?.unwrap_or_default();
        reader.skip_tags("sync group response")?;
        reader.finish("sync group response")?;
        Ok(SyncGroupResponse { throttle_time_ms, error, assignment })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;

    #[test]
    fn request() {
        let request = SyncGroupRequest {
            group: "g".to_owned(),
            generation: 7,
            member: "m".to_owned(),
            instance: Some("i".to_owned()),
            protocol_type: "consumer".to_owned(),
            protocol: "cooperative-sticky".to_owned(),
            assignments: vec![("m".to_owned(), Bytes::from_static(b"part"))],
        };
        let read: kafka::SyncGroupRequest = written(&request, 5);
        assert_eq!((&*read.group_id.0, read.generation_id, &*read.member_id), ("g", 7, "m"));
        assert_eq!(read.group_instance_id.as_deref(), Some("i"));
        assert_eq!(read.protocol_type.as_deref(), Some("consumer"));
        assert_eq!(read.protocol_name.as_deref(), Some("cooperative-sticky"));
        assert_eq!(&*read.assignments[0].member_id, "m");
        assert_eq!(read.assignments[0].assignment, "part");
    }

    #[test]
    fn reads_every_field() {
        let message = kafka::SyncGroupResponse::default()
            .with_throttle_time_ms(6)
            .with_error_code(22)
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("cooperative-sticky")))
            .with_assignment(Bytes::from_static(b"part"));
        let read = survives_cuts::<SyncGroupRequest>(5, &crate_bytes(&message, 5));
        assert_eq!((read.throttle_time_ms, read.error), (6, ErrorCode::ILLEGAL_GENERATION));
        assert_eq!(read.assignment, "part");
    }
}
