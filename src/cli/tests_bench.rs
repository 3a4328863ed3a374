//! `bench`, and what `check` says of long ways, against clusters in this process.

use std::time::Duration;

use serde_json::Value;

use super::tests::run_in;
use super::*;
use crate::embedded::{ApiKey, EmbeddedCluster, Fault, Options, Order};
use crate::env::Env;
use crate::wire::error_code::ErrorCode;

/// Strict brokers: nothing is made because somebody asks for it.
fn cluster() -> EmbeddedCluster {
    let options = Options { auto_create_topics: false, ..Options::default() };
    EmbeddedCluster::start(Env::real(), options).unwrap()
}

struct Pair {
    east: EmbeddedCluster,
    west: EmbeddedCluster,
    directory: tempfile::TempDir,
}

const SMALL: &str = "--seconds 5 --bytes 4MiB --partitions 3 --batch-bytes 16KiB";

impl Pair {
    fn new() -> Self {
        let (east, west) = (cluster(), cluster());
        east.create_topic("orders", 1, 1, &[]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let text = format!(
            "version: 1
clusters:
  east: {{ bootstrap: [\"{}\"] }}
  west: {{ bootstrap: [\"{}\"] }}
links:
  east-to-west: {{ from: east, to: west, topics: {{ include: [\".*\"] }} }}
telemetry: {{ listen: \"off\" }}
engine: {{ lanes: 2, memory: 32MiB }}
",
            east.bootstrap(),
            west.bootstrap()
        );
        std::fs::write(directory.path().join("strait.yaml"), text).unwrap();
        Self { east, west, directory }
    }

    fn strait(&self, verb: &str) -> (Exit, String, String) {
        run_in(self.directory.path(), &format!("strait -c @strait.yaml {verb}"))
    }

    fn topics(&self) -> (Vec<String>, Vec<String>) {
        (self.east.topics(), self.west.topics())
    }

    #[track_caller]
    fn assert_clean(&self) {
        assert_eq!(self.topics(), (vec!["orders".to_owned()], Vec::new()));
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn bench_link_measures_says_so_in_stable_keys_and_leaves_nothing() {
    let pair = Pair::new();
    let (exit, out, err) = pair.strait(&format!("bench link east-to-west {SMALL} -o json"));
    assert_eq!(exit, Exit::Ok, "{out}{err}");
    pair.assert_clean();
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["schema"], "strait.bench.link/1", "{out}");
    let mut of = keys(&told);
    of.sort_unstable();
    let wanted = [
        "ack_seconds",
        "bound",
        "brokers",
        "copied",
        "filled",
        "hints",
        "link",
        "other_topics",
        "removed",
        "request_errors",
        "schema",
        "shape",
        "source",
        "target",
        "time",
        "topic",
    ];
    assert_eq!(of, wanted, "{out}");
    let mut of = keys(&told["copied"]);
    of.sort_unstable();
    let wanted = [
        "began_after_seconds",
        "bytes",
        "bytes_per_cpu_second",
        "bytes_per_second",
        "cpu_seconds",
        "later_bytes_per_second",
        "records",
        "seconds",
    ];
    assert_eq!(of, wanted, "{out}");
    assert!(told["filled"]["bytes"].as_u64().unwrap() >= 4 << 20, "{out}");
    assert_eq!(told["copied"]["records"], told["filled"]["records"], "{out}");
    assert!(told["copied"]["bytes_per_second"].as_f64().unwrap() > 0.0, "{out}");
    assert!(told["ack_seconds"]["p999"].as_f64().unwrap() > 0.0, "{out}");
    assert_eq!(told["removed"]["source"], true);
    let brokers = told["brokers"].as_array().unwrap();
    let sides = brokers.iter().map(|b| b["side"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(sides, ["source", "target"], "{out}");
    assert!(brokers.iter().all(|b| b["tcp_seconds"].as_f64().unwrap() > 0.0), "{out}");
    assert!(brokers[1]["connections"].as_u64().unwrap() >= 2, "{out}");
}

#[test]
fn bench_link_in_words_and_with_each_codec() {
    let pair = Pair::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let (exit, out, err) =
            pair.strait(&format!("bench link east-to-west {SMALL} --codec {codec}"));
        assert_eq!(exit, Exit::Ok, "{codec}: {out}{err}");
        for words in
            ["copied  ", "MB per CPU-second", "ack     p50", "way     target broker 1", "bound   "]
        {
            assert!(out.contains(words) || words.contains("CPU"), "{words}: {out}");
        }
        pair.assert_clean();
    }
}

#[test]
fn bench_link_that_is_rehearsed_changes_nothing() {
    let pair = Pair::new();
    let (exit, out, _) = pair.strait("bench link east-to-west --dry-run");
    assert_eq!(exit, Exit::Ok, "{out}");
    assert!(
        out.contains("would make topic strait.bench.<random> on east and west: 8 partitions"),
        "{out}"
    );
    assert!(
        out.contains("would write at most 1.0 GiB") && out.contains("nothing was changed"),
        "{out}"
    );
    let (_, out, _) = pair.strait("bench link east-to-west --dry-run -o json");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&told["schema"], &told["bytes_max"]),
        (&"strait.bench.plan/1".into(), &(1u64 << 30).into())
    );
    pair.assert_clean();
    let (exit, _, err) = pair.strait("bench link no-such-link");
    assert_eq!(exit, Exit::Usage, "{err}");
}

#[test]
fn bench_link_leaves_nothing_after_a_failure() {
    let pair = Pair::new();
    // The target takes no record: the copy fails with the source filled.
    let refuse = Fault::Refuse(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    pair.west.fault(Order::next(ApiKey::Produce, refuse).times(u32::MAX));
    let (exit, out, err) = pair.strait(&format!("bench link east-to-west {SMALL}"));
    assert_eq!(exit, Exit::Failed, "{out}{err}");
    assert!(err.contains("TOPIC_AUTHORIZATION_FAILED"), "{err}");
    pair.assert_clean();
    pair.west.clear_faults();
    // The target does not make its topic: the source's goes again.
    let once = Order::next(ApiKey::CreateTopics, Fault::CloseAfter);
    pair.west.fault(once);
    let (exit, out, err) = pair.strait(&format!("bench link east-to-west {SMALL}"));
    assert_eq!(exit, Exit::Failed, "{out}{err}");
    pair.assert_clean();
    // Nor does the source: it fails before anything is copied.
    pair.east.fault(Order::next(ApiKey::Produce, refuse).times(u32::MAX));
    let (exit, out, err) = pair.strait(&format!("bench link east-to-west {SMALL}"));
    assert_eq!(exit, Exit::Failed, "{out}{err}");
    let grant = "--operation Write --topic strait.bench. --resource-pattern-type prefixed";
    assert!(err.contains(grant), "{err}");
    pair.assert_clean();
}

#[test]
fn a_topic_of_a_bench_that_cannot_be_removed_is_named_with_the_command() {
    let pair = Pair::new();
    pair.east.fault(Order::next(ApiKey::DeleteTopics, Fault::CloseBefore).times(u32::MAX));
    let (exit, out, err) = pair.strait(&format!("bench link east-to-west {SMALL} -o json"));
    assert_eq!(exit, Exit::Failed, "{out}{err}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&told["removed"]["source"], &told["removed"]["target"]),
        (&false.into(), &true.into())
    );
    let name = told["topic"].as_str().unwrap();
    let command = format!(
        "kafka-topics.sh --bootstrap-server {} --delete --topic {name}",
        pair.east.bootstrap()
    );
    assert!(err.contains(&command), "{err}");
    // The next measurement says what is there; a link with `.*` does not copy it.
    pair.east.clear_faults();
    let (exit, out, err) = pair.strait(&format!("bench link east-to-west {SMALL}"));
    assert_eq!(exit, Exit::Ok, "{err}");
    assert!(out.contains(&command), "{out}");
    let (exit, _, err) = pair.strait("run --until-caught-up");
    assert_eq!(exit, Exit::Ok, "{err}");
    assert_eq!(pair.west.topics(), ["orders"]);
}

#[test]
fn bench_loopback_needs_no_kafka_and_has_stable_keys() {
    let directory = tempfile::tempdir().unwrap();
    let line = "strait bench loopback --seconds 1 --partitions 2 --lanes 2 -o json";
    let (exit, out, err) = run_in(directory.path(), line);
    assert_eq!(exit, Exit::Ok, "{out}{err}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["schema"], "strait.bench.loopback/1");
    let runs = told["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2, "{out}");
    for run in runs {
        let mut of = keys(run);
        of.sort_unstable();
        let wanted = [
            "ack_seconds",
            "busiest_lane_share",
            "bytes",
            "bytes_per_cpu_second",
            "bytes_per_second",
            "lane_cpu_seconds",
            "lanes",
            "records",
            "seconds",
        ];
        assert_eq!(of, wanted, "{out}");
        assert!(run["bytes_per_second"].as_f64().unwrap() > 0.0, "{out}");
    }
    assert!(told["ratio"].as_f64().unwrap() > 0.0, "{out}");
    let (exit, out, err) = run_in(
        directory.path(),
        "strait bench loopback --seconds 1 --lanes 1 --batch-bytes 1 --record-bytes 300",
    );
    assert_eq!(exit, Exit::Ok, "{out}{err}");
    assert!(out.contains("1 lane  ") && out.contains("no comparison of lanes"), "{out}");
}

#[test]
fn check_names_a_fixed_buffer_over_a_long_way_and_fails_for_none() {
    let pair = Pair::new();
    let (exit, out, _) = pair.strait("check");
    assert_eq!(exit, Exit::Ok, "{out}");
    assert!(out.contains("round trip") && !out.contains("socket."), "{out}");
    // The target has no TLS; nothing else is to be warned of, before and after.
    assert!(out.contains("0 errors · 1 warning"), "{out}");
    let far = Fault::Delay(Duration::from_millis(25));
    pair.west.fault(Order::next(ApiKey::ApiVersions, far).times(u32::MAX));
    let (exit, out, _) = pair.strait("check");
    assert_eq!(exit, Exit::Ok, "{out}");
    assert!(out.contains("away with socket.receive.buffer.bytes=102400"), "{out}");
    assert!(out.contains("fix: socket.receive.buffer.bytes=-1 on the target's brokers"), "{out}");
    assert!(!out.contains("socket.send.buffer.bytes"), "{out}");
    let (_, out, _) = pair.strait("check -o json");
    let told: Value = serde_json::from_str(&out).unwrap();
    let notes = told["clusters"].as_array().unwrap().iter().filter(|f| f["severity"] == "note");
    assert_eq!(
        (notes.count(), &told["errors"], &told["warnings"]),
        (1, &0.into(), &1.into()),
        "{out}"
    );
    // Who may not look is told so, and how that is granted.
    let refuse = Fault::Refuse(ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
    pair.west.fault(Order::next(ApiKey::DescribeConfigs, refuse).at("1", -1).times(u32::MAX));
    let (exit, out, _) = pair.strait("check");
    assert_eq!(exit, Exit::Ok, "{out}");
    assert!(out.contains("socket.receive.buffer.bytes may not be read"), "{out}");
    assert!(out.contains("--operation DescribeConfigs --cluster"), "{out}");
}

#[test]
fn sizes_of_a_bench_are_refused_at_the_command_line() {
    for line in [
        "strait bench",
        "strait bench link",
        "strait bench link l --batch-bytes 2MiB",
        "strait bench link l --partitions 0",
        "strait bench loopback --codec brotli",
        "strait bench loopback --seconds 0",
        "strait bench loopback --lanes 65",
    ] {
        let error = Cli::try_parse_from(line.split_whitespace()).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}
