//! A run that a test writes by hand: one bug, one cause, in simulated time.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use strait::embedded::Generation;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use super::Delivery;
use super::fleet::Fleet;
use super::host::EPOCH_MS;
use super::network::Network;
use super::oracle::Key;
use super::rng::Rng;
use super::workload::{Age, Topic};
use super::world::{SOURCE, TARGET, World};
use crate::checker::Wanted;
use crate::raw::Batch;

/// The one topic of a scene.
pub const TOPIC: &str = "sim-0";

/// What a scene begins with.
#[derive(Clone, Debug)]
pub struct Props {
    /// The instances; none is started.
    pub fleet: Fleet,
    /// Brokers of source and target.
    pub brokers: [usize; 2],
    /// Partitions of [`TOPIC`].
    pub partitions: i32,
    /// Hours by which its records are older than now.
    pub hours: i64,
    /// How they are delivered.
    pub delivery: Delivery,
    /// The target's release, if it matters.
    pub target_release: Option<Generation>,
}

impl Default for Props {
    fn default() -> Self {
        Self {
            fleet: Fleet::alone(),
            brokers: [1, 1],
            partitions: 1,
            hours: 0,
            delivery: Delivery::ExactlyOnce,
            target_release: None,
        }
    }
}

/// Two clusters, a topic, and a test that says what happens.
pub struct Scene {
    /// All of it.
    pub world: Rc<World>,
    hours: std::cell::Cell<i64>,
    written: std::cell::Cell<i64>,
}

/// Plays a scene: nothing in it may be wrong when it ends, unless the scene says otherwise.
#[track_caller]
pub fn play(props: Props, scene: impl AsyncFnOnce(&Scene)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    super::tell_log();
    let violations = LocalSet::new().block_on(&runtime, async {
        super::begin_clock();
        let rng = Rng::new(1);
        let network = Network::new(rng.fork("network"), (1_000, 3_000));
        let topic = Topic::plain(TOPIC, props.partitions, Age::Young);
        let Props { fleet, brokers, hours, delivery, target_release, .. } = props;
        let (rng, topics) = (rng.fork("world"), vec![topic]);
        let world =
            World::new(rng, network, brokers, target_release, topics, fleet, delivery).await;
        world.sends_apart();
        world.start_some(0);
        let hours = hours.into();
        let stage = Scene { world: world.clone(), hours, written: Default::default() };
        scene(&stage).await;
        let stopped = world.stopped().into_iter().map(|(key, (code, _))| (key, code)).collect();
        let mut oracle = world.oracle();
        if let Some(policies) = world.policies() {
            oracle.settle(&stopped, policies);
        }
        oracle.judge(usize::MAX);
        let violations = oracle.violations().to_vec();
        drop(oracle);
        if !violations.is_empty() {
            (0..props.partitions).for_each(|p| println!("{}", world.describe(&(TOPIC.into(), p))));
        }
        [SOURCE, TARGET].iter().for_each(|side| world.cluster(*side).shut_down());
        violations
    });
    assert!(violations.is_empty(), "{violations:#?}");
}

impl Scene {
    /// Writes a batch of so many records.
    pub fn write(&self, partition: i32, records: usize) {
        self.write_sized(partition, &vec![1; records]);
    }

    /// Writes a batch of records of at least these bytes.
    pub fn write_sized(&self, partition: i32, bytes: &[usize]) {
        let key = (TOPIC.to_owned(), partition);
        let mut batch = Batch::small(i64::try_from(bytes.len()).expect("few"));
        for (record, bytes) in batch.records.iter_mut().zip(bytes) {
            self.written.set(self.written.get() + 1);
            record.value = Some(format!("{:<bytes$}", self.written.get()).into_bytes());
        }
        batch.base_timestamp = EPOCH_MS - self.hours.get() * 3_600_000;
        let bytes = Bytes::from(batch.bytes());
        let offset = self.world.source.append(TOPIC, partition, &bytes).expect("it takes it");
        self.world.oracle().wrote(&key, &bytes, offset, Wanted::Yes, self.hours.get() > 12);
    }

    /// What is written from here on is of now.
    pub fn write_young(&self) {
        self.hours.set(0);
    }

    /// The position of a partition.
    pub fn committed(&self, partition: i32) -> Option<i64> {
        let key: Key = (TOPIC.to_owned(), partition);
        Some(self.world.source.committed(&self.world.group()).get(&key)?.offset)
    }

    /// Waits until it holds.
    ///
    /// # Panics
    ///
    /// When that takes longer than so many simulated seconds.
    pub async fn until(&self, what: &str, seconds: u64, holds: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(seconds);
        while !holds() {
            self.world.ask_healths();
            let waits = Instant::now() < until;
            assert!(waits, "waited {seconds} s for {what}; {:?}", self.world.ailments());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until everything is copied and committed.
    pub async fn until_done(&self, seconds: u64) {
        self.until("the end", seconds, || self.world.unfinished().is_ok()).await;
    }
}
