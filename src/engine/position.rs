//! Where a mirror begins: the group's committed offset, or the operator's `start`, and a numbering that nobody used before.
//!
//! A position that does not fit the two logs any more parks its mirror with both named; it is never guessed.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::anchor::Anchor;
use super::cell::MirrorCell;
use super::group::{self, Commit, Committed};
use super::identity::{self, Origin};
use super::mirror::{Beginning, Lineage};
use super::offsets::{self, Ask, Reader};
use super::readback::{self, Seen};
use super::recovery::{QUESTION_DEADLINE, all_failed, refresh_on};
use super::replay::{BehindTheCommit, Replay};
use super::share::Share;
use super::stats::MirrorStats;
use super::trouble;
use crate::cluster::rights::Need;
use crate::config::resolved::{Isolation, Start};
use crate::connection::Connection;
use crate::error::{Action, Code, Error, Side};
use crate::wire::common::TopicPartitions;
use crate::wire::describe_producers::DescribeProducersRequest;
use crate::wire::error_code::ErrorCode;

type Outcomes<T> = Vec<(Rc<MirrorCell>, Result<T, Error>)>;

/// Finds the beginning of mirrors that have none, all led by one target broker.
pub async fn begin(
    share: &Rc<Share>,
    broker: i32,
    cells: &[Rc<MirrorCell>],
) -> Outcomes<Beginning> {
    let partitions: Vec<_> =
        cells.iter().map(|c| (c.spec.id.topic.clone(), c.spec.id.partition)).collect();
    let committed = match group::committed(share, &partitions).await {
        Ok(committed) => committed,
        Err(error) => return all_failed(cells, &error),
    };
    let fresh: Vec<_> =
        cells.iter().filter(|c| !committed.contains_key(&key(c))).cloned().collect();
    let starts = match start_offsets(share, &fresh).await {
        Ok(starts) => starts,
        Err(error) => return all_failed(cells, &error),
    };
    let targets = match target_facts(share, broker, cells, &committed).await {
        Ok(targets) => targets,
        Err(error) => return all_failed(cells, &error),
    };
    let mut outcomes = Vec::with_capacity(cells.len());
    let mut anchors = Vec::new();
    for (cell, target) in cells.iter().zip(targets) {
        let found = committed.get(&key(cell));
        let start = starts.get(&key(cell)).cloned();
        let outcome = target.and_then(|target| decide(share, cell, found, start, target));
        if let Ok(Decided { beginning, is_new: true }) = &outcome {
            anchors.push(anchor_commit(cell, beginning));
        }
        outcomes.push((cell.clone(), outcome));
    }
    // A new numbering is on record before its first batch leaves (R7): no later start can take it for a free one.
    let mut recorded = match group::commit(share, &anchors).await {
        Ok(recorded) => recorded.into_iter(),
        Err(error) => return all_failed(cells, &error),
    };
    let settle = |(cell, outcome): (Rc<MirrorCell>, Result<Decided, Error>)| {
        let outcome = outcome.and_then(|decided| {
            if decided.is_new {
                recorded.next().unwrap_or(Ok(()))?;
            }
            note_committed(share, &cell, decided.beginning.source_offset);
            Ok(decided.beginning)
        });
        (cell, outcome)
    };
    outcomes.into_iter().map(settle).collect()
}

fn key(cell: &MirrorCell) -> (Arc<str>, i32) {
    (cell.spec.id.topic.clone(), cell.spec.id.partition)
}

fn anchor_commit(cell: &MirrorCell, beginning: &Beginning) -> Commit {
    let spec = &cell.spec;
    let anchor = Anchor {
        target_topic_id: spec.target_topic_id,
        target_offset: beginning.target_offset,
        producer_id: beginning.lineage.producer_id,
        producer_epoch: beginning.lineage.producer_epoch,
        next_sequence: 0,
        source_topic_id: spec.source_topic_id,
    };
    Commit {
        topic: spec.id.topic.clone(),
        partition: spec.id.partition,
        offset: beginning.source_offset,
        leader_epoch: beginning.leader_epoch,
        metadata: anchor.to_string(),
    }
}

fn note_committed(share: &Share, cell: &MirrorCell, offset: i64) {
    cell.committed.set(offset);
    cell.committed_at.set(Some(share.env.now()));
    cell.stats.committed.store(offset, Relaxed);
}

/// What the target partition holds.
#[derive(Debug)]
struct TargetFound {
    /// Log end, replicated.
    end: i64,
    /// Newest epoch of our id that the leader holds state for.
    epoch: Option<i16>,
    /// Of the anchor's lineage, above the anchor.
    seen: Option<Seen>,
}

/// A beginning, and whether its numbering is a new one.
struct Decided {
    beginning: Beginning,
    is_new: bool,
}

async fn target_facts(
    share: &Rc<Share>,
    broker: i32,
    cells: &[Rc<MirrorCell>],
    committed: &BTreeMap<(Arc<str>, i32), Committed>,
) -> Result<Vec<Result<TargetFound, Error>>, Error> {
    let connection = share.question(Side::Target, broker).await?;
    let ends = readback::replicated_ends(share, &connection, cells).await?;
    let mut epochs = producer_epochs(share, &connection, cells).await?;
    let mut found = Vec::with_capacity(cells.len());
    for (cell, end) in cells.iter().zip(ends) {
        let anchor = committed.get(&key(cell)).and_then(|committed| committed.anchor.as_ref());
        let epoch = epochs.remove(&key(cell)).unwrap_or(Ok(None));
        found.push(match (end, epoch) {
            (Ok(end), Ok(epoch)) => {
                let seen = match anchor {
                    Some(anchor) => {
                        seen_since(share, &connection, cell, anchor, end).await.map(Some)
                    }
                    None => Ok(None),
                };
                seen.map(|seen| TargetFound { end, epoch, seen })
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        });
    }
    Ok(found)
}

/// What the target holds of the anchor's lineage above the anchor; an anchor that does not fit reads nothing.
async fn seen_since(
    share: &Rc<Share>,
    connection: &Connection,
    cell: &Rc<MirrorCell>,
    anchor: &Anchor,
    end: i64,
) -> Result<Seen, Error> {
    fits(cell, anchor, end)?;
    let Anchor { producer_id, producer_epoch, target_offset, .. } = *anchor;
    let lineage = Lineage { producer_id, producer_epoch };
    readback::read_to(share, connection, cell, target_offset, lineage, end).await
}

type Epochs = BTreeMap<(Arc<str>, i32), Result<Option<i16>, Error>>;

/// The newest epoch of each mirror's id that the target leader holds state for.
async fn producer_epochs(
    share: &Rc<Share>,
    connection: &Connection,
    cells: &[Rc<MirrorCell>],
) -> Result<Epochs, Error> {
    let topics = TopicPartitions::gather(
        cells.iter().map(|cell| (&*cell.spec.target_topic, cell.spec.id.partition)),
    );
    let answer = connection
        .call(&DescribeProducersRequest { topics }, QUESTION_DEADLINE)
        .await
        .map_err(|error| trouble::call(Side::Target, "DescribeProducers", &error))?;
    let producers: BTreeMap<_, _> = TopicPartitions::flat(&answer.topics)
        .map(|(topic, partition)| ((topic, partition.index), partition))
        .collect();
    let epoch = |cell: &Rc<MirrorCell>| {
        let at = (&*cell.spec.target_topic, cell.spec.id.partition);
        let error = producers.get(&at).map_or(ErrorCode::UNKNOWN_SERVER_ERROR, |found| found.error);
        refresh_on(share, Side::Target, error);
        match (error, producers.get(&at)) {
            (ErrorCode::NONE, Some(found)) => {
                let ours = producer_id(share, cell);
                let ours = found.producers.iter().find(|producer| producer.id == ours);
                Ok(ours.and_then(|producer| i16::try_from(producer.epoch).ok()))
            }
            (ErrorCode::TOPIC_AUTHORIZATION_FAILED, _) => {
                Err(trouble::not_authorized(share, Need::ReadTarget, cell))
            }
            (error, _) => Err(trouble::answered(Side::Target, "DescribeProducers", error, "")),
        }
    };
    Ok(cells.iter().map(|cell| (key(cell), epoch(cell))).collect())
}

fn producer_id(share: &Share, cell: &MirrorCell) -> i64 {
    let map = share.link.source.map();
    let origin = Origin::of_cluster(map.cluster_id.as_deref().unwrap_or_default());
    let id = &cell.spec.id;
    identity::producer_id(origin, &id.link, cell.spec.source_topic_id, id.partition)
}

/// Puts commit, source and target together.
fn decide(
    share: &Share,
    cell: &MirrorCell,
    committed: Option<&Committed>,
    start: Option<Result<offsets::Found, Error>>,
    target: TargetFound,
) -> Result<Decided, Error> {
    if let Some(committed) = committed
        && let Some(anchor) = &committed.anchor
        && let Some(seen) = target.seen
    {
        return resume(cell, committed, anchor, seen, target.epoch);
    }
    if committed.is_none() && target.epoch.is_some() {
        let group = &share.group;
        let message = format!(
            "the target holds batches of this mirror, but group {group} holds no offset for it: \
             it expired or was deleted"
        );
        let fix = format!(
            "name the position: kafka-consumer-groups.sh --reset-offsets --group {group} on the source, \
             or delete the target topic"
        );
        return Err(trouble::park(Code(65), Side::Source, cell, target.end, message).fix(fix));
    }
    let producer_epoch = match target.epoch {
        None => 0,
        Some(epoch) => epoch.checked_add(1).ok_or_else(|| {
            let message = "every epoch of this mirror's producer id is used up".to_owned();
            trouble::park(Code(65), Side::Target, cell, target.end, message)
                .fix("copy under a link of another name")
        })?,
    };
    let (source_offset, leader_epoch) = match (committed, start) {
        (Some(committed), _) => (committed.offset, committed.leader_epoch),
        (None, Some(found)) => (found?.offset, -1),
        (None, None) => return Err(trouble::stopped()),
    };
    let beginning = Beginning {
        source_offset,
        leader_epoch,
        target_offset: target.end,
        lineage: Lineage { producer_id: producer_id(share, cell), producer_epoch },
        next_sequence: 0,
        replay: None,
    };
    Ok(Decided { beginning, is_new: true })
}

/// Goes on under the anchor's numbering, behind what the target holds of it (R3, R4): a request of a former life that is
/// still on its way is refused or recognised by its sequence.
fn resume(
    cell: &MirrorCell,
    committed: &Committed,
    anchor: &Anchor,
    seen: Seen,
    epoch: Option<i16>,
) -> Result<Decided, Error> {
    if epoch.is_some_and(|epoch| epoch > anchor.producer_epoch) {
        let message = format!(
            "the commit speaks of numbering {}, the target of a newer one: the position was set back \
             with its metadata, or another instance took over",
            anchor.producer_epoch
        );
        return Err(trouble::park(Code(65), Side::Target, cell, seen.target_end, message)
            .fix("name the position: kafka-consumer-groups.sh --reset-offsets on the source"));
    }
    let times_differ = cell.spec.target.log_append_time();
    let replay = match seen.last_sequence.zip(seen.last) {
        None => None,
        Some((last_sequence, last)) => {
            let replay = Replay::new(anchor.next_sequence, last_sequence, last, times_differ);
            replay.map_err(|BehindTheCommit| {
                let message = format!(
                    "the target's last sequence is {last_sequence}, the commit counts from {}: \
                     another instance of this link is writing",
                    anchor.next_sequence
                );
                trouble::park(Code(65), Side::Target, cell, seen.target_end, message)
            })?
        }
    };
    let beginning = Beginning {
        source_offset: committed.offset,
        leader_epoch: committed.leader_epoch,
        target_offset: seen.target_end,
        lineage: Lineage { producer_id: anchor.producer_id, producer_epoch: anchor.producer_epoch },
        next_sequence: anchor.next_sequence,
        replay,
    };
    Ok(Decided { beginning, is_new: false })
}

/// Whether an anchor speaks of the topics and the log that are there now.
fn fits(cell: &MirrorCell, anchor: &Anchor, target_end: i64) -> Result<(), Error> {
    let spec = &cell.spec;
    let what = if anchor.source_topic_id != spec.source_topic_id {
        Some((
            Code(67),
            Side::Source,
            format!(
                "the committed offset belongs to source topic id {}, the topic is now {}: it was re-created",
                anchor.source_topic_id, spec.source_topic_id
            ),
        ))
    } else if anchor.target_topic_id != spec.target_topic_id {
        Some((
            Code(66),
            Side::Target,
            format!(
                "the copy was written to target topic id {}, the topic is now {}: it was re-created",
                anchor.target_topic_id, spec.target_topic_id
            ),
        ))
    } else if anchor.target_offset > target_end {
        Some((
            Code(68),
            Side::Target,
            format!(
                "the copy reached target offset {}, the log now ends at {target_end}: it was truncated",
                anchor.target_offset
            ),
        ))
    } else {
        None
    };
    match what {
        None => Ok(()),
        Some((code, side, message)) => {
            let fix = "name the position: kafka-consumer-groups --reset-offsets on the source";
            Err(trouble::park(code, side, cell, anchor.target_offset, message).fix(fix))
        }
    }
}

/// The operator's `start` for mirrors without a commit, asked of each source leader.
async fn start_offsets(
    share: &Rc<Share>,
    cells: &[Rc<MirrorCell>],
) -> Result<BTreeMap<(Arc<str>, i32), Result<offsets::Found, Error>>, Error> {
    let config = &share.link.config;
    let timestamp = match config.start {
        Start::Earliest => offsets::EARLIEST,
        Start::Latest => offsets::LATEST,
        Start::Timestamp(ms) => ms,
    };
    let mut starts = BTreeMap::new();
    for (leader, cells) in by_source_leader(cells) {
        let found = match source_offsets(share, leader, &cells, timestamp).await {
            Ok(found) => found,
            // One broker that cannot be asked holds up no mirror of another (I7).
            Err(error) => {
                starts.extend(cells.iter().map(|cell| (key(cell), Err(error.clone()))));
                continue;
            }
        };
        let mut late = Vec::new();
        for (cell, found) in cells.iter().zip(found) {
            match found {
                // No record that young: whatever comes next.
                Ok(found) if found.offset < 0 => late.push(cell.clone()),
                found => drop(starts.insert(key(cell), found)),
            }
        }
        if !late.is_empty() {
            let ends = source_offsets(share, leader, &late, offsets::LATEST).await?;
            starts.extend(late.iter().map(|cell| key(cell)).zip(ends));
        }
    }
    Ok(starts)
}

async fn source_offsets(
    share: &Rc<Share>,
    leader: i32,
    cells: &[Rc<MirrorCell>],
    timestamp: i64,
) -> Result<Vec<Result<offsets::Found, Error>>, Error> {
    let connection = share.question(Side::Source, leader).await?;
    let asks: Vec<_> = cells.iter().map(|cell| Ask::source(cell, timestamp)).collect();
    let reader = match share.link.config.isolation {
        Isolation::ReadCommitted => Reader::CommittedConsumer,
        Isolation::ReadUncommitted => Reader::Consumer,
    };
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

fn by_source_leader(cells: &[Rc<MirrorCell>]) -> BTreeMap<i32, Vec<Rc<MirrorCell>>> {
    let mut by_leader: BTreeMap<i32, Vec<_>> = BTreeMap::new();
    for cell in cells {
        by_leader.entry(cell.source_leader.get().broker).or_default().push(cell.clone());
    }
    by_leader
}

/// The source says that the wanted offset is not in its log: names what was lost (I6).
pub async fn resolve_out_of_range(share: &Rc<Share>, cells: &[Rc<MirrorCell>]) {
    for (leader, cells) in by_source_leader(cells) {
        let starts = source_offsets(share, leader, &cells, offsets::EARLIEST).await;
        let ends = source_offsets(share, leader, &cells, offsets::LATEST).await;
        let (Ok(starts), Ok(ends)) = (starts, ends) else {
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
            let (Ok(start), Ok(end)) = (start, end) else { continue };
            if wanted < start.offset {
                lost(share, cell, wanted, start.offset);
            } else if wanted > end.offset {
                let message = format!(
                    "the source log was truncated: offset {wanted} was reached, it now ends at {}",
                    end.offset
                );
                share.park(cell, trouble::park(Code(63), Side::Source, cell, wanted, message));
            }
            // Else it is in the log again: a follower or a late leader answered.
        }
    }
}

/// Retention or DeleteRecords overtook the mirror.
fn lost(share: &Rc<Share>, cell: &Rc<MirrorCell>, wanted: i64, log_start: i64) {
    MirrorStats::add(&cell.stats.gap_offsets, (log_start - wanted).unsigned_abs());
    let message = format!(
        "source offsets {wanted} to {} were deleted before they were copied ({} offsets)",
        log_start - 1,
        log_start - wanted
    );
    let error = Error::new(Code(70), Side::Source, Action::Park, message)
        .mirror(&*cell.spec.id.topic, cell.spec.id.partition, Some(wanted))
        .fix(format!(
            "to go on without them: kafka-consumer-groups --reset-offsets --to-offset {log_start} on the source"
        ));
    share.park(cell, error);
}
