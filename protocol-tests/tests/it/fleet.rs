//! Several instances of one link: they share its partitions, and take over from one another. On embedded brokers, with the
//! group protocol of either release.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use protocol_tests::raw::Batch;
use protocol_tests::strait::Strait;
use protocol_tests::wait::{wait_for, wait_pacing, wait_until};
use strait::embedded::{Generation, Options};
use tokio::time::Instant;

use crate::stage::{Stage, seen};

const PARTITIONS: i32 = 6;

/// A stage with `topic-shared`; the source has this release's group protocol, with sessions of some seconds.
fn stage(name: &str, generation: Generation) -> Stage {
    let source = Options {
        generation,
        consumer_session_timeout: Duration::from_secs(4),
        consumer_heartbeat_interval: Duration::from_secs(1),
        ..Options::default()
    };
    let stage = Stage::with(name, source, Options::default());
    stage.source.create_topic("topic-shared", PARTITIONS, -1, &[]).unwrap();
    stage
}

/// Appends the next number to every partition.
fn append(stage: &Stage, number: u32) {
    for partition in 0..PARTITIONS {
        let mut batch = Batch::small(1);
        batch.records[0].value = Some(number.to_string().into_bytes());
        stage.source.append("topic-shared", partition, &Bytes::from(batch.bytes())).unwrap();
    }
}

fn start(stage: &Stage) -> Strait {
    let mut strait = Strait::start(&stage.config);
    strait.expect_in_log("WARN");
    strait
}

/// Partitions that an instance copies, of all topics.
fn holds(strait: &Strait) -> usize {
    strait.status()["links"][0]["partitions"].as_u64().unwrap() as usize
}

/// Waits until the instances hold this many.
#[track_caller]
fn wait_held(what: &str, all: &[&Strait], counts: &[usize], seconds: u64) {
    wait_for(what, seconds, || {
        let held: Vec<usize> = all.iter().map(|strait| holds(strait)).collect();
        if held == counts { Ok(()) } else { Err(format!("{held:?} of {counts:?}")) }
    });
}

fn begun(strait: &Strait) -> usize {
    strait.log().matches("mirrors begin").count()
}

/// Every number arrived once and in order, on every partition, and that is committed.
#[track_caller]
fn assert_copied(stage: &Stage, numbers: u32) {
    wait_for("the position at the source's end", 60, || {
        let committed = stage.source.committed(&stage.config.group());
        let at = |partition| {
            committed.get(&("topic-shared".to_owned(), partition)).map(|committed| committed.offset)
        };
        let at: Vec<_> = (0..PARTITIONS).map(at).collect();
        if at.iter().all(|at| *at == Some(i64::from(numbers))) {
            Ok(())
        } else {
            Err(format!("{at:?}"))
        }
    });
    let expected: Vec<String> = (0..numbers).map(|number| number.to_string()).collect();
    for partition in 0..PARTITIONS {
        let arrived = seen(&stage.target, "topic-shared", partition);
        let arrived: Vec<String> = arrived.into_iter().map(|(_, value)| value.unwrap()).collect();
        assert!(arrived == expected, "partition {partition}: {arrived:?}");
    }
}

fn shared_by_two(name: &str, generation: Generation) {
    let stage = stage(name, generation);
    let first = start(&stage);
    wait_held("one has all", &[&first], &[7], 20);
    let over = AtomicBool::new(false);
    let numbers = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut number = 0;
            wait_pacing("end of the load", 180, Duration::from_millis(5), || {
                append(&stage, number);
                number += 1;
                over.load(Relaxed)
            });
            number
        });
        let begun_alone = begun(&first);
        let mut second = start(&stage);
        wait_held("both share", &[&first, &second], &[4, 3], 30);
        assert_eq!(begun(&first), begun_alone, "what stays is not begun anew: {}", first.log());
        assert_eq!(first.metric("strait_resyncs_total", &[]), 0.0);
        let both_copy = || second.metric("strait_acked_records_total", &[]) > 100.0;
        wait_until("the second copies", 20, both_copy);

        // It leaves: nobody waits for its session to end.
        let before = begun(&first);
        let left = Instant::now();
        assert_eq!(second.terminate().0, 0, "{}", second.log());
        wait_held("the first has all again", &[&first], &[7], 9);
        let taken = left.elapsed();
        assert!(begun(&first) > before && taken < Duration::from_secs(7), "{taken:?}");

        // It is killed: its session has to end.
        second.restart();
        wait_held("both share again", &[&first, &second], &[4, 3], 30);
        wait_until("the second copies again", 20, || {
            second.metric("strait_acked_records_total", &[]) > 100.0
        });
        let before = begun(&first);
        second.kill();
        wait_held("the first has taken over", &[&first], &[7], 40);
        assert!(begun(&first) > before);
        let acked = first.metric("strait_acked_records_total", &[]);
        wait_until("it copies all", 20, || {
            first.metric("strait_acked_records_total", &[]) > acked + 200.0
        });
        over.store(true, Relaxed);
        load.join().unwrap()
    });
    assert_copied(&stage, numbers);
    first.assert_clean_log();
}

#[test]
fn two_instances_share_and_take_over_in_a_group_whose_broker_assigns() {
    shared_by_two("share-kip848", Generation::Kafka43);
}

#[test]
fn two_instances_share_and_take_over_in_a_classic_group() {
    shared_by_two("share-classic", Generation::Kafka39);
}

#[test]
fn an_instance_that_was_killed_takes_over_from_itself_at_once() {
    for generation in [Generation::Kafka43, Generation::Kafka39] {
        let source = Options { generation, ..Options::default() };
        let stage = Stage::with("own-former-life", source, Options::default());
        let mut strait = stage.start();
        stage.append_many(0..10);
        stage.wait_committed(&strait, 30);
        assert_eq!(stage.source.group_members(&stage.config.group()), 1, "also when alone");
        strait.kill();
        stage.append_many(10..20);
        let killed = Instant::now();
        strait.restart();
        stage.wait_committed(&strait, 30);
        let taken = killed.elapsed();
        assert!(taken < Duration::from_secs(6), "{generation:?}: {taken:?} of a session");
        assert_eq!(stage.arrived_numbers(), (0..20).collect::<Vec<_>>());
        assert_eq!(strait.terminate().0, 0);
        assert_eq!(stage.source.group_members(&stage.config.group()), 0, "it said goodbye");
    }
}

#[test]
fn without_membership_everything_is_ours() {
    let mut stage = Stage::new("no-member");
    stage.config = stage.config.clone().link("membership: { protocol: \"off\" }");
    let strait = stage.start();
    stage.append_many(0..10);
    stage.wait_committed(&strait, 30);
    assert_eq!(stage.source.group_members(&stage.config.group()), 0);
    assert_eq!(stage.arrived_numbers(), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_member_that_is_thrown_out_drops_everything_and_begins_anew() {
    for generation in [Generation::Kafka43, Generation::Kafka39] {
        let stage = stage("thrown-out", generation);
        let strait = start(&stage);
        for number in 0..50 {
            append(&stage, number);
        }
        wait_held("it has all", &[&strait], &[7], 20);
        assert_eq!(stage.source.throw_out(&stage.config.group()), 1);
        for number in 50..100 {
            append(&stage, number);
        }
        assert_copied(&stage, 100);
        assert!(strait.log().contains("membership lost"), "{}", strait.log());
        wait_held("it has all again", &[&strait], &[7], 20);
        strait.assert_clean_log();
    }
}
