//! Room for the frames that are larger than what was asked for: a broker answers a Fetch with one whole batch at least,
//! however large (KIP-74). Nobody reserved room for those, so each waits until its lane's memory has it, or for the one
//! place of the process beyond the memory of its lanes (I5). The place is what keeps frames that wait for each other, or for a
//! target that takes nothing, from waiting for ever.
//!
//! A batch that has to be written anew leaves its frame for a copy, for which nobody waits: while copies are more than their
//! lane's memory, they have the place.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use super::pool::{Beside, Shared};
use crate::limits;

/// The place of the one frame that may stand beyond the memory of all lanes.
#[derive(Clone, Default)]
pub struct Beyond(Arc<Place>);

#[derive(Default)]
struct Place {
    taken: AtomicBool,
    waiting: Waiting,
    wanted: Notify,
    lanes: Mutex<Vec<Weak<Shared>>>,
}

impl Beyond {
    /// Waits until somebody waits for it.
    pub async fn wanted(&self) {
        loop {
            let wanted = self.0.wanted.notified();
            if self.0.waiting.count.load(SeqCst) > 0 {
                return;
            }
            wanted.await;
        }
    }

    /// A lane whose frames may come here, and whose copies may be in their way.
    pub(super) fn join(&self, lane: &Arc<Shared>) {
        let mut lanes = self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.push(Arc::downgrade(lane));
    }

    /// Takes the place, if it is free.
    fn take(&self) -> bool {
        if self.is_held_by_copies() || self.0.taken.swap(true, SeqCst) {
            return false;
        }
        // The last holder's frame may have become a copy between the two looks.
        if self.is_held_by_copies() {
            self.leave();
            return false;
        }
        true
    }

    fn leave(&self) {
        self.0.taken.store(false, SeqCst);
        self.wake();
    }

    fn is_held_by_copies(&self) -> bool {
        let lanes = self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.iter().filter_map(Weak::upgrade).any(|lane| lane.copies_beyond_bytes() > 0)
    }

    fn note(&self, waker: &Waker) {
        self.0.waiting.note(waker);
        self.0.wanted.notify_waiters();
    }

    fn forget(&self, waker: &Waker) {
        self.0.waiting.forget(waker);
    }

    /// Whoever waits for it looks again.
    pub(super) fn wake(&self) {
        self.0.waiting.wake();
    }
}

/// What a pool's frames may come to.
pub(super) struct Bounds {
    pub(super) bytes_max: usize,
    pub(super) beyond: Beyond,
}

/// Connections that wait for room.
#[derive(Default)]
pub(super) struct Waiting {
    count: AtomicUsize,
    wakers: Mutex<Vec<Waker>>,
}

impl Waiting {
    fn note(&self, waker: &Waker) {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
        self.count.store(wakers.len(), SeqCst);
    }

    fn forget(&self, waker: &Waker) {
        if self.count.load(SeqCst) == 0 {
            return;
        }
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        wakers.retain(|known| !known.will_wake(waker));
        self.count.store(wakers.len(), SeqCst);
    }

    /// All of them look again. Every frame that goes comes by here.
    pub(super) fn wake(&self) {
        if self.count.load(SeqCst) == 0 {
            return;
        }
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        self.count.store(0, SeqCst);
        let woken = std::mem::take(&mut *wakers);
        drop(wakers);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// Room for one frame, until it is dropped.
pub(super) struct Claim {
    pool: Arc<Shared>,
    bytes: usize,
    stands: Stands,
}

enum Stands {
    Within,
    /// The same, for a copy.
    AsCopy,
    Beyond(Beyond),
}

impl Claim {
    /// What it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whose it is.
    pub(super) fn pool(&self) -> &Arc<Shared> {
        &self.pool
    }

    /// Ready when there is room for a frame of so many bytes.
    pub(super) fn poll(pool: &Arc<Shared>, bytes: usize, cx: &Context<'_>) -> Poll<Self> {
        let bounds = pool.bounds.get();
        let mut claim = Self::now(pool, bytes);
        if let (None, Some(bounds)) = (&claim, bounds) {
            pool.waiting.note(cx.waker());
            bounds.beyond.note(cx.waker());
            // What went between the look and this woke nobody.
            claim = Self::now(pool, bytes);
        }
        let Some(claim) = claim else { return Poll::Pending };
        // Whoever has room wants nobody's place any more.
        if let Some(bounds) = bounds {
            pool.waiting.forget(cx.waker());
            bounds.beyond.forget(cx.waker());
        }
        Poll::Ready(claim)
    }

    /// Room for it, whether there is any or not.
    pub(super) fn at_once(pool: &Arc<Shared>, bytes: usize) -> Self {
        pool.live.fetch_add(bytes, SeqCst);
        Self { pool: pool.clone(), bytes, stands: Stands::Within }
    }

    /// The same for a copy.
    pub(super) fn of_copy(pool: &Arc<Shared>, bytes: usize) -> Self {
        pool.live.fetch_add(bytes, SeqCst);
        pool.copies.fetch_add(bytes, SeqCst);
        Self { pool: pool.clone(), bytes, stands: Stands::AsCopy }
    }

    fn now(pool: &Arc<Shared>, bytes: usize) -> Option<Self> {
        let (bytes_max, Beside { batches, noted, reserved }) = (pool.bytes_max(), pool.beside());
        let batches = batches.saturating_sub(pool.beyond.load(SeqCst));
        // It leaves as much as it takes: a frame that never comes whole must not stop its lane (I7). What others asked for is of
        // that; its own first step is there already.
        let left = bytes.max(reserved.saturating_sub(limits::FETCH_BYTES));
        let beside = noted.saturating_add(bytes).saturating_add(left);
        let within = |live: usize| {
            let fits = live.max(batches).saturating_add(beside) <= bytes_max;
            fits.then(|| live + bytes)
        };
        if pool.live.fetch_update(SeqCst, SeqCst, within).is_ok() {
            return Some(Self { pool: pool.clone(), bytes, stands: Stands::Within });
        }
        let beyond = pool.bounds.get()?.beyond.clone();
        if !beyond.take() {
            return None;
        }
        pool.beyond.fetch_add(bytes, SeqCst);
        Some(Self { pool: pool.clone(), bytes, stands: Stands::Beyond(beyond) })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        match &self.stands {
            Stands::Within => {
                self.pool.live.fetch_sub(self.bytes, SeqCst);
                self.pool.wake();
            }
            Stands::AsCopy => {
                self.pool.copies.fetch_sub(self.bytes, SeqCst);
                self.pool.live.fetch_sub(self.bytes, SeqCst);
                self.pool.wake_all();
            }
            Stands::Beyond(beyond) => {
                self.pool.beyond.fetch_sub(self.bytes, SeqCst);
                beyond.leave();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use bytes::Bytes;

    use super::super::FramePool;
    use super::super::pool::Block;
    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// A connection in the middle of a frame.
    #[derive(Default)]
    struct Reader(Arc<Count>);

    impl Reader {
        fn claim(&self, pool: &FramePool, bytes: usize) -> Option<Claim> {
            match pool.poll_claim(bytes, &Context::from_waker(&self.0.clone().into())) {
                Poll::Ready(claim) => Some(claim),
                Poll::Pending => None,
            }
        }

        fn woken(&self) -> usize {
            self.0.0.swap(0, SeqCst)
        }
    }

    const MIB: usize = 1 << 20;
    /// What so many MiB take: up to 4 a class, a sixteenth more.
    const fn taken(mib: usize) -> usize {
        if mib > 4 { mib * MIB } else { (mib * 17) << 16 }
    }

    fn grown(pool: &FramePool, claim: Claim, mib: usize) -> Block {
        let mut block = pool.take(MIB);
        block.move_into(claim);
        while block.as_ref().len() < mib * MIB {
            block.grow(mib * MIB);
        }
        block
    }

    #[test]
    fn without_bounds_there_is_room() {
        let pool = FramePool::new();
        let claim = Reader::default().claim(&pool, 100 * MIB);
        assert_eq!(pool.live_bytes(), taken(100));
        drop(claim);
        assert_eq!(pool.live_bytes(), 0);
    }

    #[test]
    fn what_does_not_fit_goes_beyond_one_at_a_time_over_all_lanes() {
        let beyond = Beyond::default();
        let lanes = [(); 2].map(|()| FramePool::new());
        lanes.iter().for_each(|pool| pool.keep_within(34 * MIB, beyond.clone()));
        let readers = [(); 3].map(|()| Reader::default());
        let inside = readers[0].claim(&lanes[0], 16 * MIB).unwrap();
        assert_eq!((lanes[0].live_bytes(), lanes[0].beyond_bytes()), (taken(16), 0));
        let outside = readers[0].claim(&lanes[0], 10 * MIB).unwrap();
        assert_eq!((lanes[0].live_bytes(), lanes[0].beyond_bytes()), (taken(16), taken(10)));
        assert!(readers[1].claim(&lanes[0], 10 * MIB).is_none(), "neither here nor beyond");
        assert!(readers[2].claim(&lanes[1], 32 * MIB).is_none(), "larger than the lane's memory");
        assert_eq!(lanes[1].beyond_bytes(), 0);

        let frame = grown(&lanes[0], outside, 10);
        assert_eq!((lanes[0].live_bytes(), lanes[0].beyond_bytes()), (taken(16), taken(10)));
        let slice = frame.freeze(10 * MIB).slice(0..10);
        assert_eq!(
            readers.each_ref().map(Reader::woken),
            [0, 1, 0],
            "the first step's room came back"
        );
        drop(slice);
        assert_eq!(lanes[0].beyond_bytes(), 0);
        assert!(readers[2].woken() > 0, "the place is free");
        let large = readers[2].claim(&lanes[1], 32 * MIB).unwrap();
        assert_eq!(lanes[1].beyond_bytes(), taken(32));
        assert!(readers[1].claim(&lanes[0], 10 * MIB).is_none());
        let _ = readers.each_ref().map(Reader::woken);
        drop(inside);
        assert_eq!(readers.each_ref().map(Reader::woken), [0, 1, 0], "there is room in its lane");
        assert!(readers[1].claim(&lanes[0], 10 * MIB).is_some());
        drop(large);
    }

    #[test]
    fn who_found_room_waits_for_nobody_s_place() {
        let (pool, beyond) = (FramePool::new(), Beyond::default());
        pool.keep_within(34 * MIB, beyond.clone());
        let [first, second, third] = [(); 3].map(|()| Reader::default());
        let inside = first.claim(&pool, 16 * MIB);
        let outside = second.claim(&pool, 16 * MIB);
        assert!(third.claim(&pool, 16 * MIB).is_none());
        let waiting = || beyond.0.waiting.count.load(SeqCst);
        assert_eq!(waiting(), 1);
        drop(inside);
        assert!(third.claim(&pool, 16 * MIB).is_some(), "in the lane, not beyond");
        assert_eq!(waiting(), 0);
        drop(outside);
    }

    #[test]
    fn what_is_noted_and_asked_for_is_no_room() {
        let (pool, reader) = (FramePool::new(), Reader::default());
        pool.keep_within(34 * MIB, Beyond::default());
        let stands = |claim: &Claim| matches!(claim.stands, Stands::Within);
        let none = Beside::default();
        for beside in [
            Beside { noted: 3 * MIB, ..none },
            Beside { reserved: 20 * MIB, ..none },
            Beside { batches: 30 * MIB, ..none },
        ] {
            pool.shift_beside(none, beside);
            let claim = reader.claim(&pool, 16 * MIB).unwrap();
            assert!(!stands(&claim), "{beside:?}");
            assert!(reader.claim(&pool, 16 * MIB).is_none());
            let _ = reader.woken();
            pool.shift_beside(beside, none);
            assert!(reader.woken() > 0, "{beside:?}");
            assert!(stands(&reader.claim(&pool, 16 * MIB).unwrap()));
        }
    }

    #[test]
    fn copies_that_are_more_than_their_lane_s_memory_have_the_place() {
        let beyond = Beyond::default();
        let lanes = [(); 2].map(|()| FramePool::new());
        lanes.iter().for_each(|pool| pool.keep_within(34 * MIB, beyond.clone()));
        let (reader, copy) = (Reader::default(), |mib: usize| Bytes::from(vec![0; mib * MIB]));
        let small = lanes[0].hold(copy(30));
        assert_eq!(lanes[0].live_bytes(), 30 * MIB);
        assert!(reader.claim(&lanes[1], 32 * MIB).is_some(), "it is within");
        let frame = reader.claim(&lanes[0], 20 * MIB).unwrap();
        assert_eq!(lanes[0].beyond_bytes(), taken(20));
        let slice = lanes[0].hold(copy(20)).slice(5..6);
        drop(frame);
        for (pool, mib) in [(&lanes[0], 2), (&lanes[1], 32)] {
            assert!(reader.claim(pool, mib * MIB).is_none(), "the copy has the frame's place");
        }
        assert!(reader.claim(&lanes[1], 2 * MIB).is_some(), "there is room in that lane");
        let _ = reader.woken();
        drop(slice);
        assert!(reader.woken() > 0);
        let large = reader.claim(&lanes[1], 32 * MIB);
        assert!(large.is_some());
        drop((large, small));
        assert_eq!(lanes.each_ref().map(FramePool::live_bytes), [0, 0]);
    }

    #[test]
    fn a_frame_grows_in_steps_and_costs_what_was_claimed() {
        let pool = FramePool::new();
        for (mib, expected) in [(2, &[2][..]), (4, &[2, 4]), (60, &[60])] {
            let mut block = pool.take(MIB);
            block.move_into(Reader::default().claim(&pool, mib * MIB).unwrap());
            let mut steps = Vec::new();
            while block.as_ref().len() < mib * MIB {
                block.as_mut().fill(7);
                let filled = block.as_ref().len();
                block.grow(mib * MIB);
                assert!(block.as_ref()[..filled].iter().all(|byte| *byte == 7));
                steps.push(block.as_ref().len());
            }
            assert_eq!(steps, expected.iter().map(|mib| taken(*mib)).collect::<Vec<_>>());
            assert_eq!(pool.live_bytes(), taken(mib), "as claimed, whatever it has grown to");
        }
        assert_eq!(pool.live_bytes(), 0);
    }
}
