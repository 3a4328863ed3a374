//! Listeners and tasks: what is up is served, what is down is not, and time passes.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet, spawn_local};
use tokio::time::Instant;

use super::connection::{self, Peer};
use super::control::Cluster;
use super::options::Options;
use super::state::{Broker, Shared, State};
use crate::env::{Env, Listener};

/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(50);

/// A cluster on a thread of its own; it ends when this is dropped.
pub struct EmbeddedCluster {
    cluster: Cluster,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl EmbeddedCluster {
    /// Binds every listener and begins to serve. Fails when an address cannot be bound.
    pub fn start(env: Env, options: Options) -> io::Result<Self> {
        let (opened, opening) = std::sync::mpsc::sync_channel(1);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default());
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(opened.send(Err(error))),
            };
            runtime.block_on(async move {
                match open(env, options).await {
                    Err(error) => drop(opened.send(Err(error))),
                    Ok((cluster, serving)) => {
                        drop(opened.send(Ok(cluster)));
                        serving.await;
                    }
                }
            });
        };
        let thread = std::thread::Builder::new().name("embedded-kafka".into()).spawn(run)?;
        let cluster = opening.recv().map_err(io::Error::other)??;
        Ok(Self { cluster, thread: Some(thread) })
    }

    /// Closes all connections and ends the thread.
    pub fn stop(self) {
        drop(self);
    }
}

impl Deref for EmbeddedCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for EmbeddedCluster {
    fn drop(&mut self) {
        self.cluster.shut_down();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the embedded cluster's thread panicked");
        }
    }
}

/// Binds every listener; the future serves until [`Cluster::shut_down`] and must run where `spawn_local` works.
pub async fn open(env: Env, options: Options) -> io::Result<(Cluster, impl Future<Output = ()>)> {
    let cluster_id = options.cluster_id.clone().unwrap_or_else(|| {
        use base64::Engine;
        let bits = (u128::from(env.random_u64()) << 64) | u128::from(env.random_u64());
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bits.to_be_bytes())
    });
    let shared = Shared::new(env, State::new(options, cluster_id));
    let ids: Vec<i32> = shared.lock().brokers.iter().map(|broker| broker.id).collect();
    let mut bound = BTreeMap::new();
    for id in ids {
        bound.insert(id, bind(&shared, id).await?);
    }
    let cluster = Cluster::new(Arc::clone(&shared));
    Ok((cluster, supervise(shared, bound)))
}

/// Binds a broker's listeners: on new ports the first time, on the same ones after.
async fn bind(shared: &Shared, id: i32) -> io::Result<Vec<Box<dyn Listener>>> {
    let wanted = {
        let mut state = shared.lock();
        let options = &state.options;
        let ip: IpAddr = match options.host.as_str() {
            "localhost" => IpAddr::from([127, 0, 0, 1]),
            host => host.parse().map_err(io::Error::other)?,
        };
        let count = options.listeners.len();
        let first = usize::try_from(id - 1).unwrap_or(0) * count;
        let port = |index: usize| match options.port {
            0 => 0,
            port => port + u16::try_from(first + index).unwrap_or(0),
        };
        let fresh: Vec<SocketAddr> = (0..count).map(|i| SocketAddr::new(ip, port(i))).collect();
        match state.broker(id) {
            Some(broker) if !broker.addresses.is_empty() => broker.addresses.clone(),
            _ => fresh,
        }
    };
    let mut listeners = Vec::with_capacity(wanted.len());
    for at in wanted {
        listeners.push(shared.env.world().listen(at).await?);
    }
    if let Some(broker) = shared.lock().broker(id) {
        broker.addresses = listeners.iter().map(|listener| listener.local_addr()).collect();
    }
    Ok(listeners)
}

/// A task that ends with its handle.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Task {
    /// Ends it, and everything it holds is gone after.
    async fn end(mut self) {
        self.0.abort();
        // Cancelled is what was asked for; a panic has been printed.
        let _ = (&mut self.0).await;
    }
}

async fn supervise(shared: Arc<Shared>, mut bound: BTreeMap<i32, Vec<Box<dyn Listener>>>) {
    let mut running: BTreeMap<i32, (u64, Vec<Task>)> = BTreeMap::new();
    let mut expiry = shared.env.now();
    loop {
        let (brokers, stopping, tick) = {
            let state = shared.lock();
            let of = |broker: &Broker| (broker.id, broker.life, broker.up);
            let brokers = state.brokers.iter().map(of).collect::<Vec<_>>();
            (brokers, state.stopping, state.options.tick)
        };
        if stopping {
            return;
        }
        for (id, life, up) in brokers {
            let outlived = running.get(&id).is_some_and(|(known, _)| *known != life);
            if outlived && let Some((_, tasks)) = running.remove(&id) {
                for task in tasks {
                    task.end().await;
                }
            }
            if up && !running.contains_key(&id) {
                let listeners = match bound.remove(&id) {
                    Some(listeners) => Ok(listeners),
                    None => bind(&shared, id).await,
                };
                match listeners {
                    Ok(listeners) => {
                        running.insert(id, (life, serve(&shared, (id, life), listeners)));
                    }
                    Err(error) => tracing::error!(broker = id, %error, "not listening"),
                }
            }
        }
        pass_time(&shared, &mut expiry);
        shared.nap(tick).await;
    }
}

fn serve(shared: &Arc<Shared>, broker: (i32, u64), listeners: Vec<Box<dyn Listener>>) -> Vec<Task> {
    let serve =
        |(index, listener)| Task(spawn_local(accept(Arc::clone(shared), broker, index, listener)));
    listeners.into_iter().enumerate().map(serve).collect()
}

async fn accept(
    shared: Arc<Shared>,
    (broker, life): (i32, u64),
    index: usize,
    listener: Box<dyn Listener>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    let shared = Arc::clone(&shared);
                    let peer = Peer { shared, broker, listener: index, life, from };
                    connections.spawn_local(connection::serve(stream, peer));
                }
                Err(error) => {
                    tracing::warn!(broker, %error, "accept failed");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

/// Ends what has run out: silent members, transactions, producer state, records by size.
fn pass_time(shared: &Shared, expiry: &mut Instant) {
    let (now, now_ms) = (shared.env.now(), shared.env.wall_clock_ms());
    let mut state = shared.lock();
    let mut changed = false;
    for group in state.groups.values_mut() {
        changed |= group.tick(now);
    }
    changed |= state.abort_timed_out(now, now_ms);
    changed |= state.complete_transactions(now_ms);
    state.retain();
    if *expiry <= now {
        *expiry = now + state.options.producer_expiry_check;
        state.expire_producers(now_ms);
    }
    drop(state);
    if changed {
        shared.changed();
    }
}
