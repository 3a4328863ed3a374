//! Batches that are larger than what was reserved for them wait for memory, each with the connection that it comes over
//! ([`crate::connection::Beyond`]). Tells the operator of those that wait for long, and sees to it that no mirror which gets no
//! further keeps them waiting (I7).

use std::pin::pin;
use std::rc::Rc;

use tokio::time::Instant;

use super::cell::MirrorCell;
use super::class::Way;
use super::mirror::Mirror;
use super::reader::SourceConnection;
use super::share::Share;
use super::{fetcher, recovery, trouble};
use crate::connection::RoomWait;
use crate::limits;

/// Waits for the answer of a source connection. While that is not read on for want of memory, its mirrors show it.
pub(super) async fn answered<T>(
    share: &Rc<Share>,
    way: Way,
    connection: &SourceConnection,
    answer: impl Future<Output = T>,
) -> T {
    let mut answer = pin!(answer);
    let mut told = false;
    loop {
        let answer = tokio::time::timeout(limits::ROOM_WAIT_LOOK_INTERVAL, &mut answer).await;
        let now = share.env.now();
        let is_long =
            |wait: &RoomWait| now.saturating_duration_since(wait.since) >= limits::ROOM_WAIT_TOLD;
        match (connection.room_wait().filter(is_long), answer) {
            (Some(wait), Err(_)) => {
                tell(share, way, wait, told);
                told = true;
            }
            (_, answer) => {
                if std::mem::take(&mut told) {
                    is_over(share, way);
                }
                if let Ok(answer) = answer {
                    return answer;
                }
            }
        }
    }
}

fn tell(share: &Rc<Share>, way: Way, wait: RoomWait, again: bool) {
    let error = trouble::no_room(share, way, wait.bytes);
    if !again {
        tracing::warn!(link = %share.link.config.name, broker = way.broker, %error, "a batch waits for memory");
    }
    for cell in share.mirrors().iter().filter(|cell| cell.source_way() == way) {
        cell.note_room_wait(trouble::at(cell, error.clone()));
    }
}

fn is_over(share: &Rc<Share>, way: Way) {
    let now = share.env.now();
    for cell in share.mirrors().iter().filter(|cell| cell.source_way() == way) {
        cell.clear_room_wait(now);
    }
}

/// While somebody waits for the place that something of this lane has, or for what it has there to be less, mirrors that get no
/// further give back what they hold.
pub(super) async fn watch(share: Rc<Share>) {
    let Some(place) = share.budget.place() else { return };
    while !share.is_stopped() {
        tokio::select! {
            () = place.wanted() => {}
            () = share.budget.starves() => {}
        }
        tokio::time::sleep(limits::STANDS_LOOK_INTERVAL).await;
        if share.budget.has_place() {
            look(&share);
        }
    }
}

fn look(share: &Rc<Share>) {
    let now = share.env.now();
    for cell in share.mirrors() {
        // In doubt, nothing is on its way: what was sent counts too.
        let at = |mirror: &Mirror| (mirror.queued_bytes(), mirror.acked());
        let Some((held, acked)) = cell.mirror.borrow().as_ref().map(at) else { continue };
        let mut patience = cell.patience.get();
        if held <= limits::FETCH_BYTES {
            patience.rest();
        } else if patience.is_over(acked, now) && gives_back(share, &cell, now) {
            // That its own source connection waits too is nothing in its way to the target.
            let error = cell.stats.error();
            patience.gave_back(error.is_none_or(|error| error.code == trouble::NO_ROOM));
            tracing::info!(link = %cell.stats.link, mirror = %cell.spec.id, held, "gave back what waits: others wait for its memory");
        }
        cell.patience.set(patience);
    }
}

/// Has a mirror forget what it holds, to fetch it again later. Says whether it did.
fn gives_back(share: &Rc<Share>, cell: &Rc<MirrorCell>, now: Instant) -> bool {
    // What is about to be used by a task, or could not be fetched again as it is.
    let stays = cell.recovering.get()
        || cell.is_parked()
        || cell.renews.get()
        || cell.out_of_range.get().is_some()
        || cell.settings_then.get().is_some();
    let ordered = cell.step_over.borrow().is_some();
    let gave = !stays && !ordered && {
        let mut mirror = cell.mirror.borrow_mut();
        mirror.as_mut().is_some_and(|mirror| share.add_buffered(cell, mirror, Mirror::give_back))
    };
    if !gave {
        if stays || !cell.may_be_given_up(now) {
            return false;
        }
        // What the target has of it is found out with the position, as after a start.
        recovery::give_up(share, cell);
        share.recovery_wake.notify_one();
    }
    fetcher::pause(share, cell, limits::GIVEN_BACK_PAUSE);
    share.budget.freed();
    true
}
