//! The holes that a plain idempotent client leaves on stock brokers, constructed again, each with proof that its fault
//! fired. Three target brokers; the source is one.

use std::sync::Arc;
use std::time::Duration;

use protocol_tests::copying::{assert_copied, wait_committed};
use protocol_tests::lab::Version::V43;
use protocol_tests::lab::{Cluster, Listener, pool};
use protocol_tests::strait::{Config, Strait};
use protocol_tests::wait::{holds_for, wait_for, wait_pacing, wait_until};
use serde_json::{Value, json};

fn target(properties: &[(&str, &str)]) -> (Arc<Cluster>, Cluster) {
    let source = pool::shared(V43, "source");
    let target =
        properties.iter().fold(Cluster::builder(V43).nodes(3), |b, (k, v)| b.set(k, v)).start();
    (source, target)
}

fn small_batches(count: u64) -> Value {
    json!({ "count": count, "size": 50, "props": { "batch.size": "0", "max.in.flight.requests.per.connection": "5" } })
}

fn link(name: &str, source: &Cluster, target: &Cluster) -> Config {
    Config::new(name, (source, Listener::Plain), (target, Listener::Tls), &[name])
}

/// Errors of this name that Strait counted on a side.
fn errors(strait: &Strait, name: &str) -> f64 {
    strait.metric("strait_request_errors_total", &[&format!("error=\"{name}\"")])
}

#[test]
fn a_first_batch_that_is_refused_lets_nothing_behind_it_pass() {
    let (source, target) = target(&[]);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("refused", 1, json!({}));
    there.create_assigned("refused", &[&[1, 2]], json!({ "max.message.bytes": "1000" }));
    here.produce("refused", json!({ "count": 1, "size": 5000 }));
    here.produce("refused", small_batches(200));
    let config = link("refused", &source, &target);
    let mut strait = Strait::start(&config);
    strait.expect_in_log("ST-");
    wait_for("the parked mirror", 30, || {
        let status = strait.status().to_string();
        if status.contains("parked") { Ok(()) } else { Err(status) }
    });
    holds_for("nothing is appended", Duration::from_secs(2), || there.ends("refused") == [0]);
    assert!(here.group_offsets(&config.group()).iter().all(|offset| offset.offset == 0));
    strait.assert_clean_log();
}

/// Leadership goes to a replica that holds no state of ours, while a fresh mirror sends.
#[test]
fn a_leader_without_state_leaves_no_hole() {
    let (source, target) = target(&[]);
    let (here, there) = (source.admin(), target.admin());
    let mut refusals = 0.0;
    for round in 0..3 {
        let topic = format!("fresh-{round}");
        here.create_topic(&topic, 1, json!({}));
        here.produce(&topic, small_batches(3000));
        there.create_assigned(&topic, &[&[1, 2]], json!({}));
        // The preferred leader is the other one before the first batch; the election comes while batches are sent.
        there.reassign(&topic, 0, &[2, 1]);
        wait_until("the reassignment", 20, || there.describe(&topic)[0].replicas == [2, 1]);
        let config = link(&topic, &source, &target);
        let mut strait = Strait::start(&config);
        strait.expect_in_log("WARN");
        wait_pacing("the first batch", 30, Duration::from_millis(1), || there.ends(&topic)[0] > 0);
        there.elect(&topic, 0).unwrap();
        wait_until("the new leader", 20, || there.describe(&topic)[0].leader == 2);
        here.produce(&topic, small_batches(500));
        wait_committed(&here, &config.group(), &topic, 60);
        assert_copied(&here, &there, &topic);
        refusals += errors(&strait, "NOT_LEADER_OR_FOLLOWER");
        strait.assert_clean_log();
    }
    println!("answers NOT_LEADER_OR_FOLLOWER: {refusals}");
}

/// Too few replicas: everything is refused until the frozen one is back, then everything is taken, in order.
fn storm(name: &str, timestamp: Option<i64>, primed: bool) {
    let (source, mut target) = target(&[]);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic(name, 1, json!({}));
    there.create_assigned(name, &[&[1, 2]], json!({ "min.insync.replicas": "2" }));
    let records = |count: u64| {
        let mut args = small_batches(count);
        if let Some(time) = timestamp {
            args["timestamp"] = json!(time);
        }
        args
    };
    let config = link(name, &source, &target);
    let mut strait = if primed {
        here.produce(name, records(3));
        let strait = Strait::start(&config);
        wait_committed(&here, &config.group(), name, 30);
        strait
    } else {
        target.node(2).freeze();
        wait_until("the ISR to shrink", 30, || there.describe(name)[0].isr == [1]);
        Strait::start(&config)
    };
    strait.expect_in_log("WARN");
    strait.expect_in_log("NOT_ENOUGH_REPLICAS");
    if primed {
        target.node(2).freeze();
        wait_until("the ISR to shrink", 30, || there.describe(name)[0].isr == [1]);
    }
    here.produce(name, records(2000));
    wait_until("the refusals", 30, || errors(&strait, "NOT_ENOUGH_REPLICAS") >= 2.0);
    let before = there.ends(name)[0];
    assert_eq!(before, if primed { 3 } else { 0 });
    target.node(2).thaw();
    wait_committed(&here, &config.group(), name, 90);
    assert_copied(&here, &there, name);
    strait.assert_clean_log();
}

#[test]
fn rule_29_too_few_replicas_leave_no_hole_in_a_fresh_mirror() {
    storm("storm-fresh", None, false);
}

#[test]
fn rule_29_too_few_replicas_leave_no_hole_with_state() {
    storm("storm-state", None, true);
}

#[test]
fn rule_29_too_few_replicas_leave_no_hole_in_old_records() {
    let day_and_an_hour = 25 * 3600 * 1000;
    storm("storm-old", Some(protocol_tests::raw::batch::now_ms() - day_and_an_hour), true);
}

#[test]
fn rule_59_replicas_lost_in_mid_request_leave_no_hole() {
    let (source, mut target) = target(&[]);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("midway", 1, json!({}));
    there.create_assigned("midway", &[&[1, 2]], json!({ "min.insync.replicas": "2" }));
    let config = link("midway", &source, &target);
    let mut strait = Strait::start(&config);
    strait.expect_in_log("WARN");
    std::thread::scope(|scope| {
        let admin = &here;
        let load = scope
            .spawn(move || admin.produce("midway", json!({ "count": 6000, "per_second": 400 })));
        wait_until("load", 30, || there.ends("midway")[0] > 200);
        target.node(2).freeze();
        wait_until("the ISR to shrink", 30, || there.describe("midway")[0].isr == [1]);
        target.node(2).thaw();
        load.join().unwrap();
    });
    wait_committed(&here, &config.group(), "midway", 90);
    assert_copied(&here, &there, "midway");
    strait.assert_clean_log();
}

#[test]
fn rule_28_a_dead_leader_s_unreplicated_tail_is_sent_again() {
    let (source, mut target) = target(&[]);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("tail", 1, json!({}));
    there.create_assigned("tail", &[&[1, 2]], json!({}));
    let config = link("tail", &source, &target);
    let mut strait = Strait::start(&config);
    strait.expect_in_log("WARN");
    // The follower is frozen and still in the ISR: appended, not replicated; then the leader dies.
    target.node(2).freeze();
    here.produce("tail", small_batches(500));
    let mut leader = target.nodes[0].client();
    wait_until("an unreplicated tail", 3, || {
        // The end as the leader sees it, beyond its high watermark.
        leader.leader_end("tail", 0) > 0
    });
    target.node(1).kill();
    target.node(2).thaw();
    wait_until("the new leader", 60, || there.describe("tail")[0].leader == 2);
    wait_committed(&here, &config.group(), "tail", 90);
    assert_copied(&here, &there, "tail");
    target.restart(1);
    strait.assert_clean_log();
}
