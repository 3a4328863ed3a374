//! `backfill: { order: in_turn }`: which mirrors of a lane may catch up now, a few at a time and in an order, so that some
//! are at the tail early instead of all of them late. PURE.
//!
//! A turn is kept until little lies before the mirror. One that gets no further (its target stands still) gives its turn to
//! the next, and waits behind those who had none: it holds up nobody for long (I7), and however many stand still, they do
//! not all go on at once.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use crate::limits;

/// Mirrors that catch up, by a key that orders them.
#[derive(Debug)]
pub struct Turns<K> {
    at_once: usize,
    /// By how many turns of theirs in a row brought nothing.
    waiting: BTreeSet<(u32, K)>,
    granted: BTreeMap<K, Turn>,
}

#[derive(Debug)]
struct Turn {
    /// Those before it that brought nothing.
    in_vain: u32,
    /// When it began, or got further last.
    at: Instant,
}

impl<K: Ord + Clone> Turns<K> {
    /// Nobody catches up; so many may at a time.
    pub fn new(at_once: usize) -> Self {
        Self { at_once, waiting: BTreeSet::new(), granted: BTreeMap::new() }
    }

    /// One begins to catch up.
    pub fn enter(&mut self, key: K) {
        if !self.granted.contains_key(&key) {
            self.waiting.insert((0, key));
        }
    }

    /// One that entered is near the tail, or gone.
    pub fn leave(&mut self, key: &K) {
        if self.granted.remove(key).is_none() && !self.waiting.remove(&(0, key.clone())) {
            self.waiting.retain(|(_, waiting)| waiting != key);
        }
    }

    /// One got further.
    pub fn on_progress(&mut self, key: &K, now: Instant) {
        if let Some(turn) = self.granted.get_mut(key) {
            *turn = Turn { in_vain: 0, at: now };
        }
    }

    /// Those whose turn ends before they are through, and those whose turn begins now: of them all, only those that `may`
    /// catch up.
    pub fn next(&mut self, now: Instant, may: impl Fn(&K) -> bool) -> (Vec<K>, Vec<K>) {
        let stands = |key: &K, turn: &Turn| {
            now.saturating_duration_since(turn.at) >= limits::TURN_STALL_MAX || !may(key)
        };
        let standing = self.granted.iter().filter(|(key, turn)| stands(key, turn));
        let mut ended: Vec<K> = standing.map(|(key, _)| key.clone()).collect();
        let free = self.at_once.saturating_sub(self.granted.len());
        let ready = self.waiting.iter().filter(|(_, key)| may(key)).cloned();
        let begun: Vec<(u32, K)> = ready.take(free + ended.len()).collect();
        ended.truncate(begun.len().saturating_sub(free));
        for key in &ended {
            let in_vain = self.granted.remove(key).map_or(0, |turn| turn.in_vain);
            self.waiting.insert((in_vain.saturating_add(1), key.clone()));
        }
        let begin = |next: (u32, K)| {
            self.waiting.remove(&next);
            let (in_vain, key) = next;
            self.granted.insert(key.clone(), Turn { in_vain, at: now });
            key
        };
        (ended, begun.into_iter().map(begin).collect())
    }

    /// Those that wait.
    pub fn waiting(&self) -> impl Iterator<Item = &K> {
        self.waiting.iter().map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys whose turn ended, and whose began, where all may.
    fn next(turns: &mut Turns<i32>, now: Instant) -> (Vec<i32>, Vec<i32>) {
        let turned = turns.next(now, |_| true);
        assert!(turns.granted.len() <= turns.at_once);
        turned
    }

    fn turns(at_once: usize, keys: &[i32]) -> Turns<i32> {
        let mut turns = Turns::new(at_once);
        keys.iter().for_each(|key| turns.enter(*key));
        turns
    }

    #[test]
    fn a_few_at_a_time_in_their_order_each_until_it_is_done() {
        let now = Instant::now();
        let mut turns = turns(2, &[4, 1, 3, 2]);
        assert_eq!(next(&mut turns, now).1, [1, 2]);
        assert_eq!(next(&mut turns, now), (vec![], vec![]));
        turns.enter(0);
        turns.enter(1);
        assert_eq!(next(&mut turns, now), (vec![], vec![]), "a turn is kept");
        turns.leave(&2);
        assert_eq!(next(&mut turns, now).1, [0]);
        turns.leave(&0);
        turns.leave(&3);
        assert_eq!(next(&mut turns, now).1, [4]);
        assert_eq!(turns.waiting().count(), 0);
    }

    #[test]
    fn one_that_gets_no_further_holds_up_nobody_and_comes_behind_those_who_had_no_turn() {
        let mut now = Instant::now();
        let mut turns = turns(1, &[1, 2, 3]);
        assert_eq!(next(&mut turns, now).1, [1]);
        now += limits::TURN_STALL_MAX;
        assert_eq!(next(&mut turns, now), (vec![1], vec![2]));
        turns.on_progress(&1, now);
        assert_eq!(next(&mut turns, now), (vec![], vec![]), "it has no turn any more");
        turns.leave(&2);
        assert_eq!(next(&mut turns, now).1, [3]);
        now += limits::TURN_STALL_MAX;
        turns.on_progress(&3, now);
        assert_eq!(next(&mut turns, now), (vec![], vec![]));
        turns.leave(&3);
        assert_eq!(next(&mut turns, now).1, [1]);
        now += limits::TURN_STALL_MAX;
        assert_eq!(next(&mut turns, now), (vec![], vec![]), "nobody waits for it");
    }

    #[test]
    fn an_outage_of_all_hands_out_no_more_turns_than_there_are() {
        let mut now = Instant::now();
        let mut turns = turns(2, &[1, 2, 3, 4, 5]);
        let mut seen = BTreeSet::new();
        for _ in 0..20 {
            seen.extend(next(&mut turns, now).1);
            assert_eq!(turns.granted.len(), 2);
            now += limits::TURN_STALL_MAX;
        }
        assert_eq!(seen.len(), 5, "each had its turn: one of them may be able to go on");
        (1..=5).for_each(|key| turns.leave(&key));
        assert!(turns.granted.is_empty() && turns.waiting.is_empty());
    }

    #[test]
    fn one_that_may_not_catch_up_has_no_turn_and_loses_it() {
        let now = Instant::now();
        let mut turns = turns(1, &[1, 2, 3]);
        assert_eq!(turns.next(now, |key| *key != 1), (vec![], vec![2]));
        assert_eq!(turns.next(now, |key| *key == 3), (vec![2], vec![3]));
        assert_eq!(turns.next(now, |_| false), (vec![], vec![]), "nobody else could take it");
        turns.leave(&3);
        assert_eq!(turns.next(now, |_| true), (vec![], vec![1]));
    }
}
