//! What the engine itself says was lost: the boards of all lives of a run, also of those that are over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use strait::engine::losses::{Loss, LossKind};
use strait::engine::stats::{Board, MirrorStats};

use super::oracle::Key;

/// One mirror of one life.
pub(super) struct Told {
    pub(super) key: Key,
    /// How often its source topic had been made again before.
    pub(super) incarnation: usize,
    /// Which life's, from 1.
    pub(super) life: u64,
    stats: Arc<MirrorStats>,
    /// All that it ever told: the board lists the newest only.
    losses: Vec<Loss>,
}

impl Told {
    /// The losses of a kind.
    pub(super) fn losses(&self, kind: LossKind) -> Vec<Loss> {
        self.losses.iter().filter(|loss| loss.kind == kind).cloned().collect()
    }

    fn listen(&mut self) {
        for loss in self.stats.losses.all() {
            let is_same = |known: &&mut Loss| (known.kind, known.from) == (loss.kind, loss.from);
            let mut same = self.losses.iter_mut().filter(is_same);
            match same.find(|known| !known.continued || known.at_ms == loss.at_ms) {
                // It has grown, or was passed, since.
                Some(known) => *known = loss,
                None => self.losses.push(loss),
            }
        }
    }

    /// What is counted of a kind, and what is listed of it.
    pub(super) fn counted(&self, kind: LossKind) -> (u64, u64) {
        let listed = self.losses(kind).iter().map(Loss::offsets).sum();
        let counter = match kind {
            LossKind::Gap => &self.stats.gap_offsets,
            LossKind::Truncated => &self.stats.truncated_offsets,
            LossKind::Recreated | LossKind::Poison => return (0, 0),
        };
        (counter.load(Relaxed), listed)
    }

    /// Whether its position may have been found with records beyond it on the target.
    pub(super) fn may_have_counted_off(&self) -> bool {
        self.life > 1 || self.stats.resyncs.load(Relaxed) > 0
    }
}

/// All that was told.
#[derive(Default)]
pub(super) struct Accounts {
    boards: Option<Vec<(u64, Arc<Board>)>>,
    told: Vec<Told>,
}

impl Accounts {
    /// Losses are made in this run.
    pub(super) fn keep(&mut self) {
        self.boards = Some(Vec::new());
    }

    /// Whether losses are made in this run.
    pub(super) fn is_kept(&self) -> bool {
        self.boards.is_some()
    }

    /// Another life begins.
    pub(super) fn follow(&mut self, life: u64, board: Arc<Board>) {
        if let Some(boards) = &mut self.boards {
            boards.push((life, board));
        }
    }

    /// Notes the mirrors that there are by now. One that is new is of the incarnation that its topic is in.
    pub(super) fn listen(&mut self, incarnations: &BTreeMap<Key, usize>) {
        for (life, board) in self.boards.iter().flatten() {
            for stats in board.mirrors() {
                let is_known = |told: &Told| Arc::ptr_eq(&told.stats, &stats);
                if self.told.iter().rev().any(is_known) {
                    continue;
                }
                let key = (stats.topic.to_string(), stats.partition);
                let incarnation = incarnations.get(&key).copied().unwrap_or(0);
                let losses = Vec::new();
                self.told.push(Told { key, incarnation, life: *life, stats, losses });
            }
        }
        self.told.iter_mut().for_each(Told::listen);
    }

    /// The mirrors of a partition.
    pub(super) fn of<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = &'a Told> {
        self.told.iter().filter(move |told| told.key == *key)
    }

    /// Stretches that were deleted before they were copied, of this incarnation.
    pub(super) fn gaps(&self, key: &Key, incarnation: usize) -> Vec<Loss> {
        let of = self.of(key).filter(|told| told.incarnation == incarnation);
        of.flat_map(|told| told.losses(LossKind::Gap)).collect()
    }

    /// Losses that were told.
    pub(super) fn count(&self) -> usize {
        self.told.iter().map(|told| told.losses.len()).sum()
    }
}

/// Whether an offset lies in a stretch that was named.
pub(super) fn holds(loss: &Loss, offset: i64) -> bool {
    loss.from.is_some_and(|from| from <= offset) && loss.to.is_some_and(|to| offset < to)
}
