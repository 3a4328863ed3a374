//! The engine against answers, logs and moments that real brokers give too rarely to wait for. The embedded brokers are
//! held to the real ones by [`crate::parity`].

use bytes::Bytes;
use protocol_tests::raw::batch::{crc32, now_ms};
use protocol_tests::raw::{Batch, Codec, RawRecord};
use protocol_tests::wait::{holds_for, wait_until};
use std::time::Duration;
use strait::embedded::{ApiKey, Fault, Options, Order, Replica};
use strait::wire::ErrorCode;

use crate::stage::{Stage, seen};

/// Copies numbers under a fault of the target; each must arrive once, in order, and the fault must have struck.
fn copies_once_under(name: &str, order: Order) {
    let mut stage = Stage::new(name);
    // Each batch its own request, so that there are some to be struck.
    stage.config = stage.config.clone().link("merge: \"off\"");
    stage.append_many(0..50);
    let strait = stage.start();
    stage.wait_committed(&strait, 30);
    let fault = stage.target.fault(order);
    for round in 1..20 {
        stage.append_many(round * 50..round * 50 + 50);
    }
    stage.wait_committed(&strait, 90);
    assert!(stage.target.fault_struck(fault) > 0, "the fault never struck");
    assert_eq!(stage.arrived_numbers(), (0..1000).collect::<Vec<_>>());
    strait.assert_clean_log();
}

#[test]
fn rule_23_an_answer_that_is_lost_is_asked_for_again_under_the_same_numbers() {
    copies_once_under(
        "lost-answer",
        Order::next(ApiKey::Produce, Fault::CloseAfter).after(1).times(3),
    );
    copies_once_under(
        "lost-request",
        Order::next(ApiKey::Produce, Fault::CloseBefore).after(1).times(3),
    );
}

#[test]
fn rule_28_time_outs_after_the_append_are_maybes() {
    for code in [ErrorCode::REQUEST_TIMED_OUT, ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND] {
        copies_once_under(
            "maybe",
            Order::next(ApiKey::Produce, Fault::AnswerWith(code)).after(1).times(4),
        );
    }
}

#[test]
fn rule_29_refused_for_want_of_replicas_it_keeps_the_order() {
    let refuse = Fault::Refuse(ErrorCode::NOT_ENOUGH_REPLICAS);
    copies_once_under("replicas", Order::next(ApiKey::Produce, refuse).after(1).times(5));
}

#[test]
fn rule_30_a_leader_that_is_none_keeps_the_order() {
    let refuse = Fault::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    copies_once_under("leader", Order::next(ApiKey::Produce, refuse).after(1).times(5));
}

#[test]
fn rule_15_a_batch_that_arrives_damaged_is_sent_again() {
    let refuse = Fault::Refuse(ErrorCode::CORRUPT_MESSAGE);
    copies_once_under("damaged", Order::next(ApiKey::Produce, refuse).after(1).times(3));
}

#[test]
fn rule_24_a_sequence_that_is_refused_leads_to_reading_back() {
    let refuse = Fault::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    copies_once_under("sequence", Order::next(ApiKey::Produce, refuse).after(1).times(2));
}

#[test]
fn rule_31_32_a_partition_that_fails_is_not_committed_past_and_harms_no_other() {
    let stage = Stage::new("one-fails");
    stage.source.create_topic("topic-two", 1, -1, &[]).unwrap();
    stage.append_many(0..20);
    stage.source.append("topic-two", 0, &Bytes::from(Batch::small(20).bytes())).unwrap();
    let refuse = Fault::Refuse(ErrorCode::NOT_ENOUGH_REPLICAS);
    let fault =
        stage.target.fault(Order::next(ApiKey::Produce, refuse).at("topic", 0).times(u32::MAX));
    let strait = stage.start();
    wait_until("the neighbour", 30, || seen(&stage.target, "topic-two", 0).len() == 20);
    wait_until("the refusals", 30, || stage.target.fault_struck(fault) > 2);
    for _ in 0..20 {
        stage.source.append("topic-two", 0, &Bytes::from(Batch::small(20).bytes())).unwrap();
    }
    wait_until("the neighbour again", 30, || seen(&stage.target, "topic-two", 0).len() == 420);
    assert!(stage.committed().unwrap_or(0) == 0 && stage.arrived().is_empty());
    stage.target.clear_faults();
    stage.wait_committed(&strait, 60);
    assert_eq!(stage.arrived_numbers(), (0..20).collect::<Vec<_>>());
    strait.assert_clean_log();
}

#[test]
fn small_batches_that_wait_are_sent_as_one() {
    let stage = Stage::new("small");
    stage.append_many(0..1000);
    let mut strait = stage.start();
    stage.wait_committed(&strait, 30);
    assert_eq!(stage.arrived_numbers(), (0..1000).collect::<Vec<_>>());
    assert!(strait.metric("strait_merged_batches_total", &[]) >= 900.0);
    let batches = |stage: &Stage| stage.target.dump("topic", 0).unwrap().batches.len();
    assert!(batches(&stage) <= 100, "{} batches", batches(&stage));
    strait.kill_and_restart();
    stage.append_many(1000..1100);
    stage.wait_committed(&strait, 30);
    assert_eq!(stage.arrived_numbers(), (0..1100).collect::<Vec<_>>());
    strait.assert_clean_log();
}

#[test]
fn a_refused_batch_made_of_several_is_sent_again_as_its_parts() {
    let stage = Stage::new("refused-parts");
    let refuse = Fault::Refuse(ErrorCode::INVALID_RECORD);
    let fault = stage.target.fault(Order::next(ApiKey::Produce, refuse));
    stage.append_many(0..100);
    let strait = stage.start();
    stage.wait_committed(&strait, 30);
    assert_eq!(stage.target.fault_struck(fault), 1);
    assert_eq!(stage.arrived_numbers(), (0..100).collect::<Vec<_>>());
    assert!(strait.metric("strait_merged_batches_total", &[]) >= 2.0);
    strait.assert_clean_log();
}

#[test]
fn a_mirror_that_leaves_in_doubt_gives_its_memory_back() {
    let stage = Stage::new("leaves-in-doubt");
    let never = Order::next(ApiKey::Produce, Fault::Silence).times(u32::MAX);
    let fault = stage.target.fault(never);
    stage.append_many(0..20);
    let strait = stage.start();
    let buffered = || strait.metric("strait_buffer_bytes", &[]);
    wait_until("a request without an answer", 30, || {
        stage.target.fault_struck(fault) > 0 && buffered() > 0.0
    });
    stage.source.delete_topic("topic").unwrap();
    wait_until("an empty buffer", 30, || buffered() == 0.0);
    strait.assert_clean_log();
}

#[test]
fn rule_42_a_partition_that_cannot_be_written_is_not_fetched_again_and_again() {
    let stage = Stage::new("forgotten");
    stage.source.create_topic("topic-two", 1, -1, &[]).unwrap();
    let large = || Batch::of((0..50).map(|i| RawRecord::at(i, &"x".repeat(2000))).collect());
    for _ in 0..100 {
        stage.source.append("topic", 0, &Bytes::from(large().bytes())).unwrap();
    }
    let config = stage.config.clone().link("window: 1MiB");
    let refuse = Fault::Refuse(ErrorCode::NOT_ENOUGH_REPLICAS);
    stage.target.fault(Order::next(ApiKey::Produce, refuse).at("topic", 0).times(u32::MAX));
    let mut strait = protocol_tests::strait::Strait::start(&config);
    strait.expect_in_log("WARN");
    let fetched =
        |topic: &str| strait.metric("strait_fetched_bytes_total", &[&format!("topic=\"{topic}\"")]);
    wait_until("the first bytes", 30, || fetched("topic") > 0.0);
    for _ in 0..100 {
        stage.source.append("topic-two", 0, &Bytes::from(large().bytes())).unwrap();
    }
    wait_until("the neighbour", 30, || seen(&stage.target, "topic-two", 0).len() == 5000);
    let held = fetched("topic");
    // It may resync and read its window again, at the pace of its back-off, not at that of its neighbour's fetches.
    assert!(held < 60e6, "{held} bytes were fetched for a window of 1 MiB");
    strait.assert_clean_log();
}

#[test]
fn rule_13_messages_of_the_old_formats_arrive_with_their_times() {
    let stage = Stage::new("old-format");
    let old = |magic: u8, time: i64, value: &str| {
        let mut body = vec![magic, 0];
        if magic == 1 {
            body.extend(time.to_be_bytes());
        }
        body.extend((-1_i32).to_be_bytes());
        body.extend(i32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value.as_bytes());
        let mut crc = crc32(&body).to_be_bytes().to_vec();
        crc.extend(body);
        let mut message = 0_i64.to_be_bytes().to_vec();
        message.extend(i32::try_from(crc.len()).unwrap().to_be_bytes());
        message.extend(crc);
        Bytes::from(message)
    };
    stage.append_many([1]);
    let time = now_ms() - 1_000_000;
    stage.source.append("topic", 0, &old(1, time, "2")).unwrap();
    stage.source.append("topic", 0, &old(0, 0, "3")).unwrap();
    stage.append_many([4]);
    let strait = stage.start();
    // Copied, or named and not passed by: never silently wrong.
    wait_until("the old messages' fate", 30, || {
        stage.committed() == Some(4) || strait.status().to_string().contains("parked")
    });
    if stage.committed() == Some(4) {
        assert_eq!(stage.arrived_numbers(), [1, 2, 3, 4]);
        assert_eq!((stage.arrived()[1].0, stage.arrived()[2].0), (time, -1));
    } else {
        wait_until("the position before them", 10, || stage.committed() == Some(1));
        assert_eq!(stage.arrived_numbers(), [1]);
    }
}

#[test]
fn rule_14_a_codec_that_does_not_exist_parks_its_mirror() {
    let stage = Stage::new("codec");
    stage.append_many([1, 2]);
    stage.append(&Batch::small(1).with(|b| b.attributes = 5));
    stage.append_many([3]);
    let strait = stage.start();
    stage.wait_status(&strait, &["parked"]);
    wait_until("the position before it", 10, || stage.committed() == Some(2));
    assert_eq!(stage.arrived_numbers(), [1, 2]);
    strait.assert_clean_log();
}

#[test]
fn a_checksum_that_is_wrong_on_the_source_parks_its_mirror() {
    let stage = Stage::new("checksum");
    stage.append_many([1, 2]);
    stage.append(&Batch::small(1).with(|b| b.bad_crc = true));
    stage.append_many([3]);
    let strait = stage.start();
    stage.wait_status(&strait, &["parked"]);
    wait_until("the position before it", 10, || stage.committed() == Some(2));
    holds_for("nothing of it arrives", Duration::from_millis(500), || {
        stage.arrived_numbers() == [1, 2] && stage.committed() == Some(2)
    });
    strait.assert_clean_log();
}

#[test]
fn rule_9_37_batches_without_a_record_that_counts_are_passed_by() {
    let stage = Stage::new("empty");
    stage
        .source
        .create_topic("topic-compact", 1, -1, &[("cleanup.policy", "compact,delete")])
        .unwrap();
    let keyed = |keys: &[u8], codec| {
        let records = (0..).zip(keys).map(|(at, key)| RawRecord {
            key: Some(vec![*key]),
            ..RawRecord::at(at, &format!("{key}"))
        });
        Batch::of(records.collect()).with(|b| b.codec = codec)
    };
    let append = |batch: &Batch| {
        stage.source.append("topic-compact", 0, &Bytes::from(batch.bytes())).unwrap();
    };
    append(&keyed(&[1, 2, 3], Codec::Lz4)); // 0-2: 1 and 2 stay
    append(&keyed(&[4, 5, 3, 6], Codec::None)); // 3-6: nothing at or behind 5 stays
    append(&keyed(&[7, 8], Codec::Zstd).sequenced(9, 0)); // 7-8: nothing stays
    append(&keyed(&[3, 6, 7, 8], Codec::None));
    stage.source.compact("topic-compact", 0, Some(now_ms() + 1_000_000)).unwrap();
    stage.source.delete_records("topic-compact", 0, 5).unwrap();
    let strait = stage.start();
    wait_until("the position", 30, || {
        let committed = stage.source.committed(&stage.config.group());
        committed.get(&("topic-compact".to_owned(), 0)).is_some_and(|c| c.offset == 13)
    });
    let values: Vec<_> =
        seen(&stage.target, "topic-compact", 0).into_iter().map(|(_, v)| v.unwrap()).collect();
    assert_eq!(values, ["3", "6", "7", "8"]);
    strait.assert_clean_log();
}

#[test]
fn rule_20_append_times_of_a_compressed_batch_become_the_records_times() {
    let stage = Stage::new("append-time");
    let appended = now_ms() - 5_000;
    for codec in Codec::ALL {
        stage.append(&Batch::small(3).with(|b| {
            b.codec = codec;
            b.attributes = 8;
            b.base_timestamp = appended - 77_000;
            b.max_timestamp = Some(appended);
        }));
    }
    let strait = stage.start();
    stage.wait_committed(&strait, 30);
    let arrived = stage.arrived();
    assert_eq!(arrived.len(), 15);
    assert!(arrived.iter().all(|(time, _)| *time == appended), "{arrived:?}");
    strait.assert_clean_log();
}

#[test]
fn rule_41_sessions_that_are_evicted_lose_nothing() {
    let stage = Stage::new("evicted");
    stage.append_many(0..10);
    let strait = stage.start();
    for round in 1..10 {
        stage.source.evict_fetch_sessions(1);
        stage.append_many(round * 10..round * 10 + 10);
        stage.wait_committed(&strait, 30);
    }
    assert_eq!(stage.arrived_numbers(), (0..100).collect::<Vec<_>>());
    strait.assert_clean_log();
}

#[test]
fn a_leader_that_knows_nothing_of_us_gets_each_record_once() {
    let three = || Options { brokers: 3, replication_factor: 3, ..Options::default() };
    let stage = Stage::with("forgetful", Options::default(), three());
    stage.append_many(0..20);
    let strait = stage.start();
    stage.wait_committed(&strait, 30);
    for round in 1..10 {
        let to = 1 + i32::try_from(round % 3).unwrap();
        stage.append_many(round * 20..round * 20 + 10);
        stage.target.move_leader("topic", 0, to, Replica::WithoutProducerState).unwrap();
        stage.append_many(round * 20 + 10..round * 20 + 20);
        stage.wait_committed(&strait, 60);
    }
    assert_eq!(stage.arrived_numbers(), (0..200).collect::<Vec<_>>());
    strait.assert_clean_log();
}

#[test]
fn old_records_whose_state_expires_at_every_moment_arrive_once() {
    let options =
        Options { producer_expiry_check: Duration::from_millis(100), ..Options::default() };
    let stage = Stage::with("expiring", Options::default(), options);
    let old = |value: u32| {
        let mut batch = Batch::small(1);
        batch.base_timestamp = now_ms() - 25 * 3600 * 1000;
        batch.records[0].value = Some(value.to_string().into_bytes());
        batch
    };
    let mut strait = stage.start();
    for round in 0..10 {
        for value in round * 30..round * 30 + 30 {
            stage.append(&old(value));
        }
        if round % 4 == 3 {
            strait.terminate();
            strait.restart();
        }
        stage.wait_committed(&strait, 60);
    }
    assert_eq!(stage.arrived_numbers(), (0..300).collect::<Vec<_>>());
    strait.assert_clean_log();
}

#[test]
fn coordinators_that_move_lose_no_position() {
    let three = Options { brokers: 3, replication_factor: 1, ..Options::default() };
    let stage = Stage::with("coordinator", three, Options::default());
    let strait = stage.start();
    for round in 0..6 {
        stage.source.move_coordinator(&stage.config.group(), 1 + i32::try_from(round % 3).unwrap());
        stage.append_many(round * 10..round * 10 + 10);
        stage.wait_committed(&strait, 60);
    }
    assert_eq!(stage.arrived_numbers(), (0..60).collect::<Vec<_>>());
    strait.assert_clean_log();
}

#[test]
fn rule_46_a_source_that_lost_what_was_copied_is_named() {
    let stage = Stage::new("truncated");
    stage.append_many(0..100);
    let strait = stage.start();
    stage.wait_committed(&strait, 30);
    // An unclean election: the last forty are gone, others take their place.
    stage.source.truncate("topic", 0, 60).unwrap();
    stage.append_many(1000..1060);
    wait_until("the named truncation", 60, || {
        let status = strait.status().to_string();
        status.contains("parked") || strait.metric("strait_gap_offsets_total", &[]) > 0.0
    });
    let arrived = stage.arrived_numbers();
    assert_eq!(arrived[..100], (0..100).collect::<Vec<_>>());
    strait.assert_clean_log();
}

#[test]
fn killed_between_answer_and_commit_it_repeats_nothing() {
    let stage = Stage::new("killed");
    stage.append_many(0..30);
    let mut strait = stage.start();
    stage.wait_committed(&strait, 30);
    for round in 1..12 {
        // Commits are refused: what is appended now is acknowledged and never committed.
        let refuse = Fault::Refuse(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
        stage.source.fault(Order::next(ApiKey::OffsetCommit, refuse).times(u32::MAX));
        stage.append_many(round * 30..round * 30 + 30);
        wait_until("arrival", 30, || stage.arrived().len() as u32 >= round * 30 + 30);
        assert_eq!(stage.arrived_numbers(), (0..round * 30 + 30).collect::<Vec<_>>());
        strait.kill();
        stage.source.clear_faults();
        strait.restart();
        stage.wait_committed(&strait, 60);
    }
    assert_eq!(stage.arrived_numbers(), (0..360).collect::<Vec<_>>());
    strait.assert_clean_log();
}
