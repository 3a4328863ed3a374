//! Medians, spreads and ratios, printed as a table and archived with the raw runs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::contestants::MIRROR_MAKER_TASKS;
use crate::measure::Measured;
use crate::shape::{Filled, Shape};

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

/// Median, least and largest.
fn spread(mut values: Vec<f64>) -> Option<(f64, f64, f64)> {
    values.sort_by(f64::total_cmp);
    let median = *values.get(values.len() / 2)?;
    Some((median, *values.first()?, *values.last()?))
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
            "### {}\n\n{} records, {:.0} MB of values, {ratio:.2} x the stored bytes.\n\n\
             | | MB/s | MB/s from the first record | MB/CPU-s | MB/CPU-s from the first record | peak RSS, MB | \
             first record, s | Strait's MB/s | Strait's MB/CPU-s |\n|---|---|---|---|---|---|---|---|---|\n",
            self.shape,
            self.filled.records,
            self.filled.value_bytes as f64 / 1e6,
        );
        let strait = self.runs.iter().find(|(name, _)| *name == "strait").map(|(_, runs)| runs);
        for (name, runs) in &self.runs {
            let times = |figure: fn(&Measured) -> f64| {
                let of = strait.and_then(|runs| median(runs, figure)).zip(median(runs, figure));
                of.map_or_else(String::new, |(ours, theirs)| format!("{:.2} x", ours / theirs))
            };
            let first =
                median(runs, |run| run.first_s).map_or(String::new(), |s| format!("{s:.2}"));
            writeln!(
                text,
                "| {name} | {} | {} | {} | {} | {} | {first} | {} | {} |",
                shown(runs, Measured::wall),
                shown(runs, Measured::warm_wall),
                shown(runs, Measured::per_cpu),
                shown(runs, Measured::warm_per_cpu),
                shown(runs, |run| run.rss_mb),
                times(Measured::wall),
                times(Measured::per_cpu),
            )
            .expect("a string takes all");
            for error in runs.iter().filter_map(|run| run.as_ref().err()) {
                eprintln!("{name} failed: {error}");
            }
        }
        text
    }

    fn json(&self) -> Value {
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

/// What this run's files are called, by its beginning.
pub fn name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format!("{}-duel", stamp(now))
}

/// Writes the raw runs and the tables under `folder`.
pub fn archive(folder: &Path, name: &str, cells: &[Cell]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let machine = machine();
    let raw =
        json!({ "machine": machine, "cells": cells.iter().map(Cell::json).collect::<Vec<_>>() });
    fs::write(folder.join(format!("{name}.json")), serde_json::to_string_pretty(&raw)?)?;
    let mut text = format!(
        "# Duel\n\nMedian (least-most) of the runs, in alternation on one machine: {machine}. MB are 10^6 bytes of records' values; \
         the CPU is the replicator's own process, its start included. Strait as shipped. MirrorMaker 2 4.3.1 with a heap of 3 GB, \
         idempotent, five in flight, batches of 256 KiB or the cell's, the cell's codec, and `{}`. franz-go: `franz/main.go`.\n\n",
        MIRROR_MAKER_TASKS,
    );
    for cell in cells {
        text.push_str(&cell.table());
        text.push('\n');
    }
    fs::write(folder.join(format!("{name}.md")), text)
}

/// Cores, processor and kernel.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores of {}, Linux {}", model.map_or("?", |(_, model)| model), kernel.trim())
}

/// `2026-01-31T0959`, in UTC. The civil date by the usual count of days from the first of March of year 0.
fn stamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year}-{month:02}-{date:02}T{:02}{:02}", rest / 3600, rest % 3600 / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_the_civil_date() {
        assert_eq!(stamp(0), "1970-01-01T0000");
        assert_eq!(stamp(951_782_400), "2000-02-29T0000");
        assert_eq!(stamp(1_767_225_599), "2025-12-31T2359");
    }

    #[test]
    fn the_spread_is_median_least_most() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(spread(Vec::new()), None);
    }
}
