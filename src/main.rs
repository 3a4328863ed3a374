//! The binary: parse, run, exit code. What the library must not have, because its user may have another, is here: the
//! allocator, the log subscriber, and the end of the process.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use strait::cli::screen::LogWriter;
use strait::cli::stderr::Stderr;
use strait::cli::{self, Cli, LogFormat, Screen};
use strait::limits;
use tracing_subscriber::EnvFilter;

// The main path allocates frames of 1 MiB on one thread and frees them on another's behalf; the system's allocator
// gives such memory back late, and the printed bound would not hold.
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
    let exit = match log(&err, cli.common.log_format, &cli.common.log_level) {
        Ok(()) => cli::execute(cli, &mut Screen::standard(err.clone())),
        Err(error) => {
            let _ = writeln!(err, "--log-level: {error}");
            cli::Exit::Usage
        }
    };
    err.finish(limits::LOG_FLUSH);
    exit.into()
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
