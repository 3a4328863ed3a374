//! Writes to one connection of one target broker: gathers a batch of every mirror that is ready into a request, keeps many
//! requests in flight, and gives each answer to its mirror.
//!
//! One batch a partition and request: a broker takes exactly one, and of the same partition twice it drops the first
//! without an error (`ProduceRequest.validateRecords`, `KafkaApis.handleProduceRequest`).

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::cell::{MirrorCell, Refused};
use super::class::Way;
use super::flow::Departure;
use super::mirror::Stamped;
use super::share::{SendQueue, Share};
use super::stats::MirrorStats;
use super::window::Violation;
use super::{transactions, trouble};
use crate::canary::{Canary, planted};
use crate::connection::{CallError, Connection, Pending};
use crate::env::Moment;
use crate::error::{Code, Error, Side};
use crate::limits;
use crate::wire::common::{TopicKey, TopicRef};
use crate::wire::error_code::ErrorCode;
use crate::wire::produce::{
    self, ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic, ProducedPartition,
};
use crate::wire::{ApiKey, Request};

/// All in-sync replicas.
const ACKS_ALL: i16 = -1;

/// A request that was sent, with the mirrors that wait for its answer.
struct InFlight {
    answer: Pending,
    sent: Departure,
    mirrors: Vec<Rc<MirrorCell>>,
    version: i16,
}

/// Runs until the share stops.
pub async fn run(share: Rc<Share>, way: Way, queue: Rc<SendQueue>) {
    let broker = way.broker;
    let mut attempt = 0;
    let mut is_first = true;
    while !share.is_stopped() {
        if !is_first && queue.ready.borrow().is_empty() {
            queue.wake.notified().await;
            continue;
        }
        is_first = false;
        let began = share.env.now();
        let error = match share.link.target.connect(&share.env, broker).await {
            Ok(connection) => {
                queue.room.restart();
                share.restart_windows(way, &queue);
                let mut in_flight = VecDeque::new();
                let error = send(&share, way, &queue, &connection, &mut in_flight).await;
                connection.close();
                let Some(error) = error else { continue };
                // Nobody knows what became of these (R1): their mirrors read the target back.
                for request in in_flight {
                    for cell in request.mirrors {
                        failed(&share, &cell, ErrorCode::NETWORK_EXCEPTION, &error.to_string());
                    }
                }
                error
            }
            Err(error) => error,
        };
        if share.is_stopped() {
            return;
        }
        if share.env.now() - began > limits::RECONNECT_BACKOFF.1 {
            attempt = 0;
        }
        tracing::warn!(link = %share.link.config.name, broker, %error, "target connection lost");
        share.stats.count_error("target", "connection", &error.code.to_string());
        share.note_target_trouble(way, &error);
        share.link.target.refresh();
        let (base, max) = limits::RECONNECT_BACKOFF;
        tokio::time::sleep(share.env.backoff(base, max, attempt)).await;
        attempt += 1;
    }
}

/// Sends and reads answers until the connection fails; none if it is left in peace.
async fn send(
    share: &Rc<Share>,
    way: Way,
    queue: &SendQueue,
    connection: &Connection,
    in_flight: &mut VecDeque<InFlight>,
) -> Option<Error> {
    let Some(version) = connection.version::<ProduceRequest>() else {
        return Some(trouble::unsupported(Side::Target, "Produce"));
    };
    let began = share.env.now();
    loop {
        // Before its SASL session ends, a connection is left with nothing outstanding: no answer is lost to the broker's clock,
        // and no batch to one that the broker closed while it was idle.
        let is_ending = connection.is_ending();
        if is_ending && in_flight.is_empty() {
            return connection
                .closed()
                .and_then(|error| trouble::closed_early(share, began, &error));
        }
        let mut pause = None;
        while !is_ending
            && in_flight.len() < limits::REQUESTS_IN_FLIGHT_MAX
            && connection.bytes_queued() < limits::CONNECTION_QUEUE_BYTES_MAX / 2
            && queue.room.may_send(share)
        {
            pause = share.rate_pause(way.class);
            if pause.is_some() {
                break;
            }
            match send_one(share, way, queue, connection, version) {
                Ok(Some(request)) => in_flight.push_back(request),
                Ok(None) => break,
                Err(error) => {
                    return Some(trouble::call_to(connection, Side::Target, "Produce", &error));
                }
            }
        }
        if share.is_stopped() && in_flight.is_empty() {
            return None;
        }
        tokio::select! {
            biased;
            answer = next_answer(in_flight) => {
                let Some((request, answer)) = answer else { continue };
                queue.room.on_answered(share, request.sent);
                let throttle = match answer {
                    Ok(answer) => {
                        // It may be another broker's by now, which refuses what is not led there for ever.
                        let refused = answer.partitions.iter().any(|p| trouble::is_leadership(p.error));
                        let throttle = deliver(share, request, answer);
                        if refused && !share.link.target.is_still(way.broker, connection) {
                            return Some(trouble::elsewhere(&share.link.target, connection));
                        }
                        throttle
                    }
                    Err(error) => {
                        in_flight.push_front(request);
                        return Some(trouble::call_to(connection, Side::Target, "Produce", &error));
                    }
                };
                share.throttle(throttle).await;
            }
            () = queue.wake.notified() => {}
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            () = tokio::time::sleep(limits::IDLE_CONNECTION), if in_flight.is_empty() => {
                if pause.is_none() && !share.writes_to(way) {
                    return None;
                }
            }
        }
    }
}

/// The answer to the oldest request; waits for ever when there is none. Cancelling it loses nothing.
async fn next_answer(
    in_flight: &mut VecDeque<InFlight>,
) -> Option<(InFlight, Result<ProduceResponse, CallError>)> {
    let Some(front) = in_flight.front_mut() else { return std::future::pending().await };
    let answer = (&mut front.answer).await;
    let request = in_flight.pop_front()?;
    let answer = answer
        .and_then(|body| ProduceRequest::decode(request.version, &body).map_err(CallError::Wire));
    Some((request, answer))
}

/// Gathers one batch of each ready mirror, up to a request's size, and queues the request.
fn send_one(
    share: &Rc<Share>,
    way: Way,
    queue: &SendQueue,
    connection: &Connection,
    version: i16,
) -> Result<Option<InFlight>, CallError> {
    let now_ms = share.env.wall_clock_ms();
    let mut gathered: Vec<(Rc<MirrorCell>, Stamped)> = Vec::new();
    let mut again = Vec::new();
    let mut bytes = 0;
    // A request has one transactional id, and so one mirror.
    let mut transaction = None;
    while bytes < limits::PRODUCE_BYTES && transaction.is_none() {
        let Some(cell) = share.next_ready(way, queue) else { break };
        if share.is_transactional() && cell.has_transactions() {
            if !gathered.is_empty() {
                cell.ready_at.set(Some(way));
                queue.ready.borrow_mut().push_front(cell);
                break;
            }
            transaction = Some(cell.clone());
        }
        let (stamped, more) = {
            let mut mirror = cell.mirror.borrow_mut();
            let Some(mirror) = &mut *mirror else { continue };
            let stamped = share.add_buffered(&cell, mirror, |mirror| mirror.send(now_ms));
            (stamped, mirror.can_send(now_ms))
        };
        // What could be sent when it was queued, and cannot now, waits for something else: somebody must see for what.
        let stays = more || stamped.is_none();
        if let Some(stamped) = stamped {
            if stamped.joined > 1 {
                MirrorStats::add(&cell.stats.merged_batches, stamped.joined as u64);
            }
            bytes += stamped.len();
            gathered.push((cell.clone(), stamped));
        }
        if cell.held.get() {
            share.touch_fetch(&cell);
        }
        share.reclass(&cell);
        if more && planted(Canary::PartitionTwice) {
            share.touch_send(&cell);
        } else if stays {
            again.push(cell);
        }
    }
    // Only now: within one request a partition must not appear twice.
    again.iter().for_each(|cell| share.touch_send(cell));
    if gathered.is_empty() {
        return Ok(None);
    }
    let transactional_id = transaction.as_ref().map(|cell| cell.transactional_id());
    let version = match transaction.is_some_and(|cell| !transactions::is_v2(&cell)) {
        true => version.min(produce::TRANSACTIONS_V2_SINCE - 1),
        false => version,
    };
    let mut topics: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut mirrors = Vec::with_capacity(gathered.len());
    for (cell, stamped) in gathered {
        let spec = &cell.spec;
        let partition = ProducePartition {
            index: spec.id.partition,
            head: stamped.head,
            payload: stamped.payload,
        };
        let key = (spec.target_topic_id, spec.target_topic.clone());
        topics.entry(key).or_default().push(partition);
        mirrors.push(cell);
    }
    let topics: Vec<ProduceTopic> = topics
        .into_iter()
        .map(|((id, name), partitions)| ProduceTopic { topic: TopicRef::new(name, id), partitions })
        .collect();
    let timeout_ms = limits::ACK_TIMEOUT.as_millis() as i32;
    let request = ProduceRequest {
        transactional_id: transactional_id.as_deref(),
        acks: ACKS_ALL,
        timeout_ms,
        topics: &topics,
    };
    let body = request.pieces(version).map_err(CallError::Wire);
    let deadline = limits::ACK_TIMEOUT + limits::REQUEST_TIMEOUT;
    let sent = body.and_then(|body| connection.send(ApiKey::Produce, version, body, deadline));
    match sent {
        Ok(answer) => {
            let sent = share.on_sent(way.class, queue, bytes);
            share.env.reached(Moment::Sent);
            Ok(Some(InFlight { answer, sent, mirrors, version }))
        }
        Err(error) => {
            for cell in mirrors {
                failed(share, &cell, ErrorCode::NETWORK_EXCEPTION, "the request was not sent");
            }
            Err(error)
        }
    }
}

/// Gives each partition's answer to its mirror. A mirror that got none counts as failed: what the broker did is unknown.
fn deliver(share: &Rc<Share>, request: InFlight, answer: ProduceResponse) -> Duration {
    share.env.reached(Moment::Answered);
    let mut waiting = VecDeque::from(request.mirrors);
    for partition in &answer.partitions {
        let Some(topic) = answer.topics.get(partition.topic) else { continue };
        // Brokers answer in the order of the request, by and large.
        let asked = |cell: &Rc<MirrorCell>| is_for(cell, topic, partition.index);
        let Some(cell) = waiting.iter().position(asked).and_then(|at| waiting.remove(at)) else {
            continue;
        };
        if partition.error == ErrorCode::NONE {
            appended(share, &cell, partition);
        } else {
            share.stats.count_error("target", "Produce", partition.error.name());
            failed(share, &cell, partition.error, &detail(partition));
        }
    }
    for cell in waiting {
        share.stats.count_error("target", "Produce", ErrorCode::UNKNOWN_SERVER_ERROR.name());
        failed(
            share,
            &cell,
            ErrorCode::UNKNOWN_SERVER_ERROR,
            "the answer leaves the partition out",
        );
    }
    Duration::from_millis(answer.throttle_time_ms.max(0) as u64)
}

fn is_for(cell: &MirrorCell, topic: &TopicKey, partition: i32) -> bool {
    let spec = &cell.spec;
    let same_topic = match topic {
        TopicKey::Id(id) => *id == spec.target_topic_id,
        TopicKey::Name(name) => **name == *spec.target_topic,
    };
    same_topic && partition == spec.id.partition
}

/// The broker's words for a refusal, with the first record that it blames.
fn detail(partition: &ProducedPartition) -> String {
    let mut detail = partition.error_message.clone().unwrap_or_default();
    if let Some(record) = partition.record_errors.first() {
        let message = record.message.as_deref().unwrap_or_default();
        detail.push_str(&format!(" (record {} of the batch: {message})", record.index));
    }
    detail
}

/// An ack of all in-sync replicas.
fn appended(share: &Rc<Share>, cell: &Rc<MirrorCell>, answer: &ProducedPartition) {
    let outcome = {
        let mut mirror = cell.mirror.borrow_mut();
        let Some(mirror) = &mut *mirror else { return };
        share.add_buffered(cell, mirror, |mirror| mirror.on_success(answer.base_offset))
    };
    match outcome {
        Ok(Some(settled)) => {
            if cell.has_transactions() {
                transactions::appended(share, cell);
            } else {
                share.on_settled(cell, &[settled]);
            }
            share.env.reached(Moment::Settled);
        }
        // Behind a doubt: it may have been the last answer that the recovery waits for.
        Ok(None) => share.recovery_wake.notify_one(),
        Err(violation) => violated(share, cell, violation),
    }
}

/// A refusal, or an answer that will never come. The window closes; the recovery decides once nothing is outstanding.
fn failed(share: &Rc<Share>, cell: &Rc<MirrorCell>, error: ErrorCode, message: &str) {
    if share.is_transactional() && transactions::sends_again(share, cell, error, message) {
        return;
    }
    if error == ErrorCode::NETWORK_EXCEPTION {
        cell.lost_at.set(Some(share.env.now()));
    }
    let outcome = {
        let mut mirror = cell.mirror.borrow_mut();
        let Some(mirror) = &mut *mirror else { return };
        if let Some((producer_id, sequence)) = mirror.oldest_in_flight()
            && cell.refused.borrow().is_none()
        {
            let message = message.to_owned();
            *cell.refused.borrow_mut() = Some(Refused { producer_id, sequence, error, message });
        }
        share.add_buffered(cell, mirror, |mirror| {
            if planted(Canary::DoubtIsAck) && trouble::leaves_doubt(error) {
                mirror.on_success(mirror.target_next()).map(drop)
            } else if trouble::leaves_doubt(error) {
                mirror.on_doubt()
            } else {
                mirror.on_refusal()
            }
        })
    };
    if let Err(violation) = outcome {
        violated(share, cell, violation);
    }
    if trouble::is_leadership(error) {
        share.link.target.refresh();
    }
    share.recovery_wake.notify_one();
}

/// The target appended what it must not (rules W3, W4): nothing is committed past it.
fn violated(share: &Rc<Share>, cell: &Rc<MirrorCell>, violation: Violation) {
    let what = match violation {
        Violation::SuccessAfterFailure => {
            "the target appended a batch behind one that it had refused".to_owned()
        }
        Violation::OffsetWentBack { base_offset, expected } => format!(
            "the target appended at offset {base_offset} where {expected} or later must follow: \
             truncated or re-created"
        ),
        Violation::Unasked => "the target answered a batch that was not sent".to_owned(),
    };
    let offset = cell.stats.acked.load(std::sync::atomic::Ordering::Relaxed);
    share.park(cell, trouble::park(Code(64), Side::Target, cell, offset, what));
}
