//! DeleteTopics (key 20), v6.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::delete_topics_request as kafka_request;
use uuid::Uuid;

use super::write::{topic_name, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Deletes topics by name.
#[derive(Clone, Debug)]
pub struct DeleteTopicsRequest {
    /// Which.
    pub topics: Vec<String>,
    /// How long the broker waits until they are gone.
    pub timeout_ms: i32,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct DeleteTopicsResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// One for each topic.
    pub topics: Vec<DeletedTopic>,
}

/// What became of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: Uuid,
    /// Its error.
    pub error: ErrorCode,
    /// The broker's words.
    pub error_message: Option<String>,
}

impl Request for DeleteTopicsRequest {
    const API: ApiKey = ApiKey::DeleteTopics;
    const VERSIONS: RangeInclusive<i16> = 6..=6;
    type Response = DeleteTopicsResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let topics = self.topics.iter().map(|name| {
            kafka_request::DeleteTopicState::default().with_name(Some(topic_name(name)))
        });
        let message = kafka::DeleteTopicsRequest::default()
            .with_topics(topics.collect())
            .with_timeout_ms(self.timeout_ms);
        write(&message, version, out, "delete topics request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<DeleteTopicsResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let topics = reader.array(21, "deleted topics", |reader| {
            let topic = DeletedTopic {
                name: reader.nullable_owned("topic name")?.unwrap_or_default(),
                id: reader.uuid("topic id")?,
                error: reader.error_code("topic error")?,
                error_message: reader.nullable_owned("topic error message")?,
            };
            reader.skip_tags("deleted topic")?;
            Ok(topic)
        })?;
        reader.skip_tags("delete topics response")?;
        reader.finish("delete topics response")?;
        Ok(DeleteTopicsResponse { throttle_time_ms, topics })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::super::write::text;
    use super::*;
    use kafka_protocol::messages::delete_topics_response as kafka_response;

    #[test]
    fn request() {
        let request = DeleteTopicsRequest { topics: vec!["t".to_owned()], timeout_ms: 900 };
        let read: kafka::DeleteTopicsRequest = written(&request, 6);
        assert_eq!(read.timeout_ms, 900);
        assert_eq!(read.topics[0].name, Some(topic_name("t")));
    }

    #[test]
    fn reads_every_field() {
        let result = kafka_response::DeletableTopicResult::default()
            .with_name(Some(topic_name("t")))
            .with_topic_id(Uuid::from_u128(5))
            .with_error_code(73)
            .with_error_message(Some(text("no")));
        let message = kafka::DeleteTopicsResponse::default()
            .with_throttle_time_ms(6)
            .with_responses(vec![result]);
        let read = survives_cuts::<DeleteTopicsRequest>(6, &crate_bytes(&message, 6));
        assert_eq!(read.throttle_time_ms, 6);
        let topic = DeletedTopic {
            name: "t".to_owned(),
            id: Uuid::from_u128(5),
            error: ErrorCode::TOPIC_DELETION_DISABLED,
            error_message: Some("no".to_owned()),
        };
        assert_eq!(read.topics, [topic]);
    }
}
