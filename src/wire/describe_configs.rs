//! DescribeConfigs (key 32), v4: what a topic or broker is set to.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::describe_configs_request as kafka_request;

use super::write::{text, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// What has configs (Kafka's `ConfigResource.Type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ResourceKind {
    /// A topic, by name.
    Topic = 2,
    /// A broker, by id; an empty name for the cluster-wide default.
    Broker = 4,
}

/// Asks about some resources.
#[derive(Clone, Debug)]
pub struct DescribeConfigsRequest {
    /// Which.
    pub resources: Vec<ConfigsOf>,
}

/// A resource to describe.
#[derive(Clone, Debug)]
pub struct ConfigsOf {
    /// What it is.
    pub kind: ResourceKind,
    /// Its name.
    pub name: String,
    /// Which configs; None for all.
    pub keys: Option<Vec<String>>,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct DescribeConfigsResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// One for each resource.
    pub resources: Vec<DescribedConfigs>,
}

/// A resource's configs.
#[derive(Clone, Debug)]
pub struct DescribedConfigs {
    /// For the resource.
    pub error: ErrorCode,
    /// The broker's words.
    pub error_message: Option<String>,
    /// A [`ResourceKind`] as a number.
    pub kind: i8,
    /// Its name.
    pub name: String,
    /// Its configs.
    pub configs: Vec<DescribedConfig>,
}

/// A config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedConfig {
    /// Such as `cleanup.policy`.
    pub name: String,
    /// None where it is sensitive or unset.
    pub value: Option<String>,
    /// It cannot be changed.
    pub read_only: bool,
    /// Where the value comes from (Kafka's `ConfigSource`).
    pub source: i8,
    /// A password or the like.
    pub sensitive: bool,
}

impl DescribedConfig {
    /// Kafka's `DYNAMIC_TOPIC_CONFIG`.
    const SET_ON_TOPIC: i8 = 1;

    /// The topic itself was given this value: it is no default of the broker.
    pub fn is_set_on_topic(&self) -> bool {
        self.source == Self::SET_ON_TOPIC
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let config = Self {
            name: reader.owned("config name")?,
            value: reader.nullable_owned("config value")?,
            read_only: reader.bool("config is read only")?,
            source: reader.i8("config source")?,
            sensitive: reader.bool("config is sensitive")?,
        };
        reader.array(4, "config synonyms", |reader| {
            reader.string("synonym name")?;
            reader.nullable_string("synonym value")?;
            reader.i8("synonym source")?;
            reader.skip_tags("config synonym")
        })?;
        reader.i8("config type")?;
        reader.nullable_string("config documentation")?;
        reader.skip_tags("config")?;
        Ok(config)
    }
}

impl Request for DescribeConfigsRequest {
    const API: ApiKey = ApiKey::DescribeConfigs;
    const VERSIONS: RangeInclusive<i16> = 4..=4;
    type Response = DescribeConfigsResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let keys = |keys: &Vec<String>| keys.iter().map(|key| text(key)).collect();
        let resources = self.resources.iter().map(|resource| {
            kafka_request::DescribeConfigsResource::default()
                .with_resource_type(resource.kind as i8)
                .with_resource_name(text(&resource.name))
                .with_configuration_keys(resource.keys.as_ref().map(keys))
        });
        let message = kafka::DescribeConfigsRequest::default().with_resources(resources.collect());
        write(&message, version, out, "describe configs request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<DescribeConfigsResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let resources = reader.array(7, "described resources", |reader| {
            let resource = DescribedConfigs {
                error: reader.error_code("resource error")?,
                error_message: reader.nullable_owned("resource error message")?,
                kind: reader.i8("resource type")?,
                name: reader.owned("resource name")?,
                configs: reader.array(9, "configs", DescribedConfig::read)?,
            };
            reader.skip_tags("described resource")?;
            Ok(resource)
        })?;
        reader.skip_tags("describe configs response")?;
        reader.finish("describe configs response")?;
        Ok(DescribeConfigsResponse { throttle_time_ms, resources })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;
    use kafka_protocol::messages::describe_configs_response as kafka_response;

    #[test]
    fn request() {
        let all = ConfigsOf { kind: ResourceKind::Topic, name: "t".to_owned(), keys: None };
        let some = ConfigsOf {
            kind: ResourceKind::Broker,
            name: "1".to_owned(),
            keys: Some(vec!["message.max.bytes".to_owned()]),
        };
        let request = DescribeConfigsRequest { resources: vec![all, some] };
        let read: kafka::DescribeConfigsRequest = written(&request, 4);
        assert_eq!(read.resources[0].resource_type, 2);
        assert_eq!(&*read.resources[0].resource_name, "t");
        assert_eq!(read.resources[0].configuration_keys, None);
        assert_eq!(read.resources[1].resource_type, 4);
        let keys = read.resources[1].configuration_keys.clone().unwrap();
        assert_eq!(keys, [text("message.max.bytes")]);
        assert!(!read.include_synonyms && !read.include_documentation);
    }

    #[test]
    fn reads_every_field() {
        let synonym = kafka_response::DescribeConfigsSynonym::default()
            .with_name(text("log.cleanup.policy"))
            .with_source(5);
        let config = kafka_response::DescribeConfigsResourceResult::default()
            .with_name(text("cleanup.policy"))
            .with_value(Some(text("compact")))
            .with_read_only(true)
            .with_config_source(1)
            .with_synonyms(vec![synonym])
            .with_documentation(Some(text("words")));
        let secret = kafka_response::DescribeConfigsResourceResult::default()
            .with_value(None)
            .with_config_source(5)
            .with_is_sensitive(true);
        let result = kafka_response::DescribeConfigsResult::default()
            .with_error_code(29)
            .with_error_message(Some(text("no")))
            .with_resource_type(2)
            .with_resource_name(text("t"))
            .with_configs(vec![config, secret]);
        let message = kafka::DescribeConfigsResponse::default()
            .with_throttle_time_ms(6)
            .with_results(vec![result]);
        let read = survives_cuts::<DescribeConfigsRequest>(4, &crate_bytes(&message, 4));
        assert_eq!(read.throttle_time_ms, 6);
        let resource = &read.resources[0];
        assert_eq!(resource.error, ErrorCode::TOPIC_AUTHORIZATION_FAILED);
        assert_eq!(resource.error_message.as_deref(), Some("no"));
        assert_eq!((resource.kind, &*resource.name), (ResourceKind::Topic as i8, "t"));
        let config = DescribedConfig {
            name: "cleanup.policy".to_owned(),
            value: Some("compact".to_owned()),
            read_only: true,
            source: 1,
            sensitive: false,
        };
        assert_eq!(resource.configs[0], config);
        assert!(resource.configs[0].is_set_on_topic());
        assert!(!resource.configs[1].is_set_on_topic() && resource.configs[1].sensitive);
    }
}
