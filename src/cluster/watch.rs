//! Keeps the map of a cluster fresh. Runs on the control thread; never touches a lane.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, watch as channel};
use tokio::time::{Instant, sleep, sleep_until};

use super::{ClusterHandle, ClusterMap, Known, NOT_ALLOWED, Shared, admin};
use crate::config::resolved::{self, Address};
use crate::connection::{Connection, Security};
use crate::env::Env;
use crate::error::{Code, Error, Side};
use crate::limits;
use crate::wire::metadata::MetadataRequest;

/// A metadata answer that is refused: the peer breaks the protocol.
const REFUSED: Code = Code(26);

/// Starts to watch a cluster: returns the handle, without a map as yet, and the future that looks at the cluster now, every
/// 5 s, and when asked.
///
/// The future ends when the last handle is gone.
pub fn watch_unseen(
    env: Env,
    cluster: Arc<resolved::Cluster>,
    security: Security,
    side: Side,
) -> (ClusterHandle, impl Future<Output = ()>) {
    let (handle, mut watcher) = Watcher::of(env, cluster, security, side);
    let run = async move {
        let first = watcher.look().await;
        watcher.run(first).await;
    };
    (handle, run)
}

/// The same behind the first look: with a map, or with why there is none yet in [`ClusterHandle::last_error`]. The files of
/// its security are read once. The error is only what this machine's own files are to blame for.
pub async fn watch(
    env: Env,
    cluster: Arc<resolved::Cluster>,
    side: Side,
) -> Result<(ClusterHandle, impl Future<Output = ()>), Error> {
    let security = Security::load(&cluster)?;
    let (mut handle, mut watcher) = Watcher::of(env, cluster, security, side);
    let first = watcher.look().await;
    handle.known.mark_unchanged();
    Ok((handle, watcher.run(first)))
}

struct Watcher {
    env: Env,
    shared: Arc<Shared>,
    sender: channel::Sender<Known>,
    /// Kept from look to look.
    connection: Option<Connection>,
}

impl Watcher {
    fn of(
        env: Env,
        cluster: Arc<resolved::Cluster>,
        security: Security,
        side: Side,
    ) -> (ClusterHandle, Self) {
        let shared = Arc::new(Shared {
            config: cluster,
            security,
            side,
            asked: Notify::new(),
            dials: Default::default(),
            news: Notify::new(),
        });
        let (sender, known) = channel::channel(Known::default());
        let watcher = Self { env, shared: shared.clone(), sender, connection: None };
        (ClusterHandle { shared, known }, watcher)
    }

    async fn run(mut self, mut last: Result<Duration, ()>) {
        let mut failures = 0;
        loop {
            let wait = async {
                if let Ok(throttle) = last {
                    let soonest = Instant::now() + throttle.max(limits::METADATA_INTERVAL_MIN);
                    let asked = self.shared.asked.notified();
                    let _ = tokio::time::timeout(limits::METADATA_INTERVAL, asked).await;
                    sleep_until(soonest).await;
                } else {
                    let (base, max) = limits::RECONNECT_BACKOFF;
                    sleep(self.env.backoff(base, max, failures)).await;
                }
            };
            tokio::select! {
                biased;
                () = self.sender.closed() => return,
                () = wait => {}
            }
            failures = if last.is_ok() { 0 } else { failures.saturating_add(1) };
            // Whoever asked before now is answered by this look.
            let _ = self.shared.asked.notified().now_or_never();
            last = self.look().await;
        }
    }

    /// One look: a new map or an error. How long the broker wants us to wait before the next.
    async fn look(&mut self) -> Result<Duration, ()> {
        let known = self.sender.borrow().clone();
        let error = match self.ask(&known).await {
            Ok((map, throttle)) => {
                self.forget_certificates(&map);
                self.sender.send_if_modified(|state| {
                    let news = state.error.is_some() || map.generation != state.map.generation;
                    if news {
                        *state = Known { map: Arc::new(map), error: None };
                    }
                    news
                });
                self.shared.news.notify_waiters();
                return Ok(throttle);
            }
            Err(error) => error,
        };
        self.connection = None;
        self.sender.send_if_modified(|state| {
            let news = state.error.as_ref() != Some(&error);
            state.error = Some(error);
            news
        });
        self.shared.news.notify_waiters();
        Err(())
    }

    /// Those of brokers that are gone. What told of them is there, by whatever name it was dialled.
    fn forget_certificates(&self, map: &ClusterMap) {
        let asked = self.connection.as_ref().map(Connection::address);
        let is_there = |at: &Address| {
            asked == Some(at) || map.brokers.values().any(|broker| broker.address == *at)
        };
        self.shared.security.cell().keep_brokers(is_there);
    }

    async fn ask(&mut self, known: &Known) -> Result<(ClusterMap, Duration), Error> {
        let connection = match self.connection.take().filter(|connection| !connection.is_ending()) {
            Some(connection) => connection,
            None => self.shared.connect_any(&self.env, &known.map).await?,
        };
        let looked = self.look_through(known, &connection).await;
        match looked {
            Ok(found) => {
                self.connection = Some(connection);
                Ok(found)
            }
            Err(error) => {
                // Another broker may tell the truth, and then nothing else says that this one did not.
                let cluster = &self.shared.config.name;
                tracing::warn!(cluster = %cluster, %error, "metadata is asked of another broker");
                self.shared.distrust(connection.address());
                Err(error)
            }
        }
    }

    async fn look_through(
        &self,
        known: &Known,
        connection: &Connection,
    ) -> Result<(ClusterMap, Duration), Error> {
        let answer = connection.ask(&MetadataRequest { topics: None }).await?;
        if answer.error.is_error() {
            let text = format!("metadata refused: {}", answer.error);
            return Err(connection.error(NOT_ALLOWED, text));
        }
        let throttle = admin::throttle(answer.throttle_time_ms);
        let map = known
            .map
            .after(answer)
            .map_err(|why| connection.error(REFUSED, format!("metadata that cannot be: {why}")))?;
        Ok((map, throttle))
    }
}
