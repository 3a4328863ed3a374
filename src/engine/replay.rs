//! The stretch between a commit and what the target already holds: after a crash it is read again from the source, counted
//! off, and not sent. PURE.
//!
//! How many records to count off is read from the target's log (the last sequence of each of our numberings). A count alone would drop
//! the wrong records if the source had changed below it, so the last one that is dropped is compared with the last one
//! that the target holds: key, value, headers, time (rule R4).

use bytes::Bytes;

use super::anchor::Numbering;
use super::identity::{advance, distance};
use super::joining::Joining;
use super::landed::Landed;
use super::mirror::Outgoing;
use super::walk::Seen;
use crate::canary::{Canary, planted};
use crate::limits;
use crate::wire::recode::{Recode, Recoded, Times};
use crate::wire::records::{OpenBatch, RecordsError};
use crate::wire::spans::Spans;

/// What is left to count off.
#[derive(Clone, Debug, Hash)]
pub struct Replay {
    /// By producer id.
    left: Vec<(i64, i32)>,
    /// The last batch of ours on the target, and its producer id.
    last: (i64, Bytes),
    /// Where the target holds what is counted off.
    landed: Landed,
    /// The target replaces the records' times.
    times_differ: bool,
}

/// The target's last sequence lies below the commit's: somebody else writes under our numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BehindTheCommit {
    /// The target's.
    pub last_sequence: i32,
    /// The commit's.
    pub next_sequence: i32,
}

/// What became of a source batch in a replay.
#[derive(Debug)]
pub enum Replayed {
    /// The target holds it whole; more is to come.
    Whole,
    /// The target holds it, or its beginning, and nothing after. The rest is to be sent.
    Ended(Vec<Outgoing>),
    /// The record that should be the target's last is another: the source changed, or somebody else wrote.
    Differs,
}

impl Replay {
    /// From the numberings at the committed offset and what the target holds of them; none if it holds nothing more than
    /// the commit.
    pub fn new(
        numberings: &[Numbering],
        seen: Seen,
        times_differ: bool,
    ) -> Result<Option<Self>, BehindTheCommit> {
        let Some(last) = seen.last else { return Ok(None) };
        let mut left = Vec::new();
        for (producer_id, last_sequence) in seen.last_sequences {
            let of = numberings.iter().find(|numbering| numbering.producer_id == producer_id);
            let Some(Numbering { next_sequence, .. }) = of.copied() else { continue };
            let records = distance(next_sequence, advance(last_sequence, 1));
            if records > i32::MAX / 2 {
                return Err(BehindTheCommit { last_sequence, next_sequence });
            }
            left.push((producer_id, records));
        }
        let some = left.iter().any(|(_, records)| *records > 0);
        Ok(some.then_some(Self { left, last, landed: seen.landed, times_differ }))
    }

    /// Where the target holds records that are counted off.
    pub fn landed(&self) -> &Landed {
        &self.landed
    }

    /// What is left, by producer id.
    pub fn left(&self) -> &[(i64, i32)] {
        &self.left
    }

    /// Counts off a batch, in the order of the source.
    pub fn take(&mut self, outgoing: &Outgoing) -> Result<Replayed, RecordsError> {
        let of = self.left.iter_mut().find(|(id, left)| *id == outgoing.producer_id && *left > 0);
        let Some((_, left)) = of else { return Ok(Replayed::Differs) };
        let counted = outgoing.records.min(*left);
        *left -= counted;
        if self.left.iter().any(|(_, left)| *left > 0) {
            // The target has records of another origin behind this batch, and so all of this batch.
            let whole = counted == outgoing.records;
            return Ok(if whole { Replayed::Whole } else { Replayed::Differs });
        }
        if self.last.0 != outgoing.producer_id {
            return Ok(Replayed::Differs);
        }
        let keep = usize::try_from(counted).unwrap_or(0);
        let mut source = OpenBatch::open(&outgoing.batch, limits::RECODE_BYTES_MAX)?;
        // What is stamped shows the producers' times on the target, whoever set those of the source.
        source.show_producer_times();
        let target = OpenBatch::open(&self.last.1, limits::RECODE_BYTES_MAX)?;
        let mut rest = source.records().skip(keep.saturating_sub(1));
        let ours = rest.next().transpose()?;
        let theirs = target.records().last().transpose()?;
        let (Some(ours), Some(theirs)) = (ours, theirs) else { return Ok(Replayed::Differs) };
        let same_time = self.times_differ || ours.timestamp == theirs.timestamp;
        if (ours.body != theirs.body || !same_time) && !planted(Canary::CountedBlind) {
            return Ok(Replayed::Differs);
        }
        let Some(next) = rest.next().transpose()? else { return Ok(Replayed::Ended(Vec::new())) };
        // One part: should it have grown past what the target takes, it is cut when the target says so.
        let batch_bytes_max = limits::FETCH_FRAME_BYTES_MAX;
        let recode = Recode { times: Times::Producer, batch_bytes_max };
        let parts = recode.run(&outgoing.batch, |offset| offset >= next.offset)?;
        let mut done = counted;
        let rest = parts.into_iter().map(|part| {
            let spans = outgoing.spans.slice(done, part.records_count);
            done += part.records_count;
            rest_of(outgoing, part, spans)
        });
        Ok(Replayed::Ended(rest.collect()))
    }
}

fn rest_of(whole: &Outgoing, part: Recoded, spans: Spans) -> Outgoing {
    Outgoing {
        next_offset: whole.next_offset,
        leader_epoch: whole.leader_epoch,
        records: part.records_count,
        max_timestamp: whole.max_timestamp,
        batch: part.bytes,
        fetched_at: whole.fetched_at,
        ends_place: true,
        spans,
        producer_id: whole.producer_id,
        joining: Joining::Free,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests_support::batch;
    use tokio::time::Instant;

    const ID: i64 = 1 << 62;
    const OTHER: i64 = (1 << 62) + 1;

    fn outgoing(base: i64, records: i32) -> Outgoing {
        Outgoing {
            batch: batch(base, records),
            next_offset: base + i64::from(records),
            leader_epoch: 1,
            records,
            max_timestamp: 0,
            fetched_at: Instant::now(),
            ends_place: true,
            spans: base.into(),
            producer_id: ID,
            joining: Joining::Free,
        }
    }

    fn numbering(producer_id: i64, next_sequence: i32) -> Numbering {
        Numbering { producer_id, producer_epoch: 0, next_sequence }
    }

    fn seen(last_sequences: &[(i64, i32)], last: (i64, Bytes)) -> Seen {
        let last_sequences = last_sequences.iter().copied().collect();
        Seen { last_sequences, last: Some(last), ..Seen::nothing(0) }
    }

    fn new(next: i32, last_sequence: i32, last: Bytes) -> Result<Option<Replay>, BehindTheCommit> {
        Replay::new(&[numbering(ID, next)], seen(&[(ID, last_sequence)], (ID, last)), false)
    }

    #[test]
    fn nothing_is_counted_off_where_the_target_holds_no_more_than_the_commit() {
        assert!(new(7, 6, batch(0, 1)).expect("not behind").is_none());
        assert!(new(0, i32::MAX, batch(0, 1)).expect("not behind").is_none(), "sequences wrap");
    }

    #[test]
    fn a_target_behind_the_commit_is_not_counted_off_for_ever() {
        let behind = BehindTheCommit { last_sequence: 40_009, next_sequence: 50_005 };
        assert_eq!(new(50_005, 40_009, batch(0, 1)).err(), Some(behind));
    }

    #[test]
    fn whole_batches_are_counted_off_and_the_last_is_compared() {
        let mut replay = new(10, 15, batch(0, 3)).expect("not behind").expect("six records");
        assert!(matches!(replay.take(&outgoing(0, 3)), Ok(Replayed::Whole)));
        let ended = replay.take(&outgoing(3, 3)).expect("readable");
        assert!(matches!(ended, Replayed::Ended(rest) if rest.is_empty()));
    }

    #[test]
    fn the_rest_of_a_batch_that_the_target_holds_in_part_is_sent() {
        let mut replay = new(0, 1, batch(0, 2)).expect("not behind").expect("two records");
        let Ok(Replayed::Ended(rest)) = replay.take(&outgoing(0, 5)) else { panic!("ended") };
        assert_eq!(rest.iter().map(|o| (o.records, o.next_offset)).collect::<Vec<_>>(), [(3, 5)]);
        assert_eq!(rest[0].spans, 2.into());
    }

    #[test]
    fn another_record_in_the_place_of_the_last_is_noticed() {
        let mut replay = new(0, 2, batch(0, 2)).expect("not behind").expect("three records");
        assert!(matches!(replay.take(&outgoing(0, 3)), Ok(Replayed::Differs)), "another time");
        let seen = seen(&[(ID, 2)], (ID, batch(0, 2)));
        let replay = Replay::new(&[numbering(ID, 0)], seen, true).expect("not behind");
        let mut replay = replay.expect("three records");
        assert!(matches!(replay.take(&outgoing(0, 3)), Ok(Replayed::Differs)), "another body");
    }

    #[test]
    fn origins_are_counted_off_in_the_order_of_the_source() {
        let of = |producer_id, base| Outgoing { producer_id, ..outgoing(base, 2) };
        let begin = |last: (i64, Bytes)| {
            let numberings = [numbering(ID, 10), numbering(OTHER, 20)];
            let replay = Replay::new(&numberings, seen(&[(ID, 13), (OTHER, 21)], last), false);
            replay.expect("not behind").expect("six records")
        };
        let mut replay = begin((ID, batch(0, 2)));
        assert!(matches!(replay.take(&of(ID, 0)), Ok(Replayed::Whole)));
        assert!(matches!(replay.take(&of(OTHER, 2)), Ok(Replayed::Whole)));
        assert!(matches!(replay.take(&of(ID, 4)), Ok(Replayed::Ended(_))));

        let mut replay = begin((ID, batch(0, 2)));
        assert!(matches!(replay.take(&of(OTHER, 0)), Ok(Replayed::Whole)));
        let more = replay.take(&of(OTHER, 2));
        assert!(matches!(more, Ok(Replayed::Differs)), "the target has one batch of it");

        let mut replay = begin((OTHER, batch(0, 2)));
        for base in [0, 2] {
            assert!(matches!(replay.take(&of(ID, base)), Ok(Replayed::Whole)));
        }
        assert!(matches!(replay.take(&of(OTHER, 4)), Ok(Replayed::Ended(_))));
        let mut replay = begin((ID, batch(0, 2)));
        for base in [0, 2] {
            assert!(matches!(replay.take(&of(ID, base)), Ok(Replayed::Whole)));
        }
        let last = replay.take(&of(OTHER, 4));
        assert!(matches!(last, Ok(Replayed::Differs)), "the target ends with another origin");
    }
}
