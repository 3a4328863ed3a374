//! SaslHandshake (key 17) and SaslAuthenticate (key 36).

use bytes::Bytes;
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};

use super::super::connection::Call;
use super::super::sasl::Login;
use super::text;
use crate::wire::error_code::ErrorCode;

pub(super) fn handshake(
    call: &Call<'_>,
    request: SaslHandshakeRequest,
    login: &mut Option<Login>,
) -> SaslHandshakeResponse {
    let offered = call.peer.shared.lock().options.mechanisms.clone();
    let names = offered.iter().map(|mechanism| text(mechanism.name())).collect();
    let chosen = login.as_mut().map(|login| login.choose(&request.mechanism, &offered));
    let code = match chosen {
        None => ErrorCode::ILLEGAL_SASL_STATE,
        Some(true) => ErrorCode::NONE,
        Some(false) => ErrorCode::UNSUPPORTED_SASL_MECHANISM,
    };
    SaslHandshakeResponse::default().with_error_code(code.0).with_mechanisms(names)
}

pub(super) fn authenticate(
    call: &Call<'_>,
    request: SaslAuthenticateRequest,
    login: &mut Option<Login>,
) -> SaslAuthenticateResponse {
    let answer = SaslAuthenticateResponse::default();
    let Some(login) = login else {
        return answer.with_error_code(ErrorCode::ILLEGAL_SASL_STATE.0);
    };
    let shared = &call.peer.shared;
    let (users, iterations) = {
        let state = shared.lock();
        (state.options.users.clone(), state.options.scram_iterations)
    };
    let mut nonce = [0; 24];
    shared.env.world().fill_random(&mut nonce);
    match login.next(&request.auth_bytes, &users, iterations, nonce) {
        Ok(bytes) => answer.with_auth_bytes(Bytes::from(bytes)),
        Err(refused) => answer
            .with_error_code(ErrorCode::SASL_AUTHENTICATION_FAILED.0)
            .with_error_message(Some(text(refused.0))),
    }
}
