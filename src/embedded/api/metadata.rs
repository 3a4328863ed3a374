//! Metadata (key 3).

use kafka_protocol::messages::metadata_request::MetadataRequest;
use kafka_protocol::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, TopicName};

use super::super::connection::Call;
use super::super::faults::Fault;
use super::super::state::State;
use super::super::topic::{self, Partition};
use super::text;
use crate::wire::error_code::ErrorCode;

pub(super) fn handle(call: &Call<'_>, request: MetadataRequest) -> MetadataResponse {
    let mut state = call.peer.shared.lock();
    // All topics: null, or in version 0 an empty list.
    let asked = request.topics.filter(|asked| !(asked.is_empty() && call.version == 0));
    let topics = match asked {
        None => {
            let names: Vec<String> = state.topics.keys().cloned().collect();
            names.iter().map(|name| describe(&mut state, call, name, false)).collect()
        }
        Some(asked) => {
            let create = call.version < 4 || request.allow_auto_topic_creation;
            let mut topics = Vec::with_capacity(asked.len());
            for topic in asked {
                let name = match topic.name {
                    Some(name) => Some(name.to_string()),
                    None => state.names.get(&topic.topic_id).cloned(),
                };
                topics.push(match name {
                    Some(name) => describe(&mut state, call, &name, create),
                    None => MetadataResponseTopic::default()
                        .with_error_code(ErrorCode::UNKNOWN_TOPIC_ID.0)
                        .with_name(None)
                        .with_topic_id(topic.topic_id),
                });
            }
            topics
        }
    };
    let listener = call.peer.listener;
    let brokers = state.live().into_iter().filter_map(|id| {
        let (host, port) = state.endpoint(id, listener)?;
        let broker = MetadataResponseBroker::default().with_node_id(BrokerId(id));
        Some(broker.with_host(text(host)).with_port(port))
    });
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(text(state.cluster_id.clone())))
        .with_controller_id(BrokerId(state.controller()))
        .with_topics(topics)
}

fn describe(state: &mut State, call: &Call<'_>, name: &str, create: bool) -> MetadataResponseTopic {
    let answer = MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(name))))
        .with_is_internal(topic::is_internal(name));
    let fault = state.faults.of_partition(call.api, call.peer.broker, name, -1);
    if let Some(Fault::Refuse(code) | Fault::AnswerWith(code)) = fault {
        return answer.with_error_code(code.0);
    }
    if !state.topics.contains_key(name) {
        let code = match create && state.options.auto_create_topics {
            false => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            true => {
                let made =
                    state.create_topic(&call.peer.shared.env, name, -1, -1, Default::default());
                // The real broker, too, answers 5 while the new topic has no leader yet; here it has one at once.
                made.err().unwrap_or(ErrorCode::NONE)
            }
        };
        if code != ErrorCode::NONE {
            return answer.with_error_code(code.0);
        }
        call.peer.shared.changed();
    }
    let Some(topic) = state.topics.get(name) else { return answer };
    let partitions = (0..).zip(&topic.partitions).map(|(index, partition)| {
        let mut answer = of_partition(partition).with_partition_index(index);
        answer.offline_replicas = offline(state, partition);
        answer
    });
    answer.with_topic_id(topic.id).with_partitions(partitions.collect())
}

fn of_partition(partition: &Partition) -> MetadataResponsePartition {
    let ids = |ids: &[i32]| ids.iter().map(|id| BrokerId(*id)).collect();
    let code = match partition.leader < 0 {
        true => ErrorCode::LEADER_NOT_AVAILABLE,
        false => ErrorCode::NONE,
    };
    MetadataResponsePartition::default()
        .with_error_code(code.0)
        .with_leader_id(BrokerId(partition.leader))
        .with_leader_epoch(partition.leader_epoch)
        .with_replica_nodes(ids(&partition.replicas))
        .with_isr_nodes(ids(&partition.isr))
}

fn offline(state: &State, partition: &Partition) -> Vec<BrokerId> {
    let live = state.live();
    let down = partition.replicas.iter().filter(|id| !live.contains(id));
    down.map(|id| BrokerId(*id)).collect()
}
