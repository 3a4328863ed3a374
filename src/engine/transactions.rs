//! Carries out the transactions of a mirror: opens one when batches wait, ends it after an interval or so many bytes, with
//! the position in it. One task a transaction; what it may do is decided in `transaction.rs`.

use std::rc::Rc;
use std::time::Duration;

use super::anchor::Anchor;
use super::cell::{Halt, MirrorCell, Refused};
use super::coordination::{self, Asking, Whose, ask, is_fenced};
use super::fence;
use super::losses::LossKind;
use super::mirror::{Mirror, Settled};
use super::mirror_transaction::Ending;
use super::recovery;
use super::share::Share;
use super::step_over::{self, StepOver};
use super::transaction::{Place, Producer};
use super::trouble::{self, Remedy};
use crate::cluster::rights::Need;
use crate::config::resolved::{OnPoison, Transactions};
use crate::env::Moment;
use crate::error::{Action, Code, Error, Side};
use crate::limits;
use crate::wire::add_offsets_to_txn::AddOffsetsToTxnRequest;
use crate::wire::add_partitions_to_txn::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};
use crate::wire::common::TopicPartitions;
use crate::wire::end_txn::{self, EndTxnRequest};
use crate::wire::error_code::ErrorCode;
use crate::wire::offset_commit::OffsetToCommit;
use crate::wire::txn_offset_commit::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

/// Brokers forget an offset after `offsets.retention.minutes` (7 days) without a commit.
const IDLE_RECOMMIT: Duration = Duration::from_secs(24 * 3600);
/// Between two looks for positions that grow old.
const IDLE_LOOK: Duration = Duration::from_secs(3600);
/// What a new life of a mirror waits behind a fence: the group says meanwhile whose it is.
const FENCED_WAIT: Duration = Duration::from_secs(1);
/// A missing right is not found in milliseconds.
const AUTHORIZE_WAIT: Duration = Duration::from_secs(10);
/// Versions of before transactions V2 (KIP-890).
const TXN_OFFSET_COMMIT_V1: i16 = 4;
/// Whatever both sides have.
const NEWEST: i16 = i16::MAX;

/// Opens a transaction if batches wait for one.
pub(super) fn open(share: &Rc<Share>, cell: &Rc<MirrorCell>) {
    let begun = {
        let mut mirror = cell.mirror.borrow_mut();
        let may = cell.halt.get() == Halt::None && !cell.is_removed();
        mirror.as_mut().filter(|_| may).is_some_and(Mirror::begin_transaction)
    };
    if begun {
        share.spawn(run(share.clone(), cell.clone(), cell.life.get(), false));
    }
}

/// Commits positions anew that nothing was added to for a day; until the share stops.
pub(super) async fn keep_alive(share: Rc<Share>) {
    while !share.is_stopped() {
        tokio::time::sleep(IDLE_LOOK).await;
        let now = share.env.now();
        for cell in share.mirrors() {
            let stale = cell.target_committed_at.get().is_some_and(|at| now - at >= IDLE_RECOMMIT);
            let begun = stale && {
                let mut mirror = cell.mirror.borrow_mut();
                mirror.as_mut().is_some_and(Mirror::begin_empty_transaction)
            };
            if begun {
                share.spawn(run(share.clone(), cell.clone(), cell.life.get(), true));
            }
        }
    }
}

/// One transaction from its opening to its end.
async fn run(share: Rc<Share>, cell: Rc<MirrorCell>, life: u64, empty: bool) {
    let outcome = transact(&share, &cell, life, empty).await;
    if cell.life.get() != life {
        return;
    }
    match outcome {
        Ok(settled) => {
            cell.batch_bytes_max.set(usize::MAX);
            share.on_settled(&cell, &settled);
        }
        Err(refused) => {
            if let Some(refused) = refused {
                cell.transaction_trouble.borrow_mut().get_or_insert(refused);
            }
            if let Some(mirror) = &mut *cell.mirror.borrow_mut() {
                mirror.fail_transaction();
            }
        }
    }
    share.recovery_wake.notify_one();
}

type Outcome<T> = Result<T, Option<coordination::Refused>>;

async fn transact(
    share: &Rc<Share>,
    cell: &Rc<MirrorCell>,
    life: u64,
    empty: bool,
) -> Outcome<Vec<Settled>> {
    let producer = producer(cell, life)?;
    if !producer.v2 {
        add_to_transaction(share, cell, producer, empty).await.map_err(Some)?;
    }
    share.env.reached(Moment::TransactionOpened);
    with(cell, life, Mirror::transaction_opened)?;
    if !empty {
        share.touch_send(cell);
        wait_for_end(share, cell, life).await?;
    }
    let place = loop {
        match with(cell, life, Mirror::end_transaction)? {
            Ending::At(place) => break *place,
            Ending::Failed => return Err(None),
            Ending::Waits => cell.transaction_wake.notified().await,
        }
    };
    let written = with(cell, life, |m| m.transaction().is_some_and(|t| t.has_written()))?;
    if !written && !empty {
        // Draining came before the first batch. With transactions V2 no broker has heard of it.
        let next = match producer.v2 {
            true => None,
            false => end(share, cell, producer, false).await.map_err(Some)?,
        };
        with(cell, life, |mirror| mirror.transaction_dropped(next))?;
        return Ok(Vec::new());
    }
    commit_position(share, cell, life, producer, &place).await?;
    share.env.reached(Moment::PositionAdded);
    let next = end(share, cell, producer, true).await.map_err(Some)?;
    share.env.reached(Moment::TransactionEnded);
    cell.target_committed_at.set(Some(share.env.now()));
    with(cell, life, |mirror| mirror.transaction_ended(place, next))
}

/// What the mirror of this life says; an error if it is another by now.
fn with<T>(cell: &MirrorCell, life: u64, ask: impl FnOnce(&mut Mirror) -> T) -> Outcome<T> {
    let mut mirror = cell.mirror.borrow_mut();
    match &mut *mirror {
        Some(mirror) if cell.life.get() == life => Ok(ask(mirror)),
        _ => Err(None),
    }
}

fn producer(cell: &MirrorCell, life: u64) -> Outcome<Producer> {
    with(cell, life, |m| m.transaction().map(|t| t.producer()))?.ok_or(None)
}

/// Says what the transaction will touch: both at its beginning, so that its end has less to wait for.
async fn add_to_transaction(
    share: &Rc<Share>,
    cell: &Rc<MirrorCell>,
    producer: Producer,
    empty: bool,
) -> Result<(), coordination::Refused> {
    let (spec, transactional_id) = (&cell.spec, cell.transactional_id());
    let (producer_id, producer_epoch) = (producer.id, producer.epoch);
    if !empty {
        let request = AddPartitionsToTxnRequest {
            transactional_id: transactional_id.clone(),
            producer_id,
            producer_epoch,
            topics: vec![TopicPartitions::new(&*spec.target_topic, vec![spec.id.partition])],
        };
        let code = |answer: &AddPartitionsToTxnResponse| first_error(&answer.topics);
        ask(share, Whose::Transactions(cell), Asking::default(), NEWEST, &request, code).await?;
    }
    let group = share.group.clone();
    let request = AddOffsetsToTxnRequest { transactional_id, producer_id, producer_epoch, group };
    let whose = Whose::Transactions(cell);
    ask(share, whose, Asking::default(), NEWEST, &request, |answer| answer.error).await?;
    Ok(())
}

fn first_error(topics: &[TopicPartitions<(i32, ErrorCode)>]) -> ErrorCode {
    let mut errors = TopicPartitions::flat(topics).map(|(_, (_, error))| *error);
    // An answer without the partition says nothing.
    let first = errors.next().unwrap_or(ErrorCode::UNKNOWN_SERVER_ERROR);
    errors.fold(first, |first, next| if first.is_error() { first } else { next })
}

/// Returns when the open transaction shall end.
async fn wait_for_end(share: &Rc<Share>, cell: &Rc<MirrorCell>, life: u64) -> Outcome<()> {
    let Transactions { interval, bytes_max } =
        share.link.config.delivery.transactions().unwrap_or_default();
    // Counted from its first ack: the first batch goes alone, and over a long way it would be the only one.
    let mut until = None;
    // The coordinator's clock runs from its opening; the last acks are still to come.
    let latest = share.env.now() + coordination::timeout(share) - limits::TRANSACTION_TIMEOUT / 2;
    loop {
        let (bytes, failed, written) = with(cell, life, |mirror| {
            let (bytes, written) =
                mirror.transaction().map_or((0, false), |t| (t.bytes(), t.has_written()));
            (bytes, mirror.has_failed(), written)
        })?;
        let leaves = share.is_draining() || cell.is_removed() || share.is_stopped();
        let now = share.env.now();
        if written {
            until.get_or_insert(now + interval);
        }
        let is_over = until.is_some_and(|until| now >= until.min(latest));
        if failed || leaves || bytes >= bytes_max || is_over {
            return Ok(());
        }
        // In time or not, it looks again.
        let look = until.map_or(now + interval, |until| until.min(latest));
        drop(tokio::time::timeout_at(look, cell.transaction_wake.notified()).await);
    }
}

/// The position goes into the transaction, under the target's topic and partition.
async fn commit_position(
    share: &Rc<Share>,
    cell: &Rc<MirrorCell>,
    life: u64,
    producer: Producer,
    place: &Place,
) -> Outcome<()> {
    let spec = &cell.spec;
    let (source, target) = (spec.source_topic_id, spec.target_topic_id);
    let anchor = with(cell, life, |mirror| mirror.anchor_at(place, source, target))?;
    let anchor = Anchor { settings: Some(cell.settings), ..anchor };
    let position = OffsetToCommit {
        index: spec.id.partition,
        offset: place.offset,
        leader_epoch: place.leader_epoch,
        metadata: anchor.to_string(),
    };
    let request = TxnOffsetCommitRequest {
        transactional_id: cell.transactional_id(),
        group: share.group.clone(),
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        topics: vec![TopicPartitions::new(&*spec.target_topic, vec![position])],
    };
    let version_max = if producer.v2 { NEWEST } else { TXN_OFFSET_COMMIT_V1 };
    let code = |answer: &TxnOffsetCommitResponse| first_error(&answer.topics);
    let whose = Whose::Group(cell);
    let answered = ask(share, whose, at_the_end_of(producer), version_max, &request, code);
    answered.await.map(drop).map_err(Some)
}

/// How a transaction's end is asked for. With transactions V2 each has its epoch, and what comes late is refused. Before, it
/// would end the next transaction, or set its position back: where no answer came, only a fence may follow.
fn at_the_end_of(producer: Producer) -> Asking {
    Asking { unheard: producer.v2, ..Asking::default() }
}

/// Ends the transaction; gives what the next one is written under.
async fn end(
    share: &Rc<Share>,
    cell: &Rc<MirrorCell>,
    producer: Producer,
    committed: bool,
) -> Result<Option<Producer>, coordination::Refused> {
    let request = EndTxnRequest {
        transactional_id: cell.transactional_id(),
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        committed,
    };
    let version_max = if producer.v2 { NEWEST } else { end_txn::NEXT_EPOCH_SINCE - 1 };
    let (whose, asking) = (Whose::Transactions(cell), at_the_end_of(producer));
    let answer = ask(share, whose, asking, version_max, &request, |answer| answer.error).await?;
    Ok(answer.next.map(|(id, epoch)| Producer { id, epoch, ..producer }))
}

/// A transaction cannot be committed, and every batch of it is answered: the mirror begins anew, from the position that the
/// target holds for certain. A batch that the target refuses for what is in it is remembered, and met there again.
pub(super) fn abandoned(share: &Rc<Share>, cell: &Rc<MirrorCell>) {
    let refused = cell.refused.take();
    let trouble = cell.transaction_trouble.take();
    if let Some(mirror) = &mut *cell.mirror.borrow_mut() {
        mirror.unsend();
    }
    let (code, error) = match (&refused, trouble) {
        (Some(refused), _) => {
            let error = trouble::answered(Side::Target, "Produce", refused.error, &refused.message);
            (Some(refused.error), error.cluster(&share.link.config.to.name))
        }
        (None, Some(trouble)) => (trouble.code, trouble.error),
        (None, None) => {
            let message = "a transaction was given up";
            (None, Error::new(Code(60), Side::Target, Action::Retry, message))
        }
    };
    let error = trouble::at(cell, error);
    if error.action == Action::Park {
        share.park(cell, error);
        return;
    }
    match (refused, code) {
        (Some(refused), _) if !is_fenced(refused.error) => on_refused(share, cell, &refused, error),
        (_, Some(code)) if is_fenced(code) => {
            // Another instance, or the coordinator's clock: the group knows whose the mirror is.
            share.link.member.doubt();
            recovery::restart_after(share, cell, FENCED_WAIT, error);
        }
        _ if error.code == Code(30) => {
            recovery::restart_after(share, cell, AUTHORIZE_WAIT, error);
        }
        _ => recovery::restart(share, cell, error),
    }
}

fn on_refused(share: &Rc<Share>, cell: &Rc<MirrorCell>, refused: &Refused, error: Error) {
    let joined_upto = cell.mirror.borrow().as_ref().and_then(Mirror::end_of_joined_front);
    if let Some(upto) = joined_upto.filter(|_| trouble::takes_apart(cell, refused.error)) {
        // It is fetched again, and each part goes by itself.
        cell.apart_below.set(upto);
        recovery::restart(share, cell, error);
        return;
    }
    let front = {
        let mirror = cell.mirror.borrow();
        let front = mirror.as_ref().and_then(Mirror::front_of_queue);
        front.map(|front| (front.records, front.batch.len()))
    };
    match (trouble::remedy(refused.error), front) {
        (Remedy::Split, Some((records, bytes))) if records > 1 => {
            // Fetched again, it is cut to this; one record cannot be.
            cell.batch_bytes_max.set(bytes / 2 + 1);
            recovery::restart(share, cell, error);
        }
        (Remedy::Split, _) => {
            let topic = &cell.spec.target_topic;
            let fix = format!("raise max.message.bytes of {topic} on the target");
            remember(share, cell, refused.error, error.fix(fix));
        }
        (Remedy::Resend, _) if !trouble::is_resent_enough(cell, refused.error) => {
            cell.damaged_sends.set(cell.damaged_sends.get() + 1);
            recovery::restart(share, cell, error);
        }
        (Remedy::Resend | Remedy::Park, _) => remember(share, cell, refused.error, error),
        (Remedy::Authorize, _) => {
            let error = trouble::not_authorized(share, Need::WriteTarget, cell);
            recovery::restart_after(share, cell, AUTHORIZE_WAIT, error);
        }
        // An error that says nothing has a count of its own: a long outage before it is no sign that the batch is its cause.
        (Remedy::Again, _) if refused.error == ErrorCode::UNKNOWN_SERVER_ERROR => {
            let refusals = cell.unknown_refusals.get();
            cell.unknown_refusals.set(refusals + 1);
            if trouble::is_unknown_enough(cell, refusals) {
                remember(share, cell, refused.error, error);
            } else {
                recovery::restart(share, cell, error);
            }
        }
        _ => recovery::restart(share, cell, error),
    }
}

/// What lies before a batch that cannot be copied was taken back with it: it is copied again up to there, and the policy
/// decides then.
fn remember(share: &Rc<Share>, cell: &Rc<MirrorCell>, refused: ErrorCode, mut error: Error) {
    let found = {
        let mirror = cell.mirror.borrow();
        mirror.as_ref().and_then(|m| Some((m.acked(), m.rest_of_front()?)))
    };
    let Some((from, (to, leader_epoch, records))) = found else {
        recovery::restart(share, cell, error);
        return;
    };
    let id = &cell.spec.id;
    error.code = Code(61);
    error.action = Action::Park;
    error.message =
        format!("the target refuses source offsets {from} to {}: {}", to - 1, error.message);
    let is_to_blame = trouble::blame(cell, refused, &mut error);
    error.place.mirror = Some((id.topic.to_string(), id.partition, Some(from)));
    let kind = LossKind::Poison;
    let step = StepOver { kind, from, to, leader_epoch, records, error: error.clone() };
    *cell.poison.borrow_mut() = Some((step, is_to_blame));
    recovery::restart(share, cell, error);
}

/// What is open is ended: nobody else would do it before the coordinator's clock.
pub(super) fn on_parked(share: &Rc<Share>, cell: &Rc<MirrorCell>) {
    let is_open = |mirror: &Mirror| mirror.transaction().is_some_and(|t| !t.is_closed());
    if cell.mirror.borrow().as_ref().is_some_and(is_open) {
        cell.transaction_wake.notify_one();
        share.spawn(fence::let_go(share.clone(), cell.clone()));
    }
}

/// The largest batch that is admitted for a mirror.
pub(super) fn batch_bytes_max(cell: &MirrorCell) -> usize {
    cell.spec.target.max_message_bytes().min(cell.batch_bytes_max.get())
}

/// Whether the mirror's cluster has transactions V2.
pub(super) fn is_v2(cell: &MirrorCell) -> bool {
    let mirror = cell.mirror.borrow();
    mirror.as_ref().and_then(Mirror::transaction).is_some_and(|t| t.producer().v2)
}

/// A batch was acknowledged; it counts when its transaction is committed.
pub(super) fn appended(share: &Rc<Share>, cell: &Rc<MirrorCell>) {
    cell.transaction_wake.notify_one();
    cell.note_progress(share.env.now());
    share.budget.freed();
    share.touch_send(cell);
    if cell.held.get() {
        share.touch_fetch(cell);
    }
}

/// The first batch of a transaction may come while the markers of the last one are written: it is sent again, alone.
pub(super) fn sends_again(
    share: &Rc<Share>,
    cell: &Rc<MirrorCell>,
    error: ErrorCode,
    message: &str,
) -> bool {
    // NOT_ENOUGH_REPLICAS is what a leader makes of it that cannot reach the coordinator (`AddPartitionsToTxnManager`).
    let passes =
        matches!(error, ErrorCode::CONCURRENT_TRANSACTIONS | ErrorCode::NOT_ENOUGH_REPLICAS);
    let take_back = |mirror: &mut Mirror| share.add_buffered(cell, mirror, Mirror::take_back);
    let again = passes && cell.mirror.borrow_mut().as_mut().is_some_and(take_back);
    if again {
        let error = trouble::answered(Side::Target, "Produce", error, message);
        recovery::again(share, cell, trouble::at(cell, error));
    }
    again
}

/// A batch that the target refuses for good comes next.
pub(super) fn at_poison(share: &Rc<Share>, cell: &Rc<MirrorCell>) {
    let Some((step, blames_content)) = cell.poison.borrow().clone() else { return };
    if blames_content && share.link.config.policies.on_poison == OnPoison::Skip {
        step_over::order(share, cell, step);
    } else {
        share.park_fetching(cell, step.error);
    }
}
