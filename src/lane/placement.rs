//! Which lane carries a mirror: one of those with the fewest, and of these the one that talks to its brokers already, since
//! every lane that does has connections to them. PURE.
//!
//! A mirror that changes lanes is here with the lane that it goes to, and told apart until the lane that it left has let go.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::engine::spec::{MirrorId, MirrorSpec};
use crate::engine::stats::MirrorStats;

/// The brokers that lead a mirror's two partitions; below 0 where none is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Leaders {
    pub(super) source: i32,
    pub(super) target: i32,
}

/// A broker of a link's source or target: each link has connections of its own.
type Broker = (Arc<str>, bool, i32);

impl Leaders {
    fn brokers(self, link: &Arc<str>) -> impl Iterator<Item = Broker> {
        let both = [(link.clone(), true, self.source), (link.clone(), false, self.target)];
        both.into_iter().filter(|(.., broker)| *broker >= 0)
    }
}

/// What a lane has.
#[derive(Debug, Default)]
struct Load {
    mirrors: usize,
    /// How many of them talk to each broker.
    brokers: HashMap<Broker, usize>,
}

/// A mirror on its lane.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) lane: usize,
    pub(super) spec: MirrorSpec,
    pub(super) stats: Arc<MirrorStats>,
    /// As they were when it was placed.
    leaders: Leaders,
    /// When it changed lanes last.
    pub(super) moved_at: Option<Instant>,
    /// It is still on the lane that it leaves: the number of its move.
    moving: Option<u64>,
    /// [`MirrorStats::acked_bytes`] at the last look.
    pub(super) acked_bytes: u64,
}

impl Placed {
    pub(super) fn is_moving(&self) -> bool {
        self.moving.is_some()
    }
}

/// Who is where.
#[derive(Debug)]
pub(super) struct Placement {
    lanes: Vec<Load>,
    placed: HashMap<MirrorId, Placed>,
    /// Moves that are under way, and who waits for the mirror to be let go altogether.
    moves: HashMap<u64, Option<oneshot::Sender<()>>>,
    moves_begun: u64,
}

impl Placement {
    /// No mirror yet.
    pub(super) fn new(lanes: usize) -> Self {
        let lanes = (0..lanes).map(|_| Load::default()).collect();
        Self { lanes, placed: HashMap::new(), moves: HashMap::new(), moves_begun: 0 }
    }

    /// Places a mirror and gives its lane; the lowest of those that are equally good.
    pub(super) fn add(
        &mut self,
        spec: MirrorSpec,
        leaders: Leaders,
        stats: Arc<MirrorStats>,
    ) -> usize {
        let id = spec.id.clone();
        let unknown = |load: &Load| {
            leaders.brokers(&id.link).filter(|broker| !load.brokers.contains_key(broker)).count()
        };
        let cost = |load: &Load| (load.mirrors, unknown(load));
        let best = self.lanes.iter().enumerate().min_by_key(|(_, load)| cost(load));
        let lane = best.map_or(0, |(lane, _)| lane);
        self.count(&id, leaders, lane);
        let placed =
            Placed { lane, spec, stats, leaders, moved_at: None, moving: None, acked_bytes: 0 };
        self.placed.insert(id, placed);
        lane
    }

    /// Forgets a mirror and gives where it was. None if nobody is to be told: it is not there, or it is letting go already,
    /// and then `left` hears when it has.
    pub(super) fn remove(
        &mut self,
        id: &MirrorId,
        left: oneshot::Sender<()>,
    ) -> (Option<Placed>, Option<oneshot::Sender<()>>) {
        let Some(placed) = self.placed.remove(id) else { return (None, None) };
        self.discount(id, placed.leaders, placed.lane);
        match placed.moving.and_then(|number| self.moves.get_mut(&number)) {
            Some(waits) => {
                *waits = Some(left);
                (Some(placed), None)
            }
            None => (Some(placed), Some(left)),
        }
    }

    /// A mirror is to go to another lane: the lane that it leaves, and the number of the move.
    pub(super) fn begin_move(
        &mut self,
        id: &MirrorId,
        to: usize,
        now: Instant,
    ) -> Option<(usize, u64)> {
        let placed = self.placed.get_mut(id)?;
        let (from, leaders) = (placed.lane, placed.leaders);
        if placed.is_moving() || from == to {
            return None;
        }
        self.moves_begun += 1;
        (placed.lane, placed.moved_at, placed.moving) = (to, Some(now), Some(self.moves_begun));
        self.moves.insert(self.moves_begun, None);
        self.discount(id, leaders, from);
        self.count(id, leaders, to);
        Some((from, self.moves_begun))
    }

    /// The lane that a mirror left has let go of it: what is to begin on the other one. None if it was removed meanwhile;
    /// whoever waited for that is told.
    pub(super) fn end_move(&mut self, id: &MirrorId, number: u64) -> Option<&Placed> {
        if let Some(left) = self.moves.remove(&number).flatten() {
            // Nobody may wait for it any more.
            let _ = left.send(());
        }
        // One of the same name may have been placed anew.
        let placed = self.placed.get_mut(id).filter(|placed| placed.moving == Some(number))?;
        placed.moving = None;
        Some(placed)
    }

    /// Whether a mirror is between two lanes.
    pub(super) fn is_moving(&self) -> bool {
        !self.moves.is_empty()
    }

    /// Every mirror.
    pub(super) fn all(&mut self) -> impl Iterator<Item = (&MirrorId, &mut Placed)> {
        self.placed.iter_mut()
    }

    /// How many mirrors each lane has.
    pub(super) fn counts(&self) -> impl Iterator<Item = usize> {
        self.lanes.iter().map(|load| load.mirrors)
    }

    fn count(&mut self, id: &MirrorId, leaders: Leaders, lane: usize) {
        let Some(load) = self.lanes.get_mut(lane) else { return };
        load.mirrors += 1;
        for broker in leaders.brokers(&id.link) {
            *load.brokers.entry(broker).or_default() += 1;
        }
    }

    fn discount(&mut self, id: &MirrorId, leaders: Leaders, lane: usize) {
        let Some(load) = self.lanes.get_mut(lane) else { return };
        load.mirrors -= 1;
        for broker in leaders.brokers(&id.link) {
            if let Some(count) = load.brokers.get_mut(&broker) {
                *count -= 1;
                if *count == 0 {
                    load.brokers.remove(&broker);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::spec::tests::spec;

    const UNKNOWN: Leaders = Leaders { source: -1, target: -1 };

    fn place_at(placement: &mut Placement, partition: i32, leaders: Leaders) -> usize {
        let spec = spec(partition);
        let (link, topic) = (spec.id.link.clone(), spec.id.topic.clone());
        let stats = MirrorStats::new(link, topic.clone(), topic, partition);
        placement.add(spec, leaders, Arc::new(stats))
    }

    fn place(placement: &mut Placement, partition: i32) -> usize {
        place_at(placement, partition, UNKNOWN)
    }

    fn remove(placement: &mut Placement, partition: i32) -> Option<usize> {
        placement.remove(&spec(partition).id, oneshot::channel().0).0.map(|placed| placed.lane)
    }

    #[test]
    fn mirrors_spread_evenly_and_fill_what_was_left() {
        let mut placement = Placement::new(2);
        let lanes: Vec<_> = (0..4).map(|partition| place(&mut placement, partition)).collect();
        assert_eq!(lanes, [0, 1, 0, 1]);
        assert_eq!(remove(&mut placement, 1), Some(1));
        assert_eq!(remove(&mut placement, 1), None);
        assert_eq!(place(&mut placement, 9), 1);
    }

    #[test]
    fn a_lane_talks_to_few_brokers_where_that_costs_no_imbalance() {
        let leaders = |source| Leaders { source, target: 7 };
        let mut placement = Placement::new(3);
        let sources = [1, 2, 3, 3, 1, 2, 2, 3, 1];
        let lanes: Vec<_> = (0..)
            .zip(sources)
            .map(|(partition, source)| place_at(&mut placement, partition, leaders(source)))
            .collect();
        assert_eq!(lanes, [0, 1, 2, 2, 0, 1, 1, 2, 0], "each lane has one source broker");
        // Without a choice it takes what there is: the fewest mirrors come first.
        assert_eq!(
            [20, 21, 22].map(|partition| place_at(&mut placement, partition, leaders(1))),
            [0, 1, 2]
        );
    }

    #[test]
    fn a_broker_is_forgotten_with_its_last_mirror() {
        let leaders = |source| Leaders { source, target: 7 };
        let mut placement = Placement::new(2);
        assert_eq!(place_at(&mut placement, 0, leaders(1)), 0);
        assert_eq!(place_at(&mut placement, 1, leaders(2)), 1);
        assert_eq!(remove(&mut placement, 1), Some(1));
        assert_eq!(place_at(&mut placement, 2, leaders(3)), 1);
        assert_eq!(place_at(&mut placement, 3, leaders(2)), 0, "no lane talks to 2");
    }

    #[test]
    fn a_mirror_that_moves_is_let_go_before_it_begins_elsewhere() {
        let now = Instant::now();
        let mut placement = Placement::new(2);
        assert_eq!(place(&mut placement, 0), 0);
        let id = spec(0).id;
        assert_eq!(placement.begin_move(&id, 0, now), None, "it is there");
        let (from, number) = placement.begin_move(&id, 1, now).unwrap();
        assert_eq!((from, placement.counts().collect::<Vec<_>>()), (0, vec![0, 1]));
        assert_eq!(placement.begin_move(&id, 0, now), None, "one move at a time");
        assert!(placement.is_moving());
        assert_eq!(placement.end_move(&id, number).map(|placed| placed.lane), Some(1));
        assert!(!placement.is_moving() && placement.end_move(&id, number).is_none());
    }

    #[test]
    fn a_mirror_that_is_removed_while_it_moves_begins_nowhere_and_whoever_waits_is_told() {
        let now = Instant::now();
        let mut placement = Placement::new(2);
        place(&mut placement, 0);
        let id = spec(0).id;
        let (_, number) = placement.begin_move(&id, 1, now).unwrap();
        let (left, mut heard) = oneshot::channel();
        let (placed, to_tell) = placement.remove(&id, left);
        assert!(placed.is_some() && to_tell.is_none(), "the lane lets go already");
        assert!(heard.try_recv().is_err());
        // The group gives it back at once: another life of the same name.
        assert_eq!(place(&mut placement, 0), 0);
        assert!(placement.end_move(&id, number).is_none());
        assert_eq!(heard.try_recv(), Ok(()));
        assert_eq!(placement.counts().collect::<Vec<_>>(), [1, 0]);
    }
}
