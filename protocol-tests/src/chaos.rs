//! A faulty network: a TCP proxy that delays, slices, slows, stalls, cuts and damages, with counters that prove that a
//! fault fired.
//!
//! A broker's listener is advertised at a proxy's address ([`crate::lab::ClusterBuilder::advertise`]), so that clients
//! cannot go around it. All settings act at once, also on connections that exist.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

const CHUNK_BYTES: usize = 64 << 10;
/// Chunks on their way in one direction: enough for 1 GB/s at 60 ms, and a bound.
const CHUNKS_ON_THE_WAY: usize = 1024;
const TICK: Duration = Duration::from_millis(5);

/// The faults of one direction; all off at first.
#[derive(Debug, Default)]
pub struct Direction {
    delay_us: AtomicU64,
    bytes_per_second: AtomicU64,
    slice_bytes: AtomicU64,
    stalled: AtomicBool,
    deaf: AtomicBool,
    flip_after_bytes: AtomicI64,
    flip_armed: AtomicBool,
    bytes: AtomicU64,
    delayed: AtomicU64,
    held: AtomicU64,
    on_the_way: AtomicU64,
    flipped: AtomicU64,
}

impl Direction {
    /// Every byte arrives this much later; the bandwidth stays.
    pub fn delay(&self, delay: Duration) {
        self.delay_us.store(u64::try_from(delay.as_micros()).unwrap(), Relaxed);
    }

    /// Bytes per second of each connection; 0 is no limit.
    pub fn bandwidth(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second, Relaxed);
    }

    /// Writes at most so many bytes at a time; 0 is no limit.
    pub fn slice(&self, bytes: u64) {
        self.slice_bytes.store(bytes, Relaxed);
    }

    /// Takes bytes and delivers none.
    pub fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, Relaxed);
    }

    /// Reads nothing: the sender's socket fills up.
    pub fn stop_reading(&self, deaf: bool) {
        self.deaf.store(deaf, Relaxed);
    }

    /// Flips one bit, once, after so many more bytes.
    pub fn flip_after(&self, bytes: u64) {
        self.flip_after_bytes.store(i64::try_from(bytes).unwrap(), Relaxed);
        self.flip_armed.store(true, Relaxed);
    }

    /// Bytes delivered.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Chunks that were delayed.
    pub fn delayed(&self) -> u64 {
        self.delayed.load(Relaxed)
    }

    /// Times that a stall or deafness held a connection back.
    pub fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// Chunks that were read and are neither delivered yet nor given up, also of senders that are gone.
    pub fn on_the_way(&self) -> u64 {
        self.on_the_way.load(Relaxed)
    }

    /// Bits flipped.
    pub fn flipped(&self) -> u64 {
        self.flipped.load(Relaxed)
    }

    fn hold_while(&self, fault: &AtomicBool) {
        if fault.load(Relaxed) {
            self.held.fetch_add(1, Relaxed);
            while fault.load(Relaxed) {
                sleep(TICK);
            }
        }
    }

    fn damage(&self, chunk: &mut [u8]) {
        if !self.flip_armed.load(Relaxed) {
            return;
        }
        let length = i64::try_from(chunk.len()).unwrap();
        let left = self.flip_after_bytes.fetch_sub(length, Relaxed);
        if left < length && self.flip_armed.swap(false, Relaxed) {
            chunk[usize::try_from(left.max(0)).unwrap()] ^= 0x10;
            self.flipped.fetch_add(1, Relaxed);
        }
    }
}

/// A proxy in front of one address.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    to_server: Direction,
    to_client: Direction,
    target: Mutex<String>,
    live: Mutex<HashMap<u64, (TcpStream, TcpStream)>>,
    refuse: AtomicBool,
    closed: AtomicBool,
    accepted: AtomicU64,
    cut: AtomicU64,
}

impl Proxy {
    /// Listens; connections wait for [`Proxy::forward_to`].
    pub fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.closed.load(Relaxed) {
                    return;
                }
                accepting.accept(client);
            }
        });
        Self { port, shared }
    }

    /// Where the bytes go.
    pub fn forward_to(&self, address: &str) {
        *self.shared.target.lock().unwrap() = address.replace("localhost", "127.0.0.1");
    }

    /// `localhost:port`, to be advertised.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Faults of what clients send.
    pub fn to_server(&self) -> &Direction {
        &self.shared.to_server
    }

    /// Faults of what the server sends.
    pub fn to_client(&self) -> &Direction {
        &self.shared.to_client
    }

    /// Half the round trip in each direction.
    pub fn round_trip(&self, time: Duration) {
        self.to_server().delay(time / 2);
        self.to_client().delay(time / 2);
    }

    /// Closes every live connection now; gives their count.
    pub fn cut(&self) -> usize {
        let live = std::mem::take(&mut *self.shared.live.lock().unwrap());
        for (client, server) in live.values() {
            client.shutdown(Shutdown::Both).ok();
            server.shutdown(Shutdown::Both).ok();
        }
        self.shared.cut.fetch_add(live.len() as u64, Relaxed);
        live.len()
    }

    /// Closes every live connection towards its client; what clients have sent still arrives. Gives their count.
    pub fn desert(&self) -> usize {
        let live = self.shared.live.lock().unwrap();
        for (client, _) in live.values() {
            client.shutdown(Shutdown::Both).ok();
        }
        self.shared.cut.fetch_add(live.len() as u64, Relaxed);
        live.len()
    }

    /// Closes new connections at once.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refuse.store(refuse, Relaxed);
    }

    /// Connections taken so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Relaxed)
    }

    /// Connections cut so far.
    pub fn cuts(&self) -> u64 {
        self.shared.cut.load(Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Relaxed);
        for direction in [self.to_server(), self.to_client()] {
            direction.stall(false);
            direction.stop_reading(false);
        }
        self.cut();
        // Wakes the accepting thread, which sees `closed`.
        TcpStream::connect(("127.0.0.1", self.port)).ok();
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, client: TcpStream) {
        let number = self.accepted.fetch_add(1, Relaxed);
        let target = self.target.lock().unwrap().clone();
        if self.refuse.load(Relaxed) {
            return;
        }
        let Ok(server) = TcpStream::connect(target) else { return };
        client.set_nodelay(true).ok();
        server.set_nodelay(true).ok();
        let clone = |stream: &TcpStream| stream.try_clone().unwrap();
        self.live.lock().unwrap().insert(number, (clone(&client), clone(&server)));
        self.pump(number, clone(&client), clone(&server), |shared| &shared.to_server);
        self.pump(number, server, client, |shared| &shared.to_client);
    }

    /// Two threads a direction: one reads and stamps, one delivers when it is time.
    fn pump(
        self: &Arc<Self>,
        number: u64,
        mut from: TcpStream,
        to: TcpStream,
        direction: fn(&Self) -> &Direction,
    ) {
        let (sender, receiver): (SyncSender<(Instant, Vec<u8>)>, _) =
            sync_channel(CHUNKS_ON_THE_WAY);
        let reading = Arc::clone(self);
        spawn(move || {
            let direction = direction(&reading);
            let mut buffer = vec![0; CHUNK_BYTES];
            loop {
                direction.hold_while(&direction.deaf);
                let Ok(count @ 1..) = from.read(&mut buffer) else { return };
                let mut chunk = buffer[..count].to_vec();
                direction.damage(&mut chunk);
                let delay = Duration::from_micros(direction.delay_us.load(Relaxed));
                direction.on_the_way.fetch_add(1, Relaxed);
                if sender.send((Instant::now() + delay, chunk)).is_err() {
                    direction.on_the_way.fetch_sub(1, Relaxed);
                    return;
                }
            }
        });
        let writing = Arc::clone(self);
        spawn(move || {
            let direction = direction(&writing);
            deliver(direction, &receiver, &to);
            // The end of one direction ends both: half-open connections are a fault of their own.
            if let Some((client, server)) = writing.live.lock().unwrap().remove(&number) {
                client.shutdown(Shutdown::Both).ok();
                server.shutdown(Shutdown::Both).ok();
            }
            let given_up = receiver.iter().count() as u64;
            direction.on_the_way.fetch_sub(given_up, Relaxed);
        });
    }
}

fn deliver(direction: &Direction, chunks: &Receiver<(Instant, Vec<u8>)>, to: &TcpStream) {
    while let Ok((due, chunk)) = chunks.recv() {
        let delivered = deliver_one(direction, due, &chunk, to);
        direction.on_the_way.fetch_sub(1, Relaxed);
        if delivered.is_err() {
            return;
        }
    }
}

fn deliver_one(
    direction: &Direction,
    due: Instant,
    chunk: &[u8],
    mut to: &TcpStream,
) -> std::io::Result<()> {
    let wait = due.saturating_duration_since(Instant::now());
    if !wait.is_zero() {
        direction.delayed.fetch_add(1, Relaxed);
        sleep(wait);
    }
    let slice = match direction.slice_bytes.load(Relaxed) {
        0 => chunk.len(),
        bytes => usize::try_from(bytes).unwrap(),
    };
    for part in chunk.chunks(slice) {
        direction.hold_while(&direction.stalled);
        direction.bytes.fetch_add(part.len() as u64, Relaxed);
        to.write_all(part)?;
        let rate = direction.bytes_per_second.load(Relaxed);
        if rate > 0 {
            sleep(Duration::from_secs_f64(part.len() as f64 / rate as f64));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::wait_until;

    /// Echoes; gives its address.
    fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                spawn(move || std::io::copy(&mut &stream, &mut &stream).ok());
            }
        });
        address
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn round(stream: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
        stream.write_all(bytes).unwrap();
        let mut back = vec![0; bytes.len()];
        stream.read_exact(&mut back).unwrap();
        back
    }

    #[test]
    fn it_forwards_delays_and_slices() {
        let proxy = Proxy::listen();
        proxy.forward_to(&echo());
        let mut stream = connect(&proxy);
        assert_eq!(round(&mut stream, b"hello"), b"hello");
        proxy.round_trip(Duration::from_millis(60));
        proxy.to_client().slice(1);
        let start = Instant::now();
        assert_eq!(round(&mut stream, b"hello"), b"hello");
        assert!(start.elapsed() >= Duration::from_millis(60), "{:?}", start.elapsed());
        assert!(proxy.to_server().delayed() > 0 && proxy.to_client().delayed() > 0);
        assert_eq!(proxy.to_client().bytes(), 10);
    }

    #[test]
    fn it_flips_exactly_one_bit() {
        let proxy = Proxy::listen();
        proxy.forward_to(&echo());
        let mut stream = connect(&proxy);
        proxy.to_server().flip_after(150_000);
        let sent = vec![0; 300_000];
        stream.write_all(&sent).unwrap();
        let mut back = vec![0; sent.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        assert_eq!(proxy.to_server().flipped(), 1);
        assert_eq!(back[150_000], 0x10);
    }

    #[test]
    fn it_stalls_cuts_and_refuses() {
        let proxy = Proxy::listen();
        proxy.forward_to(&echo());
        let mut stream = connect(&proxy);
        proxy.to_client().stall(true);
        stream.write_all(b"x").unwrap();
        wait_until("the stall", 10, || proxy.to_client().held() > 0);
        assert_eq!(proxy.to_client().bytes(), 0);
        proxy.to_client().stall(false);
        stream.read_exact(&mut [0]).unwrap();
        assert_eq!(proxy.cut(), 1);
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        proxy.refuse(true);
        let mut refused = connect(&proxy);
        assert_eq!(refused.read(&mut [0]).unwrap_or(0), 0);
        assert_eq!((proxy.accepted(), proxy.cuts()), (2, 1));
    }
}
