//! The cases, a file for each family.

mod api_versions;
mod coordinator;
mod fetch;
mod frame;
mod header;
mod metadata;
mod produce;
mod sasl;
mod transaction;

use std::sync::Arc;

use kafka_protocol::messages::ApiKey;

use super::case::Case;

/// What a broker is mostly asked: by the source's reader, by the target's writer.
pub(super) const DATA: [ApiKey; 2] = [ApiKey::Fetch, ApiKey::Produce];

/// What is changed in an answer, and how it is called.
type Named<R> = (&'static str, fn(&mut R));

/// A family of cases.
pub type Family = (&'static str, fn() -> Vec<Case>);

/// All families.
pub const FAMILIES: [Family; 9] = [
    ("frame", frame::cases),
    ("header", header::cases),
    ("ApiVersions", api_versions::cases),
    ("Metadata", metadata::cases),
    ("Fetch", fetch::cases),
    ("Produce", produce::cases),
    ("coordinator", coordinator::cases),
    ("transaction", transaction::cases),
    ("SASL", sasl::cases),
];

/// The cases of a family, each with its family in its name.
pub fn of((family, cases): Family) -> Vec<Arc<Case>> {
    let mut cases = cases();
    for case in &mut cases {
        case.name = format!("{family}: {}", case.name);
    }
    cases.into_iter().map(Arc::new).collect()
}
