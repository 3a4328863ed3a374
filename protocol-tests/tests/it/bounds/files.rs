//! Few files, or suddenly none: a named error or a slower start, never a crash, a spin or a loss.

use std::process::Command;
use std::time::Duration;

use protocol_tests::bounds::{assert_rests, cores_used, files_open, limit_files};
use protocol_tests::strait;
use protocol_tests::wait::{holds_for, wait_for, wait_until};

use crate::stage::Stage;

#[test]
fn with_few_files_it_copies_or_says_what_it_lacks() {
    let (mut copied, mut refused) = (0, 0);
    for files in [4, 7, 9, 12, 16, 32, 40, 48, 64] {
        let stage = Stage::new("few");
        stage.append_many(0..10);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("strait.yaml");
        std::fs::write(&file, stage.config.yaml(protocol_tests::ports::free())).unwrap();
        let shell = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        let mut command = Command::new("timeout");
        command.args(["--preserve-status", "--signal=TERM", "--kill-after=15", "60"]);
        command.args(["bash", "-c", &shell]).arg(strait::binary());
        command.args(["run", "--until-caught-up", "-c"]).arg(&file);
        let ended = command.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        let code = ended.status.code();
        println!("{files} files: {code:?}, {} lines", said.lines().count());
        assert!(!said.contains("panicked"), "{files} files: {said}");
        assert!(said.lines().count() < 60, "{files} files, it floods: {said}");
        match code {
            Some(0) => {
                copied += 1;
                assert_eq!(stage.arrived_numbers(), (0..10).collect::<Vec<_>>());
            }
            // The loader itself needs some.
            Some(127) if files < 6 => refused += 1,
            Some(1 | 3 | 78) => {
                refused += 1;
                let lacks = said.contains("ST-088") || said.contains("shared libraries");
                assert!(lacks, "{files} files: {said}");
            }
            code => panic!("{files} files: {code:?}: {said}"),
        }
    }
    assert!(copied >= 2 && refused >= 2, "{copied} copied, {refused} refused");
}

#[test]
fn out_of_files_it_waits_and_goes_on() {
    let stage = Stage::new("none");
    let strait = stage.start();
    stage.append_many(0..100);
    stage.wait_committed(&strait, 30);
    let open = files_open(strait.pid());
    // Below what it has: no file more can be opened, whatever is closed.
    limit_files(strait.pid(), 4);
    stage.source.kill_broker(1);
    stage.target.kill_broker(1);
    stage.source.restart_broker(1);
    stage.target.restart_broker(1);
    stage.append_many(100..200);
    wait_until("a dial that fails for want of files", 20, || {
        strait.log().contains("Too many open files")
    });
    // A connection to telemetry waits in the listener's queue.
    let waiting = strait.knock().unwrap();
    let before = strait.log().lines().count();
    let used = cores_used(strait.pid(), Duration::from_secs(3));
    let said = strait.log().lines().count() - before;
    println!("{open} files were open; without any {used:.3} cores, {said} lines in 3 s");
    assert!(used < 0.05, "it spins: {used:.3} cores");
    assert!(said < 60, "it floods: {}", strait.log());
    assert_eq!(stage.arrived().len(), 100);
    holds_for("it lives", Duration::from_millis(100), || files_open(strait.pid()) > 0);
    drop(waiting);
    limit_files(strait.pid(), 1024);
    wait_for("telemetry", 10, || strait.get("/healthz"));
    stage.wait_committed(&strait, 30);
    assert_eq!(stage.arrived_numbers(), (0..200).collect::<Vec<_>>());
    assert_rests(&strait);
    strait.assert_clean_log();
}
