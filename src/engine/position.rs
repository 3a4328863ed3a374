//! Where a mirror begins: the group's committed offset, or the operator's `start`, and a numbering that nobody used before.
//!
//! A position that does not fit the two logs any more parks its mirror with both named; it is never guessed.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::anchor::Anchor;
use super::cell::MirrorCell;
use super::decide::{Decided, decide};
use super::fence;
use super::group::{self, Commit, Commits, Committed};
use super::losses::{Loss, LossKind};
use super::mirror::Beginning;
use super::recovery::all_failed;
use super::share::Share;
use super::source_log::start_offsets;
use super::step_over;
use super::target_log::target_facts;
use super::transaction::Transaction;
use super::trouble;
use crate::env::Moment;
use crate::error::{Action, Error};
use crate::limits;

pub(super) type Outcomes<T> = Vec<(Rc<MirrorCell>, Result<T, Error>)>;

/// Finds the beginning of mirrors that have none, all led by one target broker.
pub async fn begin(
    share: &Rc<Share>,
    broker: i32,
    cells: &[Rc<MirrorCell>],
) -> Outcomes<Beginning> {
    let partitions: Vec<_> =
        cells.iter().map(|c| (c.spec.id.topic.clone(), c.spec.id.partition)).collect();
    let mut committed = match group::committed(share, &partitions).await {
        Ok(committed) => committed,
        Err(error) => return all_failed(cells, &error),
    };
    share.env.reached(Moment::PositionRead);
    for cell in cells.iter().filter(|cell| cell.quiet_at.get().is_none()) {
        cell.quiet_at.set(Some(share.env.now() + limits::LATE_REQUEST));
    }
    for cell in cells {
        forget_the_replaced(cell, &mut committed);
    }
    fence::settle(share, cells, &mut committed).await;
    let mut outcomes = Vec::with_capacity(cells.len());
    let mut readable = Vec::with_capacity(cells.len());
    for cell in cells {
        match committed.get(&key(cell)) {
            Some(Err(error)) => outcomes.push((cell.clone(), Err(error.clone()))),
            Some(Ok(_)) | None => readable.push(cell.clone()),
        }
    }
    outcomes.extend(begin_behind(share, broker, &readable, &committed).await);
    doubt_what_moved(share, &committed, &mut outcomes).await;
    outcomes
}

/// A position that moved while the target was looked at is no ground for parking: whoever else writes puts a numbering on
/// record before it uses it, so the next look finds the two in step.
async fn doubt_what_moved(
    share: &Rc<Share>,
    committed: &Commits,
    outcomes: &mut Outcomes<Beginning>,
) {
    let parks = |outcome: &Result<Beginning, Error>| {
        outcome.as_ref().is_err_and(|error| error.action == Action::Park)
    };
    let parked: Vec<_> =
        outcomes.iter().filter(|(_, o)| parks(o)).map(|(cell, _)| key(cell)).collect();
    if parked.is_empty() {
        return;
    }
    let Ok(mut now) = group::committed(share, &parked).await else { return };
    for (cell, outcome) in outcomes.iter_mut() {
        forget_the_replaced(cell, &mut now);
        if let Err(error) = outcome
            && error.action == Action::Park
            && has_moved(committed.get(&key(cell)), now.get(&key(cell)))
        {
            error.action = Action::Retry;
        }
    }
}

/// Whether the source group holds another position than it did. One that the target's own overrules is known by its offset
/// alone.
fn has_moved(
    before: Option<&Result<Committed, Error>>,
    now: Option<&Result<Committed, Error>>,
) -> bool {
    match (before, now) {
        (Some(Ok(before)), Some(Ok(now))) => match &before.anchor {
            Some(anchor) if anchor.era.is_some() => before.at_source != Some(now.offset),
            Some(_) | None => *before != now.clone().without_era_left(),
        },
        (None, Some(Ok(_))) | (Some(Ok(_)), Some(Err(_))) => true,
        // What parks is that there is none to go by.
        (Some(Err(_)), _) | (None, Some(Err(_))) | (_, None) => false,
    }
}

/// The old topic's mirror may have committed when the topic was gone already: that is no position in the new one.
pub(super) fn forget_the_replaced(cell: &MirrorCell, committed: &mut Commits) {
    let Some(Ok(found)) = committed.get(&key(cell)) else { return };
    let read = found.anchor.as_ref().map(|anchor| anchor.source_topic_id);
    if read.is_some() && read == cell.spec.replaces {
        cell.replaced_at.set(Some(found.offset));
        committed.remove(&key(cell));
    }
}

/// A re-created topic is copied from its beginning; the old one's end is named before that is on record, and counted once it
/// is.
fn note_replaced(share: &Share, cell: &MirrorCell, decided: &Decided, continued: bool) {
    let Some(old) = cell.spec.replaces.filter(|_| decided.is_new && !decided.steps_over) else {
        return;
    };
    let message = format!(
        "the source topic was re-created: what came after the last position in topic id {old} is lost, id {} is copied \
         from its beginning",
        cell.spec.source_topic_id
    );
    if !continued {
        tracing::warn!(link = %cell.stats.link, mirror = %cell.spec.id, "{message}");
    }
    cell.stats.note_loss(Loss {
        kind: LossKind::Recreated,
        from: if continued { cell.replaced_at.take() } else { cell.replaced_at.get() },
        to: None,
        continued,
        at_ms: share.env.wall_clock_ms(),
        reason: message,
    });
}

/// The same with the commits at hand.
async fn begin_behind(
    share: &Rc<Share>,
    broker: i32,
    cells: &[Rc<MirrorCell>],
    committed: &Commits,
) -> Outcomes<Beginning> {
    let fresh: Vec<_> =
        cells.iter().filter(|c| !committed.contains_key(&key(c))).cloned().collect();
    let starts = start_offsets(share, &fresh).await;
    let targets = match target_facts(share, broker, cells, committed).await {
        Ok(targets) => targets,
        Err(error) => return all_failed(cells, &error),
    };
    let mut outcomes = Vec::with_capacity(cells.len());
    let mut anchors = Vec::new();
    for (cell, target) in cells.iter().zip(targets) {
        let found = committed.get(&key(cell)).and_then(|found| found.as_ref().ok());
        let start = starts.get(&key(cell)).cloned();
        let outcome = target.and_then(|target| decide(share, cell, found, start, target));
        // Somebody else's in the meantime: a numbering of ours must not be put on record over theirs.
        let outcome = if cell.is_removed() { Err(trouble::stopped()) } else { outcome };
        if let Some(decided) = outcome.as_ref().ok().filter(|decided| decided.is_committed()) {
            note_replaced(share, cell, decided, false);
            anchors.push(anchor_commit(cell, decided));
        }
        outcomes.push((cell.clone(), outcome));
    }
    // A new numbering is on record before its first batch leaves (R7): no later start can take it for a free one.
    let mut recorded = match group::commit(share, &anchors).await {
        Ok(recorded) => recorded.into_iter(),
        Err(error) => return all_failed(cells, &error),
    };
    if recorded.len() > 0 {
        share.env.reached(Moment::AnchorCommitted);
    }
    for (_, outcome) in &mut outcomes {
        if outcome.as_ref().is_ok_and(Decided::is_committed)
            && let Err(error) = recorded.next().unwrap_or(Ok(()))
        {
            *outcome = Err(error);
        }
    }
    fence::confirm(share, &mut outcomes).await;
    let settle = |(cell, outcome): (Rc<MirrorCell>, Result<Decided, Error>)| {
        let outcome = outcome.map(|decided| {
            note_committed(share, &cell, decided.committed);
            note_replaced(share, &cell, &decided, true);
            if decided.steps_over {
                step_over::made(share, &cell);
            }
            drop(cell.anew.take());
            decided.beginning
        });
        (cell, outcome)
    };
    outcomes.into_iter().map(settle).collect()
}

pub(super) fn key(cell: &MirrorCell) -> (Arc<str>, i32) {
    (cell.spec.id.topic.clone(), cell.spec.id.partition)
}

fn anchor_commit(cell: &MirrorCell, decided: &Decided) -> Commit {
    let (spec, beginning) = (&cell.spec, &decided.beginning);
    let new = || Anchor {
        target_topic_id: spec.target_topic_id,
        target_offset: beginning.target_offset,
        source_topic_id: spec.source_topic_id,
        source_offset: beginning.source_offset,
        numberings: beginning.numberings.clone(),
        map: beginning.map.clone(),
        settings: Some(cell.settings),
        closed: decided.leaves.is_some(),
        era: beginning.transaction.as_ref().map(Transaction::era).or(decided.leaves),
    };
    let reopened = decided.reopens.clone().filter(|_| !decided.is_new);
    let anchor = reopened.unwrap_or_else(new);
    Commit {
        topic: spec.id.topic.clone(),
        partition: spec.id.partition,
        offset: beginning.source_offset,
        leader_epoch: beginning.leader_epoch,
        metadata: anchor.to_string(),
        closed: false,
    }
}

fn note_committed(share: &Share, cell: &MirrorCell, offset: i64) {
    cell.committed.set(offset);
    cell.closed.set(false);
    cell.committed_at.set(Some(share.env.now()));
    cell.begun_at.set(Some(share.env.now()));
    cell.target_committed_at.set(Some(share.env.now()));
    cell.stats.committed.store(offset, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::offset_map::OffsetMap;
    use crate::engine::transaction::Era;
    use uuid::Uuid;

    fn committed(offset: i64, era: Option<Era>) -> Committed {
        let anchor = Anchor {
            target_topic_id: Uuid::from_u128(1),
            target_offset: offset,
            source_topic_id: Uuid::from_u128(2),
            source_offset: offset,
            numberings: Vec::new(),
            map: OffsetMap::new(0),
            settings: None,
            closed: false,
            era,
        };
        let at_source = Some(offset);
        Committed { offset, leader_epoch: 1, anchor: Some(anchor), named: None, at_source }
    }

    #[test]
    fn a_target_s_position_that_is_ahead_of_the_source_group_s_has_not_moved() {
        let era = Some(Era { id: 1, began: true });
        let (at_source, of_target) = (committed(10, era), committed(30, era));
        let overruled = Ok(Committed { at_source: Some(10), ..of_target });
        assert!(!has_moved(Some(&overruled), Some(&Ok(at_source))));
        assert!(has_moved(Some(&overruled), Some(&Ok(committed(11, era)))));
        let plain = Ok(committed(10, None));
        assert!(!has_moved(Some(&plain), Some(&plain)));
        assert!(has_moved(Some(&plain), Some(&Ok(committed(11, None)))));
        assert!(has_moved(None, Some(&plain)), "somebody made one");
        let lost = Err(trouble::stopped());
        assert!(!has_moved(Some(&lost), Some(&plain)), "the target's is gone, and stays so");
        assert!(has_moved(Some(&plain), Some(&lost)));
        assert!(!has_moved(Some(&plain), None));
    }
}
