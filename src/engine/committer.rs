//! Commits the acked prefix of every mirror to the source group, with the anchor in the metadata. Never anything past the
//! first source offset that is neither acknowledged nor skipped by rule (I1): what is committed is [`Mirror::acked`], and
//! nothing else is ever asked.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::anchor::{Anchor, Numbering};
use super::cell::MirrorCell;
use super::doubles;
use super::group::{self, Commit};
use super::mirror::Mirror;
use super::share::Share;
use super::trouble;
use crate::env::Moment;
use crate::limits;

/// Commits are at least this far apart.
const INTERVAL: Duration = Duration::from_secs(1);
/// A draining share has no time to lose.
const INTERVAL_DRAINING: Duration = Duration::from_millis(50);
/// What a mirror that leaves may take for its last acks.
const LAST_ACKS_WAIT: Duration = Duration::from_secs(5);
/// A rebalance may stand in the way of the last commit.
const LAST_COMMIT_TRIES: u32 = 4;
/// Brokers forget an offset after `offsets.retention.minutes` (7 days) without a commit.
const IDLE_RECOMMIT: Duration = Duration::from_secs(24 * 3600);

/// A commit of a former life, or of another owner, may reach the group this long after a mirror began, and set its position
/// back. Whatever it committed is committed once more after it.
const LATE_COMMITS: Duration = Duration::from_secs(90);

/// How long a commit waits for news of the membership, and how often before it is told.
const MEMBER_WAIT: Duration = Duration::from_millis(500);
/// See [`MEMBER_WAIT`].
const MEMBER_TRIES_QUIET: u32 = 30;

/// Runs until the share stops.
pub async fn run(share: Rc<Share>) {
    let mut attempt = 0;
    loop {
        if share.is_stopped() {
            return;
        }
        let turn = share.commit_turn.lock().await;
        let due = due(&share);
        if due.is_empty() {
            drop(turn);
            let wake = share.commit_wake.notified();
            drop(tokio::time::timeout(LATE_COMMITS / 3, wake).await);
            if !share.is_draining() && !share.is_stopped() {
                settle_down(&share, INTERVAL).await;
            }
            continue;
        }
        let standing = share.link.member.standing();
        let outcome = commit(&share, due).await;
        drop(turn);
        match outcome {
            Ok(()) => attempt = 0,
            // A rebalance, as a rule, and over in a moment; what is ours no longer is not due any more then.
            Err(error) if error.code == trouble::NOT_A_MEMBER && attempt < MEMBER_TRIES_QUIET => {
                tracing::debug!(group = %share.group, %error, "commit waits for the membership");
                share.link.member.changed_from(&standing, MEMBER_WAIT).await;
                attempt += 1;
            }
            Err(error) => {
                tracing::warn!(group = %share.group, %error, "commit failed");
                share.stats.count_error("source", "OffsetCommit", &error.code.to_string());
                share.note_group_trouble(Some(error));
                let (base, max) = limits::RECONNECT_BACKOFF;
                tokio::time::sleep(share.env.backoff(base, max, attempt)).await;
                attempt += 1;
                continue;
            }
        }
        let interval = if share.is_draining() { INTERVAL_DRAINING } else { INTERVAL };
        settle_down(&share, interval).await;
    }
}

/// Waits an interval, or until draining begins.
async fn settle_down(share: &Share, interval: Duration) {
    let until = share.env.now() + interval;
    while !share.is_stopped() && timeout_at(until, share.commit_wake.notified()).await.is_ok() {
        if share.is_draining() && interval > INTERVAL_DRAINING {
            return;
        }
    }
}

/// Mirrors whose acked prefix moved, and idle ones whose commit grows old. Where the target is to be looked at first, that
/// goes its own way: one slow broker holds up no other mirror's commits (I7).
fn due(share: &Rc<Share>) -> Vec<(Rc<MirrorCell>, Commit)> {
    let now = share.env.now();
    let due = |cell: &Rc<MirrorCell>| {
        let mirror = cell.mirror.borrow();
        let mirror = mirror.as_ref()?;
        let stale = |at: Instant| now - at >= IDLE_RECOMMIT;
        if cell.looking.get() {
            return None;
        }
        let moved = mirror.committable()? > cell.committed.get();
        let closes = share.is_draining() && cell.leaves_nothing(mirror, now);
        let settled_at = cell.begun_at.get().map(|begun| begun + LATE_COMMITS);
        let set_back =
            |at: Instant| settled_at.is_some_and(|settled| at < settled && now >= settled);
        let again = cell.committed_at.get().is_some_and(|at| stale(at) || set_back(at));
        (moved || (closes && !cell.closed.get()) || again)
            .then(|| (cell.clone(), commit_of(cell, mirror, None, closes)))
    };
    let (unseen, due): (Vec<_>, Vec<_>) =
        share.mirrors().iter().filter_map(due).partition(|(cell, _)| is_unseen(cell));
    for (cell, commit) in unseen {
        cell.looking.set(true);
        share.spawn(doubles::look_and_commit(share.clone(), cell, commit));
    }
    due
}

fn is_unseen(cell: &MirrorCell) -> bool {
    cell.mirror.borrow().as_ref().is_some_and(|mirror| mirror.unseen().is_some())
}

/// Commits one mirror's prefix that was looked at, unless a newer one is committed by now.
pub(super) async fn commit_one(share: &Rc<Share>, cell: &Rc<MirrorCell>, commit: Commit) {
    let _turn = share.commit_turn.lock().await;
    let closes = commit.closed && !cell.closed.get();
    if (closes || commit.offset > cell.committed.get()) && !cell.is_removed() {
        // A refusal shows on the mirror; the next round tries again.
        if let Err(error) = self::commit(share, vec![(cell.clone(), commit)]).await {
            tracing::debug!(group = %share.group, %error, "commit failed");
        }
    }
}

/// What a mirror commits; with a numbering that is put on record by it, or for good.
pub(super) fn commit_of(
    cell: &MirrorCell,
    mirror: &Mirror,
    opened: Option<Numbering>,
    closed: bool,
) -> Commit {
    let (spec, settings) = (&cell.spec, cell.settings_then.get().unwrap_or(cell.settings));
    let (offset, leader_epoch, anchor) =
        mirror.to_commit(spec.source_topic_id, spec.target_topic_id);
    let mut anchor = Anchor { settings: Some(settings), closed, ..anchor };
    anchor.numberings.extend(opened);
    commit_as(cell, offset, leader_epoch, &anchor)
}

/// The commit of an anchor.
pub(super) fn commit_as(
    cell: &MirrorCell,
    offset: i64,
    leader_epoch: i32,
    anchor: &Anchor,
) -> Commit {
    let id = &cell.spec.id;
    Commit {
        topic: id.topic.clone(),
        partition: id.partition,
        offset,
        leader_epoch,
        metadata: anchor.to_string(),
        closed: anchor.closed,
    }
}

async fn commit(
    share: &Rc<Share>,
    due: Vec<(Rc<MirrorCell>, Commit)>,
) -> Result<(), crate::error::Error> {
    let commits: Vec<Commit> = due.iter().map(|(_, commit)| commit.clone()).collect();
    share.env.reached(Moment::Committing);
    let outcomes = group::commit(share, &commits).await?;
    share.env.reached(Moment::Committed);
    share.note_group_trouble(None);
    for ((cell, commit), outcome) in due.iter().zip(outcomes) {
        match outcome {
            Ok(()) => {
                cell.committed.set(commit.offset);
                cell.closed.set(commit.closed);
                cell.committed_at.set(Some(share.env.now()));
                cell.stats.committed.store(commit.offset, Relaxed);
                if cell.may_take_new_settings() {
                    share.recovery_wake.notify_one();
                }
                if cell.commit_troubled.take() {
                    cell.clear_trouble();
                }
            }
            // One partition's trouble holds up no other's commits (I7); it is due again at the next round.
            Err(error) => {
                share.stats.count_error("source", "OffsetCommit", &error.code.to_string());
                cell.commit_troubled.set(true);
                cell.note_trouble(trouble::at(cell, error));
            }
        }
    }
    Ok(())
}

/// Waits for the last acks of a mirror that is leaving, and commits what they cover; then it is let go. When that takes
/// longer than the group waits, somebody else has the mirror by then: an older position must not follow that one's.
pub(super) async fn last_commit(share: Rc<Share>, cell: Rc<MirrorCell>, left: oneshot::Sender<()>) {
    let until = share.env.now() + limits::RELEASE_TIMEOUT;
    if timeout_at(until, commit_what_is_acked(&share, &cell)).await.is_err() {
        tracing::info!(group = %share.group, mirror = %cell.spec.id, "a mirror that left could not commit in time");
    }
    // What is still in doubt is given back, or the budget would shrink by it for ever.
    share.forget(&cell);
    // Nobody may wait for it any more.
    let _ = left.send(());
}

async fn commit_what_is_acked(share: &Rc<Share>, cell: &Rc<MirrorCell>) {
    let deadline = share.env.now() + LAST_ACKS_WAIT;
    let is_drained = || cell.mirror.borrow().as_ref().is_none_or(Mirror::is_drained);
    while !is_drained() && share.env.now() < deadline {
        tokio::time::sleep(INTERVAL_DRAINING).await;
    }
    // Unseen, it is left to the next owner's read-back.
    let seen = doubles::look(share, cell).await.is_ok_and(|still| still);
    // One that is on its way is older.
    drop(share.commit_turn.lock().await);
    let commit = {
        let mirror = cell.mirror.borrow();
        let may = |m: &&Mirror| seen && m.committable().is_some() && !is_replaced(share, cell);
        let mirror = mirror.as_ref().filter(may);
        let now = share.env.now();
        mirror.map(|mirror| commit_of(cell, mirror, None, cell.leaves_nothing(mirror, now)))
    };
    // Where the mirror is back already, its own commits count.
    let commit = commit.filter(|c| c.closed || c.offset > cell.committed.get());
    let mut tries = LAST_COMMIT_TRIES;
    while let Some(commit) = commit.as_ref().filter(|_| !share.has(&cell.spec.id)) {
        let standing = share.link.member.standing();
        tries -= 1;
        match group::commit(share, std::slice::from_ref(commit)).await {
            Err(error) if error.code == trouble::NOT_A_MEMBER && tries > 0 => {
                share.link.member.changed_from(&standing, MEMBER_WAIT).await;
            }
            Err(error) => {
                tracing::info!(group = %share.group, %error, "the last commit of a mirror that left failed");
                break;
            }
            Ok(_) => break,
        }
    }
}

/// Whether another topic has the name by now: a position in the old one would be taken for one in the new.
fn is_replaced(share: &Share, cell: &MirrorCell) -> bool {
    let map = share.link.source.map();
    let now = map.topics.get(&*cell.spec.id.topic).map(|topic| topic.id);
    now.is_some_and(|id| !id.is_nil() && id != cell.spec.source_topic_id)
}
