//! `strait proto conformance`: a bug that is planted in a broker turns the rule red that is about it, and nothing is left
//! behind.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use ::strait::embedded::{ApiKey, EmbeddedCluster, Fault, Generation, Options, Order};
use ::strait::env::Env;
use protocol_tests::process::Guarded;
use protocol_tests::strait;
use protocol_tests::wait::wait_until;

/// Verdicts by rule, and the exit code.
pub fn verdicts(bootstrap: &str, more: &[&str]) -> (i32, BTreeMap<String, String>) {
    let mut command = Command::new(strait::binary());
    command.args(["proto", "conformance", "-o", "json", "--bootstrap", bootstrap]).args(more);
    let output = command.output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(answer["removed"], true, "{answer:#}");
    let rules = answer["rules"].as_array().unwrap().iter();
    let verdict = |rule: &serde_json::Value| {
        let text = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
        let seen = text("seen");
        let seen = if seen.is_empty() { seen } else { format!(": {seen}") };
        (text("id"), format!("{}{seen}", text("verdict")))
    };
    (output.status.code().unwrap(), rules.map(verdict).collect())
}

/// The rules that do not hold or are not offered, with what was seen.
pub fn wrong(verdicts: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    let wrong = verdicts.iter().filter(|(_, verdict)| *verdict != "holds");
    wrong.map(|(id, verdict)| (id.as_str(), verdict.as_str())).collect()
}

pub fn embedded(generation: Generation) -> EmbeddedCluster {
    let options = Options { generation, auto_create_topics: false, ..Options::default() };
    EmbeddedCluster::start(Env::real(), options).unwrap()
}

#[test]
fn a_planted_bug_turns_its_rules_red_and_no_others() {
    let close = Fault::CloseBefore;
    let planted: [(ApiKey, Fault, &[&str]); 3] = [
        (ApiKey::Produce, Fault::IgnoreCrc, &["produce.apart", "produce.crc"]),
        (ApiKey::DeleteRecords, close, &["fetch.deleted", "fetch.out_of_range"]),
        (ApiKey::DescribeProducers, close, &["sequence.described"]),
    ];
    for (api, fault, red) in planted {
        let cluster = embedded(Generation::Kafka43);
        let id = cluster.fault(Order::next(api, fault).times(1_000_000));
        let only = ["--only", "produce.", "--only", "fetch.", "--only", "sequence."];
        let (code, verdicts) = verdicts(&cluster.bootstrap(), &only);
        assert!(cluster.fault_struck(id) > 0, "{fault:?} of {api:?}");
        let wrong = wrong(&verdicts);
        assert_eq!(wrong.keys().copied().collect::<Vec<_>>(), red, "{fault:?}: {wrong:?}");
        assert_eq!(code, 3, "{wrong:?}");
        assert_eq!(cluster.topics(), Vec::<String>::new());
    }
}

#[test]
fn a_release_is_told_by_what_it_does_not_offer() {
    let cluster = embedded(Generation::Kafka39);
    let (code, verdicts) = verdicts(&cluster.bootstrap(), &[]);
    let wrong = wrong(&verdicts);
    assert_eq!(wrong.keys().copied().collect::<Vec<_>>(), NOT_IN_3_9, "{wrong:?}");
    assert_eq!(code, 0, "{wrong:?}");
}

/// Optional, and not in Kafka 3.9: topic ids in Produce are 4.1's, KIP-848 is off by default, KIP-890's second part is 4.0's.
pub const NOT_IN_3_9: [&str; 4] =
    ["group.kip848", "group.kip848_fencing", "produce.topic_id", "transaction.v2"];

#[test]
fn a_run_that_is_interrupted_leaves_no_topic() {
    let cluster = embedded(Generation::Kafka43);
    let hold = Fault::Delay(Duration::from_secs(60));
    let held = cluster.fault(Order::next(ApiKey::Produce, hold));
    let binary = strait::binary().display().to_string();
    let bootstrap = cluster.bootstrap();
    let words = [&*binary, "proto", "conformance", "--bootstrap", &bootstrap];
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut run = Guarded::start(&words.map(String::from), &log, &[]);
    wait_until("a rule is being asked", 30, || cluster.fault_struck(held) == 1);
    assert!(cluster.topics().iter().all(|topic| topic.starts_with("strait.conformance.")));
    run.signal("INT");
    let code = run.wait(30);
    let said = std::fs::read_to_string(&log).unwrap();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("interrupted; its topics are removed"), "{said}");
    assert_eq!(cluster.topics(), Vec::<String>::new());
}
