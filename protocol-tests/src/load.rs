//! Numbered records, written until told otherwise, and dice whose throws can be had again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::time::Duration;

use serde_json::json;

use crate::agent::Admin;
use crate::tally::WRITER_BITS;

/// How its producers compress, in turn.
const CODECS: [&str; 3] = ["none", "zstd", "lz4"];

/// A writer of numbered records: Kafka's Java producers, one after the other.
#[derive(Clone, Debug)]
pub struct Load {
    /// Its name in the numbers; below 2^23.
    pub writer: u64,
    /// Its first number.
    pub first: u64,
    /// Records per second.
    pub per_second: u64,
    /// Bytes of a value.
    pub size: u64,
    /// Partitions 0 up to here, in turn.
    pub partitions: i32,
    /// The first record's timestamp, each next one a millisecond later; none is the producer's clock.
    pub timestamp: Option<i64>,
    /// How long one producer lives; between two it is asked whether to go on.
    pub turn: Duration,
    /// librdkafka instead.
    pub librdkafka: bool,
}

impl Load {
    /// Of writer 0, of 100 bytes each, by the clock.
    pub fn new(per_second: u64, partitions: i32) -> Self {
        Self {
            writer: 0,
            first: 0,
            per_second,
            size: 100,
            partitions,
            timestamp: None,
            turn: Duration::from_secs(3),
            librdkafka: false,
        }
    }

    /// Writes for as long as `goes_on` says so of what was written by now; gives the count.
    #[track_caller]
    pub fn run(&self, admin: &Admin, topic: &str, goes_on: impl Fn(u64) -> bool) -> u64 {
        let mut written = 0;
        let mut codecs = CODECS.iter().cycle();
        while goes_on(written) {
            let mut turn = json!({
                "from": (self.writer << WRITER_BITS) + self.first + written,
                "duration_ms": u64::try_from(self.turn.as_millis()).unwrap(),
                "per_second": self.per_second, "size": self.size, "props": { "linger.ms": "5", "compression.type": codecs.next() },
            });
            if let Some(timestamp) = self.timestamp {
                turn["timestamp"] = json!(timestamp + (self.first + written).cast_signed());
            }
            written += if self.librdkafka {
                turn["partitions"] = json!(self.partitions);
                admin.produce_numbered_librdkafka(topic, turn)
            } else {
                turn["partitions"] = json!((0..self.partitions).collect::<Vec<_>>());
                admin.produce(topic, turn)
            };
        }
        written
    }
}

/// Chance that can be had again: its seed is drawn and told, or `STRAIT_RUN_SEED`.
#[derive(Debug)]
pub struct Dice {
    /// What it began with.
    pub seed: u64,
    state: u64,
}

impl Default for Dice {
    fn default() -> Self {
        let told = std::env::var("STRAIT_RUN_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = told.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 32);
        Self { seed, state: seed }
    }
}

impl Dice {
    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    /// A time between two, to the millisecond.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = u64::try_from((most - least).as_millis()).unwrap();
        least + Duration::from_millis(self.below(span + 1))
    }
}

/// A line past the test harness, which keeps what a passing test prints to itself.
#[allow(
    clippy::explicit_write,
    reason = "the test harness keeps what `eprintln` says in a test that passes"
)]
pub fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_throws_again() {
        let throws = |seed| {
            let mut dice = Dice { seed, state: seed };
            (0..100).map(|_| dice.below(6)).collect::<Vec<_>>()
        };
        assert_eq!(throws(7), throws(7));
        assert_ne!(throws(7), throws(8));
        assert!((0..6).all(|face| throws(7).contains(&face)));
    }
}
