//! PLAIN (RFC 4616): user and password as they are. Only through TLS, unless the operator says otherwise.

use super::super::diagnosis::PASSWORD_IN_CLEAR;
use crate::config::resolved::Secret;
use crate::error::{Action, Error, Side};

pub(super) fn check(safe: bool) -> Result<(), Error> {
    if safe {
        return Ok(());
    }
    let text = "SASL PLAIN without TLS would send the password in clear text";
    Err(Error::new(PASSWORD_IN_CLEAR, Side::Local, Action::Stop, text)
        .fix("set `tls:`, use SCRAM, or set `sasl.allow_plaintext: true`"))
}

/// No authorization id: it is the user's own.
pub(super) fn message(username: &str, password: &Secret) -> Vec<u8> {
    [b"\0", username.as_bytes(), b"\0", password.expose().as_bytes()].concat()
}
