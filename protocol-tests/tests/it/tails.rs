//! What is at the tail beside what catches up.

use std::time::Duration;

use bytes::Bytes;
use protocol_tests::latency::Latencies;
use protocol_tests::raw::Batch;
use protocol_tests::strait::Strait;
use protocol_tests::wait::wait_until;
use strait::embedded::{ApiKey, Fault, Order};
use tokio::time::Instant;

use crate::stage::Stage;

const MIB: f64 = 1024.0 * 1024.0;
const MS: Duration = Duration::from_millis(1);
/// A batch of a backlog.
const BATCH_BYTES: usize = 250_000;
/// The partitions that it has.
const WIDE: i32 = 32;

/// One lane, brokers that take a while for each request of a connection, and so many wide partitions beside `topic-tail`.
fn stage(name: &str, wide: i32, fetch: Duration, produce: Duration) -> Stage {
    let mut stage = Stage::new(name);
    stage.config = stage.config.top("engine: { lanes: 1 }");
    stage.source.create_topic("topic-tail", 1, -1, &[]).unwrap();
    stage.source.create_topic("topic-wide", wide, -1, &[]).unwrap();
    stage.source.fault(Order::next(ApiKey::Fetch, Fault::Delay(fetch)).times(u32::MAX));
    stage.target.fault(Order::next(ApiKey::Produce, Fault::Delay(produce)).times(u32::MAX));
    stage
}

/// Puts `batches` batches into each wide partition.
fn pile_up(stage: &Stage, partitions: i32, batches: usize) {
    let bytes = Bytes::from(Batch::holding(vec![7; BATCH_BYTES]).bytes());
    for partition in 0..partitions {
        for _ in 0..batches {
            stage.source.append("topic-wide", partition, &bytes).unwrap();
        }
    }
}

fn acked(strait: &Strait) -> f64 {
    strait.metric("strait_acked_bytes_total", &["topic=\"topic-wide\""])
}

/// What records of a tail take beside a backlog, and what a batch of each partition of the backlog takes meanwhile: where all
/// stand in one line, that much at least is ahead of each record.
fn beside_a_backlog() -> (Duration, Duration) {
    let stage = stage("tails", WIDE, 20 * MS, 40 * MS);
    let strait = stage.start();
    let clusters = (&stage.source, &stage.target);
    Latencies::measure(clusters, "topic-tail", 1, MS);
    let alone = Latencies::measure(clusters, "topic-tail", 15, 100 * MS);
    pile_up(&stage, WIDE, 32);
    wait_until("the backlog to run", 30, || acked(&strait) > 40.0 * MIB);
    let (before, began) = (acked(&strait), Instant::now());
    let beside = Latencies::measure(clusters, "topic-tail", 30, 100 * MS);
    let (copied, took) = (acked(&strait), began.elapsed());
    let line_bytes = f64::from(WIDE) * BATCH_BYTES as f64;
    let line = took.mul_f64(line_bytes / (copied - before));
    println!(
        "alone {alone}; beside {:.0} MiB of a backlog {beside}, a line of {line:?}",
        copied / MIB
    );
    assert!(copied < 32.0 * line_bytes, "the backlog ran out");
    strait.assert_clean_log();
    (beside.percentile(50), line)
}

#[test]
fn a_record_at_the_tail_does_not_wait_for_what_catches_up() {
    // A machine that has other work delays both. In line it is more than all of it, by turns a seventh.
    let is_soon = |(beside, line): (Duration, Duration)| 2 * beside < line;
    assert!((0..3).any(|_| is_soon(beside_a_backlog())), "late in three runs of three");
}
