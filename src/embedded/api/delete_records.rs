//! DeleteRecords (key 21): moves the log start; never past the high watermark.

use kafka_protocol::messages::delete_records_request::DeleteRecordsRequest;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};

use super::super::connection::Call;
use super::super::state::State;
use crate::wire::error_code::ErrorCode;

pub(super) fn handle(call: &Call<'_>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let shared = &call.peer.shared;
    let mut state = shared.lock();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let partitions = topic.partitions.iter().map(|asked| {
            let index = asked.partition_index;
            let answer = DeleteRecordsPartitionResult::default().with_partition_index(index);
            match delete(&mut state, call.peer.broker, &topic.name, index, asked.offset) {
                Ok(low) => answer.with_low_watermark(low),
                Err(code) => answer.with_low_watermark(-1).with_error_code(code.0),
            }
        });
        topics.push(
            DeleteRecordsTopicResult::default()
                .with_partitions(partitions.collect())
                .with_name(topic.name),
        );
    }
    drop(state);
    shared.changed();
    DeleteRecordsResponse::default().with_topics(topics)
}

fn delete(
    state: &mut State,
    broker: i32,
    topic: &str,
    index: i32,
    offset: i64,
) -> Result<i64, ErrorCode> {
    if let Some(topic) = state.topics.get(topic)
        && topic.is_only_compacted()
    {
        return Err(ErrorCode::POLICY_VIOLATION);
    }
    let log = &mut state.led(broker, topic, index)?.log;
    let offset = if offset == -1 { log.high_watermark } else { offset };
    if offset < 0 || offset > log.high_watermark {
        return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
    }
    log.delete_before(offset);
    Ok(log.start)
}
