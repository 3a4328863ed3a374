//! DescribeConfigs (key 32), of topics and brokers.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_configs_request::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult,
    DescribeConfigsSynonym,
};

use super::super::connection::Call;
use super::super::faults::Fault;
use super::super::state::State;
use super::super::topic::{self, Kind};
use super::text;
use crate::wire::error_code::ErrorCode;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Where a value comes from (`DescribeConfigsResponse.ConfigSource`).
const SOURCE_TOPIC: i8 = 1;
const SOURCE_BROKER: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;

struct Config {
    name: String,
    value: String,
    source: i8,
    kind: Kind,
    read_only: bool,
}

pub(super) fn handle(call: &Call<'_>, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let mut state = call.peer.shared.lock();
    let results = request.resources.into_iter().map(|resource| {
        let answer = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match configs(&mut state, call, &resource) {
            Ok(configs) => answer.with_configs(
                configs
                    .into_iter()
                    .filter(|config| wanted(&resource, &config.name))
                    .map(|config| of_config(call, config, request.include_synonyms))
                    .collect(),
            ),
            Err(code) => answer.with_error_code(code.0).with_error_message(Some(text(code.name()))),
        }
    });
    let results = results.collect();
    DescribeConfigsResponse::default().with_results(results)
}

fn wanted(resource: &DescribeConfigsResource, name: &str) -> bool {
    let keys = resource.configuration_keys.as_ref();
    keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == name))
}

fn configs(
    state: &mut State,
    call: &Call<'_>,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Config>, ErrorCode> {
    let name = resource.resource_name.as_str();
    let fault = state.faults.of_partition(call.api, call.peer.broker, name, -1);
    if let Some(Fault::Refuse(code) | Fault::AnswerWith(code)) = fault {
        return Err(code);
    }
    match resource.resource_type {
        TOPIC => of_topic(state, &resource.resource_name),
        BROKER if resource.resource_name.is_empty() => Ok(Vec::new()),
        BROKER if resource.resource_name.parse() == Ok(call.peer.broker) => Ok(of_broker(state)),
        _ => Err(ErrorCode::INVALID_REQUEST),
    }
}

fn of_topic(state: &State, name: &str) -> Result<Vec<Config>, ErrorCode> {
    let topic = state.topics.get(name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    let (defaults, generation) = (&state.options.topic_defaults, state.options.generation);
    let configs = topic::SETTINGS.iter().map(|setting| {
        let of_broker = defaults.iter().any(|(name, _)| name == setting.name);
        let source = match topic.overrides.contains_key(setting.name) {
            true => SOURCE_TOPIC,
            false if of_broker => SOURCE_BROKER,
            false => SOURCE_DEFAULT,
        };
        let value = topic::effective(setting, &topic.overrides, defaults, generation);
        Config {
            name: setting.name.into(),
            value: value.into(),
            source,
            kind: setting.kind,
            read_only: false,
        }
    });
    Ok(configs.collect())
}

/// The settings that a client may want to know.
fn of_broker(state: &State) -> Vec<Config> {
    let options = &state.options;
    let config = |name: &str, value: String, kind| Config {
        name: name.into(),
        value,
        source: SOURCE_BROKER,
        kind,
        read_only: true,
    };
    let none = BTreeMap::new();
    let topic = |name| {
        let setting = topic::SETTINGS.iter().find(|setting| setting.name == name);
        let (defaults, generation) = (&options.topic_defaults, options.generation);
        setting
            .map(|setting| topic::effective(setting, &none, defaults, generation).to_owned())
            .unwrap_or_default()
    };
    vec![
        config("auto.create.topics.enable", options.auto_create_topics.to_string(), Kind::Boolean),
        config("default.replication.factor", options.replication_factor.to_string(), Kind::Int),
        config("log.cleanup.policy", topic("cleanup.policy"), Kind::List),
        config("log.message.timestamp.type", topic("message.timestamp.type"), Kind::Text),
        config("message.max.bytes", topic("max.message.bytes"), Kind::Int),
        config("min.insync.replicas", topic("min.insync.replicas"), Kind::Int),
        config("num.partitions", options.partitions.to_string(), Kind::Int),
        config("offset.metadata.max.bytes", "4096".into(), Kind::Int),
        config(
            "producer.id.expiration.ms",
            options.producer_expiry.as_millis().to_string(),
            Kind::Int,
        ),
        config("socket.receive.buffer.bytes", options.socket_buffer_bytes.to_string(), Kind::Int),
        config("socket.send.buffer.bytes", options.socket_buffer_bytes.to_string(), Kind::Int),
        config("transaction.max.timeout.ms", "900000".into(), Kind::Int),
    ]
}

fn of_config(call: &Call<'_>, config: Config, synonyms: bool) -> DescribeConfigsResourceResult {
    let own = DescribeConfigsSynonym::default()
        .with_name(text(config.name.clone()))
        .with_value(Some(text(config.value.clone())))
        .with_source(config.source);
    let answer = DescribeConfigsResourceResult::default()
        .with_name(text(config.name))
        .with_value(Some(text(config.value)))
        .with_read_only(config.read_only)
        .with_config_source(config.source)
        .with_synonyms(if synonyms { vec![own] } else { Vec::new() });
    match call.version >= 3 {
        true => answer.with_config_type(config.kind as i8),
        false => answer,
    }
}
