//! One broker process.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use super::{Listener, Version};
use crate::process::{Guarded, Usage, tail, usage};
use crate::raw::client::RawClient;
use crate::wait::{wait_for, wait_until};

/// One broker (and controller) of a cluster.
#[derive(Debug)]
pub struct Node {
    /// `node.id`, from 1.
    pub id: i32,
    version: Version,
    folder: PathBuf,
    pub(super) ports: HashMap<Listener, u16>,
    process: Option<Guarded>,
    for_speed: bool,
    file_limit_kib: Option<u64>,
}

/// As `kafka-server-start.sh` starts it.
const JAVA_FOR_SPEED: [&str; 7] = [
    "java",
    "-Xms1g",
    "-Xmx1g",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
];

/// Small heap, and a compiler that is quick rather than clever: many short-lived brokers share a machine.
const JAVA: [&str; 7] = [
    "java",
    "-Xms256m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
];

impl Node {
    pub(super) fn new(
        id: i32,
        version: Version,
        folder: PathBuf,
        ports: HashMap<Listener, u16>,
        for_speed: bool,
    ) -> Self {
        Self { id, version, folder, ports, process: None, file_limit_kib: None, for_speed }
    }

    /// `host:port` of a listener. TLS certificates are for `localhost`, so that is the host.
    pub fn address(&self, listener: Listener) -> String {
        format!("localhost:{}", self.ports[&listener])
    }

    /// A raw connection to the plain listener.
    pub fn client(&self) -> RawClient {
        RawClient::connect(&format!("127.0.0.1:{}", self.ports[&Listener::Plain]))
    }

    /// From its next start on no file of it may grow beyond this, as if the disk were full; none is no limit.
    pub fn limit_files(&mut self, kib: Option<u64>) {
        self.file_limit_kib = kib;
    }

    /// Its exit code, once it ended by itself.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.process.as_mut().expect("node runs").exit_code()
    }

    /// Starts the process; returns before it is ready.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "node {} runs", self.id);
        let java = if self.for_speed { JAVA_FOR_SPEED } else { JAVA };
        let mut command: Vec<String> = java.map(String::from).into();
        if let Some(kib) = self.file_limit_kib {
            let limited = format!("ulimit -f {kib} && exec \"$@\"");
            command.splice(0..0, ["bash".into(), "-c".into(), limited, "bash".into()]);
        }
        command.extend(["-cp".into(), self.version.class_path(), "kafka.Kafka".into()]);
        command.push(self.folder.join("server.properties").display().to_string());
        self.process = Some(Guarded::start(&command, &self.log_file(), &[]));
    }

    /// Waits until the node answers and sees `brokers` brokers.
    pub fn wait_ready(&mut self, brokers: usize) {
        let address = format!("127.0.0.1:{}", self.ports[&Listener::Plain]);
        let log = self.log_file();
        let process = self.process.as_mut().expect("node was started");
        wait_for(&format!("broker {} at {address}", self.id), 180, || {
            if let Some(code) = process.exit_code() {
                panic!("broker ended with {code}:\n{}", tail(&log, 60));
            }
            let mut client = RawClient::try_connect(&address).map_err(|error| error.to_string())?;
            let seen = client.try_metadata(None).map_err(|error| error.to_string())?.brokers.len();
            if seen >= brokers { Ok(()) } else { Err(format!("sees {seen} of {brokers} brokers")) }
        });
    }

    /// Waits until groups have a coordinator: asking makes the offsets topic, and its partitions load for a moment.
    pub(super) fn wait_coordinator(&self) {
        let mut client = self.client();
        wait_until("group coordinators", 60, || {
            ["a", "b", "c", "d"].iter().all(|g| client.has_coordinator(g))
        });
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.process.take().expect("node runs").kill();
    }

    /// SIGTERM, and waits for the end: a controlled shutdown.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("node runs");
        process.signal("TERM");
        process.wait(60);
    }

    /// SIGSTOP: it holds its connections and says nothing.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        self.process.as_ref().expect("node runs").signal(name);
    }

    /// What the process has used.
    pub fn usage(&self) -> Usage {
        usage(self.process.as_ref().expect("node runs").pid)
    }

    /// Where the segments of a partition are.
    pub fn partition_folder(&self, topic: &str, partition: i32) -> PathBuf {
        self.folder.join("data").join(format!("{topic}-{partition}"))
    }

    /// The broker's log.
    pub fn log_file(&self) -> PathBuf {
        self.folder.join("broker.log")
    }

    /// The broker's log, whole.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}
