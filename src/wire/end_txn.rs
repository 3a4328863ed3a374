//! EndTxn (key 26), v3-5: commits a transaction, or aborts it. From v5 on (transactions V2) the answer brings the producer
//! and the epoch of the next one.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;

use super::write::{text, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// First version that is transactions V2's.
pub const NEXT_EPOCH_SINCE: i16 = 5;

/// Ends the open transaction. Asked again in the same words for what is done, the answer is the same.
#[derive(Clone, Debug)]
pub struct EndTxnRequest {
    /// The transactional id.
    pub transactional_id: String,
    /// Its producer.
    pub producer_id: i64,
    /// And the epoch of that.
    pub producer_epoch: i16,
    /// Whether what was written counts.
    pub committed: bool,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTxnResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// Its error.
    pub error: ErrorCode,
    /// Producer and epoch of the next transaction, where this one's are used up.
    pub next: Option<(i64, i16)>,
}

impl Request for EndTxnRequest {
    const API: ApiKey = ApiKey::EndTxn;
    const VERSIONS: RangeInclusive<i16> = 3..=5;
    type Response = EndTxnResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let message = kafka::EndTxnRequest::default()
            .with_transactional_id(kafka::TransactionalId(text(&self.transactional_id)))
            .with_producer_id(kafka::ProducerId(self.producer_id))
            .with_producer_epoch(self.producer_epoch)
            .with_committed(self.committed);
        write(&message, version, out, "end txn request")
    }

    fn decode(version: i16, body: &Bytes) -> Result<EndTxnResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let error = reader.error_code("end txn error")?;
        let next = if version >= NEXT_EPOCH_SINCE {
            Some((reader.i64("next producer id")?, reader.i16("next producer epoch")?))
        } else {
            None
        };
        reader.skip_tags("end txn response")?;
        reader.finish("end txn response")?;
        let next = next.filter(|(id, epoch)| *id >= 0 && *epoch >= 0);
        Ok(EndTxnResponse { throttle_time_ms, error, next })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;

    #[test]
    fn request() {
        for version in EndTxnRequest::VERSIONS {
            for committed in [true, false] {
                let request = EndTxnRequest {
                    transactional_id: "x".to_owned(),
                    producer_id: 1 << 40,
                    producer_epoch: 7,
                    committed,
                };
                let read: kafka::EndTxnRequest = written(&request, version);
                assert_eq!(&*read.transactional_id.0, "x");
                assert_eq!((read.producer_id.0, read.producer_epoch), (1 << 40, 7));
                assert_eq!(read.committed, committed);
            }
        }
    }

    #[test]
    fn reads_every_field_in_every_version() {
        for version in EndTxnRequest::VERSIONS {
            for (error, id, epoch, next) in [(0, 9, 8, Some((9, 8))), (51, -1, -1, None)] {
                let mut message = kafka::EndTxnResponse::default()
                    .with_throttle_time_ms(6)
                    .with_error_code(error);
                if version >= NEXT_EPOCH_SINCE {
                    message =
                        message.with_producer_id(kafka::ProducerId(id)).with_producer_epoch(epoch);
                }
                let body = crate_bytes(&message, version);
                let read = survives_cuts::<EndTxnRequest>(version, &body);
                let next = next.filter(|_| version >= NEXT_EPOCH_SINCE);
                let error = ErrorCode(error);
                assert_eq!(read, EndTxnResponse { throttle_time_ms: 6, error, next });
            }
        }
    }
}
