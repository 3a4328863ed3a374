//! The real MirrorMaker 2 in dedicated mode, of the same release as Strait is measured with.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::lab::{Cluster, Listener, Version};
use crate::ports;
use crate::process::{Guarded, tail};

/// The release.
pub const VERSION: Version = Version::V43;

/// What an operator adds for exactly-once delivery (KIP-618), but for the address of the internal listener.
pub const EXACTLY_ONCE: [&str; 3] = [
    "target.exactly.once.source.support = enabled",
    "dedicated.mode.enable.internal.rest = true",
    "source.consumer.isolation.level = read_committed",
];

/// One replica of its own topics, where there is one broker.
pub const ONE_REPLICA: [&str; 7] = [
    "replication.factor = 1",
    "offset-syncs.topic.replication.factor = 1",
    "checkpoints.topic.replication.factor = 1",
    "heartbeats.topic.replication.factor = 1",
    "config.storage.replication.factor = 1",
    "offset.storage.replication.factor = 1",
    "status.storage.replication.factor = 1",
];

/// The heap and collector of `connect-mirror-maker.sh`.
const JAVA: [&str; 9] = [
    "java",
    "-Xms256M",
    "-Xmx2G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
];

/// The name that its default policy gives a topic on the target.
pub fn target_topic(topic: &str) -> String {
    format!("source.{topic}")
}

/// A MirrorMaker 2 with one flow.
#[derive(Debug)]
pub struct MirrorMaker {
    process: Guarded,
    folder: TempDir,
}

impl MirrorMaker {
    /// Starts it; it takes 10 to 20 seconds to its first record. `settings` are lines over those of the lab: defaults,
    /// with a task for each of four partitions, and one replica of its own topics where there is one broker.
    pub fn start(
        source: (&Cluster, Listener),
        target: (&Cluster, Listener),
        topics: &[&str],
        settings: &[&str],
    ) -> Self {
        let folder = tempfile::Builder::new().prefix("mirror-maker-").tempdir().unwrap();
        let mut lines: Vec<String> =
            ["clusters = source, target", "source->target.enabled = true", "tasks.max = 4"]
                .map(String::from)
                .into();
        lines.extend(ONE_REPLICA.map(String::from));
        lines.push(format!("source->target.topics = {}", topics.join(", ")));
        lines.extend(cluster("source", source.0, source.1));
        lines.extend(cluster("target", target.0, target.1));
        lines.push(format!("listeners = http://127.0.0.1:{}", ports::free()));
        lines.extend(settings.iter().map(ToString::to_string));
        fs::write(folder.path().join("mm2.properties"), lines.join("\n")).unwrap();
        let process = spawn(&folder);
        Self { process, folder }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM, and waits for the end: it commits where it is.
    #[track_caller]
    pub fn terminate(&mut self) {
        self.process.signal("TERM");
        self.process.wait(60);
    }

    /// Starts it again after its end, with the same settings.
    pub fn restart(&mut self) {
        self.process = spawn(&self.folder);
    }

    /// Whether it ended, and how.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.process.exit_code()
    }

    /// The lines of its log, over all its lives, that are warnings or errors and hold this text.
    pub fn complaints(&self, text: &str) -> Vec<String> {
        let log = fs::read_to_string(log_file(&self.folder)).unwrap_or_default();
        let complains = |line: &&str| {
            [" WARN ", " ERROR "].iter().any(|level| line.contains(level)) && line.contains(text)
        };
        log.lines().filter(complains).map(String::from).collect()
    }
}

impl Drop for MirrorMaker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- MirrorMaker 2, last lines:\n{}", tail(&log_file(&self.folder), 40));
        }
    }
}

/// How it reaches a cluster that it calls `alias`: plain, or by TLS with a certificate of the broker's alone.
pub fn cluster(alias: &str, cluster: &Cluster, listener: Listener) -> Vec<String> {
    let mut lines = vec![format!("{alias}.bootstrap.servers = {}", cluster.bootstrap(listener))];
    if listener.protocol() == "SSL" {
        lines.push(format!("{alias}.security.protocol = SSL"));
        lines.push(format!("{alias}.ssl.truststore.type = PEM"));
        let ca = cluster.authority.ca();
        lines.push(format!("{alias}.ssl.truststore.location = {}", ca.display()));
    }
    lines
}

fn spawn(folder: &TempDir) -> Guarded {
    let mut command: Vec<String> = JAVA.map(String::from).into();
    command.extend(["-cp".into(), VERSION.class_path()]);
    command.push("org.apache.kafka.connect.mirror.MirrorMaker".into());
    command.push(folder.path().join("mm2.properties").display().to_string());
    Guarded::start(&command, &log_file(folder), &[])
}

fn log_file(folder: &TempDir) -> PathBuf {
    folder.path().join("log")
}
