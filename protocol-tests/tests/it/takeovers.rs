//! What a process leaves behind for the one after it.

use bytes::Bytes;
use protocol_tests::raw::{Batch, now_ms, parse};
use protocol_tests::wait::wait_until;
use strait::embedded::{ApiKey, Fault, Order};
use strait::wire::ErrorCode;

use crate::stage::Stage;

fn old(value: u32, now_ms: i64) -> Batch {
    let mut batch = Batch::small(1);
    batch.records[0].value = Some(value.to_string().into_bytes());
    batch.base_timestamp = now_ms - 25 * 3600 * 1000;
    batch
}

/// Records older than the target's memory of producers: nothing at the target tells a request of the process that died
/// from ours.
#[test]
fn old_records_wait_for_the_requests_of_a_process_that_died_and_not_of_one_that_left() {
    let mut stage = Stage::new("late");
    // What comes late is the batch of record 20 alone.
    stage.config = stage.config.link("merge: \"off\"");
    let now = now_ms();
    let write = |values: std::ops::Range<u32>| {
        values.for_each(|value| {
            stage.append(&old(value, now));
        });
    };
    write(0..10);
    let mut strait = stage.start();
    stage.wait_committed(&strait, 30);
    // Left in order, it goes on at once.
    assert_eq!(strait.terminate().0, 0);
    write(10..20);
    strait.restart();
    stage.wait_committed(&strait, 10);
    assert!(!strait.log().contains("ST-080"));
    // Its last request is on its way when it dies.
    let refuse = Fault::Refuse(ErrorCode::NOT_ENOUGH_REPLICAS);
    stage.target.fault(Order::next(ApiKey::Produce, refuse).times(u32::MAX));
    write(20..30);
    wait_until("a request", 10, || strait.status().to_string().contains("NOT_ENOUGH_REPLICAS"));
    strait.kill();
    stage.target.clear_faults();
    stage.target.drop_producer_state("topic", 0).unwrap();
    strait.restart();
    stage.wait_status(&strait, &["ST-080"]);
    let stored = stage.target.dump("topic", 0).unwrap().batches;
    let last = parse(stored.last().unwrap()).0.pop().unwrap();
    let late = old(20, now).with(|batch| {
        batch.base_offset = last.base_offset + 1;
        (batch.producer_id, batch.producer_epoch) = (last.producer_id, last.producer_epoch);
        batch.base_sequence = last.base_sequence + 1;
    });
    stage.target.append("topic", 0, &Bytes::from(late.bytes())).unwrap();
    stage.target.drop_producer_state("topic", 0).unwrap();
    stage.wait_committed(&strait, 60);
    assert_eq!(stage.arrived_numbers(), (0..30).collect::<Vec<_>>());
    strait.assert_clean_log();
}
