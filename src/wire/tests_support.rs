//! What the tests of `wire/` share: batches, and the attacks that every decoder must survive.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use super::batch::Codec;
use super::crc::crc32c;
use super::records::{self, OpenBatch, RecordsError};
use super::{Request, WireError};

/// An uncompressed batch of `count` records at `base`, in the words of `kafka-protocol`.
pub fn batch(base: i64, count: i32) -> Bytes {
    let records: Vec<Record> = (0..count).map(|i| record(base, i)).collect();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    let mut out = BytesMut::new();
    RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
    out.freeze()
}

fn record(base: i64, index: i32) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 3,
        producer_id: 77,
        producer_epoch: 2,
        timestamp_type: TimestampType::Creation,
        offset: base + i64::from(index),
        sequence: 500 + index,
        timestamp: 1_700_000_000_000 + i64::from(index),
        key: Some(Bytes::from(format!("key {index}"))),
        value: Some(Bytes::from(vec![index as u8; 20])),
        headers: Default::default(),
    }
}

/// `body` decodes; cut anywhere, or with a byte behind it, it is an error and never a panic.
pub fn survives_cuts<R: Request>(version: i16, body: &Bytes) -> R::Response {
    for len in 0..body.len() {
        assert!(R::decode(version, &body.slice(..len)).is_err(), "v{version} cut at {len}");
    }
    let longer: Bytes = [&body[..], &[0]].concat().into();
    assert!(R::decode(version, &longer).is_err(), "v{version} with a byte more");
    survives_damage::<R>(version, body);
    R::decode(version, body).unwrap_or_else(|error| panic!("v{version}: {error}"))
}

/// Every byte replaced by the worst ones: only the absence of panics and of runaway reservations counts.
pub fn survives_damage<R: Request>(version: i16, body: &Bytes) {
    for at in 0..body.len() {
        for bad in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut bytes = body.to_vec();
            bytes[at] = bad;
            let _ = R::decode(version, &bytes.into());
        }
        // A length of 2^31 - 1 and one of 2^32 - 2, where a varint may stand.
        for bad in [[0xff, 0xff, 0xff, 0xff, 0x07], [0xff, 0xff, 0xff, 0xff, 0x0f]] {
            let bytes = [&body[..at], &bad, &body[at..]].concat();
            let _ = R::decode(version, &bytes.into());
        }
    }
}

/// The request as it is written.
pub fn encoded<R: Request>(request: &R, version: i16) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::new();
    request.encode(version, &mut out)?;
    Ok(out)
}

/// The request as it is written, read back by the crate, to its last byte.
pub fn written<M: Decodable>(request: &impl Request, version: i16) -> M {
    let mut bytes = Bytes::from(encoded(request, version).unwrap());
    let message = M::decode(&mut bytes, version).unwrap();
    assert!(bytes.is_empty());
    message
}

/// A message as the crate writes it.
pub fn crate_bytes(message: &impl Encodable, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(&mut out, version).unwrap();
    out.freeze()
}

/// All codecs.
pub const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// A file of `testdata/`, written by the Java client.
pub fn java(name: &str) -> Bytes {
    let path = format!("{}/src/wire/testdata/java-{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}")).into()
}

/// The name of a codec's files in `testdata/`.
pub fn java_name(codec: Codec) -> String {
    format!("{codec:?}").to_lowercase()
}

/// A record with nothing borrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl OwnedRecord {
    fn of(record: &records::Record<'_>) -> Self {
        let headers =
            record.headers().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)));
        Self {
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: headers.collect(),
        }
    }
}

/// All records of a batch.
pub fn records_of(batch: &Bytes) -> Result<Vec<OwnedRecord>, RecordsError> {
    let open = OpenBatch::open(batch, 1 << 20)?;
    let records = open.records().map(|record| record.map(|record| OwnedRecord::of(&record)));
    records.collect()
}

/// Record `i` of the 20 in every file of `testdata/`.
pub fn expected(i: i64) -> OwnedRecord {
    let key = match i % 4 {
        0 => None,
        1 => Some(vec![]),
        _ => Some(format!("key {i}").into_bytes()),
    };
    let value = match i % 5 {
        0 => None,
        1 => Some(vec![]),
        _ => Some(vec![b'v'; i as usize * 20]),
    };
    let headers = [(&b"h"[..], None), (b"h", Some(&b"x"[..])), (b"", Some(b""))];
    let headers = headers.map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)));
    OwnedRecord {
        offset: 1000 + i,
        timestamp: 1_700_000_000_000 + i * 10 - if i == 5 { 1000 } else { 0 },
        key,
        value,
        headers: if i % 3 == 0 { headers.to_vec() } else { vec![] },
    }
}

/// The batch with other attributes, and a CRC that fits.
pub fn with_attributes(batch: &Bytes, bits: u16) -> Bytes {
    let mut out = batch.to_vec();
    out[21..23].copy_from_slice(&bits.to_be_bytes());
    with_crc(out)
}

/// The batch with a CRC that fits.
pub fn with_crc(mut batch: Vec<u8>) -> Bytes {
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}
