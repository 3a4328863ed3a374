//! Moves mirrors between the tail and the backfill of a share, and gives those that catch up their turns.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::cell::MirrorCell;
use super::class::Class;
use super::mirror::Mirror;
use super::share::Share;
use super::source_log;
use super::spec::MirrorId;
use crate::limits;

/// In whose order mirrors catch up: the pattern of `include` that names their topic, then name and partition.
pub(super) type Key = (usize, MirrorId);

fn key(cell: &MirrorCell) -> Key {
    (cell.rank, cell.spec.id.clone())
}

impl Share {
    /// A mirror's position was found; the source's end is known, if it could be asked.
    pub(super) fn begin_standing(self: &Rc<Self>, cell: &Rc<MirrorCell>, now: Instant) {
        let end = cell.stats.source_end.load(Relaxed);
        let offset = cell.mirror.borrow().as_ref().map(Mirror::fetch_offset);
        if let Some(offset) = offset.filter(|_| end >= 0) {
            let mut standing = cell.standing.get();
            standing.begin(end - offset, now);
            cell.standing.set(standing);
            self.reclass(cell);
        }
    }

    /// An answer of so many bytes took a mirror on from the offset `before`.
    pub(super) fn note_answer(&self, cell: &MirrorCell, before: i64, bytes: usize, now: Instant) {
        let Some(offset) = cell.mirror.borrow().as_ref().map(Mirror::fetch_offset) else { return };
        let end = cell.stats.source_end.load(Relaxed);
        let mut standing = cell.standing.get();
        standing.on_answer(offset - before, bytes, end - offset, now);
        cell.standing.set(standing);
        if offset > before
            && let Some(turns) = &self.turns
        {
            turns.borrow_mut().on_progress(&key(cell), now);
        }
    }

    /// Moves a mirror to where its standing belongs: between two requests of its session, so that nothing is asked for twice,
    /// or, to the tail, once nothing is queued that the records there would wait for.
    pub(super) fn reclass(self: &Rc<Self>, cell: &Rc<MirrorCell>) {
        let (standing, class) = (cell.standing.get(), cell.standing.get().class());
        if cell.is_removed() {
            return;
        }
        // A tail that fell behind would stand behind backlogs of hours.
        if class == Class::Backfill && !standing.was_near_end() {
            self.enter_turns(cell);
        } else {
            self.end_turn(cell);
        }
        let queued = || cell.mirror.borrow().as_ref().map_or(0, Mirror::queued_bytes);
        if class != cell.class.get() && (class == Class::Backfill || queued() == 0) {
            self.settle(cell, cell.source_leader.get(), cell.target_leader.get(), class);
        }
    }

    /// A mirror catches up when its turn has come.
    fn enter_turns(self: &Rc<Self>, cell: &Rc<MirrorCell>) {
        let Some(turns) = &self.turns else { return };
        if cell.stats.in_turn.load(Relaxed) {
            return;
        }
        cell.stats.in_turn.store(true, Relaxed);
        cell.has_turn.set(false);
        turns.borrow_mut().enter(key(cell));
        self.touch_fetch(cell);
        self.give_turns();
    }

    /// A mirror catches up no more, or is nearly done.
    pub(super) fn end_turn(self: &Rc<Self>, cell: &MirrorCell) {
        let Some(turns) = &self.turns else { return };
        if cell.stats.in_turn.load(Relaxed) {
            cell.stats.in_turn.store(false, Relaxed);
            cell.has_turn.set(true);
            turns.borrow_mut().leave(&key(cell));
            self.give_turns();
        }
    }

    fn give_turns(self: &Rc<Self>) {
        let Some(turns) = &self.turns else { return };
        let is_led = |cell: &MirrorCell| {
            cell.source_leader.get().broker >= 0 && cell.target_leader.get().broker >= 0
        };
        let may =
            |(_, id): &Key| self.mirror(id).is_some_and(|cell| !cell.is_parked() && is_led(&cell));
        let (ended, begun) = turns.borrow_mut().next(self.env.now(), may);
        for (keys, has_turn) in [(ended, false), (begun, true)] {
            for cell in keys.iter().filter_map(|(_, id)| self.mirror(id)) {
                cell.has_turn.set(has_turn);
                self.touch_fetch(&cell);
            }
        }
    }
}

/// Looks for turns that nobody gets further in, and for the ends of those that wait: nobody fetches for these, and their lag
/// would look smaller than it is (I9). Runs until the share stops.
pub(super) async fn take_turns(share: Rc<Share>) {
    while !share.is_stopped() {
        tokio::time::sleep(limits::TURN_LOOK_INTERVAL).await;
        share.give_turns();
        let Some(turns) = &share.turns else { return };
        let waiting: Vec<_> =
            turns.borrow().waiting().filter_map(|(_, id)| share.mirror(id)).collect();
        source_log::note_ends(&share, &waiting).await;
    }
}
