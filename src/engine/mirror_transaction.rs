//! A mirror whose batches are brought by transactions: what of [`Mirror`] is only for those. PURE.

use super::anchor::{Anchor, Numbering};
use super::mirror::{Mirror, Settled};
use super::notes::forget_burst;
use super::numberings::Numberings;
use super::transaction::{Era, Place, Producer, Stage, Switch, Transaction};

/// What an attempt to end a transaction finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// Acks are still to come.
    Waits,
    /// Everything is acknowledged: this place goes into the transaction.
    At(Box<Place>),
    /// Something went wrong, or the mirror was given up: it is not to be ended.
    Failed,
}

impl Mirror {
    /// Its transactions; none where each batch counts by itself.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// The acked prefix.
    fn acked_place(&self) -> Place {
        Place {
            offset: self.acked,
            leader_epoch: self.acked_epoch,
            target_offset: self.window.target_next(),
            map: self.map.clone(),
        }
    }

    fn is_well(&self) -> bool {
        !self.given_up && !self.window.has_failed()
    }

    /// Begins a transaction if something waits for one.
    pub fn begin_transaction(&mut self) -> bool {
        let ready = self.is_well() && !self.queue.is_empty();
        let Some(transaction) = &mut self.transaction else { return false };
        if !ready || !transaction.is_closed() {
            return false;
        }
        transaction.begin();
        // The first batch goes alone: refused, it can be sent again.
        self.window.on_unproven();
        true
    }

    /// Begins one that brings nothing but the position, so that the brokers do not forget it.
    pub fn begin_empty_transaction(&mut self) -> bool {
        let idle = self.is_well() && self.is_idle();
        let Some(transaction) = self.transaction.as_mut().filter(|_| idle) else { return false };
        let may = transaction.is_closed() && transaction.era().began;
        if may {
            transaction.begin();
        }
        may
    }

    /// Its batches may leave.
    pub fn transaction_opened(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.opened();
        }
    }

    /// Nothing more is sent in the open transaction; says where it can end.
    pub fn end_transaction(&mut self) -> Ending {
        let (well, drained) = (self.is_well(), self.flight.is_empty());
        let Some(transaction) = &mut self.transaction else { return Ending::Failed };
        transaction.close();
        match (well, drained) {
            (false, _) => Ending::Failed,
            (true, false) => Ending::Waits,
            (true, true) => Ending::At(Box::new(self.acked_place())),
        }
    }

    /// The transaction with this place was committed; gives what it brought.
    pub fn transaction_ended(&mut self, place: Place, next: Option<Producer>) -> Vec<Settled> {
        let stays = self.acked > place.offset && self.is_idle();
        let Some(transaction) = &mut self.transaction else { return Vec::new() };
        let settled = transaction.ended(place, next);
        if stays {
            transaction.set_stable(self.acked, self.acked_epoch);
        }
        settled
    }

    /// The transaction was taken back, with nothing in it.
    pub fn transaction_dropped(&mut self, next: Option<Producer>) {
        if let Some(transaction) = &mut self.transaction {
            transaction.dropped(next);
        }
    }

    /// It cannot be committed any more: nothing is sent, and once all answers are in, the mirror begins anew.
    pub fn fail_transaction(&mut self) {
        if self.transaction.is_some() {
            self.window.close();
        }
    }

    /// The only batch in flight, the first of its transaction, was refused, and nothing is against it but the time: it
    /// goes back to the head of the queue under the same number.
    pub fn take_back(&mut self) -> bool {
        let first = self.transaction.as_ref().is_some_and(|t| t.is_open() && !t.has_written());
        if !first || !self.is_well() || self.window.outstanding() != 1 {
            return false;
        }
        let (Some(flight), Some(transaction)) = (self.flight.pop_back(), &mut self.transaction)
        else {
            return false;
        };
        transaction.set_next_sequence(flight.sequence);
        self.queue.push_front(flight.outgoing);
        self.window.on_taken_back();
        true
    }

    /// What is in flight goes back to the head of the queue.
    pub fn unsend(&mut self) {
        while let Some(flight) = self.flight.pop_back() {
            self.queue.push_front(flight.outgoing);
        }
        forget_burst(&mut self.flight);
    }

    /// No request of a former life can come late any more: it may go over to transactions.
    pub fn note_quiet(&mut self) {
        if let Some(Switch { stage: stage @ Stage::Late, .. }) = &mut self.switch {
            *stage = Stage::Quiet;
        }
    }

    /// It stops sending to go a step on its way to transactions: what the other kind of delivery left is counted off.
    pub(super) fn is_switching(&self) -> bool {
        let ready = |switch: Switch| match switch.stage {
            Stage::Late => false,
            Stage::Quiet => true,
            Stage::Renumbered => self.proved,
        };
        self.switch.is_some_and(ready) && self.has_place()
    }

    /// What it goes over to: the source group is to hear of the new numbering, or of the era. None while that cannot be yet.
    pub fn wants_switch(&self) -> Option<Switch> {
        let settled = self.flight.is_empty() && self.unseen.is_none();
        let ready = self.is_switching() && self.is_well() && settled;
        // An idle one has time.
        let waits = |switch: &Switch| switch.stage == Stage::Quiet && self.queue.is_empty();
        self.switch.filter(|switch| ready && !waits(switch))
    }

    /// The source group knows of the numberings under which its last batch outside of transactions goes.
    pub fn renumber(&mut self, numberings: Vec<Numbering>) {
        if self.wants_switch().is_none() {
            return;
        }
        if let Some(switch) = &mut self.switch {
            switch.stage = Stage::Renumbered;
            self.numberings = Numberings::new(numberings);
            // Another numbering has proved nothing.
            self.window.on_moved();
            self.proved = false;
        }
    }

    /// The source group knows of the era.
    pub fn switch_over(&mut self) {
        if let Some(Switch { producer, era, stage: Stage::Renumbered }) = self.wants_switch() {
            self.switch = None;
            self.transaction = Some(Transaction::new(producer, era, self.acked_place()));
        }
    }

    /// The place that may be committed to the source group, if there is one: the acked prefix, or with transactions what
    /// is committed on the target.
    pub fn committable(&self) -> Option<i64> {
        match &self.transaction {
            None => self.has_place().then(|| self.place()),
            Some(transaction) => Some(transaction.stable().offset),
        }
    }

    /// What to commit of [`Mirror::committable`]: offset, leader epoch and anchor.
    pub fn to_commit(&self, source: uuid::Uuid, target: uuid::Uuid) -> (i64, i32, Anchor) {
        let anchor = self.anchor(source, target);
        match &self.transaction {
            None => (self.place(), self.acked_epoch, anchor),
            Some(transaction) => {
                let stable = transaction.stable();
                (stable.offset, stable.leader_epoch, at(stable, transaction.era(), &anchor))
            }
        }
    }

    /// The anchor of the transaction that ends at this place.
    pub fn anchor_at(&self, place: &Place, source: uuid::Uuid, target: uuid::Uuid) -> Anchor {
        let anchor = self.anchor(source, target);
        match &self.transaction {
            None => anchor,
            Some(transaction) => at(place, Era { began: true, ..transaction.era() }, &anchor),
        }
    }

    /// Nothing in flight, and no transaction that is still to count.
    pub fn is_drained(&self) -> bool {
        self.flight.is_empty() && self.transaction.as_ref().is_none_or(Transaction::is_closed)
    }

    /// Nothing queued or on its way, no transaction open, and no doubt.
    pub fn is_settled(&self) -> bool {
        self.is_idle() && self.is_drained() && self.is_answered() && self.is_well()
    }

    /// Source offset below which everything counts on the target: acknowledged, or committed by a transaction.
    pub fn counts_below(&self) -> i64 {
        self.transaction.as_ref().map_or(self.acked, |transaction| transaction.stable().offset)
    }
}

/// An anchor of a place in an era.
fn at(place: &Place, era: Era, of: &Anchor) -> Anchor {
    Anchor {
        target_offset: place.target_offset,
        source_offset: place.offset,
        map: place.map.clone(),
        era: Some(era),
        ..of.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::joining::Joining;
    use super::*;
    use crate::engine::mirror::{Beginning, Outgoing};
    use crate::engine::offset_map::OffsetMap;
    use crate::wire::batch::BatchHeader;
    use crate::wire::tests_support::batch;
    use std::sync::Arc;
    use tokio::time::Instant;

    const PRODUCER: Producer = Producer { id: 9, epoch: 4, v2: false };
    const ERA: Era = Era { id: 1, began: false };
    const HOME: i64 = 1 << 62;
    const NOW: i64 = 1_800_000_000_000;

    fn beginning() -> Beginning {
        let numbering = Numbering { producer_id: HOME, producer_epoch: 3, next_sequence: 5 };
        Beginning {
            source_offset: 0,
            leader_epoch: -1,
            target_offset: 0,
            numberings: vec![numbering],
            replay: None,
            map: OffsetMap::new(0),
            late: false,
            transaction: None,
            switch: None,
        }
    }

    fn transactional() -> Mirror {
        let map = OffsetMap::new(0);
        let stable = Place { offset: 0, leader_epoch: -1, target_offset: 0, map };
        let transaction = Some(Transaction::new(PRODUCER, ERA, stable));
        Mirror::new(Beginning { transaction, ..beginning() }, 1 << 20, Arc::default())
    }

    /// So old that the target may have forgotten its producer.
    fn take(mirror: &mut Mirror, base: i64, records: i32) {
        take_of(mirror, base, records, 0);
    }

    fn take_of(mirror: &mut Mirror, base: i64, records: i32, max_timestamp: i64) {
        let outgoing = Outgoing {
            batch: batch(base, records),
            next_offset: base + i64::from(records),
            leader_epoch: 1,
            records,
            max_timestamp,
            fetched_at: Instant::now(),
            ends_place: true,
            spans: base.into(),
            producer_id: HOME,
            joining: Joining::default(),
        };
        assert!(mirror.take(outgoing).expect("nothing is opened"));
    }

    fn sent(mirror: &mut Mirror) -> BatchHeader {
        BatchHeader::parse(&mirror.send(NOW).expect("the window is open").head).expect("ours")
    }

    #[test]
    fn i1_nothing_counts_before_its_transaction_is_committed() {
        let mut mirror = transactional();
        take(&mut mirror, 0, 2);
        take(&mut mirror, 2, 3);
        assert!(!mirror.can_send(NOW), "nothing is open");
        assert!(mirror.begin_transaction() && !mirror.begin_transaction());
        mirror.transaction_opened();
        let head = sent(&mut mirror);
        assert_eq!((head.producer_id, head.producer_epoch, head.base_sequence), (9, 4, 0));
        assert!(head.is_transactional() && !mirror.can_send(NOW), "the first goes alone");
        assert_eq!(mirror.end_transaction(), Ending::Waits);
        mirror.on_success(100).expect("in order");
        assert_eq!(
            mirror.unseen(),
            None,
            "a fence keeps late requests out, however old the records"
        );
        assert_eq!((mirror.acked(), mirror.counts_below(), mirror.committable()), (2, 0, Some(0)));
        assert!(!mirror.can_send(NOW), "it ends");
        let Ending::At(place) = mirror.end_transaction() else { panic!("drained") };
        assert_eq!((place.offset, place.target_offset), (2, 102));
        let settled = mirror.transaction_ended(*place, None);
        assert_eq!(settled.iter().map(|s| s.records).sum::<i32>(), 2);
        assert_eq!((mirror.counts_below(), mirror.committable()), (2, Some(2)));
        assert!(mirror.begin_transaction(), "more waits");
        mirror.transaction_opened();
        assert_eq!(sent(&mut mirror).base_sequence, 2, "the numbering goes on in an epoch");
    }

    #[test]
    fn anything_but_success_ends_the_life_and_what_comes_behind_it_is_no_violation() {
        let mut mirror = transactional();
        (0..3).for_each(|n| take(&mut mirror, n, 1));
        assert!(mirror.begin_transaction());
        mirror.transaction_opened();
        sent(&mut mirror);
        mirror.on_success(0).expect("in order");
        sent(&mut mirror);
        sent(&mut mirror);
        mirror.on_refusal().expect("asked");
        assert!(!mirror.needs_recovery(), "an answer is missing");
        assert_eq!(mirror.on_success(7), Ok(None), "appended behind a hole: it is aborted");
        assert!(mirror.needs_recovery());
        assert_eq!(mirror.end_transaction(), Ending::Failed);
        assert_eq!(mirror.committable(), Some(0));
    }

    #[test]
    fn the_first_batch_may_be_sent_again_and_no_other() {
        let mut mirror = transactional();
        take(&mut mirror, 0, 4);
        take(&mut mirror, 4, 1);
        assert!(!mirror.take_back() && mirror.begin_transaction());
        mirror.transaction_opened();
        sent(&mut mirror);
        assert!(mirror.take_back() && mirror.can_send(NOW));
        assert_eq!(sent(&mut mirror).base_sequence, 0, "under the same number");
        mirror.on_success(0).expect("in order");
        sent(&mut mirror);
        assert!(!mirror.take_back(), "something was written");
    }

    #[test]
    fn what_is_stepped_over_counts_at_once_only_while_nothing_is_open() {
        let mut mirror = transactional();
        mirror.skip_to(3, 1);
        assert_eq!(mirror.committable(), Some(3));
        take(&mut mirror, 3, 1);
        assert!(mirror.begin_transaction());
        mirror.transaction_opened();
        sent(&mut mirror);
        mirror.on_success(0).expect("in order");
        mirror.skip_to(6, 1);
        assert_eq!(mirror.committable(), Some(3));
        let Ending::At(place) = mirror.end_transaction() else { panic!("drained") };
        mirror.skip_to(9, 1);
        mirror.transaction_ended(*place, None);
        assert_eq!(mirror.committable(), Some(9));
    }

    fn switching(stage: Stage, late: bool) -> Mirror {
        let switch = Some(Switch { producer: PRODUCER, era: ERA, stage });
        Mirror::new(Beginning { switch, late, ..beginning() }, 1 << 20, Arc::default())
    }

    fn renumber(mirror: &mut Mirror) {
        let next = Numbering { producer_id: HOME, producer_epoch: 4, next_sequence: 0 };
        mirror.renumber(vec![next]);
    }

    #[test]
    fn a_mirror_goes_over_to_transactions_behind_a_batch_of_a_numbering_of_its_own() {
        let mut mirror = switching(Stage::Late, false);
        for n in 0..4 {
            take(&mut mirror, n, 1);
        }
        let head = sent(&mut mirror);
        assert_eq!((head.producer_epoch, head.base_sequence), (3, 5), "by the old numbering");
        mirror.on_success(0).expect("in order");
        assert_eq!(mirror.wants_switch(), None, "what follows may be on its way from another");
        sent(&mut mirror);
        mirror.note_quiet();
        assert!(mirror.wants_switch().is_none() && !mirror.can_send(NOW), "an ack is missing");
        mirror.on_success(1).expect("in order");
        mirror.switch_over();
        assert!(mirror.wants_switch().is_some_and(|switch| switch.stage == Stage::Quiet));
        renumber(&mut mirror);
        assert_eq!(mirror.wants_switch(), None, "nobody has acknowledged anything of it");
        let head = sent(&mut mirror);
        assert_eq!((head.producer_id, head.producer_epoch, head.base_sequence), (HOME, 4, 0));
        assert!(!mirror.can_send(NOW), "the first of a numbering goes alone");
        mirror.on_success(2).expect("in order");
        assert!(!mirror.can_send(NOW) && mirror.wants_switch().is_some());
        mirror.switch_over();
        assert_eq!((mirror.wants_switch(), mirror.committable()), (None, Some(3)));
        assert!(mirror.begin_transaction());
        mirror.transaction_opened();
        let head = sent(&mut mirror);
        assert_eq!((head.producer_id, head.base_sequence), (9, 0));
    }

    #[test]
    fn an_idle_mirror_renumbers_when_something_comes() {
        let mut mirror = switching(Stage::Quiet, false);
        assert_eq!(mirror.wants_switch(), None);
        take(&mut mirror, 0, 1);
        assert!(mirror.wants_switch().is_some() && !mirror.can_send(NOW));
    }

    #[test]
    fn a_late_request_is_waited_for_before_the_era_and_not_in_it() {
        let mut mirror = switching(Stage::Late, true);
        take(&mut mirror, 0, 1);
        assert!(!mirror.can_send(NOW) && mirror.waits_for_quiet(NOW));
        let mut mirror = switching(Stage::Late, true);
        take_of(&mut mirror, 0, 1, NOW);
        take(&mut mirror, 1, 1);
        sent(&mut mirror);
        assert!(mirror.waits_for_quiet(NOW), "the old one");
        let mut mirror = switching(Stage::Renumbered, false);
        take_of(&mut mirror, 0, 1, NOW);
        take(&mut mirror, 1, 1);
        sent(&mut mirror);
        mirror.on_success(0).expect("in order");
        assert!(!mirror.waits_for_quiet(NOW) && mirror.wants_switch().is_some());
        mirror.switch_over();
        assert!(mirror.begin_transaction() && !mirror.waits_for_quiet(NOW));
        mirror.transaction_opened();
        sent(&mut mirror);
        mirror.on_success(1).expect("in order");
        assert!(mirror.is_idle() && !mirror.is_drained() && !mirror.is_settled(), "it is open");
        let Ending::At(place) = mirror.end_transaction() else { panic!("drained") };
        mirror.transaction_ended(*place, None);
        assert!(mirror.is_drained() && mirror.is_settled());
    }
}
