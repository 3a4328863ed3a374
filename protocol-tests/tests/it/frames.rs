//! Our decoders beside others, over valid answers of chance in every version that we speak: `kafka-protocol` here, Kafka's own
//! classes where a JVM is (`brokers::frames`).
//!
//! Which field of ours is which of Kafka's is learned, not written down: over all answers of one version a field must show what
//! one and the same field of the definition holds, and that one must have its name, or a name in [`RENAMED`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable};
use protocol_tests::sim::rng::Rng;

use crate::corpus::entries::DECODERS;

#[path = "../../../fuzz/src/frames.rs"]
pub mod generated;

use generated::Answer;

/// A path and what is shown there.
type Leaf = (String, String);

/// Fields of ours that are not named as Kafka names them.
const RENAMED: &[(&str, &str)] = &[
    ("topic", "name"),
    ("topics", "topic"),
    ("topics", "topic_id"),
    ("topics", "name"),
    ("topics.partitions.0", "partition_index"),
    ("topics.partitions.1", "error_code"),
    ("topics.partitions.1", "partition_error_code"),
    ("index", "partition"),
    ("in_sync", "isr_nodes"),
    ("replicas", "replica_nodes"),
    ("finalized_features.0", "name"),
    ("finalized_features.1", "max_version_level"),
    ("kind", "resource_type"),
    ("transaction_start_offset", "current_txn_start_offset"),
    ("members", "error_code"),
];
/// Valid answers that no request of ours is answered with.
const MAY_REFUSE: &[(&str, &str)] = &[("OffsetFetch", "offset fetch groups: not a legal value")];
/// Fields of ours that are made of several.
const DERIVED: &[&str] = &["partitions.topic", "next.0", "next.1"];

/// Answers of each API and version.
pub fn per_version() -> usize {
    let all = if std::env::var_os("STRAIT_FULL").is_some() { 100_000 } else { 2_000 };
    let versions: i16 = DECODERS.iter().map(|d| d.versions.1 - d.versions.0 + 1).sum();
    all / versions as usize + 1
}

#[test]
fn every_valid_answer_is_read_as_the_crate_and_kafka_s_definition_have_it() {
    let (count, mut read, mut same, mut wrong) = (per_version(), 0, 0, Vec::new());
    for decoder in &DECODERS {
        let (key, (low, high)) = (decoder.api as i16, decoder.versions);
        let answer = Answer::of(key);
        for version in low..=high {
            let mut rng = Rng::new(1).fork(&format!("{}-{version}", answer.name));
            let mut learned = Learned::default();
            for _ in 0..count {
                let (body, leaves) = answer.body(version, &mut || rng.next_u64());
                let body = Bytes::from(body);
                same += usize::from(again_as_the_crate_writes_it(key, version, &body));
                match (decoder.shows)(version, &body) {
                    Ok(shown) => learned.add(&flattened(&shown), &as_ours(leaves)),
                    Err(error) if MAY_REFUSE.contains(&(answer.name, &error.to_string())) => {}
                    Err(error) => wrong.push(format!("{} v{version}: {error}", answer.name)),
                }
                read += 1;
            }
            wrong.extend(
                learned.wrong().into_iter().map(|w| format!("{} v{version}: {w}", answer.name)),
            );
        }
    }
    wrong.dedup();
    println!("{read} answers, {same} written again by the crate to the byte");
    assert!(same * 10 > read * 9, "{same} of {read}");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Answers of chance of every API in every version that we speak, by name and version.
pub fn answers(
    count: usize,
    mut each: impl FnMut(&'static str, i16, Vec<u8>, Vec<generated::Leaf>),
) {
    for decoder in &DECODERS {
        let answer = Answer::of(decoder.api as i16);
        for version in decoder.versions.0..=decoder.versions.1 {
            let mut rng = Rng::new(1).fork(&format!("{}-{version}", answer.name));
            for _ in 0..count {
                let (body, leaves) = answer.body(version, &mut || rng.next_u64());
                each(answer.name, version, body, leaves);
            }
        }
    }
}

/// The crate reads it to its end. Whether it writes the same bytes: tagged fields with their default it leaves out.
fn again_as_the_crate_writes_it(key: i16, version: i16, body: &Bytes) -> bool {
    macro_rules! again {
        ($($api:ident $answer:ident,)*) => {
            match ApiKey::try_from(key).expect("an API of Kafka's") {
                $(ApiKey::$api => again::<$answer>(version, body),)*
                other => panic!("{other:?} is not in the list"),
            }
        };
    }
    again! {
        Produce ProduceResponse, Fetch FetchResponse, ListOffsets ListOffsetsResponse, Metadata MetadataResponse,
        OffsetCommit OffsetCommitResponse, OffsetFetch OffsetFetchResponse,
        FindCoordinator FindCoordinatorResponse, JoinGroup JoinGroupResponse, Heartbeat HeartbeatResponse,
        LeaveGroup LeaveGroupResponse, SyncGroup SyncGroupResponse, SaslHandshake SaslHandshakeResponse,
        ApiVersions ApiVersionsResponse, CreateTopics CreateTopicsResponse, DeleteTopics DeleteTopicsResponse,
        DeleteRecords DeleteRecordsResponse, InitProducerId InitProducerIdResponse,
        OffsetForLeaderEpoch OffsetForLeaderEpochResponse, AddPartitionsToTxn AddPartitionsToTxnResponse,
        AddOffsetsToTxn AddOffsetsToTxnResponse, EndTxn EndTxnResponse,
        TxnOffsetCommit TxnOffsetCommitResponse, DescribeConfigs DescribeConfigsResponse,
        SaslAuthenticate SaslAuthenticateResponse, CreatePartitions CreatePartitionsResponse,
        IncrementalAlterConfigs IncrementalAlterConfigsResponse, DescribeCluster DescribeClusterResponse,
        DescribeProducers DescribeProducersResponse, ConsumerGroupHeartbeat ConsumerGroupHeartbeatResponse,
    }
}

fn again<R: Decodable + Encodable + PartialEq + Debug>(version: i16, body: &Bytes) -> bool {
    let what = std::any::type_name::<R>();
    let mut left = body.clone();
    let read = R::decode(&mut left, version).unwrap_or_else(|e| panic!("{what} v{version}: {e}"));
    assert!(left.is_empty(), "{what} v{version}");
    let mut out = BytesMut::new();
    read.encode(&mut out, version).unwrap();
    let is_same = out == body;
    assert_eq!(R::decode(&mut out.freeze(), version).unwrap(), read, "{what} v{version}");
    is_same
}

/// What is shown by each path, over all answers of one version.
#[derive(Default)]
struct Learned(Vec<[BTreeMap<String, Vec<String>>; 2]>);

impl Learned {
    fn add(&mut self, ours: &[Leaf], theirs: &[Leaf]) {
        self.0.push([ours, theirs].map(|leaves| {
            let mut by_path: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (path, value) in leaves {
                by_path.entry(path.clone()).or_default().push(value.clone());
            }
            by_path
        }));
    }

    /// Fields of ours that are not one of theirs.
    fn wrong(&self) -> Vec<String> {
        let paths = |side: usize| -> BTreeSet<&String> {
            self.0.iter().flat_map(|answer| answer[side].keys()).collect()
        };
        let theirs = paths(1);
        let mut wrong = Vec::new();
        for path in paths(0) {
            let name = last(path);
            let is_named = |wire: &str| {
                let part = |rest: Option<&str>| {
                    rest.is_some_and(|rest| rest.is_empty() || rest.contains('_'))
                };
                part(wire.strip_suffix(name))
                    || part(wire.strip_prefix(name))
                    || RENAMED.contains(&(name, wire))
                    || RENAMED.contains(&(path, wire))
            };
            let is_same = |wire: &&&String| {
                self.0.iter().all(|[ours, theirs]| ours.get(path) == theirs.get(**wire))
            };
            let found: Vec<_> = theirs.iter().filter(is_same).map(|wire| last(wire)).collect();
            if found.iter().any(|wire| is_named(wire)) || DERIVED.contains(&path.as_str()) {
                continue;
            }
            let shown: BTreeSet<_> =
                self.0.iter().filter_map(|[ours, _]| ours.get(path)).flatten().collect();
            // A field that this version does not have.
            let depth = |path: &str| path.matches('.').count();
            let mut named =
                theirs.iter().filter(|wire| is_named(last(wire)) && depth(wire) == depth(path));
            if found.is_empty() && shown.len() == 1 && named.next().is_none() {
                continue;
            }
            wrong.push(format!(
                "{path} is {found:?}, it shows {:?}",
                shown.iter().take(3).collect::<Vec<_>>()
            ));
        }
        wrong
    }
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap()
}

/// The leaves of what `Debug` derives, with their paths. Words around a value (`Some`, the name of a newtype) are passed by.
fn flattened(shown: &str) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    let left = value(shown, "", &mut leaves);
    assert!(left.is_empty(), "{left:?} of {shown}");
    leaves
}

fn value<'a>(text: &'a str, path: &str, leaves: &mut Vec<Leaf>) -> &'a str {
    if let Some(list) = text.strip_prefix('[') {
        return elements(list, "]", path, leaves);
    }
    let quoted = text.strip_prefix('b').filter(|rest| rest.starts_with('"')).unwrap_or(text);
    if let Some(inside) = quoted.strip_prefix('"') {
        let mut escaped = false;
        let end = inside.find(|c| {
            let is_end = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            is_end
        });
        let end = text.len() - inside.len() + end.unwrap() + 1;
        leaves.push((path.to_owned(), normal(&text[..end])));
        return &text[end..];
    }
    let end = text.find([',', '(', ')', ']', '}', ' ']).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    if let Some(inside) = rest.strip_prefix('(') {
        return match word {
            "" => tuple(inside, path, leaves),
            _ => elements(inside, ")", path, leaves),
        };
    }
    let Some(mut rest) = rest.strip_prefix(" { ") else {
        leaves.push((path.to_owned(), normal(word)));
        return rest;
    };
    loop {
        // What is not shown, as secrets are not.
        if let Some(rest) = rest.strip_prefix(".. }") {
            return rest;
        }
        let (name, after) = rest.split_once(": ").unwrap();
        let below = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        rest = value(after, &below, leaves);
        match rest.strip_prefix(", ") {
            Some(next) => rest = next,
            None => return rest.strip_prefix(" }").unwrap(),
        }
    }
}

fn elements<'a>(mut left: &'a str, end: &str, path: &str, leaves: &mut Vec<Leaf>) -> &'a str {
    loop {
        if let Some(rest) = left.strip_prefix(end) {
            return rest;
        }
        left = value(left, path, leaves);
        left = left.strip_prefix(", ").unwrap_or(left);
    }
}

fn tuple<'a>(mut left: &'a str, path: &str, leaves: &mut Vec<Leaf>) -> &'a str {
    for place in 0.. {
        left = value(left, &format!("{path}.{place}"), leaves);
        match left.strip_prefix(", ") {
            Some(next) => left = next,
            None => break,
        }
    }
    left.strip_prefix(")").unwrap()
}

/// Nothing, however it is kept.
fn normal(shown: &str) -> String {
    if matches!(shown, "None" | "null" | "\"\"" | "b\"\"") { "null" } else { shown }.to_owned()
}

/// Kafka's names as Rust writes them.
fn as_ours(leaves: Vec<generated::Leaf>) -> Vec<Leaf> {
    let snake = |path: String| {
        let mut out = String::new();
        for c in path.chars() {
            if c.is_ascii_uppercase() {
                out.push('_');
            }
            out.push(c.to_ascii_lowercase());
        }
        out
    };
    leaves.into_iter().map(|leaf| (snake(leaf.path), normal(&leaf.shown))).collect()
}
