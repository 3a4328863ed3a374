//! What the engine copies and allocates while it passes batches on: counted, on its own thread, from the Fetch answer's
//! bytes to the Produce request's. The kernel and TLS copy; nothing else does.
//!
//! A copy of a payload needs somewhere to go: frames come from a pool that does not grow here, so that it would be a new
//! allocation, and is seen.

use std::time::Duration;

use allocation_counter::AllocationInfo;
use bytes::Bytes;
use protocol_tests::raw::Batch;
use strait::env::Env;
use strait::strait::Strait;
use tokio::runtime::{Builder, LocalOptions};
use tokio::time::timeout;

use crate::stage::Stage;

const BATCH_BYTES: usize = 256 << 10;

fn fill(stage: &Stage, batches: usize) {
    let bytes = Bytes::from(Batch::holding(vec![b'x'; BATCH_BYTES]).bytes());
    for _ in 0..batches {
        stage.source.append("topic", 0, &bytes).unwrap();
    }
}

/// What a life that copies so many batches allocates, on one thread with everything of it but the two clusters.
fn allocated(tls: bool, batches: usize) -> AllocationInfo {
    let mut stage = Stage::new(&format!("copies-{tls}-{batches}"));
    if !tls {
        stage.without_tls();
    }
    fill(&stage, batches);
    stage.config = stage.config.top("engine: { lanes: 1 }");
    let config = stage.resolved();
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let runtime = runtime.unwrap();
    let counted = allocation_counter::measure(|| {
        runtime.block_on(async {
            let handle = Strait::builder(config).env(Env::real()).start_local();
            let done = timeout(Duration::from_secs(60), handle.caught_up()).await;
            done.expect("in time").unwrap();
        });
    });
    assert_eq!(stage.target.ends("topic", 0).unwrap().last_stable, batches as i64);
    counted
}

/// Allocations and bytes of each batch, a start and an end left out: the difference of a short and a long life.
fn for_each_batch(tls: bool) -> (f64, f64) {
    const FEW: usize = 100;
    const MANY: usize = 500;
    let (few, many) = (allocated(tls, FEW), allocated(tls, MANY));
    let each = |few: u64, many: u64| (many as f64 - few as f64) / (MANY - FEW) as f64;
    (each(few.count_total, many.count_total), each(few.bytes_total, many.bytes_total))
}

#[test]
fn passing_a_batch_on_copies_its_head_alone() {
    let (count, bytes) = for_each_batch(false);
    println!(
        "without TLS: {count:.1} allocations and {bytes:.0} bytes for a batch of {BATCH_BYTES}"
    );
    // A copy of a tenth of them would be seen; on a busy machine one life has some frames more than the other.
    assert!(bytes < 0.05 * BATCH_BYTES as f64, "{bytes} bytes for a batch of {BATCH_BYTES}");
    assert!(count < 30.0, "{count} allocations for a batch");
}

#[test]
fn towards_tls_a_payload_is_copied_by_its_encryption_alone() {
    let (count, bytes) = for_each_batch(true);
    println!("with TLS: {count:.1} allocations and {bytes:.0} bytes for a batch of {BATCH_BYTES}");
    assert!(bytes < 1.05 * BATCH_BYTES as f64, "{bytes} bytes for a batch of {BATCH_BYTES}");
    // One for each record of 16 KiB.
    let records = BATCH_BYTES as f64 / f64::from(16 << 10);
    assert!(count < records + 35.0, "{count} allocations for a batch");
}
