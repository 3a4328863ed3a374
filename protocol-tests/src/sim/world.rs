//! The two clusters of a run, the instances between them, and how they are started, killed and healed.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use strait::config;
use strait::embedded::{Cluster, Generation, Options, open};
use strait::engine::stats::Board;
use strait::fleet::Identity;
use tokio::task::spawn_local;

use super::Delivery;
use super::fleet::{Fleet, Membership};
use super::instance::{Life, Thaw};
use super::network::Network;
use super::oracle::{Key, Oracle};
use super::past::Policies;
use super::rng::Rng;
use super::workload::{Topic, machine};
use crate::checker::Wanted;

/// Which cluster.
pub type Side = usize;
/// Read from.
pub const SOURCE: Side = 0;
/// Written to.
pub const TARGET: Side = 1;

/// Everything of a run.
pub struct World {
    /// Between all machines.
    pub network: Network,
    /// Read from.
    pub source: Cluster,
    /// Written to.
    pub target: Cluster,
    brokers: [usize; 2],
    fleet: Fleet,
    topics: Vec<Topic>,
    oracle: Arc<Mutex<Oracle>>,
    rng: Rng,
    window_bytes: Cell<usize>,
    delivery: Cell<Delivery>,
    merges: Cell<bool>,
    keys: RefCell<String>,
    policies: Cell<Option<Policies>>,
    lives: RefCell<Vec<Option<Life>>>,
    begun: RefCell<u64>,
}

/// A cluster with its serving task, which ends with the run.
async fn cluster(
    network: &Network,
    rng: &Rng,
    side: Side,
    brokers: usize,
    release: Option<Generation>,
    fleet: &Fleet,
) -> Cluster {
    let ip = machine(1 + u8::try_from(side).expect("two sides"), 1);
    let name = ["source", "target"][side];
    let drawn = *rng.fork(name).pick(&[Generation::Kafka39, Generation::Kafka43]);
    let generation = release.unwrap_or(drawn);
    let transactions_v2 = rng.fork(name).fork("v2").chance(70);
    let options = Options {
        brokers,
        generation,
        transactions_v2,
        host: ip.to_string(),
        auto_create_topics: false,
        replication_factor: i16::try_from(brokers).expect("few"),
        producer_expiry_check: std::time::Duration::from_secs(1),
        consumer_session_timeout: fleet.session,
        consumer_heartbeat_interval: fleet.session / 4,
        topic_defaults: vec![("min.insync.replicas".into(), brokers.min(2).to_string())],
        ..Options::default()
    };
    let env = network.host(ip, rng.fork(&format!("{name} randomness")));
    let (cluster, serving) = open(env, options).await.expect("a free address");
    spawn_local(serving);
    cluster
}

impl World {
    /// Lives that begin from now on send each batch as it is: a scene that names batches knows what stands in a request.
    pub fn sends_apart(&self) {
        self.merges.set(false);
    }

    /// Lives that begin from now on have so many bytes of a mirror on their way.
    pub fn window_of(&self, bytes: usize) {
        self.window_bytes.set(bytes);
    }

    /// Lives that begin from now on have this in their link besides: `key: value`.
    pub fn configure(&self, key: &str) {
        *self.keys.borrow_mut() = format!(", {key}");
    }

    /// Lives that begin from now on have this delivery.
    pub fn deliver(&self, delivery: Delivery) {
        self.delivery.set(delivery);
    }

    /// The source loses records in this run: what lives say of it is kept, and those that begin from now on have these
    /// policies.
    pub fn loses(&self, policies: Policies) {
        self.oracle().accounts.keep();
        self.policies.set(Some(policies));
    }

    /// What lives are told of losses, if there are some.
    pub(super) fn policies(&self) -> Option<Policies> {
        self.policies.get()
    }

    /// Two clusters, the topics on the source; no instance yet. The target is of this release, or of one that is drawn.
    pub async fn new(
        rng: Rng,
        network: Network,
        brokers: [usize; 2],
        target_release: Option<Generation>,
        topics: Vec<Topic>,
        fleet: Fleet,
        delivery: Delivery,
    ) -> Rc<Self> {
        let source = cluster(&network, &rng, SOURCE, brokers[SOURCE], None, &fleet).await;
        let target = cluster(&network, &rng, TARGET, brokers[TARGET], target_release, &fleet).await;
        let mut oracle = Oracle::new(target.clone());
        for topic in &topics {
            let bytes = topic.max_message_bytes.to_string();
            let mut settings = vec![("max.message.bytes", bytes.as_str())];
            settings.extend(topic.cleaned.then_some(("cleanup.policy", "compact")));
            let created = source.create_topic(&topic.name, topic.partitions, -1, &settings);
            oracle.born(created.expect("a legal topic"));
            (0..topic.partitions).for_each(|p| oracle.watch((topic.name.clone(), p)));
        }
        let oracle = Arc::new(Mutex::new(oracle));
        let judge = oracle.clone();
        source.on_commit(Box::new(move |_, key, committed| {
            let mut oracle = judge.lock().unwrap_or_else(PoisonError::into_inner);
            oracle.committed(key, committed);
        }));
        let merges = *rng.fork("merge").pick(&[true, false]);
        let window_bytes = *rng.fork("window").pick(&[64 << 10, 64 << 10, 1 << 20, 8 << 20]);
        Rc::new(Self {
            network,
            source,
            target,
            brokers,
            fleet,
            topics,
            oracle,
            rng,
            window_bytes: Cell::new(window_bytes),
            delivery: Cell::new(delivery),
            merges: Cell::new(merges),
            keys: RefCell::default(),
            policies: Cell::default(),
            lives: RefCell::default(),
            begun: RefCell::new(0),
        })
    }

    /// The judge.
    pub fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The judge, for those who keep it.
    pub fn share_oracle(&self) -> Arc<Mutex<Oracle>> {
        self.oracle.clone()
    }

    /// One of the clusters.
    pub fn cluster(&self, side: Side) -> &Cluster {
        [&self.source, &self.target][side]
    }

    /// Broker ids of a cluster.
    pub fn brokers(&self, side: Side) -> Vec<i32> {
        (1..=i32::try_from(self.brokers[side]).expect("few")).collect()
    }

    /// The topics.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// All topic-partitions.
    pub fn partitions(&self) -> Vec<Key> {
        let of = |topic: &Topic| {
            let name = topic.name.clone();
            (0..topic.partitions).map(move |partition| (name.clone(), partition))
        };
        self.topics.iter().flat_map(of).collect()
    }

    /// Any of them.
    pub fn partition(&self, rng: &mut Rng) -> Key {
        rng.pick(&self.partitions()).clone()
    }

    /// The link's group on the source.
    pub fn group(&self) -> String {
        "strait.sim".into()
    }

    /// For the trace.
    pub fn note(&self, what: &'static str, numbers: &[u64]) {
        self.network.note(what, numbers);
    }

    /// The address of an instance.
    pub fn ip_of(&self, index: usize) -> IpAddr {
        machine(0, u8::try_from(index).expect("few"))
    }

    /// Any instance, alive or not.
    pub fn instance(&self, rng: &mut Rng) -> usize {
        rng.below(self.lives.borrow().len())
    }

    /// The address of any.
    pub fn instance_ip(&self, rng: &mut Rng) -> IpAddr {
        self.ip_of(self.instance(rng))
    }

    /// Makes room for the instances and starts the first of them.
    pub fn start_some(&self, at_once: usize) {
        self.lives.borrow_mut().resize_with(self.fleet.instances, || None);
        (0..at_once.min(self.fleet.instances)).for_each(|index| self.start(index));
    }

    /// Whether this instance runs, frozen or not.
    pub fn is_started(&self, index: usize) -> bool {
        self.lives.borrow()[index].is_some()
    }

    /// Deletes the beginning of every source partition, up to inside its first batches.
    pub fn cut_source_starts(&self) {
        for key in self.partitions() {
            let end = self.source.ends(&key.0, key.1).map_or(0, |ends| ends.last_stable);
            let start = self.rng.fork(&format!("start of {key:?}")).between(0, end.min(8));
            self.oracle().set_wanted(&key, 0, start, (Wanted::Yes, Wanted::Never));
            self.delete_source(&key, start);
        }
    }

    /// Retention or DeleteRecords at the source.
    pub fn delete_source(&self, key: &Key, log_start: i64) {
        let _ = self.source.delete_records(&key.0, key.1, log_start);
        self.oracle().deleted(key, log_start);
    }

    /// An unclean election at the source: at this offset, or where the batch begins that holds it, the log goes other ways.
    pub fn truncate_source(&self, key: &Key, offset: i64) {
        let _ = self.source.truncate(&key.0, key.1, offset);
        if let Ok(dump) = self.source.dump(&key.0, key.1) {
            self.oracle().truncated_source(key, dump.log_end, dump.leader_epoch);
        }
    }

    /// A topic of the source is deleted and made again.
    pub fn recreate_source(&self, topic: &str) {
        let id = self.source.recreate_topic(topic).expect("it is there");
        self.oracle().recreated(topic, id);
    }

    /// Starts an instance, unless it runs.
    pub fn start(&self, index: usize) {
        if self.lives.borrow()[index].is_some() {
            return;
        }
        *self.begun.borrow_mut() += 1;
        self.note("start", &[index as u64]);
        let ip = self.ip_of(index);
        let rng = self.rng.fork(&format!("instance {index} life {}", self.begun.borrow()));
        let env = self.network.host(ip, rng);
        let begun = *self.begun.borrow();
        let transactional = match self.delivery.get() {
            Delivery::ExactlyOnce => false,
            Delivery::Transactional => true,
            Delivery::Either => self.rng.fork(&format!("delivery {begun}")).chance(50),
        };
        let delivery = if transactional {
            let interval = self.rng.fork(&format!("interval {begun}")).between(20, 1500);
            format!(", delivery: transactional, transaction: {{ interval: {interval}ms }}")
        } else {
            String::new()
        };
        let bootstrap = |cluster: &Cluster| {
            let quoted: Vec<_> =
                cluster.bootstrap().split(',').map(|at| format!("\"{at}\"")).collect();
            quoted.join(", ")
        };
        let text = format!(
            "version: 1\n\
             clusters:\n  source: {{ bootstrap: [{}] }}\n  target: {{ bootstrap: [{}] }}\n\
             links:\n  sim: {{ from: source, to: target, topics: {{ include: [\"sim-.*\"] }}, \
             start: earliest, {}window: {}, merge: {}, membership: {{ protocol: \"{}\" }}{}{} }}\n\
             engine: {{ lanes: 1, arrangement: {}, memory: 64MiB }}\n",
            bootstrap(&self.source),
            bootstrap(&self.target),
            self.policies.get().map(Policies::words).unwrap_or_default(),
            self.window_bytes.get(),
            if self.merges.get() { "auto" } else { "\"off\"" },
            self.fleet.membership.word(),
            delivery,
            self.keys.borrow(),
            if self.rng.fork(&format!("split {begun}")).chance(30) { "split" } else { "fused" },
        );
        let around = config::Surroundings { directory: Path::new("."), variable: &|_| None };
        let mut config =
            config::parse(&text, "simulated", &around).expect("a legal configuration").config;
        config.telemetry = None;
        self.network.revive(ip);
        let named = self.fleet.identities && self.fleet.membership != Membership::Off;
        let identity = named.then(|| Identity::new(&ip.to_string()));
        let life = Life::begin(index, config, env, identity);
        self.oracle().accounts.follow(begun, life.board().clone());
        self.lives.borrow_mut()[index] = Some(life);
    }

    /// Kills an instance as SIGKILL does: nothing of it runs again, what it wrote to its sockets is on its way.
    pub async fn kill(&self, index: usize) {
        let Some(life) = self.lives.borrow_mut()[index].take() else { return };
        self.note("kill", &[index as u64]);
        self.ask_health(life.board());
        life.kill().await;
    }

    /// An instance is told to end, as SIGTERM does, and does so in its time.
    pub async fn leave(&self, index: usize) {
        let Some(life) = self.lives.borrow_mut()[index].take() else { return };
        self.note("leave", &[index as u64]);
        self.ask_health(life.board());
        if life.is_frozen() {
            return life.kill().await;
        }
        life.leave().await;
        self.note("left", &[index as u64]);
    }

    /// The same, killed when it takes longer.
    pub async fn leave_at_most(&self, index: usize, time: std::time::Duration) {
        let Some(life) = self.lives.borrow_mut()[index].take() else { return };
        // Dropped in the middle, it runs on; but its machine may be dead by now.
        life.leave_at_most(time).await;
    }

    /// An instance stands still until the thaw.
    pub fn freeze(&self, index: usize) -> Option<Thaw> {
        let lives = self.lives.borrow();
        let life = lives[index].as_ref()?;
        self.note("freeze", &[index as u64]);
        Some(life.freeze())
    }

    /// Lives that were begun so far.
    pub fn lives(&self) -> u64 {
        *self.begun.borrow()
    }

    /// What every running instance shows, with its number.
    pub(super) fn boards(&self) -> Vec<(usize, Arc<Board>)> {
        let lives = self.lives.borrow();
        let running = lives.iter().enumerate();
        running.filter_map(|(at, life)| Some((at, life.as_ref()?.board().clone()))).collect()
    }

    /// Every running instance is asked whether it failed.
    pub(super) fn ask_healths(&self) {
        self.boards().iter().for_each(|(_, board)| self.ask_health(board));
    }

    pub(super) fn ask_health(&self, board: &Board) {
        if let Some(error) = board.failure() {
            self.oracle().violated(format!("C9: the engine failed: {error}"));
        }
    }

    /// Ends every trouble: faults, blocks, dead brokers, frozen followers, frozen and dead instances.
    pub fn heal(&self) {
        self.note("heal", &[]);
        self.network.heal();
        for side in [SOURCE, TARGET] {
            let cluster = self.cluster(side);
            cluster.clear_faults();
            self.brokers(side).iter().for_each(|broker| cluster.restart_broker(*broker));
            for key in self.partitions() {
                // The target's may not be there yet.
                let _ = cluster.freeze(&key.0, key.1, false);
                let _ = cluster.set_isr(&key.0, key.1, &self.brokers(side));
            }
        }
        self.lives.borrow().iter().flatten().for_each(Life::thaw);
        (0..self.fleet.instances).for_each(|index| {
            self.network.set_skew_ms(self.ip_of(index), 0);
            self.start(index);
        });
    }
}
