//! Batches to be copied: made once, then sent again and again. Pure.

use bytes::Bytes;

use super::Shape;
use crate::wire::records::{BatchBuilder, RecordsError};

/// Batches that differ, so that no cache holds all of what is copied because it is one.
const BATCHES: u64 = 8;
/// Words that values are made of: text as in logs and documents, which a codec makes three to five times smaller.
const WORDS: u64 = 256;
/// What a record has beside its value: key, lengths, deltas.
const RECORD_OVERHEAD_BYTES: usize = 32;

/// A batch as a producer sends it.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) batch: Bytes,
    pub(super) records: u64,
}

/// Some batches of a shape, with records of this time.
pub(super) fn batches(shape: &Shape, now_ms: i64) -> Result<Vec<Made>, RecordsError> {
    let (record_bytes, batch_bytes) = (shape.record_bytes as usize, shape.batch_bytes as usize);
    let per_batch = (batch_bytes / (record_bytes + RECORD_OVERHEAD_BYTES)).max(1);
    let made = (0..BATCHES).map(|number| {
        let mut state = number + 1;
        let mut builder = BatchBuilder::new(shape.codec.into());
        for record in 0..per_batch {
            let key = (number << 32 | record as u64).to_be_bytes();
            let value = value(record_bytes, &mut state);
            builder.push(now_ms, Some(&key), Some(&value), &[]);
        }
        Ok(Made { batch: builder.finish()?, records: per_batch as u64 })
    });
    made.collect()
}

fn value(bytes: usize, state: &mut u64) -> Vec<u8> {
    let mut value = Vec::with_capacity(bytes + 16);
    while value.len() < bytes {
        let mut word = scramble(next(state) % WORDS);
        let letters = 3 + word % 8;
        for _ in 0..letters {
            value.push(b'a' + (word % 26) as u8);
            word = scramble(word);
        }
        value.push(b' ');
    }
    value.truncate(bytes);
    value
}

/// Marsaglia's xorshift: the same records in every run.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn scramble(number: u64) -> u64 {
    (number ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 7
}

#[cfg(test)]
mod tests {
    use super::super::CodecName;
    use super::*;
    use crate::wire::records::OpenBatch;

    fn shape(record_bytes: u32, batch_bytes: u32, codec: CodecName) -> Shape {
        Shape { seconds: 1, partitions: 1, record_bytes, batch_bytes, codec }
    }

    #[test]
    fn a_batch_has_the_size_that_was_asked_for() {
        for (record, batch, records) in [(1000, 256 << 10, 254), (300, 1, 1), (900_000, 1000, 1)] {
            let made = batches(&shape(record, batch, CodecName::None), 0).unwrap();
            assert_eq!(made.len() as u64, BATCHES);
            assert!(made.iter().all(|made| made.records == records), "{record} {batch}");
            let (least, most) =
                (records * u64::from(record), records * u64::from(record + 32) + 61);
            assert!(made.iter().all(|made| (least..=most).contains(&(made.batch.len() as u64))));
            let open = OpenBatch::open(&made[0].batch, 4 << 20).unwrap();
            let values = open.records().map(|r| r.unwrap().value.map_or(0, <[u8]>::len));
            assert!(values.clone().all(|len| len == record as usize));
            assert_eq!(values.count() as u64, records);
        }
    }

    #[test]
    fn values_are_text_that_every_codec_makes_smaller() {
        let plain = batches(&shape(1000, 128 << 10, CodecName::None), 0).unwrap();
        for codec in [CodecName::Gzip, CodecName::Snappy, CodecName::Lz4, CodecName::Zstd] {
            let packed = batches(&shape(1000, 128 << 10, codec), 0).unwrap();
            let ratio = plain[0].batch.len() as f64 / packed[0].batch.len() as f64;
            assert!((1.5..20.0).contains(&ratio), "{codec:?} {ratio}");
        }
        assert_ne!(plain[0].batch, plain[1].batch);
    }
}
