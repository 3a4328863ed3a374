//! Killed at random under load, as the binary ships, and all that was written is counted against all that the target
//! holds. `STRAIT_FULL=1` kills for ten minutes and ten million records; `STRAIT_RUN_SEED` repeats the moments.
#![allow(clippy::disallowed_methods, reason = "it kills real processes by the real clock")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use protocol_tests::agent::Admin;
use protocol_tests::chaos::Proxy;
use protocol_tests::copying::{full, sized, wait_committed};
use protocol_tests::lab::Version::{V39, V43};
use protocol_tests::lab::{Cluster, Listener, Version};
use protocol_tests::load::{Dice, Load, say};
use protocol_tests::raw::batch::now_ms;
use protocol_tests::strait::{Config, Strait};
use protocol_tests::tally::{Stretch, Tally};
use protocol_tests::wait::{holds_for, wait_pacing, wait_until};
use serde_json::json;

const TOPIC: &str = "killed";
const PARTITIONS: i32 = 4;

/// How often the process was killed.
#[derive(Debug, Default)]
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
pub(super) fn killed_at_random(from: Version, to: Version, link: &[&str]) {
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
    assert!(strait.told_doubles().is_empty(), "of records so young there is none");
    // Of a few kills most may come before it has begun to copy again, by chance or on a busy machine.
    let most = kills.all < 20 || kills.midway * 2 > kills.all;
    assert!(kills.midway >= sized(2, 60) && most, "too few found it at work: {kills:?}");
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

/// A week: far behind the day for which a broker remembers a producer by its records' time.
const WEEK_MS: i64 = 7 * 24 * 3600 * 1000;
/// How late the last requests of a dead process or connection come.
const LATE: Duration = Duration::from_millis(2500);

/// Waits until something more is copied: after a kill old records wait for what may come late.
fn wait_progress(there: &Admin) {
    let sum = || there.ends(TOPIC).iter().sum::<i64>();
    let before = sum();
    wait_pacing("progress", 120, Duration::from_millis(250), || sum() > before);
}

/// What became of records a week old.
pub(super) struct Old {
    pub(super) tally: Tally,
    /// The stretches that Strait told of, by partition.
    told: BTreeMap<i32, i64>,
    /// The same as they are on the target.
    doubles: BTreeMap<i32, i64>,
    pub(super) batches_told: usize,
    /// A batch of each partition for each lost connection.
    most: usize,
}

/// Records a week old, and requests that come after the death of who sent them. The broker forgets their numbers within
/// milliseconds.
pub(super) fn killed_and_cut_amid_old_records(to: Version, link: &[&str]) -> Old {
    let proxy = Proxy::listen();
    let target = Cluster::builder(to)
        .advertise(1, Listener::ProxiedTls, &proxy.address())
        .set("producer.id.expiration.check.interval.ms", "5");
    let (source, target) = Cluster::builder(V43).start_both(target);
    proxy.forward_to(&target.nodes[0].address(Listener::ProxiedTls));
    let (here, there) = (source.admin(), target.admin());
    // Else both sides delete them at once.
    here.create_topic(TOPIC, PARTITIONS, json!({ "retention.ms": "-1" }));
    let listeners = ((&source, Listener::Plain), (&target, Listener::ProxiedTls));
    let mut config = Config::new("old", listeners.0, listeners.1, &[TOPIC]);
    config.link.extend(link.iter().map(ToString::to_string));
    let mut strait = Strait::start(&config);
    strait.expect_in_log("WARN");
    let mut dice = Dice::default();
    say(&format!("old: STRAIT_RUN_SEED={}", dice.seed));
    let begin = Instant::now();
    let least = Duration::from_secs(sized(12, 600));
    let over = AtomicBool::new(false);
    let mut load = Load::new(sized(1000, 8000), PARTITIONS);
    load.timestamp = Some(now_ms() - WEEK_MS);
    let (mut kills, mut cuts) = (0, 0);
    let written = std::thread::scope(|scope| {
        let load = scope.spawn(|| load.run(&here, TOPIC, |_| !over.load(Relaxed)));
        wait_until("the first copies", 60, || there.exists(TOPIC));
        while begin.elapsed() < least || kills == 0 {
            let pause = dice.between(Duration::from_millis(300), Duration::from_secs(4));
            holds_for("it runs by itself", pause, || strait.exit_code().is_none());
            wait_progress(&there);
            // What is under way now comes when the next connection, or the next life, has asked where it stands.
            proxy.to_server().delay(LATE);
            let moment = Duration::from_millis(30);
            holds_for("it runs by itself", moment, || strait.exit_code().is_none());
            // One kill for a while of cuts: old records wait half a minute after it.
            let kill = cuts > 0 && dice.below(6) == 0 || begin.elapsed() >= least;
            if kill {
                strait.kill();
                kills += 1;
            } else {
                proxy.desert();
                cuts += 1;
            }
            proxy.to_server().delay(Duration::ZERO);
            if kill {
                strait.restart();
            }
        }
        over.store(true, Relaxed);
        load.join().unwrap()
    });
    wait_committed(&here, &config.group(), TOPIC, sized(120, 1200));
    wait_until("the last late requests", 60, || proxy.to_server().on_the_way() == 0);
    // Behind them, so that the last are noticed, too.
    let last = Load { first: written, turn: Duration::from_millis(500), ..load };
    let written = written + last.run(&here, TOPIC, |written| written == 0);
    wait_committed(&here, &config.group(), TOPIC, 120);
    let target = there.held(TOPIC);
    let tally = Tally::of(&here.held(TOPIC), &target);
    let told = strait.told_doubles();
    let sum = |doubles: &[Stretch]| {
        let mut sum = BTreeMap::new();
        for Stretch { partition, from, to } in doubles {
            *sum.entry(*partition).or_insert(0) += to - from;
        }
        sum
    };
    let Tally { source, lost, duplicated, reordered, foreign, changed, .. } = tally;
    let (batches, most) = (told.len(), cuts * PARTITIONS);
    say(&format!(
        "amid records a week old {link:?}: {source} records in {} s, {kills} kills, {cuts} cuts, {lost} lost, {duplicated} doubled \
         in {batches} batches ({most} at most), {} of them told, {reordered} reordered, {foreign} foreign, {changed} changed",
        begin.elapsed().as_secs(),
        sum(&told).values().sum::<i64>(),
    ));
    assert_eq!(source, written);
    strait.assert_clean_log();
    let doubles = sum(&target.doubles);
    let most = usize::try_from(most).unwrap();
    Old { tally, told: sum(&told), doubles, batches_told: batches, most }
}

/// The target appends beside them what is sent again: of each partition one batch for a lost connection, and none for a kill.
#[test]
fn killed_and_cut_amid_old_records_it_tells_each_that_is_there_twice() {
    let old = killed_and_cut_amid_old_records(V43, &[]);
    assert!(old.tally.is_exact_but_for_doubles(), "{:?}", old.tally);
    assert_eq!(old.told, old.doubles, "told, and there");
    assert!(old.batches_told <= old.most);
    assert!(old.tally.duplicated > 0, "no request came late");
}
