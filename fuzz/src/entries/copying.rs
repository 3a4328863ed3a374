//! The whole engine between two clusters in memory, one of which answers as the input says.
//!
//! The first byte: 1 strikes the target's answers instead of the source's, 2 delivers in transactions. Then deeds of three
//! bytes: how many answers pass before it, what it is, and how far. Deeds up to [`LIES_FROM`] are faults of the way, which may
//! cost time and nothing else; behind them are lies, after which all that is asked for is that nothing panics, fails or spins.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use strait::config::{self, Surroundings};
use strait::embedded::{Cluster, Listener, Options, open};
use strait::strait::Strait;
use strait::wire::batch::Codec;
use strait::wire::records::{BatchBuilder, OpenBatch};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

use super::memory::{Deed, Deeds, Memory};

const TOPIC: &str = "orders";
const GROUP: &str = "strait.east-to-west";
/// What the clusters advertise; the engine is at a third address.
const HOSTS: [&str; 2] = ["10.0.1.1", "10.0.2.1"];
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
    let deeds = steps.iter().map(|step| (step[0], deed(step[1], step[2]))).collect();
    let deeds = Deeds { host: HOSTS[usize::from(mode & 1)], left: deeds };
    RUNTIME.with(|runtime| {
        LocalSet::new().block_on(runtime, copies(deeds, mode & 2 != 0, lies));
    });
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

async fn copies(deeds: Deeds, transactional: bool, lies: bool) {
    let memory = Memory::new(deeds);
    let source = cluster(&memory, 0).await;
    let target = cluster(&memory, 1).await;
    source.create_topic(TOPIC, 1, 1, &[]).expect("a legal topic");
    let too_far = Arc::new(Mutex::new(None));
    if !lies && !transactional {
        let (target, too_far) = (target.clone(), Arc::clone(&too_far));
        source.on_commit(Box::new(move |_, _, committed| {
            let there = arrived(&target).len();
            if committed.offset > there as i64 {
                *too_far.lock().expect("one thread") = Some((committed.offset, there));
            }
        }));
    }
    let mut written = 0;
    let mut write = |batches: usize| {
        for _ in 0..batches {
            let mut builder = BatchBuilder::new(Codec::None);
            for _ in 0..3 {
                builder.push(1_790_000_000_000, None, Some(written.to_string().as_bytes()), &[]);
                written += 1;
            }
            source.append(TOPIC, 0, &builder.finish().expect("small")).expect("it takes it");
        }
        written
    };
    write(2);
    let handle = Strait::builder(configuration(&source, &target, transactional))
        .env(memory.env())
        .start_local();
    let (board, began) = (handle.board(), Instant::now());
    let mut rounds = 0;
    let there = loop {
        sleep(Duration::from_millis(500)).await;
        rounds += 1;
        let until = if rounds < 4 { write(1) } else { write(0) };
        let at = source.committed(GROUP).get(&(TOPIC.to_owned(), 0)).map_or(0, |c| c.offset);
        let there = arrived(&target);
        // In transactions the position is the target's, so what has arrived is all that is looked at.
        let is_done = there.len() >= until && (transactional || at >= until as i64);
        if rounds >= 4 && (is_done || began.elapsed() > if lies { LYING_TIME } else { TIME_MAX }) {
            break there;
        }
    };
    assert_eq!(
        *too_far.lock().expect("one thread"),
        None,
        "committed past what the target holds (I1)"
    );
    assert!(board.failure().is_none(), "the engine failed: {:?}", board.failure());
    let dials = memory.dials();
    assert!(dials <= DIALS_MAX, "{dials} dials");
    if !lies {
        let expected: Vec<_> = (0..write(0)).map(|value| value.to_string()).collect();
        assert_eq!(there, expected, "each record once, in order (I2)");
    }
    source.shut_down();
    target.shut_down();
    drop(handle);
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
