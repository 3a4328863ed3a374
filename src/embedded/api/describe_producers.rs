//! DescribeProducers (key 61): the producer state that the leader holds.

use kafka_protocol::messages::ProducerId;
use kafka_protocol::messages::describe_producers_request::DescribeProducersRequest;
use kafka_protocol::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};

use super::super::connection::Call;

pub(super) fn handle(
    call: &Call<'_>,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let mut state = call.peer.shared.lock();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let partitions = topic.partition_indexes.iter().map(|index| {
            let answer = PartitionResponse::default().with_partition_index(*index);
            match state.led(call.peer.broker, &topic.name, *index) {
                Err(code) => answer.with_error_code(code.0),
                Ok(partition) => {
                    let active = partition.log.producers.iter().map(|(id, entry)| {
                        ProducerState::default()
                            .with_producer_id(ProducerId(id))
                            .with_producer_epoch(entry.epoch.into())
                            .with_last_sequence(entry.last_sequence())
                            .with_last_timestamp(entry.last_timestamp)
                            .with_coordinator_epoch(entry.coordinator_epoch)
                            .with_current_txn_start_offset(entry.open_since.unwrap_or(-1))
                    });
                    answer.with_active_producers(active.collect())
                }
            }
        });
        topics.push(
            TopicResponse::default().with_partitions(partitions.collect()).with_name(topic.name),
        );
    }
    DescribeProducersResponse::default().with_topics(topics)
}
