//! The lanes of a process: which core each stays on, who reads for it, and what it gives away when it runs hot.

use std::time::Duration;

use bytes::Bytes;
use protocol_tests::raw::batch::{HEADER, now_ms};
use protocol_tests::raw::{Batch, Codec, RawRecord};
use protocol_tests::strait::{Strait, allowed_cores};
use protocol_tests::wait::{wait_for, wait_until};
use strait::embedded::{ApiKey, Fault, Options, Order, Replica};

use crate::stage::{Stage, seen};

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
    wait_until("the reader's work", 30, || {
        stage.append_many([7]);
        strait.metric("strait_lane_busy", &["thread=\"reader\""]) > 0.0
    });
    strait.assert_clean_log();
}

/// A batch that costs a lane more than a broker: it is opened and compressed anew, for its time is the broker's.
struct Costly(Vec<u8>);

impl Costly {
    fn new() -> Self {
        let mut state = 1_u32;
        let mut letter = || {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            char::from(b'a' + (state >> 28) as u8)
        };
        let value: String = (0..64 << 10).map(|_| letter()).collect();
        let batch = Batch::of(vec![RawRecord::at(0, &value)]);
        Self(batch.with(|b| (b.codec, b.attributes) = (Codec::Gzip, 8)).bytes())
    }

    /// The batch as appended at this time.
    fn at(&self, time: i64) -> Bytes {
        let mut bytes = self.0.clone();
        bytes[35..43].copy_from_slice(&time.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]).to_be_bytes();
        bytes[17..21].copy_from_slice(&crc);
        assert!(bytes.len() > HEADER);
        Bytes::from(bytes)
    }
}

#[test]
fn a_hot_lane_gives_mirrors_away_and_each_record_arrives_once_in_order() {
    const HOT: [i32; 4] = [0, 2, 4, 6];
    let mut stage = Stage::new("hot");
    // One after the other, the partitions are spread over both lanes: what is written to is all on one.
    let link = stage.config.link("membership: { protocol: \"off\" }");
    stage.config = link.top("engine: { lanes: 2, pin: false }");
    stage.source.delete_topic("topic").unwrap();
    stage.source.create_topic("topic-hot", 8, -1, &[]).unwrap();
    let (batch, begin) = (Costly::new(), now_ms() - 3_600_000);
    let strait = stage.start();
    let mut written = 0;
    let mut keep_busy = || {
        if strait.metric("strait_lag_offsets", &[]) < 100.0 {
            for _ in 0..50 {
                for partition in HOT {
                    let bytes = batch.at(begin + written);
                    stage.source.append("topic-hot", partition, &bytes).unwrap();
                }
                written += 1;
            }
        }
    };
    let busy = |lane: &str| strait.metric("strait_lane_busy", &[lane]);
    let moves = |lane: &str| strait.metric("strait_lane_moves_total", &[lane]);
    wait_for("move of a mirror", 90, || {
        keep_busy();
        let (moves, busy) = (moves("lane"), ["lane=\"0\"", "lane=\"1\""].map(busy));
        if moves >= 1.0 { Ok(()) } else { Err(format!("{moves} moves, {busy:?} busy")) }
    });
    wait_for("work on both lanes", 90, || {
        keep_busy();
        let busy = ["lane=\"0\"", "lane=\"1\""].map(busy);
        if busy.iter().all(|busy| *busy > 0.3) { Ok(()) } else { Err(busy) }
    });
    println!("{} moves, {written} batches each", moves("lane"));
    wait_until("the rest", 120, || {
        let committed = stage.source.committed(&stage.config.group());
        HOT.iter().all(|partition| {
            let position = committed.get(&("topic-hot".to_owned(), *partition));
            position.is_some_and(|position| position.offset == written)
        })
    });
    for partition in HOT {
        let times: Vec<_> =
            seen(&stage.target, "topic-hot", partition).into_iter().map(|(time, _)| time).collect();
        assert!(times == Vec::from_iter(begin..begin + written), "partition {partition}");
    }
    strait.assert_clean_log();
}
