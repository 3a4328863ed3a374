//! `strait proto` against clusters in this process.

use super::tests::run_in;
use super::*;
use crate::embedded::{EmbeddedCluster, Generation, Options};
use crate::env::Env;

fn cluster(options: Options) -> EmbeddedCluster {
    EmbeddedCluster::start(Env::real(), options).unwrap()
}

fn kafka_3_9() -> Options {
    Options { generation: Generation::Kafka39, ..Options::default() }
}

fn strait(line: &str) -> (Exit, String, String) {
    run_in(std::path::Path::new("."), &format!("strait {line}"))
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn versions_are_held_against_what_is_needed() {
    let brokers = cluster(Options { brokers: 2, ..Options::default() });
    let (exit, out, _) = strait(&format!("proto versions --bootstrap {}", brokers.bootstrap()));
    assert_eq!(exit, Exit::Ok, "{out}");
    assert!(out.contains("broker 1 at ") && out.contains("transaction.version=2"), "{out}");
    // Both offer the same: one table.
    assert_eq!(out.matches("ConsumerGroupHeartbeat").count(), 1, "{out}");

    let old = cluster(kafka_3_9());
    let line = format!("proto versions -o json --as target --bootstrap {}", old.bootstrap());
    let (exit, out, _) = strait(&line);
    let answer = json(&out);
    assert_eq!((exit, &answer["schema"]), (Exit::Ok, &"strait.proto.versions/1".into()));
    let apis = answer["brokers"][0]["apis"].as_array().unwrap();
    let produce = apis.iter().find(|api| api["api"] == "Produce").unwrap();
    assert_eq!(produce["used"], 11, "{produce}");
    assert_eq!((&produce["needed"], &produce["verdict"]), (&true.into(), &"ok".into()));
    let commit = apis.iter().find(|api| api["api"] == "OffsetCommit").unwrap();
    assert_eq!(commit["needed"], false, "a target holds no position");
}

#[test]
fn whom_to_ask_is_named_once_and_must_be_there() {
    for line in ["proto versions", "proto versions --bootstrap a:1 --cluster b"] {
        let line = format!("strait {line}");
        let error = Cli::try_parse_from(line.split_whitespace()).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
    }
    let (exit, _, err) = strait("proto versions --bootstrap 127.0.0.1:1");
    assert_eq!(exit, Exit::Failed);
    assert!(err.contains("ST-015"), "{err}");
}

/// The verdict of each rule, by its id.
fn verdicts(out: &str) -> Vec<(String, String)> {
    let answer = json(out);
    let rules = answer["rules"].as_array().unwrap().iter();
    let pair = |rule: &serde_json::Value| {
        (rule["id"].as_str().unwrap().to_owned(), rule["verdict"].as_str().unwrap().to_owned())
    };
    rules.map(pair).collect()
}

fn not_holding(out: &str) -> Vec<(String, String)> {
    verdicts(out).into_iter().filter(|(_, verdict)| verdict != "holds").collect()
}

#[test]
fn the_embedded_broker_keeps_every_rule_and_its_topics_are_gone() {
    let brokers = cluster(Options { brokers: 3, ..Options::default() });
    let line = format!("proto conformance -o json --bootstrap {}", brokers.bootstrap());
    let (exit, out, err) = strait(&line);
    assert_eq!(not_holding(&out), [], "{out}");
    assert!(verdicts(&out).len() >= 50, "{}", verdicts(&out).len());
    assert_eq!((exit, &json(&out)["removed"]), (Exit::Ok, &true.into()), "{err}");
    assert_eq!(brokers.topics().iter().find(|topic| topic.starts_with("strait.")), None);
}

#[test]
fn a_frame_is_decoded_from_hex_and_from_a_file() {
    // ApiVersions v0, correlation id 5, client id "ab".
    let hex = "0000000c00120000000000050002_6162".replace('_', "");
    let (exit, out, _) = strait(&format!("proto decode {hex}"));
    let answer = json(&out);
    assert_eq!((exit, &answer["schema"]), (Exit::Ok, &"strait.proto.decode/1".into()), "{out}");
    let frame = &answer["frames"][0];
    assert_eq!((&frame["api"], &frame["clientId"]), (&"ApiVersions".into(), &"ab".into()));
    // Error 35 and one range, the whole answer of a broker that is too old; cut, it is told so, with exit 3.
    let raw = [0, 0, 0, 5, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 2];
    let directory = tempfile::tempdir().unwrap();
    for (len, wanted) in [(raw.len(), Exit::Ok), (raw.len() - 1, Exit::NotTrue)] {
        std::fs::write(directory.path().join("frame"), &raw[..len]).unwrap();
        let line = "strait proto decode --file @frame --api apiversions --version 0";
        let (exit, out, _) = run_in(directory.path(), line);
        let frame = &json(&out)["frames"][0];
        assert_eq!((exit, &frame["correlationId"]), (wanted, &5.into()), "{out}");
        let error = &frame["body"]["error"];
        assert_eq!(error == "UNSUPPORTED_VERSION", wanted == Exit::Ok, "{out}");
    }
    let (exit, _, err) = strait("proto decode --api Nothing --version 1 00");
    assert!(exit == Exit::Usage && err.contains("Nothing"), "{err}");
}
