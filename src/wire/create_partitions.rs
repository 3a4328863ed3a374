//! CreatePartitions (key 37), v2-3: a topic grows.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::create_partitions_request as kafka_request;

use super::write::{topic_name, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Grows topics.
#[derive(Clone, Debug)]
pub struct CreatePartitionsRequest {
    /// Each with the count that it shall have, old ones included.
    pub topics: Vec<(String, i32)>,
    /// How long the broker waits until they are there.
    pub timeout_ms: i32,
    /// Only says whether it would work.
    pub validate_only: bool,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct CreatePartitionsResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// One for each topic.
    pub topics: Vec<GrownTopic>,
}

/// What became of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrownTopic {
    /// Its name.
    pub name: String,
    /// INVALID_PARTITIONS where it has as many already.
    pub error: ErrorCode,
    /// The broker's words.
    pub error_message: Option<String>,
}

impl Request for CreatePartitionsRequest {
    const API: ApiKey = ApiKey::CreatePartitions;
    const VERSIONS: RangeInclusive<i16> = 2..=3;
    type Response = CreatePartitionsResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let topics = self.topics.iter().map(|(name, count)| {
            kafka_request::CreatePartitionsTopic::default()
                .with_name(topic_name(name))
                .with_count(*count)
                .with_assignments(None)
        });
        let message = kafka::CreatePartitionsRequest::default()
            .with_topics(topics.collect())
            .with_timeout_ms(self.timeout_ms)
            .with_validate_only(self.validate_only);
        write(&message, version, out, "create partitions request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<CreatePartitionsResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let topics = reader.array(5, "grown topics", |reader| {
            let topic = GrownTopic {
                name: reader.owned("topic name")?,
                error: reader.error_code("topic error")?,
                error_message: reader.nullable_owned("topic error message")?,
            };
            reader.skip_tags("grown topic")?;
            Ok(topic)
        })?;
        reader.skip_tags("create partitions response")?;
        reader.finish("create partitions response")?;
        Ok(CreatePartitionsResponse { throttle_time_ms, topics })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::super::write::text;
    use super::*;
    use kafka_protocol::messages::create_partitions_response as kafka_response;

    #[test]
    fn request() {
        let request = CreatePartitionsRequest {
            topics: vec![("t".to_owned(), 12)],
            timeout_ms: 900,
            validate_only: true,
        };
        for version in CreatePartitionsRequest::VERSIONS {
            let read: kafka::CreatePartitionsRequest = written(&request, version);
            assert_eq!((read.timeout_ms, read.validate_only), (900, true));
            assert_eq!((&read.topics[0].name, read.topics[0].count), (&topic_name("t"), 12));
            assert_eq!(read.topics[0].assignments, None);
        }
    }

    #[test]
    fn reads_every_field_in_every_version() {
        for version in CreatePartitionsRequest::VERSIONS {
            let result = kafka_response::CreatePartitionsTopicResult::default()
                .with_name(topic_name("t"))
                .with_error_code(37)
                .with_error_message(Some(text("has 12")));
            let message = kafka::CreatePartitionsResponse::default()
                .with_throttle_time_ms(6)
                .with_results(vec![result]);
            let body = crate_bytes(&message, version);
            let read = survives_cuts::<CreatePartitionsRequest>(version, &body);
            assert_eq!(read.throttle_time_ms, 6);
            let topic = GrownTopic {
                name: "t".to_owned(),
                error: ErrorCode::INVALID_PARTITIONS,
                error_message: Some("has 12".to_owned()),
            };
            assert_eq!(read.topics, [topic]);
        }
    }
}
