//! DescribeCluster (key 60), v0-2: the cluster's id and brokers, without topics.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;

use super::metadata::MetadataBroker;
use super::write::write;
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Asks about the brokers.
#[derive(Clone, Copy, Debug, Default)]
pub struct DescribeClusterRequest;

/// The answer.
#[derive(Clone, Debug)]
pub struct DescribeClusterResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// For the whole request.
    pub error: ErrorCode,
    /// The broker's words.
    pub error_message: Option<String>,
    /// Tells clusters apart.
    pub cluster_id: String,
    /// Any broker in KRaft, -1 unknown.
    pub controller_id: i32,
    /// Those alive.
    pub brokers: Vec<MetadataBroker>,
}

impl Request for DescribeClusterRequest {
    const API: ApiKey = ApiKey::DescribeCluster;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    type Response = DescribeClusterResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        write(&kafka::DescribeClusterRequest::default(), version, out, "describe cluster request")
    }

    fn decode(version: i16, body: &Bytes) -> Result<DescribeClusterResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let error = reader.error_code("cluster error")?;
        let error_message = reader.nullable_owned("cluster error message")?;
        if version >= 1 {
            reader.i8("endpoint type")?;
        }
        let cluster_id = reader.owned("cluster id")?;
        let controller_id = reader.i32("controller id")?;
        let brokers = reader.array(11, "brokers", |reader| {
            let broker = MetadataBroker {
                id: reader.i32("broker id")?,
                host: reader.owned("broker host")?,
                port: reader.i32("broker port")?,
                rack: reader.nullable_owned("broker rack")?,
            };
            if version >= 2 {
                reader.bool("broker is fenced")?;
            }
            reader.skip_tags("broker")?;
            Ok(broker)
        })?;
        reader.i32("cluster authorized operations")?;
        reader.skip_tags("describe cluster response")?;
        reader.finish("describe cluster response")?;
        Ok(DescribeClusterResponse {
            throttle_time_ms,
            error,
            error_message,
            cluster_id,
            controller_id,
            brokers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::super::write::text;
    use super::*;
    use kafka_protocol::messages::describe_cluster_response as kafka_response;

    #[test]
    fn both_ways_in_every_version() {
        for version in DescribeClusterRequest::VERSIONS {
            let read: kafka::DescribeClusterRequest = written(&DescribeClusterRequest, version);
            assert_eq!(read.endpoint_type, 1, "brokers, not controllers");
            assert!(!read.include_fenced_brokers);

            let broker = kafka_response::DescribeClusterBroker::default()
                .with_broker_id(kafka::BrokerId(2))
                .with_host(text("b2"))
                .with_port(9093)
                .with_rack(Some(text("r")));
            let message = kafka::DescribeClusterResponse::default()
                .with_throttle_time_ms(6)
                .with_error_code(31)
                .with_error_message(Some(text("no")))
                .with_cluster_id(text("east"))
                .with_controller_id(kafka::BrokerId(1))
                .with_brokers(vec![broker]);
            let body = crate_bytes(&message, version);
            let read = survives_cuts::<DescribeClusterRequest>(version, &body);
            assert_eq!(read.throttle_time_ms, 6);
            assert_eq!(read.error, ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
            assert_eq!(read.error_message.as_deref(), Some("no"));
            assert_eq!((&*read.cluster_id, read.controller_id), ("east", 1));
            let (host, rack) = ("b2".to_owned(), Some("r".to_owned()));
            assert_eq!(read.brokers, [MetadataBroker { id: 2, host, port: 9093, rack }]);
        }
    }
}
