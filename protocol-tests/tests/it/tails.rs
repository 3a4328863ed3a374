//! What is at the tail beside what catches up.

use std::time::Duration;

use bytes::Bytes;
use protocol_tests::latency::Latencies;
use protocol_tests::raw::Batch;
use protocol_tests::strait::Strait;
use protocol_tests::wait::wait_until;
use strait::embedded::{ApiKey, Fault, Order};

use crate::stage::Stage;

const MIB: f64 = 1024.0 * 1024.0;
const MS: Duration = Duration::from_millis(1);
/// A batch of a backlog.
const BATCH_BYTES: usize = 250_000;

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

/// How late the records of a tail are beside a backlog.
fn beside_a_backlog() -> Latencies {
    let stage = stage("tails", 32, 20 * MS, 40 * MS);
    let strait = stage.start();
    let clusters = (&stage.source, &stage.target);
    Latencies::measure(clusters, "topic-tail", 1, MS);
    let alone = Latencies::measure(clusters, "topic-tail", 15, 100 * MS);
    pile_up(&stage, 32, 32);
    wait_until("the backlog to run", 30, || acked(&strait) > 40.0 * MIB);
    let beside = Latencies::measure(clusters, "topic-tail", 30, 100 * MS);
    let copied = acked(&strait);
    println!("alone {alone}; beside {:.0} MiB of a backlog {beside}", copied / MIB);
    assert!(copied < 32.0 * 32.0 * BATCH_BYTES as f64, "the backlog ran out");
    strait.assert_clean_log();
    beside
}

#[test]
fn a_record_at_the_tail_does_not_wait_for_what_catches_up() {
    // A round of the backlog's answers takes 640 ms, and what is on its way and ahead of a target connection 160 ms.
    let is_soon = |beside: Latencies| beside.percentile(50) < 200 * MS;
    // Waiting in line is late each time; a machine that had other work is not.
    assert!((0..3).any(|_| is_soon(beside_a_backlog())), "late in three runs of three");
}
