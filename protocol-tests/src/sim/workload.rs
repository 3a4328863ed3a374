//! What is written to the source of a run, drawn from its seed: topics of several kinds, batches of every codec, with and
//! without producer ids, in transactions that commit and abort, with the holes that compaction leaves.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use strait::embedded::Cluster;
use strait::env::Env;
use tokio::time::sleep;

use super::oracle::{FOREIGN, Key, Oracle};
use super::rng::Rng;
use crate::checker::Wanted;
use crate::raw::{Batch, Codec, RawRecord};

const HOUR_MS: i64 = 3_600_000;
const TRANSACTIONAL: i16 = 16;
const LOG_APPEND_TIME: i16 = 8;
/// Ids at and above this are a Strait's: what carries them came from another cluster.
const REPLICATED: i64 = 1 << 62;

/// How old a topic's records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Of now.
    Young,
    /// More than a day.
    Old,
    /// Either, batch by batch.
    Mixed,
}

/// What a topic holds.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Partitions.
    pub partitions: i32,
    /// Age of its records.
    pub age: Age,
    /// Batches come in transactions.
    pub transactional: bool,
    /// Batches have holes, or are empty.
    pub compacted: bool,
    /// `cleanup.policy=compact`: few keys, tombstones, and a cleaner that runs.
    pub cleaned: bool,
    /// Readers see the time of the append.
    pub append_time: bool,
    /// Some batches were written by another mirror.
    pub replicated: bool,
    /// `max.message.bytes`, which larger batches of before the setting outlived.
    pub max_message_bytes: usize,
}

impl Topic {
    /// One without anything special.
    pub fn plain(name: &str, partitions: i32, age: Age) -> Self {
        Self {
            name: name.to_owned(),
            partitions,
            age,
            transactional: false,
            compacted: false,
            cleaned: false,
            append_time: false,
            replicated: false,
            max_message_bytes: 1_048_588,
        }
    }

    /// One that this seed asks for.
    pub fn draw(rng: &mut Rng, index: usize, partitions_max: i64) -> Self {
        Self {
            name: format!("sim-{index}"),
            partitions: i32::try_from(rng.between(1, partitions_max)).expect("few"),
            age: *rng.pick(&[Age::Young, Age::Young, Age::Young, Age::Old, Age::Mixed]),
            transactional: rng.chance(30),
            compacted: rng.chance(30),
            cleaned: false,
            append_time: rng.chance(10),
            replicated: rng.chance(20),
            max_message_bytes: *rng.pick(&[1_048_588, 1_048_588, 1_048_588, 2_000]),
        }
    }
}

/// An open transaction.
struct Open {
    place: usize,
    producer: (i64, i16),
    from: i64,
    /// How often the topic had been made again when it began.
    incarnation: usize,
}

/// Writes to the source, and tells the oracle.
pub struct Writer {
    rng: Rng,
    env: Env,
    source: Cluster,
    target: Cluster,
    oracle: Arc<Mutex<Oracle>>,
    places: Vec<(Topic, Key)>,
    open: Vec<Open>,
    written: u64,
    next_producer: i64,
    foreign: bool,
}

impl Writer {
    /// A writer to these topics, which exist on the source; `foreign` has somebody else write to the target too.
    pub fn new(
        rng: Rng,
        env: Env,
        clusters: (Cluster, Cluster),
        oracle: Arc<Mutex<Oracle>>,
        topics: &[Topic],
        foreign: bool,
    ) -> Self {
        let places = topics.iter().flat_map(|topic| {
            (0..topic.partitions).map(|partition| (topic.clone(), (topic.name.clone(), partition)))
        });
        let (source, target) = clusters;
        Self {
            rng,
            env,
            source,
            target,
            oracle,
            places: places.collect(),
            open: Vec::new(),
            written: 0,
            next_producer: 1,
            foreign,
        }
    }

    /// Writes for a while: bursts and pauses.
    pub async fn run(mut self, time: Duration) {
        let until = self.env.now() + time;
        while self.env.now() < until {
            let burst = if self.rng.chance(10) { 12 } else { 2 };
            for _ in 0..self.rng.between(1, burst) {
                self.write();
            }
            sleep(self.rng.wait_ms(4, 1500)).await;
        }
        while let Some(open) = self.open.pop() {
            while !self.is_led(open.place) {
                sleep(Duration::from_millis(50)).await;
            }
            self.end(&open);
        }
    }

    /// Where nobody leads, nobody can write.
    fn is_led(&self, place: usize) -> bool {
        let (topic, partition) = &self.places[place].1;
        self.source.leader(topic, *partition) >= 0
    }

    /// One batch somewhere.
    pub fn write(&mut self) {
        let place = self.rng.below(self.places.len());
        if !self.is_led(place) {
            return;
        }
        let (topic, key) = self.places[place].clone();
        let incarnation = self.oracle().incarnation(&key);
        // Of a topic that is no more a transaction went with it.
        self.open.retain(|open| open.place != place || open.incarnation == incarnation);
        if self.foreign && self.rng.chance(20) {
            self.write_foreign(&key);
        }
        let again = self.rng.chance(50);
        let mine = self.open.iter().position(|open| again && open.place == place);
        let open = match (topic.transactional && self.rng.chance(70), mine) {
            (false, _) => None,
            (true, Some(at)) => Some(at),
            (true, None) => {
                let producer = (self.producer(), 0);
                let incarnation = self.oracle().incarnation(&key);
                self.open.push(Open { place, producer, from: -1, incarnation });
                Some(self.open.len() - 1)
            }
        };
        let (mut batch, mut wanted, old) = self.batch(&topic);
        if let Some(at) = open {
            batch.attributes |= TRANSACTIONAL;
            batch = batch.sequenced(self.open[at].producer.0, 0);
            wanted = Wanted::May;
        } else if topic.replicated && self.rng.chance(25) {
            batch = batch.sequenced(REPLICATED + self.rng.between(1, 1 << 40), 0);
            wanted = Wanted::Never;
        } else if self.rng.chance(50) {
            let producer = self.producer();
            batch = batch.sequenced(producer, 0);
        }
        let bytes = Bytes::from(batch.bytes());
        let offset = self.source.append(&key.0, key.1, &bytes).expect("the source takes it");
        self.oracle().wrote(&key, &bytes, offset, wanted, old);
        if let Some(at) = open {
            let from = &mut self.open[at].from;
            *from = if *from < 0 { offset } else { *from };
            if self.rng.chance(50) {
                let open = self.open.swap_remove(at);
                self.end(&open);
            }
        }
    }

    fn producer(&mut self) -> i64 {
        self.next_producer += 1;
        self.next_producer
    }

    fn oracle(&self) -> std::sync::MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a transaction. Of two that overlap in a partition each has its own offsets, so its fate is set batch by batch.
    fn end(&mut self, open: &Open) {
        let (_, key) = self.places[open.place].clone();
        if self.oracle().incarnation(&key) != open.incarnation {
            return;
        }
        let committed = self.rng.chance(60);
        let fate = if committed { Wanted::Yes } else { Wanted::Never };
        let ours = self.source.batches_from(&key.0, key.1, open.from).map(|(_, batches)| batches);
        for batch in ours.unwrap_or_default().iter().flat_map(|bytes| crate::raw::parse(bytes).0) {
            if batch.producer_id == open.producer.0 {
                let (from, to) = (batch.base_offset, batch.last_offset() + 1);
                self.oracle().set_wanted(&key, from, to, (Wanted::May, fate));
            }
        }
        let ended = self.source.end_transaction(&key.0, key.1, open.producer, committed);
        ended.expect("the source takes the marker");
    }

    fn batch(&mut self, topic: &Topic) -> (Batch, Wanted, bool) {
        let rng = &mut self.rng;
        let old = match topic.age {
            Age::Young => false,
            Age::Old => true,
            Age::Mixed => rng.chance(50),
        };
        let now = self.env.wall_clock_ms();
        let base =
            if old { now - rng.between(13, 80) * HOUR_MS } else { now - rng.between(0, 2000) };
        let large = rng.chance(4);
        let count = if rng.chance(40) { 1 } else { rng.between(1, 12) };
        let empty = topic.compacted && rng.chance(5);
        let mut records = Vec::new();
        for delta in 0..count {
            if empty || (topic.compacted && delta > 0 && rng.chance(30)) {
                continue;
            }
            self.written += 1;
            let length = if large { rng.between(300, 1500) } else { rng.between(0, 60) };
            let filler = "x".repeat(usize::try_from(length).expect("short"));
            let mut record =
                RawRecord::at(delta, &format!("{}/{}/{filler}", topic.name, self.written));
            record.timestamp_delta = rng.between(0, 50);
            if rng.chance(20) {
                record.headers = vec![("h".into(), Some(vec![1])), ("h".into(), None)];
            }
            if rng.chance(10) {
                record.key = None;
            }
            if topic.cleaned {
                record.key = Some(format!("key-{}", rng.below(6)).into_bytes());
                if rng.chance(15) {
                    let name = record.value.take();
                    record.headers.push(("tombstone".into(), name));
                }
            }
            records.push(record);
        }
        let codec = if empty { Codec::None } else { *rng.pick(&Codec::ALL) };
        let batch = Batch::of(records).with(|batch| {
            batch.codec = codec;
            batch.base_timestamp = base;
            batch.last_offset_delta = Some(i32::try_from(count - 1).expect("few"));
            if topic.append_time {
                batch.attributes |= LOG_APPEND_TIME;
                batch.max_timestamp = Some(base + 60);
            }
        });
        (batch, Wanted::Yes, old)
    }

    /// Somebody else's record on the target.
    fn write_foreign(&mut self, key: &Key) {
        let mut record = RawRecord::at(0, "not ours");
        record.key = Some(FOREIGN.to_vec());
        let now = self.env.wall_clock_ms();
        let batch = Batch::of(vec![record]).with(|batch| batch.base_timestamp = now);
        if self.target.leader(&key.0, key.1) < 0 {
            return;
        }
        // The topic may not be there yet.
        let _ = self.target.append(&key.0, key.1, &Bytes::from(batch.bytes()));
    }
}

/// Addresses of the machines of a run.
pub fn machine(kind: u8, index: u8) -> IpAddr {
    IpAddr::from([10, 0, kind, index])
}
