//! What the tests of `wire/` share: batches, and the attacks that every decoder must survive.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

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
