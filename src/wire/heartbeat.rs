//! Heartbeat (key 12), v4: a classic member is alive, and hears that the group shares anew.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;

use super::write::{text, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// A sign of life.
#[derive(Clone, Debug)]
pub struct HeartbeatRequest {
    /// The group.
    pub group: String,
    /// The generation that the member belongs to.
    pub generation: i32,
    /// The member.
    pub member: String,
    /// Its `group.instance.id`, if it is a static one.
    pub instance: Option<String>,
}

/// The answer.
#[derive(Clone, Copy, Debug)]
pub struct HeartbeatResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// REBALANCE_IN_PROGRESS: join again.
    pub error: ErrorCode,
}

impl Request for HeartbeatRequest {
    const API: ApiKey = ApiKey::Heartbeat;
    const VERSIONS: RangeInclusive<i16> = 4..=4;
    type Response = HeartbeatResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let message = kafka::HeartbeatRequest::default()
            .with_group_id(kafka::GroupId(text(&self.group)))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.member))
            .with_group_instance_id(self.instance.as_deref().map(text));
        write(&message, version, out, "heartbeat request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<HeartbeatResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let error = reader.error_code("heartbeat error")?;
        reader.skip_tags("heartbeat response")?;
        reader.finish("heartbeat response")?;
        Ok(HeartbeatResponse { throttle_time_ms, error })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;

    #[test]
    fn request() {
        for instance in [None, Some("i".to_owned())] {
            let request = HeartbeatRequest {
                group: "g".to_owned(),
                generation: 7,
                member: "m".to_owned(),
                instance: instance.clone(),
            };
            let read: kafka::HeartbeatRequest = written(&request, 4);
            assert_eq!((&*read.group_id.0, read.generation_id, &*read.member_id), ("g", 7, "m"));
            assert_eq!(read.group_instance_id.as_deref(), instance.as_deref());
        }
    }

    #[test]
    fn reads_every_field() {
        let message =
            kafka::HeartbeatResponse::default().with_throttle_time_ms(6).with_error_code(27);
        let read = survives_cuts::<HeartbeatRequest>(4, &crate_bytes(&message, 4));
        assert_eq!((read.throttle_time_ms, read.error), (6, ErrorCode::REBALANCE_IN_PROGRESS));
    }
}
