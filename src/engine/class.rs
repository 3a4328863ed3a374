//! Whether a mirror is at the tail of its source or fills up what piled up there. Each class has fetch sessions and target
//! connections of its own: a broker works on one request of a connection at a time, so a record at the tail would wait
//! behind every large answer and request of a backlog (I7). PURE.
//!
//! A mirror that reaches its source's end is at the tail, and stays there until the end runs away from it: for longer than
//! [`limits::TAIL_BEHIND_MAX`], or by more bytes than [`limits::TAIL_BYTES_MAX`]. Between the two it does not flap.

use tokio::time::Instant;

use crate::limits;

/// What a mirror does.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Follows its source's end.
    #[default]
    Tail,
    /// Copies what piled up.
    Backfill,
}

impl Class {
    /// Both, each at its number.
    pub const ALL: [Self; 2] = [Self::Tail, Self::Backfill];
}

/// A broker, and the mirrors that a session or a connection with it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// Broker id; -1 is none.
    pub broker: i32,
    /// Whose.
    pub class: Class,
}

/// How far a mirror is from its source's end, and how it got there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    class: Class,
    /// Since when every answer has left it behind the end; a session says nothing of a partition that is silent.
    behind_since: Option<Instant>,
    /// It was at the end in this life, or no further from it than a tail may be.
    was_near_end: bool,
    /// Bytes and offsets of the last answer that brought any.
    bytes: u64,
    offsets: u64,
}

impl Standing {
    /// Its class.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Whether it was at the end in this life, or no further from it than a tail may be: it does not wait its turn among
    /// backlogs.
    pub fn was_near_end(&self) -> bool {
        self.was_near_end
    }

    /// Its position was found so many offsets before the end.
    pub fn begin(&mut self, behind: i64, now: Instant) {
        (self.behind_since, self.was_near_end) = ((behind > 0).then_some(now), behind <= 0);
        let is_far = self.bytes_behind(behind) > limits::TAIL_BYTES_MAX;
        self.class = if is_far { Class::Backfill } else { Class::Tail };
    }

    /// An answer took it `offsets` further, with so many bytes, and left it so far behind the end.
    pub fn on_answer(&mut self, offsets: i64, bytes: usize, behind: i64, now: Instant) {
        if let Some(offsets @ 1..) = u64::try_from(offsets).ok().filter(|_| bytes > 0) {
            (self.offsets, self.bytes) = (offsets, bytes as u64);
        }
        if behind <= 0 {
            (self.behind_since, self.was_near_end) = (None, true);
            self.class = Class::Tail;
            return;
        }
        let since = *self.behind_since.get_or_insert(now);
        let is_late = now.saturating_duration_since(since) > limits::TAIL_BEHIND_MAX;
        let is_far = self.bytes_behind(behind) > limits::TAIL_BYTES_MAX;
        self.was_near_end |= !is_far;
        if is_late || is_far {
            self.class = Class::Backfill;
        }
    }

    /// What lies before it, by the size of what it got last.
    fn bytes_behind(&self, behind: i64) -> u64 {
        let behind = u64::try_from(behind).unwrap_or(0);
        match self.offsets {
            0 => behind.saturating_mul(limits::RECORD_BYTES_GUESS),
            offsets => {
                let bytes = u128::from(behind) * u128::from(self.bytes) / u128::from(offsets);
                u64::try_from(bytes).unwrap_or(u64::MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_backlog_is_told_from_a_tail_by_its_bytes() {
        let now = Instant::now();
        let mut standing = Standing::default();
        standing.begin(0, now);
        assert_eq!(standing.class(), Class::Tail);
        standing.begin(1_000_000, now);
        assert_eq!(standing.class(), Class::Backfill, "nobody knows how large they are");
        // A thousand records of 10 KB are a backlog, of 100 bytes they are not.
        for (bytes, class) in [(10_000, Class::Backfill), (100, Class::Tail)] {
            let mut standing = Standing::default();
            standing.begin(1_001, now);
            standing.on_answer(1, bytes, 1_000, now);
            assert_eq!(standing.class(), class);
        }
    }

    #[test]
    fn it_leaves_the_tail_late_and_comes_back_only_at_the_end() {
        let (mut standing, mut now) = (Standing::default(), Instant::now());
        standing.begin(0, now);
        for _ in 0..100 {
            // Behind in every answer but one a second: a busy tail.
            now += 900 * MS;
            standing.on_answer(10, 1_000, 5, now);
            assert_eq!(standing.class(), Class::Tail);
            now += 50 * MS;
            standing.on_answer(5, 500, 0, now);
        }
        standing.on_answer(10, 1_000, 5, now);
        now += limits::TAIL_BEHIND_MAX + MS;
        standing.on_answer(10, 1_000, 5, now);
        assert_eq!(standing.class(), Class::Backfill);
        for _ in 0..100 {
            now += 50 * MS;
            standing.on_answer(10, 1_000, 1, now);
            assert_eq!(standing.class(), Class::Backfill, "near is not there");
        }
        standing.on_answer(1, 100, 0, now);
        assert_eq!(standing.class(), Class::Tail);
        standing.on_answer(0, 0, 5, now);
        assert_eq!(standing.class(), Class::Tail, "it has its time again");
    }

    #[test]
    fn a_burst_behind_a_silence_is_no_backlog() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        standing.begin(0, now);
        assert!(standing.was_near_end());
        // No answer spoke of it for ten seconds, for there was nothing to tell.
        standing.on_answer(10, 1_000, 5, now + 10_000 * MS);
        assert_eq!(standing.class(), Class::Tail);
        standing.begin(1_000_000, now);
        assert!(!standing.was_near_end(), "another life");
    }

    #[test]
    fn what_is_written_as_fast_as_it_is_copied_is_through_with_its_backlog_near_the_end() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        standing.begin(100_000, now);
        for (behind, near) in [(90_000, false), (5_000, false), (1_000, true), (50_000, true)] {
            standing.on_answer(1_000, 1_000_000, behind, now);
            assert_eq!(standing.was_near_end(), near, "{behind}");
            assert_eq!(standing.class(), Class::Backfill);
        }
    }

    #[test]
    fn no_figure_overflows() {
        let mut standing = Standing::default();
        standing.begin(i64::MAX, Instant::now());
        standing.on_answer(1, usize::MAX, i64::MAX, Instant::now());
        standing.on_answer(i64::MIN, 0, i64::MIN, Instant::now());
        assert_eq!(standing.class(), Class::Tail);
    }
}
