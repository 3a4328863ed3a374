//! In a memory cgroup a tenth above what it prints at start, as an operator would set it: the kernel has nothing to kill.

use std::io::Write;
use std::time::Duration;

use protocol_tests::bounds::{FIXED_BYTES, assert_within};
use protocol_tests::cgroup::MemoryGroup;
use protocol_tests::copying::sized;
use protocol_tests::strait::Strait;
use protocol_tests::wait::wait_for;
use strait::embedded::{ApiKey, Fault, FaultId, Order};

use super::sizes::{LARGE, assert_same_records, batch_of, end, memory, of_brokers};
use crate::stage::Stage;

/// How long a broker of the target does not read what a connection brings, twice.
const DEAF: Duration = Duration::from_secs(5);
const BROKERS: i32 = 4;
const PARTITIONS: i32 = 8;

/// The figure of its first line, in bytes. One larger batch comes on top.
fn printed(strait: &Strait) -> u64 {
    let log = wait_for("its first line", 10, || {
        let log = strait.log();
        if log.contains(" MiB and one larger batch") { Ok(log) } else { Err(log) }
    });
    let figure = log.split(" MiB and one larger batch").next().unwrap();
    let figure: f64 = figure.rsplit(' ').next().unwrap().parse().expect("a figure");
    (figure * f64::from(1 << 20)) as u64
}

/// A stage whose clusters have four brokers each, and what of Strait's memory it is started with.
fn stage(name: &str) -> (Stage, u64) {
    let mut stage = of_brokers(name, BROKERS as usize);
    let budget = memory(&mut stage, 64);
    stage.source.create_topic("topic-large", PARTITIONS, -1, &[LARGE]).unwrap();
    stage.source.create_topic("topic-small", PARTITIONS, -1, &[]).unwrap();
    (stage, budget)
}

/// Starts Strait in the group; where there is none, says so past the test's own output, which nobody sees if it is well.
fn start(stage: &Stage, group: Result<&MemoryGroup, &String>) -> Strait {
    let mut strait = match group {
        Ok(group) => Strait::start_under(&stage.config, &group.shell(), &[]),
        Err(why) => {
            let told = format!("no memory cgroup ({why}): its resident memory alone is watched\n");
            std::io::stderr().write_all(told.as_bytes()).unwrap();
            Strait::start(&stage.config)
        }
    };
    strait.expect_in_log("WARN");
    strait
}

/// Writes batches that fit and batches of these sizes, to a target whose brokers are deaf at first.
fn load(stage: &Stage, sizes: [usize; 2]) -> Vec<FaultId> {
    let deaf = |broker| Order::next(ApiKey::Produce, Fault::Delay(DEAF)).on(broker).times(2);
    let faults = (1..=BROKERS).map(|broker| stage.target.fault(deaf(broker))).collect();
    let small = batch_of(64 << 10);
    for mebibytes in sizes {
        let large = batch_of(mebibytes << 20);
        for partition in 0..PARTITIONS {
            for _ in 0..128 {
                stage.source.append("topic-small", partition, &small).unwrap();
            }
            stage.source.append("topic-large", partition, &large).unwrap();
        }
    }
    faults
}

#[test]
fn in_a_cgroup_a_tenth_above_what_it_prints_it_is_not_killed() {
    let ((stage, budget), group) = (stage("roomy"), MemoryGroup::new("roomy"));
    let mut strait = start(&stage, group.as_ref());
    let sizes = sized([20, 40], [40, 99]);
    let largest = sizes.into_iter().max().unwrap_or(0) as u64;
    assert_eq!(printed(&strait), budget + FIXED_BYTES);
    let bound = printed(&strait) + (largest << 20);
    if let Ok(group) = &group {
        group.limit(bound + bound / 10);
    }
    let faults = load(&stage, sizes);
    for (topic, partition) in ["topic-small", "topic-large"]
        .into_iter()
        .flat_map(|topic| (0..PARTITIONS).map(move |partition| (topic, partition)))
    {
        let wanted = end(&stage.source, topic, partition);
        wait_for("its records", 180, || {
            if let Some(code) = strait.exit_code() {
                let kills = group.as_ref().map_or(0, MemoryGroup::kills);
                panic!("it ended with {code}; the kernel killed {kills} for want of memory");
            }
            let there = end(&stage.target, topic, partition);
            if there == wanted { Ok(()) } else { Err(format!("{topic}: {there} of {wanted}")) }
        });
        assert_same_records(&stage, topic, partition);
    }
    assert!(faults.into_iter().all(|fault| stage.target.fault_struck(fault) == 2));
    let peak = assert_within(&strait, budget + (largest << 20));
    let charged = group.as_ref().ok().and_then(MemoryGroup::peak_bytes);
    println!(
        "of {} MiB: {peak} MiB resident at most, {:?} MiB charged",
        bound >> 20,
        charged.map(|bytes| bytes >> 20)
    );
    assert_eq!(group.as_ref().map_or(0, MemoryGroup::kills), 0);
    assert_eq!(strait.terminate().0, 0, "{}", strait.log());
    strait.assert_clean_log();
}

/// That the other test can fail: the kernel does hold it to its group.
#[test]
fn in_a_cgroup_of_half_of_what_it_prints_it_is_killed() {
    let ((stage, _), group) = (stage("narrow"), MemoryGroup::new("narrow"));
    let mut strait = start(&stage, group.as_ref());
    let Ok(group) = &group else { return };
    group.limit(printed(&strait) / 2);
    load(&stage, [20, 40]);
    assert_eq!(strait.wait(120), 137, "{}", strait.log());
    assert_eq!(group.kills(), 1);
}
