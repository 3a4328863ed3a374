//! Clients that are not ours: Kafka's Java client and librdkafka, each one process for the whole test run that takes
//! JSON commands. The Java side is compiled on first use into `.lab`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use std::{fs, io};

use serde_json::{Value, json};

use crate::lab::{self, Version};

/// A process that answers JSON commands, one a line.
#[derive(Debug)]
struct Agent {
    stdin: Mutex<ChildStdin>,
    waiting: Arc<Mutex<HashMap<u64, SyncSender<Value>>>>,
    next_id: AtomicU64,
    _process: Child,
}

impl Agent {
    fn start(mut command: Command) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let waiting: Arc<Mutex<HashMap<u64, SyncSender<Value>>>> = Arc::default();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let answered = Arc::clone(&waiting);
        std::thread::spawn(move || {
            for line in answers.lines().map_while(io::Result::ok) {
                let Ok(answer) = serde_json::from_str::<Value>(&line) else { continue };
                let id = answer["id"].as_u64().unwrap();
                if let Some(waiter) = answered.lock().unwrap().remove(&id) {
                    waiter.send(answer).ok();
                }
            }
            // Its end wakes everyone: their channels close.
            answered.lock().unwrap().clear();
        });
        let stdin = Mutex::new(process.stdin.take().unwrap());
        Self { stdin, waiting, next_id: AtomicU64::new(1), _process: process }
    }

    fn call(&self, command: &str, args: &Value) -> Result<Value, String> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = sync_channel(1);
        self.waiting.lock().unwrap().insert(id, sender);
        let line = json!({ "id": id, "command": command, "args": args }).to_string() + "\n";
        self.stdin.lock().unwrap().write_all(line.as_bytes()).map_err(|e| e.to_string())?;
        let mut answer = receiver
            .recv_timeout(Duration::from_secs(900))
            .map_err(|error| format!("{command} {args}: {error}"))?;
        match answer.get("error") {
            Some(error) => Err(format!("{command} {args}: {}", error.as_str().unwrap_or_default())),
            None => Ok(answer["ok"].take()),
        }
    }
}

fn java() -> &'static Agent {
    static JAVA: OnceLock<Agent> = OnceLock::new();
    JAVA.get_or_init(|| {
        let class_path = format!("{}:{}", classes().display(), Version::V43.class_path());
        let mut command = Command::new("java");
        command.args(["-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        command.args(["-cp", &class_path, "Agent"]);
        Agent::start(command)
    })
}

fn librdkafka() -> &'static Agent {
    static LIBRDKAFKA: OnceLock<Agent> = OnceLock::new();
    LIBRDKAFKA.get_or_init(|| {
        let python = lab::folder().join("venv/bin/python");
        assert!(python.exists(), "no librdkafka in {}: run ./protocol-tests/run", python.display());
        let mut command = Command::new(python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python/rdkafka.py"));
        Agent::start(command)
    })
}

/// Compiles `java/` into a folder named by its content, unless that is done.
fn classes() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("java");
    let mut files: Vec<PathBuf> =
        fs::read_dir(&sources).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let sum =
        files.iter().fold(0, |sum, file| crc32c::crc32c_append(sum, &fs::read(file).unwrap()));
    let classes = lab::folder().join(format!("classes-{sum:08x}"));
    if !classes.exists() {
        let output = tempfile::tempdir_in(lab::folder()).unwrap();
        let status = Command::new("javac")
            .args(["-nowarn", "-cp", &Version::V43.class_path(), "-d"])
            .arg(output.path())
            .args(&files)
            .status()
            .expect("javac");
        assert!(status.success(), "javac failed");
        // Somebody else may have been quicker with the same content.
        fs::rename(output.keep(), &classes).ok();
    }
    classes
}

/// What Kafka's own classes read in answers (API, version, body): a line for each, every field with its path and value, or why
/// it cannot be read.
#[track_caller]
pub fn read_answers(answers: &[(&str, i16, Vec<u8>)]) -> Vec<String> {
    let (file, out) =
        (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let mut writer = io::BufWriter::new(file.reopen().unwrap());
    for (name, version, body) in answers {
        let lengths = (u16::try_from(name.len()).unwrap(), u32::try_from(body.len()).unwrap());
        writer.write_all(&lengths.0.to_be_bytes()).unwrap();
        writer.write_all(name.as_bytes()).unwrap();
        writer.write_all(&version.to_be_bytes()).unwrap();
        writer.write_all(&lengths.1.to_be_bytes()).unwrap();
        writer.write_all(body).unwrap();
    }
    writer.flush().unwrap();
    let args = json!({ "file": file.path(), "out": out.path() });
    java().call("frames", &args).unwrap_or_else(|error| panic!("{error}"));
    fs::read_to_string(out.path()).unwrap().lines().map(str::to_owned).collect()
}

/// Calls of an operator and of Kafka's own producer and consumer on one cluster.
#[derive(Clone, Debug)]
pub struct Admin {
    bootstrap: String,
}

/// A partition as its readers see it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Summary {
    /// Number.
    pub partition: i32,
    /// Log start.
    pub begin: i64,
    /// End for these readers.
    pub end: i64,
    /// Records.
    pub count: u64,
    /// Offset of the first record, -1 without.
    pub first: i64,
    /// Offset of the last record, -1 without.
    pub last: i64,
    /// Offsets went down somewhere.
    pub descending: bool,
    /// Over timestamp, its type, key, value, headers of every record, in order.
    pub digest: String,
}

/// Where a consumer group is on one partition.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct GroupOffset {
    /// Topic.
    pub topic: String,
    /// Number.
    pub partition: i32,
    /// Next to read.
    pub offset: i64,
    /// -1 if none was committed.
    pub leader_epoch: i32,
    /// The committer's string.
    pub metadata: String,
}

/// State of a partition.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct PartitionState {
    /// Number.
    pub partition: i32,
    /// -1 if none.
    pub leader: i32,
    /// In-sync replicas.
    pub isr: Vec<i32>,
    /// All replicas, preferred first.
    pub replicas: Vec<i32>,
}

/// An active producer id on a partition.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct ProducerState {
    /// Producer id.
    pub id: i64,
    /// Epoch.
    pub epoch: i32,
    /// Last sequence.
    pub last_sequence: i32,
}

impl Admin {
    /// For the cluster at `bootstrap` (a plain listener).
    pub fn new(bootstrap: String) -> Self {
        Self { bootstrap }
    }

    fn args(&self, mut args: Value) -> Value {
        args["bootstrap"] = json!(self.bootstrap);
        args
    }

    /// An admin call; `args` holds `call` and what that needs (see `java/AdminCalls.java`).
    pub fn try_call(&self, args: Value) -> Result<Value, String> {
        java().call("admin", &self.args(args))
    }

    /// The same; an error fails the test.
    #[track_caller]
    pub fn call(&self, args: Value) -> Value {
        self.try_call(args).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Creates a topic with one replica and waits until it has leaders.
    #[track_caller]
    pub fn create_topic(&self, topic: &str, partitions: i32, configs: Value) {
        let call = json!({
            "call": "create", "topic": topic, "partitions": partitions, "configs": configs
        });
        self.call(call);
        self.wait_led(topic);
    }

    /// Creates a topic with given replicas (per partition, preferred leader first) and waits until it has leaders.
    #[track_caller]
    pub fn create_assigned(&self, topic: &str, assignments: &[&[i32]], configs: Value) {
        let call = json!({
            "call": "create", "topic": topic, "assignments": assignments, "configs": configs
        });
        self.call(call);
        self.wait_led(topic);
    }

    #[track_caller]
    fn wait_led(&self, topic: &str) {
        crate::wait::wait_until(&format!("leaders of {topic}"), 30, || {
            self.try_describe(topic).is_ok_and(|state| state.iter().all(|p| p.leader >= 0))
        });
        // And until each leader knows that it is one: else it refuses a producer's first batch and takes those behind it,
        // and the producer waits for its place until delivery.timeout.ms. Kafka's own producers have that hole.
        self.ends(topic);
    }

    fn try_describe(&self, topic: &str) -> Result<Vec<PartitionState>, String> {
        let mut answer = self.try_call(json!({ "call": "describe", "topic": topic }))?;
        serde_json::from_value(answer["partitions"].take()).map_err(|error| error.to_string())
    }

    /// Leaders and replicas; asked again for a while, for the broker that is asked may be frozen or dead.
    #[track_caller]
    pub fn describe(&self, topic: &str) -> Vec<PartitionState> {
        crate::wait::wait_for(&format!("state of {topic}"), 60, || self.try_describe(topic))
    }

    /// Whether the topic exists.
    pub fn exists(&self, topic: &str) -> bool {
        self.try_describe(topic).is_ok()
    }

    /// Deletes a topic.
    #[track_caller]
    pub fn delete_topic(&self, topic: &str) {
        self.call(json!({ "call": "delete_topic", "topic": topic }));
    }

    /// Changes a topic's configuration.
    #[track_caller]
    pub fn alter_topic(&self, topic: &str, configs: Value) {
        self.call(json!({ "call": "alter", "topic": topic, "configs": configs }));
    }

    /// DeleteRecords: the log starts at `offset`.
    #[track_caller]
    pub fn delete_records(&self, topic: &str, partition: i32, offset: i64) {
        let call = json!({
            "call": "delete_records", "topic": topic, "partition": partition, "offset": offset
        });
        self.call(call);
    }

    /// Sets the replicas; the first is the preferred leader.
    #[track_caller]
    pub fn reassign(&self, topic: &str, partition: i32, replicas: &[i32]) {
        let call = json!({
            "call": "reassign", "topic": topic, "partition": partition, "replicas": replicas
        });
        self.call(call);
    }

    /// Preferred leader election; none needed is no error.
    pub fn elect(&self, topic: &str, partition: i32) -> Result<(), String> {
        self.try_call(json!({ "call": "elect", "topic": topic, "partition": partition }))
            .map(|_| ())
    }

    /// Log ends, by partition; asked again for a while like [`Admin::describe`].
    #[track_caller]
    pub fn ends(&self, topic: &str) -> Vec<i64> {
        let ask = || self.try_call(json!({ "call": "offsets", "topic": topic }));
        serde_json::from_value(crate::wait::wait_for(&format!("ends of {topic}"), 60, ask)).unwrap()
    }

    /// Where a group is, by partition; what was never committed is missing.
    #[track_caller]
    pub fn group_offsets(&self, group: &str) -> Vec<GroupOffset> {
        let offsets = self.call(json!({ "call": "group_offsets", "group": group }));
        serde_json::from_value(offsets).unwrap()
    }

    /// Producer ids that the leader of a partition holds state for.
    #[track_caller]
    pub fn producers(&self, topic: &str, partition: i32) -> Vec<ProducerState> {
        let call = json!({ "call": "producers", "topic": topic, "partition": partition });
        serde_json::from_value(self.call(call)).unwrap()
    }

    /// Rights for a principal such as `User:limited`.
    #[track_caller]
    pub fn allow(&self, principal: &str, resource: &str, name: &str, operations: &[&str]) {
        let call = json!({
            "call": "acl", "principal": principal, "resource": resource, "name": name,
            "operations": operations
        });
        self.call(call);
    }

    /// Writes with Kafka's Java producer (see `java/Produce.java`); gives the count that was acknowledged.
    #[track_caller]
    pub fn produce(&self, topic: &str, mut args: Value) -> u64 {
        args["topic"] = json!(topic);
        let answer = java().call("produce", &self.args(args));
        answer.unwrap_or_else(|error| panic!("{error}"))["acked"].as_u64().unwrap()
    }

    /// Writes with librdkafka (see `python/rdkafka.py`); gives the count that was acknowledged.
    #[track_caller]
    pub fn produce_librdkafka(&self, topic: &str, mut args: Value) -> u64 {
        args["topic"] = json!(topic);
        let answer = librdkafka().call("produce", &self.args(args));
        answer.unwrap_or_else(|error| panic!("{error}"))["acked"].as_u64().unwrap()
    }

    /// Ends all writing with the Java producer on this cluster, now and for ever.
    #[track_caller]
    pub fn stop_writers(&self) {
        java().call("stop", &self.args(json!({}))).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Writes numbered records with librdkafka for a time and at a rate; gives the count that was acknowledged.
    #[track_caller]
    pub fn produce_numbered_librdkafka(&self, topic: &str, mut args: Value) -> u64 {
        args["topic"] = json!(topic);
        let answer = librdkafka().call("numbered", &self.args(args));
        answer.unwrap_or_else(|error| panic!("{error}"))["acked"].as_u64().unwrap()
    }

    /// Reads a topic with Kafka's Java consumer, read_committed: counts and digests.
    #[track_caller]
    pub fn summary(&self, topic: &str) -> Vec<Summary> {
        self.dump_with(topic, None, json!({}))
    }

    /// Reads a topic with Kafka's Java consumer, read_committed: every field of every record.
    #[track_caller]
    pub fn records(&self, topic: &str) -> Vec<crate::compare::Record> {
        let file = tempfile::NamedTempFile::new().unwrap();
        self.dump_with(topic, Some(file.path()), json!({}));
        crate::compare::parse(&fs::read_to_string(file.path()).unwrap())
    }

    /// The same through librdkafka.
    #[track_caller]
    pub fn records_librdkafka(&self, topic: &str) -> Vec<crate::compare::Record> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let args = self.args(json!({ "topic": topic, "file": file.path() }));
        librdkafka().call("dump", &args).unwrap_or_else(|error| panic!("{error}"));
        crate::compare::parse(&fs::read_to_string(file.path()).unwrap())
    }

    /// What a topic holds of numbered records, as [`Admin::produce`] writes them and Kafka's Java consumer reads them.
    #[track_caller]
    pub fn held(&self, topic: &str) -> crate::tally::Held {
        let file = tempfile::NamedTempFile::new().unwrap();
        let args = self.args(json!({
            "topic": topic, "file": file.path(), "numbers": true, "seconds": 850
        }));
        java().call("dump", &args).unwrap_or_else(|error| panic!("{error}"));
        crate::tally::Held::read(io::BufReader::new(fs::File::open(file.path()).unwrap()))
    }

    /// The highest number among the last records of each partition, -1 where there is none.
    pub fn highest(&self, topic: &str) -> Result<Vec<i64>, String> {
        let args = json!({ "topic": topic, "numbers": true, "tail": 1000, "seconds": 30 });
        let answer = java().call("dump", &self.args(args))?;
        let partitions = answer["partitions"].as_array().ok_or("no partitions")?;
        Ok(partitions.iter().map(|partition| partition["highest"].as_i64().unwrap()).collect())
    }

    /// Reads with more consumer properties, to a file if there is one.
    #[track_caller]
    pub fn dump_with(&self, topic: &str, file: Option<&Path>, props: Value) -> Vec<Summary> {
        let mut args = self.args(json!({ "topic": topic, "props": props, "seconds": 300 }));
        if let Some(file) = file {
            args["file"] = json!(file);
        }
        let mut answer = java().call("dump", &args).unwrap_or_else(|error| panic!("{error}"));
        serde_json::from_value(answer["partitions"].take()).unwrap()
    }
}
