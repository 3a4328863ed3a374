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
    let brokers = state.live().into_iter().filter_map(|id| {
        let (host, port) = state.endpoint(id, call.peer.listener)?;
        let broker = DescribeClusterBroker::default().with_broker_id(BrokerId(id));
        Some(broker.with_host(text(host)).with_port(port))
    });
    DescribeClusterResponse::default()
        .with_cluster_id(text(state.cluster_id.clone()))
        .with_controller_id(BrokerId(state.controller()))
        .with_brokers(brokers.collect())
}
