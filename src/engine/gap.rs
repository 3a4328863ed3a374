//! Source offsets that were deleted in front of a mirror. What of them is lost is told with its offsets, and the policy
//! decides (I6). Where a former life had copied on behind the commit, some of what was deleted may be on the target: the
//! records that both sides hold tell how far it came, and what it had copied is not lost. Where they have none in common and
//! the source had another leader since, its log may have been truncated before it was deleted: all of it is named then.

use std::ops::Range;
use std::rc::Rc;

use super::admit::{Step, admit};
use super::cell::MirrorCell;
use super::group;
use super::losses::LossKind;
use super::mirror::{Mirror, Outgoing};
use super::mirror_readback::CountsOff;
use super::offsets::Found;
use super::overlap::{Overlap, Print, compared, overlap};
use super::position::key;
use super::readback;
use super::recovery;
use super::share::Share;
use super::step_over::{self, StepOver};
use super::transactions;
use super::trouble;
use crate::config::resolved::OnGap;
use crate::error::{Action, Code, Error, Side};
use crate::wire::common::TopicRef;
use crate::wire::error_code::ErrorCode;

/// Another instance went on: the position is to be found anew.
const MOVED: Code = Code(65);

/// Retention or DeleteRecords overtook the mirror: it wants `wanted`, and the log begins at `start`.
pub(super) async fn overtaken(
    share: &Rc<Share>,
    leader: i32,
    cell: &Rc<MirrorCell>,
    wanted: i64,
    start: Found,
) {
    if doubts_itself(share, cell) {
        return;
    }
    let replaying = cell.mirror.borrow().as_ref().is_none_or(Mirror::is_replaying);
    if !replaying {
        let step = lost(share, cell, wanted, start);
        if share.link.config.policies.on_gap != OnGap::Continue {
            stop(share, cell, step);
        } else if may_come_late(share, cell) {
            // Once what is on its way is answered: until then it is asked again.
            if cell.mirror.borrow().as_ref().is_some_and(is_settled) {
                wait_for_late(share, cell);
            }
        } else {
            step_over::order(share, cell, step);
        }
        return;
    }
    let life = cell.life.get();
    let former = former(share, leader, cell, wanted, start).await;
    if cell.life.get() != life || cell.is_removed() {
        return;
    }
    match former {
        Ok(Former::Copied { next_offset, leader_epoch }) => {
            tracing::info!(link = %cell.stats.link, mirror = %cell.spec.id, wanted, next_offset,
                "offsets were deleted at the source that the target holds already");
            pass(share, cell, next_offset, leader_epoch);
        }
        Ok(Former::Lost { from, records }) => {
            go_on(share, cell, lost(share, cell, from, start), wanted..from, records);
        }
        Ok(Former::Doubtful { records }) => {
            let mut step = lost(share, cell, wanted, start);
            step.error.message.push_str(&format!(
                "; {records} of them had been copied, or others in their place that the source lost when its leader changed"
            ));
            go_on(share, cell, step, wanted..wanted + i64::from(records), records);
        }
        Ok(Former::Unclear) => {
            let mut step = lost(share, cell, wanted, start);
            step.error.message.push_str(
                "; the process before this one had copied some of them, and nothing tells how many",
            );
            stop(share, cell, step);
        }
        Err(error) if error.code == MOVED => recovery::restart(share, cell, error),
        Err(error) => recovery::again(share, cell, trouble::at(cell, error)),
    }
}

fn is_settled(mirror: &Mirror) -> bool {
    mirror.is_idle() && mirror.is_answered()
}

/// Whether a request of a former life may still bring one of the records that are gone. Transactions fence it.
fn may_come_late(share: &Share, cell: &MirrorCell) -> bool {
    let fences = cell.mirror.borrow().as_ref().is_some_and(|mirror| mirror.transaction().is_some());
    !fences && !cell.is_quiet(share.env.now())
}

/// What comes late under the old numbers would be one of the lost, beside another record of its number.
fn wait_for_late(share: &Rc<Share>, cell: &Rc<MirrorCell>) {
    recovery::wait_for_quiet(share, cell);
    share.recovery_wake.notify_one();
}

/// By the policy, behind what a former life had copied: `records` of the offsets `copied`.
fn go_on(
    share: &Rc<Share>,
    cell: &Rc<MirrorCell>,
    step: StepOver,
    copied: Range<i64>,
    records: i32,
) {
    let goes_on =
        share.link.config.policies.on_gap == OnGap::Continue && cell.settings_then.get().is_none();
    if !goes_on {
        stop(share, cell, step);
    } else if may_come_late(share, cell) {
        wait_for_late(share, cell);
    } else {
        if let Some(mirror) = &mut *cell.mirror.borrow_mut() {
            mirror.note_former(copied, records);
        }
        step_over::make(share, cell, step);
    }
}

/// Another instance may have copied what is gone, while this one stood still, perhaps for so long that it is no member any more:
/// it begins anew once, from what the group and the target say.
fn doubts_itself(share: &Rc<Share>, cell: &Rc<MirrorCell>) -> bool {
    if cell.looked_again.get() {
        return false;
    }
    // What it copied is on record first, or it would be counted off, which tells less.
    let committed = cell.committed.get();
    let settled = |mirror: &Mirror| {
        is_settled(mirror) && (mirror.is_replaying() || mirror.acked() <= committed)
    };
    // Else it is asked again, and once what is on its way is answered, this is too.
    if cell.mirror.borrow().as_ref().is_some_and(settled) {
        cell.looked_again.set(true);
        let message = "the source deleted what comes next: its position is looked at again";
        let error = Error::new(Code(70), Side::Source, Action::Retry, message);
        recovery::restart(share, cell, error);
    }
    true
}

fn lost(share: &Share, cell: &MirrorCell, from: i64, start: Found) -> StepOver {
    let Found { offset: log_start, leader_epoch } = start;
    let id = &cell.spec.id;
    let message = format!(
        "source offsets {from} to {} were deleted before they were copied ({} offsets)",
        log_start - 1,
        log_start - from
    );
    let error = Error::new(Code(70), Side::Source, Action::Park, message)
        .mirror(&*id.topic, id.partition, Some(from))
        .fix(trouble::reset_fix(&share.link.config.name, cell, &log_start.to_string()));
    let kind = LossKind::Gap;
    StepOver { kind, from, to: log_start, leader_epoch, records: 0, error }
}

fn stop(share: &Rc<Share>, cell: &Rc<MirrorCell>, step: StepOver) {
    step_over::stopped_by(share, cell, &step);
    share.park_fetching(cell, step.error);
}

/// Nothing was lost, and nothing is left to count off.
fn pass(share: &Rc<Share>, cell: &Rc<MirrorCell>, next_offset: i64, leader_epoch: i32) {
    if let Some(mirror) = &mut *cell.mirror.borrow_mut() {
        mirror.counted_off(next_offset, leader_epoch);
    }
    share.touch_fetch(cell);
    share.commit_wake.notify_one();
}

/// What a former life had copied of what is gone.
enum Former {
    /// All of it, and up to there.
    Copied { next_offset: i64, leader_epoch: i32 },
    /// So many records, and nothing from this offset on.
    Lost { from: i64, records: i32 },
    /// So many records, unless the source lost them in a truncation and others took their offsets.
    Doubtful { records: i32 },
    /// Nobody can tell.
    Unclear,
}

/// A record that is left at the source.
struct Left {
    print: Print,
    /// The offset after it; none where holes beside it are not told.
    next_offset: Option<i64>,
    leader_epoch: i32,
}

/// Compares what both sides hold behind the commit.
async fn former(
    share: &Rc<Share>,
    leader: i32,
    cell: &Rc<MirrorCell>,
    wanted: i64,
    start: Found,
) -> Result<Former, Error> {
    let log_start = start.offset;
    let counts_off = cell.mirror.borrow().as_ref().and_then(Mirror::counts_off);
    let Some(CountsOff { ends, records: left, target_end }) = counts_off else {
        return Err(trouble::stopped());
    };
    let committed = group::committed(share, &[key(cell)]).await?.remove(&key(cell));
    let anchor = committed.transpose()?.filter(|it| it.offset == cell.committed.get());
    let Some((epoch, anchor)) = anchor.and_then(|it| Some((it.leader_epoch, it.anchor?))) else {
        let message = "the position moved while the target was looked at";
        return Err(Error::new(MOVED, Side::Source, Action::Retry, message));
    };
    let Ok(count) = usize::try_from(left) else { return Ok(Former::Unclear) };
    let broker = cell.target_leader.get().broker;
    let connection = share.question(Side::Target, broker).await?;
    let offsets = anchor.target_offset..target_end;
    let tail = readback::tail(share, &connection, cell, &anchor.numberings, &ends, offsets).await?;
    let Some(tail) = tail.as_ref().and_then(|tail| tail.get(tail.len().checked_sub(count)?..))
    else {
        return Ok(Former::Unclear);
    };
    let most = compared(count);
    let Some(source) = left_at_source(share, leader, cell, log_start, most).await? else {
        return Ok(Former::Unclear);
    };
    let prints: Vec<_> = source.iter().map(|left| left.print).collect();
    // A log is truncated by a change of its leader only (KIP-101, KIP-279).
    let same_leader = (0..=epoch.max(0)).contains(&start.leader_epoch);
    let times_differ = cell.spec.target.log_append_time();
    Ok(match overlap(tail, &prints, log_start - wanted, times_differ) {
        Overlap::Unclear => Former::Unclear,
        Overlap::Records(0) if left > 0 && !same_leader => Former::Doubtful { records: left },
        Overlap::Records(0) if wanted + i64::from(left) < log_start => {
            Former::Lost { from: wanted + i64::from(left), records: left }
        }
        Overlap::Records(0) => {
            Former::Copied { next_offset: log_start, leader_epoch: start.leader_epoch }
        }
        Overlap::Records(common) => match source.get(common - 1) {
            Some(Left { next_offset: Some(next_offset), leader_epoch, .. }) => {
                Former::Copied { next_offset: *next_offset, leader_epoch: *leader_epoch }
            }
            _ => Former::Unclear,
        },
    })
}

/// The first records that the source still holds, so many at most, as they would be copied.
async fn left_at_source(
    share: &Rc<Share>,
    leader: i32,
    cell: &Rc<MirrorCell>,
    log_start: i64,
    count: usize,
) -> Result<Option<Vec<Left>>, Error> {
    let then = cell.settings_then.get();
    let settings = then.unwrap_or(cell.settings);
    let rules = settings.rules(transactions::batch_bytes_max(cell));
    let route_then = {
        let mirror = cell.mirror.borrow();
        let numberings = mirror.as_ref().map_or(&[][..], Mirror::numberings);
        then.map(|then| then.route_then(&cell.spec.route, numberings))
    };
    let route = route_then.as_ref().unwrap_or(&cell.spec.route);
    let isolation = settings.isolation.into();
    let topic = TopicRef::new(cell.spec.id.topic.clone(), cell.spec.source_topic_id);
    let connection = share.question(Side::Source, leader).await?;
    let times_differ = cell.spec.target.log_append_time();
    let (mut found, mut offset) = (Vec::new(), log_start);
    while found.len() < count {
        let (topic, index) = (topic.clone(), cell.spec.id.partition);
        let asked =
            readback::plain_fetch(&connection, Side::Source, topic, index, offset, isolation);
        let partition = asked.await?;
        let refused = |error, what| Err(trouble::answered(Side::Source, "Fetch", error, what));
        if partition.error != ErrorCode::NONE {
            recovery::refresh_on(share, Side::Source, partition.error);
            return refused(partition.error, "");
        }
        if offset >= partition.end(isolation) {
            break;
        }
        let (before, now) = (offset, share.env.now());
        let mut readable = true;
        let each = |step| match step {
            Step::Take(outgoing, _) => {
                offset = outgoing.next_offset;
                readable &= note_left(&mut found, &outgoing, count, times_differ);
            }
            Step::Skip { next_offset, .. } => offset = next_offset,
        };
        let admitted =
            admit(partition.records, &partition.aborted, before, &rules, route, now, each);
        if admitted.is_err() || !readable {
            return Ok(None);
        }
        if offset <= before {
            return refused(ErrorCode::NONE, "no progress");
        }
    }
    Ok(Some(found))
}

/// False if it cannot be read.
fn note_left(found: &mut Vec<Left>, outgoing: &Outgoing, count: usize, times_differ: bool) -> bool {
    let Ok(prints) = Print::all(outgoing.producer_id, &outgoing.batch, times_differ) else {
        return false;
    };
    for (index, print) in (0..).zip(prints).take(count - found.len()) {
        let span = outgoing.spans.pieces(index, 1).next().filter(|span| span.is_exact());
        let next_offset = span.map(|span| span.source.end);
        found.push(Left { print, next_offset, leader_epoch: outgoing.leader_epoch });
    }
    true
}
