//! What the target's log, read back, tells a mirror: which of its batches are there, and what else is. PURE.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::identity::advance;
use super::landed::Landed;
use super::mirror::{Flight, Mirror, Settled};
use super::unseen::Unseen;
use crate::canary::{Canary, planted};
use crate::wire::spans::{Span, Spans};

/// What the target holds behind a commit and is not counted off yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountsOff {
    /// The sequences behind it, by producer id.
    pub ends: Vec<(i64, i32)>,
    /// Its records.
    pub records: i32,
    /// The target's log end.
    pub target_end: i64,
}

impl Mirror {
    /// The part of the target that must be looked at before a position behind it is committed.
    pub fn unseen(&self) -> Option<&Unseen> {
        self.unseen.as_ref()
    }

    /// Where a look that begins now has to end: at the acked prefix.
    pub fn seen_to(&self) -> Unseen {
        let to = self.window.target_next();
        Unseen { from: to, numberings: self.numberings.all().to_vec(), to }
    }

    /// The target was looked at up to there.
    pub fn on_seen(&mut self, end: Unseen) {
        Unseen::shrink(&mut self.unseen, end);
    }

    /// What is to be counted off yet.
    pub fn counts_off(&self) -> Option<CountsOff> {
        let left = self.replay.as_ref()?.left();
        let end = |(id, records): &(i64, i32)| {
            Some((*id, advance(self.numberings.acked(*id)?, *records)))
        };
        let records = left.iter().try_fold(0_i32, |sum, (_, records)| sum.checked_add(*records))?;
        let ends = left.iter().filter_map(end).collect();
        Some(CountsOff { ends, records, target_end: self.window.target_next() })
    }

    /// The target holds everything before `next_offset`, as records that are in both logs show: nothing is left to count off.
    pub fn counted_off(&mut self, next_offset: i64, leader_epoch: i32) {
        let Some(CountsOff { ends, records, .. }) = self.counts_off() else { return };
        self.note_former(self.fetch_offset()..next_offset, records);
        self.replay = None;
        for (producer_id, end) in ends {
            self.numberings.set_acked(producer_id, end);
        }
        self.numberings.rewind();
        self.skip_to(next_offset, leader_epoch);
    }

    /// What a replay that has just ended left of its last batch was written anew, and is all that waits: `hold` counts it as that.
    pub fn hold_rest(&mut self, hold: impl Fn(Bytes) -> Bytes) {
        for rest in &mut self.queue {
            rest.batch = hold(std::mem::take(&mut rest.batch));
        }
    }

    /// Of these source offsets, a former life had copied so many records.
    pub fn note_former(&mut self, source: Range<i64>, records: i32) {
        if !source.is_empty() {
            let spans = Spans::from_iter([Span { source, records }]);
            self.map.note_found(&spans, records, None, self.window.target_next());
        }
    }

    /// The target was read back (R2, R3): `last_sequences` are those of the last records it holds of our numberings, by
    /// producer id, above the acked prefix; `target_end` is its log end, all of it replicated. What is there is settled,
    /// the rest goes back to the head of the queue under the same numbers. `landed` says where it is there.
    ///
    /// A last sequence that is not the end of a batch in flight means that somebody else writes under our numbers.
    pub fn on_resynced(
        &mut self,
        last_sequences: &BTreeMap<i64, i32>,
        landed: &Landed,
        target_end: i64,
    ) -> Result<Vec<Settled>, NotOurs> {
        let mut settled = Vec::new();
        for (producer_id, last) in last_sequences {
            let (end, last) = (advance(*last, 1), *last);
            if self.numberings.acked(*producer_id) != Some(end) {
                // All that is in flight is of one numbering: a batch of another is not ours.
                let ends_at = |f: &Flight| {
                    f.outgoing.producer_id == *producer_id
                        && advance(f.sequence, f.outgoing.records) == end
                };
                let position = self.flight.iter().position(ends_at).ok_or(NotOurs { last })?;
                for Flight { outgoing, sequence } in self.flight.iter().take(position + 1) {
                    let places = landed.pieces(*producer_id, *sequence, outgoing.records);
                    let spans = &outgoing.spans;
                    self.map.note_found(spans, outgoing.records, places, target_end);
                }
                settled.extend((0..=position).filter_map(|_| self.settle_front()));
            }
        }
        if !planted(Canary::NumbersGoOn) {
            self.numberings.rewind();
        }
        if planted(Canary::FlightForgotten) {
            self.flight.clear();
        }
        self.unsend();
        self.window.on_resynced(target_end);
        Ok(settled)
    }
}

/// The target's last sequence under our id ends no batch that we sent: another instance writes, or settings differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOurs {
    /// The sequence that was found.
    pub last: i32,
}
