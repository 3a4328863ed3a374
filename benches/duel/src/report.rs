//! One cell of copying: medians, spreads and ratios as a table, and the raw runs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::archive::spread;
use crate::contestants::MIRROR_MAKER_TASKS;
use crate::measure::Measured;
use crate::shape::{Filled, Shape};

/// What the tables have in common.
pub fn preface() -> String {
    format!(
        "Median (least-most) of the runs, in alternation. MB are 10^6 bytes of records' values; the CPU is the replicator's own \
         process, its start included, but for the second half of the records, which is when a JVM is warm. The last columns are \
         Strait's whole run over the other's whole run, and over the other's second half. Strait as shipped. MirrorMaker 2 4.3.1 \
         with a heap of 3 GB, idempotent, five in flight, batches of 256 KiB or the cell's, the cell's codec, and `{MIRROR_MAKER_TASKS}`. \
         franz-go: `franz/main.go`."
    )
}

/// All runs of one cell, by contestant in the order of the table.
#[derive(Debug)]
pub struct Cell {
    /// What was copied.
    pub shape: Shape,
    /// The topic.
    pub filled: Filled,
    /// Name and runs, or what went wrong.
    pub runs: Vec<(&'static str, Vec<Result<Measured, String>>)>,
}

fn figures(runs: &[Result<Measured, String>], figure: fn(&Measured) -> f64) -> Vec<f64> {
    runs.iter().flatten().map(figure).collect()
}

fn median(runs: &[Result<Measured, String>], figure: fn(&Measured) -> f64) -> Option<f64> {
    spread(figures(runs, figure)).map(|(median, ..)| median)
}

fn shown(runs: &[Result<Measured, String>], figure: fn(&Measured) -> f64) -> String {
    match spread(figures(runs, figure)) {
        Some((median, least, most)) => format!("{median:.0} ({least:.0}-{most:.0})"),
        None => "failed".to_owned(),
    }
}

impl Cell {
    /// The cell as a Markdown table; ratios are Strait's median over the other's.
    pub fn table(&self) -> String {
        let ratio = self.filled.value_bytes as f64 / self.filled.stored_bytes.max(1) as f64;
        let mut text = format!(
            "### {}\n\n{} records, {:.0} MB of values; compression ratio {ratio:.2} (values over stored bytes).\n\n\
             | | MB/s | second half | MB/CPU-s | second half | peak RSS, MB | first record, s | \
             MB/s, Strait's over it | over its second half | MB/CPU-s, Strait's over it | over its second half |\n\
             |---|---|---|---|---|---|---|---|---|---|---|\n",
            self.shape,
            self.filled.records,
            self.filled.value_bytes as f64 / 1e6,
        );
        let strait = self.runs.iter().find(|(name, _)| *name == "strait").map(|(_, runs)| runs);
        for (name, runs) in &self.runs {
            let times = |ours: fn(&Measured) -> f64, theirs: fn(&Measured) -> f64| {
                let of = strait.and_then(|runs| median(runs, ours)).zip(median(runs, theirs));
                of.map_or_else(String::new, |(ours, theirs)| format!("{:.2} x", ours / theirs))
            };
            let first =
                median(runs, |run| run.first_s).map_or(String::new(), |s| format!("{s:.2}"));
            writeln!(
                text,
                "| {name} | {} | {} | {} | {} | {} | {first} | {} | {} | {} | {} |",
                shown(runs, Measured::wall),
                shown(runs, Measured::half_wall),
                shown(runs, Measured::per_cpu),
                shown(runs, Measured::half_per_cpu),
                shown(runs, |run| run.rss_mb),
                times(Measured::wall, Measured::wall),
                times(Measured::wall, Measured::half_wall),
                times(Measured::per_cpu, Measured::per_cpu),
                times(Measured::per_cpu, Measured::half_per_cpu),
            )
            .expect("a string takes all");
            for error in runs.iter().filter_map(|run| run.as_ref().err()) {
                eprintln!("{name} failed: {error}");
            }
        }
        text
    }

    /// The raw runs.
    pub fn json(&self) -> Value {
        let runs: Vec<Value> = self
            .runs
            .iter()
            .map(|(name, runs)| {
                let runs: Vec<Value> = runs
                    .iter()
                    .map(|run| match run {
                        Ok(run) => json!(run),
                        Err(error) => json!({ "failed": error.lines().next() }),
                    })
                    .collect();
                json!({ "contestant": name, "runs": runs })
            })
            .collect();
        json!({
            "shape": self.shape.to_string(), "records": self.filled.records,
            "value_bytes": self.filled.value_bytes, "stored_bytes": self.filled.stored_bytes,
            "contestants": runs,
        })
    }
}
