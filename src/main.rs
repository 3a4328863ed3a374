//! The binary: parse, run, exit code. What the library must not have, because its user may have another, is here: the
//! allocator, the log subscriber, and the end of the process.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use strait::cli::screen::LogWriter;
use strait::cli::stderr::Stderr;
use strait::cli::{self, Cli, LogFormat, Screen};
use strait::limits;
use tracing_subscriber::EnvFilter;

// The main path allocates frames of 1 MiB on one thread and frees them on another's behalf; the system's allocator
// gives such memory back late, and the printed bound would not hold. Without huge pages: with them some KiB in use hold
// 2 MiB, which cost 15 of 50 MB and gained no CPU.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut err = match Stderr::start() {
        Ok(err) => err,
        Err(error) => {
            // Nobody may be there to read it: then the exit code tells it alone.
            let _ = writeln!(std::io::stderr(), "cannot start the thread of the log: {error}");
            return cli::Exit::Failed.into();
        }
    };
    tell_panics(&err);
    let _last_lines = Finish(err.clone());
    let exit = match log(&err, cli.common.log_format, &cli.common.log_level) {
        Ok(()) => cli::execute(cli, &mut Screen::standard(err.clone())),
        Err(error) => {
            let _ = writeln!(err, "--log-level: {error}");
            cli::Exit::Usage
        }
    };
    exit.into()
}

/// Writes the last lines when the main thread ends, by a panic too.
struct Finish(Stderr);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.finish(limits::LOG_FLUSH);
    }
}

/// A panic that ends a task alone is told like everything else: standard error itself may hold up its thread for ever.
fn tell_panics(err: &Stderr) {
    let err = err.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let trace = Backtrace::capture();
        let trace = match trace.status() {
            BacktraceStatus::Captured => format!("\n{trace}"),
            _ => String::new(),
        };
        // In one piece: between two, another thread's line would come.
        let text = format!("thread '{name}' {panic}{trace}\n");
        let _ = LogWriter(err.clone()).write_all(text.as_bytes());
    }));
}

/// Log lines go to standard error: standard output is for results.
fn log(
    err: &Stderr,
    format: LogFormat,
    level: &str,
) -> Result<(), tracing_subscriber::filter::ParseError> {
    let writer = LogWriter(err.clone());
    let filter = EnvFilter::builder().parse(level)?;
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || writer.clone());
    match format {
        LogFormat::Text => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            lines.with_ansi(std::io::stderr().is_terminal() && !no_color).init();
        }
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}
