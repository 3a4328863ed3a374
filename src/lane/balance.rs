//! Which mirrors a lane that runs hot gives to one that does not. PURE: figures in, moves out.
//!
//! A lane is hot when its thread, or its reader's, was busy for most of the time twice in a row while another's was idle for
//! half of it. It gives its mirrors by the bytes they moved lately, few at a time, none that would only make the other one
//! hot, and then waits until the figures show what came of it. So a lane with one hot mirror keeps that: no other lane would
//! do better.

use std::time::Duration;

use tokio::time::Instant;

use crate::engine::spec::MirrorId;

/// How often the figures are looked at; each is over the time since the last look.
pub(super) const INTERVAL: Duration = Duration::from_secs(3);
/// Busy for so much of the time is hot.
const HOT: f64 = 0.85;
/// Busy for less is cool.
const COOL: f64 = 0.5;
/// Looks in a row that must find the same lane hot.
const LOOKS: u32 = 2;
/// Mirrors that move at a time.
const MOVES_MAX: usize = 4;
/// From one round of moves to the next.
const PAUSE: Duration = Duration::from_secs(10);
/// A mirror that moved stays where it is for so long.
const REST: Duration = Duration::from_secs(120);
/// What a mirror moves at least of its lane's bytes to be worth a pause of its own.
const PART_MIN: f64 = 0.002;

/// A mirror's part in its lane's work.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub(super) id: MirrorId,
    pub(super) lane: usize,
    /// Since the last look.
    pub(super) bytes: u64,
    /// It copies, and is not on its way from lane to lane.
    pub(super) is_settled: bool,
    pub(super) moved_at: Option<Instant>,
}

/// What was seen before.
#[derive(Debug, Default)]
pub(super) struct Balance {
    /// The lane that was hot at the last look, and in how many in a row.
    hot: Option<(usize, u32)>,
    moved_at: Option<Instant>,
}

impl Balance {
    /// Whether the mirrors are worth a look: some lane is hot for long enough, and some is cool. Gives both.
    pub(super) fn look(&mut self, now: Instant, busy: &[f64]) -> Option<(usize, usize)> {
        let by_busy = |a: &(usize, &f64), b: &(usize, &f64)| a.1.total_cmp(b.1);
        let (from, hottest) = busy.iter().enumerate().max_by(by_busy)?;
        let (to, coolest) = busy.iter().enumerate().min_by(by_busy)?;
        if *hottest < HOT || *coolest >= COOL {
            self.hot = None;
            return None;
        }
        let before = self.hot.filter(|(lane, _)| *lane == from).map_or(0, |(_, looks)| looks);
        self.hot = Some((from, before + 1));
        let pauses = self.moved_at.is_some_and(|at| now < at + PAUSE);
        (before + 1 >= LOOKS && !pauses).then_some((from, to))
    }

    /// The mirrors that go from the one lane to the other.
    pub(super) fn choose(
        &mut self,
        now: Instant,
        busy: &[f64],
        (from, to): (usize, usize),
        figures: Vec<Figure>,
    ) -> Vec<MirrorId> {
        let of_lane = || figures.iter().filter(|figure| figure.lane == from);
        let all: u64 = of_lane().map(|figure| figure.bytes).sum();
        let (Some(mut hot), Some(mut cool)) = (busy.get(from).copied(), busy.get(to).copied())
        else {
            return Vec::new();
        };
        let whole = hot;
        let part = |figure: &Figure| figure.bytes as f64 / (all as f64).max(1.0);
        let rests = |at: Instant| now < at + REST;
        let may_move = |figure: &&Figure| {
            figure.is_settled && part(figure) >= PART_MIN && !figure.moved_at.is_some_and(rests)
        };
        let mut candidates: Vec<_> = of_lane().filter(may_move).collect();
        candidates.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.id.cmp(&b.id)));
        let mut moves = Vec::new();
        for figure in candidates {
            let share = whole * part(figure);
            // More would leave the other lane about as hot as this one was.
            if moves.len() < MOVES_MAX && share <= (hot - cool) * 2.0 / 3.0 {
                hot -= share;
                cool += share;
                moves.push(figure.id.clone());
            }
        }
        if !moves.is_empty() {
            self.moved_at = Some(now);
            self.hot = None;
        }
        moves
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::spec::tests::spec;

    fn figures(bytes: &[u64]) -> Vec<Figure> {
        let figure = |(partition, bytes): (i32, &u64)| Figure {
            id: spec(partition).id,
            lane: 0,
            bytes: *bytes,
            is_settled: true,
            moved_at: None,
        };
        (0..).zip(bytes).map(figure).collect()
    }

    /// The partitions that go from lane 0 to lane 1.
    fn chosen(busy: [f64; 2], figures: Vec<Figure>) -> Vec<i32> {
        let moves = Balance::default().choose(Instant::now(), &busy, (0, 1), figures);
        moves.into_iter().map(|id| id.partition).collect()
    }

    #[test]
    fn a_lane_that_is_hot_for_long_enough_while_another_is_cool_is_looked_at() {
        let now = Instant::now();
        let mut balance = Balance::default();
        assert_eq!(balance.look(now, &[0.9, 0.1, 0.3]), None, "once may be chance");
        assert_eq!(balance.look(now, &[0.9, 0.3, 0.1]), Some((0, 2)));
        for calm in [[0.84, 0.1], [0.99, 0.5], [0.2, 0.3]] {
            assert_eq!(balance.look(now, &calm), None);
            assert_eq!(balance.look(now, &[0.9, 0.1]), None, "it begins anew after {calm:?}");
        }
        assert_eq!(balance.look(now, &[0.1, 0.9]), None, "another lane is hot now");
        assert_eq!(balance.look(now, &[0.1, 0.9]), Some((1, 0)));
        assert_eq!(Balance::default().look(now, &[]), None);
        let mut alone = Balance::default();
        assert!((0..9).all(|_| alone.look(now, &[1.0]).is_none()));
    }

    #[test]
    fn after_a_round_of_moves_it_waits_for_what_comes_of_it() {
        let now = Instant::now();
        let (mut balance, busy) = (Balance::default(), [1.0, 0.0]);
        assert_eq!(balance.look(now, &busy).or_else(|| balance.look(now, &busy)), Some((0, 1)));
        assert_eq!(balance.choose(now, &busy, (0, 1), figures(&[5, 5])).len(), 1);
        for seconds in [3, 6, 9] {
            assert_eq!(balance.look(now + Duration::from_secs(seconds), &busy), None);
        }
        assert_eq!(balance.look(now + Duration::from_secs(12), &busy), Some((0, 1)));
    }

    #[test]
    fn half_of_the_work_goes_the_largest_parts_first() {
        assert_eq!(chosen([1.0, 0.0], figures(&[30, 50, 20])), [1]);
        assert_eq!(chosen([1.0, 0.0], figures(&[25, 25, 25, 25])), [0, 1]);
        assert_eq!(chosen([1.0, 0.4], figures(&[25, 25, 25, 25])), [0], "the other has work too");
        assert_eq!(chosen([1.0, 0.0], figures(&[1; 100])).len(), MOVES_MAX, "few at a time");
    }

    #[test]
    fn a_single_hot_mirror_stays_and_the_small_ones_make_way() {
        assert!(chosen([1.0, 0.0], figures(&[100])).is_empty());
        assert!(chosen([1.0, 0.0], figures(&[1_000_000, 1, 1, 0])).is_empty(), "nothing is gained");
        assert_eq!(chosen([1.0, 0.1], figures(&[90, 6, 4])), [1, 2]);
        assert!(chosen([1.0, 0.45], figures(&[50, 50])).is_empty(), "it would be the hot one then");
        assert!(chosen([1.0, 0.0], figures(&[0, 0])).is_empty(), "busy with something else");
    }

    #[test]
    fn what_moved_just_now_or_is_in_trouble_stays() {
        let now = Instant::now();
        let mut resting = figures(&[25, 25, 25, 25]);
        resting[0].moved_at = Some(now);
        resting[1].is_settled = false;
        resting[2].lane = 1;
        let mut balance = Balance::default();
        let moves = balance.choose(now + REST / 2, &[1.0, 0.0], (0, 1), resting.clone());
        assert_eq!(moves.iter().map(|id| id.partition).collect::<Vec<_>>(), [3]);
        let moves = balance.choose(now + REST, &[1.0, 0.0], (0, 1), resting);
        assert_eq!(moves.iter().map(|id| id.partition).collect::<Vec<_>>(), [0]);
    }
}
