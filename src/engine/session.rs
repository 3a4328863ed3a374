//! A fetch session (KIP-227): the broker remembers what was asked for, and a request names only what changed. PURE.
//!
//! Two traps of the protocol live here. A partition that is merely left out of an incremental request keeps its old
//! offset at the broker and is sent again: to pause it, it must be forgotten. And any session error means that the
//! broker's memory and ours differ: begin again with a full request.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::wire::error_code::ErrorCode;

/// A source partition, by topic id: a re-created topic of the same name is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourcePartition {
    /// Topic id.
    pub topic_id: Uuid,
    /// Partition.
    pub partition: i32,
}

/// What is wanted of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// First offset.
    pub offset: i64,
    /// Leader epoch of the batch before it; the broker answers with a divergence if its log does not hold that (KIP-595).
    pub last_fetched_epoch: i32,
    /// Leader epoch that our metadata knows; the broker refuses if one of us is behind (KIP-320).
    pub current_leader_epoch: i32,
    /// Bytes at most.
    pub bytes_max: i32,
}

/// What the next request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// 0 for a full request.
    pub session_id: i32,
    /// 0 for a full request, then counting.
    pub session_epoch: i32,
    /// New or changed wishes.
    pub wanted: Vec<(SourcePartition, Wish)>,
    /// No longer wanted.
    pub forgotten: Vec<SourcePartition>,
}

/// The session with one source broker.
#[derive(Debug, Default)]
pub struct Session {
    id: i32,
    epoch: i32,
    known: BTreeMap<SourcePartition, Wish>,
    wishes: BTreeMap<SourcePartition, Wish>,
    dirty: BTreeSet<SourcePartition>,
}

impl Session {
    /// No session yet, nothing wanted.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets or withdraws the wish for a partition; the next request carries it.
    pub fn set(&mut self, partition: SourcePartition, wish: Option<Wish>) {
        match wish {
            Some(wish) => self.wishes.insert(partition, wish),
            None => self.wishes.remove(&partition),
        };
        self.dirty.insert(partition);
    }

    /// Whether anything is wanted at all.
    pub fn is_empty(&self) -> bool {
        self.wishes.is_empty()
    }

    /// What the next request says. The broker's memory is taken to follow; [`Session::reset`] if the request is lost.
    pub fn advance(&mut self) -> Delta {
        if self.id == 0 {
            self.known.clone_from(&self.wishes);
            self.dirty.clear();
            let wanted = self.wishes.iter().map(|(p, w)| (*p, *w)).collect();
            return Delta { session_id: 0, session_epoch: 0, wanted, forgotten: Vec::new() };
        }
        let mut delta = Delta {
            session_id: self.id,
            session_epoch: self.epoch,
            wanted: Vec::new(),
            forgotten: Vec::new(),
        };
        for partition in std::mem::take(&mut self.dirty) {
            let wish = self.wishes.get(&partition).copied();
            match (self.known.get(&partition), wish) {
                (known, Some(wish)) if known != Some(&wish) => {
                    self.known.insert(partition, wish);
                    delta.wanted.push((partition, wish));
                }
                (Some(_), None) => {
                    self.known.remove(&partition);
                    delta.forgotten.push(partition);
                }
                _ => {}
            }
        }
        delta
    }

    /// Reads the top of an answer. On an error the next request is a full one.
    pub fn on_answer(&mut self, error: ErrorCode, session_id: i32) -> Result<(), ErrorCode> {
        if error != ErrorCode::NONE {
            self.reset();
            return Err(error);
        }
        // A broker without a free slot answers a full request with session 0: every request stays full.
        // What was asked for is kept: this answer's data is still to be delivered.
        if session_id == 0 || (self.id != 0 && session_id != self.id) {
            self.id = 0;
            self.epoch = 0;
        } else {
            self.id = session_id;
            self.epoch = if self.epoch == i32::MAX { 1 } else { self.epoch + 1 };
        }
        Ok(())
    }

    /// The offset that was asked for last.
    pub fn asked(&self, partition: SourcePartition) -> Option<i64> {
        self.known.get(&partition).map(|wish| wish.offset)
    }

    /// Forgets the session, not the wishes: the broker's memory can no longer be trusted.
    pub fn reset(&mut self) {
        self.id = 0;
        self.epoch = 0;
        self.known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(n: i32) -> SourcePartition {
        SourcePartition { topic_id: Uuid::from_u128(1), partition: n }
    }

    fn wish(offset: i64) -> Wish {
        Wish { offset, last_fetched_epoch: 0, current_leader_epoch: 0, bytes_max: 1 }
    }

    fn open() -> Session {
        let mut session = Session::new();
        session.set(partition(0), Some(wish(0)));
        session.set(partition(1), Some(wish(0)));
        let full = session.advance();
        assert_eq!((full.session_id, full.session_epoch, full.wanted.len()), (0, 0, 2));
        session.on_answer(ErrorCode::NONE, 7).expect("accepted");
        session
    }

    #[test]
    fn an_incremental_request_names_only_what_changed() {
        let mut session = open();
        session.set(partition(0), Some(wish(10)));
        session.set(partition(1), Some(wish(0)));
        let delta = session.advance();
        assert_eq!((delta.session_id, delta.session_epoch), (7, 1));
        assert_eq!(delta.wanted, [(partition(0), wish(10))]);
        assert!(delta.forgotten.is_empty());
        session.on_answer(ErrorCode::NONE, 7).expect("accepted");
        assert_eq!(session.advance().session_epoch, 2);
    }

    #[test]
    fn rule_42_a_paused_partition_is_forgotten_and_comes_back_in_full() {
        let mut session = open();
        session.set(partition(1), None);
        assert_eq!(session.advance().forgotten, [partition(1)]);
        session.on_answer(ErrorCode::NONE, 7).expect("accepted");
        session.set(partition(1), Some(wish(0)));
        assert_eq!(session.advance().wanted, [(partition(1), wish(0))]);
    }

    #[test]
    fn rule_41_a_session_error_makes_the_next_request_full() {
        for code in [70, 71, 106] {
            let mut session = open();
            session.set(partition(0), Some(wish(10)));
            session.advance();
            assert_eq!(session.on_answer(ErrorCode(code), 0), Err(ErrorCode(code)));
            let full = session.advance();
            assert_eq!((full.session_id, full.session_epoch), (0, 0));
            assert_eq!(full.wanted, [(partition(0), wish(10)), (partition(1), wish(0))]);
        }
    }

    #[test]
    fn rule_41_without_a_slot_every_request_is_full() {
        let mut session = Session::new();
        session.set(partition(0), Some(wish(0)));
        for _ in 0..2 {
            assert_eq!(session.advance().wanted.len(), 1);
            session.on_answer(ErrorCode::NONE, 0).expect("accepted");
            assert_eq!(session.asked(partition(0)), Some(0), "its answer is of use");
        }
    }
}
