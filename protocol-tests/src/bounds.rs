//! What every bounded process is held to: little CPU once nothing is left to do, and memory under its printed figure.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::usage;
use crate::strait::Strait;
use crate::wait::{holds_for, wait_for};

/// What the process may take beyond `engine.memory`.
pub const FIXED_BYTES: u64 = 32 << 20;
/// Code of the program as it is shipped. Unoptimized it is more than twice as large, which is no matter of what is bounded.
const CODE_BYTES: u64 = 10 << 20;
/// The part of one core that a process without work may use. A loop that spins takes all of it.
const IDLE_CORES: f64 = 0.2;
/// Over so long it is measured; ticks of the kernel's account are 10 ms.
const IDLE_WINDOW: Duration = Duration::from_secs(1);

/// The part of one core that the process uses over this time.
pub fn cores_used(pid: u32, over: Duration) -> f64 {
    let (before, began) = (usage(pid).cpu, Instant::now());
    holds_for("time passes", over, || true);
    (usage(pid).cpu - before).as_secs_f64() / began.elapsed().as_secs_f64()
}

/// Waits until it has come to rest; one that spins never does. Gives the part of a core that it still uses.
#[track_caller]
pub fn assert_rests(strait: &Strait) -> f64 {
    wait_for("rest (it spins)", 15, || {
        let used = cores_used(strait.pid(), IDLE_WINDOW);
        if used <= IDLE_CORES { Ok(used) } else { Err(format!("{used:.3} cores")) }
    })
}

/// Its largest resident size so far is under `engine.memory` and what is fixed; gives it in MiB.
#[track_caller]
pub fn assert_within(strait: &Strait, memory: u64) -> u64 {
    let usage = strait.usage();
    let peak = usage.rss_peak_bytes - usage.code_bytes.saturating_sub(CODE_BYTES);
    let bound = memory + FIXED_BYTES;
    assert!(peak <= bound, "peak memory {} MiB over {} MiB", peak >> 20, bound >> 20);
    peak >> 20
}

/// How many files the process may have open from now on; what is open stays.
pub fn limit_files(pid: u32, count: u64) {
    let limit = format!("--nofile={count}:");
    let set = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status();
    assert!(set.expect("prlimit, of util-linux").success(), "prlimit {limit}");
}

/// Files that the process has open.
pub fn files_open(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("process is gone").count()
}
