//! What a read-back keeps of the target's batches: the last of each of our numberings, and where they are (R3). PURE.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::anchor::Numbering;
use super::doubles::Double;
use super::identity::{advance, distance};
use super::landed::Landed;
use crate::limits;
use crate::wire::batch::BatchHeader;

/// What the target holds.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Seen {
    /// Sequence of the last record of each of our lineages at or above where we began to read, by producer id.
    pub last_sequences: BTreeMap<i64, i32>,
    /// The last batch of them all, and its producer id.
    pub last: Option<(i64, Bytes)>,
    /// Where on the target its batches are.
    pub landed: Landed,
    /// Producer ids whose last batch in the log had been there before: the leader may count on from that one.
    pub ends_behind: BTreeSet<i64>,
    /// The log end that was read to; everything below is replicated.
    pub target_end: i64,
}

impl Seen {
    /// Nothing of ours up to this log end.
    pub fn nothing(target_end: i64) -> Self {
        Self {
            last_sequences: BTreeMap::new(),
            last: None,
            landed: Landed::default(),
            ends_behind: BTreeSet::new(),
            target_end,
        }
    }
}

/// Our numbers jump: the target appended a batch behind one that it had refused, and that answer was lost (W3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The sequence that had to come.
    pub expected: i32,
    /// That of the batch which came.
    pub sequence: i32,
    /// Its target offset.
    pub offset: i64,
}

/// A walk over the target's batches, in their order, from the place of an anchor to a log end.
#[derive(Debug)]
pub struct Walk<'a> {
    from: &'a [Numbering],
    /// Holes are no wonder: the cleaner of a compacted topic may take batches away from between.
    holes: bool,
    seen: Seen,
    doubles: Vec<Double>,
    overtaken: bool,
}

impl<'a> Walk<'a> {
    /// From where these numberings stand.
    pub fn new(from: &'a [Numbering], compacted: bool, target_end: i64) -> Self {
        Self {
            from,
            holes: compacted,
            seen: Seen::nothing(target_end),
            doubles: Vec::new(),
            overtaken: false,
        }
    }

    /// Something here was deleted: what comes next need not follow.
    pub fn deleted(&mut self) {
        self.holes = true;
    }

    /// The next batch of the log. Gives how many of its records, the last ones, are new in one of the numberings.
    pub fn take(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<i32, Hole> {
        let producer_id = header.producer_id;
        let newer = |of: &Numbering| header.producer_epoch > of.producer_epoch;
        self.overtaken |= self.from.iter().any(|of| of.producer_id == producer_id && newer(of));
        let of = self.from.iter().find(|of| {
            of.producer_id == producer_id
                && of.producer_epoch >= header.producer_epoch
                && header.base_sequence >= 0
        });
        let Some(Numbering { next_sequence, producer_epoch, .. }) = of.copied() else {
            return Ok(0);
        };
        let seen = &mut self.seen;
        // An answer may hold more than there was when the end was asked for, and all of it is replicated: whoever counts a
        // batch begins behind it the next time, or would take it for one that came late.
        seen.target_end = seen.target_end.max(header.next_offset());
        let records = header.last_offset_delta.saturating_add(1);
        let first = header.base_sequence;
        let sequence = advance(first, header.last_offset_delta);
        let last = seen.last_sequences.get(&producer_id);
        let expected = last.map_or(next_sequence, |last| advance(*last, 1));
        // A request of a former life that came late, to a broker that held no state any more: it says nothing about where
        // the numbering ends. All of an older numbering was settled before this one began.
        if header.producer_epoch < producer_epoch || is_behind(sequence, expected) {
            seen.ends_behind.insert(producer_id);
            self.note_double(Double::of(header, records));
            return Ok(0);
        }
        let jumps = first != expected && !is_behind(first, expected);
        if jumps && !self.holes {
            return Err(Hole { expected, sequence: first, offset: header.base_offset });
        }
        let known = if is_behind(first, expected) { distance(first, expected) } else { 0 };
        if known > 0 {
            self.note_double(Double::of(header, known));
        }
        let seen = &mut self.seen;
        seen.ends_behind.remove(&producer_id);
        seen.last_sequences.insert(producer_id, sequence);
        // A copy: a slice would keep the whole frame alive.
        seen.last = Some((producer_id, Bytes::copy_from_slice(batch)));
        seen.landed.note(producer_id, first, records, header.base_offset);
        Ok(records - known)
    }

    /// Past [`limits::DOUBLES_MAX`] no crash of ours can be the reason.
    fn note_double(&mut self, double: Double) {
        if self.doubles.len() < limits::DOUBLES_MAX {
            self.doubles.push(double);
        }
    }

    /// Whether there is a newer numbering of one of the ids: another instance went on.
    pub fn is_overtaken(&self) -> bool {
        self.overtaken
    }

    /// What was there before, batch by batch.
    pub fn doubles(&self) -> &[Double] {
        &self.doubles
    }

    /// What was found.
    pub fn finish(self) -> Seen {
        self.seen
    }
}

/// Whether `sequence` comes before `next`, in a numbering that wraps: the nearer way round counts.
pub fn is_behind(sequence: i32, next: i32) -> bool {
    let ahead = (i64::from(sequence) - i64::from(next)) & i64::from(i32::MAX);
    ahead > i64::from(i32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::batch::HEADER_BYTES;
    use crate::wire::stamp::{self, Stamp};
    use crate::wire::tests_support::batch;

    const ID: i64 = 1 << 62;

    fn walked(sequences: &[(i32, i32)]) -> Result<Seen, Hole> {
        walked_to(100, sequences)
    }

    fn walked_to(target_end: i64, sequences: &[(i32, i32)]) -> Result<Seen, Hole> {
        let from = [Numbering { producer_id: ID, producer_epoch: 0, next_sequence: 10 }];
        let mut walk = Walk::new(&from, false, target_end);
        let mut end = 50;
        for (sequence, records) in sequences {
            let stamp = Stamp {
                producer_id: ID,
                producer_epoch: 0,
                base_sequence: *sequence,
                transactional: false,
            };
            let batch = batch(0, *records);
            let head = stamp::stamp(&batch, stamp).unwrap();
            let bytes = [&head[..], &batch[HEADER_BYTES..]].concat();
            let header = BatchHeader { base_offset: end, ..BatchHeader::parse(&bytes).unwrap() };
            walk.take(&header, &bytes)?;
            end += i64::from(*records);
        }
        Ok(walk.finish())
    }

    #[test]
    fn a_repeat_says_nothing_about_where_the_numbering_ends() {
        let plain = walked(&[(10, 2), (12, 1), (13, 2)]).unwrap();
        assert_eq!(plain.last_sequences[&ID], 14);
        assert!(plain.ends_behind.is_empty());
        // Of before the anchor, and of behind it.
        for repeat in [(8, 2), (10, 2), (12, 1)] {
            let seen = walked(&[(10, 2), (12, 1), repeat]).unwrap();
            assert_eq!((seen.last_sequences[&ID], seen.ends_behind.len()), (12, 1), "{repeat:?}");
            let more = walked(&[(10, 2), (12, 1), repeat, (13, 2)]).unwrap();
            assert_eq!((more.last_sequences[&ID], more.ends_behind.len()), (14, 0), "{repeat:?}");
        }
        let hole = Hole { expected: 12, sequence: 13, offset: 52 };
        assert_eq!(walked(&[(10, 2), (13, 2)]), Err(hole));
    }

    #[test]
    fn what_was_appended_while_it_was_read_is_behind_the_end_that_is_told() {
        let seen = walked_to(52, &[(10, 2), (12, 3)]).unwrap();
        assert_eq!((seen.last_sequences[&ID], seen.target_end), (14, 55));
        assert_eq!(walked_to(60, &[(10, 2), (12, 3)]).unwrap().target_end, 60);
    }

    #[test]
    fn what_was_there_before_is_told_with_its_place_and_a_newer_numbering_noticed() {
        let from = [Numbering { producer_id: ID, producer_epoch: 1, next_sequence: 10 }];
        let mut walk = Walk::new(&from, false, 100);
        let mut take = |base_offset, producer_epoch, base_sequence, records| {
            let stamp =
                Stamp { producer_id: ID, producer_epoch, base_sequence, transactional: false };
            let batch = batch(0, records);
            let head = stamp::stamp(&batch, stamp).unwrap();
            let bytes = [&head[..], &batch[HEADER_BYTES..]].concat();
            let header = BatchHeader { base_offset, ..BatchHeader::parse(&bytes).unwrap() };
            walk.take(&header, &bytes).unwrap();
            walk.is_overtaken()
        };
        assert!(!take(50, 1, 10, 4));
        assert!(!take(60, 1, 12, 2), "whole");
        assert!(!take(70, 1, 13, 3), "its first");
        assert!(!take(80, 0, 900, 5), "of an older numbering");
        assert!(take(90, 2, 0, 1), "of a newer one");
        let told: Vec<_> = walk.doubles().iter().map(|double| (double.from, double.to)).collect();
        assert_eq!(told, [(60, 62), (70, 71), (80, 85)]);
        assert_eq!(walk.finish().last_sequences[&ID], 15);
    }

    #[test]
    fn a_sequence_is_behind_when_it_is_nearer_that_way_round() {
        assert!(is_behind(19, 24) && is_behind(23, 24) && !is_behind(24, 24) && !is_behind(30, 24));
        assert!(is_behind(i32::MAX, 0) && !is_behind(0, i32::MAX) && !is_behind(3, i32::MAX - 2));
    }
}
