//! What a run knows of both sides: every record that was written, every one that arrived, and whether a commit was due.

use std::collections::{BTreeMap, HashMap};

use strait::embedded::{Cluster, Committed};
use strait::engine::anchor::Anchor;
use uuid::Uuid;

use super::accounts::Accounts;
use super::past::Past;
use crate::checker::{self, Content, Copied, Original, Verdict, Wanted};
use crate::raw::{RawRecord, parse};

/// A topic-partition, of the same name on both sides.
pub type Key = (String, i32);

const LOG_APPEND_TIME: i16 = 8;
const CONTROL: i16 = 32;
/// The key of records that others write to the target.
pub const FOREIGN: &[u8] = b"foreign";

#[derive(Default)]
pub(super) struct Track {
    pub(super) originals: Vec<Original>,
    by_name: HashMap<Vec<u8>, usize>,
    pub(super) copies: Vec<Copied>,
    /// Of each original, the one that is copied.
    pub(super) copied: Vec<(usize, i64)>,
    /// How often each original is on the target, replicated.
    pub(super) arrived: Vec<u32>,
    /// What became of the source's log.
    pub(super) past: Past,
    read_to: i64,
    /// First original that is wanted and was not on the target at the last look.
    front: usize,
    /// Some record was old enough for the target to have forgotten its producer.
    old: bool,
}

impl Track {
    /// Each topic of the name by itself: what was on its way of one that is no more may come behind the next one's.
    fn check(&self) -> Verdict {
        let last = self.past.incarnation_of_now();
        if last == 0 {
            return checker::check(&self.originals, &self.copies, i64::MAX);
        }
        let of: HashMap<i64, usize> = self
            .copied
            .iter()
            .map(|(at, offset)| (*offset, self.past.incarnation_of(*at)))
            .collect();
        let mut whole = Verdict::default();
        for incarnation in 0..=last {
            let originals = self.originals.iter().enumerate();
            let originals =
                originals.filter(|(at, _)| self.past.incarnation_of(*at) == incarnation);
            let originals: Vec<_> = originals.map(|(_, original)| original.clone()).collect();
            // What is of none is invented.
            let copies = self.copies.iter();
            let copies =
                copies.filter(|copy| of.get(&copy.offset).copied().unwrap_or(last) == incarnation);
            let copies: Vec<_> = copies.cloned().collect();
            let verdict = checker::check(&originals, &copies, i64::MAX);
            whole.breaches.extend(verdict.breaches);
            whole.repeats.extend(verdict.repeats);
        }
        whole.breaches.sort();
        whole
    }
}

/// The judge of one run.
pub struct Oracle {
    target: Cluster,
    pub(super) tracks: BTreeMap<Key, Track>,
    pub(super) violations: Vec<String>,
    commits: u64,
    /// Source topic ids, with how often their topic had been made again before.
    pub(super) incarnations: HashMap<Uuid, usize>,
    /// What the engine says of losses, where some are made.
    pub(super) accounts: Accounts,
}

fn content(record: &RawRecord, base_timestamp: i64, fixed: Option<i64>) -> Content {
    Content {
        time: fixed.unwrap_or(base_timestamp + record.timestamp_delta),
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone(),
    }
}

impl Oracle {
    /// Knows nothing yet.
    pub fn new(target: Cluster) -> Self {
        Self {
            target,
            tracks: BTreeMap::new(),
            violations: Vec::new(),
            commits: 0,
            incarnations: HashMap::new(),
            accounts: Accounts::default(),
        }
    }

    /// A source partition exists.
    pub fn watch(&mut self, key: Key) {
        self.tracks.insert(key, Track::default());
    }

    /// A batch was put into the source; `bytes` as given, at this base offset.
    pub fn wrote(&mut self, key: &Key, bytes: &[u8], base_offset: i64, wanted: Wanted, old: bool) {
        let track = self.tracks.get_mut(key).expect("a watched partition");
        track.old |= old;
        for batch in parse(bytes).0 {
            let fixed = (batch.attributes & LOG_APPEND_TIME != 0).then_some(batch.max_timestamp);
            for record in batch.records() {
                let offset = base_offset + record.offset_delta;
                let content = content(&record, batch.base_timestamp, fixed);
                let name = content.name().expect("the workload names its records").clone();
                track.by_name.insert(name, track.originals.len());
                track.originals.push(Original { offset, wanted, content });
                track.arrived.push(0);
                track.past.wrote();
            }
        }
    }

    /// The fate of what was written between these source offsets is known now, or another one.
    pub fn set_wanted(&mut self, key: &Key, from: i64, to: i64, change: (Wanted, Wanted)) {
        let track = self.tracks.get_mut(key).expect("a watched partition");
        for (at, original) in track.originals.iter_mut().enumerate() {
            let meant = (from..to).contains(&original.offset) && track.past.is_there(at);
            if meant && original.wanted == change.0 {
                original.wanted = change.1;
            }
        }
        track.front = 0;
    }

    /// Reads what is new on the target.
    pub(super) fn look(&mut self, key: &Key) {
        let track = self.tracks.get_mut(key).expect("a watched partition");
        // As readers of committed records; where there are no transactions that is everything replicated.
        let Ok((stable, batches)) = self.target.committed_from(&key.0, key.1, track.read_to) else {
            return;
        };
        for batch in batches.iter().flat_map(|bytes| parse(bytes).0) {
            if batch.last_offset() >= stable {
                break;
            }
            track.read_to = batch.last_offset() + 1;
            if batch.attributes & CONTROL != 0 {
                continue;
            }
            if !batch.crc_valid {
                self.violations
                    .push(format!("C2: {key:?} target batch {}: bad checksum", batch.base_offset));
            }
            let fixed = (batch.attributes & LOG_APPEND_TIME != 0).then_some(batch.max_timestamp);
            for record in batch.records().iter().filter(|r| r.key.as_deref() != Some(FOREIGN)) {
                let content = content(record, batch.base_timestamp, fixed);
                let at = content.name().and_then(|name| track.by_name.get(name));
                let offset = batch.base_offset + record.offset_delta;
                for at in at.into_iter() {
                    track.arrived[*at] += 1;
                    track.copied.push((*at, offset));
                }
                track.copies.push(Copied { offset, batch: batch.base_offset, content });
            }
        }
    }

    /// A commit reached the source's broker (C5, I1): everything wanted below it must be on the target, replicated.
    pub fn committed(&mut self, key: &Key, committed: &Committed) {
        self.commits += 1;
        let offset = committed.offset;
        if !self.tracks.contains_key(key) {
            return self
                .violations
                .push(format!("C5: a commit for {key:?}, which is not of the link"));
        }
        let anchor = Anchor::parse(&committed.metadata, offset).ok();
        let of = anchor.and_then(|anchor| self.incarnations.get(&anchor.source_topic_id).copied());
        self.note_position(key, (offset, committed.leader_epoch), of);
        let missing = if self.accounts.is_kept() {
            self.unaccounted_below(key, offset, of)
        } else if self.first_missing(key) < offset {
            self.missing_below(key, offset)
        } else {
            Vec::new()
        };
        if let Some(first) = missing.first()
            && !self.is_decided(key, &missing)
        {
            let first = self.tracks[key].originals[*first].offset;
            self.violations.push(format!(
                "C5: {}-{} committed {offset}, and source offset {first} is not on the target",
                key.0, key.1
            ));
        }
    }

    fn missing_below(&self, key: &Key, offset: i64) -> Vec<usize> {
        let track = &self.tracks[key];
        let both = track.originals.iter().zip(&track.arrived).enumerate();
        let missing = both.filter(|(_, (original, arrived))| {
            original.wanted == Wanted::Yes && original.offset < offset && **arrived == 0
        });
        missing.map(|(at, _)| at).collect()
    }

    /// Whether all of these will be seen on the target, whatever happens now: a transaction counts from the decision on,
    /// and its markers may take their time.
    fn is_decided(&self, key: &Key, missing: &[usize]) -> bool {
        let Ok(batches) = self.target.decided(&key.0, key.1) else { return false };
        let batches = batches.iter().flat_map(|bytes| parse(bytes).0);
        let names: std::collections::HashSet<_> = batches
            .filter(|batch| batch.attributes & CONTROL == 0)
            .flat_map(|batch| batch.records())
            .filter_map(|record| content(&record, 0, None).name().cloned())
            .collect();
        let originals = &self.tracks[key].originals;
        let mut missing = missing.iter().map(|at| originals[*at].content.name());
        missing.all(|name| name.is_some_and(|name| names.contains(name)))
    }

    /// The target lost what lies at and behind its offset `end`, which nobody was told to be safe there.
    pub fn truncated(&mut self, key: &Key, end: i64) {
        let track = self.tracks.get_mut(key).expect("a watched partition");
        track.read_to = track.read_to.min(end);
    }

    /// The final word on every partition, at the end of the source: breaches, and repeats beyond `repeats_max` batches
    /// where records are old, or any where they are young.
    pub fn judge(&mut self, repeats_max: usize) -> BTreeMap<Key, Verdict> {
        let keys: Vec<Key> = self.tracks.keys().cloned().collect();
        let mut verdicts = BTreeMap::new();
        for key in keys {
            self.look(&key);
            let track = &self.tracks[&key];
            let verdict = track.check();
            let name = format!("{}-{}", key.0, key.1);
            let breaches = verdict.breaches.iter().take(3);
            self.violations.extend(breaches.map(|breach| format!("{name}: {breach}")));
            let allowed = if track.old { repeats_max } else { 0 };
            let repeated = verdict.repeated_batches();
            if repeated > allowed {
                self.violations.push(format!(
                    "C4: {name}: {repeated} batches repeated, {allowed} allowed; source offsets {:?}",
                    verdict.repeats.iter().take(5).map(|(offset, _)| offset).collect::<Vec<_>>()
                ));
            }
            verdicts.insert(key, verdict);
        }
        verdicts
    }

    /// Something else that must not be.
    pub fn violated(&mut self, what: String) {
        self.violations.push(what);
    }

    /// What was found so far.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Records that were written, over all partitions.
    pub fn records(&self) -> u64 {
        self.tracks.values().map(|track| track.originals.len() as u64).sum()
    }

    /// Commits that were judged.
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// The first source offset that is wanted and not on the target.
    pub fn first_missing(&mut self, key: &Key) -> i64 {
        self.look(key);
        let track = self.tracks.get_mut(key).expect("a watched partition");
        let missing =
            |at: usize| track.originals[at].wanted == Wanted::Yes && track.arrived[at] == 0;
        let first = (track.front..track.originals.len()).find(|at| missing(*at));
        track.front = first.unwrap_or(track.originals.len());
        first.map_or(i64::MAX, |at| track.originals[at].offset)
    }
}
