//! What one machine of a run sees: the network, its own wall clock, its own randomness.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::Waker;
use std::time::Duration;

use strait::env::{BoxFuture, Listener, Moment, Stream, World};
use tokio::time::{Instant, sleep};

use super::network::{Bound, Connected, Network};
use super::stream::SimStream;

/// How often a blocked dial looks whether it may go on.
const DIAL_POLL: Duration = Duration::from_millis(20);
/// The wall clock at the start of every run: a day of 2027.
pub const EPOCH_MS: i64 = 1_800_000_000_000;

/// The [`World`] of one machine's engine.
pub(super) struct Host {
    network: Network,
    ip: IpAddr,
}

impl Host {
    pub(super) fn new(network: Network, ip: IpAddr) -> Self {
        Self { network, ip }
    }
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
            while self.network.lock().blocked.contains(&(self.ip, to))
                || self.network.lock().dead.contains(&self.ip)
            {
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

    fn reached(&self, moment: Moment) {
        let mut net = self.network.lock();
        let Some(doom) = &mut net.doom else { return };
        if (doom.machine, doom.moment) != (self.ip, moment) {
            return;
        }
        if doom.left > 0 {
            doom.left -= 1;
            return;
        }
        doom.struck.notify_one();
        net.doom = None;
        net.dead.insert(self.ip);
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
