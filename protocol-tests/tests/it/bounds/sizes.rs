//! Thousands of mirrors, batches of all sizes: the printed memory holds, and nobody starves.

use std::time::Duration;

use bytes::Bytes;
use protocol_tests::bounds::{FIXED_BYTES, assert_rests, assert_within};
use protocol_tests::copying::sized;
use protocol_tests::raw::{Batch, RawRecord, parse};
use protocol_tests::strait::Strait;
use protocol_tests::wait::{wait_pacing, wait_until};
use strait::embedded::{ApiKey, EmbeddedCluster, Fault, FaultId, Options, Order};
use strait::wire::error_code::ErrorCode;
use tokio::time::Instant;

use crate::stage::Stage;

pub(super) fn memory(stage: &mut Stage, mebibytes: u64) -> u64 {
    stage.config =
        stage.config.clone().top(&format!("engine: {{ lanes: 2, memory: {mebibytes}MiB }}"));
    mebibytes << 20
}

/// Takes batches of up to 100 MiB.
pub(super) const LARGE: (&str, &str) = ("max.message.bytes", "104857600");

/// Both clusters have so many brokers: each connection may bring something at the same time.
pub(super) fn of_brokers(name: &str, brokers: usize) -> Stage {
    let options = || Options { brokers, ..Options::default() };
    Stage::with(name, options(), options())
}

pub(super) fn end(cluster: &EmbeddedCluster, topic: &str, partition: i32) -> i64 {
    cluster.batches_from(topic, partition, i64::MAX).map_or(0, |(end, _)| end)
}

pub(super) fn batch_of(bytes: usize) -> Bytes {
    Bytes::from(Batch::holding(vec![b'x'; bytes]).bytes())
}

/// Both sides have the same records at the same offsets, equal in every field.
#[track_caller]
pub(super) fn assert_same_records(stage: &Stage, topic: &str, partition: i32) {
    let batches = |cluster: &EmbeddedCluster| {
        let (_, batches) = cluster.batches_from(topic, partition, 0).unwrap();
        batches.into_iter().flat_map(|bytes| parse(&bytes).0)
    };
    let records = |cluster| {
        batches(cluster).flat_map(|batch| {
            assert!(batch.crc_valid, "{topic}-{partition} at {}", batch.base_offset);
            let (offset, time) = (batch.base_offset, batch.base_timestamp);
            batch.records().into_iter().map(move |record| {
                let at = (offset + record.offset_delta, time + record.timestamp_delta);
                (at, RawRecord { offset_delta: 0, timestamp_delta: 0, ..record })
            })
        })
    };
    let mut there = records(&stage.target);
    for (at, record) in records(&stage.source) {
        let is_same = there.next().is_some_and(|other| other == (at, record));
        assert!(is_same, "{topic}-{partition}: not the record of {at:?}");
    }
    assert!(there.next().is_none(), "{topic}-{partition}: more than was written");
}

#[test]
fn one_hot_mirror_of_thousands_keeps_its_rate() {
    let partitions = sized(2000, 10_000);
    let mut stage = Stage::new("thousands");
    let budget = memory(&mut stage, 64);
    for (at, count) in
        (0..partitions).step_by(500).map(|first| 500.min(partitions - first)).enumerate()
    {
        stage.source.create_topic(&format!("topic-{at}"), count, -1, &[]).unwrap();
    }
    let strait = Strait::start(&stage.config);
    wait_until("the mirrors to run", 120, || {
        strait.status()["links"][0]["partitions"].as_u64() == Some(partitions as u64 + 1)
    });
    // Each has something to say once, so that none is new.
    let small = batch_of(1);
    let all = || {
        stage.source.topics().into_iter().flat_map(|topic| {
            let count = if topic == "topic" { 1 } else { 500.min(partitions) };
            (0..count).map(move |partition| (topic.clone(), partition))
        })
    };
    for (topic, partition) in all() {
        stage.source.append(&topic, partition, &small).unwrap();
    }
    for (topic, partition) in all() {
        wait_until("the first records", 120, || end(&stage.target, &topic, partition) == 1);
    }
    let idle = assert_rests(&strait);

    let (batch, began) = (batch_of(100_000), Instant::now());
    let (mut written, mut late) = (1, Duration::ZERO);
    let seconds = sized(2, 30);
    wait_pacing("end of the load", seconds + 60, Duration::from_millis(10), || {
        for _ in 0..4 {
            stage.source.append("topic", 0, &batch).unwrap();
        }
        written += 4;
        let appended = Instant::now();
        wait_until("the hot mirror's records", 10, || end(&stage.target, "topic", 0) == written);
        late = late.max(appended.elapsed());
        began.elapsed() > Duration::from_secs(seconds)
    });
    let rate = written as f64 * 0.1 / began.elapsed().as_secs_f64();
    stage.wait_committed(&strait, 30);
    let after = assert_rests(&strait);
    let peak = assert_within(&strait, budget);
    println!(
        "{partitions} mirrors: {rate:.0} MB/s of the hot one, the latest after {late:?}; peak {peak} of {} MiB; \
         idle {idle:.3} and {after:.3} cores",
        (budget + FIXED_BYTES) >> 20
    );
    assert!(late < Duration::from_secs(5), "it starved for {late:?}");
    strait.assert_clean_log();
}

/// Copies what every partition holds, and gives the peak memory in MiB.
fn copied_within(stage: &Stage, memory: u64, partitions: i32) -> u64 {
    let strait = stage.start();
    let end_of = |cluster: &EmbeddedCluster, partition| end(cluster, "topic-many", partition);
    for partition in 0..partitions {
        let wanted = end_of(&stage.source, partition);
        wait_until("its records", 120, || end_of(&stage.target, partition) == wanted);
    }
    assert_within(&strait, memory)
}

#[test]
fn batches_of_one_byte_stay_in_memory_with_what_is_noted_of_them() {
    let mut stage = Stage::new("dust");
    let (budget, partitions, batches) = (memory(&mut stage, 16), 8, sized(20_000, 200_000));
    stage.source.create_topic("topic-many", partitions, -1, &[]).unwrap();
    let batch = batch_of(1);
    for partition in 0..partitions {
        for _ in 0..batches {
            stage.source.append("topic-many", partition, &batch).unwrap();
        }
    }
    let peak = copied_within(&stage, budget, partitions);
    println!("{partitions} x {batches} batches of one byte: peak {peak} MiB");
}

#[test]
fn of_batches_larger_than_a_lane_s_memory_one_comes_on_top() {
    let mut stage = of_brokers("rocks", 4);
    let (budget, partitions) = (memory(&mut stage, 64), 8);
    stage.source.create_topic("topic-many", partitions, -1, &[LARGE]).unwrap();
    let sizes = sized([20, 40], [40, 99]);
    for mebibytes in sizes {
        let batch = batch_of(mebibytes << 20);
        for partition in 0..partitions {
            stage.source.append("topic-many", partition, &batch).unwrap();
        }
    }
    let largest = sizes.into_iter().max().unwrap_or(0) as u64;
    let peak = copied_within(&stage, budget + (largest << 20), partitions);
    println!("{partitions} x batches of {sizes:?} MiB: peak {peak} MiB");
}

/// A batch of exactly so many bytes: a hundred records that no two are equal, nor compress.
fn boulder(bytes: usize, seed: u64) -> Bytes {
    let mut state = seed;
    let mut noise = |bytes: usize| {
        let mut words = Vec::with_capacity(bytes + 8);
        while words.len() < bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            words.extend((state ^ (state >> 29)).to_le_bytes());
        }
        words.truncate(bytes);
        words
    };
    let value_bytes = bytes / 100 - 100;
    let mut batch = Batch::small(100);
    for record in &mut batch.records {
        record.value = Some(noise(value_bytes));
        record.headers = vec![("part".to_owned(), Some(noise(16)))];
    }
    let missing = bytes - batch.bytes().len();
    batch.records[99].value = Some(noise(value_bytes + missing));
    let bytes_made = batch.bytes();
    assert_eq!(bytes_made.len(), bytes);
    Bytes::from(bytes_made)
}

#[test]
fn batches_of_a_hundred_megabytes_are_copied_with_a_memory_of_sixteen() {
    const BATCH_BYTES: usize = 100_000_000;
    let mut stage = of_brokers("boulders", 2);
    let (budget, partitions) = (memory(&mut stage, 16), 2);
    stage.source.create_topic("topic-many", partitions, -1, &[LARGE]).unwrap();
    for partition in 0..partitions {
        for seed in 0..sized(2, 8) {
            let batch = boulder(BATCH_BYTES, seed * 2 + partition.unsigned_abs() as u64);
            stage.source.append("topic-many", partition, &batch).unwrap();
            stage.source.append("topic-many", partition, &batch_of(1000)).unwrap();
        }
    }
    let peak = copied_within(&stage, budget + BATCH_BYTES as u64, partitions);
    (0..partitions).for_each(|partition| assert_same_records(&stage, "topic-many", partition));
    println!("batches of {BATCH_BYTES} bytes, memory {} MiB: peak {peak} MiB", budget >> 20);
}

#[test]
fn copies_of_batches_larger_than_a_lane_s_memory_come_one_at_a_time_too() {
    let mut stage = of_brokers("rocks-anew", 4);
    let (budget, partitions, mebibytes) = (memory(&mut stage, 32), 8, 40);
    let large = [LARGE, ("message.timestamp.type", "LogAppendTime")];
    stage.source.create_topic("topic-many", partitions, -1, &large).unwrap();
    // LogAppendTime: each is written anew.
    let value = vec![b'x'; mebibytes << 20];
    let batch = Bytes::from(Batch { attributes: 8, ..Batch::holding(value) }.bytes());
    for partition in 0..partitions {
        stage.source.append("topic-many", partition, &batch).unwrap();
    }
    // So long each copy stands in memory at least.
    let slow = Fault::DelayAnswer(Duration::from_secs(4));
    stage.target.fault(Order::next(ApiKey::Produce, slow).times(u32::MAX));
    // A frame and its copy.
    let peak = copied_within(&stage, budget + 2 * ((mebibytes as u64) << 20), partitions);
    println!("{partitions} x batches of {mebibytes} MiB written anew: peak {peak} MiB");
}

/// Two partitions of large batches for which there is one place, and the leaders of their copies.
fn cramped(name: &str) -> (Stage, Bytes, [i32; 2]) {
    cramped_to(name, LARGE)
}

/// The same towards a topic with this setting.
fn cramped_to(name: &str, setting: (&str, &str)) -> (Stage, Bytes, [i32; 2]) {
    let target = Options { brokers: 2, ..Options::default() };
    let mut stage = Stage::with(name, Options::default(), target);
    stage.config = stage.config.clone().top("engine: { lanes: 1, memory: 16MiB }");
    for (cluster, setting) in [(&stage.source, LARGE), (&stage.target, setting)] {
        cluster.create_topic("topic-large", 2, -1, &[setting]).unwrap();
    }
    let leaders = [0, 1].map(|partition| stage.target.leader("topic-large", partition));
    assert_ne!(leaders[0], leaders[1]);
    (stage, batch_of(12 << 20), leaders)
}

/// Starts Strait; its mirrors run.
fn running(stage: &Stage) -> Strait {
    let strait = stage.start();
    wait_until("the mirrors to run", 30, || {
        let status = strait.status();
        status["links"][0]["partitions"] == 3 && status["links"][0]["state"] == "running"
    });
    strait
}

/// Lets a batch of the first partition be sent, and struck by this fault, then writes one to the second.
fn one_behind_the_other(stage: &Stage, batch: &Bytes, struck: FaultId) {
    stage.source.append("topic-large", 0, batch).unwrap();
    let sent = || stage.target.fault_struck(struck) > 0;
    wait_until("the first one's batch to be sent", 30, sent);
    stage.source.append("topic-large", 1, batch).unwrap();
}

fn arrives(stage: &Stage, partition: i32, seconds: u64) {
    wait_until("the batch", seconds, || end(&stage.target, "topic-large", partition) == 1);
}

#[test]
fn a_batch_that_waits_for_the_place_of_another_is_told() {
    let (stage, batch, leaders) = cramped("told");
    let strait = running(&stage);
    let slow = Fault::DelayAnswer(Duration::from_secs(20));
    let slow = stage.target.fault(Order::next(ApiKey::Produce, slow).on(leaders[0]));
    one_behind_the_other(&stage, &batch, slow);
    stage.wait_status(&strait, &["ST-089", "waits for memory"]);
    assert_eq!(end(&stage.target, "topic-large", 1), 0);
    arrives(&stage, 1, 60);
    wait_until("a status without it", 30, || !strait.status().to_string().contains("ST-089"));
}

#[test]
fn a_partition_that_gets_no_further_leaves_its_place_to_others() {
    let (stage, batch, _) = cramped("stands");
    let _strait = running(&stage);
    let refused = Fault::Refuse(ErrorCode::NOT_ENOUGH_REPLICAS);
    let order = Order::next(ApiKey::Produce, refused).at("topic-large", 0).times(u32::MAX);
    let refused = stage.target.fault(order);
    one_behind_the_other(&stage, &batch, refused);
    arrives(&stage, 1, 60);
    assert_eq!(end(&stage.target, "topic-large", 0), 0);
    stage.target.clear_faults();
    arrives(&stage, 0, 60);
}

#[test]
fn who_stands_inside_a_batch_that_was_cut_leaves_its_place_to_others() {
    // The parts are copies, of more than a lane's memory; the target takes one of them.
    let (stage, small, _) = cramped_to("within", ("max.message.bytes", "13000000"));
    let _strait = running(&stage);
    let refused = Fault::Refuse(ErrorCode::NOT_ENOUGH_REPLICAS);
    let order = Order::next(ApiKey::Produce, refused).at("topic-large", 0).after(1);
    let refused = stage.target.fault(order.times(u32::MAX));
    stage.source.append("topic-large", 0, &boulder(36 << 20, 1)).unwrap();
    wait_until("a part to be refused", 30, || stage.target.fault_struck(refused) > 0);
    let part = end(&stage.target, "topic-large", 0);
    assert!((1..100).contains(&part), "{part} of 100 records");
    stage.source.append("topic-large", 1, &small).unwrap();
    arrives(&stage, 1, 60);
    assert_eq!(end(&stage.target, "topic-large", 0), part);
    stage.target.clear_faults();
    wait_until("the rest", 60, || end(&stage.target, "topic-large", 0) == 100);
    assert_same_records(&stage, "topic-large", 0);
}

#[test]
fn what_nobody_can_be_asked_about_leaves_its_place_to_others() {
    let (stage, batch, leaders) = cramped("doubt");
    let _strait = running(&stage);
    // Of what was sent nobody says whether it came.
    let gone = |api| Order::next(api, Fault::CloseBefore).on(leaders[0]).times(u32::MAX);
    let cut = [ApiKey::Produce, ApiKey::ListOffsets].map(|api| stage.target.fault(gone(api)));
    one_behind_the_other(&stage, &batch, cut[0]);
    arrives(&stage, 1, 120);
    assert_eq!(end(&stage.target, "topic-large", 0), 0);
    stage.target.clear_faults();
    arrives(&stage, 0, 60);
}
