//! Every batch of `protocol_tests::poisons` in the log of a real broker, where no producer could bring it: written into the
//! segment while the broker was down. A clean start looks at no more than a log's last header.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::panic::catch_unwind;

use protocol_tests::lab::Version::{self, V39, V43};
use protocol_tests::lab::{Cluster, Listener, pool};
use protocol_tests::load::say;
use protocol_tests::poisons::{self, Fate, Poison};
use protocol_tests::raw::batch::HEADER;
use protocol_tests::raw::{Batch, RawRecord};
use protocol_tests::strait::{Config, Strait};
use protocol_tests::wait::wait_for;
use serde_json::json;

const TOPIC: &str = "smuggled";

/// One partition: what is before the poison, the poison, and what is behind it.
struct Case {
    name: String,
    fate: Fate,
    from: i64,
    to: i64,
    end: i64,
    values: Vec<String>,
    /// What the target takes as it is, though nobody can read it on either side.
    passes: Option<Vec<u8>>,
    log: Vec<u8>,
}

impl Case {
    /// The places take turns: first, in the middle, last, alone.
    fn new(at: usize, poison: &Poison, target: Version) -> Self {
        let (mut log, mut next, mut values) = (Vec::new(), 0, Vec::new());
        let mut write = |bytes: &[u8], offsets: i64| {
            log.extend_from_slice(&next_bytes(next, bytes));
            next += offsets;
            next
        };
        let good = |values: &mut Vec<String>, write: &mut dyn FnMut(&[u8], i64) -> i64| {
            for _ in 0..3 {
                let value = format!("g{}", values.len());
                let batch = Batch::of(vec![RawRecord::at(0, &value)]);
                write(&batch.bytes(), 1);
                values.push(value);
            }
        };
        // A 3.9 broker takes any time.
        let is_taken = target == V39 && poison.name.starts_with("times at the end");
        let fate = if is_taken { Fate::Arrives } else { poison.fate };
        if matches!(at % 4, 1 | 2) {
            good(&mut values, &mut write);
        }
        let from = i64::try_from(values.len()).unwrap();
        let to = write(&poison.bytes, poison.offsets);
        if fate == Fate::Arrives {
            values.extend((0..3).map(|at| format!("p{at}")));
        }
        let mut behind = values.clone();
        if matches!(at % 4, 0 | 1) {
            good(&mut behind, &mut write);
        }
        if fate != Fate::Stops {
            values = behind;
        }
        Self {
            name: poison.name.clone(),
            fate,
            from,
            to,
            end: next,
            values,
            passes: poison.passes(),
            log,
        }
    }
}

/// The batch as a leader of epoch 0 stores it at this offset.
fn next_bytes(offset: i64, batch: &[u8]) -> Vec<u8> {
    let mut stored = batch.to_vec();
    stored[..8].copy_from_slice(&offset.to_be_bytes());
    stored[12..16].copy_from_slice(&0i32.to_be_bytes());
    stored
}

fn smuggled(from: Version, to: Version) {
    let mut source = Cluster::start(from);
    let target = pool::shared(to, "target");
    let poisons = poisons::all();
    let cases: Vec<Case> =
        (0..).zip(&poisons).map(|(at, poison)| Case::new(at, poison, to)).collect();
    let name = format!("smuggled-{}", from.number().replace('.', "-"));
    let topic = format!("{TOPIC}-{}", from.number());
    source.admin().create_topic(&topic, i32::try_from(cases.len()).unwrap(), json!({}));
    source.node(1).stop();
    for (partition, case) in (0..).zip(&cases) {
        let folder = source.nodes[0].partition_folder(&topic, partition);
        let segment = folder.join("00000000000000000000.log");
        let mut segment = OpenOptions::new().append(true).open(segment).unwrap();
        segment.write_all(&case.log).unwrap();
    }
    source.restart(1);
    let here = source.admin();
    assert_eq!(here.ends(&topic), cases.iter().map(|case| case.end).collect::<Vec<_>>());
    let config =
        Config::new(&name, (&source, Listener::Plain), (&target, Listener::Tls), &[&topic])
            .link("on_poison: skip");
    let mut strait = Strait::start(&config);
    strait.expect_in_log("WARN");
    strait.expect_in_log("ERROR");
    let committed = || -> BTreeMap<i32, i64> {
        let offsets = here.group_offsets(&config.group());
        offsets.iter().map(|offset| (offset.partition, offset.offset)).collect()
    };
    wait_for("every partition at its end, or in front of what has none", 120, || {
        let (committed, status) = (committed(), strait.status());
        let troubled = status["links"][0]["troubled"].as_array().unwrap();
        let parked: BTreeSet<_> = troubled
            .iter()
            .filter(|trouble| trouble["state"] == "parked")
            .map(|trouble| trouble["partition"].as_i64().unwrap())
            .collect();
        let behind: Vec<_> = (0..)
            .zip(&cases)
            .filter(|(at, case)| match case.fate {
                Fate::Stops => !parked.contains(&i64::from(*at)),
                _ => committed.get(at) != Some(&case.end),
            })
            .map(|(at, case)| format!("{} {:?} of {}", case.name, committed.get(&at), case.end))
            .collect();
        if behind.is_empty() { Ok(()) } else { Err(format!("{behind:#?} {troubled:#?}")) }
    });
    let (mut wrong, mut client) = (Vec::new(), target.nodes[0].client());
    for (at, case) in (0..).zip(&cases) {
        let mut passes = case.passes.clone();
        let mut values = Vec::new();
        for batch in client.read_log(&topic, at) {
            if passes.as_deref() == Some(&batch.bytes[HEADER..]) {
                passes = None;
                continue;
            }
            let Ok(records) = catch_unwind(|| batch.records()) else {
                values.push("a batch that cannot be read".to_owned());
                continue;
            };
            values
                .extend(records.into_iter().map(|r| String::from_utf8(r.value.unwrap()).unwrap()));
        }
        if values != case.values || passes.is_some() {
            wrong.push(format!("{}: {values:?} of {:?} arrived", case.name, case.values));
        }
    }
    // The newest hundred are listed; each is one of ours, told to its offset.
    let status = strait.status();
    for loss in status["links"][0]["losses"].as_array().unwrap() {
        let case = &cases[usize::try_from(loss["partition"].as_u64().unwrap()).unwrap()];
        let told = (loss["from_offset"].as_i64(), loss["to_offset"].as_i64());
        let has_reason = loss["reason"].as_str().is_some_and(|reason| !reason.is_empty());
        if case.fate != Fate::Refused || told != (Some(case.from), Some(case.to)) || !has_reason {
            wrong.push(format!("{}: {loss}", case.name));
        }
    }
    let refused = cases.iter().filter(|case| case.fate == Fate::Refused).count();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    let skipped = strait.metric("strait_batches_total", &["skipped_poison"]);
    assert_eq!(skipped, refused as f64, "each is counted once");
    say(&format!(
        "smuggled into Kafka {}, copied to {}: {} batches, {refused} stepped over",
        from.number(),
        to.number(),
        cases.len()
    ));
    strait.assert_clean_log();
}

#[test]
fn batches_that_lie_in_a_real_log_are_stepped_over_alone_from_3_9_to_4_3() {
    smuggled(V39, V43);
}

#[test]
fn batches_that_lie_in_a_real_log_are_stepped_over_alone_from_4_3_to_3_9() {
    smuggled(V43, V39);
}
