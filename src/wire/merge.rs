//! Merge: several small batches written as one, so that a partition's records cross a long link in few requests (a request
//! takes one batch a partition).
//!
//! Bodies are copied, never interpreted; offset and timestamp deltas are new, and so is the CRC: the sources' were checked
//! when they were admitted (I3). No broker checks the deltas of an uncompressed batch, so what comes in is read strictly
//! here, and what goes out is read again in tests. Which batches may be joined is the engine's question.

use bytes::Bytes;

use super::WireError;
use super::batch::{BatchError, BatchHeader, HEADER_BYTES, verify_crc};
use super::codec::{Opener, decompress};
use super::records::{BatchBuilder, Fields, RecordsError};

/// The records of `batches` (whole, contiguous, of one codec, CRC checked) as one batch of that codec. Opens compressed
/// blocks of `max` bytes at most, all together.
///
/// Errors if one of them holds other records than its header says: it may still be passed on as it is.
pub fn merge<'a>(
    batches: impl Iterator<Item = &'a Bytes> + Clone,
    max: usize,
) -> Result<Bytes, RecordsError> {
    let first = batches.clone().next().ok_or(BatchError::Truncated)?;
    let mut builder = BatchBuilder::new(BatchHeader::parse(first)?.codec()?);
    builder.reserve(batches.clone().map(Bytes::len).sum());
    let (mut left, mut opener) = (max, Opener::default());
    for batch in batches {
        let header = BatchHeader::parse(batch)?;
        let payload = batch.slice(HEADER_BYTES..header.total_bytes());
        let opened = opener.open(header.codec()?, &payload, left)?;
        left = left.saturating_sub(opened.len());
        append(&mut builder, &header, opened)?;
    }
    builder.finish()
}

/// The records of `batch` as batches of its codec again, of so many records each. Opens a block of `max` bytes at most.
///
/// Reads no more of a record than [`merge`] does: what was joined comes apart, whatever is within.
///
/// Errors if it holds other records than these.
pub fn cut(batch: &Bytes, counts: &[i32], max: usize) -> Result<Vec<Bytes>, RecordsError> {
    verify_crc(batch)?;
    let header = BatchHeader::parse(batch)?;
    let codec = header.codec()?;
    let opened = decompress(codec, &batch.slice(HEADER_BYTES..header.total_bytes()), max)?;
    let mut records = Walk { header: &header, left: Fields::new(&opened), index: 0 };
    let one = |count: &i32| {
        let mut builder = BatchBuilder::new(codec);
        for _ in 0..*count {
            records.copy_next(&mut builder)?;
        }
        builder.finish()
    };
    let batches = counts.iter().map(one).collect::<Result<Vec<_>, _>>()?;
    if records.index != header.records_count {
        let error = WireError::BadValue { what: "records count" };
        return Err(RecordsError::Record { index: records.index, error });
    }
    records.end()?;
    Ok(batches)
}

fn append(
    builder: &mut BatchBuilder,
    header: &BatchHeader,
    records: &[u8],
) -> Result<(), RecordsError> {
    let mut records = Walk { header, left: Fields::new(records), index: 0 };
    while records.index < header.records_count {
        records.copy_next(builder)?;
    }
    records.end()
}

/// The walk over a contiguous batch's records, bodies unread.
struct Walk<'a> {
    header: &'a BatchHeader,
    left: Fields<'a>,
    index: i32,
}

impl Walk<'_> {
    fn copy_next(&mut self, builder: &mut BatchBuilder) -> Result<(), RecordsError> {
        let Self { header, left, index } = self;
        let mut copy = || {
            if *index == header.records_count {
                return Err(WireError::Truncated { what: "records" });
            }
            let record = left.sized("record")?.ok_or(WireError::BadValue { what: "record" })?;
            let mut fields = Fields::new(record);
            let attributes = fields.byte("record attributes")?;
            let timestamp_delta = fields.varint(64, "timestamp delta")?;
            if fields.varint(32, "offset delta")? != i64::from(*index) {
                return Err(WireError::BadValue { what: "offset delta" });
            }
            let timestamp = header.base_timestamp.wrapping_add(timestamp_delta);
            builder.push_body(timestamp, attributes, fields.rest());
            Ok(())
        };
        copy().map_err(|error| RecordsError::Record { index: *index, error })?;
        *index += 1;
        Ok(())
    }

    fn end(&self) -> Result<(), RecordsError> {
        match self.left.rest().len() {
            0 => Ok(()),
            bytes => Err(RecordsError::Trailing { bytes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::Codec;
    use super::super::tests_support::{CODECS, OwnedRecord, java, java_name, records_of, with_crc};
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 1 << 20;

    fn built(codec: Codec, records: &[(i64, Vec<u8>)]) -> Bytes {
        let mut builder = BatchBuilder::new(codec);
        for (timestamp, value) in records {
            builder.push(*timestamp, None, Some(value), &[(b"h", None)]);
        }
        builder.finish().unwrap()
    }

    /// What readers see of several batches one behind the other.
    fn one_behind_the_other(batches: &[Bytes]) -> Vec<OwnedRecord> {
        let all = batches.iter().flat_map(|batch| records_of(batch).unwrap());
        all.zip(0..).map(|(record, offset)| OwnedRecord { offset, ..record }).collect()
    }

    proptest! {
        #[test]
        fn readers_see_the_same_records_in_the_same_order(
            batches in prop::collection::vec(
                prop::collection::vec((any::<i64>(), prop::collection::vec(any::<u8>(), 0..300)), 1..20),
                1..12,
            ),
            codec in prop::sample::select(CODECS.to_vec()),
        ) {
            let batches: Vec<Bytes> = batches.iter().map(|records| built(codec, records)).collect();
            let merged = merge(batches.iter(), MAX).unwrap();
            let header = BatchHeader::parse(&merged).unwrap();
            prop_assert!(header.is_contiguous());
            prop_assert_eq!(header.codec(), Ok(codec));
            let expected = one_behind_the_other(&batches);
            let newest = expected.iter().map(|record| record.timestamp).max();
            prop_assert_eq!(Some(header.max_timestamp), newest);
            prop_assert_eq!(records_of(&merged).unwrap(), expected);
            let counts: Vec<i32> = batches.iter().map(|batch| records_of(batch).unwrap().len() as i32).collect();
            prop_assert_eq!(&cut(&merged, &counts, MAX).unwrap(), &batches, "and cut, they are what they were");
            prop_assert!(cut(&merged, &counts[1..], MAX).is_err(), "a record is left");
            prop_assert!(cut(&merged, &[counts, vec![1]].concat(), MAX).is_err(), "a record is missing");
        }
    }

    #[test]
    fn what_java_wrote_is_joined() {
        for codec in CODECS {
            let batch = java(&format!("{}.batch", java_name(codec)));
            let twice = [batch.clone(), batch];
            let merged = merge(twice.iter(), MAX).unwrap();
            assert_eq!(records_of(&merged).unwrap(), one_behind_the_other(&twice), "{codec:?}");
        }
    }

    #[test]
    fn a_batch_that_lies_about_its_records_is_not_joined() {
        let good = built(Codec::None, &[(5, b"one".to_vec()), (6, b"two".to_vec())]);
        for count in [1, 3] {
            let mut lying = good.to_vec();
            lying[57..61].copy_from_slice(&i32::to_be_bytes(count));
            assert!(merge([good.clone(), with_crc(lying)].iter(), MAX).is_err());
        }
        // The second record's offset delta: behind the first record of its length and one byte of that.
        let mut lying = good.to_vec();
        let first = usize::from(lying[HEADER_BYTES] >> 1) + 1;
        lying[HEADER_BYTES + first + 3] = 8;
        let error = merge([good, with_crc(lying)].iter(), MAX).unwrap_err();
        let RecordsError::Record { index: 1, .. } = error else { panic!("{error}") };
    }

    /// The target refuses the joined one for it, and each part must be sent by itself then.
    #[test]
    fn a_record_that_lies_within_is_cut_out_again() {
        let good = built(Codec::None, &[(5, b"one".to_vec())]);
        let mut lying = good.to_vec();
        lying[HEADER_BYTES + 5] = 0x7e; // the value's length
        let parts = [good.clone(), with_crc(lying), good];
        assert!(records_of(&parts[1]).is_err());
        let merged = merge(parts.iter(), MAX).unwrap();
        assert_eq!(cut(&merged, &[1, 1, 1], MAX).unwrap(), parts);
    }

    #[test]
    fn bombs_are_not_opened() {
        let bomb = built(Codec::Gzip, &[(5, vec![0; MAX / 2])]);
        assert!(merge([bomb.clone()].iter(), MAX).is_ok());
        assert!(merge([bomb.clone(), bomb].iter(), MAX).is_err(), "the bound is for all together");
    }
}
