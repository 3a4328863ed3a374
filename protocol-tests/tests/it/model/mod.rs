//! An exhaustive model: every order of everything that can happen to one mirror with a few records and a few faults.
//!
//! What decides is Strait's own code: admit, mirror and window, numberings and identity, anchor, walk, lineage and replay,
//! on real batches; the broker's memory of producers is the embedded broker's. What is abstracted:
//!
//! - Fetching gives one whole batch at a time, and its answers are never stale; the source does not change.
//! - A commit is applied or not, never late: the group refuses a commit of a former member.
//! - A request holds one batch of one mirror; requests of one connection are worked on in order, and any prefix of what a
//!   dead connection left behind may still be, at any time.
//! - Followers are one number. A change of leader loses what they do not have, and ends all connections.
//! - A start reads the source group and DescribeProducers in one step, the target's log in the next, and puts a new
//!   numbering on record in a third. Of `recovery.rs` only what follows from an answer is written again here.
//!
//! The predicates are the checker's (C1 to C4, I1), judged after every step; besides, nothing may park and nothing may come
//! to a stand before all is copied and committed.

mod broker;
mod world;

use std::sync::Arc;

use bytes::Bytes;
use protocol_tests::checker::{Content, Original, Wanted};
use protocol_tests::copying::sized;
use protocol_tests::raw::{Batch, RawRecord};
use stateright::{Checker, HasDiscoveries, Model, Property};
use strait::canary::{self, Canary};
use strait::config::resolved::{Isolation, Timestamps};
use strait::engine::admit::Rules;
use strait::engine::identity::{Origin, Writer};
use strait::engine::route::{Forwarding, Route};
use strait::engine::spec::TargetFacts;
use strait::engine::window;
use tokio::time::Instant;
use world::{Faults, SOURCE, Step, World};

const HOUR_MS: i64 = 3600 * 1000;
const NOW_MS: i64 = 1_800_000_000_000;

/// A source batch of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// So many records of this minute.
    Young(i64),
    /// So many records, older than the target's memory of producers.
    Old(i64),
    /// Another Strait's: stepped over.
    Brought,
}
use Kind::{Brought, Old, Young};

/// What is copied, and what can go wrong.
#[derive(Clone)]
pub struct Scenario {
    name: &'static str,
    kinds: &'static [Kind],
    faults: Faults,
    bug: Option<Canary>,
    source: Vec<(i64, Bytes)>,
    originals: Vec<Original>,
    window_bytes: usize,
    now: i64,
    kept_ms: i64,
    started: Instant,
    target: Arc<TargetFacts>,
    route: Route,
    rules: Rules,
}

impl Scenario {
    fn new(name: &'static str, kinds: &'static [Kind], window: usize, faults: Faults) -> Self {
        let forwarding = Forwarding {
            home: Origin::of_cluster("source"),
            local: true,
            origins: Vec::new(),
            copies_max: 2,
        };
        let writer = Writer::new("link", SOURCE, 0);
        let mut scenario = Self {
            name,
            kinds,
            faults,
            bug: None,
            source: Vec::new(),
            originals: Vec::new(),
            window_bytes: 0,
            now: NOW_MS,
            kept_ms: 24 * HOUR_MS,
            started: world::any_moment(),
            target: Arc::default(),
            route: Route::new(writer, Arc::new(forwarding)),
            rules: Rules {
                isolation: Isolation::ReadCommitted,
                timestamps: Timestamps::AsRead,
                batch_bytes_max: 1 << 20,
            },
        };
        let mut offset = 0;
        for kind in kinds {
            offset = scenario.write(*kind, offset);
        }
        let largest = scenario.source.iter().map(|(_, batch)| batch.len()).max().unwrap();
        scenario.window_bytes = largest * window;
        scenario
    }

    fn write(&mut self, kind: Kind, offset: i64) -> i64 {
        let (count, time, wanted, producer_id) = match kind {
            Young(count) => (count, self.now, Wanted::Yes, -1),
            Old(count) => (count, self.now - 25 * HOUR_MS, Wanted::Yes, -1),
            Brought => {
                let brought = Writer::new("other", SOURCE, 0).id(Origin::of_cluster("else"), 0);
                (1, self.now, Wanted::Never, brought)
            }
        };
        let value = |delta: i64| format!("{}", offset + delta);
        let records = (0..count).map(|delta| RawRecord::at(delta, &value(delta)));
        let mut batch = Batch::of(records.clone().collect());
        (batch.base_offset, batch.leader_epoch) = (offset, 0);
        (batch.base_timestamp, batch.producer_id) = (time, producer_id);
        self.source.push((offset + count, Bytes::from(batch.bytes())));
        self.originals.extend(records.map(|record| Original {
            offset: offset + record.offset_delta,
            wanted,
            content: Content {
                time,
                key: record.key,
                value: record.value,
                headers: record.headers,
            },
        }));
        offset + count
    }

    fn planted(mut self, bug: Canary) -> Self {
        self.bug = Some(bug);
        self
    }

    /// The first batch that ends behind an offset.
    fn batch_at(&self, offset: i64) -> Option<Bytes> {
        let at = self.source.iter().find(|(next, _)| *next > offset);
        at.map(|(_, batch)| batch.clone())
    }

    fn end(&self) -> i64 {
        self.source.last().unwrap().0
    }

    fn oldest_trusted(&self) -> i64 {
        window::oldest_trusted(&self.target, self.now)
    }

    fn is_old(&self) -> bool {
        self.kinds.iter().any(|kind| matches!(kind, Old(_)))
    }
}

impl Model for Scenario {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.faults)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        // The checker's threads are its own.
        canary::plant(self.bug);
        world.steps(self, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        next.take(self, step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing that must not be", |_, world: &World| world.breach.is_none()),
            Property::always("it never comes to a stand", |model: &Self, world: &World| {
                let mut steps = Vec::new();
                model.actions(world, &mut steps);
                !steps.is_empty() || world.breach.is_some() || world.is_done(model)
            }),
            Property::sometimes(THROUGH, |model: &Self, world: &World| {
                let Faults { crashes, cuts, refusals, doubts, leaves, gives_back, .. } = world.left;
                let left = crashes + cuts + refusals + doubts + leaves + gives_back;
                world.is_done(model) && left == 0
            }),
        ]
    }
}

const THROUGH: &str = "it comes through every fault";

/// Explores a scenario to its end; gives its states, or what was found and how it came about.
fn explore(scenario: Scenario) -> Result<usize, String> {
    let name = scenario.name;
    let checker = scenario.checker().threads(2).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    let bad = checker.discoveries().into_iter().find(|(property, _)| *property != THROUGH);
    if let Some((property, path)) = bad {
        let breach = path.last_state().breach.clone().unwrap_or_default();
        let steps = path.into_actions();
        return Err(format!("{name}: {property}: {breach}, by {steps:?}"));
    }
    assert!(checker.is_done(), "{name}: not explored to its end");
    match checker.discovery(THROUGH) {
        Some(_) => Ok(checker.unique_state_count()),
        None => Err(format!("{name}: never: {THROUGH}")),
    }
}

fn scenarios() -> Vec<Scenario> {
    let none = Faults::default();
    let (crash, more) = (Faults { crashes: 1, ..none }, sized(1, 2));
    let both = Faults { crashes: more, cuts: 1, ..none };
    let new = Scenario::new;
    vec![
        new("young", &[Young(2), Brought, Young(1), Young(1)], 3, Faults { refusals: 1, ..both }),
        new("young, crashes", &[Young(1); 3], 2, Faults { crashes: 1 + more, cuts: more, ..none }),
        new("young, in doubt", &[Young(1), Young(2), Young(1)], 3, Faults { doubts: 1, ..both }),
        new("deep window", &[Young(1); 5], 5, Faults { refusals: 1, cuts: more - 1, ..crash }),
        new("followers", &[Young(1); 3], 3, Faults { fail_overs: more, crashes: more, ..none }),
        new("old", &[Old(1), Old(2), Old(1)], 3, Faults { forgets: 2, ..both }),
        new("old, crashes", &[Old(1); 3], 3, Faults { crashes: 1 + more, forgets: more, ..none }),
        new("old, refused", &[Old(1); 3], 3, Faults { refusals: 1, forgets: 2, ..both }),
        new("old, in order", &[Old(1); 3], 3, Faults { forgets: 2, leaves: 1, ..both }),
        new("mixed", &[Young(1), Old(1), Young(1)], 3, Faults { forgets: 2, ..both }),
        new(
            "given back",
            &[Young(2), Brought, Young(1)],
            3,
            Faults { gives_back: 2, refusals: 1, ..both },
        ),
        new(
            "old, given back",
            &[Old(1); 3],
            3,
            Faults { gives_back: 1 + more, forgets: 1, ..both },
        ),
    ]
}

#[test]
fn model_no_order_of_events_loses_repeats_or_reorders_anything() {
    let mut all = 0;
    for scenario in scenarios() {
        let name = scenario.name;
        let states = explore(scenario).unwrap_or_else(|found| panic!("{found}"));
        println!("{name}: {states} states");
        all += states;
    }
    println!("{all} states");
}

#[test]
fn model_finds_every_planted_bug() {
    // Each with the scenario that must show it: what others show of it would take all their states to find out.
    let bugs = [
        (Canary::CommitUnacked, "young"),
        (Canary::ResumeBlind, "old"),
        (Canary::WindowWithoutProof, "young"),
        (Canary::WindowWhileOld, "old"),
        (Canary::SkipOvertakes, "young"),
        (Canary::FlightForgotten, "young"),
        (Canary::NumbersGoOn, "young"),
        (Canary::NumbersFromZero, "young"),
        (Canary::OldAtOnce, "old"),
    ];
    for (bug, name) in bugs {
        let scenario = scenarios().into_iter().find(|scenario| scenario.name == name).unwrap();
        let found = explore(scenario.planted(bug)).err();
        println!("{bug:?}: {}", found.unwrap_or_else(|| panic!("{bug:?} is not found in {name}")));
    }
}
