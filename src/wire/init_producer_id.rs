//! InitProducerId (key 22), v4-5: a transactional id's producer, and the end of every other life of it.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;

use super::write::{text, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Asks the coordinator of a transactional id for a new epoch. What an older one left open is aborted.
#[derive(Clone, Debug)]
pub struct InitProducerIdRequest {
    /// The transactional id.
    pub transactional_id: String,
    /// How long a transaction may stay open before the coordinator aborts it.
    pub timeout_ms: i32,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitProducerIdResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// CONCURRENT_TRANSACTIONS while an older transaction is being ended.
    pub error: ErrorCode,
    /// -1 with an error.
    pub producer_id: i64,
    /// -1 with an error.
    pub producer_epoch: i16,
}

impl Request for InitProducerIdRequest {
    const API: ApiKey = ApiKey::InitProducerId;
    const VERSIONS: RangeInclusive<i16> = 4..=5;
    type Response = InitProducerIdResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let message = kafka::InitProducerIdRequest::default()
            .with_transactional_id(Some(kafka::TransactionalId(text(&self.transactional_id))))
            .with_transaction_timeout_ms(self.timeout_ms)
            .with_producer_id(kafka::ProducerId(-1))
            .with_producer_epoch(-1);
        write(&message, version, out, "init producer id request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<InitProducerIdResponse, WireError> {
        let mut reader = Reader::new(body);
        let response = InitProducerIdResponse {
            throttle_time_ms: reader.i32("throttle time")?,
            error: reader.error_code("init producer id error")?,
            producer_id: reader.i64("producer id")?,
            producer_epoch: reader.i16("producer epoch")?,
        };
        reader.skip_tags("init producer id response")?;
        reader.finish("init producer id response")?;
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;

    #[test]
    fn request() {
        let request =
            InitProducerIdRequest { transactional_id: "x".to_owned(), timeout_ms: 60_000 };
        for version in InitProducerIdRequest::VERSIONS {
            let read: kafka::InitProducerIdRequest = written(&request, version);
            assert_eq!(read.transactional_id.as_ref().map(|id| &*id.0), Some("x"));
            assert_eq!(read.transaction_timeout_ms, 60_000);
            assert_eq!((read.producer_id.0, read.producer_epoch), (-1, -1));
        }
    }

    #[test]
    fn reads_every_field_in_every_version() {
        for version in InitProducerIdRequest::VERSIONS {
            let message = kafka::InitProducerIdResponse::default()
                .with_throttle_time_ms(6)
                .with_error_code(51)
                .with_producer_id(kafka::ProducerId(1 << 40))
                .with_producer_epoch(7);
            let body = crate_bytes(&message, version);
            let read = survives_cuts::<InitProducerIdRequest>(version, &body);
            let expected = InitProducerIdResponse {
                throttle_time_ms: 6,
                error: ErrorCode::CONCURRENT_TRANSACTIONS,
                producer_id: 1 << 40,
                producer_epoch: 7,
            };
            assert_eq!(read, expected);
        }
    }
}
