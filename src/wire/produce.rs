//! Produce (key 0), v9-13: the target's data path. Requests are written as pieces, so that a payload is never copied; `v13`
//! names topics by id.
//!
//! Does not check that a partition stands once in a request: a broker keeps the last of two and answers success, so the
//! gatherer must (rule P4).

use std::ops::RangeInclusive;

use bytes::Bytes;

use super::batch::HEADER_BYTES;
use super::common::{CurrentLeader, NodeEndpoint, TopicKey, TopicRef};
use super::primitives::{put_len, put_string, put_uvarint};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// First version with topic ids instead of names.
pub const TOPIC_IDS_SINCE: i16 = 13;
/// First version in which the leader adds a partition to the transaction (transactions V2).
pub const TRANSACTIONS_V2_SINCE: i16 = 12;
/// Payloads from this size on are passed by reference: below, a piece of its own costs more than the copy.
const BY_REFERENCE_BYTES_MIN: usize = 512;

/// One request. With a transactional id every batch of it must be of that id's producer.
#[derive(Clone, Copy, Debug)]
pub struct ProduceRequest<'a> {
    /// The transactional id of batches that have the transactional bit.
    pub transactional_id: Option<&'a str>,
    /// -1: every in-sync replica.
    pub acks: i16,
    /// How long the broker waits for them.
    pub timeout_ms: i32,
    /// What is written.
    pub topics: &'a [ProduceTopic],
}

/// A topic of a request.
#[derive(Clone, Debug)]
pub struct ProduceTopic {
    /// Which.
    pub topic: TopicRef,
    /// One batch for each partition, no partition twice.
    pub partitions: Vec<ProducePartition>,
}

/// One batch for one partition.
#[derive(Clone, Debug)]
pub struct ProducePartition {
    /// The partition.
    pub index: i32,
    /// The stamped header.
    pub head: [u8; HEADER_BYTES],
    /// The rest of the batch.
    pub payload: Bytes,
}

/// The answer, flat.
#[derive(Clone, Debug)]
pub struct ProduceResponse {
    /// The topics that partitions point to.
    pub topics: Vec<TopicKey>,
    /// All partitions of all topics, in the order of the answer.
    pub partitions: Vec<ProducedPartition>,
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// Addresses of the leaders that partitions name.
    pub endpoints: Vec<NodeEndpoint>,
}

/// A partition of an answer.
#[derive(Clone, Debug)]
pub struct ProducedPartition {
    /// Index into [`ProduceResponse::topics`].
    pub topic: usize,
    /// The partition.
    pub index: i32,
    /// Its error.
    pub error: ErrorCode,
    /// The offset of the batch's first record, also for a duplicate; -1 with an error.
    pub base_offset: i64,
    /// The broker's time, where the topic uses it, else -1.
    pub log_append_time_ms: i64,
    /// The first offset that still exists.
    pub log_start_offset: i64,
    /// The records for which the batch was refused.
    pub record_errors: Vec<RecordError>,
    /// The broker's words.
    pub error_message: Option<String>,
    /// The leader, where the broker asked is not.
    pub current_leader: Option<CurrentLeader>,
}

/// A record for which a batch was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// Its place in the batch.
    pub index: i32,
    /// The broker's words.
    pub message: Option<String>,
}

/// What is written so far: small things in one buffer, which is cut where a payload goes between.
struct Pieces {
    buffer: Vec<u8>,
    cuts: Vec<(usize, Bytes)>,
}

impl Pieces {
    fn put_payload(&mut self, payload: &Bytes) {
        if payload.len() < BY_REFERENCE_BYTES_MIN {
            self.buffer.extend_from_slice(payload);
        } else {
            self.cuts.push((self.buffer.len(), payload.clone()));
        }
    }

    fn finish(self) -> Vec<Bytes> {
        let mut rest = Bytes::from(self.buffer);
        let mut pieces = Vec::with_capacity(2 * self.cuts.len() + 1);
        let mut written = 0;
        for (at, payload) in self.cuts {
            pieces.push(rest.split_to(at - written));
            pieces.push(payload);
            written = at;
        }
        pieces.push(rest);
        pieces
    }
}

impl ProduceRequest<'_> {
    /// The request body as the pieces of one write. Payloads are the caller's own `Bytes`.
    pub fn pieces(&self, version: i16) -> Result<Vec<Bytes>, WireError> {
        let with_ids = version >= TOPIC_IDS_SINCE;
        let mut pieces =
            Pieces { buffer: Vec::with_capacity(self.buffer_bytes()), cuts: Vec::new() };
        match self.transactional_id {
            Some(id) => put_string(&mut pieces.buffer, id, "transactional id")?,
            None => put_uvarint(&mut pieces.buffer, 0),
        }
        pieces.buffer.extend(self.acks.to_be_bytes());
        pieces.buffer.extend(self.timeout_ms.to_be_bytes());
        put_len(&mut pieces.buffer, self.topics.len(), "produce topics")?;
        for topic in self.topics {
            topic.topic.put(with_ids, &mut pieces.buffer, "produce topic")?;
            put_len(&mut pieces.buffer, topic.partitions.len(), "produce partitions")?;
            for partition in &topic.partitions {
                pieces.buffer.extend(partition.index.to_be_bytes());
                let records = HEADER_BYTES + partition.payload.len();
                put_len(&mut pieces.buffer, records, "produce records")?;
                pieces.buffer.extend(partition.head);
                pieces.put_payload(&partition.payload);
                put_uvarint(&mut pieces.buffer, 0);
            }
            put_uvarint(&mut pieces.buffer, 0);
        }
        put_uvarint(&mut pieces.buffer, 0);
        Ok(pieces.finish())
    }

    /// At least what the buffer will hold: lengths and counts at their longest.
    fn buffer_bytes(&self) -> usize {
        let partition = |partition: &ProducePartition| {
            let copied = Some(partition.payload.len()).filter(|&len| len < BY_REFERENCE_BYTES_MIN);
            4 + 5 + HEADER_BYTES + copied.unwrap_or(0) + 1
        };
        let topic = |topic: &ProduceTopic| {
            let partitions: usize = topic.partitions.iter().map(partition).sum();
            topic.topic.name.len().max(16) + 3 + 5 + partitions + 1
        };
        let transactional_id = 5 + self.transactional_id.map_or(0, str::len);
        transactional_id + 2 + 4 + 5 + self.topics.iter().map(topic).sum::<usize>() + 1
    }
}

impl Request for ProduceRequest<'_> {
    const API: ApiKey = ApiKey::Produce;
    const VERSIONS: RangeInclusive<i16> = 9..=13;
    type Response = ProduceResponse;

    /// Copies every payload: [`ProduceRequest::pieces`] is for the data path.
    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        self.pieces(version)?.iter().for_each(|piece| out.extend_from_slice(piece));
        Ok(())
    }

    fn decode(version: i16, body: &Bytes) -> Result<ProduceResponse, WireError> {
        let with_ids = version >= TOPIC_IDS_SINCE;
        let mut reader = Reader::new(body);
        let (mut topics, mut partitions) = (Vec::new(), Vec::new());
        let topics_count = reader.array_len(3, "produced topics")?;
        reader.reserve(&mut topics, topics_count, "produced topics")?;
        for topic in 0..topics_count {
            topics.push(TopicKey::read(&mut reader, with_ids, "produced topic")?);
            let count = reader.array_len(ProducedPartition::BYTES_MIN, "produced partitions")?;
            reader.reserve(&mut partitions, count, "produced partitions")?;
            for _ in 0..count {
                partitions.push(ProducedPartition::read(&mut reader, version, topic)?);
            }
            reader.skip_tags("produced topic")?;
        }
        let throttle_time_ms = reader.i32("throttle time")?;
        let mut endpoints = Vec::new();
        reader.tags("produce response", |tag, field| {
            if tag == 0 && version >= 10 {
                endpoints = NodeEndpoint::read_all(field)?;
            }
            Ok(())
        })?;
        reader.finish("produce response")?;
        Ok(ProduceResponse { topics, partitions, throttle_time_ms, endpoints })
    }
}

impl ProducedPartition {
    /// Everything empty: what an array's count is checked against.
    const BYTES_MIN: usize = 4 + 2 + 8 + 8 + 8 + 1 + 1 + 1;

    fn read(reader: &mut Reader<'_>, version: i16, topic: usize) -> Result<Self, WireError> {
        let mut partition = Self {
            topic,
            index: reader.i32("partition index")?,
            error: reader.error_code("partition error")?,
            base_offset: reader.i64("base offset")?,
            log_append_time_ms: reader.i64("log append time")?,
            log_start_offset: reader.i64("log start offset")?,
            record_errors: reader.array(6, "record errors", |reader| {
                let index = reader.i32("record index")?;
                let message = reader.nullable_owned("record error message")?;
                reader.skip_tags("record error")?;
                Ok(RecordError { index, message })
            })?,
            error_message: reader.nullable_owned("error message")?,
            current_leader: None,
        };
        reader.tags("produced partition", |tag, field| {
            if tag == 0 && version >= 10 {
                partition.current_leader = Some(CurrentLeader::read(field)?);
            }
            Ok(())
        })?;
        Ok(partition)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::survives_cuts;
    use super::*;
    use bytes::BytesMut;
    use kafka_protocol::messages as kafka;
    use kafka_protocol::messages::produce_request as kafka_request;
    use kafka_protocol::messages::produce_response as kafka_response;
    use kafka_protocol::protocol::{Encodable, StrBytes};
    use proptest::prelude::*;
    use uuid::Uuid;

    fn name(name: &str) -> kafka::TopicName {
        kafka::TopicName(StrBytes::from_string(name.to_owned()))
    }

    fn in_the_crates_words(request: &ProduceRequest<'_>, version: i16) -> Vec<u8> {
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|p| {
                let records: Bytes = [&p.head[..], &p.payload].concat().into();
                kafka_request::PartitionProduceData::default()
                    .with_index(p.index)
                    .with_records(Some(records))
            });
            let out = kafka_request::TopicProduceData::default()
                .with_partition_data(partitions.collect());
            match version >= TOPIC_IDS_SINCE {
                true => out.with_topic_id(topic.topic.id),
                false => out.with_name(name(&topic.topic.name)),
            }
        });
        let mut out = Vec::new();
        kafka::ProduceRequest::default()
            .with_transactional_id(
                request.transactional_id.map(|id| kafka::TransactionalId(id.to_owned().into())),
            )
            .with_acks(request.acks)
            .with_timeout_ms(request.timeout_ms)
            .with_topic_data(topics.collect())
            .encode(&mut out, version)
            .unwrap();
        out
    }

    fn any_topics() -> impl Strategy<Value = Vec<ProduceTopic>> {
        // Around the edges: the reference limit, and where the length's varint grows.
        let payload = prop_oneof![0usize..80, 440usize..530, 16_300usize..16_400, Just(300_000)];
        let partition = (any::<i32>(), any::<u8>(), payload).prop_map(|(index, fill, len)| {
            ProducePartition { index, head: [fill; HEADER_BYTES], payload: vec![!fill; len].into() }
        });
        let topic = ("[a-z.é-]{1,200}", 1u128.., prop::collection::vec(partition, 0..5)).prop_map(
            |(name, id, partitions)| ProduceTopic {
                topic: TopicRef::new(name, Uuid::from_u128(id)),
                partitions,
            },
        );
        prop::collection::vec(topic, 0..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn request_equals_the_crates_bytes(
            topics in any_topics(),
            timeout_ms: i32,
            id in prop::option::of("[a-z.é-]{1,200}"),
        ) {
            let transactional_id = id.as_deref();
            let request =
                ProduceRequest { transactional_id, acks: -1, timeout_ms, topics: &topics };
            for version in ProduceRequest::VERSIONS {
                let pieces = request.pieces(version).unwrap();
                prop_assert_eq!(&pieces.concat(), &in_the_crates_words(&request, version));
                let large = topics.iter().flat_map(|t| &t.partitions).map(|p| &p.payload);
                let large: Vec<_> = large.filter(|p| p.len() >= BY_REFERENCE_BYTES_MIN).collect();
                prop_assert_eq!(pieces.len(), 2 * large.len() + 1);
                for (piece, payload) in pieces.iter().skip(1).step_by(2).zip(large) {
                    prop_assert_eq!(piece.as_ptr(), payload.as_ptr(), "by reference");
                }
                let buffered: usize = pieces.iter().step_by(2).map(Bytes::len).sum();
                prop_assert!(buffered <= request.buffer_bytes(), "never reallocated");
            }
        }
    }

    #[test]
    fn many_partitions() {
        let partition = |index| ProducePartition {
            index,
            head: [1; HEADER_BYTES],
            payload: Bytes::from_static(b"tiny"),
        };
        let topic = TopicRef::new("t", Uuid::from_u128(1));
        let topics = [ProduceTopic { topic, partitions: (0..1000).map(partition).collect() }];
        let request =
            ProduceRequest { transactional_id: None, acks: 1, timeout_ms: 0, topics: &topics };
        for version in ProduceRequest::VERSIONS {
            let pieces = request.pieces(version).unwrap();
            assert_eq!(pieces.len(), 1);
            assert_eq!(pieces.concat(), in_the_crates_words(&request, version));
        }
    }

    fn response(version: i16) -> Bytes {
        let mut refused = kafka_response::PartitionProduceResponse::default()
            .with_index(3)
            .with_error_code(87)
            .with_base_offset(-1)
            .with_log_append_time_ms(-1)
            .with_log_start_offset(17)
            .with_record_errors(vec![
                kafka_response::BatchIndexAndErrorMessage::default()
                    .with_batch_index(2)
                    .with_batch_index_error_message(Some(StrBytes::from_static_str("null key"))),
                kafka_response::BatchIndexAndErrorMessage::default().with_batch_index(5),
            ])
            .with_error_message(Some(StrBytes::from_static_str("refused")));
        if version >= 10 {
            refused = refused.with_current_leader(
                kafka_response::LeaderIdAndEpoch::default()
                    .with_leader_id(kafka::BrokerId(2))
                    .with_leader_epoch(8),
            );
        }
        let good = kafka_response::PartitionProduceResponse::default()
            .with_index(4)
            .with_base_offset(1 << 41);
        let topic = |n: u128, partitions| {
            let out = kafka_response::TopicProduceResponse::default()
                .with_partition_responses(partitions);
            match version >= TOPIC_IDS_SINCE {
                true => out.with_topic_id(Uuid::from_u128(n)),
                false => out.with_name(name(&n.to_string())),
            }
        };
        let mut message = kafka::ProduceResponse::default()
            .with_responses(vec![topic(1, vec![refused, good.clone()]), topic(2, vec![good])])
            .with_throttle_time_ms(11);
        if version >= 10 {
            message = message.with_node_endpoints(vec![
                kafka_response::NodeEndpoint::default()
                    .with_node_id(kafka::BrokerId(2))
                    .with_host(StrBytes::from_static_str("b2"))
                    .with_port(9093)
                    .with_rack(Some(StrBytes::from_static_str("r"))),
            ]);
        }
        let mut out = BytesMut::new();
        message.encode(&mut out, version).unwrap();
        out.freeze()
    }

    #[test]
    fn reads_every_field_in_every_version() {
        for version in ProduceRequest::VERSIONS {
            let read = survives_cuts::<ProduceRequest<'_>>(version, &response(version));
            let key = |n: u128| match version {
                13 => TopicKey::Id(Uuid::from_u128(n)),
                _ => TopicKey::Name(n.to_string()),
            };
            assert_eq!(read.topics, [key(1), key(2)]);
            assert_eq!(read.throttle_time_ms, 11);
            let places: Vec<_> = read.partitions.iter().map(|p| (p.topic, p.index)).collect();
            assert_eq!(places, [(0, 3), (0, 4), (1, 4)]);
            let refused = &read.partitions[0];
            assert_eq!(refused.error, ErrorCode::INVALID_RECORD);
            assert_eq!(
                (refused.base_offset, refused.log_append_time_ms, refused.log_start_offset),
                (-1, -1, 17)
            );
            let errors = [
                RecordError { index: 2, message: Some("null key".to_owned()) },
                RecordError { index: 5, message: None },
            ];
            assert_eq!(refused.record_errors, errors);
            assert_eq!(refused.error_message.as_deref(), Some("refused"));
            let leader = (version >= 10).then_some(CurrentLeader { id: 2, epoch: 8 });
            assert_eq!(refused.current_leader, leader);
            assert_eq!(read.partitions[1].base_offset, 1 << 41);
            assert_eq!(read.partitions[1].error, ErrorCode::NONE);
            assert_eq!(read.endpoints.len(), usize::from(version >= 10));
        }
    }
}
