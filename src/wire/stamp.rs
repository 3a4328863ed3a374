//! The stamp: a batch's header rewritten for the target, its payload untouched and unread.
//!
//! Decides nothing: whether a batch may be stamped is the engine's question (`admit`). What a stock broker demands of a
//! produced batch: base offset 0, no transactional bit without a transaction, no control bit; it would keep a delete horizon
//! and unused bits as they are, to the harm of the target's cleaner.

use super::batch::{BatchError, BatchHeader, CRC_START, HEADER_BYTES, attribute};
use super::crc;

/// The identity under which a batch is produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// -1 for none, and then the other two are -1 too.
    pub producer_id: i64,
    /// Bumped when the producer begins anew.
    pub producer_epoch: i16,
    /// The sequence number of the first record.
    pub base_sequence: i32,
    /// Whether it belongs to a transaction of this producer.
    pub transactional: bool,
}

/// The new header of `batch` (whole, one). Clears everything in the attributes but codec and control: LogAppendTime too, which
/// shows the producer's times again, so the caller decides whether such a batch is stamped or recoded.
///
/// The CRC is carried over by linearity and so stays as right or wrong as it was.
pub fn stamp(batch: &[u8], stamp: Stamp) -> Result<[u8; HEADER_BYTES], BatchError> {
    let mut header = BatchHeader::parse(batch)?;
    if batch.len() != header.total_bytes() {
        return Err(BatchError::Truncated);
    }
    header.base_offset = 0;
    header.partition_leader_epoch = -1;
    // A marker keeps its bit: it must never become data, and the target refuses it.
    header.attributes &= attribute::CODEC_MASK | attribute::CONTROL;
    if stamp.transactional {
        header.attributes |= attribute::TRANSACTIONAL;
    }
    header.producer_id = stamp.producer_id;
    header.producer_epoch = stamp.producer_epoch;
    header.base_sequence = stamp.base_sequence;
    let mut stamped = header.to_bytes();
    // `parse` bounds a batch far below 4 GiB.
    let payload = (batch.len() - HEADER_BYTES) as u32;
    let (old, new) = (&batch[CRC_START..HEADER_BYTES], &stamped[CRC_START..]);
    let crc = crc::patched(header.crc, old, new, payload);
    stamped[17..21].copy_from_slice(&crc.to_be_bytes());
    Ok(stamped)
}

#[cfg(test)]
mod tests {
    use super::super::batch::verify_crc;
    use super::super::tests_support::batch;
    use super::*;
    use proptest::prelude::*;

    const OURS: Stamp = Stamp {
        producer_id: 1 << 61,
        producer_epoch: 9,
        base_sequence: 123_456,
        transactional: false,
    };

    /// A batch of random attributes, times and payload, with its right CRC.
    fn any_batch() -> impl Strategy<Value = Vec<u8>> {
        let payload = prop::collection::vec(any::<u8>(), 0..3000);
        (any::<[u8; 40]>(), payload, 0i64..1 << 62).prop_map(|(covered, payload, base)| {
            let mut out = batch(base, 1)[..CRC_START].to_vec();
            out.extend(covered);
            out.extend(payload);
            out[23] &= 0x7f; // last offset delta and records count are not negative
            out[57] &= 0x7f;
            let length = (out.len() - 12) as i32;
            out[8..12].copy_from_slice(&length.to_be_bytes());
            let crc = crc::crc32c(&out[CRC_START..]);
            out[17..21].copy_from_slice(&crc.to_be_bytes());
            out
        })
    }

    proptest! {
        #[test]
        fn changes_what_it_should_and_keeps_the_crc_right(
            batch in any_batch(),
            producer_id: i64,
            producer_epoch: i16,
            base_sequence: i32,
            transactional: bool,
        ) {
            let source = BatchHeader::parse(&batch).unwrap();
            let stamp = Stamp { producer_id, producer_epoch, base_sequence, transactional };
            let head = super::stamp(&batch, stamp).unwrap();
            let stamped = [&head[..], &batch[HEADER_BYTES..]].concat();
            prop_assert!(verify_crc(&stamped).is_ok());
            let expected = BatchHeader {
                base_offset: 0,
                partition_leader_epoch: -1,
                crc: crc::crc32c(&stamped[CRC_START..]),
                attributes: source.attributes & 0x27 | if transactional { 0x10 } else { 0 },
                producer_id,
                producer_epoch,
                base_sequence,
                ..source
            };
            prop_assert_eq!(BatchHeader::parse(&head).unwrap(), expected);
        }

        #[test]
        fn a_damaged_batch_stays_damaged(batch in any_batch(), bit: prop::sample::Index) {
            // A flip where the stamp writes is repaired with the field; anywhere else it must show.
            let kept = (8 * 23..8 * 43).chain(8 * 57..8 * batch.len()).collect::<Vec<_>>();
            let bit = kept[bit.index(kept.len())];
            let mut damaged = batch;
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(head) = super::stamp(&damaged, OURS) {
                let stamped = [&head[..], &damaged[HEADER_BYTES..]].concat();
                prop_assert!(verify_crc(&stamped).is_err());
            }
        }
    }

    #[test]
    fn a_marker_never_becomes_data() {
        let mut marker = batch(4, 1).to_vec();
        marker[22] = 0x30;
        let head = stamp(&marker, OURS).unwrap();
        assert!(BatchHeader::parse(&head).unwrap().is_control());
    }

    #[test]
    fn takes_exactly_one_whole_batch() {
        let batch = batch(4, 2);
        for len in 0..batch.len() {
            assert!(stamp(&batch[..len], OURS).is_err(), "cut at {len}");
        }
        assert!(stamp(&[&batch[..], &[0]].concat(), OURS).is_err());
        assert!(stamp(&batch, OURS).is_ok());
    }
}
