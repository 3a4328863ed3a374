//! IncrementalAlterConfigs (key 44), v1: changes some configs and leaves the others alone.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::incremental_alter_configs_request as kafka_request;

use super::describe_configs::ResourceKind;
use super::write::{text, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Kafka's `OpType`.
const SET: i8 = 0;
const DELETE: i8 = 1;

/// Changes configs of some resources, none twice.
#[derive(Clone, Debug)]
pub struct IncrementalAlterConfigsRequest {
    /// What changes.
    pub resources: Vec<ConfigChanges>,
    /// Only says whether it would work.
    pub validate_only: bool,
}

/// A resource to change.
#[derive(Clone, Debug)]
pub struct ConfigChanges {
    /// What it is.
    pub kind: ResourceKind,
    /// Its name.
    pub name: String,
    /// Each config with its new value, or None for the default.
    pub changes: Vec<(String, Option<String>)>,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct IncrementalAlterConfigsResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// One for each resource.
    pub resources: Vec<AlteredConfigs>,
}

/// What became of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlteredConfigs {
    /// For the resource: all of its changes or none.
    pub error: ErrorCode,
    /// The broker's words.
    pub error_message: Option<String>,
    /// A [`ResourceKind`] as a number.
    pub kind: i8,
    /// Its name.
    pub name: String,
}

impl Request for IncrementalAlterConfigsRequest {
    const API: ApiKey = ApiKey::IncrementalAlterConfigs;
    const VERSIONS: RangeInclusive<i16> = 1..=1;
    type Response = IncrementalAlterConfigsResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let change = |(name, value): &(String, Option<String>)| {
            kafka_request::AlterableConfig::default()
                .with_name(text(name))
                .with_config_operation(if value.is_some() { SET } else { DELETE })
                .with_value(value.as_deref().map(text))
        };
        let resources = self.resources.iter().map(|resource| {
            kafka_request::AlterConfigsResource::default()
                .with_resource_type(resource.kind as i8)
                .with_resource_name(text(&resource.name))
                .with_configs(resource.changes.iter().map(change).collect())
        });
        let message = kafka::IncrementalAlterConfigsRequest::default()
            .with_resources(resources.collect())
            .with_validate_only(self.validate_only);
        write(&message, version, out, "incremental alter configs request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<Self::Response, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let resources = reader.array(6, "altered resources", |reader| {
            let resource = AlteredConfigs {
                error: reader.error_code("resource error")?,
                error_message: reader.nullable_owned("resource error message")?,
                kind: reader.i8("resource type")?,
                name: reader.owned("resource name")?,
            };
            reader.skip_tags("altered resource")?;
            Ok(resource)
        })?;
        reader.skip_tags("incremental alter configs response")?;
        reader.finish("incremental alter configs response")?;
        Ok(IncrementalAlterConfigsResponse { throttle_time_ms, resources })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;
    use kafka_protocol::messages::incremental_alter_configs_response as kafka_response;

    #[test]
    fn request() {
        let changes = vec![
            ("retention.ms".to_owned(), Some("5".to_owned())),
            ("cleanup.policy".to_owned(), None),
        ];
        let resource = ConfigChanges { kind: ResourceKind::Topic, name: "t".to_owned(), changes };
        let request =
            IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: true };
        let read: kafka::IncrementalAlterConfigsRequest = written(&request, 1);
        assert!(read.validate_only);
        let resource = &read.resources[0];
        assert_eq!((resource.resource_type, &*resource.resource_name), (2, "t"));
        let changes: Vec<_> = resource
            .configs
            .iter()
            .map(|c| (&*c.name, c.config_operation, c.value.as_deref()))
            .collect();
        assert_eq!(changes, [("retention.ms", 0, Some("5")), ("cleanup.policy", 1, None)]);
    }

    #[test]
    fn reads_every_field() {
        let result = kafka_response::AlterConfigsResourceResponse::default()
            .with_error_code(40)
            .with_error_message(Some(text("bad")))
            .with_resource_type(2)
            .with_resource_name(text("t"));
        let message = kafka::IncrementalAlterConfigsResponse::default()
            .with_throttle_time_ms(6)
            .with_responses(vec![result]);
        let read = survives_cuts::<IncrementalAlterConfigsRequest>(1, &crate_bytes(&message, 1));
        assert_eq!(read.throttle_time_ms, 6);
        let resource = AlteredConfigs {
            error: ErrorCode::INVALID_CONFIG,
            error_message: Some("bad".to_owned()),
            kind: 2,
            name: "t".to_owned(),
        };
        assert_eq!(read.resources, [resource]);
    }
}
