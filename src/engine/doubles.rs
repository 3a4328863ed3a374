//! Records that the target holds twice. Of records so old that the broker had forgotten their numbers, a request of a former
//! life, or of a dead connection, may come late and be appended beside its own repetition: one batch of a mirror at most,
//! for the window was one (W2). Nothing prevents that without transactions. It is found, counted and told.
//!
//! A read-back comes across such batches by itself. Where there is none, the offset of an ack tells: it does not follow the
//! one before. What lies between is looked at before a position behind it is committed, so that a later life need not know.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::cell::MirrorCell;
use super::committer::commit_one;
use super::group::Commit;
use super::mirror::Mirror;
use super::share::Share;
use super::stats::MirrorStats;
use super::unseen::Unseen;
use super::{readback, trouble};
use crate::error::{Action, Error, Side};
use crate::limits;
use crate::wire::batch::BatchHeader;

/// Between a look that was in vain and the next.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A batch of which the target held the first records before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Double {
    /// Its first target offset.
    pub from: i64,
    /// The target offset after its last record that was there before.
    pub to: i64,
}

impl Double {
    /// The first `records` of a batch were there before.
    pub fn of(header: &BatchHeader, records: i32) -> Self {
        let from = header.base_offset;
        Self { from, to: from.saturating_add(i64::from(records)) }
    }
}

/// What was told already. The same place is read again by a look, a read-back and a start, in any order.
#[derive(Debug, Default)]
pub struct Told(VecDeque<i64>);

impl Told {
    /// Those of them that are new.
    fn news(&mut self, doubles: &[Double]) -> Vec<Double> {
        let mut news = Vec::new();
        for double in doubles {
            if !self.0.contains(&double.from) {
                self.0.push_back(double.from);
                news.push(*double);
            }
        }
        let over = self.0.len().saturating_sub(limits::DOUBLES_MAX);
        self.0.drain(..over);
        news
    }
}

/// Counts and tells each double once.
pub(super) fn note(share: &Share, cell: &MirrorCell, doubles: &[Double]) {
    for Double { from, to } in cell.told.borrow_mut().news(doubles) {
        MirrorStats::add(&cell.stats.doubled_records, u64::try_from(to - from).unwrap_or(0));
        let (topic, partition) = (&cell.spec.target_topic, cell.spec.id.partition);
        tracing::warn!(link = %share.link.config.name, %topic, partition, from, to,
            "old records are on the target twice: it had forgotten their numbers");
    }
}

/// Looks at what the target appended among our batches, then commits what was acknowledged when the look began.
pub(super) async fn look_and_commit(share: Rc<Share>, cell: Rc<MirrorCell>, commit: Commit) {
    let end = cell.mirror.borrow().as_ref().map(Mirror::seen_to);
    match (look(&share, &cell).await, end) {
        (Ok(true), Some(end)) => {
            if let Some(mirror) = &mut *cell.mirror.borrow_mut() {
                mirror.on_seen(end);
            }
            commit_one(&share, &cell, commit).await;
        }
        (Ok(_), _) => tokio::time::sleep(LOOK_AGAIN).await,
        (Err(error), _) if error.action == Action::Park => {
            share.park(&cell, trouble::at(&cell, error));
        }
        (Err(error), _) => {
            cell.commit_troubled.set(true);
            cell.note_trouble(trouble::at(&cell, error));
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    cell.looking.set(false);
    share.commit_wake.notify_one();
    // A numbering that waits for this may be put on record now.
    share.recovery_wake.notify_one();
}

/// Reads what has not been looked at, if there is any; says whether the mirror is still the one that asked, and its position
/// the newest.
pub(super) async fn look(share: &Rc<Share>, cell: &Rc<MirrorCell>) -> Result<bool, Error> {
    let unseen = || cell.mirror.borrow().as_ref().and_then(|m| m.unseen().cloned());
    let Some(Unseen { from, numberings, to }) = unseen() else { return Ok(true) };
    let broker = cell.target_leader.get().broker;
    let connection = share.question(Side::Target, broker).await?;
    let found = readback::doubles(share, &connection, cell, &numberings, from..to).await?;
    // An older position must not follow that of who went on. The next answer says so, too, and leads to it.
    let Some(doubles) = found else { return Ok(false) };
    // Begun anew meanwhile, it has read all of this back.
    let still = unseen().is_some_and(|unseen| unseen.from == from);
    note(share, cell, &doubles);
    Ok(still)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_in_whatever_order_it_is_read() {
        let double = |from| Double { from, to: from + 2 };
        let mut told = Told::default();
        assert_eq!(told.news(&[double(90)]), [double(90)], "by a read-back");
        assert_eq!(told.news(&[double(50), double(90)]), [double(50)], "by the look behind it");
        assert_eq!(told.news(&[double(50), double(90)]), []);
        for from in 100..100_000 {
            told.news(&[double(from)]);
        }
        assert_eq!(told.0.len(), limits::DOUBLES_MAX);
    }
}
