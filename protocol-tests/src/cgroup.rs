//! A memory cgroup for one process, of either version: the kernel kills what takes more. Making one needs root, and a
//! machine that has the controller.

use std::fs;
use std::path::{Path, PathBuf};

use crate::wait::wait_until;

/// A group of its own; removed when it is dropped, by which time its process must have ended.
#[derive(Debug)]
pub struct MemoryGroup {
    folder: PathBuf,
    files: &'static Files,
}

/// What a version calls its files.
#[derive(Debug)]
struct Files {
    limit: &'static str,
    /// Set with the limit, so that nothing is swapped out instead; not there on a machine without swap accounts.
    swap: (&'static str, Swap),
    peak: &'static str,
    /// Holds a line `oom_kill N`.
    kills: &'static str,
}

#[derive(Debug)]
enum Swap {
    /// Of memory and swap together.
    WithMemory,
    Alone,
}

const V1: Files = Files {
    limit: "memory.limit_in_bytes",
    swap: ("memory.memsw.limit_in_bytes", Swap::WithMemory),
    peak: "memory.max_usage_in_bytes",
    kills: "memory.oom_control",
};
const V2: Files = Files {
    limit: "memory.max",
    swap: ("memory.swap.max", Swap::Alone),
    peak: "memory.peak",
    kills: "memory.events",
};

/// Where the controller is mounted.
fn mounted() -> Result<(PathBuf, &'static Files), String> {
    let mounts = fs::read_to_string("/proc/mounts").map_err(|error| error.to_string())?;
    for line in mounts.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, folder, kind, options, ..] = words[..] else { continue };
        let folder = PathBuf::from(folder);
        match kind {
            "cgroup" if options.split(',').any(|option| option == "memory") => {
                return Ok((folder, &V1));
            }
            "cgroup2" => {
                let given = fs::read_to_string(folder.join("cgroup.subtree_control"));
                if given.is_ok_and(|given| given.split_whitespace().any(|name| name == "memory")) {
                    return Ok((folder, &V2));
                }
            }
            _ => {}
        }
    }
    Err("no memory controller is mounted".to_owned())
}

impl MemoryGroup {
    /// One without a limit yet, or why this machine has none for us.
    pub fn new(name: &str) -> Result<Self, String> {
        let (mount, files) = mounted()?;
        let folder = mount.join(format!("strait-{name}-{}", std::process::id()));
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self { folder, files })
    }

    /// What a shell does to go into it, and with it what it becomes.
    pub fn shell(&self) -> String {
        format!("echo $$ >'{}'", self.folder.join("cgroup.procs").display())
    }

    /// It may take so much from now on.
    pub fn limit(&self, bytes: u64) {
        self.write(self.files.limit, bytes).expect("a limit");
        let (file, swap) = &self.files.swap;
        let swapped = match swap {
            Swap::WithMemory => bytes,
            Swap::Alone => 0,
        };
        self.write(file, swapped).ok();
    }

    fn write(&self, file: &str, bytes: u64) -> std::io::Result<()> {
        let path = self.folder.join(file);
        if path.exists() { fs::write(path, bytes.to_string()) } else { Ok(()) }
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap_or_default()
    }

    /// The most that it took; None where the kernel does not say.
    pub fn peak_bytes(&self) -> Option<u64> {
        self.read(self.files.peak).trim().parse().ok()
    }

    /// How often the kernel killed one of it.
    pub fn kills(&self) -> u64 {
        let said = self.read(self.files.kills);
        let line = said.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.expect("oom_kill").trim().parse().unwrap()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The kernel takes its time to forget a process.
        let gone = |folder: &Path| fs::remove_dir(folder).is_ok() || !folder.exists();
        if std::thread::panicking() {
            gone(&self.folder);
        } else {
            wait_until("end of the group", 10, || gone(&self.folder));
        }
    }
}
