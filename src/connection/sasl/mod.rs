//! SASL: names the mechanism, then carries its messages. Owns the credentials; never shows one, and never lets a broker
//! make an error text show one (I8).

mod oauthbearer;
mod plain;
mod scram;
#[cfg(test)]
mod tests;
mod token_endpoint;

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::diagnosis::{CREDENTIALS, MECHANISM, PROTOCOL, SASL_DISTRUST, Stage};
use super::driver::Shared;
use super::{call, versions};
use crate::config::resolved::{self, Secret};
use crate::env::Env;
use crate::error::Error;
use crate::limits;
use crate::wire::api_versions::ApiVersionsResponse;
use crate::wire::sasl_authenticate::{SaslAuthenticateRequest, SaslAuthenticateResponse};
use crate::wire::sasl_handshake::SaslHandshakeRequest;
use crate::wire::{ErrorCode, Request};

/// Characters of a broker's own words that an error shows.
const SHOWN_CHARS_MAX: usize = 300;

/// Credentials, ready to use by many connections.
pub(super) struct Sasl(Mechanism);

enum Mechanism {
    Plain { username: String, password: Secret },
    Scram(scram::Credentials),
    OAuthBearer(oauthbearer::Tokens),
}

impl Sasl {
    /// Checks what can be checked before a broker is dialled.
    pub(super) fn load(settings: &resolved::Sasl, has_tls: bool) -> Result<Self, Error> {
        Ok(Self(match settings {
            resolved::Sasl::Plain { username, password, allow_plaintext } => {
                plain::check(has_tls || *allow_plaintext)?;
                Mechanism::Plain { username: username.clone(), password: password.clone() }
            }
            resolved::Sasl::Scram { hash, username, password } => {
                let (username, password) = (username.clone(), password.clone());
                Mechanism::Scram(scram::Credentials::new(*hash, username, password))
            }
            resolved::Sasl::OAuthBearer(source) => {
                Mechanism::OAuthBearer(oauthbearer::Tokens::load(source)?)
            }
        }))
    }

    fn name(&self) -> &'static str {
        match &self.0 {
            Mechanism::Plain { .. } => "PLAIN",
            Mechanism::Scram(credentials) => credentials.mechanism(),
            Mechanism::OAuthBearer(_) => "OAUTHBEARER",
        }
    }
}

/// Authenticates. When the connection is to be left, if the broker limits its session (KIP-368): some time before its end,
/// and half of a short one stays for work. One that is shorter than anything can be done in is refused: it would be opened
/// again at once, without end.
pub(super) async fn authenticate(
    env: &Env,
    shared: &Rc<Shared>,
    offered: &ApiVersionsResponse,
    sasl: &Sasl,
) -> Result<Option<Instant>, Error> {
    shared.stage.set(Stage::Sasl);
    name_mechanism(shared, offered, sasl.name()).await?;
    let exchange = Exchange { shared, offered, mechanism: sasl.name() };
    let last = match &sasl.0 {
        Mechanism::Plain { username, password } => {
            let message = plain::message(username, password);
            exchange.send(message, password.expose()).await?
        }
        Mechanism::Scram(credentials) => scram::authenticate(env, &exchange, credentials).await?,
        Mechanism::OAuthBearer(tokens) => oauthbearer::authenticate(env, &exchange, tokens).await?,
    };
    let Some(lifetime_ms @ 1..) = u64::try_from(last.session_lifetime_ms).ok() else {
        return Ok(None);
    };
    let lifetime = Duration::from_millis(lifetime_ms.min(1 << 40));
    if lifetime < limits::SESSION_LIFETIME_MIN {
        let text = format!("ends the SASL session {lifetime_ms} ms after the login");
        return Err(shared
            .peer
            .error(PROTOCOL, text)
            .fix("raise connections.max.reauth.ms of the broker, or the life of the token"));
    }
    Ok(Some(Instant::now() + lifetime - limits::SESSION_END_MARGIN.min(lifetime / 2)))
}

async fn name_mechanism(
    shared: &Rc<Shared>,
    offered: &ApiVersionsResponse,
    mechanism: &'static str,
) -> Result<(), Error> {
    let request = SaslHandshakeRequest { mechanism: mechanism.to_owned() };
    let answer = ask(shared, offered, &request).await?;
    if !answer.error.is_error() {
        return Ok(());
    }
    let names: Vec<String> =
        answer.mechanisms.iter().take(10).map(|name| shown(name, "").collect()).collect();
    let (offers, fix) = match (answer.error, names.as_slice()) {
        (ErrorCode::ILLEGAL_SASL_STATE, _) => {
            ("the listener has no SASL".to_owned(), "remove `sasl:`, or dial the SASL listener")
        }
        (_, []) => ("the listener offers none".to_owned(), "dial the SASL listener"),
        (_, names) => {
            (format!("the listener offers {}", names.join(", ")), "set `sasl.mechanism` to one")
        }
    };
    let text = format!("{mechanism} is not enabled ({}): {offers}", answer.error);
    Err(shared.peer.error(MECHANISM, text).fix(fix))
}

async fn ask<R: Request>(
    shared: &Rc<Shared>,
    offered: &ApiVersionsResponse,
    request: &R,
) -> Result<R::Response, Error> {
    let version = offered.common::<R>().ok_or_else(|| versions::lacking::<R>(shared, offered))?;
    let answer = call(shared, request, version, limits::CONNECT_TIMEOUT).await;
    answer.map_err(|error| shared.error_of(&error))
}

/// One authentication in progress.
struct Exchange<'a> {
    shared: &'a Rc<Shared>,
    offered: &'a ApiVersionsResponse,
    mechanism: &'static str,
}

impl Exchange<'_> {
    /// One message there and back. `secret` is what the broker's own words are searched for before they are shown.
    async fn send(
        &self,
        message: impl Into<Bytes>,
        secret: &str,
    ) -> Result<SaslAuthenticateResponse, Error> {
        let request = SaslAuthenticateRequest { message: message.into() };
        let answer = ask(self.shared, self.offered, &request).await?;
        if answer.message.len() > limits::SASL_MESSAGE_BYTES_MAX {
            return Err(self.distrusted(format!("a message of {} bytes", answer.message.len())));
        }
        if answer.error.is_error() {
            let words = answer.error_message.as_deref().unwrap_or_default();
            return Err(self.refused(answer.error, words, secret));
        }
        Ok(answer)
    }

    /// The broker does not take the credentials.
    fn refused(&self, error: ErrorCode, words: &str, secret: &str) -> Error {
        let mut text = format!("{error} for {}", self.mechanism);
        if !words.is_empty() {
            text.push_str(": ");
            text.extend(shown(words, secret));
        }
        let fix = match self.mechanism {
            "OAUTHBEARER" => "the broker's validator checks signature, issuer, audience and expiry",
            _ => "check user and password, and that the user has a credential for this mechanism",
        };
        self.shared.peer.error(CREDENTIALS, text).fix(fix)
    }

    /// What the broker sent is not what one that knows the secret would send.
    fn distrusted(&self, what: impl std::fmt::Display) -> Error {
        let text = format!("the broker's part of {} cannot be trusted: {what}", self.mechanism);
        self.shared.peer.error(SASL_DISTRUST, text).fix("is this the broker? use TLS")
    }
}

/// A peer's own words as they may be shown: short, printable, without the secret.
fn shown(words: &str, secret: &str) -> impl Iterator<Item = char> {
    let words = if secret.is_empty() { words.to_owned() } else { words.replace(secret, "***") };
    let words: Vec<char> = words.chars().take(SHOWN_CHARS_MAX).collect();
    words.into_iter().map(|c| if c.is_control() { ' ' } else { c })
}
