//! What waits for a target that does not answer is bounded, and with the bound taken away it is seen not to be.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use protocol_tests::raw::Batch;
use strait::canary::{self, Canary};
use strait::embedded::{Fault, Options, Order};
use strait::env::Env;
use strait::strait::Strait;
use tokio::runtime::{Builder, LocalOptions};
use tokio::time::{Instant, sleep};

use crate::stage::Stage;

const MEMORY_BYTES: u64 = 16 << 20;
const BATCH_BYTES: usize = 256 << 10;
/// Four times the memory, a batch of it in each.
const PARTITIONS: i32 = 256;
/// With their 4 MiB each that may wait for a connection or be on its way they would take three times the memory.
const BROKERS: usize = 12;
/// For what must be queued, and for what must not be.
const TIME: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_secs(5);

/// What waits and is on its way, once it is more than `enough` and has not grown for a while; the target answers nothing.
fn held_bytes(name: &str, enough: u64) -> u64 {
    let many = Options { brokers: BROKERS, ..Options::default() };
    let mut stage = Stage::with(name, Options::default(), many);
    stage.without_tls();
    stage.source.create_topic("topic.many", PARTITIONS, -1, &[]).unwrap();
    let bytes = Bytes::from(Batch::holding(vec![b'x'; BATCH_BYTES]).bytes());
    for partition in 0..PARTITIONS {
        stage.source.append("topic.many", partition, &bytes).unwrap();
    }
    let silent = Order::next(ApiKey::Produce, Fault::Delay(Duration::from_secs(3600)));
    stage.target.fault(silent.times(u32::MAX));
    stage.config = stage.config.top("engine: { lanes: 1, memory: 16MiB }");
    let config = stage.resolved();
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    runtime.unwrap().block_on(async {
        let handle = Strait::builder(config).env(Env::real()).start_local();
        let (began, mut most, mut since) = (Instant::now(), 0, Instant::now());
        while began.elapsed() < TIME && (most <= enough || since.elapsed() < QUIET) {
            sleep(Duration::from_millis(50)).await;
            let mirrors = handle.board().mirrors();
            let held = mirrors.iter().map(|mirror| mirror.buffered_bytes.load(Relaxed)).sum();
            if held > most {
                (most, since) = (held, Instant::now());
            }
        }
        most
    })
}

#[test]
fn what_waits_for_a_silent_target_is_bounded_and_a_queue_without_a_bound_is_caught() {
    let bounded = held_bytes("queues", MEMORY_BYTES / 2);
    canary::plant(Some(Canary::QueueUnbounded));
    let unbounded = held_bytes("queues-unbounded", MEMORY_BYTES * 2);
    canary::plant(None);
    println!(
        "{bounded} bytes at most with a memory of {MEMORY_BYTES}, {unbounded} without a bound"
    );
    assert!(bounded > MEMORY_BYTES / 2, "{bounded} bytes: it is not used");
    assert!(bounded <= MEMORY_BYTES, "{bounded} bytes");
    assert!(unbounded > MEMORY_BYTES * 2, "{unbounded} bytes: not caught");
}
