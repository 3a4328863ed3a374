//! What a partition remembers of its producers, and the order it keeps by it (KIP-98; `ProducerStateManager`,
//! `ProducerAppendInfo`).
//!
//! A partition that holds no state for a producer id takes any first sequence: that is Kafka's rule, not an omission.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::batch::{CONTROL, HEADER_BYTES, Head, TRANSACTIONAL};
use crate::wire::error_code::ErrorCode;

/// How many of a producer's batches are remembered (`ProducerStateEntry.NUM_BATCHES_TO_RETAIN`).
const BATCHES_MAX: usize = 5;

/// A batch that was appended.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(super) struct Appended {
    pub(super) first_sequence: i32,
    pub(super) last_sequence: i32,
    pub(super) base_offset: i64,
    pub(super) last_offset: i64,
    pub(super) timestamp: i64,
}

/// One producer id.
#[derive(Clone, Debug, Hash)]
pub(super) struct Entry {
    pub(super) epoch: i16,
    pub(super) batches: VecDeque<Appended>,
    pub(super) coordinator_epoch: i32,
    /// Of the newest batch or marker, in the records' time: expiry counts from it.
    pub(super) last_timestamp: i64,
    pub(super) open_since: Option<i64>,
}

impl Entry {
    pub(super) fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(-1, |batch| batch.last_sequence)
    }
}

/// All producers of one partition.
#[derive(Clone, Debug, Default, Hash)]
pub struct Producers {
    entries: BTreeMap<i64, Entry>,
}

/// For a broker that is only a model: the same memory, asked with a batch as a client sends it.
impl Producers {
    /// Appends a batch at this log end: gives its base offset and the batch as the log holds it, or the base offset of its
    /// twin that is there already.
    pub fn append(&mut self, batch: &[u8], end: i64) -> Result<(i64, Option<Bytes>), ErrorCode> {
        let mut head = Head::read(batch).ok_or(ErrorCode::CORRUPT_MESSAGE)?;
        if let Some(twin) = self.check(&head)? {
            return Ok((twin.base_offset, None));
        }
        head.base_offset = end;
        self.record(&head);
        let payload = batch.get(HEADER_BYTES..).unwrap_or_default();
        Ok((end, Some(Bytes::from([&head.write(), payload].concat()))))
    }

    /// Notes a batch of the log, as a new leader does that reads its own.
    pub fn reload(&mut self, batch: &[u8]) {
        if let Some(head) = Head::read(batch) {
            self.record(&head);
        }
    }

    /// Producer id, epoch and last sequence of each.
    pub fn states(&self) -> impl Iterator<Item = (i64, i16, i32)> {
        self.iter().map(|(id, entry)| (id, entry.epoch, entry.last_sequence()))
    }
}

impl Producers {
    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, &Entry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    pub(super) fn get(&self, id: i64) -> Option<&Entry> {
        self.entries.get(&id)
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// What a replica knows that has lost what it knew: the batches of an open transaction tell of it.
    pub(super) fn forget(&mut self) {
        self.entries.retain(|_, entry| entry.open_since.is_some());
    }

    /// Judges a batch of a client. `Ok(Some)`: it is here already, at these offsets.
    pub(super) fn check(&self, head: &Head) -> Result<Option<Appended>, ErrorCode> {
        if head.producer_id < 0 {
            return Ok(None);
        }
        let Some(entry) = self.entries.get(&head.producer_id) else { return Ok(None) };
        let (first, last) = (head.base_sequence, head.last_sequence());
        if head.producer_epoch == entry.epoch {
            let twin = entry
                .batches
                .iter()
                .find(|batch| batch.first_sequence == first && batch.last_sequence == last);
            if let Some(twin) = twin {
                return Ok(Some(*twin));
            }
        }
        if head.producer_epoch < entry.epoch {
            return Err(ErrorCode::INVALID_PRODUCER_EPOCH);
        }
        if head.producer_epoch > entry.epoch {
            if first != 0 {
                return Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
            }
        } else {
            let before = entry.last_sequence();
            let follows = i64::from(first) == i64::from(before) + 1;
            let wraps = first == 0 && before == i32::MAX;
            if !follows && !wraps {
                return Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
            }
        }
        if entry.open_since.is_some() && !head.has(TRANSACTIONAL) {
            return Err(ErrorCode::INVALID_TXN_STATE);
        }
        Ok(None)
    }

    /// Notes a batch that was appended, also when the log is read again.
    pub(super) fn record(&mut self, head: &Head) {
        if head.producer_id < 0 || head.has(CONTROL) {
            return;
        }
        let entry = self.entry(head.producer_id, head.producer_epoch);
        entry.last_timestamp = head.max_timestamp;
        if head.has(TRANSACTIONAL) {
            entry.open_since.get_or_insert(head.base_offset);
        }
        if head.base_sequence < 0 {
            return;
        }
        if entry.batches.len() == BATCHES_MAX {
            entry.batches.pop_front();
        }
        entry.batches.push_back(Appended {
            first_sequence: head.base_sequence,
            last_sequence: head.last_sequence(),
            base_offset: head.base_offset,
            last_offset: head.last_offset(),
            timestamp: head.max_timestamp,
        });
    }

    /// Notes a transaction marker; returns where the transaction began, if it wrote anything here.
    pub(super) fn end_transaction(
        &mut self,
        id: i64,
        epoch: i16,
        coordinator_epoch: i32,
        timestamp: i64,
    ) -> Option<i64> {
        let entry = self.entry(id, epoch);
        entry.coordinator_epoch = coordinator_epoch;
        entry.last_timestamp = timestamp;
        entry.open_since.take()
    }

    fn entry(&mut self, id: i64, epoch: i16) -> &mut Entry {
        let entry = self.entries.entry(id).or_insert_with(|| Entry {
            epoch,
            batches: VecDeque::with_capacity(BATCHES_MAX),
            coordinator_epoch: -1,
            last_timestamp: -1,
            open_since: None,
        });
        if entry.epoch != epoch {
            entry.epoch = epoch;
            entry.batches.clear();
        }
        entry
    }

    /// The first offset of the oldest open transaction.
    pub(super) fn first_unstable(&self) -> Option<i64> {
        self.entries.values().filter_map(|entry| entry.open_since).min()
    }

    /// Drops what is older than `keep_ms`, by the records' time; open transactions stay.
    pub(super) fn expire(&mut self, now_ms: i64, keep_ms: i64) {
        self.entries.retain(|_, entry| {
            entry.open_since.is_some() || now_ms.saturating_sub(entry.last_timestamp) < keep_ms
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(epoch: i16, sequence: i32, count: i32) -> Head {
        Head {
            base_offset: 100,
            batch_length: 49,
            leader_epoch: 0,
            magic: 2,
            crc: 0,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: 1_000,
            max_timestamp: 1_000,
            producer_id: 7,
            producer_epoch: epoch,
            base_sequence: sequence,
            count,
        }
    }

    #[test]
    fn no_state_takes_any_first_sequence() {
        assert_eq!(Producers::default().check(&head(0, 12_345, 3)), Ok(None));
    }

    #[test]
    fn a_gap_is_refused_and_the_next_one_is_not() {
        let mut producers = Producers::default();
        producers.record(&head(0, 5, 3));
        assert_eq!(producers.check(&head(0, 8, 1)), Ok(None));
        let refused = Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(producers.check(&head(0, 9, 1)), refused);
        assert_eq!(producers.check(&head(0, 5, 2)), refused, "same start, other length");
    }

    #[test]
    fn five_batches_back_is_a_duplicate_and_six_is_not() {
        let mut producers = Producers::default();
        for sequence in 0..6 {
            producers.record(&Head { base_offset: i64::from(sequence), ..head(0, sequence, 1) });
        }
        let known = producers.check(&head(0, 1, 1)).unwrap().unwrap();
        assert_eq!((known.base_offset, known.last_offset), (1, 1));
        let refused = Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(producers.check(&head(0, 0, 1)), refused);
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut producers = Producers::default();
        producers.record(&head(0, i32::MAX - 1, 2));
        assert_eq!(producers.check(&head(0, 0, 1)), Ok(None));
        assert!(producers.check(&head(0, 1, 1)).is_err());
        assert_eq!(head(0, i32::MAX, 3).last_sequence(), 1);
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_an_old_one_is_fenced() {
        let mut producers = Producers::default();
        producers.record(&head(3, 0, 1));
        let refused = Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(producers.check(&head(4, 1, 1)), refused);
        assert_eq!(producers.check(&head(4, 0, 1)), Ok(None));
        assert_eq!(producers.check(&head(2, 1, 1)), Err(ErrorCode::INVALID_PRODUCER_EPOCH));
    }

    #[test]
    fn expiry_counts_in_the_records_time() {
        let mut producers = Producers::default();
        producers.record(&head(0, 0, 1));
        producers.expire(1_999, 1_000);
        assert!(producers.get(7).is_some());
        producers.expire(2_000, 1_000);
        assert!(producers.get(7).is_none());
    }

    #[test]
    fn an_open_transaction_keeps_its_state_and_refuses_plain_batches() {
        let mut producers = Producers::default();
        producers.record(&Head { attributes: TRANSACTIONAL, ..head(0, 0, 1) });
        producers.expire(i64::MAX, 1);
        assert_eq!(producers.first_unstable(), Some(100));
        assert_eq!(producers.check(&head(0, 1, 1)), Err(ErrorCode::INVALID_TXN_STATE));
        assert_eq!(producers.end_transaction(7, 0, 0, 5), Some(100));
        assert_eq!(producers.first_unstable(), None);
    }
}
