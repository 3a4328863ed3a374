//! DeleteTopics (key 20), by name or, from version 6, by id.

use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use kafka_protocol::messages::delete_topics_response::{
    DeletableTopicResult, DeleteTopicsResponse,
};

use super::super::connection::Call;
use super::text;
use crate::wire::error_code::ErrorCode;

pub(super) fn handle(call: &Call<'_>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let shared = &call.peer.shared;
    let mut state = shared.lock();
    let mut responses = Vec::new();
    for name in request.topic_names {
        let code = match state.delete_topic(&name) {
            true => ErrorCode::NONE,
            false => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        };
        let answer = DeletableTopicResult::default().with_name(Some(name));
        responses.push(answer.with_error_code(code.0));
    }
    for topic in request.topics {
        let by_id = topic.name.is_none();
        let name = match &topic.name {
            Some(name) => Some(name.to_string()),
            None => state.names.get(&topic.topic_id).cloned(),
        };
        let id = name.as_ref().and_then(|name| state.topics.get(name)).map(|topic| topic.id);
        let deleted = name.as_ref().is_some_and(|name| state.delete_topic(name));
        let code = match (deleted, by_id) {
            (true, _) => ErrorCode::NONE,
            (false, true) => ErrorCode::UNKNOWN_TOPIC_ID,
            (false, false) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        };
        responses.push(
            DeletableTopicResult::default()
                .with_name(name.map(|name| TopicName(text(name))))
                .with_topic_id(id.unwrap_or(topic.topic_id))
                .with_error_code(code.0),
        );
    }
    drop(state);
    shared.changed();
    DeleteTopicsResponse::default().with_responses(responses)
}
