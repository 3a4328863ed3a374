//! Whether more may be fetched for a mirror. What is fetched ahead of one target connection is bounded for all its mirrors
//! together, what is on its way by its [`Flow`], and both by what the lane has free: a slow or stalled connection stops
//! the fetching of its own mirrors and of no others (I5, I7).
//!
//! A mirror's part is what the others leave: each of n stalled connections ends at 1/(n+1) of the lane's memory, each of n
//! slow mirrors at 1/(n+1) of its connection's room, and the others go on (Choudhury and Hahne, dynamic queue thresholds,
//! 1998).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::budget::Held;
use super::cell::MirrorCell;
use super::class::{Class, Way};
use super::flow::{Departure, Flow};
use super::mirror::Mirror;
use super::share::{SendQueue, Share};
use crate::limits;

/// The part of the lane's memory that the mirrors of one target connection hold.
#[derive(Debug, Default)]
pub struct Room {
    /// What its mirrors hold. Of one that came from another connection that includes what is on its way there.
    held: Cell<Held>,
    flow: RefCell<Flow>,
    /// It was filled, and is not half empty since: mirrors leave and join the fetch sessions in few steps.
    is_full: Cell<bool>,
    /// Mirrors whose fetching waits until it holds less.
    waiting: RefCell<Vec<Rc<MirrorCell>>>,
}

impl Room {
    /// Whether the connection takes one request more.
    pub(super) fn may_send(&self, share: &Share) -> bool {
        self.flow.borrow_mut().has_room(share.env.now())
    }

    /// A request's answer is here.
    pub(super) fn on_answered(&self, share: &Share, sent: Departure) {
        self.flow.borrow_mut().on_answered(sent, share.env.now());
    }

    /// The connection is another one.
    pub(super) fn restart(&self) {
        self.flow.replace(Flow::default());
    }
}

impl Share {
    /// A request goes out over a queue's connection: it is ahead no more.
    pub(super) fn on_sent(
        self: &Rc<Self>,
        class: Class,
        queue: &SendQueue,
        bytes: usize,
    ) -> Departure {
        let now = self.env.now();
        if let Some(limit) = &self.link.rate_limit {
            limit.on_sent(class, bytes, now);
        }
        queue.room.flow.borrow_mut().on_sent(bytes, now)
    }

    /// How long the link's limits let nothing of a class go out.
    pub(super) fn rate_pause(&self, class: Class) -> Option<Duration> {
        self.link.rate_limit.as_ref()?.wait(class, self.env.now())
    }

    /// Changes a mirror's buffer, or what is in flight of it, and keeps its sender's share of the budget in step.
    pub(super) fn add_buffered<T>(
        self: &Rc<Self>,
        cell: &MirrorCell,
        mirror: &mut Mirror,
        change: impl FnOnce(&mut Mirror) -> T,
    ) -> T {
        let result = change(mirror);
        self.count(cell.target_way(), cell, mirror.held());
        result
    }

    /// A mirror holds this now in the room of its connection.
    pub(super) fn count(self: &Rc<Self>, way: Way, cell: &MirrorCell, held: Held) {
        let before = cell.counted.replace(held);
        self.budget.shift(before, held);
        let Some(queue) = self.send_queue(way, cell) else { return };
        queue.room.held.set(queue.room.held.get().shifted(before, held));
        let all = self.held_bytes.get().shifted(before, held);
        self.held_bytes.set(all);
        self.stats.buffered_bytes.store(all.buffered_bytes as u64, Relaxed);
        self.look_at_room(&queue.room);
    }

    /// Whether more may be fetched for a mirror.
    pub(super) fn has_room(self: &Rc<Self>, cell: &Rc<MirrorCell>, mirror: &Mirror) -> bool {
        let queue = self.send_queue(cell.target_way(), cell);
        let has_room = mirror.buffered_bytes() < self.link.config.window_bytes_max
            && queue.as_ref().is_none_or(|queue| {
                let ahead =
                    self.ahead_bytes_max().saturating_sub(queue.room.held.get().queued_bytes);
                !queue.room.is_full.get() && mirror.queued_bytes() <= ahead
            });
        self.set_held(cell, !has_room);
        if let Some(queue) = queue.filter(|_| !has_room && !cell.is_listed.replace(true)) {
            queue.room.waiting.borrow_mut().push(cell.clone());
        }
        has_room
    }

    /// Bytes that may wait for one connection. With many mirrors more, so that these need not leave and join the fetch
    /// sessions for little.
    fn ahead_bytes_max(&self) -> usize {
        limits::AHEAD_BYTES_MAX.max(limits::AHEAD_BYTES_PER_MIRROR * self.mirrors_count())
    }

    fn look_at_room(self: &Rc<Self>, room: &Room) {
        let held = room.held.get();
        let (queued, all) = (held.queued_bytes, held.buffered_bytes + held.noted_bytes);
        let (most, free) = (self.ahead_bytes_max(), self.budget.free_bytes());
        if room.is_full.get() {
            if queued <= most / 2 && all <= free {
                room.is_full.set(false);
                self.release(room);
            }
        } else if queued > most || all > free {
            room.is_full.set(true);
            for cell in self.mirrors() {
                let queue = self.send_queue(cell.target_way(), &cell);
                if queue.is_some_and(|queue| std::ptr::eq(&queue.room, room)) {
                    self.touch_fetch(&cell);
                }
            }
        }
    }

    fn release(self: &Rc<Self>, room: &Room) {
        for cell in room.waiting.take() {
            cell.is_listed.set(false);
            self.touch_fetch(&cell);
        }
    }

    /// Looks at every mirror that waits for room, now and then: room comes from other connections of the lane too.
    pub(super) fn touch_held(self: &Rc<Self>) {
        let now = self.env.now();
        let is_due = |at| now.saturating_duration_since(at) >= limits::HELD_LOOK_INTERVAL;
        if !self.held_looked_at.get().is_none_or(is_due) {
            return;
        }
        self.held_looked_at.set(Some(now));
        let queues = self.send_queues();
        for queue in queues {
            self.look_at_room(&queue.room);
            self.release(&queue.room);
        }
    }

    /// Notes whether a mirror's fetching waits.
    pub(super) fn set_held(&self, cell: &MirrorCell, held: bool) {
        if cell.held.replace(held) != held {
            let count = &self.held[cell.class.get() as usize];
            count.set(if held { count.get() + 1 } else { count.get() - 1 });
        }
    }

    /// Whether the fetching of some mirror of a class waits for room.
    pub(super) fn any_held(&self, class: Class) -> bool {
        self.held[class as usize].get() > 0
    }
}
