//! Reads one source broker for the mirrors of a class: a connection, a fetch session on it, and the answers handed to their
//! mirrors.
//!
//! A partition is asked for only while its mirror has room for what comes; otherwise it leaves the session. What the lane
//! may hold is reserved before each request (I5).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::admit::{Cause, Refusal, Step, admit};
use super::cell::{Halt, MirrorCell};
use super::class::{Class, Way};
use super::losses::LossKind;
use super::mirror::Mirror;
use super::offsets::Found;
use super::reader::SourceConnection;
use super::session::{Delta, Session, SourcePartition, Wish};
use super::share::{FetchQueue, Share};
use super::source_log;
use super::stats::{Fate, MirrorStats};
use super::step_over::{self, StepOver};
use super::{beyond, transactions, trouble};
use crate::canary::{Canary, planted};
use crate::cluster::rights::Need;
use crate::config::resolved::OnPoison;
use crate::env::Moment;
use crate::error::{Action, Code, Error, Side};
use crate::limits;
use crate::wire::batch::BatchError;
use crate::wire::common::{Isolation, TopicKey, TopicRef};
use crate::wire::error_code::ErrorCode;
use crate::wire::fetch::{
    EpochEnd, FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchedPartition,
    ForgottenTopic,
};
use crate::wire::records::RecordsError;

/// How long the broker may hold an answer when nothing new is there.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// So many empty answers in a row may come early: of a leader that changed, of a request that crossed another.
const IDLE_ANSWERS_FREE: u32 = 3;
/// The same while mirrors wait to come back into the session: they must not wait behind an idle broker.
const MAX_WAIT_HELD: Duration = limits::HELD_LOOK_INTERVAL;
/// How long a replay may stand at the source's end before the two logs count as different; a new leader may lag for a moment.
const REPLAY_WAIT: Duration = Duration::from_secs(10);
/// Between two looks whether it still does.
const REPLAY_LOOK: Duration = Duration::from_secs(1);
/// Pause of a partition after an error of its own.
const PARTITION_PAUSE: Duration = Duration::from_millis(200);

/// Runs until the share stops.
pub async fn run(share: Rc<Share>, way: Way, queue: Rc<FetchQueue>) {
    let broker = way.broker;
    let mut attempt = 0;
    while !share.is_stopped() {
        if !share.reads_from(way) {
            queue.wake.notified().await;
            continue;
        }
        let error = match share.dial_source(broker).await {
            Ok(connection) => {
                let mut session = Session::new();
                for cell in share.mirrors().iter().filter(|cell| cell.source_way() == way) {
                    share.touch_fetch(cell);
                }
                let began = share.env.now();
                let error = fetch(&share, way, &queue, &connection, &mut session).await;
                if share.env.now() - began > limits::RECONNECT_BACKOFF.1 {
                    attempt = 0;
                }
                let Some(error) = error else { continue };
                error
            }
            Err(error) => error,
        };
        if share.is_stopped() {
            return;
        }
        tracing::warn!(link = %share.link.config.name, broker, %error, "source connection lost");
        share.stats.count_error("source", "connection", &error.code.to_string());
        share.link.source.refresh();
        let (base, max) = limits::RECONNECT_BACKOFF;
        tokio::time::sleep(share.env.backoff(base, max, attempt)).await;
        attempt += 1;
    }
}

/// Fetches until the connection fails; none if it is left in peace.
async fn fetch(
    share: &Rc<Share>,
    way: Way,
    queue: &FetchQueue,
    connection: &SourceConnection,
    session: &mut Session,
) -> Option<Error> {
    let mut refused = 0;
    let began = share.env.now();
    let mut idle: u32 = 0;
    loop {
        let held = refresh_wishes(share, way, queue, session);
        if share.is_stopped() {
            return None;
        }
        if connection.is_ending() {
            return connection
                .closed()
                .and_then(|error| trouble::closed_early(share, began, &error));
        }
        if session.is_empty() {
            if held {
                // Whoever has room again says so; what the lane's other connections gave back, nobody does.
                let _ = tokio::time::timeout(MAX_WAIT_HELD, queue.wake.notified()).await;
            } else if share.reads_from(way) {
                queue.wake.notified().await;
            } else {
                let wake = queue.wake.notified();
                let idle = tokio::time::timeout(limits::IDLE_CONNECTION, wake).await.is_err();
                if idle && !share.reads_from(way) {
                    return None;
                }
            }
            continue;
        }
        // What fills up leaves room for an answer at the tail.
        let spare = if way.class == Class::Backfill { limits::FETCH_BYTES } else { 0 };
        let reservation = share.budget.reserve(limits::FETCH_BYTES, spare).await;
        let max_wait = if held { MAX_WAIT_HELD } else { MAX_WAIT };
        let request = request(share, session.advance(), max_wait);
        let deadline = max_wait + limits::REQUEST_TIMEOUT;
        let asked_at = share.env.now();
        let answer = connection.fetch(request, deadline);
        let answer = beyond::answered(share, way, connection, answer).await;
        let waited = share.env.now().saturating_duration_since(asked_at);
        MirrorStats::add(&share.stats.fetch_wait_us, waited.as_micros() as u64);
        drop(reservation);
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Some(trouble::call(Side::Source, "Fetch", &error)),
        };
        let throttle = Duration::from_millis(answer.throttle_time_ms.max(0) as u64);
        if session.on_answer(answer.error, answer.session_id).is_err() {
            tracing::debug!(broker = way.broker, error = %answer.error, "fetch session ended, asking in full");
            share.stats.count_error("source", "Fetch", answer.error.name());
            refused += 1;
            let (base, max) = limits::RECONNECT_BACKOFF;
            drop(answer);
            share.budget.freed();
            if refused > 1 {
                tokio::time::sleep(share.env.backoff(base, max, refused)).await;
            }
            continue;
        }
        refused = 0;
        let brought = deliver(share, way, session, answer);
        share.budget.freed();
        share.throttle(throttle).await;
        // A broker holds an answer with nothing in it. One that does not, again and again, is not asked as fast as it answers.
        idle = if brought || waited >= max_wait / 2 { 0 } else { idle.saturating_add(1) };
        if idle > IDLE_ANSWERS_FREE {
            let pause = Duration::from_millis(1 << (idle - IDLE_ANSWERS_FREE).min(9));
            tokio::time::sleep(pause.min(MAX_WAIT)).await;
        }
    }
}

/// Brings the session's wishes up to date with the mirrors that changed. Says whether one waits for room.
fn refresh_wishes(share: &Rc<Share>, way: Way, queue: &FetchQueue, session: &mut Session) -> bool {
    let now = share.env.now();
    if share.any_held(way.class) {
        share.touch_held();
    }
    for cell in queue.take_dirty(way) {
        // A late word about a mirror that is gone must not withdraw the wish of the one that came back.
        if cell.is_removed() && share.by_source(cell.source_partition()).is_some() {
            continue;
        }
        let wish = wish(share, way, &cell, now);
        if wish.is_some() && cell.replay_waits() {
            session.reset();
        }
        session.set(cell.source_partition(), wish);
    }
    share.any_held(way.class)
}

/// What to ask for of a mirror; none while it has no room, no position, no turn, or is somebody else's.
fn wish(share: &Rc<Share>, way: Way, cell: &Rc<MirrorCell>, now: Instant) -> Option<Wish> {
    if cell.source_way() != way {
        return None;
    }
    // Without a leader on the target nothing would count what is fetched against a connection's share.
    let blocked = cell.target_leader.get().broker < 0
        || !cell.has_turn.get()
        || cell.is_removed()
        || share.is_draining()
        || cell.halt.get() == Halt::Parked
        || cell.fetch_parked.get()
        || cell.out_of_range.get().is_some()
        || cell.step_over.borrow().is_some()
        || cell.renews.get()
        || cell.fetch_not_before.get().is_some_and(|at| at > now);
    // What comes behind the records of a former life's numbering is of a new one.
    let waits = |mirror: &Mirror| cell.settings_then.get().is_some() && !mirror.is_replaying();
    let mirror = cell.mirror.borrow();
    let Some(mirror) = mirror.as_ref().filter(|mirror| !blocked && !waits(mirror)) else {
        share.set_held(cell, false);
        return None;
    };
    if !share.has_room(cell, mirror) {
        return None;
    }
    Some(Wish {
        offset: mirror.fetch_offset(),
        last_fetched_epoch: match planted(Canary::TruncationUnseen) {
            true => -1,
            false => mirror.fetch_epoch(),
        },
        current_leader_epoch: cell.source_leader.get().epoch,
        bytes_max: limits::FETCH_BYTES as i32,
    })
}

fn request(share: &Share, delta: Delta, max_wait: Duration) -> FetchRequest {
    let name = |partition: &SourcePartition| {
        let cell = share.by_source(*partition);
        let topic = cell.map_or_else(|| Arc::from(""), |cell| cell.spec.id.topic.clone());
        TopicRef::new(topic, partition.topic_id)
    };
    let mut wanted: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (partition, wish) in &delta.wanted {
        wanted.entry(partition.topic_id).or_default().push((partition, wish));
    }
    let topic = |partitions: Vec<(&SourcePartition, &Wish)>| {
        Some(FetchTopic {
            topic: name(partitions.first()?.0),
            partitions: partitions
                .iter()
                .map(|(partition, wish)| FetchPartition {
                    index: partition.partition,
                    current_leader_epoch: wish.current_leader_epoch,
                    fetch_offset: wish.offset,
                    last_fetched_epoch: wish.last_fetched_epoch,
                    max_bytes: wish.bytes_max,
                })
                .collect(),
        })
    };
    let mut forgotten: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for partition in &delta.forgotten {
        forgotten.entry(partition.topic_id).or_default().push(partition);
    }
    let forget = |partitions: Vec<&SourcePartition>| {
        Some(ForgottenTopic {
            topic: name(partitions.first()?),
            partitions: partitions.iter().map(|p| p.partition).collect(),
        })
    };
    FetchRequest {
        max_wait_ms: max_wait.as_millis() as i32,
        min_bytes: 1,
        max_bytes: limits::FETCH_BYTES as i32,
        // Those settings may have been of a reader that must know what was aborted.
        isolation: match share.any_settings_then() {
            true => Isolation::ReadCommitted,
            false => share.link.config.isolation.into(),
        },
        session_id: delta.session_id,
        session_epoch: delta.session_epoch,
        topics: wanted.into_values().filter_map(topic).collect(),
        forgotten: forgotten.into_values().filter_map(forget).collect(),
        rack: String::new(),
    }
}

/// Hands each partition of an answer to its mirror. Whether it brought one that asked on, or an error.
fn deliver(share: &Rc<Share>, way: Way, session: &Session, answer: FetchResponse) -> bool {
    let fetched_at = share.env.now();
    let mut brought = false;
    for partition in answer.partitions {
        let Some(TopicKey::Id(topic_id)) = answer.topics.get(partition.topic) else { continue };
        let key = SourcePartition { topic_id: *topic_id, partition: partition.index };
        // A partition that was not asked for, or no longer: its mirror is gone.
        let Some(cell) = share.by_source(key) else { continue };
        let wanted = cell.mirror.borrow().as_ref().map(Mirror::fetch_offset);
        let is_stale = wanted.is_none() || wanted != session.asked(key);
        if is_stale && !planted(Canary::StaleFetchTaken) {
            // The mirror went elsewhere while the broker answered: what comes would leave a hole (I1).
            share.touch_fetch(&cell);
            continue;
        }
        let errs = partition.error != ErrorCode::NONE || partition.diverging.is_some();
        brought |= errs;
        if partition.error != ErrorCode::NONE {
            on_error(share, &cell, &partition);
        } else if let Some(diverging) =
            partition.diverging.filter(|end| !is_divergence(&cell, *end))
        {
            let text = format!(
                "Fetch answered that leader epoch {} ends at {}, which is no divergence from what was asked for",
                diverging.epoch, diverging.end_offset
            );
            cell.note_trouble(trouble::at(&cell, trouble::lie(share, Side::Source, way, text)));
            pause(share, &cell, limits::REDIAL_INTERVAL_MIN);
        } else if let Some(diverging) = partition.diverging {
            let copied = wanted.unwrap_or(diverging.end_offset);
            let end = Found { offset: diverging.end_offset, leader_epoch: diverging.epoch };
            source_log::truncated(share, &cell, copied, end);
        } else {
            take(share, &cell, partition, fetched_at);
            brought |= cell.mirror.borrow().as_ref().map(Mirror::fetch_offset) != wanted;
        }
        share.touch_fetch(&cell);
        // Between two requests of the session that it stands in: the other's first answer is for what this one left.
        if cell.source_way() == way {
            share.reclass(&cell);
        }
    }
    brought
}

/// Whether a log that ends an epoch there differs from what was read of it (`ReplicaManager.readFromLog`: an epoch below the
/// one that was fetched last, or an end below the offset that is asked for).
fn is_divergence(cell: &MirrorCell, end: EpochEnd) -> bool {
    let mirror = cell.mirror.borrow();
    let Some(mirror) = &*mirror else { return false };
    let is_lower = end.epoch < mirror.fetch_epoch() || end.end_offset < mirror.fetch_offset();
    end.epoch >= 0 && end.end_offset >= 0 && is_lower
}

/// Admits the batches of one partition and hands them to the sender.
fn take(
    share: &Rc<Share>,
    cell: &Rc<MirrorCell>,
    partition: FetchedPartition,
    fetched_at: Instant,
) {
    let then = cell.settings_then.get();
    let settings = then.unwrap_or(cell.settings);
    let end = partition.end(settings.isolation.into());
    let mut guard = cell.mirror.borrow_mut();
    let Some(mirror) = &mut *guard else { return };
    let (before, bytes) = (mirror.fetch_offset(), partition.records.len());
    if !partition.records.is_empty() && !share.is_draining() && cell.halt.get() != Halt::Parked {
        let rules = settings.rules(transactions::batch_bytes_max(cell));
        let route = &cell.spec.route;
        let route_then = then.map(|then| then.route_then(route, mirror.numberings()));
        let route = route_then.as_ref().unwrap_or(route);
        let wanted = mirror.fetch_offset();
        let records = partition.records;
        let aborted = &partition.aborted;
        let mut taken = Ok(true);
        let poison = cell.poison.borrow().as_ref().map(|(step, _)| step.from);
        let mut at_poison = false;
        let outcome = share.add_buffered(cell, mirror, |mirror| {
            admit(records, aborted, wanted, &rules, route, fetched_at, |step| {
                let is_over = then.is_some() && !mirror.is_replaying();
                at_poison |= poison.is_some_and(|from| mirror.fetch_offset() >= from);
                if matches!(taken, Ok(true)) && !is_over && !at_poison {
                    taken = apply(share, cell, mirror, step);
                }
            })
        });
        drop(guard);
        match (taken, outcome) {
            (Ok(true), _) if at_poison => transactions::at_poison(share, cell),
            (Ok(true), Ok(())) => cell.corrupt_fetches.set(0),
            (Ok(true), Err(refusal)) => refuse(share, cell, refusal, end),
            (Ok(false), _) => disagree(share, cell),
            (Err(error), _) => {
                let refusal = Refusal { offset: wanted, cause: error.into(), end: None };
                refuse(share, cell, refusal, end);
            }
        }
    } else {
        drop(guard);
    }
    look_at_replay(share, cell, fetched_at, end);
    cell.note_source_end(fetched_at, end);
    share.note_answer(cell, before, bytes, fetched_at);
    share.touch_send(cell);
    if cell.may_take_new_settings() {
        share.recovery_wake.notify_one();
    }
    share.commit_wake.notify_one();
}

/// A replay that stands at the source's end: that holds less than what is to be counted off, and what comes now is new, and
/// must not be swallowed.
fn look_at_replay(share: &Rc<Share>, cell: &Rc<MirrorCell>, now: Instant, end: i64) {
    let stands = |mirror: &Mirror| mirror.is_replaying() && mirror.fetch_offset() >= end;
    let waits = cell.mirror.borrow().as_ref().is_some_and(stands);
    if cell.replay_waits_since(now, waits) > REPLAY_WAIT {
        disagree(share, cell);
    } else if waits {
        // A session answers for what is new only: it is asked in full when the pause is over.
        pause(share, cell, REPLAY_LOOK);
    }
}

/// Gives a step to the mirror; false if the target holds another record where this one should be.
fn apply(
    share: &Share,
    cell: &MirrorCell,
    mirror: &mut Mirror,
    step: Step,
) -> Result<bool, RecordsError> {
    let mut agree = true;
    let fate = match step {
        Step::Take(mut outgoing, fate) => {
            if fate == Fate::Recoded {
                outgoing.batch = share.budget.hold(outgoing.batch);
            }
            MirrorStats::add(&cell.stats.fetched_bytes, outgoing.batch.len() as u64);
            MirrorStats::add(&cell.stats.fetched_records, outgoing.records.unsigned_abs().into());
            let replaying = mirror.is_replaying();
            agree = mirror.take(outgoing)?;
            if replaying && !mirror.is_replaying() {
                mirror.hold_rest(|copy| share.budget.hold(copy));
            }
            let moment = if replaying { Moment::CountedOff } else { Moment::Admitted };
            share.env.reached(moment);
            fate
        }
        Step::Skip { next_offset, leader_epoch, fate } => {
            mirror.skip_to(next_offset, leader_epoch);
            fate
        }
    };
    MirrorStats::add(&cell.stats.batches[fate as usize], 1);
    Ok(agree)
}

/// The target's last record is not the one that the count from the commit leads to (R4): nothing is dropped by a number.
fn disagree(share: &Rc<Share>, cell: &Rc<MirrorCell>) {
    let offset = cell.committed.get();
    let then = cell.settings_then.get();
    let keys = then.map(|then| cell.settings.changed_since(&then)).unwrap_or_default();
    let changed = match keys.join("`, `") {
        keys if keys.is_empty() => String::new(),
        keys => format!("the link's `{keys}` changed, "),
    };
    let message = format!(
        "the target holds other records behind the committed position than the source: \
         {changed}the source changed, or somebody else wrote"
    );
    let error = trouble::park(Code(65), Side::Target, cell, offset, message);
    let fix = trouble::reset_fix(&share.link.config.name, cell, "OFFSET");
    share.park(cell, error.fix(format!("compare both ends; {fix}")));
}

/// A batch that cannot be copied: a damaged one is fetched once more, then the mirror is parked in front of it, or steps
/// over it. `readable` is the source's end for this reader.
fn refuse(share: &Rc<Share>, cell: &Rc<MirrorCell>, refusal: Refusal, readable: i64) {
    let damaged = matches!(
        refusal.cause,
        Cause::Records(RecordsError::Batch(BatchError::Crc { .. } | BatchError::Truncated))
    );
    cell.corrupt_fetches.set(cell.corrupt_fetches.get() + 1);
    if damaged && cell.corrupt_fetches.get() == 1 {
        share.stats.count_error("source", "Fetch", ErrorCode::CORRUPT_MESSAGE.name());
        pause(share, cell, PARTITION_PAUSE);
        return;
    }
    let id = &cell.spec.id;
    let error = if let Cause::TooFar(_) = refusal.cause {
        Error::new(Code(74), Side::Source, Action::Park, refusal.cause.to_string())
            .cluster(&share.link.config.from.name)
            .fix("let one way alone carry an origin; `strait check` knows the links of its configuration only")
    } else if let Cause::Records(RecordsError::RecordTooLarge { .. }) = refusal.cause {
        let topic = &cell.spec.target_topic;
        let message = format!("MESSAGE_TOO_LARGE: {}", refusal.cause);
        Error::new(Code(61), Side::Target, Action::Park, message)
            .cluster(&share.link.config.to.name)
            .fix(format!(
                "kafka-configs.sh --alter --entity-type topics --entity-name {topic} \
                 --add-config max.message.bytes=... on the target"
            ))
    } else {
        Error::new(Code(62), Side::Source, Action::Park, refusal.cause.to_string())
            .cluster(&share.link.config.from.name)
            .fix("inspect the batch on the source; what lies before it has been copied")
    };
    let error = error.mirror(&*id.topic, id.partition, Some(refusal.offset));
    // What is counted off is on the target already: it was readable once, and is no poison.
    let counts_off = cell.mirror.borrow().as_ref().is_none_or(Mirror::is_replaying);
    let policy = share.link.config.policies.on_poison;
    match refusal.end.filter(|end| end.next_offset <= readable) {
        Some(end) if policy == OnPoison::Skip && !counts_off => {
            let step = StepOver {
                kind: LossKind::Poison,
                from: refusal.offset,
                to: end.next_offset,
                leader_epoch: end.leader_epoch,
                records: end.records,
                error,
            };
            step_over::order(share, cell, step);
        }
        _ => share.park_fetching(cell, error),
    }
}

/// Leaves the session for a while.
pub(super) fn pause(share: &Rc<Share>, cell: &Rc<MirrorCell>, wait: Duration) {
    cell.fetch_not_before.set(Some(share.env.now() + wait));
    share.touch_fetch(cell);
    let (own, cell) = (share.clone(), cell.clone());
    share.spawn(async move {
        tokio::time::sleep(wait).await;
        own.touch_fetch(&cell);
    });
}

/// An error of one partition of a Fetch answer (broker-side rule: `ReplicaManager.readFromLog`).
fn on_error(share: &Rc<Share>, cell: &Rc<MirrorCell>, partition: &FetchedPartition) {
    let error = partition.error;
    share.stats.count_error("source", "Fetch", error.name());
    match error {
        ErrorCode::OFFSET_OUT_OF_RANGE => {
            if let Some(mirror) = &*cell.mirror.borrow() {
                cell.out_of_range.set(Some(mirror.fetch_offset()));
            }
            share.recovery_wake.notify_one();
        }
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => {
            cell.note_trouble(trouble::not_authorized(share, Need::ReadSource, cell));
            pause(share, cell, limits::RECONNECT_BACKOFF.1);
            return;
        }
        // The leader moved, or one of us has not heard of it yet; or the topic is on its way in or out.
        _ => share.link.source.refresh(),
    }
    pause(share, cell, PARTITION_PAUSE);
}
