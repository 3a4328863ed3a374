//! One run of a case, in three acts: all is well; broker 1 lies while records are written; it relents, and what was written
//! must be where it belongs.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use strait::config;
use strait::embedded::{Cluster, Listener, Mechanism, Options, Replica, User, open};
use strait::engine::stats::{Board, MirrorState};
use strait::strait::{Handle, Strait};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

use super::case::{Case, Where};
use super::gate::Gate;
use crate::certs::Authority;
use crate::checker::Wanted;
use crate::raw::Batch;
use crate::sim::network::Network;
use crate::sim::oracle::{Key, Oracle};
use crate::sim::rng::Rng;
use crate::sim::workload::machine;

const TOPIC: &str = "sim-0";
/// What no run may touch: on the source beside what is copied, and not of the link.
pub const OTHER: &str = "other";
const GROUP: &str = "strait.hostile";
const USER: &str = "mirror";
const PASSWORD: &str = "s3cret-canary";

/// How long broker 1 lies.
const ACT: Duration = Duration::from_secs(12);
/// The same where nothing is seen of it before a request is overdue.
const SLOW_ACT: Duration = Duration::from_secs(70);
/// How long the others are under load.
const LOADED_ACT: Duration = Duration::from_secs(20);
/// How long before its end the other broker's records must have been written to have arrived by then.
const DELAY: Duration = Duration::from_secs(4);
/// Dials of the liar in an act, from everything that there is in an instance (readers, writers, coordination, control): so
/// many at once, and so many a second.
const DIALS_MAX: (f64, f64) = (10.0, 1.2);
/// Requests to it a second.
const REQUESTS_PER_SECOND_MAX: f64 = 30.0;
/// What recovery may take: a request that nobody answers is given up after a minute, back-off goes up to ten seconds.
const RECOVERY: Duration = Duration::from_secs(150);

/// How a run went.
#[derive(Clone, Debug)]
pub struct Run {
    /// Case, side, and whether over TLS.
    pub name: String,
    /// What must not be.
    pub violations: Vec<String>,
    /// Answers that were tampered with.
    pub struck: u32,
    /// Connections to the broker while it lied.
    pub dials: usize,
    /// Requests to it while it lied.
    pub requests: usize,
    /// The network's events.
    pub events: u64,
    /// What the operator was told of it.
    pub told: Vec<String>,
}

/// Authority and certificate, made once: they are not what is tested here.
pub struct Trust {
    authority: Authority,
    server: Arc<rustls::ServerConfig>,
}

impl Default for Trust {
    fn default() -> Self {
        let authority = Authority::new("hostile");
        let names: Vec<String> = [1, 2].map(|kind| machine(kind, 1).to_string()).to_vec();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let server = authority.server(&names).server_config();
        Self { authority, server }
    }
}

/// Lines of the log at WARN and above, of this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Plays a case on a side, over TLS with that trust.
pub fn play(case: &Arc<Case>, side: Where, trust: Option<&Trust>) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let log = Log::default();
    let writer = log.clone();
    let level = if std::env::var_os("STRAIT_HOSTILE_DEBUG").is_some() {
        tracing_subscriber::filter::LevelFilter::DEBUG
    } else {
        tracing_subscriber::filter::LevelFilter::WARN
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    let _telling = tracing::subscriber::set_default(subscriber);
    PANICS.set(0);
    let act = run(case, side, trust, log);
    let mut run = LocalSet::new().block_on(&runtime, act);
    if PANICS.get() > 0 {
        run.violations.push(format!("{} panics", PANICS.get()));
    }
    run
}

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// Counts the panics of each thread: one in a task ends the task and nothing else.
pub fn count_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            told(info);
        }));
    });
}

/// Everything of a run.
struct Stage {
    network: Network,
    source: Cluster,
    target: Cluster,
    gate: Gate,
    oracle: Arc<Mutex<Oracle>>,
    written: Cell<u64>,
    partitions: i32,
    log: Log,
    /// The liar's address.
    liar: String,
}

async fn run(case: &Arc<Case>, side: Where, trust: Option<&Trust>, log: Log) -> Run {
    let stage = Stage::new(2, case, side, trust, log).await;
    let mut handle = Some(stage.start(case, side, trust));
    let mut board = handle.as_ref().expect("it runs").board();
    for _ in 0..3 {
        stage.write();
    }
    let mut violations = Vec::new();
    if let Err(what) = stage.until_done(&board, &BTreeSet::new(), Duration::from_secs(40)).await {
        violations.push(format!("not even in quiet: {what}"));
    }
    if case.restarts {
        // What it had sent arrives before its successor asks.
        drop(handle.take());
        sleep(Duration::from_secs(1)).await;
    }
    let began = Instant::now();
    stage.gate.strike(case.clone());
    if case.restarts {
        let next = stage.start(case, side, trust);
        board = next.board();
        handle = Some(next);
    } else if case.cuts {
        stage.gate.cut();
    }
    let act = if case.slow { SLOW_ACT } else { ACT };
    while began.elapsed() < act - DELAY {
        stage.write();
        sleep(act / 7).await;
    }
    let written = stage.end(1);
    sleep(DELAY).await;
    let told = stage.told(&board, case);
    let reached = stage.oracle().first_missing(&(TOPIC.to_owned(), 1));
    if reached < written && !case.whole {
        violations.push(format!(
            "the other broker's partition stood still at {reached} of {written}: {:?}",
            ailments(&board)
        ));
    }
    let (dials, requests) = (stage.gate.dials_since(began), stage.gate.requests_since(began));
    stage.gate.relent();
    stage.gate.cut();
    stage.write();
    let parked = stage.parks(case, &board);
    match stage.until_done(&board, &parked, RECOVERY).await {
        Ok(()) => {}
        // What was parked late is seen only now.
        Err(what) => match stage.parks(case, &board) {
            now if now == parked => violations.push(format!("no recovery: {what}")),
            now => {
                let again = stage.until_done(&board, &now, Duration::from_secs(30)).await;
                violations.extend(again.err().map(|what| format!("no recovery: {what}")));
            }
        },
    }
    if stage.gate.struck() == 0 {
        violations.push("the case never struck".to_owned());
    }
    let names_it = |line: &&String| line.contains("ST-") && line.contains(case.told.unwrap_or(""));
    let is_counted = case.counts && stage.counted(&board);
    if case.told.is_some() && !is_counted && !told.iter().any(|line| names_it(&line)) {
        violations.push(format!("nobody was told {:?}", case.told));
    }
    if let Some(error) = board.failure() {
        violations.push(format!("the engine failed: {error}"));
    }
    let (at_once, each) = DIALS_MAX;
    let seconds = act.as_secs_f64();
    if dials as f64 > at_once + each * seconds
        || requests as f64 > REQUESTS_PER_SECOND_MAX * seconds
    {
        violations.push(format!("{dials} dials and {requests} requests while it lied"));
    }
    violations.extend(stage.settle(case, &stage.parks(case, &board)));
    let name =
        format!("{}, {side:?}, {}", case.name, if trust.is_some() { "TLS" } else { "plain" });
    let run = Run {
        name,
        violations,
        struck: stage.gate.struck(),
        dials,
        requests,
        events: stage.network.events(),
        told,
    };
    drop(handle);
    stage.source.shut_down();
    stage.target.shut_down();
    if std::env::var_os("STRAIT_HOSTILE_DEBUG").is_some() {
        println!("{}", stage.log.text());
    }
    run
}

/// How the partitions of the other two of three brokers fare while broker 1 does nothing but lie: what arrives of them under
/// load, in parts of what arrives in as much time before.
pub fn others(case: &Arc<Case>, side: Where) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let stage = Stage::new(3, case, side, None, Log::default()).await;
        let handle = stage.start(case, side, None);
        let board = handle.board();
        let arrived = || -> i64 {
            let end =
                |partition| stage.target.ends(TOPIC, partition).map_or(0, |e| e.high_watermark);
            (1..3).map(end).sum()
        };
        let act = async || {
            let (before, until) = (arrived(), Instant::now() + LOADED_ACT);
            while Instant::now() < until {
                stage.write();
                sleep(Duration::from_millis(50)).await;
            }
            arrived() - before
        };
        stage.write();
        stage.until_done(&board, &BTreeSet::new(), RECOVERY).await.expect("a calm beginning");
        let calm = act().await;
        stage.gate.strike(case.clone());
        stage.gate.cut();
        let meanwhile = act().await;
        stage.source.shut_down();
        stage.target.shut_down();
        drop(handle);
        meanwhile as f64 / calm as f64
    })
}

async fn cluster(
    brokers: usize,
    network: &Network,
    kind: u8,
    rng: &Rng,
    case: &Case,
    gate: Option<&Gate>,
) -> Cluster {
    let ip = machine(kind, 1);
    let name = format!("cluster {kind}");
    let env = match gate {
        Some(gate) => gate.env(),
        None => network.host(ip, rng.fork(&name)),
    };
    let logs_in = gate.is_some() && case.logs_in;
    let listener = Listener { tls: None, sasl: logs_in };
    let options = Options {
        brokers,
        cluster_id: Some(name),
        host: ip.to_string(),
        listeners: vec![listener],
        users: vec![User { name: USER.into(), password: PASSWORD.into() }],
        mechanisms: vec![Mechanism::ScramSha256],
        auto_create_topics: false,
        replication_factor: 1,
        ..Options::default()
    };
    let (cluster, serving) = open(env, options).await.expect("a free address");
    spawn_local(serving);
    cluster
}

impl Stage {
    async fn new(
        brokers: usize,
        case: &Case,
        side: Where,
        trust: Option<&Trust>,
        log: Log,
    ) -> Self {
        let partitions = i32::try_from(brokers).expect("few");
        let rng = Rng::new(1);
        let network = Network::new(rng.fork("network"), (500, 1_500));
        let kind = if side == Where::Source { 1 } else { 2 };
        let env = network.host(machine(kind, 1), rng.fork("liar"));
        let gate = Gate::new(env, trust.map(|trust| trust.server.clone()));
        let gate_of = |which| (which == side).then_some(&gate);
        let source = cluster(brokers, &network, 1, &rng, case, gate_of(Where::Source)).await;
        let target = cluster(brokers, &network, 2, &rng, case, gate_of(Where::Target)).await;
        let mut oracle = Oracle::new(target.clone());
        for (cluster, is_source) in [(&source, true), (&target, false)] {
            let id = cluster.create_topic(TOPIC, partitions, 1, &[]).expect("a legal topic");
            if is_source {
                oracle.born(id);
                cluster.create_topic(OTHER, 1, 1, &[]).expect("a legal topic");
            }
            for partition in 0..partitions {
                if cluster.leader(TOPIC, partition) != partition + 1 {
                    let to = partition + 1;
                    cluster.move_leader(TOPIC, partition, to, Replica::InSync).expect("a broker");
                }
            }
        }
        (0..partitions).for_each(|partition| oracle.watch((TOPIC.to_owned(), partition)));
        source.append(OTHER, 0, &Bytes::from(Batch::small(3).bytes())).expect("it takes it");
        let coordinator = if case.coordinates { 1 } else { 2 };
        source.move_coordinator(GROUP, coordinator);
        target.move_coordinator(GROUP, if case.transactional { 1 } else { 2 });
        let oracle = Arc::new(Mutex::new(oracle));
        let judge = oracle.clone();
        source.on_commit(Box::new(move |_, key, committed| {
            judge.lock().unwrap_or_else(PoisonError::into_inner).committed(key, committed);
        }));
        let liar = match side {
            Where::Source => source.address(1),
            Where::Target => target.address(1),
        };
        let (written, liar) = (Cell::new(0), liar.to_string());
        Self { network, source, target, gate, oracle, written, partitions, log, liar }
    }

    fn oracle(&self) -> std::sync::MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, case: &Case, side: Where, trust: Option<&Trust>) -> Handle {
        let entry = |which: Where, cluster: &Cluster| {
            let quoted: Vec<_> =
                cluster.bootstrap().split(',').map(|at| format!("\"{at}\"")).collect();
            let mut entry = format!("bootstrap: [{}]", quoted.join(", "));
            if let Some(trust) = trust.filter(|_| which == side) {
                entry += &format!(", tls: {{ ca: \"{}\" }}", trust.authority.ca().display());
            }
            if which == side && case.logs_in {
                entry += &format!(
                    ", sasl: {{ mechanism: SCRAM-SHA-256, username: {USER}, password: {PASSWORD} }}"
                );
            }
            entry
        };
        let text = format!(
            "version: 1\n\
             clusters:\n  source: {{ {} }}\n  target: {{ {} }}\n\
             links:\n  hostile: {{ from: source, to: target, topics: {{ include: [\"sim-.*\"] }}, \
             start: earliest, replication_factor: 1, membership: {{ protocol: \"{}\" }}{} }}\n\
             engine: {{ lanes: 1, memory: 16MiB }}\n",
            entry(Where::Source, &self.source),
            entry(Where::Target, &self.target),
            if case.coordinates { "auto" } else { "off" },
            if case.transactional { ", delivery: transactional" } else { "" },
        );
        let around = config::Surroundings { directory: Path::new("."), variable: &|_| None };
        let mut config =
            config::parse(&text, "hostile", &around).expect("a legal configuration").config;
        config.telemetry = None;
        let env = self.network.host(machine(0, 1), Rng::new(2));
        Strait::builder(config).env(env).start_local()
    }

    /// A batch of three records to each partition.
    fn write(&self) {
        for partition in 0..self.partitions {
            let key = (TOPIC.to_owned(), partition);
            let mut batch = Batch::small(3);
            for record in &mut batch.records {
                self.written.set(self.written.get() + 1);
                record.value = Some(self.written.get().to_string().into_bytes());
            }
            batch.base_timestamp = 1_800_000_000_000;
            let bytes = Bytes::from(batch.bytes());
            let offset = self.source.append(TOPIC, partition, &bytes).expect("it takes it");
            self.oracle().wrote(&key, &bytes, offset, Wanted::Yes, false);
        }
    }

    fn end(&self, partition: i32) -> i64 {
        self.source.ends(TOPIC, partition).map_or(-1, |ends| ends.last_stable)
    }

    /// Waits until everything is copied and committed, but for what is parked.
    async fn until_done(
        &self,
        board: &Board,
        parked: &BTreeSet<Key>,
        time: Duration,
    ) -> Result<(), String> {
        let until = Instant::now() + time;
        loop {
            let committed = self.source.committed(GROUP);
            let behind =
                (0..self.partitions).map(|partition| (TOPIC.to_owned(), partition)).find(|key| {
                    let at = committed.get(key).map_or(0, |committed| committed.offset);
                    !parked.contains(key) && at != self.end(key.1)
                });
            let Some(key) = behind else { return Ok(()) };
            if Instant::now() >= until {
                let at = committed.get(&key).map(|committed| committed.offset);
                let (end, ailments) = (self.end(key.1), ailments(board));
                return Err(format!("{}-{} at {at:?} of {end}: {ailments:?}", key.0, key.1));
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    /// Partitions that rightly wait for the operator.
    fn parks(&self, case: &Case, board: &Board) -> BTreeSet<Key> {
        let parked = board.mirrors().into_iter().filter(|mirror| {
            let code = mirror.error().map(|error| error.code.0);
            mirror.state() == MirrorState::Parked
                && code.is_some_and(|code| case.parks.contains(&code))
        });
        let mut parked: BTreeSet<Key> =
            parked.map(|mirror| (mirror.topic.to_string(), mirror.partition)).collect();
        let blocked = board.links().into_iter().filter_map(|link| link.first_blocked());
        if blocked.into_iter().any(|error| case.parks.contains(&error.code.0)) {
            parked.extend((0..self.partitions).map(|partition| (TOPIC.to_owned(), partition)));
        }
        parked
    }

    /// What names the liar, in the log and on the board.
    fn told(&self, board: &Board, case: &Case) -> Vec<String> {
        let log = self.log.text();
        let mut lines: Vec<String> = log.lines().map(str::to_owned).collect();
        lines.extend(ailments(board));
        let own = format!("{TOPIC}-0");
        let named = |line: &String| {
            line.contains(&self.liar)
                || line.contains("broker 1 ")
                || line.contains("broker=1 ")
                || line.contains(&own)
        };
        // Connections that the stage cut itself are no news.
        let cut = |line: &String| {
            case.cuts
                && (line.ends_with(": closed the connection") || line.contains("close_notify"))
        };
        let mut told: Vec<String> =
            lines.into_iter().filter(|line| named(line) && !cut(line)).collect();
        told.sort();
        told.dedup();
        told
    }

    /// Whether requests are counted that failed.
    fn counted(&self, board: &Board) -> bool {
        board.lanes().iter().any(|lane| {
            let errors = lane.request_errors.lock().unwrap_or_else(PoisonError::into_inner);
            errors.keys().any(|(_, api, _)| *api != "connection")
        })
    }

    /// The last word on both logs.
    fn settle(&self, case: &Case, parked: &BTreeSet<Key>) -> Vec<String> {
        let mut oracle = self.oracle();
        oracle.judge(0);
        let mut violations: Vec<String> = oracle.violations().to_vec();
        for (topic, partition) in parked {
            let lost = format!("{topic}-{partition}: C1");
            violations.retain(|violation| !violation.starts_with(&lost));
        }
        if case.denies {
            violations.retain(|violation| !violation.contains("is not on the target"));
            violations.retain(|violation| !violation.contains("C1"));
        }
        let topics: BTreeSet<String> = self.target.topics().into_iter().collect();
        let foreign: Vec<_> =
            topics.iter().filter(|topic| !topic.starts_with("__") && *topic != TOPIC).collect();
        if !foreign.is_empty() {
            violations.push(format!("topics on the target that are not of the link: {foreign:?}"));
        }
        let groups = self.source.committed(GROUP);
        if groups.keys().any(|(topic, _)| topic != TOPIC) {
            violations.push("a position of a topic that is not of the link".to_owned());
        }
        if self.log.text().contains(PASSWORD) {
            violations.push("the password is in the log".to_owned());
        }
        violations
    }
}

/// Everything that the board shows to be wrong.
fn ailments(board: &Board) -> Vec<String> {
    let mut found = Vec::new();
    for mirror in board.mirrors() {
        if let Some(error) = mirror.error() {
            let (state, place) = (mirror.state(), format!("{}-{}", mirror.topic, mirror.partition));
            found.push(format!("{place} {state:?}: {error}"));
        }
    }
    for link in board.links() {
        found.extend(link.fatal().map(|error| format!("link: {error}")));
        found.extend(link.first_blocked().map(|error| format!("link: {error}")));
        let error = link.error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        found.extend(error.map(|error| format!("link: {error}")));
    }
    for lane in board.lanes() {
        let error = lane.group_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        found.extend(error.map(|error| format!("group: {error}")));
    }
    found
}
