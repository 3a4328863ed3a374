//! Throughput: one topic, filled once, copied by each contestant in turn.

use protocol_tests::chaos::Proxy;
use protocol_tests::lab::{Cluster, Listener, Version};

use crate::archive::Archive;
use crate::contestants::{Contestant, Job, Programs};
use crate::floor::{self, Feed};
use crate::measure::{self, Measured};
use crate::report::{self, Cell};
use crate::shape::{self, Batch, Filled, Shape};
use crate::{Common, Copies};

/// All the cells that were asked for.
pub fn run(common: &Common, asked: &Copies) -> Result<(), String> {
    let programs = Programs::find()?;
    let cells = match (&asked.cells[..], asked.all) {
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
    warm((&source, &target), &programs)?;
    let mut archive = Archive::new(&common.runs, "duel", "Duel", &report::preface());
    for shape in cells {
        proxy.round_trip(shape.round_trip);
        let filled = shape.fill(&source, megabytes(&shape, asked.megabytes));
        let cell = run_cell(common, (&source, &target), &programs, shape, filled);
        source.admin().delete_topic(&cell.filled.topic);
        archive.keep(&cell.table(), cell.json())?;
    }
    Ok(())
}

/// What is copied where `asked` is for large batches over a short way: so that the slow rivals end in some ten seconds.
fn megabytes(shape: &Shape, asked: u64) -> u64 {
    let far = !shape.round_trip.is_zero();
    match (shape.batch, shape.partitions) {
        (Batch::One { .. }, _) => asked.div_ceil(4),
        (_, 1) if far => asked.div_ceil(4),
        _ => asked,
    }
}

/// Just-started brokers are slow for their first gigabytes, for whoever comes first.
pub fn warm(clusters: (&Cluster, &Cluster), programs: &Programs) -> Result<(), String> {
    let shape: Shape = shape::SUBSET[0].parse()?;
    let filled = shape.fill(clusters.0, 1000);
    for run in ["warm-0", "warm-1", "warm-2"] {
        let job = Job::new(clusters, shape, &filled.topic, run);
        one(&job, &filled, Contestant::Strait, programs)?;
    }
    clusters.0.admin().delete_topic(&filled.topic);
    Ok(())
}

fn run_cell(
    common: &Common,
    clusters: (&Cluster, &Cluster),
    programs: &Programs,
    shape: Shape,
    filled: Filled,
) -> Cell {
    let contestants = common.contestants(&Contestant::FOR_SPEED);
    let mut runs: Vec<_> = contestants.iter().map(|one| (one.name(), Vec::new())).collect();
    // Nothing to compare with where there is a distance: the floor has none.
    let has_floor = common.takes_part("floor") && shape.round_trip.is_zero();
    let (mut hot, mut segments) = (Vec::new(), Vec::new());
    for round in 0..common.rounds {
        for (at, contestant) in contestants.iter().enumerate() {
            let run = format!("{}-{round}", contestant.name());
            let job = Job::new(clusters, shape, &filled.topic, &run);
            let outcome = one(&job, &filled, *contestant, programs);
            eprintln!("{shape} {run}: {outcome:?}");
            runs[at].1.push(outcome);
        }
        if has_floor {
            let bytes = filled.stored_bytes;
            hot.push(floor::run(&Feed::Hot(bytes), filled.value_bytes));
            let files = (0..shape.partitions).flat_map(|p| {
                shape::segments(&clusters.0.nodes[0].partition_folder(&filled.topic, p))
            });
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
    filled: &Filled,
    contestant: Contestant,
    programs: &Programs,
) -> Result<Measured, String> {
    let (topic, target) = (job.target_topic(), job.target.0);
    job.shape.create(target, &topic);
    let mut running = contestant.start(job, programs);
    let partitions = job.shape.partitions;
    let outcome = measure::watch(
        &mut running,
        target,
        &topic,
        partitions,
        filled.records,
        filled.value_bytes,
    );
    running.process.kill();
    target.admin().delete_topic(&topic);
    outcome
}
