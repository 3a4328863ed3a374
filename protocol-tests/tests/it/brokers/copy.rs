//! Every record arrives, equal in every field, in order, between all releases, over TLS.

use std::process::Command;

use protocol_tests::compare::{assert_equal, assert_same_digest};
use protocol_tests::copying::{assert_committed, assert_copied, copy_once, sized};
use protocol_tests::lab::Version::{V39, V43};
use protocol_tests::lab::{Cluster, Listener, Version, pool};
use protocol_tests::raw::{Batch, Codec, RawRecord};
use protocol_tests::strait::Config;
use serde_json::json;

fn raw_records(codec: Codec) -> Batch {
    let mut records: Vec<_> = (0..30).map(|i| RawRecord::at(i, &format!("raw {i}"))).collect();
    records[1].key = None;
    records[2].key = Some(vec![]);
    records[3].value = None;
    records[4].value = Some(vec![]);
    let header = |name: &str, value: Option<&[u8]>| (name.to_owned(), value.map(<[u8]>::to_vec));
    records[5].headers = vec![header("h", None), header("h", Some(b"")), header("h", Some(b"x"))];
    records[6].timestamp_delta = -5_000;
    Batch::of(records).with(|b| b.codec = codec)
}

fn copies_every_field(from: Version, to: Version, listener: Listener) {
    let (source, target) = pool::pair(from, to);
    let (here, there) = (source.admin(), target.admin());
    let name = format!("copy-{}-{}-{}", from.number(), to.number(), listener.name());
    let topic = |kind: &str| format!("{name}-{kind}");
    let mut topics = Vec::new();
    for codec in Codec::ALL {
        let topic = topic(codec.name());
        here.create_topic(&topic, 3, json!({}));
        let props =
            json!({ "compression.type": codec.name(), "linger.ms": "5", "batch.size": "4096" });
        here.produce(&topic, json!({ "count": 600, "kind": "varied", "props": props }));
        topics.push(topic);
    }
    topics.push(topic("librdkafka"));
    here.create_topic(topics.last().unwrap(), 2, json!({}));
    here.produce_librdkafka(topics.last().unwrap(), json!({ "count": 500, "partitions": 2 }));
    topics.push(topic("raw"));
    here.create_topic(topics.last().unwrap(), 1, json!({}));
    for codec in Codec::ALL {
        let bytes = raw_records(codec).bytes();
        assert_eq!(source.nodes[0].client().produce(&topic("raw"), 0, bytes).error, 0);
    }
    topics.push(topic("transactions"));
    here.create_topic(topics.last().unwrap(), 2, json!({}));
    let pattern = json!(["commit:40", "abort:25", "commit:1"]);
    here.produce(topics.last().unwrap(), json!({ "count": 400, "transactions": pattern }));

    let pattern = format!("{}-.*", name.replace('.', "\\."));
    let config = Config::new(
        &name.replace('.', "_"),
        (&source, Listener::Plain),
        (&target, listener),
        &[&pattern],
    );
    copy_once(&config);

    for topic in &topics {
        assert_copied(&here, &there, topic);
        assert_committed(&here, &config.group(), topic);
    }
    assert_equal(&here.records(&topics[0]), &there.records_librdkafka(&topics[0]));
}

#[test]
fn rule_58_kafka_3_9_to_3_9() {
    copies_every_field(V39, V39, Listener::Tls);
}

#[test]
fn rule_58_kafka_3_9_to_4_3() {
    copies_every_field(V39, V43, Listener::Tls);
}

#[test]
fn rule_58_kafka_4_3_to_3_9() {
    copies_every_field(V43, V39, Listener::Tls);
}

#[test]
fn rule_58_kafka_4_3_to_4_3() {
    copies_every_field(V43, V43, Listener::Tls);
}

#[test]
fn mutual_tls_and_scram_over_tls_carry_the_same() {
    copies_every_field(V43, V43, Listener::MutualTls);
    copies_every_field(V43, V43, Listener::SaslTls);
}

/// The lag column of Kafka's own `kafka-consumer-groups --describe`, by partition.
fn lag_as_kafka_prints_it(cluster: &Cluster, group: &str) -> Vec<String> {
    let output = Command::new("java")
        .args(["-XX:TieredStopAtLevel=1", "-cp", &cluster.version.class_path()])
        .arg("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand")
        .args(["--bootstrap-server", &cluster.bootstrap(Listener::Plain)])
        .args(["--describe", "--group", group])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.lines().filter(|line| line.starts_with(group));
    rows.map(|line| line.split_whitespace().nth(5).unwrap().to_owned()).collect()
}

#[test]
fn millions_of_records_arrive_once_and_in_order() {
    let (source, target) = pool::pair(V43, V43);
    let (here, there) = (source.admin(), target.admin());
    let count = sized(300_000, 2_000_000);
    here.create_topic("volume", 8, json!({}));
    let partitions = json!([0, 1, 2, 3, 4, 5, 6, 7]);
    let props = json!({ "batch.size": "262144", "linger.ms": "20", "buffer.memory": "67108864" });
    here.produce(
        "volume",
        json!({
            "count": count, "size": 1000, "partitions": partitions, "props": props,
            "transactions": ["commit:20000", "abort:500"],
        }),
    );
    let config =
        Config::new("volume", (&source, Listener::Plain), (&target, Listener::Tls), &["volume"]);
    let strait = copy_once(&config);
    let log = strait.log();
    println!("{}", log.lines().rev().take(3).collect::<Vec<_>>().join("\n"));

    let (expected, copied) = (here.summary("volume"), there.summary("volume"));
    assert_same_digest(&expected, &copied);
    assert!(expected.iter().map(|p| p.count).sum::<u64>() > count * 9 / 10);
    // No duplicate: the target's log, which has no markers, ends at the number of records.
    assert!(copied.iter().all(|p| p.end == i64::try_from(p.count).unwrap()), "{copied:?}");
    // The source's end is beyond its last record: markers were passed by too.
    assert!(expected.iter().all(|p| p.end > p.last + 1), "{expected:?}");
    assert_committed(&here, &config.group(), "volume");
    assert_eq!(lag_as_kafka_prints_it(&source, &config.group()), ["0"; 8]);
}

#[test]
fn rule_34_the_position_carries_the_leader_epoch() {
    let (source, target) = pool::pair(V43, V43);
    let here = source.admin();
    here.create_topic("epoch", 1, json!({}));
    here.produce("epoch", json!({ "count": 10 }));
    let config =
        Config::new("epoch", (&source, Listener::Plain), (&target, Listener::Tls), &["epoch"]);
    copy_once(&config);
    let offsets = here.group_offsets(&config.group());
    assert_eq!((offsets[0].offset, offsets[0].leader_epoch), (10, 0), "{offsets:?}");
    assert!(!offsets[0].metadata.is_empty(), "the anchor is in the metadata");
}

#[test]
fn rule_1_2_22_small_batches_are_numbered_one_after_the_other() {
    let (source, target) = pool::pair(V39, V43);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("numbering", 2, json!({}));
    // A batch per record, from a writer without id.
    let props = json!({ "batch.size": "0", "enable.idempotence": "false" });
    here.produce("numbering", json!({ "count": 3000, "partitions": [0, 1], "props": props }));
    let config = Config::new(
        "numbering",
        (&source, Listener::Plain),
        (&target, Listener::Tls),
        &["numbering"],
    );
    copy_once(&config);
    assert_copied(&here, &there, "numbering");
    for partition in [0, 1] {
        let log = target.nodes[0].client().read_log("numbering", partition);
        let mut sequence = 0;
        for batch in &log {
            assert!(batch.producer_id >= 1 << 62, "{batch:?}");
            assert_eq!((batch.producer_id, batch.base_sequence), (log[0].producer_id, sequence));
            assert_eq!((batch.producer_epoch, batch.attributes), (log[0].producer_epoch, 0));
            sequence += batch.count;
        }
        assert_eq!(sequence, 1500);
    }
}

#[test]
fn rule_3_39_batches_larger_than_a_fetch_progress() {
    let (source, target) = pool::pair(V43, V39);
    let (here, there) = (source.admin(), target.admin());
    let large = json!({ "max.message.bytes": "12000000" });
    here.create_topic("large", 1, large.clone());
    there.create_topic("large", 1, large);
    let props =
        json!({ "max.request.size": "12000000", "buffer.memory": "67108864", "batch.size": "0" });
    for size in [700_000, 5_000_000, 10, 3_000_000, 700_000, 999_999] {
        here.produce("large", json!({ "count": 2, "size": size, "props": props }));
    }
    let config =
        Config::new("large", (&source, Listener::Plain), (&target, Listener::Tls), &["large"]);
    copy_once(&config);
    assert_copied(&here, &there, "large");
    assert_committed(&here, &config.group(), "large");
}

#[test]
fn rule_4_5_6_8_transactional_batches_arrive_plain() {
    let (source, target) = pool::pair(V43, V43);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("plain", 1, json!({}));
    here.produce("plain", json!({ "count": 90, "transactions": ["commit:20", "abort:10"] }));
    // Bits that nobody defined are stored by the source.
    let odd = Batch::small(5).with(|b| b.attributes = 0x7f80);
    assert_eq!(source.nodes[0].client().produce("plain", 0, odd.bytes()).error, 0);
    let config =
        Config::new("plain", (&source, Listener::Plain), (&target, Listener::Tls), &["plain"]);
    copy_once(&config);
    assert_copied(&here, &there, "plain");
    let log = target.nodes[0].client().read_log("plain", 0);
    assert!(log.iter().all(|batch| batch.attributes == 0), "{log:?}");
    assert_eq!(log.iter().map(|batch| batch.count).sum::<i32>(), 65);
}

#[test]
fn rule_17_21_the_target_may_compress_otherwise() {
    let (source, target) = pool::pair(V39, V39);
    let (here, there) = (source.admin(), target.admin());
    for (kept, codec) in [("zstd", "lz4"), ("uncompressed", "zstd"), ("gzip", "none")] {
        let topic = format!("recompressed-{kept}");
        here.create_topic(&topic, 1, json!({}));
        there.create_topic(&topic, 1, json!({ "compression.type": kept }));
        let props = json!({ "compression.type": codec, "linger.ms": "5" });
        here.produce(&topic, json!({ "count": 500, "kind": "varied", "props": props }));
    }
    let config = Config::new(
        "recompressed",
        (&source, Listener::Plain),
        (&target, Listener::Tls),
        &["recompressed-.*"],
    );
    copy_once(&config);
    for kept in ["zstd", "uncompressed", "gzip"] {
        assert_copied(&here, &there, &format!("recompressed-{kept}"));
    }
}
