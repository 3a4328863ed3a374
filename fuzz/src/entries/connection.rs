//! A whole connection against a peer that says what the input says, over a pipe in memory.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use strait::config::resolved::{Address, Cluster, Sasl, ScramHash, Secret};
use strait::connection::{Connection, Security};
use strait::env::{BoxFuture, Env, Listener, Stream, World};
use strait::error::{Error, Side};
use strait::wire::metadata::MetadataRequest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

const USERNAME: &str = "strait";
/// Never to be seen in an error.
const PASSWORD: &str = "canary-77c2";
/// What the peer is asked when the connection stands.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

thread_local! {
    /// Its time jumps to the next deadline whenever everything waits.
    static RUNTIME: Runtime =
        Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    /// Kept, because it remembers what PBKDF2 gave.
    static SECURITIES: RefCell<Vec<Security>> = RefCell::new(securities());
}

fn securities() -> Vec<Security> {
    let (username, password) = (USERNAME.to_owned(), Secret::new(PASSWORD));
    let scram = |hash| Sasl::Scram { hash, username: username.clone(), password: password.clone() };
    let plain = Sasl::Plain {
        username: username.clone(),
        password: password.clone(),
        allow_plaintext: true,
    };
    [Some(scram(ScramHash::Sha256)), Some(scram(ScramHash::Sha512)), Some(plain), None]
        .map(|sasl| {
            let cluster = Cluster {
                name: "west".to_owned(),
                bootstrap: vec![address()],
                tls: None,
                sasl,
                advertised: Default::default(),
            };
            Security::load(&cluster).expect("no file is named")
        })
        .into()
}

fn address() -> Address {
    Address { host: "kafka".to_owned(), port: 9092 }
}

/// The first byte's lowest bit chooses the hash; then the server's messages, each with its length in front.
///
/// No input knows the password, so none is ever believed.
pub(super) fn scram(data: &Bytes) {
    let Some((&hash, messages)) = data.split_first() else { return };
    let hash = usize::from(hash & 1);
    let mechanism = ["SCRAM-SHA-256", "SCRAM-SHA-512"][hash];
    let mut pieces =
        VecDeque::from([framed(0, &versions()), framed(1, &handshake_done(mechanism))]);
    for (message, id) in chunks(messages).zip(2..) {
        // After the header's tags: error, no error text, the message, session lifetime, tags.
        let mut body = vec![0, 0, 0, 0];
        let mut len = message.len() + 1;
        while len > 0x7f {
            body.push(len as u8 | 0x80);
            len >>= 7;
        }
        body.push(len as u8);
        body.extend_from_slice(message);
        body.extend([0; 9]);
        pieces.push_back(framed(id, &body));
    }
    assert!(open(hash, pieces).is_err(), "a broker without the password is believed");
}

/// The first byte's low bits choose the mechanism; 4 has the peer offer its versions in good order, 8 makes frames of what it
/// says. Then what it says, a piece after each request, each with its length in front.
pub(super) fn handshake(data: &Bytes) {
    let Some((&mode, said)) = data.split_first() else { return };
    let mut pieces = VecDeque::new();
    if mode & 4 != 0 {
        pieces.push_back(framed(0, &versions()));
    }
    for piece in chunks(said) {
        let id = pieces.len() as i32;
        pieces.push_back(if mode & 8 == 0 { piece.to_vec() } else { framed(id, piece) });
    }
    let _ = open(usize::from(mode & 3), pieces);
}

/// Pieces with two bytes of length in front of each; the last may be cut.
fn chunks(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = data.split_first_chunk()?;
        let len = usize::from(u16::from_be_bytes(*len)).min(rest.len());
        let (piece, rest) = rest.split_at(len);
        data = rest;
        Some(piece)
    })
}

fn framed(id: i32, body: &[u8]) -> Vec<u8> {
    let size = body.len() as u32 + 4;
    [&size.to_be_bytes(), &id.to_be_bytes(), body].concat()
}

/// ApiVersions, Metadata, SaslHandshake and SaslAuthenticate, as a broker of today offers them.
fn versions() -> Vec<u8> {
    let offered: [[u8; 7]; 4] = [
        [0, 18, 0, 0, 0, 4, 0],
        [0, 3, 0, 0, 0, 13, 0],
        [0, 17, 0, 0, 0, 1, 0],
        [0, 36, 0, 0, 0, 2, 0],
    ];
    [&[0, 0, 5], &offered.concat()[..], &[0; 5]].concat()
}

fn handshake_done(mechanism: &str) -> Vec<u8> {
    [&[0, 0, 0, 0, 0, 1, 0, mechanism.len() as u8], mechanism.as_bytes()].concat()
}

fn open(security: usize, pieces: VecDeque<Vec<u8>>) -> Result<(), Error> {
    let security = SECURITIES.with_borrow(|all| all[security].clone());
    let peer = Peer { pieces, now: Bytes::new(), heard: Vec::new(), reader: None };
    let env = Env::of(Arc::new(Pipe(Mutex::new(Some(peer)))));
    let at = address();
    let outcome = RUNTIME.with(|runtime| {
        LocalSet::new().block_on(runtime, async {
            let connection = Connection::open(&env, &at, &security, Side::Source).await?;
            let _ = connection.call(&MetadataRequest::default(), CALL_TIMEOUT).await;
            Ok(())
        })
    });
    if let Err(error) = &outcome {
        let said = format!("{error} {error:?}");
        assert!(!said.contains(PASSWORD), "the password is shown: {said}");
    }
    outcome
}

/// A world with one peer in it.
struct Pipe(Mutex<Option<Peer>>);

impl World for Pipe {
    fn resolve<'a>(
        &'a self,
        _host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(vec![SocketAddr::from(([192, 0, 2, 1], port))]) })
    }

    fn connect(&self, _to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        let peer = self.0.lock().expect("one thread").take();
        Box::pin(async {
            let peer = peer.ok_or(io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(peer) as Box<dyn Stream>)
        })
    }

    fn listen(&self, _at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn wall_clock_ms(&self) -> i64 {
        1_790_000_000_000
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        // The client's nonce: 32 times `A`.
        buffer.fill(0);
    }
}

/// Says a piece after each request, and closes after the last.
struct Peer {
    pieces: VecDeque<Vec<u8>>,
    now: Bytes,
    heard: Vec<u8>,
    reader: Option<Waker>,
}

impl Peer {
    /// Takes a request off what was heard, if there is a whole one.
    fn takes_request(&mut self) -> bool {
        let Some(size) = self.heard.first_chunk() else { return false };
        let end = 4 + u32::from_be_bytes(*size) as usize;
        let is_whole = self.heard.len() >= end;
        if is_whole {
            self.heard.drain(..end);
        }
        is_whole
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.now.is_empty() && !self.pieces.is_empty() {
            if !self.takes_request() {
                self.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            self.now = self.pieces.pop_front().unwrap_or_default().into();
        }
        let len = self.now.len().min(buffer.remaining());
        buffer.put_slice(&self.now[..len]);
        self.now.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.heard.extend_from_slice(bytes);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
