//! `strait bench link`: one link of the configuration as it is, on a topic of its own.
//!
//! The topic is made on both clusters, filled on the source, copied by the real engine under the link's own settings, and
//! removed from both at the end: also after a failure, and at Ctrl-C. The position goes into a group of the topic's name,
//! which the source forgets with the topic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use clap::Args;
use regex::Regex;

use super::super::path::{self, Buffer, Way};
use super::super::run::Signals;
use super::super::screen::show_bytes;
use super::super::{Common, Exit, Failure, OutputArg, Screen, load, net};
use super::copy::{self, Copied, Span};
use super::fill::{self, Enough, Filled};
use super::hints::{Carried, Facts};
use super::topic::{Removed, Topic};
use super::{Shape, records, report};
use crate::cluster::ClusterHandle;
use crate::config::resolved::{
    Address, Config, Forward, Link, Membership, MembershipProtocol, Naming, OnFailure, Policies,
    Start, TopicSelection,
};
use crate::config::values::parse_size;
use crate::connection::is_link_local;
use crate::engine::stats::Board;
use crate::env::Env;
use crate::error::{Action, Error, Side};
use crate::link::reasons;
use crate::link::selection::BENCH_PREFIX;
use crate::strait::Strait;

/// Which link, and with what.
#[derive(Clone, Debug, Args)]
pub struct LinkArgs {
    /// The link; it may be running
    pub link: String,
    #[command(flatten)]
    pub shape: Shape,
    /// Write so much at most to the topic on the source
    #[arg(long, default_value = "1GiB", value_parser = parse_size)]
    pub bytes: u64,
    /// Show what would be made, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub output: OutputArg,
}

/// What the last acks and the last commit may take.
const DRAIN: Duration = Duration::from_secs(5);
/// A TCP connection that is only there to be timed.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);

/// How a side is reached.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tls {
    pub(super) version: Option<&'static str>,
    pub(super) suite: Option<&'static str>,
}

/// A broker that leads partitions of the topic.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) side: Side,
    pub(super) way: Way,
    /// A TCP handshake; none where it failed, which a connection did not.
    pub(super) tcp: Option<Duration>,
}

impl Seen {
    pub(super) fn buffer(&self) -> Option<Buffer> {
        self.way.buffers.first().map(|(_, buffer)| *buffer)
    }
}

/// Everything that was measured.
pub(super) struct Measured {
    pub(super) tls: [Tls; 2],
    pub(super) brokers: Vec<Seen>,
    pub(super) filled: Filled,
    pub(super) copied: Copied,
    pub(super) facts: Facts,
    /// Answers with an error while it copied, by side, API and name.
    pub(super) errors: BTreeMap<String, u64>,
    /// Topics of earlier measurements, by cluster: they were killed, or are running.
    pub(super) others: Vec<(String, String)>,
}

pub(super) fn main(
    args: &LinkArgs,
    common: &Common,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let config = load(common, screen)?.config;
    let links = net::links(&config, Some(&args.link))?;
    let Some(link) = links.first().copied() else { return Ok(Exit::Usage) };
    net::block_on(Box::pin(bench(args, &config, link, screen)))
}

async fn bench(
    args: &LinkArgs,
    config: &Config,
    link: &Arc<Link>,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let mut signals = Signals::install()?;
    let env = Env::real();
    let source = net::open(&env, &link.from, Side::Source).await?;
    let target = net::open(&env, &link.to, Side::Target).await?;
    match (&source.map().cluster_id, &target.map().cluster_id) {
        (Some(a), Some(b)) if a == b => return Err(reasons::same_cluster(link, a).into()),
        _ => {}
    }
    let factor = link.replication_factor;
    let topic = Topic::new(&env, (&source, &target), args.shape.partitions, factor);
    if args.dry_run {
        let problems = topic.rehearse(&env).await;
        report::rehearsed(args, link, &problems, screen)?;
        return Ok(if problems.is_empty() { Exit::Ok } else { Exit::NotTrue });
    }
    // Whatever is dropped here half way is behind the removal: the engine above all.
    let measured = tokio::select! {
        measured = measure(args, config, link, &topic, (&env, &source, &target), screen) => Some(measured),
        () = signals.next() => None,
    };
    screen.erase_line();
    let removed = tokio::select! {
        removed = topic.remove(&env) => removed,
        () = signals.next() => topic.left(),
    };
    let is_gone = removed.source.is_none() && removed.target.is_none();
    let exit = match &measured {
        Some(Ok(measured)) => {
            report::measured(args, link, &topic.name, measured, &removed, screen)?;
            if is_gone { Exit::Ok } else { Exit::Failed }
        }
        Some(Err(_)) => Exit::Failed,
        None => {
            let gone = if is_gone { "; its topic is removed" } else { "" };
            writeln!(screen.err, "interrupted{gone}")?;
            Exit::Failed
        }
    };
    tell_left(&removed, screen)?;
    match measured {
        Some(Err(failure)) => Err(failure),
        _ => Ok(exit),
    }
}

fn tell_left(removed: &Removed, screen: &mut Screen<'_>) -> std::io::Result<()> {
    let errors = removed.source.iter().chain(&removed.target);
    errors.into_iter().try_for_each(|error| writeln!(screen.err, "{error}"))
}

async fn measure(
    args: &LinkArgs,
    config: &Config,
    link: &Arc<Link>,
    topic: &Topic<'_>,
    (env, source, target): (&Env, &ClusterHandle, &ClusterHandle),
    screen: &mut Screen<'_>,
) -> Result<Measured, Failure> {
    let batches = records::batches(&args.shape, env.wall_clock_ms());
    let batches = batches.map_err(|error| {
        let what = format!("batches cannot be made: {error}");
        Error::new(super::topic::TROUBLE, Side::Local, Action::Stop, what)
    })?;
    let others = others(source).chain(others(target)).collect();
    tell(
        screen,
        &format!("making topic {} on {} and {}", topic.name, link.from.name, link.to.name),
    );
    topic.make(env).await?;
    let (tls_source, mut brokers) = look(env, source, &topic.name).await?;
    let (tls_target, of_target) = look(env, target, &topic.name).await?;
    brokers.extend(of_target);
    tell(screen, &format!("filling it on {}", link.from.name));
    let enough = Enough { bytes: args.bytes, after: args.shape.length() };
    let filled = fill::fill(env, source, &topic.name, &batches, enough).await?;
    if filled.records == 0 {
        let what = format!("{} took no record in {} s", link.from.name, args.shape.seconds);
        return Err(Error::new(super::topic::TROUBLE, Side::Source, Action::Stop, what).into());
    }
    let (copied, facts, errors) =
        copy(args, config, link, topic, filled, &brokers, env, screen).await?;
    Ok(Measured { tls: [tls_source, tls_target], brokers, filled, copied, facts, errors, others })
}

/// Copies what was filled in, or as much of it as there is time for.
#[allow(clippy::too_many_arguments, reason = "each is one thing, and there is one caller")]
async fn copy(
    args: &LinkArgs,
    config: &Config,
    link: &Arc<Link>,
    topic: &Topic<'_>,
    filled: Filled,
    brokers: &[Seen],
    env: &Env,
    screen: &mut Screen<'_>,
) -> Result<(Copied, Facts, BTreeMap<String, u64>), Failure> {
    let handle = Strait::builder(derived(config, link, &topic.name)).env(env.clone()).start()?;
    let board = handle.board();
    let span = Span {
        warm_up: Duration::ZERO,
        length: args.shape.length(),
        records: Some(filled.records),
        window_bytes_max: link.window_bytes_max,
    };
    let show = |rate: f64| tell(screen, &format!("copying: {}", path::show_rate(rate)));
    let copied = tokio::select! {
        copied = copy::watch(env, &board, &span, show) => copied?,
        error = handle.stopped() => return Err(error.into()),
    };
    let facts = facts(config, link, &board, topic, &copied, brokers);
    let errors = copy::errors(&board);
    // Not waited for longer than it takes: the topic goes.
    handle.drain(DRAIN).await;
    Ok((copied, facts, errors))
}

fn tell(screen: &mut Screen<'_>, what: &str) {
    if screen.live {
        screen.replace_line(what);
    }
}

/// The operator's configuration with nothing in it but this link and this topic. What concerns speed stays as it is.
fn derived(config: &Config, link: &Link, topic: &str) -> Config {
    let mut own = link.clone();
    // The group is `strait.` and the name: the topic's own name, so that one prefix has all rights.
    own.name = topic.strip_prefix("strait.").unwrap_or(topic).to_owned();
    own.topics = TopicSelection {
        include: Regex::new(&format!("^(?:{})$", regex::escape(topic))).into_iter().collect(),
        exclude: Vec::new(),
        literal: vec![topic.to_owned()],
    };
    own.naming = Naming::Identity;
    own.start = Start::Earliest;
    own.forward = Forward::default();
    own.policies = Policies { on_failure: OnFailure::Stop, ..Policies::default() };
    own.membership = Membership { protocol: MembershipProtocol::Off, instance_id: None };
    Config {
        clusters: config.clusters.clone(),
        links: vec![Arc::new(own)],
        engine: config.engine,
        telemetry: None,
    }
}

/// The brokers that lead partitions of the topic, and the ways to them, before anything is under way.
async fn look(env: &Env, cluster: &ClusterHandle, topic: &str) -> Result<(Tls, Vec<Seen>), Error> {
    let (map, side) = (cluster.map(), cluster.side());
    let leaders: BTreeSet<i32> = leaders(cluster, topic).into_iter().collect();
    let (mut tls, mut seen) = (Tls::default(), Vec::new());
    for leader in leaders {
        let connection = cluster.connect(env, leader).await?;
        tls = Tls { version: connection.tls_version(), suite: connection.tls_suite() };
        let way = path::look(env, &connection, leader, &[side]).await?;
        let tcp = match map.brokers.get(&leader) {
            Some(broker) => tcp(env, &broker.address).await,
            None => None,
        };
        seen.push(Seen { side, way, tcp });
    }
    Ok((tls, seen))
}

/// By partition; -1 is nobody.
fn leaders(cluster: &ClusterHandle, topic: &str) -> Vec<i32> {
    let map = cluster.map();
    let partitions = map.topics.get(topic).into_iter().flat_map(|topic| &topic.partitions);
    partitions.map(|partition| partition.leader).collect()
}

/// A TCP handshake with the first address that takes one.
async fn tcp(env: &Env, address: &Address) -> Option<Duration> {
    let found = env.world().resolve(&address.host, address.port).await.ok()?;
    for at in found.into_iter().filter(|at| !is_link_local(at.ip())) {
        let began = env.now();
        let connected = tokio::time::timeout(TCP_TIMEOUT, env.world().connect(at)).await;
        if connected.is_ok_and(|connected| connected.is_ok()) {
            return Some(env.now() - began);
        }
    }
    None
}

/// Topics of other measurements, with their cluster.
fn others(cluster: &ClusterHandle) -> impl Iterator<Item = (String, String)> + use<> {
    let (name, map) = (cluster.config().name.clone(), cluster.map());
    let found = map.topics.keys().filter(|topic| topic.starts_with(BENCH_PREFIX));
    let mut found = found.cloned().collect::<Vec<_>>();
    found.sort();
    found.into_iter().map(move |topic| (name.clone(), topic))
}

/// What the board and the ways to the brokers say together.
fn facts(
    config: &Config,
    link: &Link,
    board: &Board,
    topic: &Topic<'_>,
    copied: &Copied,
    brokers: &[Seen],
) -> Facts {
    let [at_source, at_target] = topic.leaders();
    let leader = |leaders: &[i32], partition: i32| {
        usize::try_from(partition).ok().and_then(|index| leaders.get(index).copied()).unwrap_or(-1)
    };
    let mut fetchers = BTreeSet::new();
    let mut connections: BTreeMap<i32, BTreeSet<(usize, i32)>> = BTreeMap::new();
    let (mut bytes, mut all): (BTreeMap<i32, u64>, u64) = (BTreeMap::new(), 0);
    for mirror in board.mirrors() {
        let (lane, acked) = (mirror.lane.load(Relaxed), mirror.acked_bytes.load(Relaxed));
        fetchers.insert((lane, leader(&at_source, mirror.partition)));
        let to = leader(&at_target, mirror.partition);
        let pinned =
            mirror.partition % i32::try_from(link.connections_per_broker).unwrap_or(1).max(1);
        connections.entry(to).or_default().insert((lane, pinned));
        *bytes.entry(to).or_default() += acked;
        all += acked;
    }
    let seconds = copied.took.as_secs_f64().max(1e-3);
    let of_target = brokers.iter().filter(|seen| seen.side == Side::Target);
    let carried = of_target.map(|seen| {
        let broker = seen.way.broker;
        let share = bytes.get(&broker).copied().unwrap_or(0) as f64 / all.max(1) as f64;
        Carried {
            broker,
            round_trip: seen.way.round_trip,
            buffer: seen.buffer(),
            connections: connections.get(&broker).map_or(0, BTreeSet::len),
            bytes_per_second: copied.later_bytes_per_second * share,
        }
    });
    Facts {
        seconds,
        bytes_per_second: copied.later_bytes_per_second,
        limit: link.bytes_per_second_max,
        throttled_share: (copied.throttled.as_secs_f64() / seconds).min(1.0),
        window_full: copied.window_full,
        window_bytes: link.window_bytes_max as u64,
        buffered_bytes_max: copied.buffered_bytes_max,
        memory_bytes: copied.memory_bytes,
        lane_busy: copied.lane_busy(),
        lanes: config.engine.lanes,
        fetch_wait: copied.fetch_wait.as_secs_f64() / seconds / fetchers.len().max(1) as f64,
        targets: carried.collect(),
        send_buffer_bytes_max: send_buffer_bytes_max(),
    }
}

/// The largest send buffer that this host's kernel gives a TCP socket by itself.
fn send_buffer_bytes_max() -> Option<u64> {
    let three = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").ok()?;
    three.split_ascii_whitespace().nth(2)?.parse().ok()
}

impl Topic<'_> {
    fn leaders(&self) -> [Vec<i32>; 2] {
        [leaders(self.source, &self.name), leaders(self.target, &self.name)]
    }
}

impl LinkArgs {
    /// What would be written, in words.
    pub(super) fn amount(&self) -> String {
        show_bytes(self.bytes as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolved::{Arrangement, Engine, Telemetry};
    use crate::link::fixture;
    use crate::link::selection::{Verdict, judge};

    #[test]
    fn what_is_run_is_this_link_and_this_topic_and_nothing_else() {
        let mut link = fixture::link(&[".*"], &[]);
        (link.window_bytes_max, link.bytes_per_second_max) = (12_345, Some(777_777));
        let arrangement = Arrangement::Split;
        let engine = Engine { lanes: 3, arrangement, pin: true, memory_bytes: 64 << 20 };
        let telemetry = Some(Telemetry::default());
        let links = vec![Arc::new(link.clone()), Arc::new(fixture::link(&["x"], &[]))];
        let config = Config { clusters: BTreeMap::new(), links, engine, telemetry };
        let own = derived(&config, &link, "strait.bench.0123");
        assert_eq!((own.links.len(), own.telemetry.is_none(), own.engine), (1, true, engine));
        let own = &own.links[0];
        // One prefix has the topic and the group.
        assert_eq!(format!("strait.{}", own.name), "strait.bench.0123");
        assert_eq!(own.membership.protocol, MembershipProtocol::Off);
        assert_eq!((own.window_bytes_max, own.bytes_per_second_max), (12_345, Some(777_777)));
        assert_eq!(judge(&own.topics, "strait.bench.0123", false), Verdict::Selected);
        for other in ["strait.bench.01234", "strait-bench-0123", "orders"] {
            assert_eq!(judge(&own.topics, other, false), Verdict::NotIncluded, "{other}");
        }
        assert_eq!(judge(&link.topics, "strait.bench.0123", false), Verdict::Internal);
    }
}
