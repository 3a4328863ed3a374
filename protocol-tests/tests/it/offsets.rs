//! `strait offsets`, and the map in the anchor that it answers from: each answer is held against the records themselves.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol_tests::raw::batch::now_ms;
use protocol_tests::raw::{Batch, RawRecord, parse};
use protocol_tests::strait::run;
use protocol_tests::wait::wait_until;
use strait::embedded::{ApiKey, EmbeddedCluster, Fault, Order};
use strait::engine::anchor::Anchor;
use strait::engine::offset_map::Place;
use strait::wire::ErrorCode;

use crate::stage::Stage;

/// Values by their offsets.
fn by_offset(cluster: &EmbeddedCluster, topic: &str) -> BTreeMap<i64, String> {
    let mut values = BTreeMap::new();
    for bytes in &cluster.dump(topic, 0).unwrap().batches {
        for batch in parse(bytes).0 {
            for record in batch.records() {
                let value = String::from_utf8(record.value.unwrap()).unwrap();
                values.insert(batch.base_offset + record.offset_delta, value);
            }
        }
    }
    values
}

/// What the group's anchor says of each source offset below the position; all of it must be true.
#[track_caller]
fn checked(stage: &Stage, topic: &str) -> Vec<Place> {
    let committed = &stage.source.committed(&stage.config.group())[&(topic.to_owned(), 0)];
    let anchor = Anchor::parse(&committed.metadata, committed.offset).unwrap();
    let place = |offset| anchor.map.place(offset, committed.offset, anchor.target_offset);
    let (source, target) = (by_offset(&stage.source, topic), by_offset(&stage.target, topic));
    // Values are unique: where a record must be is known.
    let at: BTreeMap<_, _> = target.iter().map(|(offset, value)| (value, *offset)).collect();
    let truth = |offset: &i64| source.get(offset).and_then(|value| at.get(value)).copied();
    let places: Vec<_> = (0..committed.offset).map(place).collect();
    for (offset, place) in (0..).zip(&places) {
        let right = match *place {
            Place::Exact { target_offset } => truth(&offset) == Some(target_offset),
            Place::Between { target_offset_first: first, target_offset_last: last } => {
                truth(&offset).is_none_or(|at| (first..=last).contains(&at))
            }
            Place::Skipped { next_source_offset, next_target_offset } => {
                let next = next_source_offset.map(|next| truth(&next));
                truth(&offset).is_none() && next.is_none_or(|next| next == Some(next_target_offset))
            }
            Place::NotYet { .. } | Place::Older { .. } => false,
        };
        assert!(
            right,
            "offset {offset}: {place:?}, truly {:?}; {}",
            truth(&offset),
            committed.metadata
        );
    }
    places
}

fn foreign(value: &str) -> Bytes {
    Bytes::from(Batch::of(vec![RawRecord::at(0, value)]).bytes())
}

#[test]
fn the_offset_map_is_exact_across_kills_lost_answers_and_other_writers() {
    let stage = Stage::new("offsets");
    stage.append_many(0..30);
    let mut strait = stage.start();
    stage.wait_committed(&strait, 30);
    let lost =
        stage.target.fault(Order::next(ApiKey::Produce, Fault::CloseAfter).after(3).times(3));
    for round in 1..7_u32 {
        // Commits are refused: what is appended now is found on the target by reading back.
        let refuse = Fault::Refuse(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
        stage.source.fault(Order::next(ApiKey::OffsetCommit, refuse).times(u32::MAX));
        for half in 0..2 {
            let first = round * 30 + half * 15;
            stage.append_many(first..first + 14);
            // What another Strait wrote is not copied.
            let replicated = Batch::of(vec![RawRecord::at(0, &format!("r{first}"))]);
            stage.append(&replicated.sequenced((1 << 62) + 1, (round * 2 + half) as i32));
            let arrived =
                |value: u32| stage.arrived().iter().any(|r| r.1 == Some(value.to_string()));
            wait_until("arrival", 30, || arrived(first + 13));
            stage.target.append("topic", 0, &foreign(&format!("f{first}"))).unwrap();
        }
        strait.kill();
        stage.source.clear_faults();
        strait.restart();
        stage.wait_committed(&strait, 60);
        let places = checked(&stage, "topic");
        let exact = places.iter().filter(|place| matches!(place, Place::Exact { .. })).count();
        assert_eq!(exact as u32, 30 + round * 28, "all of it is exact");
    }
    assert!(stage.target.fault_struck(lost) > 0, "no answer was lost");
    strait.assert_clean_log();

    // The command says the same, with and without the process.
    let yaml = stage.config.yaml(1);
    let ask = |offset: &str| {
        let out = run(&yaml, &["offsets", "offsets", "topic", "0", offset, "-o", "json"]);
        let answer: serde_json::Value = serde_json::from_str(&out.out).unwrap();
        (out.code, answer["answer"].clone())
    };
    let exact = |target: i64| serde_json::json!({ "kind": "exact", "target_offset": target });
    assert_eq!(ask("7"), (0, exact(7)));
    let (code, next) = ask("44");
    assert_eq!(
        (code, &next["kind"], &next["next_source_offset"]),
        (0, &"skipped".into(), &45.into())
    );
    strait.terminate();
    assert_eq!(ask("45").1["target_offset"], next["next_target_offset"]);
    let (code, answer) = ask("210");
    assert_eq!((code, &answer["kind"]), (3, &"not_yet".into()));
}

#[test]
fn the_offset_map_is_exact_in_what_compaction_left() {
    let stage = Stage::new("offsets-compacted");
    let configs = [("cleanup.policy", "compact")];
    stage.source.create_topic("topic-compact", 1, -1, &configs).unwrap();
    let mut value = 0;
    for round in 0..40_u8 {
        let records = (0..10).map(|at| {
            value += 1;
            // Some keys come back and are compacted, others stay.
            let key = if at % 3 == 0 { vec![at as u8] } else { vec![at as u8, round] };
            RawRecord { key: Some(key), ..RawRecord::at(at, &value.to_string()) }
        });
        let batch = Batch::of(records.collect());
        stage.source.append("topic-compact", 0, &Bytes::from(batch.bytes())).unwrap();
    }
    stage.source.compact("topic-compact", 0, Some(now_ms() + 1_000_000)).unwrap();
    let strait = stage.start();
    wait_until("the position", 30, || {
        let committed = stage.source.committed(&stage.config.group());
        committed.get(&("topic-compact".to_owned(), 0)).is_some_and(|c| c.offset == 400)
    });
    let places = checked(&stage, "topic-compact");
    // Each batch has three holes: the youngest third is exact, the rest is known to lie between two places.
    let inexact = places.iter().filter(|place| matches!(place, Place::Between { .. }));
    let young = places[300..].iter().all(|place| !matches!(place, Place::Between { .. }));
    assert!(young && inexact.count() > 0);
    strait.assert_clean_log();
}
