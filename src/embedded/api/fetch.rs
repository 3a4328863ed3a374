//! Fetch (key 1): `KafkaApis.handleFetchRequest`, `ReplicaManager.readFromLog`, `DelayedFetch`.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::FetchRequest;

use super::super::body::Body;
use super::super::connection::{Call, Close, Outcome};
use super::super::faults::Fault;
use super::super::log::Aborted;
use super::super::sessions::{Claim, Mode, Wanted};
use super::super::state::State;
use super::super::topic::Partition;
use crate::wire::error_code::ErrorCode;

/// The broker's `fetch.max.bytes`.
const RESPONSE_BYTES_MAX: usize = 55 << 20;

/// What one partition is answered.
struct Part<'a> {
    wanted: &'a Wanted,
    error: ErrorCode,
    high_watermark: i64,
    last_stable: i64,
    log_start: i64,
    /// The epoch and end that the reader must go back to.
    diverging: Option<(i32, i64)>,
    /// Leader and epoch, where the reader has the wrong one.
    leader: Option<(i32, i32)>,
    /// None for readers of uncommitted data.
    aborted: Option<Vec<Aborted>>,
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl<'a> Part<'a> {
    fn failed(wanted: &'a Wanted, error: ErrorCode) -> Self {
        Self {
            wanted,
            error,
            high_watermark: -1,
            last_stable: -1,
            log_start: -1,
            diverging: None,
            leader: None,
            aborted: None,
            pieces: Vec::new(),
            bytes: 0,
        }
    }
}

pub(super) async fn handle(call: &Call<'_>, request: FetchRequest) -> Result<Outcome, Close> {
    let shared = &call.peer.shared;
    let now_ms = shared.env.wall_clock_ms();
    let claimed = {
        let mut state = shared.lock();
        let claim = claim(&state, call, &request);
        let refusal = state.faults.refusal_of_session(call.peer.broker);
        match (refusal, state.broker(call.peer.broker)) {
            (Some(code), _) => Err(code),
            (None, Some(broker)) => broker.sessions.claim(claim, now_ms),
            (None, None) => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
        }
    };
    let (mode, wanted) = match claimed {
        Ok(claimed) => claimed,
        Err(code) => {
            return Ok(Outcome::Answer(encode(call, code, 0, &[], &[])));
        }
    };
    let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0).min(RESPONSE_BYTES_MAX);
    // A reader over its quota gets an empty answer at once, and is told how long it was made to wait.
    let wanted = if call.throttle_ms > 0 { Vec::new() } else { wanted };
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0).min(bytes_max);
    let wait = Duration::from_millis(request.max_wait_ms.max(0).unsigned_abs().into());
    let deadline = shared.env.now() + wait;
    let replica = request.replica_id.0.max(request.replica_state.replica_id.0);
    let view = View { committed: request.isolation_level == 1, replica: replica >= 0, bytes_max };

    let mut last = None;
    let ready = shared.wait_for(deadline, |state| {
        let parts = read(state, call, &wanted, &view);
        let bytes: usize = parts.iter().map(|part| part.bytes).sum();
        let urgent = |p: &Part<'_>| p.error != ErrorCode::NONE || p.diverging.is_some();
        let enough = bytes >= bytes_min || wanted.is_empty() || parts.iter().any(urgent);
        if enough || wait.is_zero() {
            return Some(parts);
        }
        last = Some(parts);
        None
    });
    let parts = ready.await.or(last).unwrap_or_default();

    let mut state = shared.lock();
    let (session, parts) = remember(&mut state, call, mode, parts, now_ms);
    let nodes = nodes(&state, call, &parts);
    drop(state);
    Ok(Outcome::Answer(encode(call, ErrorCode::NONE, session, &parts, &nodes)))
}

/// What the request says, with topic names looked up.
fn claim(state: &State, call: &Call<'_>, request: &FetchRequest) -> Claim {
    let by_id = call.version >= 13;
    let name = |id: &uuid::Uuid, name: &str| match by_id {
        true => state.names.get(id).cloned().unwrap_or_default(),
        false => name.to_owned(),
    };
    let mut partitions = Vec::new();
    for topic in &request.topics {
        let name = name(&topic.topic_id, &topic.topic);
        partitions.extend(topic.partitions.iter().map(|partition| Wanted {
            topic: name.clone(),
            id: topic.topic_id,
            partition: partition.partition,
            offset: partition.fetch_offset,
            leader_epoch: partition.current_leader_epoch,
            last_fetched_epoch: partition.last_fetched_epoch,
            bytes_max: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
            said_high_watermark: -1,
            said_log_start: -1,
        }));
    }
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        let name = name(&topic.topic_id, &topic.topic);
        forgotten.extend(topic.partitions.iter().map(|partition| Wanted {
            topic: name.clone(),
            id: topic.topic_id,
            partition: *partition,
            offset: 0,
            leader_epoch: -1,
            last_fetched_epoch: -1,
            bytes_max: 0,
            said_high_watermark: -1,
            said_log_start: -1,
        }));
    }
    Claim { id: request.session_id, epoch: request.session_epoch, by_id, partitions, forgotten }
}

/// How far a reader may see.
struct View {
    committed: bool,
    replica: bool,
    bytes_max: usize,
}

fn read<'a>(
    state: &mut State,
    call: &Call<'_>,
    wanted: &'a [Wanted],
    view: &View,
) -> Vec<Part<'a>> {
    let mut left = view.bytes_max;
    let mut whole = true;
    let mut parts = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let part = read_one(state, call, wanted, view, left, whole);
        whole &= part.bytes == 0;
        left = left.saturating_sub(part.bytes);
        parts.push(part);
    }
    parts
}

fn read_one<'a>(
    state: &mut State,
    call: &Call<'_>,
    wanted: &'a Wanted,
    view: &View,
    left: usize,
    whole: bool,
) -> Part<'a> {
    let failed = |code| Part::failed(wanted, code);
    let (broker, name) = (call.peer.broker, wanted.topic.as_str());
    let fault = state.faults.of_partition(call.api, broker, name, wanted.partition);
    if let Some(Fault::Refuse(code) | Fault::AnswerWith(code)) = fault {
        return failed(code);
    }
    let Some(topic) = state.topics.get_mut(name) else {
        return failed(match wanted.id.is_nil() {
            true => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            false => ErrorCode::UNKNOWN_TOPIC_ID,
        });
    };
    // A session outlives a topic that was made again under its name; the id does not.
    if !wanted.id.is_nil() && topic.id != wanted.id {
        return failed(ErrorCode::UNKNOWN_TOPIC_ID);
    }
    let Some(partition) = topic.partition(wanted.partition) else {
        return failed(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    };
    let led = match partition.leader == broker {
        true => partition.check_epoch(wanted.leader_epoch),
        false => Err(ErrorCode::NOT_LEADER_OR_FOLLOWER),
    };
    if let Err(code) = led {
        let leader = Some((partition.leader, partition.leader_epoch));
        return Part { leader, ..failed(code) };
    }
    slice(partition, wanted, view, left, whole).unwrap_or_else(failed)
}

/// `Partition.readRecords` and `UnifiedLog.read`.
fn slice<'a>(
    partition: &Partition,
    wanted: &'a Wanted,
    view: &View,
    left: usize,
    whole: bool,
) -> Result<Part<'a>, ErrorCode> {
    let log = &partition.log;
    let mut part = Part {
        high_watermark: log.high_watermark,
        last_stable: log.last_stable(),
        log_start: log.start,
        ..Part::failed(wanted, ErrorCode::NONE)
    };
    if wanted.last_fetched_epoch >= 0 {
        let (epoch, end) = log.end_of_epoch(wanted.last_fetched_epoch);
        if epoch < 0 || end < 0 {
            return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        if epoch < wanted.last_fetched_epoch || end < wanted.offset {
            part.diverging = Some((epoch, end));
            return Ok(part);
        }
    }
    if wanted.offset < log.start || wanted.offset > log.end {
        return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
    }
    let upper = match (view.replica, view.committed) {
        (true, _) => log.end,
        (false, true) => part.last_stable,
        (false, false) => part.high_watermark,
    };
    let first = log.first_batch_bytes(wanted.offset, upper).unwrap_or(0);
    let limit = wanted.bytes_max.min(left);
    // The first batch of an answer comes whole whatever its size; later, one that does not fit is left out.
    let limit = if whole { limit.max(first) } else { limit };
    let mut end = wanted.offset;
    if first > 0 && first <= limit {
        let read = log.read(wanted.offset, upper, limit);
        (part.pieces, part.bytes, end) = (read.pieces, read.bytes, read.end);
    }
    if view.committed {
        part.aborted = Some(log.aborted_between(wanted.offset, end));
    }
    Ok(part)
}

/// Updates the session; in one that goes on, only what is news is answered.
fn remember<'a>(
    state: &mut State,
    call: &Call<'_>,
    mode: Mode,
    mut parts: Vec<Part<'a>>,
    now_ms: i64,
) -> (i32, Vec<Part<'a>>) {
    let fresh = i32::try_from(call.peer.shared.env.random_u64() >> 34).unwrap_or(1).max(1);
    let Some(broker) = state.broker(call.peer.broker) else { return (0, parts) };
    match mode {
        Mode::Alone => (0, parts),
        Mode::Begin => {
            let all: Vec<Wanted> = parts.iter().map(told).collect();
            let by_id = call.version >= 13;
            (broker.sessions.begin(fresh, by_id, now_ms, &all), parts)
        }
        Mode::Continue(id) => {
            parts.retain(|part| {
                let news = part.bytes > 0
                    || part.error != ErrorCode::NONE
                    || part.diverging.is_some()
                    || part.high_watermark != part.wanted.said_high_watermark
                    || part.log_start != part.wanted.said_log_start;
                if news {
                    broker.sessions.said(id, &told(part), part.bytes > 0);
                }
                news
            });
            (id, parts)
        }
    }
}

fn told(part: &Part<'_>) -> Wanted {
    Wanted {
        said_high_watermark: part.high_watermark,
        said_log_start: part.log_start,
        ..part.wanted.clone()
    }
}

/// KIP-951: where the leaders are that the parts point to.
fn nodes(state: &State, call: &Call<'_>, parts: &[Part<'_>]) -> Vec<(i32, String, i32)> {
    let mut nodes: Vec<(i32, String, i32)> = Vec::new();
    for (leader, _) in parts.iter().filter_map(|part| part.leader) {
        if nodes.iter().all(|(known, ..)| *known != leader)
            && let Some((host, port)) = state.endpoint(leader, call.peer.listener)
        {
            nodes.push((leader, host, port));
        }
    }
    nodes
}

/// The answer, written by hand: records go by reference.
fn encode(
    call: &Call<'_>,
    error: ErrorCode,
    session: i32,
    parts: &[Part<'_>],
    nodes: &[(i32, String, i32)],
) -> Body {
    let version = call.version;
    let flexible = version >= 12;
    let mut out = Body::default();
    out.i32(call.throttle_ms);
    if version >= 7 {
        out.i16(error.0);
        out.i32(session);
    }
    let same =
        |a: &Part<'_>, b: &Part<'_>| a.wanted.topic == b.wanted.topic && a.wanted.id == b.wanted.id;
    let topics = parts.chunk_by(same);
    out.array(topics.clone().count(), flexible);
    for topic in topics {
        match version >= 13 {
            true => out.slice(topic[0].wanted.id.as_bytes()),
            false => out.string(&topic[0].wanted.topic, flexible),
        }
        out.array(topic.len(), flexible);
        for part in topic {
            encode_part(&mut out, version, part);
        }
        if flexible {
            out.uvarint(0);
        }
    }
    if flexible {
        encode_nodes(&mut out, if version >= 16 { nodes } else { &[] });
    }
    out
}

fn encode_part(out: &mut Body, version: i16, part: &Part<'_>) {
    let flexible = version >= 12;
    out.i32(part.wanted.partition);
    out.i16(part.error.0);
    out.i64(part.high_watermark);
    out.i64(part.last_stable);
    if version >= 5 {
        out.i64(part.log_start);
    }
    match &part.aborted {
        Some(aborted) => out.array(aborted.len(), flexible),
        None if flexible => out.uvarint(0),
        None => out.i32(-1),
    }
    for aborted in part.aborted.iter().flatten() {
        out.i64(aborted.producer_id);
        out.i64(aborted.first_offset);
        if flexible {
            out.uvarint(0);
        }
    }
    if version >= 11 {
        out.i32(-1);
    }
    out.array(part.bytes, flexible);
    for piece in &part.pieces {
        out.bytes(piece.clone());
    }
    if flexible {
        let leader = part.leader.filter(|_| version >= 12);
        out.uvarint(usize::from(part.diverging.is_some()) + usize::from(leader.is_some()));
        if let Some((epoch, end)) = part.diverging {
            out.slice(&[0, 13]);
            out.i32(epoch);
            out.i64(end);
            out.uvarint(0);
        }
        if let Some((leader, epoch)) = leader {
            out.slice(&[1, 9]);
            out.i32(leader);
            out.i32(epoch);
            out.uvarint(0);
        }
    }
}

fn encode_nodes(out: &mut Body, nodes: &[(i32, String, i32)]) {
    out.uvarint(usize::from(!nodes.is_empty()));
    if nodes.is_empty() {
        return;
    }
    let mut field = Body::default();
    field.uvarint(nodes.len() + 1);
    for (id, host, port) in nodes {
        field.i32(*id);
        field.string(host, true);
        field.i32(*port);
        // No rack, no tags.
        field.slice(&[0, 0]);
    }
    out.uvarint(0);
    out.uvarint(field.len());
    out.bytes(field.into_bytes());
}
