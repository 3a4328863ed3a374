//! One connection of a client: TLS, frames, login, one request at a time, as a broker does it: an acks=all that
//! waits holds up what is behind it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::{Decodable, Encodable};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::api;
use super::body::Body;
use super::faults::Fault;
use super::sasl::{Admission, Login};
use super::state::Shared;
use super::versions;
use crate::env::Stream;
use crate::limits::CONNECT_TIMEOUT;

/// `socket.request.max.bytes`.
const FRAME_BYTES_MAX: usize = 100 << 20;
/// What a read asks for at least, and at most before the bytes are there (I4).
const READ_BYTES: usize = 64 << 10;
const RESERVE_BYTES: usize = 1 << 20;
/// Plaintext that rustls takes in one go.
const TLS_BUFFER_BYTES: usize = 1 << 20;

/// Why a connection ends.
#[derive(Debug)]
pub(super) struct Close(pub(super) &'static str);

const KILLED: Close = Close("the broker was killed");

impl From<io::Error> for Close {
    fn from(_: io::Error) -> Self {
        Self("the socket failed")
    }
}

/// What a request gets.
pub(super) enum Outcome {
    Answer(Body),
    /// Produce with acks=0.
    Nothing,
}

/// Who is at the other end.
pub(super) struct Peer {
    pub(super) shared: Arc<Shared>,
    pub(super) broker: i32,
    pub(super) listener: usize,
    /// The broker's life that the connection belongs to.
    pub(super) life: u64,
    pub(super) from: SocketAddr,
}

/// One request being handled.
pub(super) struct Call<'a> {
    pub(super) peer: &'a Peer,
    pub(super) api: ApiKey,
    pub(super) version: i16,
    pub(super) client_id: String,
    /// What the answer says the client was slowed down by (Produce and Fetch).
    pub(super) throttle_ms: i32,
}

impl Call<'_> {
    /// The request's body.
    pub(super) fn decode<R: Decodable>(&self, body: &mut Bytes) -> Result<R, Close> {
        R::decode(body, self.version).map_err(|_| Close("a request that cannot be read"))
    }

    /// An answer in the request's version.
    pub(super) fn answer<R: Encodable>(&self, answer: &R) -> Result<Outcome, Close> {
        let mut bytes = BytesMut::new();
        if let Err(error) = answer.encode(&mut bytes, self.version) {
            tracing::error!(api = ?self.api, version = self.version, %error, "answer not written");
            return Err(Close("an answer that cannot be written"));
        }
        let mut body = Body::default();
        body.bytes(bytes.freeze());
        Ok(Outcome::Answer(body))
    }
}

/// Serves a client until it leaves.
pub(super) async fn serve(stream: Box<dyn Stream>, peer: Peer) {
    let listener = peer.shared.lock().options.listeners[peer.listener].clone();
    let login = listener.sasl.then(Login::default);
    let ended = match listener.tls {
        None => run(stream, &peer, login).await,
        Some(config) => {
            let acceptor = tokio_rustls::TlsAcceptor::from(config);
            match tokio::time::timeout(CONNECT_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(mut stream)) => {
                    stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
                    run(stream, &peer, login).await
                }
                Ok(Err(error)) => {
                    tracing::debug!(from = %peer.from, %error, "no TLS");
                    Err(Close("the TLS handshake failed"))
                }
                Err(_) => Err(Close("the TLS handshake took too long")),
            }
        }
    };
    if let Err(Close(reason)) = ended {
        tracing::debug!(broker = peer.broker, from = %peer.from, reason, "connection closed");
    }
}

async fn run<S>(mut stream: S, peer: &Peer, mut login: Option<Login>) -> Result<(), Close>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = BytesMut::new();
    while let Some(mut frame) = read_frame(&mut stream, &mut buffer).await? {
        let (mut call, correlation_id) = open(peer, &mut frame)?;
        if let Some(login) = &login {
            match login.admits(call.api, peer.shared.env.now()) {
                Admission::Yes => {}
                Admission::No => return Err(Close("a request before or amid the login")),
                Admission::Expired => {
                    peer.shared.lock().logins.expired += 1;
                    return Err(Close("the session has expired"));
                }
            }
        }
        let fault = {
            let mut state = peer.shared.lock();
            if !state.is_alive(peer.broker, peer.life) {
                return Err(KILLED);
            }
            state.faults.of_request(call.api, peer.broker)
        };
        match fault {
            Some(Fault::Delay(wait)) => tokio::time::sleep(wait).await,
            Some(Fault::Throttle(time)) => {
                call.throttle_ms = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
            }
            Some(Fault::CloseBefore) => return Err(Close("an ordered fault")),
            _ => {}
        }
        let outcome = api::handle(&call, frame, &mut login).await?;
        match fault {
            Some(Fault::DelayAnswer(wait)) => tokio::time::sleep(wait).await,
            Some(Fault::CloseAfter) => return Err(Close("an ordered fault")),
            Some(Fault::Silence) => std::future::pending().await,
            _ => {}
        }
        if !peer.shared.lock().is_alive(peer.broker, peer.life) {
            return Err(KILLED);
        }
        if let Outcome::Answer(body) = outcome {
            let mut head = correlation_id.to_be_bytes().to_vec();
            if call.api.response_header_version(call.version) == 1 {
                head.push(0);
            }
            let mut frame = body.into_frame(&head);
            while frame.has_remaining() {
                stream.write_buf(&mut frame).await?;
            }
            stream.flush().await?;
        }
        // As the real one, it does not listen to a client that is over its quota.
        if call.throttle_ms > 0 {
            tokio::time::sleep(Duration::from_millis(call.throttle_ms.unsigned_abs().into())).await;
        }
        if let Some(login) = &login
            && login.failed()
        {
            // The answer must be read before the socket goes (`connection.failed.authentication.delay.ms`).
            tokio::time::sleep(Duration::from_millis(10)).await;
            return Err(Close("the login failed"));
        }
    }
    Ok(())
}

/// The next frame without its length; None at the end of the stream.
async fn read_frame<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
) -> Result<Option<Bytes>, Close> {
    loop {
        let mut missing = READ_BYTES;
        if let Some(length) = buffer.first_chunk() {
            let len = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            if len > FRAME_BYTES_MAX {
                return Err(Close("a frame that is too large"));
            }
            if buffer.len() >= 4 + len {
                buffer.advance(4);
                return Ok(Some(buffer.split_to(len).freeze()));
            }
            missing = 4 + len - buffer.len();
        }
        // Grows with what has come, never by the peer's word alone.
        buffer.reserve(missing.clamp(READ_BYTES, RESERVE_BYTES.max(buffer.len())));
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// Reads the request's header; refuses what this release does not serve.
fn open<'a>(peer: &'a Peer, frame: &mut Bytes) -> Result<(Call<'a>, i32), Close> {
    let (Some(key), true) = (frame.first_chunk(), frame.len() >= 8) else {
        return Err(Close("a frame without a header"));
    };
    let key = i16::from_be_bytes(*key);
    let version = i16::from_be_bytes([frame[2], frame[3]]);
    let api = ApiKey::try_from(key).map_err(|()| Close("an unknown API"))?;
    let generation = peer.shared.lock().options.generation;
    let served = versions::serves(generation, api, version);
    // An ApiVersions of an unknown version is answered in version 0; its own header may be of any kind.
    if !served && api == ApiKey::ApiVersions {
        let correlation_id = i32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]);
        frame.clear();
        return Ok((
            Call { peer, api, version, client_id: String::new(), throttle_ms: 0 },
            correlation_id,
        ));
    }
    if !served {
        return Err(Close("a version that is not served"));
    }
    let header = RequestHeader::decode(frame, api.request_header_version(version))
        .map_err(|_| Close("a header that cannot be read"))?;
    let client_id = header.client_id.map(|id| id.to_string()).unwrap_or_default();
    Ok((Call { peer, api, version, client_id, throttle_ms: 0 }, header.correlation_id))
}
