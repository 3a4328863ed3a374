//! The lane's memory: frames that are alive plus Fetch answers that were asked for stay under one figure (I5). A limit is
//! reached by waiting, never by dropping.

use std::cell::Cell;

use tokio::sync::Notify;

use crate::connection::{Beyond, FramePool};
use crate::limits;

/// What one lane may hold.
pub struct Budget {
    limit_bytes: usize,
    pool: FramePool,
    reserved_bytes: Cell<usize>,
    /// By all mirrors: what was recoded stands in no frame.
    held: Cell<Held>,
    room: Notify,
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

impl Held {
    /// In the place of `before`, which is a part of it, comes `after`.
    pub(super) fn shifted(self, before: Self, after: Self) -> Self {
        let shifted = |bytes: fn(&Self) -> usize| {
            (bytes(&self) + bytes(&after)).saturating_sub(bytes(&before))
        };
        Self {
            buffered_bytes: shifted(|held| held.buffered_bytes),
            queued_bytes: shifted(|held| held.queued_bytes),
            noted_bytes: shifted(|held| held.noted_bytes),
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
        self.budget.reserved_bytes.set(self.budget.reserved_bytes.get() - self.bytes);
        self.budget.room.notify_waiters();
    }
}

impl Budget {
    /// A budget over the frames of this thread.
    pub fn of_this_thread(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            pool: FramePool::of_this_thread(),
            reserved_bytes: Cell::new(0),
            held: Cell::default(),
            room: Notify::new(),
        }
    }

    /// Holds the frames of this thread to it too, and lets those that are larger than what was reserved for them wait.
    pub fn bind_frames(&self, beyond: Beyond) {
        self.pool.keep_within(self.limit_bytes, beyond);
    }

    /// Bytes of frames that are alive, or of batches if those are more, and of what is noted of them. The one frame beyond the memory
    /// of all lanes is no lane's.
    pub fn used_bytes(&self) -> usize {
        let Held { buffered_bytes, noted_bytes, .. } = self.held.get();
        let buffered = buffered_bytes.saturating_sub(self.pool.beyond_bytes());
        self.pool.live_bytes().max(buffered) + noted_bytes
    }

    /// What a mirror holds went from `before` to `after`.
    pub fn shift(&self, before: Held, after: Held) {
        self.held.set(self.held.get().shifted(before, after));
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
        self.limit_bytes.saturating_sub(self.used_bytes() + self.reserved_bytes.get())
    }

    /// Waits until `bytes` are free, with `spare` that others may need first, and takes them. A figure above the limit is cut
    /// to it, so that one oversized request can run alone.
    pub async fn reserve(&self, bytes: usize, spare: usize) -> Reservation<'_> {
        let bytes = bytes.min(self.limit_bytes);
        let needed = bytes.saturating_add(spare).min(self.limit_bytes);
        loop {
            let room = self.room.notified();
            if self.free_bytes() >= needed {
                self.reserved_bytes.set(self.reserved_bytes.get() + bytes);
                return Reservation { budget: self, bytes };
            }
            // What a recovery gives back is told by nobody.
            let _ = tokio::time::timeout(limits::ROOM_LOOK_INTERVAL, room).await;
        }
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
}
