//! The binary: parse, run, exit code. What the library must not have, because its user may have another, is here: the
//! allocator, the log subscriber, and the end of the process.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use strait::cli::screen::LogWriter;
use strait::cli::{self, Cli, LogFormat, Screen};
use tracing_subscriber::EnvFilter;

// The main path allocates frames of 1 MiB on one thread and frees them on another's behalf; the system's allocator
// gives such memory back late, and the printed bound would not hold.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = log(cli.common.log_format, &cli.common.log_level) {
        eprintln!("--log-level: {error}");
        return cli::Exit::Usage.into();
    }
    cli::execute(cli, &mut Screen::standard()).into()
}

/// Log lines go to standard error: standard output is for results.
fn log(format: LogFormat, level: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(level)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| LogWriter);
    match format {
        LogFormat::Text => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            lines.with_ansi(std::io::stderr().is_terminal() && !no_color).init();
        }
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}
