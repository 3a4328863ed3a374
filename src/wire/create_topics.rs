//! CreateTopics (key 19), v5-7.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::create_topics_request as kafka_request;
use uuid::Uuid;

use super::write::{text, topic_name, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Makes topics.
#[derive(Clone, Debug)]
pub struct CreateTopicsRequest {
    /// Which.
    pub topics: Vec<NewTopic>,
    /// How long the broker waits until they are there.
    pub timeout_ms: i32,
    /// Only says whether it would work.
    pub validate_only: bool,
}

/// A topic to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many; -1 for the broker's default.
    pub partitions: i32,
    /// How many copies; -1 for the broker's default.
    pub replication_factor: i16,
    /// What differs from the broker's defaults.
    pub configs: Vec<(String, String)>,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct CreateTopicsResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// One for each topic.
    pub topics: Vec<CreatedTopic>,
}

/// What became of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its name.
    pub name: String,
    /// Its id; nil before v7 and with an error.
    pub id: Uuid,
    /// TOPIC_ALREADY_EXISTS above all.
    pub error: ErrorCode,
    /// The broker's words.
    pub error_message: Option<String>,
    /// How many it has; -1 with an error.
    pub partitions: i32,
    /// How many copies; -1 with an error.
    pub replication_factor: i16,
}

impl Request for CreateTopicsRequest {
    const API: ApiKey = ApiKey::CreateTopics;
    const VERSIONS: RangeInclusive<i16> = 5..=7;
    type Response = CreateTopicsResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let config = |(name, value): &(String, String)| {
            kafka_request::CreatableTopicConfig::default()
                .with_name(text(name))
                .with_value(Some(text(value)))
        };
        let topics = self.topics.iter().map(|topic| {
            kafka_request::CreatableTopic::default()
                .with_name(topic_name(&topic.name))
                .with_num_partitions(topic.partitions)
                .with_replication_factor(topic.replication_factor)
                .with_configs(topic.configs.iter().map(config).collect())
        });
        let message = kafka::CreateTopicsRequest::default()
            .with_topics(topics.collect())
            .with_timeout_ms(self.timeout_ms)
            .with_validate_only(self.validate_only);
        write(&message, version, out, "create topics request")
    }

    fn decode(version: i16, body: &Bytes) -> Result<CreateTopicsResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let topics =
            reader.array(12, "created topics", |reader| CreatedTopic::read(reader, version))?;
        reader.skip_tags("create topics response")?;
        reader.finish("create topics response")?;
        Ok(CreateTopicsResponse { throttle_time_ms, topics })
    }
}

impl CreatedTopic {
    fn read(reader: &mut Reader<'_>, version: i16) -> Result<Self, WireError> {
        let topic = Self {
            name: reader.owned("topic name")?,
            id: if version >= 7 { reader.uuid("topic id")? } else { Uuid::nil() },
            error: reader.error_code("topic error")?,
            error_message: reader.nullable_owned("topic error message")?,
            partitions: reader.i32("partition count")?,
            replication_factor: reader.i16("replication factor")?,
        };
        reader.array(6, "topic configs", |reader| {
            reader.string("config name")?;
            reader.nullable_string("config value")?;
            reader.take(3, "config flags")?; // read only, source, sensitive
            reader.skip_tags("config")
        })?;
        reader.skip_tags("created topic")?;
        Ok(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;
    use kafka_protocol::messages::create_topics_response as kafka_response;

    #[test]
    fn request() {
        let topic = NewTopic {
            name: "t".to_owned(),
            partitions: 8,
            replication_factor: -1,
            configs: vec![("cleanup.policy".to_owned(), "compact".to_owned())],
        };
        let request =
            CreateTopicsRequest { topics: vec![topic], timeout_ms: 900, validate_only: true };
        for version in CreateTopicsRequest::VERSIONS {
            let read: kafka::CreateTopicsRequest = written(&request, version);
            assert_eq!((read.timeout_ms, read.validate_only), (900, true));
            let topic = &read.topics[0];
            assert_eq!(topic.name, topic_name("t"));
            assert_eq!((topic.num_partitions, topic.replication_factor), (8, -1));
            assert!(topic.assignments.is_empty());
            assert_eq!(&*topic.configs[0].name, "cleanup.policy");
            assert_eq!(topic.configs[0].value.as_deref(), Some("compact"));
        }
    }

    #[test]
    fn reads_every_field_in_every_version() {
        for version in CreateTopicsRequest::VERSIONS {
            let config = kafka_response::CreatableTopicConfigs::default()
                .with_name(text("cleanup.policy"))
                .with_value(Some(text("delete")));
            let mut topic = kafka_response::CreatableTopicResult::default()
                .with_name(topic_name("t"))
                .with_error_code(36)
                .with_error_message(Some(text("there")))
                .with_topic_config_error_code(29)
                .with_num_partitions(8)
                .with_replication_factor(3)
                .with_configs(Some(vec![config]));
            if version >= 7 {
                topic = topic.with_topic_id(Uuid::from_u128(5));
            }
            let without = kafka_response::CreatableTopicResult::default().with_configs(None);
            let message = kafka::CreateTopicsResponse::default()
                .with_throttle_time_ms(6)
                .with_topics(vec![topic, without]);
            let read =
                survives_cuts::<CreateTopicsRequest>(version, &crate_bytes(&message, version));
            assert_eq!(read.throttle_time_ms, 6);
            let topic = CreatedTopic {
                name: "t".to_owned(),
                id: Uuid::from_u128(if version >= 7 { 5 } else { 0 }),
                error: ErrorCode::TOPIC_ALREADY_EXISTS,
                error_message: Some("there".to_owned()),
                partitions: 8,
                replication_factor: 3,
            };
            assert_eq!(read.topics[0], topic);
            assert_eq!(read.topics.len(), 2);
        }
    }
}
