//! Puts a numbering on record before its first batch leaves (R7): for records of an origin that the mirror has not passed on
//! before. Everything before them is acknowledged by then, so the anchor that says so is that of the acked prefix.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use super::anchor::{Anchor, Numbering};
use super::cell::MirrorCell;
use super::committer::{commit_as, commit_of};
use super::decide::{epoch_after, no_epoch};
use super::group;
use super::lineage::{self, State, newest_epoch};
use super::mirror::Mirror;
use super::readback;
use super::recovery::all_failed;
use super::share::Share;
use super::target_log::states_and_ends;
use super::transaction::{Stage, Switch};
use super::trouble;
use crate::connection::Connection;
use crate::error::{Action, Code, Error, Side};
use crate::limits;

/// What became of it.
pub(super) enum Opened {
    /// It is on record.
    Yes,
    /// Another instance uses it already: the position is to be found anew.
    Overtaken(Error),
}

/// Opens the numbering that each of these mirrors, all led by one target broker, waits for.
pub(super) async fn open(
    share: &Rc<Share>,
    broker: i32,
    cells: &[Rc<MirrorCell>],
) -> Vec<(Rc<MirrorCell>, Result<Opened, Error>)> {
    let connection = match share.question(Side::Target, broker).await {
        Ok(connection) => connection,
        Err(error) => return all_failed(cells, &error),
    };
    let mut outcomes = Vec::with_capacity(cells.len());
    for cell in cells {
        outcomes.push((cell.clone(), open_one(share, &connection, cell).await));
    }
    outcomes
}

async fn open_one(
    share: &Rc<Share>,
    connection: &Connection,
    cell: &Rc<MirrorCell>,
) -> Result<Opened, Error> {
    let switch = cell.mirror.borrow().as_ref().and_then(Mirror::wants_switch);
    match switch.map(|switch| switch.stage) {
        Some(Stage::Renumbered) => return mark(share, cell).await,
        Some(Stage::Late | Stage::Quiet) => return renumber(share, connection, cell).await,
        None => {}
    }
    let wanted = |mirror: &Mirror| Some((mirror.wanted_numbering()?, mirror.target_next()));
    let Some((producer_id, target_next)) = cell.mirror.borrow().as_ref().and_then(wanted) else {
        return Ok(Opened::Yes);
    };
    if cell.mirror.borrow().as_ref().is_some_and(|m| m.numberings().len() >= limits::ORIGINS_MAX) {
        let message = format!("records of more than {} origins", limits::ORIGINS_MAX);
        let offset = cell.stats.acked.load(Relaxed);
        return Err(trouble::park(Code(79), Side::Source, cell, offset, message)
            .fix("name fewer clusters in the link's `forward`"));
    }
    let (states, end) = remembered(share, connection, cell).await?;
    let is_new = |id| id == producer_id;
    if target_next < end
        && readback::holds(share, connection, cell, target_next..end, is_new).await?
    {
        // Nobody but this mirror has the id: another instance is ahead, and its anchor says how far.
        return Ok(overtaken(
            "another instance of this link is ahead with records of another origin",
        ));
    }
    // At least as new as the mirror's others: the operator's word lifts those above all that was ever used, and the leader
    // forgets after a day.
    let newest = cell
        .mirror
        .borrow()
        .as_ref()
        .and_then(|m| m.numberings().iter().map(|numbering| numbering.producer_epoch).max());
    let after = epoch_after(cell, newest_epoch(&states, producer_id), end)?;
    let producer_epoch = newest.map_or(after, |newest| newest.max(after));
    let numbering = Numbering { producer_id, producer_epoch, next_sequence: 0 };
    // While this turn lasts no older anchor can follow, in which the numbering is missing.
    let _turn = share.commit_turn.lock().await;
    let commit = {
        let mirror = cell.mirror.borrow();
        let waits = |m: &&Mirror| m.wanted_numbering() == Some(producer_id) && !cell.is_removed();
        let Some(mirror) = mirror.as_ref().filter(waits) else {
            return Ok(Opened::Yes);
        };
        commit_of(cell, mirror, Some(numbering), false)
    };
    let offset = commit.offset;
    group::commit(share, &[commit]).await?.pop().unwrap_or(Ok(()))?;
    if let Some(mirror) = &mut *cell.mirror.borrow_mut() {
        mirror.open_numbering(numbering);
    }
    cell.committed.set(offset);
    cell.stats.committed.store(offset, Relaxed);
    Ok(Opened::Yes)
}

fn overtaken(message: &str) -> Opened {
    Opened::Overtaken(Error::new(Code(65), Side::Target, Action::Retry, message))
}

/// What the target's leader remembers of a mirror, and the log end that was there then, or later.
async fn remembered(
    share: &Rc<Share>,
    connection: &Connection,
    cell: &Rc<MirrorCell>,
) -> Result<(Vec<State>, i64), Error> {
    let one = std::slice::from_ref(cell);
    let (mut states, ends) = states_and_ends(share, connection, one).await?;
    let states = states.pop_first().map_or(Ok(Vec::new()), |(_, states)| states)?;
    let end = ends.into_iter().next().ok_or_else(trouble::stopped)??;
    Ok((states, end))
}

/// Puts the numberings on record under which the last batch of a mirror outside of transactions goes. Behind it the leader
/// refuses whatever an instance sends that has not heard yet that it lost the mirror.
async fn renumber(
    share: &Rc<Share>,
    connection: &Connection,
    cell: &Rc<MirrorCell>,
) -> Result<Opened, Error> {
    let life = cell.life.get();
    let (states, end) = remembered(share, connection, cell).await?;
    let now = |mirror: &Mirror| (mirror.target_next(), mirror.numberings().to_vec());
    let Some((target_next, old)) = cell.mirror.borrow().as_ref().map(now) else {
        return Ok(Opened::Yes);
    };
    let route = &cell.spec.route;
    let is_ours = |id| route.writer().wrote(id);
    // What came under the old numbers is to be counted off.
    if !lineage::stand(&old, &states)
        && readback::holds(share, connection, cell, target_next..end, is_ours).await?
    {
        return Ok(overtaken("another instance of this link is ahead"));
    }
    let next = lineage::renumber(&old, &states, |id| route.writes(id));
    let next = next.map_err(|used_up| no_epoch(cell, used_up, end))?;
    let _turn = share.commit_turn.lock().await;
    let commit = {
        let mirror = cell.mirror.borrow();
        let waits = |m: &&Mirror| m.wants_switch().is_some() && cell.life.get() == life;
        let Some(mirror) = mirror.as_ref().filter(waits).filter(|_| !cell.is_removed()) else {
            return Ok(Opened::Yes);
        };
        let spec = &cell.spec;
        let (offset, leader_epoch, anchor) =
            mirror.to_commit(spec.source_topic_id, spec.target_topic_id);
        let settings = Some(cell.settings_then.get().unwrap_or(cell.settings));
        let anchor = Anchor { settings, numberings: next.clone(), ..anchor };
        commit_as(cell, offset, leader_epoch, &anchor)
    };
    let offset = commit.offset;
    group::commit(share, &[commit]).await?.pop().unwrap_or(Ok(()))?;
    if let Some(mirror) = cell.mirror.borrow_mut().as_mut().filter(|_| cell.life.get() == life) {
        mirror.renumber(next);
        cell.committed.set(offset);
        cell.stats.committed.store(offset, Relaxed);
    }
    Ok(Opened::Yes)
}

/// Puts the era of a mirror's transactions on record, at the place that the other kind of delivery has reached.
async fn mark(share: &Rc<Share>, cell: &Rc<MirrorCell>) -> Result<Opened, Error> {
    let _turn = share.commit_turn.lock().await;
    let commit = {
        let mirror = cell.mirror.borrow();
        let Some(mirror) = mirror.as_ref().filter(|_| !cell.is_removed()) else {
            return Ok(Opened::Yes);
        };
        let Some(Switch { era, .. }) = mirror.wants_switch() else { return Ok(Opened::Yes) };
        let spec = &cell.spec;
        let (offset, leader_epoch, anchor) =
            mirror.to_commit(spec.source_topic_id, spec.target_topic_id);
        let anchor = Anchor { settings: Some(cell.settings), era: Some(era), ..anchor };
        commit_as(cell, offset, leader_epoch, &anchor)
    };
    let offset = commit.offset;
    group::commit(share, &[commit]).await?.pop().unwrap_or(Ok(()))?;
    if let Some(mirror) = &mut *cell.mirror.borrow_mut() {
        mirror.switch_over();
    }
    cell.committed.set(offset);
    cell.stats.committed.store(offset, Relaxed);
    Ok(Opened::Yes)
}
