//! The lane's memory: frames that are alive plus Fetch answers that were asked for stay under one figure (I5). A limit is
//! reached by waiting, never by dropping.

use std::cell::Cell;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::canary::{Canary, planted};
use crate::connection::{Beside, Beyond, FramePool};
use crate::limits;

/// What one lane may hold.
pub struct Budget {
    limit_bytes: usize,
    pool: FramePool,
    /// The pool knows it too: frames that wait for room leave room for it.
    beside: Cell<Beside>,
    room: Notify,
    /// Somebody found no room, and copies alone are more than there is.
    starves: Notify,
}

/// What mirrors hold of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// Queued and in flight.
    pub buffered_bytes: usize,
    /// Queued alone.
    pub queued_bytes: usize,
    /// What is noted of each of them: more than itself, where it is one small record.
    pub noted_bytes: usize,
}

/// In the place of `before`, which is a part of `all`, comes `after`.
fn shifted(all: usize, before: usize, after: usize) -> usize {
    (all + after).saturating_sub(before)
}

impl Held {
    /// In the place of `before`, which is a part of it, comes `after`.
    pub(super) fn shifted(self, before: Self, after: Self) -> Self {
        let of = |bytes: fn(&Self) -> usize| shifted(bytes(&self), bytes(&before), bytes(&after));
        Self {
            buffered_bytes: of(|held| held.buffered_bytes),
            queued_bytes: of(|held| held.queued_bytes),
            noted_bytes: of(|held| held.noted_bytes),
        }
    }
}

/// Bytes that an outstanding Fetch may bring; given back when it is dropped.
pub struct Reservation<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.budget.set_beside(|beside| beside.reserved -= self.bytes);
        self.budget.room.notify_waiters();
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        // Others may share the pool.
        self.pool.shift_beside(self.beside.get(), Beside::default());
    }
}

impl Budget {
    /// A budget over the frames of this thread.
    pub fn of_this_thread(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            pool: FramePool::of_this_thread(),
            beside: Cell::default(),
            room: Notify::new(),
            starves: Notify::new(),
        }
    }

    /// Holds the frames of this thread to it too, and lets those that are larger than what was reserved for them wait.
    pub fn bind_frames(&self, beyond: Beyond) {
        self.pool.keep_within(self.limit_bytes, beyond);
    }

    /// Bytes of frames that are alive, or of batches if those are more, and of what is noted of them. The one frame beyond the memory
    /// of all lanes is no lane's.
    pub fn used_bytes(&self) -> usize {
        let Beside { batches, noted, .. } = self.beside.get();
        let batches = batches.saturating_sub(self.pool.beyond_bytes());
        self.pool.live_bytes().max(batches) + noted
    }

    fn set_beside(&self, change: impl FnOnce(&mut Beside)) {
        let before = self.beside.get();
        let mut after = before;
        change(&mut after);
        self.beside.set(after);
        self.pool.shift_beside(before, after);
    }

    /// The place beyond the memory of all lanes, if frames are held to it.
    pub(super) fn place(&self) -> Option<Beyond> {
        self.pool.place()
    }

    /// Whether something of this lane stands there.
    pub(super) fn has_place(&self) -> bool {
        self.pool.has_place()
    }

    /// Counts a batch that was written anew as what it is: nothing of its frame.
    pub fn hold(&self, copy: Bytes) -> Bytes {
        self.pool.hold(copy)
    }

    /// What a mirror holds went from `before` to `after`.
    pub fn shift(&self, before: Held, after: Held) {
        self.set_beside(|beside| {
            beside.batches = shifted(beside.batches, before.buffered_bytes, after.buffered_bytes);
            beside.noted = shifted(beside.noted, before.noted_bytes, after.noted_bytes);
        });
        if after.buffered_bytes < before.buffered_bytes || after.noted_bytes < before.noted_bytes {
            self.room.notify_waiters();
        }
    }

    /// Its bound.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// What neither a frame nor a reservation takes.
    pub fn free_bytes(&self) -> usize {
        if planted(Canary::QueueUnbounded) {
            return self.limit_bytes;
        }
        self.limit_bytes.saturating_sub(self.used_bytes() + self.beside.get().reserved)
    }

    /// Waits until `bytes` are free, with `spare` that others may need first, and takes them. A figure above the limit is cut
    /// to it, so that one oversized request can run alone.
    pub async fn reserve(&self, bytes: usize, spare: usize) -> Reservation<'_> {
        let bytes = bytes.min(self.limit_bytes);
        let needed = bytes.saturating_add(spare).min(self.limit_bytes);
        loop {
            let room = self.room.notified();
            if self.free_bytes() >= needed {
                self.set_beside(|beside| beside.reserved += bytes);
                return Reservation { budget: self, bytes };
            }
            if self.pool.copies_beyond_bytes() > 0 {
                self.starves.notify_waiters();
            }
            // What a recovery gives back is told by nobody.
            let _ = tokio::time::timeout(limits::ROOM_LOOK_INTERVAL, room).await;
        }
    }

    /// Waits until nothing can be asked for, since copies are more than the lane's memory.
    pub(super) async fn starves(&self) {
        self.starves.notified().await;
    }

    /// Says that frames may have been dropped.
    pub fn freed(&self) {
        self.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_take_room_beside_the_batches() {
        let budget = Budget::of_this_thread(100);
        let held =
            |buffered_bytes, noted_bytes| Held { buffered_bytes, noted_bytes, ..Held::default() };
        budget.shift(held(0, 0), held(30, 50));
        assert_eq!((budget.used_bytes(), budget.free_bytes()), (80, 20));
        budget.shift(held(30, 50), held(10, 0));
        assert_eq!((budget.used_bytes(), budget.free_bytes()), (10, 90));
    }

    #[test]
    fn frames_that_wait_know_what_stands_beside_them() {
        let budget = Budget::of_this_thread(100);
        let copy = budget.hold(Bytes::from(vec![0; 5_000]));
        assert_eq!((budget.used_bytes(), budget.free_bytes()), (5_000, 0));
        drop(copy);
        let pool = budget.pool.clone();
        let held = Held { buffered_bytes: 30, noted_bytes: 50, ..Held::default() };
        budget.shift(Held::default(), held);
        budget.set_beside(|beside| beside.reserved += 7);
        assert_eq!(pool.beside(), Beside { batches: 30, noted: 50, reserved: 7 });
        drop(Reservation { budget: &budget, bytes: 7 });
        assert_eq!(pool.beside(), Beside { batches: 30, noted: 50, reserved: 0 });
        drop(budget);
        assert_eq!(pool.beside(), Beside::default(), "another's may use it next");
    }
}
