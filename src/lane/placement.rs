//! Which lane carries a mirror: the one with the fewest. PURE.

use std::collections::HashMap;
use std::sync::Arc;

use crate::engine::spec::MirrorId;
use crate::engine::stats::MirrorStats;

/// Who is where.
#[derive(Debug)]
pub(super) struct Placement {
    counts: Vec<usize>,
    placed: HashMap<MirrorId, (usize, Arc<MirrorStats>)>,
}

impl Placement {
    /// No mirror yet.
    pub(super) fn new(lanes: usize) -> Self {
        Self { counts: vec![0; lanes], placed: HashMap::new() }
    }

    /// Places a mirror and gives its lane; the lowest of those with the fewest.
    pub(super) fn add(&mut self, id: MirrorId, stats: Arc<MirrorStats>) -> usize {
        let fewest = self.counts.iter().enumerate().min_by_key(|(_, count)| **count);
        let lane = fewest.map_or(0, |(lane, _)| lane);
        self.counts[lane] += 1;
        self.placed.insert(id, (lane, stats));
        lane
    }

    /// Forgets a mirror and gives where it was.
    pub(super) fn remove(&mut self, id: &MirrorId) -> Option<(usize, Arc<MirrorStats>)> {
        let (lane, stats) = self.placed.remove(id)?;
        self.counts[lane] -= 1;
        Some((lane, stats))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(placement: &mut Placement, partition: i32) -> usize {
        let id = MirrorId { link: "l".into(), topic: "t".into(), partition };
        let stats = MirrorStats::new("l".into(), "t".into(), "t".into(), partition);
        placement.add(id, Arc::new(stats))
    }

    #[test]
    fn mirrors_spread_evenly_and_fill_what_was_left() {
        let mut placement = Placement::new(2);
        let lanes: Vec<_> = (0..4).map(|partition| place(&mut placement, partition)).collect();
        assert_eq!(lanes, [0, 1, 0, 1]);
        let id = MirrorId { link: "l".into(), topic: "t".into(), partition: 1 };
        assert_eq!(placement.remove(&id).map(|(lane, _)| lane), Some(1));
        assert!(placement.remove(&id).is_none());
        assert_eq!(place(&mut placement, 9), 1);
    }
}
