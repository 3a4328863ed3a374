//! `strait check`: the configuration first, then, unless `--offline`, the clusters that it names.

use clap::Args;
use serde_json::json;

use super::screen::Tone;
use super::{Common, Exit, Failure, Output, OutputArg, Screen};
use crate::config::{Loaded, Severity};

/// How to check.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Look at the configuration only; dial nobody
    #[arg(long)]
    pub offline: bool,
    /// Warnings of the configuration fail the check
    #[arg(long)]
    pub deny_warnings: bool,
    #[command(flatten)]
    pub output: OutputArg,
}

pub(super) fn main(
    args: &CheckArgs,
    common: &Common,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let file = common.config.display().to_string();
    let (problems, loaded) = match crate::config::load(&common.config) {
        Ok(loaded) => (loaded.warnings.clone(), Some(loaded)),
        Err(invalid) => (invalid.problems, None),
    };
    let errors = problems.iter().filter(|p| p.severity == Severity::Error).count();
    let warnings = problems.len() - errors;
    let bad = loaded.is_none() || (args.deny_warnings && warnings > 0);
    match args.output.output {
        Output::Json => {
            let body = json!({"file": file, "ok": !bad, "config": problems});
            screen.json("strait.check/1", body)?;
        }
        Output::Table => {
            for problem in &problems {
                let tone = match problem.severity {
                    Severity::Error => Tone::Bad,
                    Severity::Warning => Tone::Warn,
                };
                let line = screen.paint(tone, &problem.line_of(&file));
                writeln!(screen.out, "{line}")?;
            }
            if let Some(loaded) = &loaded {
                summary(loaded, screen)?;
            }
            writeln!(screen.out, "{errors} errors · {warnings} warnings")?;
        }
    }
    Ok(if bad { Exit::BadConfig } else { Exit::Ok })
}

fn summary(loaded: &Loaded, screen: &mut Screen<'_>) -> std::io::Result<()> {
    let config = &loaded.config;
    let (clusters, links) = (config.clusters.len(), config.links.len());
    let mark = screen.paint(Tone::Good, "✓");
    writeln!(screen.out, "config      {mark} {clusters} clusters  {mark} {links} links")
}
