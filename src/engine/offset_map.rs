//! Where each source offset is on the target: the ack of a batch names its place, so the map is exact; it is kept as runs,
//! in bounded memory. PURE.
//!
//! A run is a stretch of source offsets that were copied one after the other to a stretch of target offsets. A topic without
//! holes and without other writers is one run for ever. Between two runs of the source lies what was passed over by rule;
//! between two of the target, what others wrote.
//!
//! At most [`limits::OFFSET_RUNS_MAX`] runs are kept. When there are more, the older half is joined two by two: nothing is
//! forgotten, but what is old is known only to lie between two places, which are the further apart the older it is.

use std::collections::VecDeque;
use std::ops::Range;

use crate::limits;
use crate::wire::spans::Spans;

/// A stretch of source offsets and the stretch of target offsets that holds their copies.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Run {
    /// Source offsets.
    pub source: Range<i64>,
    /// Target offsets.
    pub target: Range<i64>,
    /// The n-th of the one is the n-th of the other. Else only: what was copied of the one lies in the other.
    pub exact: bool,
}

impl Run {
    /// Both, no longer told apart.
    pub fn join(&mut self, other: &Self) {
        self.source =
            self.source.start.min(other.source.start)..self.source.end.max(other.source.end);
        self.target =
            self.target.start.min(other.target.start)..self.target.end.max(other.target.end);
        self.exact = false;
    }
}

/// Where a source offset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Place {
    /// Here.
    Exact {
        /// Target offset.
        target_offset: i64,
    },
    /// It is known no better: if it was copied, it is one of these.
    Between {
        /// Lowest target offset.
        target_offset_first: i64,
        /// Highest target offset.
        target_offset_last: i64,
    },
    /// Not copied, by rule: a marker, an aborted record, one that another Strait brought, an offset without a record.
    Skipped {
        /// The next source offset that was copied; none if none was yet.
        next_source_offset: Option<i64>,
        /// Where that is; without one, the lowest offset at which the next copy can be.
        next_target_offset: i64,
    },
    /// Not copied and committed yet.
    NotYet {
        /// Everything below is.
        committed_offset: i64,
    },
    /// Copied, if at all, before the map begins.
    Older {
        /// First source offset that the map knows.
        known_from: i64,
    },
}

/// The map of one mirror.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct OffsetMap {
    begins: i64,
    runs: VecDeque<Run>,
}

impl OffsetMap {
    /// Knows nothing of what lies below `begins`.
    pub fn new(begins: i64) -> Self {
        Self { begins, runs: VecDeque::new() }
    }

    /// With these runs, oldest first.
    pub fn with(begins: i64, runs: impl IntoIterator<Item = Run>) -> Self {
        let mut map = Self::new(begins);
        runs.into_iter().for_each(|run| map.push(run));
        map
    }

    /// First source offset that it knows.
    pub fn begins(&self) -> i64 {
        self.begins
    }

    /// Oldest first.
    pub fn runs(&self) -> impl DoubleEndedIterator<Item = &Run> {
        self.runs.iter()
    }

    /// Records with these source offsets lie on the target in these pieces (first offset, records), in the same order.
    pub fn note(
        &mut self,
        spans: &Spans,
        records: i32,
        pieces: impl IntoIterator<Item = (i64, i32)>,
    ) {
        let mut done = 0;
        for (target, count) in pieces {
            let count = count.min(records - done);
            let mut start = target;
            for span in spans.pieces(done, count) {
                let end = start.saturating_add(span.records.into());
                let exact = span.is_exact();
                self.push(Run { source: span.source, target: start..end, exact });
                start = end;
            }
            done += count;
        }
    }

    /// Records with these source offsets lie somewhere behind what is known and below `target_end`.
    pub fn note_somewhere(&mut self, spans: &Spans, records: i32, target_end: i64) {
        let start = self.runs.back().map_or(0, |run| run.target.end).min(target_end);
        for span in spans.pieces(0, records) {
            self.push(Run { source: span.source, target: start..target_end, exact: false });
        }
    }

    /// The same for records that were found on the target, at these places where the read-back told them.
    pub fn note_found(
        &mut self,
        spans: &Spans,
        records: i32,
        places: Option<Vec<(i64, i32)>>,
        target_end: i64,
    ) {
        match places {
            Some(places) => self.note(spans, records, places),
            None => self.note_somewhere(spans, records, target_end),
        }
    }

    fn push(&mut self, run: Run) {
        if let Some(last) = self.runs.back_mut() {
            let follows =
                last.source.end == run.source.start && last.target.end == run.target.start;
            if last.exact && run.exact && follows {
                last.source.end = run.source.end;
                last.target.end = run.target.end;
                return;
            }
            if run.source.start < last.source.end || run.target.start < last.target.end {
                last.join(&run);
                return;
            }
        }
        self.runs.push_back(run);
        if self.runs.len() > limits::OFFSET_RUNS_MAX {
            self.thin();
        }
    }

    /// Joins the older half two by two.
    fn thin(&mut self) {
        let newer = self.runs.split_off(self.runs.len() / 2);
        let mut older: VecDeque<Run> = VecDeque::new();
        for (n, run) in self.runs.drain(..).enumerate() {
            match older.back_mut() {
                Some(last) if n % 2 == 1 => last.join(&run),
                _ => older.push_back(run),
            }
        }
        older.extend(newer);
        self.runs = older;
    }

    /// Where a source offset is, of a mirror whose committed position is this and whose copies end at `target_end`.
    pub fn place(&self, offset: i64, committed_offset: i64, target_end: i64) -> Place {
        if offset >= committed_offset {
            return Place::NotYet { committed_offset };
        }
        if offset < self.begins {
            return Place::Older { known_from: self.begins };
        }
        // Ends increase.
        let at = self.runs.partition_point(|run| run.source.end <= offset);
        match self.runs.get(at) {
            None => Place::Skipped { next_source_offset: None, next_target_offset: target_end },
            Some(run) if run.source.start > offset => Place::Skipped {
                next_source_offset: Some(run.source.start),
                next_target_offset: run.target.start,
            },
            Some(run) if run.exact => {
                Place::Exact { target_offset: run.target.start + (offset - run.source.start) }
            }
            Some(run) => Place::Between {
                target_offset_first: run.target.start,
                target_offset_last: (run.target.end - 1).max(run.target.start),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::spans::Span;

    fn spans(spans: &[(i64, i32)]) -> Spans {
        let span = |(start, records): &(i64, i32)| Span::contiguous(*start, *records);
        spans.iter().map(span).collect()
    }

    fn at(map: &OffsetMap, offset: i64) -> Place {
        map.place(offset, 1 << 40, 1 << 40)
    }

    #[test]
    fn a_topic_without_holes_is_one_run_for_ever() {
        let mut map = OffsetMap::new(100);
        for base in (100..100_000).step_by(10) {
            map.note(&Spans::from(base), 10, [(base - 93, 10)]);
        }
        assert_eq!(map.runs().count(), 1);
        assert_eq!(at(&map, 5_000), Place::Exact { target_offset: 4_907 });
        assert_eq!(at(&map, 99), Place::Older { known_from: 100 });
        let not_yet = Place::NotYet { committed_offset: 5_000 };
        assert_eq!(map.place(5_000, 5_000, 4_907), not_yet);
    }

    #[test]
    fn holes_foreign_records_and_a_batch_in_two_places_are_kept_exactly() {
        let mut map = OffsetMap::new(0);
        map.note(&spans(&[(0, 2), (5, 3)]), 5, [(10, 5)]);
        map.note(&Spans::from(9), 4, [(15, 1), (20, 3)]);
        for (offset, target_offset) in
            [(0, 10), (1, 11), (5, 12), (7, 14), (9, 15), (10, 20), (12, 22)]
        {
            assert_eq!(at(&map, offset), Place::Exact { target_offset }, "{offset}");
        }
        let skipped = |source, next_target_offset| Place::Skipped {
            next_source_offset: Some(source),
            next_target_offset,
        };
        assert_eq!((at(&map, 2), at(&map, 8)), (skipped(5, 12), skipped(9, 15)));
        let end = Place::Skipped { next_source_offset: None, next_target_offset: 23 };
        assert_eq!(map.place(13, 14, 23), end);
    }

    #[test]
    fn more_runs_than_are_kept_lose_precision_by_age_and_nothing_else() {
        let mut map = OffsetMap::new(0);
        let count = 10_000;
        for n in 0..count {
            map.note(&Spans::from(n * 3), 2, [(n * 2, 2)]);
            assert!(map.runs().count() <= limits::OFFSET_RUNS_MAX);
        }
        for n in 0..count {
            match at(&map, n * 3 + 1) {
                Place::Exact { target_offset } => assert_eq!(target_offset, n * 2 + 1),
                Place::Between { target_offset_first: first, target_offset_last: last } => {
                    assert!((first..=last).contains(&(n * 2 + 1)), "{n}: {first}..{last}");
                    assert!(n < count - limits::OFFSET_RUNS_MAX as i64 / 2, "{n} is young");
                }
                other => panic!("{n}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_was_lost_of_an_answer_lies_between_what_is_known() {
        let mut map = OffsetMap::new(0);
        map.note(&Spans::from(0), 5, [(0, 5)]);
        map.note_somewhere(&Spans::from(5), 5, 20);
        map.note(&Spans::from(10), 5, [(15, 5)]);
        let between = Place::Between { target_offset_first: 5, target_offset_last: 19 };
        assert_eq!((at(&map, 7), at(&map, 12)), (between, between));
        map.note(&Spans::from(15), 5, [(20, 5)]);
        assert_eq!(at(&map, 15), Place::Exact { target_offset: 20 });
    }
}
