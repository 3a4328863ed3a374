//! Records so old that the target has forgotten their numbers, and requests for them that come late: what is there twice is
//! counted, told with its place, and passed by.

use std::time::Duration;

use protocol_tests::raw::batch::now_ms;
use protocol_tests::raw::{Batch, RawClient, parse};
use protocol_tests::strait::Strait;
use protocol_tests::tally::Stretch;
use protocol_tests::wait::{wait_for, wait_until};
use strait::embedded::{ApiKey, Fault, Options, Order};
use strait::wire::ErrorCode;

use crate::stage::Stage;

const WEEK_MS: i64 = 7 * 24 * 3600 * 1000;

fn stage(name: &str) -> Stage {
    // State goes when the case says so.
    let check = Duration::from_secs(3600);
    let target = Options { producer_expiry_check: check, ..Options::default() };
    let mut stage = Stage::with(name, Options::default(), target);
    // The cases name batches by their offsets.
    stage.config = stage.config.link("merge: \"off\"");
    stage
}

/// Batches of three records that are a week old.
fn append_old(stage: &Stage, numbers: std::ops::Range<u32>) {
    for first in numbers.step_by(3) {
        let mut batch = Batch::small(3);
        batch.base_timestamp = now_ms() - WEEK_MS;
        for (record, number) in batch.records.iter_mut().zip(first..) {
            record.value = Some(number.to_string().into_bytes());
        }
        stage.append(&batch);
    }
}

/// The target appends the batch at this offset once more, as a request of a former life would have it.
fn comes_late(stage: &Stage, offset: i64) -> i64 {
    stage.target.expire_producers();
    let batches = stage.target.dump("topic", 0).unwrap().batches;
    let at = |bytes: &&bytes::Bytes| parse(bytes).0[0].base_offset == offset;
    let mut bytes = batches.iter().find(at).unwrap().to_vec();
    bytes[..8].fill(0);
    let mut client = RawClient::connect(&stage.target.address(1).to_string());
    let produced = client.produce("topic", 0, bytes);
    assert_eq!(produced.error, 0, "{produced:?}");
    produced.base_offset
}

fn wait_told(strait: &Strait, told: &[(i64, i64)]) {
    let stretch = |(from, to): &(i64, i64)| Stretch { partition: 0, from: *from, to: *to };
    let expected: Vec<_> = told.iter().map(stretch).collect();
    wait_for("what is there twice", 30, || {
        let told = strait.told_doubles();
        if told == expected { Ok(()) } else { Err(format!("{told:?}, not {expected:?}")) }
    });
}

#[test]
fn a_late_batch_of_old_records_is_told_by_the_next_ack() {
    let stage = stage("late");
    append_old(&stage, 0..12);
    let strait = stage.start();
    stage.wait_committed(&strait, 30);
    let first = comes_late(&stage, 9);
    append_old(&stage, 12..15);
    stage.wait_committed(&strait, 30);
    wait_told(&strait, &[(first, first + 3)]);
    // Of somebody else: no double, and no hindrance.
    let mut foreign = Batch::small(2);
    foreign.records[0].value = Some(b"100".to_vec());
    foreign.records[1].value = Some(b"101".to_vec());
    RawClient::connect(&stage.target.address(1).to_string()).produce("topic", 0, foreign.bytes());
    append_old(&stage, 15..18);
    stage.wait_committed(&strait, 30);
    let second = comes_late(&stage, 9);
    append_old(&stage, 18..21);
    stage.wait_committed(&strait, 30);
    wait_told(&strait, &[(first, first + 3), (second, second + 3)]);
    assert_eq!(strait.metric("strait_doubled_records_total", &["topic=\"topic\""]), 6.0);
    assert_eq!(strait.status()["links"][0]["doubled_records"], 6);
    let mut numbers = stage.arrived_numbers();
    assert_eq!(numbers.len(), 21 + 2 + 6);
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (0..21).chain([100, 101]).collect::<Vec<_>>());
    strait.assert_clean_log();
}

#[test]
fn a_late_batch_of_old_records_is_told_by_the_next_life() {
    let stage = stage("later");
    append_old(&stage, 0..12);
    let mut strait = stage.start();
    stage.wait_committed(&strait, 30);
    assert_eq!(strait.terminate().0, 0);
    // The last batch, so that the leader remembers what the commit says.
    let first = comes_late(&stage, 9);
    strait.restart();
    wait_told(&strait, &[(first, first + 3)]);
    assert_eq!(strait.metric("strait_doubled_records_total", &[]), 3.0);
    append_old(&stage, 12..15);
    stage.wait_committed(&strait, 30);
    // Nothing is committed, so that the next life reads both of what it does not know: acknowledged, and late.
    let refuse = Fault::Refuse(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
    stage.source.fault(Order::next(ApiKey::OffsetCommit, refuse).times(u32::MAX));
    append_old(&stage, 15..21);
    wait_until("the copies", 30, || stage.arrived_numbers().len() == 24);
    strait.kill();
    stage.source.clear_faults();
    // One that is not the last: the numbering goes on behind it nevertheless.
    let second = comes_late(&stage, 18);
    let third = comes_late(&stage, 21);
    strait.restart();
    append_old(&stage, 21..24);
    // After a kill old records wait for what may come late.
    stage.wait_committed(&strait, 90);
    wait_told(&strait, &[(first, first + 3), (second, second + 3), (third, third + 3)]);
    assert_eq!(strait.metric("strait_doubled_records_total", &[]), 6.0);
    let mut numbers = stage.arrived_numbers();
    assert_eq!(numbers.len(), 24 + 9);
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (0..24).collect::<Vec<_>>());
    strait.assert_clean_log();
}
