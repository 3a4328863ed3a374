//! The deciding half: what the source has, what the target has, what is running -> what to do. No clock but the one that
//! is handed in, no socket, no log; every rule of which mirror may exist is here and tested by table.
//!
//! Three promises hold whatever the clusters do:
//! - old and new never mix: a topic whose id changed on either side is stopped and named, until the operator acts;
//! - nobody else's topic is changed: partitions are added only to a topic that this link writes to;
//! - one topic's trouble stays its own (I7): the rest of the plan does not depend on it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::naming;
use super::reasons;
use super::selection::{self, Verdict};
use crate::cluster::ClusterMap;
use crate::config::resolved::{Link, OnRecreate};
use crate::error::Error;
use crate::limits;

/// A topic must be missing for this long before it counts as deleted: longer than two looks at the metadata, since a
/// broker that has just started answers from metadata that is behind.
pub const ABSENCE: Duration = Duration::from_secs(8);

/// Topic names that a message offers for a pattern that matches none.
const NEAREST_SHOWN: usize = 5;

/// A topic as a cluster's metadata shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Nil where the broker tells none.
    pub id: Uuid,
    /// The broker's own flag.
    pub internal: bool,
    /// How many; without leaders too.
    pub partitions: i32,
}

/// One look at a cluster.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// By name.
    pub topics: BTreeMap<Arc<str>, Seen>,
    /// Topics that the cluster named with an error: neither there nor gone. What runs goes on, nothing begins.
    pub unclear: BTreeSet<Arc<str>>,
}

impl From<&ClusterMap> for View {
    fn from(map: &ClusterMap) -> Self {
        let mut view = Self::default();
        // A name that no Kafka topic can have comes from something that is not Kafka; it reaches neither log nor status.
        for (name, topic) in map.topics.iter().filter(|(name, _)| naming::is_legal(name)) {
            let name: Arc<str> = name.as_str().into();
            let partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
            if topic.error.is_error() || partitions == 0 {
                view.unclear.insert(name);
            } else {
                let seen = Seen { id: topic.id, internal: topic.internal, partitions };
                view.topics.insert(name, seen);
            }
        }
        view
    }
}

impl View {
    /// Whether the topic exists, with or without an error.
    fn shows(&self, topic: &Arc<str>) -> bool {
        self.topics.contains_key(topic) || self.unclear.contains(topic)
    }
}

/// Make a topic on the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// Source topic, whose configuration is taken.
    pub topic: Arc<str>,
    /// The name to make.
    pub target: Arc<str>,
    /// As many as the source has.
    pub partitions: i32,
}

/// Add partitions to a target topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grow {
    /// Source topic.
    pub topic: Arc<str>,
    /// The name to grow.
    pub target: Arc<str>,
    /// How many there are.
    pub from: i32,
    /// How many there must be.
    pub to: i32,
}

/// Begin the mirrors of some partitions of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Source topic.
    pub topic: Arc<str>,
    /// Its id.
    pub source_id: Uuid,
    /// The topic of the same name that it replaces, if the link is told to go on with the new one.
    pub replaces: Option<Uuid>,
    /// Its name on the target.
    pub target: Arc<str>,
    /// The id there.
    pub target_id: Uuid,
    /// Partitions.
    pub partitions: Range<i32>,
}

/// End all mirrors of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Source topic.
    pub topic: Arc<str>,
    /// Partitions that have run.
    pub partitions: Range<i32>,
    /// Set if the topic is blocked from now on; none if it is gone from the source.
    pub why: Option<Error>,
}

/// What to do, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Mirrors to end.
    pub end: Vec<End>,
    /// Topics to make.
    pub create: Vec<Create>,
    /// Topics to grow.
    pub grow: Vec<Grow>,
    /// Mirrors to begin.
    pub begin: Vec<Begin>,
    /// Source topics that were selected and are not copied, or not whole, with the reason.
    pub blocked: BTreeMap<Arc<str>, Error>,
    /// What an operator should know and nothing has to be done about; each is told once.
    pub warnings: Vec<Error>,
    /// Source topic to target topic: all that were selected and have a legal name.
    pub selected: BTreeMap<Arc<str>, Arc<str>>,
}

/// A topic that has, or had, mirrors in this run.
#[derive(Clone, Debug)]
struct Mirrored {
    target: Arc<str>,
    source_id: Uuid,
    /// Source topics of this name that are no more, newest last.
    replaced: Vec<Uuid>,
    target_id: Uuid,
    /// Partitions `0..running` have a mirror.
    running: i32,
    /// Sticky: an id that changed once does not become right by changing back.
    broken: Option<Error>,
}

/// What the decisions remember. One per link.
#[derive(Debug)]
pub struct Planner {
    link: Arc<Link>,
    mirrored: BTreeMap<Arc<str>, Mirrored>,
    /// Source topics that this link is known to have copied: it made the target topic, or holds a position.
    claimed: BTreeSet<Arc<str>>,
    /// Since when a topic that had mirrors has been missing, by side.
    absent: BTreeMap<(bool, Arc<str>), Instant>,
    warned: BTreeSet<String>,
}

impl Planner {
    /// Remembers nothing. `claimed` are the source topics for which the link's group already holds a position.
    pub fn new(link: Arc<Link>, claimed: BTreeSet<Arc<str>>) -> Self {
        Self {
            link,
            mirrored: BTreeMap::new(),
            claimed,
            absent: BTreeMap::new(),
            warned: BTreeSet::new(),
        }
    }

    /// Notes that the target topic of a source topic was made by this link: it may be grown.
    pub fn created(&mut self, topic: &Arc<str>) {
        self.claimed.insert(topic.clone());
    }

    /// The partitions that have a mirror, by source topic.
    pub fn running(&self) -> impl Iterator<Item = (&Arc<str>, Range<i32>)> {
        self.mirrored.iter().map(|(topic, entry)| (topic, 0..entry.running))
    }

    /// When to look again even if nothing changes: a topic that is missing now counts as deleted then.
    pub fn next_look(&self, now: Instant) -> Option<Instant> {
        self.absent.values().map(|since| *since + ABSENCE).filter(|due| *due > now).min()
    }

    /// Decides. What the plan says is taken as done: carry it out, or drop the planner.
    pub fn look(&mut self, source: &View, target: &View, now: Instant) -> Plan {
        let mut plan = Plan::default();
        self.note_presence(source, target);
        self.select(source, &mut plan);
        self.refuse_shared_names(&mut plan);
        self.end_departed(source, target, now, &mut plan);
        for (topic, target_name) in plan.selected.clone() {
            if plan.blocked.contains_key(&topic) {
                self.end_blocked(&topic, &mut plan);
            } else if let Some(seen) = source.topics.get(&topic) {
                self.decide(&topic, *seen, &target_name, target, now, &mut plan);
            }
        }
        self.warn_of_no_match(source, &mut plan);
        self.warn_of_shared_metrics(target, &mut plan);
        plan
    }

    fn note_presence(&mut self, source: &View, target: &View) {
        let mirrored = &self.mirrored;
        self.absent.retain(|(on_source, topic), _| {
            let Some(entry) = mirrored.get(topic) else { return false };
            if *on_source { !source.shows(topic) } else { !target.shows(&entry.target) }
        });
    }

    /// Selection and naming; what is selected and cannot have a name is blocked.
    fn select(&mut self, source: &View, plan: &mut Plan) {
        for (topic, seen) in &source.topics {
            if selection::judge(&self.link.topics, topic, seen.internal) != Verdict::Selected {
                continue;
            }
            let literal = selection::is_literal(&self.link.topics, topic);
            if !literal && naming::is_echo(&self.link, topic) {
                self.warn(plan, reasons::echo(&self.link, topic));
                continue;
            }
            match naming::target_name(&self.link, topic) {
                Ok(name) => {
                    plan.selected.insert(topic.clone(), name.into());
                }
                Err(why) => {
                    let error = reasons::target_name(&self.link, topic, &why);
                    plan.blocked.insert(topic.clone(), error);
                }
            }
        }
    }

    /// Two source topics for one target topic would be merged without a word: both are refused.
    fn refuse_shared_names(&self, plan: &mut Plan) {
        let mut by_target: BTreeMap<&Arc<str>, Vec<&Arc<str>>> = BTreeMap::new();
        for (topic, target) in &plan.selected {
            by_target.entry(target).or_default().push(topic);
        }
        let shared = by_target.into_iter().filter(|(_, topics)| topics.len() > 1);
        for (target, topics) in shared {
            let names = topics.iter().map(|t| &***t).collect::<Vec<_>>().join(", ");
            let error = reasons::shared_name(&self.link, &names, target);
            for topic in topics {
                plan.blocked.insert(topic.clone(), error.clone());
            }
        }
    }

    /// Topics with a past that the source no longer shows.
    fn end_departed(&mut self, source: &View, target: &View, now: Instant, plan: &mut Plan) {
        let had: Vec<Arc<str>> = self.mirrored.keys().cloned().collect();
        for topic in had {
            if source.shows(&topic) || !self.gone(true, &topic, now) {
                continue;
            }
            let Some(entry) = self.mirrored.get_mut(&topic) else { continue };
            if entry.running > 0 {
                plan.end.push(End {
                    topic: topic.clone(),
                    partitions: 0..entry.running,
                    why: None,
                });
                entry.running = 0;
            }
            // With both topics gone nothing is left that a new pair could be mixed with.
            let target_name = entry.target.clone();
            if !target.shows(&target_name) && self.gone(false, &topic, now) {
                self.forget(&topic);
            }
        }
    }

    fn end_blocked(&mut self, topic: &Arc<str>, plan: &mut Plan) {
        let why = plan.blocked.get(topic).cloned();
        if let Some(entry) = self.mirrored.get_mut(topic).filter(|entry| entry.running > 0) {
            plan.end.push(End { topic: topic.clone(), partitions: 0..entry.running, why });
            entry.running = 0;
        }
    }

    /// One selected topic that the source has.
    fn decide(
        &mut self,
        topic: &Arc<str>,
        seen: Seen,
        target_name: &Arc<str>,
        target: &View,
        now: Instant,
        plan: &mut Plan,
    ) {
        if target.unclear.contains(target_name) {
            return;
        }
        let there = target.topics.get(target_name).copied();
        if let Some(entry) = self.mirrored.get(topic).cloned() {
            if entry.replaced.contains(&seen.id) {
                return; // a broker that is behind
            }
            let source_changed = changed(entry.source_id, seen.id);
            let target_gone = there.is_none() && self.gone(false, topic, now);
            if source_changed && target_gone {
                // Both are new: nothing old is left to be mixed with the new.
                self.end_all(topic, None, plan);
                self.forget(topic);
            } else if source_changed && self.goes_on(&entry, there) {
                self.end_all(topic, None, plan);
                if let Some(entry) = self.mirrored.get_mut(topic) {
                    entry.replaced.push(entry.source_id);
                    entry.source_id = seen.id;
                }
            } else {
                let why = match there {
                    _ if entry.broken.is_some() => entry.broken,
                    _ if source_changed => {
                        Some(reasons::source_recreated(&self.link, topic, entry.source_id, seen.id))
                    }
                    Some(there) if changed(entry.target_id, there.id) => {
                        Some(reasons::target_recreated(
                            &self.link,
                            topic,
                            target_name,
                            entry.target_id,
                            there.id,
                        ))
                    }
                    None if target_gone => {
                        Some(reasons::target_gone(&self.link, topic, target_name))
                    }
                    _ => None,
                };
                if let Some(error) = why {
                    self.end_all(topic, Some(error.clone()), plan);
                    plan.blocked.insert(topic.clone(), error);
                    return;
                }
                if there.is_none() {
                    return;
                }
            }
        }
        let Some(there) = there else {
            plan.create.push(Create {
                topic: topic.clone(),
                target: target_name.clone(),
                partitions: seen.partitions,
            });
            return;
        };
        self.fill(topic, seen, target_name, there, plan);
    }

    /// Whether a re-created source topic is copied behind what the target holds of the old one.
    fn goes_on(&self, entry: &Mirrored, there: Option<Seen>) -> bool {
        let same_target = there.is_some_and(|there| !changed(entry.target_id, there.id));
        let restarts = self.link.policies.on_recreate == OnRecreate::Restart;
        restarts && same_target && entry.broken.is_none()
    }

    /// Both topics are there and are the ones that were meant: grow, and begin what is missing.
    fn fill(
        &mut self,
        topic: &Arc<str>,
        seen: Seen,
        target_name: &Arc<str>,
        there: Seen,
        plan: &mut Plan,
    ) {
        let ours = self.mirrored.contains_key(topic) || self.claimed.contains(topic);
        if there.partitions < seen.partitions {
            if !ours {
                let wanted = (&**topic, seen.partitions);
                let error =
                    reasons::in_the_way(&self.link, wanted, (target_name, there.partitions));
                plan.blocked.insert(topic.clone(), error);
                return;
            }
            plan.grow.push(Grow {
                topic: topic.clone(),
                target: target_name.clone(),
                from: there.partitions,
                to: seen.partitions,
            });
        }
        let entry = self.mirrored.entry(topic.clone()).or_insert_with(|| Mirrored {
            target: target_name.clone(),
            source_id: seen.id,
            replaced: Vec::new(),
            target_id: there.id,
            running: 0,
            broken: None,
        });
        let both = seen.partitions.min(there.partitions);
        if entry.running < both {
            plan.begin.push(Begin {
                topic: topic.clone(),
                source_id: seen.id,
                replaces: entry.replaced.last().copied(),
                target: target_name.clone(),
                target_id: there.id,
                partitions: entry.running..both,
            });
            entry.running = both;
        }
    }

    /// Ends a topic's mirrors; with a reason it stays so.
    fn end_all(&mut self, topic: &Arc<str>, why: Option<Error>, plan: &mut Plan) {
        let Some(entry) = self.mirrored.get_mut(topic) else { return };
        entry.broken.clone_from(&why);
        if entry.running > 0 {
            plan.end.push(End { topic: topic.clone(), partitions: 0..entry.running, why });
            entry.running = 0;
        }
    }

    /// Whether a topic has now been missing for long enough.
    fn gone(&mut self, on_source: bool, topic: &Arc<str>, now: Instant) -> bool {
        now >= *self.absent.entry((on_source, topic.clone())).or_insert(now) + ABSENCE
    }

    fn forget(&mut self, topic: &Arc<str>) {
        self.mirrored.remove(topic);
        self.claimed.remove(topic);
        self.absent.remove(&(true, topic.clone()));
        self.absent.remove(&(false, topic.clone()));
    }

    /// Include patterns that match nothing: a mistyped one otherwise looks like a link that is up to date.
    fn warn_of_no_match(&mut self, source: &View, plan: &mut Plan) {
        let link = self.link.clone();
        let names: Vec<&str> = source.topics.keys().chain(&source.unclear).map(|t| &**t).collect();
        let missing = selection::unmatched(&link.topics, &names);
        if missing.is_empty() {
            return;
        }
        if !self.is_news(&format!("no match for {}", missing.join(", "))) {
            return;
        }
        let near = selection::nearest(&link.topics, &names, NEAREST_SHOWN);
        let any_topic = names.iter().any(|name| !selection::is_internal_name(name));
        plan.warnings.push(reasons::no_match(&link, &missing, &near, any_topic));
    }

    /// Names that Kafka's metrics cannot tell apart. A KRaft target refuses to create the second, which blocks it then.
    fn warn_of_shared_metrics(&mut self, target: &View, plan: &mut Plan) {
        let mut forms: BTreeMap<String, BTreeSet<&Arc<str>>> = BTreeMap::new();
        for name in target.topics.keys().chain(plan.selected.values()) {
            if name.contains(['.', '_']) {
                forms.entry(naming::metric_form(name)).or_default().insert(name);
            }
        }
        let ours: BTreeSet<&Arc<str>> = plan.selected.values().collect();
        let shared: Vec<String> = forms
            .into_values()
            .filter(|names| names.len() > 1 && names.iter().any(|name| ours.contains(name)))
            .map(|names| names.iter().map(|name| &***name).collect::<Vec<_>>().join(" and "))
            .collect();
        for names in shared {
            self.warn(plan, reasons::shared_metrics(&self.link, &names));
        }
    }

    /// Tells a warning the first time.
    fn warn(&mut self, plan: &mut Plan, warning: Error) {
        if self.is_news(&warning.message) {
            plan.warnings.push(warning);
        }
    }

    fn is_news(&mut self, warning: &str) -> bool {
        if self.warned.len() >= limits::WARNINGS_REMEMBERED_MAX {
            self.warned.clear();
        }
        self.warned.insert(warning.to_owned())
    }
}

/// Whether two ids are known to be of different topics. A broker without topic ids shows nil.
fn changed(old: Uuid, new: Uuid) -> bool {
    !old.is_nil() && !new.is_nil() && old != new
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
