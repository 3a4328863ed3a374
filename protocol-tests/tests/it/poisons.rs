//! Every batch of `protocol_tests::poisons`, first, last, in the middle of a partition and alone in it, all in one run of the
//! engine between two embedded clusters in simulated time.
//!
//! Each is passed on, repaired, or refused with a reason. What lies before it has arrived, committed up to it and no further;
//! by policy it is stepped over, and what lies behind it has arrived too. The memory for all of that is the engine's budget.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use protocol_tests::poisons::{self, Fate, Poison};
use protocol_tests::raw::batch::HEADER;
use protocol_tests::raw::{Batch, Parsed, RawRecord};
use protocol_tests::sim::network::Network;
use protocol_tests::sim::rng::Rng;
use protocol_tests::sim::workload::machine;
use strait::canary::{self, Canary};
use strait::config;
use strait::embedded::{Cluster, Listener, Options, open};
use strait::engine::losses::LossKind;
use strait::engine::stats::{MirrorState, MirrorStats};
use strait::limits;
use strait::strait::Strait;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

const TOPIC: &str = "poisoned";
const GROUP: &str = "strait.poison";
/// What everything may take in simulated time: an error that says nothing is tried for a minute.
const TIME: Duration = Duration::from_secs(300);
/// The two clusters, the engine with its budget of 32 MiB, and the largest block that may be opened beside the half of it that
/// it grows out of.
const HEAP_BYTES_MAX: u64 = (64 << 20) + (limits::RECODE_BYTES_MAX as u64 * 3 / 2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    First,
    Middle,
    Last,
    Alone,
}

/// One partition of the source.
struct Case {
    name: String,
    fate: Fate,
    /// First offset of the poison, and the offset behind its last.
    poison: (i64, i64),
    /// Values before, within and behind it.
    values: [Vec<String>; 3],
    /// Its bytes behind the header, where the target takes them as they are.
    passes: Option<Vec<u8>>,
}

impl Case {
    /// What must have arrived, where poison stops its partition or is stepped over.
    fn arrives(&self, skips: bool) -> Vec<String> {
        let [before, within, behind] = &self.values;
        let stops = self.fate == Fate::Stops || (self.fate == Fate::Refused && !skips);
        let rest = if stops { &[] } else { &behind[..] };
        before.iter().chain(within).chain(rest).cloned().collect()
    }

    /// Whether the partition must stop.
    fn stops(&self, skips: bool) -> bool {
        self.fate == Fate::Stops || (self.fate == Fate::Refused && !skips)
    }
}

fn filled(source: &Cluster, partition: i32, poison: &Poison, place: Place) -> Case {
    let mut next = 0;
    let mut write = |count: usize| -> Vec<String> {
        let mut values = Vec::new();
        for _ in 0..count {
            let records = (0..2).map(|at| RawRecord::at(at, &format!("g{}", next + at)));
            let batch = Batch::of(records.collect()).with(|b| b.base_timestamp = 1_790_000_000_000);
            source.append(TOPIC, partition, &Bytes::from(batch.bytes())).unwrap();
            values.extend((0..2).map(|at| format!("g{}", next + at)));
            next += 2;
        }
        values
    };
    let before = if matches!(place, Place::Middle | Place::Last) { write(3) } else { Vec::new() };
    let from = source.append(TOPIC, partition, &Bytes::from(poison.bytes.clone())).unwrap();
    let behind = if matches!(place, Place::Middle | Place::First) { write(3) } else { Vec::new() };
    let within = match poison.fate {
        Fate::Arrives => (0..3).map(|at| format!("p{at}")).collect(),
        _ => Vec::new(),
    };
    Case {
        name: format!("{}, {place:?}", poison.name),
        fate: poison.fate,
        passes: poison.passes(),
        poison: (from, from + poison.offsets),
        values: [before, within, behind],
    }
}

#[test]
fn every_poison_at_every_place_is_stepped_over_alone_when_told() {
    play(", on_poison: skip");
}

#[test]
fn every_poison_at_every_place_stops_its_partition_in_front_of_it() {
    play("");
}

#[test]
fn every_poison_at_every_place_is_stepped_over_alone_in_transactions_too() {
    play(", on_poison: skip, delivery: transactional");
}

/// Where it is joined with its neighbours it would get a checksum that is right; alone the target refuses it, too.
#[test]
fn an_ignored_checksum_is_caught() {
    let damaged = || violations("", "wrong checksum");
    canary::plant(Some(Canary::ChecksumIgnored));
    let wrong = damaged();
    canary::plant(None);
    println!("{} violations, such as {:?}", wrong.len(), wrong.first());
    assert!(!wrong.is_empty(), "not caught");
    assert_eq!(damaged(), [""; 0], "and nothing without it");
}

fn play(policy: &str) {
    let mut wrong = Vec::new();
    let heap = allocation_counter::measure(|| wrong = violations(policy, ""));
    println!("{} MiB of heap at a time", heap.bytes_max >> 20);
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(heap.bytes_max <= HEAP_BYTES_MAX, "{} bytes of heap", heap.bytes_max);
}

/// What became of the poisons with these words in their names that must not.
fn violations(policy: &str, words: &str) -> Vec<String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    LocalSet::new().block_on(&runtime.unwrap(), copy(policy, words))
}

async fn copy(policy: &str, words: &str) -> Vec<String> {
    let skips = policy.contains("skip");
    let rng = Rng::new(1);
    let network = Network::new(rng.fork("network"), (500, 1_500));
    let (source, target) = (cluster(&network, 1).await, cluster(&network, 2).await);
    let poisons: Vec<_> =
        poisons::all().into_iter().filter(|poison| poison.name.contains(words)).collect();
    let places = [Place::First, Place::Middle, Place::Last, Place::Alone];
    // A bomb takes what opening the largest block takes; one place is enough outside of the long run.
    let is_full = std::env::var_os("STRAIT_FULL").is_some();
    let is_played = |poison: &Poison, place| {
        is_full || place == Place::Middle || !poison.name.starts_with("bomb")
    };
    let played: Vec<_> = poisons
        .iter()
        .flat_map(|poison| places.map(|place| (poison, place)))
        .filter(|(poison, place)| is_played(poison, *place))
        .collect();
    source.create_topic(TOPIC, i32::try_from(played.len()).unwrap(), 1, &[]).unwrap();
    let cases: Vec<Case> = (0..)
        .zip(&played)
        .map(|(at, (poison, place))| filled(&source, at, poison, *place))
        .collect();

    let handle = Strait::builder(configuration(&source, &target, policy))
        .env(network.host(machine(0, 1), Rng::new(2)))
        .start_local();
    let board = handle.board();
    let began = Instant::now();
    let mirrors = loop {
        sleep(Duration::from_secs(1)).await;
        let mirrors: BTreeMap<_, _> =
            board.mirrors().into_iter().map(|m| (m.partition, m)).collect();
        let committed = source.committed(GROUP);
        let is_done = |(at, case): (i32, &Case)| {
            let at_end = committed.get(&(TOPIC.to_owned(), at)).map(|committed| committed.offset)
                == Some(source.ends(TOPIC, at).unwrap().log_end);
            let parked = mirrors.get(&at).is_some_and(|m| m.state() == MirrorState::Parked);
            if case.stops(skips) { parked } else { at_end }
        };
        if (0..).zip(&cases).all(is_done) || began.elapsed() > TIME {
            break mirrors;
        }
    };
    sleep(Duration::from_secs(10)).await; // for commits, and for what must not come
    let committed = source.committed(GROUP);
    let mut wrong = Vec::new();
    for (at, case) in (0..).zip(&cases) {
        let offset = committed.get(&(TOPIC.to_owned(), at)).map(|committed| committed.offset);
        let end = source.ends(TOPIC, at).unwrap().log_end;
        let found = judge(case, skips, &mirrors[&at], &values(&target, at, case), offset, end);
        wrong.extend(found.err().map(|what| format!("{}: {what}", case.name)));
    }
    println!("{} cases in {:?} of simulated time", cases.len(), began.elapsed());
    source.shut_down();
    target.shut_down();
    drop(handle);
    wrong
}

fn judge(
    case: &Case,
    skips: bool,
    mirror: &MirrorStats,
    arrived: &[String],
    committed: Option<i64>,
    end: i64,
) -> Result<(), String> {
    if arrived != case.arrives(skips) {
        return Err(format!("{arrived:?} arrived: {:?} {:?}", mirror.state(), mirror.error()));
    }
    let losses = mirror.losses.all();
    let told = |loss: &strait::engine::losses::Loss| {
        (loss.kind, loss.from, loss.to, loss.continued, loss.reason.is_empty())
    };
    let told: Vec<_> = losses.iter().map(told).collect();
    let (from, to) = case.poison;
    match case.fate {
        Fate::Refused if skips => {
            let expected = [(LossKind::Poison, Some(from), Some(to), true, false)];
            if told != expected || committed != Some(end) {
                return Err(format!("{told:?} told, {committed:?} of {end} committed"));
            }
        }
        Fate::Refused | Fate::Stops => {
            let error = mirror.error().map(|error| (error.code.0, error.to_string()));
            let Some((61 | 62, said)) = error else { return Err(format!("said: {error:?}")) };
            let is_placed = said.contains(&format!("{TOPIC}-{}", mirror.partition));
            let is_before =
                committed.is_none_or(|at| at == from) && mirror.state() == MirrorState::Parked;
            // A cause, and not that the target has an error of its own.
            if !is_placed || !is_before || said.ends_with("UNKNOWN_SERVER_ERROR") {
                return Err(format!(
                    "{committed:?} of {from} committed, {:?}: {said}",
                    mirror.state()
                ));
            }
        }
        Fate::Arrives | Fate::Nothing | Fate::Passes => {
            if !told.is_empty() || committed != Some(end) {
                return Err(format!("{told:?} told, {committed:?} of {end} committed"));
            }
        }
    }
    Ok(())
}

async fn cluster(network: &Network, kind: u8) -> Cluster {
    let ip = machine(kind, 1);
    let name = format!("cluster {kind}");
    let options = Options {
        brokers: 1,
        host: ip.to_string(),
        listeners: vec![Listener::plain()],
        auto_create_topics: false,
        replication_factor: 1,
        cluster_id: Some(name.clone()),
        ..Options::default()
    };
    let env = network.host(ip, Rng::new(kind.into()).fork(&name));
    let (cluster, serving) = open(env, options).await.unwrap();
    spawn_local(serving);
    cluster
}

fn configuration(source: &Cluster, target: &Cluster, policy: &str) -> config::resolved::Config {
    let text = format!(
        "version: 1\nclusters:\n  source: {{ bootstrap: [\"{}\"] }}\n  target: {{ bootstrap: [\"{}\"] }}\n\
         links:\n  poison: {{ from: source, to: target, topics: {{ include: [{TOPIC}] }}, start: earliest, \
         replication_factor: 1, membership: {{ protocol: \"off\" }}{policy} }}\n\
         engine: {{ lanes: 1, memory: 32MiB }}\n",
        source.bootstrap(),
        target.bootstrap(),
    );
    let around = config::Surroundings { directory: Path::new("."), variable: &|_| None };
    let mut config = config::parse(&text, "poison", &around).unwrap().config;
    config.telemetry = None;
    config
}

/// The values that readers of the target see, but for what nobody can read; that is there once, as it was.
fn values(target: &Cluster, partition: i32, case: &Case) -> Vec<String> {
    let mut unread = case.passes.clone();
    let is_read = |batch: &Parsed| match &unread {
        Some(bytes) if batch.bytes[HEADER..] == bytes[..] => {
            unread = None;
            false
        }
        _ => true,
    };
    let seen = crate::stage::seen_of(target, TOPIC, partition, is_read);
    let lacks = unread.map(|_| "nothing in the place of what passes as it is".to_owned());
    seen.into_iter().map(|(_, value)| value.unwrap()).chain(lacks).collect()
}
