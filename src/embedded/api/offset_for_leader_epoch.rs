//! OffsetForLeaderEpoch (key 23).

use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};

use super::super::connection::Call;
use super::super::state::State;
use crate::wire::error_code::ErrorCode;

pub(super) fn handle(
    call: &Call<'_>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut state = call.peer.shared.lock();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let partitions = topic.partitions.iter().map(|asked| {
            let answer = EpochEndOffset::default().with_partition(asked.partition);
            match find(&mut state, call, &topic.topic, asked) {
                Ok((epoch, end)) => answer.with_leader_epoch(epoch).with_end_offset(end),
                Err(code) => answer.with_error_code(code.0),
            }
        });
        topics.push(
            OffsetForLeaderTopicResult::default()
                .with_partitions(partitions.collect())
                .with_topic(topic.topic),
        );
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}

fn find(
    state: &mut State,
    call: &Call<'_>,
    topic: &str,
    asked: &OffsetForLeaderPartition,
) -> Result<(i32, i64), ErrorCode> {
    let partition = state.led(call.peer.broker, topic, asked.partition)?;
    partition.check_epoch(asked.current_leader_epoch)?;
    let (epoch, end) = partition.log.end_of_epoch(asked.leader_epoch);
    // A consumer does not see past the high watermark.
    Ok((epoch, end.min(partition.log.high_watermark)))
}
