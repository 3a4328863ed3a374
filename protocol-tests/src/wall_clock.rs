//! The wall clock of one process, which a test sets while it runs: a shim of C that is preloaded, built here with the
//! compiler that links Rust.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;

use tempfile::TempDir;

/// A clock that is right at first.
#[derive(Debug)]
pub struct WallClock {
    folder: TempDir,
    file: File,
}

impl WallClock {
    /// Builds the shim.
    #[track_caller]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("wall_clock.c");
        fs::write(&source, include_str!("wall_clock.c")).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-o"]).arg(folder.path().join("shim.so"));
        let built = compiler.arg(&source).output().expect("cc, which links Rust too");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        fs::write(folder.path().join("clock"), [0; 16]).unwrap();
        let file = File::options().read(true).write(true).open(folder.path().join("clock"));
        Self { folder, file: file.unwrap() }
    }

    /// What a shell says before it starts a process with this clock.
    pub fn shell(&self) -> String {
        let folder = self.folder.path().display();
        format!("export LD_PRELOAD={folder}/shim.so WALL_CLOCK_FILE={folder}/clock")
    }

    /// From now on it is so many seconds ahead of the real one.
    pub fn set(&self, ahead_seconds: i64) {
        self.file.write_all_at(&ahead_seconds.to_ne_bytes(), 0).unwrap();
    }

    /// How often the process was told a time that was not the real one.
    pub fn told(&self) -> u64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, 8).unwrap();
        u64::from_ne_bytes(bytes)
    }
}

impl Default for WallClock {
    fn default() -> Self {
        Self::new()
    }
}
