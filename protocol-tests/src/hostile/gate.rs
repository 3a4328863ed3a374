//! What stands before the brokers of one embedded cluster: it ends TLS, counts who comes and what is asked, and has the
//! script tamper with the answers of broker 1. The broker behind it is honest and strict, so every other byte is right.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use strait::env::{BoxFuture, Env, Listener, Stream, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, split};
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;

use super::answer::{Answer, Deed, Frames};
use super::case::Case;

/// What the pipes hold.
const PIPE_BYTES: usize = 256 << 10;

/// The one broker that lies.
pub const LIAR: usize = 1;

#[derive(Default)]
struct State {
    script: Option<Arc<Case>>,
    /// How many answers it has tampered with.
    struck: u32,
    dials: Vec<Instant>,
    requests: Vec<Instant>,
    connections: u64,
    bound: usize,
}

/// A cluster's gate; clones share it.
#[derive(Clone)]
pub struct Gate {
    env: Env,
    tls: Option<Arc<rustls::ServerConfig>>,
    state: Arc<Mutex<State>>,
    cut: Arc<Notify>,
}

impl Gate {
    /// Before the cluster that lives in this world.
    pub fn new(env: Env, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        Self { env, tls, state: Arc::default(), cut: Arc::default() }
    }

    /// The world that the cluster shall see.
    pub fn env(&self) -> Env {
        Env::of(Arc::new(self.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Broker 1 lies from now on.
    pub fn strike(&self, case: Arc<Case>) {
        self.lock().script = Some(case);
    }

    /// It does no more.
    pub fn relent(&self) {
        self.lock().script = None;
    }

    /// All connections to broker 1 end.
    pub fn cut(&self) {
        self.cut.notify_waiters();
    }

    /// Answers that were tampered with.
    pub fn struck(&self) -> u32 {
        self.lock().struck
    }

    /// Connections to broker 1 since then.
    pub fn dials_since(&self, since: Instant) -> usize {
        self.lock().dials.iter().filter(|at| **at >= since).count()
    }

    /// Requests to broker 1 since then.
    pub fn requests_since(&self, since: Instant) -> usize {
        self.lock().requests.iter().filter(|at| **at >= since).count()
    }

    /// What becomes of an answer of broker 1.
    fn tamper(&self, mut answer: Answer) -> Deed {
        let mut state = self.lock();
        let Some(case) = state.script.clone() else { return Deed::Send(answer.frame()) };
        if !case.concerns(answer.api) || state.struck >= case.times {
            return Deed::Send(answer.frame());
        }
        answer.nth = state.struck;
        state.struck += 1;
        drop(state);
        (case.deed)(&answer)
    }
}

impl World for Gate {
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

    /// The brokers bind in their order, one listener each.
    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let outer = self.env.world().listen(at).await?;
            let broker = {
                let mut state = self.lock();
                state.bound += 1;
                state.bound
            };
            let (ready, accepted) = mpsc::channel(64);
            let address = outer.local_addr();
            let door = Door { gate: self.clone(), broker };
            let accepting = spawn_local(door.serve(outer, ready));
            let accepted = tokio::sync::Mutex::new(accepted);
            Ok(Box::new(Gated { address, accepted, accepting }) as Box<dyn Listener>)
        })
    }

    fn wall_clock_ms(&self) -> i64 {
        self.env.world().wall_clock_ms()
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        self.env.world().fill_random(buffer);
    }
}

type Accepted = (Box<dyn Stream>, SocketAddr);

struct Gated {
    address: SocketAddr,
    accepted: tokio::sync::Mutex<mpsc::Receiver<Accepted>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Gated {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Listener for Gated {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async {
            let next = self.accepted.lock().await.recv().await;
            next.ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
        })
    }
}

/// One broker's listener.
#[derive(Clone)]
struct Door {
    gate: Gate,
    broker: usize,
}

impl Door {
    async fn serve(self, outer: Box<dyn Listener>, ready: mpsc::Sender<Accepted>) {
        while let Ok((stream, from)) = outer.accept().await {
            let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
            if ready.send((Box::new(theirs), from)).await.is_err() {
                return;
            }
            let door = self.clone();
            spawn_local(async move {
                match door.gate.tls.clone() {
                    None => door.pass(stream, ours).await,
                    Some(config) => {
                        if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                            door.pass(Box::new(stream), ours).await;
                        }
                    }
                }
            });
        }
    }

    async fn pass(self, client: Box<dyn Stream>, broker: DuplexStream) {
        let connection = {
            let mut state = self.gate.lock();
            state.connections += 1;
            if self.broker == LIAR {
                state.dials.push(Instant::now());
            }
            state.connections
        };
        let asked = Rc::new(std::cell::RefCell::new(VecDeque::new()));
        let (from_client, to_client) = split(client);
        let (from_broker, to_broker) = split(broker);
        let requests = self.requests(from_client, to_broker, asked.clone());
        let answers = self.answers(from_broker, to_client, asked, connection);
        let cut = async {
            loop {
                self.gate.cut.notified().await;
                if self.broker == LIAR {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = cut => {}
            () = requests => {}
            () = answers => {}
        }
    }

    /// Passes requests on, and notes what is asked.
    async fn requests(
        &self,
        mut client: ReadHalf<Box<dyn Stream>>,
        mut broker: WriteHalf<DuplexStream>,
        asked: Rc<std::cell::RefCell<VecDeque<(ApiKey, i16, i32)>>>,
    ) {
        let mut frames = Frames::default();
        let mut buffer = vec![0; 16 << 10];
        loop {
            let Ok(len @ 1..) = client.read(&mut buffer).await else { return };
            frames.extend(&buffer[..len]);
            while let Some(frame) = frames.next() {
                let short = |at: usize| i16::from_be_bytes([frame[at], frame[at + 1]]);
                let api = ApiKey::try_from(short(0)).expect("an API of Kafka's");
                let correlation = i32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]);
                asked.borrow_mut().push_back((api, short(2), correlation));
                if self.broker == LIAR {
                    self.gate.lock().requests.push(Instant::now());
                }
            }
            if broker.write_all(&buffer[..len]).await.is_err() {
                return;
            }
        }
    }

    async fn answers(
        &self,
        mut broker: ReadHalf<DuplexStream>,
        mut client: WriteHalf<Box<dyn Stream>>,
        asked: Rc<std::cell::RefCell<VecDeque<(ApiKey, i16, i32)>>>,
        connection: u64,
    ) {
        let mut frames = Frames::default();
        let mut buffer = vec![0; 16 << 10];
        loop {
            let Ok(len @ 1..) = broker.read(&mut buffer).await else { return };
            frames.extend(&buffer[..len]);
            while let Some(frame) = frames.next() {
                let Some((api, version, correlation)) = asked.borrow_mut().pop_front() else {
                    return;
                };
                let deed = if self.broker == LIAR {
                    self.gate.tamper(answer(api, version, correlation, &frame, connection))
                } else {
                    Deed::Send(super::answer::sized(frame.to_vec()))
                };
                if write(&mut client, deed).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn answer(api: ApiKey, version: i16, correlation: i32, frame: &Bytes, connection: u64) -> Answer {
    let mut answer = Answer { api, version, correlation, body: Bytes::new(), nth: 0, connection };
    // An ApiVersions of an unknown version is answered in version 0, whose header is the same.
    answer.body = frame.slice(answer.head().len().min(frame.len())..);
    answer
}

async fn write(client: &mut WriteHalf<Box<dyn Stream>>, deed: Deed) -> io::Result<()> {
    match deed {
        Deed::Send(bytes) => {
            client.write_all(&bytes).await?;
            client.flush().await
        }
        Deed::Close(bytes) => {
            client.write_all(&bytes).await?;
            client.flush().await?;
            client.shutdown().await?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        Deed::Stall(bytes) => {
            client.write_all(&bytes).await?;
            client.flush().await?;
            std::future::pending().await
        }
        Deed::Drip(bytes, pause) => {
            for byte in bytes {
                client.write_all(&[byte]).await?;
                client.flush().await?;
                sleep(pause).await;
            }
            Ok(())
        }
    }
}
