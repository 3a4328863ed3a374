//! What a stock broker accepts and refuses, case by case. The embedded broker and both real releases take the same
//! cases, so that what is proven on the embedded one holds on a real one.

mod fetch;
mod produce;
mod sequences;

use std::fmt::Debug;

use protocol_tests::lab::Version;
use protocol_tests::raw::{Batch, Codec, Parsed, Produced, RawClient};

pub const OK: i16 = 0;
pub const UNKNOWN: i16 = -1;
pub const OFFSET_OUT_OF_RANGE: i16 = 1;
pub const CORRUPT: i16 = 2;
pub const TOO_LARGE: i16 = 10;
pub const INVALID_TOPIC: i16 = 17;
pub const INVALID_ACKS: i16 = 21;
pub const INVALID_TIMESTAMP: i16 = 32;
pub const OUT_OF_ORDER_SEQUENCE: i16 = 45;
pub const STALE_PRODUCER_EPOCH: i16 = 47;
pub const TRANSACTIONAL_ID_AUTHORIZATION: i16 = 53;
pub const UNSUPPORTED_COMPRESSION: i16 = 76;
pub const INVALID_RECORD: i16 = 87;

/// One broker under the cases; collects what differs from the expectation instead of ending at the first.
pub struct Bench {
    pub client: RawClient,
    pub release: Version,
    case: &'static str,
    topics: usize,
    differences: Vec<String>,
}

/// Runs every case; panics with all differences.
pub fn check(address: &str, release: Version) {
    check_but(address, release, &[]);
}

/// Runs every case but these, by name.
pub fn check_but(address: &str, release: Version, but: &[&str]) {
    let mut cases = [produce::CASES, sequences::CASES, fetch::CASES].concat();
    cases.retain(|(name, _)| !but.contains(name));
    let client = RawClient::connect(address);
    let mut bench = Bench { client, release, case: "", topics: 0, differences: Vec::new() };
    for (name, case) in &cases {
        bench.case = name;
        case(&mut bench);
    }
    assert!(
        bench.differences.is_empty(),
        "{} of {} cases differ:\n  {}",
        bench.differences.len(),
        cases.len(),
        bench.differences.join("\n  "),
    );
}

pub type Case = (&'static str, fn(&mut Bench));

impl Bench {
    /// A new topic of one partition.
    #[track_caller]
    pub fn topic(&mut self, configs: &[(&str, &str)]) -> String {
        self.topics += 1;
        let name = format!("parity-{}", self.topics);
        self.client.create_topic(&name, 1, configs);
        name
    }

    /// Notes a difference.
    #[track_caller]
    pub fn expect<T: PartialEq + Debug>(&mut self, what: &str, got: T, want: T) {
        if got != want {
            let line = std::panic::Location::caller().line();
            let case = self.case;
            self.differences
                .push(format!("{case} (line {line}): {what}: got {got:?}, want {want:?}"));
        }
    }

    /// Produces one batch and compares the error.
    #[track_caller]
    pub fn produce(&mut self, topic: &str, batch: &Batch, want: i16) -> Produced {
        self.produce_bytes(topic, batch.bytes(), want)
    }

    /// Produces bytes and compares the error.
    #[track_caller]
    pub fn produce_bytes(&mut self, topic: &str, bytes: Vec<u8>, want: i16) -> Produced {
        let produced = self.client.produce(topic, 0, bytes);
        self.expect(&produced.message, produced.error, want);
        produced
    }

    /// The newest batch of a topic's partition.
    #[track_caller]
    pub fn newest(&mut self, topic: &str) -> Parsed {
        self.client.read_log(topic, 0).pop().expect("the log is empty")
    }

    /// The log's end.
    pub fn end(&mut self, topic: &str) -> i64 {
        self.client.list_offset(topic, 0, -1)
    }
}

/// A batch with a codec.
pub fn packed(mut batch: Batch, codec: Codec) -> Batch {
    batch.codec = codec;
    batch
}
