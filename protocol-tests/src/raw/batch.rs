//! Record batches (format v2, `DefaultRecordBatch`), written with every field free and read back.

use std::io::{Read, Write};

/// Bytes before the records.
pub const HEADER: usize = 61;

/// A record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord {
    /// Offset in the batch.
    pub offset_delta: i64,
    /// Milliseconds over the batch's base.
    pub timestamp_delta: i64,
    /// None is null.
    pub key: Option<Vec<u8>>,
    /// None is null.
    pub value: Option<Vec<u8>>,
    /// Names and values.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Unused by Kafka.
    pub attributes: u8,
}

impl RawRecord {
    /// Key `k`, this value, at this place.
    pub fn at(offset_delta: i64, value: &str) -> Self {
        Self {
            offset_delta,
            timestamp_delta: 0,
            key: Some(b"k".to_vec()),
            value: Some(value.as_bytes().to_vec()),
            headers: Vec::new(),
            attributes: 0,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut body = vec![self.attributes];
        varint(self.timestamp_delta, &mut body);
        varint(self.offset_delta, &mut body);
        nullable(self.key.as_deref(), &mut body);
        nullable(self.value.as_deref(), &mut body);
        varint(self.headers.len() as i64, &mut body);
        for (name, value) in &self.headers {
            varint(name.len() as i64, &mut body);
            body.extend(name.as_bytes());
            nullable(value.as_deref(), &mut body);
        }
        varint(body.len() as i64, out);
        out.extend(body);
    }
}

/// The attribute bits of a codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are Kafka's")]
pub enum Codec {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Codec {
    /// All five.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// As `compression.type` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// As a producer would.
    pub fn compress(self, plain: Vec<u8>) -> Vec<u8> {
        match self {
            Self::None => plain,
            Self::Gzip => {
                let mut out =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                out.write_all(&plain).unwrap();
                out.finish().unwrap()
            }
            Self::Snappy => {
                // snappy-java's stream: magic, version 1, compatible with 1, then blocks with their length.
                let mut out = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01".to_vec();
                for block in plain.chunks(32 << 10) {
                    let block = snap::raw::Encoder::new().compress_vec(block).unwrap();
                    out.extend(u32::try_from(block.len()).unwrap().to_be_bytes());
                    out.extend(block);
                }
                out
            }
            Self::Lz4 => {
                // Kafka reads independent blocks only.
                let info = lz4_flex::frame::FrameInfo::new()
                    .block_mode(lz4_flex::frame::BlockMode::Independent);
                let mut out = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
                out.write_all(&plain).unwrap();
                out.finish().unwrap()
            }
            Self::Zstd => ruzstd::encoding::compress_to_vec(
                plain.as_slice(),
                ruzstd::encoding::CompressionLevel::Fastest,
            ),
        }
    }

    fn decompress(id: i16, packed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        match id {
            0 => plain.extend(packed),
            1 => {
                flate2::read::MultiGzDecoder::new(packed).read_to_end(&mut plain).unwrap();
            }
            2 if packed.starts_with(b"\x82SNAPPY\x00") => {
                let mut rest = &packed[16..];
                while !rest.is_empty() {
                    let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
                    plain.extend(
                        snap::raw::Decoder::new().decompress_vec(&rest[4..4 + length]).unwrap(),
                    );
                    rest = &rest[4 + length..];
                }
            }
            2 => plain = snap::raw::Decoder::new().decompress_vec(packed).unwrap(),
            3 => {
                lz4_flex::frame::FrameDecoder::new(packed).read_to_end(&mut plain).unwrap();
            }
            4 => {
                let mut decoder = ruzstd::decoding::StreamingDecoder::new(packed).unwrap();
                decoder.read_to_end(&mut plain).unwrap();
            }
            other => panic!("codec {other}"),
        }
        plain
    }
}

/// A batch to be written; every header field is free, so that wrong ones can be made.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Records; what the header says of them may differ.
    pub records: Vec<RawRecord>,
    /// Compression.
    pub codec: Codec,
    /// Offset of the first record; brokers take 0 only.
    pub base_offset: i64,
    /// Anything.
    pub leader_epoch: i32,
    /// 2.
    pub magic: u8,
    /// Beside the codec's bits.
    pub attributes: i16,
    /// Count less one unless set.
    pub last_offset_delta: Option<i32>,
    /// Milliseconds since 1970.
    pub base_timestamp: i64,
    /// Base plus the largest delta unless set.
    pub max_timestamp: Option<i64>,
    /// -1 is none.
    pub producer_id: i64,
    /// -1 is none.
    pub producer_epoch: i16,
    /// -1 is none.
    pub base_sequence: i32,
    /// The true count unless set.
    pub count: Option<i32>,
    /// Spoils the checksum.
    pub bad_crc: bool,
    /// What stands behind the header instead of the records in their codec.
    pub packed: Option<Vec<u8>>,
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// CRC-32 as zlib computes it: the checksum of the message formats before v2.
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

impl Batch {
    /// These records, no producer id, now.
    pub fn of(records: Vec<RawRecord>) -> Self {
        Self {
            records,
            codec: Codec::None,
            base_offset: 0,
            leader_epoch: -1,
            magic: 2,
            attributes: 0,
            last_offset_delta: None,
            base_timestamp: now_ms(),
            max_timestamp: None,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count: None,
            bad_crc: false,
            packed: None,
        }
    }

    /// `count` small records.
    pub fn small(count: i64) -> Self {
        Self::of((0..count).map(|i| RawRecord::at(i, &format!("v{i}"))).collect())
    }

    /// One record with this value.
    pub fn holding(value: Vec<u8>) -> Self {
        Self::small(1).with(|batch| batch.records[0].value = Some(value))
    }

    /// With a producer id and sequence, epoch 0.
    #[must_use]
    pub fn sequenced(mut self, producer_id: i64, base_sequence: i32) -> Self {
        self.producer_id = producer_id;
        self.producer_epoch = 0;
        self.base_sequence = base_sequence;
        self
    }

    /// With a change.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The records before the codec.
    pub fn plain(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        self.records.iter().for_each(|record| record.write(&mut plain));
        plain
    }

    /// The bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let packed = self.packed.clone();
        let packed = packed.unwrap_or_else(|| self.codec.compress(self.plain()));
        let count = self.count.unwrap_or(i32::try_from(self.records.len()).unwrap());
        let newest = self.records.iter().map(|r| r.timestamp_delta).max().unwrap_or(0);
        let mut body = Vec::new();
        body.extend((self.attributes | self.codec as i16).to_be_bytes());
        body.extend(self.last_offset_delta.unwrap_or(count - 1).to_be_bytes());
        body.extend(self.base_timestamp.to_be_bytes());
        body.extend(self.max_timestamp.unwrap_or(self.base_timestamp + newest).to_be_bytes());
        body.extend(self.producer_id.to_be_bytes());
        body.extend(self.producer_epoch.to_be_bytes());
        body.extend(self.base_sequence.to_be_bytes());
        body.extend(count.to_be_bytes());
        body.extend(packed);
        let crc = crc32c::crc32c(&body) ^ u32::from(self.bad_crc);
        let mut out = self.base_offset.to_be_bytes().to_vec();
        out.extend(i32::try_from(body.len() + 9).unwrap().to_be_bytes());
        out.extend(self.leader_epoch.to_be_bytes());
        out.push(self.magic);
        out.extend(crc.to_be_bytes());
        out.extend(body);
        out
    }
}

/// A batch as a broker gave it.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are Kafka's")]
pub struct Parsed {
    pub base_offset: i64,
    pub leader_epoch: i32,
    pub magic: u8,
    pub crc_valid: bool,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub count: i32,
    /// The whole batch.
    pub bytes: Vec<u8>,
}

impl Parsed {
    /// The records, decompressed.
    pub fn records(&self) -> Vec<RawRecord> {
        let plain = Codec::decompress(self.attributes & 7, &self.bytes[HEADER..]);
        let mut at = plain.as_slice();
        (0..self.count).map(|_| read_record(&mut at)).collect()
    }

    /// Offset of the last record, or where it was.
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }
}

/// The whole batches at the start of `bytes`, and how many bytes of a cut one follow.
pub fn parse(mut bytes: &[u8]) -> (Vec<Parsed>, usize) {
    let mut batches = Vec::new();
    while bytes.len() >= HEADER {
        let int = |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let long = |at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let short = |at: usize| i16::from_be_bytes(bytes[at..at + 2].try_into().unwrap());
        let length = 12 + usize::try_from(int(8)).unwrap();
        if length > bytes.len() {
            break;
        }
        batches.push(Parsed {
            base_offset: long(0),
            leader_epoch: int(12),
            magic: bytes[16],
            crc_valid: crc32c::crc32c(&bytes[21..length]) == int(17).cast_unsigned(),
            attributes: short(21),
            last_offset_delta: int(23),
            base_timestamp: long(27),
            max_timestamp: long(35),
            producer_id: long(43),
            producer_epoch: short(51),
            base_sequence: int(53),
            count: int(57),
            bytes: bytes[..length].to_vec(),
        });
        bytes = &bytes[length..];
    }
    (batches, bytes.len())
}

fn varint(value: i64, out: &mut Vec<u8>) {
    let mut zigzag = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

fn nullable(value: Option<&[u8]>, out: &mut Vec<u8>) {
    match value {
        None => varint(-1, out),
        Some(value) => {
            varint(value.len() as i64, out);
            out.extend(value);
        }
    }
}

fn read_varint(at: &mut &[u8]) -> i64 {
    let (mut zigzag, mut shift) = (0u64, 0);
    loop {
        let byte = at[0];
        *at = &at[1..];
        zigzag |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
        }
    }
}

fn read_nullable(at: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(read_varint(at)).ok()?;
    let (value, rest) = at.split_at(length);
    *at = rest;
    Some(value.to_vec())
}

fn read_record(at: &mut &[u8]) -> RawRecord {
    let length = usize::try_from(read_varint(at)).unwrap();
    let (mut body, rest) = at.split_at(length);
    *at = rest;
    let attributes = body[0];
    body = &body[1..];
    let timestamp_delta = read_varint(&mut body);
    let offset_delta = read_varint(&mut body);
    let key = read_nullable(&mut body);
    let value = read_nullable(&mut body);
    let headers = (0..read_varint(&mut body))
        .map(|_| {
            let name = read_nullable(&mut body).unwrap();
            (String::from_utf8(name).unwrap(), read_nullable(&mut body))
        })
        .collect();
    RawRecord { offset_delta, timestamp_delta, key, value, headers, attributes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_in_every_codec() {
        for codec in Codec::ALL {
            let mut records: Vec<_> =
                (0..50).map(|i| RawRecord::at(i, &"xyz".repeat(90))).collect();
            records[3].key = None;
            records[4].value = None;
            records[5].headers = vec![("a".into(), None), ("a".into(), Some(vec![]))];
            records[6].timestamp_delta = -70_000;
            let bytes = Batch::of(records.clone()).with(|b| b.codec = codec).bytes();
            let (batches, rest) = parse(&[bytes.clone(), bytes[..70].to_vec()].concat());
            assert_eq!((batches.len(), rest), (1, 70));
            assert!(batches[0].crc_valid);
            assert_eq!(batches[0].records(), records, "{codec:?}");
        }
    }
}
