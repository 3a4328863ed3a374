//! The real `strait` process, with a configuration of the test's and all that it says of itself.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use crate::lab::{Cluster, Listener, PASSWORD, pool};
use crate::ports;
use crate::process::{Guarded, Usage, tail, usage};
use crate::tally::Stretch;
use crate::wait::wait_for;

/// The binary beside the test executable, or the one that `STRAIT_BINARY` names.
///
/// Panics if there is none or if it is older than the sources: cargo does not build another package's binary for a test.
pub fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("STRAIT_BINARY") {
        return named.into();
    }
    let test = std::env::current_exe().unwrap();
    let binary = test.parent().and_then(Path::parent).unwrap().join("strait");
    let built = fs::metadata(&binary).and_then(|meta| meta.modified());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let changed = newest(&root.join("src"));
    assert!(
        built.is_ok_and(|built| built >= changed),
        "{} is missing or older than src/: run `cargo build -p strait`, or ./protocol-tests/run",
        binary.display(),
    );
    binary
}

fn newest(folder: &Path) -> SystemTime {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let times = entries.map(|entry| match entry.file_type().unwrap().is_dir() {
        true => newest(&entry.path()),
        false => entry.metadata().unwrap().modified().unwrap(),
    });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A cluster's entry of a configuration, YAML in flow style.
pub fn cluster_yaml(cluster: &Cluster, listener: Listener) -> String {
    let bootstrap: Vec<String> =
        cluster.bootstrap(listener).split(',').map(|address| format!("\"{address}\"")).collect();
    let mut yaml = format!("{{ bootstrap: [{}]", bootstrap.join(", "));
    if listener.protocol().ends_with("SSL") {
        let ca = cluster.authority.ca();
        write!(yaml, ", tls: {{ ca: \"{}\"", ca.display()).unwrap();
        if listener == Listener::MutualTls {
            let leaf = cluster.authority.client("strait");
            let (cert, key) = (leaf.cert.display(), leaf.key.display());
            write!(yaml, ", cert: \"{cert}\", key: \"{key}\"").unwrap();
        }
        yaml.push_str(" }");
    }
    if listener.protocol().starts_with("SASL") {
        write!(yaml, ", sasl: {}", sasl_yaml("SCRAM-SHA-512", "strait", PASSWORD)).unwrap();
    }
    yaml + " }"
}

/// A `sasl` entry.
pub fn sasl_yaml(mechanism: &str, user: &str, password: &str) -> String {
    format!("{{ mechanism: {mechanism}, username: {user}, password: \"{password}\" }}")
}

/// A configuration with one link from `source` to `target`.
#[derive(Clone, Debug)]
pub struct Config {
    /// The link's name; tests that share clusters need names of their own, for it names the group.
    pub name: String,
    /// The source cluster's entry.
    pub source: String,
    /// The target cluster's entry.
    pub target: String,
    /// Anchored patterns.
    pub include: Vec<String>,
    /// Further keys of the link, each a whole line.
    pub link: Vec<String>,
    /// Further top-level lines.
    pub top: Vec<String>,
}

impl Config {
    /// Copies topics between two clusters of the lab.
    pub fn new(
        name: &str,
        source: (&Cluster, Listener),
        target: (&Cluster, Listener),
        include: &[&str],
    ) -> Self {
        Self::between(
            name,
            cluster_yaml(source.0, source.1),
            cluster_yaml(target.0, target.1),
            include,
        )
    }

    /// Copies topics between two clusters given by their entries.
    pub fn between(name: &str, source: String, target: String, include: &[&str]) -> Self {
        Self {
            name: name.into(),
            source,
            target,
            include: include.iter().map(ToString::to_string).collect(),
            link: vec!["start: earliest".into()],
            top: Vec::new(),
        }
    }

    /// With another line for the link.
    #[must_use]
    pub fn link(mut self, line: &str) -> Self {
        self.link.push(line.into());
        self
    }

    /// With another top-level line.
    #[must_use]
    pub fn top(mut self, line: &str) -> Self {
        self.top.push(line.into());
        self
    }

    /// The link's consumer group on the source.
    pub fn group(&self) -> String {
        format!("strait.{}", self.name)
    }

    /// The file's text.
    pub fn yaml(&self, telemetry: u16) -> String {
        let include: Vec<String> = self.include.iter().map(|topic| format!("'{topic}'")).collect();
        let mut yaml = format!(
            "version: 1\nclusters:\n  source: {}\n  target: {}\nlinks:\n  {}:\n    from: source\n    \
             to: target\n    topics: {{ include: [{}] }}\n",
            self.source,
            self.target,
            self.name,
            include.join(", ")
        );
        for line in &self.link {
            writeln!(yaml, "    {line}").unwrap();
        }
        writeln!(yaml, "telemetry: {{ listen: \"127.0.0.1:{telemetry}\" }}").unwrap();
        if !self.top.iter().any(|line| line.starts_with("engine:")) {
            // On few cores one would be the default, and nothing would cross lanes.
            yaml.push_str("engine: { lanes: 2 }\n");
        }
        for line in &self.top {
            writeln!(yaml, "{line}").unwrap();
        }
        yaml
    }
}

/// What a finished command left.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A GET on a telemetry listener: status and body.
pub fn get(telemetry: u16, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", telemetry))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Ok((code, body.to_owned()))
}

/// The sum over a metric's series in `body` whose labels contain all of `labels` (such as `topic="a"`).
pub fn metric(body: &str, name: &str, labels: &[&str]) -> f64 {
    let is = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    };
    let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    body.lines().filter(is).map(value).sum()
}

/// Runs `strait` with a configuration file of this text and waits for its end.
#[track_caller]
pub fn run(yaml: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("strait.yaml");
    fs::write(&file, yaml).unwrap();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120"]).arg(binary()).args(arguments);
    let output = command.arg("-c").arg(&file).current_dir(folder.path()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    assert!(code != 124, "strait {arguments:?} did not end in 120 s: {}", text(output.stderr));
    Output { code, out: text(output.stdout), err: text(output.stderr) }
}

/// A running `strait run`.
#[derive(Debug)]
pub struct Strait {
    process: Guarded,
    folder: TempDir,
    telemetry: u16,
    lives: u32,
    allowed: Vec<String>,
}

/// `Cpus_allowed_list` of a status in /proc.
pub fn allowed_cores(status: &str) -> Option<String> {
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    Some(line.trim().to_owned())
}

impl Strait {
    /// Starts it; returns when telemetry answers.
    #[track_caller]
    pub fn start(config: &Config) -> Self {
        Self::start_with(config, &[])
    }

    /// The same with more arguments after `run`.
    #[track_caller]
    pub fn start_with(config: &Config, arguments: &[&str]) -> Self {
        Self::start_text(|telemetry| config.yaml(telemetry), arguments)
    }

    /// The same with the whole text of the configuration, made for a telemetry port.
    #[track_caller]
    pub fn start_text(yaml: impl FnOnce(u16) -> String, arguments: &[&str]) -> Self {
        Self::start_text_under(yaml, "", arguments)
    }

    /// The same, but a shell makes this ready first, in the process that becomes it: limits, files, environment.
    #[track_caller]
    pub fn start_under(config: &Config, shell: &str, arguments: &[&str]) -> Self {
        Self::start_text_under(|telemetry| config.yaml(telemetry), shell, arguments)
    }

    #[track_caller]
    fn start_text_under(yaml: impl FnOnce(u16) -> String, shell: &str, arguments: &[&str]) -> Self {
        let telemetry = ports::free();
        let folder = tempfile::Builder::new().prefix("strait-run-").tempdir().unwrap();
        fs::write(folder.path().join("strait.yaml"), yaml(telemetry)).unwrap();
        let process = Self::spawn_under(folder.path(), shell, arguments);
        let allowed = Vec::new();
        let mut strait = Self { process, folder, telemetry, lives: 1, allowed };
        strait.wait_answering();
        strait
    }

    fn spawn(folder: &Path, arguments: &[&str]) -> Guarded {
        Self::spawn_under(folder, "", arguments)
    }

    fn spawn_under(folder: &Path, shell: &str, arguments: &[&str]) -> Guarded {
        let mut command = match shell {
            "" => Vec::new(),
            shell => {
                ["bash", "-c", &format!("{shell}; exec \"$0\" \"$@\"")].map(String::from).to_vec()
            }
        };
        command.extend([binary().display().to_string(), "run".into()]);
        command.extend(["-c".into(), folder.join("strait.yaml").display().to_string()]);
        command.extend(arguments.iter().map(ToString::to_string));
        Guarded::start(&command, &folder.join("log"), &[("RUST_BACKTRACE", "1")])
    }

    #[track_caller]
    fn wait_answering(&mut self) {
        wait_for("telemetry", 30, || {
            if let Some(code) = self.process.exit_code() {
                panic!("strait ended with {code}:\n{}", self.log());
            }
            self.get("/healthz").map_err(|error| error.to_string())
        });
    }

    /// Kills it without warning and starts it again with the same configuration.
    #[track_caller]
    pub fn kill_and_restart(&mut self) {
        self.process.kill();
        self.restart();
    }

    /// Starts it again after its end.
    #[track_caller]
    pub fn restart(&mut self) {
        self.process = Self::spawn(self.folder.path(), &[]);
        self.lives += 1;
        self.wait_answering();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM; gives the exit code and the time it took.
    #[track_caller]
    pub fn terminate(&mut self) -> (i32, Duration) {
        let start = std::time::Instant::now();
        self.process.signal("TERM");
        (self.process.wait(60), start.elapsed())
    }

    /// Waits for its own end (`--until-caught-up`).
    #[track_caller]
    pub fn wait(&mut self, seconds: u64) -> i32 {
        wait_for("end of strait", seconds, || match self.process.exit_code() {
            Some(code) => Ok(code),
            None => Err(format!("it runs; log:\n{}", tail(&self.log_file(), 20))),
        })
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Its threads by name, each with the cores that it may run on, as the kernel lists them.
    pub fn threads(&self) -> Vec<(String, String)> {
        let tasks =
            fs::read_dir(format!("/proc/{}/task", self.process.pid)).expect("process is gone");
        let read = |folder: &Path, file: &str| fs::read_to_string(folder.join(file)).ok();
        let thread = |folder: &Path| {
            let name = read(folder, "comm")?.trim().to_owned();
            Some((name, allowed_cores(&read(folder, "status")?)?))
        };
        // One may end while it is looked at.
        tasks.flatten().filter_map(|task| thread(&task.path())).collect()
    }

    /// What it uses.
    pub fn usage(&self) -> Usage {
        usage(self.process.pid)
    }

    /// A connection to the telemetry listener on which nothing is said.
    pub fn knock(&self) -> std::io::Result<TcpStream> {
        TcpStream::connect(("127.0.0.1", self.telemetry))
    }

    /// The process itself.
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Whether it ended, and how.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.process.exit_code()
    }

    /// Where its telemetry listens.
    pub fn telemetry_port(&self) -> u16 {
        self.telemetry
    }

    /// A GET on the telemetry listener: status and body.
    pub fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        get(self.telemetry, path)
    }

    /// `/status`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let (code, body) = self.get("/status").unwrap();
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// The sum over a metric's series whose labels contain all of `labels` (such as `topic="a"`).
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, body) = self.get("/metrics").unwrap();
        metric(&body, name, labels)
    }

    /// Everything that it wrote, over all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Where on the target it said that old records are a second time, over all its lives; each place once.
    pub fn told_doubles(&self) -> Vec<Stretch> {
        let log = self.log();
        let lines = log.lines().filter(|line| line.contains("old records are on the target twice"));
        let told = lines.map(|line| {
            let field = |name: &str| -> i64 {
                let field = line.split(' ').find_map(|word| word.strip_prefix(name));
                field.unwrap().parse().unwrap()
            };
            let partition = i32::try_from(field("partition=")).unwrap();
            Stretch { partition, from: field("from="), to: field("to=") }
        });
        told.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Declares that lines of the log with this text may be warnings or errors.
    pub fn expect_in_log(&mut self, text: &str) {
        self.allowed.push(text.into());
    }

    /// Warnings and errors that no test declared, and panics, which nobody may declare.
    pub fn undeclared(&self) -> Vec<String> {
        let log = self.log();
        let bad = |line: &&str| {
            let panicked = line.contains("panicked at");
            let level = ["WARN", "ERROR"].iter().any(|level| line.contains(level));
            panicked || (level && !self.allowed.iter().any(|text| line.contains(text)))
        };
        log.lines().filter(bad).map(String::from).collect()
    }

    /// Panics if the log holds an undeclared warning, a panic, or the canary password. Every suite ends with it.
    #[track_caller]
    pub fn assert_clean_log(&self) {
        let undeclared = self.undeclared();
        assert!(undeclared.is_empty(), "undeclared in the log:\n{}", undeclared.join("\n"));
        assert!(!self.log().contains(PASSWORD), "the password is in the log");
    }
}

impl Drop for Strait {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A long run's log is more than its last lines.
            if let Some(folder) = std::env::var_os("STRAIT_LOGS") {
                let kept = Path::new(&folder).join(format!("strait-{}.log", self.telemetry));
                fs::copy(self.log_file(), kept).ok();
            }
            eprintln!(
                "--- strait, life {}, last lines:\n{}",
                self.lives,
                tail(&self.log_file(), 40)
            );
            if let Ok((_, status)) = self.get("/status") {
                eprintln!("--- status: {}", status.chars().take(4000).collect::<String>());
            }
            pool::print_logs();
        }
    }
}
