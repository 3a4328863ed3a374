//! `strait check`: the configuration first, then, unless `--offline`, the clusters that it names.

use clap::Args;
use serde_json::json;

use super::probe::{self, Finding};
use super::screen::Tone;
use super::{Common, Exit, Failure, Output, OutputArg, Screen, net};
use crate::config::{Loaded, Problem, Severity};
use crate::env::Env;

/// How to check.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Look at the configuration only; dial nobody
    #[arg(long)]
    pub offline: bool,
    /// Warnings fail the check
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
    let (problems, loaded) = match super::read(common) {
        Ok(loaded) => (loaded.warnings.clone(), Some(loaded)),
        Err(invalid) => (invalid.problems, None),
    };
    let findings = match &loaded {
        Some(loaded) if !args.offline => {
            net::block_on(async { Ok(probe::all(&Env::real(), &loaded.config).await) })?
        }
        _ => Vec::new(),
    };
    let count = |severity| {
        problems.iter().filter(|p| p.severity == severity).count()
            + findings.iter().filter(|f| f.severity == Some(severity)).count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let exit = if loaded.is_none() {
        Exit::BadConfig
    } else if errors > 0 || (args.deny_warnings && warnings > 0) {
        Exit::NotTrue
    } else {
        Exit::Ok
    };
    match args.output.output {
        Output::Json => {
            let body = json!({
                "file": file, "ok": exit == Exit::Ok, "errors": errors, "warnings": warnings,
                "config": problems, "clusters": findings,
            });
            screen.json("strait.check/1", body)?;
        }
        Output::Table => {
            configuration(&file, &problems, loaded.as_ref(), screen)?;
            print(&findings, screen)?;
            let (errors, warnings) = (plural(errors, "error"), plural(warnings, "warning"));
            writeln!(screen.out, "{errors} · {warnings} · nothing was changed")?;
        }
    }
    Ok(exit)
}

fn configuration(
    file: &str,
    problems: &[Problem],
    loaded: Option<&Loaded>,
    screen: &mut Screen<'_>,
) -> std::io::Result<()> {
    for problem in problems {
        let tone = match problem.severity {
            Severity::Error => Tone::Bad,
            Severity::Warning => Tone::Warn,
            Severity::Note => Tone::Faint,
        };
        let line = screen.paint(tone, &problem.line_of(file));
        writeln!(screen.out, "{line}")?;
    }
    if let Some(loaded) = loaded {
        let (clusters, links) = (loaded.config.clusters.len(), loaded.config.links.len());
        let mark = screen.paint(Tone::Good, "✓");
        let (clusters, links) = (plural(clusters, "cluster"), plural(links, "link"));
        writeln!(screen.out, "config  {mark} {clusters}  {mark} {links}")?;
    }
    Ok(())
}

fn plural(n: usize, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

/// Good findings of a group side by side, the others on lines of their own.
fn print(findings: &[Finding], screen: &mut Screen<'_>) -> std::io::Result<()> {
    for group in findings.chunk_by(|a, b| a.group == b.group) {
        let mut line = group[0].group.clone();
        for finding in group.iter().filter(|f| f.severity.is_none()) {
            let mark = screen.paint(Tone::Good, "✓");
            line.push_str(&format!("  {mark} {}", finding.what));
        }
        writeln!(screen.out, "{line}")?;
        for finding in group {
            let (tone, mark) = match finding.severity {
                None => continue,
                Some(Severity::Warning) => (Tone::Warn, "!"),
                Some(Severity::Error) => (Tone::Bad, "✗"),
                Some(Severity::Note) => (Tone::Faint, "i"),
            };
            let mark = screen.paint(tone, mark);
            let code = finding.code.as_deref().map_or(String::new(), |code| format!("  {code}"));
            writeln!(screen.out, "  {mark} {}{code}", finding.what)?;
            if !finding.fix.is_empty() {
                writeln!(screen.out, "      fix: {}", finding.fix)?;
            }
        }
    }
    Ok(())
}
