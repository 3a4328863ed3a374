//! Under which numbers a mirror begins, from what the anchor, the target's log and its leader's memory say (R3, R7). PURE.

use super::anchor::{Anchor, Numbering};
use super::identity::advance;
use super::mirror::Beginning;
use super::replay::{BehindTheCommit, Replay};
use super::walk::{self, Seen};
use crate::canary::{Canary, planted};
use crate::limits;

/// What a leader remembers of one of a mirror's ids.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct State {
    /// Producer id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Of its last batch.
    pub last_sequence: i32,
    /// That batch is young enough for the memory to be whole (W2). Else it may have been forgotten, and what is remembered
    /// be that of a request which came late.
    pub is_young: bool,
}

/// The newest epoch that the leader remembers of an id.
pub fn newest_epoch(states: &[State], producer_id: i64) -> Option<i16> {
    states.iter().find(|state| state.producer_id == producer_id).map(|state| state.epoch)
}

/// Every epoch of a producer id is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedUp;

/// The epoch of a new numbering: the one after the newest that is known.
pub fn epoch_after(newest: Option<i16>) -> Result<i16, UsedUp> {
    newest.map_or(Ok(0), |newest| newest.checked_add(1).ok_or(UsedUp))
}

/// Why a mirror cannot go on under its anchor's numberings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overtaken {
    /// The target knows a newer epoch than this one of the anchor's.
    Newer(i16),
    /// The target's log ends before the commit.
    Behind(BehindTheCommit),
    /// No epoch is left for a new one.
    UsedUp(UsedUp),
}

/// What the target holds, where its leader remembers each numbering just as the anchor has it: nothing of ours came after the
/// commit, and while the leader remembers, it refuses what comes out of turn. What foreign writers appended since need not
/// be read. A late request of a former life may have been appended since it was asked; ours is answered as its twin, and
/// so nothing is known of the log but that it reaches to the anchor.
pub fn known(anchor: &Anchor, states: &[State], end: i64) -> Option<Seen> {
    // Where one was on its way, records of all ages in between may have made the leader forget and remember again.
    if !anchor.closed && end - anchor.target_offset <= limits::READ_BACK_OFFSETS {
        return planted(Canary::ResumeBlind).then(|| Seen::nothing(anchor.target_offset));
    }
    stand(&anchor.numberings, states).then(|| Seen::nothing(anchor.target_offset))
}

/// Whether the leader remembers each numbering just so.
pub fn stand(numberings: &[Numbering], states: &[State]) -> bool {
    let next = |state: &State| advance(state.last_sequence, 1);
    numberings.iter().all(|of| {
        state(of, states).is_some_and(|state| state.is_young && next(state) == of.next_sequence)
    })
}

fn state<'a>(of: &Numbering, states: &'a [State]) -> Option<&'a State> {
    states.iter().find(|s| (s.producer_id, s.epoch) == (of.producer_id, of.producer_epoch))
}

/// The leader's memory and the log that it leads are at odds: one of the two answers was out of date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtOdds {
    /// Last sequence as the leader remembers it.
    pub remembered: i32,
    /// Last sequence in its log.
    pub in_log: i32,
}

/// Holds the leader's memory, asked before its log was read, against the log (R3).
pub fn agree(numberings: &[Numbering], states: &[State], seen: &Seen) -> Result<(), AtOdds> {
    numberings.iter().try_for_each(|of| at_odds(of, states, seen).map_or(Ok(()), Err))
}

fn at_odds(of: &Numbering, states: &[State], seen: &Seen) -> Option<AtOdds> {
    // Where a batch came late, it is the one that the leader remembers.
    let state = state(of, states).filter(|_| !seen.ends_behind.contains(&of.producer_id))?;
    let last = seen.last_sequences.get(&of.producer_id).copied();
    let next = last.map_or(of.next_sequence, |last| advance(last, 1));
    let (remembered, in_log) = (state.last_sequence, next.wrapping_sub(1));
    (advance(remembered, 1) != next).then_some(AtOdds { remembered, in_log })
}

/// The same with a memory that was asked after the log was read. If it is still behind the log, it was put back by a request
/// that came late to a leader which had forgotten us, and the leader counts on from there.
pub fn put_back(
    numberings: &[Numbering],
    states: &[State],
    mut seen: Seen,
) -> Result<Seen, AtOdds> {
    for of in numberings {
        match at_odds(of, states, &seen) {
            Some(odds) if walk::is_behind(odds.remembered, odds.in_log) => {
                seen.ends_behind.insert(of.producer_id);
            }
            Some(odds) => return Err(odds),
            None => {}
        }
    }
    Ok(seen)
}

/// Goes on under the anchor's numbering, behind what the target holds of it (R3, R4): a request of a former life that is
/// still on its way is refused or recognised by its sequence. Says whether a numbering is new, and so to be put on record.
pub fn resume(
    anchor: &Anchor,
    leader_epoch: i32,
    seen: Seen,
    states: &[State],
    times_differ: bool,
) -> Result<(Beginning, bool), Overtaken> {
    let newer = |of: &&Numbering| {
        newest_epoch(states, of.producer_id).is_some_and(|newest| newest > of.producer_epoch)
    };
    if let Some(overtaken) = anchor.numberings.iter().find(newer) {
        return Err(Overtaken::Newer(overtaken.producer_epoch));
    }
    let (target_offset, ends_behind) = (seen.target_end, seen.ends_behind.clone());
    let replay = Replay::new(&anchor.numberings, seen, times_differ).map_err(Overtaken::Behind)?;
    // The leader counts on from a batch that came late, and would refuse every number of ours (R7). Where something is to
    // be counted off first, the new numbering waits for the commit behind it.
    let is_new = !ends_behind.is_empty() && replay.is_none();
    let mut numberings = anchor.numberings.clone();
    for of in numberings.iter_mut().filter(|of| is_new && ends_behind.contains(&of.producer_id)) {
        let newest = newest_epoch(states, of.producer_id).max(Some(of.producer_epoch));
        of.producer_epoch = epoch_after(newest).map_err(Overtaken::UsedUp)?;
        of.next_sequence = 0;
    }
    if planted(Canary::NumbersFromZero) {
        numberings.iter_mut().for_each(|of| of.next_sequence = 0);
    }
    let beginning = Beginning {
        source_offset: anchor.source_offset,
        leader_epoch,
        target_offset,
        numberings,
        replay,
        map: anchor.map.clone(),
        late: false,
        transaction: None,
        switch: None,
    };
    Ok((beginning, is_new))
}

/// The numberings of a mirror whose settings changed (R7), or that ends what may be sent under the old ones: all that it still
/// needs, behind every epoch that was in use.
pub fn renumber(
    numberings: &[Numbering],
    states: &[State],
    is_needed: impl Fn(i64) -> bool,
) -> Result<Vec<Numbering>, UsedUp> {
    let ours = |state: &&State| numberings.iter().any(|of| of.producer_id == state.producer_id);
    let remembered = states.iter().filter(ours).map(|state| state.epoch);
    let newest = numberings.iter().map(|of| of.producer_epoch).chain(remembered).max();
    let producer_epoch = epoch_after(newest)?;
    let needed = numberings.iter().filter(|of| is_needed(of.producer_id));
    Ok(needed.map(|of| Numbering { producer_epoch, next_sequence: 0, ..*of }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::offset_map::OffsetMap;
    use uuid::Uuid;

    const ID: i64 = 1 << 62;

    /// At source offset 20, target offset 5, next sequence 10.
    fn anchor() -> Anchor {
        Anchor {
            target_topic_id: Uuid::from_u128(1),
            target_offset: 5,
            source_topic_id: Uuid::from_u128(2),
            source_offset: 20,
            numberings: vec![Numbering { producer_id: ID, producer_epoch: 3, next_sequence: 10 }],
            map: OffsetMap::new(20),
            settings: None,
            closed: true,
            era: None,
        }
    }

    fn state(epoch: i16, last_sequence: i32, is_young: bool) -> [State; 1] {
        [State { producer_id: ID, epoch, last_sequence, is_young }]
    }

    fn seen(last: Option<i32>) -> Seen {
        let last_sequences = last.map(|last| (ID, last)).into_iter().collect();
        Seen { last_sequences, ..Seen::nothing(9) }
    }

    #[test]
    fn only_a_whole_memory_that_stands_where_the_anchor_stands_saves_the_reading() {
        // A late request may come between the two questions: nothing is known but the anchor's own end.
        let stands = state(3, 9, true);
        assert_eq!(known(&anchor(), &stands, 9), Some(Seen::nothing(5)));
        for state in [state(3, 9, false), state(3, 10, true), state(2, 9, true)] {
            assert_eq!(known(&anchor(), &state, 9), None, "{state:?}");
        }
        assert_eq!(known(&anchor(), &[], 9), None);
        let open = Anchor { closed: false, ..anchor() };
        assert_eq!(known(&open, &stands, 9), None, "something may have been on its way");
        let far = 6 + limits::READ_BACK_OFFSETS;
        assert_eq!(known(&open, &stands, far), Some(Seen::nothing(5)));
    }

    #[test]
    fn a_memory_that_stays_behind_the_log_is_that_of_a_late_request() {
        let of = &anchor().numberings;
        assert_eq!(agree(of, &state(3, 12, true), &seen(Some(12))), Ok(()));
        assert_eq!(agree(of, &[], &seen(Some(12))), Ok(()), "forgotten");
        let at_odds = AtOdds { remembered: 9, in_log: 12 };
        assert_eq!(agree(of, &state(3, 9, true), &seen(Some(12))), Err(at_odds), "asked again");
        let put_back = |last_sequence, last| {
            let seen = super::put_back(of, &state(3, last_sequence, true), seen(last));
            seen.map(|seen| seen.ends_behind.contains(&ID))
        };
        assert_eq!(put_back(12, Some(12)), Ok(false), "a batch came between");
        assert_eq!(put_back(9, Some(12)), Ok(true));
        assert_eq!(put_back(4, None), Ok(true), "behind the commit");
        let ahead = AtOdds { remembered: 13, in_log: 12 };
        assert_eq!(put_back(13, Some(12)), Err(ahead), "not the leader's, or one more came");
    }

    #[test]
    fn what_a_late_request_put_back_is_left_for_a_new_numbering() {
        let late = Seen { ends_behind: [ID].into(), ..seen(None) };
        let (beginning, is_new) = resume(&anchor(), 0, late, &state(3, 4, false), false).unwrap();
        assert_eq!((is_new, beginning.numberings[0].lineage().producer_epoch), (true, 4));
        assert_eq!(beginning.numberings[0].next_sequence, 0);
        let numberings = renumber(&anchor().numberings, &state(7, 4, true), |_| true).unwrap();
        assert_eq!((numberings[0].producer_epoch, numberings[0].next_sequence), (8, 0));
        let newer = resume(&anchor(), 0, seen(None), &state(4, 0, true), false).unwrap_err();
        assert_eq!(newer, Overtaken::Newer(3));
    }
}
