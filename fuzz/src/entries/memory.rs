//! A network in memory: pipes without delay, and a script for the answers of one host.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use strait::env::{BoxFuture, Env, Listener, Stream, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until};

/// What a pipe holds before its writer waits.
const PIPE_BYTES: usize = 64 << 10;

/// Connections that wait to be accepted; more are refused.
const BACKLOG: usize = 64;

/// What becomes of one answer. `far` is a place in it, in parts of 256.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deed {
    /// The connection ends behind so much of it.
    Close { far: u8 },
    /// It is late, and what follows on its connection with it, in both directions.
    Wait(Duration),
    /// It never comes, nor does anything behind it on its connection.
    Swallow,
    /// A byte is another.
    Flip { far: u8, bits: u8 },
    /// A length of 2^31 - 1 or more stands in it.
    Long { far: u8, last: u8 },
    /// It ends there, and its size says so.
    Cut { far: u8 },
    /// It comes twice.
    Twice,
}

/// The script: each deed, and how many answers pass before it.
pub(super) struct Deeds {
    pub(super) host: &'static str,
    pub(super) left: VecDeque<(u8, Deed)>,
}

impl Deeds {
    fn next(&mut self) -> Option<Deed> {
        let (before, _) = self.left.front_mut()?;
        if *before > 0 {
            *before -= 1;
            return None;
        }
        self.left.pop_front().map(|(_, deed)| deed)
    }
}

type Accepted = (Box<dyn Stream>, SocketAddr);

struct State {
    doors: HashMap<SocketAddr, mpsc::Sender<Accepted>>,
    dials: usize,
    deeds: Deeds,
}

#[derive(Clone)]
pub(super) struct Memory {
    state: Arc<Mutex<State>>,
    random: Arc<AtomicU64>,
}

impl Memory {
    pub(super) fn new(deeds: Deeds) -> Self {
        let state = State { doors: HashMap::new(), dials: 0, deeds };
        Self { state: Arc::new(Mutex::new(state)), random: Arc::new(AtomicU64::new(1)) }
    }

    pub(super) fn env(&self) -> Env {
        Env::of(Arc::new(self.clone()))
    }

    pub(super) fn dials(&self) -> usize {
        self.lock().dials
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("one thread")
    }

    fn dial(&self, to: SocketAddr) -> io::Result<Box<dyn Stream>> {
        let mut state = self.lock();
        state.dials += 1;
        let door = state.doors.get(&to).ok_or(io::ErrorKind::ConnectionRefused)?;
        let (client, server) = duplex(PIPE_BYTES);
        let from = SocketAddr::from(([10, 0, 0, 1], 40_000));
        if to.ip().to_string() != state.deeds.host {
            door.try_send((Box::new(server), from))
                .map_err(|_| io::ErrorKind::ConnectionRefused)?;
            return Ok(Box::new(client));
        }
        let (ours, broker) = duplex(PIPE_BYTES);
        door.try_send((Box::new(broker), from)).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        spawn_local(pass(self.clone(), server, ours));
        Ok(Box::new(client))
    }
}

impl World for Memory {
    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            let ip = host.parse().map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
            Ok(vec![SocketAddr::new(ip, port)])
        })
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move { self.dial(to) })
    }

    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let at = SocketAddr::new(at.ip(), if at.port() == 0 { 9092 } else { at.port() });
            let (knocking, accepted) = mpsc::channel(BACKLOG);
            if self.lock().doors.insert(at, knocking).is_some() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            Ok(Box::new(Door { at, accepted: tokio::sync::Mutex::new(accepted) }) as _)
        })
    }

    fn wall_clock_ms(&self) -> i64 {
        super::orders::NOW_MS
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        for byte in buffer {
            let word =
                self.random.load(Relaxed).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            self.random.store(word, Relaxed);
            *byte = (word >> 56) as u8;
        }
    }
}

struct Door {
    at: SocketAddr,
    accepted: tokio::sync::Mutex<mpsc::Receiver<Accepted>>,
}

impl Listener for Door {
    fn local_addr(&self) -> SocketAddr {
        self.at
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async {
            let next = self.accepted.lock().await.recv().await;
            next.ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
        })
    }
}

/// Passes requests as they come and answers as the script says.
async fn pass(memory: Memory, client: DuplexStream, broker: DuplexStream) {
    let (mut from_client, mut to_client) = split(client);
    let (mut from_broker, mut to_broker) = split(broker);
    let held = Cell::new(Instant::now());
    let requests = async {
        let mut buffer = vec![0; 4 << 10];
        while let len @ 1.. = from_client.read(&mut buffer).await? {
            sleep_until(held.get()).await;
            to_broker.write_all(&buffer[..len]).await?;
        }
        io::Result::Ok(())
    };
    let answers = async {
        loop {
            let size = from_broker.read_u32().await?;
            let mut frame = vec![0; size as usize];
            from_broker.read_exact(&mut frame).await?;
            let deed = memory.lock().deeds.next();
            if let Some(Deed::Wait(time)) = deed {
                held.set(Instant::now() + time);
            }
            say(&mut to_client, deed, frame).await?;
        }
        #[allow(unreachable_code, reason = "names the type")]
        io::Result::Ok(())
    };
    tokio::select! {
        _ = requests => {}
        _ = answers => {}
    }
}

async fn say(
    client: &mut (impl AsyncWriteExt + Unpin),
    deed: Option<Deed>,
    mut frame: Vec<u8>,
) -> io::Result<()> {
    let place = |far: u8| frame.len() * usize::from(far) / 256;
    let mut times = 1;
    match deed {
        None => {}
        Some(Deed::Close { far }) => {
            let whole = [&(frame.len() as u32).to_be_bytes()[..], &frame].concat();
            if far > 0 {
                client.write_all(&whole[..whole.len() * usize::from(far) / 256]).await?;
            }
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Some(Deed::Wait(time)) => sleep(time).await,
        Some(Deed::Swallow) => std::future::pending().await,
        Some(Deed::Flip { far, bits }) => {
            let place = place(far);
            if let Some(byte) = frame.get_mut(place) {
                *byte ^= bits;
            }
        }
        Some(Deed::Long { far, last }) => {
            let place = place(far);
            let long = [0xff, 0xff, 0xff, 0xff, last];
            frame.iter_mut().skip(place).zip(long).for_each(|(byte, long)| *byte = long);
        }
        Some(Deed::Cut { far }) => frame.truncate(place(far).max(4)),
        Some(Deed::Twice) => times = 2,
    }
    for _ in 0..times {
        client.write_all(&[&(frame.len() as u32).to_be_bytes()[..], &frame].concat()).await?;
    }
    Ok(())
}
