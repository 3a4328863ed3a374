//! CreatePartitions (key 37).

use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_partitions_response::{
    CreatePartitionsResponse, CreatePartitionsTopicResult,
};

use super::super::connection::Call;
use super::super::state::State;
use super::text;
use crate::wire::error_code::ErrorCode;

pub(super) fn handle(
    call: &Call<'_>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let shared = &call.peer.shared;
    let mut state = shared.lock();
    let results = request.topics.iter().map(|topic| {
        let grown = grow(&mut state, topic, request.validate_only);
        let code = grown.err().unwrap_or_default();
        CreatePartitionsTopicResult::default()
            .with_name(topic.name.clone())
            .with_error_code(code.0)
            .with_error_message(code.is_error().then(|| text(code.name())))
    });
    let results = results.collect();
    drop(state);
    shared.changed();
    CreatePartitionsResponse::default().with_results(results)
}

fn grow(
    state: &mut State,
    asked: &CreatePartitionsTopic,
    only_check: bool,
) -> Result<(), ErrorCode> {
    let topic = state.topics.get(asked.name.as_str());
    let topic = topic.ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    let now = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    if asked.count <= now || asked.count > 100_000 {
        return Err(ErrorCode::INVALID_PARTITIONS);
    }
    if !only_check {
        state.grow_topic(&asked.name, asked.count);
    }
    Ok(())
}
