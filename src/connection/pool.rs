//! Frame buffers by size class, last in first out. Owns the memory that responses are read into; a frame comes back
//! when the last slice of it is dropped, on whichever thread. Never zeroes a buffer twice, never grows one in place.
//!
//! One pool serves a lane, with its reader if it has one, so that a buffer that was just acknowledged, and is still in the core's cache, is
//! the next to be filled. What is counted is whole buffers: a slice of ten bytes keeps its frame alive (I5).

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::limits;

/// Frames up to this are plain allocations of their exact size: acknowledgements, heartbeats, commits.
pub(super) const SMALL_BYTES: usize = 4 << 10;
/// 16 KiB, doubled up to 128 MiB.
const CLASSES: usize = 14;

/// Bytes of a class: a power of two and a sixteenth, because a Fetch that asks for 1 MiB is answered with a little more.
const fn class_bytes(class: usize) -> usize {
    let power = (16 << 10) << class;
    power + power / 16
}

/// A cheap handle on a pool.
#[derive(Clone)]
pub struct FramePool(Arc<Shared>);

struct Shared {
    live: AtomicUsize,
    idle: Mutex<Idle>,
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
        Self(Arc::new(Shared { live: AtomicUsize::new(0), idle: Mutex::default() }))
    }

    /// The pool of the calling thread: the one that its connections read into.
    pub fn of_this_thread() -> Self {
        OF_THIS_THREAD.with_borrow(Self::clone)
    }

    /// Makes this the pool of the calling thread too: what its connections read is counted where this is.
    pub fn serve_this_thread(&self) {
        OF_THIS_THREAD.set(self.clone());
    }

    /// Bytes of the buffers that frames in use stand in. What a lane's budget reads.
    pub fn live_bytes(&self) -> usize {
        self.0.live.load(Ordering::Relaxed)
    }

    /// Bytes of the buffers that are kept for the next frames, at most [`limits::POOL_IDLE_BYTES_MAX`].
    pub fn idle_bytes(&self) -> usize {
        self.0.lock().bytes
    }

    /// A buffer of at least `bytes_min`, its contents whatever the last user left.
    pub(super) fn take(&self, bytes_min: usize) -> Block {
        if bytes_min <= SMALL_BYTES {
            return Block { buffer: vec![0; bytes_min], home: None };
        }
        let class = (0..CLASSES).find(|&c| class_bytes(c) >= bytes_min);
        let bytes = class.map_or(bytes_min, class_bytes);
        let reused = class.and_then(|class| {
            let mut idle = self.0.lock();
            let buffer = idle.classes[class].pop()?;
            idle.bytes -= buffer.len();
            Some(buffer)
        });
        self.0.live.fetch_add(bytes, Ordering::Relaxed);
        let buffer = reused.unwrap_or_else(|| vec![0; bytes]);
        Block { buffer, home: Some(self.0.clone()) }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer with one owner, being filled.
pub(super) struct Block {
    buffer: Vec<u8>,
    /// None: too small to be pooled or counted.
    home: Option<Arc<Shared>>,
}

impl Block {
    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    pub(super) fn as_ref(&self) -> &[u8] {
        &self.buffer
    }

    /// The first `len` bytes, shared from now on.
    pub(super) fn freeze(mut self, len: usize) -> Bytes {
        if self.home.is_none() {
            self.buffer.truncate(len);
            return Bytes::from(std::mem::take(&mut self.buffer));
        }
        Bytes::from_owner(Frame { block: self, len })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some(home) = &self.home else { return };
        let bytes = self.buffer.len();
        home.live.fetch_sub(bytes, Ordering::Relaxed);
        let Some(class) = (0..CLASSES).find(|&c| class_bytes(c) == bytes) else { return };
        let mut idle = home.lock();
        if idle.bytes + bytes <= limits::POOL_IDLE_BYTES_MAX {
            idle.bytes += bytes;
            idle.classes[class].push(std::mem::take(&mut self.buffer));
        }
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
}
