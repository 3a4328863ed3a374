//! What is fuzzed: for each parser a function that takes any bytes, and panics if Strait does not keep its word.
//!
//! An entry is thin: it calls what the product calls, and checks what must hold of the outcome. Nothing here knows of the
//! fuzzer, so the test suites replay the corpus through the same functions.

mod batches;
mod connection;
mod copying;
mod engine;
mod group;
mod http;
mod memory;
mod merged;
mod metadata;
mod orders;
mod responses;

use std::path::Path;

use bytes::Bytes;
use strait::config::{self, Surroundings};
use strait::wire::ApiKey;
use strait::wire::frame::{FrameSize, correlation_id, response_body};

#[allow(unused_imports, reason = "for the seeds")]
pub use responses::DECODERS;

/// One parser.
#[derive(Clone, Copy)]
pub struct Entry {
    /// The target's, and its corpus folder's.
    pub name: &'static str,
    /// Panics if something does not hold.
    pub run: fn(&Bytes),
    /// Heap that a run may hold beside its input: so many bytes for one of input,
    heap_per_byte: usize,
    /// and so many besides.
    heap_fixed: usize,
    /// Why it is more than twice the input and 64 KiB, where it is.
    pub why: Option<&'static str>,
}

impl Entry {
    /// What a run on `len` bytes may hold at its peak.
    pub fn heap_bytes_max(&self, len: usize) -> usize {
        self.heap_per_byte * len + self.heap_fixed
    }
}

/// Twice its input and 64 KiB.
const fn entry(name: &'static str, run: fn(&Bytes)) -> Entry {
    Entry { name, run, heap_per_byte: 2, heap_fixed: 64 << 10, why: None }
}

/// More, for a reason.
const fn roomy(entry: Entry, heap_per_byte: usize, heap_fixed: usize, why: &'static str) -> Entry {
    Entry { heap_per_byte, heap_fixed, why: Some(why), ..entry }
}

const OPENS: &str = "opens compressed blocks, up to a limit of its own";
const WHOLE_CONNECTION: &str = "a connection: buffers of fixed size, and SCRAM's remembered keys";

/// Sizes and headers of frames.
pub const FRAME: Entry = entry("frame", frame);
/// Every answer's decoder. The first byte chooses the API, the second its version.
pub const RESPONSES: Entry = roomy(
    entry("responses", responses::run),
    12,
    64 << 10,
    "lists up to `DECODED_RATIO_MAX` times the frame, and a list that grows holds its old half too",
);
/// The walk from batch to batch, old message sets included.
pub const BATCHES: Entry = roomy(entry("batches", batches::walk), 8, 16 << 20, OPENS);
/// Opening a batch and reading its records.
pub const RECORDS: Entry = roomy(entry("records", batches::records), 8, 16 << 20, OPENS);
/// Recode, and its output read back.
pub const RECODE: Entry = roomy(entry("recode", batches::recode), 8, 16 << 20, OPENS);
/// Merge against the records one by one, and what is cut out of it again.
pub const MERGE: Entry = roomy(entry("merge", merged::run), 8, 32 << 20, OPENS);
/// The stamp's CRC against one computed anew.
pub const STAMP: Entry = entry("stamp", batches::stamped);
/// The fate of batches.
pub const ADMIT: Entry = roomy(entry("admit", engine::admitted), 8, 16 << 20, OPENS);
/// Fetch sessions against a broker's memory.
pub const SESSION: Entry = entry("session", engine::session);
/// SCRAM against a broker that says anything.
pub const SCRAM: Entry = roomy(entry("scram", connection::scram), 8, 4 << 20, WHOLE_CONNECTION);
/// The whole handshake against a peer that sends anything.
pub const CONNECTION: Entry =
    roomy(entry("connection", connection::handshake), 8, 4 << 20, WHOLE_CONNECTION);
/// Configuration text.
pub const CONFIG: Entry = roomy(
    entry("config", configuration),
    1 << 10,
    16 << 20,
    "the operator's own file: a regular expression compiles to far more than its text",
);
/// What members of a classic group tell each other.
pub const MEMBERS: Entry = roomy(
    entry("members", group::members),
    24,
    64 << 10,
    "what was read is held while it is read again: a list by topic, and the flat one, which grows beside its old half",
);
/// Positions in the source group.
pub const POSITION: Entry = roomy(
    entry("position", group::position),
    32,
    64 << 10,
    "runs of a map take more than their text; Kafka's limit on it is 4 KiB",
);
/// The map of a cluster after answers that say anything.
pub const METADATA: Entry = roomy(
    entry("metadata", metadata::run),
    24,
    64 << 10,
    "the old map, the answer and the new map, of up to `DECODED_RATIO_MAX` each",
);
/// The telemetry listener against a peer that says anything.
pub const HTTP: Entry =
    roomy(entry("http", http::run), 4, 512 << 10, "two connections with a page of metrics each");
/// The whole engine between two clusters in memory.
pub const COPYING: Entry = roomy(
    entry("copying", copying::run),
    0,
    64 << 20,
    "two clusters, and an engine with its budget",
);

/// All of them.
pub const ENTRIES: [Entry; 17] = [
    FRAME, RESPONSES, BATCHES, RECORDS, RECODE, MERGE, STAMP, ADMIT, SESSION, SCRAM, CONNECTION,
    CONFIG, MEMBERS, POSITION, METADATA, HTTP, COPYING,
];

fn frame(data: &Bytes) {
    let Some((size, rest)) = data.split_first_chunk() else { return };
    let claimed = i32::from_be_bytes(*size);
    for max in [0, rest.len(), 1 << 20, usize::MAX] {
        if let Ok(size) = FrameSize::check(claimed, max) {
            assert!(size >= 4 && size <= max && size as i64 == i64::from(claimed));
        }
    }
    let frame = data.slice(4..);
    for api in [ApiKey::Fetch, ApiKey::ApiVersions, ApiKey::SaslHandshake] {
        if let Ok(body) = response_body(api, &frame) {
            assert!(frame.ends_with(&body) && correlation_id(&frame).is_ok());
        }
    }
}

/// Not in any file, and so never to be seen in what is said about one.
const SECRET: &str = "canary-4a1f";

fn configuration(data: &Bytes) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let around = Surroundings {
        directory: Path::new("no-such-directory"),
        variable: &|name| (name != "UNSET").then(|| SECRET.to_owned()),
    };
    match config::parse(text, "strait.yaml", &around) {
        Ok(loaded) => assert!(!config::show::yaml(&loaded).is_empty()),
        Err(invalid) => {
            let said = invalid.to_string();
            assert!(invalid.errors() > 0, "refused without a reason");
            assert!(!said.contains(SECRET) || text.contains(SECRET), "a secret is shown: {said}");
        }
    }
}
