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
use crate::shape::{Batch, Shape};

/// What is to be copied, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The source, and where it is read.
    pub source: (&'a Cluster, Listener),
    /// The target, and where it is written.
    pub target: (&'a Cluster, Listener),
    /// The shape.
    pub shape: Shape,
    /// The topic, for Strait a pattern of topics.
    pub topic: &'a str,
    /// Names the run; the target's topic is `<run>.<topic>`.
    pub run: &'a str,
    /// Further lines of Strait's link.
    pub link: &'a [String],
    /// Further top-level lines of Strait's.
    pub top: &'a [String],
    /// The network namespace that it runs in; none is the harness's own.
    pub namespace: Option<&'a str>,
}

impl<'a> Job<'a> {
    /// Over the listeners that the shape asks for.
    pub fn new(
        clusters: (&'a Cluster, &'a Cluster),
        shape: Shape,
        topic: &'a str,
        run: &'a str,
    ) -> Self {
        let source = (clusters.0, shape.source_listener());
        let target = (clusters.1, shape.target_listener());
        Self { source, target, shape, topic, run, link: &[], top: &[], namespace: None }
    }

    /// The topic that this run writes.
    pub fn target_topic(&self) -> String {
        format!("{}.{}", self.run, self.topic)
    }
}

/// A replicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contestant {
    /// The release binary as shipped, no setting touched.
    Strait,
    /// Kafka's own, tuned.
    MirrorMaker,
    /// Kafka's own as it comes.
    MirrorMakerDefaults,
    /// `franz/main.go`.
    Franz,
}

impl Contestant {
    /// Those that copy as much as they can.
    pub const FOR_SPEED: [Self; 3] = [Self::Strait, Self::MirrorMaker, Self::Franz];
    /// Those whose first record and whose delay are looked at.
    pub const FOR_TIME: [Self; 3] = [Self::Strait, Self::MirrorMaker, Self::MirrorMakerDefaults];

    /// As the table names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strait => "strait",
            Self::MirrorMaker => "mirror-maker-2",
            Self::MirrorMakerDefaults => "mirror-maker-2-defaults",
            Self::Franz => "franz-go",
        }
    }

    /// Starts it.
    pub fn start(self, job: &Job<'_>, programs: &Programs) -> Running {
        let folder = tempfile::Builder::new().prefix("duel-").tempdir().expect("a folder");
        let telemetry = ports::free();
        let mut command = match self {
            Self::Strait => strait(job, programs, &folder, telemetry),
            Self::MirrorMaker => mirror_maker(job, &tuned(job), &folder),
            Self::MirrorMakerDefaults => mirror_maker(job, &[], &folder),
            Self::Franz => franz(job, programs),
        };
        if let Some(namespace) = job.namespace {
            command.splice(0..0, ["ip", "netns", "exec", namespace].map(String::from));
        }
        let started = Instant::now();
        let process = Guarded::start(&command, &folder.path().join("log"), &[]);
        Running { process, folder, started, telemetry }
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

fn strait(job: &Job<'_>, programs: &Programs, folder: &TempDir, telemetry: u16) -> Vec<String> {
    let mut yaml = format!(
        "version: 1\nclusters:\n  {run}: {}\n  target: {}\nlinks:\n  {run}:\n    from: {run}\n    to: target\n    \
         topics: {{ include: ['{}'] }}\n    naming: prefix\n",
        cluster_yaml(job.source.0, job.source.1),
        cluster_yaml(job.target.0, job.target.1),
        job.topic,
        run = job.run,
    );
    job.link.iter().for_each(|line| yaml += &format!("    {line}\n"));
    job.top.iter().for_each(|line| yaml += &format!("{line}\n"));
    yaml += &format!("telemetry: {{ listen: \"127.0.0.1:{telemetry}\" }}\n");
    let file = write(folder, "strait.yaml", &yaml);
    vec![programs.strait.display().to_string(), "run".into(), "-c".into(), file]
}

fn tuned(job: &Job<'_>) -> Vec<String> {
    let run = job.run;
    vec![
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
    ]
}

fn mirror_maker(job: &Job<'_>, settings: &[String], folder: &TempDir) -> Vec<String> {
    let run = job.run;
    let mut lines = vec![
        format!("clusters = {run}, target"),
        format!("{run}->target.enabled = true"),
        format!("{run}->target.topics = {}", job.topic),
        format!("listeners = http://127.0.0.1:{}", ports::free()),
    ];
    lines.extend(settings.iter().cloned());
    lines.extend(mirror_maker::ONE_REPLICA.map(String::from));
    lines.extend(mirror_maker::cluster(run, job.source.0, job.source.1));
    lines.extend(mirror_maker::cluster("target", job.target.0, job.target.1));
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
    let ((from, source), (to, target)) = (job.source, job.target);
    let batch = batch_bytes(&job.shape).max(1 << 20);
    [
        &programs.franz.display().to_string(),
        "-source",
        &from.bootstrap(source),
        "-source-ca",
        &ca(from, source),
        "-target",
        &to.bootstrap(target),
        "-target-ca",
        &ca(to, target),
        "-from",
        job.topic,
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
