//! The mirror against a target that obeys the broker's rules, driven through every interleaving that a seed picks.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::engine::offset_map::Place;

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
    }
}

fn mirror() -> Mirror {
    let lineage = Lineage { producer_id: 1 << 62, producer_epoch: 3 };
    let beginning = Beginning {
        source_offset: 0,
        leader_epoch: -1,
        target_offset: 0,
        lineage,
        next_sequence: 0,
        replay: None,
        map: OffsetMap::new(0),
    };
    Mirror::new(beginning, 1 << 20, Arc::default())
}

fn take(mirror: &mut Mirror, outgoing: Outgoing) {
    assert!(mirror.take(outgoing).expect("nothing is opened"));
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
        let settled =
            mirror.on_resynced(landed.then_some(2), &Landed::default(), 3).expect("our batch");
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
    assert_eq!(mirror.on_resynced(Some(1), &Landed::default(), 2).err(), Some(NotOurs { last: 1 }));
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

/// A partition of a target broker: a log of (sequence, records), and producer state that may be missing.
#[derive(Default)]
struct Target {
    log: Vec<(i32, i32)>,
    has_state: bool,
}

impl Target {
    fn end(&self) -> i64 {
        self.log.iter().map(|(_, records)| i64::from(*records)).sum()
    }

    /// What a read-back finds.
    fn landed(&self) -> Landed {
        let mut landed = Landed::default();
        let mut at = 0;
        for (sequence, records) in &self.log {
            landed.note(1 << 62, *sequence, *records, at);
            at += i64::from(*records);
        }
        landed
    }

    /// Appends as `ProducerAppendInfo` does: with state the sequence must follow, without state any is taken.
    fn produce(&mut self, sequence: i32, records: i32, refuse: bool) -> Option<i64> {
        let follows = self.log.last().map_or(0, |(s, r)| advance(*s, *r));
        if refuse || (self.has_state && sequence != follows) {
            return None;
        }
        let base = self.end();
        self.log.push((sequence, records));
        self.has_state = true;
        Some(base)
    }
}

proptest! {
    /// Whatever the target refuses, forgets or answers too late: its log is a prefix of the source without hole,
    /// duplicate or change of order, and the acked prefix never passes it (I1, I2; rules W1, W3).
    #[test]
    fn the_target_never_holds_a_hole(steps in prop::collection::vec((0u8..10, 1i32..4), 1..200)) {
        let mut mirror = mirror();
        let mut target = Target::default();
        let mut wire: VecDeque<(i32, i32)> = VecDeque::new();
        let mut answers: VecDeque<Option<i64>> = VecDeque::new();
        let mut base = 0;
        let mut clean = true;
        for (step, records) in steps {
            match step {
                0..3 => {
                    take(&mut mirror, outgoing(base, records));
                    base += i64::from(records);
                }
                3..6 => {
                    if let Some(stamped) = mirror.send(NOW) {
                        let count = i32::from_be_bytes(stamped.head[57..61].try_into().expect("four bytes"));
                        wire.push_back((sequence_of(&stamped), count));
                    }
                }
                6 | 7 => if let Some((sequence, count)) = wire.pop_front() {
                    answers.push_back(target.produce(sequence, count, step == 7));
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
                        target.has_state = false;
                    }
                    mirror.on_moved();
                }
            }
            if mirror.needs_resync() {
                let ours = target.log.iter().rev().map(|(s, r)| advance(*s, *r - 1)).next();
                mirror.on_resynced(ours, &target.landed(), target.end()).expect("only we write");
            }
            let mut next = 0;
            for (sequence, records) in &target.log {
                clean &= *sequence == next;
                next = advance(*sequence, *records);
            }
            prop_assert!(clean, "a hole or a repeat: {:?}", target.log);
            prop_assert!(mirror.acked() <= i64::from(next), "acked past the target (I1)");
            // No holes and no other writer: an offset of the source is the same on the target.
            let places = (0..mirror.acked()).map(|offset| mirror.map.place(offset, mirror.acked(), 0));
            for (offset, place) in (0..).zip(places) {
                prop_assert_eq!(place, Place::Exact { target_offset: offset });
            }
        }
    }
}
