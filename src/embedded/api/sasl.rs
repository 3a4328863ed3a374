//! SaslHandshake (key 17) and SaslAuthenticate (key 36).

use bytes::Bytes;
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};

use super::super::connection::Call;
use super::super::sasl::{Choice, Login, Rules};
use super::text;
use crate::wire::error_code::ErrorCode;

pub(super) fn handshake(
    call: &Call<'_>,
    request: SaslHandshakeRequest,
    login: &mut Option<Login>,
) -> SaslHandshakeResponse {
    let offered = call.peer.shared.lock().options.mechanisms.clone();
    let names = offered.iter().map(|mechanism| text(mechanism.name())).collect();
    let now = call.peer.shared.env.now();
    let chosen = login.as_mut().map(|login| login.choose(&request.mechanism, &offered, now));
    let code = match chosen {
        None | Some(Choice::IllegalState) => ErrorCode::ILLEGAL_SASL_STATE,
        Some(Choice::Agreed) => ErrorCode::NONE,
        Some(Choice::NotOffered) => ErrorCode::UNSUPPORTED_SASL_MECHANISM,
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
    let (users, iterations, max_reauth) = {
        let options = &shared.lock().options;
        (options.users.clone(), options.scram_iterations, options.max_reauth)
    };
    let mut nonce = [0; 24];
    shared.env.world().fill_random(&mut nonce);
    let rules = Rules { users: &users, iterations, nonce, max_reauth };
    match login.next(&request.auth_bytes, &rules, shared.env.now()) {
        Ok((bytes, lifetime)) => {
            shared.lock().logins.count(login);
            let lifetime_ms = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
            answer.with_auth_bytes(Bytes::from(bytes)).with_session_lifetime_ms(lifetime_ms)
        }
        Err(refused) => {
            shared.lock().logins.refused += 1;
            answer
                .with_error_code(ErrorCode::SASL_AUTHENTICATION_FAILED.0)
                .with_error_message(Some(text(refused.0)))
        }
    }
}
