//! The seam to the world: clock, network, randomness.
//!
//! Everything above takes an [`Env`]; nothing else in the crate may touch the real ones (`.clippy.toml` bans them by
//! name). [`Env::real`] is the operating system; the simulator brings a [`World`] of its own. Timers are the exception:
//! `tokio::time` is used directly, because its clock can be paused and driven.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// A future that may cross threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A byte stream to a peer, before TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What accepts connections: the embedded broker and the telemetry server listen through it.
pub trait Listener: Send + Sync {
    /// The address that was bound, with the port that the system chose.
    fn local_addr(&self) -> SocketAddr;
    /// The next peer.
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>>;
}

/// Clock, network and randomness of one run.
pub trait World: Send + Sync {
    /// The addresses of `host`.
    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
    /// A connected stream, no delay set, keep-alive on.
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>>;
    /// A bound listener.
    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;
    /// Milliseconds since 1970, as record timestamps count. May jump; never used for a deadline.
    fn wall_clock_ms(&self) -> i64;
    /// Unpredictable bytes (nonces, jitter, member ids).
    fn fill_random(&self, buffer: &mut [u8]);
    /// The engine is at this moment: a test's world may end the process here.
    fn reached(&self, _moment: Moment) {}
}

/// Moments of a mirror's life at which a crash must neither lose nor repeat a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The link's task made a topic on the target.
    TopicCreated,
    /// The committed position is known, the target not asked yet.
    PositionRead,
    /// A new numbering is committed, nothing sent under it.
    AnchorCommitted,
    /// A batch was admitted and waits for its window.
    Admitted,
    /// A batch was counted off as one that the target holds already.
    CountedOff,
    /// A request was handed to the connection.
    Sent,
    /// An answer to it came and was not looked at.
    Answered,
    /// Its batches are settled, nothing committed.
    Settled,
    /// A commit is about to be sent.
    Committing,
    /// A commit was answered.
    Committed,
    /// After a doubt: the target's replicated end is known, nothing read.
    LogEndKnown,
    /// After a doubt: the target is read, nothing settled.
    ReadBack,
    /// Fetching has stopped for good; the last acks and the last commit are to come.
    Draining,
    /// A mirror's older lives are fenced on the target, its position there is not read.
    Fenced,
    /// A transaction is open, nothing sent in it.
    TransactionOpened,
    /// The position is in the transaction, which is not ended.
    PositionAdded,
    /// A transaction was committed; nothing else knows.
    TransactionEnded,
}

impl Moment {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::TopicCreated,
        Self::PositionRead,
        Self::AnchorCommitted,
        Self::Admitted,
        Self::CountedOff,
        Self::Sent,
        Self::Answered,
        Self::Settled,
        Self::Committing,
        Self::Committed,
        Self::LogEndKnown,
        Self::ReadBack,
        Self::Draining,
        Self::Fenced,
        Self::TransactionOpened,
        Self::PositionAdded,
        Self::TransactionEnded,
    ];
}

/// A cheap handle on a [`World`].
#[derive(Clone)]
pub struct Env(Arc<dyn World>);

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env")
    }
}

impl Env {
    /// The operating system's clock, network and randomness.
    pub fn real() -> Self {
        Self(Arc::new(real::Real))
    }

    /// A world of the caller's own, for simulation.
    pub fn of(world: Arc<dyn World>) -> Self {
        Self(world)
    }

    /// The world itself.
    pub fn world(&self) -> &dyn World {
        &*self.0
    }

    /// The monotonic clock: deadlines, latencies, back-off.
    #[allow(clippy::unused_self, reason = "reads tokio's clock, which a simulation pauses")]
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Milliseconds since 1970, as record timestamps count.
    pub fn wall_clock_ms(&self) -> i64 {
        self.0.wall_clock_ms()
    }

    /// A random number.
    pub fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill_random(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Tells the world where the engine is. Nothing in a release build.
    pub fn reached(&self, moment: Moment) {
        if cfg!(debug_assertions) {
            self.0.reached(moment);
        }
    }

    /// `base` doubled `attempt` times, capped at `max`, then anywhere in its upper half: retries of many
    /// mirrors spread out instead of arriving together.
    pub fn backoff(&self, base: Duration, max: Duration, attempt: u32) -> Duration {
        let full = base.saturating_mul(1 << attempt.min(16)).min(max);
        let half = full / 2;
        let jitter_ns = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_nanos(self.random_u64() % jitter_ns)
    }
}

#[allow(clippy::disallowed_methods, reason = "the one place that touches the real world")]
mod real {
    use super::{BoxFuture, Listener, Stream, World};
    use std::io;
    use std::net::SocketAddr;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};
    use tokio::net::{TcpListener, TcpStream};

    pub(super) struct Real;

    impl World for Real {
        fn resolve<'a>(
            &'a self,
            host: &'a str,
            port: u16,
        ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
            Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
        }

        fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
            Box::pin(async move {
                let stream = TcpStream::connect(to).await?;
                stream.set_nodelay(true)?;
                let keepalive = socket2::TcpKeepalive::new()
                    .with_time(Duration::from_secs(60))
                    .with_interval(Duration::from_secs(10));
                socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                Ok(Box::new(stream) as Box<dyn Stream>)
            })
        }

        fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
            Box::pin(async move {
                let listener = TcpListener::bind(at).await?;
                let addr = listener.local_addr()?;
                Ok(Box::new(RealListener { listener, addr }) as Box<dyn Listener>)
            })
        }

        fn wall_clock_ms(&self) -> i64 {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        }

        fn fill_random(&self, buffer: &mut [u8]) {
            if aws_lc_rs::rand::fill(buffer).is_err() {
                // aws-lc aborts rather than fail here; keep the buffer from staying constant all the same.
                let seed = self.wall_clock_ms().to_le_bytes();
                buffer.iter_mut().zip(seed.iter().cycle()).for_each(|(b, s)| *b ^= s);
            }
        }
    }

    struct RealListener {
        listener: TcpListener,
        addr: SocketAddr,
    }

    impl Listener for RealListener {
        fn local_addr(&self) -> SocketAddr {
            self.addr
        }

        fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
            Box::pin(async move {
                let (stream, peer) = self.listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Box::new(stream) as Box<dyn Stream>, peer))
            })
        }
    }
}
