//! Recode: a batch opened and written anew, for the few that cannot be stamped (gaps after compaction, a start in its middle,
//! times set by the source's broker, a size that the target refuses).
//!
//! Bodies are copied, never interpreted; lengths, offset deltas and timestamp deltas are new. The source's CRC is checked
//! first, because the new one would hide that the old was wrong (I3).

use bytes::Bytes;

use super::batch::BatchHeader;
use super::records::{BatchBuilder, OpenBatch, Record, Records, RecordsError};
use super::spans::{Span, Spans};
use crate::limits;

/// Which time a record gets when the source's broker set it (LogAppendTime).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// The broker's, as readers of the source see it.
    Append,
    /// The producer's, which the source has hidden.
    Producer,
}

/// How a batch is recoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recode {
    /// Which times are kept.
    pub times: Times,
    /// The largest batch that the target takes (`max.message.bytes`), header included.
    pub batch_bytes_max: usize,
}

/// A new batch, to be stamped.
#[derive(Clone, Debug)]
pub struct Recoded {
    /// The whole batch; its producer fields are empty.
    pub bytes: Bytes,
    /// The source offset of its first record.
    pub first_offset: i64,
    /// The source offset up to which the target has everything once it has this batch: of its last record, or the end of
    /// the source batch for the last piece.
    pub last_offset: i64,
    /// How many records it holds.
    pub records_count: i32,
    /// Their offsets in the batch that was recoded.
    pub spans: Spans,
}

impl Recode {
    /// The records of `batch` (whole, one) for which `keep` (of the source offset) holds, in as few new batches as fit, with
    /// the same codec. None is left if no record is.
    pub fn run(
        &self,
        batch: &Bytes,
        keep: impl Fn(i64) -> bool,
    ) -> Result<Vec<Recoded>, RecordsError> {
        let mut batch = OpenBatch::open(batch, limits::RECODE_BYTES_MAX)?;
        if self.times == Times::Producer {
            batch.show_producer_times();
        }
        // Every record is read, so that damage behind the last one kept is seen as well.
        let mut kept = 0;
        for record in batch.records() {
            kept += i32::from(keep(record?.offset));
        }
        let mut pieces = Vec::new();
        let mut walk = Walk { records: batch.records(), keep: &keep };
        self.write(&mut walk, kept, batch.header(), &mut pieces)?;
        if let Some(last) = pieces.last_mut() {
            last.last_offset = batch.header().last_offset();
        }
        Ok(pieces)
    }

    /// Writes the next `count` records as one batch, or in halves until they fit.
    fn write(
        &self,
        walk: &mut Walk<'_, impl Fn(i64) -> bool>,
        count: i32,
        header: &BatchHeader,
        pieces: &mut Vec<Recoded>,
    ) -> Result<(), RecordsError> {
        let start = walk.clone();
        let mut builder = BatchBuilder::new(header.codec()?);
        let mut ends = None;
        for _ in 0..count {
            let Some(record) = walk.next().transpose()? else { break };
            builder.push_body(record.timestamp, record.attributes, record.body);
            ends = Some((ends.map_or(record.offset, |(first, _)| first), record.offset));
        }
        let Some((first_offset, last_offset)) = ends else { return Ok(()) };
        let records_count = builder.count();
        let bytes = builder.finish()?;
        if bytes.len() <= self.batch_bytes_max {
            let offsets = start.take(count as usize).filter_map(Result::ok);
            let spans = offsets.map(|record| Span::contiguous(record.offset, 1)).collect();
            pieces.push(Recoded { bytes, first_offset, last_offset, records_count, spans });
            return Ok(());
        }
        if count == 1 {
            let (bytes, max) = (bytes.len(), self.batch_bytes_max);
            return Err(RecordsError::RecordTooLarge { offset: first_offset, bytes, max });
        }
        drop(bytes);
        *walk = start;
        self.write(walk, count / 2, header, pieces)?;
        self.write(walk, count - count / 2, header, pieces)
    }
}

/// The records that are kept. A clone remembers its place, so that halves need no list of records: of a bomb of empty
/// records, that would be larger than the records.
struct Walk<'a, Keep> {
    records: Records<'a>,
    keep: &'a Keep,
}

impl<Keep> Clone for Walk<'_, Keep> {
    fn clone(&self) -> Self {
        Self { records: self.records.clone(), keep: self.keep }
    }
}

impl<'a, Keep: Fn(i64) -> bool> Iterator for Walk<'a, Keep> {
    type Item = Result<Record<'a>, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let keep = self.keep;
        self.records.by_ref().find(|record| record.as_ref().map_or(true, |r| keep(r.offset)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::{BatchError, Codec, HEADER_BYTES};
    use super::super::stamp::{Stamp, stamp};
    use super::super::tests_support::{
        CODECS, OwnedRecord, expected, java, java_name, records_of, with_attributes,
    };
    use super::*;

    const RECODE: Recode = Recode { times: Times::Append, batch_bytes_max: 1 << 20 };

    fn batch(codec: Codec, compacted: bool) -> Bytes {
        let suffix = if compacted { "-compacted" } else { "" };
        java(&format!("{}{suffix}.batch", java_name(codec)))
    }

    /// What the target will hold: everything as at the source but the offset.
    fn at_target(records: impl Iterator<Item = OwnedRecord>) -> Vec<OwnedRecord> {
        records.zip(0..).map(|(record, offset)| OwnedRecord { offset, ..record }).collect()
    }

    #[test]
    fn closes_the_gaps_of_a_compacted_batch() {
        for codec in CODECS {
            let pieces = RECODE.run(&batch(codec, true), |_| true).unwrap();
            let [piece] = &pieces[..] else { panic!("{} pieces", pieces.len()) };
            let header = BatchHeader::parse(&piece.bytes).unwrap();
            assert!(header.is_contiguous() && !header.has_delete_horizon());
            assert_eq!((header.codec(), header.base_offset), (Ok(codec), 0));
            assert_eq!(header.base_timestamp, 1_700_000_000_000);
            assert_eq!(header.max_timestamp, 1_700_000_000_180);
            assert_eq!((piece.first_offset, piece.last_offset), (1000, 1019));
            assert_eq!((piece.records_count, header.records_count), (13, 13));
            let offsets: Vec<i64> =
                piece.spans.pieces(0, 13).flat_map(|span| span.source).collect();
            assert_eq!(offsets, (1000..1020).filter(|o| (o - 1000) % 3 != 1).collect::<Vec<_>>());
            let kept = (0..20).filter(|i| i % 3 != 1).map(expected);
            assert_eq!(records_of(&piece.bytes).unwrap(), at_target(kept));
        }
    }

    #[test]
    fn starts_in_the_middle() {
        for codec in CODECS {
            for start in [1000, 1005, 1007, 1019] {
                let pieces = RECODE.run(&batch(codec, false), |offset| offset >= start).unwrap();
                let [piece] = &pieces[..] else { panic!("{} pieces", pieces.len()) };
                assert_eq!((piece.first_offset, piece.last_offset), (start, 1019));
                let kept = (start - 1000..20).map(expected);
                assert_eq!(records_of(&piece.bytes).unwrap(), at_target(kept));
            }
            assert!(RECODE.run(&batch(codec, false), |_| false).unwrap().is_empty());
        }
    }

    #[test]
    fn takes_the_brokers_times_or_the_producers() {
        for codec in CODECS {
            let batch = with_attributes(&batch(codec, false), 0x08 | codec as u16);
            let append = RECODE.run(&batch, |_| true).unwrap();
            let header = BatchHeader::parse(&append[0].bytes).unwrap();
            assert!(!header.is_log_append_time());
            let max = 1_700_000_000_190;
            assert_eq!((header.base_timestamp, header.max_timestamp), (max, max));
            let expected_append = (0..20).map(|i| OwnedRecord { timestamp: max, ..expected(i) });
            assert_eq!(records_of(&append[0].bytes).unwrap(), at_target(expected_append));

            let producer = Recode { times: Times::Producer, ..RECODE }.run(&batch, |_| true);
            let records = records_of(&producer.unwrap()[0].bytes).unwrap();
            assert_eq!(records, at_target((0..20).map(expected)));
        }
    }

    #[test]
    fn splits_what_is_too_large() {
        for codec in CODECS {
            let source = batch(codec, true);
            let one_record = 61 + 20 + 380; // the largest record, and what the codecs add
            for batch_bytes_max in [source.len() * 3 / 4, one_record] {
                let recode = Recode { batch_bytes_max, ..RECODE };
                let pieces = recode.run(&source, |_| true).unwrap();
                assert!(codec != Codec::None || pieces.len() > 1);
                let mut records = Vec::new();
                let mut last = 999;
                for piece in &pieces {
                    assert!(piece.bytes.len() <= batch_bytes_max, "{}", piece.bytes.len());
                    assert!(piece.first_offset > last && piece.last_offset >= piece.first_offset);
                    last = piece.last_offset;
                    let of_piece = records_of(&piece.bytes).unwrap();
                    assert_eq!(of_piece.len(), piece.records_count as usize);
                    assert!(of_piece.iter().zip(0..).all(|(record, i)| record.offset == i));
                    records.extend(of_piece);
                }
                assert_eq!(last, 1019, "the hole at the end is covered too");
                let kept = (0..20).filter(|i| i % 3 != 1).map(expected);
                assert_eq!(at_target(records.into_iter()), at_target(kept));
            }
        }
    }

    #[test]
    fn one_record_that_is_too_large() {
        let recode = Recode { batch_bytes_max: 450, ..RECODE };
        // Record 19 has 380 bytes of value.
        let error = recode.run(&batch(Codec::None, false), |_| true).unwrap_err();
        let RecordsError::RecordTooLarge { offset: 1019, bytes, max: 450 } = error else {
            panic!("{error}")
        };
        assert!(bytes > 450);
    }

    #[test]
    fn refuses_a_wrong_crc() {
        for codec in CODECS {
            let source = batch(codec, false);
            for bit in HEADER_BYTES * 8..source.len() * 8 {
                let mut damaged = source.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let error = RECODE.run(&damaged.into(), |_| true).unwrap_err();
                assert!(matches!(error, RecordsError::Batch(BatchError::Crc { .. })));
            }
        }
    }

    #[test]
    fn refuses_damage_behind_the_last_record_kept() {
        let source = batch(Codec::None, false);
        let mut damaged = source.to_vec();
        damaged[57..61].copy_from_slice(&19i32.to_be_bytes());
        let damaged = super::super::tests_support::with_crc(damaged);
        let error = RECODE.run(&damaged, |offset| offset == 1000).unwrap_err();
        assert!(matches!(error, RecordsError::Trailing { .. }), "{error}");
    }

    #[test]
    fn what_comes_out_can_be_stamped() {
        let ours = Stamp {
            producer_id: 1 << 61,
            producer_epoch: 0,
            base_sequence: 7,
            transactional: false,
        };
        for codec in CODECS {
            let pieces = RECODE.run(&batch(codec, true), |_| true).unwrap();
            let head = stamp(&pieces[0].bytes, ours).unwrap();
            let stamped: Bytes = [&head[..], &pieces[0].bytes[HEADER_BYTES..]].concat().into();
            assert_eq!(records_of(&stamped).unwrap(), records_of(&pieces[0].bytes).unwrap());
            assert_eq!(BatchHeader::parse(&stamped).unwrap().producer_id, 1 << 61);
        }
    }
}
