//! What the source log holds, as its leaders say: where a first copy starts, and what was lost where an offset is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use uuid::Uuid;

use super::cell::MirrorCell;
use super::gap;
use super::losses::LossKind;
use super::mirror::Mirror;
use super::offsets::{self, Ask, Reader};
use super::position::key;
use super::readback;
use super::recovery::refresh_on;
use super::share::Share;
use super::step_over::{self, StepOver};
use super::trouble;
use crate::cluster::rights::Need;
use crate::config::resolved::{Isolation, Start};
use crate::error::{Code, Error, Side};
use crate::limits;
use crate::wire::common::TopicRef;
use crate::wire::error_code::ErrorCode;
use crate::wire::metadata::MetadataRequest;

/// The operator's `start` for mirrors without a commit, asked of each source leader.
pub(super) async fn start_offsets(share: &Rc<Share>, cells: &[Rc<MirrorCell>]) -> Starts {
    let timestamp = match share.link.config.start {
        Start::Earliest => offsets::EARLIEST,
        Start::Latest => offsets::LATEST,
        Start::Timestamp(ms) => ms,
    };
    let (replacing, first): (Vec<_>, Vec<_>) =
        cells.iter().cloned().partition(|cell| cell.spec.replaces.is_some());
    let mut starts = starts_at(share, &first, timestamp).await;
    starts.extend(starts_at(share, &replacing, offsets::EARLIEST).await);
    starts
}

type Starts = BTreeMap<(Arc<str>, i32), Result<offsets::Found, Error>>;

async fn starts_at(share: &Rc<Share>, cells: &[Rc<MirrorCell>], timestamp: i64) -> Starts {
    let mut starts = Starts::new();
    for (leader, cells) in by_source_leader(cells) {
        let keys = cells.iter().map(|cell| key(cell));
        match starts_of(share, leader, &cells, timestamp).await {
            Ok(found) => starts.extend(keys.zip(found)),
            // One broker that cannot be asked holds up no mirror of another (I7).
            Err(error) => starts.extend(keys.map(|key| (key, Err(error.clone())))),
        }
    }
    starts
}

async fn starts_of(
    share: &Rc<Share>,
    leader: i32,
    cells: &[Rc<MirrorCell>],
    timestamp: i64,
) -> Result<Offsets, Error> {
    let mut starts = source_offsets(share, leader, cells, timestamp).await?;
    // No record that young: whatever comes next.
    let is_late = |start: &Result<offsets::Found, Error>| matches!(start, Ok(s) if s.offset < 0);
    let late = cells.iter().zip(&starts).filter(|(_, start)| is_late(start));
    let late: Vec<_> = late.map(|(cell, _)| cell.clone()).collect();
    if !late.is_empty() {
        let ends = source_offsets(share, leader, &late, offsets::LATEST).await?;
        let late = starts.iter_mut().filter(|start| is_late(start));
        late.zip(ends).for_each(|(start, end)| *start = end);
    }
    // ListOffsets names a topic, which may have been made again since its mirrors were. An id does not come back: one that
    // is the mirror's now was so when the leader answered.
    let ids = topic_ids(share, leader, cells).await?;
    for (cell, start) in cells.iter().zip(&mut starts) {
        if ids.get(&*cell.spec.id.topic).is_some_and(|id| *id != cell.spec.source_topic_id) {
            share.link.source.refresh();
            let error = ErrorCode::INCONSISTENT_TOPIC_ID;
            *start = Err(trouble::answered(Side::Source, "Metadata", error, "it was made again"));
        }
    }
    Ok(starts)
}

/// The ids of the topics of these mirrors, as a leader knows them now.
async fn topic_ids(
    share: &Rc<Share>,
    leader: i32,
    cells: &[Rc<MirrorCell>],
) -> Result<BTreeMap<String, Uuid>, Error> {
    let topics: BTreeSet<&str> = cells.iter().map(|cell| &*cell.spec.id.topic).collect();
    let topics = topics.into_iter().map(str::to_owned).collect();
    let connection = share.question(Side::Source, leader).await?;
    let answer = connection.ask(&MetadataRequest { topics: Some(topics) }).await?;
    let known = answer.topics.into_iter().filter(|topic| !topic.error.is_error());
    Ok(known.map(|topic| (topic.name, topic.id)).collect())
}

async fn source_offsets(
    share: &Rc<Share>,
    leader: i32,
    cells: &[Rc<MirrorCell>],
    timestamp: i64,
) -> Result<Offsets, Error> {
    let reader = match share.link.config.isolation {
        Isolation::ReadCommitted => Reader::CommittedConsumer,
        Isolation::ReadUncommitted => Reader::Consumer,
    };
    ask(share, leader, cells, timestamp, reader).await
}

async fn ask(
    share: &Rc<Share>,
    leader: i32,
    cells: &[Rc<MirrorCell>],
    timestamp: i64,
    reader: Reader,
) -> Result<Vec<Result<offsets::Found, Error>>, Error> {
    let connection = share.question(Side::Source, leader).await?;
    let asks: Vec<_> = cells.iter().map(|cell| Ask::source(cell, timestamp)).collect();
    let answers = offsets::list(Side::Source, &connection, &asks, reader).await?;
    let named = |(cell, answer): (&Rc<MirrorCell>, offsets::Answer)| {
        answer.map_err(|error| {
            refresh_on(share, Side::Source, error);
            match error {
                ErrorCode::TOPIC_AUTHORIZATION_FAILED => {
                    trouble::not_authorized(share, Need::ReadSource, cell)
                }
                error => trouble::answered(Side::Source, "ListOffsets", error, ""),
            }
        })
    };
    Ok(cells.iter().zip(answers).map(named).collect())
}

pub(super) fn by_source_leader(cells: &[Rc<MirrorCell>]) -> BTreeMap<i32, Vec<Rc<MirrorCell>>> {
    let mut by_leader: BTreeMap<i32, Vec<_>> = BTreeMap::new();
    for cell in cells {
        by_leader.entry(cell.source_leader.get().broker).or_default().push(cell.clone());
    }
    by_leader
}

/// Notes where the logs end, of mirrors that nothing is fetched for yet. A broker that does not answer soon is left, though not
/// the dial to it: the first Fetch tells it too.
pub(super) async fn note_ends(share: &Rc<Share>, cells: &[Rc<MirrorCell>]) {
    for (leader, cells) in by_source_leader(cells) {
        let asked = source_offsets(share, leader, &cells, offsets::LATEST);
        let answer = tokio::time::timeout(limits::ENDS_TIMEOUT, asked).await;
        let now = share.env.now();
        for (cell, end) in cells.iter().zip(answer.into_iter().flatten().flatten()) {
            if let Ok(end) = end {
                cell.note_source_end(now, end.offset);
            }
        }
    }
}

/// The source says that the wanted offset is not in its log: names what was lost (I6).
pub async fn resolve_out_of_range(share: &Rc<Share>, cells: &[Rc<MirrorCell>]) {
    for (leader, cells) in by_source_leader(cells) {
        let bounds = bounds(share, leader, &cells).await;
        let Ok((starts, ends)) = bounds else {
            share.link.source.refresh();
            for cell in &cells {
                cell.out_of_range.set(None);
                share.touch_fetch(cell);
            }
            continue;
        };
        for ((cell, start), end) in cells.iter().zip(starts).zip(ends) {
            let wanted = cell.out_of_range.take().unwrap_or(-1);
            share.touch_fetch(cell);
            // It was refused while an earlier refusal was looked into, which took the mirror further.
            let has_moved = |mirror: &Mirror| mirror.fetch_offset() != wanted;
            if cell.mirror.borrow().as_ref().is_some_and(has_moved) {
                continue;
            }
            let (Ok(start), Ok(end)) = (start, end) else { continue };
            // Else it is in the log again: a follower or a late leader answered.
            let is_gone = wanted < start.offset || wanted > end.offset;
            if !is_gone || !is_of_topic(share, leader, cell, wanted).await {
                continue;
            }
            if wanted < start.offset {
                gap::overtaken(share, leader, cell, wanted, start).await;
            } else {
                truncated(share, cell, wanted, end);
            }
        }
    }
}

/// ListOffsets names a topic, which may have been made again since the Fetch: whether the offset is still none of the topic that
/// is copied.
async fn is_of_topic(share: &Rc<Share>, leader: i32, cell: &Rc<MirrorCell>, wanted: i64) -> bool {
    let topic = TopicRef::new(cell.spec.id.topic.clone(), cell.spec.source_topic_id);
    let isolation = cell.settings.isolation.into();
    let Ok(connection) = share.question(Side::Source, leader).await else { return false };
    let index = cell.spec.id.partition;
    let asked = readback::plain_fetch(&connection, Side::Source, topic, index, wanted, isolation);
    asked.await.is_ok_and(|answer| answer.error == ErrorCode::OFFSET_OUT_OF_RANGE)
}

type Offsets = Vec<Result<offsets::Found, Error>>;

/// Where the logs begin and where they end for a reader of everything. The last stable offset would be no end: what was
/// copied below it may lie above it again.
async fn bounds(
    share: &Rc<Share>,
    leader: i32,
    cells: &[Rc<MirrorCell>],
) -> Result<(Offsets, Offsets), Error> {
    let starts = ask(share, leader, cells, offsets::EARLIEST, Reader::Consumer).await?;
    Ok((starts, ask(share, leader, cells, offsets::LATEST, Reader::Consumer).await?))
}

/// The source lost what was copied from it: an unclean election (I6). It stops whatever the policy, since no side is
/// known to be right. `end` is where the source's log goes other ways, with the epoch that ends there.
pub(super) fn truncated(
    share: &Rc<Share>,
    cell: &Rc<MirrorCell>,
    copied: i64,
    end: offsets::Found,
) {
    let message = format!(
        "the source log was truncated: offsets {} to {} were copied and are lost there (leader epoch {} ends at {0})",
        end.offset,
        copied - 1,
        end.leader_epoch,
    );
    let fix = trouble::reset_fix(&share.link.config.name, cell, &end.offset.to_string());
    let error = trouble::park(Code(63), Side::Source, cell, copied, message).fix(fix);
    let step = StepOver {
        kind: LossKind::Truncated,
        from: end.offset,
        to: copied,
        leader_epoch: end.leader_epoch,
        records: 0,
        error,
    };
    step_over::stopped_by(share, cell, &step);
    share.park_fetching(cell, step.error);
}
