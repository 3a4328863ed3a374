//! One partition's log: batches in order, where epochs begin, which transactions were aborted, who produced.
//!
//! Batch bounds never change: compaction may take records away, never move them (`Cleaner`).

use std::collections::VecDeque;

use bytes::Bytes;

use super::batch::{CONTROL, Head, LOG_APPEND_TIME, Stored, TRANSACTIONAL};
use super::memories::Memories;
use super::records;

/// An aborted transaction, as the transaction index keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// Whose.
    pub producer_id: i64,
    /// Its first data batch.
    pub first_offset: i64,
    /// Its marker.
    pub last_offset: i64,
}

/// What a read found.
#[derive(Default)]
pub(super) struct Read {
    pub(super) pieces: Vec<Bytes>,
    pub(super) bytes: usize,
    /// Behind the last offset that `pieces` touch.
    pub(super) end: i64,
}

/// A partition's log.
#[derive(Default)]
pub(super) struct Log {
    pub(super) batches: VecDeque<Stored>,
    /// Of all batches together.
    bytes: usize,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) high_watermark: i64,
    /// (epoch, first offset of it), both rising.
    epochs: Vec<(i32, i64)>,
    pub(super) aborted: Vec<Aborted>,
    pub(super) producers: Memories,
    /// First offset and marker of ended transactions whose marker was not replicated at the last look.
    ended: Vec<(i64, i64)>,
}

impl Log {
    /// A leader's term begins here (`LeaderEpochFileCache.assign`).
    pub(super) fn begin_epoch(&mut self, epoch: i32) {
        self.epochs.retain(|(known, start)| *known < epoch && *start < self.end);
        self.epochs.push((epoch, self.end));
    }

    /// Puts a batch whose header is final at the end.
    pub(super) fn append(&mut self, head: Head, payload: Bytes) {
        self.push(Stored::new(head, payload));
    }

    /// The same for one that is stored as it is.
    pub(super) fn push(&mut self, stored: Stored) {
        let head = stored.head;
        self.end = head.last_offset() + 1;
        self.producers.record(&head);
        self.bytes += stored.len();
        self.batches.push_back(stored);
    }

    /// Ends a transaction with a marker: a control batch of one record.
    pub(super) fn append_marker(
        &mut self,
        producer_id: i64,
        producer_epoch: i16,
        committed: bool,
        leader_epoch: i32,
        now_ms: i64,
    ) {
        let mut payload = Vec::new();
        let key = [0, 0, 0, u8::from(committed)];
        records::put_new(&mut payload, 0, 0, Some(&key), Some(&[0; 6]));
        let payload = Bytes::from(payload);
        let mut head = Head {
            base_offset: self.end,
            batch_length: 49 + i32::try_from(payload.len()).unwrap_or(0),
            leader_epoch,
            magic: 2,
            crc: 0,
            attributes: CONTROL | TRANSACTIONAL,
            last_offset_delta: 0,
            base_timestamp: now_ms,
            max_timestamp: now_ms,
            producer_id,
            producer_epoch,
            base_sequence: -1,
            count: 1,
        };
        head.seal(&payload);
        let began = self.producers.end_transaction(producer_id, producer_epoch, 0, now_ms);
        if let (Some(first_offset), false) = (began, committed) {
            self.aborted.push(Aborted { producer_id, first_offset, last_offset: self.end });
        }
        self.note_ended(began, self.end);
        self.append(head, payload);
    }

    /// The last stable offset (KIP-98): nothing at or behind it belongs to an open transaction, nor to one whose marker is
    /// not replicated (`ProducerStateManager.unreplicatedTxns`).
    pub(super) fn last_stable(&self) -> i64 {
        let unreplicated = self.ended.iter().filter(|(_, marker)| *marker >= self.high_watermark);
        let unreplicated = unreplicated.map(|(first, _)| *first).min().unwrap_or(i64::MAX);
        let open = self.producers.first_unstable().unwrap_or(i64::MAX);
        open.min(unreplicated).min(self.high_watermark)
    }

    /// Whether a batch belongs to a transaction that was aborted.
    pub(super) fn is_aborted(&self, head: &Head) -> bool {
        let of = |a: &Aborted| {
            a.producer_id == head.producer_id
                && (a.first_offset..a.last_offset).contains(&head.base_offset)
        };
        head.has(TRANSACTIONAL) && !head.has(CONTROL) && self.aborted.iter().any(of)
    }

    /// Whether a batch belongs to a transaction that is open here.
    pub(super) fn is_open(&self, head: &Head) -> bool {
        let since = self.producers.get(head.producer_id).and_then(|entry| entry.open_since);
        head.has(TRANSACTIONAL) && since.is_some_and(|since| head.base_offset >= since)
    }

    /// Whether a marker of this producer is at this offset.
    pub(super) fn has_marker(&self, offset: i64, producer_id: i64) -> bool {
        let stored = self.batches.get(self.index_of(offset));
        stored.is_some_and(|stored| {
            let head = &stored.head;
            head.base_offset == offset && head.has(CONTROL) && head.producer_id == producer_id
        })
    }

    /// A transaction that wrote here from `first` on ended with the marker at `marker`.
    fn note_ended(&mut self, first: Option<i64>, marker: i64) {
        self.ended.retain(|(_, marker)| *marker >= self.high_watermark);
        self.ended.extend(first.map(|first| (first, marker)));
    }

    pub(super) fn last_epoch(&self) -> Option<i32> {
        self.epochs.last().map(|(epoch, _)| *epoch)
    }

    /// Batches as stored, oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Stored> {
        self.batches.iter()
    }

    fn index_of(&self, offset: i64) -> usize {
        self.batches.partition_point(|batch| batch.head.last_offset() < offset)
    }

    /// Bytes of the first batch that a read at `offset` returns, if it lies below `upper`.
    pub(super) fn first_batch_bytes(&self, offset: i64, upper: i64) -> Option<usize> {
        let batch = self.batches.get(self.index_of(offset))?;
        (batch.head.base_offset < upper).then(|| batch.len())
    }

    /// A slice of the log: from the batch that holds `offset`, batches below `upper`, cut at `bytes_max` wherever
    /// that falls.
    pub(super) fn read(&self, offset: i64, upper: i64, bytes_max: usize) -> Read {
        let mut read = Read { end: self.end, ..Read::default() };
        for batch in self.batches.range(self.index_of(offset)..) {
            let full = read.bytes == bytes_max;
            if full || batch.head.base_offset >= upper {
                read.end = batch.head.base_offset;
                break;
            }
            for piece in batch.pieces() {
                let take = piece.len().min(bytes_max - read.bytes);
                if take > 0 {
                    read.pieces.push(piece.slice(..take));
                    read.bytes += take;
                }
            }
        }
        read
    }

    /// Aborted transactions that a reader of `from..upper` must know (`TransactionIndex.collectAbortedTxns`).
    pub(super) fn aborted_between(&self, from: i64, upper: i64) -> Vec<Aborted> {
        let touches = |a: &&Aborted| a.last_offset >= from && a.first_offset < upper;
        self.aborted.iter().filter(touches).copied().collect()
    }

    /// The epoch that `wanted` means here and its end (`LeaderEpochFileCache.endOffsetFor`); (-1, -1) when unknown.
    pub(super) fn end_of_epoch(&self, wanted: i32) -> (i32, i64) {
        let Some(latest) = self.last_epoch() else { return (-1, -1) };
        if wanted < 0 || wanted > latest {
            return (-1, -1);
        }
        if wanted == latest {
            return (wanted, self.end);
        }
        let above = self.epochs.partition_point(|(epoch, _)| *epoch <= wanted);
        let end = self.epochs[above].1;
        if above == 0 { (wanted, end) } else { (self.epochs[above - 1].0, end) }
    }

    /// The epoch that `offset` was written in.
    pub(super) fn epoch_at(&self, offset: i64) -> i32 {
        let above = self.epochs.partition_point(|(_, start)| *start <= offset);
        above.checked_sub(1).map_or(-1, |i| self.epochs[i].0)
    }

    /// The first record at or behind `timestamp`: (timestamp, offset).
    pub(super) fn at_time(&self, timestamp: i64) -> Option<(i64, i64)> {
        self.batches
            .iter()
            .filter(|batch| batch.head.max_timestamp >= timestamp)
            .find_map(|batch| self.record_where(batch, |at| at >= timestamp))
    }

    /// The record with the greatest timestamp: (timestamp, offset).
    pub(super) fn at_max_time(&self) -> Option<(i64, i64)> {
        let top = self.batches.iter().map(|batch| batch.head.max_timestamp).max()?;
        let batch = self.batches.iter().find(|batch| batch.head.max_timestamp == top)?;
        self.record_where(batch, |at| at == top)
    }

    fn record_where(&self, batch: &Stored, wanted: impl Fn(i64) -> bool) -> Option<(i64, i64)> {
        let head = batch.head;
        let block = records::decompress(&head, &batch.payload).ok()?;
        let mut found = None;
        let walked = records::walk(&block, head.count, |_, record| {
            let own = head.base_timestamp.wrapping_add(record.timestamp_delta);
            let fixed = head.has(LOG_APPEND_TIME);
            let at = if fixed { head.max_timestamp } else { own };
            let offset = head.base_offset + i64::from(record.offset_delta);
            if found.is_none() && offset >= self.start && wanted(at) {
                found = Some((at, offset));
            }
            Ok(())
        });
        walked.ok().and(found)
    }

    /// Retention or DeleteRecords: what lies wholly below `offset` is gone.
    pub(super) fn delete_before(&mut self, offset: i64) {
        self.start = self.start.max(offset);
        while let Some(oldest) = self.batches.front()
            && oldest.head.last_offset() < self.start
        {
            self.bytes -= oldest.len();
            self.batches.pop_front();
        }
        self.aborted.retain(|a| a.last_offset >= self.start);
    }

    /// `retention.bytes`, by batches where the real one goes by segments: the oldest go while the rest is enough.
    pub(super) fn retain_bytes(&mut self, bytes_max: usize) {
        let mut bytes = self.bytes;
        let enough = |batch: &&Stored| {
            bytes -= batch.len();
            bytes >= bytes_max && batch.head.last_offset() < self.high_watermark
        };
        let last = self.batches.iter().take_while(enough).last();
        if let Some(next) = last.map(|batch| batch.head.last_offset() + 1) {
            self.delete_before(next);
        }
    }

    /// An unclean election: everything from the batch that holds `offset` on never was.
    pub(super) fn truncate(&mut self, offset: i64) {
        self.batches.truncate(self.index_of(offset));
        self.count_bytes();
        self.end = self.batches.back().map_or(self.start.min(offset), |b| b.head.last_offset() + 1);
        self.end = self.end.max(self.start);
        self.high_watermark = self.high_watermark.min(self.end);
        self.epochs.retain(|(_, start)| *start < self.end);
        self.reload_producers();
    }

    /// A replica that was built from the log alone: state is what the batches say.
    pub(super) fn reload_producers(&mut self) {
        self.producers.clear();
        self.aborted.retain(|a| a.last_offset < self.end);
        self.ended.clear();
        let heads: Vec<Head> = self.batches.iter().map(|stored| stored.head).collect();
        for head in heads {
            if head.has(CONTROL) {
                let (id, epoch) = (head.producer_id, head.producer_epoch);
                let first = self.producers.end_transaction(id, epoch, 0, head.max_timestamp);
                self.note_ended(first, head.base_offset);
            } else {
                self.producers.record(&head);
            }
        }
    }

    pub(super) fn count_bytes(&mut self) {
        self.bytes = self.batches.iter().map(Stored::len).sum();
    }
}
