//! Percentiles of delays, exact: every record's own is kept and they are sorted.

use std::fmt::Write as _;
use std::ops::Range;

use serde::Serialize;
use serde_json::{Value, json};

use super::Turn;
use super::readers::Reader;

/// What the tables have in common.
pub const PREFACE: &str = "Records of 1 KB in 4 partitions; milliseconds from when a record was due at the producer to when a consumer \
    had it, the delays of all records that fell due in the counted seconds of all rounds (no histogram, no rounding). One process \
    writes to the source and reads source and target by one clock. `added` is each record's delay on the target less its own on the \
    source. From 5,000 records/s on the producer sends what fell due within 5 ms together, else each record at once. The ceiling is what arrives on \
    the target of a producer that writes all it can. Strait as shipped; MirrorMaker 2 4.3.1 tuned for throughput (a linger of 20 ms) and as it comes; TLS to the target.";

/// Delays of the same records, nanoseconds, sorted.
#[derive(Clone, Debug, Default)]
pub struct Delays {
    source: Vec<u64>,
    target: Vec<u64>,
    added: Vec<u64>,
    /// Read a second time on the target, over the whole turn.
    twice: u64,
}

/// Percentiles, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Percentiles {
    p50: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

impl Percentiles {
    fn of(sorted: &[u64]) -> Self {
        let at = |per_mille: usize| {
            let rank = (sorted.len() * per_mille).div_ceil(1000).max(1);
            sorted.get(rank - 1).map_or(f64::NAN, |nanos| *nanos as f64 / 1e6)
        };
        Self { p50: at(500), p99: at(990), p99_9: at(999), max: at(1000) }
    }

    fn cells(&self) -> String {
        let Self { p50, p99, p99_9, max } = self;
        format!("{p50:.2} | {p99:.2} | {p99_9:.2} | {max:.1}")
    }
}

impl Delays {
    /// Of records in a range; an error if one of them was not read.
    pub fn between(records: Range<u64>, source: &Reader, target: &Reader) -> Result<Self, String> {
        let mut delays = Self { twice: target.twice(), ..Self::default() };
        for number in records {
            let both = source.delay(number).zip(target.delay(number));
            let (near, far) = both.ok_or_else(|| format!("record {number} was not read"))?;
            delays.source.push(near);
            delays.target.push(far);
            delays.added.push(far.saturating_sub(near));
        }
        delays.sort();
        Ok(delays)
    }

    fn sort(&mut self) {
        for delays in [&mut self.source, &mut self.target, &mut self.added] {
            delays.sort_unstable();
        }
    }

    fn join(&mut self, other: &Self) {
        self.source.extend(&other.source);
        self.target.extend(&other.target);
        self.added.extend(&other.added);
        self.twice += other.twice;
        self.sort();
    }

    /// By the name of the place where records are read.
    fn places(&self) -> [(&'static str, &[u64]); 3] {
        [("source", &self.source), ("target", &self.target), ("added", &self.added)]
    }

    /// In a line, for who watches.
    pub fn line(&self) -> String {
        let of = self.places().map(|(_, delays)| Percentiles::of(delays).cells());
        format!(
            "{} records; source {}; target {}; added {}",
            self.source.len(),
            of[0],
            of[1],
            of[2]
        )
    }

    fn json(&self) -> Value {
        json!({
            "records": self.source.len(), "twice": self.twice,
            "source_ms": Percentiles::of(&self.source), "target_ms": Percentiles::of(&self.target),
            "added_ms": Percentiles::of(&self.added),
        })
    }
}

/// All turns at one rate, by contestant.
#[derive(Debug)]
pub struct Cell {
    title: String,
    contestants: Vec<(&'static str, Vec<(u64, Turn)>)>,
}

impl Cell {
    /// No turn yet.
    pub fn new(title: String) -> Self {
        Self { title, contestants: Vec::new() }
    }

    /// A turn at a rate.
    pub fn add(&mut self, name: &'static str, rate: u64, turn: Turn) {
        let known = self.contestants.iter_mut().find(|(known, _)| *known == name);
        match known {
            Some((_, turns)) => turns.push((rate, turn)),
            None => self.contestants.push((name, vec![(rate, turn)])),
        }
    }

    /// As Markdown; per contestant a line for each place where records are read.
    pub fn table(&self) -> String {
        let mut text = format!(
            "### {}\n\n| | records/s | | p50 | p99 | p99.9 | max | p99 by round | cores | peak RSS, MB |\n\
             |---|---|---|---|---|---|---|---|---|---|\n",
            self.title
        );
        for (name, turns) in &self.contestants {
            let mut all = Delays::default();
            turns.iter().for_each(|(_, turn)| all.join(&turn.delays));
            let rate = turns.first().map_or(0, |(rate, _)| *rate);
            let cores = turns.iter().map(|(_, turn)| turn.cores).sum::<f64>() / turns.len() as f64;
            let rss = turns.iter().map(|(_, turn)| turn.rss_mb).fold(0.0, f64::max);
            for (at, (place, delays)) in all.places().into_iter().enumerate() {
                let p99 = |turn: &Turn| Percentiles::of(turn.delays.places()[at].1).p99;
                let rounds: Vec<String> =
                    turns.iter().map(|(_, turn)| format!("{:.1}", p99(turn))).collect();
                let (cells, rounds) = (Percentiles::of(delays).cells(), rounds.join(", "));
                writeln!(
                    text,
                    "| {name} | {rate} | {place} | {cells} | {rounds} | {cores:.2} | {rss:.0} |"
                )
                .expect("a string takes all");
            }
            if all.twice > 0 {
                eprintln!("{name}: {} records were read twice on the target", all.twice);
            }
        }
        text
    }

    /// The raw figures of each turn.
    pub fn json(&self) -> Value {
        let turns = |turns: &[(u64, Turn)]| -> Vec<Value> {
            let one = |(rate, turn): &(u64, Turn)| json!({ "rate": rate, "delays": turn.delays.json(), "cores": turn.cores, "rss_mb": turn.rss_mb });
            turns.iter().map(one).collect()
        };
        let contestants: Vec<Value> = self
            .contestants
            .iter()
            .map(|(name, of)| json!({ "contestant": name, "turns": turns(of) }))
            .collect();
        json!({ "cell": self.title, "contestants": contestants })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let nanos: Vec<u64> = (1..=1000).map(|ms| ms * 1_000_000).collect();
        let of = Percentiles::of(&nanos);
        assert_eq!((of.p50, of.p99, of.p99_9, of.max), (500.0, 990.0, 999.0, 1000.0));
        let one = Percentiles::of(&[2_000_000]);
        assert_eq!((one.p50, one.max), (2.0, 2.0));
    }
}
