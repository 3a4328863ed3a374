//! The stretch between a commit and what the target already holds: after a crash it is read again from the source, counted
//! off, and not sent. PURE.
//!
//! How many records to count off is read from the target's log (the last sequence of our lineage). A count alone would drop
//! the wrong records if the source had changed below it, so the last one that is dropped is compared with the last one
//! that the target holds: key, value, headers, time (rule R4).

use bytes::Bytes;

use super::identity::{advance, distance};
use super::landed::Landed;
use super::mirror::Outgoing;
use crate::limits;
use crate::wire::recode::{Recode, Recoded, Times};
use crate::wire::records::{OpenBatch, RecordsError};
use crate::wire::spans::Spans;

/// What is left to count off.
#[derive(Debug)]
pub struct Replay {
    records_left: i32,
    /// The last batch of our lineage on the target.
    last: Bytes,
    /// Where the target holds what is counted off.
    landed: Landed,
    /// The target replaces the records' times.
    times_differ: bool,
}

/// The target's last sequence lies below the commit's: somebody else writes under our numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BehindTheCommit;

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
    /// From the sequence after the committed offset and the target's last batch and sequence; none if the target holds
    /// nothing more than the commit.
    pub fn new(
        next_sequence: i32,
        last_sequence: i32,
        last: Bytes,
        landed: Landed,
        times_differ: bool,
    ) -> Result<Option<Self>, BehindTheCommit> {
        let end = advance(last_sequence, 1);
        let records_left = distance(next_sequence, end);
        if records_left > i32::MAX / 2 {
            return Err(BehindTheCommit);
        }
        Ok((records_left > 0).then_some(Self { records_left, last, landed, times_differ }))
    }

    /// Where the target holds records that are counted off.
    pub fn landed(&self) -> &Landed {
        &self.landed
    }

    /// Counts off a batch, in the order of the source.
    pub fn take(&mut self, outgoing: &Outgoing) -> Result<Replayed, RecordsError> {
        if self.records_left > outgoing.records {
            self.records_left -= outgoing.records;
            return Ok(Replayed::Whole);
        }
        let keep = usize::try_from(self.records_left).unwrap_or(0);
        let mut source = OpenBatch::open(&outgoing.batch, limits::RECODE_BYTES_MAX)?;
        // What is stamped shows the producers' times on the target, whoever set those of the source.
        source.show_producer_times();
        let target = OpenBatch::open(&self.last, limits::RECODE_BYTES_MAX)?;
        let mut rest = source.records().skip(keep.saturating_sub(1));
        let ours = rest.next().transpose()?;
        let theirs = target.records().last().transpose()?;
        let (Some(ours), Some(theirs)) = (ours, theirs) else { return Ok(Replayed::Differs) };
        let same_time = self.times_differ || ours.timestamp == theirs.timestamp;
        if ours.body != theirs.body || !same_time {
            return Ok(Replayed::Differs);
        }
        let Some(next) = rest.next().transpose()? else { return Ok(Replayed::Ended(Vec::new())) };
        // One part: should it have grown past what the target takes, it is cut when the target says so.
        let batch_bytes_max = limits::FETCH_FRAME_BYTES_MAX;
        let recode = Recode { times: Times::Producer, batch_bytes_max };
        let parts = recode.run(&outgoing.batch, |offset| offset >= next.offset)?;
        let mut done = self.records_left;
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests_support::batch;
    use tokio::time::Instant;

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
        }
    }

    fn replay(next_sequence: i32, last_sequence: i32, last: Bytes) -> Option<Replay> {
        Replay::new(next_sequence, last_sequence, last, Landed::default(), false)
            .expect("not behind")
    }

    #[test]
    fn nothing_is_counted_off_where_the_target_holds_no_more_than_the_commit() {
        assert!(replay(7, 6, batch(0, 1)).is_none());
        assert!(replay(0, i32::MAX, batch(0, 1)).is_none(), "sequences wrap");
    }

    #[test]
    fn a_target_behind_the_commit_is_not_counted_off_for_ever() {
        let behind = Replay::new(50_005, 40_009, batch(0, 1), Landed::default(), false);
        assert_eq!(behind.err(), Some(BehindTheCommit));
    }

    #[test]
    fn whole_batches_are_counted_off_and_the_last_is_compared() {
        let mut replay = replay(10, 15, batch(0, 3)).expect("six records");
        assert!(matches!(replay.take(&outgoing(0, 3)), Ok(Replayed::Whole)));
        let ended = replay.take(&outgoing(3, 3)).expect("readable");
        assert!(matches!(ended, Replayed::Ended(rest) if rest.is_empty()));
    }

    #[test]
    fn the_rest_of_a_batch_that_the_target_holds_in_part_is_sent() {
        let mut replay = replay(0, 1, batch(0, 2)).expect("two records");
        let Ok(Replayed::Ended(rest)) = replay.take(&outgoing(0, 5)) else { panic!("ended") };
        assert_eq!(rest.iter().map(|o| (o.records, o.next_offset)).collect::<Vec<_>>(), [(3, 5)]);
        assert_eq!(rest[0].spans, 2.into());
    }

    #[test]
    fn another_record_in_the_place_of_the_last_is_noticed() {
        let mut replay = replay(0, 2, batch(0, 2)).expect("three records");
        assert!(matches!(replay.take(&outgoing(0, 3)), Ok(Replayed::Differs)), "another time");
        let replay = Replay::new(0, 2, batch(0, 2), Landed::default(), true).expect("not behind");
        let mut replay = replay.expect("three records");
        assert!(matches!(replay.take(&outgoing(0, 3)), Ok(Replayed::Differs)), "another body");
    }
}
