//! Strait beside MirrorMaker 2, a franz-go loop and the TLS floor: real brokers, the same work, in alternation.
//!
//! `benches/duel/run` builds what is needed and starts it. Ratios within one run are what counts; the raw runs are kept
//! under `benches/runs/`.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark measures the real world by the real clock, and ends if its lab fails"
)]

mod archive;
mod contestants;
mod copies;
mod far;
mod floor;
mod latency;
mod measure;
mod partitions;
mod report;
mod shape;
mod start;
mod windows;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::contestants::Contestant;
use crate::shape::Shape;

/// As in Strait: with the C library's, a quarter of the floor's CPU went into the page faults of 16 KiB records.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Copies the same topics with each replicator in turn, and compares. Without a verb: throughput.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    copies: Copies,
    #[command(flatten)]
    common: Common,
}

/// What every verb takes.
#[derive(Debug, Args)]
pub struct Common {
    /// Runs of each contestant in each cell.
    #[arg(long, global = true, default_value_t = 3)]
    rounds: usize,
    /// Contestants to leave out (strait, mirror-maker-2, mirror-maker-2-defaults, franz-go, floor); may be repeated.
    #[arg(long, global = true)]
    without: Vec<String>,
    /// Where the runs are kept.
    #[arg(long, global = true, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../runs"))]
    runs: PathBuf,
}

impl Common {
    fn takes_part(&self, name: &str) -> bool {
        !self.without.iter().any(|left_out| left_out == name)
    }

    fn contestants(&self, of: &[Contestant]) -> Vec<Contestant> {
        of.iter().copied().filter(|one| self.takes_part(one.name())).collect()
    }
}

/// What is copied for throughput.
#[derive(Debug, Args)]
pub struct Copies {
    /// A cell, as BATCH/CODEC/PARTITIONS/ROUND-TRIP/SOURCE (256KiB/none/8/0ms/plain); may be repeated. A subset if absent.
    #[arg(long = "cell")]
    cells: Vec<Shape>,
    /// Every cell: hours.
    #[arg(long, conflicts_with = "cells")]
    all: bool,
    /// MB of values that a cell copies; less where batches are single records or the way is long.
    #[arg(long, default_value_t = 1000)]
    megabytes: u64,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Time from a record's intended sending to its reading, on the source and on the target.
    Latency(latency::Options),
    /// Time from the start of a process to the first record on the target.
    Start,
    /// Strait with 10,000 partitions: CPU while they are idle, memory while they carry data.
    Partitions(partitions::Options),
    /// Strait over a long link with TCP's own windows in play; needs root.
    Windows(windows::Options),
    /// The floor's own process.
    #[command(hide = true)]
    Pump {
        /// Plain source.
        from: SocketAddr,
        /// TLS sink.
        to: SocketAddr,
        /// Its authority.
        ca: PathBuf,
    },
}

fn main() -> Result<(), String> {
    let Arguments { verb, copies, common } = Arguments::parse();
    match verb {
        None => copies::run(&common, &copies),
        Some(Verb::Latency(options)) => latency::run(&common, &options),
        Some(Verb::Start) => start::run(&common),
        Some(Verb::Partitions(options)) => partitions::run(&common, &options),
        Some(Verb::Windows(options)) => windows::run(&common, &options),
        Some(Verb::Pump { from, to, ca }) => floor::pump(from, to, &ca),
    }
}
