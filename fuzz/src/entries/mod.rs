//! What is fuzzed: for each parser a function that takes any bytes, and panics if Strait does not keep its word.
//!
//! An entry is thin: it calls what the product calls, and checks what must hold of the outcome. Nothing here knows of the
//! fuzzer, so the test suites replay the corpus through the same functions.

mod batches;
mod connection;
mod engine;
mod group;
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
    /// Heap that a run may hold: so many bytes for one of input,
    heap_per_byte: usize,
    /// and so many besides.
    heap_fixed: usize,
}

impl Entry {
    /// What a run on `len` bytes may hold at its peak.
    pub fn heap_bytes_max(&self, len: usize) -> usize {
        self.heap_per_byte * len + self.heap_fixed
    }
}

const fn entry(name: &'static str, run: fn(&Bytes)) -> Entry {
    Entry { name, run, heap_per_byte: 2, heap_fixed: 64 << 10 }
}

const fn with_heap(entry: Entry, heap_per_byte: usize, heap_fixed: usize) -> Entry {
    Entry { heap_per_byte, heap_fixed, ..entry }
}

/// Sizes and headers of frames.
pub const FRAME: Entry = entry("frame", frame);
/// Every answer's decoder. The first byte chooses the API, the second its version.
pub const RESPONSES: Entry = with_heap(entry("responses", responses::run), 12, 64 << 10);
/// The walk from batch to batch, old message sets included.
pub const BATCHES: Entry = with_heap(entry("batches", batches::walk), 8, 16 << 20);
/// Opening a batch and reading its records.
pub const RECORDS: Entry = with_heap(entry("records", batches::records), 8, 16 << 20);
/// Recode, and its output read back.
pub const RECODE: Entry = with_heap(entry("recode", batches::recode), 8, 16 << 20);
/// The stamp's CRC against one computed anew.
pub const STAMP: Entry = with_heap(entry("stamp", batches::stamped), 4, 64 << 10);
/// The fate of batches.
pub const ADMIT: Entry = with_heap(entry("admit", engine::admitted), 8, 16 << 20);
/// Fetch sessions against a broker's memory.
pub const SESSION: Entry = with_heap(entry("session", engine::session), 2, 64 << 10);
/// SCRAM against a broker that says anything.
pub const SCRAM: Entry = with_heap(entry("scram", connection::scram), 8, 4 << 20);
/// The whole handshake against a peer that sends anything.
pub const CONNECTION: Entry = with_heap(entry("connection", connection::handshake), 8, 4 << 20);
/// Configuration text.
pub const CONFIG: Entry = with_heap(entry("config", configuration), 1 << 10, 16 << 20);

/// What members of a classic group tell each other.
pub const MEMBERS: Entry = with_heap(entry("members", group::members), 16, 64 << 10);
/// Positions in the source group.
pub const POSITION: Entry = with_heap(entry("position", group::position), 32, 64 << 10);

/// All of them.
pub const ENTRIES: [Entry; 13] = [
    FRAME, RESPONSES, BATCHES, RECORDS, RECODE, STAMP, ADMIT, SESSION, SCRAM, CONNECTION, CONFIG,
    MEMBERS, POSITION,
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
