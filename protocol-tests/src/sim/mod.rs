//! The simulator: the whole engine, one or several instances, between two embedded clusters on a simulated network and
//! clock. One seed is one run, the same every time; a run that fails names its seed.
//!
//! Owns the network ([`network`]), what is written ([`workload`]), what goes wrong ([`faults`]), what the source's brokers
//! take away ([`cleaning`], [`losing`]), what must hold ([`oracle`] and [`past`], with the [`checker`](crate::checker) that
//! tests on real brokers share). TLS is off: what it protects is
//! tested elsewhere, and its bytes are random.

mod accounts;
pub mod cleaning;
pub mod faults;
pub mod fleet;
mod host;
mod instance;
mod look;
pub mod losing;
pub mod network;
pub mod oracle;
pub mod past;
mod profiles;
pub mod rng;
pub mod scene;
mod stream;
pub mod trace;
pub mod workload;
pub mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};
use tracing_subscriber::fmt::format::Writer as Writable;

use cleaning::Cleaning;
use faults::Kind;
use fleet::{Fleet, Membership};
use losing::Losing;
use network::Network;
use oracle::Key;
use past::Policies;
use rng::Rng;
use workload::{Topic, Writer, machine};
use world::{SOURCE, TARGET, World};

/// How long after the last fault everything must be copied and committed: a request that nobody answers is given up after
/// a minute, and what waits behind it backs off for ten seconds at most, some times.
const RECOVERY: Duration = Duration::from_secs(240);
/// More than the engine takes to look at the topics again.
const TOPICS_LOOK: Duration = Duration::from_secs(15);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(500);

/// What a run is made of, drawn from its seed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Brokers of source and target.
    pub brokers: [usize; 2],
    /// The instances of the engine.
    pub fleet: Fleet,
    /// How many of them start at once; the others come later, if at all.
    pub first: usize,
    /// How readers of the target get to see what is copied.
    pub delivery: Delivery,
    /// What is copied.
    pub topics: Vec<Topic>,
    /// Somebody else writes to the target's topics too.
    pub foreign: bool,
    /// What goes wrong.
    pub kinds: Vec<Kind>,
    /// How long things are written and go wrong.
    pub time: Duration,
    /// Batches before the first instance starts.
    pub backlog: i64,
    /// Retention took the beginning of each partition before the first start, up to inside a batch.
    pub cut_start: bool,
    /// One way through the network, microseconds.
    pub latency_us: (i64, i64),
    /// Compacted topics are cleaned.
    pub cleaning: Option<Cleaning>,
    /// The source loses records.
    pub losing: Option<Losing>,
}

impl Plan {
    /// The plan of this seed: two of three have one instance that is no member of anything.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed).fork("fleet");
        let fleet = if rng.chance(65) { Fleet::alone() } else { Fleet::draw(&mut rng) };
        Self::with(seed, fleet)
    }

    /// The plan of this seed for two instances that know nothing of each other.
    pub fn of_strangers(seed: u64) -> Self {
        Self::with(seed, Fleet::strangers())
    }

    fn with(seed: u64, fleet: Fleet) -> Self {
        let mut more = Rng::new(seed).fork("more");
        let mut rng = Rng::new(seed).fork("plan");
        let topics = rng.between(1, 2);
        let mut plan = Self {
            seed,
            first: more.below(fleet.instances) + 1,
            fleet,
            brokers: [*rng.pick(&[1, 1, 2, 3]), *rng.pick(&[1, 2, 3, 3])],
            delivery: Delivery::ExactlyOnce,
            topics: (0..topics).map(|i| Topic::draw(&mut rng, i as usize, 3)).collect(),
            foreign: rng.chance(20),
            kinds: if rng.chance(5) { Vec::new() } else { Kind::draw(&mut rng) },
            time: Duration::from_secs(rng.between(4, 25).unsigned_abs()),
            backlog: *rng.pick(&[0, 5, 60]),
            cut_start: rng.chance(30),
            latency_us: *rng.pick(&[(100, 900), (1_000, 3_000), (20_000, 60_000)]),
            cleaning: None,
            losing: None,
        };
        plan.kinds.extend(Kind::draw_more(&mut more, &plan.fleet));
        if plan.fleet.instances > 1 {
            // A leader that has forgotten both keeps neither from repeating the other's records.
            plan.kinds.retain(|kind| *kind != Kind::StateLost);
        }
        if plan.fleet.membership != Membership::Off {
            // Sessions take their time to end.
            plan.time += Duration::from_secs(more.between(0, 50).unsigned_abs());
        }
        plan
    }
}

impl Plan {
    fn policies(&self) -> Policies {
        self.losing.as_ref().map(Losing::policies).unwrap_or_default()
    }

    /// How many batches of old records may be there twice, for so many lives: one each, and some for what else may befall
    /// them. Where two may write at a time, nothing at the target keeps their old records apart.
    fn repeats_max(&self, lives: u64) -> usize {
        if self.fleet.instances > 1 || self.kinds.contains(&Kind::Freeze) {
            return usize::MAX;
        }
        usize::try_from(lives).unwrap_or(usize::MAX) + 20
    }
}

/// The link's `delivery`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Each batch counts at once.
    ExactlyOnce,
    /// Batches and position in transactions.
    Transactional,
    /// Every life as it likes.
    Either,
}

/// How a run went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it was made of.
    pub plan: Plan,
    /// What must not be.
    pub violations: Vec<String>,
    /// Equal for equal runs.
    pub hash: u64,
    /// The network's events.
    pub events: u64,
    /// Records written to the source.
    pub records: u64,
    /// Lives of instances.
    pub lives: u64,
    /// Commits that were judged.
    pub commits: u64,
    /// Batches that are on the target twice (old records only, or they would be violations).
    pub repeated: usize,
    /// Partitions that rightly wait for the operator.
    pub stopped: usize,
    /// Losses that the engine named.
    pub losses: usize,
    /// Records that compaction took before or after they were copied.
    pub cleaned: usize,
    /// Simulated time.
    pub time: Duration,
    /// The trace's last lines.
    pub tail: String,
    /// Both logs of the first partition that is wrong.
    pub logs: String,
}

/// Runs a seed.
pub fn run(seed: u64) -> Outcome {
    run_plan(Plan::of(seed))
}

/// Runs a plan, which may differ from what its seed draws.
pub fn run_plan(plan: Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, simulate(plan))
}

/// Prints the engine's own log with the run's time and instance, filtered by `STRAIT_SIM_LOG` as `RUST_LOG` filters.
pub fn tell_log() {
    struct Virtual;
    impl tracing_subscriber::fmt::time::FormatTime for Virtual {
        fn format_time(&self, to: &mut Writable<'_>) -> std::fmt::Result {
            let at =
                BEGAN.with(std::cell::Cell::get).map_or(Duration::ZERO, |began| began.elapsed());
            let who = instance::running().map(|index| format!(" instance {index}"));
            write!(to, "{:>9.3}s{}", at.as_secs_f64(), who.unwrap_or_default())
        }
    }
    let filter = std::env::var("STRAIT_SIM_LOG").unwrap_or_else(|_| "off".into());
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_timer(Virtual).with_ansi(false);
    // Another test of this process may have begun to tell.
    let _ = log.with_test_writer().try_init();
}

thread_local! {
    static BEGAN: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
}

fn begin_clock() {
    BEGAN.with(|began| began.set(Some(Instant::now())));
}

/// Waits until everything is copied and committed, but for partitions that rightly wait for the operator: gives them with
/// their codes.
async fn recover(world: &World, plan: &Plan) -> BTreeMap<Key, u16> {
    let until = Instant::now() + RECOVERY;
    if plan.losing.is_some() {
        // A topic that was made again last is found at the next look, and empty it has nothing to be done.
        sleep(TOPICS_LOOK).await;
    }
    loop {
        let (mut stopped, mut wrong) = (BTreeMap::new(), Vec::new());
        for (key, (code, why)) in world.stopped() {
            let loses = plan.cleaning.is_some() || plan.losing.is_some();
            if loses && world.oracle().may_park(&key, code, plan.policies()) {
                stopped.insert(key, code);
            } else {
                wrong.push(format!("C8: parked without need: {}-{}: {why}", key.0, key.1));
            }
        }
        let Err(behind) = world.unfinished_but(&stopped) else { return stopped };
        // What was fetched of a log that is no more may be on its way yet.
        let patient = plan.losing.is_some();
        if Instant::now() >= until || !(wrong.is_empty() || patient) {
            if wrong.is_empty() {
                let ailments = world.ailments();
                wrong.push(format!("C8: not done in time: {behind}; {ailments:?}"));
            }
            wrong.into_iter().for_each(|what| world.oracle().violated(what));
            return stopped;
        }
        sleep(LOOK).await;
    }
}

async fn simulate(plan: Plan) -> Outcome {
    begin_clock();
    let rng = Rng::new(plan.seed);
    let network = Network::new(rng.fork("network"), plan.latency_us);
    let world = World::new(
        rng.fork("world"),
        network.clone(),
        plan.brokers,
        None,
        plan.topics.clone(),
        plan.fleet.clone(),
        plan.delivery,
    )
    .await;
    let mut writer = Writer::new(
        rng.fork("writer"),
        network.host(machine(3, 1), rng.fork("writer's machine")),
        (world.source.clone(), world.target.clone()),
        world.share_oracle(),
        &plan.topics,
        plan.foreign,
    );
    if let Some(losing) = &plan.losing {
        world.loses(losing.policies());
    }
    (0..plan.backlog).for_each(|_| writer.write());
    if plan.cut_start {
        world.cut_source_starts();
    }
    faults::at_once(&world, &plan.kinds, &mut rng.fork("at once"));
    world.start_some(plan.first);
    let faults = faults::run(&world, &plan.kinds, rng.fork("faults"), plan.time);
    let cleaning = async {
        if let Some(cleaning) = &plan.cleaning {
            cleaning::run(&world, cleaning, rng.fork("cleaning"), plan.time).await;
        }
    };
    let losing = async {
        if let Some(losing) = &plan.losing {
            losing::run(&world, losing, rng.fork("losing"), plan.time).await;
        }
    };
    tokio::join!(writer.run(plan.time), faults, cleaning, losing);
    world.heal();
    let stopped = recover(&world, &plan).await;
    // Nothing more may come.
    sleep(Duration::from_secs(3)).await;
    drop(world.ailments());
    let mut oracle = world.oracle();
    let dropped = world.target.dropped_batches();
    if dropped > 0 {
        oracle.violated(format!("P4: {dropped} batches shared a request with another of theirs"));
    }
    oracle.settle(&stopped, plan.policies());
    let verdicts = oracle.judge(plan.repeats_max(world.lives()));
    let trace = network.trace();
    let is_named = |(topic, partition): &oracle::Key| {
        let name = format!("{topic}-{partition}");
        oracle.violations().iter().any(|violation| violation.contains(&name))
    };
    let worst = verdicts.iter().find(|(key, _)| is_named(key));
    let logs = worst.map(|(key, _)| world.describe(key)).unwrap_or_default();
    let outcome = Outcome {
        violations: oracle.violations().to_vec(),
        hash: trace.hash(),
        events: network.events(),
        records: oracle.records(),
        lives: world.lives(),
        commits: oracle.commits(),
        repeated: verdicts.values().map(crate::checker::Verdict::repeated_batches).sum(),
        stopped: stopped.len(),
        losses: oracle.accounts.count(),
        cleaned: oracle.cleaned_records(),
        time: network.elapsed(),
        tail: trace.tail(),
        logs,
        plan,
    };
    drop(oracle);
    for side in [SOURCE, TARGET] {
        world.cluster(side).shut_down();
    }
    outcome
}
