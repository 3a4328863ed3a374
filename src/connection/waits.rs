//! What a connection that is not read on waits for, told to whoever asks over it, on whichever thread that is.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// A frame that waits for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomWait {
    /// Since when.
    pub since: Instant,
    /// Its size in bytes.
    pub bytes: usize,
}

/// The frame of one connection that waits for room, if one does.
#[derive(Debug, Default)]
pub struct RoomWaits(Mutex<Option<RoomWait>>);

impl RoomWaits {
    /// What waits now.
    pub fn get(&self) -> Option<RoomWait> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, wait: Option<RoomWait>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = wait;
    }
}
