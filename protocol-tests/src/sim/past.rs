//! What became of the source's log in a run: which records are gone from it and why, what the engine has to say of that
//! (C7, C10, I6), and what it may stop at.

use std::collections::{BTreeMap, HashSet};

use strait::engine::losses::{Loss, LossKind};
use uuid::Uuid;

use super::accounts::holds;
use super::oracle::{Key, Oracle, Track};
use crate::checker::Wanted;

/// Retention or DeleteRecords overtook the mirror.
pub const GAP: u16 = 70;
/// The source was truncated.
pub const TRUNCATED: u16 = 63;
/// The source changed where the target's records are counted off.
pub const DIFFERS: u16 = 65;
/// The topic was made again: found at a start, and while it was copied.
pub const RECREATED: [u16; 2] = [67, 47];

/// Why a record is not in the source any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// By retention or DeleteRecords.
    Deleted,
    /// By the cleaner.
    Cleaned,
    /// By an unclean election.
    Truncated,
    /// With its topic.
    Recreated,
}

/// What the link is told to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policies {
    /// `on_gap: continue`.
    pub continues: bool,
    /// `on_recreate: restart`.
    pub restarts: bool,
}

impl Policies {
    /// As keys of a link, each with a comma behind it.
    pub(super) fn words(self) -> String {
        let on_gap = if self.continues { "continue" } else { "stop" };
        let on_recreate = if self.restarts { "restart" } else { "stop" };
        format!("on_gap: {on_gap}, on_recreate: {on_recreate}, ")
    }
}

/// What became of one original.
struct Fate {
    incarnation: usize,
    /// Truncations of the partition before it was written.
    cuts: usize,
    gone: Option<Gone>,
    /// It lay at or behind the position on record when it went.
    was_beyond: bool,
}

/// A truncation.
struct Cut {
    incarnation: usize,
    /// Where the log ended.
    end: i64,
    /// The leader epoch of what came behind it.
    epoch: i32,
}

/// What became of a partition.
#[derive(Default)]
pub(super) struct Past {
    fates: Vec<Fate>,
    incarnation: usize,
    /// The position on record in this incarnation.
    position: Option<i64>,
    cuts: Vec<Cut>,
    /// By incarnation, the first one below which a position came that is of the log before it.
    parted: BTreeMap<usize, usize>,
    /// Incarnation and log start of each deletion.
    starts: Vec<(usize, i64)>,
    /// Below the position on record, the cleaner went up to here.
    cleaned_to: i64,
    /// What lies behind a position was compacted after it was copied, on either side.
    is_shifted: bool,
    /// A commit that came late set the position back.
    was_set_back: bool,
}

impl Past {
    /// Of an original.
    pub(super) fn incarnation_of(&self, at: usize) -> usize {
        self.fates[at].incarnation
    }

    /// Of the topic as it is now.
    pub(super) fn incarnation_of_now(&self) -> usize {
        self.incarnation
    }

    /// A record was written.
    pub(super) fn wrote(&mut self) {
        let (incarnation, cuts) = (self.incarnation, self.cuts.len());
        self.fates.push(Fate { incarnation, cuts, gone: None, was_beyond: false });
    }

    /// From this truncation on, as the topic is now, the two sides differ.
    fn part(&mut self, cut: Option<usize>) {
        if let Some(cut) = cut {
            let parted = self.parted.entry(self.incarnation).or_insert(cut);
            *parted = cut.min(*parted);
        }
    }

    /// Whether an original is in the source's log.
    pub(super) fn is_there(&self, at: usize) -> bool {
        self.fates[at].gone.is_none()
    }
}

/// Whoever came behind a crash found nothing of what was copied, nor of what took its place, and named all of it.
fn is_doubtful(gap: &Loss) -> bool {
    gap.continued && gap.reason.contains("or others in their place")
}

impl Track {
    /// Originals with what became of them, and how often they arrived.
    fn each(&self) -> impl Iterator<Item = (usize, i64, &Fate, u32)> + Clone {
        let both = self.originals.iter().zip(&self.past.fates).zip(&self.arrived).enumerate();
        both.map(|(at, ((original, fate), arrived))| (at, original.offset, fate, *arrived))
    }

    /// These are gone; of what nobody can have been told to copy none need arrive.
    pub(super) fn lose(&mut self, why: Gone, is_lost: impl Fn(i64) -> bool) {
        let past = &mut self.past;
        for (original, fate) in self.originals.iter_mut().zip(&mut past.fates) {
            if fate.gone.is_some() || !is_lost(original.offset) {
                continue;
            }
            fate.gone = Some(why);
            fate.was_beyond = past.position.is_none_or(|position| original.offset >= position);
            let is_named = matches!(why, Gone::Deleted | Gone::Recreated);
            if original.wanted == Wanted::Yes && !(is_named && past.position.is_some()) {
                original.wanted = Wanted::May;
            }
        }
    }

    /// The first truncation that took what was copied of an incarnation: from there on the two sides differ.
    fn parted_at(&self, incarnation: usize) -> Option<usize> {
        let copied = self.each().filter(|(_, _, fate, arrived)| {
            let is_cut = fate.gone == Some(Gone::Truncated);
            is_cut && *arrived > 0 && fate.incarnation == incarnation
        });
        // It was written behind so many, and taken by the next one that reaches it.
        let taken = |offset: i64, cuts: usize| {
            let later = self.past.cuts.iter().enumerate().skip(cuts);
            later.filter(|(_, cut)| cut.end <= offset).map(|(cut, _)| cut).next()
        };
        let of_copied = copied.filter_map(|(_, offset, fate, _)| taken(offset, fate.cuts)).min();
        of_copied.into_iter().chain(self.past.parted.get(&incarnation).copied()).min()
    }

    /// Whether the target holds records that went from behind the position on record, for a reason like this.
    fn holds_what_went(&self, why: impl Fn(Gone) -> bool) -> bool {
        self.each().any(|(_, _, fate, arrived)| {
            arrived > 0 && fate.was_beyond && fate.gone.is_some_and(&why)
        })
    }
}

impl Oracle {
    fn track(&mut self, key: &Key) -> &mut Track {
        self.tracks.get_mut(key).expect("a watched partition")
    }

    /// A source topic has this id, the first of its name.
    pub fn born(&mut self, id: Uuid) {
        self.incarnations.insert(id, 0);
    }

    /// It was deleted and made again, empty, under this id.
    pub fn recreated(&mut self, topic: &str, id: Uuid) {
        self.listen();
        let mut incarnation = 0;
        for (_, track) in self.tracks.iter_mut().filter(|(key, _)| key.0 == topic) {
            track.lose(Gone::Recreated, |_| true);
            let past = &mut track.past;
            (past.position, past.cleaned_to) = (None, 0);
            past.incarnation += 1;
            incarnation = past.incarnation;
        }
        self.incarnations.insert(id, incarnation);
    }

    /// How many records of a partition have arrived.
    pub fn arrived(&mut self, key: &Key) -> usize {
        self.look(key);
        self.tracks[key].arrived.iter().filter(|times| **times > 0).count()
    }

    /// How often the topic of a partition was made again.
    pub fn incarnation(&self, key: &Key) -> usize {
        self.tracks[key].past.incarnation
    }

    /// The position on record, of the topic as it is now.
    pub fn position(&self, key: &Key) -> Option<i64> {
        self.tracks[key].past.position
    }

    pub(super) fn note_position(
        &mut self,
        key: &Key,
        (offset, epoch): (i64, i32),
        of: Option<usize>,
    ) {
        let past = &mut self.track(key).past;
        if of.is_none_or(|of| of == past.incarnation) {
            past.is_shifted |= offset < past.cleaned_to;
            past.was_set_back |= past.position.is_some_and(|position| offset < position);
            past.position = Some(offset);
            let is_before = |cut: &Cut| {
                cut.incarnation == past.incarnation && cut.end < offset && epoch < cut.epoch
            };
            let parted = past.cuts.iter().position(is_before).filter(|_| epoch >= 0);
            past.part(parted);
        }
    }

    /// Nothing below this offset is in the source any more.
    pub fn deleted(&mut self, key: &Key, log_start: i64) {
        self.listen();
        let track = self.track(key);
        track.lose(Gone::Deleted, |offset| offset < log_start);
        track.past.starts.push((track.past.incarnation, log_start));
    }

    /// Nothing at and behind this offset is in the source any more, and others will be there.
    pub fn truncated_source(&mut self, key: &Key, end: i64, epoch: i32) {
        let track = self.track(key);
        track.lose(Gone::Truncated, |offset| offset >= end);
        let past = &mut track.past;
        if past.position.is_some_and(|at| at > end) {
            past.part(Some(past.cuts.len()));
        }
        past.cuts.push(Cut { incarnation: past.incarnation, end, epoch });
    }

    /// The cleaner ran below `upto`; these offsets are left of the whole log.
    pub fn cleaned(&mut self, key: &Key, upto: i64, left: &HashSet<i64>) {
        let past = &mut self.track(key).past;
        if past.position.is_some_and(|position| upto <= position) {
            past.cleaned_to = past.cleaned_to.max(upto);
        }
        self.track(key).lose(Gone::Cleaned, |offset| !left.contains(&offset));
    }

    /// Where the target may be compacted without touching what a start counts off: none of what lies below came from
    /// behind the position on record.
    pub fn settled_on_target(&mut self, key: &Key) -> i64 {
        self.look(key);
        let track = &self.tracks[key];
        let Some(position) = track.past.position else { return 0 };
        let beyond = track.copied.iter().filter(|(at, _)| track.originals[*at].offset >= position);
        beyond.map(|(_, offset)| *offset).min().unwrap_or(i64::MAX)
    }

    /// The target was compacted further than that.
    pub fn target_shifted(&mut self, key: &Key) {
        self.track(key).past.is_shifted = true;
    }

    /// Records that compaction took from the source.
    pub(super) fn cleaned_records(&self) -> usize {
        let fates = self.tracks.values().flat_map(|track| &track.past.fates);
        fates.filter(|fate| fate.gone == Some(Gone::Cleaned)).count()
    }

    /// Takes note of the engine's mirrors.
    pub(super) fn listen(&mut self) {
        if self.accounts.is_kept() {
            let of = |(key, track): (&Key, &Track)| (key.clone(), track.past.incarnation);
            let incarnations: BTreeMap<_, _> = self.tracks.iter().map(of).collect();
            self.accounts.listen(&incarnations);
        }
    }

    /// Wanted records below an offset that are neither on the target nor named as lost.
    pub(super) fn unaccounted_below(
        &mut self,
        key: &Key,
        offset: i64,
        of: Option<usize>,
    ) -> Vec<usize> {
        self.look(key);
        self.listen();
        let track = &self.tracks[key];
        let incarnation = of.unwrap_or(track.past.incarnation);
        let gaps = self.accounts.gaps(key, incarnation);
        let parted = track.parted_at(incarnation);
        let missing = track.each().filter(|(at, place, fate, arrived)| {
            fate.incarnation == incarnation
                && *place < offset
                && *arrived == 0
                && parted.is_none_or(|cut| fate.cuts <= cut)
                && track.originals[*at].wanted == Wanted::Yes
                && !gaps.iter().any(|gap| holds(gap, *place))
        });
        missing.map(|(at, ..)| at).collect()
    }

    /// Whether a partition may wait for the operator with this code.
    pub fn may_park(&mut self, key: &Key, code: u16, policies: Policies) -> bool {
        self.look(key);
        self.listen();
        let track = &self.tracks[key];
        let past = &track.past;
        let is_later_life = || self.accounts.of(key).any(|told| told.life > 1);
        match code {
            // What is counted off may be deleted in part: nobody can tell which.
            GAP if policies.continues => track.holds_what_went(|why| why == Gone::Deleted),
            // An offset without a record is deleted all the same.
            GAP => past.starts.iter().any(|(incarnation, _)| *incarnation == past.incarnation),
            // It may have read what holds no record.
            TRUNCATED => past.cuts.iter().any(|cut| cut.incarnation == past.incarnation),
            // A new numbering begins behind a gap: a position from before it is taken for somebody's else.
            DIFFERS if past.was_set_back && self.accounts.is_kept() => true,
            // The position went with the topic, and the id of transactions stayed.
            DIFFERS if past.incarnation > 0 && is_later_life() => true,
            DIFFERS => past.is_shifted || track.holds_what_went(|why| why != Gone::Recreated),
            // The last commit of the first of three comes late: only the one before is known to be replaced.
            code if RECREATED.contains(&code) => {
                let is_late = past.incarnation > 1 || is_later_life();
                past.incarnation > 0 && (!policies.restarts || is_late)
            }
            _ => false,
        }
    }

    /// The last word on what was lost. `stopped` are the partitions that rightly wait for the operator, with the code.
    /// What is named need not have arrived, nor what lies behind a position where its partition stopped.
    pub fn settle(&mut self, stopped: &BTreeMap<Key, u16>, policies: Policies) {
        self.listen();
        let keys: Vec<Key> = self.tracks.keys().cloned().collect();
        for key in keys {
            self.look(&key);
            let mut found = Vec::new();
            if self.accounts.is_kept() {
                self.judge_gaps(&key, policies, &mut found);
                self.judge_cuts(&key, stopped.get(&key).copied(), &mut found);
                self.judge_incarnations(&key, stopped.contains_key(&key), policies, &mut found);
            }
            let named = |what| format!("C10: {}-{}: {what}", key.0, key.1);
            self.violations.extend(found.into_iter().map(named));
            let gaps: Vec<_> = (0..=self.incarnation(&key))
                .map(|incarnation| self.accounts.gaps(&key, incarnation))
                .collect();
            let stops = stopped.contains_key(&key);
            let track = self.track(&key);
            // It may have found out by what holds no record.
            let first =
                || track.past.cuts.iter().position(|cut| cut.incarnation == track.past.incarnation);
            let is_cut = stopped.get(&key) == Some(&TRUNCATED);
            let parted = if is_cut { first() } else { track.parted_at(track.past.incarnation) };
            let past = &track.past;
            for (original, fate) in track.originals.iter_mut().zip(&past.fates) {
                let beyond = past.position.is_none_or(|position| original.offset >= position)
                    || parted.is_some_and(|cut| fate.cuts > cut);
                let waits = stops && beyond && fate.incarnation == past.incarnation;
                let named = gaps[fate.incarnation].iter().any(|gap| holds(gap, original.offset));
                if (waits || named) && original.wanted == Wanted::Yes {
                    original.wanted = Wanted::May;
                }
            }
        }
    }

    /// Every gap that was named: of records that are gone and did not arrive, up to a log start that there was, counted to
    /// the offset.
    fn judge_gaps(&self, key: &Key, policies: Policies, found: &mut Vec<String>) {
        let track = &self.tracks[key];
        for told in self.accounts.of(key) {
            for kind in [LossKind::Gap, LossKind::Truncated] {
                let (counted, listed) = told.counted(kind);
                if counted != listed {
                    found.push(format!("{kind:?}: {counted} offsets counted, {listed} listed"));
                }
            }
            for gap in told.losses(LossKind::Gap) {
                let name = format!("gap {:?} to {:?} of life {}", gap.from, gap.to, told.life);
                let ends =
                    |start: &(usize, i64)| start.0 == told.incarnation && Some(start.1) == gap.to;
                if !track.past.starts.iter().any(ends) {
                    found.push(format!("{name}: the log never began there"));
                }
                let here =
                    track.each().filter(|(_, _, fate, _)| fate.incarnation == told.incarnation);
                let mut copied = false;
                // Behind a crash, and with holes in what is gone, it is known how many records a former life had copied of it
                // and not where the last of them lay: it may be named from further down.
                let is_lost = |(at, offset, _, arrived): &(usize, i64, &Fate, u32)| {
                    let is_wanted = track.originals[*at].wanted != Wanted::Never;
                    holds(&gap, *offset) && *arrived == 0 && is_wanted
                };
                let first_lost = here.clone().find(is_lost).map(|(_, offset, ..)| offset);
                for (at, offset, fate, arrived) in here.clone() {
                    if !holds(&gap, offset) {
                        continue;
                    }
                    if fate.gone.is_none() {
                        found.push(format!("{name}: {offset} is in the source"));
                    }
                    copied |= arrived > 0;
                    let is_wanted = track.originals[at].wanted != Wanted::Never;
                    let is_before = first_lost.is_none_or(|first| offset < first);
                    let may_be = told.may_have_counted_off()
                        && (!gap.continued || is_before || is_doubtful(&gap));
                    if arrived > 0 && is_wanted && !may_be {
                        found.push(format!("{name}: {offset} was copied"));
                    }
                }
                let behind = |(_, offset, _, arrived): &(usize, i64, &Fate, u32)| {
                    gap.to.is_some_and(|to| *offset >= to) && *arrived > 0
                };
                if gap.continued && !policies.continues {
                    found.push(format!("{name}: it went on"));
                }
                let stays = !policies.continues;
                if stays
                    && !copied
                    && let Some((_, offset, ..)) = here.clone().find(behind)
                {
                    found.push(format!("{name}: it stopped there, and {offset} was copied"));
                }
            }
        }
    }

    /// A truncation below what was copied stops its partition, and nothing that was written behind it arrives.
    fn judge_cuts(&self, key: &Key, stopped: Option<u16>, found: &mut Vec<String>) {
        let track = &self.tracks[key];
        for (cut, Cut { incarnation, end, .. }) in track.past.cuts.iter().enumerate() {
            let mut here = track.each().filter(|(_, _, fate, _)| fate.incarnation == *incarnation);
            let is_cut = |fate: &Fate, offset: i64| {
                fate.gone == Some(Gone::Truncated) && fate.cuts <= cut && offset >= *end
            };
            let copied = here
                .clone()
                .filter(|(_, offset, fate, arrived)| *arrived > 0 && is_cut(fate, *offset));
            let Some(last) = copied.map(|(_, offset, ..)| offset).max() else { continue };
            let hides =
                |gap: &Loss| is_doubtful(gap) && gap.from <= Some(*end) && gap.to >= Some(*end);
            let counted_off = self.accounts.of(key).filter(|told| told.may_have_counted_off());
            let mut gaps = counted_off
                .filter(|told| told.incarnation == *incarnation)
                .flat_map(|told| told.losses(LossKind::Gap));
            if gaps.any(|gap| hides(&gap)) {
                continue;
            }
            if let Some((_, offset, ..)) =
                here.find(|(_, _, fate, arrived)| fate.cuts > cut && *arrived > 0)
            {
                found.push(format!(
                    "the source was truncated to {end}, {last} had been copied, and {offset} of behind that was too"
                ));
            }
            if *incarnation == track.past.incarnation && stopped.is_none() {
                found.push(format!(
                    "the source was truncated to {end}, {last} had been copied, and it goes on"
                ));
            }
        }
        for told in self.accounts.of(key) {
            for loss in told.losses(LossKind::Truncated) {
                let name = format!("truncation {:?} to {:?}", loss.from, loss.to);
                let ends =
                    |cut: &Cut| cut.incarnation == told.incarnation && Some(cut.end) == loss.from;
                if !track.past.cuts.iter().any(ends) {
                    found.push(format!("{name}: the log never ended there"));
                }
                if loss.continued {
                    found.push(format!("{name}: it went on"));
                }
                let unnamed = track.each().find(|(_, offset, fate, arrived)| {
                    let is_behind = loss.to.is_some_and(|to| *offset >= to);
                    let is_lost = fate.gone == Some(Gone::Truncated) && *arrived > 0;
                    is_lost && is_behind && fate.incarnation == told.incarnation
                });
                if let Some((_, offset, ..)) = unnamed
                    && !told.may_have_counted_off()
                {
                    found.push(format!("{name}: {offset} was copied and is lost"));
                }
            }
        }
    }

    /// A topic that was made again is named before anything of it is copied behind the old one's records, and is not
    /// copied at all where the policy says so.
    fn judge_incarnations(
        &mut self,
        key: &Key,
        stopped: bool,
        policies: Policies,
        found: &mut Vec<String>,
    ) {
        let told = self.accounts.of(key).any(|told| !told.losses(LossKind::Recreated).is_empty());
        let track = self.track(key);
        let mut arrived: Vec<usize> = track
            .each()
            .filter(|(.., arrived)| *arrived > 0)
            .map(|(_, _, f, _)| f.incarnation)
            .collect();
        arrived.dedup();
        if arrived.len() > 1 && !policies.restarts {
            found.push("the topic was made again, and both were copied".to_owned());
        }
        if arrived.len() > 1 && !told {
            found.push(
                "the topic was made again and both were copied, which nobody was told".into(),
            );
        }
        let past = &track.past;
        for (original, fate) in track.originals.iter_mut().zip(&past.fates) {
            let is_old = fate.incarnation < past.incarnation;
            // Of a topic of which nothing is left on either side nobody can know.
            let is_known = told || stopped || !arrived.contains(&fate.incarnation);
            if is_old && is_known && original.wanted == Wanted::Yes {
                original.wanted = Wanted::May;
            }
        }
    }
}
