//! Metadata (key 3), v10-13: brokers, topics with their ids, and who leads each partition. Never creates a topic.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::metadata_request as kafka_request;
use uuid::Uuid;

use super::write::{topic_name, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Asks about topics.
#[derive(Clone, Debug, Default)]
pub struct MetadataRequest {
    /// By name; None for all topics, an empty list for the brokers alone.
    pub topics: Option<Vec<String>>,
}

/// The cluster as one broker sees it.
#[derive(Clone, Debug)]
pub struct MetadataResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// Those alive.
    pub brokers: Vec<MetadataBroker>,
    /// Tells clusters apart.
    pub cluster_id: Option<String>,
    /// Any broker in KRaft, -1 unknown.
    pub controller_id: i32,
    /// What was asked for, errors included.
    pub topics: Vec<MetadataTopic>,
    /// For the whole request; REBOOTSTRAP_REQUIRED (KIP-1102). Since v13.
    pub error: ErrorCode,
}

/// A broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataBroker {
    /// Its id.
    pub id: i32,
    /// Its advertised host: the peer's word, not to be dialled unchecked.
    pub host: String,
    /// Its advertised port.
    pub port: i32,
    /// Its rack.
    pub rack: Option<String>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataTopic {
    /// Such as UNKNOWN_TOPIC_OR_PARTITION.
    pub error: ErrorCode,
    /// Its name; a broker leaves it empty only where it was asked by id.
    pub name: String,
    /// Its id; nil with an error.
    pub id: Uuid,
    /// Kafka's own, such as `__consumer_offsets`.
    pub internal: bool,
    /// In any order.
    pub partitions: Vec<MetadataPartition>,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataPartition {
    /// LEADER_NOT_AVAILABLE, LISTENER_NOT_FOUND.
    pub error: ErrorCode,
    /// The partition.
    pub index: i32,
    /// Its leader; -1 for none.
    pub leader: i32,
    /// The leader's epoch.
    pub leader_epoch: i32,
    /// Brokers that hold it.
    pub replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub in_sync: Vec<i32>,
}

impl Request for MetadataRequest {
    const API: ApiKey = ApiKey::Metadata;
    const VERSIONS: RangeInclusive<i16> = 10..=13;
    type Response = MetadataResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let by_name = |name: &String| {
            kafka_request::MetadataRequestTopic::default().with_name(Some(topic_name(name)))
        };
        let topics = self.topics.as_ref().map(|names| names.iter().map(by_name).collect());
        let message = kafka::MetadataRequest::default()
            .with_topics(topics)
            .with_allow_auto_topic_creation(false);
        write(&message, version, out, "metadata request")
    }

    fn decode(version: i16, body: &Bytes) -> Result<MetadataResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let brokers = reader.array(11, "brokers", MetadataBroker::read)?;
        let cluster_id = reader.nullable_owned("cluster id")?;
        let controller_id = reader.i32("controller id")?;
        let topics = reader.array(26, "topics", MetadataTopic::read)?;
        if version == 10 {
            reader.i32("cluster authorized operations")?;
        }
        let error = match version {
            13.. => reader.error_code("metadata error")?,
            _ => ErrorCode::NONE,
        };
        reader.skip_tags("metadata response")?;
        reader.finish("metadata response")?;
        Ok(MetadataResponse { throttle_time_ms, brokers, cluster_id, controller_id, topics, error })
    }
}

impl MetadataBroker {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let broker = Self {
            id: reader.i32("broker id")?,
            host: reader.owned("broker host")?,
            port: reader.i32("broker port")?,
            rack: reader.nullable_owned("broker rack")?,
        };
        reader.skip_tags("broker")?;
        Ok(broker)
    }
}

impl MetadataTopic {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let topic = Self {
            error: reader.error_code("topic error")?,
            name: reader.nullable_owned("topic name")?.unwrap_or_default(),
            id: reader.uuid("topic id")?,
            internal: reader.bool("topic is internal")?,
            partitions: reader.array(18, "partitions", MetadataPartition::read)?,
        };
        reader.i32("topic authorized operations")?;
        reader.skip_tags("topic")?;
        Ok(topic)
    }
}

impl MetadataPartition {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let partition = Self {
            error: reader.error_code("partition error")?,
            index: reader.i32("partition index")?,
            leader: reader.i32("leader")?,
            leader_epoch: reader.i32("leader epoch")?,
            replicas: reader.array(4, "replicas", |reader| reader.i32("replica"))?,
            in_sync: reader.array(4, "in-sync replicas", |reader| reader.i32("replica"))?,
        };
        reader.array(4, "offline replicas", |reader| reader.i32("replica"))?;
        reader.skip_tags("partition")?;
        Ok(partition)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::super::write::text;
    use super::*;
    use kafka::BrokerId;
    use kafka_protocol::messages::metadata_response as kafka_response;

    #[test]
    fn requests() {
        for version in MetadataRequest::VERSIONS {
            let all: kafka::MetadataRequest = written(&MetadataRequest::default(), version);
            assert_eq!(all.topics, None);
            assert!(!all.allow_auto_topic_creation);
            let names = vec!["a".to_owned(), "b".to_owned()];
            let some: kafka::MetadataRequest =
                written(&MetadataRequest { topics: Some(names) }, version);
            let topics = some.topics.unwrap();
            assert_eq!(topics[1].name, Some(topic_name("b")));
            assert_eq!(topics.len(), 2);
            let none: kafka::MetadataRequest =
                written(&MetadataRequest { topics: Some(vec![]) }, version);
            assert_eq!(none.topics, Some(vec![]));
        }
    }

    #[test]
    fn reads_every_field_in_every_version() {
        for version in MetadataRequest::VERSIONS {
            let broker = kafka_response::MetadataResponseBroker::default()
                .with_node_id(BrokerId(1))
                .with_host(text("b1"))
                .with_port(9092)
                .with_rack(Some(text("r")));
            let partition = kafka_response::MetadataResponsePartition::default()
                .with_error_code(5)
                .with_partition_index(7)
                .with_leader_id(BrokerId(-1))
                .with_leader_epoch(33)
                .with_replica_nodes(vec![BrokerId(1), BrokerId(2)])
                .with_isr_nodes(vec![BrokerId(2)])
                .with_offline_replicas(vec![BrokerId(1)]);
            let topic = kafka_response::MetadataResponseTopic::default()
                .with_name(Some(topic_name("__t")))
                .with_topic_id(Uuid::from_u128(8))
                .with_is_internal(true)
                .with_partitions(vec![partition]);
            let mut topics = vec![topic];
            if version >= 12 {
                let unknown = kafka_response::MetadataResponseTopic::default();
                topics.push(unknown.with_error_code(100).with_name(None));
            }
            let mut message = kafka::MetadataResponse::default()
                .with_throttle_time_ms(4)
                .with_brokers(vec![broker])
                .with_cluster_id(Some(text("east")))
                .with_controller_id(BrokerId(3))
                .with_topics(topics);
            if version >= 13 {
                message = message.with_error_code(129);
            }
            let read = survives_cuts::<MetadataRequest>(version, &crate_bytes(&message, version));
            assert_eq!(read.throttle_time_ms, 4);
            let broker = MetadataBroker {
                id: 1,
                host: "b1".to_owned(),
                port: 9092,
                rack: Some("r".to_owned()),
            };
            assert_eq!(read.brokers, [broker]);
            assert_eq!(read.cluster_id.as_deref(), Some("east"));
            assert_eq!(read.controller_id, 3);
            let partition = MetadataPartition {
                error: ErrorCode::LEADER_NOT_AVAILABLE,
                index: 7,
                leader: -1,
                leader_epoch: 33,
                replicas: vec![1, 2],
                in_sync: vec![2],
            };
            let topic = MetadataTopic {
                error: ErrorCode::NONE,
                name: "__t".to_owned(),
                id: Uuid::from_u128(8),
                internal: true,
                partitions: vec![partition],
            };
            assert_eq!(read.topics[0], topic);
            if version >= 12 {
                assert_eq!(read.topics[1].error, ErrorCode::UNKNOWN_TOPIC_ID);
            }
            assert_eq!(read.error.0, if version >= 13 { 129 } else { 0 });
        }
    }
}
