//! Where a run is kept: its raw figures as JSON and its tables as Markdown, beside what machine it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// The two files of one run; written anew after each cell, so that a run that is cut short keeps what it has.
#[derive(Debug)]
pub struct Archive {
    folder: PathBuf,
    name: String,
    title: &'static str,
    preface: String,
    cells: Vec<Value>,
    tables: String,
}

impl Archive {
    /// Named by this moment and `kind`, under `folder`; `preface` says what every table of it has in common.
    pub fn new(folder: &Path, kind: &str, title: &'static str, preface: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self {
            folder: folder.to_path_buf(),
            name: format!("{}-{kind}", stamp(now)),
            title,
            preface: preface.to_owned(),
            cells: Vec::new(),
            tables: String::new(),
        }
    }

    /// Prints a cell's table and keeps it with its raw figures.
    pub fn keep(&mut self, table: &str, raw: Value) -> Result<(), String> {
        println!("{table}");
        self.tables.push_str(table);
        self.tables.push('\n');
        self.cells.push(raw);
        self.write().map_err(|error| format!("{}: {error}", self.folder.display()))
    }

    fn write(&self) -> std::io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let machine = machine();
        let raw = json!({ "machine": machine, "cells": self.cells });
        let file = |extension: &str| self.folder.join(format!("{}.{extension}", self.name));
        fs::write(file("json"), serde_json::to_string_pretty(&raw)?)?;
        let (title, preface, tables) = (self.title, &self.preface, self.tables.trim_end());
        let text = format!("# {title}\n\nOn one machine: {machine}. {preface}\n\n{tables}\n");
        fs::write(file("md"), text)
    }
}

/// Median, least and largest.
pub fn spread(mut values: Vec<f64>) -> Option<(f64, f64, f64)> {
    values.sort_by(f64::total_cmp);
    let median = *values.get(values.len() / 2)?;
    Some((median, *values.first()?, *values.last()?))
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
