//! InitProducerId (key 22).

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::super::connection::Call;
use super::super::state::State;
use crate::wire::error_code::ErrorCode;

pub(super) fn handle(call: &Call<'_>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let shared = &call.peer.shared;
    let given = init(&mut shared.lock(), call, &request);
    shared.changed();
    let answer = InitProducerIdResponse::default();
    match given {
        Ok((id, epoch)) => answer.with_producer_id(ProducerId(id)).with_producer_epoch(epoch),
        Err(code) => answer
            .with_error_code(super::transactions::fenced(code, call.version >= 4).0)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    }
}

fn init(
    state: &mut State,
    call: &Call<'_>,
    request: &InitProducerIdRequest,
) -> Result<(i64, i16), ErrorCode> {
    if let Some(code) = state.faults.refusal(call.api, call.peer.broker) {
        return Err(code);
    }
    let Some(id) = &request.transactional_id else {
        return Ok((state.transactions.allocate(), 0));
    };
    super::transactions::coordinated(state, call, id)?;
    state.init_transactional(
        id,
        request.transaction_timeout_ms,
        (request.producer_id.0, request.producer_epoch),
        call.peer.shared.env.wall_clock_ms(),
    )
}
