//! One connection to one broker: dial, TLS, versions, SASL, then pipelined requests with deadlines.
//!
//! Owns sockets, their security and what their failures are called. Never decodes what a request's own type does not
//! decode, never dials again by itself: a closed connection stays closed, and says why.

mod claim;
mod diagnosis;
mod dial;
mod driver;
#[cfg(debug_assertions)]
mod planted;
mod pool;
mod sasl;
mod sealing;
mod security;
mod shared;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod tests_support;
mod tls;
mod transport;
mod versions;
mod waits;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::resolved::Address;
use crate::env::Env;
use crate::error::{Code, Error, Side};
use crate::limits;
use crate::wire::api_versions::ApiVersionsResponse;
use crate::wire::{ApiKey, Request, WireError, frame};

pub use claim::Beyond;
pub(crate) use diagnosis::Peer;
pub use dial::Screen;
pub(crate) use dial::is_link_local;
pub use pool::{Beside, FramePool};
pub use sasl::SessionEnd;
pub(crate) use security::files::{Files, read_again, unusable};
pub use security::{Expiry, FilesCell, Security, SecurityCell};
pub(crate) use security::{InUse, Look, Told, Validity, Watch, Whose, not_taken};
pub(crate) use tls::{Tls, acceptor};
pub use waits::{RoomWait, RoomWaits};

/// Name of this client in the brokers' logs, quotas and metrics.
const CLIENT_ID: &str = "strait";
/// Body pieces from this size on are written by reference; smaller ones are copied into the head before them.
const BY_REFERENCE_BYTES_MIN: usize = 512;

/// Why a request got no answer.
#[derive(Clone, Debug)]
pub enum CallError {
    /// The connection is closed; the error says why. The request may or may not have been carried out.
    Closed(Arc<Error>),
    /// This request's answer is overdue, and the connection was closed for it. It may or may not have been carried out.
    Deadline,
    /// As many requests or bytes wait as may; nothing was queued. See [`Connection::ready`].
    Full,
    /// The broker offers no version of the API that is spoken here; nothing was sent.
    Unsupported {
        /// The API.
        api: ApiKey,
    },
    /// The request cannot be written, or its answer cannot be read.
    Wire(WireError),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(error) => write!(f, "{error}"),
            Self::Deadline => f.write_str("no answer in time"),
            Self::Full => f.write_str("too many requests wait on the connection"),
            Self::Unsupported { api } => write!(f, "the broker does not offer {api:?}"),
            Self::Wire(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for CallError {}

/// A connection that is ready for requests. Clones share it; dropping the last one closes the socket.
///
/// Belongs to the thread that opened it.
#[derive(Clone)]
pub struct Connection(Rc<Handle>);

struct Handle {
    shared: Rc<shared::Shared>,
    tls_version: Option<&'static str>,
    tls_suite: Option<&'static str>,
    offered: ApiVersionsResponse,
    session: Arc<SessionEnd>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.0.shared.peer.address)
    }
}

impl Connection {
    /// Resolves and dials a bootstrap address, then TLS, ApiVersions and SASL, all within
    /// [`CONNECT_TIMEOUT`](limits::CONNECT_TIMEOUT).
    ///
    /// Needs a tokio `LocalRuntime` (or `LocalSet`): the connection's task is spawned there.
    pub async fn open(
        env: &Env,
        address: &Address,
        security: &Security,
        side: Side,
    ) -> Result<Self, Error> {
        dial::open(env, security, security.peer(address.clone(), None, side), &|_| Ok(())).await
    }

    /// The same, for an address that the cluster's metadata gave for `broker`: failures are told apart by it. `screen` has
    /// the last word on each place that the name resolves to: what it refuses is not dialled.
    pub async fn open_advertised(
        env: &Env,
        address: &Address,
        broker: i32,
        security: &Security,
        side: Side,
        screen: &Screen<'_>,
    ) -> Result<Self, Error> {
        dial::open(env, security, security.peer(address.clone(), Some(broker), side), screen).await
    }

    /// The highest version of `R` that both sides have.
    pub fn version<R: Request>(&self) -> Option<i16> {
        self.0.offered.common::<R>()
    }

    /// The same, or ST-025, which names what the broker offers instead.
    pub fn require<R: Request>(&self) -> Result<i16, Error> {
        let lacking = || versions::lacking::<R>(&self.0.shared, &self.0.offered);
        self.version::<R>().ok_or_else(lacking)
    }

    /// Whether transactions V2 (KIP-890) are in force in the cluster.
    pub fn has_transactions_v2(&self) -> bool {
        let features = &self.0.offered.finalized_features;
        features.iter().any(|(name, level)| name == "transaction.version" && *level >= 2)
    }

    /// What the broker offers.
    pub fn offered(&self) -> &ApiVersionsResponse {
        &self.0.offered
    }

    /// From now on an answer that is larger than what was reserved for it waits until its lane has room. For what has an end
    /// of its own: a recovery, for whose end others hold their room, must not wait for them.
    pub fn wait_for_room(&self) {
        self.0.shared.waits_for_room.set(true);
    }

    /// Which answer waits so, for another thread too.
    pub fn room_waits(&self) -> Arc<RoomWaits> {
        self.0.shared.room_waits.clone()
    }

    /// An error at this broker.
    pub fn error(&self, code: Code, message: impl Into<String>) -> Error {
        self.0.shared.peer.error(code, message)
    }

    /// A failed call as an operator reads it.
    pub fn error_of(&self, error: &CallError) -> Error {
        self.0.shared.error_of(error)
    }

    /// Sends a request, when there is room for it, and waits for its answer. An answer that cannot be read closes the
    /// connection.
    pub async fn call<R: Request>(
        &self,
        request: &R,
        deadline: Duration,
    ) -> Result<R::Response, CallError> {
        let unsupported = CallError::Unsupported { api: R::API };
        let version = self.version::<R>().ok_or(unsupported)?;
        self.ready().await?;
        call(&self.0.shared, request, version, deadline).await
    }

    /// The same in a version of at most `version_max`: where later ones mean something else.
    pub async fn call_up_to<R: Request>(
        &self,
        version_max: i16,
        request: &R,
        deadline: Duration,
    ) -> Result<R::Response, CallError> {
        let unsupported = CallError::Unsupported { api: R::API };
        let version = self.version::<R>().map(|version| version.min(version_max));
        let version = version.filter(|v| R::VERSIONS.contains(v)).ok_or(unsupported)?;
        self.ready().await?;
        call(&self.0.shared, request, version, deadline).await
    }

    /// The same under [`REQUEST_TIMEOUT`](limits::REQUEST_TIMEOUT), with errors as an operator reads them.
    pub async fn ask<R: Request>(&self, request: &R) -> Result<R::Response, Error> {
        self.require::<R>()?;
        let answer = self.call(request, limits::REQUEST_TIMEOUT).await;
        answer.map_err(|error| self.error_of(&error))
    }

    /// Queues a request at once: the order of calls is the order on the wire. The answer's body, without its header,
    /// comes from the returned future; dropping that does not take the request back.
    ///
    /// `body` is the encoded request body in pieces; those of 512 bytes and more are written by reference. Past
    /// [`REQUESTS_IN_FLIGHT_MAX`](limits::REQUESTS_IN_FLIGHT_MAX) requests or
    /// [`CONNECTION_QUEUE_BYTES_MAX`](limits::CONNECTION_QUEUE_BYTES_MAX) queued bytes it is refused with
    /// [`CallError::Full`]: wait for [`Self::ready`] first.
    pub fn send(
        &self,
        api: ApiKey,
        version: i16,
        body: Vec<Bytes>,
        deadline: Duration,
    ) -> Result<Pending, CallError> {
        send(&self.0.shared, api, version, body, deadline)
    }

    /// Waits until [`Self::send`] has room for a request.
    pub async fn ready(&self) -> Result<(), CallError> {
        let shared = &self.0.shared;
        loop {
            let room = shared.room.notified();
            if let Some(error) = shared.closed() {
                return Err(CallError::Closed(error));
            }
            if shared.has_room() {
                return Ok(());
            }
            room.await;
        }
    }

    /// What was dialled.
    pub fn address(&self) -> &Address {
        &self.0.shared.peer.address
    }

    /// `TLSv1.2` or `TLSv1.3`; none is plaintext.
    pub fn tls_version(&self) -> Option<&'static str> {
        self.0.tls_version
    }

    /// The TLS suite by its IANA name; none is plaintext.
    pub fn tls_suite(&self) -> Option<&'static str> {
        self.0.tls_suite
    }

    /// When no new work is begun on it any more, since the broker ends the SASL session soon after, and with it the
    /// connection (KIP-368): later with each time that the session is renewed. None if the broker sets no end.
    pub fn leave_at(&self) -> Option<Instant> {
        self.0.session.leave_at()
    }

    /// The same for another thread, and as it will be.
    pub fn session(&self) -> Arc<SessionEnd> {
        self.0.session.clone()
    }

    /// Whether it is closed, or its SASL session ends within [`SESSION_END_MARGIN`](limits::SESSION_END_MARGIN) and could
    /// not be renewed: not to be taken for new work.
    pub fn is_ending(&self) -> bool {
        self.is_closed() || self.0.session.is_near()
    }

    /// Requests without an answer.
    pub fn in_flight(&self) -> usize {
        self.0.shared.in_flight()
    }

    /// Bytes that the socket has not taken yet.
    pub fn bytes_queued(&self) -> usize {
        self.0.shared.queued_bytes()
    }

    /// Whether it can no longer be used.
    pub fn is_closed(&self) -> bool {
        self.closed().is_some()
    }

    /// Waits until it can no longer be used.
    pub async fn ended(&self) {
        self.0.shared.ended().await;
    }

    /// Why it can no longer be used.
    pub fn closed(&self) -> Option<Arc<Error>> {
        self.0.shared.closed()
    }

    /// Closes the socket; what is pending fails.
    pub fn close(&self) {
        self.0.shared.close();
    }
}

/// The answer to come of one request.
#[must_use]
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Bytes, CallError>>);

impl Future for Pending {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The task answers or fails every request before it ends, so a sender is never dropped in silence.
        Pin::new(&mut self.0).poll(cx).map(|reply| reply.unwrap_or(Err(CallError::Deadline)))
    }
}

async fn call<R: Request>(
    shared: &Rc<shared::Shared>,
    request: &R,
    version: i16,
    deadline: Duration,
) -> Result<R::Response, CallError> {
    let mut body = Vec::with_capacity(256);
    request.encode(version, &mut body).map_err(CallError::Wire)?;
    let body = send(shared, R::API, version, vec![body.into()], deadline)?.await?;
    R::decode(version, &body).map_err(|error| {
        shared.refuse(shared.peer.undecodable(R::API, error));
        CallError::Wire(error)
    })
}

fn send(
    shared: &shared::Shared,
    api: ApiKey,
    version: i16,
    body: Vec<Bytes>,
    deadline: Duration,
) -> Result<Pending, CallError> {
    let body_bytes = body.iter().map(Bytes::len).sum();
    let deadline = Instant::now() + deadline;
    shared
        .enqueue(api, deadline, |id| {
            let head = frame::request_head(api, version, id, CLIENT_ID, body_bytes)?;
            Ok(pieces(head, body))
        })
        .map(Pending)
}

/// The request's size, header and body in as few pieces as copying little allows.
fn pieces(mut head: Vec<u8>, body: Vec<Bytes>) -> Vec<Bytes> {
    let mut pieces = Vec::with_capacity(1 + body.len());
    for piece in body {
        if piece.len() < BY_REFERENCE_BYTES_MIN {
            head.extend_from_slice(&piece);
            continue;
        }
        if !head.is_empty() {
            pieces.push(Bytes::from(std::mem::take(&mut head)));
        }
        pieces.push(piece);
    }
    if !head.is_empty() {
        pieces.push(Bytes::from(head));
    }
    pieces
}
