//! The memory of what a mirror notes of its batches: of small ones more than they take themselves, so it counts (I5), and
//! goes when they do. PURE.

use std::collections::VecDeque;

/// Batches that a mirror has room to note without asking for memory. Ten thousand mirrors have as much each.
const NOTED_FREE: usize = 8;

/// What the notes of a burst take.
pub(super) fn noted_bytes<T>(notes: &VecDeque<T>) -> usize {
    notes.capacity().saturating_sub(NOTED_FREE) * size_of::<T>()
}

/// Gives back what a burst took, once it is over.
pub(super) fn forget_burst<T>(notes: &mut VecDeque<T>) {
    if notes.is_empty() && notes.capacity() > NOTED_FREE {
        notes.shrink_to(NOTED_FREE);
    }
}
