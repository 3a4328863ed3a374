//! The open load: a producer that sends each record when it is due, whatever became of those before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use kafka_protocol::messages::ProduceRequest;
use protocol_tests::lab::Cluster;
use protocol_tests::raw::{Batch, RawClient, RawRecord};

use super::{PARTITIONS, RECORD_BYTES};

/// From here on records are sent together that fall due within [`LINGER`], as a producer does that is asked for more.
const LINGER_FROM: u64 = 5_000;
/// See [`LINGER_FROM`].
const LINGER: Duration = Duration::from_millis(5);
/// Records of a request at most: 256 KiB for each partition.
const BURST: u64 = 1_024;
/// Requests on their way without an answer: no bound that a load at a rate would meet, and what fills a broker.
const IN_FLIGHT: (usize, usize) = (100_000, 5);
/// Produce, by topic's name.
const VERSION: i16 = 11;

/// How fast records fall due.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many a second.
    Rate(u64),
    /// As fast as the source takes them.
    Flat,
}

impl Pace {
    /// Records that fall due in a time; of a flat load none is followed by itself.
    pub fn records(self, time: Duration) -> usize {
        match self {
            Self::Rate(rate) => (time.as_secs_f64() * rate as f64) as usize,
            Self::Flat => 0,
        }
    }

    /// When a record is due.
    fn due(self, record: u64, now: Duration) -> Duration {
        match self {
            Self::Rate(rate) => Duration::from_secs_f64(record as f64 / rate as f64),
            Self::Flat => now,
        }
    }

    fn linger(self) -> Duration {
        match self {
            Self::Rate(rate) if rate >= LINGER_FROM => LINGER,
            _ => Duration::ZERO,
        }
    }

    fn in_flight(self) -> usize {
        match self {
            Self::Rate(_) => IN_FLIGHT.0,
            Self::Flat => IN_FLIGHT.1,
        }
    }
}

/// A load at work.
#[derive(Debug)]
pub struct Load {
    stopped: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    late_nanos: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Load {
    /// Starts to write; record `n` goes to partition `n` modulo their count.
    pub fn start(source: &Cluster, topic: &str, clock: Instant, pace: Pace) -> Self {
        let stopped = Arc::<AtomicBool>::default();
        let (sent, late_nanos) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let client = source.nodes[0].client();
        let answers = client.split().expect("a second handle of a socket");
        let (asked, answered) = sync_channel(pace.in_flight());
        let writer = Writer {
            client,
            topic: topic.to_owned(),
            clock,
            pace,
            asked,
            stopped: Arc::clone(&stopped),
            sent: Arc::clone(&sent),
            late_nanos: Arc::clone(&late_nanos),
        };
        let threads = vec![
            std::thread::spawn(move || writer.run()),
            std::thread::spawn(move || take_answers(answers, &answered)),
        ];
        Self { stopped, sent, late_nanos, threads }
    }

    /// Records sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// How late the last record was sent.
    pub fn late(&self) -> Duration {
        Duration::from_nanos(self.late_nanos.load(Relaxed))
    }

    /// Ends it; an error if the source refused anything.
    pub fn stop(&mut self) -> Result<(), String> {
        self.stopped.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| "a thread of the load panicked")??;
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop().ok();
    }
}

struct Writer {
    client: RawClient,
    topic: String,
    clock: Instant,
    pace: Pace,
    asked: SyncSender<()>,
    stopped: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    late_nanos: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self) -> Result<(), String> {
        // Records fall due from now on, not from when the clock began.
        let begin = self.clock.elapsed();
        let mut next = 0;
        while !self.stopped.load(Relaxed) {
            let now = self.clock.elapsed() - begin;
            let due = self.pace.due(next, now);
            let ready = due + self.pace.linger();
            if ready > now {
                sleep(ready - now);
                continue;
            }
            let mut end = next + 1;
            while end < next + BURST && self.pace.due(end, now) <= now {
                end += 1;
            }
            let times: Vec<Duration> =
                (next..end).map(|record| begin + self.pace.due(record, now)).collect();
            // The bound on requests comes first: an answer cannot overtake it.
            self.asked.send(()).map_err(|_| "the source's answers ended")?;
            let request = request(&self.topic, next, &times);
            self.client.send(VERSION, &request).map_err(|error| error.to_string())?;
            next = end;
            self.sent.store(next, Relaxed);
            let late = (self.clock.elapsed() - begin).saturating_sub(due);
            self.late_nanos.store(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        }
        Ok(())
    }
}

/// Records from `first` on, with when they were due, one batch for each partition.
fn request(topic: &str, first: u64, due: &[Duration]) -> ProduceRequest {
    let mut partitions: [Vec<RawRecord>; PARTITIONS] = Default::default();
    for (number, due) in (first..).zip(due) {
        let mut value = vec![b'x'; RECORD_BYTES];
        value[..8].copy_from_slice(&number.to_be_bytes());
        let nanos = u64::try_from(due.as_nanos()).unwrap_or(u64::MAX);
        value[8..16].copy_from_slice(&nanos.to_be_bytes());
        let partition = &mut partitions[number as usize % PARTITIONS];
        partition.push(RawRecord {
            offset_delta: partition.len() as i64,
            timestamp_delta: 0,
            key: None,
            value: Some(value),
            headers: Vec::new(),
            attributes: 0,
        });
    }
    let parts = (0..).zip(partitions).filter(|(_, records)| !records.is_empty());
    let parts: Vec<_> =
        parts.map(|(number, records)| (topic, number, Batch::of(records).bytes())).collect();
    RawClient::produce_request(&parts)
}

fn take_answers(mut client: RawClient, answered: &Receiver<()>) -> Result<(), String> {
    while let Ok(()) = answered.recv() {
        let answer =
            client.receive::<ProduceRequest>(VERSION).map_err(|error| error.to_string())?;
        let refused = RawClient::produced(answer).into_iter().find(|part| part.error != 0);
        if let Some(refused) = refused {
            return Err(format!("the source refused a batch: {refused:?}"));
        }
    }
    Ok(())
}
