//! AddOffsetsToTxn (key 25), v3-4: tells the coordinator that a transaction commits offsets of a group. With transactions
//! V2 the group's coordinator tells it.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;

use super::write::{text, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Adds a group to the transaction, which begins with it.
#[derive(Clone, Debug)]
pub struct AddOffsetsToTxnRequest {
    /// The transactional id.
    pub transactional_id: String,
    /// Its producer.
    pub producer_id: i64,
    /// And the epoch of that.
    pub producer_epoch: i16,
    /// The group.
    pub group: String,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddOffsetsToTxnResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// CONCURRENT_TRANSACTIONS while the last transaction is being ended.
    pub error: ErrorCode,
}

impl Request for AddOffsetsToTxnRequest {
    const API: ApiKey = ApiKey::AddOffsetsToTxn;
    const VERSIONS: RangeInclusive<i16> = 3..=4;
    type Response = AddOffsetsToTxnResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let message = kafka::AddOffsetsToTxnRequest::default()
            .with_transactional_id(kafka::TransactionalId(text(&self.transactional_id)))
            .with_producer_id(kafka::ProducerId(self.producer_id))
            .with_producer_epoch(self.producer_epoch)
            .with_group_id(kafka::GroupId(text(&self.group)));
        write(&message, version, out, "add offsets to txn request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<AddOffsetsToTxnResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let error = reader.error_code("add offsets error")?;
        reader.skip_tags("add offsets to txn response")?;
        reader.finish("add offsets to txn response")?;
        Ok(AddOffsetsToTxnResponse { throttle_time_ms, error })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;

    #[test]
    fn request() {
        let request = AddOffsetsToTxnRequest {
            transactional_id: "x".to_owned(),
            producer_id: 1 << 40,
            producer_epoch: 7,
            group: "g".to_owned(),
        };
        for version in AddOffsetsToTxnRequest::VERSIONS {
            let read: kafka::AddOffsetsToTxnRequest = written(&request, version);
            assert_eq!((&*read.transactional_id.0, &*read.group_id.0), ("x", "g"));
            assert_eq!((read.producer_id.0, read.producer_epoch), (1 << 40, 7));
        }
    }

    #[test]
    fn reads_every_field_in_every_version() {
        for version in AddOffsetsToTxnRequest::VERSIONS {
            let message = kafka::AddOffsetsToTxnResponse::default()
                .with_throttle_time_ms(6)
                .with_error_code(51);
            let body = crate_bytes(&message, version);
            let read = survives_cuts::<AddOffsetsToTxnRequest>(version, &body);
            let error = ErrorCode::CONCURRENT_TRANSACTIONS;
            assert_eq!(read, AddOffsetsToTxnResponse { throttle_time_ms: 6, error });
        }
    }
}
