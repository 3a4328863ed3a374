//! What a broker refuses to append, in its order and with its codes: `ProduceRequest.validateRecords`,
//! `UnifiedLog.analyzeAndValidateRecords`, `LogValidator` (Kafka 3.9 and 4.3).
//!
//! What they let through is let through here too: offset deltas of uncompressed batches, unknown attribute bits, the
//! delete horizon, stray epochs without a producer id.

use bytes::Bytes;

use super::batch::{
    self, CONTROL, HEADER_BYTES, Head, KNOWN, LENGTH_END, LOG_APPEND_TIME, TRANSACTIONAL,
};
use super::records::{self, Damage};
use super::topic::Settings;
use crate::wire::error_code::ErrorCode;

/// A batch that will not be appended, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) message: Option<&'static str>,
    /// Index of each bad record, with what is wrong with it.
    pub(super) records: Vec<(i32, &'static str)>,
}

impl Refusal {
    pub(super) fn of(code: ErrorCode) -> Self {
        Self { code, message: None, records: Vec::new() }
    }

    fn invalid(message: &'static str) -> Self {
        Self { message: Some(message), ..Self::of(ErrorCode::INVALID_RECORD) }
    }
}

/// A batch that may be appended: its header as it will be stored, save for offset and leader epoch.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) head: Head,
    pub(super) payload: Bytes,
    /// The time of the append, on topics that stamp it.
    pub(super) append_time: Option<i64>,
}

/// The next whole batch of a request's records and what follows it; None at the end or at a partial tail.
fn next_batch(records: &Bytes) -> Result<Option<(Bytes, Bytes)>, Refusal> {
    let corrupt = || Refusal::of(ErrorCode::CORRUPT_MESSAGE);
    if records.len() < LENGTH_END {
        return Ok(None);
    }
    let mut raw = [0; 4];
    raw.copy_from_slice(&records[8..LENGTH_END]);
    let length = i32::from_be_bytes(raw);
    if length < 14 {
        return Err(corrupt());
    }
    let Some(magic) = records.get(16) else { return Ok(None) };
    if *magic > 2 {
        return Err(corrupt());
    }
    let len = LENGTH_END + usize::try_from(length).map_err(|_| corrupt())?;
    if records.len() < len {
        return Ok(None);
    }
    Ok(Some((records.slice(..len), records.slice(len..))))
}

/// Rule P3: exactly one batch, of magic 2, no zstd below Produce v7.
pub(super) fn single_batch(records: &Bytes, version: i16) -> Result<Bytes, Refusal> {
    let Some((first, rest)) = next_batch(records)? else {
        return Err(Refusal::invalid("a produce request must have at least one record batch"));
    };
    if first[16] != 2 {
        return Err(Refusal::invalid("produce requests may only contain batches with magic 2"));
    }
    let zstd = first.get(22).is_some_and(|attributes| attributes & 7 == 4);
    if version < 7 && zstd {
        return Err(Refusal::of(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE));
    }
    if next_batch(&rest)?.is_some() {
        return Err(Refusal::invalid("produce requests may contain exactly one record batch"));
    }
    Ok(first)
}

/// Rules L1 to L16 for one batch; L3, the checksum, only if it is to be `checked`.
pub(super) fn admit(
    batch: &Bytes,
    checked: bool,
    topic: &Settings,
    now_ms: i64,
) -> Result<Admitted, Refusal> {
    let corrupt = || Refusal::of(ErrorCode::CORRUPT_MESSAGE);
    if batch[..8] != [0; 8] {
        return Err(Refusal::invalid("the base offset of a produced batch should be 0"));
    }
    if batch.len() > topic.max_message_bytes {
        return Err(Refusal::of(ErrorCode::MESSAGE_TOO_LARGE));
    }
    let mut head = Head::read(batch).ok_or_else(corrupt)?;
    if checked && !batch::crc_holds(batch, &head) {
        return Err(corrupt());
    }
    if head.codec() > 4 {
        return Err(Refusal::of(ErrorCode::UNKNOWN_SERVER_ERROR));
    }
    check_header(&head)?;
    let mut payload = batch.slice(HEADER_BYTES..);
    let block = records::decompress(&head, &payload)
        .map_err(|_| Refusal::of(ErrorCode::UNKNOWN_SERVER_ERROR))?;
    let max_timestamp = check_records(&head, &block, topic, now_ms)?;
    if let Some(codec) = topic.codec.filter(|codec| *codec != head.codec()) {
        payload = recode(&mut head, &block, codec).map_err(|_| corrupt())?;
        if payload.len() + HEADER_BYTES > topic.max_message_bytes {
            return Err(Refusal::of(ErrorCode::MESSAGE_TOO_LARGE));
        }
    }
    Ok(stamped(head, payload, topic, max_timestamp, now_ms))
}

/// The header as the topic's kind of timestamps wants it; sealed anew only where it changes.
fn stamped(
    mut head: Head,
    payload: Bytes,
    topic: &Settings,
    max_timestamp: i64,
    now_ms: i64,
) -> Admitted {
    let (time_bit, max_timestamp) = match topic.log_append_time {
        true => (LOG_APPEND_TIME, now_ms),
        false => (0, max_timestamp),
    };
    if head.attributes & LOG_APPEND_TIME != time_bit || head.max_timestamp != max_timestamp {
        head.attributes = (head.attributes & KNOWN & !LOG_APPEND_TIME) | time_bit;
        head.max_timestamp = max_timestamp;
        head.seal(&payload);
    }
    Admitted { head, payload, append_time: topic.log_append_time.then_some(now_ms) }
}

/// The same records under another codec, renumbered, each with the time that it had; all that is not known is lost.
fn recode(head: &mut Head, block: &[u8], codec: i16) -> Result<Bytes, Damage> {
    let stamped = head.has(LOG_APPEND_TIME);
    let (old_base, max) = (head.base_timestamp, head.max_timestamp);
    let mut base = None;
    let mut out = Vec::with_capacity(block.len());
    records::walk(block, head.count, |index, record| {
        let own = old_base.wrapping_add(record.timestamp_delta);
        let at = if stamped { max } else { own };
        let delta = at.wrapping_sub(*base.get_or_insert(at));
        records::put(&mut out, &records::Record { offset_delta: index, ..record }, delta);
        Ok(())
    })?;
    let payload = records::compress(codec, &out).map_err(|_| Damage::Decompress)?;
    head.base_timestamp = base.unwrap_or(old_base);
    head.attributes = (head.attributes & TRANSACTIONAL) | codec;
    head.batch_length = 49 + i32::try_from(payload.len()).map_err(|_| Damage::Record)?;
    head.seal(&payload);
    Ok(payload)
}

/// `LogValidator.validateBatch`: L5 to L8.
fn check_header(head: &Head) -> Result<(), Refusal> {
    if head.last_offset_delta < 0 || head.last_offset_delta == i32::MAX {
        return Err(Refusal::invalid("batch has an invalid offset range"));
    }
    if head.count <= 0 {
        return Err(Refusal::invalid("invalid reported count for record batch"));
    }
    if head.last_offset_delta + 1 != head.count {
        return Err(Refusal::invalid("inconsistent batch offset range and count of records"));
    }
    if head.has(CONTROL) {
        return Err(Refusal::invalid("clients are not allowed to write control records"));
    }
    if head.producer_id >= 0 && head.base_sequence < 0 {
        return Err(Refusal::invalid("invalid sequence number in a batch with a producer id"));
    }
    Ok(())
}

/// The walk over all records, L9 to L15; returns the greatest timestamp.
fn check_records(head: &Head, block: &[u8], topic: &Settings, now_ms: i64) -> Result<i64, Refusal> {
    let compressed = head.codec() != 0 && topic.codec.is_none_or(|codec| codec == head.codec());
    let stamped = head.has(LOG_APPEND_TIME);
    let (mut max, mut in_place, mut bad) = (-1, true, Vec::new());
    let mut out_of_range = false;
    let walked = records::walk_as(block, head.count, !compressed, |index, record| {
        let own = head.base_timestamp.wrapping_add(record.timestamp_delta);
        let at = if stamped { head.max_timestamp } else { own };
        if topic.compacted && record.key.is_none() {
            bad.push((index, "compacted topic cannot accept message without key"));
            return Ok(());
        }
        if !topic.log_append_time && at != -1 {
            let late = now_ms.saturating_sub(at) > topic.timestamp_before_max_ms;
            let early = at.saturating_sub(now_ms) > topic.timestamp_after_max_ms;
            if late || early {
                out_of_range = true;
                bad.push((index, "timestamp of message is out of range"));
                return Ok(());
            }
        } else if stamped {
            out_of_range = true;
            bad.push((index, "producer should not set timestamp type to LogAppendTime"));
            return Ok(());
        }
        in_place &= record.offset_delta == index;
        max = max.max(at);
        Ok(())
    });
    walked.map_err(|damage| match damage {
        // Nobody there catches it.
        Damage::Endless if head.codec() == 0 => Refusal::of(ErrorCode::UNKNOWN_SERVER_ERROR),
        _ => Refusal::invalid("the records are not what the batch declares"),
    })?;
    if !bad.is_empty() {
        let code = match out_of_range {
            true => ErrorCode::INVALID_TIMESTAMP,
            false => ErrorCode::INVALID_RECORD,
        };
        let message = Some("one or more records have been rejected");
        return Err(Refusal { code, message, records: bad });
    }
    // The real broker falls back to a rebuild that cannot read what the walk skipped, and fails.
    if compressed && !in_place {
        return Err(Refusal::of(ErrorCode::UNKNOWN_SERVER_ERROR));
    }
    Ok(max)
}
