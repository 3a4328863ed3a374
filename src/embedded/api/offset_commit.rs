//! OffsetCommit (key 8).

use kafka_protocol::messages::offset_commit_request::OffsetCommitRequest;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};

use super::super::connection::Call;
use super::super::faults::Fault;
use super::super::groups::Committed;
use super::super::state::State;
use crate::wire::error_code::ErrorCode;

/// `offset.metadata.max.bytes`, which counts UTF-16 units.
const METADATA_MAX: usize = 4096;

pub(super) fn handle(call: &Call<'_>, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let shared = &call.peer.shared;
    let mut state = shared.lock();
    let allowed = check(&mut state, call, &request);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let partitions = topic.partitions.iter().map(|partition| {
            let committed = Committed {
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.committed_metadata.as_deref().unwrap_or_default().to_owned(),
            };
            let key = (topic.name.to_string(), partition.partition_index);
            let result = allowed.and_then(|()| {
                check_offset(&mut state, call, &key, &committed)?;
                if let Some(hook) = &state.on_commit {
                    hook(&request.group_id, &key, &committed);
                }
                let group = state.groups.entry(request.group_id.to_string()).or_default();
                group.offsets.insert(key, committed);
                Ok(())
            });
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(result.err().unwrap_or_default().0)
        });
        topics.push(
            OffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect()),
        );
    }
    drop(state);
    shared.changed();
    OffsetCommitResponse::default().with_topics(topics)
}

fn check(
    state: &mut State,
    call: &Call<'_>,
    request: &OffsetCommitRequest,
) -> Result<(), ErrorCode> {
    let group = super::groups::coordinated(state, call, &request.group_id)?;
    let now = call.peer.shared.env.now();
    let generation = request.generation_id_or_member_epoch;
    match state.groups.get_mut(group) {
        None if generation < 0 => Ok(()),
        None => Err(ErrorCode::ILLEGAL_GENERATION),
        Some(group) => group.check_commit(
            &request.member_id,
            request.group_instance_id.as_deref(),
            generation,
            false,
            now,
        ),
    }
}

/// What holds for every committed offset, also inside a transaction: the partition exists and the metadata are short.
/// The offset itself is free.
pub(super) fn check_offset(
    state: &mut State,
    call: &Call<'_>,
    key: &(String, i32),
    committed: &Committed,
) -> Result<(), ErrorCode> {
    let fault = state.faults.of_partition(call.api, call.peer.broker, &key.0, key.1);
    if let Some(Fault::Refuse(code) | Fault::AnswerWith(code)) = fault {
        return Err(code);
    }
    if state.partition(&key.0, key.1).is_none() {
        return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    }
    match committed.metadata.encode_utf16().count() > METADATA_MAX {
        true => Err(ErrorCode::OFFSET_METADATA_TOO_LARGE),
        false => Ok(()),
    }
}
