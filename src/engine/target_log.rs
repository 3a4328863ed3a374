//! What the target holds of a mirror that begins: its log end, the newest epoch of our id, and what lies above the anchor.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::anchor::{Anchor, Numbering};
use super::cell::MirrorCell;
use super::decide::{fits, producer_id};
use super::group::Committed;
use super::mirror::Lineage;
use super::position::key;
use super::readback::{self, Seen};
use super::recovery::{QUESTION_DEADLINE, refresh_on};
use super::share::Share;
use super::trouble;
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
    /// Of the anchor's lineage, above the anchor.
    pub(super) seen: Option<Seen>,
}

pub(super) async fn target_facts(
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
    let Some(numbering) = anchor.numberings.first() else { return Err(trouble::stopped()) };
    let Numbering { producer_id, producer_epoch, .. } = *numbering;
    let lineage = Lineage { producer_id, producer_epoch };
    readback::read_to(share, connection, cell, anchor.target_offset, lineage, end).await
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
