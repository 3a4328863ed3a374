//! AddPartitionsToTxn (key 24), v3: tells the coordinator which partitions a transaction writes to. Later versions are for
//! brokers among themselves; with transactions V2 the leaders tell it.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::add_partitions_to_txn_request as kafka_request;

use super::common::TopicPartitions;
use super::write::{text, topic_name, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Adds partitions to the transaction, which begins with it.
#[derive(Clone, Debug)]
pub struct AddPartitionsToTxnRequest {
    /// The transactional id.
    pub transactional_id: String,
    /// Its producer.
    pub producer_id: i64,
    /// And the epoch of that.
    pub producer_epoch: i16,
    /// Which partitions.
    pub topics: Vec<TopicPartitions<i32>>,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct AddPartitionsToTxnResponse {
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// Index and error of every partition.
    pub topics: Vec<TopicPartitions<(i32, ErrorCode)>>,
}

impl Request for AddPartitionsToTxnRequest {
    const API: ApiKey = ApiKey::AddPartitionsToTxn;
    const VERSIONS: RangeInclusive<i16> = 3..=3;
    type Response = AddPartitionsToTxnResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let topics = self.topics.iter().map(|of| {
            kafka_request::AddPartitionsToTxnTopic::default()
                .with_name(topic_name(&of.topic))
                .with_partitions(of.partitions.clone())
        });
        let message = kafka::AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(kafka::TransactionalId(text(
                &self.transactional_id,
            )))
            .with_v3_and_below_producer_id(kafka::ProducerId(self.producer_id))
            .with_v3_and_below_producer_epoch(self.producer_epoch)
            .with_v3_and_below_topics(topics.collect());
        write(&message, version, out, "add partitions to txn request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<AddPartitionsToTxnResponse, WireError> {
        let mut reader = Reader::new(body);
        let throttle_time_ms = reader.i32("throttle time")?;
        let topics = TopicPartitions::read_errors(&mut reader, "added partitions")?;
        reader.skip_tags("add partitions to txn response")?;
        reader.finish("add partitions to txn response")?;
        Ok(AddPartitionsToTxnResponse { throttle_time_ms, topics })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;
    use kafka_protocol::messages::add_partitions_to_txn_response as kafka_response;

    #[test]
    fn request() {
        let request = AddPartitionsToTxnRequest {
            transactional_id: "x".to_owned(),
            producer_id: 1 << 40,
            producer_epoch: 7,
            topics: vec![TopicPartitions::new("t", vec![3, 5])],
        };
        let read: kafka::AddPartitionsToTxnRequest = written(&request, 3);
        assert_eq!(&*read.v3_and_below_transactional_id.0, "x");
        assert_eq!(read.v3_and_below_producer_id.0, 1 << 40);
        assert_eq!(read.v3_and_below_producer_epoch, 7);
        assert_eq!(read.v3_and_below_topics[0].name, topic_name("t"));
        assert_eq!(read.v3_and_below_topics[0].partitions, [3, 5]);
    }

    #[test]
    fn reads_every_field() {
        let result = kafka_response::AddPartitionsToTxnPartitionResult::default();
        let results = vec![
            result.clone().with_partition_index(3),
            result.with_partition_index(5).with_partition_error_code(55),
        ];
        let topic = kafka_response::AddPartitionsToTxnTopicResult::default()
            .with_name(topic_name("t"))
            .with_results_by_partition(results);
        let message = kafka::AddPartitionsToTxnResponse::default()
            .with_throttle_time_ms(6)
            .with_results_by_topic_v3_and_below(vec![topic]);
        let read = survives_cuts::<AddPartitionsToTxnRequest>(3, &crate_bytes(&message, 3));
        assert_eq!(read.throttle_time_ms, 6);
        let partitions = vec![(3, ErrorCode::NONE), (5, ErrorCode::OPERATION_NOT_ATTEMPTED)];
        assert_eq!(read.topics, [TopicPartitions::new("t", partitions)]);
    }
}
