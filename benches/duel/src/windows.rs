//! Throughput over a long link whose connections have windows of the kernel's: what a broker's socket buffer, more
//! connections and the sender's own limit give.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::Args;
use protocol_tests::lab::{Cluster, Listener, Version};
use serde_json::{Value, json};

use crate::Common;
use crate::archive::Archive;
use crate::contestants::{Contestant, Job, Programs};
use crate::far::{self, Link};
use crate::measure::Running;
use crate::shape::{Filled, Shape};

/// Connections per broker: Strait's default, and more.
const CONNECTIONS: [u32; 2] = [2, 8];
/// The broker's `socket.receive.buffer.bytes`, and the largest `tcp_wmem` of the sender in MiB; Kafka's and Linux's defaults first.
const SETTINGS: [(i64, u64); 4] = [(102_400, 4), (1 << 20, 4), (-1, 4), (-1, 64)];
/// From the first record to where counting begins: connections find their speed.
const RAMP: Duration = Duration::from_secs(5);

/// The link.
#[derive(Debug, Args)]
pub struct Options {
    /// Milliseconds each way.
    #[arg(long, default_value_t = 50)]
    delay: u64,
    /// Of the link, bytes.
    #[arg(long, default_value_t = 9000)]
    mtu: usize,
    /// Of the topic.
    #[arg(long, default_value_t = 8)]
    partitions: i32,
    /// Seconds that count.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// MB to copy at most; a cell ends earlier when all are copied.
    #[arg(long, default_value_t = 1500)]
    megabytes: u64,
}

/// Every setting with few connections and with many.
pub fn run(common: &Common, options: &Options) -> Result<(), String> {
    let programs = Programs::find()?;
    let delay = Duration::from_millis(options.delay);
    let link = Link::new(delay, options.mtu)?;
    let control = link.get("net/ipv4/tcp_congestion_control")?;
    let shape = Shape {
        partitions: options.partitions,
        round_trip: delay * 2,
        ..crate::shape::SUBSET[0].parse()?
    };
    let source = Cluster::builder(Version::V43).for_speed().bind(Listener::ProxiedPlain, far::NEAR);
    let source = source.start();
    let filled = shape.fill(&source, options.megabytes);
    let preface = format!(
        "Strait over a link of {} ms each way and an MTU of {} through which the packets of real TCP go (two TUN devices, no loss, {control}), TLS to the \
         target, {} partitions, batches of 256 KiB, uncompressed. MB/s are of 10^6 bytes of records' values, from {} s after the first record on, for {} s or to the end of {} MB. \
         `tcp_wmem` is the largest of the sender's kernel.",
        options.delay,
        options.mtu,
        options.partitions,
        RAMP.as_secs(),
        options.seconds,
        options.megabytes,
    );
    let mut archive = Archive::new(&common.runs, "windows", "A long link", &preface);
    let mut table = "| socket.receive.buffer.bytes | tcp_wmem, MiB | connections | MB/s | packets dropped |\n|---|---|---|---|---|\n".to_owned();
    let mut raw = Vec::new();
    for (buffer, wmem) in SETTINGS {
        link.set("net/ipv4/tcp_wmem", &format!("4096 16384 {}", wmem << 20))?;
        let target = Cluster::builder(Version::V43).for_speed();
        let target = target.set("socket.receive.buffer.bytes", &buffer.to_string());
        let target = target.bind(Listener::ProxiedTls, far::FAR).start();
        for connections in CONNECTIONS {
            let mut rates = Vec::new();
            for round in 0..common.rounds {
                // The source remembers each: a name is used once, for the target is a new one.
                let run = format!("strait-{buffer}-{wmem}-{connections}-{round}");
                let mut job = Job::new((&source, &target), shape, &filled.topic, &run);
                let settings = [format!("connections_per_broker: {connections}")];
                (job.link, job.namespace) = (&settings, Some(link.namespace.as_str()));
                job.source.1 = Listener::ProxiedPlain;
                let before = (link.dropped()?, link.carried());
                let rate = one(&job, &filled, &programs, options)?;
                let (dropped, carried) = (link.dropped()? - before.0, link.carried() - before.1);
                eprintln!("{run}: {rate:.1} MB/s, {carried} packets, {dropped} dropped");
                rates.push((rate, dropped));
            }
            let (row, cell) = shown(buffer, wmem, connections, &rates);
            table.push_str(&row);
            raw.push(cell);
        }
    }
    archive.keep(&table, json!({ "rows": raw }))
}

fn shown(buffer: i64, wmem: u64, connections: u32, runs: &[(f64, u64)]) -> (String, Value) {
    let rates: Vec<f64> = runs.iter().map(|(rate, _)| *rate).collect();
    let dropped: u64 = runs.iter().map(|(_, dropped)| dropped).sum();
    let mut row = String::new();
    if let Some((median, least, most)) = crate::archive::spread(rates.clone()) {
        let rate = format!("{median:.1} ({least:.1}-{most:.1})");
        writeln!(row, "| {buffer} | {wmem} | {connections} | {rate} | {dropped} |")
            .expect("a string takes all");
    }
    let cell = json!({
        "receive_buffer_bytes": buffer, "wmem_mib": wmem, "connections": connections,
        "megabytes_per_s": rates, "packets_dropped": dropped,
    });
    (row, cell)
}

/// One run: a fresh topic, and MB/s once it is warm.
fn one(
    job: &Job<'_>,
    filled: &Filled,
    programs: &Programs,
    options: &Options,
) -> Result<f64, String> {
    let (topic, target) = (job.target_topic(), job.target.0);
    job.shape.create(target, &topic);
    let mut running = Contestant::Strait.start(job, programs);
    let rate = rate(&mut running, job, filled, Duration::from_secs(options.seconds));
    running.process.kill();
    target.admin().delete_topic(&topic);
    rate
}

fn rate(
    running: &mut Running,
    job: &Job<'_>,
    filled: &Filled,
    counted: Duration,
) -> Result<f64, String> {
    let topic = job.target_topic();
    let mut client = job.target.0.nodes[0].client();
    let record_mb = filled.value_bytes as f64 / filled.records as f64 / 1e6;
    let (mut first, mut from): (Option<Instant>, Option<(Instant, u64)>) = (None, None);
    loop {
        running.check()?;
        let ends = client.ends(&topic, job.shape.partitions).unwrap_or_default();
        let (held, now) = (u64::try_from(ends.iter().sum::<i64>()).unwrap_or(0), Instant::now());
        if held > 0 {
            let first = *first.get_or_insert(now);
            let ended = held >= filled.records;
            if let Some((since, before)) = from {
                if ended || now - since >= counted {
                    return Ok((held - before) as f64 * record_mb / (now - since).as_secs_f64());
                }
            } else if now - first >= RAMP {
                from = Some((now, held));
            } else if ended {
                return Ok(held as f64 * record_mb / (now - first).as_secs_f64());
            }
        } else if running.started.elapsed() > Duration::from_secs(60) {
            return Err(format!("no record in a minute:\n{}", running.log()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
