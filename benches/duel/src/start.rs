//! Start-up: from the start of a process to the first record on the target, with warm brokers.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use protocol_tests::lab::{Cluster, Version};
use serde_json::json;

use crate::Common;
use crate::archive::{Archive, spread};
use crate::contestants::{Contestant, Job, Programs};
use crate::copies;
use crate::measure::Running;
use crate::shape::Shape;

const SHAPE: &str = "256KiB/none/8/0ms/plain";
/// How often the target is asked.
const TICK: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(120);

const PREFACE: &str = "Median (least-most) of the runs, in alternation, in seconds from before the process is started, by a shell \
    that takes some milliseconds, to the first of 1,000 records of 1 KB in 8 partitions at the end of a partition of the target, \
    which is asked every millisecond. Both brokers are warm, TLS to the target, nothing committed before.";

/// Each contestant, with its topic on the target and without.
pub fn run(common: &Common) -> Result<(), String> {
    let programs = Programs::find()?;
    let target = Cluster::builder(Version::V43).for_speed();
    let (source, target) = Cluster::builder(Version::V43).for_speed().start_both(target);
    let clusters = (&source, &target);
    copies::warm(clusters, &programs)?;
    let shape: Shape = SHAPE.parse()?;
    let topic = shape.fill(&source, 1).topic;
    let mut archive = Archive::new(&common.runs, "start", "Start to first record", PREFACE);
    for exists in [true, false] {
        let contestants = common.contestants(&Contestant::FOR_TIME);
        let mut runs: Vec<_> = contestants.iter().map(|one| (one.name(), Vec::new())).collect();
        for round in 0..common.rounds {
            for (contestant, (name, runs)) in contestants.iter().zip(&mut runs) {
                let run = format!("{name}-{exists}-{round}");
                let job = Job::new(clusters, shape, &topic, &run);
                let first = one(&job, *contestant, &programs, exists);
                eprintln!("{run}: {first:?}");
                runs.push(first?);
            }
        }
        let title = if exists { "The topic exists" } else { "The topic is created" };
        let mut table =
            format!("### {title}\n\n| | first record, s | Strait's share of it |\n|---|---|---|\n");
        let ours = runs.first().and_then(|(_, runs)| spread(runs.clone()));
        for (name, runs) in &runs {
            let Some((median, least, most)) = spread(runs.clone()) else { continue };
            let share = ours.map_or(0.0, |(ours, ..)| ours / median);
            writeln!(table, "| {name} | {median:.3} ({least:.3}-{most:.3}) | {share:.3} |")
                .expect("a string takes all");
        }
        let raw: Vec<_> = runs
            .iter()
            .map(|(name, runs)| json!({ "contestant": name, "first_s": runs }))
            .collect();
        archive.keep(&table, json!({ "topic_exists": exists, "contestants": raw }))?;
    }
    Ok(())
}

fn one(
    job: &Job<'_>,
    contestant: Contestant,
    programs: &Programs,
    exists: bool,
) -> Result<f64, String> {
    let (topic, target) = (job.target_topic(), job.target.0);
    if exists {
        job.shape.create(target, &topic);
    }
    let mut running = contestant.start(job, programs);
    let first = first(&mut running, target, &topic, job.shape.partitions);
    running.process.kill();
    target.admin().delete_topic(&topic);
    first.map(|first| first.as_secs_f64())
}

fn first(
    running: &mut Running,
    target: &Cluster,
    topic: &str,
    partitions: i32,
) -> Result<Duration, String> {
    let mut client = target.nodes[0].client();
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let ends = client.ends(topic, partitions).unwrap_or_default();
        if ends.iter().any(|end| *end > 0) {
            return Ok(running.started.elapsed());
        }
        running.check()?;
        std::thread::sleep(TICK);
    }
    Err(format!("no record in {PATIENCE:?}:\n{}", running.log()))
}
