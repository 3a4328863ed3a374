//! Everything that an embedded cluster knows, behind one lock: the brokers of it are views on one state.
//!
//! The lock is never held across an await. Whoever changes what another may wait for calls [`Shared::changed`].

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use super::faults::Faults;
use super::groups::{CommitHook, Group};
use super::options::Options;
use super::sasl::Logins;
use super::sessions::Sessions;
use super::topic::{self, Partition, Topic};
use super::transactions::Transactions;
use crate::env::Env;
use crate::wire::error_code::ErrorCode;

/// One broker's own things.
pub(super) struct Broker {
    pub(super) id: i32,
    /// It accepts connections; a killed one does not.
    pub(super) up: bool,
    /// Rises with each death: what belongs to an earlier life is over.
    pub(super) life: u64,
    /// One for each listener.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) sessions: Sessions,
}

/// The cluster's state.
pub(super) struct State {
    pub(super) options: Options,
    pub(super) cluster_id: String,
    pub(super) brokers: Vec<Broker>,
    pub(super) topics: BTreeMap<String, Topic>,
    pub(super) names: HashMap<Uuid, String>,
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) transactions: Transactions,
    pub(super) faults: Faults,
    /// Hears of every offset that is committed.
    pub(super) on_commit: Option<CommitHook>,
    pub(super) logins: Logins,
    /// Batches that a request named a partition for twice, and that were dropped in silence.
    pub(super) dropped_batches: u64,
    /// Coordinators that a test placed.
    pub(super) coordinators: BTreeMap<String, i32>,
    topics_made: usize,
    /// Set once: the cluster winds down.
    pub(super) stopping: bool,
}

impl State {
    pub(super) fn new(options: Options, cluster_id: String) -> Self {
        let brokers = (1..=i32::try_from(options.brokers.max(1)).unwrap_or(1))
            .map(|id| Broker {
                id,
                up: true,
                life: 0,
                addresses: Vec::new(),
                sessions: Sessions::new(options.fetch_sessions),
            })
            .collect();
        Self {
            options,
            cluster_id,
            brokers,
            topics: BTreeMap::new(),
            names: HashMap::new(),
            groups: BTreeMap::new(),
            transactions: Transactions::default(),
            faults: Faults::default(),
            on_commit: None,
            logins: Logins::default(),
            dropped_batches: 0,
            coordinators: BTreeMap::new(),
            topics_made: 0,
            stopping: false,
        }
    }

    pub(super) fn broker(&mut self, id: i32) -> Option<&mut Broker> {
        self.brokers.iter_mut().find(|broker| broker.id == id)
    }

    /// The broker is up and has not died since.
    pub(super) fn is_alive(&self, id: i32, life: u64) -> bool {
        self.brokers.iter().any(|broker| broker.id == id && broker.up && broker.life == life)
    }

    /// Where clients of a listener find a broker.
    pub(super) fn endpoint(&self, id: i32, listener: usize) -> Option<(String, i32)> {
        let broker = self.brokers.iter().find(|broker| broker.id == id && broker.up)?;
        let port = broker.addresses.get(listener)?.port();
        Some((self.options.host.clone(), port.into()))
    }

    /// Brokers that are up.
    pub(super) fn live(&self) -> Vec<i32> {
        self.brokers.iter().filter(|broker| broker.up).map(|broker| broker.id).collect()
    }

    /// The lowest broker that is up.
    pub(super) fn controller(&self) -> i32 {
        self.live().first().copied().unwrap_or(-1)
    }

    /// The broker that coordinates a group or a transactional id.
    pub(super) fn coordinator(&self, key: &str) -> Option<i32> {
        let live = self.live();
        if let Some(placed) = self.coordinators.get(key) {
            return live.contains(placed).then_some(*placed);
        }
        let hash =
            key.bytes().fold(17usize, |hash, b| hash.wrapping_mul(31).wrapping_add(b.into()));
        live.get(hash.checked_rem(live.len())?).copied()
    }

    /// A partition, wherever it is led.
    pub(super) fn partition(&mut self, topic: &str, index: i32) -> Option<&mut Partition> {
        self.topics.get_mut(topic)?.partition(index)
    }

    /// A partition that `broker` leads: 3 when there is none, 6 when another leads it.
    pub(super) fn led(
        &mut self,
        broker: i32,
        topic: &str,
        index: i32,
    ) -> Result<&mut Partition, ErrorCode> {
        let partition = self.partition(topic, index);
        let partition = partition.ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        match partition.leader == broker {
            true => Ok(partition),
            false => Err(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        }
    }

    /// A topic exists from now on. `count` and `factor` of -1 take the broker's defaults.
    pub(super) fn create_topic(
        &mut self,
        env: &Env,
        name: &str,
        count: i32,
        factor: i16,
        overrides: BTreeMap<String, String>,
    ) -> Result<&mut Topic, ErrorCode> {
        if self.topics.contains_key(name) {
            return Err(ErrorCode::TOPIC_ALREADY_EXISTS);
        }
        // Metric names cannot tell '.' from '_': such twins are refused (`Topic.hasCollision`).
        let plain = |name: &str| name.replace('.', "_");
        let collides = || self.topics.keys().any(|known| plain(known) == plain(name));
        if !topic::is_legal_name(name) || collides() {
            return Err(ErrorCode::INVALID_TOPIC_EXCEPTION);
        }
        let count = if count == -1 { self.options.partitions } else { count };
        let factor = match factor {
            -1 => {
                usize::try_from(self.options.replication_factor).map(|n| n.min(self.live().len()))
            }
            _ => usize::try_from(factor),
        };
        let factor = factor.unwrap_or(0);
        if !(1..=100_000).contains(&count) {
            return Err(ErrorCode::INVALID_PARTITIONS);
        }
        if factor == 0 || factor > self.live().len() {
            return Err(ErrorCode::INVALID_REPLICATION_FACTOR);
        }
        let bits = (u128::from(env.random_u64()) << 64) | u128::from(env.random_u64());
        let id = uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid();
        let settings =
            topic::settings(&overrides, &self.options.topic_defaults, self.options.generation);
        self.topics_made += 1;
        self.names.insert(id, name.to_owned());
        let partitions = Vec::new();
        let made = Topic { id, partitions, replication_factor: factor, overrides, settings };
        self.topics.insert(name.to_owned(), made);
        self.grow_topic(name, count);
        self.topics.get_mut(name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }

    /// Adds partitions up to `count`, spread over the live brokers.
    pub(super) fn grow_topic(&mut self, name: &str, count: i32) {
        let (live, shift) = (self.live(), self.topics_made);
        let Some(topic) = self.topics.get_mut(name) else { return };
        let count = usize::try_from(count).unwrap_or(0);
        for index in topic.partitions.len()..count {
            let place = |i: usize| live.get((index + shift + i) % live.len()).copied();
            let replicas: Vec<i32> = (0..topic.replication_factor).filter_map(place).collect();
            let mut partition = Partition {
                leader_epoch: -1,
                isr: replicas.clone(),
                replicas,
                ..Partition::default()
            };
            partition.elect(partition.replicas.first().copied().unwrap_or(-1));
            topic.partitions.push(partition);
        }
    }

    /// Drops the producer state that has grown old.
    pub(super) fn expire_producers(&mut self, now_ms: i64) {
        let keep_ms = i64::try_from(self.options.producer_expiry.as_millis()).unwrap_or(i64::MAX);
        for partition in self.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
            partition.log.producers.expire(now_ms, keep_ms);
        }
    }

    /// Retention by size.
    pub(super) fn retain(&mut self) {
        for topic in self.topics.values_mut().filter(|topic| !topic.is_only_compacted()) {
            let Some(bytes_max) = topic.settings.retention_bytes else { continue };
            for partition in &mut topic.partitions {
                partition.log.retain_bytes(bytes_max);
            }
        }
    }

    /// The topic is gone, and with it every offset that was committed for it.
    pub(super) fn delete_topic(&mut self, name: &str) -> bool {
        let Some(topic) = self.topics.remove(name) else { return false };
        self.names.remove(&topic.id);
        for group in self.groups.values_mut() {
            group.forget_topic(name);
        }
        self.transactions.forget_topic(name);
        true
    }
}

/// The state, the world, and the bell that rings at every change.
pub(super) struct Shared {
    state: Mutex<State>,
    bell: Notify,
    supervisor: Notify,
    pub(super) env: Env,
}

impl Shared {
    pub(super) fn new(env: Env, state: State) -> Arc<Self> {
        let (bell, supervisor) = (Notify::new(), Notify::new());
        Arc::new(Self { state: Mutex::new(state), bell, supervisor, env })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes everyone who waits for a change.
    pub(super) fn changed(&self) {
        self.bell.notify_waiters();
    }

    /// Has the supervisor look at once.
    pub(super) fn wake(&self) {
        self.supervisor.notify_one();
    }

    /// The supervisor's sleep.
    pub(super) async fn nap(&self, longest: Duration) {
        // Woken or not, it looks again.
        let _ = tokio::time::timeout(longest, self.supervisor.notified()).await;
    }

    /// Asks `ready` now and after every change, until it has an answer or `deadline` passes.
    pub(super) async fn wait_for<T>(
        &self,
        deadline: tokio::time::Instant,
        mut ready: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        loop {
            let bell = self.bell.notified();
            tokio::pin!(bell);
            // Enrolled before the look, so that no change falls between the two.
            bell.as_mut().enable();
            if let Some(answer) = ready(&mut self.lock()) {
                return Some(answer);
            }
            if tokio::time::timeout_at(deadline, bell).await.is_err() {
                return ready(&mut self.lock());
            }
        }
    }
}
