//! What must hold of every copy, however it came about: nothing lost, nothing invented or changed, order kept, aborted and
//! withheld records never visible, repeats counted. Knows no broker: whoever runs a copy brings what was written and what
//! was found.
//!
//! Records are told apart by their value, so every value that is written must be another one; tombstones by that of their
//! last header.

use std::collections::HashMap;
use std::fmt;

/// What a reader sees of a record, without its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Milliseconds since 1970.
    pub time: i64,
    /// None is null.
    pub key: Option<Vec<u8>>,
    /// None is null.
    pub value: Option<Vec<u8>>,
    /// In order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Content {
    /// What tells it apart.
    pub fn name(&self) -> Option<&Vec<u8>> {
        let header = || self.headers.last().and_then(|(_, value)| value.as_ref());
        self.value.as_ref().or_else(header)
    }
}

/// Whether a source record is to be on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is.
    Yes,
    /// Never: aborted, written by another mirror, or deleted before the copy began.
    Never,
    /// It may be, and need not: its transaction is open, or it was deleted or compacted away meanwhile.
    May,
}

/// A record of the source partition.
#[derive(Clone, Debug)]
pub struct Original {
    /// Source offset.
    pub offset: i64,
    /// Whether it must arrive.
    pub wanted: Wanted,
    /// What must arrive.
    pub content: Content,
}

/// A record of the target partition.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Target offset.
    pub offset: i64,
    /// Base offset of its batch.
    pub batch: i64,
    /// As readers see it.
    pub content: Content,
}

/// One thing that must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Breach {
    /// C1: a source offset that is not on the target.
    Lost(i64),
    /// C2: a target offset that no source record stands behind.
    Invented(i64),
    /// C2: a target offset whose key, value, headers or time differ from the source's.
    Changed(i64),
    /// C3: a target offset whose record came before one that precedes it at the source.
    Reordered(i64),
    /// C6: a target offset of a record that must never be copied.
    Withheld(i64),
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(at) => write!(f, "C1: source offset {at} is lost"),
            Self::Invented(at) => write!(f, "C2: target offset {at} is not of the source"),
            Self::Changed(at) => write!(f, "C2: target offset {at} differs from the source"),
            Self::Reordered(at) => write!(f, "C3: target offset {at} is out of order"),
            Self::Withheld(at) => write!(f, "C6: target offset {at} must not be there"),
        }
    }
}

/// What was found about one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What must not be, worst first.
    pub breaches: Vec<Breach>,
    /// C4: source offsets that are there more than once, one entry for each repeat, with its target batch.
    pub repeats: Vec<(i64, i64)>,
}

impl Verdict {
    /// Batches of the target that repeat something.
    pub fn repeated_batches(&self) -> usize {
        let mut batches: Vec<i64> = self.repeats.iter().map(|(_, batch)| *batch).collect();
        batches.dedup();
        batches.len()
    }
}

/// Compares one partition, up to source offset `upto` (what lies behind need not have arrived, but may). Both sides in the
/// order of their offsets.
pub fn check(originals: &[Original], copies: &[Copied], upto: i64) -> Verdict {
    let places: HashMap<_, _> =
        originals.iter().enumerate().map(|(at, original)| (original.content.name(), at)).collect();
    assert_eq!(places.len(), originals.len(), "every record must be another one");
    let mut verdict = Verdict::default();
    let mut there = vec![false; originals.len()];
    let mut next = 0;
    for copy in copies {
        let Some(&at) = places.get(&copy.content.name()) else {
            verdict.breaches.push(Breach::Invented(copy.offset));
            continue;
        };
        let original = &originals[at];
        if original.content != copy.content {
            verdict.breaches.push(Breach::Changed(copy.offset));
        }
        if original.wanted == Wanted::Never {
            verdict.breaches.push(Breach::Withheld(copy.offset));
        }
        if there[at] {
            verdict.repeats.push((original.offset, copy.batch));
        } else if at < next {
            verdict.breaches.push(Breach::Reordered(copy.offset));
        }
        there[at] = true;
        next = next.max(at + 1);
    }
    let lost = originals.iter().zip(&there).filter(|(original, there)| {
        original.wanted == Wanted::Yes && original.offset < upto && !**there
    });
    verdict.breaches.extend(lost.map(|(original, _)| Breach::Lost(original.offset)));
    verdict.breaches.sort();
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(value: i64) -> Content {
        let value = Some(value.to_be_bytes().to_vec());
        Content { time: 1, key: None, value, headers: Vec::new() }
    }

    fn originals(count: i64) -> Vec<Original> {
        (0..count)
            .map(|offset| Original { offset, wanted: Wanted::Yes, content: content(offset) })
            .collect()
    }

    fn copies(values: &[i64]) -> Vec<Copied> {
        (0..)
            .zip(values)
            .map(|(offset, value)| Copied { offset, batch: offset, content: content(*value) })
            .collect()
    }

    fn breaches(originals: &[Original], values: &[i64]) -> Vec<Breach> {
        check(originals, &copies(values), i64::MAX).breaches
    }

    #[test]
    fn an_exact_copy_passes_and_each_kind_of_wrong_has_its_name() {
        let all = originals(4);
        assert_eq!(check(&all, &copies(&[0, 1, 2, 3]), 4), Verdict::default());
        assert_eq!(breaches(&all, &[0, 2, 3]), [Breach::Lost(1)]);
        assert_eq!(breaches(&all, &[0, 1, 9, 2, 3]), [Breach::Invented(2)]);
        assert_eq!(breaches(&all, &[0, 2, 1, 3]), [Breach::Reordered(2)]);
        let mut changed = copies(&[0, 1, 2, 3]);
        changed[1].content.time = 2;
        assert_eq!(check(&all, &changed, 4).breaches, [Breach::Changed(1)]);
        let mut aborted = originals(4);
        aborted[2].wanted = Wanted::Never;
        assert_eq!(breaches(&aborted, &[0, 1, 3]), []);
        assert_eq!(breaches(&aborted, &[0, 1, 2, 3]), [Breach::Withheld(2)]);
    }

    #[test]
    fn a_rewind_is_counted_and_is_no_disorder() {
        let verdict = check(&originals(4), &copies(&[0, 1, 0, 1, 2, 3]), 4);
        assert_eq!(verdict.breaches, []);
        assert_eq!(verdict.repeats, [(0, 2), (1, 3)]);
        assert_eq!(verdict.repeated_batches(), 2);
    }

    #[test]
    fn what_lies_behind_the_mark_may_still_come() {
        assert_eq!(check(&originals(4), &copies(&[0, 1]), 2).breaches, []);
        assert_eq!(check(&originals(4), &copies(&[0, 1]), 3).breaches, [Breach::Lost(2)]);
    }
}
