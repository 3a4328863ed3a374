//! What a source legally holds and a stock target refuses: passed on with its meaning, or parked with a reason.

use std::sync::Arc;
use std::time::Duration;

use protocol_tests::agent::Admin;
use protocol_tests::copying::{assert_committed, assert_copied, copy_once, wait_committed};
use protocol_tests::lab::Version::{self, V39, V43};
use protocol_tests::lab::{Cluster, Listener, pool};
use protocol_tests::raw::batch::now_ms;
use protocol_tests::raw::{Batch, Codec, Parsed, RawRecord};
use protocol_tests::strait::{Config, Strait};
use protocol_tests::wait::{wait_for, wait_pacing, wait_until};
use serde_json::{Value, json};

fn link(name: &str, source: &Cluster, target: &Cluster, include: &[&str]) -> Config {
    Config::new(name, (source, Listener::Plain), (target, Listener::Tls), include)
}

/// Settings under which the cleaner works within seconds.
fn compacted() -> Value {
    json!({
        "cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", "segment.ms": "1000",
        "min.compaction.lag.ms": "0", "max.compaction.lag.ms": "1500", "delete.retention.ms": "600000",
    })
}

/// Writes until the cleaner has left what `found` looks for (records roll the segments).
fn wait_for_cleaner(source: &Cluster, topic: &str, found: impl Fn(&[Parsed]) -> bool) {
    let mut client = source.nodes[0].client();
    let mut rolls = 0;
    wait_pacing(&format!("cleaner of {topic}"), 90, Duration::from_millis(700), || {
        let roll = RawRecord {
            key: Some(format!("roll-{rolls}").into_bytes()),
            ..RawRecord::at(0, "roll")
        };
        rolls += 1;
        assert_eq!(client.produce(topic, 0, Batch::of(vec![roll]).bytes()).error, 0);
        found(&client.read_log(topic, 0))
    });
}

fn has_holes(batch: &Parsed) -> bool {
    batch.count != batch.last_offset_delta + 1
}

fn keyed(keys: &[&str], codec: Codec) -> Batch {
    let records = (0..).zip(keys).map(|(at, key)| RawRecord {
        key: Some(key.as_bytes().to_vec()),
        value: (!key.starts_with("tomb")).then(|| b"value".to_vec()),
        timestamp_delta: at * 7,
        ..RawRecord::at(at, "")
    });
    Batch::of(records.collect()).with(|b| {
        b.codec = codec;
        b.base_timestamp = now_ms() - 5_000;
    })
}

#[test]
fn rule_7_9_10_11_12_compacted_batches_of_every_codec_are_renumbered() {
    let (source, target) = pool::pair(V43, V39);
    let (here, there) = (source.admin(), target.admin());
    for codec in Codec::ALL {
        let topic = format!("gappy-{}", codec.name());
        here.create_topic(&topic, 1, compacted());
        let mut client = source.nodes[0].client();
        let first = keyed(&["a", "b", "c", "d", "e"], codec);
        // All of this writer's records go; its batch stays, empty, because it is its last.
        let emptied = keyed(&["k", "l"], codec).sequenced((1 << 61) + 7, 0);
        let with_tombstone = keyed(&["m", "tomb", "n"], codec);
        let newer = keyed(&["a", "c", "e", "k", "l", "m"], codec);
        for batch in [first, emptied, with_tombstone, newer] {
            assert_eq!(client.produce(&topic, 0, batch.bytes()).error, 0);
        }
    }
    for codec in Codec::ALL {
        wait_for_cleaner(&source, &format!("gappy-{}", codec.name()), |log| {
            log.iter().any(|b| b.count > 0 && has_holes(b))
                && log.iter().any(|b| b.count == 0)
                && log.iter().any(|b| b.attributes & 0x40 != 0)
        });
    }
    // The target's topics do not compact, or the cleaner there would change what is compared.
    for codec in Codec::ALL {
        there.create_topic(&format!("gappy-{}", codec.name()), 1, json!({}));
    }
    let config = link("gappy", &source, &target, &["gappy-.*"]);
    copy_once(&config);
    for codec in Codec::ALL {
        let topic = format!("gappy-{}", codec.name());
        assert_copied(&here, &there, &topic);
        assert_committed(&here, &config.group(), &topic);
        for batch in target.nodes[0].client().read_log(&topic, 0) {
            assert_eq!(batch.attributes, codec_bits(&batch, codec), "no other bit");
            let deltas: Vec<i64> = batch.records().iter().map(|r| r.offset_delta).collect();
            assert_eq!(deltas, (0..i64::from(batch.count)).collect::<Vec<_>>());
            assert_eq!(batch.last_offset_delta + 1, batch.count);
            let newest = batch.records().iter().map(|r| r.timestamp_delta).max().unwrap();
            assert_eq!(batch.max_timestamp, batch.base_timestamp + newest);
        }
    }
}

/// Rolling records are not compressed.
fn codec_bits(batch: &Parsed, codec: Codec) -> i16 {
    let rolls = batch.records().iter().all(|r| r.key.as_ref().unwrap().starts_with(b"roll"));
    if rolls { 0 } else { codec as i16 }
}

#[test]
fn rule_20_append_times_arrive_as_readers_saw_them() {
    let (source, target) = pool::pair(V43, V43);
    let (here, there) = (source.admin(), target.admin());
    let append = json!({ "message.timestamp.type": "LogAppendTime" });
    let cells = [
        ("create-create", false, false),
        ("append-create", true, false),
        ("create-append", false, true),
        ("append-append", true, true),
    ];
    for (cell, source_appends, target_appends) in cells {
        let topic = format!("time-{cell}");
        let configs = |appends: bool| {
            if appends { append.clone() } else { json!({ "message.timestamp.type": "CreateTime" }) }
        };
        here.create_topic(&topic, 1, configs(source_appends));
        there.create_topic(&topic, 1, configs(target_appends));
        let props = json!({ "linger.ms": "5", "compression.type": "zstd" });
        let old = now_ms() - 3_600_000;
        here.produce(
            &topic,
            json!({ "count": 300, "timestamp": old, "kind": "varied", "props": props }),
        );
    }
    let started = now_ms();
    let config = link("time", &source, &target, &["time-.*"]);
    let mut strait = Strait::start_with(&config, &["--until-caught-up"]);
    assert_eq!(strait.wait(60), 0, "{}", strait.log());
    for (cell, source_appends, target_appends) in cells {
        let topic = format!("time-{cell}");
        let (mut expected, mut copied) = (here.records(&topic), there.records(&topic));
        assert_eq!(expected.len(), 300);
        if target_appends {
            // Such a target can never hold the source's times.
            assert!(
                copied
                    .iter()
                    .all(|r| r.timestamp_type == "LogAppendTime" && r.timestamp >= started)
            );
            copied.iter_mut().chain(&mut expected).for_each(|r| r.timestamp = 0);
        } else {
            assert!(copied.iter().all(|r| r.timestamp_type == "CreateTime"));
            assert_eq!(copied[0].timestamp > started - 60_000, source_appends, "{:?}", copied[0]);
        }
        copied.iter_mut().chain(&mut expected).for_each(|r| r.timestamp_type.clear());
        protocol_tests::compare::assert_equal(&expected, &copied);
    }
}

/// Runs a link of a poisoned topic and a healthy neighbour; gives it once the neighbour is done and the topic parked.
fn parked(name: &str, source: &Arc<Cluster>, target: &Arc<Cluster>, reason: &str) -> Strait {
    let here = source.admin();
    let neighbour = format!("{name}-neighbour");
    here.create_topic(&neighbour, 1, json!({}));
    here.produce(&neighbour, json!({ "count": 100 }));
    let config = link(name, source, target, &[&format!("{name}-.*")]);
    let mut strait = Strait::start(&config);
    strait.expect_in_log("ST-");
    wait_committed(&here, &config.group(), &neighbour, 60);
    assert_copied(&here, &target.admin(), &neighbour);
    wait_for("a parked mirror with its reason", 60, || {
        let status = strait.status().to_string();
        let said = status.contains("parked") && status.contains(reason);
        if said { Ok(()) } else { Err(status) }
    });
    // The neighbour lives on.
    here.produce(&neighbour, json!({ "count": 50 }));
    wait_committed(&here, &config.group(), &neighbour, 30);
    strait
}

fn committed(source: &Admin, name: &str, topic: &str) -> i64 {
    let offsets = source.group_offsets(&format!("strait.{name}"));
    offsets.iter().find(|o| o.topic == topic).map_or(0, |o| o.offset)
}

#[test]
fn rule_18_31_a_null_key_for_a_compacted_target_parks_its_mirror() {
    let (source, target) = pool::pair(V39, V43);
    let here = source.admin();
    here.create_topic("nullkey-bad", 1, json!({}));
    target.admin().create_topic("nullkey-bad", 1, json!({ "cleanup.policy": "compact" }));
    let mut client = source.nodes[0].client();
    for batch in [
        keyed(&["a", "b"], Codec::None),
        Batch::small(3).with(|b| b.records[1].key = None),
        keyed(&["c"], Codec::None),
    ] {
        assert_eq!(client.produce("nullkey-bad", 0, batch.bytes()).error, 0);
    }
    let strait = parked("nullkey", &source, &target, "INVALID_RECORD");
    assert_eq!(committed(&here, "nullkey", "nullkey-bad"), 2, "nothing past the poison");
    assert_eq!(target.admin().records("nullkey-bad").len(), 2);
    strait.assert_clean_log();
}

#[test]
fn rule_16_batches_too_large_for_the_target_are_split_or_parked() {
    let (source, target) = pool::pair(V43, V43);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("size-split", 1, json!({}));
    there.create_topic("size-split", 1, json!({ "max.message.bytes": "20000" }));
    for codec in ["none", "lz4"] {
        let props = json!({ "batch.size": "200000", "linger.ms": "50", "compression.type": codec });
        here.produce("size-split", json!({ "count": 400, "size": 900, "props": props }));
    }
    here.create_topic("size-bad", 1, json!({}));
    there.create_topic("size-bad", 1, json!({ "max.message.bytes": "20000" }));
    here.produce("size-bad", json!({ "count": 3, "size": 100 }));
    here.produce("size-bad", json!({ "count": 1, "size": 30_000 }));
    here.produce("size-bad", json!({ "count": 3, "size": 100 }));
    let strait = parked("size", &source, &target, "20000 are allowed");
    wait_committed(&here, "strait.size", "size-split", 30);
    assert_copied(&here, &there, "size-split");
    let log = target.nodes[0].client().read_log("size-split", 0);
    assert!(log.iter().all(|batch| batch.bytes.len() <= 20_000));
    assert_eq!(committed(&here, "size", "size-bad"), 3, "nothing past the poison");
    strait.assert_clean_log();
}

#[test]
fn rule_19_a_time_ahead_of_4_x_parks_its_mirror() {
    let (source, target) = pool::pair(V39, V43);
    let here = source.admin();
    here.create_topic("ahead-bad", 1, json!({}));
    here.produce("ahead-bad", json!({ "count": 5 }));
    here.produce("ahead-bad", json!({ "count": 5, "timestamp": now_ms() + 7_200_000 }));
    let strait = parked("ahead", &source, &target, "INVALID_TIMESTAMP");
    assert_eq!(committed(&here, "ahead", "ahead-bad"), 5);
    strait.assert_clean_log();
}

#[test]
fn rule_35_a_start_inside_a_batch_forwards_nothing_before_it() {
    let (source, target) = pool::pair(V43, V39);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("inside", 1, json!({ "retention.ms": "-1" }));
    let base = 1_767_225_600_000; // 2026-01-01T00:00:00Z
    let mut client = source.nodes[0].client();
    for codec in Codec::ALL {
        let records = (0..10).map(|i| RawRecord {
            timestamp_delta: i * 1000,
            ..RawRecord::at(i, &format!("{codec:?}{i}"))
        });
        let batch = Batch::of(records.collect()).with(|b| {
            b.codec = codec;
            b.base_timestamp = base;
        });
        assert_eq!(client.produce("inside", 0, batch.bytes()).error, 0);
    }
    let config = link("inside", &source, &target, &["inside"]);
    let config =
        Config { link: vec!["start: { timestamp: 2026-01-01T00:00:04Z }".into()], ..config };
    copy_once(&config);
    let expected: Vec<_> = here.records("inside").into_iter().filter(|r| r.offset >= 4).collect();
    assert_eq!(expected.len(), 46);
    protocol_tests::compare::assert_equal(&expected, &there.records("inside"));
}

#[test]
fn rule_36_deleted_records_inside_a_batch_never_arrive() {
    let (source, target) = pool::pair(V39, V39);
    let (here, there) = (source.admin(), target.admin());
    for codec in Codec::ALL {
        let topic = format!("deleted-{}", codec.name());
        here.create_topic(&topic, 1, json!({}));
        let mut client = source.nodes[0].client();
        for _ in 0..3 {
            let batch = Batch::small(10).with(|b| b.codec = codec);
            assert_eq!(client.produce(&topic, 0, batch.bytes()).error, 0);
        }
        here.delete_records(&topic, 0, 13);
    }
    let config = link("deleted", &source, &target, &["deleted-.*"]);
    copy_once(&config);
    for codec in Codec::ALL {
        let topic = format!("deleted-{}", codec.name());
        assert_copied(&here, &there, &topic);
        assert_eq!(there.records(&topic).len(), 17);
        assert_committed(&here, &config.group(), &topic);
    }
}

fn interleaved(from: Version) {
    let (source, target) = pool::pair(from, V43);
    let (here, there) = (source.admin(), target.admin());
    let topic = format!("interleaved-{}", from.number());
    here.create_topic(&topic, 1, json!({}));
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (here, topic) = (&here, &topic);
            scope.spawn(move || {
                let pattern =
                    if writer == 3 { json!(["commit:3"]) } else { json!(["commit:7", "abort:5"]) };
                here.produce(topic, json!({
                    "count": 200, "from": writer * 1000, "transactions": pattern,
                    "props": { "transactional.id": format!("{topic}-{writer}"), "linger.ms": "0" },
                }));
            });
        }
        scope.spawn(|| here.produce(&topic, json!({ "count": 500, "per_second": 250 })));
    });
    let pattern = topic.replace('.', "\\.");
    let config = link(&topic.replace('.', "_"), &source, &target, &[&pattern]);
    copy_once(&config);
    assert_copied(&here, &there, &topic);
    assert_committed(&here, &config.group(), &topic);
}

#[test]
fn rule_43_45_interleaved_transactions_arrive_as_committed() {
    interleaved(V43);
    interleaved(V39);
}

#[test]
fn rule_44_an_open_transaction_holds_its_mirror_and_says_so() {
    let (source, target) = pool::pair(V43, V39);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("hung", 1, json!({}));
    here.produce("hung", json!({ "count": 20 }));
    // `open` leaves the transaction without an end; its coordinator aborts it after a minute.
    let props = json!({ "transaction.timeout.ms": "20000", "transactional.id": "hung" });
    here.produce("hung", json!({ "count": 5, "transactions": ["open:5"], "props": props }));
    here.produce("hung", json!({ "count": 30, "from": 100 }));
    let config = link("hung", &source, &target, &["hung"]);
    let strait = Strait::start(&config);
    wait_until("what lies before the transaction", 30, || {
        there.exists("hung") && there.records("hung").len() == 20
    });
    assert!(committed(&here, "hung", "hung") <= 20);
    wait_committed(&here, &config.group(), "hung", 60);
    assert_copied(&here, &there, "hung");
    assert_eq!(there.records("hung").len(), 50);
    strait.assert_clean_log();
}
