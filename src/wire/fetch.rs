//! Fetch (key 1), v12-17: the source's data path. v13 and later name topics by id, so that a topic that was deleted and made
//! again is never taken for the old one.
//!
//! The answer is flat, and each partition's records are a slice of the frame.

use std::ops::RangeInclusive;

use bytes::Bytes;

use super::common::{CurrentLeader, Isolation, NodeEndpoint, TopicKey, TopicRef};
use super::primitives::{put_len, put_string, put_uvarint};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// First version with topic ids instead of names.
pub const TOPIC_IDS_SINCE: i16 = 13;

/// One request, within a fetch session (KIP-227) or without.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// How long the broker may wait for `min_bytes`.
    pub max_wait_ms: i32,
    /// The broker waits for so much data.
    pub min_bytes: i32,
    /// The answer's size, which the first batch may exceed.
    pub max_bytes: i32,
    /// What is seen.
    pub isolation: Isolation,
    /// 0 while there is no session.
    pub session_id: i32,
    /// 0 opens a session, -1 goes without, else the next of the session.
    pub session_epoch: i32,
    /// In a session: only what is new or has moved.
    pub topics: Vec<FetchTopic>,
    /// Leaves the session: otherwise a partition that is left out is sent again and again.
    pub forgotten: Vec<ForgottenTopic>,
    /// Asks for a replica nearby (KIP-392); empty for the leader.
    pub rack: String,
}

/// A topic of a request.
#[derive(Clone, Debug)]
pub struct FetchTopic {
    /// Which.
    pub topic: TopicRef,
    /// What of it.
    pub partitions: Vec<FetchPartition>,
}

/// A partition of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    /// The partition.
    pub index: i32,
    /// The leader's epoch as the map has it, -1 unknown: an old leader then refuses (KIP-320).
    pub current_leader_epoch: i32,
    /// The first offset that is wanted.
    pub fetch_offset: i64,
    /// The leader epoch of the last batch that was taken, -1 unknown: a truncated log shows as `diverging`.
    pub last_fetched_epoch: i32,
    /// Bytes from this partition, which the first batch may exceed.
    pub max_bytes: i32,
}

/// Partitions that leave a session.
#[derive(Clone, Debug)]
pub struct ForgottenTopic {
    /// Which.
    pub topic: TopicRef,
    /// What of it.
    pub partitions: Vec<i32>,
}

/// The answer, flat.
#[derive(Clone, Debug)]
pub struct FetchResponse {
    /// How long the broker mutes the connection. An empty answer with it is not "caught up".
    pub throttle_time_ms: i32,
    /// For the whole request: session errors above all.
    pub error: ErrorCode,
    /// The session that was opened or continued; 0 without one.
    pub session_id: i32,
    /// The topics that partitions point to.
    pub topics: Vec<TopicKey>,
    /// All partitions of all topics, in the order of the answer.
    pub partitions: Vec<FetchedPartition>,
    /// Addresses of the leaders that partitions name.
    pub endpoints: Vec<NodeEndpoint>,
}

/// A partition of an answer.
#[derive(Clone, Debug)]
pub struct FetchedPartition {
    /// Index into [`FetchResponse::topics`].
    pub topic: usize,
    /// The partition.
    pub index: i32,
    /// Its error.
    pub error: ErrorCode,
    /// One past the last replicated offset; -1 with an error.
    pub high_watermark: i64,
    /// One past the last offset of which every transaction below has ended.
    pub last_stable_offset: i64,
    /// The first offset that still exists.
    pub log_start_offset: i64,
    /// The log was truncated: the largest epoch in common and where it ends.
    pub diverging: Option<EpochEnd>,
    /// The leader, where the broker asked is not.
    pub current_leader: Option<CurrentLeader>,
    /// Aborted transactions in the range, by `read_committed`.
    pub aborted: Vec<AbortedTransaction>,
    /// A replica nearer to the rack, else -1.
    pub preferred_read_replica: i32,
    /// Batches, the last of them maybe cut. See [`super::batch::Batches`].
    pub records: Bytes,
}

impl FetchedPartition {
    /// Where the log ends for such a reader.
    pub fn end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadCommitted => self.last_stable_offset,
            Isolation::ReadUncommitted => self.high_watermark,
        }
    }
}

/// Where a leader epoch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch.
    pub epoch: i32,
    /// One past its last offset.
    pub end_offset: i64,
}

/// A transaction whose data batches, from `first_offset` up to its abort marker, count for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Who wrote it.
    pub producer_id: i64,
    /// Where it began.
    pub first_offset: i64,
}

impl Request for FetchRequest {
    const API: ApiKey = ApiKey::Fetch;
    const VERSIONS: RangeInclusive<i16> = 12..=17;
    type Response = FetchResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let with_ids = version >= TOPIC_IDS_SINCE;
        if version < 15 {
            out.extend((-1i32).to_be_bytes()); // replica id: a consumer
        }
        for field in [self.max_wait_ms, self.min_bytes, self.max_bytes] {
            out.extend(field.to_be_bytes());
        }
        out.push(self.isolation as u8);
        out.extend(self.session_id.to_be_bytes());
        out.extend(self.session_epoch.to_be_bytes());
        put_len(out, self.topics.len(), "fetch topics")?;
        for topic in &self.topics {
            topic.topic.put(with_ids, out, "fetch topic")?;
            put_len(out, topic.partitions.len(), "fetch partitions")?;
            topic.partitions.iter().for_each(|partition| partition.put(out));
            put_uvarint(out, 0);
        }
        put_len(out, self.forgotten.len(), "forgotten topics")?;
        for topic in &self.forgotten {
            topic.topic.put(with_ids, out, "forgotten topic")?;
            put_len(out, topic.partitions.len(), "forgotten partitions")?;
            out.extend(topic.partitions.iter().flat_map(|index| index.to_be_bytes()));
            put_uvarint(out, 0);
        }
        put_string(out, &self.rack, "fetch rack")?;
        put_uvarint(out, 0);
        Ok(())
    }

    fn decode(version: i16, body: &Bytes) -> Result<FetchResponse, WireError> {
        let with_ids = version >= TOPIC_IDS_SINCE;
        let mut reader = Reader::new(body);
        let mut response = FetchResponse {
            throttle_time_ms: reader.i32("throttle time")?,
            error: reader.error_code("fetch error")?,
            session_id: reader.i32("session id")?,
            topics: Vec::new(),
            partitions: Vec::new(),
            endpoints: Vec::new(),
        };
        let topics = reader.array_len(3, "fetched topics")?;
        reader.reserve(&mut response.topics, topics, "fetched topics")?;
        for topic in 0..topics {
            response.topics.push(TopicKey::read(&mut reader, with_ids, "fetched topic")?);
            let partitions = reader.array_len(FetchedPartition::BYTES_MIN, "fetched partitions")?;
            reader.reserve(&mut response.partitions, partitions, "fetched partitions")?;
            for _ in 0..partitions {
                response.partitions.push(FetchedPartition::read(&mut reader, topic)?);
            }
            reader.skip_tags("fetched topic")?;
        }
        reader.tags("fetch response", |tag, field| {
            if tag == 0 && version >= 16 {
                response.endpoints = NodeEndpoint::read_all(field)?;
            }
            Ok(())
        })?;
        reader.finish("fetch response")?;
        Ok(response)
    }
}

impl FetchPartition {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.index.to_be_bytes());
        out.extend(self.current_leader_epoch.to_be_bytes());
        out.extend(self.fetch_offset.to_be_bytes());
        out.extend(self.last_fetched_epoch.to_be_bytes());
        out.extend((-1i64).to_be_bytes()); // log start offset: followers only
        out.extend(self.max_bytes.to_be_bytes());
        put_uvarint(out, 0);
    }
}

impl FetchedPartition {
    /// Everything empty: what an array's count is checked against.
    const BYTES_MIN: usize = 4 + 2 + 8 + 8 + 8 + 1 + 4 + 1 + 1;

    fn read(reader: &mut Reader<'_>, topic: usize) -> Result<Self, WireError> {
        let mut partition = Self {
            topic,
            index: reader.i32("partition index")?,
            error: reader.error_code("partition error")?,
            high_watermark: reader.i64("high watermark")?,
            last_stable_offset: reader.i64("last stable offset")?,
            log_start_offset: reader.i64("log start offset")?,
            diverging: None,
            current_leader: None,
            aborted: reader.array(17, "aborted transactions", |reader| {
                let producer_id = reader.i64("aborted producer id")?;
                let first_offset = reader.i64("aborted first offset")?;
                reader.skip_tags("aborted transaction")?;
                Ok(AbortedTransaction { producer_id, first_offset })
            })?,
            preferred_read_replica: reader.i32("preferred read replica")?,
            records: reader.nullable_bytes("records")?.unwrap_or_default(),
        };
        reader.tags("fetched partition", |tag, field| {
            match tag {
                0 => {
                    let epoch = field.i32("diverging epoch")?;
                    let end_offset = field.i64("diverging end offset")?;
                    partition.diverging = Some(EpochEnd { epoch, end_offset });
                }
                1 => partition.current_leader = Some(CurrentLeader::read(field)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(partition)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{encoded, survives_cuts};
    use super::*;
    use bytes::BytesMut;
    use kafka_protocol::messages as kafka;
    use kafka_protocol::messages::fetch_request as kafka_request;
    use kafka_protocol::messages::fetch_response as kafka_response;
    use kafka_protocol::protocol::{Encodable, StrBytes};
    use uuid::Uuid;

    fn name(name: &str) -> kafka::TopicName {
        kafka::TopicName(StrBytes::from_string(name.to_owned()))
    }

    fn request() -> FetchRequest {
        let partition = |index| FetchPartition {
            index,
            current_leader_epoch: 7,
            fetch_offset: 1 << 40,
            last_fetched_epoch: -1,
            max_bytes: 1 << 20,
        };
        FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 1 << 22,
            isolation: Isolation::ReadCommitted,
            session_id: 99,
            session_epoch: 3,
            topics: vec![
                FetchTopic {
                    topic: TopicRef::new("orders", Uuid::from_u128(1)),
                    partitions: (0..200).map(partition).collect(),
                },
                FetchTopic { topic: TopicRef::new("é", Uuid::from_u128(2)), partitions: vec![] },
            ],
            forgotten: vec![ForgottenTopic {
                topic: TopicRef::new("gone", Uuid::from_u128(3)),
                partitions: vec![0, 5],
            }],
            rack: "rack-1".to_owned(),
        }
    }

    fn in_the_crates_words(request: &FetchRequest, version: i16) -> kafka::FetchRequest {
        let ids = version >= TOPIC_IDS_SINCE;
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|p| {
                kafka_request::FetchPartition::default()
                    .with_partition(p.index)
                    .with_current_leader_epoch(p.current_leader_epoch)
                    .with_fetch_offset(p.fetch_offset)
                    .with_last_fetched_epoch(p.last_fetched_epoch)
                    .with_partition_max_bytes(p.max_bytes)
            });
            let out = kafka_request::FetchTopic::default().with_partitions(partitions.collect());
            if ids {
                out.with_topic_id(topic.topic.id)
            } else {
                out.with_topic(name(&topic.topic.name))
            }
        });
        let forgotten = request.forgotten.iter().map(|topic| {
            let out =
                kafka_request::ForgottenTopic::default().with_partitions(topic.partitions.clone());
            if ids {
                out.with_topic_id(topic.topic.id)
            } else {
                out.with_topic(name(&topic.topic.name))
            }
        });
        kafka::FetchRequest::default()
            .with_max_wait_ms(request.max_wait_ms)
            .with_min_bytes(request.min_bytes)
            .with_max_bytes(request.max_bytes)
            .with_isolation_level(request.isolation as i8)
            .with_session_id(request.session_id)
            .with_session_epoch(request.session_epoch)
            .with_topics(topics.collect())
            .with_forgotten_topics_data(forgotten.collect())
            .with_rack_id(StrBytes::from_string(request.rack.clone()))
    }

    #[test]
    fn request_equals_the_crates_bytes() {
        let empty =
            FetchRequest { topics: vec![], forgotten: vec![], rack: String::new(), ..request() };
        for request in [request(), empty] {
            for version in FetchRequest::VERSIONS {
                let mut expected = Vec::new();
                in_the_crates_words(&request, version).encode(&mut expected, version).unwrap();
                assert_eq!(encoded(&request, version).unwrap(), expected, "v{version}");
            }
        }
    }

    #[test]
    fn an_unknown_topic_id_is_not_sent() {
        let mut request = request();
        request.topics[0].topic.id = Uuid::nil();
        assert!(encoded(&request, 12).is_ok());
        assert_eq!(encoded(&request, 13), Err(WireError::Encode { what: "fetch topic" }));
    }

    fn response(version: i16) -> Bytes {
        let full = kafka_response::PartitionData::default()
            .with_partition_index(4)
            .with_error_code(6)
            .with_high_watermark(1000)
            .with_last_stable_offset(900)
            .with_log_start_offset(10)
            .with_diverging_epoch(
                kafka_response::EpochEndOffset::default().with_epoch(5).with_end_offset(800),
            )
            .with_current_leader(
                kafka_response::LeaderIdAndEpoch::default()
                    .with_leader_id(kafka::BrokerId(2))
                    .with_leader_epoch(8),
            )
            .with_aborted_transactions(Some(vec![
                kafka_response::AbortedTransaction::default()
                    .with_producer_id(kafka::ProducerId(70))
                    .with_first_offset(20),
                kafka_response::AbortedTransaction::default()
                    .with_producer_id(kafka::ProducerId(71))
                    .with_first_offset(30),
            ]))
            .with_preferred_read_replica(kafka::BrokerId(1))
            .with_records(Some(Bytes::from_static(b"not looked into here")));
        let bare = kafka_response::PartitionData::default()
            .with_partition_index(9)
            .with_aborted_transactions(None)
            .with_records(None);
        let topic = |n: u128, partitions| {
            let out = kafka_response::FetchableTopicResponse::default().with_partitions(partitions);
            if version >= TOPIC_IDS_SINCE {
                out.with_topic_id(Uuid::from_u128(n))
            } else {
                out.with_topic(name(&n.to_string()))
            }
        };
        let mut message = kafka::FetchResponse::default()
            .with_throttle_time_ms(11)
            .with_error_code(70)
            .with_session_id(12)
            .with_responses(vec![topic(1, vec![full, bare.clone()]), topic(2, vec![bare])]);
        if version >= 16 {
            message = message.with_node_endpoints(vec![
                kafka_response::NodeEndpoint::default()
                    .with_node_id(kafka::BrokerId(2))
                    .with_host(StrBytes::from_static_str("b2"))
                    .with_port(9093),
            ]);
        }
        let mut out = BytesMut::new();
        message.encode(&mut out, version).unwrap();
        out.freeze()
    }

    #[test]
    fn reads_every_field_in_every_version() {
        for version in FetchRequest::VERSIONS {
            let body = response(version);
            let read = survives_cuts::<FetchRequest>(version, &body);
            assert_eq!((read.throttle_time_ms, read.error.0, read.session_id), (11, 70, 12));
            let key = |n: u128| match version {
                12 => TopicKey::Name(n.to_string()),
                _ => TopicKey::Id(Uuid::from_u128(n)),
            };
            assert_eq!(read.topics, [key(1), key(2)]);
            let places: Vec<_> = read.partitions.iter().map(|p| (p.topic, p.index)).collect();
            assert_eq!(places, [(0, 4), (0, 9), (1, 9)]);
            let full = &read.partitions[0];
            assert_eq!(full.error, ErrorCode::NOT_LEADER_OR_FOLLOWER);
            assert_eq!(
                (full.high_watermark, full.last_stable_offset, full.log_start_offset),
                (1000, 900, 10)
            );
            assert_eq!(full.diverging, Some(EpochEnd { epoch: 5, end_offset: 800 }));
            assert_eq!(full.current_leader, Some(CurrentLeader { id: 2, epoch: 8 }));
            let aborted: Vec<_> =
                full.aborted.iter().map(|a| (a.producer_id, a.first_offset)).collect();
            assert_eq!(aborted, [(70, 20), (71, 30)]);
            assert_eq!(full.preferred_read_replica, 1);
            assert_eq!(full.records, &b"not looked into here"[..]);
            assert!(body.as_ptr_range().contains(&full.records.as_ptr()), "a slice, no copy");
            let bare = &read.partitions[1];
            assert!(bare.records.is_empty() && bare.aborted.is_empty());
            assert_eq!((bare.diverging, bare.current_leader), (None, None));
            let endpoint = NodeEndpoint { id: 2, host: "b2".to_owned(), port: 9093 };
            let endpoints = if version >= 16 { vec![endpoint] } else { vec![] };
            assert_eq!(read.endpoints, endpoints);
        }
    }
}
