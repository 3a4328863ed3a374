//! `on_failure: retry`: a parked mirror is tried again by itself, ever more seldom and not for ever. It begins as after a
//! start, from what the source group and the target's log say; what parked it parks it again if it is still there.

use std::rc::Rc;

use tokio::time::Instant;

use super::cell::{Halt, MirrorCell};
use super::mirror::Mirror;
use super::share::Share;
use crate::config::resolved::OnFailure;
use crate::limits;

/// A mirror was parked: says when it is tried again, if the link's policy is so.
pub(super) fn on_parked(share: &Rc<Share>, cell: &Rc<MirrorCell>) {
    let retries = cell.retries.get();
    if share.link.config.policies.on_failure != OnFailure::Retry || cell.retry_at.get().is_some() {
        return;
    }
    if retries >= limits::PARKED_RETRIES_MAX {
        tracing::error!(link = %cell.stats.link, mirror = %cell.spec.id, retries, "given up");
        return;
    }
    let (base, max) = limits::PARKED_RETRY_BACKOFF;
    cell.retry_at.set(Some(share.env.now() + share.env.backoff(base, max, retries)));
    cell.retries.set(retries + 1);
    share.recovery_wake.notify_one();
}

/// Lets a parked mirror whose time has come begin anew. Gives the time to look again; none if it is not to be tried.
pub(super) fn look(share: &Rc<Share>, cell: &Rc<MirrorCell>, now: Instant) -> Option<Instant> {
    let at = cell.retry_at.get()?;
    if at > now {
        return Some(at);
    }
    let settled = |mirror: &Mirror| {
        let stands_still = cell.halt.get() == Halt::Parked || mirror.is_idle();
        stands_still && mirror.is_answered()
    };
    // An answer that is outstanding belongs to the life that is given up (R1).
    if !cell.mirror.borrow().as_ref().is_none_or(settled) {
        return Some(now + limits::PARKED_RETRY_BACKOFF.0);
    }
    cell.retry_at.set(None);
    share.forget(cell);
    cell.begin_again();
    None
}
