//! Where a mirror begins when its position, or the target's memory of it, is gone.

use bytes::Bytes;
use protocol_tests::raw::Batch;
use strait::embedded::{ApiKey, Fault, Order};
use strait::wire::ErrorCode;

use crate::stage::Stage;

/// A copy of fifty records, stopped.
fn copied(name: &str) -> (Stage, protocol_tests::strait::Strait) {
    let stage = Stage::new(name);
    stage.append_many(0..50);
    let mut strait = stage.start();
    stage.wait_committed(&strait, 30);
    assert_eq!(strait.terminate().0, 0);
    (stage, strait)
}

/// A week of standstill: the group forgot the position, the leader forgot the producer.
fn stand_still(stage: &Stage) {
    stage.source.expire_offsets(&stage.config.group());
    stage.target.drop_producer_state("topic", 0).unwrap();
}

#[test]
fn after_a_standstill_that_both_sides_forgot_it_does_not_copy_twice() {
    let (stage, mut strait) = copied("standstill");
    stand_still(&stage);
    // Our batches are not the newest any more.
    for _ in 0..30 {
        stage.target.append("topic", 0, &Bytes::from(Batch::small(1).bytes())).unwrap();
    }
    stage.append_many(50..60);
    strait.restart();
    stage.wait_status(&strait, &["ST-065", "the target holds batches of this mirror"]);
    assert_eq!(stage.arrived().len(), 80);
    assert_eq!(stage.committed(), None);
    strait.assert_clean_log();
}

#[test]
fn after_a_standstill_an_emptied_target_is_not_taken_for_a_new_one() {
    let (stage, mut strait) = copied("emptied");
    stand_still(&stage);
    stage.target.delete_records("topic", 0, 50).unwrap();
    strait.restart();
    stage.wait_status(&strait, &["ST-065", "all deleted"]);
    assert_eq!(stage.arrived(), []);
    strait.assert_clean_log();
}

#[test]
fn records_of_others_on_the_target_do_not_hinder_a_first_copy() {
    let stage = Stage::new("first-copy");
    stage.target.create_topic("topic", 1, -1, &[]).unwrap();
    for _ in 0..30 {
        stage.target.append("topic", 0, &Bytes::from(Batch::small(1).bytes())).unwrap();
    }
    stage.append_many(0..20);
    let strait = stage.start();
    stage.wait_committed(&strait, 30);
    assert_eq!(stage.arrived().len(), 50);
    strait.assert_clean_log();
}

#[test]
fn what_others_wrote_to_the_target_is_not_read_back_while_its_leader_remembers_us() {
    let (stage, mut strait) = copied("others");
    for _ in 0..30 {
        stage.target.append("topic", 0, &Bytes::from(Batch::small(1).bytes())).unwrap();
    }
    let refuse = Fault::Refuse(ErrorCode::UNKNOWN_SERVER_ERROR);
    let fault = stage.target.fault(Order::next(ApiKey::Fetch, refuse).times(u32::MAX));
    stage.append_many(50..60);
    strait.restart();
    stage.wait_committed(&strait, 30);
    assert_eq!(stage.target.fault_struck(fault), 0);
    assert_eq!(stage.arrived().len(), 90);
    strait.assert_clean_log();
}
