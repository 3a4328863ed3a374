//! `backfill: { order: in_turn }`: which mirrors of a lane may catch up now, a few at a time and in an order, so that some
//! are at the tail early instead of all of them late. PURE.
//!
//! A turn is kept until the mirror is at the tail. One that gets no further (its target stands still, it is parked) keeps
//! its turn and counts no more: it holds up nobody (I7).

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use crate::limits;

/// Mirrors that catch up, by a key that orders them.
#[derive(Debug)]
pub struct Turns<K> {
    at_once: usize,
    waiting: BTreeSet<K>,
    /// With when they got further last.
    granted: BTreeMap<K, Instant>,
}

impl<K: Ord + Clone> Turns<K> {
    /// Nobody catches up; so many may at a time.
    pub fn new(at_once: usize) -> Self {
        Self { at_once, waiting: BTreeSet::new(), granted: BTreeMap::new() }
    }

    /// One begins to catch up.
    pub fn enter(&mut self, key: K) {
        if !self.granted.contains_key(&key) {
            self.waiting.insert(key);
        }
    }

    /// One is at the tail, or gone.
    pub fn leave(&mut self, key: &K) {
        self.waiting.remove(key);
        self.granted.remove(key);
    }

    /// One got further.
    pub fn on_progress(&mut self, key: &K, now: Instant) {
        if let Some(at) = self.granted.get_mut(key) {
            *at = now;
        }
    }

    /// Those whose turn begins now.
    pub fn next(&mut self, now: Instant) -> Vec<K> {
        let moves = |at: &Instant| now.saturating_duration_since(*at) < limits::TURN_STALL_MAX;
        let moving = self.granted.values().filter(|at| moves(at)).count();
        let begun: Vec<K> =
            (moving..self.at_once).map_while(|_| self.waiting.pop_first()).collect();
        self.granted.extend(begun.iter().map(|key| (key.clone(), now)));
        begun
    }

    /// Whether anyone waits.
    pub fn any_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Those that wait.
    pub fn waiting(&self) -> impl Iterator<Item = &K> {
        self.waiting.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_at_a_time_in_their_order_each_until_it_is_done() {
        let now = Instant::now();
        let mut turns = Turns::new(2);
        [4, 1, 3, 2].into_iter().for_each(|key| turns.enter(key));
        assert_eq!(turns.next(now), [1, 2]);
        assert!(turns.next(now).is_empty());
        turns.enter(0);
        turns.enter(1);
        assert!(turns.next(now).is_empty(), "a turn is kept");
        turns.leave(&2);
        assert_eq!(turns.next(now), [0]);
        turns.leave(&0);
        turns.leave(&3);
        assert_eq!(turns.next(now), [4]);
        assert!(!turns.any_waits());
    }

    #[test]
    fn one_that_gets_no_further_holds_up_nobody_and_counts_again_when_it_does() {
        let mut now = Instant::now();
        let mut turns = Turns::new(1);
        [1, 2, 3].into_iter().for_each(|key| turns.enter(key));
        assert_eq!(turns.next(now), [1]);
        now += limits::TURN_STALL_MAX;
        assert_eq!(turns.next(now), [2]);
        turns.on_progress(&1, now);
        turns.leave(&2);
        assert!(turns.next(now).is_empty(), "the first is at work again");
        turns.leave(&1);
        assert_eq!(turns.next(now), [3]);
    }
}
