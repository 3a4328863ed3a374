//! A client that sends what it is told to, and batches crafted field by field.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    ApiKey, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader, TopicName,
    TransactionalId,
};
use kafka_protocol::protocol::{Decodable, Encodable, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::batch::Head;
use super::super::{Cluster, EmbeddedCluster, Options, records};
use crate::env::{Env, Stream};

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub(super) fn now_ms() -> i64 {
    Env::real().wall_clock_ms()
}

/// A cluster with a topic `t`.
pub(super) fn cluster(options: Options, configs: &[(&str, &str)]) -> EmbeddedCluster {
    let brokers = i16::try_from(options.brokers).unwrap();
    let cluster = EmbeddedCluster::start(Env::real(), options).unwrap();
    cluster.create_topic("t", 2, brokers.min(2), configs).unwrap();
    for partition in 0..2 {
        cluster.move_leader("t", partition, 1, super::super::Replica::InSync).unwrap();
    }
    cluster
}

/// A connection to a broker.
pub(super) struct Client {
    stream: Box<dyn Stream>,
    sent: i32,
}

impl Client {
    pub(super) async fn to(cluster: &Cluster) -> Self {
        Self::at(cluster, 1).await
    }

    pub(super) async fn at(cluster: &Cluster, broker: i32) -> Self {
        let env = Env::real();
        Self::over(env.world().connect(cluster.address(broker)).await.unwrap())
    }

    pub(super) fn over(stream: Box<dyn Stream>) -> Self {
        Self { stream, sent: 0 }
    }

    pub(super) async fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.sent += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.sent)
            .with_client_id(Some(text("test")));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, R::header_version(version)).unwrap();
        request.encode(&mut frame, version).unwrap();
        let len = u32::try_from(frame.len()).unwrap().to_be_bytes();
        // A broker that has closed shows when the answer is read.
        let _ = self.stream.write_all(&[&len[..], &frame].concat()).await;
    }

    /// The next answer; None when the broker closed instead.
    pub(super) async fn receive<R: Request>(&mut self, version: i16) -> Option<R::Response> {
        let len = self.stream.read_u32().await.ok()?;
        let mut frame = vec![0; usize::try_from(len).unwrap()];
        self.stream.read_exact(&mut frame).await.ok()?;
        let mut frame = Bytes::from(frame);
        let key = ApiKey::try_from(R::KEY).unwrap();
        let header = key.response_header_version(version);
        ResponseHeader::decode(&mut frame, header).unwrap();
        let response = R::Response::decode(&mut frame, version).unwrap();
        assert!(!frame.has_remaining(), "{key:?} v{version}: bytes left behind the answer");
        Some(response)
    }

    pub(super) async fn try_call<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Option<R::Response> {
        self.send(version, request).await;
        self.receive::<R>(version).await
    }

    pub(super) async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.try_call(version, request).await.expect("the broker closed the connection")
    }

    /// Produces with acks=all to partitions of `t`.
    pub(super) async fn produce(
        &mut self,
        parts: &[(i32, Bytes)],
    ) -> Vec<PartitionProduceResponse> {
        let response = self.call(9, &produce("t", parts)).await;
        partitions(response)
    }

    /// Produces one batch to `t`-0: error code and base offset.
    pub(super) async fn produce_one(&mut self, batch: Bytes) -> (i16, i64) {
        let answer = self.produce(&[(0, batch)]).await.remove(0);
        (answer.error_code, answer.base_offset)
    }
}

pub(super) fn partitions(response: ProduceResponse) -> Vec<PartitionProduceResponse> {
    response.responses.into_iter().flat_map(|topic| topic.partition_responses).collect()
}

pub(super) fn produce(topic: &str, parts: &[(i32, Bytes)]) -> ProduceRequest {
    let data = parts.iter().map(|(index, records)| {
        PartitionProduceData::default().with_index(*index).with_records(Some(records.clone()))
    });
    let topic = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_partition_data(data.collect());
    ProduceRequest::default().with_acks(-1).with_timeout_ms(300).with_topic_data(vec![topic])
}

pub(super) fn transactional(request: ProduceRequest, id: &str) -> ProduceRequest {
    request.with_transactional_id(Some(TransactionalId(text(id))))
}

/// Offset delta, key, value.
pub(super) type Record = (i32, Option<String>, Option<[u8; 20]>);

/// A batch with any field wrong; right unless it is changed.
#[derive(Clone)]
pub(super) struct Craft {
    pub(super) head: Head,
    pub(super) block: Vec<u8>,
    pub(super) broken_crc: bool,
}

impl Craft {
    /// Records with keys `k0`.. and 20-byte values, now.
    pub(super) fn records(count: i32) -> Self {
        let records: Vec<_> =
            (0..count).map(|i| (i, Some(format!("k{i}")), Some([7; 20]))).collect();
        Self::of(&records)
    }

    /// These records.
    pub(super) fn of(records: &[Record]) -> Self {
        let mut block = Vec::new();
        for (delta, key, value) in records {
            let key = key.as_ref().map(String::as_bytes);
            records::put_new(&mut block, 0, *delta, key, value.as_ref().map(|v| &v[..]));
        }
        let count = i32::try_from(records.len()).unwrap();
        let head = Head {
            base_offset: 0,
            batch_length: 0,
            leader_epoch: -1,
            magic: 2,
            crc: 0,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: now_ms(),
            max_timestamp: now_ms(),
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count,
        };
        let mut craft = Self { head, block, broken_crc: false };
        craft.head.max_timestamp = craft.head.base_timestamp;
        craft
    }

    pub(super) fn producer(mut self, id: i64, epoch: i16, sequence: i32) -> Self {
        self.head.producer_id = id;
        self.head.producer_epoch = epoch;
        self.head.base_sequence = sequence;
        self
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Head)) -> Self {
        change(&mut self.head);
        self
    }

    pub(super) fn at(self, timestamp: i64) -> Self {
        self.with(|head| (head.base_timestamp, head.max_timestamp) = (timestamp, timestamp))
    }

    pub(super) fn build(self) -> Bytes {
        let mut head = self.head;
        let payload = records::compress(head.codec(), &self.block).unwrap();
        head.batch_length = 49 + i32::try_from(payload.len()).unwrap();
        head.seal(&payload);
        head.crc ^= u32::from(self.broken_crc);
        let mut out = BytesMut::new();
        out.put_slice(&head.write());
        out.put_slice(&payload);
        out.freeze()
    }
}

pub(super) fn batch(count: i32) -> Bytes {
    Craft::records(count).build()
}
