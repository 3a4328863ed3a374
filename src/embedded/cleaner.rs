//! What the cleaner of a compacted topic leaves of a log (`Cleaner`, `MemoryRecords.filterTo`).
//!
//! Batches keep their bounds, their producer and their codec; what they lose are records. Offsets and order stay.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::batch::{CONTROL, DELETE_HORIZON, Head, LOG_APPEND_TIME, Stored, TRANSACTIONAL};
use super::log::Log;
use super::records;

/// One run of the cleaner.
pub(super) struct Pass {
    /// Where the active part begins: batches that reach it are left alone, and their keys outdate nothing.
    pub(super) upto: i64,
    /// The delete horizon of batches that are found with tombstones, or with the marker of a transaction of which nothing
    /// is left; none: they get none.
    pub(super) horizon_ms: Option<i64>,
    /// What has a horizon before this goes.
    pub(super) now_ms: i64,
}

/// The offset of the newest record of each key.
type Newest = HashMap<Vec<u8>, i64>;

impl Log {
    /// Runs the cleaner.
    pub(super) fn clean(&mut self, pass: &Pass) {
        let newest = self.newest_below(pass.upto);
        // `Cleaner.checkBatchRetention`: what a producer wrote last stays, be it empty, and so does the end of the round.
        let round_end = self.iter().map(|batch| batch.head.last_offset());
        let round_end = round_end.filter(|last| *last < pass.upto).max();
        let batches = std::mem::take(&mut self.batches);
        // Producers with batches in the transaction whose marker comes next.
        let mut writing = HashSet::new();
        let mut kept = Vec::with_capacity(batches.len());
        for batch in batches {
            let head = batch.head;
            if head.last_offset() >= pass.upto || head.magic != 2 {
                kept.push(batch);
                continue;
            }
            let is_last = self.is_last_of_its_producer(&head);
            if head.has(CONTROL) {
                let is_needed = writing.remove(&head.producer_id) || is_last;
                kept.extend(self.clean_marker(batch, is_needed, pass));
                continue;
            }
            if head.has(TRANSACTIONAL) {
                writing.insert(head.producer_id);
            }
            let cleaned = if self.is_aborted(&head) {
                Some(shell(head))
            } else {
                clean(&batch, pass, &newest)
            };
            let stays = |left: &Stored| {
                left.head.count > 0 || is_last || Some(head.last_offset()) == round_end
            };
            kept.extend(cleaned.filter(stays));
        }
        self.batches = kept.into();
        self.count_bytes();
    }

    /// Aborted records outdate nothing (`Cleaner.buildOffsetMapForSegment`).
    fn newest_below(&self, upto: i64) -> Newest {
        let mut newest = Newest::new();
        let counts =
            |head: &Head| head.magic == 2 && head.last_offset() < upto && !self.is_aborted(head);
        for batch in self.iter().filter(|batch| counts(&batch.head)) {
            for_each(batch, |record, offset| {
                newest.insert(record.key.unwrap_or_default().to_vec(), offset);
            });
        }
        newest
    }

    /// By what the leader remembers: of a producer that it has forgotten nothing is kept.
    fn is_last_of_its_producer(&self, head: &Head) -> bool {
        let Some(entry) = self.producers.get(head.producer_id) else { return false };
        match entry.batches.back() {
            Some(last) => last.last_offset == head.last_offset(),
            None => head.has(CONTROL) && entry.epoch == head.producer_epoch,
        }
    }

    /// A marker stays while anything of its transaction does, and for the retention behind that
    /// (`CleanedTransactionMetadata.onControlBatchRead`).
    fn clean_marker(&mut self, batch: Stored, is_needed: bool, pass: &Pass) -> Option<Stored> {
        let head = batch.head;
        if is_needed {
            return Some(batch);
        }
        self.aborted.retain(|aborted| aborted.last_offset != head.base_offset);
        if !head.has(DELETE_HORIZON) {
            return match pass.horizon_ms {
                Some(horizon_ms) => rewrite(&batch, Some(horizon_ms), |_, _| true),
                None => Some(batch),
            };
        }
        (head.base_timestamp > pass.now_ms).then_some(batch)
    }
}

/// Whether all of it can be read: what a producer says of its records' lengths was not held against them.
fn for_each(batch: &Stored, mut each: impl FnMut(records::Record<'_>, i64)) -> bool {
    let Ok(block) = records::decompress(&batch.head, &batch.payload) else { return false };
    let walked = records::walk(&block, batch.head.count, |_, record| {
        each(record, batch.head.base_offset + i64::from(record.offset_delta));
        Ok(())
    });
    walked.is_ok()
}

/// One batch without its outdated records; the same bytes when nothing changes.
fn clean(batch: &Stored, pass: &Pass, newest: &Newest) -> Option<Stored> {
    let head = batch.head;
    let is_past = head.has(DELETE_HORIZON) && head.base_timestamp <= pass.now_ms;
    // Without a key a record says nothing (`Cleaner.shouldRetainRecord`).
    let stays = |record: &records::Record<'_>, offset: i64| {
        let is_newest = |key| newest.get(key).is_none_or(|newest| *newest <= offset);
        record.key.is_some_and(is_newest) && !(is_past && record.value.is_none())
    };
    let (mut kept, mut tombstones) = (0, false);
    let is_read = for_each(batch, |record, offset| {
        if stays(&record, offset) {
            kept += 1;
            tombstones |= record.value.is_none();
        }
    });
    if !is_read {
        return Some(batch.clone());
    }
    let horizon = pass.horizon_ms.filter(|_| tombstones && !head.has(DELETE_HORIZON));
    match kept {
        _ if kept == head.count && horizon.is_none() => Some(batch.clone()),
        0 => Some(shell(head)),
        _ => rewrite(batch, horizon, stays),
    }
}

/// The batch with these of its records, and with a delete horizon if one is given
/// (`MemoryRecords.buildRetainedRecordsInto`).
fn rewrite(
    batch: &Stored,
    horizon: Option<i64>,
    stays: impl Fn(&records::Record<'_>, i64) -> bool,
) -> Option<Stored> {
    let mut head = batch.head;
    let old_base = head.base_timestamp;
    // One that is set stays, and times go on counting from it.
    let horizon = horizon.or(head.has(DELETE_HORIZON).then_some(old_base));
    let (mut block, mut base, mut max, mut kept) = (Vec::new(), horizon, -1, 0);
    for_each(batch, |record, offset| {
        if stays(&record, offset) {
            let at = old_base.wrapping_add(record.timestamp_delta);
            let delta = at.wrapping_sub(*base.get_or_insert(at));
            records::put(&mut block, &record, delta);
            max = max.max(at);
            kept += 1;
        }
    });
    let payload = records::compress(head.codec(), &block).ok()?;
    if horizon.is_some() {
        head.attributes |= DELETE_HORIZON;
    }
    head.base_timestamp = base.unwrap_or(old_base);
    if !head.has(LOG_APPEND_TIME) {
        head.max_timestamp = max;
    }
    head.count = kept;
    head.batch_length = 49 + i32::try_from(payload.len()).ok()?;
    head.seal(&payload);
    Some(Stored::new(head, payload))
}

/// A batch that lost all its records but marks a producer's last sequence, or an end
/// (`DefaultRecordBatch.writeEmptyHeader`).
fn shell(mut head: Head) -> Stored {
    head.attributes &= LOG_APPEND_TIME | TRANSACTIONAL;
    head.base_timestamp = -1;
    head.count = 0;
    head.batch_length = 49;
    head.seal(&[]);
    Stored::new(head, Bytes::new())
}
