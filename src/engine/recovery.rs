//! The slow path of a share: finds where a mirror begins, and after any doubt reads the target back before the mirror sends
//! again. One task per target broker and round, so that one slow broker holds up no mirror of another (I7).
//!
//! Nothing here counts on producer state or on memory of what was acknowledged: the target's log decides (rules R1-R3).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::admit;
use super::cell::{Halt, MirrorCell, Refused};
use super::losses::LossKind;
use super::mirror::Mirror;
use super::opening::{self, Opened};
use super::share::Share;
use super::stats::MirrorStats;
use super::step_over::StepOver;
use super::trouble::{self, Remedy};
use super::walk::Seen;
use super::{position, readback, retry, source_log, step_over, transactions};
use crate::cluster::rights::Need;
use crate::config::resolved::OnPoison;
use crate::error::{Action, Code, Error, Side};
use crate::limits;
use crate::wire::error_code::ErrorCode;

/// First and largest wait between two recoveries of a mirror.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(10));
/// A missing right is not found in milliseconds.
const AUTHORIZE_WAIT: Duration = Duration::from_secs(10);
/// Positions found anew without an ack in between before the target's refusal of our numbers is taken as final.
const RESTARTS_MAX: u32 = 8;

/// Runs until the share stops.
pub async fn run(share: Rc<Share>) {
    loop {
        let wake = share.recovery_wake.notified();
        if share.is_stopped() {
            return;
        }
        let (due, next) = due(&share);
        for (broker, cells) in due {
            let own = share.clone();
            share.spawn(async move {
                let share = own;
                recover(&share, broker, &cells).await;
                cells.iter().for_each(|cell| cell.recovering.set(false));
                share.recovery_wake.notify_one();
            });
        }
        match next {
            Some(at) => drop(tokio::time::timeout_at(at, wake).await),
            None => wake.await,
        }
    }
}

/// The mirrors to look at now, by target leader, and when the next one is due.
fn due(share: &Rc<Share>) -> (BTreeMap<i32, Vec<Rc<MirrorCell>>>, Option<Instant>) {
    let now = share.env.now();
    let mut due: BTreeMap<i32, Vec<_>> = BTreeMap::new();
    let mut next: Option<Instant> = None;
    for cell in share.mirrors() {
        if let Some(at) = retry::look(share, &cell, now) {
            next = Some(next.map_or(at, |next| next.min(at)));
        }
        if !cell.needs_recovery() || cell.recovering.get() {
            continue;
        }
        match cell.halt.get() {
            Halt::Until(at) if at > now => next = Some(next.map_or(at, |next| next.min(at))),
            Halt::Until(_) | Halt::None => {
                cell.recovering.set(true);
                due.entry(cell.target_leader.get().broker).or_default().push(cell);
            }
            Halt::Parked => {}
        }
    }
    (due, next)
}

async fn recover(share: &Rc<Share>, broker: i32, cells: &[Rc<MirrorCell>]) {
    cells.iter().for_each(|cell| step_over::make_ordered(share, cell));
    cells.iter().for_each(|cell| renew(share, cell));
    let (lost, known): (Vec<_>, Vec<_>) =
        cells.iter().cloned().partition(|cell| cell.out_of_range.get().is_some());
    let (starting, known): (Vec<_>, Vec<_>) =
        known.into_iter().partition(|cell| cell.mirror.borrow().is_none());
    let in_doubt =
        |cell: &Rc<MirrorCell>| cell.mirror.borrow().as_ref().is_some_and(Mirror::needs_resync);
    let (doubtful, opening): (Vec<_>, Vec<_>) = known.into_iter().partition(in_doubt);
    let (abandoned, doubtful): (Vec<_>, Vec<_>) =
        doubtful.into_iter().partition(|cell| cell.has_transactions());
    abandoned.iter().for_each(|cell| transactions::abandoned(share, cell));
    source_log::resolve_out_of_range(share, &lost).await;
    lost.iter().for_each(|cell| end_wait(share, cell));
    let leaderless = broker < 0;
    if leaderless {
        share.link.target.refresh();
        for cell in starting.iter().chain(&doubtful).chain(&opening) {
            let topic = &cell.spec.target_topic;
            let message = format!("{topic}-{} has no leader on the target", cell.spec.id.partition);
            let error = Error::new(Code(60), Side::Target, Action::Retry, message);
            again(share, cell, trouble::at(cell, error));
        }
        return;
    }
    if !starting.is_empty() {
        let mut begun = Vec::new();
        for (cell, outcome) in position::begin(share, broker, &starting).await {
            if cell.is_removed() {
                continue;
            }
            match outcome {
                Ok(beginning) => {
                    let window = share.link.config.window_bytes_max;
                    let mut mirror = Mirror::new(beginning, window, cell.spec.target.clone());
                    if share.link.config.merges {
                        mirror.join_up_to(limits::JOINED_BYTES_MAX);
                        mirror.keep_apart_below(cell.apart_below.get());
                    }
                    *cell.mirror.borrow_mut() = Some(mirror);
                    begun.push(cell);
                }
                Err(error) => stumble(share, &cell, error),
            }
        }
        begin(share, &begun);
    }
    if !doubtful.is_empty() {
        for (cell, outcome) in readback::read_back(share, broker, &doubtful).await {
            match outcome {
                Ok(seen) => resynced(share, &cell, seen),
                Err(error) => stumble(share, &cell, error),
            }
        }
    }
    if !opening.is_empty() {
        for (cell, outcome) in opening::open(share, broker, &opening).await {
            match outcome {
                Ok(Opened::Yes) => resume(share, &cell),
                Ok(Opened::Overtaken(error)) => restart(share, &cell, error),
                Err(error) => stumble(share, &cell, error),
            }
        }
    }
}

/// Lets mirrors go that have a position, each once its source broker has said how far the end is: a backlog does not begin
/// among the tails.
fn begin(share: &Rc<Share>, cells: &[Rc<MirrorCell>]) {
    for (_, cells) in source_log::by_source_leader(cells) {
        let own = share.clone();
        share.spawn(async move {
            let share = own;
            let lives: Vec<_> = cells.iter().map(|cell| cell.life.get()).collect();
            source_log::note_ends(&share, &cells).await;
            let same = |(cell, life): &(&Rc<MirrorCell>, u64)| cell.life.get() == *life;
            for (cell, _) in cells.iter().zip(lives).filter(same) {
                share.begin_standing(cell, share.env.now());
                resume(&share, cell);
            }
            // The target's position may be ahead of what the source group holds.
            share.commit_wake.notify_one();
        });
    }
}

/// The target was read back: settle what is there, then see to the batch that was refused.
fn resynced(share: &Rc<Share>, cell: &Rc<MirrorCell>, seen: Seen) {
    MirrorStats::add(&cell.stats.resyncs, 1);
    let outcome = {
        let mut mirror = cell.mirror.borrow_mut();
        let Some(mirror) = &mut *mirror else { return };
        share.add_buffered(cell, mirror, |mirror| {
            mirror.on_resynced(&seen.last_sequences, &seen.landed, seen.target_end)
        })
    };
    match outcome {
        Ok(settled) => share.on_settled(cell, &settled),
        Err(not_ours) => {
            let message = format!(
                "the target's last batch under our producer id ends at sequence {}, which ends none of ours: \
                 another instance of this link is writing",
                not_ours.last
            );
            restart(share, cell, Error::new(Code(65), Side::Target, Action::Retry, message));
            return;
        }
    }
    let refused = cell.refused.borrow_mut().take();
    let next = cell.mirror.borrow().as_ref().and_then(Mirror::number_of_front);
    match refused {
        Some(refused) if next == Some((refused.producer_id, refused.sequence)) => {
            remedy(share, cell, &refused)
        }
        _ => resume(share, cell),
    }
}

/// What to do about a batch that was refused and is not on the target.
fn remedy(share: &Rc<Share>, cell: &Rc<MirrorCell>, refused: &Refused) {
    let is_apart = trouble::takes_apart(cell, refused.error)
        && cell
            .mirror
            .borrow_mut()
            .as_mut()
            .is_some_and(|mirror| share.add_buffered(cell, mirror, Mirror::part_front));
    if is_apart {
        resume(share, cell);
        return;
    }
    let error = trouble::answered(Side::Target, "Produce", refused.error, &refused.message);
    let error = trouble::at(cell, error.cluster(&share.link.config.to.name));
    match trouble::remedy(refused.error) {
        // An error that says nothing, again and again for the same batch. Of its own kind: a long outage before it is no
        // sign that the batch is its cause.
        Remedy::Again if refused.error == ErrorCode::UNKNOWN_SERVER_ERROR => {
            let refusals = cell.unknown_refusals.get();
            cell.unknown_refusals.set(refusals + 1);
            if trouble::is_unknown_enough(cell, refusals) {
                park_refused(share, cell, refused.error, error);
            } else {
                let wait = share.env.backoff(BACKOFF.0, BACKOFF.1, refusals);
                again_after(share, cell, wait, error);
            }
        }
        Remedy::Again => again(share, cell, error),
        Remedy::Resend if !trouble::is_resent_enough(cell, refused.error) => {
            cell.damaged_sends.set(cell.damaged_sends.get() + 1);
            again(share, cell, error);
        }
        Remedy::Split => split(share, cell, refused, error),
        Remedy::Resend | Remedy::Park => park_refused(share, cell, refused.error, error),
        Remedy::Yield => {
            let message = format!("another instance of this link took over: {}", error.message);
            restart(share, cell, Error { code: Code(65), message, ..error });
        }
        Remedy::Authorize => {
            let error = trouble::not_authorized(share, Need::WriteTarget, cell);
            again_after(share, cell, AUTHORIZE_WAIT, error);
        }
        Remedy::Restart => {
            // Of its own kind: a long outage before it is no sign that the numbers will never do.
            let restarts = cell.restarts.get();
            if restarts >= RESTARTS_MAX {
                park_refused(share, cell, refused.error, error);
            } else {
                cell.restarts.set(restarts + 1);
                restart(share, cell, error);
            }
        }
    }
}

/// Too large for the target: sent as its parts, at depth one (W6). One record cannot be cut.
fn split(share: &Rc<Share>, cell: &Rc<MirrorCell>, refused: &Refused, error: Error) {
    let parts = {
        let mirror = cell.mirror.borrow();
        mirror.as_ref().and_then(|m| Some(admit::split(m.front_of_queue()?, m.acked())))
    };
    match parts {
        Some(Ok(mut parts)) if parts.len() > 1 => {
            for part in &mut parts {
                part.batch = share.budget.hold(std::mem::take(&mut part.batch));
            }
            if let Some(mirror) = &mut *cell.mirror.borrow_mut() {
                share.add_buffered(cell, mirror, |mirror| mirror.replace_front(parts));
            }
            resume(share, cell);
        }
        _ => {
            let fix =
                format!("raise max.message.bytes of {} on the target", cell.spec.target_topic);
            park_refused(share, cell, refused.error, error.fix(fix));
        }
    }
}

fn park_refused(share: &Rc<Share>, cell: &Rc<MirrorCell>, refused: ErrorCode, mut error: Error) {
    error.code = Code(61);
    error.action = Action::Park;
    let first = cell.stats.acked.load(Relaxed);
    let next =
        cell.mirror.borrow().as_ref().and_then(|m| m.front_of_queue().map(|o| o.next_offset));
    let last = next.unwrap_or(first + 1) - 1;
    error.message =
        format!("the target refuses source offsets {first} to {last}: {}", error.message);
    error.place.mirror =
        Some((cell.spec.id.topic.to_string(), cell.spec.id.partition, Some(first)));
    let rest = cell.mirror.borrow().as_ref().and_then(Mirror::rest_of_front);
    let skips = share.link.config.policies.on_poison == OnPoison::Skip;
    let is_to_blame = trouble::blame(cell, refused, &mut error);
    match rest {
        Some((to, leader_epoch, records)) if skips && is_to_blame => {
            let kind = LossKind::Poison;
            let step = StepOver { kind, from: first, to, leader_epoch, records, error };
            step_over::make(share, cell, step);
        }
        _ => share.park(cell, error),
    }
}

/// Forgets the numbering: the position is found anew, as after a start.
pub(super) fn restart(share: &Rc<Share>, cell: &Rc<MirrorCell>, error: Error) {
    give_up(share, cell);
    again(share, cell, trouble::at(cell, error));
}

/// The same after a pause.
pub(super) fn restart_after(
    share: &Rc<Share>,
    cell: &Rc<MirrorCell>,
    wait: Duration,
    error: Error,
) {
    give_up(share, cell);
    again_after(share, cell, wait, trouble::at(cell, error));
}

/// Forgets all that a mirror holds; it begins anew.
pub(super) fn give_up(share: &Rc<Share>, cell: &Rc<MirrorCell>) {
    // The refusal belongs to batches that are given up with it, and a step waits for their acks.
    drop(cell.refused.take());
    drop(cell.step_over.take());
    share.forget(cell);
}

/// Its next batch waits until no request of a former life can come; then the target is looked at again.
pub(super) fn wait_for_quiet(share: &Rc<Share>, cell: &Rc<MirrorCell>) {
    let (now, error) = (share.env.now(), trouble::late_requests());
    let wait = cell.quiet_at.get().map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
    cell.renews.set(true);
    cell.retry_after(&share.env, wait, trouble::at(cell, error));
}

/// Gives up what is not sent, for the position to be found anew: where that was waited for, and where everything that was
/// written under other settings is on record.
fn renew(share: &Rc<Share>, cell: &Rc<MirrorCell>) {
    if !cell.renews.take() && !cell.may_take_new_settings() {
        return;
    }
    share.forget(cell);
}

fn stumble(share: &Rc<Share>, cell: &Rc<MirrorCell>, error: Error) {
    let error = trouble::at(cell, error);
    match error.action {
        Action::Park | Action::Stop => share.park(cell, error),
        Action::Retry if error.code == trouble::LATE_REQUESTS => {
            wait_for_quiet(share, cell);
            share.recovery_wake.notify_one();
        }
        Action::Reconnect | Action::Retry => again(share, cell, error),
    }
}

/// Looks again after a back-off that grows while nothing is acknowledged.
pub(super) fn again(share: &Rc<Share>, cell: &Rc<MirrorCell>, error: Error) {
    let attempt = cell.attempts.get();
    cell.attempts.set(attempt.saturating_add(1));
    again_after(share, cell, share.env.backoff(BACKOFF.0, BACKOFF.1, attempt), error);
}

fn again_after(share: &Rc<Share>, cell: &Rc<MirrorCell>, wait: Duration, error: Error) {
    cell.retry_after(&share.env, wait, error);
    if cell.needs_recovery() {
        share.recovery_wake.notify_one();
        return;
    }
    // The window is open again at one; only the sending waits.
    let (own, cell) = (share.clone(), cell.clone());
    share.spawn(async move {
        tokio::time::sleep(wait).await;
        if matches!(cell.halt.get(), Halt::Until(_)) {
            resume(&own, &cell);
        }
    });
}

/// What it waited with for another look is over, if the look left nothing to see to.
fn end_wait(share: &Rc<Share>, cell: &Rc<MirrorCell>) {
    let is_due = |at| at <= share.env.now();
    if matches!(cell.halt.get(), Halt::Until(at) if is_due(at)) && !cell.needs_recovery() {
        resume(share, cell);
    }
}

/// Nothing is in the way any more.
fn resume(share: &Rc<Share>, cell: &Rc<MirrorCell>) {
    if cell.halt.get() == Halt::Parked {
        return;
    }
    cell.halt.set(Halt::None);
    cell.clear_trouble();
    cell.note_progress(share.env.now());
    share.touch_send(cell);
    share.touch_fetch(cell);
}

/// A missing leader, a dead connection or the like: the metadata may be out of date.
pub(super) fn refresh_on(share: &Share, side: Side, error: ErrorCode) {
    if trouble::is_leadership(error) {
        match side {
            Side::Source => share.link.source.refresh(),
            Side::Local | Side::Target => share.link.target.refresh(),
        }
    }
}

/// A dial or a call failed: every mirror of the round gets the error.
pub(super) fn all_failed<T>(
    cells: &[Rc<MirrorCell>],
    error: &Error,
) -> Vec<(Rc<MirrorCell>, Result<T, Error>)> {
    cells.iter().map(|cell| (cell.clone(), Err(error.clone()))).collect()
}

/// How long one question of the recovery may take.
pub(super) const QUESTION_DEADLINE: Duration = limits::REQUEST_TIMEOUT;
