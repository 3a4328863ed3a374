//! Source offsets that a policy lets a mirror step over: deleted ones, a batch that cannot be copied, another topic's.
//!
//! The map from sequences to records is laid down anew there, so a new lineage begins behind them (rules R7, R9): all that
//! lies before is acknowledged first, then the anchor of the new lineage is committed, and only then a batch is sent. A
//! crash at any point of it leaves the old anchor, or the new one.

use std::rc::Rc;

use super::anchor::Numbering;
use super::cell::MirrorCell;
use super::losses::{Loss, LossKind};
use super::mirror::Mirror;
use super::offset_map::OffsetMap;
use super::share::Share;
use super::stats::{Fate, MirrorStats};
use crate::canary::{Canary, planted};
use crate::error::Error;

/// What is to be stepped over.
#[derive(Clone, Debug)]
pub struct StepOver {
    /// Why.
    pub kind: LossKind,
    /// First offset: everything below it is acknowledged, or skipped by rule, before the step is made.
    pub from: i64,
    /// Where copying goes on.
    pub to: i64,
    /// Leader epoch of what lies before `to`; -1 if unknown.
    pub leader_epoch: i32,
    /// Records in it, as far as anybody can tell.
    pub records: u64,
    /// What stands in the way.
    pub error: Error,
}

/// A step whose turn has come: the mirror has nothing in flight, and its next beginning is behind it.
#[derive(Clone, Debug)]
pub struct Anew {
    /// The step.
    pub over: StepOver,
    /// The numberings that everything before it was written under.
    pub numberings: Vec<Numbering>,
    /// Where all of that is.
    pub map: OffsetMap,
}

/// Orders a step in front of which the mirror has fetched everything: it is made once all of that is acknowledged.
pub(super) fn order(share: &Rc<Share>, cell: &Rc<MirrorCell>, step: StepOver) {
    *cell.step_over.borrow_mut() = Some(step);
    share.touch_fetch(cell);
    share.recovery_wake.notify_one();
}

/// Makes a step now: nothing is in flight, and what is queued lies in it or behind it.
pub(super) fn make(share: &Rc<Share>, cell: &Rc<MirrorCell>, over: StepOver) {
    let mut mirror = cell.mirror.borrow_mut();
    let Some(mut old) = mirror.take() else { return };
    drop(mirror);
    share.add_buffered(cell, &mut old, Mirror::drop_all);
    // Before it is on record: a process that dies in between has passed nothing in silence (I6).
    tracing::warn!(link = %cell.stats.link, error = %over.error, "stepping over, by policy");
    note(share, cell, &over, false);
    let (numberings, map) = (old.numberings().to_vec(), old.map().clone());
    cell.step_over.take();
    cell.end_life();
    *cell.anew.borrow_mut() = Some(Anew { over, numberings, map });
    share.recovery_wake.notify_one();
}

/// Makes the step that was ordered, if its turn has come.
pub(super) fn make_ordered(share: &Rc<Share>, cell: &Rc<MirrorCell>) {
    if cell.may_step_over()
        && let Some(step) = cell.step_over.take()
    {
        make(share, cell, step);
    }
}

/// The step is on record in the source group: it counts.
pub(super) fn made(share: &Rc<Share>, cell: &Rc<MirrorCell>) {
    let Some(Anew { over, .. }) = cell.anew.take() else { return };
    if over.kind == LossKind::Poison {
        MirrorStats::add(&cell.stats.skipped_poison_records, over.records);
        MirrorStats::add(&cell.stats.batches[Fate::SkippedPoison as usize], 1);
    }
    cell.corrupt_fetches.set(0);
    drop(cell.poison.take());
    tracing::info!(link = %cell.stats.link, error = %over.error, "stepped over, by policy");
    note(share, cell, &over, true);
}

/// Tells the operator of a loss in front of which the mirror stops.
pub(super) fn stopped_by(share: &Rc<Share>, cell: &Rc<MirrorCell>, over: &StepOver) {
    note(share, cell, over, false);
}

fn note(share: &Rc<Share>, cell: &Rc<MirrorCell>, over: &StepOver, continued: bool) {
    cell.stats.note_loss(Loss {
        kind: over.kind,
        from: Some(over.from + i64::from(planted(Canary::GapNamedShort))),
        to: Some(over.to),
        continued,
        at_ms: share.env.wall_clock_ms(),
        reason: over.error.message.clone(),
    });
}
