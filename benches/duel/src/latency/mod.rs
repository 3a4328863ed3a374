//! Latency: how much later than at the source a record can be read on the target.
//!
//! One process with one clock writes to the source, and reads the source and the target. The load is open: each record
//! carries when it was meant to be sent, whatever kept it, so that a stall counts for all that it delays.

mod figures;
mod load;
mod readers;

use std::time::{Duration, Instant};

use clap::Args;
use protocol_tests::lab::{Cluster, Version};
use protocol_tests::process::{Usage, usage};

use self::figures::{Cell, Delays};
use self::load::{Load, Pace};
use self::readers::Reader;
use crate::Common;
use crate::archive::Archive;
use crate::contestants::{Contestant, Job, Programs};
use crate::copies;
use crate::measure::Running;
use crate::shape::Shape;

/// One batch is one producer's, so this only names the partitions, the codec and the listeners.
const SHAPE: &str = "256KiB/none/4/0ms/plain";
/// Partitions of the shape.
const PARTITIONS: usize = 4;
/// Of a value.
const RECORD_BYTES: usize = 1000;
/// A contestant that is not up to date by then takes no part.
const PATIENCE: Duration = Duration::from_secs(120);

/// A producer that is later than this does not keep up.
const ON_TIME: Duration = Duration::from_millis(50);

/// What is measured.
#[derive(Debug, Args)]
pub struct Options {
    /// Records per second; may be repeated.
    #[arg(long = "rate", default_values_t = [1000])]
    rates: Vec<u64>,
    /// And this share of each contestant's own ceiling, in percent; 0 leaves it out.
    #[arg(long, default_value_t = 50)]
    share: u64,
    /// Seconds that count.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Seconds before them, from when the contestant is up to date.
    #[arg(long, default_value_t = 10)]
    warm: u64,
}

/// One contestant's turn.
#[derive(Debug)]
struct Turn {
    delays: Delays,
    /// Of the contestant while it counted, share of a core.
    cores: f64,
    rss_mb: f64,
}

/// All rates, each contestant in turn.
pub fn run(common: &Common, options: &Options) -> Result<(), String> {
    let programs = Programs::find()?;
    let target = Cluster::builder(Version::V43).for_speed();
    let (source, target) = Cluster::builder(Version::V43).for_speed().start_both(target);
    let bench = Bench { clusters: (&source, &target), programs: &programs, options };
    copies::warm(bench.clusters, &programs)?;
    // Single records are another path through a broker than those large batches.
    bench.turn(Contestant::Strait, 1000, "warm")?;
    let mut archive = Archive::new(&common.runs, "latency", "Latency", figures::PREFACE);
    let contestants = common.contestants(&Contestant::FOR_TIME);
    for rate in &options.rates {
        let mut cell = Cell::new(format!("{rate} records/s"));
        for round in 0..common.rounds {
            for one in &contestants {
                cell.add(one.name(), *rate, bench.turn(*one, *rate, &round.to_string())?);
            }
        }
        archive.keep(&cell.table(), cell.json())?;
    }
    if options.share > 0 {
        let mut cell = Cell::new(format!("{} % of the ceiling", options.share));
        for one in contestants {
            let ceiling = bench.ceiling(one)?;
            let rate = ceiling * options.share / 100;
            for round in 0..common.rounds {
                cell.add(one.name(), rate, bench.turn(one, rate, &round.to_string())?);
            }
        }
        archive.keep(&cell.table(), cell.json())?;
    }
    Ok(())
}

/// Where turns take place.
struct Bench<'a> {
    clusters: (&'a Cluster, &'a Cluster),
    programs: &'a Programs,
    options: &'a Options,
}

impl Bench<'_> {
    /// The delays of one contestant at a rate.
    fn turn(&self, contestant: Contestant, rate: u64, round: &str) -> Result<Turn, String> {
        let run = format!("{}-{rate}-{round}", contestant.name());
        let turn = self.with(contestant, &run, Pace::Rate(rate), |work, running| {
            let before = usage(running.process.pid);
            let (from, at) = (work.load.sent(), Instant::now());
            std::thread::sleep(Duration::from_secs(self.options.seconds));
            let (to, after) = (work.load.sent(), usage(running.process.pid));
            let spent = |usage: Usage| usage.cpu.as_secs_f64();
            let cores = (spent(after) - spent(before)) / at.elapsed().as_secs_f64();
            work.load.stop()?;
            work.wait_for(to)?;
            let delays = Delays::between(from..to, &work.source, &work.target)?;
            Ok(Turn { delays, cores, rss_mb: after.rss_peak_bytes as f64 / 1e6 })
        })?;
        eprintln!("{run}: {}", turn.delays.line());
        Ok(turn)
    }

    /// Records per second that arrive on the target, read as in a turn, while the producer writes all that it can.
    fn ceiling(&self, contestant: Contestant) -> Result<u64, String> {
        let run = format!("{}-ceiling", contestant.name());
        let rate = self.with(contestant, &run, Pace::Flat, |work, _| {
            let (from, at) = (work.target.seen(), Instant::now());
            std::thread::sleep(Duration::from_secs(10));
            let arrived = (work.target.seen() - from) as f64;
            let rate = arrived / at.elapsed().as_secs_f64();
            work.load.stop()?;
            Ok(rate as u64)
        })?;
        eprintln!("{run}: {rate} records/s");
        Ok(rate)
    }

    /// Starts the contestant, a load and both readers; calls `measure` when the contestant is up to date and warm.
    fn with<T>(
        &self,
        contestant: Contestant,
        run: &str,
        pace: Pace,
        measure: impl FnOnce(&mut Work, &mut Running) -> Result<T, String>,
    ) -> Result<T, String> {
        let shape: Shape = SHAPE.parse()?;
        let (source, target) = self.clusters;
        let topic = format!("latency-{run}");
        let job = Job::new(self.clusters, shape, &topic, run);
        let copy = job.target_topic();
        shape.create(source, &topic);
        shape.create(target, &copy);
        let mut running = contestant.start(&job, self.programs);
        let clock = Instant::now();
        // As many places as records until the longest turn's end.
        let seconds = PATIENCE.as_secs() + self.options.warm + self.options.seconds + 30;
        let places = pace.records(Duration::from_secs(seconds));
        let mut work = Work {
            source: Reader::start(source, &topic, clock, places),
            target: Reader::start(target, &copy, clock, places),
            load: Load::start(source, &topic, clock, pace),
        };
        work.wait_up_to_date(pace, &mut running)?;
        std::thread::sleep(Duration::from_secs(self.options.warm));
        let measured = measure(&mut work, &mut running);
        running.process.kill();
        drop(work);
        source.admin().delete_topic(&topic);
        target.admin().delete_topic(&copy);
        measured.map_err(|error| format!("{run}: {error}\n{}", running.log()))
    }
}

/// The load and its readers.
struct Work {
    load: Load,
    source: Reader,
    target: Reader,
}

impl Work {
    /// Until the producer and the source keep up and the target is half a second behind at most; of a flat-out load,
    /// until the first record.
    fn wait_up_to_date(&self, pace: Pace, running: &mut Running) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            running.check()?;
            let (sent, seen) = (self.load.sent(), self.target.seen());
            let behind = |reader: &Reader| sent.saturating_sub(reader.seen());
            let near = match pace {
                Pace::Rate(rate) => {
                    self.load.late() < ON_TIME
                        && behind(&self.source) <= rate.div_ceil(20)
                        && behind(&self.target) <= rate.div_ceil(2)
                }
                Pace::Flat => true,
            };
            if seen > 0 && near {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(format!("not up to date in {PATIENCE:?}:\n{}", running.log()))
    }

    /// Until both sides were read up to this record.
    fn wait_for(&self, records: u64) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        while self.source.seen().min(self.target.seen()) < records {
            if Instant::now() > until {
                let (source, target) = (self.source.seen(), self.target.seen());
                return Err(format!("of {records} records {source} and {target} were read"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}
