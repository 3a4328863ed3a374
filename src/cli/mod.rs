//! The command line: what can be typed, and what the process answers with. A file per verb.
//!
//! Owns words and exit codes. Never decides anything about replication, and never exits, installs a subscriber or a
//! global: that is `main.rs`.

mod bench;
mod check;
mod completions;
mod config;
mod demo;
mod demo_world;
mod explain;
mod files;
mod lag;
mod net;
mod offsets;
mod path;
mod probe;
mod progress;
mod proto;
mod reset;
mod run;
pub mod screen;
mod status;
pub mod stderr;
mod version;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_bench;
#[cfg(test)]
mod tests_clusters;
#[cfg(test)]
mod tests_proto;

use std::fmt;
use std::io;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Invalid, Loaded, Problem};
use crate::error::Error;
use crate::link::pairs;

pub use screen::Screen;

const EXIT_CODES: &str = "\
Exit codes:
  0   done, or what was asked for is true
  1   it failed while running
  2   the command line is wrong
  3   what was asked for is not true: unhealthy, behind, or a check failed
  78  the configuration is wrong; nothing was started";

/// Copies Kafka topics from one cluster to another over TLS, batch bytes untouched.
#[derive(Debug, Parser)]
#[command(name = "strait", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    /// What every verb takes.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What every verb takes.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// The configuration file
    #[arg(short, long, global = true, env = "STRAIT_CONFIG", default_value = "strait.yaml")]
    pub config: PathBuf,
    /// How log lines look
    #[arg(long, global = true, env = "STRAIT_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Least severe log level: error, warn, info, debug, trace, or directives such as strait::link=debug
    #[arg(long, global = true, env = "STRAIT_LOG", default_value = "info")]
    pub log_level: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How an answer looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// One JSON document with a `schema` field and stable keys.
    Json,
}

/// The flag of every reading verb.
#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArg {
    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Copy, in the foreground; SIGTERM drains, a second one ends at once
    Run(run::RunArgs),
    /// See it work: two clusters in this process, TLS between them, live figures
    Demo(demo::DemoArgs),
    /// Judge the configuration and, unless --offline, the clusters it names
    Check(check::CheckArgs),
    /// Show what the running process does, and what troubles it
    Status(status::StatusArgs),
    /// Show how far the committed positions are behind, from the source cluster itself
    Lag(lag::LagArgs),
    /// Show where a source offset is on the target, exactly
    Offsets(offsets::OffsetsArgs),
    /// Name the position at which a stopped link goes on
    Reset(reset::ResetArgs),
    /// Measure a link, or this machine
    #[command(subcommand)]
    Bench(bench::BenchVerb),
    /// Ask about the protocol itself, of any Kafka-compatible cluster
    #[command(subcommand)]
    Proto(proto::ProtoVerb),
    /// Make or show a configuration
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// Say what an ST code means and what to do
    Explain(explain::ExplainArgs),
    /// Print which version this is
    Version(OutputArg),
    /// Print a shell's completion script
    Completions(completions::CompletionsArgs),
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or true.
    Ok = 0,
    /// Failed while running.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// What was asked for is not true.
    NotTrue = 3,
    /// The configuration is wrong.
    BadConfig = 78,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a verb did not come to its end.
#[derive(Debug)]
pub enum Failure {
    /// The configuration.
    Config(Invalid),
    /// A cluster, a file, this process.
    Strait(Error),
    /// The command line, found wrong only now.
    Usage(String),
    /// The screen; a closed pipe among them.
    Screen(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Screen(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Strait(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(invalid) => invalid.fmt(f),
            Self::Strait(error) => error.fmt(f),
            Self::Usage(what) => f.write_str(what),
            Self::Screen(error) => error.fmt(f),
        }
    }
}

/// Does what was typed. A reader that went away (`strait lag | head`) is no failure.
pub fn execute(cli: Cli, screen: &mut Screen<'_>) -> Exit {
    let common = &cli.common;
    let ended = match cli.verb {
        Verb::Run(args) => run::main(&args, common, screen),
        Verb::Demo(args) => demo::main(&args, screen),
        Verb::Check(args) => check::main(&args, common, screen),
        Verb::Status(args) => status::main(&args, common, screen),
        Verb::Lag(args) => lag::main(&args, common, screen),
        Verb::Reset(args) => reset::main(&args, common, screen),
        Verb::Bench(verb) => bench::main(&verb, common, screen),
        Verb::Proto(verb) => proto::main(&verb, common, screen),
        Verb::Offsets(args) => offsets::main(&args, common, screen),
        Verb::Config(verb) => config::main(&verb, common, screen),
        Verb::Explain(args) => explain::main(&args, screen),
        Verb::Version(args) => version::main(args, screen),
        Verb::Completions(args) => completions::main(&args, screen),
    };
    let ended = ended.and_then(|exit| {
        screen.out.flush()?;
        Ok(exit)
    });
    let failure = match ended {
        Ok(exit) => return exit,
        Err(failure) => failure,
    };
    let exit = match &failure {
        Failure::Screen(error) if error.kind() == io::ErrorKind::BrokenPipe => return Exit::Ok,
        Failure::Config(_) => Exit::BadConfig,
        Failure::Usage(_) => Exit::Usage,
        Failure::Strait(_) | Failure::Screen(_) => Exit::Failed,
    };
    // Nobody may be there to read this either.
    let _ = writeln!(screen.err, "{failure}");
    exit
}

/// Reads the configuration, and judges its links against each other.
fn read(common: &Common) -> Result<Loaded, Invalid> {
    let loaded = crate::config::load(&common.config)?;
    let conflicts = pairs::conflicts(&loaded.config.links).into_iter().filter_map(|conflict| {
        let origin = loaded.origins.get(&format!("links.{}", conflict.link))?;
        Some(Problem::at(origin, conflict.what, conflict.fix))
    });
    let conflicts = conflicts.collect::<Vec<_>>();
    if conflicts.is_empty() {
        return Ok(loaded);
    }
    let mut problems = loaded.warnings;
    problems.extend(conflicts);
    problems.sort_by_key(|problem| (problem.line, problem.column));
    Err(Invalid { file: common.config.display().to_string(), problems })
}

/// The same, saying what is questionable about it.
fn load(common: &Common, screen: &mut Screen<'_>) -> Result<Loaded, Failure> {
    let loaded = read(common).map_err(Failure::Config)?;
    for warning in &loaded.warnings {
        writeln!(screen.err, "{}", warning.line_of(&common.config.display().to_string()))?;
    }
    Ok(loaded)
}
