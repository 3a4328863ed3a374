//! A world whose listeners are slow: what a cluster reads and writes can stop, or come a byte now and then.
//!
//! An embedded cluster that is started in it is a peer that stalls (reads nothing), trickles, or is silent (writes
//! nothing), on all its connections at once, as long as a test says.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use strait::env::{BoxFuture, Env, Listener, Stream, World};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How often a held stream looks whether it still is, and the pace of a trickle: a byte each.
const TICK: Duration = Duration::from_millis(50);

/// How bytes pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As they come.
    Free = 0,
    /// One, now and then.
    Trickle = 1,
    /// Not at all.
    Stopped = 2,
}

#[derive(Debug, Default)]
struct Way {
    pace: AtomicU8,
    held: AtomicU64,
}

impl Way {
    fn pace(&self) -> Pace {
        match self.pace.load(Relaxed) {
            0 => Pace::Free,
            1 => Pace::Trickle,
            _ => Pace::Stopped,
        }
    }
}

#[derive(Debug, Default)]
struct Ways {
    reads: Way,
    writes: Way,
    accepted: AtomicU64,
}

/// The world, and the handle on its pace; clones share it.
#[derive(Clone)]
pub struct Sluggish {
    env: Env,
    ways: Arc<Ways>,
}

impl Sluggish {
    /// Over the operating system's network; free at first.
    pub fn new() -> Self {
        Self { env: Env::real(), ways: Arc::default() }
    }

    /// The world that the cluster shall see.
    pub fn env(&self) -> Env {
        Env::of(Arc::new(self.clone()))
    }

    /// How the cluster reads from now on.
    pub fn read(&self, pace: Pace) {
        self.ways.reads.pace.store(pace as u8, Relaxed);
    }

    /// How the cluster writes from now on.
    pub fn write(&self, pace: Pace) {
        self.ways.writes.pace.store(pace as u8, Relaxed);
    }

    /// How often a read or a write was held back.
    pub fn held(&self) -> u64 {
        self.ways.reads.held.load(Relaxed) + self.ways.writes.held.load(Relaxed)
    }

    /// Connections that were taken.
    pub fn accepted(&self) -> u64 {
        self.ways.accepted.load(Relaxed)
    }
}

impl Default for Sluggish {
    fn default() -> Self {
        Self::new()
    }
}

impl World for Sluggish {
    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        self.env.world().resolve(host, port)
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        self.env.world().connect(to)
    }

    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let inner = self.env.world().listen(at).await?;
            Ok(Box::new(Slow { inner, ways: self.ways.clone() }) as Box<dyn Listener>)
        })
    }

    fn wall_clock_ms(&self) -> i64 {
        self.env.world().wall_clock_ms()
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        self.env.world().fill_random(buffer);
    }
}

struct Slow {
    inner: Box<dyn Listener>,
    ways: Arc<Ways>,
}

impl Listener for Slow {
    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = self.inner.accept().await?;
            self.ways.accepted.fetch_add(1, Relaxed);
            let ways = self.ways.clone();
            let slow = SlowStream { stream, ways, read_at: None, write_at: None };
            Ok((Box::new(slow) as Box<dyn Stream>, peer))
        })
    }
}

struct SlowStream {
    stream: Box<dyn Stream>,
    ways: Arc<Ways>,
    read_at: Option<Pin<Box<Sleep>>>,
    write_at: Option<Pin<Box<Sleep>>>,
}

/// Ready with how many of `bytes` may pass now.
fn allowed(
    way: &Way,
    at: &mut Option<Pin<Box<Sleep>>>,
    bytes: usize,
    cx: &mut Context<'_>,
) -> Poll<usize> {
    loop {
        if let Some(tick) = at {
            ready!(tick.as_mut().poll(cx));
            *at = None;
            if way.pace() == Pace::Trickle {
                return Poll::Ready(bytes.min(1));
            }
        }
        if way.pace() == Pace::Free {
            return Poll::Ready(bytes);
        }
        way.held.fetch_add(1, Relaxed);
        *at = Some(Box::pin(sleep(TICK)));
    }
}

impl AsyncRead for SlowStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let count = ready!(allowed(&this.ways.reads, &mut this.read_at, buffer.remaining(), cx));
        let mut part = buffer.take(count);
        match Pin::new(&mut this.stream).poll_read(cx, &mut part) {
            Poll::Ready(Ok(())) => {
                let filled = part.filled().to_vec();
                buffer.put_slice(&filled);
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}

impl AsyncWrite for SlowStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(allowed(&this.ways.writes, &mut this.write_at, bytes.len(), cx));
        Pin::new(&mut this.stream).poll_write(cx, &bytes[..count])
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
