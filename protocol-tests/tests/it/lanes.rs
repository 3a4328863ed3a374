//! The lanes of a process: which core each stays on, and who reads for it.

use std::time::Duration;

use protocol_tests::strait::{Strait, allowed_cores};
use strait::embedded::{ApiKey, Fault, Options, Order, Replica};

use crate::stage::Stage;

/// The cores of a list such as `0-2,5`.
fn cores(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.parse::<usize>().unwrap()..=last.parse().unwrap()
    };
    list.split(',').flat_map(range).collect()
}

/// The cores of a thread of Strait.
fn cores_of(strait: &Strait, thread: &str) -> Option<Vec<usize>> {
    let threads = strait.threads();
    let found = threads.iter().find(|(name, _)| name == thread);
    found.map(|(_, list)| cores(list))
}

#[test]
fn threads_that_are_pinned_stay_on_the_cores_that_the_process_may_use() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = cores(&allowed_cores(&status).unwrap());
    let mut stage = Stage::new("pinned");
    stage.config = stage.config.top("engine: { lanes: 2, arrangement: split, pin: true }");
    stage.append_many(0..20);
    let strait = stage.start();
    stage.wait_committed(&strait, 30);
    for (index, thread) in ["lane-0", "lane-1", "reader-0", "reader-1"].into_iter().enumerate() {
        let own = allowed[index % allowed.len()];
        assert_eq!(cores_of(&strait, thread), Some(vec![own]), "{thread} of {allowed:?}");
    }
    assert_eq!(cores_of(&strait, "control"), Some(allowed), "what is no lane runs anywhere");
    strait.assert_clean_log();
}

#[test]
fn a_split_lane_copies_each_record_once_whatever_breaks() {
    let three = || Options { brokers: 3, replication_factor: 3, ..Options::default() };
    let mut stage = Stage::over_tls("split", three(), three());
    stage.config = stage.config.top("engine: { lanes: 2, arrangement: split, memory: 32MiB }");
    let mut strait = stage.start();
    assert!(cores_of(&strait, "reader-1").is_some(), "{:?}", strait.threads());
    let (mut source_faults, mut target_faults) = (Vec::new(), Vec::new());
    for round in 0..10 {
        stage.append_many(round * 40..round * 40 + 20);
        match round % 5 {
            0 => {
                let cut = Order::next(ApiKey::Fetch, Fault::CloseAfter);
                source_faults.push(stage.source.fault(cut));
            }
            1 => {
                let to = 1 + i32::try_from(round % 3).unwrap();
                stage.source.move_leader("topic", 0, to, Replica::InSync).unwrap();
            }
            2 => {
                stage.wait_committed(&strait, 30);
                let (code, took) = strait.terminate();
                assert!(code == 0 && took < Duration::from_secs(10), "{code} after {took:?}");
                strait.restart();
            }
            3 => strait.kill_and_restart(),
            _ => {
                let cut = Order::next(ApiKey::Produce, Fault::CloseAfter);
                target_faults.push(stage.target.fault(cut));
            }
        }
        stage.append_many(round * 40 + 20..round * 40 + 40);
        stage.wait_committed(&strait, 60);
    }
    assert!(source_faults.into_iter().all(|fault| stage.source.fault_struck(fault) == 1));
    assert!(target_faults.into_iter().all(|fault| stage.target.fault_struck(fault) == 1));
    assert_eq!(stage.arrived_numbers(), (0..400).collect::<Vec<_>>());
    strait.assert_clean_log();
}
