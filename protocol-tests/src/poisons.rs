//! Batches that no honest producer writes: every way in which a stored batch can lie, in every codec, and what must become of
//! each. All have three records, of the values `p0` to `p2`, and a right checksum unless that is the lie.

use crate::raw::batch::HEADER;
use crate::raw::{Batch, Codec, RawRecord};

/// What must become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its records arrive: it is passed on, or repaired.
    Arrives,
    /// It holds nothing, and is stepped over without a word.
    Nothing,
    /// It is passed on as it is, and nobody can read it on either side: brokers read the records of a compressed batch field
    /// by field, and hold none against its length. Without a codec they refuse it.
    Passes,
    /// It is refused with a reason; by policy it is stepped over, and what lies behind it arrives.
    Refused,
    /// The same, but where it ends cannot be told: nothing behind it is read, whatever the policy.
    Stops,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Poison {
    /// Shape and codec.
    pub name: String,
    /// The whole batch, at base offset 0.
    pub bytes: Vec<u8>,
    /// Offsets that it takes in the log.
    pub offsets: i64,
    /// What must become of it.
    pub fate: Fate,
}

impl Poison {
    /// Its bytes behind the header, where the target takes them as they are.
    pub fn passes(&self) -> Option<Vec<u8>> {
        (self.fate == Fate::Passes).then(|| self.bytes[HEADER..].to_vec())
    }
}

/// Bytes of one of its records before the codec; where its fields begin.
const RECORD: usize = 10;
const LENGTH: usize = RECORD;
const KEY_LENGTH: usize = RECORD + 4;
const VALUE_LENGTH: usize = RECORD + 6;
const HEADERS: usize = RECORD + 9;

type Make = fn(Codec) -> Option<Batch>;

/// Shape, what becomes of it, and how it is made; none where a codec has no such thing.
const SHAPES: [(&str, Fate, Make); 24] = [
    ("wrong checksum", Fate::Refused, |codec| with(codec, |b| b.bad_crc = true)),
    ("cut in its middle", Fate::Refused, cut),
    ("bomb", Fate::Refused, bomb),
    ("more counted than held", Fate::Refused, |codec| with(codec, |b| b.count = Some(5))),
    ("fewer counted than held", Fate::Refused, |codec| with(codec, |b| b.count = Some(2))),
    ("count below zero", Fate::Stops, |codec| {
        with(codec, |b| (b.count, b.last_offset_delta) = (Some(-3), Some(2)))
    }),
    ("count of 2^31 - 1", Fate::Refused, |codec| {
        with(codec, |b| (b.count, b.last_offset_delta) = (Some(i32::MAX), Some(i32::MAX - 1)))
    }),
    ("count of a million", Fate::Refused, |codec| with(codec, |b| b.count = Some(1_000_000))),
    ("record longer than the batch", Fate::Passes, |codec| lies(codec, LENGTH, &[0x7e])),
    ("record shorter than its fields", Fate::Passes, |codec| lies(codec, LENGTH, &[14])),
    ("record of length -1", Fate::Passes, |codec| lies(codec, LENGTH, &[1])),
    ("key longer than the record", Fate::Refused, |codec| lies(codec, KEY_LENGTH, &[0x7e])),
    ("value longer than the record", Fate::Refused, |codec| lies(codec, VALUE_LENGTH, &[0x7e])),
    ("value of length -2", Fate::Refused, |codec| lies(codec, VALUE_LENGTH, &[3])),
    ("more headers than bytes", Fate::Refused, |codec| lies(codec, HEADERS, &[0x7e])),
    ("headers below zero", Fate::Refused, |codec| lies(codec, HEADERS, &[1])),
    ("varint without end", Fate::Refused, |codec| lies(codec, LENGTH, &[0xff; 9])),
    ("last offset beyond the records", Fate::Arrives, |codec| {
        with(codec, |b| b.last_offset_delta = Some(6))
    }),
    ("last offset before the last record", Fate::Refused, |codec| {
        with(codec, |b| b.last_offset_delta = Some(1))
    }),
    ("times at the end of time", Fate::Refused, |codec| {
        with(codec, |b| (b.base_timestamp, b.max_timestamp) = (i64::MAX - 1, Some(i64::MAX)))
    }),
    ("greatest time that no record has", Fate::Arrives, |codec| {
        with(codec, |b| b.max_timestamp = Some(7))
    }),
    ("codec that does not exist", Fate::Refused, |codec| {
        with(Codec::None, |b| b.attributes = 5 + codec as i16 % 3)
    }),
    ("bits that nobody uses", Fate::Arrives, |codec| with(codec, |b| b.attributes = 0x7f80 | 0x40)),
    ("no record", Fate::Nothing, |codec| {
        with(codec, |b| (b.records, b.last_offset_delta) = (Vec::new(), Some(4)))
    }),
];

/// Every shape in every codec.
pub fn all() -> Vec<Poison> {
    let mut all = Vec::new();
    for (shape, fate, make) in SHAPES {
        for codec in Codec::ALL {
            let Some(batch) = make(codec) else { continue };
            let delta = batch.last_offset_delta.unwrap_or(batch.count.unwrap_or(3) - 1);
            let name = format!("{shape}, {}", codec.name());
            let is_refused = fate == Fate::Passes && codec == Codec::None;
            let fate = if is_refused { Fate::Refused } else { fate };
            all.push(Poison { name, bytes: batch.bytes(), offsets: i64::from(delta) + 1, fate });
        }
    }
    all
}

fn good() -> Batch {
    Batch::of((0..3).map(|at| RawRecord::at(at, &format!("p{at}"))).collect())
}

#[allow(clippy::unnecessary_wraps, reason = "one of the shapes")]
fn with(codec: Codec, change: impl FnOnce(&mut Batch)) -> Option<Batch> {
    let mut batch = good();
    batch.codec = codec;
    change(&mut batch);
    Some(batch)
}

/// Other bytes in the place of one of its second record.
fn lies(codec: Codec, at: usize, lie: &[u8]) -> Option<Batch> {
    let mut plain = good().plain();
    assert_eq!(plain.len(), 3 * RECORD, "small enough for lengths of one byte");
    plain.splice(at..=at, lie.iter().copied());
    with(codec, |batch| batch.packed = Some(codec.compress(plain)))
}

fn cut(codec: Codec) -> Option<Batch> {
    let mut packed = codec.compress(good().plain());
    packed.truncate(packed.len() / 2);
    with(codec, |batch| batch.packed = Some(packed))
}

/// More than any batch may be opened to, in one that must be opened, for it has a hole.
fn bomb(codec: Codec) -> Option<Batch> {
    const MEBIBYTES: usize = 257;
    let zeros = vec![0; 1 << 20];
    let packed = match codec {
        Codec::None => return None,
        // Members and frames may stand one behind the other.
        Codec::Gzip | Codec::Zstd => codec.compress(zeros).repeat(MEBIBYTES),
        // A block that says so.
        Codec::Snappy => vec![0xff, 0xff, 0xff, 0xff, 0x0f],
        Codec::Lz4 => codec.compress(zeros.repeat(MEBIBYTES)),
    };
    with(codec, |batch| (batch.packed, batch.last_offset_delta) = (Some(packed), Some(6)))
}
