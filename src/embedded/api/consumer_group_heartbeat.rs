//! ConsumerGroupHeartbeat (key 68).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use uuid::Uuid;

use super::super::connection::Call;
use super::super::consumers::{Beat, Beaten, IdPartition};
use super::super::options::Generation;
use super::super::state::State;
use super::text;
use crate::wire::error_code::ErrorCode;

pub(super) fn handle(
    call: &Call<'_>,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let shared = &call.peer.shared;
    let mut state = shared.lock();
    let mut member = request.member_id.to_string();
    if member.is_empty() && call.version == 0 {
        let env = &shared.env;
        member = format!("{:016x}{:016x}", env.random_u64(), env.random_u64());
    }
    let answer = match beat(&mut state, call, &request, &member) {
        Err(code) => ConsumerGroupHeartbeatResponse::default().with_error_code(code.0),
        Ok(Beaten { epoch, assignment }) => {
            let interval = state.options.consumer_heartbeat_interval.as_millis();
            ConsumerGroupHeartbeatResponse::default()
                .with_member_id(Some(text(member)))
                .with_member_epoch(epoch)
                .with_heartbeat_interval_ms(i32::try_from(interval).unwrap_or(i32::MAX))
                .with_assignment(assignment.as_ref().map(written))
        }
    };
    drop(state);
    shared.changed();
    answer
}

fn beat(
    state: &mut State,
    call: &Call<'_>,
    request: &ConsumerGroupHeartbeatRequest,
    member: &str,
) -> Result<Beaten, ErrorCode> {
    super::groups::coordinated(state, call, &request.group_id)?;
    // 3.9 has it behind a setting that is off.
    if state.options.generation == Generation::Kafka39 {
        return Err(ErrorCode::UNSUPPORTED_VERSION);
    }
    if member.is_empty() {
        return Err(ErrorCode::INVALID_REQUEST);
    }
    let assignor = request.server_assignor.as_deref();
    if assignor.is_some_and(|assignor| !["uniform", "range"].contains(&assignor)) {
        return Err(ErrorCode::UNSUPPORTED_ASSIGNOR);
    }
    let held = request.topic_partitions.as_ref().map(|topics| {
        let held = topics.iter().flat_map(|of| of.partitions.iter().map(|p| (of.topic_id, *p)));
        held.collect::<BTreeSet<IdPartition>>()
    });
    let topics = request.subscribed_topic_names.as_ref();
    let beat = Beat {
        member: member.to_owned(),
        epoch: request.member_epoch,
        instance: request.instance_id.as_ref().map(ToString::to_string),
        rebalance_timeout: u64::try_from(request.rebalance_timeout_ms)
            .ok()
            .map(Duration::from_millis),
        topics: topics.map(|names| names.iter().map(|name| name.to_string()).collect()),
        held,
    };
    let now = call.peer.shared.env.now();
    let session = state.options.consumer_session_timeout;
    let State { groups, topics, .. } = state;
    let topic = |name: &str| {
        let topic = topics.get(name)?;
        Some((topic.id, i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)))
    };
    let group = match beat.epoch {
        0 => groups.entry(request.group_id.to_string()).or_default(),
        _ => groups.get_mut(request.group_id.as_str()).ok_or(ErrorCode::GROUP_ID_NOT_FOUND)?,
    };
    group.consumers(beat.epoch == 0)?.heartbeat(beat, session, topic, now)
}

fn written(assigned: &BTreeSet<IdPartition>) -> Assignment {
    let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
    for (id, index) in assigned {
        topics.entry(*id).or_default().push(*index);
    }
    let topics = topics.into_iter().map(|(id, partitions)| {
        TopicPartitions::default().with_topic_id(id).with_partitions(partitions)
    });
    Assignment::default().with_topic_partitions(topics.collect())
}
