//! Why there is no membership, in words.

use crate::cluster::rights::Need;
use crate::config::resolved::Link;
use crate::error::{Action, Code, Error, Side};
use crate::wire::ErrorCode;

/// A right is missing.
const NOT_ALLOWED: Code = Code(30);
/// Somebody who is no Strait is in the group.
const FOREIGN: Code = Code(76);
/// The group does not take us.
const REFUSED: Code = Code(77);

fn error(link: &Link, code: Code, message: String) -> Error {
    Error::new(code, Side::Source, Action::Retry, message).cluster(link.from.name.clone())
}

/// Somebody who is no Strait is in the group.
pub(super) fn foreign(link: &Link, who: &str) -> Error {
    let message = format!("{who} is in group strait.{}, which is the link's own", link.name);
    error(link, FOREIGN, message).fix(format!(
        "stop that consumer, or give it another group.id; see kafka-consumer-groups.sh --describe --members --group strait.{}",
        link.name
    ))
}

/// Somebody else coordinates the group, or nobody for the moment.
pub(super) fn elsewhere(link: &Link, code: ErrorCode) -> Error {
    error(link, Code(15), format!("no coordinator for group strait.{}: {code}", link.name))
}

/// The coordinator does not take us.
pub(super) fn refused(link: &Link, code: ErrorCode, detail: &str) -> Error {
    let space = if detail.is_empty() { "" } else { ": " };
    let message =
        format!("group strait.{} does not take this instance: {code}{space}{detail}", link.name);
    match code {
        ErrorCode::GROUP_AUTHORIZATION_FAILED => {
            error(link, NOT_ALLOWED, message).fix(Need::CommitPosition.grant(link, ""))
        }
        ErrorCode::FENCED_INSTANCE_ID | ErrorCode::UNRELEASED_INSTANCE_ID => {
            error(link, REFUSED, message)
                .fix("give each instance a `membership.instance_id` of its own, or wait for the session of the last one to end")
        }
        _ => error(link, REFUSED, message)
            .fix("`membership: { protocol: classic }`, or `off` for one instance alone"),
    }
}
