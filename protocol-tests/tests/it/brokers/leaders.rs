//! Three brokers on each side: leaders move, brokers restart and freeze, under load. Nothing is lost or reordered.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use protocol_tests::agent::Admin;
use protocol_tests::compare::assert_same_digest;
use protocol_tests::copying::{sized, wait_committed};
use protocol_tests::lab::Version::{V39, V43};
use protocol_tests::lab::{Cluster, Listener};
use protocol_tests::strait::{Config, Strait};
use protocol_tests::wait::{wait_pacing, wait_until};
use serde_json::json;

const PARTITIONS: [i32; 6] = [0, 1, 2, 3, 4, 5];

fn three_and_three() -> (Cluster, Cluster) {
    let min_isr = ("min.insync.replicas", "2");
    let source = Cluster::builder(V39).nodes(3).set(min_isr.0, min_isr.1);
    let target = Cluster::builder(V43).nodes(3).set(min_isr.0, min_isr.1);
    let (source, target) = source.start_both(target);
    let replicas: &[&[i32]] =
        &[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2], &[1, 3, 2], &[2, 1, 3], &[3, 2, 1]];
    for cluster in [&source, &target] {
        cluster.admin().create_assigned("moving", replicas, json!({}));
    }
    (source, target)
}

fn load(admin: &Admin, seconds: u64) -> u64 {
    let props = json!({
        "acks": "all", "linger.ms": "5", "batch.size": "16384", "compression.type": "lz4",
        "delivery.timeout.ms": "120000", "max.block.ms": "120000",
    });
    admin.produce("moving", json!({
        "duration_ms": seconds * 1000, "per_second": 2000, "size": 300, "partitions": PARTITIONS, "props": props,
    }))
}

/// Ends the moves also where the load fails: nothing else would.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Whether `source` has records in all partitions. No leader goes before: Kafka's own producer stands still for two minutes
/// where a leader refuses its very first batch and takes the next.
fn begun(source: &Admin) -> bool {
    source.summary("moving").iter().all(|partition| partition.count > 0)
}

/// Makes the next replica of a random-looking partition its leader, every two seconds.
fn move_leaders(admin: &Admin, source: &Admin, stop: &AtomicBool, moves: &AtomicU32) {
    let mut turn = 0;
    while !stop.load(Relaxed) && !begun(source) {}
    while !stop.load(Relaxed) {
        let partition = PARTITIONS[turn % PARTITIONS.len()];
        let mut replicas = admin.describe("moving")[partition as usize].replicas.clone();
        replicas.rotate_left(1 + turn % 2);
        admin.reassign("moving", partition, &replicas);
        wait_until("the move", 60, || {
            admin.elect("moving", partition).ok();
            admin.describe("moving")[partition as usize].leader == replicas[0]
        });
        moves.fetch_add(1, Relaxed);
        turn += 1;
    }
}

fn assert_all_there(source: &Cluster, target: &Cluster, config: &Config, acked: u64) {
    wait_committed(&source.admin(), &config.group(), "moving", 90);
    let (expected, copied) = (source.admin().summary("moving"), target.admin().summary("moving"));
    assert_same_digest(&expected, &copied);
    assert_eq!(expected.iter().map(|p| p.count).sum::<u64>(), acked);
}

#[test]
fn rule_30_leaders_that_move_under_load_lose_and_reorder_nothing() {
    let (source, target) = three_and_three();
    let config =
        Config::new("moving", (&source, Listener::Plain), (&target, Listener::Tls), &["moving"]);
    let mut strait = Strait::start(&config);
    strait.expect_in_log("WARN");
    let seconds = sized(25, 120);
    let (stop, moves) = (AtomicBool::new(false), [AtomicU32::new(0), AtomicU32::new(0)]);
    let acked = std::thread::scope(|scope| {
        let _stops = Stops(&stop);
        scope.spawn(|| move_leaders(&source.admin(), &source.admin(), &stop, &moves[0]));
        scope.spawn(|| move_leaders(&target.admin(), &source.admin(), &stop, &moves[1]));
        load(&source.admin(), seconds)
    });
    println!("{acked} records, leader moves: {moves:?}");
    assert!(moves.iter().all(|count| count.load(Relaxed) >= 5), "{moves:?}");
    assert_all_there(&source, &target, &config, acked);
    strait.assert_clean_log();
}

#[test]
fn rule_60_brokers_that_restart_under_load_lose_and_reorder_nothing() {
    let (mut source, mut target) = three_and_three();
    let config =
        Config::new("moving", (&source, Listener::Plain), (&target, Listener::Tls), &["moving"]);
    let mut strait = Strait::start(&config);
    strait.expect_in_log("WARN");
    let (here, rounds) = (source.admin(), sized(1, 5));
    let acked = std::thread::scope(|scope| {
        let load = scope.spawn(move || load(&here, sized(45, 300)));
        let admin = source.admin();
        wait_until("the load's first records", 60, || begun(&admin));
        for round in 0..rounds {
            for cluster in [&mut source, &mut target] {
                let id = 1 + round % 3;
                if round % 2 == 0 {
                    cluster.node(id).kill()
                } else {
                    cluster.node(id).stop()
                }
                cluster.restart(id);
                let admin = cluster.admin();
                wait_pacing("full ISR", 60, Duration::from_millis(200), || {
                    admin.describe("moving").iter().all(|p| p.isr.len() == 3)
                });
            }
        }
        load.join().unwrap()
    });
    assert_all_there(&source, &target, &config, acked);
    strait.assert_clean_log();
}
