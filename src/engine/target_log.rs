//! What the target holds of a mirror that begins: its log end, the newest epoch of our id, and what lies above the anchor.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::try_join;

use super::anchor::Anchor;
use super::cell::MirrorCell;
use super::decide::fits;
use super::group::{Commits, Committed};
use super::identity;
use super::lineage::{self, AtOdds, State};
use super::offsets::{self, Ask, Reader};
use super::position::key;
use super::readback;
use super::recovery::{QUESTION_DEADLINE, refresh_on};
use super::share::Share;
use super::trouble;
use super::walk::Seen;
use super::window;
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
    /// What the leader remembers of our ids.
    pub(super) states: Vec<State>,
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

/// The leader is asked for its producers before the log end: what it remembered then is replicated once the end is.
pub(super) async fn target_facts(
    share: &Rc<Share>,
    broker: i32,
    cells: &[Rc<MirrorCell>],
    committed: &Commits,
) -> Result<Vec<Result<TargetFound, Error>>, Error> {
    let connection = share.question(Side::Target, broker).await?;
    let (mut states, ends) = states_and_ends(share, &connection, cells).await?;
    let mut found = Vec::with_capacity(cells.len());
    for (cell, end) in cells.iter().zip(ends) {
        let committed = committed.get(&key(cell)).and_then(|found| found.as_ref().ok());
        let state = states.remove(&key(cell)).unwrap_or(Ok(Vec::new()));
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
    states: Vec<State>,
    end: i64,
) -> Result<TargetFound, Error> {
    let mut found = TargetFound { end, states, seen: None, remains: Remains::Nothing };
    match committed {
        // Everything before a step was acknowledged: there is nothing to read back.
        Some(Committed { anchor: Some(_), .. }) if cell.anew.borrow().is_some() => {}
        // Transactions leave nothing behind their position; alone it may be older than what the other delivery wrote.
        Some(Committed { anchor: Some(anchor), at_source, .. }) if anchor.era.is_some() => {
            fits(cell, anchor, end)?;
            let wrote = |id| cell.spec.route.writer().wrote(id);
            let from = anchor.target_offset;
            if at_source.is_none()
                && readback::holds(share, connection, cell, from..end, wrote).await?
            {
                found.remains = Remains::Ours;
            }
        }
        Some(Committed { anchor: Some(anchor), .. }) => {
            let seen = seen_since(share, connection, cell, anchor, &found.states, end).await?;
            found.seen = Some(seen);
        }
        // The operator named the position.
        Some(Committed { anchor: None, .. }) => {}
        None if !found.states.is_empty() => found.remains = Remains::Ours,
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
    states: &[State],
    end: i64,
) -> Result<Seen, Error> {
    fits(cell, anchor, end)?;
    if let Some(seen) = lineage::known(anchor, states, end) {
        return Ok(seen);
    }
    let from = anchor.target_offset;
    let seen = readback::read_to(share, connection, cell, from, &anchor.numberings, end).await?;
    if lineage::agree(&anchor.numberings, states, &seen).is_ok() {
        return Ok(seen);
    }
    let one = std::slice::from_ref(cell);
    let again = producer_states(share, connection, one).await?.pop_first();
    let again = again.map_or(Ok(Vec::new()), |(_, states)| states)?;
    lineage::put_back(&anchor.numberings, &again, seen).map_err(|AtOdds { remembered, in_log }| {
        let detail = format!(
            "its leader remembers sequence {remembered} as our last, its log says {in_log}"
        );
        trouble::answered(Side::Target, "DescribeProducers", ErrorCode::NONE, &detail)
    })
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
    let ours = cell.spec.route.home_id();
    let mut elder = false;
    let is_ours = |id| {
        let by_transactions = cell.producer.get().is_some_and(|producer| producer.id == id);
        // The id of transactions goes by the topic's name: it was the old one's too.
        let of_the_replaced = by_transactions && cell.spec.replaces.is_some();
        elder |= identity::is_elder(id, ours) || of_the_replaced;
        (by_transactions && !of_the_replaced) || cell.spec.route.writer().wrote(id)
    };
    let holds_ours = readback::tail_holds(share, connection, cell, start, end, is_ours).await?;
    Ok(match (holds_ours, elder) {
        (true, _) => Remains::Ours,
        (false, true) => Remains::Elder,
        (false, false) => Remains::Nothing,
    })
}

/// What the target leader remembers of each mirror's ids, and the replicated log end that was there then, or later: in one go
/// over a long way, for a broker answers the requests of a connection in their order.
pub(super) async fn states_and_ends(
    share: &Rc<Share>,
    connection: &Connection,
    cells: &[Rc<MirrorCell>],
) -> Result<(States, Vec<Result<i64, Error>>), Error> {
    let states = producer_states(share, connection, cells);
    try_join(states, readback::replicated_ends(share, connection, cells)).await
}

pub(super) type States = BTreeMap<(Arc<str>, i32), Result<Vec<State>, Error>>;

/// What the target leader remembers of each mirror's ids.
pub(super) async fn producer_states(
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
                let writer = cell.spec.route.writer();
                let target = &cell.spec.target;
                let oldest_trusted = window::oldest_trusted(target, share.env.wall_clock_ms());
                let ours = found.producers.iter().filter(|producer| writer.wrote(producer.id));
                let state = ours.filter_map(|producer| {
                    let epoch = i16::try_from(producer.epoch).ok()?;
                    let (producer_id, last_sequence) = (producer.id, producer.last_sequence);
                    let is_young = producer.last_timestamp >= oldest_trusted;
                    Some(State { producer_id, epoch, last_sequence, is_young })
                });
                Ok(state.collect())
            }
            (ErrorCode::TOPIC_AUTHORIZATION_FAILED, _) => {
                Err(trouble::not_authorized(share, Need::ReadTarget, cell))
            }
            (error, _) => Err(trouble::answered(Side::Target, "DescribeProducers", error, "")),
        }
    };
    Ok(cells.iter().map(|cell| (key(cell), state(cell))).collect())
}
