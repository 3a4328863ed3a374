//! A faulty network between it and either cluster: cut, sliced, slow, silent, damaged.

use std::time::Duration;

use protocol_tests::chaos::Proxy;
use protocol_tests::compare::assert_same_digest;
use protocol_tests::copying::{assert_copied, sized, wait_committed};
use protocol_tests::lab::Version::{V39, V43};
use protocol_tests::lab::{Cluster, Listener, pool};
use protocol_tests::strait::{Config, Strait};
use protocol_tests::wait::{wait_pacing, wait_until};
use serde_json::json;

/// A cluster behind a proxy on one listener.
fn behind(proxy: &Proxy, listener: Listener) -> Cluster {
    let cluster = Cluster::builder(V43).advertise(1, listener, &proxy.address()).start();
    proxy.forward_to(&cluster.nodes[0].address(listener));
    cluster
}

#[test]
fn rule_23_61_cut_again_and_again_it_loses_and_repeats_nothing() {
    let (to_source, to_target) = (Proxy::listen(), Proxy::listen());
    let source = behind(&to_source, Listener::ProxiedPlain);
    let target = behind(&to_target, Listener::ProxiedTls);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("cut", 4, json!({}));
    let config = Config::new(
        "cut",
        (&source, Listener::ProxiedPlain),
        (&target, Listener::ProxiedTls),
        &["cut"],
    );
    let mut strait = Strait::start(&config);
    strait.expect_in_log("WARN");
    strait.expect_in_log("ST-027");
    let seconds = sized(15, 1800);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let props = json!({ "linger.ms": "2", "batch.size": "16384" });
            here.produce(
                "cut",
                json!({
                    "duration_ms": seconds * 1000, "per_second": 5000, "size": 500,
                    "partitions": [0, 1, 2, 3], "props": props,
                }),
            )
        });
        let mut turn = 0_u64;
        wait_pacing("end of the load", seconds + 60, Duration::from_millis(350), || {
            turn += 1;
            if turn.is_multiple_of(2) {
                to_source.cut()
            } else {
                to_target.cut()
            };
            load.is_finished()
        });
        load.join().unwrap();
    });
    wait_committed(&here, &config.group(), "cut", 60);
    println!(
        "cut {} connections to the source, {} to the target",
        to_source.cuts(),
        to_target.cuts()
    );
    assert!(to_source.cuts() > 10 && to_target.cuts() > 10);
    assert_same_digest(&here.summary("cut"), &there.summary("cut"));
    strait.assert_clean_log();
}

#[test]
fn rule_15_a_bit_flipped_on_the_way_from_the_source_never_arrives() {
    let proxy = Proxy::listen();
    let source = behind(&proxy, Listener::ProxiedPlain);
    let target = pool::shared(V39, "target");
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("flipped", 1, json!({}));
    let props = json!({ "batch.size": "65536", "linger.ms": "20" });
    here.produce("flipped", json!({ "count": 40_000, "size": 500, "props": props }));
    let config = Config::new(
        "flipped",
        (&source, Listener::ProxiedPlain),
        (&target, Listener::Tls),
        &["flipped"],
    );
    // Inside the records of the first answers, far from any frame's header.
    let flips = 5;
    let mut strait = Strait::start(&config);
    strait.expect_in_log("WARN");
    strait.expect_in_log("ERROR");
    for round in 0..flips {
        proxy.to_client().flip_after(300_000 + round * 77_777);
        here.produce("flipped", json!({ "count": 4_000, "size": 500, "props": props }));
        wait_until("the flip", 60, || proxy.to_client().flipped() == round + 1);
        // Only then the next: two in a row look like a batch that is damaged where it lies.
        wait_committed(&here, &config.group(), "flipped", 60);
    }
    assert_same_digest(&here.summary("flipped"), &there.summary("flipped"));
    strait.assert_clean_log();
}

#[test]
fn slices_of_seven_bytes_and_a_slow_line_change_nothing() {
    let proxy = Proxy::listen();
    let target = behind(&proxy, Listener::ProxiedTls);
    let source = pool::shared(V39, "source");
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("sliced", 2, json!({}));
    here.produce("sliced", json!({ "count": 1500, "kind": "varied", "partitions": [0, 1] }));
    proxy.to_server().slice(7);
    proxy.to_client().slice(1);
    proxy.round_trip(Duration::from_millis(40));
    let config = Config::new(
        "sliced",
        (&source, Listener::Plain),
        (&target, Listener::ProxiedTls),
        &["sliced"],
    );
    let strait = Strait::start(&config);
    wait_committed(&here, &config.group(), "sliced", 90);
    assert!(proxy.to_server().delayed() > 0);
    assert_copied(&here, &there, "sliced");
    strait.assert_clean_log();
}

#[test]
fn a_target_that_goes_silent_is_left_and_found_again() {
    let proxy = Proxy::listen();
    let target = behind(&proxy, Listener::ProxiedTls);
    let source = pool::shared(V43, "source");
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("silent", 1, json!({}));
    let config = Config::new(
        "silent",
        (&source, Listener::Plain),
        (&target, Listener::ProxiedTls),
        &["silent"],
    );
    let mut strait = Strait::start(&config);
    strait.expect_in_log("WARN");
    here.produce("silent", json!({ "count": 100 }));
    wait_committed(&here, &config.group(), "silent", 30);
    let before = proxy.accepted();
    proxy.to_client().stall(true);
    here.produce("silent", json!({ "count": 500, "from": 100 }));
    wait_until("the silence to be noticed", 90, || proxy.accepted() > before);
    assert!(proxy.to_client().held() > 0);
    assert_eq!(
        here.group_offsets(&config.group())[0].offset,
        100,
        "nothing is committed without an answer"
    );
    proxy.to_client().stall(false);
    wait_committed(&here, &config.group(), "silent", 60);
    assert_copied(&here, &there, "silent");
    strait.assert_clean_log();
}

#[test]
fn a_cluster_that_is_away_at_the_start_is_waited_for() {
    let proxy = Proxy::listen();
    let target = behind(&proxy, Listener::ProxiedTls);
    let source = pool::shared(V43, "source");
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("away", 1, json!({}));
    here.produce("away", json!({ "count": 50 }));
    proxy.refuse(true);
    let config =
        Config::new("away", (&source, Listener::Plain), (&target, Listener::ProxiedTls), &["away"]);
    let mut strait = Strait::start(&config);
    strait.expect_in_log("ST-");
    wait_until("some attempts", 30, || proxy.accepted() >= 3);
    proxy.refuse(false);
    wait_committed(&here, &config.group(), "away", 40);
    assert_copied(&here, &there, "away");
    strait.assert_clean_log();
}

#[test]
fn rule_41_lost_fetch_sessions_lose_nothing() {
    // Two sessions for everybody: ours are thrown out by the readers that compare.
    let source =
        Cluster::builder(V43).set("max.incremental.fetch.session.cache.slots", "2").start();
    let target = pool::shared(V43, "target");
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("sessions", 6, json!({}));
    let config = Config::new(
        "sessions",
        (&source, Listener::Plain),
        (&target, Listener::Tls),
        &["sessions"],
    );
    let strait = Strait::start(&config);
    let partitions = [0, 1, 2, 3, 4, 5];
    for round in 0..5 {
        here.produce(
            "sessions",
            json!({ "count": 2000, "from": round * 2000, "partitions": partitions }),
        );
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| here.summary("sessions"));
            }
        });
    }
    wait_committed(&here, &config.group(), "sessions", 60);
    assert_copied(&here, &there, "sessions");
    strait.assert_clean_log();
}

#[test]
fn rule_40_a_throttled_reader_and_writer_keep_their_pace_and_their_records() {
    let source = Cluster::start(V39);
    let target = Cluster::start(V43);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("throttled", 2, json!({}));
    here.produce("throttled", json!({ "count": 12_000, "size": 500, "partitions": [0, 1] }));
    here.call(
        json!({ "call": "quota", "client_id": "", "limits": { "consumer_byte_rate": 300_000 } }),
    );
    there.call(
        json!({ "call": "quota", "client_id": "", "limits": { "producer_byte_rate": 300_000 } }),
    );
    let config = Config::new(
        "throttled",
        (&source, Listener::Plain),
        (&target, Listener::Tls),
        &["throttled"],
    );
    let mut strait = Strait::start(&config);
    strait.expect_in_log("WARN");
    wait_committed(&here, &config.group(), "throttled", 120);
    assert!(strait.metric("strait_throttle_seconds_total", &[]) > 0.0, "the quota never struck");
    here.call(
        json!({ "call": "quota", "client_id": "", "limits": { "consumer_byte_rate": null } }),
    );
    assert_copied(&here, &there, "throttled");
    strait.assert_clean_log();
}
