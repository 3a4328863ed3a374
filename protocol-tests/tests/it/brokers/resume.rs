//! Frozen, drained, reset, one of several: it goes on where it was, once.

use std::time::Duration;

use protocol_tests::compare::assert_same_digest;
use protocol_tests::copying::{assert_copied, copy_once, sized, wait_committed};
use protocol_tests::lab::Version::{V39, V43};
use protocol_tests::lab::{Listener, pool};
use protocol_tests::ports;
use protocol_tests::strait::{Config, Strait};
use protocol_tests::wait::{holds_for, wait_for, wait_until};
use serde_json::json;

#[test]
fn drained_under_load_it_commits_what_was_acknowledged_and_ends_well() {
    let (source, target) = pool::pair(V43, V43);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("drained", 4, json!({}));
    let config =
        Config::new("drained", (&source, Listener::Plain), (&target, Listener::Tls), &["drained"]);
    let mut strait = Strait::start(&config);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            here.produce(
                "drained",
                json!({ "duration_ms": 12_000, "per_second": 5000, "partitions": [0, 1, 2, 3] }),
            )
        });
        for _ in 0..2 {
            let before: i64 =
                if there.exists("drained") { there.ends("drained").iter().sum() } else { 0 };
            wait_until("progress", 30, || {
                there.exists("drained") && there.ends("drained").iter().sum::<i64>() > before + 2000
            });
            let (code, time) = strait.terminate();
            assert_eq!(code, 0, "{}", strait.log());
            assert!(time < Duration::from_secs(10), "{time:?}");
            // Records without holes: what is on the target is what is committed.
            let committed: i64 = here.group_offsets(&config.group()).iter().map(|o| o.offset).sum();
            assert_eq!(committed, there.ends("drained").iter().sum::<i64>());
            strait.restart();
        }
        load.join().unwrap();
    });
    wait_committed(&here, &config.group(), "drained", 60);
    assert_same_digest(&here.summary("drained"), &there.summary("drained"));
    strait.assert_clean_log();
}

#[test]
fn a_second_sigterm_ends_it_at_once() {
    let (source, target) = pool::pair(V43, V43);
    let here = source.admin();
    here.create_topic("second", 1, json!({}));
    let config =
        Config::new("second", (&source, Listener::Plain), (&target, Listener::Tls), &["second"]);
    let mut strait = Strait::start(&config);
    strait.signal("TERM");
    strait.signal("TERM");
    let code = strait.wait(10);
    assert!([0, 1, 130, 143].contains(&code), "{code}");
}

#[test]
fn frozen_for_longer_than_a_session_it_goes_on() {
    let (source, target) = pool::pair(V43, V39);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("frozen", 2, json!({}));
    let config =
        Config::new("frozen", (&source, Listener::Plain), (&target, Listener::Tls), &["frozen"]);
    let mut strait = Strait::start(&config);
    strait.expect_in_log("WARN");
    here.produce("frozen", json!({ "count": 1000, "partitions": [0, 1] }));
    wait_until("progress", 30, || there.exists("frozen") && there.ends("frozen")[0] > 0);
    strait.signal("STOP");
    let started = std::sync::Mutex::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            here.produce(
                "frozen",
                json!({ "count": 3000, "per_second": sized(600, 60), "partitions": [0, 1] }),
            );
            *started.lock().unwrap() = true;
        });
        wait_until("the pause", 120, || *started.lock().unwrap());
    });
    strait.signal("CONT");
    wait_committed(&here, &config.group(), "frozen", 60);
    assert_same_digest(&here.summary("frozen"), &there.summary("frozen"));
    strait.assert_clean_log();
}

#[test]
fn rule_38_what_retention_took_while_it_was_away_is_named() {
    let (source, target) = pool::pair(V43, V43);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("retention", 1, json!({}));
    here.produce("retention", json!({ "count": 100 }));
    let config = Config::new(
        "retention",
        (&source, Listener::Plain),
        (&target, Listener::Tls),
        &["retention"],
    );
    copy_once(&config);
    here.produce("retention", json!({ "count": 100, "from": 100 }));
    here.delete_records("retention", 0, 150);
    let mut strait = Strait::start(&config);
    strait.expect_in_log("ST-");
    wait_for("the loss with its offsets", 30, || {
        let log = strait.log();
        let named = log
            .lines()
            .any(|l| l.contains("retention-0") && l.contains("100") && l.contains("150"));
        if named { Ok(()) } else { Err(log) }
    });
    assert!(
        here.group_offsets(&config.group())[0].offset == 100
            || strait.metric("strait_gap_offsets_total", &[]) == 50.0
    );
    assert!([100, 150].contains(&there.ends("retention")[0]));
    strait.assert_clean_log();
}

#[test]
fn without_its_position_it_does_not_copy_twice() {
    let (source, target) = pool::pair(V43, V39);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("forgotten", 1, json!({}));
    here.produce("forgotten", json!({ "count": 100 }));
    let config = Config::new(
        "forgotten",
        (&source, Listener::Plain),
        (&target, Listener::Tls),
        &["forgotten"],
    );
    let mut first = Strait::start(&config);
    wait_committed(&here, &config.group(), "forgotten", 30);
    assert_eq!(first.terminate().0, 0);
    wait_until("the empty group", 60, || {
        here.try_call(json!({ "call": "delete_group", "group": config.group() })).is_ok()
    });
    let mut strait = Strait::start(&config);
    strait.expect_in_log("ST-");
    wait_for("a parked mirror", 30, || {
        let status = strait.status().to_string();
        if status.contains("parked") { Ok(()) } else { Err(status) }
    });
    holds_for("nothing is copied twice", Duration::from_secs(1), || {
        there.ends("forgotten") == [100]
    });
    strait.assert_clean_log();
}

/// Started twice by mistake or on purpose: they are two members that share.
#[test]
fn two_instances_share_one_is_killed_and_one_joins_later() {
    // The classic protocol, then KIP-848.
    for (from, to) in [(V39, V43), (V43, V39)] {
        let (source, target) = pool::pair(from, to);
        let (here, there) = (source.admin(), target.admin());
        let topic = format!("shared-{from:?}");
        here.create_topic(&topic, 6, json!({}));
        let config =
            Config::new(&topic, (&source, Listener::Plain), (&target, Listener::Tls), &[&topic]);
        let held = |strait: &Strait| strait.status()["links"][0]["partitions"].as_u64().unwrap();
        let wait_shared = |what: &str, both: [&Strait; 2], seconds| {
            wait_for(what, seconds, || {
                let held = both.map(held);
                if held == [3, 3] { Ok(()) } else { Err(format!("{held:?}")) }
            });
        };
        let load_ms = sized(20_000, 120_000);
        let first = Strait::start(&config);
        let third = std::thread::scope(|scope| {
            let load = scope.spawn(|| {
                let all = [0, 1, 2, 3, 4, 5];
                here.produce(
                    &topic,
                    json!({ "duration_ms": load_ms, "per_second": 2000, "partitions": all }),
                )
            });
            let mut second = Strait::start(&config);
            wait_shared("two that share", [&first, &second], 60);
            let begun = first.log().matches("mirrors begin").count();
            wait_until("the second copies", 30, || {
                second.metric("strait_acked_records_total", &[]) > 1000.0
            });
            assert_eq!(first.log().matches("mirrors begin").count(), begun, "what stays goes on");
            second.kill();
            // A third joins before the session of the dead one has ended.
            let third = Strait::start(&config);
            wait_shared("the first and the third", [&first, &third], 90);
            load.join().unwrap();
            third
        });
        wait_committed(&here, &config.group(), &topic, 90);
        assert_copied(&here, &there, &topic);
        // Nobody stood in anybody's way.
        first.assert_clean_log();
        third.assert_clean_log();
    }
}

#[test]
fn reset_of_a_running_group_is_refused_and_of_a_stopped_one_obeyed() {
    for version in [V39, V43] {
        let (source, target) = pool::pair(version, V43);
        let (here, there) = (source.admin(), target.admin());
        let topic = format!("reset-{version:?}");
        here.create_topic(&topic, 1, json!({}));
        here.produce(&topic, json!({ "count": 100 }));
        let config =
            Config::new(&topic, (&source, Listener::Plain), (&target, Listener::Tls), &[&topic]);
        copy_once(&config);
        let reset = || {
            let arguments = ["reset", &topic, "--topic", &topic, "--to", "40", "-o", "json"];
            protocol_tests::strait::run(&config.yaml(ports::free()), &arguments)
        };
        let at = || here.group_offsets(&config.group())[0].offset;
        // A member stands for a running instance. It says nothing more, so its session ends by itself.
        wait_until("the empty group", 60, || reset().code == 0);
        assert_eq!(at(), 40);
        copy_once(&config);
        source.nodes[0].client().join_group(&config.group());
        let output = reset();
        assert!(output.code == 1 && output.err.contains("ST-059"), "{output:?}");
        assert_eq!(at(), 100);
        wait_until("the end of the member's session", 60, || reset().code == 0);
        copy_once(&config);
        // A hundred, and twice what lies behind 40.
        assert_eq!((there.ends(&topic)[0], at()), (220, 100));
    }
}
