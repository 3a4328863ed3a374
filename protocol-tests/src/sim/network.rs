//! The simulated network and clock: streams in memory with latency, cuts, stalls, half-delivered bytes and partitions.
//!
//! Every machine sees it through a `Host`. All of it stands behind one lock and runs on one thread under tokio's paused
//! clock, so that a seed decides every byte's moment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use strait::env::{Env, Moment};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::host::Host;
use super::rng::Rng;
use super::trace::Trace;

/// What a direction holds before its writer waits.
pub(super) const QUEUE_BYTES_MAX: usize = 256 << 10;
/// Events after which a run is taken to spin without getting anywhere.
const EVENTS_MAX: u64 = 20_000_000;

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
    pub(super) client: IpAddr,
    pub(super) server: SocketAddr,
    pub(super) directions: [Direction; 2],
    /// By side: its stream was dropped.
    pub(super) closed: [bool; 2],
}

#[derive(Default)]
pub(super) struct Bound {
    pub(super) backlog: VecDeque<(u64, SocketAddr)>,
    pub(super) waker: Option<Waker>,
}

/// A count of events to wait for.
struct Trap {
    left: u64,
    sprung: Arc<Notify>,
}

/// A moment of an engine's life at which its machine dies.
pub(super) struct Doom {
    pub(super) machine: IpAddr,
    pub(super) moment: Moment,
    /// So many times it passes.
    pub(super) left: u32,
    pub(super) struck: Arc<Notify>,
}

/// Everything behind the lock.
pub(super) struct Net {
    pub(super) rng: Rng,
    pub(super) trace: Trace,
    pub(super) began: Instant,
    latency_us: (i64, i64),
    pub(super) bound: BTreeMap<SocketAddr, Bound>,
    pub(super) connections: BTreeMap<u64, Connected>,
    pub(super) next_connection: u64,
    pub(super) next_port: u16,
    pub(super) blocked: BTreeSet<(IpAddr, SocketAddr)>,
    pub(super) skew_ms: BTreeMap<IpAddr, i64>,
    pub(super) randomness: BTreeMap<IpAddr, Rng>,
    trap: Option<Trap>,
    pub(super) doom: Option<Doom>,
    /// Machines that died at a moment of theirs: nothing that they still do reaches anybody.
    pub(super) dead: BTreeSet<IpAddr>,
    events: u64,
}

impl Net {
    /// Whether this side's machine is dead.
    pub(super) fn is_dead(&self, connection: u64, side: usize) -> bool {
        let client = self.connections.get(&connection).map(|at| at.client);
        side == 0 && client.is_some_and(|client| self.dead.contains(&client))
    }

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
            doom: None,
            dead: BTreeSet::new(),
            events: 0,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Net> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The world as the machine at `ip` sees it.
    pub fn host(&self, ip: IpAddr, rng: Rng) -> Env {
        self.lock().randomness.insert(ip, rng);
        Env::of(Arc::new(Host::new(self.clone(), ip)))
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

    /// The machine dies when its engine comes to this moment for the so-manieth time from now: from that very call on
    /// nothing that it does reaches anybody. Rings then.
    pub fn die_at(&self, machine: IpAddr, moment: Moment, passes: u32) -> Arc<Notify> {
        let struck = Arc::new(Notify::new());
        let doom = Doom { machine, moment, left: passes, struck: struck.clone() };
        self.lock().doom = Some(doom);
        struck
    }

    /// Nobody is to die any more.
    pub fn spare(&self) {
        self.lock().doom = None;
    }

    /// The machine is a new one.
    pub fn revive(&self, machine: IpAddr) {
        self.lock().dead.remove(&machine);
    }

    pub(super) fn unbind(&self, at: SocketAddr) {
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
