//! More peers than anybody has, on a network and a clock of the test's own.

use std::io;
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::*;
use crate::connection::tests_support::on_a_lane;
use crate::engine::stats::{LinkEntry, MirrorStats};
use crate::env::BoxFuture;

const GOOD: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Who comes, and how many of them are held.
struct Door {
    waiting: Mutex<mpsc::Receiver<DuplexStream>>,
    held: Arc<Held>,
}

#[derive(Default)]
struct Held {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// A connection that counts for as long as it is held.
struct Counted(DuplexStream, Arc<Held>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.now.fetch_sub(1, Relaxed);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl Listener for Door {
    fn local_addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], 9660).into()
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async {
            let Some(stream) = self.waiting.lock().await.recv().await else {
                return std::future::pending().await;
            };
            let now = self.held.now.fetch_add(1, Relaxed) + 1;
            self.held.most.fetch_max(now, Relaxed);
            let stream = Counted(stream, self.held.clone());
            Ok((Box::new(stream) as Box<dyn Stream>, self.local_addr()))
        })
    }
}

/// So many come and say this, and then one who asks and reads: what it is told, when, and how many were held at most.
async fn behind(peers_count: usize, says: &[u8], board: Board) -> (String, Duration, usize) {
    let (peers, waiting) = mpsc::channel(peers_count + 1);
    let held = Arc::<Held>::default();
    let door = Door { waiting: Mutex::new(waiting), held: held.clone() };
    let (guard, _) = Guard::load(&Telemetry::default()).unwrap();
    let site = Arc::new(Site::new(Arc::new(board), guard));
    tokio::spawn(accept(Box::new(door), site, Patience::LIMITS));
    let came = async |says: &[u8]| {
        let (mut ours, theirs) = tokio::io::duplex(256);
        ours.write_all(says).await.unwrap();
        peers.send(theirs).await.unwrap();
        ours
    };
    let began = Instant::now();
    let mut flood = Vec::new();
    for _ in 0..peers_count {
        flood.push(came(says).await);
    }
    let mut good = came(GOOD).await;
    let mut answer = String::new();
    good.read_to_string(&mut answer).await.unwrap();
    (answer, began.elapsed(), held.most.load(Relaxed))
}

#[test]
fn ten_thousand_who_do_not_ask_keep_out_nobody_who_does() {
    on_a_lane(async {
        let (answer, took, most) = behind(10_000, b"GET / HTTP/1.1\r\nX: ", Board::default()).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("strait_build_info"),
            "{answer}"
        );
        assert_eq!(most, limits::TELEMETRY_CONNECTIONS_MAX);
        // All of them came before it.
        assert!(took < Duration::from_secs(20), "{took:?}");
    });
}

#[test]
fn a_thousand_who_do_not_read_keep_out_nobody_who_does() {
    on_a_lane(async {
        let board = Board::default();
        board.add_link(Arc::new(LinkEntry::new("a", "east", "west", true)));
        for partition in 0..100 {
            board.add_mirror(Arc::new(MirrorStats::new(
                "a".into(),
                "t".into(),
                "t".into(),
                partition,
            )));
        }
        let (answer, took, most) = behind(1_000, GOOD, board).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("partition=\"99\""),
            "{answer}"
        );
        assert_eq!(most, limits::TELEMETRY_CONNECTIONS_MAX);
        assert!(took < Duration::from_secs(20), "{took:?}");
    });
}
