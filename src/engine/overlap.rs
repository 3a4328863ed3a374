//! A source that lost what follows the commit, beside a target that holds some of it from a former life: which of the records
//! that are left at the source are on the target (R4). PURE.
//!
//! The target holds a row of records behind the commit, the source a row behind what was deleted; both are in the order of
//! the source. So the end of the one is the beginning of the other, or they have nothing in common. Anything else, and any
//! record that cannot be told from another, decides nothing.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;

use crate::limits;
use crate::wire::records::{OpenBatch, Record, RecordsError};

/// A record, told from others: the id it is written under, key, value, headers, and its time unless the target sets that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Print(u128);

impl Print {
    fn of(producer_id: i64, record: &Record<'_>, times_differ: bool) -> Self {
        let time = if times_differ { 0 } else { record.timestamp };
        let input = [&producer_id.to_be_bytes(), &time.to_be_bytes(), record.body].concat();
        let digest = digest(&SHA256, &input);
        Self(digest.as_ref().iter().take(16).fold(0, |all, byte| all << 8 | u128::from(*byte)))
    }

    /// Of each record of a batch.
    pub fn all(
        producer_id: i64,
        batch: &Bytes,
        times_differ: bool,
    ) -> Result<Vec<Self>, RecordsError> {
        let mut batch = OpenBatch::open(batch, limits::RECODE_BYTES_MAX)?;
        // What is stamped shows the producers' times on the target, whoever set those of the source.
        batch.show_producer_times();
        batch.records().map(|record| Ok(Self::of(producer_id, &record?, times_differ))).collect()
    }
}

/// What the two rows have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// The first so many records of the source are the last ones of the target; it may be none.
    Records(usize),
    /// Nobody can tell.
    Unclear,
}

/// How many of the source's first records are compared with so many of the target: some behind them too, or a record that is
/// repeated there would be taken for the only one of its kind.
pub fn compared(target: usize) -> usize {
    target.max(limits::COMPARED_RECORDS_MIN)
}

/// Lays the end of `target` over the beginning of `source`, of which [`compared`] records are known.
/// `deleted` source offsets lie before it: each record that the target has more took one of them. Where times tell nothing
/// (`times_differ`) and none of the deleted was on the target, a record that only looks like the first copied one would do.
pub fn overlap(target: &[Print], source: &[Print], deleted: i64, times_differ: bool) -> Overlap {
    let Some(last) = target.last() else { return Overlap::Records(0) };
    let of = |row: &[Print]| row.iter().filter(|print| *print == last).count();
    let common = match (of(target), of(source)) {
        (1, 1) => source.iter().position(|print| print == last).map_or(0, |at| at + 1),
        (_, 0) => 0,
        _ => return Overlap::Unclear,
    };
    let gone = target.len().saturating_sub(common);
    let fits = target.get(gone..) == source.get(..common)
        && i64::try_from(gone).is_ok_and(|gone| gone <= deleted);
    // A record of the source that is on the target without being where it belongs.
    let mut known = target.to_vec();
    known.sort_unstable();
    let strays = source.iter().skip(common).any(|print| known.binary_search(print).is_ok());
    let is_doubtful = times_differ && common > 0 && gone == 0 && deleted > 0;
    if fits && !strays && !is_doubtful { Overlap::Records(common) } else { Overlap::Unclear }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests_support::batch;

    fn row(numbers: &[u128]) -> Vec<Print> {
        numbers.iter().map(|number| Print(*number)).collect()
    }

    fn of(target: &[u128], source: &[u128], deleted: i64) -> Overlap {
        overlap(&row(target), &row(source), deleted, false)
    }

    #[test]
    fn a_record_that_is_repeated_is_not_taken_for_the_one_that_was_copied() {
        // The source's first record is like the target's only one, which was deleted: the ones behind it show that.
        assert!(compared(1) > 1);
        assert_eq!(of(&[7], &[7, 7, 7], 1), Overlap::Unclear);
        let alone = |deleted, times_differ| overlap(&row(&[7]), &row(&[7]), deleted, times_differ);
        assert_eq!(alone(1, true), Overlap::Unclear, "no time tells them apart");
        assert_eq!(alone(0, true), Overlap::Records(1));
        assert_eq!(alone(1, false), Overlap::Records(1), "a marker was deleted before it");
        let some = overlap(&row(&[6, 7]), &row(&[7, 8]), 1, true);
        assert_eq!(some, Overlap::Records(1), "what was deleted is on the target");
    }

    #[test]
    fn the_end_of_the_target_is_found_at_the_beginning_of_the_source() {
        assert_eq!(of(&[1, 2, 3, 4], &[3, 4, 5], 2), Overlap::Records(2));
        assert_eq!(
            of(&[1, 2, 3, 4], &[4, 5, 6], 9),
            Overlap::Records(1),
            "holes were deleted, too"
        );
        assert_eq!(of(&[1, 2], &[1, 2], 0), Overlap::Records(2));
        assert_eq!(of(&[1, 2, 3], &[4, 5, 6], 3), Overlap::Records(0));
        assert_eq!(of(&[1, 2, 3], &[], 7), Overlap::Records(0));
        assert_eq!(of(&[], &[4], 7), Overlap::Records(0));
        // The same record before, on one side: it is the last that counts.
        assert_eq!(of(&[1, 1, 2, 3], &[2, 3, 4], 2), Overlap::Records(2));
    }

    #[test]
    fn what_could_lie_elsewhere_too_decides_nothing() {
        let unclear = |target: &[u128], source: &[u128], deleted: i64| {
            assert_eq!(of(target, source, deleted), Overlap::Unclear, "{target:?} {source:?}");
        };
        unclear(&[1, 2, 2], &[2, 3], 5);
        unclear(&[1, 2, 3], &[3, 4, 3], 5);
        unclear(&[1, 2, 3], &[9, 3, 4], 5);
        unclear(&[1, 2, 3], &[4, 2], 5);
        unclear(&[1, 2, 3], &[2, 4], 5);
        // More records are said to be gone than offsets are.
        unclear(&[1, 2, 3], &[4, 5], 2);
        unclear(&[1, 2, 3], &[3, 4], 1);
    }

    #[test]
    fn a_record_is_told_by_what_is_in_it_and_its_time_where_that_is_kept() {
        let prints = |id, base, differ| Print::all(id, &batch(base, 3), differ).unwrap();
        assert_eq!(prints(1, 0, false), prints(1, 70, false), "not by its offset");
        assert_ne!(prints(1, 0, false), prints(2, 0, false));
        assert_ne!(prints(1, 0, false), prints(1, 0, true));
        let mut all = prints(1, 0, false);
        all.dedup();
        assert_eq!(all.len(), 3);
    }
}
