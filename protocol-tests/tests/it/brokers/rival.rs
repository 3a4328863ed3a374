//! One script for Strait and for MirrorMaker 2: what each loses, repeats and puts out of order. Strait's half is asserted,
//! MirrorMaker's is counted and told. `STRAIT_FULL=1` runs each contestant for ten minutes, or for
//! `STRAIT_RIVAL_SECONDS`.
#![allow(clippy::disallowed_methods, reason = "it measures real processes by the real clock")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use protocol_tests::agent::Admin;
use protocol_tests::compare::assert_same_digest;
use protocol_tests::copying::{full, sized, wait_committed};
use protocol_tests::lab::Version::V43;
use protocol_tests::lab::{Cluster, Listener};
use protocol_tests::load::{Load, say};
use protocol_tests::mirror_maker::{EXACTLY_ONCE, MirrorMaker, VERSION, target_topic};
use protocol_tests::strait::{Config, Strait};
use protocol_tests::tally::Tally;
use protocol_tests::wait::{holds_for, wait_for, wait_until};
use serde_json::json;

/// What the script needs of a contestant.
trait Contestant {
    fn kill(&mut self);
    fn start_again(&mut self);
    fn runs(&mut self) -> bool;
}

impl Contestant for Strait {
    fn kill(&mut self) {
        Self::kill(self);
    }
    fn start_again(&mut self) {
        self.restart();
    }
    fn runs(&mut self) -> bool {
        self.exit_code().is_none()
    }
}

impl Contestant for MirrorMaker {
    fn kill(&mut self) {
        Self::kill(self);
    }
    fn start_again(&mut self) {
        self.restart();
    }
    fn runs(&mut self) -> bool {
        self.exit_code().is_none()
    }
}

/// How long the script goes on, whichever comes first.
#[derive(Clone, Copy)]
struct Limits {
    kills: usize,
    time: Duration,
}

impl Limits {
    fn new(kills: usize) -> Self {
        if !full() {
            return Self { kills, time: Duration::MAX };
        }
        let told = std::env::var("STRAIT_RIVAL_SECONDS").ok();
        let seconds = told.map_or(600, |seconds| seconds.parse().unwrap());
        Self { kills: usize::MAX, time: Duration::from_secs(seconds) }
    }
}

/// What the script gave.
struct Outcome {
    /// For each kill the seconds until the target held what the source held just after it, if it came to that.
    caught_up: Vec<Option<f64>>,
    tally: Tally,
}

/// The longest that is waited for a contestant to catch up before it is killed again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills while numbered records are written all the time: after a kill the contestant may catch up, then work for one to
/// four seconds more.
fn script(
    contestant: &mut dyn Contestant,
    (here, topic): (&Admin, &str),
    (there, copy): (&Admin, &str),
    limits: Limits,
) -> Outcome {
    let stop = AtomicBool::new(false);
    let per_second = sized(2000, 17_000);
    let mut caught_up = Vec::new();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            Load::new(per_second, 4).run(here, topic, |_| !stop.load(Ordering::Relaxed));
        });
        let begin = Instant::now();
        let at_least = |mark: &[i64]| {
            let Ok(held) = there.highest(copy) else { return false };
            held.len() == mark.len() && held.iter().zip(mark).all(|(held, mark)| held >= mark)
        };
        wait_until("the first records on the target", 180, || {
            assert!(contestant.runs(), "it ended by itself");
            at_least(&[0; 4])
        });
        let mut pauses = [2700, 1300, 3900, 2100, 3300, 1000, 1700].into_iter().cycle();
        while caught_up.len() < limits.kills && begin.elapsed() < limits.time {
            let pause = Duration::from_millis(pauses.next().unwrap());
            holds_for("it runs", pause, || contestant.runs());
            contestant.kill();
            let killed = Instant::now();
            let mark = here.highest(topic).unwrap();
            contestant.start_again();
            let mut reached = false;
            while !reached && killed.elapsed() < PATIENCE {
                assert!(contestant.runs(), "it ended by itself");
                reached = at_least(&mark);
            }
            caught_up.push(reached.then(|| killed.elapsed().as_secs_f64()));
        }
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap();
        let end = here.highest(topic).unwrap();
        wait_until("the end of the load on the target", 900, || {
            assert!(contestant.runs(), "it ended by itself");
            at_least(&end)
        });
    });
    let tally = Tally::of(&here.held(topic), &there.held(copy));
    Outcome { caught_up, tally }
}

/// A row of the table, past the test harness, which keeps what a passing test prints to itself.
fn tell(contestant: &str, outcome: &Outcome) {
    let mut seconds: Vec<f64> = outcome.caught_up.iter().flatten().copied().collect();
    seconds.sort_by(f64::total_cmp);
    let never = outcome.caught_up.len() - seconds.len();
    let mut time = seconds.last().map_or(String::new(), |longest| {
        format!("median {:.1}, longest {longest:.1}; ", seconds[seconds.len() / 2])
    });
    if never > 0 {
        time += &format!("{never} over {}", PATIENCE.as_secs());
    }
    let Tally { source, lost, duplicated, reordered, foreign, .. } = outcome.tally;
    assert_eq!(foreign, 0, "records that nobody wrote");
    let kills = outcome.caught_up.len();
    say(&format!(
        "| {contestant} | {source} | {kills} | {lost} | {duplicated} | {reordered} | \
         {time} |"
    ));
}

fn clusters() -> (Cluster, Cluster) {
    Cluster::builder(V43).start_both(Cluster::builder(V43))
}

#[test]
fn strait_and_mirror_maker_are_killed_by_one_script() {
    say("| replicator | records | kills | lost | duplicated | reordered | seconds to catch up |");
    say("|---|---|---|---|---|---|---|");
    strait_loses_and_repeats_nothing();
    let often = "target.offset.flush.interval.ms = 1000";
    mirror_maker("defaults", &[]);
    if full() {
        mirror_maker("flush each second", &[often]);
        mirror_maker("exactly-once", &EXACTLY_ONCE);
    }
}

fn strait_loses_and_repeats_nothing() {
    let (source, target) = clusters();
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("rival", 4, json!({}));
    let config =
        Config::new("rival", (&source, Listener::Plain), (&target, Listener::Tls), &["rival"]);
    let mut strait = Strait::start(&config);
    strait.expect_in_log("WARN");
    let outcome = script(&mut strait, (&here, "rival"), (&there, "rival"), Limits::new(4));
    tell("Strait", &outcome);
    assert!(outcome.tally.is_exact(), "{:?}", outcome.tally);
    assert!(outcome.tally.source > 0 && outcome.caught_up.len() >= 4);
    wait_committed(&here, &config.group(), "rival", 60);
    assert_same_digest(&here.summary("rival"), &there.summary("rival"));
    strait.assert_clean_log();
}

fn mirror_maker(name: &str, settings: &[&str]) {
    let (source, target) = clusters();
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("rival", 4, json!({}));
    let mut mirror_maker = MirrorMaker::start(
        (&source, Listener::Plain),
        (&target, Listener::Tls),
        &["rival"],
        settings,
    );
    let copy = target_topic("rival");
    let outcome = script(&mut mirror_maker, (&here, "rival"), (&there, &copy), Limits::new(1));
    tell(&format!("MirrorMaker {}, {name}", VERSION.number()), &outcome);
    // Not its verdict, only that it was counted.
    let Tally { source, target, lost, duplicated, .. } = outcome.tally;
    assert!(source > 0 && target > 0, "{:?}", outcome.tally);
    assert_eq!(source - lost + duplicated, target, "{:?}", outcome.tally);
}

/// 100 records of two topics are copied, then the replicator is stopped. One topic is made anew with 300 other records; of
/// the other, 100 more are written and all below offset 150 deleted. Then it is started again.
fn change_while_away(here: &Admin) {
    here.delete_topic("again");
    wait_until("deletion", 30, || !here.exists("again"));
    here.create_topic("again", 1, json!({}));
    here.produce("again", json!({ "count": 300, "from": 1000 }));
    here.produce("trimmed", json!({ "count": 100, "from": 100 }));
    here.delete_records("trimmed", 0, 150);
}

#[test]
fn what_changed_while_it_was_away_strait_names_and_mirror_maker_passes_by() {
    let (source, target) = clusters();
    let (here, there) = (source.admin(), target.admin());
    for topic in ["again", "trimmed"] {
        here.create_topic(topic, 1, json!({}));
        here.produce(topic, json!({ "count": 100 }));
    }
    let topics = ["again", "trimmed"];
    let config = Config::new("away", (&source, Listener::Plain), (&target, Listener::Tls), &topics);
    let mut strait = Strait::start(&config);
    strait.expect_in_log("ST-");
    let mut mirror_maker =
        MirrorMaker::start((&source, Listener::Plain), (&target, Listener::Tls), &topics, &[]);
    for topic in topics {
        wait_committed(&here, &config.group(), topic, 60);
        wait_until("the first copy", 180, || {
            there.highest(&target_topic(topic)).is_ok_and(|held| held == [99])
        });
    }
    assert_eq!(strait.terminate().0, 0);
    // So that it has stored where it is: this is no crash.
    mirror_maker.terminate();
    change_while_away(&here);
    strait.restart();
    mirror_maker.restart();
    wait_for("both topics named", 60, || {
        let log = strait.log();
        let named = |partition: &str, words: &[&str]| {
            log.lines().any(|line| {
                line.contains("ST-")
                    && line.contains(partition)
                    && words.iter().all(|word| line.contains(word))
            })
        };
        let all = named("again-0", &[]) && named("trimmed-0", &["100", "150"]);
        if all { Ok(()) } else { Err(log) }
    });
    for (topic, last) in [("again", 1299), ("trimmed", 199)] {
        wait_until("its next copy", 180, || {
            there.highest(&target_topic(topic)).is_ok_and(|held| held == [last])
        });
        let held = there.held(&target_topic(topic)).records;
        let written = if topic == "again" { 400 } else { 200 };
        let complaints = mirror_maker.complaints(topic);
        say(&format!(
            "{topic}: MirrorMaker {} holds {held} of {written} records and complained {} times {}",
            VERSION.number(),
            complaints.len(),
            complaints.first().map_or("", String::as_str),
        ));
        assert!(held >= 100, "the first copy is counted");
        assert_eq!(there.ends(topic), [100], "Strait stops in front of what is not certain");
    }
    strait.assert_clean_log();
}
