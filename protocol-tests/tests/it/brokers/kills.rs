//! Killed at random under load, as the binary ships, and all that was written is counted against all that the target
//! holds. `STRAIT_FULL=1` kills for ten minutes and ten million records; `STRAIT_RUN_SEED` repeats the moments.
#![allow(clippy::disallowed_methods, reason = "it kills real processes by the real clock")]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use protocol_tests::agent::Admin;
use protocol_tests::copying::{full, sized, wait_committed};
use protocol_tests::lab::Version::{V39, V43};
use protocol_tests::lab::{Cluster, Listener, Version};
use protocol_tests::load::{Dice, Load, say};
use protocol_tests::strait::{Config, Strait};
use protocol_tests::tally::Tally;
use protocol_tests::wait::holds_for;
use serde_json::json;

const TOPIC: &str = "killed";
const PARTITIONS: i32 = 4;

/// How often the process was killed.
#[derive(Default)]
struct Kills {
    all: u32,
    /// Of these, those that found records copied since the one before.
    midway: u32,
}

/// Kills a moment after each start until the load is over.
fn kill_at_random(strait: &mut Strait, there: &Admin, over: impl Fn() -> bool) -> Kills {
    let mut dice = Dice::default();
    say(&format!("kills: STRAIT_RUN_SEED={}", dice.seed));
    let held = || if there.exists(TOPIC) { there.ends(TOPIC).iter().sum::<i64>() } else { 0 };
    let (mut kills, mut seen) = (Kills::default(), 0);
    while !over() {
        // From nought: some die while they begin.
        let pause = dice.between(Duration::ZERO, Duration::from_secs(5));
        holds_for("it runs by itself", pause, || strait.exit_code().is_none());
        strait.kill();
        let now = held();
        kills.midway += u32::from(now > seen);
        (seen, kills.all) = (now, kills.all + 1);
        strait.restart();
    }
    kills
}

/// The whole script between two releases, with further lines of the link; each record must arrive once and in order.
fn killed_at_random(from: Version, to: Version, link: &[&str]) {
    let (source, target) = Cluster::builder(from).start_both(Cluster::builder(to));
    let (here, there) = (source.admin(), target.admin());
    here.create_topic(TOPIC, PARTITIONS, json!({}));
    let listeners = ((&source, Listener::Plain), (&target, Listener::Tls));
    let mut config = Config::new("killed", listeners.0, listeners.1, &[TOPIC]);
    config.link.extend(link.iter().map(ToString::to_string));
    let mut strait = Strait::start(&config);
    strait.expect_in_log("WARN");
    let (least, least_records) = sized((15, 20_000), (600, 10_000_000));
    let over = AtomicBool::new(false);
    let begin = Instant::now();
    let (written, kills) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let goes_on =
                |written| begin.elapsed() < Duration::from_secs(least) || written < least_records;
            let written = Load::new(sized(3000, 18_000), PARTITIONS).run(&here, TOPIC, goes_on);
            over.store(true, Relaxed);
            written
        });
        let done = || over.load(Relaxed) || load.is_finished();
        let kills = kill_at_random(&mut strait, &there, done);
        (load.join().unwrap(), kills)
    });
    let seconds = begin.elapsed().as_secs();
    wait_committed(&here, &config.group(), TOPIC, sized(120, 1200));
    let tally = Tally::of(&here.held(TOPIC), &there.held(TOPIC));
    let Tally { source, lost, duplicated, reordered, foreign, changed, .. } = tally;
    say(&format!(
        "killed {} -> {} {link:?}: {source} records in {seconds} s, {} kills, {} of them midway, {lost} lost, \
         {duplicated} doubled, {reordered} reordered, {foreign} foreign, {changed} changed",
        from.number(),
        to.number(),
        kills.all,
        kills.midway
    ));
    assert!(tally.is_exact(), "{tally:?}");
    assert_eq!(source, written);
    assert!(
        kills.midway >= sized(2, 60) && kills.midway * 2 > kills.all,
        "too few found it at work"
    );
    strait.assert_clean_log();
}

#[test]
fn rule_32_33_killed_at_random_from_3_9_to_4_3_each_record_arrives_once() {
    killed_at_random(V39, V43, &[]);
}

#[test]
fn rule_32_33_killed_at_random_from_4_3_to_3_9_each_record_arrives_once() {
    killed_at_random(V43, V39, &[]);
}

#[test]
fn killed_at_random_between_equals_each_record_arrives_once() {
    killed_at_random(V43, V43, &[]);
    if full() {
        killed_at_random(V39, V39, &[]);
    }
}
