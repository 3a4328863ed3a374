//! The lane's memory: frames that are alive plus Fetch answers that were asked for stay under one figure (I5). A limit is
//! reached by waiting, never by dropping.

use std::cell::Cell;

use tokio::sync::Notify;

use crate::connection::FramePool;

/// What one lane may hold.
pub struct Budget {
    limit_bytes: usize,
    pool: FramePool,
    reserved_bytes: Cell<usize>,
    /// Batches queued and in flight: what was recoded stands in no frame.
    buffered_bytes: Cell<usize>,
    room: Notify,
}

/// What mirrors hold of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// Queued and in flight.
    pub buffered_bytes: usize,
    /// Queued alone.
    pub queued_bytes: usize,
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
            buffered_bytes: Cell::new(0),
            room: Notify::new(),
        }
    }

    /// Bytes of frames that are alive, or of batches if those are more.
    pub fn used_bytes(&self) -> usize {
        self.pool.live_bytes().max(self.buffered_bytes.get())
    }

    /// Notes that a mirror's batches went from `before` to `after` bytes.
    pub fn shift_buffered(&self, before: usize, after: usize) {
        self.buffered_bytes.set((self.buffered_bytes.get() + after).saturating_sub(before));
        if after < before {
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
            room.await;
        }
    }

    /// Says that frames may have been dropped.
    pub fn freed(&self) {
        self.room.notify_waiters();
    }
}
