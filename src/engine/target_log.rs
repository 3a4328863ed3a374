//! What the target holds of a mirror that begins: its log end, the newest epoch of our id, and what lies above the anchor.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::anchor::{Anchor, Numbering};
use super::cell::MirrorCell;
use super::decide::{fits, producer_id};
use super::group::{Commits, Committed};
use super::identity::{self, advance};
use super::mirror::Lineage;
use super::offsets::{self, Ask, Reader};
use super::position::key;
use super::readback::{self, Seen};
use super::recovery::{QUESTION_DEADLINE, refresh_on};
use super::share::Share;
use super::trouble;
use crate::canary::{Canary, planted};
use crate::cluster::rights::Need;
use crate::connection::Connection;
use crate::error::{Error, Side};
use crate::wire::common::TopicPartitions;
use crate::wire::describe_producers::DescribeProducersRequest;
use crate::wire::error_code::ErrorCode;

/// What the target partition holds.
#[derive(Debug)]
pub(super) struct TargetFound {
    /// Log end, replicated.
    pub(super) end: i64,
    /// Newest epoch of our id that the leader holds state for.
    pub(super) epoch: Option<i16>,
    /// Of a position that was committed by a Strait, and above it.
    pub(super) seen: Option<Seen>,
    /// Without any position: what is there all the same (R8).
    pub(super) remains: Remains,
}

/// Of a partition for which the group holds no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remains {
    /// Nothing that this mirror wrote, as far as anybody can see.
    Nothing,
    /// Batches of this mirror.
    Ours,
    /// Batches of another mirror from the same source: of a topic of the same name that is no more, or of another link.
    Elder,
    /// There were records, and all are deleted: nobody can say whose they were.
    Unreadable,
}

/// What a leader remembers of our id.
#[derive(Clone, Copy, Debug)]
struct State {
    epoch: i16,
    last_sequence: i32,
}

/// The leader is asked for its producers before the log end: what it remembered then is replicated once the end is.
pub(super) async fn target_facts(
    share: &Rc<Share>,
    broker: i32,
    cells: &[Rc<MirrorCell>],
    committed: &Commits,
) -> Result<Vec<Result<TargetFound, Error>>, Error> {
    let connection = share.question(Side::Target, broker).await?;
    let mut states = producer_states(share, &connection, cells).await?;
    let ends = readback::replicated_ends(share, &connection, cells).await?;
    let mut found = Vec::with_capacity(cells.len());
    for (cell, end) in cells.iter().zip(ends) {
        let committed = committed.get(&key(cell)).and_then(|found| found.as_ref().ok());
        let state = states.remove(&key(cell)).unwrap_or(Ok(None));
        found.push(match (end, state) {
            (Ok(end), Ok(state)) => {
                target_found(share, &connection, cell, committed, state, end).await
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        });
    }
    Ok(found)
}

async fn target_found(
    share: &Rc<Share>,
    connection: &Connection,
    cell: &Rc<MirrorCell>,
    committed: Option<&Committed>,
    state: Option<State>,
    end: i64,
) -> Result<TargetFound, Error> {
    let mut found = TargetFound {
        end,
        epoch: state.map(|state| state.epoch),
        seen: None,
        remains: Remains::Nothing,
    };
    match committed {
        // Everything before a step was acknowledged: there is nothing to read back.
        Some(Committed { anchor: Some(_), .. }) if cell.anew.borrow().is_some() => {}
        Some(Committed { anchor: Some(anchor), .. }) => {
            found.seen = Some(seen_since(share, connection, cell, anchor, state, end).await?);
        }
        // The operator named the position.
        Some(Committed { anchor: None, .. }) => {}
        None if state.is_some() => found.remains = Remains::Ours,
        None => found.remains = remains(share, connection, cell, end).await?,
    }
    Ok(found)
}

/// What the target holds of the anchor's lineage above the anchor; an anchor that does not fit reads nothing.
async fn seen_since(
    share: &Rc<Share>,
    connection: &Connection,
    cell: &Rc<MirrorCell>,
    anchor: &Anchor,
    state: Option<State>,
    end: i64,
) -> Result<Seen, Error> {
    fits(cell, anchor, end)?;
    if planted(Canary::ResumeBlind) {
        return Ok(Seen::nothing(end));
    }
    let Some(numbering) = anchor.numberings.first() else { return Err(trouble::stopped()) };
    let Numbering { producer_id, producer_epoch, next_sequence } = *numbering;
    let state = state.filter(|state| state.epoch == producer_epoch);
    let next_of = |last_sequence| advance(last_sequence, 1);
    if state.is_some_and(|state| next_of(state.last_sequence) == next_sequence) {
        // Nothing of ours came after the commit, and while the leader remembers, it refuses what comes out of turn:
        // what foreign writers appended since need not be read.
        return Ok(Seen::nothing(end));
    }
    let from = (Lineage { producer_id, producer_epoch }, next_sequence);
    let seen = readback::read_to(share, connection, cell, anchor.target_offset, from, end).await?;
    let next = seen.last_sequence.map_or(next_sequence, next_of);
    match state {
        // Unless a batch came late: then it is the one that the leader remembers.
        Some(state) if next_of(state.last_sequence) != next && !seen.ends_behind => {
            let detail = format!(
                "its leader remembers sequence {} as our last, its log says {}",
                state.last_sequence,
                next.wrapping_sub(1)
            );
            Err(trouble::answered(Side::Target, "DescribeProducers", ErrorCode::NONE, &detail))
        }
        _ => Ok(seen),
    }
}

/// What is left on the target of a life whose position is gone (the group's offsets expire after 7 days of standstill, the
/// leader's memory of us after one).
async fn remains(
    share: &Rc<Share>,
    connection: &Connection,
    cell: &Rc<MirrorCell>,
    end: i64,
) -> Result<Remains, Error> {
    if end == 0 {
        return Ok(Remains::Nothing);
    }
    let ask = [Ask::target(cell, offsets::EARLIEST)];
    let start = offsets::list(Side::Target, connection, &ask, Reader::Consumer).await?;
    let start = match start.first() {
        Some(Ok(start)) => start.offset,
        Some(Err(error)) => {
            refresh_on(share, Side::Target, *error);
            return Err(trouble::answered(Side::Target, "ListOffsets", *error, ""));
        }
        None => return Err(trouble::stopped()),
    };
    if start >= end {
        return Ok(Remains::Unreadable);
    }
    let ours = producer_id(share, cell);
    let is_ours = |id| id == ours;
    if readback::tail_holds(share, connection, cell, start, end, is_ours).await? {
        return Ok(Remains::Ours);
    }
    let is_elder = |id| identity::is_elder(id, ours);
    let holds = readback::tail_holds(share, connection, cell, start, end, is_elder).await?;
    Ok(if holds { Remains::Elder } else { Remains::Nothing })
}

type States = BTreeMap<(Arc<str>, i32), Result<Option<State>, Error>>;

/// What the target leader remembers of each mirror's id.
async fn producer_states(
    share: &Rc<Share>,
    connection: &Connection,
    cells: &[Rc<MirrorCell>],
) -> Result<States, Error> {
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
    let state = |cell: &Rc<MirrorCell>| {
        let at = (&*cell.spec.target_topic, cell.spec.id.partition);
        let error = producers.get(&at).map_or(ErrorCode::UNKNOWN_SERVER_ERROR, |found| found.error);
        refresh_on(share, Side::Target, error);
        match (error, producers.get(&at)) {
            (ErrorCode::NONE, Some(found)) => {
                let ours = producer_id(share, cell);
                let ours = found.producers.iter().find(|producer| producer.id == ours);
                Ok(ours.and_then(|producer| {
                    let epoch = i16::try_from(producer.epoch).ok()?;
                    Some(State { epoch, last_sequence: producer.last_sequence })
                }))
            }
            (ErrorCode::TOPIC_AUTHORIZATION_FAILED, _) => {
                Err(trouble::not_authorized(share, Need::ReadTarget, cell))
            }
            (error, _) => Err(trouble::answered(Side::Target, "DescribeProducers", error, "")),
        }
    };
    Ok(cells.iter().map(|cell| (key(cell), state(cell))).collect())
}
