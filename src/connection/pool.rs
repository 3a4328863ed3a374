//! Frame buffers by size class, last in first out. Owns the memory that responses are read into; a frame comes back
//! when the last slice of it is dropped, on whichever thread. Never zeroes a buffer twice, never grows one in place.
//!
//! One pool serves a lane, with its reader if it has one, so that a buffer that was just acknowledged, and is still in the core's cache, is
//! the next to be filled. What is counted is whole buffers: a slice of ten bytes keeps its frame alive (I5).

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use memmap2::MmapMut;

use super::claim::{Beyond, Bounds, Claim, Waiting};
use crate::limits;

/// Frames up to this are plain allocations of their exact size: acknowledgements, heartbeats, commits.
pub(super) const SMALL_BYTES: usize = 4 << 10;
/// 16 KiB, doubled up to 4 MiB.
const CLASSES: usize = 9;

/// Bytes of a class: a power of two and a sixteenth, because a Fetch that asks for 1 MiB is answered with a little more.
const fn class_bytes(class: usize) -> usize {
    let power = (16 << 10) << class;
    power + power / 16
}

/// The smallest class that takes so many bytes.
fn class_of(bytes: usize) -> Option<usize> {
    (0..CLASSES).find(|&class| class_bytes(class) >= bytes)
}

/// The class whose buffers have exactly so many bytes.
fn class_with(bytes: usize) -> Option<usize> {
    class_of(bytes).filter(|&class| class_bytes(class) == bytes)
}

/// What a frame of so many bytes takes.
fn taken_bytes(bytes: usize) -> usize {
    class_of(bytes).map_or(bytes, class_bytes)
}

/// A cheap handle on a pool.
#[derive(Clone)]
pub struct FramePool(Arc<Shared>);

#[derive(Default)]
pub(super) struct Shared {
    pub(super) live: AtomicUsize,
    /// Of the frame that stands in the one place beyond the memory of all lanes.
    pub(super) beyond: AtomicUsize,
    /// The part of `live` that stands in copies.
    pub(super) copies: AtomicUsize,
    beside: Beside<AtomicUsize>,
    /// Not set where no lane answers for it.
    pub(super) bounds: OnceLock<Bounds>,
    pub(super) waiting: Waiting,
    idle: Mutex<Idle>,
}

/// What a lane holds beside its frames, or will: in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside<T = usize> {
    /// Batches. Most stand in frames; those that were joined do not.
    pub batches: T,
    /// What is noted of them.
    pub noted: T,
    /// Answers that were asked for.
    pub reserved: T,
}

#[derive(Default)]
struct Idle {
    classes: [Vec<Vec<u8>>; CLASSES],
    bytes: usize,
}

thread_local! {
    static OF_THIS_THREAD: RefCell<FramePool> = RefCell::default();
}

impl Default for FramePool {
    fn default() -> Self {
        Self::new()
    }
}

impl FramePool {
    /// An empty pool.
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// The pool of the calling thread: the one that its connections read into.
    pub fn of_this_thread() -> Self {
        OF_THIS_THREAD.with_borrow(Self::clone)
    }

    /// Makes this the pool of the calling thread too: what its connections read is counted where this is.
    pub fn serve_this_thread(&self) {
        OF_THIS_THREAD.set(self.clone());
    }

    /// From now on idle and live frames come to no more than `bytes_max` together, as far as live ones alone do not; and a frame that
    /// is larger than what was asked for waits for room, there or `beyond`. Once: a second call does nothing.
    pub fn keep_within(&self, bytes_max: usize, beyond: Beyond) {
        if self.0.bounds.set(Bounds { bytes_max, beyond: beyond.clone() }).is_ok() {
            beyond.join(&self.0);
        }
    }

    /// The place beyond, if a lane answers for this.
    pub fn place(&self) -> Option<Beyond> {
        self.0.bounds.get().map(|bounds| bounds.beyond.clone())
    }

    /// Whether it is one of these that stands there, or copies that are more than the lane's memory.
    pub fn has_place(&self) -> bool {
        self.beyond_bytes() > 0 || self.copies_beyond_bytes() > 0
    }

    /// Bytes of copies beyond the lane's memory.
    pub fn copies_beyond_bytes(&self) -> usize {
        self.0.copies_beyond_bytes()
    }

    /// What the lane holds beside its frames, as it was told last.
    pub fn beside(&self) -> Beside {
        self.0.beside()
    }

    /// What the lane holds beside its frames goes from `before` to `after`: a frame that waits for room leaves room for that.
    pub fn shift_beside(&self, before: Beside, after: Beside) {
        let Beside { batches, noted, reserved } = &self.0.beside;
        let cells = [
            (batches, before.batches, after.batches),
            (noted, before.noted, after.noted),
            (reserved, before.reserved, after.reserved),
        ];
        let mut fell = false;
        for (cell, before, after) in cells {
            if after > before {
                cell.fetch_add(after - before, SeqCst);
            } else if after < before {
                cell.fetch_sub(before - after, SeqCst);
                fell = true;
            }
        }
        if fell {
            self.0.wake();
        }
    }

    /// Counts a copy of what stood in a frame as one, until its last slice is dropped. Nobody waits with it for room: those that
    /// have yet to come do.
    pub fn hold(&self, copy: Bytes) -> Bytes {
        if copy.len() <= SMALL_BYTES {
            return copy;
        }
        let room = Claim::of_copy(&self.0, copy.len());
        Bytes::from_owner(Copied { bytes: copy, _room: room })
    }

    /// Bytes of the buffers that frames in use stand in, but for the one beyond, and of copies. What a lane's budget reads.
    pub fn live_bytes(&self) -> usize {
        self.0.live.load(SeqCst)
    }

    /// Bytes of the frame beyond the memory of all lanes, if it is one of these.
    pub fn beyond_bytes(&self) -> usize {
        self.0.beyond.load(SeqCst)
    }

    /// Bytes of the buffers that are kept for the next frames, at most [`limits::POOL_IDLE_BYTES_MAX`].
    pub fn idle_bytes(&self) -> usize {
        self.0.lock().bytes
    }

    /// A buffer of at least `bytes_min`, its contents whatever the last user left.
    pub(super) fn take(&self, bytes_min: usize) -> Block {
        if bytes_min <= SMALL_BYTES {
            return Block { buffer: Buffer::Kept(vec![0; bytes_min]), room: None };
        }
        let room = Some(self.claim(bytes_min));
        Block { buffer: self.0.buffer(taken_bytes(bytes_min)), room }
    }

    /// Room for a frame of `bytes`, whether there is any or not.
    pub(super) fn claim(&self, bytes: usize) -> Claim {
        Claim::at_once(&self.0, taken_bytes(bytes))
    }

    /// Ready when there is room for a frame of `bytes`, all of which [`Block::grow`] may then take, step by step.
    pub(super) fn poll_claim(&self, bytes: usize, cx: &Context<'_>) -> Poll<Claim> {
        Claim::poll(&self.0, taken_bytes(bytes), cx)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A kept buffer of so many bytes, or a new one, for which others go where there would be too many. They are counted already.
    fn buffer(&self, bytes: usize) -> Buffer {
        let mut idle = self.lock();
        let class = class_with(bytes);
        if let Some(buffer) = class.and_then(|class| idle.classes[class].pop()) {
            idle.bytes -= buffer.len();
            return Buffer::Kept(buffer);
        }
        let gone = idle.shrink_to(self.room());
        drop(idle);
        drop(gone);
        match class {
            Some(_) => Buffer::Kept(vec![0; bytes]),
            None => Buffer::large(bytes),
        }
    }

    /// Keeps a buffer for the next frame, if there is room for it.
    fn keep(&self, buffer: Buffer) {
        let Buffer::Kept(buffer) = buffer else { return };
        let bytes = buffer.len();
        let Some(class) = class_with(bytes) else { return };
        let mut idle = self.lock();
        if idle.bytes + bytes <= limits::POOL_IDLE_BYTES_MAX.min(self.room()) {
            idle.bytes += bytes;
            idle.classes[class].push(buffer);
        }
    }

    /// Bytes that live frames leave.
    fn room(&self) -> usize {
        self.bytes_max().saturating_sub(self.live.load(SeqCst))
    }

    /// What frames may come to; without end where no lane answers for them.
    pub(super) fn bytes_max(&self) -> usize {
        self.bounds.get().map_or(usize::MAX, |bounds| bounds.bytes_max)
    }

    pub(super) fn beside(&self) -> Beside {
        let Beside { batches, noted, reserved } = &self.beside;
        let [batches, noted, reserved] = [batches, noted, reserved].map(|cell| cell.load(SeqCst));
        Beside { batches, noted, reserved }
    }

    /// What copies take beyond the lane's memory.
    pub(super) fn copies_beyond_bytes(&self) -> usize {
        let all = self.live.load(SeqCst) + self.beside.noted.load(SeqCst);
        self.copies.load(SeqCst).min(all.saturating_sub(self.bytes_max()))
    }

    /// Something is given back: whoever waits for it looks again.
    pub(super) fn wake(&self) {
        match self.copies.load(SeqCst) {
            0 => self.waiting.wake(),
            _ => self.wake_all(),
        }
    }

    /// The same of copies, which may have had the place beyond.
    pub(super) fn wake_all(&self) {
        self.waiting.wake();
        if let Some(bounds) = self.bounds.get() {
            bounds.beyond.wake();
        }
    }
}

impl Idle {
    /// Takes out buffers, the largest first, until no more than `bytes_max` are left.
    fn shrink_to(&mut self, bytes_max: usize) -> Vec<Vec<u8>> {
        let mut gone = Vec::new();
        for class in self.classes.iter_mut().rev() {
            while self.bytes > bytes_max {
                let Some(buffer) = class.pop() else { break };
                self.bytes -= buffer.len();
                gone.push(buffer);
            }
        }
        gone
    }
}

/// Where a frame stands.
enum Buffer {
    /// Of a class, or small.
    Kept(Vec<u8>),
    /// Larger than all classes: pages that come when they are first written, and go at once. An allocator would fill it
    /// before, and give it back late.
    Mapped(MmapMut),
}

impl Buffer {
    fn large(bytes: usize) -> Self {
        MmapMut::map_anon(bytes).map_or_else(|_| Self::Kept(vec![0; bytes]), Self::Mapped)
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::Kept(Vec::new())
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Kept(bytes) => bytes,
            Self::Mapped(pages) => pages,
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Kept(bytes) => bytes,
            Self::Mapped(pages) => pages,
        }
    }
}

/// A buffer with one owner, being filled.
pub(super) struct Block {
    buffer: Buffer,
    /// That it stands in. None: too small to be pooled or counted.
    room: Option<Claim>,
}

impl Block {
    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    pub(super) fn as_ref(&self) -> &[u8] {
        &self.buffer
    }

    /// Whether it may grow up to `size` where it stands.
    pub(super) fn has_room(&self, size: usize) -> bool {
        self.room.as_ref().is_none_or(|room| room.bytes() >= size)
    }

    /// It stands in this room from now on.
    pub(super) fn move_into(&mut self, room: Claim) {
        self.room = Some(room);
    }

    /// Puts a larger buffer in the place of one that is full, on the way to `size`. What is written of it stays near what has arrived
    /// (I4): of the classes the smallest half or quarter that is larger is taken, and a mapping costs what is written.
    pub(super) fn grow(&mut self, size: usize) {
        let (Some(room), filled) = (&self.room, self.buffer.len()) else { return };
        let mut bytes = size;
        while class_of(size).is_some() && bytes.div_ceil(2) > filled {
            bytes = bytes.div_ceil(2);
        }
        let mut larger = room.pool().buffer(taken_bytes(bytes));
        larger[..filled].copy_from_slice(&self.buffer);
        room.pool().keep(std::mem::replace(&mut self.buffer, larger));
    }

    /// The first `len` bytes, shared from now on.
    pub(super) fn freeze(mut self, len: usize) -> Bytes {
        if self.room.is_none()
            && let Buffer::Kept(mut buffer) = std::mem::take(&mut self.buffer)
        {
            buffer.truncate(len);
            return Bytes::from(buffer);
        }
        Bytes::from_owner(Frame { block: self, len })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some(room) = self.room.take() else { return };
        let pool = room.pool().clone();
        // First: what is kept needs room beside what is in use.
        drop(room);
        pool.keep(std::mem::take(&mut self.buffer));
    }
}

/// What stood in a frame and was written anew.
struct Copied {
    bytes: Bytes,
    _room: Claim,
}

impl AsRef<[u8]> for Copied {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

struct Frame {
    block: Block,
    len: usize,
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.block.buffer[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_counted_until_its_last_slice_and_then_reused() {
        let pool = FramePool::new();
        let mut block = pool.take(1 << 20);
        block.as_mut()[..3].copy_from_slice(b"abc");
        let address = block.as_ref().as_ptr();
        let frame = block.freeze(1 << 20);
        let slice = frame.slice(0..3);
        drop(frame);
        assert_eq!(&slice[..], b"abc");
        assert_eq!(pool.live_bytes(), (1 << 20) + (1 << 16));
        drop(slice);
        assert_eq!(pool.live_bytes(), 0);
        assert_eq!(pool.idle_bytes(), (1 << 20) + (1 << 16));
        let again = pool.take((1 << 20) - 5);
        assert_eq!(again.as_ref().as_ptr(), address, "the warm buffer comes back first");
        assert_eq!(pool.idle_bytes(), 0);
    }

    #[test]
    fn small_frames_are_exact_and_uncounted() {
        let pool = FramePool::new();
        let block = pool.take(60);
        assert_eq!(block.as_ref().len(), 60);
        assert_eq!(pool.live_bytes(), 0);
        assert_eq!(block.freeze(60).len(), 60);
        assert_eq!(pool.idle_bytes(), 0);
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let pool = FramePool::new();
        let blocks: Vec<_> = (0..64).map(|_| pool.take(1 << 20)).collect();
        assert_eq!(pool.live_bytes(), 64 * ((1 << 20) + (1 << 16)));
        drop(blocks);
        assert_eq!(pool.live_bytes(), 0);
        assert!(pool.idle_bytes() <= limits::POOL_IDLE_BYTES_MAX);
        assert!(pool.idle_bytes() > limits::POOL_IDLE_BYTES_MAX - (2 << 20));
    }

    #[test]
    fn what_a_lane_s_reader_reads_counts_as_the_lane_s() {
        let pool = FramePool::of_this_thread();
        let reader = pool.clone();
        let frame = std::thread::spawn(move || {
            reader.serve_this_thread();
            FramePool::of_this_thread().take(100_000).freeze(10)
        });
        let frame = frame.join().unwrap();
        assert_eq!(pool.live_bytes(), class_bytes(3));
        drop(frame);
        assert_eq!((pool.live_bytes(), pool.idle_bytes()), (0, class_bytes(3)));
    }

    #[test]
    fn a_frame_may_be_dropped_on_another_thread() {
        let pool = FramePool::of_this_thread();
        let frame = pool.take(100_000).freeze(10);
        std::thread::spawn(move || drop(frame)).join().unwrap();
        assert_eq!(pool.live_bytes(), 0);
        assert_eq!(FramePool::of_this_thread().idle_bytes(), class_bytes(3));
    }

    #[test]
    fn idle_frames_leave_room_for_those_in_use() {
        let pool = FramePool::new();
        let mib = class_bytes(6);
        assert_eq!(mib, 17 << 16);
        pool.keep_within(8 * mib, Beyond::default());
        let large = pool.take(4 << 20);
        let small: Vec<_> = (0..2).map(|_| pool.take(1 << 20)).collect();
        drop((large, small));
        assert_eq!((pool.live_bytes(), pool.idle_bytes()), (0, 6 * mib));
        let used: Vec<_> = (0..4).map(|_| pool.take(1 << 20)).collect();
        assert_eq!(
            (pool.live_bytes(), pool.idle_bytes()),
            (4 * mib, 4 * mib),
            "two of them were kept"
        );
        let one_more = pool.take(1 << 20);
        assert_eq!(
            (pool.live_bytes(), pool.idle_bytes()),
            (5 * mib, 0),
            "the large one went for it"
        );
        let beyond: Vec<_> = (0..4).map(|_| pool.take(1 << 20)).collect();
        drop((used, one_more, beyond));
        assert_eq!(
            (pool.live_bytes(), pool.idle_bytes()),
            (0, 8 * mib),
            "never more than the bound"
        );
    }
}
