//! One contestant's run: when the first and the last record stood on the target, and what its process used by then.

use std::time::{Duration, Instant};

use protocol_tests::lab::Cluster;
use protocol_tests::process::{Guarded, tail, usage};
use serde::Serialize;
use tempfile::TempDir;

/// A run that stands still for so long has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A contestant at work; its files go with it.
#[derive(Debug)]
pub struct Running {
    /// Its process.
    pub process: Guarded,
    /// Holds its settings and its log, named `log`.
    pub folder: TempDir,
    /// When it was started.
    pub started: Instant,
    /// Strait's telemetry port.
    pub telemetry: u16,
}

impl Running {
    /// An error once it ended by itself.
    pub fn check(&mut self) -> Result<(), String> {
        match self.process.exit_code() {
            Some(code) => Err(format!("it ended with {code}:\n{}", self.log())),
            None => Ok(()),
        }
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        tail(&self.folder.path().join("log"), 30)
    }
}

/// What one run took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Measured {
    /// Records' values, in MB of 10^6 bytes.
    pub megabytes: f64,
    /// From the start of the process to the first record on the target, seconds.
    pub first_s: f64,
    /// From the start of the process to the last record on the target, seconds.
    pub whole_s: f64,
    /// CPU-seconds of the process by then, its start included.
    pub cpu_s: f64,
    /// CPU-seconds from the first record on.
    pub warm_cpu_s: f64,
    /// Share of the records that stood there when the first was seen: not part of the warm figures.
    pub warm_from: f64,
    /// When half of the records stood there, seconds from the start of the process.
    pub half_s: f64,
    /// CPU-seconds by then.
    pub half_cpu_s: f64,
    /// Share of the records that stood there when that was seen.
    pub half_from: f64,
    /// Peak resident size, MB of 10^6 bytes.
    pub rss_mb: f64,
}

impl Measured {
    /// MB a second of wall time over the whole run.
    pub fn wall(&self) -> f64 {
        self.megabytes / self.whole_s
    }

    /// MB a CPU-second over the whole run.
    pub fn per_cpu(&self) -> f64 {
        self.megabytes / self.cpu_s.max(0.01)
    }

    /// MB a second of wall time over the second half of the records.
    pub fn half_wall(&self) -> f64 {
        self.megabytes * (1.0 - self.half_from) / (self.whole_s - self.half_s).max(0.001)
    }

    /// MB a CPU-second over the second half of the records.
    pub fn half_per_cpu(&self) -> f64 {
        self.megabytes * (1.0 - self.half_from) / (self.cpu_s - self.half_cpu_s).max(0.01)
    }
}

/// How a run stood at some moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Duration,
    cpu: Duration,
    share: f64,
}

/// Waits until the target holds `records` in `topic`, and reads what it took.
pub fn watch(
    running: &mut Running,
    target: &Cluster,
    topic: &str,
    partitions: i32,
    records: u64,
    value_bytes: u64,
) -> Result<Measured, String> {
    let mut client = target.nodes[0].client();
    let pause = Duration::from_millis(if partitions > 100 { 50 } else { 10 });
    let (mut first, mut half): (Option<Mark>, Option<Mark>) = (None, None);
    let (mut last_count, mut last_moved) = (0, Instant::now());
    loop {
        running.check()?;
        let count: i64 = client.ends(topic, partitions).unwrap_or_default().iter().sum();
        let count = u64::try_from(count).unwrap_or(0);
        let used = usage(running.process.pid);
        let share = count as f64 / records as f64;
        let now = Mark { at: running.started.elapsed(), cpu: used.cpu, share };
        if count > 0 {
            let first = *first.get_or_insert(now);
            if count * 2 >= records {
                half.get_or_insert(now);
            }
            if let (Some(half), true) = (half, count >= records) {
                return Ok(Measured {
                    megabytes: value_bytes as f64 / 1e6,
                    first_s: first.at.as_secs_f64(),
                    whole_s: now.at.as_secs_f64(),
                    cpu_s: now.cpu.as_secs_f64(),
                    warm_cpu_s: (now.cpu - first.cpu).as_secs_f64(),
                    warm_from: first.share,
                    half_s: half.at.as_secs_f64(),
                    half_cpu_s: half.cpu.as_secs_f64(),
                    half_from: half.share,
                    rss_mb: used.rss_peak_bytes as f64 / 1e6,
                });
            }
        }
        if count != last_count {
            (last_count, last_moved) = (count, Instant::now());
        } else if last_moved.elapsed() > PATIENCE {
            return Err(format!("it stands at {count} of {records} records:\n{}", running.log()));
        }
        std::thread::sleep(pause);
    }
}
