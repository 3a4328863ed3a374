//! Where on the target the batches of a lineage were found by a read-back: what an answer that got lost would have said. PURE.

use super::identity::{advance, distance};
use crate::limits;

/// Found places, in the order of the log.
#[derive(Clone, Debug, Default, Hash, PartialEq, Eq)]
pub struct Landed(Vec<Stretch>);

/// Sequences that lie on the target one after the other.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
struct Stretch {
    producer_id: i64,
    sequence: i32,
    records: i32,
    target: i64,
}

impl Landed {
    /// Notes a batch. Past [`limits::LANDED_MAX`] stretches, only what continues the last one is remembered.
    pub fn note(&mut self, producer_id: i64, sequence: i32, records: i32, target: i64) {
        if let Some(last) = self.0.last_mut()
            && last.producer_id == producer_id
            && advance(last.sequence, last.records) == sequence
            && last.target + i64::from(last.records) == target
            && let Some(sum) = last.records.checked_add(records)
        {
            last.records = sum;
        } else if self.0.len() < limits::LANDED_MAX {
            self.0.push(Stretch { producer_id, sequence, records, target });
        }
    }

    /// Where so many records from `sequence` on are, as (first target offset, records); none if a part is not known.
    pub fn pieces(&self, producer_id: i64, sequence: i32, records: i32) -> Option<Vec<(i64, i32)>> {
        let (mut pieces, mut sequence, mut left) = (Vec::new(), sequence, records);
        while left > 0 {
            let within = |stretch: &&Stretch| {
                stretch.producer_id == producer_id
                    && distance(stretch.sequence, sequence) < stretch.records
            };
            let stretch = self.0.iter().find(within)?;
            let skip = distance(stretch.sequence, sequence);
            let count = left.min(stretch.records - skip);
            pieces.push((stretch.target + i64::from(skip), count));
            sequence = advance(sequence, count);
            left -= count;
        }
        Some(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_across_foreign_records_lineages_and_the_end_of_the_numbers() {
        let mut landed = Landed::default();
        landed.note(7, i32::MAX - 1, 2, 100);
        landed.note(7, 0, 3, 102);
        landed.note(8, 0, 5, 105);
        landed.note(7, 3, 3, 120);
        assert_eq!(landed.0.len(), 3);
        assert_eq!(landed.pieces(7, i32::MAX, 6), Some(vec![(101, 4), (120, 2)]));
        assert_eq!(landed.pieces(8, 1, 4), Some(vec![(106, 4)]));
        assert_eq!(landed.pieces(8, 1, 5), None);
        assert_eq!(landed.pieces(9, 0, 1), None);
    }

    #[test]
    fn it_stays_within_its_bound() {
        let mut landed = Landed::default();
        for n in 0..10_000 {
            landed.note(7, n, 1, i64::from(n) * 2);
        }
        assert_eq!(landed.0.len(), limits::LANDED_MAX);
        assert_eq!(landed.pieces(7, 9_999, 1), None);
    }
}
