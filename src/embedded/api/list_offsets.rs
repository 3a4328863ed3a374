//! ListOffsets (key 2): `Partition.fetchOffsetForTimestamp`.

use kafka_protocol::messages::list_offsets_request::ListOffsetsRequest;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};

use super::super::connection::Call;
use super::super::faults::Fault;
use super::super::state::State;
use crate::wire::error_code::ErrorCode;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

struct Asked<'a> {
    topic: &'a str,
    partition: i32,
    leader_epoch: i32,
    timestamp: i64,
    committed: bool,
    /// Any replica id but -1 sees the log's end, not the high watermark.
    replica: bool,
}

pub(super) fn handle(call: &Call<'_>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut state = call.peer.shared.lock();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let partitions = topic.partitions.iter().map(|partition| {
            let asked = Asked {
                topic: &topic.name,
                partition: partition.partition_index,
                leader_epoch: partition.current_leader_epoch,
                timestamp: partition.timestamp,
                committed: request.isolation_level == 1,
                replica: request.replica_id.0 != -1,
            };
            let answer = ListOffsetsPartitionResponse::default()
                .with_partition_index(partition.partition_index);
            match find(&mut state, call, &asked) {
                Ok((timestamp, offset, epoch)) => answer
                    .with_timestamp(timestamp)
                    .with_offset(offset)
                    .with_leader_epoch(if call.version >= 4 { epoch } else { -1 }),
                Err(code) => answer.with_error_code(code.0),
            }
        });
        topics.push(
            ListOffsetsTopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect()),
        );
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// Timestamp, offset and leader epoch; all -1 when nothing is that young.
fn find(
    state: &mut State,
    call: &Call<'_>,
    asked: &Asked<'_>,
) -> Result<(i64, i64, i32), ErrorCode> {
    let broker = call.peer.broker;
    let fault = state.faults.of_partition(call.api, broker, asked.topic, asked.partition);
    if let Some(Fault::Refuse(code) | Fault::AnswerWith(code)) = fault {
        return Err(code);
    }
    let partition = state.led(broker, asked.topic, asked.partition)?;
    partition.check_epoch(asked.leader_epoch)?;
    let log = &partition.log;
    let end = match (asked.replica, asked.committed) {
        (true, _) => log.end,
        (false, true) => log.last_stable(),
        (false, false) => log.high_watermark,
    };
    let supported = match asked.timestamp {
        MAX_TIMESTAMP => call.version >= 7,
        EARLIEST_LOCAL => call.version >= 8,
        LATEST_TIERED => call.version >= 9,
        timestamp => timestamp >= EARLIEST,
    };
    if !supported {
        return Err(ErrorCode::UNSUPPORTED_VERSION);
    }
    let found = match asked.timestamp {
        LATEST => return Ok((-1, end, log.last_epoch().unwrap_or(-1))),
        EARLIEST | EARLIEST_LOCAL => return Ok((-1, log.start, log.epoch_at(log.start))),
        LATEST_TIERED => return Ok((-1, -1, -1)),
        MAX_TIMESTAMP => log.at_max_time(),
        timestamp => log.at_time(timestamp),
    };
    // A record that this reader cannot see yet is none.
    let found = found.filter(|(_, offset)| *offset < end || asked.timestamp == MAX_TIMESTAMP);
    Ok(found.map_or((-1, -1, -1), |(at, offset)| (at, offset, log.epoch_at(offset))))
}
