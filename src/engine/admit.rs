//! The fate of each source batch, decided from its header: passed on, recoded, or stepped over. PURE.
//!
//! A stock broker takes only batches that are contiguous, complete and CreateTime; a source log legally holds others. The
//! table is in the README; every row cites what the broker would answer.

use std::fmt;

use bytes::Bytes;
use tokio::time::Instant;

use super::joining::Joining;
use super::mirror::Outgoing;
use super::route::{Passage, Route};
use super::stats::Fate;
use crate::canary::{Canary, planted};
use crate::config::resolved::{Isolation, Timestamps};
use crate::wire::batch::{BatchError, BatchHeader, Batches, ControlType, verify_crc};
use crate::wire::fetch::AbortedTransaction;
use crate::wire::recode::{Recode, Recoded, Times};
use crate::wire::records::RecordsError;

/// What of a mirror decides the fate of its batches.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether aborted transactions are stepped over.
    pub isolation: Isolation,
    /// What becomes of a LogAppendTime batch.
    pub timestamps: Timestamps,
    /// The target topic's `max.message.bytes`.
    pub batch_bytes_max: usize,
}

/// What is done with one source batch.
#[derive(Debug)]
pub enum Step {
    /// Copy this. A recoded batch may give several.
    Take(Outgoing, Fate),
    /// Step over it.
    Skip {
        /// The offset after it.
        next_offset: i64,
        /// Its leader epoch.
        leader_epoch: i32,
        /// Why.
        fate: Fate,
    },
}

/// A source batch that can be neither copied nor stepped over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its first offset, or where it should have been.
    pub offset: i64,
    /// What is wrong with it.
    pub cause: Cause,
    /// Where it ends; none if its header tells nothing that can be believed.
    pub end: Option<BatchEnd>,
}

/// What a batch's header says of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchEnd {
    /// The offset after its last record.
    pub next_offset: i64,
    /// Its leader epoch.
    pub leader_epoch: i32,
    /// Records in it.
    pub records: u64,
}

impl BatchEnd {
    /// Of a batch whose first wanted record is at `wanted`. Where its bytes are damaged, the next batch bounds it.
    fn of(header: &BatchHeader, wanted: i64, rest: &mut Batches) -> Option<Self> {
        let mut next_offset = header.next_offset();
        if let Some(Ok((next, _))) = rest.next_upgraded() {
            next_offset = next_offset.min(next.base_offset);
        }
        let records = u64::try_from(header.records_count).unwrap_or(0);
        let records = records.min(u64::try_from(next_offset - wanted).ok()?);
        let leader_epoch = header.partition_leader_epoch;
        (next_offset > wanted).then_some(Self { next_offset, leader_epoch, records })
    }
}

/// Why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It cannot be read, or not be written.
    Records(RecordsError),
    /// It is so many copies away from where it was first written that it must have gone in a circle.
    TooFar(u8),
}

impl From<RecordsError> for Cause {
    fn from(error: RecordsError) -> Self {
        Self::Records(error)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Records(error) => error.fmt(f),
            Self::TooFar(copies) => {
                write!(f, "a batch that was copied {copies} times on its way: it goes in a circle")
            }
        }
    }
}

/// Decides every batch of one partition's Fetch answer, in order, and hands each step to `each`. `wanted` is the offset
/// that was asked for. What comes before a refused batch has been handed over when this returns.
pub fn admit(
    records: Bytes,
    aborted: &[AbortedTransaction],
    wanted: i64,
    rules: &Rules,
    route: &Route,
    fetched_at: Instant,
    mut each: impl FnMut(Step),
) -> Result<(), Refusal> {
    let mut aborted = AbortedFilter::new(aborted);
    let mut wanted = wanted;
    let mut batches = Batches::new(records);
    while let Some(next) = batches.next_upgraded() {
        let (header, batch) =
            next.map_err(|cause| Refusal { offset: wanted, cause: cause.into(), end: None })?;
        let mut refused = |cause: RecordsError| {
            let end = BatchEnd::of(&header, wanted, &mut batches);
            Refusal { offset: wanted, cause: cause.into(), end }
        };
        if !planted(Canary::ChecksumIgnored) {
            verify_crc(&batch).map_err(|error| refused(error.into()))?;
        }
        let drop_as_aborted =
            aborted.judge(&header, &batch).map_err(|error| refused(error.into()))?;
        if header.next_offset() <= wanted {
            continue; // the answer starts at the batch that holds the offset, or one before a compaction hole
        }
        let passage = if header.is_control() {
            Passage::Skip(Fate::SkippedControl)
        } else if header.records_count == 0 {
            Passage::Skip(Fate::SkippedEmpty)
        } else if drop_as_aborted
            && rules.isolation == Isolation::ReadCommitted
            && !planted(Canary::AbortedCopied)
        {
            Passage::Skip(Fate::SkippedAborted)
        } else if planted(Canary::ReplicatedCopied) {
            Passage::Write(route.home_id())
        } else {
            route.judge(header.producer_id)
        };
        let next_offset = header.next_offset();
        let leader_epoch = header.partition_leader_epoch;
        let producer_id = match passage {
            Passage::Write(producer_id) => producer_id,
            Passage::Skip(fate) => {
                each(Step::Skip { next_offset, leader_epoch, fate });
                wanted = next_offset;
                continue;
            }
            Passage::TooFar(copies) => {
                return Err(Refusal { offset: wanted, cause: Cause::TooFar(copies), end: None });
            }
        };
        if let Err(error) = header.check_count() {
            return Err(refused(error.into()));
        } else if must_be_recoded(&header, wanted, rules) {
            let parts = recode(&batch, wanted, rules).map_err(refused)?;
            if parts.is_empty() {
                each(Step::Skip { next_offset, leader_epoch, fate: Fate::SkippedEmpty });
            }
            for part in parts {
                let outgoing = recoded(&header, part, producer_id, fetched_at);
                each(Step::Take(outgoing, Fate::Recoded));
            }
        } else {
            // The append time of a stamped batch goes; the producers' times below it are not known without opening it.
            let known = !header.is_log_append_time();
            let outgoing = Outgoing {
                batch,
                next_offset,
                leader_epoch,
                records: header.records_count,
                max_timestamp: if known { header.max_timestamp } else { -1 },
                fetched_at,
                ends_place: true,
                spans: header.base_offset.into(),
                producer_id,
                joining: Joining::Free,
            };
            each(Step::Take(outgoing, Fate::Stamped));
        }
        wanted = next_offset;
    }
    Ok(())
}

/// Rows L2, L6, L14 of the broker's checks, and records below the wanted offset, which were deleted or copied before.
fn must_be_recoded(header: &BatchHeader, wanted: i64, rules: &Rules) -> bool {
    (header.base_offset < wanted && !planted(Canary::BatchFromItsStart))
        || !header.is_contiguous()
        || (header.is_log_append_time() && rules.timestamps == Timestamps::AsRead)
        || header.total_bytes() > rules.batch_bytes_max
}

fn recode(batch: &Bytes, wanted: i64, rules: &Rules) -> Result<Vec<Recoded>, RecordsError> {
    let times = match rules.timestamps {
        Timestamps::AsRead => Times::Append,
        Timestamps::Producer => Times::Producer,
    };
    let recode = Recode { times, batch_bytes_max: rules.batch_bytes_max };
    recode.run(batch, |offset| offset >= wanted)
}

/// The last part reaches the end of the source batch, holes included.
fn recoded(header: &BatchHeader, part: Recoded, producer_id: i64, fetched_at: Instant) -> Outgoing {
    Outgoing {
        next_offset: part.last_offset + 1,
        leader_epoch: header.partition_leader_epoch,
        records: part.records_count,
        max_timestamp: max_timestamp(&part.bytes),
        batch: part.bytes,
        fetched_at,
        ends_place: true,
        spans: part.spans,
        producer_id,
        joining: Joining::Free,
    }
}

/// Cuts a queued batch that the target found too large into smaller ones, at most half as long each, or as its largest
/// record needs (W6). A batch of one record cannot be cut. `acked` is the mirror's, just below the batch.
pub fn split(whole: &Outgoing, acked: i64) -> Result<Vec<Outgoing>, RecordsError> {
    let mut batch_bytes_max = whole.batch.len() / 2 + 1;
    let parts = loop {
        match (Recode { times: Times::Append, batch_bytes_max }).run(&whole.batch, |_| true) {
            // A record that is more than half of it, beside others.
            Err(RecordsError::RecordTooLarge { bytes, .. }) if bytes < whole.batch.len() => {
                batch_bytes_max = bytes;
            }
            parts => break parts?,
        }
    };
    let mut records_done = 0;
    let outgoing = |part: Recoded| {
        let spans = whole.spans.slice(records_done, part.records_count);
        records_done += part.records_count;
        let is_last = records_done == whole.records;
        Outgoing {
            // Offsets may have holes: a record takes at least one, so this never passes what is not sent (I1).
            next_offset: if is_last { whole.next_offset } else { acked + i64::from(records_done) },
            leader_epoch: whole.leader_epoch,
            records: part.records_count,
            max_timestamp: max_timestamp(&part.bytes),
            batch: part.bytes,
            fetched_at: whole.fetched_at,
            ends_place: is_last && whole.ends_place,
            spans,
            producer_id: whole.producer_id,
            joining: Joining::Free,
        }
    };
    Ok(parts.into_iter().map(outgoing).collect())
}

/// Of a batch that was just written.
fn max_timestamp(batch: &[u8]) -> i64 {
    BatchHeader::parse(batch).map_or(-1, |header| header.max_timestamp)
}

/// Which transactional batches of one answer were aborted, as `CompletedFetch` of Kafka's consumer decides it: an entry
/// counts from its first offset until the producer's abort marker.
struct AbortedFilter<'a> {
    pending: Vec<&'a AbortedTransaction>,
    open: Vec<i64>,
}

impl<'a> AbortedFilter<'a> {
    fn new(aborted: &'a [AbortedTransaction]) -> Self {
        let mut pending: Vec<_> = aborted.iter().collect();
        pending.sort_by_key(|entry| std::cmp::Reverse(entry.first_offset));
        Self { pending, open: Vec::new() }
    }

    /// Whether the batch belongs to an aborted transaction. Must see every batch, in order.
    fn judge(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<bool, BatchError> {
        while let Some(entry) = self.pending.pop_if(|e| e.first_offset <= header.last_offset()) {
            self.open.push(entry.producer_id);
        }
        if header.is_control() {
            if ControlType::of(batch)? == ControlType::Abort {
                self.open.retain(|id| *id != header.producer_id);
            }
            return Ok(false);
        }
        Ok(header.is_transactional() && self.open.contains(&header.producer_id))
    }
}

#[cfg(test)]
#[path = "admit_tests.rs"]
mod tests;
