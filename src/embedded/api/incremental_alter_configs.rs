//! IncrementalAlterConfigs (key 44), of topics.

use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, IncrementalAlterConfigsRequest,
};
use kafka_protocol::messages::incremental_alter_configs_response::{
    AlterConfigsResourceResponse, IncrementalAlterConfigsResponse,
};

use super::super::connection::Call;
use super::super::state::State;
use super::super::topic::{self, Kind};
use super::text;
use crate::wire::error_code::ErrorCode;

const TOPIC: i8 = 2;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(super) fn handle(
    call: &Call<'_>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let shared = &call.peer.shared;
    let mut state = shared.lock();
    let responses = request.resources.iter().map(|resource| {
        let answer = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match alter(&mut state, resource, request.validate_only) {
            Ok(()) => answer,
            Err((code, message)) => {
                answer.with_error_code(code.0).with_error_message(Some(text(message)))
            }
        }
    });
    let responses = responses.collect();
    drop(state);
    shared.changed();
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

fn alter(
    state: &mut State,
    resource: &AlterConfigsResource,
    only_check: bool,
) -> Result<(), (ErrorCode, String)> {
    let plain = |code: ErrorCode| (code, code.name().to_owned());
    if resource.resource_type != TOPIC {
        return Err(plain(ErrorCode::INVALID_REQUEST));
    }
    let State { topics, options, .. } = state;
    let topic = topics.get_mut(resource.resource_name.as_str());
    let topic = topic.ok_or_else(|| plain(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))?;
    let mut overrides = topic.overrides.clone();
    for config in &resource.configs {
        let (name, value) = (config.name.as_str(), config.value.as_deref().unwrap_or_default());
        let setting = topic::SETTINGS.iter().find(|setting| setting.name == name);
        let kind = setting.map(|setting| setting.kind);
        let now = setting.map_or("", |setting| {
            topic::effective(setting, &overrides, &options.topic_defaults, options.generation)
        });
        let value = match config.config_operation {
            SET => value.to_owned(),
            DELETE => {
                overrides.remove(name);
                continue;
            }
            APPEND if kind == Some(Kind::List) => {
                let old = now.split(',').filter(|item| !item.is_empty() && *item != value);
                old.chain([value]).collect::<Vec<_>>().join(",")
            }
            SUBTRACT if kind == Some(Kind::List) => {
                now.split(',').filter(|item| *item != value).collect::<Vec<_>>().join(",")
            }
            _ => return Err(plain(ErrorCode::INVALID_CONFIG)),
        };
        topic::check_setting(name, &value)
            .map_err(|message| (ErrorCode::INVALID_CONFIG, message))?;
        overrides.insert(name.to_owned(), value);
    }
    if !only_check {
        topic.overrides = overrides;
        topic.reload(&options.topic_defaults, options.generation);
    }
    Ok(())
}
