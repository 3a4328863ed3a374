//! `strait bench`: what a link carries and what holds it back (`link`), and what the engine does on this machine alone
//! (`loopback`).
//!
//! Both run the real engine by the front door and read its figures. `copy` watches it, `hints` says what the figures mean,
//! without a network or a clock; `topic` and `fill` are the only ones that change a cluster, and only a topic of their own.

mod copy;
mod cpu;
mod fill;
mod hints;
mod link;
mod loopback;
mod records;
mod report;
pub(super) mod topic;

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{Common, Exit, Failure, Screen};
use crate::config::values::parse_size;
use crate::wire::batch::Codec;

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum BenchVerb {
    /// Measure a link of the configuration, on a topic that is made on both sides and taken away again
    Link(link::LinkArgs),
    /// Measure this machine: clusters in this process, TLS to a target that keeps nothing; no Kafka
    Loopback(loopback::LoopbackArgs),
}

/// Copying time, and what is copied.
#[derive(Clone, Copy, Debug, Args, serde::Serialize)]
pub struct Shape {
    /// Copy for so many seconds at most
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Partitions of the topic
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub partitions: i32,
    /// Bytes of a record's value
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=900_000))]
    pub record_bytes: u32,
    /// Bytes of a batch before it is compressed: at least one record
    #[arg(long, default_value = "256KiB", value_parser = parse_batch_bytes)]
    pub batch_bytes: u32,
    /// How the batches are compressed
    #[arg(long, value_enum, default_value_t)]
    pub codec: CodecName,
}

/// A codec by the name that `compression.type` has for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CodecName {
    /// As they are.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Google's.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// RFC 8878.
    Zstd,
}

impl From<CodecName> for Codec {
    fn from(name: CodecName) -> Self {
        match name {
            CodecName::None => Self::None,
            CodecName::Gzip => Self::Gzip,
            CodecName::Snappy => Self::Snappy,
            CodecName::Lz4 => Self::Lz4,
            CodecName::Zstd => Self::Zstd,
        }
    }
}

/// What every stock broker takes as one batch (`message.max.bytes` is 1,048,588 by default).
const BATCH_BYTES_MAX: u64 = 1_000_000;

fn parse_batch_bytes(text: &str) -> Result<u32, String> {
    let bytes = parse_size(text)?;
    if !(1..=BATCH_BYTES_MAX).contains(&bytes) {
        return Err(format!("a batch has 1 to {BATCH_BYTES_MAX} bytes"));
    }
    u32::try_from(bytes).map_err(|error| error.to_string())
}

impl Shape {
    fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

pub(super) fn main(
    verb: &BenchVerb,
    common: &Common,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    match verb {
        BenchVerb::Link(args) => link::main(args, common, screen),
        BenchVerb::Loopback(args) => loopback::main(args, screen),
    }
}
