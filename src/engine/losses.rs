//! What a mirror did not copy and why, with the exact source offsets: the newest few, for the operator (I6). Plain data.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// How many a mirror remembers; older ones are in the counters and in the log.
const REMEMBERED: usize = 8;

/// Why source records were not copied, or are no longer what was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Deleted at the source before they were copied.
    Gap,
    /// Copied, and lost at the source since.
    Truncated,
    /// The topic was deleted and made again; the offsets are the old one's.
    Recreated,
    /// Stepped over because they cannot be copied.
    Poison,
}

/// One stretch of source offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Why.
    pub kind: LossKind,
    /// First offset; none where nobody can tell any more.
    pub from: Option<i64>,
    /// The offset after the last; none where nobody can tell any more.
    pub to: Option<i64>,
    /// Whether copying went on behind it; else the mirror is parked, or about to go on.
    pub continued: bool,
    /// When it was found, milliseconds since 1970.
    pub at_ms: i64,
    /// In words.
    pub reason: String,
}

impl Loss {
    /// Offsets in it; 0 where nobody can tell.
    pub fn offsets(&self) -> u64 {
        self.from.zip(self.to).and_then(|(from, to)| u64::try_from(to - from).ok()).unwrap_or(0)
    }
}

/// The newest losses of a mirror. One writer.
#[derive(Debug, Default)]
pub struct Losses(Mutex<VecDeque<Loss>>);

impl Losses {
    /// Remembers one. A stretch that was told before and has grown, or is passed by now, takes its own place. Gives the
    /// offsets that are new.
    pub fn note(&self, loss: Loss) -> u64 {
        let mut losses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |known: &&mut Loss| {
            !known.continued && (known.kind, known.from) == (loss.kind, loss.from)
        };
        if let Some(known) = losses.iter_mut().find(same) {
            let news = loss.offsets().saturating_sub(known.offsets());
            *known = loss;
            return news;
        }
        if losses.len() == REMEMBERED {
            losses.pop_front();
        }
        let news = loss.offsets();
        losses.push_back(loss);
        news
    }

    /// Oldest first.
    pub fn all(&self) -> Vec<Loss> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(from: i64, to: i64, continued: bool) -> Loss {
        let reason = String::new();
        Loss { kind: LossKind::Gap, from: Some(from), to: Some(to), continued, at_ms: 0, reason }
    }

    #[test]
    fn a_gap_that_grows_while_its_mirror_is_parked_is_counted_once() {
        let losses = Losses::default();
        assert_eq!(losses.note(gap(10, 20, false)), 10);
        assert_eq!(losses.note(gap(10, 20, false)), 0, "found again by a retry");
        assert_eq!(losses.note(gap(10, 25, false)), 5);
        assert_eq!(losses.note(gap(10, 25, true)), 0, "passed by now");
        assert_eq!(losses.note(gap(10, 25, true)), 15, "the same offsets of a later topic");
        assert_eq!(losses.all().len(), 2);
    }

    #[test]
    fn only_the_newest_are_remembered() {
        let losses = Losses::default();
        for from in 0..100 {
            losses.note(gap(from * 10, from * 10 + 1, true));
        }
        let all = losses.all();
        assert_eq!((all.len(), all[0].from, all[7].from), (REMEMBERED, Some(920), Some(990)));
    }
}
