//! Produce (key 0): `KafkaApis.handleProduceRequest`, `ReplicaManager.appendRecords`, `DelayedProduce`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::produce_request::ProduceRequest;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    ProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{BrokerId, TopicName, TransactionalId};
use uuid::Uuid;

use super::super::batch::{Head, TRANSACTIONAL};
use super::super::connection::{Call, Close, Outcome};
use super::super::faults::Fault;
use super::super::state::State;
use super::super::topic;
use super::super::validate::{self, Refusal};
use super::text;
use crate::wire::error_code::ErrorCode;

/// One partition of the request and what became of it.
struct Part {
    topic: Rc<str>,
    id: Uuid,
    index: i32,
    records: Bytes,
    result: Result<Success, Refusal>,
    /// An ordered fault's code, said in the end whatever happened.
    said: Option<ErrorCode>,
    /// An ordered fault: the checksum is not looked at.
    unchecked: bool,
}

struct Success {
    base_offset: i64,
    append_time: i64,
    log_start: i64,
    /// The high watermark that acks=all waits for.
    needed: i64,
    done: bool,
}

pub(super) async fn handle(call: &Call<'_>, request: ProduceRequest) -> Result<Outcome, Close> {
    let shared = &call.peer.shared;
    let (acks, timeout) = (request.acks, request.timeout_ms.max(0).unsigned_abs());
    let mut parts = {
        let mut state = shared.lock();
        let (mut parts, dropped) = parts(&state, call, &request);
        state.dropped_batches += dropped;
        let whole = whole_request(&parts, &request);
        for part in &mut parts {
            part.result = match whole {
                Some(code) => Err(Refusal::of(code)),
                None => produce(&mut state, call, part, acks, request.transactional_id.as_ref()),
            };
        }
        parts
    };
    shared.changed();
    if acks == -1 {
        let deadline = shared.env.now() + Duration::from_millis(timeout.into());
        let broker = call.peer.broker;
        shared.wait_for(deadline, |state| settle(state, broker, &mut parts).then_some(())).await;
        for part in &mut parts {
            if part.result.as_ref().is_ok_and(|success| !success.done) {
                part.result = Err(Refusal::of(ErrorCode::REQUEST_TIMED_OUT));
            }
        }
    }
    for part in &mut parts {
        if let Some(code) = part.said {
            part.result = Err(Refusal::of(code));
        }
    }
    if acks == 0 {
        // Nobody waits for an answer: a refusal shows as a closed connection.
        return match parts.iter().any(|part| part.result.is_err()) {
            true => Err(Close("a produce without acknowledgement failed")),
            false => Ok(Outcome::Nothing),
        };
    }
    let answer = answer(&mut shared.lock(), call, parts);
    call.answer(&answer)
}

/// The request's partitions; of one that is named twice only the last entry counts (P4), and the others are dropped: how many.
fn parts(state: &State, call: &Call<'_>, request: &ProduceRequest) -> (Vec<Part>, u64) {
    let mut parts: Vec<Part> = Vec::new();
    let mut dropped = 0;
    let mut places = HashMap::new();
    for topic in &request.topic_data {
        let name: Rc<str> = match call.version >= 13 {
            true => state.names.get(&topic.topic_id).map_or("", String::as_str).into(),
            false => topic.name.as_str().into(),
        };
        for data in &topic.partition_data {
            let part = Part {
                topic: Rc::clone(&name),
                id: topic.topic_id,
                index: data.index,
                records: data.records.clone().unwrap_or_default(),
                result: Err(Refusal::of(ErrorCode::UNKNOWN_SERVER_ERROR)),
                said: None,
                unchecked: false,
            };
            match places.entry((Rc::clone(&name), part.id, part.index)) {
                Entry::Occupied(place) => {
                    parts[*place.get()] = part;
                    dropped += 1;
                }
                Entry::Vacant(place) => {
                    place.insert(parts.len());
                    parts.push(part);
                }
            }
        }
    }
    (parts, dropped)
}

/// What refuses every partition of the request: P1, P8, P6.
fn whole_request(parts: &[Part], request: &ProduceRequest) -> Option<ErrorCode> {
    let mut producers = parts
        .iter()
        .filter_map(|part| Head::read(&part.records))
        .filter(|head| head.has(TRANSACTIONAL))
        .map(|head| (head.producer_id, head.producer_epoch));
    if let Some(first) = producers.next() {
        if request.transactional_id.is_none() {
            return Some(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
        }
        if producers.any(|other| other != first) {
            return Some(ErrorCode::INVALID_PRODUCER_ID_MAPPING);
        }
    }
    (!(-1..=1).contains(&request.acks)).then_some(ErrorCode::INVALID_REQUIRED_ACKS)
}

/// Appends one partition's batch, or refuses it.
fn produce(
    state: &mut State,
    call: &Call<'_>,
    part: &mut Part,
    acks: i16,
    transactional_id: Option<&TransactionalId>,
) -> Result<Success, Refusal> {
    let broker = call.peer.broker;
    match state.faults.of_partition(call.api, broker, &part.topic, part.index) {
        Some(Fault::Refuse(code)) => return Err(Refusal::of(code)),
        Some(Fault::AnswerWith(code)) => part.said = Some(code),
        Some(Fault::IgnoreCrc) => part.unchecked = true,
        _ => {}
    }
    if !state.topics.contains_key(&*part.topic) {
        return Err(Refusal::of(match call.version >= 13 {
            true => ErrorCode::UNKNOWN_TOPIC_ID,
            false => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        }));
    }
    if state.options.null_target {
        let partition = state.led(broker, &part.topic, part.index).map_err(Refusal::of)?;
        let count = Head::read(&part.records).map_or(0, |head| i64::from(head.count.max(0)));
        let log = &mut partition.log;
        let base_offset = log.end;
        log.end += count;
        (log.start, log.high_watermark) = (log.end, log.end);
        return Ok(Success {
            base_offset,
            append_time: -1,
            log_start: log.start,
            needed: log.end,
            done: false,
        });
    }
    let batch = validate::single_batch(&part.records, call.version)?;
    if topic::is_internal(&part.topic) && call.client_id != "__admin_client" {
        return Err(Refusal::of(ErrorCode::INVALID_TOPIC_EXCEPTION));
    }
    append(state, call, part, &batch, acks, transactional_id)
}

fn append(
    state: &mut State,
    call: &Call<'_>,
    part: &Part,
    batch: &Bytes,
    acks: i16,
    transactional_id: Option<&TransactionalId>,
) -> Result<Success, Refusal> {
    let broker = call.peer.broker;
    let settings = state.topics.get(&*part.topic).map(|topic| topic.settings.clone());
    let unknown = || Refusal::of(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let settings = settings.ok_or_else(unknown)?;
    let partition = state.led(broker, &part.topic, part.index).map_err(Refusal::of)?;
    if acks == -1 && partition.is_under(settings.min_isr) {
        return Err(Refusal::of(ErrorCode::NOT_ENOUGH_REPLICAS));
    }
    let now_ms = call.peer.shared.env.wall_clock_ms();
    let admitted = validate::admit(batch, !part.unchecked, &settings, now_ms)?;
    let head = admitted.head;
    if let Some(twin) = partition.log.producers.check(&head).map_err(Refusal::of)? {
        return Ok(Success {
            base_offset: twin.base_offset,
            append_time: if settings.log_append_time { twin.timestamp } else { -1 },
            log_start: partition.log.start,
            needed: twin.last_offset + 1,
            done: false,
        });
    }
    if head.has(TRANSACTIONAL) {
        let producer = (head.producer_id, head.producer_epoch);
        let known = partition.log.producers.get(producer.0);
        let open = known.is_some_and(|entry| entry.open_since.is_some());
        // Transactions V2: the leader itself adds the partition, and without state takes no sequence but the first.
        let joins = transactional_id.filter(|_| call.version >= 12);
        if joins.is_some() && known.is_none() && head.base_sequence != 0 {
            return Err(Refusal::of(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
        }
        if let Some(id) = joins.filter(|_| !open) {
            let key = (part.topic.to_string(), part.index);
            let now = call.peer.shared.env.now();
            state.transactions.join(id, producer, key, now).map_err(Refusal::of)?;
        } else if !open {
            let answer = match call.version >= 11 {
                true => ErrorCode::TRANSACTION_ABORTABLE,
                false => ErrorCode::INVALID_TXN_STATE,
            };
            let key = (part.topic.to_string(), part.index);
            state.transactions.verify(producer, &key, answer).map_err(Refusal::of)?;
        }
    }
    let partition = state.led(broker, &part.topic, part.index).map_err(Refusal::of)?;
    let base_offset = partition.append(head, admitted.payload, settings.min_isr);
    Ok(Success {
        base_offset,
        append_time: admitted.append_time.unwrap_or(-1),
        log_start: partition.log.start,
        needed: partition.log.end,
        done: false,
    })
}

/// Looks which appends are replicated; true when none has to wait any longer.
fn settle(state: &mut State, broker: i32, parts: &mut [Part]) -> bool {
    let mut all = true;
    for part in parts {
        let Ok(success) = &mut part.result else { continue };
        if success.done {
            continue;
        }
        let min_isr = state.topics.get(&*part.topic).map_or(0, |topic| topic.settings.min_isr);
        match state.led(broker, &part.topic, part.index) {
            Err(code) => part.result = Err(Refusal::of(code)),
            Ok(partition) if partition.log.high_watermark < success.needed => all = false,
            Ok(partition) if partition.is_under(min_isr) => {
                part.result = Err(Refusal::of(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND));
            }
            Ok(_) => success.done = true,
        }
    }
    all
}

fn answer(state: &mut State, call: &Call<'_>, parts: Vec<Part>) -> ProduceResponse {
    let mut response = ProduceResponse::default().with_throttle_time_ms(call.throttle_ms);
    for part in parts {
        let mut data = PartitionProduceResponse::default().with_index(part.index);
        match &part.result {
            Ok(success) => {
                data = data
                    .with_base_offset(success.base_offset)
                    .with_log_append_time_ms(success.append_time)
                    .with_log_start_offset(success.log_start);
            }
            Err(refusal) => data = refused(data, refusal),
        }
        if data.error_code == ErrorCode::NOT_LEADER_OR_FOLLOWER.0 && call.version >= 10 {
            point_to_leader(state, call, &part, &mut data, &mut response.node_endpoints);
        }
        let same = |t: &&mut TopicProduceResponse| {
            if call.version >= 13 { t.topic_id == part.id } else { t.name.as_str() == &*part.topic }
        };
        match response.responses.iter_mut().rev().find(same) {
            Some(topic) => topic.partition_responses.push(data),
            None => response.responses.push(
                TopicProduceResponse::default()
                    .with_name(TopicName(text(&*part.topic)))
                    .with_topic_id(part.id)
                    .with_partition_responses(vec![data]),
            ),
        }
    }
    response
}

fn refused(data: PartitionProduceResponse, refusal: &Refusal) -> PartitionProduceResponse {
    let records = refusal.records.iter().map(|(index, why)| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(*index)
            .with_batch_index_error_message(Some(text(*why)))
    });
    data.with_error_code(refusal.code.0)
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1)
        .with_record_errors(records.collect())
        .with_error_message(refusal.message.map(text))
}

/// KIP-951: who leads, and where that is.
fn point_to_leader(
    state: &mut State,
    call: &Call<'_>,
    part: &Part,
    data: &mut PartitionProduceResponse,
    endpoints: &mut Vec<NodeEndpoint>,
) {
    let Some(partition) = state.partition(&part.topic, part.index) else { return };
    let (leader, epoch) = (partition.leader, partition.leader_epoch);
    data.current_leader =
        LeaderIdAndEpoch::default().with_leader_id(BrokerId(leader)).with_leader_epoch(epoch);
    let Some((host, port)) = state.endpoint(leader, call.peer.listener) else { return };
    if endpoints.iter().all(|known| known.node_id.0 != leader) {
        let endpoint = NodeEndpoint::default()
            .with_node_id(BrokerId(leader))
            .with_host(text(host))
            .with_port(port);
        endpoints.push(endpoint);
    }
}
