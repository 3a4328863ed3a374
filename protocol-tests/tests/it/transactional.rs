//! `delivery: transactional`: what a reader of committed records sees while requests are refused, answers lost, coordinators
//! slow, and two instances at work. Death at named moments is in `crashes.rs`, chance in `simulation.rs`.

use std::time::Duration;

use protocol_tests::raw::{Batch, parse};
use protocol_tests::strait::{Config, Strait};
use protocol_tests::wait::{wait_for, wait_until};
use strait::embedded::{ApiKey, Fault, Generation, Options, Order};
use strait::wire::ErrorCode;

use crate::stage::Stage;

/// With both flows of transactions: V2, and the classic one.
fn stages(name: &str) -> [Stage; 2] {
    stages_of(name, 1)
}

fn stages_of(name: &str, brokers: usize) -> [Stage; 2] {
    [Generation::Kafka43, Generation::Kafka39].map(|generation| {
        let target = Options { generation, brokers, ..Options::default() };
        let mut stage = Stage::with(name, Options::default(), target);
        stage.config = stage.config.clone().link("delivery: transactional");
        stage.config = stage.config.clone().link("transaction: { interval: 30ms }");
        // Lives follow each other faster than the sessions of the dead end.
        stage.config = stage.config.clone().link("membership: { protocol: \"off\" }");
        stage
    })
}

#[track_caller]
fn once(stage: &Stage, strait: &Strait, upto: u32) {
    stage.wait_committed(strait, 60);
    assert_eq!(stage.arrived_numbers(), (0..upto).collect::<Vec<_>>());
}

/// The position in the target's own group.
fn at_target(stage: &Stage) -> Option<i64> {
    let offsets = stage.target.committed(&stage.config.group());
    offsets.get(&("topic".to_owned(), 0)).map(|committed| committed.offset)
}

/// Batches of records on the target.
fn copies(stage: &Stage) -> usize {
    let Ok(dump) = stage.target.dump("topic", 0) else { return 0 };
    let parsed = dump.batches.iter().flat_map(|bytes| parse(bytes).0);
    parsed.filter(|batch| batch.attributes & 32 == 0).count()
}

#[test]
fn batches_and_position_come_together_and_nothing_stays_open() {
    for stage in stages("txn-together") {
        stage.append_many(0..40);
        let mut strait = stage.start();
        once(&stage, &strait, 40);
        assert_eq!(at_target(&stage), Some(40));
        let dump = stage.target.dump("topic", 0).unwrap();
        assert_eq!(dump.last_stable, dump.log_end, "nothing is open");
        let transactional = |bytes: &bytes::Bytes| {
            parse(bytes)
                .0
                .iter()
                .all(|batch| batch.attributes & 16 != 0 && batch.producer_id < 1 << 62)
        };
        assert!(dump.batches.iter().all(transactional), "by a coordinator's producer");
        // What was not committed when it was asked to end is.
        stage.append_many(40..45);
        wait_until("arrival", 30, || stage.arrived().len() == 45);
        assert_eq!(strait.terminate().0, 0);
        assert_eq!((stage.committed(), at_target(&stage)), (Some(45), Some(45)));
        strait.restart();
        stage.append_many(45..50);
        once(&stage, &strait, 50);
        strait.assert_clean_log();
    }
}

#[test]
fn each_refusal_in_a_transaction_is_aborted_and_copied_again() {
    let faults = [
        (ApiKey::Produce, Fault::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER)),
        (ApiKey::Produce, Fault::AnswerWith(ErrorCode::REQUEST_TIMED_OUT)),
        (ApiKey::Produce, Fault::CloseAfter),
        (ApiKey::Produce, Fault::Refuse(ErrorCode::INVALID_PRODUCER_EPOCH)),
        (ApiKey::Produce, Fault::Refuse(ErrorCode::CORRUPT_MESSAGE)),
        (ApiKey::TxnOffsetCommit, Fault::Refuse(ErrorCode::INVALID_TXN_STATE)),
        (ApiKey::TxnOffsetCommit, Fault::CloseAfter),
        (ApiKey::EndTxn, Fault::Refuse(ErrorCode::INVALID_TXN_STATE)),
        (ApiKey::EndTxn, Fault::CloseBefore),
        (ApiKey::EndTxn, Fault::CloseAfter),
    ];
    for mut stage in stages("txn-refused") {
        // Many requests, so that one behind others can be refused.
        stage.config = stage.config.link("merge: \"off\"");
        let strait = stage.start();
        let mut written = 0;
        for (api, fault) in faults {
            // Behind the first batch of a transaction, where there is one before.
            let after = if api == ApiKey::Produce { 3 } else { 0 };
            let ordered = stage.target.fault(Order::next(api, fault).after(after));
            stage.append_many(written..written + 20);
            written += 20;
            once(&stage, &strait, written);
            assert_eq!(stage.target.fault_struck(ordered), 1, "{api:?} {fault:?}");
        }
        strait.assert_clean_log();
    }
}

#[test]
fn a_coordinator_that_moves_or_is_busy_is_found_again() {
    for stage in stages_of("txn-coordinator", 2) {
        let group = stage.config.group();
        let id = format!("{group}.topic.0");
        let strait = stage.start();
        for round in 0..4 {
            stage.target.move_coordinator(&group, 1 + round % 2);
            stage.target.move_coordinator(&id, 2 - round % 2);
            for (api, code) in [
                (ApiKey::AddPartitionsToTxn, ErrorCode::CONCURRENT_TRANSACTIONS),
                (ApiKey::EndTxn, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
                (ApiKey::TxnOffsetCommit, ErrorCode::COORDINATOR_NOT_AVAILABLE),
                (ApiKey::Produce, ErrorCode::CONCURRENT_TRANSACTIONS),
            ] {
                stage.target.fault(Order::next(api, Fault::Refuse(code)).times(2));
            }
            let round = round.unsigned_abs();
            stage.append_many(round * 10..round * 10 + 10);
            once(&stage, &strait, round * 10 + 10);
        }
        strait.assert_clean_log();
    }
}

#[test]
fn a_transaction_that_the_coordinator_ended_is_copied_again() {
    for stage in stages("txn-ended") {
        let strait = stage.start();
        stage.append_many(0..5);
        once(&stage, &strait, 5);
        // Whoever asks for the id ends what is open, as the coordinator's clock does.
        let slow = Fault::DelayAnswer(std::time::Duration::from_millis(300));
        stage.target.fault(Order::next(ApiKey::Produce, slow).times(4));
        stage.append_many(5..25);
        wait_until("an open transaction", 30, || {
            let dump = stage.target.dump("topic", 0).unwrap();
            dump.last_stable < dump.log_end
        });
        stage.target.end_transactions();
        once(&stage, &strait, 25);
        assert!(!stage.target.dump("topic", 0).unwrap().aborted.is_empty(), "it was aborted");
        strait.assert_clean_log();
    }
}

#[test]
fn small_batches_that_wait_are_sent_as_one_in_transactions_too() {
    for stage in stages("txn-small") {
        stage.append_many(0..1000);
        let mut strait = stage.start();
        once(&stage, &strait, 1000);
        assert!(strait.metric("strait_merged_batches_total", &[]) >= 900.0);
        assert!(copies(&stage) <= 100, "{} batches", copies(&stage));
        strait.kill_and_restart();
        stage.append_many(1000..1100);
        once(&stage, &strait, 1100);
        strait.assert_clean_log();
    }
}

/// The first batch goes alone, and its answer takes longer than the interval.
#[test]
fn over_a_long_way_a_transaction_carries_more_than_its_first_batch() {
    for mut stage in stages("txn-long-way") {
        stage.config = stage.config.clone().link("merge: off");
        let way = Fault::DelayAnswer(Duration::from_millis(40));
        stage.target.fault(Order::next(ApiKey::Produce, way).times(u32::MAX));
        stage.append_many(0..40);
        let strait = stage.start();
        once(&stage, &strait, 40);
        let dump = stage.target.dump("topic", 0).unwrap();
        let is_marker = |bytes: &&bytes::Bytes| parse(bytes).0[0].attributes & 32 != 0;
        let transactions = dump.batches.iter().filter(is_marker).count();
        assert!(transactions <= 20, "{transactions} transactions");
        strait.assert_clean_log();
    }
}

#[test]
fn a_refused_batch_made_of_several_goes_as_its_parts_in_the_next_transaction() {
    for stage in stages("txn-refused-parts") {
        let mut strait = stage.start();
        let mut written = 0;
        for (code, parts) in [
            (ErrorCode::INVALID_RECORD, true),
            (ErrorCode::MESSAGE_TOO_LARGE, true),
            (ErrorCode::UNKNOWN_SERVER_ERROR, true),
            (ErrorCode::CORRUPT_MESSAGE, false),
        ] {
            assert_eq!(strait.terminate().0, 0);
            let before = copies(&stage);
            stage.append_many(written..written + 50);
            written += 50;
            let refused = stage.target.fault(Order::next(ApiKey::Produce, Fault::Refuse(code)));
            strait.restart();
            once(&stage, &strait, written);
            assert_eq!(stage.target.fault_struck(refused), 1);
            let copies = copies(&stage) - before;
            assert_eq!(copies == 50, parts, "{code:?}: {copies} batches");
        }
        strait.assert_clean_log();
    }
}

#[test]
fn poison_in_a_transaction_is_met_after_what_lies_before_it() {
    for stage in stages("txn-poison") {
        stage.target.create_topic("topic", 1, -1, &[("cleanup.policy", "compact")]).unwrap();
        let append = |value: u32, key: Option<&str>| {
            let mut batch = Batch::small(1);
            batch.records[0].key = key.map(|key| key.as_bytes().to_vec());
            batch.records[0].value = Some(value.to_string().into_bytes());
            stage.append(&batch);
        };
        (0..20).for_each(|value| append(value, (value != 7).then_some("k")));
        let parked = stage.start();
        stage.wait_status(&parked, &["parked", "ST-061", "source offsets 7 to 7"]);
        wait_until("what lies before it", 30, || stage.arrived().len() == 7);
        assert_eq!(at_target(&stage), Some(7));
        drop(parked);
        let mut skips = Strait::start(&stage.config.clone().link("on_poison: skip"));
        skips.expect_in_log("WARN");
        skips.expect_in_log("ERROR");
        stage.wait_committed(&skips, 60);
        let wanted: Vec<u32> = (0..20).filter(|value| *value != 7).collect();
        assert_eq!(stage.arrived_numbers(), wanted);
        skips.assert_clean_log();
    }
}

#[test]
fn a_mirror_that_parks_in_a_transaction_leaves_none_open() {
    for stage in stages("txn-parked") {
        let refuse = Fault::Refuse(ErrorCode::OFFSET_METADATA_TOO_LARGE);
        stage.target.fault(Order::next(ApiKey::TxnOffsetCommit, refuse));
        let mut strait = stage.start();
        strait.expect_in_log("ERROR");
        stage.append_many(0..20);
        stage.wait_status(&strait, &["parked", "ST-081"]);
        // Far sooner than the coordinator's clock ends it.
        wait_until("the end of the transaction", 15, || {
            let dump = stage.target.dump("topic", 0).unwrap();
            !dump.aborted.is_empty() && dump.last_stable == dump.log_end
        });
        assert_eq!((stage.arrived().len(), at_target(&stage)), (0, None));
        strait.kill();
        strait.restart();
        once(&stage, &strait, 20);
        strait.assert_clean_log();
    }
}

#[test]
fn an_older_instance_is_fenced_and_writes_nothing_more() {
    for stage in stages("txn-fenced") {
        let old = stage.start();
        stage.append_many(0..5);
        once(&stage, &old, 5);
        old.signal("STOP");
        let new = stage.start();
        stage.append_many(5..15);
        once(&stage, &new, 15);
        // Both copy everything now, and end each other's transactions: whatever is committed, is once.
        old.signal("CONT");
        stage.append_many(15..40);
        wait_for("everything", 90, || {
            let arrived = stage.arrived_numbers();
            assert_eq!(arrived, (0..u32::try_from(arrived.len()).unwrap()).collect::<Vec<_>>());
            if arrived.len() == 40 { Ok(()) } else { Err(format!("{arrived:?}")) }
        });
        drop(old);
        stage.append_many(40..45);
        once(&stage, &new, 45);
        new.assert_clean_log();
    }
}

#[test]
fn a_link_that_changes_its_delivery_keeps_its_place() {
    for stage in stages("txn-changes") {
        let lines = stage.config.link.iter();
        let plain: Vec<_> = lines.filter(|line| !line.contains("transaction")).cloned().collect();
        let mut written = 0;
        for turn in 0..5 {
            let mut config = stage.config.clone();
            if turn % 2 == 0 {
                config.link.clone_from(&plain);
            }
            let mut strait = Strait::start(&config);
            strait.expect_in_log("WARN");
            strait.expect_in_log("ERROR");
            for _ in 0..2 {
                stage.append_many(written..written + 15);
                written += 15;
                once(&stage, &strait, written);
            }
            // Copied, and not on record at the source.
            let refuse = Fault::Refuse(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
            stage.source.fault(Order::next(ApiKey::OffsetCommit, refuse).times(u32::MAX));
            stage.append_many(written..written + 10);
            written += 10;
            wait_until("arrival", 30, || stage.arrived().len() == written as usize);
            strait.kill();
            stage.source.clear_faults();
            strait.assert_clean_log();
        }
        let strait = stage.start();
        once(&stage, &strait, written);
        strait.assert_clean_log();
    }
}

/// What the dead process wrote is counted off under its settings, and a new numbering begins, before the link goes over. On the
/// way back nothing is counted off.
#[test]
fn settings_and_delivery_changed_behind_a_crash_lose_and_double_nothing() {
    let [stage, _] = stages("txn-settings");
    let mut plain = stage.config.clone();
    plain.link.retain(|line| !line.contains("transaction"));
    let start = |config: &Config| {
        let mut strait = Strait::start(config);
        strait.expect_in_log("WARN");
        strait.expect_in_log("ERROR");
        strait
    };
    let mut first = start(&plain);
    stage.append_many(0..20);
    once(&stage, &first, 20);
    let refuse = Fault::Refuse(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
    stage.source.fault(Order::next(ApiKey::OffsetCommit, refuse).times(u32::MAX));
    stage.append_many(20..35);
    wait_until("arrival", 30, || stage.arrived().len() == 35);
    first.kill();
    stage.source.clear_faults();
    stage.append_many(35..40);
    let mut changed = start(&stage.config.clone().link("isolation: read_uncommitted"));
    stage.wait_status(&changed, &["ST-080"]);
    once(&stage, &changed, 40);
    stage.append_many(40..50);
    once(&stage, &changed, 50);
    assert_eq!(at_target(&stage), Some(50), "by transactions");
    changed.kill();
    stage.append_many(50..60);
    let back = start(&plain);
    once(&stage, &back, 60);
    assert!(!back.log().contains("ST-080"), "a fence has ended what could come late");
    for strait in [&first, &changed, &back] {
        strait.assert_clean_log();
    }
}
