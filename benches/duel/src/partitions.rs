//! Strait with many partitions: what it costs while nothing happens, and what it holds while all of them carry data.

use std::time::{Duration, Instant};

use clap::Args;
use protocol_tests::lab::{Cluster, Version};
use protocol_tests::process::usage;
use protocol_tests::raw::RawClient;
use protocol_tests::strait::{get, metric};
use serde_json::json;

use crate::Common;
use crate::archive::Archive;
use crate::contestants::{Contestant, Job, Programs};
use crate::measure::Running;
use crate::shape::Shape;

/// Of one topic; more topics make more partitions.
const PER_TOPIC: i32 = 1000;
const PATIENCE: Duration = Duration::from_secs(400);

const PREFACE: &str = "Topics of 1,000 partitions on one real broker, copied to one real broker over TLS by Strait as shipped. Idle: nothing \
    is written; CPU of the process over a minute. Carrying: Kafka's producer writes records of 1 KB to every partition of a topic, topic after \
    topic. MB are 10^6 bytes, MiB 2^20.";

/// How many, and how much.
#[derive(Debug, Args)]
pub struct Options {
    /// Topics of 1,000 partitions.
    #[arg(long, default_value_t = 10)]
    topics: i32,
    /// Seconds of idleness that count.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Records of 1 KB for each partition.
    #[arg(long, default_value_t = 50)]
    records: u64,
    /// `engine.memory` in MiB.
    #[arg(long, default_value_t = 256)]
    memory: u64,
}

/// Creates the topics, starts Strait, lets it idle, and writes.
pub fn run(common: &Common, options: &Options) -> Result<(), String> {
    let programs = Programs::find()?;
    let target = Cluster::builder(Version::V43).for_speed();
    let (source, target) = Cluster::builder(Version::V43).for_speed().start_both(target);
    let shape: Shape = "16KiB/none/1000/0ms/plain".parse()?;
    let topics: Vec<String> = (0..options.topics).map(|n| format!("many-{n}")).collect();
    for topic in &topics {
        shape.create(&source, topic);
    }
    let partitions = options.topics * PER_TOPIC;
    let mut job = Job::new((&source, &target), shape, "many-.*", "many");
    let memory = [format!("engine: {{ memory: {}MiB }}", options.memory)];
    job.top = &memory;
    let mut running = Contestant::Strait.start(&job, &programs);
    let ready = wait_copying(&mut running, partitions)?;
    // What the start has left to do, such as the first commits, is not idleness.
    std::thread::sleep(Duration::from_secs(20));
    let pid = running.process.pid;
    let (before, at) = (usage(pid), Instant::now());
    std::thread::sleep(Duration::from_secs(options.seconds));
    let idle = usage(pid);
    let percent = (idle.cpu - before.cpu).as_secs_f64() / at.elapsed().as_secs_f64() * 100.0;
    eprintln!("{partitions} partitions copied after {ready:.1} s; idle {percent:.2} % of a core");
    let (began, records) = (Instant::now(), options.records * u64::from(PER_TOPIC.unsigned_abs()));
    for topic in &topics {
        write(&source, topic, records);
    }
    wait_copied(&mut running, &target, &topics, records)?;
    let (carried, whole) = (usage(pid), began.elapsed().as_secs_f64());
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let written = records as f64 * topics.len() as f64 / 1000.0;
    let (idle_peak, peak, bound) =
        (mib(idle.rss_peak_bytes), mib(carried.rss_peak_bytes), options.memory + 32);
    let cpu = (carried.cpu - idle.cpu).as_secs_f64();
    let table = format!(
        "### {partitions} partitions\n\n\
         | copying all after, s | idle, % of a core | peak RSS idle, MiB | MB written, at MB/s | MB/CPU-s | peak RSS carrying, MiB | budget + 32 MiB |\n\
         |---|---|---|---|---|---|---|\n\
         | {ready:.1} | {percent:.2} | {idle_peak:.0} | {written:.0}, {:.1} | {:.0} | {peak:.0} | {bound} |\n",
        written / whole,
        written / cpu.max(0.01),
    );
    let raw = json!({
        "partitions": partitions, "ready_s": ready, "idle_percent": percent, "idle_rss_peak_mib": idle_peak,
        "written_mb": written, "written_s": whole, "cpu_s": cpu, "rss_peak_mib": peak, "bound_mib": bound,
    });
    Archive::new(&common.runs, "partitions", "Many partitions", PREFACE).keep(&table, raw)
}

/// Until telemetry says that so many partitions are copied; seconds from the start of the process.
fn wait_copying(running: &mut Running, partitions: i32) -> Result<f64, String> {
    while running.started.elapsed() < PATIENCE {
        running.check()?;
        let body = get(running.telemetry, "/metrics").map(|(_, body)| body).unwrap_or_default();
        if metric(&body, "strait_partitions", &["state=\"ok\""]) >= f64::from(partitions) {
            return Ok(running.started.elapsed().as_secs_f64());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let (_, body) = get(running.telemetry, "/metrics").unwrap_or_default();
    let states = body.lines().filter(|line| line.starts_with("strait_partitions"));
    let states: Vec<&str> = states.collect();
    Err(format!("not all copied in {PATIENCE:?}: {states:?}\n{}", running.log()))
}

/// Records in turn for all partitions of a topic, by Kafka's own producer.
fn write(source: &Cluster, topic: &str, records: u64) {
    let partitions: Vec<i32> = (0..PER_TOPIC).collect();
    let written = source.admin().produce(
        topic,
        json!({
            "count": records, "size": 1000, "kind": "plain", "partitions": partitions,
            "props": { "linger.ms": "100", "acks": "all", "buffer.memory": "134217728" }
        }),
    );
    assert_eq!(written, records, "the source took all records");
}

fn wait_copied(
    running: &mut Running,
    target: &Cluster,
    topics: &[String],
    records: u64,
) -> Result<(), String> {
    let mut client = target.nodes[0].client();
    let until = Instant::now() + PATIENCE;
    let held = |client: &mut RawClient, topic: &str| {
        let ends = client.ends(&format!("many.{topic}"), PER_TOPIC).unwrap_or_default();
        u64::try_from(ends.iter().sum::<i64>()).unwrap_or(0)
    };
    while Instant::now() < until {
        running.check()?;
        if topics.iter().all(|topic| held(&mut client, topic) >= records) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(format!("not all copied in {PATIENCE:?}:\n{}", running.log()))
}
