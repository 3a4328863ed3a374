//! Where a mirror with transactions begins: every older life of it is fenced first, what one left open is ended, and then
//! the target group's position is what is on the target, to the record. Also how a link finds out of them again.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;

use super::cell::MirrorCell;
use super::coordination::{self, Asking, Whose, ask};
use super::decide::Decided;
use super::group::{self, Commits, Committed};
use super::position::{Outcomes, forget_the_replaced, key};
use super::share::Share;
use super::transaction::{Era, Found, Producer, find};
use super::trouble;
use crate::env::Moment;
use crate::error::{Action, Code, Error, Side};
use crate::limits;
use crate::wire::common::TopicPartitions;
use crate::wire::error_code::ErrorCode;
use crate::wire::find_coordinator::{CoordinatorKind, FindCoordinatorRequest};
use crate::wire::init_producer_id::InitProducerIdRequest;
use crate::wire::offset_fetch::OffsetFetchRequest;

/// Fences at a time.
const AT_A_TIME: usize = 32;
/// What a beginning waits for a coordinator: others of its round wait with it, and it is looked at again soon.
const ASKING: Asking = Asking { patience: Duration::from_secs(2), unheard: true };

/// Puts the target group's positions in the place of those that they overrule; a mirror that cannot be told gets its error
/// there. Costs nothing where there are no transactions and were none.
pub(super) async fn settle(share: &Rc<Share>, cells: &[Rc<MirrorCell>], committed: &mut Commits) {
    let transactional = share.is_transactional();
    let in_an_era = |cell: &&Rc<MirrorCell>| match committed.get(&key(cell)) {
        Some(Ok(found)) => {
            transactional || found.anchor.as_ref().is_some_and(|anchor| anchor.era.is_some())
        }
        Some(Err(_)) => false,
        None => transactional,
    };
    let concerned: Vec<_> = cells.iter().filter(in_an_era).cloned().collect();
    if concerned.is_empty() {
        return;
    }
    find_coordinators(share, &concerned).await;
    let mut well = Vec::with_capacity(concerned.len());
    for (cell, outcome) in fence_all(share, concerned).await {
        match outcome {
            Ok(producer) => {
                cell.producer.set(Some(producer));
                well.push(cell);
            }
            Err(error) => drop(committed.insert(key(&cell), Err(error))),
        }
    }
    share.env.reached(Moment::Fenced);
    let Some(first) = well.first() else { return };
    read_again(share, &well, committed).await;
    let positions = positions(share, first, &well).await;
    for cell in &well {
        let position = match &positions {
            Ok(positions) => positions.get(&target_key(cell)).cloned().transpose(),
            Err(error) => Err(error.clone()),
        };
        let position = position.map(|found| found.filter(|found| !is_of_the_replaced(cell, found)));
        let overruled = position.and_then(|position| overrule(share, cell, committed, position));
        match overruled {
            Ok(None) => {}
            Ok(Some(found)) => drop(committed.insert(key(cell), Ok(found))),
            Err(error) => drop(committed.insert(key(cell), Err(error))),
        }
    }
}

async fn fence_all(share: &Rc<Share>, cells: Vec<Rc<MirrorCell>>) -> Outcomes<Producer> {
    let fenced = stream::iter(cells).map(|cell| async move {
        let outcome = fence(share, &cell).await;
        (cell, outcome)
    });
    fenced.buffer_unordered(AT_A_TIME).collect().await
}

/// The source group's positions behind the fence: whoever left an era put that on record before a fence of his own. Read
/// before that, ours would be the later one, and go on in an era that is over.
async fn read_again(share: &Rc<Share>, cells: &[Rc<MirrorCell>], committed: &mut Commits) {
    let partitions: Vec<_> = cells.iter().map(|cell| key(cell)).collect();
    match group::committed(share, &partitions).await {
        Ok(mut again) => {
            for cell in cells {
                let key = key(cell);
                match again.remove(&key) {
                    Some(found) => drop(committed.insert(key, found)),
                    None => drop(committed.remove(&key)),
                }
                forget_the_replaced(cell, committed);
            }
        }
        Err(error) => committed.extend(partitions.into_iter().map(|key| (key, Err(error.clone())))),
    }
}

/// That some mirrors leave an era is on record. Whoever fenced between our fence and that may have committed a transaction
/// of it: fenced once more he cannot, and the target group tells how far he came. Who fences later finds the era left.
pub(super) async fn confirm(share: &Rc<Share>, outcomes: &mut Outcomes<Decided>) {
    let leaves =
        |outcome: &Result<Decided, Error>| outcome.as_ref().is_ok_and(|d| d.leaves.is_some());
    let leaving: Vec<_> =
        outcomes.iter().filter(|(_, o)| leaves(o)).map(|(cell, _)| cell.clone()).collect();
    let Some(any) = leaving.first().cloned() else { return };
    let fenced = fence_all(share, leaving.clone()).await;
    let positions = positions(share, &any, &leaving).await;
    for (cell, outcome) in outcomes.iter_mut() {
        let Ok(Decided { leaves: Some(era), committed, .. }) = outcome else { continue };
        let is_this = |(other, _): &&(Rc<MirrorCell>, _)| Rc::ptr_eq(other, cell);
        let fenced = fenced.iter().find(is_this).map(|(_, fenced)| fenced.clone());
        let position = positions.as_ref().map(|positions| positions.get(&target_key(cell)));
        let error = match (fenced, position) {
            (Some(Err(error)), _) => error,
            (_, Err(error)) => error.clone(),
            (_, Ok(Some(Err(error)))) => error.clone(),
            (_, Ok(Some(Ok(found)))) if found.offset > *committed && is_of(found, *era) => {
                let message = "another instance committed a transaction meanwhile";
                Error::new(Code(65), Side::Target, Action::Retry, message)
            }
            (_, Ok(Some(Ok(_)) | None)) => continue,
        };
        *outcome = Err(error);
    }
}

fn is_of(position: &Committed, era: Era) -> bool {
    let theirs = position.anchor.as_ref().and_then(|anchor| anchor.era);
    theirs.is_some_and(|theirs| theirs.id == era.id)
}

/// What counts in the place of the source group's position, if that does not.
fn overrule(
    share: &Share,
    cell: &MirrorCell,
    committed: &Commits,
    target: Option<Committed>,
) -> Result<Option<Committed>, Error> {
    let source = match committed.get(&key(cell)) {
        Some(Ok(found)) => Some(found),
        Some(Err(_)) | None => None,
    };
    match find(source, target.as_ref()) {
        Found::Source => Ok(None),
        Found::Left => Ok(source.cloned().map(Committed::without_era_left)),
        Found::Era { position, marked } => {
            let at_source = source.filter(|_| marked).map(|source| source.offset);
            Ok(Some(Committed { at_source, ..position }))
        }
        Found::Lost => {
            let anchor = source.and_then(|source| source.anchor.as_ref());
            let target_now = cell.spec.target_topic_id;
            if anchor.is_some_and(|anchor| anchor.target_topic_id != target_now) {
                // The offsets went with the topic; the anchor says so itself.
                return Ok(None);
            }
            let group = &share.group;
            let message = format!(
                "transactions of this mirror were committed, but group {group} of the target holds no position of \
                 them: it expired or was deleted"
            );
            let offset = source.map_or(-1, |source| source.offset);
            let error = trouble::park(Code(65), Side::Target, cell, offset, message);
            Err(error.fix(trouble::reset_fix(&cell.spec.id.link, cell, "OFFSET")))
        }
    }
}

/// The old topic's position says nothing of the one that took its name.
fn is_of_the_replaced(cell: &MirrorCell, found: &Committed) -> bool {
    let read = found.anchor.as_ref().map(|anchor| anchor.source_topic_id);
    read.is_some() && read == cell.spec.replaces
}

/// One question for all that are not known yet; who is not found is asked for alone.
async fn find_coordinators(share: &Rc<Share>, cells: &[Rc<MirrorCell>]) {
    let unknown: Vec<_> = cells.iter().filter(|c| c.transaction_coordinator.get() < 0).collect();
    for chunk in unknown.chunks(limits::COMMITS_PER_REQUEST_MAX) {
        let Some(first) = chunk.first() else { return };
        let leader = first.target_leader.get().broker;
        let Ok(connection) = share.question(Side::Target, leader).await else { return };
        let keys = chunk.iter().map(|cell| cell.transactional_id()).collect();
        let request = FindCoordinatorRequest { kind: CoordinatorKind::Transaction, keys };
        let Ok(answer) = connection.call(&request, limits::REQUEST_TIMEOUT).await else { return };
        let found: BTreeMap<_, _> = answer
            .coordinators
            .into_iter()
            .filter(|found| !found.error.is_error())
            .map(|found| (found.key, found.id))
            .collect();
        for cell in chunk {
            if let Some(id) = found.get(&cell.transactional_id()) {
                cell.transaction_coordinator.set(*id);
            }
        }
    }
}

/// Ends the open transaction of a mirror that was parked: its readers would wait for the coordinator's clock. By a fence and
/// no abort, for what is on its way of it is refused behind a fence.
pub(super) async fn let_go(share: Rc<Share>, cell: Rc<MirrorCell>) {
    if let Err(error) = fence(&share, &cell).await {
        tracing::info!(link = %cell.stats.link, mirror = %cell.spec.id, %error,
            "the transaction of a parked mirror stays open until the target's coordinator ends it");
    }
}

/// Ends every other life of the mirror on the target.
async fn fence(share: &Rc<Share>, cell: &Rc<MirrorCell>) -> Result<Producer, Error> {
    let timeout_ms = i32::try_from(coordination::timeout(share).as_millis()).unwrap_or(i32::MAX);
    let transactional_id = cell.transactional_id();
    let request = InitProducerIdRequest { transactional_id, timeout_ms };
    let whose = Whose::Transactions(cell);
    let answer = ask(share, whose, ASKING, i16::MAX, &request, |answer| answer.error).await;
    let answer = answer.map_err(|refused| refused.error)?;
    let connection = coordination::coordinator(share, whose).await?;
    let v2 = connection.has_transactions_v2();
    Ok(Producer { id: answer.producer_id, epoch: answer.producer_epoch, v2 })
}

type Positions = BTreeMap<(Arc<str>, i32), Result<Committed, Error>>;

fn target_key(cell: &MirrorCell) -> (Arc<str>, i32) {
    (cell.spec.target_topic.clone(), cell.spec.id.partition)
}

/// What the group on the target holds, by target topic and partition: nothing of it is pending.
async fn positions(
    share: &Rc<Share>,
    any: &Rc<MirrorCell>,
    cells: &[Rc<MirrorCell>],
) -> Result<Positions, Error> {
    let topics = TopicPartitions::gather(
        cells.iter().map(|cell| (&*cell.spec.target_topic, cell.spec.id.partition)),
    );
    let group = share.group.clone();
    let request = OffsetFetchRequest { group, topics: Some(topics), require_stable: true };
    let code = |answer: &crate::wire::offset_fetch::OffsetFetchResponse| {
        // What was ended a moment ago may still be pending at the group's coordinator.
        let pending = TopicPartitions::flat(&answer.topics)
            .any(|(_, stored)| stored.error == ErrorCode::UNSTABLE_OFFSET_COMMIT);
        if answer.error.is_error() || !pending {
            answer.error
        } else {
            ErrorCode::UNSTABLE_OFFSET_COMMIT
        }
    };
    let answer = ask(share, Whose::Group(any), ASKING, i16::MAX, &request, code).await;
    let answer = answer.map_err(|refused| refused.error)?;
    let refused = |error| trouble::answered(Side::Target, "OffsetFetch", error, "");
    Ok(group::sort(&answer, refused))
}
