//! Brokers that lie: see `protocol_tests::hostile`.
//!
//! `STRAIT_HOSTILE=words` plays the cases whose name holds these words, and tells what each was; `STRAIT_FULL=1` plays all of
//! them on both sides, plain and over TLS. An ordinary run plays half of them, and one in twenty over TLS.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use protocol_tests::hostile::stage::{Trust, count_panics, others};
use protocol_tests::hostile::{Case, Run, Where, cases, play};

/// What a run may hold beside what the calm clusters and the engine do.
const HEAP_BYTES_MAX: u64 = 96 << 20;

type Played = (Arc<Case>, Where, bool);

fn runs() -> Vec<Played> {
    let (words, full) = (std::env::var("STRAIT_HOSTILE").ok(), std::env::var_os("STRAIT_FULL"));
    let mut all = Vec::new();
    let mut nth = 0;
    for case in cases::FAMILIES.into_iter().flat_map(cases::of) {
        if words.as_ref().is_some_and(|words| !case.name.contains(words)) {
            continue;
        }
        nth += 1;
        for (at, side) in case.sides.iter().enumerate() {
            let is_full = full.is_some() || words.is_some();
            if is_full || (nth + at) % 2 == 0 {
                all.push((case.clone(), *side, false));
            }
            if full.is_some() || (nth % 20 == 0 && at == 0) {
                all.push((case.clone(), *side, true));
            }
        }
    }
    all
}

#[test]
fn no_hostile_broker_harms_more_than_its_own_partitions() {
    count_panics();
    let (runs, trust) = (runs(), Trust::default());
    let (next, bad) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let tells = std::env::var_os("STRAIT_HOSTILE").is_some();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((case, side, tls)) = runs.get(next.fetch_add(1, Relaxed)) {
                    let run = metered(case, *side, *tls, &trust);
                    if tells {
                        println!("{run:#?}");
                    }
                    if !run.violations.is_empty() {
                        bad.lock().unwrap().push(run);
                    }
                }
            });
        }
    });
    let bad = bad.into_inner().unwrap();
    for run in &bad {
        println!("{run:#?}");
    }
    println!("{} runs, {} wrong", runs.len(), bad.len());
    assert!(bad.is_empty(), "{} of {} runs", bad.len(), runs.len());
}

/// A run with its heap counted: that of this thread, which is all that it has.
fn metered(case: &Arc<Case>, side: Where, tls: bool, trust: &Trust) -> Run {
    let mut run = None;
    let heap = allocation_counter::measure(|| run = Some(play(case, side, tls.then_some(trust))));
    let mut run = run.unwrap();
    println!(
        "{} | struck {} dials {} requests {} events {} heap {} KiB",
        run.name,
        run.struck,
        run.dials,
        run.requests,
        run.events,
        heap.bytes_max >> 10
    );
    if heap.bytes_max > HEAP_BYTES_MAX {
        run.violations.push(format!("{} bytes of heap at a time", heap.bytes_max));
    }
    run
}

#[test]
fn one_hostile_broker_of_three_costs_the_others_no_twentieth_of_their_rate() {
    let all = || cases::FAMILIES.into_iter().flat_map(cases::of);
    for (name, side) in [
        ("frame: an answer of ones", Where::Source),
        ("frame: an answer of ones", Where::Target),
        ("frame: an answer that never comes", Where::Source),
        ("frame: an answer that never comes", Where::Target),
        ("frame: the first answer that never comes", Where::Source),
        ("frame: the first answer that never comes", Where::Target),
        ("Metadata: no brokers", Where::Source),
        ("Metadata: no brokers", Where::Target),
        ("Fetch: an empty answer, at once", Where::Source),
        ("Fetch: error NOT_LEADER_OR_FOLLOWER", Where::Source),
        ("Produce: refused with NOT_LEADER_OR_FOLLOWER and appended", Where::Target),
        ("Produce: a throttle of 24 days", Where::Target),
    ] {
        let case = all().find(|case| case.name == name).unwrap();
        let rate = others(&case, side);
        println!("{name}, {side:?}: {:.1} %", rate * 100.0);
        assert!(rate >= 0.95, "{name}, {side:?}: {rate}");
    }
}
