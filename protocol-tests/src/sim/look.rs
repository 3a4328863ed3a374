//! What a run looks at when the trouble is over: what is not done, and why; what must be looked at by a reader.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use strait::engine::stats::MirrorState;
use strait::error::Action;

use super::oracle::Key;
use super::world::{SOURCE, TARGET, World};

impl World {
    /// What is not copied and committed to the end, if anything.
    pub fn unfinished(&self) -> Result<(), String> {
        self.unfinished_but(&BTreeMap::new())
    }

    /// The same, but for these partitions.
    pub fn unfinished_but(&self, stopped: &BTreeMap<Key, u16>) -> Result<(), String> {
        let committed = self.source.committed(&self.group());
        for key in self.partitions().into_iter().filter(|key| !stopped.contains_key(key)) {
            let end = self.source.ends(&key.0, key.1).map_or(-1, |ends| ends.last_stable);
            let at = committed.get(&key).map(|committed| committed.offset);
            // A mirror of an empty partition has nothing to commit.
            if at.unwrap_or(0) != end {
                return Err(format!("{}-{} committed {at:?} of {end}", key.0, key.1));
            }
        }
        Ok(())
    }

    /// Both logs of a partition, a line for each batch: for the reader of a failure.
    pub fn describe(&self, key: &Key) -> String {
        let mut text = String::new();
        for (side, name) in [(SOURCE, "source"), (TARGET, "target")] {
            let Ok((_, batches)) = self.cluster(side).batches_from(&key.0, key.1, 0) else {
                continue;
            };
            for batch in batches.iter().flat_map(|bytes| crate::raw::parse(bytes).0) {
                let values = batch.records().into_iter().map(|record| record.value);
                let values: Vec<String> = values
                    .map(|value| {
                        let value =
                            String::from_utf8(value.unwrap_or_default()).unwrap_or_default();
                        value.chars().take(12).collect()
                    })
                    .collect();
                text.push_str(&format!(
                    "{name} {}-{} {} to {} epoch {} attributes {:#x} producer {:x}/{} sequence {} {values:?}\n",
                    key.0,
                    key.1,
                    batch.base_offset,
                    batch.last_offset(),
                    batch.leader_epoch,
                    batch.attributes,
                    batch.producer_id,
                    batch.producer_epoch,
                    batch.base_sequence,
                ));
            }
        }
        text
    }

    /// Mirrors that wait for the operator, and whatever else ails an instance.
    pub fn ailments(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (index, board) in self.boards() {
            self.ask_health(&board);
            for mirror in board.mirrors() {
                let (topic, partition) = (&mirror.topic, mirror.partition);
                let (acked, end) = (mirror.acked.load(Relaxed), mirror.source_end.load(Relaxed));
                if mirror.error().is_some() || acked < end || mirror.state() != MirrorState::Ok {
                    let (state, held) = (mirror.state(), mirror.buffered_bytes.load(Relaxed));
                    let error = mirror.error().map(|error| error.to_string()).unwrap_or_default();
                    found.push(format!(
                        "{index}: {topic}-{partition} {state:?}, acked {acked} of {end}, holds {held} bytes {error}"
                    ));
                }
            }
            let links = board.links();
            found.extend(links.iter().filter_map(|l| l.fatal()).map(|error| error.to_string()));
            for link in links {
                let blocked = link.blocked_topics.lock().unwrap_or_else(PoisonError::into_inner);
                found.extend(blocked.values().map(|error| error.to_string()));
            }
        }
        found
    }

    /// How often the mirrors of running instances read their target back after a doubt.
    pub fn resyncs(&self) -> u64 {
        let mirrors = self.boards().into_iter().flat_map(|(_, board)| board.mirrors());
        mirrors.map(|mirror| mirror.resyncs.load(Relaxed)).sum()
    }

    /// What running instances say that they lost at the source, by its offsets.
    pub fn losses(&self) -> Vec<(i64, i64)> {
        let mirrors = self.boards().into_iter().flat_map(|(_, board)| board.mirrors());
        let losses = mirrors.flat_map(|mirror| mirror.losses.all());
        losses.filter_map(|loss| loss.from.zip(loss.to)).collect()
    }

    /// Mirrors that wait for the operator in every instance that has them.
    pub fn parked(&self) -> Vec<String> {
        let stopped = self.stopped().into_iter();
        stopped.map(|(key, (_, why))| format!("{}-{}: {why}", key.0, key.1)).collect()
    }

    /// Partitions that wait for the operator, by themselves or with their topic: code and reason.
    pub fn stopped(&self) -> BTreeMap<Key, (u16, String)> {
        let mut of: BTreeMap<Key, (bool, (u16, String))> = BTreeMap::new();
        for (_, board) in self.boards() {
            for mirror in board.mirrors() {
                let is_parked = mirror.state() == MirrorState::Parked;
                let key = (mirror.topic.to_string(), mirror.partition);
                let (everywhere, why) = of.entry(key).or_insert((true, Default::default()));
                *everywhere &= is_parked;
                if let Some(error) = mirror.error() {
                    *why = (error.code.0, error.to_string());
                }
            }
            for link in board.links() {
                let blocked = link.blocked_topics.lock().unwrap_or_else(PoisonError::into_inner);
                for (topic, error) in blocked.iter().filter(|(_, e)| e.action == Action::Park) {
                    let keys = self.partitions().into_iter().filter(|key| key.0 == *topic);
                    let why = (error.code.0, error.to_string());
                    of.extend(keys.map(|key| (key, (true, why.clone()))));
                }
            }
        }
        let stopped = of.into_iter().filter(|(_, (everywhere, _))| *everywhere);
        stopped.map(|(key, (_, why))| (key, why)).collect()
    }
}
