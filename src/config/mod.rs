//! From a file to what is meant: `yaml` reads the text with its positions, `written`, `clusters` and `links` judge it key by key,
//! `secrets` resolves `${env:..}` and `${file:..}`, `resolved` is the outcome.
//!
//! Owns every check that needs no network, and reports all of its findings at once. Never opens a port, never dials,
//! and never repeats a value that may be a secret.

mod backfill;
mod clusters;
mod delivery;
mod forward;
mod links;
mod problem;
pub mod resolved;
mod secret;
pub(crate) mod secrets;
pub mod show;
pub(crate) mod telemetry;
pub mod values;
mod written;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

pub use problem::{Invalid, Problem, Severity};
pub use written::Origin;

use crate::limits;

/// A configuration that passed, and what is worth saying about it all the same.
#[derive(Debug)]
pub struct Loaded {
    /// What is meant.
    pub config: resolved::Config,
    /// Findings that do not stop it.
    pub warnings: Vec<Problem>,
    /// Where each written value stands, by dotted path; a path that is missing has its default.
    pub origins: BTreeMap<String, Origin>,
}

/// What a configuration refers to besides its own text.
pub struct Surroundings<'a> {
    /// What relative paths begin at: the directory of the file.
    pub directory: &'a Path,
    /// The environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

/// Reads and judges a file.
///
/// # Errors
/// Every problem of the file at once, in the order of its lines.
pub fn load(path: &Path) -> Result<Loaded, Invalid> {
    let name = path.display().to_string();
    let refuse = |what: String, fix: &str| Invalid {
        file: name.clone(),
        problems: vec![Problem::error(yaml::At::START, what).fix(fix)],
    };
    let length = std::fs::metadata(path)
        .map_err(|e| {
            refuse(
                format!("cannot be read: {e}"),
                "name another with -c, or make one: strait config generate one-way > strait.yaml",
            )
        })?
        .len();
    if length > limits::CONFIG_FILE_BYTES_MAX {
        return Err(refuse(
            format!("is {length} bytes long, over {}", limits::CONFIG_FILE_BYTES_MAX),
            "is this the right file?",
        ));
    }
    let bytes = std::fs::read(path)
        .map_err(|e| refuse(format!("cannot be read: {e}"), "check its rights"))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| refuse("is not UTF-8 text".into(), "is this the right file?"))?;
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let surroundings = Surroundings { directory, variable: &|name: &str| std::env::var(name).ok() };
    parse(&text, &name, &surroundings)
}

/// Judges the text of a configuration; `file` is what the problems call it.
///
/// # Errors
/// Every problem of the text at once, in the order of its lines.
pub fn parse(text: &str, file: &str, around: &Surroundings<'_>) -> Result<Loaded, Invalid> {
    written::read(text, around).map_err(|problems| Invalid { file: file.to_owned(), problems })
}
