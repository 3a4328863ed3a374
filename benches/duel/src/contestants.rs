//! The replicators: how each is started for one run, with the settings that the table names.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use protocol_tests::lab::{Cluster, Listener};
use protocol_tests::mirror_maker;
use protocol_tests::ports;
use protocol_tests::process::Guarded;
use protocol_tests::strait::cluster_yaml;
use tempfile::TempDir;

use crate::measure::Running;
use crate::shape::{Batch, Filled, Shape};

/// What is to be copied, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The source.
    pub source: &'a Cluster,
    /// The target.
    pub target: &'a Cluster,
    /// The shape.
    pub shape: Shape,
    /// The topic.
    pub filled: &'a Filled,
    /// Names the run; the target's topic is `<run>.<topic>`.
    pub run: &'a str,
}

impl Job<'_> {
    /// The topic that this run writes.
    pub fn target_topic(&self) -> String {
        format!("{}.{}", self.run, self.filled.topic)
    }
}

/// A replicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contestant {
    /// The release binary as shipped, no setting touched.
    Strait,
    /// Kafka's own, tuned.
    MirrorMaker,
    /// `franz/main.go`.
    Franz,
}

impl Contestant {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Strait, Self::MirrorMaker, Self::Franz];

    /// As the table names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strait => "strait",
            Self::MirrorMaker => "mirror-maker-2",
            Self::Franz => "franz-go",
        }
    }

    /// Starts it.
    pub fn start(self, job: &Job<'_>, programs: &Programs) -> Running {
        let folder = tempfile::Builder::new().prefix("duel-").tempdir().expect("a folder");
        let command = match self {
            Self::Strait => strait(job, programs, &folder),
            Self::MirrorMaker => mirror_maker(job, &folder),
            Self::Franz => franz(job, programs),
        };
        let started = Instant::now();
        let process = Guarded::start(&command, &folder.path().join("log"), &[]);
        Running { process, folder, started }
    }
}

/// Where the programs are.
#[derive(Debug)]
pub struct Programs {
    /// `strait`, a release build.
    pub strait: PathBuf,
    /// The Go loop.
    pub franz: PathBuf,
}

/// The largest batch that a rival makes: as large as the source's, or 256 KiB where those are small.
fn batch_bytes(shape: &Shape) -> u32 {
    match shape.batch {
        Batch::One { .. } => 256 << 10,
        Batch::Kib(kib) => kib.max(256) << 10,
    }
}

fn write(folder: &TempDir, name: &str, text: &str) -> String {
    let file = folder.path().join(name);
    fs::write(&file, text).expect("a file of settings");
    file.display().to_string()
}

fn strait(job: &Job<'_>, programs: &Programs, folder: &TempDir) -> Vec<String> {
    let yaml = format!(
        "version: 1\nclusters:\n  {run}: {}\n  target: {}\nlinks:\n  {run}:\n    from: {run}\n    to: target\n    \
         topics: {{ include: ['{}'] }}\n    naming: prefix\n\
         telemetry: {{ listen: \"127.0.0.1:{}\" }}\n",
        cluster_yaml(job.source, job.shape.source_listener()),
        cluster_yaml(job.target, job.shape.target_listener()),
        job.filled.topic,
        ports::free(),
        run = job.run,
    );
    let file = write(folder, "strait.yaml", &yaml);
    vec![programs.strait.display().to_string(), "run".into(), "-c".into(), file]
}

fn mirror_maker(job: &Job<'_>, folder: &TempDir) -> Vec<String> {
    let run = job.run;
    let mut lines = vec![
        format!("clusters = {run}, target"),
        format!("{run}->target.enabled = true"),
        format!("{run}->target.topics = {}", job.filled.topic),
        MIRROR_MAKER_TASKS.into(),
        "emit.heartbeats.enabled = false".into(),
        format!("{run}.consumer.fetch.max.bytes = 52428800"),
        format!("{run}.consumer.max.partition.fetch.bytes = 8388608"),
        format!("{run}.consumer.max.poll.records = 10000"),
        format!("target.producer.batch.size = {}", batch_bytes(&job.shape)),
        "target.producer.linger.ms = 20".into(),
        "target.producer.max.request.size = 8388608".into(),
        "target.producer.buffer.memory = 134217728".into(),
        "target.producer.enable.idempotence = true".into(),
        "target.producer.max.in.flight.requests.per.connection = 5".into(),
        format!("target.producer.compression.type = {}", job.shape.codec.name()),
        format!("listeners = http://127.0.0.1:{}", ports::free()),
    ];
    lines.extend(mirror_maker::ONE_REPLICA.map(String::from));
    lines.extend(mirror_maker::cluster(run, job.source, job.shape.source_listener()));
    lines.extend(mirror_maker::cluster("target", job.target, job.shape.target_listener()));
    let file = write(folder, "mm2.properties", &lines.join("\n"));
    let mut command: Vec<String> =
        ["java", "-Xms256M", "-Xmx3G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]
            .map(String::from)
            .into();
    command.extend(["-cp".into(), mirror_maker::VERSION.class_path()]);
    command.extend(["org.apache.kafka.connect.mirror.MirrorMaker".into(), file]);
    command
}

/// What the table says of MirrorMaker 2, beside what each cell sets (batches, codec).
pub const MIRROR_MAKER_TASKS: &str = "tasks.max = 2";

fn franz(job: &Job<'_>, programs: &Programs) -> Vec<String> {
    let ca = |cluster: &Cluster, listener: Listener| match listener {
        Listener::Plain => String::new(),
        _ => cluster.authority.ca().display().to_string(),
    };
    let (source, target) = (job.shape.source_listener(), job.shape.target_listener());
    let batch = batch_bytes(&job.shape).max(1 << 20);
    [
        &programs.franz.display().to_string(),
        "-source",
        &job.source.bootstrap(source),
        "-source-ca",
        &ca(job.source, source),
        "-target",
        &job.target.bootstrap(target),
        "-target-ca",
        &ca(job.target, target),
        "-from",
        &job.filled.topic,
        "-to",
        &job.target_topic(),
        "-codec",
        job.shape.codec.name(),
        "-batch",
        &batch.to_string(),
    ]
    .map(String::from)
    .into()
}

impl Programs {
    /// Beside this program, and where `benches/duel/run` builds the Go loop.
    pub fn find() -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let beside = |name: &str| own.parent().unwrap_or(Path::new(".")).join(name);
        let programs = Self { strait: beside("strait"), franz: beside("franz") };
        for program in [&programs.strait, &programs.franz] {
            if !program.exists() {
                return Err(format!(
                    "{} is missing: start with benches/duel/run",
                    program.display()
                ));
            }
        }
        Ok(programs)
    }
}
