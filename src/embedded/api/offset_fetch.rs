//! OffsetFetch (key 9): one group until version 7, several from version 8.

use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequest;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use std::collections::BTreeMap;

use super::super::connection::Call;
use super::super::groups::Committed;
use super::super::state::State;
use super::text;
use crate::wire::error_code::ErrorCode;

/// Partitions by topic; None asks for all that the group has.
type Asked = Option<Vec<(String, Vec<i32>)>>;
type Found = Vec<(String, Vec<(i32, Result<Committed, ErrorCode>)>)>;

pub(super) fn handle(call: &Call<'_>, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let mut state = call.peer.shared.lock();
    let stable = request.require_stable;
    if call.version < 8 {
        let asked: Asked = request.topics.map(|topics| {
            topics.into_iter().map(|t| (t.name.to_string(), t.partition_indexes)).collect()
        });
        return match find(&mut state, call, &request.group_id, asked, stable) {
            Err(code) => OffsetFetchResponse::default().with_error_code(code.0),
            Ok(found) => OffsetFetchResponse::default().with_topics(old(found)),
        };
    }
    let groups = request.groups.into_iter().map(|group| {
        let asked: Asked = group.topics.map(|topics| {
            topics.into_iter().map(|t| (t.name.to_string(), t.partition_indexes)).collect()
        });
        let answer = OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
        match find(&mut state, call, &group.group_id, asked, stable) {
            Err(code) => answer.with_error_code(code.0),
            Ok(found) => answer.with_topics(new(found)),
        }
    });
    let groups = groups.collect();
    OffsetFetchResponse::default().with_groups(groups)
}

fn find(
    state: &mut State,
    call: &Call<'_>,
    group: &str,
    asked: Asked,
    stable: bool,
) -> Result<Found, ErrorCode> {
    super::groups::coordinated(state, call, group)?;
    let group = state.groups.get(group);
    let asked = asked.unwrap_or_else(|| {
        let mut all: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in group.map(|group| group.partitions()).unwrap_or_default() {
            all.entry(topic).or_default().push(partition);
        }
        all.into_iter().collect()
    });
    let one = |topic: &String, partition: i32| {
        let key = (topic.clone(), partition);
        if stable && group.is_some_and(|group| group.is_pending(&key)) {
            return Err(ErrorCode::UNSTABLE_OFFSET_COMMIT);
        }
        let none = Committed { offset: -1, leader_epoch: -1, metadata: String::new() };
        Ok(group.and_then(|group| group.offsets.get(&key)).cloned().unwrap_or(none))
    };
    let topics = asked.into_iter().map(|(topic, partitions)| {
        let found = partitions.into_iter().map(|index| (index, one(&topic, index))).collect();
        (topic, found)
    });
    Ok(topics.collect())
}

fn parts(result: Result<Committed, ErrorCode>) -> (Committed, i16) {
    let none = Committed { offset: -1, leader_epoch: -1, metadata: String::new() };
    match result {
        Ok(committed) => (committed, 0),
        Err(code) => (none, code.0),
    }
}

fn old(found: Found) -> Vec<OffsetFetchResponseTopic> {
    let topics = found.into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|(index, result)| {
            let (committed, code) = parts(result);
            OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_committed_offset(committed.offset)
                .with_committed_leader_epoch(committed.leader_epoch)
                .with_metadata(Some(text(committed.metadata)))
                .with_error_code(code)
        });
        OffsetFetchResponseTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(partitions.collect())
    });
    topics.collect()
}

fn new(found: Found) -> Vec<OffsetFetchResponseTopics> {
    let topics = found.into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|(index, result)| {
            let (committed, code) = parts(result);
            OffsetFetchResponsePartitions::default()
                .with_partition_index(index)
                .with_committed_offset(committed.offset)
                .with_committed_leader_epoch(committed.leader_epoch)
                .with_metadata(Some(text(committed.metadata)))
                .with_error_code(code)
        });
        OffsetFetchResponseTopics::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(partitions.collect())
    });
    topics.collect()
}
