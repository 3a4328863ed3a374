//! The whole engine between two clusters in memory, one of which answers as the input says.
//!
//! The first byte: 1 strikes the target's answers instead of the source's, 2 delivers in transactions, 4 kills the engine in the
//! middle and starts it again. Then deeds of three bytes: how many answers pass before it, what it is, and how far. Deeds up
//! to [`LIES_FROM`] are faults of the way or of the broker, which may cost time and nothing else; behind them are lies, after
//! which all that is asked for is that nothing panics, fails or spins.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use strait::config::{self, Surroundings};
use strait::embedded::{ApiKey, Cluster, Fault, Listener, Options, Order, open};
use strait::engine::stats::Board;
use strait::env::Env;
use strait::strait::Strait;
use strait::wire::ErrorCode;
use strait::wire::records::OpenBatch;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

use super::memory::{Deed, Deeds, Memory};
use super::orders::{Orders, TOPIC};

const GROUP: &str = "strait.east-to-west";
/// What the clusters advertise; the engine is at a third address.
const HOSTS: [&str; 2] = ["10.0.1.1", "10.0.2.1"];
/// Times that something is written while it copies.
const ROUNDS: usize = 4;
/// The longest that a peer is waited for, and a back-off behind it, a few times over.
const TIME_MAX: Duration = Duration::from_secs(400);
/// What is asked of liars only.
const LYING_TIME: Duration = Duration::from_secs(60);
/// Connections in all: some at the start, then by back-off.
const DIALS_MAX: usize = 150;
/// The first deed that is a lie.
const LIES_FROM: u8 = 4;

thread_local! {
    static RUNTIME: Runtime =
        Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
}

pub(super) fn run(data: &Bytes) {
    let Some((&mode, script)) = data.split_first() else { return };
    let steps: Vec<_> = script.chunks_exact(3).take(24).collect();
    let lies = steps.iter().any(|step| step[1] % 8 >= LIES_FROM);
    let (refusals, deeds): (Vec<_>, Vec<_>) = steps.into_iter().partition(|step| is_refusal(step));
    let refusals = refusals.into_iter().map(|step| refusal(mode & 1 == 0, step)).collect();
    let deeds = deeds.into_iter().map(|step| (step[0], deed(step[1], step[2]))).collect();
    let deeds = Deeds { host: HOSTS[usize::from(mode & 1)], left: deeds };
    RUNTIME.with(|runtime| {
        LocalSet::new().block_on(runtime, copies(deeds, refusals, mode, lies));
    });
}

/// Faults with this bit are the broker's and not the way's.
fn is_refusal(step: &[u8]) -> bool {
    step[1] & 8 != 0 && step[1] % 8 < LIES_FROM
}

/// What the broker makes of some Fetch or Produce requests, one to four of them.
fn refusal(of_source: bool, step: &[u8]) -> Order {
    let (api, refused) = match of_source {
        true => (ApiKey::Fetch, ErrorCode::FETCH_SESSION_ID_NOT_FOUND),
        false => (ApiKey::Produce, ErrorCode::NOT_ENOUGH_REPLICAS),
    };
    let fault = match step[1] % 4 {
        0 => Fault::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        1 => Fault::Refuse(refused),
        2 if of_source => Fault::Refuse(ErrorCode::KAFKA_STORAGE_ERROR),
        2 => Fault::AnswerWith(ErrorCode::REQUEST_TIMED_OUT),
        _ => Fault::CloseAfter,
    };
    Order::next(api, fault).after(u32::from(step[0]) % 16).times(u32::from(step[2]) % 4 + 1)
}

fn deed(kind: u8, far: u8) -> Deed {
    match kind % 8 {
        0 => Deed::Close { far: 0 },
        1 => Deed::Close { far },
        2 => Deed::Wait(Duration::from_millis(u64::from(far) * 100)),
        3 => Deed::Swallow,
        4 => Deed::Flip { far, bits: (kind >> 3).max(1) },
        5 => Deed::Long { far, last: if kind & 8 == 0 { 0x07 } else { 0x0f } },
        6 => Deed::Cut { far },
        _ => Deed::Twice,
    }
}

async fn copies(deeds: Deeds, refusals: Vec<Order>, mode: u8, lies: bool) {
    let (transactional, killed) = (mode & 2 != 0, mode & 4 != 0);
    let memory = Memory::new(deeds);
    let source = cluster(&memory, 0).await;
    let target = cluster(&memory, 1).await;
    let struck = if mode & 1 == 0 { &source } else { &target };
    for order in refusals {
        struck.fault(order);
    }
    let mut orders = Orders::new(source.clone());
    let too_far = Arc::new(Mutex::new(None));
    if !lies && !transactional {
        let (target, too_far, owed) = (target.clone(), Arc::clone(&too_far), orders.owed());
        source.on_commit(Box::new(move |_, _, committed| {
            let (there, owed) = (arrived(&target).len(), owed(committed.offset));
            if owed > there {
                *too_far.lock().expect("one thread") = Some((committed.offset, owed, there));
            }
        }));
    }
    orders.write(7);
    let start = || Life::start(configuration(&source, &target, transactional), memory.env());
    let (mut life, began) = (start(), Instant::now());
    for round in 0..ROUNDS {
        sleep(Duration::from_millis(500)).await;
        orders.write(3);
        if killed && round == ROUNDS / 2 {
            life.kill().await;
            life = start();
        }
    }
    let (wanted, time) = (orders.wanted(), if lies { LYING_TIME } else { TIME_MAX });
    let there = loop {
        sleep(Duration::from_millis(500)).await;
        let at = source.committed(GROUP).get(&(TOPIC.to_owned(), 0)).map_or(0, |c| c.offset);
        let there = arrived(&target);
        // In transactions the position is the target's, so what has arrived is all that is looked at.
        let is_done = there.len() >= wanted.len() && (transactional || at >= orders.end());
        if is_done || began.elapsed() > time {
            break there;
        }
    };
    let too_far = *too_far.lock().expect("one thread");
    assert_eq!(too_far, None, "committed past what the target holds (I1)");
    let failure = life.board.failure();
    assert!(failure.is_none(), "the engine failed: {failure:?}");
    let dials = memory.dials();
    assert!(dials <= DIALS_MAX, "{dials} dials");
    if !lies {
        assert_eq!(there, wanted, "each record once, in order (I2)");
    }
    life.kill().await;
    source.shut_down();
    target.shut_down();
}

/// An engine from its start to its death.
struct Life {
    task: JoinHandle<()>,
    board: Arc<Board>,
}

impl Life {
    fn start(config: config::resolved::Config, env: Env) -> Self {
        let tasks = LocalSet::new();
        let handle = {
            let _inside = tasks.enter();
            Strait::builder(config).env(env).start_local()
        };
        let board = handle.board();
        let task = spawn_local(async move {
            tasks.await;
            drop(handle);
        });
        Self { task, board }
    }

    /// Nothing of it runs again.
    async fn kill(self) {
        self.task.abort();
        // Cancelled is what was asked for.
        drop(self.task.await);
    }
}

async fn cluster(memory: &Memory, which: usize) -> Cluster {
    let options = Options {
        brokers: 1,
        cluster_id: Some(format!("cluster-{which}")),
        host: HOSTS[which].to_owned(),
        listeners: vec![Listener::plain()],
        auto_create_topics: false,
        replication_factor: 1,
        ..Options::default()
    };
    let (cluster, serving) = open(memory.env(), options).await.expect("a free address");
    spawn_local(serving);
    cluster
}

fn configuration(
    source: &Cluster,
    target: &Cluster,
    transactional: bool,
) -> config::resolved::Config {
    let text = format!(
        "version: 1\nclusters:\n  east: {{ bootstrap: [\"{}\"] }}\n  west: {{ bootstrap: [\"{}\"] }}\n\
         links:\n  east-to-west: {{ from: east, to: west, topics: {{ include: [{TOPIC}] }}, start: earliest, \
         replication_factor: 1, membership: {{ protocol: \"off\" }}{} }}\n\
         engine: {{ lanes: 1, memory: 16MiB }}\n",
        source.bootstrap(),
        target.bootstrap(),
        if transactional { ", delivery: transactional" } else { "" },
    );
    let around = Surroundings { directory: Path::new("."), variable: &|_| None };
    let mut config = config::parse(&text, "strait.yaml", &around).expect("it is legal").config;
    config.telemetry = None;
    config
}

/// The values that readers of the target see.
fn arrived(target: &Cluster) -> Vec<String> {
    let Ok((_, batches)) = target.committed_from(TOPIC, 0, 0) else { return Vec::new() };
    let mut all = Vec::new();
    for batch in batches {
        let opened = OpenBatch::open(&batch, usize::MAX).expect("the target checks what it takes");
        if opened.header().is_control() {
            continue;
        }
        for record in opened.records() {
            let value = record.expect("the target checks what it takes").value;
            all.push(String::from_utf8_lossy(value.unwrap_or_default()).into_owned());
        }
    }
    all
}
