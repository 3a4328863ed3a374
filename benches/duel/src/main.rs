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

mod contestants;
mod floor;
mod measure;
mod report;
mod shape;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use protocol_tests::chaos::Proxy;
use protocol_tests::lab::{Cluster, Listener, Version};

use crate::contestants::{Contestant, Job, Programs};
use crate::floor::Feed;
use crate::report::Cell;
use crate::shape::{Filled, Shape};

/// Copies the same topic with each replicator in turn, and compares.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// Runs of each contestant in each cell.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A cell, as BATCH/CODEC/PARTITIONS/ROUND-TRIP/SOURCE (256KiB/none/8/0ms/plain); may be repeated. A subset if absent.
    #[arg(long = "cell")]
    cells: Vec<Shape>,
    /// Every cell: hours.
    #[arg(long, conflicts_with = "cells")]
    all: bool,
    /// MB of values that a cell copies; less where batches are single records or the way is long.
    #[arg(long, default_value_t = 1000)]
    megabytes: u64,
    /// Contestants to leave out (strait, mirror-maker-2, franz-go, floor); may be repeated.
    #[arg(long)]
    without: Vec<String>,
    /// Where the runs are kept.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../runs"))]
    runs: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Role {
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
    let arguments = Arguments::parse();
    if let Some(Role::Pump { from, to, ca }) = &arguments.role {
        return floor::pump(*from, *to, ca);
    }
    let programs = Programs::find()?;
    let cells = match (&arguments.cells[..], arguments.all) {
        (_, true) => shape::all(),
        ([], _) => shape::SUBSET.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
        (cells, _) => cells.to_vec(),
    };
    let proxy = Proxy::listen();
    let target = Cluster::builder(Version::V43).for_speed().advertise(
        1,
        Listener::ProxiedTls,
        &proxy.address(),
    );
    let (source, target) = Cluster::builder(Version::V43).for_speed().start_both(target);
    proxy.forward_to(&target.nodes[0].address(Listener::ProxiedTls));
    warm(&source, &target, &programs)?;
    let (name, mut done) = (report::name(), Vec::new());
    for shape in cells {
        proxy.round_trip(shape.round_trip);
        let filled = shape.fill(&source, megabytes(&shape, arguments.megabytes));
        let cell = run_cell(&arguments, &source, &target, &programs, shape, filled);
        source.admin().delete_topic(&cell.filled.topic);
        println!("{}", cell.table());
        done.push(cell);
        // After each cell: a run that is cut short keeps what it has.
        report::archive(&arguments.runs, &name, &done).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// What is copied where `asked` is for large batches over a short way: so that the slow rivals end in some ten seconds.
fn megabytes(shape: &Shape, asked: u64) -> u64 {
    let far = !shape.round_trip.is_zero();
    match (shape.batch, shape.partitions) {
        (shape::Batch::One { .. }, _) => asked.div_ceil(4),
        (_, 1) if far => asked.div_ceil(4),
        _ => asked,
    }
}

/// Just-started brokers are slow for their first gigabytes, for whoever comes first.
fn warm(source: &Cluster, target: &Cluster, programs: &Programs) -> Result<(), String> {
    let shape: Shape = shape::SUBSET[0].parse()?;
    let filled = shape.fill(source, 1000);
    for run in ["warm-0", "warm-1", "warm-2"] {
        one(&Job { source, target, shape, filled: &filled, run }, Contestant::Strait, programs)?;
    }
    source.admin().delete_topic(&filled.topic);
    Ok(())
}

fn run_cell(
    arguments: &Arguments,
    source: &Cluster,
    target: &Cluster,
    programs: &Programs,
    shape: Shape,
    filled: Filled,
) -> Cell {
    let takes_part = |name: &str| !arguments.without.iter().any(|left_out| left_out == name);
    let contestants: Vec<Contestant> =
        Contestant::ALL.into_iter().filter(|one| takes_part(one.name())).collect();
    let mut runs: Vec<_> = contestants.iter().map(|one| (one.name(), Vec::new())).collect();
    // Nothing to compare with where there is a distance: the floor has none.
    let has_floor = takes_part("floor") && shape.round_trip.is_zero();
    let (mut hot, mut segments) = (Vec::new(), Vec::new());
    for round in 0..arguments.rounds {
        for (at, contestant) in contestants.iter().enumerate() {
            let run = format!("{}-{round}", contestant.name());
            let job = Job { source, target, shape, filled: &filled, run: &run };
            let outcome = one(&job, *contestant, programs);
            eprintln!("{shape} {run}: {outcome:?}");
            runs[at].1.push(outcome);
        }
        if has_floor {
            let bytes = filled.stored_bytes;
            hot.push(floor::run(&Feed::Hot(bytes), filled.value_bytes));
            let files = (0..shape.partitions)
                .flat_map(|p| shape::segments(&source.nodes[0].partition_folder(&filled.topic, p)));
            segments.push(floor::run(&Feed::Segments(files.collect()), filled.value_bytes));
        }
    }
    if has_floor {
        runs.push(("floor, one hot buffer", hot));
        runs.push(("floor, the log segments", segments));
    }
    Cell { shape, filled, runs }
}

/// One run: a fresh topic on the target, the contestant, and its end.
fn one(
    job: &Job<'_>,
    contestant: Contestant,
    programs: &Programs,
) -> Result<measure::Measured, String> {
    let topic = job.target_topic();
    job.shape.create(job.target, &topic);
    let mut running = contestant.start(job, programs);
    let filled = job.filled;
    let partitions = job.shape.partitions;
    let outcome = measure::watch(
        &mut running,
        job.target,
        &topic,
        partitions,
        filled.records,
        filled.value_bytes,
    );
    running.process.kill();
    job.target.admin().delete_topic(&topic);
    outcome
}
