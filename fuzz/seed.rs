//! Writes the seeds of the corpus: answers as `kafka-protocol` encodes them, batches as it and Java wrote them, the
//! configurations that `strait config generate` gives, and exchanges by hand. `./run --seeds` starts it.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use strait::wire::consumer_protocol::{Assignment, Subscription};
use strait_fuzz::entries::DECODERS;
use uuid::Uuid;

type Answers = Vec<(ApiKey, Box<dyn Fn(&mut BytesMut, i16)>)>;

fn main() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let write = |target: &str, name: &str, parts: &[&[u8]]| {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder).expect("the corpus can be written");
        fs::write(folder.join(format!("seed-{name}")), parts.concat()).expect("a seed");
    };
    frames(&write);
    responses(&write);
    batches(&write);
    exchanges(&write);
    group(&write);
    for entry in list("../src/cli/samples") {
        let name = entry.file_stem().expect("a name").to_string_lossy().into_owned();
        write("config", &name, &[&fs::read(&entry).expect("a sample")]);
    }
    write("config", "many-keys", &[EVERY_KEY.as_bytes()]);
}

type Write<'a> = &'a dyn Fn(&str, &str, &[&[u8]]);

fn list(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).expect("the repository is whole");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn frames(write: Write<'_>) {
    write("frame", "answer", &[&[0, 0, 0, 6, 0, 0, 0, 1, 0, 7]]);
    write("frame", "tags", &[&[0, 0, 0, 11, 0, 0, 0, 9, 1, 5, 2, 0xaa, 0xbb, 7, 8]]);
    write("frame", "tls-alert", &[&[0x15, 3, 3, 0, 2, 2, 0x28]]);
    write("frame", "http", &[b"HTTP/1.1 400 Bad Request\r\n"]);
}

/// Members' words, and positions of every format.
fn group(write: Write<'_>) {
    let subscription = Subscription {
        topics: vec!["orders".to_owned(), "payments".to_owned()],
        user_data: Bytes::new(),
        owned: vec![("orders".to_owned(), 0), ("orders".to_owned(), 7)],
        generation: 4,
    };
    write("members", "subscription", &[&subscription.encode().expect("it is small")]);
    let first = [&[0, 0, 0, 0, 0, 1, 0, 6][..], b"orders", &[0, 0, 0, 3], b"abc"];
    write("members", "subscription-0", &first);
    let partitions = vec![("orders".to_owned(), 0), ("orders".to_owned(), 1)];
    let assignment = Assignment { partitions, user_data: Bytes::new() };
    write("members", "assignment", &[&assignment.encode().expect("it is small")]);
    let (target, source) = (Uuid::from_u128(1).simple(), Uuid::from_u128(2).simple());
    let second = format!("{target};77;{source};55;4000000000000001.5.900;3;0.0.10,2.3.4.9");
    for (name, metadata) in [
        ("first", format!("strait1;{target};77;4000000000000001;5;900;{source}")),
        ("second", format!("strait2;{second}")),
        ("third", format!("strait3;{second};c.r.l.1f.2e;closed")),
        ("fourth", format!("strait4;{second};c.r.l.1f.2e;open;fedcba9876543210.1")),
        ("named", "strait-reset1;7".to_owned()),
    ] {
        write("position", name, &[&55i64.to_be_bytes(), metadata.as_bytes()]);
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

/// Every API at its lowest and its highest version.
fn responses(write: Write<'_>) {
    let answers = answers();
    assert_eq!(answers.len(), DECODERS.len(), "an API has no seed");
    for (index, (api, (low, high), decode)) in DECODERS.into_iter().enumerate() {
        let (_, encode) =
            answers.iter().find(|(of, _)| *of as i16 == api as i16).expect("an API has no seed");
        for version in [low, high] {
            let mut body = BytesMut::new();
            encode(&mut body, version);
            let body = body.freeze();
            assert!(decode(version, &body), "{api:?} v{version} does not decode");
            let choice = [index as u8, (version - low) as u8];
            write("responses", &format!("{api:?}-{version}"), &[&choice, &body]);
        }
    }
    // Topics with nothing in them, and names of nothing: three and two bytes on the wire.
    let place = |of: &str| DECODERS.iter().position(|(api, ..)| format!("{api:?}") == of);
    let place = |of| [place(of).expect("an API of that name") as u8, 0];
    let topics = [&[0, 0, 0, 0, 0x91, 0x4e][..], &[1, 1, 0].repeat(10_000)].concat();
    for api in ["ListOffsets", "OffsetCommit", "DescribeProducers"] {
        write("responses", &format!("{api}-dense"), &[&place(api), &topics]);
    }
    let names = [&[0, 0, 0, 0, 0x27, 0x10][..], &[0, 0].repeat(10_000)].concat();
    write("responses", "SaslHandshake-dense", &[&place("SaslHandshake"), &names]);
}

fn answer<M: Encodable + 'static>(
    api: ApiKey,
    message: impl Fn(i16) -> M + 'static,
) -> (ApiKey, Box<dyn Fn(&mut BytesMut, i16)>) {
    let encode = move |out: &mut BytesMut, version| {
        message(version).encode(out, version).expect("kafka-protocol writes it");
    };
    (api, Box::new(encode))
}

#[allow(clippy::too_many_lines, reason = "a list")]
fn answers() -> Answers {
    use kafka_protocol::messages as m;
    let id = Uuid::from_u128(0x5eed);
    vec![
        answer(ApiKey::ApiVersions, |_| {
            let version = |key, max| {
                m::api_versions_response::ApiVersion::default()
                    .with_api_key(key)
                    .with_max_version(max)
            };
            let feature = m::api_versions_response::FinalizedFeatureKey::default()
                .with_name(text("metadata.version"))
                .with_max_version_level(25);
            ApiVersionsResponse::default()
                .with_api_keys(vec![version(0, 13), version(1, 17), version(18, 4)])
                .with_finalized_features_epoch(1)
                .with_finalized_features(vec![feature])
        }),
        answer(ApiKey::Metadata, move |_| {
            let partition = m::metadata_response::MetadataResponsePartition::default()
                .with_leader_id(BrokerId(1))
                .with_leader_epoch(3)
                .with_replica_nodes(vec![BrokerId(1), BrokerId(2)])
                .with_isr_nodes(vec![BrokerId(1)])
                .with_offline_replicas(vec![BrokerId(2)]);
            let broker = m::metadata_response::MetadataResponseBroker::default()
                .with_node_id(BrokerId(1))
                .with_host(text("kafka-1"))
                .with_port(9092)
                .with_rack(Some(text("a")));
            let of = m::metadata_response::MetadataResponseTopic::default()
                .with_name(Some(topic("orders")))
                .with_topic_id(id)
                .with_partitions(vec![partition.clone(), partition]);
            MetadataResponse::default()
                .with_brokers(vec![broker])
                .with_cluster_id(Some(text("east")))
                .with_topics(vec![of])
        }),
        answer(ApiKey::Fetch, move |version| {
            let mut partition = m::fetch_response::PartitionData::default()
                .with_high_watermark(20)
                .with_last_stable_offset(10)
                .with_aborted_transactions(Some(vec![
                    m::fetch_response::AbortedTransaction::default().with_first_offset(2),
                ]))
                .with_records(Some(batch(4, 3, Compression::None)));
            partition.current_leader.leader_id = BrokerId(2);
            partition.diverging_epoch.epoch = 1;
            let mut of = m::fetch_response::FetchableTopicResponse::default()
                .with_partitions(vec![partition]);
            of = if version < 13 { of.with_topic(topic("orders")) } else { of.with_topic_id(id) };
            let mut message = FetchResponse::default().with_session_id(7).with_responses(vec![of]);
            if version >= 16 {
                let node = m::fetch_response::NodeEndpoint::default().with_host(text("kafka-2"));
                message = message.with_node_endpoints(vec![node]);
            }
            message
        }),
        answer(ApiKey::Produce, move |version| {
            let error = m::produce_response::BatchIndexAndErrorMessage::default()
                .with_batch_index_error_message(Some(text("no key")));
            let mut partition = m::produce_response::PartitionProduceResponse::default()
                .with_base_offset(5)
                .with_record_errors(vec![error])
                .with_error_message(Some(text("refused")));
            if version >= 10 {
                partition.current_leader.leader_id = BrokerId(2);
            }
            let mut of = m::produce_response::TopicProduceResponse::default()
                .with_partition_responses(vec![partition]);
            of = if version < 13 { of.with_name(topic("orders")) } else { of.with_topic_id(id) };
            let mut message = ProduceResponse::default().with_responses(vec![of]);
            if version >= 10 {
                let node = m::produce_response::NodeEndpoint::default().with_host(text("kafka-2"));
                message = message.with_node_endpoints(vec![node]);
            }
            message
        }),
        answer(ApiKey::ListOffsets, |_| {
            let partition =
                m::list_offsets_response::ListOffsetsPartitionResponse::default().with_offset(12);
            let of = m::list_offsets_response::ListOffsetsTopicResponse::default()
                .with_name(topic("orders"))
                .with_partitions(vec![partition.clone(), partition]);
            ListOffsetsResponse::default().with_topics(vec![of.clone(), of])
        }),
        answer(ApiKey::OffsetCommit, |_| {
            let of = m::offset_commit_response::OffsetCommitResponseTopic::default()
                .with_name(topic("orders"))
                .with_partitions(vec![Default::default(), Default::default()]);
            OffsetCommitResponse::default().with_topics(vec![of])
        }),
        answer(ApiKey::OffsetFetch, |_| {
            let partition = m::offset_fetch_response::OffsetFetchResponsePartitions::default()
                .with_committed_offset(9)
                .with_metadata(Some(text("anchor")));
            let of = m::offset_fetch_response::OffsetFetchResponseTopics::default()
                .with_name(topic("orders"))
                .with_partitions(vec![partition]);
            let group = m::offset_fetch_response::OffsetFetchResponseGroup::default()
                .with_group_id(GroupId(text("strait.east-to-west")))
                .with_topics(vec![of]);
            OffsetFetchResponse::default().with_groups(vec![group])
        }),
        answer(ApiKey::FindCoordinator, |_| {
            let coordinator = m::find_coordinator_response::Coordinator::default()
                .with_key(text("strait.east-to-west"))
                .with_host(text("kafka-1"))
                .with_port(9092);
            FindCoordinatorResponse::default().with_coordinators(vec![coordinator])
        }),
        answer(ApiKey::OffsetForLeaderEpoch, |_| {
            let of = m::offset_for_leader_epoch_response::OffsetForLeaderTopicResult::default()
                .with_topic(topic("orders"))
                .with_partitions(vec![Default::default()]);
            OffsetForLeaderEpochResponse::default().with_topics(vec![of])
        }),
        answer(ApiKey::SaslHandshake, |_| {
            SaslHandshakeResponse::default()
                .with_mechanisms(vec![text("PLAIN"), text("SCRAM-SHA-256")])
        }),
        answer(ApiKey::SaslAuthenticate, |_| {
            SaslAuthenticateResponse::default()
                .with_error_message(Some(text("wrong password")))
                .with_auth_bytes(Bytes::from_static(b"r=AB,s=AAAA,i=4096"))
        }),
        answer(ApiKey::DescribeConfigs, |_| {
            let synonym = m::describe_configs_response::DescribeConfigsSynonym::default()
                .with_name(text("log.retention.ms"));
            let config = m::describe_configs_response::DescribeConfigsResourceResult::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("1000")))
                .with_synonyms(vec![synonym]);
            let of = m::describe_configs_response::DescribeConfigsResult::default()
                .with_resource_name(text("orders"))
                .with_configs(vec![config]);
            DescribeConfigsResponse::default().with_results(vec![of])
        }),
        answer(ApiKey::DescribeProducers, |_| {
            let partition = m::describe_producers_response::PartitionResponse::default()
                .with_active_producers(vec![Default::default(), Default::default()]);
            let of = m::describe_producers_response::TopicResponse::default()
                .with_name(topic("orders"))
                .with_partitions(vec![partition]);
            DescribeProducersResponse::default().with_topics(vec![of])
        }),
        answer(ApiKey::DescribeCluster, |_| {
            let broker = m::describe_cluster_response::DescribeClusterBroker::default()
                .with_host(text("kafka-1"));
            DescribeClusterResponse::default()
                .with_cluster_id(text("east"))
                .with_brokers(vec![broker])
        }),
        answer(ApiKey::CreateTopics, |_| {
            let config = m::create_topics_response::CreatableTopicConfigs::default()
                .with_name(text("retention.ms"));
            let of = m::create_topics_response::CreatableTopicResult::default()
                .with_name(topic("orders"))
                .with_error_message(Some(text("exists")))
                .with_configs(Some(vec![config]));
            CreateTopicsResponse::default().with_topics(vec![of])
        }),
        answer(ApiKey::CreatePartitions, |_| {
            let of = m::create_partitions_response::CreatePartitionsTopicResult::default()
                .with_name(topic("orders"));
            CreatePartitionsResponse::default().with_results(vec![of])
        }),
        answer(ApiKey::DeleteTopics, |_| {
            let of = m::delete_topics_response::DeletableTopicResult::default()
                .with_name(Some(topic("orders")));
            DeleteTopicsResponse::default().with_responses(vec![of])
        }),
        answer(ApiKey::DeleteRecords, |_| {
            let of = m::delete_records_response::DeleteRecordsTopicResult::default()
                .with_name(topic("orders"))
                .with_partitions(vec![Default::default()]);
            DeleteRecordsResponse::default().with_topics(vec![of])
        }),
        answer(ApiKey::IncrementalAlterConfigs, |_| {
            let of = m::incremental_alter_configs_response::AlterConfigsResourceResponse::default()
                .with_resource_name(text("orders"));
            IncrementalAlterConfigsResponse::default().with_responses(vec![of])
        }),
    ]
}

fn batch(base: i64, count: i32, compression: Compression) -> Bytes {
    let record = |index: i32| Record {
        transactional: base == 4,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 3,
        producer_id: 7,
        producer_epoch: 2,
        timestamp_type: TimestampType::Creation,
        offset: base + i64::from(index),
        sequence: index,
        timestamp: 1_700_000_000_000 + i64::from(index),
        key: (index % 2 == 0).then(|| Bytes::from(format!("key {index}"))),
        value: (index % 3 != 0).then(|| Bytes::from(vec![b'v'; 20])),
        headers: [(text("h"), Some(Bytes::from_static(b"x"))), (text("n"), None)].into(),
    };
    let records: Vec<_> = (0..count).map(record).collect();
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression };
    RecordBatchEncoder::encode(&mut out, &records, &options).expect("kafka-protocol writes it");
    out.freeze()
}

fn batches(write: Write<'_>) {
    let (first, second) = (batch(4, 3, Compression::None), batch(10, 2, Compression::None));
    let mut gappy = first.to_vec();
    gappy[23..27].copy_from_slice(&9i32.to_be_bytes());
    let mut control = batch(8, 1, Compression::None).to_vec();
    control[22] |= 0x30;
    let mut append_time = second.to_vec();
    append_time[22] |= 0x08;
    let log = [&first[..], &control, &second].concat();
    write("batches", "two-and-a-cut", &[&[0], &first, &second, &second[..40]]);
    write("admit", "log", &[&[1, 0, 0, 0, 0], &log]);
    write("admit", "aborted", &[&[1, 0, 0, 1, 0, 7, 4], &log]);
    write("admit", "in-the-middle", &[&[1, 0, 0, 0, 5], &log]);
    write("admit", "append-time", &[&[1, 0, 30, 0, 0], &append_time]);
    write("admit", "gappy", &[&[1, 2, 0, 0, 4], &gappy]);
    write("stamp", "batch", &[&[0x40, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 0, 0, 9], &first]);
    for mode in 0..=6u8 {
        write("records", &format!("mode-{mode}"), &[&[mode], &first]);
        write("recode", &format!("mode-{mode}"), &[&[mode, 0, 0, 0], &gappy]);
    }
    write("recode", "split", &[&[1, 0, 8, 0], &batch(0, 20, Compression::None)]);
    write("recode", "later", &[&[1, 1, 0, 2], &append_time]);
    for file in list("../src/wire/testdata") {
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let bytes = fs::read(&file).expect("test data");
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("set") => write("batches", &name, &[&[0], &bytes]),
            Some("batch") => {
                write("records", &name, &[&[0], &bytes]);
                write("recode", &name, &[&[0, 0, 0, 0], &bytes]);
                write("admit", &name, &[&[0, 0, 0, 0, 0], &bytes]);
            }
            _ => {}
        }
    }
    // What `batches` wraps: the uncompressed sets, in each of the three old codecs.
    for (name, format) in [("java-none-v0", 0), ("java-none-v1", 0x80)] {
        let path = format!("{}/../src/wire/testdata/{name}.set", env!("CARGO_MANIFEST_DIR"));
        let set = fs::read(path).expect("test data");
        for codec in [5u8, 6, 7] {
            write("batches", &format!("{name}-wrapped-{codec}"), &[&[codec | format], &set]);
        }
    }
    write(
        "session",
        "open-change-lose",
        &[&[0, 1, 5, 0, 2, 6, 4, 0, 3, 0, 1, 9, 3, 2, 0, 4, 0, 3]],
    );
    write(
        "session",
        "no-slot",
        &[&[0, 1, 5, 4, 0, 0, 7, 0, 1, 6, 0, 0, 4, 0, 2, 0, 1, 6, 4, 0, 2]],
    );
}

/// Pieces with their lengths in front.
fn pieces(pieces: &[&[u8]]) -> Vec<u8> {
    let with_len = |piece: &&[u8]| [&(piece.len() as u16).to_be_bytes(), *piece].concat();
    pieces.iter().flat_map(with_len).collect()
}

fn exchanges(write: Write<'_>) {
    let nonce = "A".repeat(32);
    let first = format!("r={nonce}server,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
    let last = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
    for hash in [0u8, 1] {
        let said = pieces(&[first.as_bytes(), last.as_bytes()]);
        write("scram", &format!("wrong-signature-{hash}"), &[&[hash], &said]);
    }
    write("scram", "few-iterations", &[&[0], &pieces(&[first.replace("4096", "1").as_bytes()])]);
    write("scram", "error", &[&[0], &pieces(&[first.as_bytes(), b"e=other-error"])]);

    let mut metadata = BytesMut::from(&[0u8][..]);
    MetadataResponse::default().encode(&mut metadata, 13).expect("kafka-protocol writes it");
    write("connection", "plaintext", &[&[3 | 4 | 8], &pieces(&[&metadata])]);
    let mut versions = BytesMut::new();
    ApiVersionsResponse::default().encode(&mut versions, 4).expect("kafka-protocol writes it");
    write("connection", "no-apis", &[&[3 | 8], &pieces(&[&versions])]);
    // Error 35, and the versions of ApiVersions in the encoding of its version 0 (KIP-511).
    let old = [0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 3];
    write("connection", "asks-again", &[&[3 | 8], &pieces(&[&old, &versions])]);
    let plain = b"\0\0\0\0\0\x01\0\x05PLAIN";
    let done = [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    write("connection", "plain", &[&[2 | 4 | 8], &pieces(&[plain, &done, &metadata])]);
    write("connection", "tls-alert", &[&[3], &pieces(&[&[0x15, 3, 3, 0, 2, 2, 0x28]])]);
}

const EVERY_KEY: &str = r#"version: 1
clusters:
  east: { bootstrap: ["kafka-1:9092", "[::1]:9093"] }
  west:
    bootstrap: [kafka.west.example:9093]
    tls: { ca: ca.pem, cert: client.pem, key: client.key, server_name: kafka, min_version: "1.3" }
    sasl: { mechanism: SCRAM-SHA-512, username: strait, password: "${env:WEST_PASSWORD}" }
links:
  east-to-west:
    from: east
    to: west
    topics: { include: ["orders", "payments\\..*"], exclude: [".*-tmp"] }
    naming: "{source}.{topic}"
    start: { timestamp: 2026-01-01T00:00:00Z }
    isolation: read_committed
    timestamps: producer
    replication_factor: 1
engine: { lanes: 2, pin: false, memory: 256MiB }
telemetry: { listen: "127.0.0.1:9660" }
"#;
