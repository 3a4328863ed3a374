//! A consumer of all partitions that notes how late each record is when it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Instant;

use protocol_tests::lab::Cluster;
use protocol_tests::raw::RawClient;

use super::PARTITIONS;

/// Bytes of a batch's header.
const HEADER: usize = 61;
/// A record that was not read yet.
const ABSENT: u64 = u64::MAX;

/// A consumer at work: one request for all partitions at a time, as Kafka's consumer reads one broker.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

#[derive(Debug)]
struct Shared {
    /// Nanoseconds between a record's due time and its reading, by number.
    delays: Vec<AtomicU64>,
    seen: AtomicU64,
    twice: AtomicU64,
    stopped: AtomicBool,
}

impl Reader {
    /// Reads a topic from its begin, records up to number `places` one by one.
    pub fn start(cluster: &Cluster, topic: &str, clock: Instant, places: usize) -> Self {
        let delays = std::iter::repeat_with(|| AtomicU64::new(ABSENT)).take(places).collect();
        let shared = Arc::new(Shared {
            delays,
            seen: AtomicU64::new(0),
            twice: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        });
        let (reading, topic, client) =
            (Arc::clone(&shared), topic.to_owned(), cluster.nodes[0].client());
        let thread = Some(std::thread::spawn(move || reading.read(client, &topic, clock)));
        Self { shared, thread }
    }

    /// Records read.
    pub fn seen(&self) -> u64 {
        self.shared.seen.load(Relaxed)
    }

    /// Records read a second time.
    pub fn twice(&self) -> u64 {
        self.shared.twice.load(Relaxed)
    }

    /// How late a record was, nanoseconds; none if it was not read.
    pub fn delay(&self, number: u64) -> Option<u64> {
        let delay = self.shared.delays.get(usize::try_from(number).ok()?)?.load(Relaxed);
        (delay != ABSENT).then_some(delay)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Relaxed);
        if let Some(Err(error)) = self.thread.take().and_then(|thread| thread.join().ok()) {
            eprintln!("a reader ended: {error}");
        }
    }
}

impl Shared {
    fn read(&self, mut client: RawClient, topic: &str, clock: Instant) -> Result<(), String> {
        let mut offsets = [0; PARTITIONS];
        while !self.stopped.load(Relaxed) {
            let parts = client.fetch_each(topic, &offsets).map_err(|error| error.to_string())?;
            let now = u64::try_from(clock.elapsed().as_nanos()).unwrap_or(ABSENT);
            let mut seen = 0;
            for (partition, bytes) in parts {
                let next = each_value(&bytes, |value| {
                    seen += 1;
                    self.note(value, now);
                });
                if let Some(next) = next? {
                    offsets[partition as usize] = next;
                }
            }
            self.seen.fetch_add(seen, Relaxed);
        }
        Ok(())
    }

    fn note(&self, value: &[u8], now: u64) {
        let long = |at: usize| value.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
        let (Some(number), Some(due)) = (long(0), long(8)) else { return };
        if let Some(place) = usize::try_from(number).ok().and_then(|n| self.delays.get(n)) {
            let before = place.swap(now.saturating_sub(due), Relaxed);
            self.twice.fetch_add(u64::from(before != ABSENT), Relaxed);
        }
    }
}

/// Calls `take` with each value of uncompressed batches without keys; gives the offset behind the last whole batch.
fn each_value(mut bytes: &[u8], mut take: impl FnMut(&[u8])) -> Result<Option<i64>, String> {
    let mut next = None;
    while bytes.len() >= HEADER {
        let int = |at: usize| bytes[at..at + 4].try_into().map_or(0, i32::from_be_bytes);
        let base = bytes[..8].try_into().map_or(0, i64::from_be_bytes);
        let length = 12 + usize::try_from(int(8)).map_err(|_| "a batch of negative length")?;
        if bytes.len() < length {
            break;
        }
        if bytes[22] & 7 != 0 {
            return Err("a compressed batch".to_owned());
        }
        let mut rest = &bytes[HEADER..length];
        for _ in 0..int(57) {
            let (record, behind) = sized(rest).ok_or("a cut record")?;
            rest = behind;
            take(value(record).ok_or("a record without a value")?);
        }
        next = Some(base + i64::from(int(23)) + 1);
        bytes = &bytes[length..];
    }
    Ok(next)
}

/// The value of a record: behind its attributes, both deltas and its key.
fn value(record: &[u8]) -> Option<&[u8]> {
    let (_, rest) = varint(record.get(1..)?)?;
    let (_, rest) = varint(rest)?;
    let (key, behind) = varint(rest)?;
    let rest = if key < 0 { behind } else { sized(rest)?.1 };
    sized(rest).map(|(value, _)| value)
}

/// What a length stands before, and what is behind it.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = varint(bytes)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

fn varint(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (mut zigzag, mut shift) = (0u64, 0);
    for (at, byte) in bytes.iter().enumerate().take(10) {
        zigzag |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if *byte < 0x80 {
            let value = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use protocol_tests::raw::{Batch, RawRecord};

    use super::*;

    #[test]
    fn every_value_is_taken_and_a_cut_batch_is_left() {
        let record = |delta: i64, key: Option<&[u8]>, value: &str| RawRecord {
            offset_delta: delta,
            timestamp_delta: 0,
            key: key.map(<[u8]>::to_vec),
            value: Some(value.as_bytes().to_vec()),
            headers: Vec::new(),
            attributes: 0,
        };
        let long = "v".repeat(300);
        let records = vec![record(0, None, &long), record(1, Some(b"key"), "b")];
        let mut batch = Batch::of(records);
        batch.base_offset = 40;
        let bytes = [batch.bytes(), batch.bytes()[..80].to_vec()].concat();
        let mut values = Vec::new();
        let next = each_value(&bytes, |value| values.push(value.to_vec()));
        assert_eq!(next, Ok(Some(42)));
        assert_eq!(values, [long.as_bytes(), b"b"]);
    }
}
