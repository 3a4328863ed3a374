//! `strait run`: the engine in the foreground, until a signal, a failure, or the end of what was there.

use std::time::Duration;

use clap::Args;

use super::progress::{Progress, Sample, behind};
use super::screen::{show_bytes, show_count, show_seconds};
use super::{Common, Exit, Failure, Screen, files, load, net};
use crate::config::resolved::Config;
use crate::engine::stats::Board;
use crate::error::Error;
use crate::fleet::Identity;
use crate::strait::{Handle, Strait};

/// How long acks are waited for once a signal came (limit of the exit: 10 s).
const DRAIN: Duration = Duration::from_secs(9);
/// How often progress is told, on a terminal and elsewhere.
const REFRESH: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// How to run.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Copy what is there at the start, commit, and end
    #[arg(long)]
    pub until_caught_up: bool,
}

/// What ended the run.
enum End {
    CaughtUp(Result<(), Error>),
    Stopped(Error),
    Signal,
}

pub(super) fn main(
    args: &RunArgs,
    common: &Common,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let config = load(common, screen)?.config;
    files::make_room(config.engine.lanes)?;
    greet(&config, screen)?;
    let identity = identity(&config, common);
    net::block_on(async {
        let mut signals = Signals::install()?;
        let mut builder = Strait::builder(config);
        if let Some(identity) = identity {
            builder = builder.identity(identity);
        }
        let handle = builder.start()?;
        let started = handle.env().now();
        let board = handle.board();
        let end = tokio::select! {
            end = wait(&handle, args.until_caught_up) => end,
            () = signals.next() => End::Signal,
            never = show(&board, screen) => match never {},
        };
        screen.erase_line();
        let drained = drain(&handle, &mut signals, screen).await;
        let Some(clean) = drained else {
            // Asked twice: nothing is waited for, the threads end with the process.
            std::mem::forget(handle);
            return Ok(Exit::Failed);
        };
        let all = Sample::of(&board);
        let (records, bytes) = (show_count(all.acked_records), show_bytes(all.acked_bytes as f64));
        let seconds = show_seconds((handle.env().now() - started).as_secs_f64());
        let exit = match end {
            End::Stopped(error) | End::CaughtUp(Err(error)) => return Err(error.into()),
            End::CaughtUp(Ok(())) if clean => {
                writeln!(screen.err, "caught up: {records} records, {bytes} in {seconds}")?;
                Exit::Ok
            }
            End::Signal if clean => {
                writeln!(screen.err, "drained: {records} records, {bytes} in {seconds}")?;
                if args.until_caught_up { Exit::NotTrue } else { Exit::Ok }
            }
            End::CaughtUp(Ok(())) | End::Signal => {
                let seconds = DRAIN.as_secs();
                writeln!(
                    screen.err,
                    "not everything was acknowledged and committed in {seconds} s"
                )?;
                Exit::Failed
            }
        };
        Ok(exit)
    })
}

/// Where this process runs, which nobody else does at the same time: this host, and the port of the telemetry or else the
/// file of the configuration. None where the host has no name.
fn identity(config: &Config, common: &Common) -> Option<Identity> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.or_else(|| std::env::var("HOSTNAME").ok())?;
    let host = host.trim();
    let listen = config.telemetry.as_ref().map(|telemetry| telemetry.listen);
    let place = match listen.filter(|address| address.port() != 0) {
        Some(address) => address.to_string(),
        None => std::fs::canonicalize(&common.config).ok()?.display().to_string(),
    };
    (!host.is_empty()).then(|| Identity::new(&format!("{host} {place}")))
}

/// What this process is about to be, and the most memory that it takes (I5).
fn greet(config: &Config, screen: &mut Screen<'_>) -> std::io::Result<()> {
    let links = config.links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", ");
    let memory = show_bytes(config.engine.memory_bound_bytes() as f64);
    let lanes = config.engine.lanes;
    let telemetry = config.telemetry.as_ref().map_or("off".to_owned(), |telemetry| {
        let scheme = if telemetry.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", telemetry.listen)
    });
    let version = env!("CARGO_PKG_VERSION");
    writeln!(
        screen.err,
        "strait {version} · {links} · {lanes} lanes · at most {memory} and one larger batch · telemetry {telemetry}"
    )
}

async fn wait(handle: &Handle, until_caught_up: bool) -> End {
    let caught_up = async {
        if until_caught_up { handle.caught_up().await } else { std::future::pending().await }
    };
    tokio::select! {
        biased;
        outcome = caught_up => End::CaughtUp(outcome),
        error = handle.stopped() => End::Stopped(error),
    }
}

/// Says how it goes while something is behind: one line that changes on a terminal, else a log line now and then.
async fn show(board: &Board, screen: &mut Screen<'_>) -> std::convert::Infallible {
    let mut progress = Progress::default();
    loop {
        tokio::time::sleep(if screen.live { REFRESH.0 } else { REFRESH.1 }).await;
        progress.add(tokio::time::Instant::now(), Sample::of(board));
        match (behind(board), screen.live) {
            (true, true) => screen.replace_line(&progress.line()),
            (false, true) => screen.erase_line(),
            (true, false) => tracing::info!("{}", progress.line()),
            (false, false) => {}
        }
    }
}

/// Drains; none if a second signal came first.
async fn drain(handle: &Handle, signals: &mut Signals, screen: &mut Screen<'_>) -> Option<bool> {
    let _ =
        writeln!(screen.err, "draining: waiting for acks, then committing; again to end at once");
    tokio::select! {
        report = handle.drain(DRAIN) => Some(report.clean),
        () = signals.next() => None,
    }
}

/// SIGINT and SIGTERM.
pub(super) struct Signals {
    #[cfg(unix)]
    both: [tokio::signal::unix::Signal; 2],
}

impl Signals {
    #[cfg(unix)]
    pub(super) fn install() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let both = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
        Ok(Self { both })
    }

    #[cfg(unix)]
    pub(super) async fn next(&mut self) {
        let [interrupt, terminate] = &mut self.both;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }

    #[cfg(not(unix))]
    pub(super) fn install() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    pub(super) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
