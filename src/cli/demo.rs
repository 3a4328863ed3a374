//! `strait demo`: two clusters in this process, TLS to the second, a stream of records, and the engine between them.
//! Needs nothing, leaves nothing, and compares both sides at its end.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;

use super::demo_world::{PARTITIONS, Verdict, World};
use super::run::Signals;
use super::screen::{Tone, show_bytes, show_count, show_seconds};
use super::{Exit, Failure, Screen, net};
use crate::admin::Status;
use crate::config::values::parse_duration;
use crate::engine::stats::{Board, MirrorStats, new_latency_histogram};
use crate::env::Env;
use crate::strait::{Handle, Strait};

/// How the demo goes.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// End after this long, such as 10s; without it, at Ctrl-C
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    pub length: Option<Duration>,
    /// Records made each second
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: u32,
}

/// How often figures are shown on a terminal, and elsewhere.
const REFRESH: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));
/// How long the copy may take to catch up and drain once no more records are made.
const FINISH: Duration = Duration::from_secs(10);

pub(super) fn main(args: &DemoArgs, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    net::block_on(async {
        let mut signals = Signals::install()?;
        let env = Env::real();
        let mut world = World::open(&env)?;
        let handle = Strait::builder(world.config()?).env(env.clone()).start()?;
        let board = handle.board();
        greet(&world, &handle, screen).await?;
        let stopped = tokio::select! {
            error = handle.stopped() => Some(error),
            () = signals.next() => None,
            () = length(args.length) => None,
            never = world.make_records(&env, args.rate) => match never {},
            shown = show(&board, screen) => { shown?; None }
        };
        screen.erase_line();
        if let Some(error) = stopped {
            return Err(error.into());
        }
        writeln!(screen.out, "no more records: catching up, draining")?;
        screen.out.flush()?;
        let verdict = tokio::select! {
            verdict = finish(&world, &handle) => verdict,
            () = signals.next() => {
                std::mem::forget(handle);
                return Ok(Exit::Failed);
            }
        };
        tell(&verdict, screen)?;
        Ok(if verdict.equal { Exit::Ok } else { Exit::NotTrue })
    })
}

async fn length(length: Option<Duration>) {
    match length {
        Some(length) => tokio::time::sleep(length).await,
        None => std::future::pending().await,
    }
}

async fn greet(world: &World, handle: &Handle, screen: &mut Screen<'_>) -> std::io::Result<()> {
    // The listener is bound by the control thread, in a moment.
    let mut telemetry = None;
    for _ in 0..50 {
        telemetry = handle.board().telemetry();
        if telemetry.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (source, target) = world.addresses();
    let out = &mut screen.out;
    writeln!(
        out,
        "two clusters in this process (not Kafka), TLS to the target, nothing leaves this machine"
    )?;
    writeln!(
        out,
        "  source {source}   target {target} (TLS)   topic demo, {PARTITIONS} partitions"
    )?;
    if let Some(addr) = telemetry {
        writeln!(out, "  figures: curl http://{addr}/metrics   strait status --telemetry {addr}")?;
    }
    writeln!(out, "  Ctrl-C ends it and compares both sides")?;
    out.flush()
}

/// Shows the figures until the writer fails.
async fn show(board: &Board, screen: &mut Screen<'_>) -> std::io::Result<()> {
    let refresh = if screen.live { REFRESH.0 } else { REFRESH.1 };
    let mut before = totals(board);
    let mut relay = Relay::default();
    let mut then = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(refresh).await;
        let (now, totals) = (tokio::time::Instant::now(), totals(board));
        let p99 = relay.p99_since(board);
        let line = figures(&Status::of(board), totals, before, (now - then).as_secs_f64(), p99);
        (before, then) = (totals, now);
        if screen.live {
            screen.replace_line(&line);
        } else {
            writeln!(screen.out, "{line}")?;
            screen.out.flush()?;
        }
    }
}

/// The relay latencies that were seen already.
struct Relay(Histogram<u64>);

impl Default for Relay {
    fn default() -> Self {
        Self(new_latency_histogram())
    }
}

impl Relay {
    /// Of what was acknowledged since the last call.
    fn p99_since(&mut self, board: &Board) -> Option<Duration> {
        let mut all = new_latency_histogram();
        for lane in board.lanes() {
            // All have the same bounds.
            let _ = all.add(&*lane.relay_us.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let before = std::mem::replace(&mut self.0, all.clone());
        all.subtract(&before).ok()?;
        (!all.is_empty()).then(|| Duration::from_micros(all.value_at_quantile(0.99)))
    }
}

/// Acknowledged records and bytes.
fn totals(board: &Board) -> (u64, u64) {
    board.mirrors().iter().fold((0, 0), |(records, bytes), mirror| {
        (records + mirror.acked_records.load(Relaxed), bytes + mirror.acked_bytes.load(Relaxed))
    })
}

fn figures(
    status: &Status,
    now: (u64, u64),
    before: (u64, u64),
    seconds: f64,
    p99: Option<Duration>,
) -> String {
    let Some(link) = status.links.first() else { return String::new() };
    let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds.max(0.001);
    let p99 = p99.map_or("-".to_owned(), |p99| format!("{:.1} ms", p99.as_secs_f64() * 1000.0));
    format!(
        "{} · {} rec/s · {}/s · lag {} · delay {} · p99 relay {p99}",
        link.state,
        show_count(per_second(now.0, before.0) as u64),
        show_bytes(per_second(now.1, before.1)),
        show_count(link.lag_offsets),
        show_seconds(link.delay_seconds),
    )
}

/// Waits for the copy, ends the engine in good order, compares.
async fn finish(world: &World, handle: &Handle) -> Verdict {
    let (board, ends) = (handle.board(), world.source_ends());
    let arrived = async {
        let is_there = |mirror: &Arc<MirrorStats>| {
            let partition = usize::try_from(mirror.partition).unwrap_or(0);
            ends.get(partition).is_some_and(|end| mirror.acked.load(Relaxed) >= *end)
        };
        while !board.mirrors().iter().all(is_there) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // If it does not arrive in time, the comparison says what is missing.
    let _ = tokio::time::timeout(FINISH, arrived).await;
    let drained = handle.drain(FINISH).await;
    world.compare(drained.clean)
}

fn tell(verdict: &Verdict, screen: &mut Screen<'_>) -> std::io::Result<()> {
    let (made, copied) = (show_count(verdict.made), show_count(verdict.copied));
    let compared = show_count(verdict.compared);
    let line = if verdict.equal {
        screen.paint(
            Tone::Good,
            &format!(
                "equal: {made} records made, {copied} on the target, positions committed; the last \
                 {compared} compared byte by byte and in order"
            ),
        )
    } else {
        let why = &verdict.difference;
        screen.paint(Tone::Bad, &format!("NOT equal: {made} made, {copied} on the target: {why}"))
    };
    writeln!(screen.out, "{line}")
}
