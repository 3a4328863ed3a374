//! Each row of the fate table, from headers made for it.

use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::engine::identity::Writer;
use crate::engine::route::Forwarding;
use crate::wire::batch::{CRC_START, attribute};
use crate::wire::crc::crc32c;
use crate::wire::tests_support::batch;

const RULES: Rules = Rules {
    isolation: Isolation::ReadCommitted,
    timestamps: Timestamps::AsRead,
    batch_bytes_max: 1 << 20,
};

/// A batch of `count` records at `base`, its header changed, its CRC right.
fn with(base: i64, count: i32, change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let mut raw = batch(base, count).to_vec();
    let mut header = BatchHeader::parse(&raw).expect("a batch");
    change(&mut header);
    raw[..61].copy_from_slice(&header.to_bytes());
    let crc = crc32c(&raw[CRC_START..]);
    raw[17..21].copy_from_slice(&crc.to_be_bytes());
    raw
}

fn plain(base: i64, count: i32) -> Vec<u8> {
    with(base, count, |_| {})
}

fn transactional(base: i64, producer_id: i64) -> Vec<u8> {
    with(base, 1, |header| {
        header.producer_id = producer_id;
        header.attributes |= attribute::TRANSACTIONAL;
    })
}

/// A marker as the coordinator writes it: one record whose key is (version, type).
fn marker(base: i64, producer_id: i64, kind: u8) -> Vec<u8> {
    let mut raw = plain(base, 1)[..61].to_vec();
    raw.extend_from_slice(&[16 << 1, 0, 0, 0, 4 << 1, 0, 0, 0, kind, 6 << 1, 0, 0, 0, 0, 0, 0, 0]);
    let length = (raw.len() - 12) as i32;
    raw[8..12].copy_from_slice(&length.to_be_bytes());
    let mut header = BatchHeader::parse(&raw).expect("a batch");
    header.producer_id = producer_id;
    header.attributes |= attribute::TRANSACTIONAL | attribute::CONTROL;
    raw[..61].copy_from_slice(&header.to_bytes());
    let crc = crc32c(&raw[CRC_START..]);
    raw[17..21].copy_from_slice(&crc.to_be_bytes());
    raw
}

/// (next offset, fate) of every step, and the refusal that ended them.
fn steps(
    batches: &[Vec<u8>],
    aborted: &[AbortedTransaction],
    wanted: i64,
    rules: &Rules,
) -> (Vec<(i64, Fate)>, Option<Refusal>) {
    let mut steps = Vec::new();
    let records = Bytes::from(batches.concat());
    let forwarding = Forwarding { local: true, copies_max: 2, ..Forwarding::default() };
    let route = Route::new(Writer::new("link", Uuid::nil(), 0), Arc::new(forwarding));
    let outcome = admit(records, aborted, wanted, rules, &route, Instant::now(), |step| {
        steps.push(match step {
            Step::Take(outgoing, fate) => (outgoing.next_offset, fate),
            Step::Skip { next_offset, fate, .. } => (next_offset, fate),
        });
    });
    (steps, outcome.err())
}

fn fates(batches: &[Vec<u8>], wanted: i64) -> Vec<(i64, Fate)> {
    let (steps, refusal) = steps(batches, &[], wanted, &RULES);
    assert_eq!(refusal, None);
    steps
}

#[test]
fn a_contiguous_batch_is_stamped() {
    assert_eq!(fates(&[plain(0, 3), plain(3, 2)], 0), [(3, Fate::Stamped), (5, Fate::Stamped)]);
}

#[test]
fn rule_3_a_cut_tail_is_left_for_the_next_fetch() {
    let mut cut = plain(3, 2);
    cut.truncate(cut.len() - 1);
    assert_eq!(fates(&[plain(0, 3), cut], 0), [(3, Fate::Stamped)]);
}

/// Wherever a broker cuts its answer, what is whole is decided as ever and the rest is asked for again.
#[test]
fn rule_3_an_answer_that_is_cut_at_any_byte_gives_the_batches_before_the_cut() {
    let batches = [plain(0, 3), plain(3, 2), transactional(5, 7), marker(6, 7, 1), plain(7, 9)];
    let whole = fates(&batches, 0);
    assert_eq!(whole.len(), batches.len());
    let (all, mut ends) = (batches.concat(), Vec::new());
    batches.iter().fold(0, |end, batch| {
        ends.push(end + batch.len());
        end + batch.len()
    });
    for cut in 0..=all.len() {
        let count = ends.iter().filter(|end| **end <= cut).count();
        let (steps, refusal) = steps(&[all[..cut].to_vec()], &[], 0, &RULES);
        assert_eq!((steps, refusal), (whole[..count].to_vec(), None), "cut at {cut}");
    }
}

#[test]
fn a_count_that_the_bytes_cannot_hold_is_refused_before_it_is_believed() {
    let lying = with(5, 3, |header| {
        header.records_count = i32::MAX;
        header.last_offset_delta = i32::MAX - 1;
    });
    let (steps, refusal) = steps(&[plain(0, 5), lying], &[], 0, &RULES);
    assert_eq!(steps, [(5, Fate::Stamped)]);
    let refusal = refusal.expect("it lies");
    let Cause::Records(RecordsError::Batch(BatchError::Count { claimed, .. })) = refusal.cause
    else {
        panic!("{refusal:?}")
    };
    assert_eq!((refusal.offset, claimed), (5, i32::MAX));
    assert_eq!(refusal.end.expect("its header says it").next_offset, 5 + i64::from(i32::MAX));
}

#[test]
fn rule_9_an_empty_batch_is_stepped_over() {
    let empty = with(5, 1, |header| {
        header.last_offset_delta = 7;
        header.records_count = 0;
    });
    assert_eq!(fates(&[empty], 5), [(13, Fate::SkippedEmpty)]);
}

#[test]
fn rule_37_a_first_batch_below_the_wanted_offset_is_passed_in_silence() {
    assert_eq!(fates(&[plain(0, 3), plain(3, 2)], 3), [(5, Fate::Stamped)]);
}

#[test]
fn what_a_strait_wrote_came_from_elsewhere_but_minus_one_is_a_foreign_writer() {
    let ours = with(0, 2, |header| header.producer_id = (1 << 62) + 5);
    let foreign = with(2, 2, |header| header.producer_id = -1);
    assert_eq!(fates(&[ours, foreign], 0), [(2, Fate::SkippedReplicated), (4, Fate::Stamped)]);
}

#[test]
fn rule_43_aborted_transactions_are_stepped_over_by_producer_until_their_marker() {
    let batches = [
        transactional(0, 7),
        transactional(1, 8),
        transactional(2, 7),
        marker(3, 7, 0),
        transactional(4, 7),
        marker(5, 7, 1),
        marker(6, 8, 1),
    ];
    let aborted = [AbortedTransaction { producer_id: 7, first_offset: 0 }];
    let (steps_seen, _) = steps(&batches, &aborted, 0, &RULES);
    let expected = [
        (1, Fate::SkippedAborted),
        (2, Fate::Stamped),
        (3, Fate::SkippedAborted),
        (4, Fate::SkippedControl),
        (5, Fate::Stamped),
        (6, Fate::SkippedControl),
        (7, Fate::SkippedControl),
    ];
    assert_eq!(steps_seen, expected);

    // Begun again inside the transaction: the entry comes with the answer, its first offset is below.
    let (steps_seen, _) = steps(&batches[2..], &aborted, 2, &RULES);
    assert_eq!(steps_seen[0], (3, Fate::SkippedAborted));

    let everything = Rules { isolation: Isolation::ReadUncommitted, ..RULES };
    let (steps_seen, _) = steps(&batches, &[], 0, &everything);
    assert_eq!(steps_seen[0], (1, Fate::Stamped));
    assert_eq!(steps_seen[3], (4, Fate::SkippedControl), "rule 5: a marker is never sent");
}

#[test]
fn rule_44_an_entry_that_begins_later_does_not_reach_back() {
    let batches = [transactional(0, 7), marker(1, 7, 1), transactional(2, 7), marker(3, 7, 0)];
    let aborted = [AbortedTransaction { producer_id: 7, first_offset: 2 }];
    let (steps_seen, _) = steps(&batches, &aborted, 0, &RULES);
    assert_eq!(steps_seen[0], (1, Fate::Stamped));
    assert_eq!(steps_seen[2], (3, Fate::SkippedAborted));
}

#[test]
fn a_damaged_batch_is_refused_behind_what_came_before_it() {
    let mut damaged = plain(3, 2);
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let (steps_seen, refusal) = steps(&[plain(0, 3), damaged], &[], 0, &RULES);
    assert_eq!(steps_seen, [(3, Fate::Stamped)]);
    let refusal = refusal.expect("refused");
    assert_eq!(refusal.offset, 3);
    assert!(matches!(refusal.cause, Cause::Records(RecordsError::Batch(BatchError::Crc { .. }))));
}

#[test]
fn rule_10_a_gappy_batch_is_written_anew() {
    let gappy = with(10, 2, |header| header.last_offset_delta = 9);
    assert_eq!(fates(&[gappy], 10), [(20, Fate::Recoded)]);
}

#[test]
fn rule_35_a_batch_that_begins_before_the_wanted_offset_gives_only_the_rest() {
    assert_eq!(fates(&[plain(10, 4)], 12), [(14, Fate::Recoded)]);
}

#[test]
fn rule_20_append_time_is_kept_as_read_or_given_up_as_told() {
    let append_time = || with(0, 2, |header| header.attributes |= attribute::LOG_APPEND_TIME);
    assert_eq!(fates(&[append_time()], 0), [(2, Fate::Recoded)]);
    let producers = Rules { timestamps: Timestamps::Producer, ..RULES };
    assert_eq!(steps(&[append_time()], &[], 0, &producers).0, [(2, Fate::Stamped)]);
}

#[test]
fn rule_16_a_batch_too_large_for_the_target_is_split_to_the_last_offset() {
    let small = Rules { batch_bytes_max: 150, ..RULES };
    let (steps_seen, refusal) = steps(&[plain(0, 8)], &[], 0, &small);
    assert_eq!(refusal, None);
    assert!(steps_seen.len() > 1, "{steps_seen:?}");
    assert_eq!(steps_seen.last(), Some(&(8, Fate::Recoded)));
}

#[test]
fn rule_14_an_unknown_codec_is_refused_before_anything_is_sent() {
    let unknown = with(0, 2, |header| header.attributes |= 5);
    let (steps_seen, refusal) = steps(&[unknown], &[], 0, &RULES);
    assert!(steps_seen.is_empty());
    let cause = refusal.map(|refusal| refusal.cause);
    let codec = RecordsError::Batch(BatchError::Codec { id: 5 });
    assert_eq!(cause, Some(Cause::Records(codec)));
}
