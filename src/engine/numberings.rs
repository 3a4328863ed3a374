//! The numberings of one mirror: one for each origin whose records it passes on, since the origin is part of the producer id.
//! PURE.
//!
//! A broker keeps the batches of one id in order, and knows nothing of the order between two ids. That order is kept here, by
//! the rule that all batches in flight are of one numbering: where the next batch is of another, the window drains first, and
//! opens again by proof, for the broker's state of the other id is another state (I2, W1). What follows from it:
//!
//! - A doubt is about one numbering, the current one. The read-back after it looks for all of them nevertheless: a batch of
//!   another one behind the acked prefix can only be another instance's.
//! - What the target holds after a crash is a prefix of what the source has behind the commit. It is counted off numbering by
//!   numbering in the order of the source; where the source has a batch of a numbering of which nothing is left to count, before
//!   the others are through, the two logs differ (`replay.rs`).
//! - A batch of a numbering that is not on record waits at the head of the queue until everything before it is acknowledged;
//!   then the numbering is committed with the anchor, and only then used (R7). No start can take it for a free one, and no
//!   batch of it can be on the target without an anchor that says so.
//!
//! The price is a round trip or two at each change of origin.

use super::anchor::Numbering;
use super::identity::advance;
use super::mirror::Lineage;

/// All of them, and which one is in use.
#[derive(Clone, Debug, Hash)]
pub struct Numberings {
    /// `next_sequence` is that behind the acked prefix.
    all: Vec<Numbering>,
    current: usize,
    /// Behind what was sent, of the current one.
    next_sequence: i32,
}

impl Numberings {
    /// As the anchor has them, with nothing sent behind it.
    pub fn new(all: Vec<Numbering>) -> Self {
        let next_sequence = all.first().map_or(0, |first| first.next_sequence);
        Self { all, current: 0, next_sequence }
    }

    /// As they stand at the acked prefix.
    pub fn all(&self) -> &[Numbering] {
        &self.all
    }

    /// One more, on record now.
    pub fn open(&mut self, numbering: Numbering) {
        self.all.push(numbering);
        if self.all.len() == 1 {
            self.next_sequence = numbering.next_sequence;
        }
    }

    /// Whether it is on record.
    pub fn has(&self, producer_id: i64) -> bool {
        self.all.iter().any(|numbering| numbering.producer_id == producer_id)
    }

    /// Whether it is the one in use.
    pub fn is_current(&self, producer_id: i64) -> bool {
        self.current_one().is_some_and(|current| current.producer_id == producer_id)
    }

    fn current_one(&self) -> Option<&Numbering> {
        self.all.get(self.current)
    }

    /// The numbering in use and the sequence of the record that is sent next under it.
    pub fn next(&self) -> Option<(Lineage, i32)> {
        Some((self.current_one()?.lineage(), self.next_sequence))
    }

    /// Uses another one; only while nothing is in flight.
    pub fn change_to(&mut self, producer_id: i64) {
        if let Some(at) = self.all.iter().position(|n| n.producer_id == producer_id) {
            self.current = at;
            self.next_sequence = self.all[at].next_sequence;
        }
    }

    /// So many records were sent.
    pub fn sent(&mut self, records: i32) {
        self.next_sequence = advance(self.next_sequence, records);
    }

    /// The sequence behind the acked prefix.
    pub fn acked(&self, producer_id: i64) -> Option<i32> {
        let of = self.all.iter().find(|numbering| numbering.producer_id == producer_id)?;
        Some(of.next_sequence)
    }

    /// The acked prefix reaches this sequence.
    pub fn set_acked(&mut self, producer_id: i64, next_sequence: i32) {
        if let Some(of) = self.all.iter_mut().find(|n| n.producer_id == producer_id) {
            of.next_sequence = next_sequence;
        }
    }

    /// Nothing is in flight: the next record follows the acked prefix.
    pub fn rewind(&mut self) {
        self.next_sequence = self.current_one().map_or(0, |current| current.next_sequence);
    }
}
