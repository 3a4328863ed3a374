//! Which source offsets the records of a batch have: one after the other from a first one, unless the batch had holes. PURE.

use std::ops::Range;

use crate::limits;

/// A stretch of source offsets, and how many records are in it.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Span {
    /// Source offsets.
    pub source: Range<i64>,
    /// Records; fewer than offsets where holes are not told apart.
    pub records: i32,
}

impl Span {
    /// So many records from `start` on, one an offset.
    pub fn contiguous(start: i64, records: i32) -> Self {
        Self { source: start..start.saturating_add(records.into()), records }
    }

    /// Each offset has a record.
    pub fn is_exact(&self) -> bool {
        self.source.end - self.source.start == i64::from(self.records)
    }
}

/// The source offsets of a batch's records, in their order.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub enum Spans {
    /// From here on, one a record.
    From(i64),
    /// In stretches.
    Many(Box<[Span]>),
}

impl From<i64> for Spans {
    fn from(start: i64) -> Self {
        Self::From(start)
    }
}

impl Spans {
    /// The first source offset, where each record has the offset after the one before it.
    pub fn start(&self) -> Option<i64> {
        match self {
            Self::From(start) => Some(*start),
            Self::Many(_) => None,
        }
    }

    /// Those of `take` records behind the first `skip`. A stretch with untold holes that is cut stays whole on both sides.
    pub fn pieces(&self, skip: i32, take: i32) -> impl Iterator<Item = Span> {
        let one = match self {
            Self::From(start) => Some(Span::contiguous(start.saturating_add(skip.into()), take)),
            Self::Many(_) => None,
        };
        let many = match self {
            Self::From(_) => &[],
            Self::Many(spans) => &spans[..],
        };
        let mut before = 0;
        let cut = move |span: &Span| {
            let first = (skip - before).clamp(0, span.records);
            let last = (skip.saturating_add(take) - before).clamp(0, span.records);
            before += span.records;
            let source = if span.is_exact() {
                span.source.start + i64::from(first)..span.source.start + i64::from(last)
            } else {
                span.source.clone()
            };
            (last > first).then_some(Span { source, records: last - first })
        };
        one.filter(|span| span.records > 0).into_iter().chain(many.iter().filter_map(cut))
    }

    /// [`Spans::pieces`], kept.
    pub fn slice(&self, skip: i32, take: i32) -> Self {
        self.pieces(skip, take).collect()
    }
}

impl FromIterator<Span> for Spans {
    /// Of more than [`limits::BATCH_SPANS_MAX`] stretches, neighbours are joined two by two.
    fn from_iter<T: IntoIterator<Item = Span>>(spans: T) -> Self {
        let mut kept: Vec<Span> = Vec::new();
        for span in spans {
            match kept.last_mut() {
                Some(last)
                    if last.is_exact()
                        && span.is_exact()
                        && last.source.end == span.source.start =>
                {
                    last.source.end = span.source.end;
                    last.records += span.records;
                }
                _ => kept.push(span),
            }
            if kept.len() > limits::BATCH_SPANS_MAX {
                let join = |pair: &[Span]| Span {
                    source: pair[0].source.start..pair[pair.len() - 1].source.end,
                    records: pair.iter().map(|span| span.records).sum(),
                };
                kept = kept.chunks(2).map(join).collect();
            }
        }
        match &kept[..] {
            [only] if only.is_exact() => Self::From(only.source.start),
            _ => Self::Many(kept.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(offsets: impl IntoIterator<Item = i64>) -> Spans {
        offsets.into_iter().map(|offset| Span::contiguous(offset, 1)).collect()
    }

    #[test]
    fn offsets_without_a_hole_are_a_first_one() {
        assert_eq!(of(5..900), Spans::From(5));
        assert_eq!(Spans::From(5).slice(3, 4), Spans::From(8));
        assert_eq!(Spans::From(5).pieces(0, 0).count(), 0);
    }

    #[test]
    fn holes_are_kept_and_cut() {
        let spans = of([1, 2, 5, 6, 7, 20]);
        let slice: Vec<_> = spans.pieces(1, 3).collect();
        assert_eq!(slice, [Span::contiguous(2, 1), Span::contiguous(5, 2)]);
        assert_eq!(spans.slice(5, 9), Spans::From(20));
    }

    #[test]
    fn of_too_many_holes_the_order_and_the_count_remain() {
        let spans = of((0..10_000).map(|n| n * 2));
        let all: Vec<_> = spans.pieces(0, 10_000).collect();
        assert!(all.len() <= limits::BATCH_SPANS_MAX && !all[0].is_exact());
        assert_eq!(all.iter().map(|span| span.records).sum::<i32>(), 10_000);
        assert!(all.windows(2).all(|pair| pair[0].source.end <= pair[1].source.start));
    }
}
