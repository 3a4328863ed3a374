//! One topic-partition being copied, as a state machine: batches come in, stamped batches go out, answers come back, and
//! the acked prefix moves. PURE: no socket, clock or log; whoever drives it brings bytes and time.
//!
//! ```text
//!  admit ──▶ queue ──▶ (window) ──▶ flight ──▶ acked ──▶ committed
//!              ▲                      │
//!              └──── resynced ◀───────┘ failed
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::anchor::{Anchor, Numbering};
use super::budget::Held;
use super::identity::advance;
use super::joining::Joining;
use super::notes::{forget_burst, noted_bytes};
use super::numberings::Numberings;
use super::offset_map::OffsetMap;
use super::replay::{Replay, Replayed};
use super::spec::TargetFacts;
use super::transaction::{Switch, Transaction};
use super::unseen::Unseen;
use super::window::{self, Acked, Violation, Window};
use crate::canary::{Canary, planted};
use crate::wire::batch::HEADER_BYTES;
use crate::wire::records::RecordsError;
use crate::wire::spans::Spans;
use crate::wire::stamp::{self, Stamp};

/// A batch on its way: fit for the target but for the producer fields, which are stamped when it is sent.
#[derive(Clone, Debug, Hash)]
pub struct Outgoing {
    /// The whole v2 batch, as fetched or recoded.
    pub batch: Bytes,
    /// Source offset that is next once this batch is acknowledged; grows when what follows is skipped.
    pub next_offset: i64,
    /// Leader epoch of the source batch, committed with the offset.
    pub leader_epoch: i32,
    /// Records in it: sequence numbers that it takes.
    pub records: i32,
    /// Largest record time, which decides how long the target remembers the batch (W2); -1 if it is not known.
    pub max_timestamp: i64,
    /// When its frame was read.
    pub fetched_at: Instant,
    /// Its `next_offset` and the sequence after it name one place. Not so for all but the last of the parts that a batch
    /// was cut into: a commit between them could not be counted from.
    pub ends_place: bool,
    /// Source offsets of its records.
    pub spans: Spans,
    /// The id that it is written under: it tells the records' origin.
    pub producer_id: i64,
    /// Whether it may leave as one with its neighbours, or is made of several.
    pub joining: Joining,
}

/// A batch that was sent, with the first sequence that it was given.
#[derive(Clone, Debug, Hash)]
pub(super) struct Flight {
    pub(super) outgoing: Outgoing,
    pub(super) sequence: i32,
}

/// What goes on the wire: 61 bytes of head, and the payload as it came.
#[derive(Debug)]
pub struct Stamped {
    /// The rewritten batch header.
    pub head: [u8; HEADER_BYTES],
    /// Everything after it.
    pub payload: Bytes,
    /// Source batches in it.
    pub joined: usize,
}

impl Stamped {
    /// Size on the wire.
    pub fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }

    /// Never true; a batch has a head.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// What an ack settled.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Settled {
    /// Size of the batch.
    pub bytes: usize,
    /// Records in it.
    pub records: i32,
    /// When its frame was read.
    pub fetched_at: Instant,
}

/// A numbering under which a mirror writes: (id, epoch) names one lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// Derived producer id.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
}

/// Where a mirror begins, found by the recovery task.
#[derive(Clone, Debug, Hash)]
pub struct Beginning {
    /// First source offset to copy.
    pub source_offset: i64,
    /// Leader epoch of the last batch before it; -1 if unknown.
    pub leader_epoch: i32,
    /// Log end of the target partition.
    pub target_offset: i64,
    /// The numberings, new or continued, as they are at `source_offset`.
    pub numberings: Vec<Numbering>,
    /// What the target holds already of the records after `source_offset`.
    pub replay: Option<Replay>,
    /// Where the records before `source_offset` are.
    pub map: OffsetMap,
    /// A request of a former life may still come: records so old that the target may have forgotten their producer are not
    /// sent, for nothing would tell such a request's from ours.
    pub late: bool,
    /// Set where transactions bring the records.
    pub transaction: Option<Transaction>,
    /// Set where they will, once the other delivery is done with.
    pub switch: Option<Switch>,
}

/// The copying half of a mirror's state; it exists once a position was found.
#[derive(Clone, Debug, Hash)]
pub struct Mirror {
    pub(super) numberings: Numberings,
    pub(super) replay: Option<Replay>,
    /// The acked prefix ends inside a source batch.
    mid_batch: bool,
    pub(super) queue: VecDeque<Outgoing>,
    pub(super) flight: VecDeque<Flight>,
    pub(super) window: Window,
    pub(super) target: Arc<TargetFacts>,
    pub(super) joined_bytes_max: usize,
    pub(super) apart_below: i64,
    pub(super) buffered_bytes: usize,
    pub(super) given_up: bool,
    /// Late requests may still come: old batches wait.
    late: bool,
    pub(super) unseen: Option<Unseen>,
    fetch_offset: i64,
    fetch_epoch: i32,
    pub(super) acked: i64,
    pub(super) acked_epoch: i32,
    pub(super) map: OffsetMap,
    pub(super) transaction: Option<Transaction>,
    pub(super) switch: Option<Switch>,
    /// A batch was settled in this life.
    pub(super) proved: bool,
}

impl Mirror {
    /// A mirror at its beginning, with nothing sent.
    pub fn new(beginning: Beginning, window_bytes_max: usize, target: Arc<TargetFacts>) -> Self {
        Self {
            numberings: Numberings::new(beginning.numberings),
            replay: beginning.replay,
            mid_batch: false,
            queue: VecDeque::new(),
            flight: VecDeque::new(),
            window: Window::new(window_bytes_max, beginning.target_offset),
            target,
            joined_bytes_max: 0,
            apart_below: i64::MIN,
            buffered_bytes: 0,
            given_up: false,
            late: beginning.late,
            unseen: None,
            fetch_offset: beginning.source_offset,
            fetch_epoch: beginning.leader_epoch,
            acked: beginning.source_offset,
            acked_epoch: beginning.leader_epoch,
            map: beginning.map,
            transaction: beginning.transaction,
            switch: beginning.switch,
            proved: false,
        }
    }

    /// Takes a batch that was admitted, unless the target holds it from before the start; says whether the two agree.
    pub fn take(&mut self, outgoing: Outgoing) -> Result<bool, RecordsError> {
        let Some(replay) = &mut self.replay else {
            self.push(outgoing);
            return Ok(true);
        };
        let (next_offset, leader_epoch) = (outgoing.next_offset, outgoing.leader_epoch);
        let rest = match replay.take(&outgoing)? {
            Replayed::Whole => None,
            Replayed::Differs => return Ok(false),
            Replayed::Ended(rest) => Some(rest),
        };
        let to_send: i32 = rest.iter().flatten().map(|part| part.records).sum();
        let counted = outgoing.records - to_send;
        let producer_id = outgoing.producer_id;
        let sequence = self.numberings.acked(producer_id).unwrap_or(0);
        let places = replay.landed().pieces(producer_id, sequence, counted);
        self.map.note_found(&outgoing.spans, counted, places, self.window.target_next());
        self.numberings.set_acked(producer_id, advance(sequence, counted));
        self.numberings.rewind();
        let Some(rest) = rest else {
            self.skip_to(next_offset, leader_epoch);
            return Ok(true);
        };
        self.replay = None;
        self.mid_batch = !rest.is_empty();
        if rest.is_empty() {
            self.skip_to(next_offset, leader_epoch);
        }
        rest.into_iter().for_each(|part| self.push(part));
        Ok(true)
    }

    /// Whether the acked prefix is a place that a later start can count from: not inside a replay, nor inside a batch.
    pub fn has_place(&self) -> bool {
        self.replay.is_none() && !self.mid_batch
    }

    /// Whether it still counts off what the target holds from before the start.
    pub fn is_replaying(&self) -> bool {
        self.replay.is_some()
    }

    /// Takes a batch that was admitted; its base must not lie before what was taken last (I2).
    fn push(&mut self, outgoing: Outgoing) {
        debug_assert!(
            outgoing.next_offset > self.fetch_offset,
            "batches arrive in source order (I2)"
        );
        self.fetch_offset = outgoing.next_offset;
        self.fetch_epoch = outgoing.leader_epoch;
        self.buffered_bytes += outgoing.batch.len();
        self.queue.push_back(outgoing);
    }

    /// Steps over source offsets that are not copied by rule (control, aborted, empty, replicated). They count as done
    /// together with the batch before them (I1).
    pub fn skip_to(&mut self, next_offset: i64, leader_epoch: i32) {
        debug_assert!(next_offset >= self.fetch_offset, "skips move forward (I2)");
        self.fetch_offset = next_offset;
        self.fetch_epoch = leader_epoch;
        let last = self.queue.back_mut().or(self.flight.back_mut().map(|f| &mut f.outgoing));
        match last.filter(|_| !planted(Canary::SkipOvertakes)) {
            Some(outgoing) => {
                outgoing.next_offset = next_offset;
                outgoing.leader_epoch = leader_epoch;
            }
            None => {
                self.acked = next_offset;
                self.acked_epoch = leader_epoch;
                if let Some(transaction) = &mut self.transaction {
                    transaction.set_stable(next_offset, leader_epoch);
                }
            }
        }
    }

    /// Whether [`Mirror::send`] would give a batch.
    pub fn can_send(&self, wall_clock_ms: i64) -> bool {
        self.queue.front().is_some_and(|next| {
            if let Some(transaction) = &self.transaction {
                // State that is lost cannot harm: what is appended out of order is aborted.
                return transaction.is_open() && self.window.is_open(next.batch.len(), 0, i64::MIN);
            }
            if self.is_switching() {
                return false;
            }
            let numbering_ready = self.numberings.is_current(next.producer_id)
                || (self.flight.is_empty() && self.numberings.has(next.producer_id));
            let state_time = window::state_time(&self.target, next.max_timestamp, wall_clock_ms);
            let oldest_trusted = window::oldest_trusted(&self.target, wall_clock_ms);
            numbering_ready
                && self.window.is_open(next.batch.len(), state_time, oldest_trusted)
                && !self.waits_for_quiet(wall_clock_ms)
        })
    }

    /// Whether the oldest queued batch may not be sent before a request of a former life can come no more. The position is
    /// to be found anew then.
    pub fn waits_for_quiet(&self, wall_clock_ms: i64) -> bool {
        let oldest_trusted = window::oldest_trusted(&self.target, wall_clock_ms);
        let is_old = |next: &Outgoing| {
            window::state_time(&self.target, next.max_timestamp, wall_clock_ms) < oldest_trusted
        };
        // With transactions a fence has ended what might come late, and the last batch before them has shown it.
        let by_number = self.transaction.is_none() && !self.is_switching();
        let late = self.late && by_number && !planted(Canary::OldAtOnce);
        late && self.queue.front().is_some_and(is_old)
    }

    /// The next batch, stamped, if the window is open for it. It counts as in flight from here on.
    pub fn send(&mut self, wall_clock_ms: i64) -> Option<Stamped> {
        if !self.can_send(wall_clock_ms) {
            return None;
        }
        if !self.is_switching() {
            self.join_front(wall_clock_ms);
        }
        let (Lineage { producer_id, producer_epoch }, sequence) = match &self.transaction {
            Some(transaction) => {
                let producer = transaction.producer();
                let (producer_id, producer_epoch) = (producer.id, producer.epoch);
                (Lineage { producer_id, producer_epoch }, transaction.next_sequence())
            }
            None => self.next_number()?,
        };
        let transactional = self.transaction.is_some();
        let stamp = Stamp { producer_id, producer_epoch, base_sequence: sequence, transactional };
        // What was admitted is a whole batch: the stamp cannot fail, and if it did the batch would stay where it is.
        let head = stamp::stamp(&self.queue.front()?.batch, stamp).ok()?;
        let outgoing = self.queue.pop_front()?;
        forget_burst(&mut self.queue);
        let payload = outgoing.batch.slice(HEADER_BYTES..);
        let joined = outgoing.joining.count();
        let state_time = window::state_time(&self.target, outgoing.max_timestamp, wall_clock_ms);
        let oldest_trusted = match self.transaction {
            Some(_) => i64::MIN,
            None => window::oldest_trusted(&self.target, wall_clock_ms),
        };
        self.window.on_sent(outgoing.batch.len(), state_time, oldest_trusted);
        match &mut self.transaction {
            Some(transaction) => {
                transaction.set_next_sequence(advance(sequence, outgoing.records));
            }
            None => self.numberings.sent(outgoing.records),
        }
        self.flight.push_back(Flight { outgoing, sequence });
        Some(Stamped { head, payload, joined })
    }

    /// What the next batch is sent under.
    fn next_number(&mut self) -> Option<(Lineage, i32)> {
        let producer_id = self.queue.front()?.producer_id;
        if !self.numberings.is_current(producer_id) {
            // Nothing is in flight; the state of another id proves nothing about this one's.
            self.numberings.change_to(producer_id);
            self.window.on_moved();
        }
        self.numberings.next()
    }

    /// The oldest unanswered batch was appended at `base_offset` of the target. It is settled, unless one before it is in
    /// doubt.
    pub fn on_success(&mut self, base_offset: i64) -> Result<Option<Settled>, Violation> {
        // What comes behind a refusal in a transaction is aborted with it.
        if self.given_up || (self.transaction.is_some() && self.window.has_failed()) {
            return self.window.on_doubt().map(|()| None);
        }
        let records = self.flight.front().ok_or(Violation::Unasked)?.outgoing.records;
        let from = self.window.target_next();
        let acked = match self.window.on_success(base_offset, records) {
            // What was refused may have come another way, by a request of a former life. The read-back sees every hole,
            // unless the cleaner of a compacted topic may be its reason.
            Err(Violation::SuccessAfterFailure) if !self.target.compacted() => Acked::Perhaps,
            acked => acked?,
        };
        match acked {
            Acked::Perhaps => return Ok(None),
            Acked::BehindOthers => {
                let to = self.window.target_next();
                Unseen::grow(&mut self.unseen, from, self.numberings.all(), to);
            }
            Acked::Yes => {}
        }
        if let Some(flight) = self.flight.front() {
            let spans = &flight.outgoing.spans;
            self.map.note(spans, records, [(base_offset, records)]);
        }
        let settled = self.settle_front();
        if let (Some(transaction), Some(settled)) = (&mut self.transaction, settled) {
            transaction.note(settled);
        }
        Ok(settled)
    }

    /// The oldest unanswered batch was refused. It stays in flight until the resync.
    pub fn on_refusal(&mut self) -> Result<(), Violation> {
        self.window.on_refusal()
    }

    /// Nobody knows whether the oldest unanswered batch was appended (connection lost, answer in doubt). It stays in flight
    /// until the resync.
    pub fn on_doubt(&mut self) -> Result<(), Violation> {
        self.window.on_doubt()
    }

    /// The mirror's batches go over another connection once all that is outstanding is answered (W1).
    pub fn on_moved(&mut self) {
        self.window.on_moved();
    }

    /// Whether a refusal or a doubt closed its window.
    pub fn has_failed(&self) -> bool {
        self.window.has_failed() || self.given_up
    }

    /// Whether the target must be read back before anything else is sent, and can be: a failure, and no answer missing.
    pub fn needs_resync(&self) -> bool {
        self.window.has_failed() && self.window.outstanding() == 0
    }

    /// Whether somebody must see to it before it sends: the target is to be read back, or a numbering put on record.
    pub fn needs_recovery(&self) -> bool {
        self.needs_resync() || self.wanted_numbering().is_some() || self.wants_switch().is_some()
    }

    pub(super) fn settle_front(&mut self) -> Option<Settled> {
        let flight = self.flight.pop_front()?;
        forget_burst(&mut self.flight);
        self.acked = flight.outgoing.next_offset;
        self.acked_epoch = flight.outgoing.leader_epoch;
        self.proved = true;
        if self.transaction.is_none() {
            let next_sequence = advance(flight.sequence, flight.outgoing.records);
            self.numberings.set_acked(flight.outgoing.producer_id, next_sequence);
        }
        self.mid_batch = !flight.outgoing.ends_place;
        let bytes = flight.outgoing.batch.len();
        self.buffered_bytes -= bytes;
        let Outgoing { records, fetched_at, .. } = flight.outgoing;
        Some(Settled { bytes, records, fetched_at })
    }

    /// Forgets what was fetched and not sent; it will be fetched again from the end of the flight.
    pub fn drop_queue(&mut self) {
        for outgoing in self.queue.drain(..) {
            self.buffered_bytes -= outgoing.batch.len();
        }
        forget_burst(&mut self.queue);
        let last = self.flight.back();
        self.fetch_offset = last.map_or(self.acked, |f| f.outgoing.next_offset);
        self.fetch_epoch = last.map_or(self.acked_epoch, |f| f.outgoing.leader_epoch);
    }

    /// Gives up everything that is not settled: the position is found anew. Answers that are still to come are only
    /// counted.
    pub fn drop_all(&mut self) {
        self.given_up = true;
        self.queue.clear();
        self.flight.clear();
        forget_burst(&mut self.queue);
        forget_burst(&mut self.flight);
        self.buffered_bytes = 0;
    }

    /// Producer id and first sequence of the oldest batch without an answer, or with a bad one.
    pub fn oldest_in_flight(&self) -> Option<(i64, i32)> {
        self.flight.front().map(|flight| (flight.outgoing.producer_id, flight.sequence))
    }

    /// What the oldest queued batch will be sent under; none if nothing is queued, or something is in flight.
    pub fn number_of_front(&self) -> Option<(i64, i32)> {
        let producer_id = self.queue.front().filter(|_| self.flight.is_empty())?.producer_id;
        Some((producer_id, self.numberings.acked(producer_id)?))
    }

    /// The id of the oldest queued batch, if its numbering must be put on record before anything else is sent.
    pub fn wanted_numbering(&self) -> Option<i64> {
        let settled = self.flight.is_empty() && !self.window.has_failed() && self.has_place();
        let waits = settled && self.unseen.is_none() && self.transaction.is_none();
        let producer_id = self.queue.front().filter(|_| waits)?.producer_id;
        (!self.numberings.has(producer_id)).then_some(producer_id)
    }

    /// As they stand at the acked prefix.
    pub fn numberings(&self) -> &[Numbering] {
        self.numberings.all()
    }

    /// A numbering is on record.
    pub fn open_numbering(&mut self, numbering: Numbering) {
        self.numberings.open(numbering);
    }

    /// The oldest batch that is not sent.
    pub fn front_of_queue(&self) -> Option<&Outgoing> {
        self.queue.front()
    }

    /// Puts `parts` in the place of the oldest queued batch; together they must reach the same next offset. Only while
    /// nothing is in flight (W6).
    pub fn replace_front(&mut self, parts: Vec<Outgoing>) {
        debug_assert!(self.flight.is_empty(), "a batch is split only at depth one (W6)");
        if let Some(whole) = self.queue.pop_front() {
            self.buffered_bytes -= whole.batch.len();
            debug_assert_eq!(parts.last().map(|p| p.next_offset), Some(whole.next_offset));
        }
        for part in parts.into_iter().rev() {
            self.buffered_bytes += part.batch.len();
            self.queue.push_front(part);
        }
    }

    /// Next source offset to fetch.
    pub fn fetch_offset(&self) -> i64 {
        self.fetch_offset
    }

    /// Leader epoch of the last source batch that was taken; -1 if unknown.
    pub fn fetch_epoch(&self) -> i32 {
        self.fetch_epoch
    }

    /// Source offset below which everything is acknowledged or skipped by rule (I1).
    pub fn acked(&self) -> i64 {
        self.acked
    }

    /// What is committed: [`Mirror::acked`], and nothing else (I1).
    pub fn place(&self) -> i64 {
        if planted(Canary::CommitUnacked) { self.fetch_offset } else { self.acked }
    }

    /// Leader epoch that belongs to [`Mirror::acked`].
    pub fn acked_epoch(&self) -> i32 {
        self.acked_epoch
    }

    /// Where everything that is acknowledged is.
    pub fn map(&self) -> &OffsetMap {
        &self.map
    }

    /// Target offset after the last acknowledged batch.
    pub fn target_next(&self) -> i64 {
        self.window.target_next()
    }

    /// Bytes queued and in flight.
    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// Bytes of it that no answer is awaited for.
    pub fn queued_bytes(&self) -> usize {
        self.buffered_bytes.saturating_sub(self.window.outstanding_bytes())
    }

    /// Both, and what is noted of them.
    pub fn held(&self) -> Held {
        Held {
            buffered_bytes: self.buffered_bytes(),
            queued_bytes: self.queued_bytes(),
            noted_bytes: noted_bytes(&self.queue) + noted_bytes(&self.flight),
        }
    }

    /// What ends the source batch that the oldest queued one is, or is a part of: the offset after it, its leader epoch,
    /// and the records of it that are queued. None if nothing is queued.
    pub fn rest_of_front(&self) -> Option<(i64, i32, u64)> {
        let end = self.queue.iter().position(|outgoing| outgoing.ends_place)?;
        let last = self.queue.get(end)?;
        let records = self.queue.iter().take(end + 1).map(|o| u64::from(o.records.unsigned_abs()));
        Some((last.next_offset, last.leader_epoch, records.sum()))
    }

    /// Whether every batch that was ever sent is answered, or is known to be lost (R1).
    pub fn is_answered(&self) -> bool {
        self.window.outstanding() == 0
    }

    /// Nothing queued, nothing in flight.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.flight.is_empty()
    }

    /// What to commit with [`Mirror::acked`].
    pub fn anchor(&self, source_topic_id: uuid::Uuid, target_topic_id: uuid::Uuid) -> Anchor {
        Anchor {
            target_topic_id,
            target_offset: self.window.target_next(),
            source_topic_id,
            source_offset: self.acked,
            numberings: self.numberings.all().to_vec(),
            map: self.map.clone(),
            settings: None,
            closed: false,
            era: None,
        }
    }
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
