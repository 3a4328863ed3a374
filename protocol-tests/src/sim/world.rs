//! The two clusters of a run, the instances between them, and how they are started, killed and healed.

use std::cell::RefCell;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use strait::config;
use strait::embedded::{Cluster, Generation, Options, open};
use strait::engine::stats::{Board, MirrorState};
use strait::strait::Strait;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::network::Network;
use super::oracle::{Key, Oracle};
use super::rng::Rng;
use super::workload::{Topic, machine};
use crate::checker::Wanted;

/// Which cluster.
pub type Side = usize;
/// Read from.
pub const SOURCE: Side = 0;
/// Written to.
pub const TARGET: Side = 1;

/// One instance of the engine while it lives.
struct Life {
    task: JoinHandle<()>,
    board: Arc<Board>,
}

/// Everything of a run.
pub struct World {
    /// Between all machines.
    pub network: Network,
    /// Read from.
    pub source: Cluster,
    /// Written to.
    pub target: Cluster,
    brokers: [usize; 2],
    topics: Vec<Topic>,
    oracle: Arc<Mutex<Oracle>>,
    rng: Rng,
    window_bytes: usize,
    lives: RefCell<Vec<Option<Life>>>,
    begun: RefCell<u64>,
}

/// A cluster with its serving task, which ends with the run.
async fn cluster(network: &Network, rng: &Rng, side: Side, brokers: usize) -> Cluster {
    let ip = machine(1 + u8::try_from(side).expect("two sides"), 1);
    let name = ["source", "target"][side];
    let generation = *rng.fork(name).pick(&[Generation::Kafka39, Generation::Kafka43]);
    let options = Options {
        brokers,
        generation,
        host: ip.to_string(),
        auto_create_topics: false,
        replication_factor: i16::try_from(brokers).expect("few"),
        producer_expiry_check: std::time::Duration::from_secs(1),
        topic_defaults: vec![("min.insync.replicas".into(), brokers.min(2).to_string())],
        ..Options::default()
    };
    let env = network.host(ip, rng.fork(&format!("{name} randomness")));
    let (cluster, serving) = open(env, options).await.expect("a free address");
    spawn_local(serving);
    cluster
}

impl World {
    /// Two clusters, the topics on the source; no instance yet.
    pub async fn new(
        rng: Rng,
        network: Network,
        brokers: [usize; 2],
        topics: Vec<Topic>,
    ) -> Rc<Self> {
        let source = cluster(&network, &rng, SOURCE, brokers[SOURCE]).await;
        let target = cluster(&network, &rng, TARGET, brokers[TARGET]).await;
        let mut oracle = Oracle::new(target.clone());
        for topic in &topics {
            let bytes = topic.max_message_bytes.to_string();
            let created = source.create_topic(
                &topic.name,
                topic.partitions,
                -1,
                &[("max.message.bytes", &bytes)],
            );
            created.expect("a legal topic");
            (0..topic.partitions).for_each(|p| oracle.watch((topic.name.clone(), p)));
        }
        let oracle = Arc::new(Mutex::new(oracle));
        let judge = oracle.clone();
        source.on_commit(Box::new(move |_, key, committed| {
            let mut oracle = judge.lock().unwrap_or_else(PoisonError::into_inner);
            oracle.committed(key, committed.offset);
        }));
        let window_bytes = *rng.fork("window").pick(&[64 << 10, 64 << 10, 1 << 20, 8 << 20]);
        Rc::new(Self {
            network,
            source,
            target,
            brokers,
            topics,
            oracle,
            rng,
            window_bytes,
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

    /// Makes room for so many instances and starts them.
    pub fn start_all(&self, instances: usize) {
        self.lives.borrow_mut().resize_with(instances, || None);
        (0..instances).for_each(|index| self.start(index));
    }

    /// Deletes the beginning of every source partition, up to inside its first batches.
    pub fn cut_source_starts(&self) {
        for key in self.partitions() {
            let end = self.source.dump(&key.0, key.1).map_or(0, |dump| dump.last_stable);
            let start = self.rng.fork(&format!("start of {key:?}")).between(0, end.min(8));
            let _ = self.source.delete_records(&key.0, key.1, start);
            self.oracle().set_wanted(&key, 0, start, (Wanted::Yes, Wanted::Never));
        }
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
        let bootstrap = |cluster: &Cluster| {
            let quoted: Vec<_> =
                cluster.bootstrap().split(',').map(|at| format!("\"{at}\"")).collect();
            quoted.join(", ")
        };
        let text = format!(
            "version: 1\n\
             clusters:\n  source: {{ bootstrap: [{}] }}\n  target: {{ bootstrap: [{}] }}\n\
             links:\n  sim: {{ from: source, to: target, topics: {{ include: [\"sim-.*\"] }}, \
             start: earliest, window: {}, membership: {{ protocol: \"off\" }} }}\n\
             engine: {{ lanes: 1, memory: 64MiB }}\n",
            bootstrap(&self.source),
            bootstrap(&self.target),
            self.window_bytes,
        );
        let around = config::Surroundings { directory: Path::new("."), variable: &|_| None };
        let mut config =
            config::parse(&text, "simulated", &around).expect("a legal configuration").config;
        config.telemetry = None;
        let local = LocalSet::new();
        let handle = {
            let _inside = local.enter();
            Strait::builder(config).env(env).start_local()
        };
        let board = handle.board();
        let task = spawn_local(async move {
            local
                .run_until(async move {
                    let _running = handle;
                    std::future::pending::<()>().await;
                })
                .await;
        });
        self.lives.borrow_mut()[index] = Some(Life { task, board });
    }

    /// Kills an instance as SIGKILL does: nothing of it runs again, what it wrote to its sockets is on its way.
    pub async fn kill(&self, index: usize) {
        let Some(life) = self.lives.borrow_mut()[index].take() else { return };
        self.note("kill", &[index as u64]);
        self.ask_health(&life.board);
        life.task.abort();
        // Cancelled is what was asked for.
        drop(life.task.await);
    }

    /// Lives that were begun so far.
    pub fn lives(&self) -> u64 {
        *self.begun.borrow()
    }

    fn ask_health(&self, board: &Board) {
        if let Some(error) = board.failure() {
            self.oracle().violated(format!("C9: the engine failed: {error}"));
        }
    }

    /// Ends every trouble: faults, blocks, dead brokers, frozen followers, dead instances.
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
        let instances = self.lives.borrow().len();
        (0..instances).for_each(|index| {
            self.network.set_skew_ms(self.ip_of(index), 0);
            self.start(index);
        });
    }

    /// What is not copied and committed to the end, if anything.
    pub fn unfinished(&self) -> Result<(), String> {
        let committed = self.source.committed(&self.group());
        for key in self.partitions() {
            let end = self.source.dump(&key.0, key.1).map_or(-1, |dump| dump.last_stable);
            let at = committed.get(&key).map(|committed| committed.offset);
            // A mirror of an empty partition has nothing to commit.
            if at.unwrap_or(0) != end {
                return Err(format!("{}-{} committed {at:?} of {end}", key.0, key.1));
            }
        }
        Ok(())
    }

    /// Both logs of a partition, a line for each batch: for the reader of a failure.
    pub fn describe(&self, key: &Key) -> String {
        let mut text = String::new();
        for (side, name) in [(SOURCE, "source"), (TARGET, "target")] {
            let Ok((_, batches)) = self.cluster(side).batches_from(&key.0, key.1, 0) else {
                continue;
            };
            for batch in batches.iter().flat_map(|bytes| crate::raw::parse(bytes).0) {
                let values = batch.records().into_iter().map(|record| record.value);
                let values: Vec<String> = values
                    .map(|value| {
                        let value =
                            String::from_utf8(value.unwrap_or_default()).unwrap_or_default();
                        value.chars().take(12).collect()
                    })
                    .collect();
                text.push_str(&format!(
                    "{name} {}-{} {} to {} epoch {} attributes {:#x} producer {:x}/{} sequence {} {values:?}\n",
                    key.0,
                    key.1,
                    batch.base_offset,
                    batch.last_offset(),
                    batch.leader_epoch,
                    batch.attributes,
                    batch.producer_id,
                    batch.producer_epoch,
                    batch.base_sequence,
                ));
            }
        }
        text
    }

    /// Mirrors that wait for the operator, and whatever else ails an instance.
    pub fn ailments(&self) -> Vec<String> {
        let mut found = Vec::new();
        for life in self.lives.borrow().iter().flatten() {
            self.ask_health(&life.board);
            for mirror in life.board.mirrors() {
                let (topic, partition) = (&mirror.topic, mirror.partition);
                let (acked, end) = (mirror.acked.load(Relaxed), mirror.source_end.load(Relaxed));
                if mirror.error().is_some() || acked < end {
                    let (state, held) = (mirror.state(), mirror.buffered_bytes.load(Relaxed));
                    let error = mirror.error().map(|error| error.to_string()).unwrap_or_default();
                    found.push(format!(
                        "{topic}-{partition} {state:?}, acked {acked} of {end}, holds {held} bytes {error}"
                    ));
                }
            }
            let links = life.board.links();
            found.extend(links.iter().filter_map(|l| l.fatal()).map(|error| error.to_string()));
        }
        found
    }

    /// Mirrors that wait for the operator in every instance.
    pub fn parked(&self) -> Vec<String> {
        let lives = self.lives.borrow();
        let boards: Vec<_> = lives.iter().flatten().map(|life| &life.board).collect();
        let Some(first) = boards.first() else { return Vec::new() };
        let is_parked = |board: &Board, topic: &str, partition: i32| {
            let of = |m: &&Arc<strait::engine::stats::MirrorStats>| {
                &*m.topic == topic && m.partition == partition
            };
            board.mirrors().iter().find(of).is_some_and(|m| m.state() == MirrorState::Parked)
        };
        let everywhere = first.mirrors().into_iter().filter(|mirror| {
            boards.iter().all(|board| is_parked(board, &mirror.topic, mirror.partition))
        });
        everywhere
            .map(|mirror| {
                let error = mirror.error().map(|error| error.to_string()).unwrap_or_default();
                format!("{}-{}: {error}", mirror.topic, mirror.partition)
            })
            .collect()
    }
}
