//! What happened in a run, as one number to compare and its last lines to read.

use std::collections::VecDeque;
use std::time::Duration;

/// Lines that are kept for a report.
const LINES_MAX: usize = 60;

/// The events of a run: a hash over all of them, and the last ones that are no plain reads.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: VecDeque<String>,
}

impl Trace {
    /// Adds an event.
    pub(super) fn note(&mut self, at: Duration, what: &'static str, numbers: &[u64]) {
        let mut mix = |number: u64| {
            self.hash = (self.hash ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
        };
        mix(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX));
        what.bytes().for_each(|byte| mix(byte.into()));
        numbers.iter().for_each(|number| mix(*number));
        self.events += 1;
        if what != "read" {
            if self.lines.len() == LINES_MAX {
                self.lines.pop_front();
            }
            self.lines.push_back(format!("{:>9.3}s {what} {numbers:?}", at.as_secs_f64()));
        }
    }

    /// Equal for equal runs: time, kind, connection, length and checksum of every event.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The last lines.
    pub fn tail(&self) -> String {
        self.lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}
