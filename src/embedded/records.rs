//! The records inside a batch: decompression with a cap, the walk that every produce pays, and the way back for
//! compaction. A decoder of its own, for the reason in `batch.rs`.

use std::io::{self, Read, Write};

use bytes::Bytes;

use super::batch::Head;
use crate::limits::RECODE_BYTES_MAX;

/// Why a batch's records cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// The codec is none of Kafka's.
    Codec,
    /// The codec's data are not what they should be, or expand beyond the cap.
    Decompress,
    /// A record ends early, says what cannot be, or the count does not match.
    Record,
    /// A record's length is a varint without end.
    Endless,
}

/// One record, borrowed from the decompressed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    /// Attributes, then everything behind the offset delta: what a rewrite leaves alone.
    pub(super) attributes: u8,
    pub(super) rest: &'a [u8],
}

const SNAPPY_MAGIC: &[u8] = b"\x82SNAPPY\0";

/// The records block without its compression.
pub(super) fn decompress(head: &Head, payload: &Bytes) -> Result<Bytes, Damage> {
    let capped = |reader: &mut dyn Read| {
        let mut out = Vec::new();
        let read = reader.take(RECODE_BYTES_MAX as u64 + 1).read_to_end(&mut out);
        match read {
            Ok(len) if len <= RECODE_BYTES_MAX => Ok(Bytes::from(out)),
            _ => Err(Damage::Decompress),
        }
    };
    match head.codec() {
        0 => Ok(payload.clone()),
        1 => capped(&mut flate2::read::MultiGzDecoder::new(&payload[..])),
        2 => snappy(payload).ok_or(Damage::Decompress),
        3 => capped(&mut lz4_flex::frame::FrameDecoder::new(&payload[..])),
        4 => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(&payload[..]);
            capped(&mut decoder.map_err(|_| Damage::Decompress)?)
        }
        _ => Err(Damage::Codec),
    }
}

/// Snappy as Java frames it (xerial), or one bare block.
fn snappy(payload: &[u8]) -> Option<Bytes> {
    let mut out = Vec::new();
    let mut block = |bytes: &[u8]| {
        let len = snap::raw::decompress_len(bytes).ok()?;
        // A snappy block expands at most 64-fold or so; the length is the peer's word.
        if len > bytes.len().saturating_mul(256) || out.len() + len > RECODE_BYTES_MAX {
            return None;
        }
        out.extend(snap::raw::Decoder::new().decompress_vec(bytes).ok()?);
        Some(())
    };
    if !payload.starts_with(SNAPPY_MAGIC) {
        block(payload)?;
        return Some(Bytes::from(out));
    }
    let mut rest = payload.get(16..)?;
    while !rest.is_empty() {
        let len = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        block(rest.get(4..4 + len)?)?;
        rest = &rest[4 + len..];
    }
    Some(Bytes::from(out))
}

/// Puts a codec's compression around a records block.
pub(super) fn compress(codec: i16, block: &[u8]) -> io::Result<Bytes> {
    Ok(Bytes::from(match codec {
        1 => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(block)?;
            out.finish()?
        }
        2 => {
            let body = snap::raw::Encoder::new().compress_vec(block).map_err(io::Error::other)?;
            let len = u32::try_from(body.len()).map_err(io::Error::other)?;
            [SNAPPY_MAGIC, &[0, 0, 0, 1, 0, 0, 0, 1], &len.to_be_bytes(), &body].concat()
        }
        3 => {
            let mut out = lz4_flex::frame::FrameEncoder::new(Vec::new());
            out.write_all(block)?;
            out.finish().map_err(io::Error::other)?
        }
        4 => ruzstd::encoding::compress_to_vec(block, ruzstd::encoding::CompressionLevel::Fastest),
        _ => block.to_vec(),
    }))
}

/// Calls `each` with every record; the count must match what is there, and each length what its record takes.
pub(super) fn walk<'a>(
    block: &'a [u8],
    count: i32,
    each: impl FnMut(i32, Record<'a>) -> Result<(), Damage>,
) -> Result<(), Damage> {
    walk_as(block, count, true, each)
}

/// The same; not by length as a broker walks a compressed batch that it keeps as it is (`PartialDefaultRecord`): what a
/// record says of its own length is read and not used.
pub(super) fn walk_as<'a>(
    block: &'a [u8],
    count: i32,
    by_length: bool,
    mut each: impl FnMut(i32, Record<'a>) -> Result<(), Damage>,
) -> Result<(), Damage> {
    let mut at = block;
    for index in 0..count {
        if at.iter().take(5).filter(|byte| **byte >= 0x80).count() == 5 {
            return Err(Damage::Endless);
        }
        let len = int(&mut at)?;
        let start = at.len();
        let record = record(&mut at)?;
        if by_length && usize::try_from(len) != Ok(start - at.len()) {
            return Err(Damage::Record);
        }
        each(index, record)?;
    }
    if at.is_empty() { Ok(()) } else { Err(Damage::Record) }
}

fn record<'a>(body: &mut &'a [u8]) -> Result<Record<'a>, Damage> {
    let attributes = *body.first().ok_or(Damage::Record)?;
    *body = &body[1..];
    let timestamp_delta = long(body)?;
    let offset_delta = int(body)?;
    let rest = *body;
    let key = nullable(body)?;
    let value = nullable(body)?;
    let headers = int(body)?;
    if headers < 0 || usize::try_from(headers).map_err(|_| Damage::Record)? > body.len() {
        return Err(Damage::Record);
    }
    for _ in 0..headers {
        nullable(body)?.ok_or(Damage::Record)?;
        nullable(body)?;
    }
    let rest = &rest[..rest.len() - body.len()];
    Ok(Record { timestamp_delta, offset_delta, key, value, attributes, rest })
}

fn nullable<'a>(at: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Damage> {
    let Ok(len) = usize::try_from(int(at)?) else { return Ok(None) };
    let bytes = at.get(..len).ok_or(Damage::Record)?;
    *at = &at[len..];
    Ok(Some(bytes))
}

/// A signed varint of 32 bits, in five bytes at most (`ByteUtils.readVarint`); what a fifth has too much is dropped there, too.
fn int(at: &mut &[u8]) -> Result<i32, Damage> {
    let value = unsigned(at, 5)? as u32;
    Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}

/// A signed varint of 64 bits, in ten bytes at most (`ByteUtils.readVarlong`).
fn long(at: &mut &[u8]) -> Result<i64, Damage> {
    let value = unsigned(at, 10)?;
    Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}

/// Of so many bytes at most; what is beyond 64 bits is dropped.
fn unsigned(at: &mut &[u8], most: u32) -> Result<u64, Damage> {
    let mut value = 0u64;
    for index in 0..most {
        let (byte, rest) = at.split_first().ok_or(Damage::Record)?;
        *at = rest;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Damage::Record)
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut value = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Appends `record` with another timestamp delta; its offset delta stays.
pub(super) fn put(out: &mut Vec<u8>, record: &Record<'_>, timestamp_delta: i64) {
    let mut body = vec![record.attributes];
    put_varint(&mut body, timestamp_delta);
    put_varint(&mut body, i64::from(record.offset_delta));
    body.extend_from_slice(record.rest);
    put_varint(out, i64::try_from(body.len()).unwrap_or(i64::MAX));
    out.extend_from_slice(&body);
}

/// Appends a record made from its parts, without headers.
pub(super) fn put_new(
    out: &mut Vec<u8>,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) {
    let mut rest = Vec::new();
    for part in [key, value] {
        put_varint(&mut rest, part.map_or(-1, |p| i64::try_from(p.len()).unwrap_or(i64::MAX)));
        rest.extend_from_slice(part.unwrap_or_default());
    }
    put_varint(&mut rest, 0);
    let record = Record { timestamp_delta, offset_delta, key, value, attributes: 0, rest: &rest };
    put(out, &record, timestamp_delta);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip() {
        for value in [0, -1, 1, 63, 64, -64, -65, i64::from(i32::MAX), i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut at = &out[..];
            assert_eq!(long(&mut at), Ok(value));
            assert!(at.is_empty());
            let Ok(value) = i32::try_from(value) else { continue };
            assert_eq!(int(&mut &out[..]), Ok(value));
        }
        assert_eq!(int(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0][..]), Err(Damage::Record));
    }

    #[test]
    fn every_codec_round_trips() {
        let mut block = Vec::new();
        for delta in 0..100 {
            put_new(&mut block, 1, delta, Some(b"key"), Some(&[7; 300]));
        }
        for codec in 0..5 {
            let mut head = Head::read(&[0; 61]).unwrap();
            head.attributes = codec;
            let packed = compress(codec, &block).unwrap();
            assert_eq!(packed.len() < block.len(), codec != 0, "codec {codec}");
            assert_eq!(decompress(&head, &packed).unwrap(), block, "codec {codec}");
        }
    }

    #[test]
    fn the_count_must_match() {
        let mut block = Vec::new();
        put_new(&mut block, 0, 0, None, None);
        put_new(&mut block, 0, 1, None, None);
        let walked = |count| walk(&block, count, |_, _| Ok(()));
        assert_eq!(walked(2), Ok(()));
        assert_eq!(walked(1), Err(Damage::Record));
        assert_eq!(walked(3), Err(Damage::Record));
    }
}
