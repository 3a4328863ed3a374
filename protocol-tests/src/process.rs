//! Child processes: signals, what they use, and their end even if we are killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use crate::wait::{wait_for, wait_until};

/// A process that dies with this one: a shell holds the read end of a pipe from us and kills it when the pipe closes,
/// which also happens when we are killed.
#[derive(Debug)]
pub struct Guarded {
    shell: Child,
    pipe: Option<ChildStdin>,
    /// The process itself, not the shell.
    pub pid: u32,
}

impl Guarded {
    /// Starts `command` (program and arguments), output appended to `log`.
    pub fn start(command: &[String], log: &Path, environment: &[(&str, &str)]) -> Self {
        let pid_file = PathBuf::from(format!("{}.pid", log.display()));
        fs::remove_file(&pid_file).ok();
        // `exec 3<&0`: a background command's stdin is /dev/null, the pipe must stay with the shell.
        let script = r#"
            pid_file=$1; log=$2; shift 2
            exec 3<&0
            "$@" >>"$log" 2>&1 </dev/null 3<&- &
            pid=$!
            echo "$pid" >"$pid_file.new" && mv "$pid_file.new" "$pid_file"
            ( read -r _ <&3; kill -9 "$pid" ) 2>/dev/null &
            watcher=$!
            wait "$pid" 2>/dev/null; status=$?
            kill "$watcher" 2>/dev/null
            exit "$status"
        "#;
        let mut shell = Command::new("bash")
            .args(["-c", script, "guard"])
            .arg(&pid_file)
            .arg(log)
            .args(command)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .spawn()
            .expect("bash");
        let pipe = shell.stdin.take();
        let pid = wait_for("pid file", 10, || {
            fs::read_to_string(&pid_file)
                .map_err(|error| error.to_string())
                .and_then(|text| text.trim().parse().map_err(|error| format!("{error}")))
        });
        Self { shell, pipe, pid }
    }

    /// Sends a signal by name (`TERM`, `KILL`, `STOP`, `CONT`).
    pub fn signal(&self, name: &str) {
        signal(self.pid, name);
    }

    /// Its exit code (128 + signal if it was killed), or none while it runs.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.shell.try_wait().unwrap().map(|status| status.code().unwrap_or(-1))
    }

    /// Waits for the end; panics after `seconds`.
    pub fn wait(&mut self, seconds: u64) -> i32 {
        wait_for(&format!("end of process {}", self.pid), seconds, || {
            self.exit_code().ok_or("still running")
        })
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if self.exit_code().is_none() {
            self.signal("KILL");
            // A stopped process dies of KILL too; this is only the kernel's time.
            wait_until("death of a killed process", 20, || self.exit_code().is_some());
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if matches!(self.shell.try_wait(), Ok(None)) {
            signal(self.pid, "KILL");
        }
        self.pipe.take();
        self.shell.wait().ok();
    }
}

/// Sends a signal by name; a process that is gone is no error.
pub fn signal(pid: u32, name: &str) {
    Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .expect("kill");
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Resident now, bytes.
    pub rss_bytes: u64,
    /// Largest resident size so far, bytes.
    pub rss_peak_bytes: u64,
    /// Of files now: the program's own code.
    pub code_bytes: u64,
    /// User and system time.
    pub cpu: Duration,
    /// Threads now.
    pub threads: u64,
}

/// Reads /proc; panics if the process is gone.
pub fn usage(pid: u32) -> Usage {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("process is gone");
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).expect(name);
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("process is gone");
    // Fields are counted after the command's closing bracket; utime and stime are the 12th and 13th there.
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 1..].split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Usage {
        rss_bytes: field("VmRSS:") * 1024,
        rss_peak_bytes: field("VmHWM:") * 1024,
        code_bytes: field("RssFile:") * 1024,
        // USER_HZ is 100 on every Linux architecture.
        cpu: Duration::from_millis(ticks * 10),
        threads: field("Threads:"),
    }
}

/// The last `count` lines of a file, for a failure's message.
pub fn tail(path: &Path, count: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_guarded_process_reports_its_exit_code_and_output() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut process = Guarded::start(&args(&["bash", "-c", "echo hello; exit 7"]), &log, &[]);
        assert_eq!(process.wait(10), 7);
        assert_eq!(tail(&log, 1), "hello");
    }

    #[test]
    fn a_guarded_process_dies_with_its_guard() {
        let dir = tempfile::tempdir().unwrap();
        let process = Guarded::start(&args(&["sleep", "1000"]), &dir.path().join("log"), &[]);
        let pid = process.pid;
        assert!(usage(pid).rss_bytes > 0);
        drop(process);
        wait_until("death", 10, || !Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_stopped_process_can_be_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Guarded::start(&args(&["sleep", "1000"]), &dir.path().join("log"), &[]);
        process.signal("STOP");
        process.kill();
        assert_eq!(process.exit_code(), Some(137));
    }
}
