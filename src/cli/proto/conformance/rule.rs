//! What a rule is, and what can be said of a cluster about it.

use std::fmt::Debug;

use futures_util::future::LocalBoxFuture;

use super::super::versions::Role;
use super::bench::Bench;
use crate::error::Error;
use crate::wire::ErrorCode;

/// Something that brokers do and that Strait relies on.
pub(super) struct Rule {
    /// Stable: `area.what`.
    pub(super) id: &'static str,
    /// Whether it matters for a source, a target, or both.
    pub(super) role: Role,
    /// Copying as such does without: a cluster that does not offer it is no worse for the rest.
    pub(super) optional: bool,
    /// What a broker does.
    pub(super) states: &'static str,
    /// What Strait makes of it.
    pub(super) relies: &'static str,
    /// The class of a stock broker that does it, or the KIP that says so.
    pub(super) source: &'static str,
    /// What it means for using the cluster if the rule does not hold.
    pub(super) otherwise: &'static str,
    pub(super) check: Check,
}

/// How it is asked.
pub(super) type Check = for<'b, 'c> fn(&'b mut Bench<'c>) -> LocalBoxFuture<'b, Outcome>;

/// Holds, or why not.
pub(super) type Outcome = Result<(), Why>;

/// Why a rule cannot be said to hold.
#[derive(Debug)]
pub(super) enum Why {
    /// The broker does something else; or closed the connection, or did not answer.
    Differs(String),
    /// The broker does not offer what the rule is about.
    NotOffered(String),
}

impl From<Error> for Why {
    fn from(error: Error) -> Self {
        match error.code.0 {
            // No common version.
            25 => Self::NotOffered(error.message),
            _ => Self::Differs(error.to_string()),
        }
    }
}

/// What is said in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Holds,
    /// With what was seen instead.
    Fails(String),
    /// With what is missing.
    NotOffered(String),
}

impl Verdict {
    pub(super) fn of(outcome: Outcome) -> Self {
        match outcome {
            Ok(()) => Self::Holds,
            Err(Why::Differs(what)) => Self::Fails(what),
            Err(Why::NotOffered(what)) => Self::NotOffered(what),
        }
    }

    /// As JSON has it.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Fails(_) => "fails",
            Self::NotOffered(_) => "not_offered",
        }
    }
}

/// Holds a broker's answer against the rule.
pub(super) fn expect<T: PartialEq + Debug>(what: &str, got: T, want: T) -> Outcome {
    match got == want {
        true => Ok(()),
        false => Err(Why::Differs(format!("{what}: {got:?}, not {want:?}"))),
    }
}

/// The same for an error, by name.
pub(super) fn expect_error(what: &str, got: ErrorCode, want: ErrorCode) -> Outcome {
    expect_one_of(what, got, &[want])
}

/// The same where releases differ in the name.
pub(super) fn expect_one_of(what: &str, got: ErrorCode, want: &[ErrorCode]) -> Outcome {
    match want.contains(&got) {
        true => Ok(()),
        false => {
            let want = want.iter().map(|code| code.name()).collect::<Vec<_>>().join(" or ");
            Err(Why::Differs(format!("{what}: {}, not {want}", got.name())))
        }
    }
}

/// Something that must be in an answer.
pub(super) fn found<T>(what: &str, found: Option<T>) -> Result<T, Why> {
    found.ok_or_else(|| Why::Differs(format!("{what} is not in the answer")))
}
