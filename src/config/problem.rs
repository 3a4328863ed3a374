//! What is wrong with a configuration, and where. Never holds a value that may be a secret (I8).

use std::fmt;

use super::Origin;
use super::yaml::At;

/// What a finding means for what it was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot be run.
    Error,
    /// It can, and the operator should know.
    Warning,
    /// Nothing is wrong; it could be better.
    Note,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What to write instead; empty when there is nothing to suggest.
    pub fix: String,
}

impl Problem {
    pub(super) fn error(at: At, what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            line: at.line,
            column: at.column,
            what: what.into(),
            fix: String::new(),
        }
    }

    pub(super) fn warning(at: At, what: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(at, what) }
    }

    /// An error at a value whose place was noted.
    pub fn at(origin: &Origin, what: impl Into<String>, fix: impl Into<String>) -> Self {
        let at = At { line: origin.line, column: origin.column };
        Self::error(at, what).fix(fix)
    }

    #[must_use]
    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    /// The finding as one line, in the `file:line:column` form that editors and terminals link.
    pub fn line_of(&self, file: &str) -> String {
        let Self { line, column, what, .. } = self;
        let severity = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
            Severity::Note => "note: ",
        };
        let fix = if self.fix.is_empty() { String::new() } else { format!(" ({})", self.fix) };
        format!("{file}:{line}:{column}: {severity}{what}{fix}")
    }
}

/// A configuration that cannot be run, with everything that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The file, as it was named.
    pub file: String,
    /// By line; warnings among them.
    pub problems: Vec<Problem>,
}

impl Invalid {
    /// How many of the findings are errors.
    pub fn errors(&self) -> usize {
        self.problems.iter().filter(|p| p.severity == Severity::Error).count()
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{}", problem.line_of(&self.file))?;
        }
        let errors = self.errors();
        write!(f, "{errors} error{}", if errors == 1 { "" } else { "s" })
    }
}

impl std::error::Error for Invalid {}
