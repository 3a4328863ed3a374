//! Batches whose header says what a check wants it to say. Pure.

use bytes::Bytes;

use super::rule::Why;
use crate::wire::batch::{BatchHeader, CRC_START, Codec, HEADER_BYTES};
use crate::wire::crc::crc32c;
use crate::wire::records::BatchBuilder;

/// Key, value and time.
pub(super) type Record = (Option<&'static [u8]>, Vec<u8>, i64);

/// A batch to be sent.
pub(super) struct Craft {
    records: Vec<Record>,
    codec: Codec,
    numbers: Option<(i64, i16, i32)>,
    header: fn(&mut BatchHeader),
    spoil_crc: bool,
}

impl Craft {
    /// So many small records of this time.
    pub(super) fn small(count: usize, timestamp: i64) -> Self {
        let record = |index| (Some(&b"k"[..]), format!("v{index}").into_bytes(), timestamp);
        Self::of((0..count).map(record).collect())
    }

    /// These records.
    pub(super) fn of(records: Vec<Record>) -> Self {
        Self { records, codec: Codec::None, numbers: None, header: |_| (), spoil_crc: false }
    }

    pub(super) fn packed(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Under a producer id, epoch and first sequence.
    pub(super) fn numbered(mut self, id: i64, epoch: i16, sequence: i32) -> Self {
        self.numbers = Some((id, epoch, sequence));
        self
    }

    /// With a change to the header, before its checksum is made.
    pub(super) fn with(mut self, header: fn(&mut BatchHeader)) -> Self {
        self.header = header;
        self
    }

    /// With a checksum that is wrong by a bit.
    pub(super) fn with_bad_crc(mut self) -> Self {
        self.spoil_crc = true;
        self
    }

    pub(super) fn bytes(&self) -> Result<Bytes, Why> {
        let unmade = |error: &dyn std::fmt::Display| Why::Differs(format!("not made: {error}"));
        let mut builder = BatchBuilder::new(self.codec);
        for (key, value, timestamp) in &self.records {
            builder.push(*timestamp, *key, Some(value), &[]);
        }
        let made = builder.finish().map_err(|error| unmade(&error))?;
        let mut header = BatchHeader::parse(&made).map_err(|error| unmade(&error))?;
        if let Some((id, epoch, sequence)) = self.numbers {
            (header.producer_id, header.producer_epoch) = (id, epoch);
            header.base_sequence = sequence;
        }
        (self.header)(&mut header);
        let mut out = made.to_vec();
        out[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        header.crc = crc32c(&out[CRC_START..]) ^ u32::from(self.spoil_crc);
        out[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        Ok(out.into())
    }
}
