//! The v2 record batch as an opaque thing: its 61-byte header, and the walk from batch to batch.
//!
//! Never looks into the records: that is `records.rs`. Layout: Kafka's `DefaultRecordBatch`; bytes 21 to the end are under
//! the CRC, everything before is not.

use std::fmt;

use bytes::Bytes;

use super::crc::crc32c;
use crate::limits;

/// Bytes of a batch header.
pub const HEADER_BYTES: usize = 61;
/// Base offset and length: what the length field does not count.
pub const LENGTH_END: usize = 12;
/// The CRC covers the batch from here.
pub const CRC_START: usize = 21;
/// What the length field of an empty batch holds.
const LENGTH_MIN: usize = HEADER_BYTES - LENGTH_END;
/// Length, attributes, two deltas, key, value and count of headers.
const RECORD_BYTES_MIN: usize = 7;
/// A cut before here hides the magic.
const MAGIC_END: usize = 17;

/// Attribute bits (`DefaultRecordBatch`).
pub mod attribute {
    /// The codec's id.
    pub const CODEC_MASK: u16 = 0x07;
    /// The times are the broker's append time, in `max_timestamp`.
    pub const LOG_APPEND_TIME: u16 = 0x08;
    /// Part of a transaction.
    pub const TRANSACTIONAL: u16 = 0x10;
    /// A marker, not data.
    pub const CONTROL: u16 = 0x20;
    /// `base_timestamp` is the time after which the cleaner may drop tombstones.
    pub const DELETE_HORIZON: u16 = 0x40;
}

/// How a batch's records are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Codec {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Codec {
    /// Bytes that one of its output can stand for at most, rounded up: deflate 1032, a snappy copy of 64 bytes in 3, an LZ4
    /// match length of 255 a byte, a zstd block of 128 KiB in 4.
    pub(super) fn ratio_max(self) -> usize {
        match self {
            Self::None => 1,
            Self::Gzip => 1032,
            Self::Snappy => 22,
            Self::Lz4 => 256,
            Self::Zstd => 32 << 10,
        }
    }
}

/// Why bytes are not a batch that Strait takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// Fewer bytes than the header or the length field needs.
    Truncated,
    /// A length field that no batch has.
    Length {
        /// The field.
        claimed: i32,
    },
    /// A message set from before Kafka 0.11: old log segments are still served as they were stored.
    OldMagic {
        /// 0 or 1.
        magic: i8,
    },
    /// A format that is not known.
    Magic {
        /// The field.
        magic: i8,
    },
    /// A codec id that is not known.
    Codec {
        /// 5 to 7.
        id: u8,
    },
    /// A negative offset, offset delta or count, or an end beyond the last possible offset.
    Offsets {
        /// The first offset.
        base: i64,
        /// The field.
        last_offset_delta: i32,
        /// The field.
        records_count: i32,
    },
    /// A batch that begins before the end of the one in front of it.
    Backwards {
        /// One past the batch in front.
        next: i64,
        /// The first offset of this one.
        base: i64,
    },
    /// More records than its bytes can hold.
    Count {
        /// The field.
        claimed: i32,
        /// Behind the header.
        bytes: usize,
    },
    /// The CRC-32C does not match.
    Crc {
        /// The field.
        claimed: u32,
        /// What the bytes give.
        computed: u32,
    },
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the batch ends early"),
            Self::Length { claimed } => write!(f, "a batch length of {claimed} is not possible"),
            Self::OldMagic { magic } => {
                write!(f, "a message set of format {magic}, from before Kafka 0.11")
            }
            Self::Magic { magic } => write!(f, "batch format {magic} is not known"),
            Self::Codec { id } => write!(f, "compression codec {id} is not known"),
            Self::Offsets { base, last_offset_delta, records_count } => write!(
                f,
                "impossible offsets: base {base}, last delta {last_offset_delta}, \
                 count {records_count}"
            ),
            Self::Backwards { next, base } => {
                write!(f, "a batch at offset {base} where {next} or later must follow")
            }
            Self::Count { claimed, bytes } => {
                write!(f, "{bytes} bytes cannot hold the {claimed} records that are counted")
            }
            Self::Crc { claimed, computed } => {
                write!(f, "CRC {claimed:08x} does not match the bytes ({computed:08x})")
            }
        }
    }
}

impl std::error::Error for BatchError {}

/// All fields of a v2 header, in the order of the wire. [`BatchHeader::parse`] has checked that the offsets add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are Kafka's")]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Bytes after this field.
    pub batch_length: i32,
    pub partition_leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: u16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub records_count: i32,
}

/// The `N` bytes at `at`. Out of range only by a mistake in this file: every caller holds a whole header.
fn field<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|i| header[at + i])
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`; what follows it need not be there.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        if let Some(&magic) = bytes.get(MAGIC_END - 1) {
            check_magic(magic as i8)?;
        }
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(BatchError::Truncated)?;
        let header = Self {
            base_offset: i64::from_be_bytes(field(bytes, 0)),
            batch_length: i32::from_be_bytes(field(bytes, 8)),
            partition_leader_epoch: i32::from_be_bytes(field(bytes, 12)),
            magic: bytes[16] as i8,
            crc: u32::from_be_bytes(field(bytes, 17)),
            attributes: u16::from_be_bytes(field(bytes, 21)),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: i64::from_be_bytes(field(bytes, 27)),
            max_timestamp: i64::from_be_bytes(field(bytes, 35)),
            producer_id: i64::from_be_bytes(field(bytes, 43)),
            producer_epoch: i16::from_be_bytes(field(bytes, 51)),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            records_count: i32::from_be_bytes(field(bytes, 57)),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), BatchError> {
        check_length(self.batch_length, LENGTH_MIN)?;
        let Self { base_offset: base, last_offset_delta, records_count, .. } = *self;
        // One past the last offset must be an offset too: it is what is fetched and committed next.
        let end =
            base.checked_add(i64::from(last_offset_delta)).and_then(|last| last.checked_add(1));
        if base < 0 || last_offset_delta < 0 || records_count < 0 || end.is_none() {
            return Err(BatchError::Offsets { base, last_offset_delta, records_count });
        }
        Ok(())
    }

    /// The 61 bytes that [`BatchHeader::parse`] reads.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..16].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        out[16] = self.magic as u8;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.records_count.to_be_bytes());
        out
    }

    /// How the records are compressed.
    pub fn codec(&self) -> Result<Codec, BatchError> {
        match self.attributes & attribute::CODEC_MASK {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Gzip),
            2 => Ok(Codec::Snappy),
            3 => Ok(Codec::Lz4),
            4 => Ok(Codec::Zstd),
            id => Err(BatchError::Codec { id: id as u8 }),
        }
    }

    /// Part of a transaction, committed or not.
    pub fn is_transactional(&self) -> bool {
        self.attributes & attribute::TRANSACTIONAL != 0
    }

    /// A marker, not data.
    pub fn is_control(&self) -> bool {
        self.attributes & attribute::CONTROL != 0
    }

    /// Every record's time is `max_timestamp`, whatever the records say.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & attribute::LOG_APPEND_TIME != 0
    }

    /// `base_timestamp` is the cleaner's delete horizon. Record times are still `base_timestamp` + delta.
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & attribute::DELETE_HORIZON != 0
    }

    /// The offset of the last record that the batch held when it was written.
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// The offset to ask for after this batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset() + 1
    }

    /// The batch's size with its header.
    pub fn total_bytes(&self) -> usize {
        LENGTH_END + self.batch_length as usize
    }

    /// Checks the count of records against what its bytes can hold, be they compressed as well as the codec can.
    ///
    /// A batch that lies here is refused by every target; what it claims would go into sequences and counters before.
    pub fn check_count(&self) -> Result<(), BatchError> {
        let bytes = self.total_bytes() - HEADER_BYTES;
        let claimed = self.records_count;
        let held = bytes.saturating_mul(self.codec()?.ratio_max()) / RECORD_BYTES_MIN;
        if usize::try_from(claimed).is_ok_and(|claimed| claimed <= held) {
            Ok(())
        } else {
            Err(BatchError::Count { claimed, bytes })
        }
    }

    /// No record is missing: a stock broker refuses to be sent any other batch.
    pub fn is_contiguous(&self) -> bool {
        i64::from(self.records_count) == i64::from(self.last_offset_delta) + 1
    }
}

fn check_magic(magic: i8) -> Result<(), BatchError> {
    match magic {
        2 => Ok(()),
        0 | 1 => Err(BatchError::OldMagic { magic }),
        _ => Err(BatchError::Magic { magic }),
    }
}

/// A batch that no frame could hold would look like a cut tail for ever.
fn check_length(claimed: i32, min: usize) -> Result<(), BatchError> {
    match usize::try_from(claimed) {
        Ok(len) if (min..=limits::FETCH_FRAME_BYTES_MAX).contains(&len) => Ok(()),
        _ => Err(BatchError::Length { claimed }),
    }
}

/// Compares the CRC-32C of a whole batch with its header's.
pub fn verify_crc(batch: &[u8]) -> Result<(), BatchError> {
    let header = BatchHeader::parse(batch)?;
    let covered = batch.get(CRC_START..header.total_bytes()).ok_or(BatchError::Truncated)?;
    let computed = crc32c(covered);
    if computed == header.crc {
        Ok(())
    } else {
        Err(BatchError::Crc { claimed: header.crc, computed })
    }
}

/// The batches of one partition's records in a Fetch response. Stops without an error where the last one is cut, as brokers
/// do (`LogSegment.read` hands out file slices), and after the first error.
#[derive(Clone, Debug)]
pub struct Batches {
    left: Bytes,
    next: i64,
    failed: bool,
}

impl Batches {
    /// Walks `records`.
    pub fn new(records: Bytes) -> Self {
        Self { left: records, next: 0, failed: false }
    }

    /// Bytes not walked yet; at the end, those of the cut batch.
    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// What is not walked yet, for `old_message_set.rs`, which moves it and says where it ends.
    pub(super) fn rest(&mut self) -> (&mut Bytes, &mut i64) {
        self.failed = false;
        (&mut self.left, &mut self.next)
    }

    fn step(&mut self) -> Result<Option<(BatchHeader, Bytes)>, BatchError> {
        let Some(&magic) = self.left.get(MAGIC_END - 1) else { return Ok(None) };
        check_magic(magic as i8)?;
        let Some(length) = self.left.get(8..LENGTH_END).and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*length);
        check_length(length, LENGTH_MIN)?;
        if self.left.len() < LENGTH_END + length as usize {
            return Ok(None);
        }
        let header = BatchHeader::parse(&self.left)?;
        if header.base_offset < self.next {
            return Err(BatchError::Backwards { next: self.next, base: header.base_offset });
        }
        self.next = header.next_offset();
        Ok(Some((header, self.left.split_to(header.total_bytes()))))
    }
}

impl Iterator for Batches {
    type Item = Result<(BatchHeader, Bytes), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step().transpose();
        self.failed = !matches!(step, Some(Ok(_)));
        step
    }
}

impl std::iter::FusedIterator for Batches {}

/// What a control batch says: the key of its first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlType {
    /// The producer's open transaction is void.
    Abort,
    /// The producer's open transaction counts.
    Commit,
    /// A leader change, snapshot mark or the like: nothing to a client.
    Other(i16),
}

impl ControlType {
    /// Reads the key of a whole control batch (Kafka's `ControlRecordType`: version, type). Markers are never compressed.
    pub fn of(batch: &[u8]) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(batch)?;
        let mut records = batch.get(HEADER_BYTES..).unwrap_or_default();
        if header.codec()? != Codec::None {
            return Err(BatchError::Truncated);
        }
        // length, attributes, timestampDelta, offsetDelta, keyLength: all but the attributes are varints.
        skip_varint(&mut records)?;
        records = records.get(1..).ok_or(BatchError::Truncated)?;
        for _ in 0..3 {
            skip_varint(&mut records)?;
        }
        let &[_, _, high, low] = records.first_chunk().ok_or(BatchError::Truncated)?;
        Ok(match i16::from_be_bytes([high, low]) {
            0 => Self::Abort,
            1 => Self::Commit,
            other => Self::Other(other),
        })
    }
}

fn skip_varint(bytes: &mut &[u8]) -> Result<(), BatchError> {
    let end = bytes.iter().take(10).position(|b| b & 0x80 == 0).ok_or(BatchError::Truncated)?;
    *bytes = bytes.get(end + 1..).ok_or(BatchError::Truncated)?;
    Ok(())
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
