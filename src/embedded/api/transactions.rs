//! AddPartitionsToTxn (24), AddOffsetsToTxn (25), EndTxn (26), TxnOffsetCommit (28).

use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse, EndTxnRequest, EndTxnResponse, ProducerId, TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
};

use super::super::connection::Call;
use super::super::groups::Committed;
use super::super::state::State;
use super::offset_commit::check_offset;
use crate::wire::error_code::ErrorCode;

/// This broker coordinates the transactional id.
pub(super) fn coordinated(state: &State, call: &Call<'_>, id: &str) -> Result<(), ErrorCode> {
    match state.coordinator(id) == Some(call.peer.broker) {
        true => Ok(()),
        false => Err(ErrorCode::NOT_COORDINATOR),
    }
}

/// Clients of older versions know PRODUCER_FENCED by its older name.
pub(super) fn fenced(code: ErrorCode, known: bool) -> ErrorCode {
    match code {
        ErrorCode::PRODUCER_FENCED if !known => ErrorCode::INVALID_PRODUCER_EPOCH,
        _ => code,
    }
}

fn begin(state: &mut State, call: &Call<'_>, id: &str) -> Result<(), ErrorCode> {
    match state.faults.refusal(call.api, call.peer.broker) {
        Some(code) => Err(code),
        None => coordinated(state, call, id),
    }
}

pub(super) fn add_partitions(
    call: &Call<'_>,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let mut state = call.peer.shared.lock();
    let named: Vec<(String, i32)> = request
        .v3_and_below_topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|index| (topic.name.to_string(), *index)))
        .collect();
    let missing: Vec<bool> =
        named.iter().map(|(topic, index)| state.partition(topic, *index).is_none()).collect();
    // One partition that does not exist stops all of them (OPERATION_NOT_ATTEMPTED).
    let added = match missing.contains(&true) {
        true => Err(ErrorCode::OPERATION_NOT_ATTEMPTED),
        false => {
            let id = &request.v3_and_below_transactional_id;
            let producer =
                (request.v3_and_below_producer_id.0, request.v3_and_below_producer_epoch);
            let now = call.peer.shared.env.now();
            begin(&mut state, call, id).and_then(|()| {
                state.transactions.add_partitions(id, producer, named.iter().cloned(), now)
            })
        }
    };
    let code = fenced(added.err().unwrap_or_default(), call.version >= 2);
    let mut missing = missing.into_iter();
    let topics = request.v3_and_below_topics.into_iter().map(|topic| {
        let results = topic.partitions.iter().map(|index| {
            let code = match missing.next() {
                Some(true) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                _ => code,
            };
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*index)
                .with_partition_error_code(code.0)
        });
        AddPartitionsToTxnTopicResult::default()
            .with_results_by_partition(results.collect())
            .with_name(topic.name)
    });
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(topics.collect())
}

pub(super) fn add_offsets(
    call: &Call<'_>,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let mut state = call.peer.shared.lock();
    let id = &request.transactional_id;
    let producer = (request.producer_id.0, request.producer_epoch);
    let now = call.peer.shared.env.now();
    let added = begin(&mut state, call, id)
        .and_then(|()| state.transactions.add_group(id, producer, &request.group_id, now));
    let code = fenced(added.err().unwrap_or_default(), call.version >= 2);
    AddOffsetsToTxnResponse::default().with_error_code(code.0)
}

pub(super) fn end(call: &Call<'_>, request: EndTxnRequest) -> EndTxnResponse {
    let shared = &call.peer.shared;
    let mut state = shared.lock();
    let id = &request.transactional_id;
    let producer = (request.producer_id.0, request.producer_epoch);
    let v2 = call.version >= 5;
    let ended = begin(&mut state, call, id).and_then(|()| {
        state.end_transaction(id, producer, request.committed, v2, shared.env.wall_clock_ms())
    });
    drop(state);
    shared.changed();
    let code = fenced(ended.err().unwrap_or_default(), call.version >= 2);
    let answer = EndTxnResponse::default().with_error_code(code.0);
    match (v2, ended.ok().flatten()) {
        (false, _) => answer,
        (true, next) => {
            let (id, epoch) = next.unwrap_or((-1, -1));
            answer.with_producer_id(ProducerId(id)).with_producer_epoch(epoch)
        }
    }
}

pub(super) fn commit_offsets(
    call: &Call<'_>,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let mut state = call.peer.shared.lock();
    let allowed = check_commit(&mut state, call, &request);
    let producer_id = request.producer_id.0;
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition| {
            let committed = Committed {
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.committed_metadata.as_deref().unwrap_or_default().to_owned(),
            };
            let key = (topic.name.to_string(), partition.partition_index);
            let result = allowed.and_then(|()| {
                check_offset(&mut state, call, &key, &committed)?;
                let group = state.groups.entry(request.group_id.to_string()).or_default();
                group.pending.entry(producer_id).or_default().insert(key, committed);
                Ok(())
            });
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(result.err().unwrap_or_default().0)
        });
        TxnOffsetCommitResponseTopic::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name)
    });
    let topics = topics.collect();
    TxnOffsetCommitResponse::default().with_topics(topics)
}

fn check_commit(
    state: &mut State,
    call: &Call<'_>,
    request: &TxnOffsetCommitRequest,
) -> Result<(), ErrorCode> {
    let group = super::groups::coordinated(state, call, &request.group_id)?;
    let producer = (request.producer_id.0, request.producer_epoch);
    let now = call.peer.shared.env.now();
    if call.version >= 5 {
        let id = &request.transactional_id;
        state.transactions.add_group(id, producer, group, now)?;
    }
    state.transactions.verify_group(&request.transactional_id, producer, group)?;
    match state.groups.get_mut(group) {
        None if request.generation_id < 0 => Ok(()),
        None => Err(ErrorCode::ILLEGAL_GENERATION),
        Some(group) => group.check_commit(
            &request.member_id,
            request.group_instance_id.as_deref(),
            request.generation_id,
            true,
            now,
        ),
    }
}
