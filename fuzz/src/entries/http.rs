//! The telemetry listener against a peer that says anything, in pieces of any size.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use strait::admin;
use strait::config::resolved::{Secret, Telemetry};
use strait::env::{BoxFuture, Env, Listener, Stream, World};
use strait::limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep};

thread_local! {
    /// Its time jumps to the next deadline whenever everything waits.
    static RUNTIME: Runtime =
        Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
}

/// What a peer must show, if that is asked for.
const TOKEN: &str = "0123456789abcdef";

/// The first byte: 1 has the peer fall silent behind what it says, where it closes otherwise, 2 has the listener want a
/// token; the second: how many bytes come at a time; then what it says.
pub(super) fn run(data: &Bytes) {
    let Some((&[mode, size], _)) = data.split_first_chunk() else { return };
    let said = data.slice(2..);
    let whole = exchange(said.clone(), usize::MAX, mode);
    let pieces = exchange(said.clone(), usize::from(size) + 1, mode);
    // What is refused may be refused with a word or by silence: hyper tells a bad line that is whole.
    let is_served = |answer: &[u8]| answer.get(8..12) == Some(b" 200");
    assert_eq!(is_served(&whole), is_served(&pieces), "how it came changes what is answered");
    for answer in [whole, pieces] {
        if answer.is_empty() {
            continue;
        }
        let text = String::from_utf8(answer).expect("all that is served is text");
        assert!(text.starts_with("HTTP/1."), "{text}");
        assert_eq!(text.matches("content-type: ").count().max(1), 1, "two answers: {text}");
        let is_read = said.starts_with(b"GET ") || said.starts_with(b"HEAD ");
        let led = said.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(0);
        let is_read =
            is_read || said[led..].starts_with(b"GET ") || said[led..].starts_with(b"HEAD ");
        assert!(is_read || !text[8..].starts_with(" 200"), "served without a GET: {text}");
        let is_told = text.contains("strait_build_info") || text.contains("strait.status/1");
        let shows = said.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes());
        assert!(!is_told || shows || mode & 2 == 0, "told without the token: {text}");
    }
}

/// What the server answers, until it closes.
fn exchange(said: Bytes, piece_bytes: usize, mode: u8) -> Vec<u8> {
    let heard = Arc::default();
    let is_silent = mode & 1 != 0;
    let peer = Peer { said, piece_bytes, is_silent, heard: Arc::clone(&heard) };
    let closed = Arc::clone(&heard);
    let env = Env::of(Arc::new(OnePeer(Mutex::new(Some(peer)))));
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let mut at = Telemetry::plain(SocketAddr::from(([192, 0, 2, 1], 9660)));
            at.token = (mode & 2 != 0).then(|| Secret::new(TOKEN));
            let (_, serving) = admin::serve(env, &at, Arc::default()).await.expect("it binds");
            let began = Instant::now();
            let until_closed = async {
                while Arc::strong_count(&closed) > 2 {
                    sleep(Duration::from_millis(100)).await;
                }
            };
            tokio::select! {
                () = serving => {}
                () = until_closed => {}
            }
            let limit = limits::TELEMETRY_CONNECTION_TIMEOUT + Duration::from_secs(1);
            assert!(began.elapsed() <= limit, "a peer is kept for {:?}", began.elapsed());
        });
    });
    let heard: &Mutex<Vec<u8>> = &heard;
    std::mem::take(&mut *heard.lock().expect("one thread"))
}

/// A world in which one peer calls.
struct OnePeer(Mutex<Option<Peer>>);

impl World for OnePeer {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        let peer = Mutex::new(self.0.lock().expect("one thread").take());
        Box::pin(async move { Ok(Box::new(Door { at, peer }) as Box<dyn Listener>) })
    }

    fn wall_clock_ms(&self) -> i64 {
        1_790_000_000_000
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

struct Door {
    at: SocketAddr,
    peer: Mutex<Option<Peer>>,
}

impl Listener for Door {
    fn local_addr(&self) -> SocketAddr {
        self.at
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        let peer = self.peer.lock().expect("one thread").take();
        let from = self.at;
        Box::pin(async move {
            match peer {
                Some(peer) => Ok((Box::new(peer) as Box<dyn Stream>, from)),
                None => std::future::pending().await,
            }
        })
    }
}

struct Peer {
    said: Bytes,
    piece_bytes: usize,
    is_silent: bool,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.said.is_empty() && self.is_silent {
            return Poll::Pending; // for good: a timer ends it
        }
        let len = self.said.len().min(self.piece_bytes).min(buffer.remaining());
        buffer.put_slice(&self.said[..len]);
        self.said.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let len = bytes.len().min(self.piece_bytes);
        self.heard.lock().expect("one thread").extend_from_slice(&bytes[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
