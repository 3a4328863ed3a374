//! FindCoordinator (key 10), v4-6: the broker that keeps a group's offsets, or a transactional id's transactions.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;

use super::write::{text, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// What is coordinated; the number is Kafka's key type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CoordinatorKind {
    /// A group.
    Group = 0,
    /// A transactional id.
    Transaction = 1,
}

/// Asks for coordinators.
#[derive(Clone, Debug)]
pub struct FindCoordinatorRequest {
    /// Of what.
    pub kind: CoordinatorKind,
    /// The groups, or the transactional ids.
    pub keys: Vec<String>,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct FindCoordinatorResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// One for each key.
    pub coordinators: Vec<Coordinator>,
}

/// Who coordinates a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coordinator {
    /// The group, or the transactional id.
    pub key: String,
    /// The broker; -1 with an error.
    pub id: i32,
    /// Its advertised host: the peer's word, not to be dialled unchecked.
    pub host: String,
    /// Its advertised port.
    pub port: i32,
    /// COORDINATOR_NOT_AVAILABLE while the coordinators' topic is being made.
    pub error: ErrorCode,
    /// The broker's words.
    pub error_message: Option<String>,
}

impl Request for FindCoordinatorRequest {
    const API: ApiKey = ApiKey::FindCoordinator;
    const VERSIONS: RangeInclusive<i16> = 4..=6;
    type Response = FindCoordinatorResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let message = kafka::FindCoordinatorRequest::default()
            .with_key_type(self.kind as i8)
            .with_coordinator_keys(self.keys.iter().map(|key| text(key)).collect());
        write(&message, version, out, "find coordinator request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<FindCoordinatorResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let coordinators = reader.array(14, "coordinators", Coordinator::read)?;
        reader.skip_tags("find coordinator response")?;
        reader.finish("find coordinator response")?;
        Ok(FindCoordinatorResponse { throttle_time_ms, coordinators })
    }
}

impl Coordinator {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let coordinator = Self {
            key: reader.owned("coordinator key")?,
            id: reader.i32("coordinator id")?,
            host: reader.owned("coordinator host")?,
            port: reader.i32("coordinator port")?,
            error: reader.error_code("coordinator error")?,
            error_message: reader.nullable_owned("coordinator error message")?,
        };
        reader.skip_tags("coordinator")?;
        Ok(coordinator)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;
    use kafka_protocol::messages::find_coordinator_response as kafka_response;

    #[test]
    fn request() {
        for (kind, number) in [(CoordinatorKind::Group, 0), (CoordinatorKind::Transaction, 1)] {
            let keys = vec!["g".to_owned(), "h".to_owned()];
            let request = FindCoordinatorRequest { kind, keys };
            for version in FindCoordinatorRequest::VERSIONS {
                let read: kafka::FindCoordinatorRequest = written(&request, version);
                assert_eq!(read.key_type, number);
                assert_eq!(read.coordinator_keys, [text("g"), text("h")]);
            }
        }
    }

    #[test]
    fn reads_every_field_in_every_version() {
        for version in FindCoordinatorRequest::VERSIONS {
            let coordinator = kafka_response::Coordinator::default()
                .with_key(text("g"))
                .with_node_id(kafka::BrokerId(2))
                .with_host(text("b2"))
                .with_port(9093)
                .with_error_code(15)
                .with_error_message(Some(text("wait")));
            let message = kafka::FindCoordinatorResponse::default()
                .with_throttle_time_ms(6)
                .with_coordinators(vec![coordinator]);
            let body = crate_bytes(&message, version);
            let read = survives_cuts::<FindCoordinatorRequest>(version, &body);
            assert_eq!(read.throttle_time_ms, 6);
            let coordinator = Coordinator {
                key: "g".to_owned(),
                id: 2,
                host: "b2".to_owned(),
                port: 9093,
                error: ErrorCode::COORDINATOR_NOT_AVAILABLE,
                error_message: Some("wait".to_owned()),
            };
            assert_eq!(read.coordinators, [coordinator]);
        }
    }
}
