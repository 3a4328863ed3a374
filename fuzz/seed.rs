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
use strait_fuzz::frames::Answer;
use uuid::Uuid;

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
    copying(&write);
    requests(&write);
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
        owned: vec![("orders".into(), 0), ("orders".into(), 7)],
        generation: 4,
    };
    write("members", "subscription", &[&subscription.encode().expect("it is small")]);
    let first = [&[0, 0, 0, 0, 0, 1, 0, 6][..], b"orders", &[0, 0, 0, 3], b"abc"];
    write("members", "subscription-0", &first);
    let partitions = vec![("orders".into(), 0), ("orders".into(), 1)];
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

/// Every API at its lowest and its highest version.
fn responses(write: Write<'_>) {
    for (index, decoder) in DECODERS.iter().enumerate() {
        let (answer, (low, high)) = (Answer::of(decoder.api as i16), decoder.versions);
        for version in [low, high] {
            let (mut dice, mut body) = (dice(u64::from(version.unsigned_abs())), Vec::new());
            // Some are valid and answer nothing that is asked: OffsetFetch for two groups.
            while body.is_empty() || !(decoder.reads)(version, &Bytes::from(body.clone())) {
                (body, _) = answer.body(version, &mut dice);
            }
            let choice = [index as u8, (version - low) as u8];
            write("responses", &format!("{}-{version}", answer.name), &[&choice, &body]);
            if decoder.api == strait::wire::ApiKey::Metadata {
                // A leader moves, one is led by nobody who is known, and an epoch falls.
                let all: Vec<_> = [(1, 3, 2), (2, 4, 9), (1, 3, 2)]
                    .map(|(leader, epoch, other)| metadata(version, leader, epoch, other))
                    .to_vec();
                let all: Vec<&[u8]> = all.iter().map(|answer| &answer[..]).collect();
                write("metadata", &format!("three-{version}"), &[&choice[1..], &pieces(&all)]);
            }
        }
    }
    // Topics with nothing in them, and names of nothing: three and two bytes on the wire.
    let place = |of: &str| DECODERS.iter().position(|decoder| format!("{:?}", decoder.api) == of);
    let place = |of| [place(of).expect("an API of that name") as u8, 0];
    let topics = [&[0, 0, 0, 0, 0x91, 0x4e][..], &[1, 1, 0].repeat(10_000)].concat();
    for api in ["ListOffsets", "OffsetCommit", "DescribeProducers"] {
        write("responses", &format!("{api}-dense"), &[&place(api), &topics]);
    }
    let names = [&[0, 0, 0, 0, 0x27, 0x10][..], &[0, 0].repeat(10_000)].concat();
    write("responses", "SaslHandshake-dense", &[&place("SaslHandshake"), &names]);
}

/// Two brokers, and a topic of two partitions.
fn metadata(version: i16, leader: i32, epoch: i32, other: i32) -> BytesMut {
    use kafka_protocol::messages::metadata_response::*;
    let broker = |id: i32| {
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(id))
            .with_host(text("kafka-1"))
            .with_port(9092)
    };
    let partition = |index: i32, leader: i32| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(leader))
            .with_leader_epoch(epoch)
            .with_replica_nodes(vec![BrokerId(1), BrokerId(2)])
    };
    let topic = MetadataResponseTopic::default()
        .with_name(Some(TopicName(text("orders"))))
        .with_topic_id(Uuid::from_u128(0x5eed))
        .with_partitions(vec![partition(1, other), partition(0, leader)]);
    let answer = MetadataResponse::default()
        .with_brokers(vec![broker(1), broker(2)])
        .with_cluster_id(Some(text("east")))
        .with_topics(vec![topic]);
    let mut out = BytesMut::new();
    answer.encode(&mut out, version).expect("kafka-protocol writes it");
    out
}

/// Numbers without end, the same each time (SplitMix64).
fn dice(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
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
    let body = |batch: &Bytes| ((batch.len() as u16).to_be_bytes(), batch.clone());
    let joined: Vec<u8> = [&first, &second, &batch(0, 7, Compression::None)]
        .map(body)
        .iter()
        .flat_map(|(len, batch)| [&len[..], batch].concat())
        .collect();
    for codec in 0..5u8 {
        write("merge", &format!("three-{codec}"), &[&[codec], &joined]);
    }
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

/// Deeds at the answers to a whole copying: see `entries/copying.rs`.
fn copying(write: Write<'_>) {
    for side in 0..8u8 {
        write("copying", &format!("nothing-{side}"), &[&[side]]);
        // With a death in the middle too, for what is not a lie.
        for deed in (0..8u8).filter(|deed| side < 4 || *deed < 4) {
            let early = [2 + deed, deed, 200];
            let late = [12 + deed, deed | 0x30, 90];
            write("copying", &format!("deed-{side}-{deed}"), &[&[side], &early, &late]);
        }
        for refusal in 8..12u8 {
            let twice = [1, refusal, 0, 3, refusal, 1];
            write("copying", &format!("refused-{side}-{refusal}"), &[&[side], &twice]);
        }
        let one_after_the_other = [9, 0, 0, 0, 1, 100, 3, 0, 0, 2, 2, 255, 0, 3, 0, 5, 0, 0];
        write("copying", &format!("many-{side}"), &[&[side], &one_after_the_other]);
    }
}

fn requests(write: Write<'_>) {
    for path in ["/", "/metrics", "/status", "/healthz", "/readyz", "/no"] {
        let said = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let name = path.replace('/', "path-");
        write("http", &name, &[&[0, 6], said.as_bytes()]);
        write("http", &format!("{name}-refused"), &[&[2, 6], said.as_bytes()]);
        let token = "Authorization: Bearer 0123456789abcdef\r\n\r\n";
        let said = [said.trim_end(), "\r\n", token].concat();
        write("http", &format!("{name}-token"), &[&[2, 6], said.as_bytes()]);
    }
    for said in ["Host: evil.example", "Host: 192.0.2.1\r\nOrigin: http://evil.example"] {
        let whole = format!("GET /metrics HTTP/1.1\r\n{said}\r\n\r\n");
        write("http", &format!("foreign-{}", said.len()), &[&[0, 200], whole.as_bytes()]);
    }
    let twice = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2);
    write("http", "twice", &[&[1, 255], twice.as_bytes()]);
    write("http", "head", &[&[1, 0], b"HEAD /status HTTP/1.0\r\nHost: [::1]\r\n\r\n"]);
    write("http", "post", &[&[0, 3], b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi"]);
    write(
        "http",
        "chunked",
        &[&[0, 9], b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    );
    write("http", "half", &[&[1, 9], b"GET / HTTP/1.1\r\nX: "]);
    write("http", "tls", &[&[0, 20], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]]);
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
