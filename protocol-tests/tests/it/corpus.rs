//! The fuzzers' corpus, replayed and mutated: what was once found stays found. What is checked of each input, and what heap it
//! may hold, is in `fuzz/src/entries`.

use std::cell::Cell;
use std::fs;
use std::panic::{catch_unwind, set_hook, take_hook};
use std::path::Path;
use std::sync::{Mutex, Once};

use bytes::Bytes;
use protocol_tests::sim::rng::Rng;
use strait::canary::{self, Canary};

#[path = "../../../fuzz/src/entries/mod.rs"]
#[allow(dead_code, reason = "the fuzzers and their seeds use the rest")]
pub mod entries;

use entries::{ENTRIES, Entry};

/// Inputs of each target that are made of its corpus: some hundred milliseconds' worth.
const MUTATIONS: usize = 10_000;
/// Those of which a run takes longer.
const SLOW: [(&str, usize); 10] = [
    ("copying", 20),
    ("connection", 500),
    ("scram", 300),
    ("config", 300),
    ("http", 1_000),
    ("batches", 1_500),
    ("records", 1_500),
    ("recode", 1_500),
    ("merge", 500),
    ("admit", 3_000),
];
/// With `STRAIT_FULL=1` so many times as many.
const FULL: usize = 100;

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// One within a codec's crate is caught by the product, and is an error of the batch.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = take_hook();
        set_hook(Box::new(move |info| {
            let of_a_crate = info.location().is_some_and(|at| at.file().contains("/registry/src/"));
            if !of_a_crate {
                PANICS.set(PANICS.get() + 1);
                told(info);
            }
        }));
    });
}

fn inputs(entry: &Entry) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(entry.name);
    let read = |path: &Path| (path.display().to_string(), fs::read(path).unwrap());
    let mut inputs: Vec<_> =
        fs::read_dir(folder).unwrap().map(|input| read(&input.unwrap().path())).collect();
    inputs.sort();
    inputs
}

/// Runs an entry as the fuzzers do: no panic in any task of it, and no more heap than it may hold.
#[track_caller]
fn run(entry: &Entry, name: &str, input: Vec<u8>) {
    let (input, before) = (Bytes::from(input), PANICS.get());
    let shown = input.clone();
    let heap = allocation_counter::measure(|| (entry.run)(&input));
    let max = entry.heap_bytes_max(input.len()) as u64;
    let (len, held) = (shown.len(), heap.bytes_max);
    assert!(held <= max, "{}, {name}: {held} bytes of heap for {len}: {shown:?}", entry.name);
    assert_eq!(PANICS.get(), before, "{}, {name}: a task panicked: {shown:?}", entry.name);
}

#[test]
fn every_input_of_the_corpus_holds() {
    count_panics();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let mut folders: Vec<_> = fs::read_dir(&corpus)
        .unwrap()
        .map(|folder| folder.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut names: Vec<_> = ENTRIES.iter().map(|entry| entry.name.to_owned()).collect();
    folders.sort();
    names.sort();
    assert_eq!(folders, names, "a target without a corpus, or a corpus without a target");
    for entry in ENTRIES {
        for (name, input) in inputs(&entry) {
            println!("{name}"); // shown if it fails
            run(&entry, &name, input);
        }
    }
}

#[test]
fn what_is_made_of_the_corpus_holds() {
    count_panics();
    let full = if std::env::var_os("STRAIT_FULL").is_some() { FULL } else { 1 };
    std::thread::scope(|scope| {
        for entry in ENTRIES {
            scope.spawn(move || {
                let slow = SLOW.iter().find(|(name, _)| *name == entry.name);
                let count = slow.map_or(MUTATIONS, |(_, count)| *count) * full;
                let (inputs, mut rng) = (inputs(&entry), Rng::new(1).fork(entry.name));
                let began = tokio::time::Instant::now();
                for nth in 0..count {
                    let input = mutated(&inputs, &mut rng);
                    run(&entry, &format!("mutation {nth}"), input);
                }
                println!("{}: {count} inputs in {:?}", entry.name, began.elapsed());
            });
        }
    });
}

/// Bugs that a target's corpus must show. Without them all of it holds.
const PLANTED: [(&str, Canary); 11] = [
    ("metadata", Canary::EpochTakenBack),
    ("copying", Canary::CommitUnacked),
    ("copying", Canary::SkipOvertakes),
    ("copying", Canary::DoubtIsAck),
    ("copying", Canary::FlightForgotten),
    ("copying", Canary::ResumeBlind),
    ("copying", Canary::StaleFetchTaken),
    ("copying", Canary::AbortedCopied),
    ("copying", Canary::ReplicatedCopied),
    ("copying", Canary::BatchFromItsStart),
    ("copying", Canary::NumbersFromZero),
];

#[test]
fn each_planted_bug_is_found_by_its_target() {
    count_panics();
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for (name, bug) in PLANTED {
            let missed = &missed;
            scope.spawn(move || {
                let entry = ENTRIES.iter().find(|entry| entry.name == name).unwrap();
                canary::plant(Some(bug));
                let found = inputs(entry)
                    .into_iter()
                    .position(|(name, input)| catch_unwind(|| run(entry, &name, input)).is_err());
                canary::plant(None);
                println!("{name}: {bug:?} by input {found:?}");
                if found.is_none() {
                    missed.lock().unwrap().push((name, bug));
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "found by no input: {missed:?}");
}

/// Some input with one to four changes: bits, bytes and numbers that matter, pieces left out, doubled or taken from another.
fn mutated(inputs: &[(String, Vec<u8>)], rng: &mut Rng) -> Vec<u8> {
    const WORST: [&[u8]; 10] = [
        &[0x00],
        &[0x7f],
        &[0x80],
        &[0xff],
        &[0xff, 0xff],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x80, 0, 0, 0],
        &[0xff, 0xff, 0xff, 0xff, 0x07],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ];
    let mut input = rng.pick(inputs).1.clone();
    for _ in 0..=rng.below(4) {
        let at = rng.below(input.len() + 1);
        let end = at + rng.below((input.len() - at).min(40) + 1);
        match rng.below(7) {
            0 | 1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
            2 => {
                let worst = rng.pick(&WORST);
                input.iter_mut().skip(at).zip(*worst).for_each(|(byte, worst)| *byte = *worst);
            }
            3 => drop(input.splice(at..at, rng.pick(&WORST).iter().copied())),
            4 => drop(input.drain(at..end)),
            5 => {
                let piece = input[at..end].to_vec();
                drop(input.splice(at..at, piece));
            }
            _ => {
                let other = &rng.pick(inputs).1;
                let from = rng.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
    input
}
