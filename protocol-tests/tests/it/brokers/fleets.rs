//! Several instances of one link on real brokers: they join, leave, are killed and frozen under load, also with nothing
//! that keeps them apart. All that was written is counted against all that the target holds.
#![allow(clippy::disallowed_methods, reason = "it disturbs real processes by the real clock")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use protocol_tests::agent::Admin;
use protocol_tests::copying::{sized, wait_committed};
use protocol_tests::lab::Version::V43;
use protocol_tests::lab::{Cluster, ClusterBuilder, Listener};
use protocol_tests::load::{Dice, Load, say};
use protocol_tests::strait::{Config, Strait};
use protocol_tests::tally::Tally;
use protocol_tests::wait::{holds_for, wait_for, wait_until};
use serde_json::json;

const TOPIC: &str = "fleet";
const PARTITIONS: i32 = 12;
const INSTANCES: usize = 4;
/// Of a member, on the brokers of these suites: a test cannot wait for the 45 s of a stock broker each time.
const SESSION: Duration = Duration::from_secs(6);
/// Past the session, or past every timeout of the engine, too: a request may take 30 s.
const FROZEN: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(40));
/// How long the instances are left alone between two events, and how long an event's wake counts as its time.
const QUIET: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(5));

fn source() -> ClusterBuilder {
    let session = SESSION.as_millis().to_string();
    Cluster::builder(V43)
        .set("group.consumer.min.session.timeout.ms", &session)
        .set("group.consumer.session.timeout.ms", &session)
        .set("group.consumer.min.heartbeat.interval.ms", "1000")
        .set("group.consumer.heartbeat.interval.ms", "1000")
}

/// Which partitions an instance has, and how far each is.
fn mirrors(strait: &Strait) -> BTreeMap<i32, i64> {
    let Ok((200, metrics)) = strait.get("/metrics") else { return BTreeMap::new() };
    let lines = metrics.lines().filter_map(|line| line.strip_prefix("strait_acked_offset{"));
    let mirror = |line: &str| {
        let partition = line.split("partition=\"").nth(1)?.split('"').next()?.parse().ok()?;
        let offset = line.rsplit(' ').next()?.parse().ok()?;
        Some((partition, offset))
    };
    lines.filter_map(mirror).filter(|(_, offset)| *offset >= 0).collect()
}

/// What became of the partitions that stayed with one instance all through a stretch of time.
#[derive(Default)]
struct Rates {
    /// Records copied, and records written meanwhile, by partition: around events, and in quiet.
    sums: BTreeMap<i32, [(i64, i64); 2]>,
}

impl Rates {
    /// Notes the time between two looks at all instances that could be looked at in both.
    fn note(&mut self, quiet: bool, before: &Look, after: &Look) {
        for (instance, mirrors) in &before.mirrors {
            let Some(now) = after.mirrors.get(instance) else { continue };
            for (partition, offset) in mirrors {
                let Some(later) = now.get(partition) else { continue };
                let at = usize::try_from(*partition).unwrap();
                let sum = &mut self.sums.entry(*partition).or_default()[usize::from(quiet)];
                sum.0 += later - offset;
                sum.1 += after.written[at] - before.written[at];
            }
        }
    }

    /// For each partition the part of what was written that was copied around events, by that in quiet. What was made up
    /// for in quiet, after a pause of the machine, is no rate that an event could take from it.
    fn kept(&self) -> Vec<f64> {
        let both = |sums: &&[(i64, i64); 2]| sums.iter().all(|(_, written)| *written > 0);
        let part = |(copied, written): (i64, i64)| copied as f64 / written as f64;
        let kept = self.sums.values().filter(both);
        let mut kept: Vec<f64> =
            kept.map(|[event, quiet]| part(*event) / part(*quiet).min(1.0)).collect();
        kept.sort_by(f64::total_cmp);
        kept
    }
}

/// All instances at one moment, by their place and life.
struct Look {
    mirrors: BTreeMap<(usize, u32), BTreeMap<i32, i64>>,
    /// Ends of the source while the instances were looked at: between those before and those after.
    written: Vec<i64>,
}

/// Four places for instances.
struct Fleet {
    config: Config,
    source: Admin,
    places: Vec<Option<Strait>>,
    frozen: Option<usize>,
    lives: u32,
    life: [u32; INSTANCES],
    gone: Vec<Strait>,
}

impl Fleet {
    fn start(config: Config, source: Admin) -> Self {
        let places = (0..INSTANCES).map(|_| None).collect();
        let mut fleet = Self {
            config,
            source,
            places,
            frozen: None,
            lives: 0,
            life: [0; INSTANCES],
            gone: Vec::new(),
        };
        (0..INSTANCES).for_each(|place| fleet.join(place));
        fleet
    }

    fn join(&mut self, place: usize) {
        let mut strait = Strait::start(&self.config);
        strait.expect_in_log("WARN");
        self.lives += 1;
        self.life[place] = self.lives;
        self.places[place] = Some(strait);
    }

    fn at(&mut self, place: usize) -> &mut Strait {
        self.places[place].as_mut().unwrap()
    }

    fn look(&self) -> Look {
        let awake = |(place, strait)| match strait {
            Some(strait) if self.frozen != Some(place) => {
                Some(((place, self.life[place]), mirrors(strait)))
            }
            _ => None,
        };
        let places = self.places.iter().map(Option::as_ref).enumerate();
        let before = self.source.ends(TOPIC);
        let mirrors = places.filter_map(awake).collect();
        let between = |(before, after): (&i64, i64)| i64::midpoint(*before, after);
        let written = before.iter().zip(self.source.ends(TOPIC)).map(between).collect();
        Look { mirrors, written }
    }

    /// Every partition has one owner among those that are awake, and each of them has its share.
    fn wait_settled(&self) {
        wait_for("an owner of each partition", 120, || {
            let look = self.look();
            let owned: Vec<i32> = look.mirrors.values().flat_map(|m| m.keys().copied()).collect();
            let mut each = owned.clone();
            each.sort_unstable();
            each.dedup();
            let shared = look.mirrors.values().all(|mirrors| !mirrors.is_empty());
            let settled = shared && owned.len() == each.len() && each.len() == PARTITIONS as usize;
            if settled { Ok(()) } else { Err(format!("{:?}", look.mirrors)) }
        });
    }

    /// Lets it be for a while; gives the looks at the beginning and the end of it.
    fn pass(&self, time: Duration) -> (Look, Look) {
        let before = self.look();
        let awake = || self.places.iter().flatten().count() > 0;
        holds_for("somebody is there", time, awake);
        (before, self.look())
    }
}

/// What is done to one instance, and undone after a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Leave,
    Kill,
    Freeze,
}

#[test]
fn four_instances_join_leave_are_killed_and_frozen_and_the_others_keep_their_rate() {
    let (source, target) = source().start_both(Cluster::builder(V43));
    let (here, there) = (source.admin(), target.admin());
    here.create_topic(TOPIC, PARTITIONS, json!({}));
    let listeners = ((&source, Listener::Plain), (&target, Listener::Tls));
    let mut fleet =
        Fleet::start(Config::new("fleet", listeners.0, listeners.1, &[TOPIC]), source.admin());
    fleet.wait_settled();
    let mut dice = Dice::default();
    say(&format!("fleet: STRAIT_RUN_SEED={}", dice.seed));
    let begin = Instant::now();
    let least = Duration::from_secs(sized(20, 600));
    let quiet = sized(QUIET.0, QUIET.1);
    let mut rates = Rates::default();
    let mut events = BTreeMap::<Event, u32>::new();
    let written = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut load = Load::new(sized(2400, 6000), PARTITIONS);
            // One producer: a new one would be a pause that is not Strait's.
            load.turn = Duration::from_secs(sized(200, 800));
            load.run(&here, TOPIC, |written| written == 0)
        });
        wait_until("the load", 60, || {
            there.exists(TOPIC) && there.ends(TOPIC).iter().sum::<i64>() > 1000
        });
        let mut turns = [Event::Freeze, Event::Kill, Event::Leave].into_iter().cycle();
        while begin.elapsed() < least || events.len() < 3 {
            fleet.wait_settled();
            let (before, after) = fleet.pass(quiet);
            rates.note(true, &before, &after);
            let event = turns.next().unwrap();
            let place = usize::try_from(dice.below(INSTANCES as u64)).unwrap();
            // The others, from just before the event until its wake is over.
            let before = fleet.look();
            disturb(&mut fleet, place, event);
            let (_, after) = fleet.pass(quiet);
            rates.note(false, &before, &after);
            if event == Event::Freeze {
                let (ci, full) = FROZEN;
                fleet.pass(sized(ci, full) - quiet);
            }
            fleet.wait_settled();
            let before = fleet.look();
            undo(&mut fleet, place, event);
            let (_, after) = fleet.pass(quiet);
            rates.note(false, &before, &after);
            *events.entry(event).or_default() += 1;
        }
        here.stop_writers();
        load.join().unwrap()
    });
    fleet.wait_settled();
    wait_committed(&here, &fleet.config.group(), TOPIC, sized(120, 600));
    let tally = Tally::of(&here.held(TOPIC), &there.held(TOPIC));
    let kept = rates.kept();
    let Tally { source, lost, duplicated, reordered, foreign, changed, .. } = tally;
    say(&format!(
        "four instances: {source} records in {} s, {events:?}, {lost} lost, {duplicated} doubled, {reordered} reordered, \
         {foreign} foreign, {changed} changed; rate kept by mirrors that stayed: least {:.3}, median {:.3} of {}",
        begin.elapsed().as_secs(),
        kept.first().copied().unwrap_or(0.0),
        kept.get(kept.len() / 2).copied().unwrap_or(0.0),
        kept.len(),
    ));
    assert!(tally.is_exact(), "{tally:?}");
    assert_eq!(source, written);
    assert!(
        kept.len() * 2 > PARTITIONS as usize,
        "too few mirrors stayed anywhere: {}",
        kept.len()
    );
    // In the few seconds of a CI run a single mirror's rate is chance: there it is the median that must not fall.
    let least = sized(kept[kept.len() / 2], kept[0]);
    let sums = &rates.sums;
    assert!(
        least >= sized(0.9, 0.95),
        "mirrors that did not move slowed down: {kept:.3?}, {sums:?}"
    );
    for strait in fleet.places.iter().flatten().chain(&fleet.gone) {
        strait.assert_clean_log();
    }
}

fn disturb(fleet: &mut Fleet, place: usize, event: Event) {
    match event {
        Event::Leave => {
            let (code, _) = fleet.at(place).terminate();
            assert_eq!(code, 0, "{}", fleet.at(place).log());
            fleet.gone.extend(fleet.places[place].take());
        }
        Event::Kill => {
            fleet.at(place).kill();
            fleet.gone.extend(fleet.places[place].take());
        }
        Event::Freeze => {
            fleet.at(place).signal("STOP");
            fleet.frozen = Some(place);
        }
    }
}

fn undo(fleet: &mut Fleet, place: usize, event: Event) {
    match event {
        Event::Leave | Event::Kill => fleet.join(place),
        Event::Freeze => {
            fleet.frozen = None;
            fleet.at(place).signal("CONT");
        }
    }
}

/// Nothing keeps them apart but the target's own check of the numbers.
#[test]
fn two_instances_without_membership_write_each_record_once() {
    let (source, target) = Cluster::builder(V43).start_both(Cluster::builder(V43));
    let (here, there) = (source.admin(), target.admin());
    here.create_topic(TOPIC, 4, json!({}));
    let listeners = ((&source, Listener::Plain), (&target, Listener::Tls));
    let config = Config::new("split", listeners.0, listeners.1, &[TOPIC])
        .link("membership: { protocol: \"off\" }")
        .link("on_failure: retry");
    let start = || {
        let mut strait = Strait::start(&config);
        strait.expect_in_log("WARN");
        strait.expect_in_log("ERROR");
        strait
    };
    let both = [start(), start()];
    let (over, begin) = (AtomicBool::new(false), Instant::now());
    let mut dice = Dice::default();
    say(&format!("split: STRAIT_RUN_SEED={}", dice.seed));
    // In turn: one that alone is ever frozen may be behind for the whole run and write nothing.
    let first = usize::try_from(dice.below(2)).unwrap();
    let mut freezes = 0;
    let (written, shares) = std::thread::scope(|scope| {
        let load = scope.spawn(|| Load::new(2000, 4).run(&here, TOPIC, |_| !over.load(Relaxed)));
        while begin.elapsed() < Duration::from_secs(sized(15, 180)) {
            let frozen = &both[(first + freezes) % 2];
            let runs = || both.iter().all(|strait| strait.usage().threads > 0);
            holds_for(
                "both run",
                dice.between(Duration::from_secs(1), Duration::from_secs(4)),
                runs,
            );
            frozen.signal("STOP");
            // Full size: past every timeout.
            let most = Duration::from_secs(sized(4, 40));
            holds_for("one stands still", dice.between(Duration::from_secs(1), most), runs);
            frozen.signal("CONT");
            freezes += 1;
        }
        over.store(true, Relaxed);
        let written = load.join().unwrap();
        wait_committed(&here, &config.group(), TOPIC, sized(120, 600));
        (written, both.each_ref().map(|s| s.metric("strait_acked_records_total", &[])))
    });
    let tally = Tally::of(&here.held(TOPIC), &there.held(TOPIC));
    let Tally { source, lost, duplicated, reordered, foreign, changed, .. } = tally;
    say(&format!(
        "two instances without membership: {source} records in {} s, {freezes} freezes, shares {shares:?}, {lost} lost, \
         {duplicated} doubled, {reordered} reordered, {foreign} foreign, {changed} changed",
        begin.elapsed().as_secs()
    ));
    assert!(tally.is_exact(), "{tally:?}");
    assert_eq!(source, written);
    assert!(shares.iter().all(|share| *share > 0.0), "one of them wrote nothing");
    both.iter().for_each(Strait::assert_clean_log);
}
