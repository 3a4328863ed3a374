//! What each replica of a partition remembers of its producers. All remember the same, until one of them loses it: what
//! is lost is that replica's alone, and it counts on from what is appended afterwards.

use std::collections::BTreeMap;
use std::ops::Deref;

use super::batch::Head;
use super::producer_state::Producers;

/// The memory of those that lost nothing.
const WHOLE: i32 = -1;

/// The leader's memory, and beside it those that differ from it.
#[derive(Default)]
pub(super) struct Memories {
    leaders: Producers,
    /// Whose that is: a broker's that lost something, or that of all others.
    of: Option<i32>,
    others: BTreeMap<i32, Producers>,
}

impl Deref for Memories {
    type Target = Producers;

    fn deref(&self) -> &Producers {
        &self.leaders
    }
}

impl Memories {
    /// This broker leads from now on, by what it knows itself.
    pub(super) fn lead(&mut self, broker: i32) {
        let own = self.of == Some(broker) || self.others.contains_key(&broker);
        self.change_to(if own { broker } else { WHOLE });
    }

    /// The broker that leads from now on is one that has lost its memory.
    pub(super) fn lead_without(&mut self, broker: i32) {
        if self.of != Some(broker) {
            self.others.entry(broker).or_insert_with(|| self.leaders.clone());
            self.change_to(broker);
        }
        self.leaders.forget();
    }

    fn change_to(&mut self, whose: i32) {
        let of = self.of.unwrap_or(WHOLE);
        if of != whose
            && let Some(theirs) = self.others.remove(&whose)
        {
            self.others.insert(of, std::mem::replace(&mut self.leaders, theirs));
            self.of = Some(whose);
        }
    }

    /// No replica knows anything any more, but of open transactions.
    pub(super) fn forget(&mut self) {
        self.leaders.forget();
        self.of = None;
        self.others.clear();
    }

    /// The log is read again, by all.
    pub(super) fn clear(&mut self) {
        self.leaders.clear();
        self.of = None;
        self.others.clear();
    }

    /// A batch was appended: whoever follows notes it too.
    pub(super) fn record(&mut self, head: &Head) {
        self.all().for_each(|producers| producers.record(head));
    }

    /// The same for a marker; returns where the transaction began.
    pub(super) fn end_transaction(
        &mut self,
        id: i64,
        epoch: i16,
        coordinator_epoch: i32,
        timestamp: i64,
    ) -> Option<i64> {
        let ended =
            self.all().map(|of| of.end_transaction(id, epoch, coordinator_epoch, timestamp));
        ended.reduce(|first, other| first.or(other)).flatten()
    }

    /// Every replica's own scan.
    pub(super) fn expire(&mut self, now_ms: i64, keep_ms: i64) {
        self.all().for_each(|producers| producers.expire(now_ms, keep_ms));
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Producers> {
        std::iter::once(&mut self.leaders).chain(self.others.values_mut())
    }
}
