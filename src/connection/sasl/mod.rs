//! SASL: names the mechanism, then carries its messages, and again before the session ends. Owns the credentials; never shows one, and never lets a broker
//! make an error text show one (I8).

mod oauthbearer;
mod plain;
mod scram;
mod session;
#[cfg(test)]
mod tests;
mod token_endpoint;

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

pub use session::SessionEnd;

pub(super) use session::Session;

use super::diagnosis::{CREDENTIALS, MECHANISM, PROTOCOL, SASL_DISTRUST, TOKEN};
use super::security::files::Files;
use super::shared::Shared;
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
    pub(super) fn load(
        settings: &resolved::Sasl,
        files: &Files,
        has_tls: bool,
    ) -> Result<Self, Error> {
        let now = |secret: &Secret| files.again(secret);
        Ok(Self(match settings {
            resolved::Sasl::Plain { username, password, allow_plaintext } => {
                plain::check(has_tls || *allow_plaintext)?;
                Mechanism::Plain { username: username.clone(), password: now(password)? }
            }
            resolved::Sasl::Scram { hash, username, password } => {
                let (username, password) = (username.clone(), now(password)?);
                Mechanism::Scram(scram::Credentials::new(*hash, username, password))
            }
            resolved::Sasl::OAuthBearer(source) => {
                Mechanism::OAuthBearer(oauthbearer::Tokens::load(source, files)?)
            }
        }))
    }

    /// Whether a token file that has changed holds a token. At the start it may not be there yet.
    pub(super) fn check_token(settings: &resolved::Sasl, files: &Files) -> Result<(), Error> {
        match settings {
            resolved::Sasl::OAuthBearer(resolved::TokenSource::File(path)) => {
                oauthbearer::token_in(path, files).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// The password, if there is one.
    #[cfg(debug_assertions)]
    pub(super) fn password(&self) -> Option<&Secret> {
        match &self.0 {
            Mechanism::Plain { password, .. } => Some(password),
            Mechanism::Scram(credentials) => Some(credentials.password()),
            Mechanism::OAuthBearer(_) => None,
        }
    }

    fn name(&self) -> &'static str {
        match &self.0 {
            Mechanism::Plain { .. } => "PLAIN",
            Mechanism::Scram(credentials) => credentials.mechanism(),
            Mechanism::OAuthBearer(_) => "OAUTHBEARER",
        }
    }
}

/// The first login of a connection, and how long its session lasts if the broker limits that (KIP-368). One that is shorter
/// than anything can be done in is refused: it would be opened again at once, without end.
pub(super) async fn log_in(
    env: &Env,
    shared: &Rc<Shared>,
    offered: &ApiVersionsResponse,
    sasl: &Sasl,
) -> Result<Option<Duration>, Error> {
    let token = prepare(env, shared, sasl).await?;
    let lifetime = authenticate(env, shared, offered, sasl, token).await?;
    if let Some(short) = lifetime.filter(|lifetime| *lifetime < limits::SESSION_LIFETIME_MIN) {
        let text = format!("ends the SASL session {} ms after the login", short.as_millis());
        return Err(shared
            .peer
            .error(PROTOCOL, text)
            .fix("raise connections.max.reauth.ms of the broker, or the life of the token"));
    }
    Ok(lifetime)
}

/// What a login needs of others than the broker: a token, for OAUTHBEARER.
async fn prepare(env: &Env, shared: &Rc<Shared>, sasl: &Sasl) -> Result<Option<Secret>, Error> {
    let Mechanism::OAuthBearer(tokens) = &sasl.0 else { return Ok(None) };
    let token = tokens.token(env).await;
    let named = |why| shared.peer.error(TOKEN, format!("no OAUTHBEARER token: {why}"));
    token.map(Some).map_err(named)
}

/// Logs in, for the first time or again. How long that lasts; none for as long as the connection.
async fn authenticate(
    env: &Env,
    shared: &Rc<Shared>,
    offered: &ApiVersionsResponse,
    sasl: &Sasl,
    token: Option<Secret>,
) -> Result<Option<Duration>, Error> {
    #[cfg(debug_assertions)]
    super::planted::tell(sasl);
    name_mechanism(shared, offered, sasl.name()).await?;
    let exchange = Exchange { shared, offered, mechanism: sasl.name() };
    let last = match &sasl.0 {
        Mechanism::Plain { username, password } => {
            let message = plain::message(username, password);
            exchange.send(message, password.expose()).await?
        }
        Mechanism::Scram(credentials) => scram::authenticate(env, &exchange, credentials).await?,
        Mechanism::OAuthBearer(tokens) => {
            oauthbearer::authenticate(&exchange, tokens, token.as_ref()).await?
        }
    };
    let lifetime_ms = u64::try_from(last.session_lifetime_ms).ok().filter(|ms| *ms > 0);
    Ok(lifetime_ms.map(|ms| Duration::from_millis(ms.min(1 << 40))))
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
    // The first has the deadline of the whole dial; a later one waits for what is before it on the connection, a Produce that waits
    // for its replicas too.
    let before = if shared.in_flight() == 0 { Duration::ZERO } else { limits::ACK_TIMEOUT };
    let answer = call(shared, request, version, before + limits::REQUEST_TIMEOUT).await;
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
