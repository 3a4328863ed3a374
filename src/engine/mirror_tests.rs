//! The mirror against a target that obeys the broker's rules, driven through every interleaving that a seed picks.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::connection::FramePool;
use crate::engine::landed::Landed;
use crate::engine::mirror_readback::NotOurs;
use crate::engine::offset_map::Place;
use crate::engine::walk::Seen;
use crate::wire::tests_support;

/// A v2 batch head with a payload; nothing but the header is looked at here.
fn batch(base: i64, records: i32, max_timestamp: i64) -> Bytes {
    let payload = 20i32;
    let mut raw = Vec::new();
    raw.extend_from_slice(&base.to_be_bytes());
    raw.extend_from_slice(&(49 + payload).to_be_bytes());
    raw.extend_from_slice(&0i32.to_be_bytes());
    raw.push(2);
    raw.extend_from_slice(&0u32.to_be_bytes());
    raw.extend_from_slice(&0i16.to_be_bytes());
    raw.extend_from_slice(&(records - 1).to_be_bytes());
    raw.extend_from_slice(&max_timestamp.to_be_bytes());
    raw.extend_from_slice(&max_timestamp.to_be_bytes());
    raw.extend_from_slice(&(-1i64).to_be_bytes());
    raw.extend_from_slice(&(-1i16).to_be_bytes());
    raw.extend_from_slice(&(-1i32).to_be_bytes());
    raw.extend_from_slice(&records.to_be_bytes());
    raw.resize(61 + payload as usize, 7);
    Bytes::from(raw)
}

const ID: i64 = 1 << 62;
const NOW: i64 = 1_800_000_000_000;

fn outgoing(base: i64, records: i32) -> Outgoing {
    Outgoing {
        batch: batch(base, records, NOW),
        next_offset: base + i64::from(records),
        leader_epoch: 4,
        records,
        max_timestamp: NOW,
        fetched_at: Instant::now(),
        ends_place: true,
        spans: base.into(),
        producer_id: ID,
        joining: Joining::Free,
    }
}

fn mirror() -> Mirror {
    let numbering = Numbering { producer_id: ID, producer_epoch: 3, next_sequence: 0 };
    let beginning = Beginning {
        source_offset: 0,
        leader_epoch: -1,
        target_offset: 0,
        numberings: vec![numbering],
        replay: None,
        map: OffsetMap::new(0),
        late: false,
        transaction: None,
        switch: None,
    };
    Mirror::new(beginning, 1 << 20, Arc::default())
}

fn take(mirror: &mut Mirror, outgoing: Outgoing) {
    assert!(mirror.take(outgoing).expect("nothing is opened"));
}

fn last(sequence: Option<i32>) -> BTreeMap<i64, i32> {
    sequence.map(|sequence| (ID, sequence)).into_iter().collect()
}

fn sequence_of(stamped: &Stamped) -> i32 {
    i32::from_be_bytes(stamped.head[53..57].try_into().expect("four bytes"))
}

#[test]
fn i1_the_acked_prefix_takes_skips_with_the_batch_before_them() {
    let mut mirror = mirror();
    mirror.skip_to(2, 4);
    assert_eq!(mirror.acked(), 2, "nothing outstanding: a skip counts at once");
    take(&mut mirror, outgoing(2, 3));
    mirror.skip_to(9, 5);
    assert_eq!((mirror.acked(), mirror.fetch_offset()), (2, 9));
    mirror.send(NOW).expect("open");
    mirror.skip_to(10, 5);
    assert_eq!(mirror.acked(), 2, "a skip behind an unacknowledged batch waits for it");
    mirror.on_success(0).expect("in order");
    assert_eq!((mirror.acked(), mirror.acked_epoch()), (10, 5));
}

#[test]
fn a_batch_is_stamped_with_the_lineage_and_the_running_sequence() {
    let mut mirror = mirror();
    for base in [0, 3, 6] {
        take(&mut mirror, outgoing(base, 3));
    }
    assert_eq!(sequence_of(&mirror.send(NOW).expect("open")), 0);
    assert!(mirror.send(NOW).is_none(), "W1");
    mirror.on_success(0).expect("in order");
    assert_eq!(sequence_of(&mirror.send(NOW).expect("open")), 3);
    assert_eq!(sequence_of(&mirror.send(NOW).expect("proven")), 6);
}

#[test]
fn rule_23_a_lost_answer_is_resent_under_the_same_sequence_unless_it_landed() {
    for landed in [false, true] {
        let mut mirror = mirror();
        take(&mut mirror, outgoing(0, 3));
        take(&mut mirror, outgoing(3, 3));
        mirror.send(NOW).expect("open");
        mirror.on_doubt().expect("outstanding");
        assert!(mirror.needs_resync());
        let settled = mirror
            .on_resynced(&last(landed.then_some(2)), &Landed::default(), 3)
            .expect("our batch");
        assert_eq!(settled.len(), usize::from(landed));
        assert_eq!(mirror.acked(), if landed { 3 } else { 0 });
        assert_eq!(sequence_of(&mirror.send(NOW).expect("open")), if landed { 3 } else { 0 });
    }
}

#[test]
fn a_last_sequence_that_ends_no_batch_of_ours_is_refused() {
    let mut mirror = mirror();
    take(&mut mirror, outgoing(0, 3));
    mirror.send(NOW).expect("open");
    mirror.on_doubt().expect("outstanding");
    assert_eq!(
        mirror.on_resynced(&last(Some(1)), &Landed::default(), 2).err(),
        Some(NotOurs { last: 1 })
    );
}

#[test]
fn a_dropped_queue_is_fetched_again_from_the_end_of_the_flight() {
    let mut mirror = mirror();
    take(&mut mirror, outgoing(0, 3));
    take(&mut mirror, outgoing(3, 3));
    mirror.send(NOW).expect("open");
    mirror.drop_queue();
    assert_eq!(mirror.fetch_offset(), 3);
    mirror.on_success(0).expect("in order");
    assert!(mirror.is_idle());
    assert_eq!(mirror.buffered_bytes(), 0);
}

#[test]
fn what_waits_is_given_back_only_where_fetching_can_begin_again() {
    let part = |base, records, ends_place| Outgoing { ends_place, ..outgoing(base, records) };
    let mut mirror = mirror();
    assert!(!mirror.give_back(), "nothing waits");
    take(&mut mirror, part(0, 2, false));
    take(&mut mirror, part(2, 1, true));
    mirror.send(NOW).expect("open");
    assert!(!mirror.give_back(), "a part is on its way");
    assert!(!mirror.waits_within_batch(), "nor is it known to be there");
    mirror.on_success(0).expect("in order");
    assert!(!mirror.give_back(), "a part is there");
    assert!(mirror.waits_within_batch());
    mirror.send(NOW).expect("open");
    assert!(!mirror.waits_within_batch(), "what is on its way is all that it holds");
    take(&mut mirror, outgoing(3, 1));
    assert!(mirror.give_back());
    assert_eq!((mirror.fetch_offset(), mirror.held().buffered_bytes), (3, 81));
    mirror.on_doubt().expect("outstanding");
    take(&mut mirror, outgoing(3, 1));
    assert!(mirror.give_back(), "what is in doubt stays");
    mirror.on_resynced(&last(None), &Landed::default(), 2).expect("ours");
    assert!(!mirror.give_back(), "a part is there, and another is to be sent again");
    assert_eq!(sequence_of(&mirror.send(NOW).expect("open")), 2);
    mirror.on_success(2).expect("in order");
    assert_eq!((mirror.acked(), mirror.fetch_offset()), (3, 3));
}

#[test]
fn what_a_replay_leaves_of_its_last_batch_is_counted_as_a_copy() {
    let whole = tests_support::batch(0, 5);
    let seen = Seen {
        last_sequences: last(Some(1)),
        last: Some((ID, tests_support::batch(0, 2))),
        ..Seen::nothing(0)
    };
    let mut mirror = mirror();
    mirror.replay = Replay::new(mirror.numberings(), seen, false).expect("not behind");
    take(&mut mirror, Outgoing { batch: whole, ..outgoing(0, 5) });
    let (pool, left) = (FramePool::new(), mirror.held().buffered_bytes);
    assert!(!mirror.is_replaying() && left > 0);
    mirror.hold_rest(|copy| pool.hold([copy.as_ref(); 100].concat().into()));
    assert_eq!(pool.live_bytes(), 100 * left);
    mirror.drop_all();
    assert_eq!(pool.live_bytes(), 0);
}

#[test]
fn what_is_noted_of_a_burst_counts_until_it_is_over() {
    let noted = |mirror: &Mirror| mirror.held().noted_bytes;
    let burst = |mirror: &mut Mirror| {
        let first = mirror.fetch_offset();
        (first..first + 1000).for_each(|offset| take(mirror, outgoing(offset, 1)));
        assert!(noted(mirror) >= 990 * size_of::<Outgoing>(), "{}", noted(mirror));
    };
    let mut mirror = mirror();
    take(&mut mirror, outgoing(0, 1));
    assert_eq!(noted(&mirror), 0);
    burst(&mut mirror);
    for target in 0..=1000 {
        mirror.send(NOW).expect("open");
        mirror.on_success(target).expect("in order");
    }
    assert_eq!((mirror.acked(), noted(&mirror)), (1001, 0));
    burst(&mut mirror);
    mirror.drop_queue();
    assert_eq!(noted(&mirror), 0);
    burst(&mut mirror);
    mirror.drop_all();
    assert_eq!(noted(&mirror), 0);
}

/// A batch on the target: producer id, sequence, records.
type Landing = (i64, i32, i32);

/// A partition of a target broker: its log, and producer state that may be missing.
#[derive(Default)]
struct Target {
    log: Vec<Landing>,
    states: BTreeSet<i64>,
}

impl Target {
    fn end(&self) -> i64 {
        self.log.iter().map(|(_, _, records)| i64::from(*records)).sum()
    }

    /// What follows the last batch of an id.
    fn next(&self, id: i64) -> i32 {
        let last = self.log.iter().rev().find(|(of, _, _)| *of == id);
        last.map_or(0, |(_, sequence, records)| advance(*sequence, *records))
    }

    /// What a read-back from an offset on finds.
    fn read_from(&self, offset: i64) -> (BTreeMap<i64, i32>, Landed) {
        let (mut last, mut landed) = (BTreeMap::new(), Landed::default());
        let mut at = 0;
        for (id, sequence, records) in &self.log {
            if at >= offset {
                last.insert(*id, advance(*sequence, *records - 1));
                landed.note(*id, *sequence, *records, at);
            }
            at += i64::from(*records);
        }
        (last, landed)
    }

    /// Appends as `ProducerAppendInfo` does: with state the sequence must follow, without state any is taken.
    fn produce(&mut self, (id, sequence, records): Landing, refuse: bool) -> Option<i64> {
        if refuse || (self.states.contains(&id) && sequence != self.next(id)) {
            return None;
        }
        let base = self.end();
        self.log.push((id, sequence, records));
        self.states.insert(id);
        Some(base)
    }
}

fn landing(stamped: &Stamped) -> Landing {
    let id = i64::from_be_bytes(stamped.head[43..51].try_into().expect("eight bytes"));
    let count = i32::from_be_bytes(stamped.head[57..61].try_into().expect("four bytes"));
    (id, sequence_of(stamped), count)
}

proptest! {
    /// Whatever the target refuses, forgets or answers too late, and however origins take turns: its log is a prefix of the
    /// source without hole, duplicate or change of order, and the acked prefix never passes it (I1, I2; rules W1, W3).
    #[test]
    fn the_target_never_holds_a_hole(
        steps in prop::collection::vec((0u8..10, 1i32..4, prop::bool::weighted(0.2)), 1..200)
    ) {
        let mut mirror = mirror();
        let mut target = Target::default();
        let mut source: Vec<(i64, i32)> = Vec::new();
        let mut wire: VecDeque<Landing> = VecDeque::new();
        let mut answers: VecDeque<Option<i64>> = VecDeque::new();
        let mut base = 0;
        for (step, records, other) in steps {
            match step {
                0..3 => {
                    let producer_id = if other { ID + 1 } else { ID };
                    source.push((producer_id, records));
                    take(&mut mirror, Outgoing { producer_id, ..outgoing(base, records) });
                    base += i64::from(records);
                }
                3..6 => wire.extend(mirror.send(NOW).as_ref().map(landing)),
                6 | 7 => if let Some(batch) = wire.pop_front() {
                    answers.push_back(target.produce(batch, step == 7));
                },
                8 => if let Some(answer) = answers.pop_front() {
                    match answer {
                        Some(base_offset) => { mirror.on_success(base_offset).expect("no violation"); }
                        None => mirror.on_refusal().expect("outstanding"),
                    }
                },
                _ => {
                    // State is lost only while nothing is queued at the broker: the connection would have died.
                    if wire.is_empty() && answers.is_empty() {
                        target.states.clear();
                    }
                    mirror.on_moved();
                }
            }
            if mirror.needs_resync() {
                let (last, landed) = target.read_from(mirror.target_next());
                mirror.on_resynced(&last, &landed, target.end()).expect("only we write");
            }
            if let Some(producer_id) = mirror.wanted_numbering() {
                prop_assert!(target.end() == mirror.acked(), "opened before all is acknowledged");
                mirror.open_numbering(Numbering { producer_id, producer_epoch: 0, next_sequence: 0 });
            }
            let landed: Vec<_> = target.log.iter().map(|(id, _, records)| (*id, *records)).collect();
            prop_assert_eq!(&landed[..], &source[..landed.len()], "a hole, a repeat or another order");
            let mut next = BTreeMap::new();
            for (id, sequence, records) in &target.log {
                prop_assert_eq!(next.insert(*id, advance(*sequence, *records)).unwrap_or(0), *sequence);
            }
            prop_assert!(mirror.acked() <= target.end(), "acked past the target (I1)");
            // No holes and no other writer: an offset of the source is the same on the target.
            for offset in 0..mirror.acked() {
                let place = mirror.map.place(offset, mirror.acked(), 0);
                prop_assert_eq!(place, Place::Exact { target_offset: offset });
            }
        }
    }
}

#[test]
fn a_change_of_origin_waits_for_what_is_in_flight_and_for_its_numbering() {
    let mut mirror = mirror();
    let other = ID + 1;
    take(&mut mirror, outgoing(0, 2));
    take(&mut mirror, Outgoing { producer_id: other, ..outgoing(2, 2) });
    take(&mut mirror, Outgoing { producer_id: other, ..outgoing(4, 2) });
    take(&mut mirror, outgoing(6, 2));
    mirror.send(NOW).expect("open");
    assert_eq!((mirror.wanted_numbering(), mirror.can_send(NOW)), (None, false));
    mirror.on_success(0).expect("in order");
    assert_eq!((mirror.wanted_numbering(), mirror.can_send(NOW)), (Some(other), false));
    mirror.open_numbering(Numbering { producer_id: other, producer_epoch: 7, next_sequence: 0 });
    let first = mirror.send(NOW).expect("on record");
    assert_eq!((landing(&first), &first.head[51..53]), ((other, 0, 2), &[0, 7][..]));
    assert!(!mirror.can_send(NOW), "the state of one id proves nothing about another's");
    mirror.on_success(2).expect("in order");
    assert_eq!(landing(&mirror.send(NOW).expect("proven")), (other, 2, 2));
    assert!(!mirror.can_send(NOW), "another origin waits for this one");
    mirror.on_success(4).expect("in order");
    assert_eq!(landing(&mirror.send(NOW).expect("drained")), (ID, 2, 2));
}

#[test]
fn a_batch_of_an_origin_that_is_not_in_flight_is_another_instance_s() {
    let mut mirror = mirror();
    mirror.open_numbering(Numbering { producer_id: ID + 1, producer_epoch: 0, next_sequence: 5 });
    take(&mut mirror, outgoing(0, 2));
    mirror.send(NOW).expect("open");
    mirror.on_doubt().expect("outstanding");
    let seen = BTreeMap::from([(ID + 1, 9)]);
    let not_ours = mirror.on_resynced(&seen, &Landed::default(), 9).err();
    assert_eq!(not_ours, Some(NotOurs { last: 9 }));
}

#[test]
fn success_behind_a_refusal_is_read_back_unless_a_cleaner_may_hide_the_hole() {
    for compacted in [false, true] {
        let mut mirror = mirror();
        mirror.target.set_topic(1 << 20, false, compacted);
        for base in [0, 2, 4] {
            take(&mut mirror, outgoing(base, 2));
        }
        mirror.send(NOW).expect("open");
        mirror.on_success(0).expect("in order");
        mirror.send(NOW).expect("proven");
        mirror.send(NOW).expect("proven");
        // A former life's request brings the same batch behind the refusal; then the next one follows.
        mirror.on_refusal().expect("outstanding");
        let success = mirror.on_success(4);
        if compacted {
            assert_eq!(success, Err(Violation::SuccessAfterFailure));
            continue;
        }
        assert_eq!((success, mirror.acked()), (Ok(None), 2), "nothing counts before the read-back");
        assert!(mirror.needs_resync());
        mirror.on_resynced(&last(Some(5)), &Landed::default(), 6).expect("ours");
        assert_eq!(mirror.acked(), 6);
    }
}

/// A mirror that joins, with single records of this size waiting.
fn joining_mirror(records: i64) -> Mirror {
    let mut mirror = mirror();
    mirror.join_up_to(1 << 16);
    for offset in 0..records {
        let mut builder = crate::wire::records::BatchBuilder::new(crate::wire::batch::Codec::None);
        builder.push(NOW, None, Some(&offset.to_be_bytes()), &[]);
        let batch = builder.finish().expect("small");
        take(&mut mirror, Outgoing { batch, ..outgoing(offset, 1) });
    }
    mirror
}

#[test]
fn small_batches_that_wait_leave_as_one() {
    let mut mirror = joining_mirror(5);
    let before = mirror.buffered_bytes();
    let stamped = mirror.send(NOW).expect("open");
    assert_eq!((stamped.joined, sequence_of(&stamped)), (5, 0));
    assert!(mirror.buffered_bytes() < before, "one head is held, and no part");
    assert!(mirror.send(NOW).is_none());
    mirror.skip_to(7, 4);
    let settled = mirror.on_success(40).expect("in order").expect("it counts");
    assert_eq!((settled.records, mirror.acked(), mirror.buffered_bytes()), (5, 7, 0));
    let place = mirror.map().place(3, 7, 45);
    assert_eq!(place, Place::Exact { target_offset: 43 }, "each record has its place");
}

#[test]
fn a_refused_joined_batch_goes_by_its_parts_under_the_same_sequences() {
    let mut mirror = joining_mirror(3);
    mirror.send(NOW).expect("open");
    mirror.skip_to(4, 4);
    mirror.on_refusal().expect("outstanding");
    let nothing = Landed::default();
    assert!(mirror.on_resynced(&last(None), &nothing, 0).expect("ours").is_empty());
    assert!(mirror.part_front(), "it was joined");
    assert!(!mirror.part_front(), "once");
    for (sequence, acked) in [(0, 1), (1, 2), (2, 4)] {
        let stamped = mirror.send(NOW).expect("one at least");
        assert_eq!((stamped.joined, sequence_of(&stamped)), (1, sequence));
        mirror.on_success(sequence.into()).expect("in order");
        assert_eq!(mirror.acked(), acked);
    }
    assert_eq!(mirror.buffered_bytes(), 0);
}

#[test]
fn a_joined_batch_that_may_have_landed_is_sent_again_as_it_was() {
    let mut mirror = joining_mirror(3);
    mirror.send(NOW).expect("open");
    mirror.on_doubt().expect("outstanding");
    mirror.on_resynced(&last(None), &Landed::default(), 0).expect("ours");
    let again = mirror.send(NOW).expect("open");
    assert_eq!((again.joined, sequence_of(&again)), (3, 0));
}
