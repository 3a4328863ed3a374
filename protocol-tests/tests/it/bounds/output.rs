//! What it says goes nowhere: nobody reads its log, or its output is closed. It copies on all the same.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use protocol_tests::bounds::assert_rests;
use protocol_tests::strait::{self, Strait};
use protocol_tests::wait::wait_until;

use crate::stage::Stage;

const WORK: u32 = 200;
const LOUD: [&str; 2] = ["--log-level", "trace"];

/// A pipe with a name, which this process holds open in both directions.
struct Pipe {
    folder: tempfile::TempDir,
    held: File,
}

impl Pipe {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let held = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        Self { folder, held }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("pipe")
    }

    fn shell(&self) -> String {
        format!("exec 2>'{}'", self.path().display())
    }
}

/// Whether the pipe takes nothing more: who writes to it waits.
fn is_full(path: &Path) -> bool {
    let mut without_waiting = Command::new("dd");
    without_waiting.args(["oflag=nonblock", "bs=4096", "count=1", "if=/dev/zero"]);
    let said = without_waiting.arg(format!("of={}", path.display())).output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("records out"), "{said}");
    !said.contains("1+0 records out")
}

/// What the pipe holds, up to 64 KiB.
fn take(path: &Path) -> String {
    let mut without_waiting = Command::new("dd");
    without_waiting.args(["iflag=nonblock", "bs=65536", "count=1"]);
    let taken = without_waiting.arg(format!("if={}", path.display())).output().unwrap();
    String::from_utf8_lossy(&taken.stdout).into_owned()
}

/// Makes it say something: connections that are lost are told.
fn cut(stage: &Stage) {
    for cluster in [&stage.source, &stage.target] {
        cluster.kill_broker(1);
        cluster.restart_broker(1);
    }
}

#[test]
fn nobody_reads_its_log_and_it_copies_on() {
    let stage = Stage::new("unread");
    let pipe = Pipe::new();
    let mut strait = Strait::start_under(&stage.config, &pipe.shell(), &LOUD);
    wait_until("a full pipe", 10, || is_full(&pipe.path()));
    let mut written = 0;
    for _ in 0..4 {
        cut(&stage);
        stage.append_many(written..written + WORK);
        written += WORK;
        stage.wait_committed(&strait, 30);
        assert!(strait.get("/healthz").is_ok());
    }
    assert_eq!(stage.arrived_numbers(), (0..written).collect::<Vec<_>>());
    assert_rests(&strait);
    assert!(is_full(&pipe.path()), "somebody reads it");

    // What was said meanwhile is there for who reads late.
    let mut read = String::new();
    wait_until("what it said", 20, || {
        read.push_str(&take(&pipe.path()));
        read.matches(" WARN ").count() > 2
    });
    // It ends in order into a pipe that is full again.
    wait_until("a full pipe", 10, || is_full(&pipe.path()));
    let (code, time) = strait.terminate();
    assert_eq!(code, 0, "after {time:?}");
    assert!(time < Duration::from_secs(5), "{time:?}");
}

#[test]
fn its_output_is_closed_and_it_copies_on() {
    // The reader goes; both are closed from the start; the disk below them is full.
    for how in ["gone", "closed", "full"] {
        let stage = Stage::new(how);
        let pipe = Pipe::new();
        let shell = match how {
            "gone" => pipe.shell(),
            "closed" => "exec >&- 2>&-".to_owned(),
            _ => "exec >/dev/full 2>/dev/full".to_owned(),
        };
        let mut strait = Strait::start_under(&stage.config, &shell, &LOUD);
        drop(pipe.held);
        stage.append_many(0..50);
        stage.wait_committed(&strait, 30);
        cut(&stage);
        stage.append_many(50..100);
        stage.wait_committed(&strait, 30);
        assert_rests(&strait);
        assert_eq!(strait.terminate().0, 0, "{how}");
        assert_eq!(stage.arrived_numbers(), (0..100).collect::<Vec<_>>(), "{how}");
    }
}

#[test]
fn a_verb_that_cannot_write_its_answer_fails_without_a_panic() {
    let verbs: [&[&str]; 5] = [
        &["version"],
        &["explain", "ST-001"],
        &["completions", "bash"],
        &["config", "generate", "one-way"],
        &["--help"],
    ];
    for verb in verbs {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        for out in [Stdio::from(writer), Stdio::from(full)] {
            let ended = Command::new(strait::binary()).args(verb).stdout(out).output().unwrap();
            let said = String::from_utf8_lossy(&ended.stderr);
            assert!(!said.contains("panicked"), "{verb:?}: {said}");
            assert!(ended.status.code().is_some_and(|code| code < 100), "{verb:?}: {ended:?}");
        }
    }
}

#[test]
fn a_wrong_log_level_is_told_even_to_nobody() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(writer.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    let mut command = Command::new(strait::binary());
    command.args(["version", "--log-level", "strait=loud"]).stderr(writer);
    assert_eq!(command.status().unwrap().code(), Some(2));
}
