//! CreateTopics (key 19).

use std::collections::BTreeMap;

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse,
};

use super::super::connection::Call;
use super::super::faults::Fault;
use super::super::state::State;
use super::super::topic::{self, Topic};
use super::text;
use crate::wire::error_code::ErrorCode;

/// Records that a controller writes for one request (`QuorumController.MAX_RECORDS_PER_USER_OP`).
const RECORDS_MAX: usize = 10_000;

pub(super) fn handle(call: &Call<'_>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let shared = &call.peer.shared;
    let mut state = shared.lock();
    let names: Vec<String> = request.topics.iter().map(|topic| topic.name.to_string()).collect();
    let twice = |name: &str| names.iter().filter(|known| *known == name).count() > 1;
    let default = state.options.partitions;
    let records: usize = request.topics.iter().map(|topic| records(topic, default)).sum();
    let topics = request.topics.iter().map(|topic| {
        let answer = CreatableTopicResult::default().with_name(topic.name.clone());
        let made = match twice(&topic.name) {
            true => Err((ErrorCode::INVALID_REQUEST, "duplicate topic name".to_owned())),
            false if records > RECORDS_MAX => Err((
                ErrorCode::POLICY_VIOLATION,
                "Unable to perform excessively large batch operation.".to_owned(),
            )),
            false => create(&mut state, call, topic, request.validate_only),
        };
        match made {
            Ok(described) if call.version >= 5 => described.with_name(answer.name),
            Ok(described) => answer.with_topic_id(described.topic_id),
            Err((code, message)) => {
                answer.with_error_code(code.0).with_error_message(Some(text(message)))
            }
        }
    });
    let topics = topics.collect();
    drop(state);
    shared.changed();
    CreateTopicsResponse::default().with_topics(topics)
}

/// One for the topic, each partition and each setting.
fn records(topic: &CreatableTopic, default: i32) -> usize {
    let count = match topic.num_partitions {
        _ if !topic.assignments.is_empty() => topic.assignments.len(),
        -1 => usize::try_from(default).unwrap_or(0),
        count => usize::try_from(count).unwrap_or(0),
    };
    1 + count + topic.configs.len()
}

fn create(
    state: &mut State,
    call: &Call<'_>,
    asked: &CreatableTopic,
    only_check: bool,
) -> Result<CreatableTopicResult, (ErrorCode, String)> {
    let name = asked.name.as_str();
    let fault = state.faults.of_partition(call.api, call.peer.broker, name, -1);
    if let Some(Fault::Refuse(code) | Fault::AnswerWith(code)) = fault {
        return Err((code, code.name().into()));
    }
    let mut overrides = BTreeMap::new();
    for config in &asked.configs {
        let value = config.value.as_deref().unwrap_or_default();
        topic::check_setting(&config.name, value)
            .map_err(|message| (ErrorCode::INVALID_CONFIG, message))?;
        overrides.insert(config.name.to_string(), value.to_owned());
    }
    let (mut count, mut factor) = (asked.num_partitions, asked.replication_factor);
    if !asked.assignments.is_empty() {
        if count != -1 || factor != -1 {
            let message = "partitions and an assignment were both given";
            return Err((ErrorCode::INVALID_REQUEST, message.into()));
        }
        let replicas = asked.assignments.iter().map(|a| a.broker_ids.len()).max().unwrap_or(0);
        count = i32::try_from(asked.assignments.len()).unwrap_or(i32::MAX);
        factor = i16::try_from(replicas).unwrap_or(i16::MAX);
    }
    if only_check {
        let known = state.topics.contains_key(name);
        return match known || !topic::is_legal_name(name) {
            true if known => Err((ErrorCode::TOPIC_ALREADY_EXISTS, "exists".into())),
            true => Err((ErrorCode::INVALID_TOPIC_EXCEPTION, "not a legal name".into())),
            false => Ok(CreatableTopicResult::default()),
        };
    }
    let env = &call.peer.shared.env;
    state
        .create_topic(env, name, count, factor, overrides)
        .map_err(|code| (code, format!("Topic '{name}': {}", code.name())))?;
    for (index, assignment) in asked.assignments.iter().enumerate() {
        let replicas: Vec<i32> = assignment.broker_ids.iter().map(|id| id.0).collect();
        place(state, name, index, replicas);
    }
    let Some(topic) = state.topics.get(name) else { return Ok(CreatableTopicResult::default()) };
    Ok(describe(state, topic))
}

/// Puts a new partition where the request wants it.
fn place(state: &mut State, name: &str, index: usize, replicas: Vec<i32>) {
    let known = replicas.iter().all(|id| state.live().contains(id));
    let Some(partition) = state.topics.get_mut(name).and_then(|t| t.partitions.get_mut(index))
    else {
        return;
    };
    if let (true, Some(first)) = (known, replicas.first()) {
        partition.leader = *first;
        partition.isr.clone_from(&replicas);
        partition.replicas = replicas;
    }
}

fn describe(state: &State, topic: &Topic) -> CreatableTopicResult {
    let (defaults, generation) = (&state.options.topic_defaults, state.options.generation);
    let configs = topic::SETTINGS.iter().map(|setting| {
        let own = topic.overrides.contains_key(setting.name);
        let value = topic::effective(setting, &topic.overrides, defaults, generation);
        CreatableTopicConfigs::default()
            .with_name(text(setting.name))
            .with_value(Some(text(value)))
            .with_config_source(if own { 1 } else { 5 })
    });
    CreatableTopicResult::default()
        .with_topic_id(topic.id)
        .with_num_partitions(i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX))
        .with_replication_factor(i16::try_from(topic.replication_factor).unwrap_or(i16::MAX))
        .with_configs(Some(configs.collect()))
}
