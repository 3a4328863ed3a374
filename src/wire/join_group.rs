//! JoinGroup (key 11), v7-9: becomes, or stays, a member of a classic group. The answer comes when all members have joined.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;

use super::write::{text, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// A member joins.
#[derive(Clone, Debug)]
pub struct JoinGroupRequest {
    /// The group.
    pub group: String,
    /// The member is gone when it says nothing for so long.
    pub session_timeout_ms: i32,
    /// How long a member may take to join again.
    pub rebalance_timeout_ms: i32,
    /// Empty from one that has none yet.
    pub member: String,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// `consumer`.
    pub protocol_type: String,
    /// The assignor.
    pub protocol: String,
    /// What the member tells the leader.
    pub metadata: Bytes,
    /// For the broker's log.
    pub reason: String,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct JoinGroupResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// MEMBER_ID_REQUIRED: join again under the id that is given here.
    pub error: ErrorCode,
    /// The generation; -1 with an error.
    pub generation: i32,
    /// The assignor that all members know.
    pub protocol: Option<String>,
    /// Who assigns.
    pub leader: String,
    /// The leader is told that what it assigned before still counts.
    pub skip_assignment: bool,
    /// The member's id.
    pub member: String,
    /// For the leader only: all members.
    pub members: Vec<JoinedMember>,
}

/// A member, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member: String,
    /// What it told.
    pub metadata: Bytes,
}

impl Request for JoinGroupRequest {
    const API: ApiKey = ApiKey::JoinGroup;
    const VERSIONS: RangeInclusive<i16> = 7..=9;
    type Response = JoinGroupResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text(&self.protocol))
            .with_metadata(self.metadata.clone());
        let message = kafka::JoinGroupRequest::default()
            .with_group_id(kafka::GroupId(text(&self.group)))
            .with_session_timeout_ms(self.session_timeout_ms)
            .with_rebalance_timeout_ms(self.rebalance_timeout_ms)
            .with_member_id(text(&self.member))
            .with_group_instance_id(self.instance.as_deref().map(text))
            .with_protocol_type(text(&self.protocol_type))
            .with_protocols(vec![protocol])
            .with_reason((version >= 8).then(|| text(&self.reason)));
        write(&message, version, out, "join group request")
    }

    fn decode(version: i16, body: &Bytes) -> Result<JoinGroupResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let error = reader.error_code("join group error")?;
        let generation = reader.i32("generation")?;
        reader.nullable_string("protocol type")?;
        let protocol = reader.nullable_owned("protocol name")?;
        let leader = reader.owned("leader")?;
        let skip_assignment = version >= 9 && reader.bool("skip assignment")?;
        let member = reader.owned("member id")?;
        let members = reader.array(4, "members", |reader| {
            let member = reader.owned("member id")?;
            reader.nullable_string("group instance id")?;
            let metadata = reader.nullable_bytes("member metadata")?.unwrap_or_default();
            reader.skip_tags("member")?;
            Ok(JoinedMember { member, metadata })
        })?;
        reader.skip_tags("join group response")?;
        reader.finish("join group response")?;
        Ok(JoinGroupResponse {
            throttle_time_ms,
            error,
            generation,
            protocol,
            leader,
            skip_assignment,
            member,
            members,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;
    use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;

    #[test]
    fn request() {
        for version in JoinGroupRequest::VERSIONS {
            let request = JoinGroupRequest {
                group: "g".to_owned(),
                session_timeout_ms: 10_000,
                rebalance_timeout_ms: 30_000,
                member: "m".to_owned(),
                instance: Some("i".to_owned()),
                protocol_type: "consumer".to_owned(),
                protocol: "cooperative-sticky".to_owned(),
                metadata: Bytes::from_static(b"topics"),
                reason: "new topics".to_owned(),
            };
            let read: kafka::JoinGroupRequest = written(&request, version);
            assert_eq!((&*read.group_id.0, &*read.member_id), ("g", "m"));
            assert_eq!((read.session_timeout_ms, read.rebalance_timeout_ms), (10_000, 30_000));
            assert_eq!(read.group_instance_id.as_deref(), Some("i"));
            assert_eq!(&*read.protocol_type, "consumer");
            assert_eq!(&*read.protocols[0].name, "cooperative-sticky");
            assert_eq!(read.protocols[0].metadata, "topics");
            assert_eq!(read.reason.as_deref(), (version >= 8).then_some("new topics"));
        }
    }

    #[test]
    fn reads_every_field_in_every_version() {
        for version in JoinGroupRequest::VERSIONS {
            let member = JoinGroupResponseMember::default()
                .with_member_id(text("m"))
                .with_group_instance_id(Some(text("i")))
                .with_metadata(Bytes::from_static(b"topics"));
            let message = kafka::JoinGroupResponse::default()
                .with_throttle_time_ms(6)
                .with_error_code(79)
                .with_generation_id(3)
                .with_protocol_type(Some(text("consumer")))
                .with_protocol_name(Some(text("cooperative-sticky")))
                .with_leader(text("l"))
                .with_skip_assignment(version >= 9)
                .with_member_id(text("m"))
                .with_members(vec![member]);
            let read = survives_cuts::<JoinGroupRequest>(version, &crate_bytes(&message, version));
            assert_eq!((read.throttle_time_ms, read.error), (6, ErrorCode::MEMBER_ID_REQUIRED));
            assert_eq!((read.generation, &*read.leader, &*read.member), (3, "l", "m"));
            assert_eq!(read.protocol.as_deref(), Some("cooperative-sticky"));
            assert_eq!(read.skip_assignment, version >= 9);
            let metadata = Bytes::from_static(b"topics");
            assert_eq!(read.members, [JoinedMember { member: "m".to_owned(), metadata }]);
        }
    }
}
