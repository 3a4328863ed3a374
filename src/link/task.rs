//! The task of one link: look at both clusters, decide (`plan.rs`), carry out, tell; until it is dropped.
//!
//! Runs on the control thread. Nothing here is on the data path: while the target's controller takes its time, the lanes
//! go on.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use tokio::time::sleep_until;
use tracing::{error, info, warn};

use super::hands::Hands;
use super::naming;
use super::origins::Origins;
use super::plan::{Plan, Planner, View};
use super::reasons;
use super::roster::Roster;
use super::selection::{self, Verdict};
use crate::cluster::ClusterHandle;
use crate::config::resolved::Link;
use crate::engine::member::MemberCell;
use crate::engine::spec::Mirrors;
use crate::engine::stats::LinkEntry;
use crate::env::Env;
use crate::error::{Action, Error};
use crate::fleet::{self, Identity, Interest};
use crate::limits;

/// What a link's task works with.
pub struct Context<M> {
    /// Clock and network.
    pub env: Env,
    /// The link.
    pub link: Arc<Link>,
    /// Where it tells how it fares.
    pub entry: Arc<LinkEntry>,
    /// Read from.
    pub source: ClusterHandle,
    /// Written to.
    pub target: ClusterHandle,
    /// Every cluster of the configuration that is watched: their ids tell origins apart.
    pub clusters: Vec<ClusterHandle>,
    /// How many the configuration has.
    pub clusters_count: usize,
    /// Where its mirrors are put.
    pub mirrors: M,
    /// Where its standing in the group is told.
    pub member: Arc<MemberCell>,
    /// Who this process is from start to start, if it is anybody.
    pub identity: Option<Identity>,
}

/// Keeps the mirrors of a link as they should be. Returns only the error that makes the link impossible; drop it to end
/// it (its mirrors stay).
pub async fn run<M: Mirrors>(context: Context<M>) -> Error {
    let Context { env, link, entry, source, target, .. } = context;
    let Context { clusters, clusters_count, mirrors, member, identity, .. } = context;
    let roster = Rc::new(Roster::new(&link.name, mirrors));
    let interest = Rc::new(Interest::default());
    // Beside the task, not in it: a group that wants a partition back does not wait for the target's controller.
    let membership = fleet::run(fleet::Context {
        env: env.clone(),
        link: link.clone(),
        source: source.clone(),
        member,
        holder: roster.clone(),
        interest: interest.clone(),
        identity,
    });
    let mut task = Task {
        hands: Hands::new(env.clone(), link.clone(), source.clone(), target.clone()),
        origins: Origins::new(link.clone(), clusters, clusters_count),
        clusters: Clusters { source, target },
        env,
        link,
        entry,
        roster,
        interest,
    };
    let work = async move {
        match task.first_look().await {
            Ok(claimed) => {
                let planner = Planner::new(task.link.clone(), claimed);
                task.keep(planner).await
            }
            Err(error) => {
                error!(link = %task.link.name, "{error}");
                task.tell_error(Some(error.clone()));
                error
            }
        }
    };
    tokio::select! {
        biased;
        error = work => error,
        never = membership => match never {},
    }
}

struct Task<M> {
    env: Env,
    link: Arc<Link>,
    entry: Arc<LinkEntry>,
    clusters: Clusters,
    origins: Origins,
    hands: Hands,
    roster: Rc<Roster<M>>,
    interest: Rc<Interest>,
}

struct Clusters {
    source: ClusterHandle,
    target: ClusterHandle,
}

impl Clusters {
    /// Why one of the two cannot be asked now.
    fn error(&self) -> Option<Error> {
        self.source.last_error().or_else(|| self.target.last_error())
    }

    fn both_known(&self) -> bool {
        self.source.map().generation > 0 && self.target.map().generation > 0
    }

    async fn changed(&mut self) {
        tokio::select! {
            biased;
            () = self.source.changed() => (),
            () = self.target.changed() => (),
        }
    }
}

impl<M: Mirrors> Task<M> {
    /// Waits for both clusters, makes sure that they are two, and finds out which topics the link holds a position of.
    async fn first_look(&mut self) -> Result<BTreeSet<Arc<str>>, Error> {
        while !self.clusters.both_known() {
            self.tell_error(self.clusters.error());
            self.clusters.changed().await;
        }
        let ids = (self.clusters.source.map(), self.clusters.target.map());
        if let (Some(source), Some(target)) = (&ids.0.cluster_id, &ids.1.cluster_id)
            && source == target
        {
            return Err(reasons::same_cluster(&self.link, source));
        }
        while !self.origins.are_known() {
            self.tell_error(self.origins.error());
            self.origins.changed().await;
        }
        self.origins.settle(&ids.0, &ids.1)?;
        // Joining takes a moment; it begins before anything else is asked.
        let selected = selected(&self.link, &View::from(&*ids.0));
        self.interest.set_topics(selected);
        let mut attempt = 0;
        loop {
            match self.hands.source().positions(&self.link).await {
                Ok(topics) => return Ok(topics),
                Err(error) => {
                    // The very first group of a cluster makes its offsets topic: that takes a moment and is no trouble.
                    if attempt < 3 {
                        info!(link = %self.link.name, "{error}");
                    } else {
                        warn!(link = %self.link.name, "{error}");
                    }
                    self.tell_error(Some(error));
                    let (base, max) = limits::RECONNECT_BACKOFF;
                    tokio::time::sleep(self.env.backoff(base, max, attempt)).await;
                    attempt += 1;
                }
            }
        }
    }

    async fn keep(mut self, mut planner: Planner) -> Error {
        let mut unreachable_since = None;
        self.tell_error(None);
        loop {
            let now = self.env.now();
            let due = if let Some(error) = self.clusters.error() {
                // A view that is known to be old decides nothing; the lanes go on by themselves. A broker that restarts
                // is not worth an alarm.
                let told = *unreachable_since.get_or_insert(now) + limits::UNREACHABLE_TOLD;
                if now >= told {
                    self.tell_error(Some(error));
                }
                told.max(now + limits::UNREACHABLE_TOLD)
            } else {
                unreachable_since = None;
                self.tell_error(self.interest.error());
                // A cluster that was away at the start may turn out to be one that cannot be told apart.
                if let Err(error) = self.origins.compare() {
                    return self.refuse(error, &planner);
                }
                let source = View::from(&*self.clusters.source.map());
                let target = View::from(&*self.clusters.target.map());
                let plan = planner.look(&source, &target, now);
                self.carry_out(plan, &mut planner).await;
                // Whoever waits for the first look must not take a topic that is being made for one that has no mirror.
                if !self.hands.expects() && self.roster.is_settled() {
                    self.entry.discovered.store(true, Relaxed);
                }
                let due = self.hands.due();
                planner.next_look(self.env.now()).map_or(due, |look| look.min(due))
            };
            tokio::select! {
                biased;
                () = self.clusters.changed() => (),
                () = self.roster.rung() => (),
                () = self.interest.told() => (),
                () = sleep_until(due) => (),
            }
        }
    }

    /// In the plan's order: what must end first, what runs next, and the target's controller last, since it may be slow.
    async fn carry_out(&mut self, plan: Plan, planner: &mut Planner) {
        for warning in &plan.warnings {
            warn!(link = %self.link.name, "{warning}");
        }
        for end in &plan.end {
            let replaced = plan.begin.iter().any(|begin| begin.topic == end.topic);
            if replaced {
                warn!(link = %self.link.name, topic = %end.topic,
                    "re-created on the source: the new topic is copied behind the old one's records");
            } else if end.why.is_none() {
                info!(link = %self.link.name, topic = %end.topic,
                    "gone from the source's metadata: its mirrors end, the target's topic stays");
            }
            self.roster.end(&end.topic, end.partitions.clone());
        }
        plan.begin.iter().for_each(|begin| self.roster.want(begin));
        let topics = plan.selected.keys().cloned().chain(self.roster.topics()).collect();
        self.interest.set_topics(topics);
        let missing = self.roster.missing();
        let specs = self.hands.specs(&missing, self.origins.forwarding()).await;
        for begin in &missing {
            info!(link = %self.link.name, topic = %begin.topic, target = %begin.target,
                partitions = ?begin.partitions, "mirrors begin");
        }
        specs.into_iter().for_each(|spec| self.roster.begin(spec));
        self.hands.keep_facts(&plan.selected).await;
        for topic in self.hands.create(&plan.create).await {
            planner.created(&topic);
        }
        self.hands.grow(&plan.grow).await;
        let grown = plan.grow.iter().map(|g| &g.topic);
        self.hands.forget_all_but(plan.create.iter().map(|c| &c.topic).chain(grown));
        let mut blocked = plan.blocked;
        blocked.extend(self.hands.refusals().map(|(topic, error)| (topic.clone(), error.clone())));
        self.tell_blocked(blocked);
    }

    /// Ends the link for good, with all its mirrors.
    fn refuse(&self, error: Error, planner: &Planner) -> Error {
        error!(link = %self.link.name, "{error}");
        self.tell_error(Some(error.clone()));
        planner.running().for_each(|(topic, partitions)| self.roster.end(topic, partitions));
        error
    }

    fn tell_error(&self, error: Option<Error>) {
        *self.entry.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Publishes what is blocked, and logs what is new of it and what is over.
    fn tell_blocked(&self, blocked: BTreeMap<Arc<str>, Error>) {
        let blocked: BTreeMap<String, Error> =
            blocked.into_iter().map(|(topic, error)| (topic.to_string(), error)).collect();
        let mut told = self.entry.blocked_topics.lock().unwrap_or_else(PoisonError::into_inner);
        for (topic, error) in &blocked {
            if told.get(topic).is_some_and(|before| before == error) {
                continue;
            }
            match error.action {
                Action::Retry | Action::Reconnect => {
                    warn!(link = %self.link.name, %topic, "{error}")
                }
                Action::Park | Action::Stop => error!(link = %self.link.name, %topic, "{error}"),
            }
        }
        for topic in told.keys().filter(|topic| !blocked.contains_key(*topic)) {
            info!(link = %self.link.name, %topic, "no longer blocked");
        }
        *told = blocked;
    }
}

/// Source topics that the link would copy, whatever their names on the target.
fn selected(link: &Link, source: &View) -> BTreeSet<Arc<str>> {
    let judge = |topic: &str, internal| selection::judge(&link.topics, topic, internal);
    let selected = source.topics.iter().filter(|(topic, seen)| {
        judge(topic, seen.internal) == Verdict::Selected
            && (selection::is_literal(&link.topics, topic) || !naming::is_echo(link, topic))
    });
    selected.map(|(topic, _)| topic.clone()).collect()
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
