//! A v2 record batch as the broker sees it: the 61 header bytes as fields, the rest opaque.
//!
//! Deliberately not `wire::batch`: what is tested against this broker must not be judged by its own code.

use bytes::Bytes;

/// Bytes of a v2 batch header.
pub(super) const HEADER_BYTES: usize = 61;
/// `baseOffset` and `batchLength`, which every magic has.
pub(super) const LENGTH_END: usize = 12;
/// Where the CRC's range starts.
const CRC_START: usize = 21;

pub(super) const LOG_APPEND_TIME: i16 = 0x08;
pub(super) const TRANSACTIONAL: i16 = 0x10;
pub(super) const CONTROL: i16 = 0x20;
pub(super) const DELETE_HORIZON: i16 = 0x40;
/// The attribute bits that have a meaning; a broker that rewrites a header drops the rest.
pub(super) const KNOWN: i16 = 0x7f;

/// The header's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) base_offset: i64,
    pub(super) batch_length: i32,
    pub(super) leader_epoch: i32,
    pub(super) magic: i8,
    pub(super) crc: u32,
    pub(super) attributes: i16,
    pub(super) last_offset_delta: i32,
    pub(super) base_timestamp: i64,
    pub(super) max_timestamp: i64,
    pub(super) producer_id: i64,
    pub(super) producer_epoch: i16,
    pub(super) base_sequence: i32,
    pub(super) count: i32,
}

macro_rules! at {
    ($bytes:expr, $start:literal, $type:ty) => {{
        let mut raw = [0; size_of::<$type>()];
        raw.copy_from_slice(&$bytes[$start..$start + size_of::<$type>()]);
        <$type>::from_be_bytes(raw)
    }};
}

impl Head {
    /// The header at the start of `bytes`; None when they are fewer than 61.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        Some(Self {
            base_offset: at!(bytes, 0, i64),
            batch_length: at!(bytes, 8, i32),
            leader_epoch: at!(bytes, 12, i32),
            magic: at!(bytes, 16, i8),
            crc: at!(bytes, 17, u32),
            attributes: at!(bytes, 21, i16),
            last_offset_delta: at!(bytes, 23, i32),
            base_timestamp: at!(bytes, 27, i64),
            max_timestamp: at!(bytes, 35, i64),
            producer_id: at!(bytes, 43, i64),
            producer_epoch: at!(bytes, 51, i16),
            base_sequence: at!(bytes, 53, i32),
            count: at!(bytes, 57, i32),
        })
    }

    /// The header's bytes.
    pub(super) fn write(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..16].copy_from_slice(&self.leader_epoch.to_be_bytes());
        out[16] = self.magic.to_be_bytes()[0];
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.count.to_be_bytes());
        out
    }

    /// Computes the CRC anew, over this header and `payload`.
    pub(super) fn seal(&mut self, payload: &[u8]) {
        let sum = crc32c::crc32c(&self.write()[CRC_START..]);
        self.crc = crc32c::crc32c_append(sum, payload);
    }

    pub(super) fn has(&self, bit: i16) -> bool {
        self.attributes & bit != 0
    }

    pub(super) fn codec(&self) -> i16 {
        self.attributes & 7
    }

    pub(super) fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// The sequence of the last record; wraps to 0 after 2^31 - 1.
    pub(super) fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return self.base_sequence;
        }
        let next = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        i32::try_from(next & i64::from(i32::MAX)).unwrap_or(i32::MAX)
    }
}

/// The checksum of a whole batch holds.
pub(super) fn crc_holds(batch: &[u8], head: &Head) -> bool {
    crc32c::crc32c(&batch[CRC_START..]) == head.crc
}

/// A batch in the log: a header of its own, the payload as it came.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) head: Head,
    header: Bytes,
    pub(super) payload: Bytes,
}

impl Stored {
    /// A v2 batch.
    pub(super) fn new(head: Head, payload: Bytes) -> Self {
        Self { head, header: Bytes::copy_from_slice(&head.write()), payload }
    }

    /// A message of magic 0 or 1 as old segments hold it, with `head` standing in for what it lacks.
    pub(super) fn old(head: Head, message: &[u8]) -> Self {
        let mut raw = message.to_vec();
        raw[..8].copy_from_slice(&head.base_offset.to_be_bytes());
        Self { head, header: Bytes::from(raw), payload: Bytes::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.header.len() + self.payload.len()
    }

    /// Header and payload, in order.
    pub(super) fn pieces(&self) -> [&Bytes; 2] {
        [&self.header, &self.payload]
    }

    /// Both in one.
    pub(super) fn to_bytes(&self) -> Bytes {
        Bytes::from([&self.header[..], &self.payload[..]].concat())
    }
}
