//! FindCoordinator (key 10), for groups and transactional ids.

use kafka_protocol::messages::BrokerId;
use kafka_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use kafka_protocol::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};

use super::super::connection::Call;
use super::super::state::State;
use super::text;
use crate::wire::error_code::ErrorCode;

pub(super) fn handle(call: &Call<'_>, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let mut state = call.peer.shared.lock();
    // Share groups (type 2) are not served.
    let keys = match call.version >= 4 {
        true => request.coordinator_keys,
        false => vec![request.key],
    };
    let found = keys.into_iter().map(|key| {
        let answer = Coordinator::default().with_key(key.clone());
        match find(&mut state, call, &key, request.key_type) {
            Ok((id, host, port)) => {
                answer.with_node_id(BrokerId(id)).with_host(text(host)).with_port(port)
            }
            Err(code) => answer.with_error_code(code.0).with_node_id(BrokerId(-1)).with_port(-1),
        }
    });
    let mut found: Vec<Coordinator> = found.collect();
    if call.version >= 4 {
        return FindCoordinatorResponse::default().with_coordinators(found);
    }
    let Some(one) = found.pop() else { return FindCoordinatorResponse::default() };
    FindCoordinatorResponse::default()
        .with_error_code(one.error_code)
        .with_node_id(one.node_id)
        .with_host(one.host)
        .with_port(one.port)
}

fn find(
    state: &mut State,
    call: &Call<'_>,
    key: &str,
    kind: i8,
) -> Result<(i32, String, i32), ErrorCode> {
    if let Some(code) = state.faults.refusal(call.api, call.peer.broker) {
        return Err(code);
    }
    if !(0..=1).contains(&kind) {
        return Err(ErrorCode::INVALID_REQUEST);
    }
    let id = state.coordinator(key).ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)?;
    let at = state.endpoint(id, call.peer.listener);
    let (host, port) = at.ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)?;
    Ok((id, host, port))
}
