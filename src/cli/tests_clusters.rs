//! The verbs that dial, against clusters in this process.

use super::tests::run_in;
use super::*;
use crate::cluster::admin;
use crate::config::resolved;
use crate::embedded::{EmbeddedCluster, Listener, Options, User};
use crate::env::Env;
use crate::error::Side;
use crate::wire::common::TopicPartitions;
use crate::wire::offset_commit::OffsetToCommit;

fn cluster(options: Options) -> EmbeddedCluster {
    EmbeddedCluster::start(Env::real(), options).unwrap()
}

fn config(east: &str, west: &str, pattern: &str) -> String {
    format!(
        "version: 1
clusters:
  east: {{ bootstrap: [\"{east}\"] }}
  west: {{ bootstrap: [\"{west}\"] }}
links:
  east-to-west: {{ from: east, to: west, topics: {{ include: [\"{pattern}\"] }} }}
"
    )
}

/// Runs a verb with a configuration; what it wrote to standard output.
fn strait(verb: &str, config: &str) -> (Exit, String) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("strait.yaml"), config).unwrap();
    let (exit, out, err) = run_in(directory.path(), &format!("strait -c @strait.yaml {verb}"));
    assert!(exit == Exit::Ok || !out.is_empty() || !err.is_empty());
    (exit, out)
}

#[test]
fn check_of_a_good_pair_says_what_would_happen_and_changes_nothing() {
    let (east, west) =
        (cluster(Options { brokers: 3, ..Options::default() }), cluster(Options::default()));
    east.create_topic("orders", 3, 1, &[]).unwrap();
    east.create_topic("other", 1, 1, &[]).unwrap();
    let bootstrap = east.bootstrap().split(',').next().unwrap().to_owned();
    let (exit, out) = strait("check", &config(&bootstrap, &west.bootstrap(), "orders"));
    assert_eq!(exit, Exit::Ok, "{out}");
    for words in [
        "bootstrap 1/1",
        "brokers 3/3",
        "cluster ids differ",
        "1 topics, 3 partitions",
        "3 of 3 partitions readable",
        "1 topics would be created",
        "0 errors",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    assert_eq!(west.topics(), Vec::<String>::new());
}

#[test]
fn check_names_the_nearest_topic_when_none_matches() {
    let (east, west) = (cluster(Options::default()), cluster(Options::default()));
    east.create_topic("orders", 1, 1, &[]).unwrap();
    let (exit, out) = strait("check", &config(&east.bootstrap(), &west.bootstrap(), "order"));
    assert_eq!(exit, Exit::NotTrue, "{out}");
    assert!(out.contains("ST-041") && out.contains("nearest: orders"), "{out}");
}

#[test]
fn check_refuses_one_cluster_behind_two_addresses() {
    let listeners = vec![Listener::plain(), Listener::plain()];
    let both = cluster(Options { listeners, ..Options::default() });
    both.create_topic("orders", 1, 1, &[]).unwrap();
    let (exit, out) =
        strait("check", &config(&both.bootstrap_of(0), &both.bootstrap_of(1), "orders"));
    assert_eq!(exit, Exit::NotTrue, "{out}");
    assert!(out.contains("ST-040"), "{out}");
}

#[test]
fn check_refuses_origins_that_cannot_be_told_apart_or_would_come_back() {
    // Two ids whose 28 bits are alike.
    let with_id = |id: &str| cluster(Options { cluster_id: Some(id.into()), ..Options::default() });
    let (east, west) = (with_id("cluster-18193"), with_id("cluster-24117"));
    east.create_topic("orders", 1, 1, &[]).unwrap();
    let text = config(&east.bootstrap(), &west.bootstrap(), "orders");
    let (exit, out) = strait("check", &text);
    assert_eq!(exit, Exit::NotTrue, "{out}");
    assert!(out.contains("ST-073") && out.contains("give the same origin"), "{out}");
    let (exit, _) =
        strait("run --until-caught-up", &format!("{text}telemetry: {{ listen: off }}\n"));
    assert_eq!(exit, Exit::Failed);
    assert_eq!(west.topics(), Vec::<String>::new());

    // The target under another name.
    let listeners = vec![Listener::plain(), Listener::plain()];
    let west = cluster(Options { listeners, ..Options::default() });
    let text = config(&east.bootstrap(), &west.bootstrap_of(0), "orders")
        .replace(
            "links:",
            &format!("  alias: {{ bootstrap: [\"{}\"] }}\nlinks:", west.bootstrap_of(1)),
        )
        .replace("to: west,", "to: west, forward: [local, alias],");
    let (exit, out) = strait("check", &text);
    assert_eq!(exit, Exit::NotTrue, "{out}");
    assert!(out.contains("ST-073") && out.contains("would come back"), "{out}");
}

#[test]
fn check_names_a_wrong_password_and_goes_on_with_the_other_cluster() {
    let user = User { name: "u".into(), password: "right".into() };
    let listeners = vec![Listener::plain().with_sasl()];
    let east = cluster(Options { listeners, users: vec![user], ..Options::default() });
    let west = cluster(Options::default());
    let text = config(&east.bootstrap(), &west.bootstrap(), "orders");
    let sasl = "], sasl: { mechanism: SCRAM-SHA-512, username: u, password: canary-wrong }";
    let (exit, out) = strait("check", &text.replacen(']', sasl, 1));
    assert_eq!(exit, Exit::NotTrue, "{out}");
    assert!(out.contains("ST-022"), "{out}");
    assert!(out.contains("cluster west  ✓ bootstrap 1/1"), "{out}");
    assert!(!out.contains("canary"), "{out}");
}

#[test]
fn check_names_a_port_where_nobody_listens() {
    let west = cluster(Options::default());
    let text = config("127.0.0.1:1", &west.bootstrap(), "orders");
    let (exit, out) = strait("check -o json", &text);
    assert_eq!(exit, Exit::NotTrue, "{out}");
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&answer["ok"], &answer["errors"]), (&false.into(), &1.into()), "{out}");
    let errors = answer["clusters"].as_array().unwrap().iter().filter(|f| f["severity"] == "error");
    let codes = errors.map(|f| f["code"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(codes, ["ST-015"], "{out}");
}

#[test]
fn lag_is_read_from_the_source_alone() {
    let east = cluster(Options::default());
    east.create_topic("orders", 2, 1, &[]).unwrap();
    // The target is down: lag does not care.
    let text = config(&east.bootstrap(), "127.0.0.1:1", "orders");
    let (exit, out) = strait("lag -o json", &text);
    assert_eq!(exit, Exit::Ok, "{out}");
    let link =
        |out: &str| serde_json::from_str::<serde_json::Value>(out).unwrap()["links"][0].clone();
    assert_eq!(link(&out)["unknown"], 2, "{out}");

    let around =
        crate::config::Surroundings { directory: std::path::Path::new("."), variable: &|_| None };
    let loaded = crate::config::parse(&text, "test", &around).unwrap();
    let source: std::sync::Arc<resolved::Cluster> = loaded.config.clusters["east"].clone();
    net::block_on(async {
        let env = Env::real();
        let handle = net::open(&env, &source, Side::Source).await?;
        let group = "strait.east-to-west";
        let position =
            OffsetToCommit { index: 1, offset: 0, leader_epoch: -1, metadata: String::new() };
        let topics = vec![TopicPartitions::new("orders", vec![position])];
        let coordinator = handle.coordinator(&env, group).await?;
        admin::offset_commit(&coordinator, group, topics).await?;
        Ok(())
    })
    .unwrap();
    let (exit, out) = strait("lag -o json", &text);
    assert_eq!((exit, &link(&out)["unknown"]), (Exit::Ok, &1.into()), "{out}");
    assert_eq!(link(&out)["partitions"][1]["lag_offsets"], 0, "{out}");
    let (_, table) = strait("lag", &text);
    assert!(
        table.contains("orders-0") && table.contains("1 partitions without a position"),
        "{table}"
    );
    let (exit, _) = strait("lag east-to-wets", &text);
    assert_eq!(exit, Exit::Usage);
}

#[test]
fn status_without_a_process_is_one_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let (exit, _, err) = run_in(directory.path(), "strait status --telemetry 127.0.0.1:1");
    assert_eq!(exit, Exit::Failed);
    assert!(err.contains("ST-007") && err.contains("strait run"), "{err}");
}

/// One batch of `count` records.
fn batch(first: usize, count: usize) -> bytes::Bytes {
    let mut builder = crate::wire::records::BatchBuilder::new(crate::wire::batch::Codec::None);
    for i in first..first + count {
        let value = format!("value-{i}");
        builder.push(1_767_225_600_000, Some(b"key"), Some(value.as_bytes()), &[]);
    }
    builder.finish().unwrap()
}

#[test]
fn run_until_caught_up_copies_what_is_there_and_ends() {
    let (east, west) = (cluster(Options::default()), cluster(Options::default()));
    east.create_topic("orders", 2, 1, &[]).unwrap();
    for i in 0..20 {
        east.append("orders", i % 2, &batch(10 * i as usize, 10)).unwrap();
    }
    let text = config(&east.bootstrap(), &west.bootstrap(), "orders");
    let text = text + "telemetry: { listen: off }\nengine: { lanes: 1, memory: 32MiB }\n";
    let (exit, _) = strait("run --until-caught-up", &text);
    assert_eq!(exit, Exit::Ok);
    for partition in 0..2 {
        assert_eq!(west.dump("orders", partition).unwrap().high_watermark, 100);
    }
    let committed = east.committed("strait.east-to-west");
    assert_eq!(committed[&("orders".to_owned(), 1)].offset, 100, "{committed:?}");
    let (_, out) = strait("lag -o json", &text);
    let lag: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&lag["links"][0]["lag_offsets"], &lag["links"][0]["unknown"]),
        (&0.into(), &0.into())
    );
}

#[test]
fn the_demo_copies_and_finds_both_sides_equal() {
    let directory = tempfile::tempdir().unwrap();
    let (exit, out, err) = run_in(directory.path(), "strait demo --for 2s --rate 4000");
    assert_eq!(exit, Exit::Ok, "{out}{err}");
    let last = out.lines().last().unwrap();
    assert!(last.starts_with("equal: ") && !last.contains("equal: 0 records"), "{out}");
}

#[test]
fn check_shows_tls_and_names_a_wrong_authority_and_plaintext() {
    let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tls = super::demo_world::certificate(ours.path()).unwrap();
    super::demo_world::certificate(other.path()).unwrap();
    let east = cluster(Options::default());
    east.create_topic("orders", 1, 1, &[]).unwrap();
    let west = cluster(Options { listeners: vec![Listener::tls(tls)], ..Options::default() });
    let text = config(&east.bootstrap(), &west.bootstrap(), "orders");
    let with = |tls: &str| {
        let at = text.find("\"] }\nlinks").unwrap();
        format!("{}\"], tls: {{ {tls} }} {}", &text[..at], &text[at + 3..])
    };
    let ca = |directory: &tempfile::TempDir| format!("ca: {}/ca.pem", directory.path().display());
    for (text, exit, words) in [
        (with(&ca(&ours)), Exit::Ok, "TLSv1.3"),
        (with(&ca(&other)), Exit::NotTrue, "ST-017"),
        (text.clone(), Exit::NotTrue, "ST-012"),
    ] {
        let (code, out) = strait("check", &text);
        assert_eq!(code, exit, "{out}");
        assert!(out.contains(words), "{words}: {out}");
    }
}

#[test]
fn reset_names_positions_within_the_log_and_keeps_the_newest_epoch() {
    let (east, west) = (cluster(Options::default()), cluster(Options::default()));
    east.create_topic("orders", 2, 1, &[]).unwrap();
    east.create_topic("other", 1, 1, &[]).unwrap();
    east.append("orders", 0, &batch(0, 5)).unwrap();
    east.append("orders", 0, &batch(5, 5)).unwrap();
    east.delete_records("orders", 0, 3).unwrap();
    let config = config(&east.bootstrap(), &west.bootstrap(), "orders");
    let stored = |partition| {
        let offsets = east.committed("strait.east-to-west");
        offsets.get(&("orders".to_owned(), partition)).map(|c| (c.offset, c.metadata.clone()))
    };
    let (exit, out) = strait("reset east-to-west --to latest --dry-run", &config);
    assert_eq!((exit, stored(0)), (Exit::Ok, None), "{out}");
    assert!(out.contains("2 of 2 positions would be set"), "{out}");
    let (exit, out) = strait("reset east-to-west --to latest -o json", &config);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((exit, &json["schema"]), (Exit::Ok, &"strait.reset/1".into()), "{out}");
    assert_eq!(json["partitions"][0]["to_offset"], 10);
    assert_eq!(stored(0), Some((10, "strait-reset1;-1".to_owned())));
    let at_seven = "reset east-to-west --topic orders --partition 0 --to 7";
    assert_eq!(strait(at_seven, &config).0, Exit::Ok);
    assert_eq!((stored(0).unwrap().0, stored(1).unwrap().0), (7, 0));
    for (to, words) in [("2", "has 3 to 10"), ("11", "has 3 to 10")] {
        let verb = format!("reset east-to-west --topic orders --partition 0 --to {to}");
        let (exit, out) = strait(&verb, &config);
        assert_eq!((exit, stored(0).unwrap().0), (Exit::Failed, 7), "{out}");
        assert!(out.contains(words), "{out}");
    }
    assert_eq!(strait("reset east-to-west --topic other --to latest", &config).0, Exit::Usage);
    let unknown = "reset east-to-west --topic orders --partition 2 --to latest";
    assert_eq!(strait(unknown, &config).0, Exit::Usage);
}
