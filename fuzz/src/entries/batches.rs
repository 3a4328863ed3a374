//! Record batches: the walk, the records, recode, the stamp.
//!
//! A fuzzer does not guess a checksum, so most inputs have theirs made right first; their first byte says how.

use bytes::Bytes;
use strait::wire::batch::{
    BatchHeader, Batches, CRC_START, Codec, ControlType, HEADER_BYTES, LENGTH_END, verify_crc,
};
use strait::wire::codec::compress;
use strait::wire::crc::crc32c;
use strait::wire::recode::{Recode, Times};
use strait::wire::records::{OpenBatch, Record, RecordsError};
use strait::wire::stamp::{Stamp, stamp};

/// What a batch may hold here; the product's own cap would make a fuzzer slow.
pub const OPENED_BYTES_MAX: usize = 1 << 20;

pub(super) const CODECS: [Codec; 5] =
    [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// First byte: 0 leaves the sums as they are, 1 makes them right, others also wrap what follows as an old compressed set.
pub(super) fn walk(data: &Bytes) {
    let Some((&mode, _)) = data.split_first() else { return };
    let mut records = data.slice(1..);
    if mode > 0 {
        records = repaired(&records);
    }
    if mode > 1 {
        records = wrapped(CODECS[usize::from(mode) % 4], mode & 0x80, &records);
    }
    walk_new(&records);
    walk_upgraded(records);
}

fn walk_new(records: &Bytes) {
    let mut walk = Batches::new(records.clone());
    let (mut next, mut seen) = (0, 0);
    while let Some(step) = walk.next() {
        let Ok((header, batch)) = step else {
            assert!(walk.next().is_none(), "the walk goes on behind an error");
            break;
        };
        assert_eq!(batch, records[seen..seen + header.total_bytes()]);
        assert!(header.base_offset >= next && header.next_offset() > header.base_offset);
        assert_eq!(BatchHeader::parse(&header.to_bytes()), Ok(header));
        next = header.next_offset();
        seen += batch.len();
        let _ = (verify_crc(&batch), ControlType::of(&batch));
    }
    assert_eq!(seen + walk.left(), records.len());
}

fn walk_upgraded(records: Bytes) {
    let frame = records.as_ptr_range();
    let mut walk = Batches::new(records);
    let (mut next, mut left) = (0, walk.left());
    while let Some(step) = walk.next_upgraded() {
        let Ok((header, batch)) = step else {
            assert!(walk.next_upgraded().is_none(), "the walk goes on behind an error");
            break;
        };
        assert_eq!(BatchHeader::parse(&batch), Ok(header));
        assert!(header.base_offset >= next && walk.left() < left);
        (next, left) = (header.next_offset(), walk.left());
        if !frame.contains(&batch.as_ptr()) {
            let opened = OpenBatch::open(&batch, usize::MAX).expect("we wrote it");
            assert_eq!(all(&opened).expect("we wrote it").len(), header.records_count as usize);
        }
    }
}

/// `records` with the sum of every message and batch made right.
pub(super) fn repaired(records: &[u8]) -> Bytes {
    let mut out = records.to_vec();
    let mut at = 0;
    while let Some(size) = out.get(at + 8..at + LENGTH_END).and_then(<[u8]>::first_chunk) {
        let size = usize::try_from(i32::from_be_bytes(*size)).unwrap_or(usize::MAX);
        let start = at + LENGTH_END;
        let Some(message) = start.checked_add(size).and_then(|end| out.get_mut(start..end)) else {
            break;
        };
        match message.get(4) {
            Some(0 | 1) => {
                let mut crc = flate2::Crc::new();
                crc.update(&message[4..]);
                message[..4].copy_from_slice(&crc.sum().to_be_bytes());
            }
            Some(2) if message.len() >= HEADER_BYTES - LENGTH_END => {
                let crc = crc32c(&message[CRC_START - LENGTH_END..]);
                message[5..9].copy_from_slice(&crc.to_be_bytes());
            }
            _ => {}
        }
        at = start + size;
    }
    out.into()
}

/// `set` as the value of a compressed message of format 0 or 1.
fn wrapped(codec: Codec, format: u8, set: &[u8]) -> Bytes {
    let magic = u8::from(format != 0);
    let mut value = Vec::new();
    compress(codec, set, &mut value).expect("writing to memory");
    let mut message = vec![0, 0, 0, 0, magic, codec as u8];
    message.extend(&[0; 8][..usize::from(magic) * 8]);
    message.extend((-1i32).to_be_bytes());
    message.extend((value.len() as u32).to_be_bytes());
    message.extend(value);
    let mut out = 1_000_000i64.to_be_bytes().to_vec();
    out.extend((message.len() as u32).to_be_bytes());
    out.extend(message);
    repaired(&out)
}

/// One batch out of `data`. The first byte: 0 takes it as it is, 1 makes length, format and sum right, others also compress
/// what stands behind the header.
fn crafted(data: &[u8]) -> Option<(u8, Bytes)> {
    let (&mode, batch) = data.split_first()?;
    if mode == 0 {
        return Some((mode, Bytes::copy_from_slice(batch)));
    }
    let codec = (mode > 1).then(|| CODECS[usize::from(mode) % CODECS.len()]);
    sealed(codec, batch).map(|batch| (mode, batch))
}

/// A header and records with length, format and sum made right; with a codec, the records compressed by it.
pub(super) fn sealed(codec: impl Into<Option<Codec>>, batch: &[u8]) -> Option<Bytes> {
    let mut out = batch.get(..HEADER_BYTES)?.to_vec();
    let records = &batch[HEADER_BYTES..];
    if let Some(codec) = codec.into() {
        out[22] = out[22] & !7 | codec as u8;
        compress(codec, records, &mut out).expect("writing to memory");
    } else {
        out.extend_from_slice(records);
    }
    let length = (out.len() - LENGTH_END) as u32;
    out[8..LENGTH_END].copy_from_slice(&length.to_be_bytes());
    out[16] = 2;
    reseal(&mut out);
    Some(out.into())
}

/// The batch's sum made right.
pub(super) fn reseal(batch: &mut [u8]) {
    let crc = crc32c(&batch[CRC_START..]);
    batch[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
}

/// A record's time and content. Its offset is not of its content.
pub(super) fn content<'a>(record: &Record<'a>) -> (i64, u8, &'a [u8]) {
    (record.timestamp, record.attributes, record.body)
}

fn all(batch: &OpenBatch) -> Result<Vec<Record<'_>>, RecordsError> {
    batch.records().collect()
}

pub(super) fn records(data: &Bytes) {
    let Some((mode, batch)) = crafted(data) else { return };
    let opened = OpenBatch::open(&batch, OPENED_BYTES_MAX);
    if mode > 1 && BatchHeader::parse(&batch).is_ok() && data.len() < OPENED_BYTES_MAX {
        assert!(opened.is_ok(), "a codec does not read what it wrote: {opened:?}");
    }
    let Ok(opened) = opened else { return };
    let header = opened.header();
    let mut next = header.base_offset;
    let mut count = 0;
    let mut records = opened.records();
    for record in records.by_ref() {
        let Ok(record) = record else { break };
        assert!((next..=header.last_offset()).contains(&record.offset));
        next = record.offset + 1;
        count += 1;
        let parts = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        let headers: usize =
            record.headers().map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len)).sum();
        assert!(parts + headers <= record.body.len());
    }
    assert!(records.next().is_none() && count <= header.records_count);
}

/// Behind the crafted batch's first byte: whose times, the size limit, and how many offsets are not wanted.
pub(super) fn recode(data: &Bytes) {
    let Some((&[mode, times, size, skip], rest)) = data.split_first_chunk() else { return };
    let Some((_, batch)) = crafted(&[&[mode], rest].concat()) else { return };
    let Ok(mut source) = OpenBatch::open(&batch, OPENED_BYTES_MAX) else { return };
    let times = if times & 1 == 0 { Times::Append } else { Times::Producer };
    if times == Times::Producer {
        source.show_producer_times();
    }
    let header = *source.header();
    let from = header.base_offset.saturating_add(skip.into());
    let batch_bytes_max = if size == 0 { usize::MAX } else { HEADER_BYTES + usize::from(size) * 8 };
    let pieces = Recode { times, batch_bytes_max }.run(&batch, |offset| offset >= from);
    let kept: Result<Vec<_>, _> = all(&source)
        .map(|records| records.into_iter().filter(|record| record.offset >= from).collect());
    let (pieces, kept): (_, Vec<Record<'_>>) = match (pieces, kept) {
        (Ok(pieces), Ok(kept)) => (pieces, kept),
        (Err(RecordsError::RecordTooLarge { .. }), Ok(_)) if size > 0 => return,
        (Err(_), Err(_)) => return,
        (pieces, kept) => panic!("{pieces:?} of {kept:?}"),
    };
    let mut kept = &kept[..];
    for (index, piece) in pieces.iter().enumerate() {
        assert!(piece.bytes.len() <= batch_bytes_max);
        let opened = OpenBatch::open(&piece.bytes, usize::MAX).expect("we wrote it");
        let written = opened.header();
        assert!(written.is_contiguous() && written.total_bytes() == piece.bytes.len());
        assert_eq!((written.base_offset, written.codec()), (0, header.codec()));
        assert_eq!(written.records_count, piece.records_count);
        let records = all(&opened).expect("we wrote it");
        let (expected, rest) = kept.split_at(records.len());
        assert!(records.iter().map(content).eq(expected.iter().map(content)));
        assert_eq!(
            records.iter().map(|record| record.timestamp).max(),
            Some(written.max_timestamp)
        );
        let last = if rest.is_empty() {
            header.last_offset()
        } else {
            expected[expected.len() - 1].offset
        };
        assert_eq!((piece.first_offset, piece.last_offset), (expected[0].offset, last));
        assert!(!rest.is_empty() || index + 1 == pieces.len());
        kept = rest;
    }
    assert!(kept.is_empty(), "records are lost");
}

/// Producer id, epoch and sequence, then a batch whose sum may be wrong.
pub(super) fn stamped(data: &Bytes) {
    let Some((identity, batch)) = data.split_first_chunk::<14>() else { return };
    let [p0, p1, p2, p3, p4, p5, p6, p7, e0, e1, s0, s1, s2, s3] = *identity;
    let identity = Stamp {
        producer_id: i64::from_be_bytes([p0, p1, p2, p3, p4, p5, p6, p7]),
        producer_epoch: i16::from_be_bytes([e0, e1]),
        base_sequence: i32::from_be_bytes([s0, s1, s2, s3]),
        // Of the same input as ever: the corpus keeps its meaning.
        transactional: s0 & 1 == 1,
    };
    let mut batch = batch.to_vec();
    if batch.len() >= LENGTH_END {
        let length = (batch.len() - LENGTH_END) as u32;
        batch[8..LENGTH_END].copy_from_slice(&length.to_be_bytes());
    }
    let Ok(head) = stamp(&batch, identity) else {
        assert!(BatchHeader::parse(&batch).is_err());
        return;
    };
    let (before, after) = (BatchHeader::parse(&batch), BatchHeader::parse(&head));
    let (before, after) = (before.expect("it was stamped"), after.expect("we wrote it"));
    // The distance between the sum and the right one stays.
    let wrong = before.crc ^ crc32c(&batch[CRC_START..]);
    batch[..HEADER_BYTES].copy_from_slice(&head);
    assert_eq!(after.crc, crc32c(&batch[CRC_START..]) ^ wrong);
    let expected = BatchHeader {
        base_offset: 0,
        partition_leader_epoch: -1,
        crc: after.crc,
        attributes: before.attributes & 0x27 | u16::from(identity.transactional) << 4,
        producer_id: identity.producer_id,
        producer_epoch: identity.producer_epoch,
        base_sequence: identity.base_sequence,
        ..before
    };
    assert_eq!(after, expected);
}
