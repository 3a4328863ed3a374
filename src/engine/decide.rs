//! Puts commit, source and target together: where a mirror begins and under which numbering, or why nobody can say.

use super::anchor::{Anchor, Numbering};
use super::cell::MirrorCell;
use super::group::Committed;
use super::lineage::{self, Overtaken, State, UsedUp, newest_epoch};
use super::mirror::Beginning;
use super::offset_map::OffsetMap;
use super::offsets;
use super::replay::BehindTheCommit;
use super::share::Share;
use super::step_over::Anew;
use super::target_log::{Remains, TargetFound};
use super::transaction::{Era, Place, Stage, Switch, Transaction};
use super::trouble;
use super::walk::Seen;
use crate::error::{Code, Error, Side};

/// A beginning, and whether its numbering is a new one.
pub(super) struct Decided {
    pub(super) beginning: Beginning,
    pub(super) is_new: bool,
    /// What the source group holds once that is on record.
    pub(super) committed: i64,
    /// Whether it makes the step that was ordered.
    pub(super) steps_over: bool,
    /// It goes on where a life ended that left nothing on its way. So it is on record, before anything is sent, that this one
    /// may have left something.
    pub(super) reopens: Option<Anchor>,
    /// Transactions end here. Somebody may have committed one since the target group was read.
    pub(super) leaves: Option<Era>,
}

impl Decided {
    /// Under a new numbering.
    fn new(beginning: Beginning, committed: i64) -> Self {
        let (steps_over, reopens, leaves) = (false, None, None);
        Self { beginning, is_new: true, committed, steps_over, reopens, leaves }
    }

    /// Whether it is put on record before anything is sent.
    pub(super) fn is_committed(&self) -> bool {
        self.is_new || self.reopens.is_some()
    }
}

/// Puts commit, source and target together, for either kind of delivery.
pub(super) fn decide(
    share: &Share,
    cell: &MirrorCell,
    committed: Option<&Committed>,
    start: Option<Result<offsets::Found, Error>>,
    target: TargetFound,
) -> Result<Decided, Error> {
    let mut decided = place(share, cell, committed, start, target)?;
    if !share.is_transactional() || decided.beginning.transaction.is_some() {
        return Ok(decided);
    }
    // Another era begins: it is on record before its first transaction.
    let producer = cell.producer.get().ok_or_else(trouble::stopped)?;
    let era = Era { id: share.env.random_u64(), began: false };
    let anchor = committed.and_then(|committed| committed.anchor.as_ref());
    let beginning = &mut decided.beginning;
    if anchor.is_some_and(|anchor| anchor.era.is_none()) {
        let stage = match (cell.is_quiet(share.env.now()), decided.is_new) {
            (false, _) => Stage::Late,
            (true, false) => Stage::Quiet,
            (true, true) => Stage::Renumbered,
        };
        beginning.switch = Some(Switch { producer, era, stage });
    } else {
        let stable = place_of(beginning);
        beginning.transaction = Some(Transaction::new(producer, era, stable));
        decided.is_new = true;
    }
    Ok(decided)
}

fn place_of(beginning: &Beginning) -> Place {
    Place {
        offset: beginning.source_offset,
        leader_epoch: beginning.leader_epoch,
        target_offset: beginning.target_offset,
        map: beginning.map.clone(),
    }
}

fn place(
    share: &Share,
    cell: &MirrorCell,
    committed: Option<&Committed>,
    start: Option<Result<offsets::Found, Error>>,
    mut target: TargetFound,
) -> Result<Decided, Error> {
    let anchor = committed.and_then(|committed| committed.anchor.as_ref());
    // Without an anchor somebody else named the position meanwhile: that is where it begins.
    if let (Some(anew), Some(anchor)) = (&*cell.anew.borrow(), anchor) {
        let offset = committed.map_or(-1, |committed| committed.offset);
        // At its end the step is on record already, and the answer was lost.
        let is_known = offset == anew.over.from || offset == anew.over.to;
        if anchor.era.is_some() && !is_known {
            return Err(passed_by(cell, offset, anew.over.from));
        }
        return step_over(cell, anew, anchor, &target);
    }
    if let (Some(committed), Some(anchor)) = (committed, anchor)
        && let Some(era) = anchor.era
    {
        return in_an_era(share, cell, committed, anchor, era, &target);
    }
    if let (Some(committed), Some(anchor), Some(seen)) = (committed, anchor, target.seen.take()) {
        return resume(share, cell, committed, anchor, seen, &target.states);
    }
    match target.remains {
        _ if committed.is_some() => {}
        Remains::Nothing => {}
        // The link was told to go on with the new topic behind the old one's records.
        Remains::Elder if cell.spec.replaces.is_some() => {}
        Remains::Elder => return Err(another_topic(cell, &target)),
        Remains::Ours | Remains::Unreadable => return Err(no_position(share, cell, &target)),
    }
    cell.came_clean.set(true);
    let named = committed.and_then(|committed| committed.named);
    let producer_id = cell.spec.route.home_id();
    let newest = newest_epoch(&target.states, producer_id);
    let newest = newest.max(named.and_then(|named| named.newest_epoch));
    let producer_epoch = epoch_after(cell, newest, target.end)?;
    let (source_offset, leader_epoch) = match (committed, start) {
        (Some(committed), _) => (committed.offset, committed.leader_epoch),
        (None, Some(found)) => (found?.offset, -1),
        (None, None) => return Err(trouble::stopped()),
    };
    let beginning = Beginning {
        source_offset,
        leader_epoch,
        target_offset: target.end,
        // Those of other origins are opened when their first records come.
        numberings: vec![Numbering { producer_id, producer_epoch, next_sequence: 0 }],
        replay: None,
        map: OffsetMap::new(source_offset),
        late: false,
        transaction: None,
        switch: None,
    };
    Ok(Decided::new(beginning, source_offset))
}

/// Where transactions brought the mirror: nothing of it lies beyond. Without transactions from now on, new numberings begin
/// there.
fn in_an_era(
    share: &Share,
    cell: &MirrorCell,
    committed: &Committed,
    anchor: &Anchor,
    era: Era,
    target: &TargetFound,
) -> Result<Decided, Error> {
    fits(cell, anchor, target.end)?;
    if target.remains == Remains::Ours {
        return Err(no_position(share, cell, target));
    }
    // Nothing is counted off here: settings that are others by now hold from here on.
    share.set_settings_then(cell, None);
    let producer = cell.producer.get().ok_or_else(trouble::stopped)?;
    let mut beginning = Beginning {
        source_offset: committed.offset,
        leader_epoch: committed.leader_epoch,
        target_offset: target.end,
        numberings: anchor.numberings.clone(),
        replay: None,
        map: anchor.map.clone(),
        late: false,
        transaction: None,
        switch: None,
    };
    if share.is_transactional() {
        let is_new = committed.at_source.is_none();
        let stable = place_of(&beginning);
        beginning.transaction = Some(Transaction::new(producer, era, stable));
        let committed = committed.at_source.unwrap_or(committed.offset);
        return Ok(Decided { is_new, ..Decided::new(beginning, committed) });
    }
    for of in &mut beginning.numberings {
        let newest = newest_epoch(&target.states, of.producer_id).max(Some(of.producer_epoch));
        of.producer_epoch = epoch_after(cell, newest, target.end)?;
        of.next_sequence = 0;
    }
    // From before the era a request may come late yet, should the leader forget the new numbers.
    beginning.late = !cell.is_quiet(share.env.now());
    Ok(Decided { leaves: Some(era), ..Decided::new(beginning, committed.offset) })
}

/// All that lies before a step was committed, and nothing behind it is this instance's.
fn passed_by(cell: &MirrorCell, offset: i64, from: i64) -> Error {
    let message = format!(
        "the target's position is {offset}, this instance left it at {from}: another one took over"
    );
    trouble::park(Code(65), Side::Target, cell, offset, message)
}

/// The epoch of a new numbering: the one after the newest that is known.
pub(super) fn epoch_after(
    cell: &MirrorCell,
    newest: Option<i16>,
    target_end: i64,
) -> Result<i16, Error> {
    lineage::epoch_after(newest).map_err(|used_up| no_epoch(cell, used_up, target_end))
}

pub(super) fn no_epoch(cell: &MirrorCell, UsedUp: UsedUp, target_end: i64) -> Error {
    let message = "every epoch of this mirror's producer id is used up".to_owned();
    trouble::park(Code(65), Side::Target, cell, target_end, message)
        .fix("copy under a link of another name")
}

/// New numberings behind what a policy steps over (R7, R9). Everything before it was acknowledged under the mirror's own
/// lineages; a newer one, or one more, means that somebody else went on from there.
fn step_over(
    cell: &MirrorCell,
    anew: &Anew,
    anchor: &Anchor,
    target: &TargetFound,
) -> Result<Decided, Error> {
    fits(cell, anchor, target.end)?;
    let ours = |id: i64| anew.numberings.iter().find(|of| of.producer_id == id);
    let is_newer = |id, epoch| ours(id).is_none_or(|of| epoch > of.producer_epoch);
    let next = |of: &Numbering| {
        let producer_epoch = epoch_after(cell, Some(of.producer_epoch), target.end)?;
        Ok(Numbering { producer_epoch, next_sequence: 0, ..*of })
    };
    let numberings: Vec<_> = anew.numberings.iter().map(next).collect::<Result<_, Error>>()?;
    // The step may be on record already, and the answer lost: nothing was sent behind it yet.
    let is_made = anchor.source_offset == anew.over.to && anchor.numberings == numberings;
    let newer_anchor =
        anchor.numberings.iter().any(|of| is_newer(of.producer_id, of.producer_epoch));
    let newer = (newer_anchor && !is_made)
        || target
            .states
            .iter()
            .any(|s| ours(s.producer_id).is_some() && is_newer(s.producer_id, s.epoch));
    if newer {
        let epoch = anew.numberings.iter().map(|of| of.producer_epoch).max();
        return Err(newer_numbering(cell, epoch.unwrap_or(0), target.end));
    }
    let beginning = Beginning {
        source_offset: anew.over.to,
        leader_epoch: anew.over.leader_epoch,
        target_offset: target.end,
        numberings,
        replay: None,
        map: anew.map.clone(),
        late: false,
        transaction: None,
        switch: None,
    };
    Ok(Decided { steps_over: true, ..Decided::new(beginning, anew.over.to) })
}

fn newer_numbering(cell: &MirrorCell, epoch: i16, target_end: i64) -> Error {
    let message = format!(
        "the commit speaks of numbering {epoch}, the target of a newer one: the position was set back with its metadata, \
         or another instance took over"
    );
    let fix = trouble::reset_fix(&cell.spec.id.link, cell, "OFFSET");
    trouble::park(Code(65), Side::Target, cell, target_end, message).fix(fix)
}

/// `start` is for a first copy: applied to what was copied before, it would double the topic or skip what came since (R8).
fn no_position(share: &Share, cell: &MirrorCell, target: &TargetFound) -> Error {
    let group = &share.group;
    let what = match target.remains {
        Remains::Unreadable => {
            "the target's records were all deleted, nobody can say whose they were"
        }
        Remains::Nothing | Remains::Ours | Remains::Elder => {
            "the target holds batches of this mirror"
        }
    };
    let message =
        format!("{what}, but group {group} holds no offset for it: it expired or was deleted");
    let fix = trouble::reset_fix(&cell.spec.id.link, cell, "OFFSET");
    let fix = format!("{fix}; or delete the target topic to copy it anew");
    trouble::park(Code(65), Side::Source, cell, target.end, message).fix(fix)
}

/// The group's offsets of a topic go with it, so that a re-created one looks new; the target remembers.
fn another_topic(cell: &MirrorCell, target: &TargetFound) -> Error {
    let message = format!(
        "the target holds records that were copied from a topic of the same name, which is not topic id {}: it was \
         re-created, or the link was renamed",
        cell.spec.source_topic_id
    );
    let fix = trouble::reset_fix(&cell.spec.id.link, cell, "earliest");
    trouble::park(Code(67), Side::Source, cell, target.end, message).fix(fix)
}

/// Goes on under the anchor's numbering, behind what the target holds of it. Where the link's settings are others by now,
/// what it holds is counted off under the old ones; then new numberings begin (R0, R7).
fn resume(
    share: &Share,
    cell: &MirrorCell,
    committed: &Committed,
    anchor: &Anchor,
    seen: Seen,
    states: &[State],
) -> Result<Decided, Error> {
    let times_differ = cell.spec.target.log_append_time();
    let target_end = seen.target_end;
    let came_late = !seen.ends_behind.is_empty();
    let resumed = lineage::resume(anchor, committed.leader_epoch, seen, states, times_differ);
    let (mut beginning, mut is_new) = resumed.map_err(|overtaken| match overtaken {
        Overtaken::Newer(epoch) => newer_numbering(cell, epoch, target_end),
        Overtaken::Behind(BehindTheCommit { last_sequence, next_sequence }) => {
            let message = format!(
                "the target's last sequence is {last_sequence}, the commit counts from {next_sequence}: \
                 another instance of this link is writing"
            );
            trouble::park(Code(65), Side::Target, cell, target_end, message)
        }
        Overtaken::UsedUp(used_up) => no_epoch(cell, used_up, target_end),
    })?;
    if anchor.closed {
        cell.came_clean.set(true);
    }
    let quiet = cell.is_quiet(share.env.now());
    let then = anchor.settings.filter(|then| !cell.settings.changed_since(then).is_empty());
    if then.is_some() && beginning.replay.is_none() {
        let route = &cell.spec.route;
        let numberings = lineage::renumber(&anchor.numberings, states, |id| route.writes(id));
        beginning.numberings = numberings.map_err(|used_up| no_epoch(cell, used_up, target_end))?;
        is_new = true;
    }
    // What comes late under the old numbers is refused only while those are in use.
    if is_new && !quiet {
        return Err(trouble::late_requests());
    }
    // The leader refuses what follows by the old numbers: first what is counted off goes on record, then come new ones.
    let then = then.or(came_late.then_some(cell.settings));
    share.set_settings_then(cell, then.filter(|_| beginning.replay.is_some()));
    beginning.late = !quiet;
    let reopens = anchor.closed.then(|| Anchor { closed: false, ..anchor.clone() });
    Ok(Decided { is_new, reopens, ..Decided::new(beginning, committed.offset) })
}

/// Whether an anchor speaks of the topics and the log that are there now.
pub(super) fn fits(cell: &MirrorCell, anchor: &Anchor, target_end: i64) -> Result<(), Error> {
    let spec = &cell.spec;
    let what = if anchor.source_topic_id != spec.source_topic_id {
        Some((
            Code(67),
            Side::Source,
            format!(
                "the committed offset belongs to source topic id {}, the topic is now {}: it was re-created",
                anchor.source_topic_id, spec.source_topic_id
            ),
        ))
    } else if anchor.target_topic_id != spec.target_topic_id {
        let changed = anchor.settings.map(|then| cell.settings.changed_since(&then));
        let renamed = changed.is_some_and(|keys| keys.contains(&"naming"));
        let why = if renamed { "the link's `naming` changed" } else { "it was re-created" };
        Some((
            Code(66),
            Side::Target,
            format!(
                "the copy was written to target topic id {}, the topic is now {}: {why}",
                anchor.target_topic_id, spec.target_topic_id
            ),
        ))
    } else if anchor.target_offset > target_end {
        Some((
            Code(68),
            Side::Target,
            format!(
                "the copy reached target offset {}, the log now ends at {target_end}: it was truncated",
                anchor.target_offset
            ),
        ))
    } else {
        None
    };
    match what {
        None => Ok(()),
        Some((code, side, message)) => {
            let fix = trouble::reset_fix(&spec.id.link, cell, "earliest");
            Err(trouble::park(code, side, cell, anchor.target_offset, message).fix(fix))
        }
    }
}
