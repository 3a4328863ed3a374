//! Raw Kafka: batches crafted byte by byte, good and bad, and a blocking client that sends them.
//!
//! It shares no code with the batch handling it tests.

pub mod batch;
pub mod client;

pub use batch::{Batch, Codec, Parsed, RawRecord, now_ms, parse};
pub use client::{Produced, RawClient};
