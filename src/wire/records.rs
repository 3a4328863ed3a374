//! Records within a batch: reading them, and building batches of them. Only recode, tests and the embedded broker look here;
//! the main path never does.
//!
//! A v2 record: length, attributes, timestamp delta, offset delta (zigzag varints but for the attributes byte), then the
//! body: key, value, headers. Bodies are copied as they are, so a record's content cannot change on its way.

use std::fmt;

use bytes::Bytes;

use super::WireError;
use super::batch::{
    BatchError, BatchHeader, CRC_START, Codec, HEADER_BYTES, LENGTH_END, attribute, verify_crc,
};
use super::codec::{CodecError, compress, decompress};
use super::crc::crc32c;

/// Why a batch's records cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordsError {
    /// The header, or the CRC.
    Batch(BatchError),
    /// The compressed block.
    Codec(CodecError),
    /// A record.
    Record {
        /// Its place in the batch.
        index: i32,
        /// What is wrong.
        error: WireError,
    },
    /// Bytes behind the last record that the header counts.
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// One record alone is larger than a batch may be.
    RecordTooLarge {
        /// Its offset at the source.
        offset: i64,
        /// The batch that would hold it, in bytes.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
}

impl fmt::Display for RecordsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch(error) => error.fmt(f),
            Self::Codec(error) => error.fmt(f),
            Self::Record { index, error } => write!(f, "record {index} of the batch: {error}"),
            Self::Trailing { bytes } => write!(f, "{bytes} bytes behind the last record"),
            Self::RecordTooLarge { offset, bytes, max } => write!(
                f,
                "the record at offset {offset} makes a batch of {bytes} bytes, where {max} are allowed"
            ),
        }
    }
}

impl std::error::Error for RecordsError {}

impl From<BatchError> for RecordsError {
    fn from(error: BatchError) -> Self {
        Self::Batch(error)
    }
}

impl From<CodecError> for RecordsError {
    fn from(error: CodecError) -> Self {
        Self::Codec(error)
    }
}

/// A record, borrowed from its opened batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: i64,
    /// Its time as readers see it: the batch's, where the broker sets the time.
    pub timestamp: i64,
    /// Unused by Kafka so far.
    pub attributes: u8,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone on a compacted topic.
    pub value: Option<&'a [u8]>,
    /// Key, value and headers as they stand in the batch.
    pub body: &'a [u8],
    headers: &'a [u8],
    headers_count: u32,
}

impl<'a> Record<'a> {
    /// The headers in order, keys repeated or not. Keys should be UTF-8, which no broker checks.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let mut fields = Fields { left: self.headers };
        // The whole record was walked when it was read, so that nothing can be missing here.
        (0..self.headers_count).map_while(move |_| fields.header().ok())
    }
}

/// A batch's records, opened.
#[derive(Clone, Debug)]
pub struct OpenBatch {
    header: BatchHeader,
    records: Bytes,
}

impl OpenBatch {
    /// Checks the CRC of `batch` (whole, one) and opens its compressed block of at most `max` bytes.
    pub fn open(batch: &Bytes, max: usize) -> Result<Self, RecordsError> {
        verify_crc(batch)?;
        let header = BatchHeader::parse(batch)?;
        let payload = batch.slice(HEADER_BYTES..header.total_bytes());
        let records = decompress(header.codec()?, &payload, max)?;
        Ok(Self { header, records })
    }

    /// From now on records have the times that their producer gave them, where the broker has set others.
    pub fn show_producer_times(&mut self) {
        self.header.attributes &= !attribute::LOG_APPEND_TIME;
    }

    /// Its header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Its records. The walk ends at the first error.
    pub fn records(&self) -> Records<'_> {
        Records {
            header: &self.header,
            left: &self.records,
            index: 0,
            next_delta: 0,
            failed: false,
        }
    }
}

/// The walk over a batch's records.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    header: &'a BatchHeader,
    left: &'a [u8],
    index: i32,
    /// Offsets must rise.
    next_delta: i64,
    failed: bool,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if self.index == self.header.records_count {
            self.failed = true;
            let bytes = self.left.len();
            return (bytes > 0).then_some(Err(RecordsError::Trailing { bytes }));
        }
        let record = self.read().map_err(|error| RecordsError::Record { index: self.index, error });
        self.index += 1;
        self.failed = record.is_err();
        Some(record)
    }
}

impl<'a> Records<'a> {
    fn read(&mut self) -> Result<Record<'a>, WireError> {
        let mut batch = Fields { left: self.left };
        let body = batch.sized("record")?.ok_or(WireError::BadValue { what: "record" })?;
        self.left = batch.left;

        let mut fields = Fields { left: body };
        let attributes = fields.byte("record attributes")?;
        let timestamp_delta = fields.varint(64, "timestamp delta")?;
        let offset_delta = fields.varint(32, "offset delta")?;
        let last = i64::from(self.header.last_offset_delta);
        if offset_delta < self.next_delta || offset_delta > last {
            return Err(WireError::BadValue { what: "offset delta" });
        }
        self.next_delta = offset_delta + 1;

        let body = fields.left;
        let key = fields.sized("key")?;
        let value = fields.sized("value")?;
        let what = "header count";
        // Each takes two bytes at least.
        let headers_count = u32::try_from(fields.varint(32, what)?)
            .ok()
            .filter(|&count| count as usize <= fields.left.len() / 2)
            .ok_or(WireError::BadValue { what })?;
        let headers = fields.left;
        for _ in 0..headers_count {
            fields.header()?;
        }
        if !fields.left.is_empty() {
            return Err(WireError::BadValue { what: "record length" });
        }
        let timestamp = match self.header.is_log_append_time() {
            true => self.header.max_timestamp,
            // Java wraps around too.
            false => self.header.base_timestamp.wrapping_add(timestamp_delta),
        };
        let offset = self.header.base_offset + offset_delta;
        Ok(Record { offset, timestamp, attributes, key, value, body, headers, headers_count })
    }
}

/// Reads the fields within a record.
pub(super) struct Fields<'a> {
    left: &'a [u8],
}

impl<'a> Fields<'a> {
    /// At their beginning.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    /// What is not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.left
    }

    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, WireError> {
        let (&byte, rest) = self.left.split_first().ok_or(WireError::Truncated { what })?;
        self.left = rest;
        Ok(byte)
    }

    /// A zigzag varint that fits `bits`.
    pub(super) fn varint(&mut self, bits: u32, what: &'static str) -> Result<i64, WireError> {
        let mut value = 0u64;
        for shift in (0..bits).step_by(7) {
            let byte = self.byte(what)?;
            let payload = u64::from(byte & 0x7f);
            if bits - shift < 7 && payload >> (bits - shift) != 0 {
                return Err(WireError::BadValue { what });
            }
            value |= payload << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(WireError::BadValue { what })
    }

    /// A length and as many bytes; -1 for none.
    pub(super) fn sized(&mut self, what: &'static str) -> Result<Option<&'a [u8]>, WireError> {
        let claimed = self.varint(32, what)?;
        if claimed == -1 {
            return Ok(None);
        }
        let left = self.left.len();
        let (bytes, rest) = usize::try_from(claimed)
            .ok()
            .and_then(|len| self.left.split_at_checked(len))
            .ok_or(WireError::BadLength { what, claimed, left })?;
        self.left = rest;
        Ok(Some(bytes))
    }

    fn header(&mut self) -> Result<(&'a [u8], Option<&'a [u8]>), WireError> {
        let key = self.sized("header key")?.ok_or(WireError::BadValue { what: "header key" })?;
        Ok((key, self.sized("header value")?))
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut value = zigzag(value);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: i64) -> usize {
    (70 - (zigzag(value) | 1).leading_zeros() as usize) / 7
}

fn put_sized(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// Builds a batch that a stock broker takes: base offset 0, offset deltas 0, 1, 2 and so on, no producer id (that is the
/// stamp's).
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    codec: Codec,
    /// Room for the header, then the records as they are before the codec.
    out: Vec<u8>,
    count: i32,
    /// The next record's offset delta: the count, but where a log's gaps are kept.
    next_delta: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(codec: Codec) -> Self {
        let out = vec![0; HEADER_BYTES];
        Self { codec, out, count: 0, next_delta: 0, base_timestamp: -1, max_timestamp: -1 }
    }

    /// Makes room for so many bytes more, before the codec.
    pub fn reserve(&mut self, bytes: usize) {
        self.out.reserve(bytes);
    }

    /// Records so far.
    pub fn count(&self) -> i32 {
        self.count
    }

    /// Bytes so far, before the codec.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// Adds a record.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        let mut body = Vec::new();
        put_sized(&mut body, key);
        put_sized(&mut body, value);
        put_varint(&mut body, headers.len() as i64);
        for (key, value) in headers {
            put_sized(&mut body, Some(key));
            put_sized(&mut body, *value);
        }
        self.push_body(timestamp, 0, &body);
    }

    /// Adds a record whose key, value and headers are encoded already.
    pub fn push_body(&mut self, timestamp: i64, attributes: u8, body: &[u8]) {
        if self.count == 0 {
            (self.base_timestamp, self.max_timestamp) = (timestamp, timestamp);
        }
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        let offset_delta = i64::from(self.next_delta);
        let len = 1 + varint_len(timestamp_delta) + varint_len(offset_delta) + body.len();
        put_varint(&mut self.out, len as i64);
        self.out.push(attributes);
        put_varint(&mut self.out, timestamp_delta);
        put_varint(&mut self.out, offset_delta);
        self.out.extend_from_slice(body);
        self.count += 1;
        self.next_delta += 1;
        self.max_timestamp = self.max_timestamp.max(timestamp);
    }

    /// Leaves a gap in the offsets, as a log has them; what is to be sent must have none.
    pub(super) fn skip_to(&mut self, offset_delta: i32) {
        self.next_delta = self.next_delta.max(offset_delta);
    }

    /// The batch, with its CRC.
    pub fn finish(self) -> Result<Bytes, RecordsError> {
        let mut out = self.out;
        if self.codec != Codec::None {
            let mut compressed = vec![0; HEADER_BYTES];
            compress(self.codec, out.get(HEADER_BYTES..).unwrap_or_default(), &mut compressed)?;
            out = compressed;
        }
        let length = out.len() - LENGTH_END;
        let batch_length =
            i32::try_from(length).map_err(|_| BatchError::Length { claimed: i32::MAX })?;
        let mut header = BatchHeader {
            base_offset: 0,
            batch_length,
            partition_leader_epoch: -1,
            magic: 2,
            crc: 0,
            attributes: self.codec as u16,
            last_offset_delta: (self.next_delta - 1).max(0),
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            records_count: self.count,
        };
        out[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        header.crc = crc32c(&out[CRC_START..]);
        out[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{
        CODECS, OwnedRecord, expected, java, java_name, records_of, with_attributes, with_crc,
    };
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_java_wrote() {
        for codec in CODECS {
            let batch = java(&format!("{}.batch", java_name(codec)));
            let header = BatchHeader::parse(&batch).unwrap();
            assert_eq!((header.codec(), header.records_count), (Ok(codec), 20));
            let records = records_of(&batch).unwrap();
            assert_eq!(records, (0..20).map(expected).collect::<Vec<_>>(), "{codec:?}");
        }
    }

    #[test]
    fn reads_what_the_log_cleaner_left() {
        for codec in CODECS {
            let batch = java(&format!("{}-compacted.batch", java_name(codec)));
            let header = BatchHeader::parse(&batch).unwrap();
            assert!(header.has_delete_horizon() && !header.is_contiguous());
            assert_eq!((header.base_offset, header.last_offset()), (1000, 1019));
            let records = records_of(&batch).unwrap();
            let kept = (0..20).filter(|i| i % 3 != 1).map(expected);
            assert_eq!(records, kept.collect::<Vec<_>>(), "times survive the horizon");
        }
    }

    #[test]
    fn the_brokers_time_hides_the_producers() {
        let batch = with_attributes(&java("none.batch"), 0x08);
        let mut open = OpenBatch::open(&batch, 1 << 20).unwrap();
        let max = open.header().max_timestamp;
        assert!(open.records().all(|record| record.unwrap().timestamp == max));
        open.show_producer_times();
        let times = open.records().map(|record| record.unwrap().timestamp);
        assert!(times.eq((0..20).map(|i| expected(i).timestamp)));
    }

    fn any_record() -> impl Strategy<Value = OwnedRecord> {
        let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..150));
        let header = (prop::collection::vec(any::<u8>(), 0..70), bytes());
        let time = prop_oneof![any::<i64>(), Just(-1), 1_700_000_000_000i64..1_700_000_100_000];
        (time, bytes(), bytes(), prop::collection::vec(header, 0..4)).prop_map(
            |(timestamp, key, value, headers)| OwnedRecord {
                offset: 0,
                timestamp,
                key,
                value,
                headers,
            },
        )
    }

    fn built(codec: Codec, records: &[OwnedRecord]) -> Bytes {
        let mut builder = BatchBuilder::new(codec);
        for record in records {
            let headers: Vec<_> =
                record.headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            builder.push(record.timestamp, key, value, &headers);
        }
        builder.finish().unwrap()
    }

    proptest! {
        #[test]
        fn builds_what_it_reads(mut records in prop::collection::vec(any_record(), 1..40)) {
            records.iter_mut().zip(0..).for_each(|(record, offset)| record.offset = offset);
            for codec in CODECS {
                let batch = built(codec, &records);
                let header = BatchHeader::parse(&batch).unwrap();
                prop_assert!(header.is_contiguous());
                prop_assert_eq!(header.total_bytes(), batch.len());
                let max = records.iter().map(|record| record.timestamp).max();
                prop_assert_eq!(Some(header.max_timestamp), max);
                prop_assert_eq!(header.base_timestamp, records[0].timestamp);
                prop_assert_eq!(&records_of(&batch).unwrap(), &records);
            }
        }

        #[test]
        fn the_crate_reads_what_is_built(mut records in prop::collection::vec(any_record(), 1..9)) {
            for record in &mut records {
                // The crate wants UTF-8 and keeps one header of a name; it adds times with overflow checks.
                record.timestamp &= (1 << 50) - 1;
                record.headers = vec![(b"name".to_vec(), record.key.clone())];
            }
            let mut batch = built(Codec::None, &records);
            let read = kafka_protocol::records::RecordBatchDecoder::decode(&mut batch).unwrap();
            prop_assert_eq!(read.records.len(), records.len());
            for (i, (theirs, ours)) in read.records.iter().zip(&records).enumerate() {
                prop_assert_eq!(theirs.offset, i as i64);
                prop_assert_eq!(theirs.timestamp, ours.timestamp);
                prop_assert_eq!(theirs.key.as_deref(), ours.key.as_deref());
                prop_assert_eq!(theirs.value.as_deref(), ours.value.as_deref());
                let (_, value) = theirs.headers.first().unwrap();
                prop_assert_eq!(value.as_deref(), ours.headers[0].1.as_deref());
            }
        }
    }

    #[test]
    fn damage_is_an_error_or_other_records_never_a_panic() {
        for name in ["none.batch", "none-compacted.batch"] {
            let batch = java(name);
            for at in HEADER_BYTES..batch.len().min(400) {
                for bad in [0x00, 0x01, 0x7f, 0x80, 0xff, batch[at] ^ 1] {
                    let mut bytes = batch.to_vec();
                    bytes[at] = bad;
                    let _ = records_of(&with_crc(bytes));
                }
            }
        }
    }

    /// `java("none.batch")` with its records replaced by `records`.
    fn of_raw(count: i32, records: &[u8]) -> Bytes {
        let mut bytes = java("none.batch")[..HEADER_BYTES].to_vec();
        bytes.extend(records);
        let length = bytes.len() as i32 - 12;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[23..27].copy_from_slice(&5i32.to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        with_crc(bytes)
    }

    #[test]
    fn refuses_what_is_not_a_record() {
        // length 6, attributes, timestamp delta, offset delta, null key, null value, no headers
        let good = [12, 0, 0, 0, 1, 1, 0];
        let at_delta = |delta: u8| [12, 0, 0, delta, 1, 1, 0];
        assert_eq!(records_of(&of_raw(1, &good)).unwrap().len(), 1);
        assert_eq!(records_of(&of_raw(0, &[])).unwrap().len(), 0);
        let two = [at_delta(2), at_delta(10)].concat();
        assert_eq!(records_of(&of_raw(2, &two)).unwrap()[1].offset, 1005);

        let cases: &[(&str, i32, Vec<u8>)] = &[
            ("fewer records than counted", 2, good.to_vec()),
            ("more records than counted", 1, [good, at_delta(2)].concat()),
            ("offsets that stand still", 2, [good, good].concat()),
            ("offsets that fall", 2, [at_delta(2), good].concat()),
            ("an offset before the batch", 1, at_delta(1).to_vec()),
            ("an offset behind the batch", 1, at_delta(12).to_vec()),
            ("a record without length", 1, vec![1]),
            ("a length of 2^31 - 1", 1, vec![0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0]),
            ("a length of more than 32 bits", 1, vec![0xfe, 0xff, 0xff, 0xff, 0x1f, 0, 0]),
            ("a varint without end", 1, vec![0xff; 20]),
            ("a key of length -2", 1, vec![12, 0, 0, 0, 3, 1, 0]),
            ("a key beyond the record", 1, vec![12, 0, 0, 0, 8, 1, 0]),
            ("a byte behind the headers", 1, vec![14, 0, 0, 0, 1, 1, 0, 9]),
            ("more headers than bytes", 1, vec![12, 0, 0, 0, 1, 1, 2]),
            ("2^31 - 1 headers", 1, vec![20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f]),
            ("a negative header count", 1, vec![12, 0, 0, 0, 1, 1, 1]),
            ("a header without key", 1, vec![16, 0, 0, 0, 1, 1, 2, 1, 1]),
        ];
        for (what, count, records) in cases {
            assert!(records_of(&of_raw(*count, records)).is_err(), "{what}");
        }
    }

    #[test]
    fn refuses_a_wrong_crc_before_it_opens_anything() {
        for codec in CODECS {
            let mut bytes = java(&format!("{}.batch", java_name(codec))).to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            let error = records_of(&bytes.into()).unwrap_err();
            assert!(matches!(error, RecordsError::Batch(BatchError::Crc { .. })), "{error}");
        }
    }

    #[test]
    fn unknown_codecs() {
        for id in 5..8 {
            let error = records_of(&with_attributes(&java("none.batch"), id)).unwrap_err();
            assert_eq!(error, RecordsError::Batch(BatchError::Codec { id: id as u8 }));
        }
    }
}
