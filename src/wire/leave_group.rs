//! LeaveGroup (key 13), v4-5: a classic member goes, and the others need not wait for its session to end.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::leave_group_request::MemberIdentity;

use super::write::{text, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// One member leaves.
#[derive(Clone, Debug)]
pub struct LeaveGroupRequest {
    /// The group.
    pub group: String,
    /// The member.
    pub member: String,
    /// Its `group.instance.id`, if it is a static one.
    pub instance: Option<String>,
    /// For the broker's log.
    pub reason: String,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct LeaveGroupResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// Of the request as a whole.
    pub error: ErrorCode,
    /// Of each member.
    pub members: Vec<ErrorCode>,
}

impl Request for LeaveGroupRequest {
    const API: ApiKey = ApiKey::LeaveGroup;
    const VERSIONS: RangeInclusive<i16> = 4..=5;
    type Response = LeaveGroupResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let member = MemberIdentity::default()
            .with_member_id(text(&self.member))
            .with_group_instance_id(self.instance.as_deref().map(text))
            .with_reason((version >= 5).then(|| text(&self.reason)));
        let message = kafka::LeaveGroupRequest::default()
            .with_group_id(kafka::GroupId(text(&self.group)))
            .with_members(vec![member]);
        write(&message, version, out, "leave group request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<LeaveGroupResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let error = reader.error_code("leave group error")?;
        let members = reader.array(5, "left members", |reader| {
            reader.string("member id")?;
            reader.nullable_string("group instance id")?;
            let error = reader.error_code("member error")?;
            reader.skip_tags("left member")?;
            Ok(error)
        })?;
        reader.skip_tags("leave group response")?;
        reader.finish("leave group response")?;
        Ok(LeaveGroupResponse { throttle_time_ms, error, members })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;
    use kafka_protocol::messages::leave_group_response::MemberResponse;

    #[test]
    fn request() {
        for version in LeaveGroupRequest::VERSIONS {
            let request = LeaveGroupRequest {
                group: "g".to_owned(),
                member: "m".to_owned(),
                instance: Some("i".to_owned()),
                reason: "drained".to_owned(),
            };
            let read: kafka::LeaveGroupRequest = written(&request, version);
            assert_eq!((&*read.group_id.0, read.members.len()), ("g", 1));
            let member = &read.members[0];
            assert_eq!((&*member.member_id, member.group_instance_id.as_deref()), ("m", Some("i")));
            assert_eq!(member.reason.as_deref(), (version >= 5).then_some("drained"));
        }
    }

    #[test]
    fn reads_every_field_in_every_version() {
        for version in LeaveGroupRequest::VERSIONS {
            let member = MemberResponse::default()
                .with_member_id(text("m"))
                .with_group_instance_id(Some(text("i")))
                .with_error_code(25);
            let message = kafka::LeaveGroupResponse::default()
                .with_throttle_time_ms(6)
                .with_error_code(16)
                .with_members(vec![member]);
            let read = survives_cuts::<LeaveGroupRequest>(version, &crate_bytes(&message, version));
            assert_eq!((read.throttle_time_ms, read.error), (6, ErrorCode::NOT_COORDINATOR));
            assert_eq!(read.members, [ErrorCode::UNKNOWN_MEMBER_ID]);
        }
    }
}
