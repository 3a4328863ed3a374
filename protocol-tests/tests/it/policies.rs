//! What cannot be copied, by policy: named with its exact offsets, and stopped at, stepped over, or tried again.

use ::strait::embedded::{ApiKey, Fault, Order};
use ::strait::wire::ErrorCode;
use bytes::Bytes;
use protocol_tests::ports;
use protocol_tests::raw::{Batch, RawRecord};
use protocol_tests::strait::{self, Config, Strait};
use protocol_tests::wait::wait_until;
use serde_json::Value;

use crate::stage::{Stage, seen};

/// Starts Strait with further lines for the link; it may warn.
#[track_caller]
fn start(stage: &Stage, lines: &[&str]) -> Strait {
    let config = lines.iter().fold(stage.config.clone(), |config, line| config.link(line));
    start_as(&config)
}

#[track_caller]
fn start_as(config: &Config) -> Strait {
    let mut strait = Strait::start(config);
    strait.expect_in_log("WARN");
    strait.expect_in_log("ERROR");
    strait
}

/// The losses that the status lists.
#[track_caller]
fn losses(strait: &Strait) -> Vec<Value> {
    strait.status()["links"][0]["losses"].as_array().unwrap().clone()
}

/// Kind, first offset, offset behind the last, and whether it went on.
fn told(loss: &Value) -> (&str, i64, i64, bool) {
    let offset = |key: &str| loss[key].as_i64().unwrap_or(-1);
    let kind = loss["kind"].as_str().unwrap();
    (kind, offset("from_offset"), offset("to_offset"), loss["continued"].as_bool().unwrap())
}

/// The source is read by nobody: what is appended now is not copied.
fn hold_fetching(stage: &Stage) {
    let refuse = Fault::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    let hold = stage.source.fault(Order::next(ApiKey::Fetch, refuse).times(u32::MAX));
    wait_until("a fetch that is refused", 10, || stage.source.fault_struck(hold) > 0);
}

#[test]
fn a_gap_stops_its_mirror_with_its_exact_offsets() {
    let stage = Stage::new("gap-stops");
    stage.append_many(0..20);
    let strait = stage.start();
    stage.wait_committed(&strait, 30);
    hold_fetching(&stage);
    stage.append_many(20..60);
    stage.source.delete_records("topic", 0, 47).unwrap();
    stage.source.clear_faults();
    stage.wait_status(&strait, &["parked", "ST-070", "source offsets 20 to 46"]);
    assert_eq!(losses(&strait).iter().map(told).collect::<Vec<_>>(), [("gap", 20, 47, false)]);
    assert_eq!(strait.metric("strait_gap_offsets_total", &[]), 27.0);
    assert_eq!(stage.committed(), Some(20));
    assert_eq!(stage.arrived_numbers(), (0..20).collect::<Vec<_>>());
    strait.assert_clean_log();
}

#[test]
fn a_gap_is_passed_when_told_and_counted_and_a_crash_behind_it_repeats_nothing() {
    let stage = Stage::new("gap-passed");
    stage.append_many(0..20);
    let mut strait = start(&stage, &["on_gap: continue"]);
    stage.wait_committed(&strait, 30);
    for round in 1..4_u32 {
        let first = round * 100;
        hold_fetching(&stage);
        stage.append_many(first..first + 50);
        let end = stage.source.ends("topic", 0).unwrap().log_end;
        stage.source.delete_records("topic", 0, end - 20).unwrap();
        stage.source.clear_faults();
        stage.wait_committed(&strait, 30);
        let newest = losses(&strait);
        assert_eq!(told(&newest[0]), ("gap", end - 50, end - 20, true));
        assert_eq!(newest.len(), round as usize);
        assert_eq!(strait.metric("strait_gap_offsets_total", &[]), f64::from(round * 30));
    }
    // Acknowledged behind the gap and not committed: the lineage of before must not be counted on.
    let refuse = Fault::Refuse(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
    stage.source.fault(Order::next(ApiKey::OffsetCommit, refuse).times(u32::MAX));
    stage.append_many(1000..1010);
    wait_until("arrival", 30, || stage.arrived().len() == 90);
    strait.kill();
    stage.source.clear_faults();
    strait.restart();
    stage.wait_committed(&strait, 60);
    let copied = (1..4).flat_map(|round| round * 100 + 30..round * 100 + 50);
    let copied: Vec<u32> = (0..20).chain(copied).chain(1000..1010).collect();
    assert_eq!(stage.arrived_numbers(), copied);
    strait.assert_clean_log();
}

#[test]
fn what_retention_took_while_it_was_away_is_passed_when_told() {
    let stage = Stage::new("gap-away");
    stage.append_many(0..20);
    let mut strait = start(&stage, &["on_gap: continue"]);
    stage.wait_committed(&strait, 30);
    strait.terminate();
    stage.append_many(20..60);
    stage.source.delete_records("topic", 0, 60).unwrap();
    strait.restart();
    stage.wait_committed(&strait, 30);
    stage.append_many(60..70);
    stage.wait_committed(&strait, 30);
    assert_eq!(told(&losses(&strait)[0]), ("gap", 20, 60, true));
    assert_eq!(stage.arrived_numbers(), (0..20).chain(60..70).collect::<Vec<_>>());
    strait.assert_clean_log();
}

/// Records that nobody can tell from each other are no measure of how far the dead process came.
#[test]
fn a_gap_behind_a_crash_stops_where_nothing_tells_what_was_copied() {
    for alike in [true, false] {
        let stage = Stage::new(if alike { "gap-unclear" } else { "gap-exact" });
        let always = Batch::small(1);
        let append = |values: std::ops::Range<u32>| match alike {
            true => values.for_each(|_| _ = stage.append(&always)),
            false => stage.append_many(values),
        };
        append(0..20);
        let mut strait = start(&stage, &[if alike { "on_gap: continue" } else { "on_gap: stop" }]);
        stage.wait_committed(&strait, 30);
        let refuse = Fault::Refuse(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
        stage.source.fault(Order::next(ApiKey::OffsetCommit, refuse).times(u32::MAX));
        append(20..30);
        wait_until("arrival", 30, || stage.arrived().len() == 30);
        strait.kill();
        append(30..60);
        stage.source.delete_records("topic", 0, 47).unwrap();
        stage.source.clear_faults();
        strait.restart();
        if alike {
            stage.wait_status(&strait, &["parked", "ST-070", "nothing tells how many"]);
        } else {
            stage.wait_status(&strait, &["parked", "ST-070", "source offsets 30 to 46"]);
            assert_eq!(told(&losses(&strait)[0]), ("gap", 30, 47, false));
        }
        assert_eq!((stage.committed(), stage.arrived().len()), (Some(20), 30));
        strait.assert_clean_log();
    }
}

#[test]
fn a_truncation_stops_with_its_exact_offsets_whatever_the_policy() {
    let stage = Stage::new("truncation-stops");
    stage.append_many(0..100);
    let mut strait = start(&stage, &["on_gap: continue", "on_poison: skip"]);
    stage.wait_committed(&strait, 30);
    stage.source.truncate("topic", 0, 60).unwrap();
    stage.append_many(1000..1010);
    stage.wait_status(&strait, &["parked", "ST-063", "offsets 60 to 99"]);
    assert_eq!(told(&losses(&strait)[0]), ("truncated", 60, 100, false));
    assert_eq!(strait.metric("strait_truncated_offsets_total", &[]), 40.0);
    // The same after a start, when the log has grown past what was copied.
    strait.terminate();
    stage.append_many(1010..1100);
    strait.restart();
    stage.wait_status(&strait, &["parked", "ST-063", "offsets 60 to 99"]);
    assert_eq!(told(&losses(&strait)[0]), ("truncated", 60, 100, false));
    assert_eq!(stage.committed(), Some(100));
    assert_eq!(stage.arrived_numbers(), (0..100).collect::<Vec<_>>());
    strait.assert_clean_log();
}

/// A poisoned topic: numbers, one bad batch, numbers, another, numbers.
fn poisoned(name: &str, bad: impl Fn(&mut Batch)) -> Stage {
    let stage = Stage::new(name);
    for round in 0..3_u32 {
        stage.append_many(round * 10..round * 10 + 10);
        if round < 2 {
            stage.append(&Batch::small(3).with(&bad));
        }
    }
    stage
}

/// Both bad batches are named, counted and passed, and all else arrives once; before and behind a crash.
#[track_caller]
fn passes_poison(stage: &Stage, counted: f64) {
    let mut strait = start(stage, &["on_poison: skip"]);
    stage.wait_committed(&strait, 30);
    let mut stretches: Vec<_> = losses(&strait).iter().map(|l| told(l).1).collect();
    stretches.sort_unstable();
    assert_eq!(stretches, [10, 23]);
    assert!(losses(&strait).iter().all(|l| told(l).2 == told(l).1 + 3 && told(l).3));
    let skipped = |strait: &Strait| strait.metric("strait_batches_total", &["skipped_poison"]);
    assert_eq!(skipped(&strait), 2.0);
    assert_eq!(strait.metric("strait_skipped_poison_records_total", &[]), counted);
    strait.kill_and_restart();
    stage.append_many(30..40);
    stage.wait_committed(&strait, 30);
    assert_eq!(skipped(&strait), 0.0, "it lies behind the position");
    assert_eq!(stage.arrived_numbers(), (0..40).collect::<Vec<_>>());
    assert!(strait.log().contains("stepped over"), "{}", strait.log());
    strait.assert_clean_log();
}

#[test]
fn a_damaged_batch_is_stepped_over_when_told() {
    passes_poison(&poisoned("poison-crc", |b| b.bad_crc = true), 6.0);
}

#[test]
fn a_batch_that_cannot_be_read_is_stepped_over_when_told() {
    passes_poison(&poisoned("poison-codec", |b| b.attributes = 5), 6.0);
}

#[test]
fn a_batch_that_the_target_refuses_is_stepped_over_when_told() {
    let stage = Stage::new("poison-refused");
    stage.target.create_topic("topic", 1, -1, &[("cleanup.policy", "compact")]).unwrap();
    let keyed = |value: u32| {
        let key = Some(format!("key-{value}").into_bytes());
        let record = RawRecord { key, ..RawRecord::at(0, &value.to_string()) };
        stage.append(&Batch::of(vec![record]));
    };
    for round in 0..3_u32 {
        (round * 10..round * 10 + 10).for_each(keyed);
        if round < 2 {
            let keyless = |b: &mut Batch| b.records.iter_mut().for_each(|r| r.key = None);
            stage.append(&Batch::small(3).with(keyless));
        }
    }
    let mut strait = start(&stage, &["on_poison: skip"]);
    stage.wait_committed(&strait, 30);
    let mut told: Vec<_> = losses(&strait).iter().map(|l| told(l).1).collect();
    told.sort_unstable();
    assert_eq!(told, [10, 23]);
    assert_eq!(strait.metric("strait_skipped_poison_records_total", &[]), 6.0);
    strait.kill_and_restart();
    (30..40).for_each(keyed);
    stage.wait_committed(&strait, 30);
    assert_eq!(stage.arrived_numbers(), (0..40).collect::<Vec<_>>());
    strait.assert_clean_log();
}

#[test]
fn a_broker_that_refuses_for_no_fault_of_the_batch_is_no_poison() {
    let stage = Stage::new("no-poison");
    stage.append_many(0..5);
    let refuse = Fault::Refuse(ErrorCode::POLICY_VIOLATION);
    stage.target.fault(Order::next(ApiKey::Produce, refuse).times(u32::MAX));
    let strait = start(&stage, &["on_poison: skip"]);
    stage.wait_status(&strait, &["parked", "ST-061", "POLICY_VIOLATION"]);
    assert!(losses(&strait).is_empty());
    strait.assert_clean_log();
}

#[test]
fn a_parked_mirror_is_tried_again_when_told() {
    let stage = Stage::new("retried");
    stage.append_many(0..10);
    let refuse = Fault::Refuse(ErrorCode::INVALID_RECORD);
    stage.target.fault(Order::next(ApiKey::Produce, refuse).times(3));
    let strait = start(&stage, &["on_failure: retry"]);
    stage.wait_committed(&strait, 60);
    assert_eq!(stage.arrived_numbers(), (0..10).collect::<Vec<_>>());
    wait_until("health", 10, || strait.status()["worst"] == "running");
    // A gap that stays is told again and counted once.
    hold_fetching(&stage);
    stage.append_many(10..30);
    stage.source.delete_records("topic", 0, 20).unwrap();
    stage.source.clear_faults();
    stage.wait_status(&strait, &["ST-070"]);
    wait_until("two tries", 30, || strait.log().matches("ST-070").count() >= 3);
    assert_eq!(strait.metric("strait_gap_offsets_total", &[]), 10.0);
    strait.assert_clean_log();
}

#[test]
fn one_failure_ends_it_when_told_and_the_rest_is_committed() {
    let stage = Stage::new("stops");
    stage.source.create_topic("topic-two", 1, -1, &[]).unwrap();
    for _ in 0..20 {
        stage.source.append("topic-two", 0, &Bytes::from(Batch::small(20).bytes())).unwrap();
    }
    let mut strait = start(&stage, &["on_failure: stop"]);
    wait_until("the neighbour", 30, || seen(&stage.target, "topic-two", 0).len() == 400);
    stage.append_many([1]);
    stage.append(&Batch::small(1).with(|b| b.attributes = 5));
    assert_eq!(strait.wait(30), 1);
    let log = strait.log();
    assert!(log.contains("ST-062") && log.contains("draining"), "{log}");
    // What was fetched and not sent when it drained is dropped; what was sent is committed.
    assert_eq!(stage.committed(), i64::try_from(stage.arrived().len()).ok());
    let committed = stage.source.committed(&stage.config.group());
    assert_eq!(committed[&("topic-two".to_owned(), 0)].offset, 400);
}

/// `strait reset` of the stage's topic, which must be taken.
#[track_caller]
fn reset(stage: &Stage, to: &str) {
    let yaml = stage.config.yaml(ports::free());
    let output = strait::run(&yaml, &["reset", &stage.config.name, "--topic", "topic", "--to", to]);
    assert_eq!(output.code, 0, "{output:?}");
}

#[test]
fn reset_releases_what_was_parked_and_goes_on_at_the_named_place_once() {
    // What was done behind Strait's back, the code that it parks with, the place that is named, what follows there.
    type Case<'a> = (&'a str, fn(&Stage), &'a str, &'a str, std::ops::Range<u32>);
    let cases: [Case<'_>; 4] = [
        (
            "reset-65",
            |stage| stage.source.expire_offsets(&stage.config.group()),
            "ST-065",
            "latest",
            20..20,
        ),
        (
            "reset-66",
            |stage| assert!(stage.target.recreate_topic("topic").is_ok()),
            "ST-066",
            "earliest",
            0..20,
        ),
        (
            "reset-68",
            |stage| stage.target.truncate("topic", 0, 10).unwrap(),
            "ST-068",
            "10",
            10..20,
        ),
        (
            "reset-63",
            |stage| stage.source.truncate("topic", 0, 20).unwrap(),
            "ST-063",
            "20",
            20..20,
        ),
    ];
    for (name, behind_its_back, code, to, again) in cases {
        let stage = Stage::new(name);
        stage.append_many(0..if code == "ST-063" { 30 } else { 20 });
        let mut strait = stage.start();
        stage.wait_committed(&strait, 30);
        strait.terminate();
        behind_its_back(&stage);
        strait.restart();
        stage.wait_status(&strait, &["parked", code, "strait reset"]);
        let before = stage.arrived_numbers();
        strait.terminate();
        reset(&stage, to);
        strait.restart();
        stage.append_many(100..110);
        stage.wait_committed(&strait, 30);
        let expected: Vec<u32> = before.into_iter().chain(again).chain(100..110).collect();
        assert_eq!(stage.arrived_numbers(), expected, "{code}");
        // The new numbering resumes like any other.
        strait.kill_and_restart();
        stage.append_many(110..120);
        stage.wait_committed(&strait, 30);
        let expected: Vec<u32> = expected.into_iter().chain(110..120).collect();
        assert_eq!(stage.arrived_numbers(), expected, "{code}");
        strait.assert_clean_log();
    }
}

#[test]
fn reset_begins_behind_the_epoch_that_the_target_has_forgotten() {
    let stage = Stage::new("reset-epoch");
    stage.append_many(0..10);
    let mut strait = stage.start();
    stage.wait_committed(&strait, 30);
    for round in 1..4_u32 {
        strait.terminate();
        reset(&stage, "latest");
        stage.target.drop_producer_state("topic", 0).unwrap();
        strait.restart();
        stage.append_many(round * 10..round * 10 + 10);
        stage.wait_committed(&strait, 30);
        let producers = stage.target.dump("topic", 0).unwrap().producers;
        assert_eq!(producers.iter().map(|p| i32::from(p.epoch)).max(), i32::try_from(round).ok());
    }
    assert_eq!(stage.arrived_numbers(), (0..40).collect::<Vec<_>>());
    strait.assert_clean_log();
}

#[test]
fn a_topic_made_again_is_copied_behind_the_old_one_when_told() {
    let stage = Stage::new("recreated");
    stage.append_many(0..20);
    let mut strait = start(&stage, &["on_recreate: restart"]);
    stage.wait_committed(&strait, 30);
    stage.source.recreate_topic("topic").unwrap();
    stage.append_many(100..130);
    stage.wait_committed(&strait, 60);
    let both: Vec<u32> = (0..20).chain(100..130).collect();
    assert_eq!(stage.arrived_numbers(), both);
    let newest = losses(&strait);
    let (kind, _, to, continued) = told(&newest[0]);
    assert_eq!((kind, to, continued), ("recreated", -1, true));
    assert_eq!(strait.metric("strait_source_recreations_total", &[]), 1.0);
    strait.kill_and_restart();
    stage.append_many(130..140);
    stage.wait_committed(&strait, 30);
    assert_eq!(stage.arrived_numbers(), both.into_iter().chain(130..140).collect::<Vec<_>>());
    strait.assert_clean_log();
}

#[test]
fn a_topic_made_again_while_it_was_away_is_not_written_behind_the_old_one() {
    for policy in ["on_recreate: stop", "on_recreate: restart"] {
        let stage = Stage::new("recreated-away");
        stage.append_many(0..20);
        let mut strait = start(&stage, &[policy]);
        stage.wait_committed(&strait, 30);
        strait.terminate();
        // The group's offsets of the topic go with it; the leader forgets who wrote; the records stay.
        stage.source.recreate_topic("topic").unwrap();
        stage.target.drop_producer_state("topic", 0).unwrap();
        stage.append_many(100..110);
        strait.restart();
        stage.wait_status(&strait, &["parked", "ST-067", "strait reset"]);
        assert_eq!(stage.arrived_numbers(), (0..20).collect::<Vec<_>>());
        strait.terminate();
        reset(&stage, "earliest");
        strait.restart();
        stage.wait_committed(&strait, 30);
        assert_eq!(stage.arrived_numbers(), (0..20).chain(100..110).collect::<Vec<_>>());
        strait.assert_clean_log();
    }
}

/// Numbers without end, the same each time (Lehmer's generator).
struct Dice(u64);

impl Dice {
    /// Of `from..=to`.
    fn roll(&mut self, from: i64, to: i64) -> i64 {
        self.0 = self.0 * 48_271 % 0x7fff_ffff;
        from + i64::try_from(self.0).unwrap() % (to - from + 1)
    }
}

#[test]
fn a_hundred_of_a_hundred_losses_are_named_with_their_exact_offsets() {
    let stage = Stage::new("hundred");
    let (gaps, truncations, recreated) = (40, 40, 20);
    stage.source.create_topic("topic-many", gaps + truncations, -1, &[]).unwrap();
    let names: Vec<String> = (0..recreated).map(|n| format!("topic-{n}")).collect();
    let append = |topic: &str, partition: i32, count: i64| {
        for _ in 0..count {
            let one = Bytes::from(Batch::small(1).bytes());
            stage.source.append(topic, partition, &one).unwrap();
        }
    };
    let mut dice = Dice(20_260_101);
    let copied: Vec<i64> = (0..gaps + truncations).map(|_| dice.roll(1, 30)).collect();
    (0..).zip(&copied).for_each(|(partition, count)| append("topic-many", partition, *count));
    for name in &names {
        stage.source.create_topic(name, 1, -1, &[]).unwrap();
        append(name, 0, 5);
    }
    let mut strait = stage.start();
    let all = copied.len() + names.len();
    wait_until("every position", 60, || {
        let committed = stage.source.committed(&stage.config.group());
        let ended = |topic: &str, partition: i32, end: i64| {
            committed.get(&(topic.to_owned(), partition)).is_some_and(|c| c.offset == end)
        };
        (0..).zip(&copied).all(|(partition, count)| ended("topic-many", partition, *count))
            && names.iter().all(|name| ended(name, 0, 5))
    });
    strait.terminate();
    let mut expected = Vec::new();
    for (partition, copied) in (0..).zip(&copied) {
        if partition < gaps {
            let more = dice.roll(1, 30);
            append("topic-many", partition, more);
            let log_start = copied + dice.roll(1, more);
            stage.source.delete_records("topic-many", partition, log_start).unwrap();
            expected.push((partition, "gap", *copied, log_start));
        } else {
            let end = dice.roll(0, copied - 1);
            stage.source.truncate("topic-many", partition, end).unwrap();
            append("topic-many", partition, dice.roll(0, 40));
            expected.push((partition, "truncated", end, *copied));
        }
    }
    for name in &names {
        stage.source.recreate_topic(name).unwrap();
        append(name, 0, dice.roll(0, 10));
    }
    strait.restart();
    let parked = |strait: &Strait| strait.metric("strait_partitions", &["parked"]);
    wait_until("a hundred that stopped", 60, || parked(&strait) == all as f64);
    let mut found: Vec<_> = losses(&strait)
        .iter()
        .map(|loss| {
            let (kind, from, to, continued) = told(loss);
            assert!(!continued);
            let partition = i32::try_from(loss["partition"].as_i64().unwrap()).unwrap();
            (partition, kind.to_owned(), from, to)
        })
        .collect();
    found.sort();
    let expected: Vec<_> =
        expected.into_iter().map(|(p, kind, from, to)| (p, kind.to_owned(), from, to)).collect();
    assert_eq!(found, expected);
    let status = strait.status().to_string();
    assert_eq!(status.matches("\"ST-067\"").count(), names.len());
    for name in &names {
        assert_eq!(seen(&stage.target, name, 0).len(), 5, "{name}");
    }
    strait.assert_clean_log();
}
