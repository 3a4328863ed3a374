//! `strait bench loopback`: the engine between clusters in this process, TLS to a target that acknowledges at once and
//! keeps nothing. Counts the lanes' own CPU time, so that what the clusters cost does not show.
//!
//! What is copied are a few batches again and again: the source holds each once, however often, and forgets what was
//! acknowledged.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::super::demo_world::{Directory, certificate, failed};
use super::super::path::show_rate;
use super::super::run::Signals;
use super::super::screen::{show_bytes, show_count, show_seconds};
use super::super::{Exit, Failure, Output, OutputArg, Screen, net};
use super::Shape;
use super::copy::{self, Copied, Span, per_cpu_second};
use super::records::{self, Made};
use super::report::{ack_seconds, show_acks, show_per_cpu_second};
use crate::config::resolved::Config;
use crate::config::{Surroundings, parse};
use crate::embedded::{EmbeddedCluster, Listener, Options};
use crate::engine::stats::Board;
use crate::env::Env;
use crate::limits;
use crate::strait::Strait;

/// With what.
#[derive(Clone, Debug, Args)]
pub struct LoopbackArgs {
    #[command(flatten)]
    pub shape: Shape,
    /// Compare one lane with so many; without it two, where there is a core for each lane and each cluster
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub lanes: Option<u32>,
    #[command(flatten)]
    pub output: OutputArg,
}

const TOPIC: &str = "bench";
/// Clusters answer, windows open, sockets grow.
const WARM_UP: Duration = Duration::from_secs(1);
/// How often the source is given more.
const FEED: Duration = Duration::from_millis(2);
/// What a source holds that is not acknowledged yet: half a tenth of a second at any speed that was seen, and a bound
/// for small batches, each of which costs some hundred bytes.
const AHEAD_BYTES: u64 = 64 << 20;
const AHEAD_BATCHES: u64 = 16_384;
const MEMORY: &str = "256MiB";

/// One measurement.
struct Run {
    lanes: u32,
    copied: Copied,
}

/// A source and a target, and a link between them.
struct Pair {
    source: EmbeddedCluster,
    target: EmbeddedCluster,
    parts: Vec<Part>,
}

/// A partition of the source.
#[derive(Clone, Copy, Default)]
struct Part {
    end: u64,
    batches: usize,
}

pub(super) fn main(args: &LoopbackArgs, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (most, why_not) = lanes(args.lanes, cores);
    let mut runs = Vec::new();
    for lanes in [1, most] {
        if runs.iter().all(|run: &Run| run.lanes != lanes) {
            let Some(run) = net::block_on(Box::pin(run(args, lanes, most, screen)))? else {
                return Ok(Exit::Failed);
            };
            runs.push(run);
        }
    }
    match args.output.output {
        Output::Json => {
            let body = json!({
                "shape": args.shape, "cores": cores,
                "runs": runs.iter().map(document).collect::<Vec<_>>(),
                "ratio": ratio(&runs), "why_no_ratio": why_not,
            });
            screen.json("strait.bench.loopback/1", body)?;
        }
        Output::Table => tell(args, &runs, why_not.as_deref(), screen)?,
    }
    Ok(Exit::Ok)
}

/// The most lanes that are tried, and why not more. Each lane has a pair of clusters, which take a core each.
fn lanes(wanted: Option<u32>, cores: usize) -> (u32, Option<String>) {
    match wanted {
        Some(1) => (1, Some("one lane was asked for".to_owned())),
        Some(wanted) => (wanted, None),
        None if cores >= 6 => (2, None),
        None => {
            let why = format!("two lanes and four clusters take 6 cores; this machine has {cores}");
            (1, Some(why))
        }
    }
}

/// One engine with so many lanes between so many pairs. None: interrupted.
async fn run(
    args: &LoopbackArgs,
    lanes: u32,
    pairs: u32,
    screen: &mut Screen<'_>,
) -> Result<Option<Run>, Failure> {
    let mut signals = Signals::install()?;
    let env = Env::real();
    let directory = Directory::make(&env, "bench")?;
    let tls = certificate(directory.path())?;
    let batches = records::batches(&args.shape, env.wall_clock_ms());
    let batches = batches.map_err(|error| failed("records", error))?;
    let pair = |_| Pair::open(&env, &args.shape, tls.clone());
    let mut pairs = (0..pairs).map(pair).collect::<Result<Vec<_>, _>>()?;
    let text = config(&pairs, lanes);
    let around = Surroundings { directory: directory.path(), variable: &|_| None };
    let config: Config = parse(&text, "bench", &around).map_err(Failure::Config)?.config;
    let handle = Strait::builder(config).env(env.clone()).start()?;
    let board = handle.board();
    let span = Span {
        warm_up: WARM_UP,
        length: args.shape.length(),
        records: None,
        window_bytes_max: limits::WINDOW_BYTES_DEFAULT,
    };
    let show = |rate: f64| {
        if screen.live {
            screen.replace_line(&format!("{lanes} lanes: {}", show_rate(rate)));
        }
    };
    let copied = tokio::select! {
        copied = copy::watch(&env, &board, &span, show) => Some(copied?),
        never = feed(&mut pairs, &board, &batches) => match never? {},
        error = handle.stopped() => return Err(error.into()),
        () = signals.next() => None,
    };
    screen.erase_line();
    Ok(copied.map(|copied| Run { lanes, copied }))
}

fn config(pairs: &[Pair], lanes: u32) -> String {
    let (mut clusters, mut links) = (String::new(), String::new());
    for (i, pair) in pairs.iter().enumerate() {
        let (source, target) = (pair.source.bootstrap(), pair.target.bootstrap());
        // Writing to a String does not fail.
        let _ = writeln!(clusters, "  source-{i}: {{ bootstrap: [\"{source}\"] }}");
        let _ = writeln!(
            clusters,
            "  target-{i}: {{ bootstrap: [\"{target}\"], tls: {{ ca: ca.pem }} }}"
        );
        let _ = writeln!(
            links,
            "  bench-{i}: {{ from: source-{i}, to: target-{i}, topics: {{ include: [{TOPIC}] }}, \
             membership: {{ protocol: \"off\" }}, on_failure: stop }}"
        );
    }
    format!(
        "version: 1\nclusters:\n{clusters}links:\n{links}engine: {{ lanes: {lanes}, memory: {MEMORY} }}\n\
         telemetry: {{ listen: \"off\" }}\n"
    )
}

impl Pair {
    fn open(env: &Env, shape: &Shape, tls: Arc<rustls::ServerConfig>) -> Result<Self, Failure> {
        let start = |options| {
            EmbeddedCluster::start(env.clone(), options).map_err(|e| failed("cluster", e))
        };
        let source = start(Options::default())?;
        let listeners = vec![Listener::tls(tls)];
        let target = start(Options { listeners, null_target: true, ..Options::default() })?;
        let made = source.create_topic(TOPIC, shape.partitions, 1, &[]);
        made.map_err(|code| failed("topic", code.name()))?;
        let count = usize::try_from(shape.partitions).unwrap_or(1);
        Ok(Self { source, target, parts: vec![Part::default(); count] })
    }

    /// Brings one partition as far ahead of what was acknowledged as may be, and lets go of that.
    fn feed(&mut self, partition: i32, acked: u64, batches: &[Made]) -> Result<(), Failure> {
        let count = self.parts.len() as u64;
        let index = usize::try_from(partition).unwrap_or(0);
        let Some(part) = self.parts.get_mut(index) else { return Ok(()) };
        let refused = |code: crate::wire::error_code::ErrorCode| failed("source", code.name());
        if acked > 0 {
            let acked = i64::try_from(acked).unwrap_or(i64::MAX);
            self.source.delete_records(TOPIC, partition, acked).map_err(refused)?;
        }
        loop {
            let Some(made) = batches.get(part.batches % batches.len().max(1)) else {
                return Ok(());
            };
            let (ahead, size) = (part.end - acked.min(part.end), made.batch.len() as u64);
            let (ahead_batches, ahead_bytes) = (ahead / made.records, ahead / made.records * size);
            // Two at least: one that is copied and one that waits.
            let is_enough =
                ahead_bytes >= AHEAD_BYTES / count || ahead_batches >= AHEAD_BATCHES / count;
            if is_enough && ahead_batches >= 2 {
                return Ok(());
            }
            self.source.append(TOPIC, partition, &made.batch).map_err(refused)?;
            part.end += made.records;
            part.batches += 1;
        }
    }
}

/// Keeps every source ahead of its target, for ever.
async fn feed(pairs: &mut [Pair], board: &Board, batches: &[Made]) -> Result<Infallible, Failure> {
    for pair in &mut *pairs {
        for partition in (0..).take(pair.parts.len()) {
            pair.feed(partition, 0, batches)?;
        }
    }
    loop {
        tokio::time::sleep(FEED).await;
        for mirror in board.mirrors() {
            let number = mirror.link.strip_prefix("bench-").and_then(|n| n.parse::<usize>().ok());
            let pair = number.and_then(|number| pairs.get_mut(number));
            let acked = u64::try_from(mirror.acked.load(Relaxed)).unwrap_or(0);
            if let Some(pair) = pair {
                pair.feed(mirror.partition, acked, batches)?;
            }
        }
    }
}

/// The rate of the most lanes by the rate of one.
fn ratio(runs: &[Run]) -> Option<f64> {
    let (one, most) = (runs.first()?, runs.get(1)?);
    let one = one.copied.bytes_per_second();
    (one > 0.0).then(|| most.copied.bytes_per_second() / one)
}

fn document(run: &Run) -> Value {
    let Run { lanes, copied } = run;
    let cpu = copied.cpu.lanes_together();
    json!({
        "lanes": lanes, "records": copied.records, "bytes": copied.bytes,
        "seconds": copied.took.as_secs_f64(), "bytes_per_second": copied.bytes_per_second(),
        "lane_cpu_seconds": cpu.map(|cpu| cpu.as_secs_f64()),
        "bytes_per_cpu_second": per_cpu_second(copied.bytes, cpu),
        "busiest_lane_share": copied.lane_busy(), "ack_seconds": ack_seconds(&copied.ack_us),
    })
}

fn tell(
    args: &LoopbackArgs,
    runs: &[Run],
    why_not: Option<&str>,
    screen: &mut Screen<'_>,
) -> std::io::Result<()> {
    let shape = &args.shape;
    let codec = crate::wire::batch::Codec::from(shape.codec);
    writeln!(
        screen.out,
        "clusters in this process (not Kafka), TLS to a target that keeps nothing; {} partitions, batches of {}, \
         records of {} B, codec {codec:?}",
        shape.partitions,
        show_bytes(f64::from(shape.batch_bytes)),
        shape.record_bytes,
    )?;
    for Run { lanes, copied } in runs {
        let cpu = copied.cpu.lanes_together();
        let busy = copied.lane_busy().map_or(String::new(), |busy| {
            format!("; busiest lane {:.0} % of a core", 100.0 * busy)
        });
        let plural = if *lanes == 1 { "" } else { "s" };
        writeln!(
            screen.out,
            "{lanes} lane{plural}  {} records, {} in {}: {}; {}{busy}; ack {}",
            show_count(copied.records),
            show_bytes(copied.bytes as f64),
            show_seconds(copied.took.as_secs_f64()),
            show_rate(copied.bytes_per_second()),
            show_per_cpu_second(copied.bytes, cpu, "the lanes"),
            show_acks(&copied.ack_us),
        )?;
    }
    match (ratio(runs), runs.last(), why_not) {
        (Some(ratio), Some(most), _) => {
            writeln!(screen.out, "{} lanes carry {ratio:.2} times what one does", most.lanes)
        }
        (_, _, Some(why)) => writeln!(screen.out, "no comparison of lanes: {why}"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_compared_where_there_are_cores_for_them() {
        assert_eq!(lanes(None, 8), (2, None));
        assert_eq!(lanes(Some(4), 2), (4, None));
        let (most, why) = lanes(None, 4);
        assert!(most == 1 && why.is_some_and(|why| why.contains("6 cores")));
    }

    #[test]
    fn a_source_holds_what_is_ahead_and_no_more() {
        let env = Env::real();
        let directory = Directory::make(&env, "bench-test").unwrap_or_else(|e| panic!("{e}"));
        let tls = certificate(directory.path()).unwrap_or_else(|e| panic!("{e}"));
        let shape = Shape {
            seconds: 1,
            partitions: 2,
            record_bytes: 100,
            batch_bytes: 1,
            codec: super::super::CodecName::None,
        };
        let batches = records::batches(&shape, 0).unwrap();
        let mut pair = Pair::open(&env, &shape, tls).unwrap_or_else(|e| panic!("{e}"));
        for round in 0..5 {
            pair.feed(1, 8_000 * round, &batches).unwrap_or_else(|e| panic!("{e}"));
            let dump = pair.source.dump(TOPIC, 1).unwrap();
            assert_eq!(dump.log_start as u64, 8_000 * round);
            assert_eq!(dump.batches.len() as u64, AHEAD_BATCHES / 2);
        }
    }
}
