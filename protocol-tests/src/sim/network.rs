//! The simulated network and clock: streams in memory with latency, cuts, stalls, half-delivered bytes and partitions.
//!
//! Every host sees it through a `Host`, which is the `World` of its `Env`. All of it stands behind one lock and runs on
//! one thread under tokio's paused clock, so that a seed decides every byte's moment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use strait::env::{BoxFuture, Env, Listener, Stream, World};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::rng::Rng;
use super::stream::SimStream;
use super::trace::Trace;

/// What a direction holds before its writer waits.
pub(super) const QUEUE_BYTES_MAX: usize = 256 << 10;
/// How often a blocked dial looks whether it may go on.
const DIAL_POLL: Duration = Duration::from_millis(20);
/// Events after which a run is taken to spin without getting anywhere.
const EVENTS_MAX: u64 = 20_000_000;
/// The wall clock at the start of every run: a day of 2027.
pub const EPOCH_MS: i64 = 1_800_000_000_000;

/// Bytes on their way in one direction of a connection.
#[derive(Default)]
pub(super) struct Direction {
    pub(super) chunks: VecDeque<(Instant, Bytes)>,
    pub(super) queued_bytes: usize,
    /// When the last chunk arrives; what follows arrives no earlier.
    pub(super) last_at: Option<Instant>,
    /// When the reader learns that the writer has gone.
    pub(super) ends_at: Option<Instant>,
    /// Behind what is queued comes a reset instead of an end.
    pub(super) reset: bool,
    /// Nothing is delivered before this.
    pub(super) stalled_until: Option<Instant>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl Direction {
    pub(super) fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

/// One connection: direction 0 is the client's bytes, 1 the server's.
pub(super) struct Connected {
    client: IpAddr,
    server: SocketAddr,
    pub(super) directions: [Direction; 2],
    /// By side: its stream was dropped.
    pub(super) closed: [bool; 2],
}

#[derive(Default)]
struct Bound {
    backlog: VecDeque<(u64, SocketAddr)>,
    waker: Option<Waker>,
}

/// A count of events to wait for.
struct Trap {
    left: u64,
    sprung: Arc<Notify>,
}

/// Everything behind the lock.
pub(super) struct Net {
    pub(super) rng: Rng,
    pub(super) trace: Trace,
    began: Instant,
    latency_us: (i64, i64),
    bound: BTreeMap<SocketAddr, Bound>,
    pub(super) connections: BTreeMap<u64, Connected>,
    next_connection: u64,
    next_port: u16,
    blocked: BTreeSet<(IpAddr, SocketAddr)>,
    skew_ms: BTreeMap<IpAddr, i64>,
    randomness: BTreeMap<IpAddr, Rng>,
    trap: Option<Trap>,
    events: u64,
}

impl Net {
    pub(super) fn latency(&mut self) -> Duration {
        let (low, high) = self.latency_us;
        // Now and then a straggler, as every network has.
        let factor = if self.rng.chance(2) { 20 } else { 1 };
        Duration::from_micros((self.rng.between(low, high) * factor).unsigned_abs())
    }

    pub(super) fn is_blocked(&self, connection: u64) -> bool {
        let Some(at) = self.connections.get(&connection) else { return false };
        self.blocked.contains(&(at.client, at.server))
    }

    /// Counts and records what happened; everything that a run does shows in its network.
    pub(super) fn note(&mut self, what: &'static str, connection: u64, bytes: &[u8]) {
        self.events += 1;
        assert!(self.events < EVENTS_MAX, "the run spins: {EVENTS_MAX} network events");
        let at = Instant::now() - self.began;
        let sum = u64::from(crc32c::crc32c(bytes));
        self.trace.note(at, what, &[connection, bytes.len() as u64, sum]);
        if let Some(trap) = &mut self.trap {
            trap.left -= 1;
            if trap.left == 0 {
                trap.sprung.notify_one();
                self.trap = None;
            }
        }
    }
}

/// The network of one run.
#[derive(Clone)]
pub struct Network(pub(super) Arc<Mutex<Net>>);

impl Network {
    /// An empty network; latencies are between these two, in microseconds.
    pub fn new(rng: Rng, latency_us: (i64, i64)) -> Self {
        Self(Arc::new(Mutex::new(Net {
            rng,
            trace: Trace::default(),
            began: Instant::now(),
            latency_us,
            bound: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            next_port: 1000,
            blocked: BTreeSet::new(),
            skew_ms: BTreeMap::new(),
            randomness: BTreeMap::new(),
            trap: None,
            events: 0,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Net> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The world as the machine at `ip` sees it.
    pub fn host(&self, ip: IpAddr, rng: Rng) -> Env {
        self.lock().randomness.insert(ip, rng);
        Env::of(Arc::new(Host { network: self.clone(), ip }))
    }

    /// Since the run began.
    pub fn elapsed(&self) -> Duration {
        Instant::now() - self.lock().began
    }

    /// What happened, for the trace: faults, starts, findings.
    pub fn note(&self, what: &'static str, numbers: &[u64]) {
        let mut net = self.lock();
        let at = Instant::now() - net.began;
        net.trace.note(at, what, numbers);
    }

    /// The trace so far.
    pub fn trace(&self) -> Trace {
        self.lock().trace.clone()
    }

    /// Events so far: chunks that arrived, connections that came and went.
    pub fn events(&self) -> u64 {
        self.lock().events
    }

    /// Moves the wall clock of one machine.
    pub fn set_skew_ms(&self, ip: IpAddr, skew_ms: i64) {
        self.lock().skew_ms.insert(ip, skew_ms);
    }

    /// Connections that are open, with their client.
    pub fn connections(&self) -> Vec<(u64, IpAddr)> {
        self.lock().connections.iter().map(|(id, at)| (*id, at.client)).collect()
    }

    /// A connection is reset. Of the bytes on their way some prefix still arrives, in each direction.
    pub fn cut(&self, connection: u64) {
        let mut net = self.lock();
        net.note("cut", connection, &[]);
        let Net { connections, rng, .. } = &mut *net;
        let Some(at) = connections.get_mut(&connection) else { return };
        for direction in &mut at.directions {
            let mut keep = rng.below(direction.queued_bytes + 1);
            for (_, chunk) in &mut direction.chunks {
                let part = keep.min(chunk.len());
                chunk.truncate(part);
                keep -= part;
            }
            direction.chunks.retain(|(_, chunk)| !chunk.is_empty());
            direction.queued_bytes = direction.chunks.iter().map(|(_, chunk)| chunk.len()).sum();
            direction.reset = true;
            direction.wake();
        }
    }

    /// Nothing arrives on a connection for a while, in one direction.
    pub fn stall(&self, connection: u64, direction: usize, time: Duration) {
        let mut net = self.lock();
        net.note("stall", connection, &[]);
        if let Some(at) = net.connections.get_mut(&connection) {
            at.directions[direction].stalled_until = Some(Instant::now() + time);
        }
    }

    /// No byte passes between this client and this address until it is unblocked; nobody is told.
    pub fn block(&self, client: IpAddr, server: SocketAddr) {
        self.lock().blocked.insert((client, server));
    }

    /// The opposite of [`Self::block`].
    pub fn unblock(&self, client: IpAddr, server: SocketAddr) {
        let mut net = self.lock();
        net.blocked.remove(&(client, server));
        net.connections.values_mut().flat_map(|at| &mut at.directions).for_each(Direction::wake);
    }

    /// Ends blocks and stalls.
    pub fn heal(&self) {
        let mut net = self.lock();
        net.blocked.clear();
        for direction in net.connections.values_mut().flat_map(|at| &mut at.directions) {
            direction.stalled_until = None;
            direction.wake();
        }
    }

    /// Rings after so many more network events: a moment that no clock could name.
    pub fn after_events(&self, events: u64) -> Arc<Notify> {
        let sprung = Arc::new(Notify::new());
        self.lock().trap = Some(Trap { left: events.max(1), sprung: sprung.clone() });
        sprung
    }

    fn unbind(&self, at: SocketAddr) {
        let mut net = self.lock();
        let Some(bound) = net.bound.remove(&at) else { return };
        for (id, _) in bound.backlog {
            close(&mut net, id, 1);
        }
    }
}

/// A side's stream is gone. What it wrote still arrives; what is sent to it is lost.
pub(super) fn close(net: &mut Net, connection: u64, side: usize) {
    net.note("close", connection, &[]);
    let delay = net.latency();
    let Some(at) = net.connections.get_mut(&connection) else { return };
    at.closed[side] = true;
    let out = &mut at.directions[side];
    let last = out.last_at.unwrap_or_else(Instant::now).max(Instant::now());
    out.ends_at.get_or_insert(last + delay);
    out.wake();
    at.directions[1 - side].wake();
    if at.closed == [true, true] {
        net.connections.remove(&connection);
    }
}

/// One machine's view.
struct Host {
    network: Network,
    ip: IpAddr,
}

impl World for Host {
    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            let ip: IpAddr = host.parse().map_err(io::Error::other)?;
            Ok(vec![SocketAddr::new(ip, port)])
        })
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let there = self.network.lock().latency();
            sleep(there).await;
            while self.network.lock().blocked.contains(&(self.ip, to)) {
                sleep(DIAL_POLL).await;
            }
            let (stream, back) = {
                let mut net = self.network.lock();
                let id = net.next_connection;
                net.next_connection += 1;
                net.note("connect", id, &[]);
                let back = net.latency();
                let Some(bound) = net.bound.get_mut(&to) else {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                };
                let from = SocketAddr::new(self.ip, (id % 60_000) as u16 + 1024);
                bound.backlog.push_back((id, from));
                let waker = bound.waker.take();
                let connected = Connected {
                    client: self.ip,
                    server: to,
                    directions: Default::default(),
                    closed: [false; 2],
                };
                net.connections.insert(id, connected);
                waker.into_iter().for_each(Waker::wake);
                (SimStream::new(self.network.clone(), id, 0), back)
            };
            sleep(back).await;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let mut net = self.network.lock();
            let mut at = at;
            if at.port() == 0 {
                net.next_port += 1;
                at.set_port(net.next_port);
            }
            if net.bound.insert(at, Bound::default()).is_some() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            Ok(Box::new(SimListener { network: self.network.clone(), at }) as Box<dyn Listener>)
        })
    }

    fn wall_clock_ms(&self) -> i64 {
        let net = self.network.lock();
        let elapsed = i64::try_from((Instant::now() - net.began).as_millis()).unwrap_or(0);
        EPOCH_MS + elapsed + net.skew_ms.get(&self.ip).copied().unwrap_or(0)
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        let mut net = self.network.lock();
        let rng = net.randomness.get_mut(&self.ip).expect("every host brings its randomness");
        buffer.chunks_mut(8).for_each(|part| {
            let bytes = rng.next_u64().to_le_bytes();
            part.copy_from_slice(&bytes[..part.len()]);
        });
    }
}

struct SimListener {
    network: Network,
    at: SocketAddr,
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.network.unbind(self.at);
    }
}

impl Listener for SimListener {
    fn local_addr(&self) -> SocketAddr {
        self.at
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        let accept = std::future::poll_fn(|cx| {
            let mut net = self.network.lock();
            let Some(bound) = net.bound.get_mut(&self.at) else {
                return std::task::Poll::Pending;
            };
            let Some((id, from)) = bound.backlog.pop_front() else {
                bound.waker = Some(cx.waker().clone());
                return std::task::Poll::Pending;
            };
            let stream = SimStream::new(self.network.clone(), id, 1);
            std::task::Poll::Ready(Ok((Box::new(stream) as Box<dyn Stream>, from)))
        });
        Box::pin(accept)
    }
}
