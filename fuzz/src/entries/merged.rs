//! Merge: what several batches held, their joined one holds, and what is cut out of it again.

use bytes::Bytes;
use strait::wire::batch::{BatchHeader, attribute};
use strait::wire::merge::{cut, merge};
use strait::wire::records::{OpenBatch, RecordsError};

use super::batches::{CODECS, OPENED_BYTES_MAX, content, reseal, sealed};

/// A record without its offset: time, attributes, key, value and headers.
type Content = (i64, u8, Vec<u8>);

/// The first byte chooses the codec; then batches, two bytes of length in front of each. The merge is only ever given whole
/// batches of one codec with a right sum, contiguous and not empty, so that is made of them.
pub(super) fn run(data: &Bytes) {
    let Some((&codec, mut left)) = data.split_first() else { return };
    let codec = CODECS[usize::from(codec) % CODECS.len()];
    let mut parts = Vec::new();
    while let Some((len, rest)) = left.split_first_chunk()
        && parts.len() < 16
    {
        let len = usize::from(u16::from_be_bytes(*len)).min(rest.len());
        let (part, rest) = rest.split_at(len);
        left = rest;
        let Some(part) = sealed(codec, part).and_then(|part| joinable(&part)) else { continue };
        parts.push(part);
    }
    if parts.is_empty() {
        return;
    }
    let merged = merge(parts.iter(), OPENED_BYTES_MAX);
    let one_by_one: Result<Vec<_>, _> = parts.iter().map(records).collect();
    match (one_by_one, merged) {
        (Ok(expected), Ok(merged)) => holds(&expected, &merged, &parts),
        // Bodies are copied unread: what is wrong within one is as wrong behind it.
        (Err(_), Ok(merged)) => {
            assert!(records(&merged).is_err(), "damage is gone");
            let count =
                |part: &Bytes| BatchHeader::parse(part).expect("it was joined").records_count;
            let counts: Vec<i32> = parts.iter().map(count).collect();
            let again =
                cut(&merged, &counts, OPENED_BYTES_MAX).expect("what is joined comes apart");
            let damaged = |batches: &[Bytes]| -> Vec<bool> {
                batches.iter().map(|batch| records(batch).is_err()).collect()
            };
            assert_eq!(damaged(&again), damaged(&parts));
        }
        (Err(_), Err(_)) => {}
        (Ok(_), Err(RecordsError::Codec(_))) => {} // all together are more than is opened
        (Ok(_), Err(error)) => panic!("each can be read, all together not: {error}"),
    }
}

/// The batch as one that may be joined; none if it cannot be.
fn joinable(batch: &Bytes) -> Option<Bytes> {
    let header = BatchHeader::parse(batch).ok()?;
    if header.records_count == 0 {
        return None;
    }
    let mut out = batch.to_vec();
    let attributes = header.attributes & attribute::CODEC_MASK;
    out[21..23].copy_from_slice(&attributes.to_be_bytes());
    out[23..27].copy_from_slice(&(header.records_count - 1).to_be_bytes());
    reseal(&mut out);
    Some(out.into())
}

fn records(batch: &Bytes) -> Result<Vec<Content>, RecordsError> {
    let opened = OpenBatch::open(batch, OPENED_BYTES_MAX)?;
    let owned = opened.records().map(|record| {
        record.map(|record| {
            let (time, attributes, body) = content(&record);
            (time, attributes, body.to_vec())
        })
    });
    owned.collect()
}

fn holds(expected: &[Vec<Content>], merged: &Bytes, parts: &[Bytes]) {
    let header = BatchHeader::parse(merged).expect("we wrote it");
    assert!(header.is_contiguous() && header.base_offset == 0);
    assert_eq!(header.total_bytes(), merged.len());
    let read = records(merged).expect("we wrote it");
    assert!(read.iter().eq(expected.iter().flatten()), "other records than one by one");
    assert_eq!(read.iter().map(|(time, ..)| *time).max(), Some(header.max_timestamp));
    let counts: Vec<i32> = expected.iter().map(|records| records.len() as i32).collect();
    let again = cut(merged, &counts, OPENED_BYTES_MAX).expect("it holds these");
    assert_eq!(again.len(), parts.len());
    for (piece, expected) in again.iter().zip(expected) {
        assert_eq!(&records(piece).expect("we wrote it"), expected);
    }
    let short = &counts[1..];
    assert!(cut(merged, short, OPENED_BYTES_MAX).is_err(), "records are left over in silence");
}
