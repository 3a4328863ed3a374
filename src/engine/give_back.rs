//! What a mirror gives back that gets no further while others wait for the memory, and when. It is fetched again later; what
//! the source deletes meanwhile is a gap with a name. What is on its way stays, for its numbers are taken until they are answered. PURE.

use tokio::time::Instant;

use super::mirror::{Flight, Mirror};
use super::transaction::Transaction;
use crate::limits;

impl Mirror {
    /// Whether something waits, and what is before it ends where fetching can begin again: not inside a batch, nor on the way
    /// from one delivery to the other.
    pub fn may_give_back(&self) -> bool {
        let ends_place = |flight: &Flight| flight.outgoing.ends_place;
        let at_place = self.flight.back().map_or_else(|| self.has_place(), ends_place);
        let between =
            self.switch.is_some() || self.transaction.as_ref().is_some_and(Transaction::is_open);
        !self.queue.is_empty() && at_place && !between
    }

    /// Whether what waits is the rest of a batch of which the target has a part, and all answers are in: a reading of the target, as
    /// after a start, finds that part again.
    pub fn waits_within_batch(&self) -> bool {
        let by_number = self.transaction.is_none() && self.switch.is_none();
        let answered = self.flight.is_empty() && self.is_answered();
        !self.queue.is_empty() && !self.has_place() && answered && by_number
    }

    /// Forgets what waits, if it may; says whether it did.
    pub fn give_back(&mut self) -> bool {
        let may = self.may_give_back();
        if may {
            self.drop_queue();
        }
        may
    }
}

/// How long a mirror has stood with memory that others wait for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    acked: i64,
    since: Option<Instant>,
    /// How often it gave back there though it may only be slow.
    given: u32,
}

impl Patience {
    /// It holds more than others leave it, and got to `acked`. Whether it has stood there for as long as it may: twice as long
    /// with each time that it gave back there, so that a slow one gets on too.
    pub fn is_over(&mut self, acked: i64, now: Instant) -> bool {
        if self.acked != acked {
            *self = Self { acked, since: None, given: 0 };
        }
        let since = *self.since.get_or_insert(now);
        let most = limits::STANDS_MAX * (1 << self.given.min(limits::STANDS_DOUBLINGS_MAX));
        now.saturating_duration_since(since) >= most
    }

    /// Nobody waits for what it holds.
    pub fn rest(&mut self) {
        self.since = None;
    }

    /// It gave back; `is_slow` where nothing is known to be in its way.
    pub fn gave_back(&mut self, is_slow: bool) {
        self.since = None;
        self.given += u32::from(is_slow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds that it stands before it gives back.
    fn stands(patience: &mut Patience, acked: i64, now: &mut Instant) -> u64 {
        let began = *now;
        while !patience.is_over(acked, *now) {
            *now += limits::STANDS_LOOK_INTERVAL;
        }
        (*now - began).as_secs()
    }

    #[test]
    fn who_may_only_be_slow_may_stand_longer_each_time() {
        let (mut patience, mut now) = (Patience::default(), Instant::now());
        let most = limits::STANDS_MAX.as_secs();
        for doublings in [0, 1, 2, 3, 4, 5, 5] {
            assert_eq!(stands(&mut patience, 7, &mut now), most << doublings);
            patience.gave_back(true);
        }
        assert_eq!(stands(&mut patience, 8, &mut now), most, "it got further");
    }

    #[test]
    fn who_has_trouble_gives_back_as_soon_each_time() {
        let (mut patience, mut now) = (Patience::default(), Instant::now());
        for _ in 0..5 {
            assert_eq!(stands(&mut patience, 7, &mut now), limits::STANDS_MAX.as_secs());
            patience.gave_back(false);
        }
    }

    #[test]
    fn what_was_before_it_held_much_does_not_count() {
        let (mut patience, now) = (Patience::default(), Instant::now());
        assert!(!patience.is_over(7, now));
        patience.rest();
        assert!(!patience.is_over(7, now + limits::STANDS_MAX));
        assert!(patience.is_over(7, now + limits::STANDS_MAX * 2));
    }
}
