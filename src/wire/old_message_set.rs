//! Message sets from before Kafka 0.11 (magic 0 and 1), upgraded to v2 batches. Brokers still serve old segments as they were
//! stored, and take nothing but v2.
//!
//! An upgraded batch keeps its offsets, gaps included, and so has the same fates as any other. LZ4 in format 0 is refused:
//! its frames have a header checksum that no reader but Kafka's takes.

use bytes::Bytes;

use super::batch::{BatchError, BatchHeader, Batches, Codec};
use super::codec::decompress;
use super::records::{BatchBuilder, RecordsError};
use super::{Reader, WireError};
use crate::limits;

/// Offset and size in front of a message.
const PREFIX_BYTES: usize = 12;
/// CRC, magic, attributes, and the lengths of key and value.
const MESSAGE_BYTES_MIN: usize = 14;
/// Single messages are joined up to so many bytes: they were written before there were batches.
const JOINED_BYTES_MAX: usize = 256 << 10;

const CODEC_MASK: u8 = 0x07;
const LOG_APPEND_TIME: u8 = 0x08;

/// A message: a record, or the wrapper of a compressed set.
struct Message<'a> {
    offset: i64,
    magic: i8,
    attributes: u8,
    timestamp: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

impl Batches {
    /// As [`Iterator::next`], with old messages as v2 batches.
    pub fn next_upgraded(&mut self) -> Option<Result<(BatchHeader, Bytes), RecordsError>> {
        let error = match self.next()? {
            Ok(batch) => return Some(Ok(batch)),
            Err(error) => error,
        };
        let BatchError::OldMagic { .. } = error else { return Some(Err(error.into())) };
        let (left, next) = self.rest();
        let upgraded = upgrade(left, *next).transpose()?;
        match &upgraded {
            Ok((header, _)) => *next = header.next_offset(),
            // Ends the walk.
            Err(_) => left.clear(),
        }
        Some(upgraded)
    }
}

/// Takes one wrapper, or some single messages, from the front of `set`; None where the first is cut.
fn upgrade(set: &mut Bytes, next: i64) -> Result<Option<(BatchHeader, Bytes)>, RecordsError> {
    let frame = set.clone();
    let mut reader = Reader::new(&frame);
    let mut taken = 0;
    let mut batch: Option<Upgraded> = None;
    while let Some(message) = Message::read(&mut reader, batch.is_none())? {
        let codec = message.codec()?;
        if codec != Codec::None {
            if batch.is_none() {
                batch = Some(unwrap(&frame, &message, codec, next)?);
                taken = frame.len() - reader.left();
            }
            break;
        }
        let joined = batch.get_or_insert_with(|| Upgraded::new(Codec::None, message.offset));
        if !joined.can_take(message.offset) {
            break;
        }
        joined.push(&message, message.timestamp, message.offset, next)?;
        taken = frame.len() - reader.left();
    }
    let Some(batch) = batch else { return Ok(None) };
    let _ = set.split_to(taken);
    batch.finish().map(Some)
}

/// Opens a wrapper.
fn unwrap(
    frame: &Bytes,
    wrapper: &Message<'_>,
    codec: Codec,
    next: i64,
) -> Result<Upgraded, RecordsError> {
    let payload = frame.slice_ref(wrapper.value.unwrap_or_default());
    let set = decompress(codec, &payload, limits::RECODE_BYTES_MAX)?;
    // Format 1 has offsets from 0 within, and the last one's on the wrapper.
    let mut base = 0;
    if wrapper.magic == 1 {
        let mut reader = Reader::new(&set);
        let mut last = 0;
        while let Some(message) = Message::read(&mut reader, true)? {
            last = message.offset;
        }
        base = wrapper.offset.checked_sub(last).ok_or(bad("relative offset"))?;
    }
    let mut batch = None;
    let mut reader = Reader::new(&set);
    while let Some(message) = Message::read(&mut reader, true)? {
        if message.codec()? != Codec::None || message.magic != wrapper.magic {
            return Err(bad("message within a wrapper"));
        }
        let offset = base.checked_add(message.offset).ok_or(bad("relative offset"))?;
        let timestamp = match wrapper.attributes & LOG_APPEND_TIME {
            0 => message.timestamp,
            _ => wrapper.timestamp,
        };
        let batch = batch.get_or_insert_with(|| Upgraded::new(codec, offset));
        batch.push(&message, timestamp, offset, next)?;
    }
    if reader.left() > 0 {
        return Err(bad("compressed message set"));
    }
    batch.ok_or(bad("compressed message set"))
}

fn bad(what: &'static str) -> RecordsError {
    RecordsError::Record { index: 0, error: WireError::BadValue { what } }
}

/// A v2 batch in the making, at its old offsets.
struct Upgraded {
    builder: BatchBuilder,
    base: i64,
    next: i64,
}

impl Upgraded {
    fn new(codec: Codec, base: i64) -> Self {
        Self { builder: BatchBuilder::new(codec), base, next: base }
    }

    fn can_take(&self, offset: i64) -> bool {
        self.builder.bytes() < JOINED_BYTES_MAX
            && offset.checked_sub(self.base).is_some_and(|delta| delta < i64::from(i32::MAX))
    }

    fn push(
        &mut self,
        message: &Message<'_>,
        timestamp: i64,
        offset: i64,
        next: i64,
    ) -> Result<(), RecordsError> {
        if offset < self.next.max(next) {
            return Err(BatchError::Backwards { next: self.next.max(next), base: offset }.into());
        }
        let delta = offset.checked_sub(self.base).and_then(|delta| i32::try_from(delta).ok());
        let delta = delta.filter(|&delta| delta < i32::MAX).ok_or(bad("offset"))?;
        self.builder.skip_to(delta);
        self.builder.push(timestamp, message.key, message.value, &[]);
        self.next = offset.checked_add(1).ok_or(bad("offset"))?;
        Ok(())
    }

    fn finish(self) -> Result<(BatchHeader, Bytes), RecordsError> {
        let batch = self.builder.finish()?;
        // The base offset is outside the CRC.
        let mut bytes = self.base.to_be_bytes().to_vec();
        bytes.extend_from_slice(batch.get(8..).unwrap_or_default());
        Ok((BatchHeader::parse(&bytes)?, bytes.into()))
    }
}

impl<'a> Message<'a> {
    /// The next message; None at the end, at a cut, and before a v2 batch.
    ///
    /// A size that no message has is an error only where one `must` begin here.
    fn read(reader: &mut Reader<'a>, must: bool) -> Result<Option<Self>, RecordsError> {
        let wire = |error| RecordsError::Record { index: 0, error };
        let mut ahead = reader.clone();
        let Ok(offset) = ahead.i64("message offset") else { return Ok(None) };
        let Ok(claimed) = ahead.i32("message size") else { return Ok(None) };
        let size = usize::try_from(claimed).unwrap_or(0);
        if !(MESSAGE_BYTES_MIN..=limits::FETCH_FRAME_BYTES_MAX).contains(&size) {
            return if must { Err(BatchError::Length { claimed }.into()) } else { Ok(None) };
        }
        let Ok(bytes) = ahead.take(size, "message") else { return Ok(None) };
        let &[c0, c1, c2, c3, magic, attributes, ..] = bytes else {
            return Err(bad("message"));
        };
        let magic = magic as i8;
        if !matches!(magic, 0 | 1) {
            return if must { Err(BatchError::Magic { magic }.into()) } else { Ok(None) };
        }
        let (claimed, computed) = (u32::from_be_bytes([c0, c1, c2, c3]), crc32(&bytes[4..]));
        if claimed != computed {
            return Err(BatchError::Crc { claimed, computed }.into());
        }
        reader.take(PREFIX_BYTES + 6, "message").map_err(wire)?;
        let timestamp = if magic == 1 { reader.i64("timestamp").map_err(wire)? } else { -1 };
        let key = sized(reader, "message key").map_err(wire)?;
        let value = sized(reader, "message value").map_err(wire)?;
        if reader.left() != ahead.left() {
            return Err(bad("message size"));
        }
        Ok(Some(Self { offset, magic, attributes, timestamp, key, value }))
    }

    fn codec(&self) -> Result<Codec, BatchError> {
        match self.attributes & CODEC_MASK {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Gzip),
            2 => Ok(Codec::Snappy),
            3 if self.magic == 1 => Ok(Codec::Lz4),
            id => Err(BatchError::Codec { id }),
        }
    }
}

/// BYTES of the old encoding: an INT32 length, -1 for none.
fn sized<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<Option<&'a [u8]>, WireError> {
    match reader.i32(what)? {
        -1 => Ok(None),
        claimed => {
            let left = reader.left();
            let len = usize::try_from(claimed).map_err(|_| WireError::BadLength {
                what,
                claimed: claimed.into(),
                left,
            })?;
            reader.take(len, what).map(Some)
        }
    }
}

/// The CRC-32 of zlib, not the CRC-32C of v2.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{OwnedRecord, batch, expected, java, records_of};
    use super::*;

    fn upgraded(records: Bytes) -> Result<Vec<OwnedRecord>, RecordsError> {
        let mut walk = Batches::new(records);
        let mut all = Vec::new();
        while let Some(batch) = walk.next_upgraded() {
            let (header, bytes) = batch?;
            assert_eq!(BatchHeader::parse(&bytes).unwrap(), header);
            all.extend(records_of(&bytes)?);
        }
        Ok(all)
    }

    fn expected_old(magic: u8) -> Vec<OwnedRecord> {
        let timestamp = |record: &OwnedRecord| if magic == 0 { -1 } else { record.timestamp };
        let old = |record: OwnedRecord| OwnedRecord {
            timestamp: timestamp(&record),
            headers: vec![],
            ..record
        };
        (0..20).map(expected).map(old).collect()
    }

    const READABLE: [(&str, u8); 7] = [
        ("none", 0),
        ("none", 1),
        ("gzip", 0),
        ("gzip", 1),
        ("snappy", 0),
        ("snappy", 1),
        ("lz4", 1),
    ];

    #[test]
    fn reads_what_java_wrote() {
        for (codec, magic) in READABLE {
            let set = java(&format!("{codec}-v{magic}.set"));
            assert_eq!(upgraded(set).unwrap(), expected_old(magic), "{codec} v{magic}");
        }
        let error = upgraded(java("lz4-v0.set")).unwrap_err();
        assert_eq!(error, BatchError::Codec { id: 3 }.into());
    }

    #[test]
    fn an_upgraded_batch_is_contiguous_and_keeps_its_codec() {
        for (codec, magic) in READABLE {
            let mut walk = Batches::new(java(&format!("{codec}-v{magic}.set")));
            let (header, _) = walk.next_upgraded().unwrap().unwrap();
            assert_eq!((header.base_offset, header.last_offset()), (1000, 1019));
            assert!(header.is_contiguous());
            let name = format!("{:?}", header.codec().unwrap()).to_lowercase();
            assert_eq!(name, codec);
            assert!(walk.next_upgraded().is_none());
            assert_eq!(walk.left(), 0);
        }
    }

    #[test]
    fn old_and_new_in_one_log() {
        let new = batch(1020, 2);
        for (codec, magic) in READABLE {
            let old = java(&format!("{codec}-v{magic}.set"));
            let mixed: Bytes = [&old[..], &new].concat().into();
            let records = upgraded(mixed).unwrap();
            assert_eq!(records.len(), 22);
            assert_eq!(records[20].offset, 1020);
            let backwards: Bytes = [&new[..], &old].concat().into();
            let error = upgraded(backwards).unwrap_err();
            assert_eq!(error, BatchError::Backwards { next: 1022, base: 1000 }.into());
        }
    }

    #[test]
    fn a_cut_ends_the_walk_cleanly() {
        for (codec, magic) in READABLE {
            let set = java(&format!("{codec}-v{magic}.set"));
            for len in 0..set.len() {
                let records = upgraded(set.slice(..len)).unwrap();
                assert!(records.len() < 20);
                assert_eq!(records[..], expected_old(magic)[..records.len()]);
            }
        }
    }

    #[test]
    fn damage_is_an_error_never_a_panic_or_other_records() {
        for (codec, magic) in READABLE {
            let set = java(&format!("{codec}-v{magic}.set"));
            for at in 0..set.len().min(600) {
                for bad in [0x00, 0x01, 0x7f, 0x80, 0xff, set[at] ^ 1] {
                    let mut bytes = set.to_vec();
                    bytes[at] = bad;
                    // The offset and the size are under no CRC; a cut and gaps are what they can make of it.
                    if let Ok(records) = upgraded(bytes.into()) {
                        let whole = expected_old(magic);
                        let content = |r: &OwnedRecord| (r.key.clone(), r.value.clone());
                        assert!(
                            records.iter().all(|r| whole.iter().any(|w| content(w) == content(r)))
                        );
                    }
                }
            }
        }
    }
}
