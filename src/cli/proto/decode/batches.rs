//! The batches of a records field: their headers and what is to be said about their checksums. Pure; nothing is
//! decompressed.

use bytes::Bytes;
use serde_json::{Value, json};

use super::body::shown;
use crate::wire::batch::{BatchHeader, LENGTH_END, verify_crc};

/// Batches that are shown.
const SHOWN_MAX: usize = 10_000;

/// Every whole batch, whatever it says, and the bytes behind the last.
pub(super) fn show(records: &Bytes) -> Value {
    let (mut rest, mut batches) = (records.clone(), Vec::new());
    while let Some(len) = whole(&rest).filter(|_| batches.len() < SHOWN_MAX) {
        batches.push(batch(&rest.split_to(len)));
    }
    json!({ "bytes": records.len(), "batches": batches, "bytes_left": rest.len() })
}

/// The length of the batch at the front, if it is there whole. Message sets of before v2 have their length there too.
fn whole(bytes: &Bytes) -> Option<usize> {
    let claimed = bytes.get(8..LENGTH_END)?.first_chunk::<4>()?;
    let length = usize::try_from(i32::from_be_bytes(*claimed)).ok()?;
    let len = LENGTH_END.checked_add(length)?;
    (bytes.get(16).is_some() && len > 16 && len <= bytes.len()).then_some(len)
}

fn batch(bytes: &Bytes) -> Value {
    let header = match BatchHeader::parse(bytes) {
        Ok(header) => header,
        Err(error) => {
            let magic = bytes.get(16).map(|magic| magic.cast_signed());
            let first = bytes.get(..64).unwrap_or(bytes);
            return json!({ "magic": magic, "error": error.to_string(), "first": shown(first) });
        }
    };
    let codec = header
        .codec()
        .map_or_else(|error| error.to_string(), |codec| format!("{codec:?}").to_ascii_lowercase());
    json!({
        "baseOffset": header.base_offset, "batchLength": header.batch_length,
        "partitionLeaderEpoch": header.partition_leader_epoch, "magic": header.magic,
        "crc": header.crc, "crcOk": verify_crc(bytes).is_ok(), "attributes": header.attributes,
        "codec": codec, "logAppendTime": header.is_log_append_time(),
        "transactional": header.is_transactional(), "control": header.is_control(),
        "deleteHorizon": header.has_delete_horizon(), "lastOffsetDelta": header.last_offset_delta,
        "baseTimestamp": header.base_timestamp, "maxTimestamp": header.max_timestamp,
        "producerId": header.producer_id, "producerEpoch": header.producer_epoch,
        "baseSequence": header.base_sequence, "recordsCount": header.records_count,
    })
}
