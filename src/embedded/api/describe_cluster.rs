//! DescribeCluster (key 60).

use kafka_protocol::messages::describe_cluster_response::{
    DescribeClusterBroker, DescribeClusterResponse,
};
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest};

use super::super::connection::Call;
use super::text;
use crate::wire::error_code::ErrorCode;

/// The endpoint type of brokers; 2 is controllers, which have no listeners here.
const BROKERS: i8 = 1;

pub(super) fn handle(call: &Call<'_>, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let state = call.peer.shared.lock();
    if request.endpoint_type != BROKERS {
        return DescribeClusterResponse::default()
            .with_error_code(ErrorCode::MISMATCHED_ENDPOINT_TYPE.0);
    }
    let brokers = state.brokers.iter().filter(|broker| broker.up).filter_map(|broker| {
        let at = broker.addresses.get(call.peer.listener)?;
        let described = DescribeClusterBroker::default()
            .with_broker_id(BrokerId(broker.id))
            .with_host(text(at.ip().to_string()))
            .with_port(at.port().into());
        Some(described)
    });
    DescribeClusterResponse::default()
        .with_cluster_id(text(state.cluster_id.clone()))
        .with_controller_id(BrokerId(state.controller()))
        .with_brokers(brokers.collect())
}
