//! Carries out on the target what a plan asks for, and remembers what was refused: makes and grows topics, and keeps the
//! target's facts that running mirrors read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::calls::{Answer, Caller};
use super::plan::{Begin, Create, Grow};
use super::reasons;
use super::topics::{self, Asked, Refusal, Setting};
use crate::cluster::ClusterHandle;
use crate::config::resolved::Link;
use crate::engine::identity::Writer;
use crate::engine::route::{Forwarding, Route};
use crate::engine::spec::{MirrorId, MirrorSpec, TargetFacts};
use crate::env::{Env, Moment};
use crate::error::{Action, Error};
use crate::limits;
use crate::wire::create_topics::NewTopic;

/// What the facts of a target topic are read from.
const FACT_KEYS: &[&str] = &["max.message.bytes", "message.timestamp.type", "cleanup.policy"];

/// One link's hands on its clusters.
pub(super) struct Hands {
    env: Env,
    link: Arc<Link>,
    source: Caller,
    target: Caller,
    /// By source topic: what was asked of the target and is not there yet.
    asked: BTreeMap<Arc<str>, Pending>,
    /// By target topic.
    facts: BTreeMap<Arc<str>, Arc<TargetFacts>>,
    facts_due: Instant,
    /// When the target last made a topic for us.
    created_at: Option<Instant>,
    told: BTreeSet<String>,
}

/// A topic that was asked for.
struct Pending {
    /// When to ask again.
    due: Instant,
    tries: u32,
    error: Option<Error>,
    /// Only the operator can help.
    refused: bool,
    /// Settings that the target's Kafka does not know.
    without: BTreeSet<String>,
}

impl Hands {
    pub(super) fn new(
        env: Env,
        link: Arc<Link>,
        source: ClusterHandle,
        target: ClusterHandle,
    ) -> Self {
        let facts_due = env.now() + limits::TARGET_FACTS_REFRESH;
        let mut target = Caller::new(env.clone(), target);
        target.dial();
        Self {
            source: Caller::new(env.clone(), source),
            target,
            env,
            link,
            asked: BTreeMap::new(),
            facts: BTreeMap::new(),
            facts_due,
            created_at: None,
            told: BTreeSet::new(),
        }
    }

    /// The source, to ask it something.
    pub(super) fn source(&mut self) -> &mut Caller {
        &mut self.source
    }

    /// When there is something to do again, whatever the clusters show.
    pub(super) fn due(&self) -> Instant {
        let asked = self.asked.values().map(|pending| pending.due);
        asked.min().map_or(self.facts_due, |due| due.min(self.facts_due))
    }

    /// What the lanes are told of mirrors that begin.
    pub(super) async fn specs(
        &mut self,
        begin: &[Begin],
        forwarding: &Arc<Forwarding>,
    ) -> Vec<MirrorSpec> {
        if !begin.is_empty() {
            let topics: Vec<_> =
                begin.iter().map(|b| (b.topic.clone(), b.target.clone())).collect();
            self.read_facts(&topics).await;
        }
        let link: Arc<str> = self.link.name.as_str().into();
        let mut specs = Vec::new();
        for b in begin {
            let facts = self.facts.entry(b.target.clone()).or_default().clone();
            specs.extend(b.partitions.clone().map(|partition| MirrorSpec {
                id: MirrorId { link: link.clone(), topic: b.topic.clone(), partition },
                source_topic_id: b.source_id,
                replaces: b.replaces,
                target_topic: b.target.clone(),
                target_topic_id: b.target_id,
                route: Route::new(Writer::new(&link, b.source_id, partition), forwarding.clone()),
                target: facts.clone(),
            }));
        }
        specs
    }

    /// Reads the facts again when it is time, and forgets those of topics that are no longer selected.
    pub(super) async fn keep_facts(&mut self, selected: &BTreeMap<Arc<str>, Arc<str>>) {
        if self.env.now() < self.facts_due {
            return;
        }
        let targets: BTreeSet<&Arc<str>> = selected.values().collect();
        self.facts.retain(|target, _| targets.contains(target));
        let known: Vec<_> = selected
            .iter()
            .filter(|(_, target)| self.facts.contains_key(*target))
            .map(|(topic, target)| (topic.clone(), target.clone()))
            .collect();
        self.facts_due = self.env.now() + limits::TARGET_FACTS_REFRESH;
        self.read_facts(&known).await;
    }

    /// Reads the facts of target topics, given as (source topic, target topic). What cannot be read stays as it was: a
    /// stock broker's default at first.
    async fn read_facts(&mut self, topics: &[(Arc<str>, Arc<str>)]) {
        let targets = || topics.iter().map(|(_, target)| target);
        let mut facts = self.target.facts(targets(), FACT_KEYS).await;
        if facts.is_err() {
            // Over a fresh connection: a mirror that begins without the facts takes a compacted target for one with holes.
            facts = self.target.facts(targets(), FACT_KEYS).await;
        }
        let (mut settings, expiration_ms) = match facts {
            Ok(facts) => facts,
            Err(error) => {
                self.tell(&error);
                self.facts_due = self.env.now() + limits::CREATED_TOPIC_LOOK;
                return;
            }
        };
        let expiration_ms = expiration_ms.unwrap_or_else(|error| {
            self.tell(&error);
            None
        });
        let mut compacted = Vec::new();
        for (topic, target) in topics {
            let facts = self.facts.entry(target.clone()).or_default().clone();
            if let Some(ms) = expiration_ms {
                facts.set_producer_expiration_ms(ms);
            }
            match settings.remove(target) {
                Some(Ok(settings)) => topics::note_facts(&facts, &settings),
                Some(Err(code)) => {
                    let error = reasons::settings_unknown(&self.link, target, code);
                    self.tell(&error);
                }
                None => {}
            }
            if facts.log_append_time() {
                self.tell(&reasons::append_time(&self.link, target));
            }
            if facts.compacted() {
                compacted.push((topic.clone(), target.clone()));
            }
        }
        self.tell_compaction(&compacted).await;
    }

    /// A target that compacts what the source does not drops records that the source keeps.
    async fn tell_compaction(&mut self, topics: &[(Arc<str>, Arc<str>)]) {
        let unknown = topics.iter().filter(|(_, target)| {
            !self.told.contains(&reasons::compacted(&self.link, target).message)
        });
        let unknown: Vec<_> = unknown.cloned().collect();
        if unknown.is_empty() {
            return;
        }
        let sources = unknown.iter().map(|(topic, _)| topic);
        let Ok(settings) = self.source.settings(sources, Some(&["cleanup.policy"])).await else {
            return;
        };
        for (topic, target) in &unknown {
            if let Some(Ok(settings)) = settings.get(topic)
                && !topics::is_compacted(settings)
            {
                self.tell(&reasons::compacted(&self.link, target));
            }
        }
    }

    /// Makes topics. Gives back the source topics whose target topics were made.
    pub(super) async fn create(&mut self, wanted: &[Create]) -> Vec<Arc<str>> {
        let now = self.env.now();
        let due: Vec<&Create> = wanted.iter().filter(|c| self.is_due(&c.topic, now)).collect();
        let mut made = Vec::new();
        for some in due.chunks(limits::TOPICS_PER_ADMIN_REQUEST_MAX) {
            // An answer that leaves a topic out must not make us ask without end.
            some.iter().for_each(|c| self.ask(&c.topic));
            let settings = match self.source.settings(some.iter().map(|c| &c.topic), None).await {
                Ok(settings) => settings,
                Err(error) => {
                    some.iter().for_each(|c| self.soon(&c.topic, &error));
                    continue;
                }
            };
            let mut ask = Vec::new();
            for c in some {
                match settings.get(&c.topic) {
                    Some(Ok(settings)) => ask.push(self.new_topic(c, settings)),
                    Some(Err(code)) => {
                        let error = reasons::source_settings(&self.link, &c.topic, *code);
                        match code.is_retriable() {
                            true => self.soon(&c.topic, &error),
                            false => self.later(&c.topic, error),
                        }
                    }
                    // Gone in the meantime: the next look says so.
                    None => self.again(&c.topic),
                }
            }
            if ask.is_empty() {
                continue;
            }
            match self.target.create(ask).await {
                Ok(answers) => {
                    for answer in answers {
                        if let Some(c) = some.iter().find(|c| *c.target == *answer.topic)
                            && self.judge(&c.topic, Asked::Create, c.partitions, &answer)
                        {
                            made.push(c.topic.clone());
                        }
                    }
                }
                Err(error) => some.iter().for_each(|c| self.soon(&c.topic, &error)),
            }
        }
        made
    }

    /// Grows topics.
    pub(super) async fn grow(&mut self, wanted: &[Grow]) {
        let now = self.env.now();
        let due: Vec<&Grow> = wanted.iter().filter(|g| self.is_due(&g.topic, now)).collect();
        for some in due.chunks(limits::TOPICS_PER_ADMIN_REQUEST_MAX) {
            some.iter().for_each(|g| self.ask(&g.topic));
            let ask = some.iter().map(|g| (g.target.to_string(), g.to)).collect();
            match self.target.grow(ask).await {
                Ok(answers) => {
                    for answer in answers {
                        if let Some(g) = some.iter().find(|g| *g.target == *answer.topic) {
                            self.judge(&g.topic, Asked::Grow, g.to, &answer);
                        }
                    }
                }
                Err(error) => some.iter().for_each(|g| self.soon(&g.topic, &error)),
            }
        }
    }

    /// Forgets what was asked for and is no longer wanted, because it is there or its topic is gone.
    pub(super) fn forget_all_but<'a>(&mut self, wanted: impl Iterator<Item = &'a Arc<str>>) {
        let wanted: BTreeSet<&Arc<str>> = wanted.collect();
        self.asked.retain(|topic, _| wanted.contains(topic));
    }

    /// Whether a topic that was asked for may still come by itself.
    pub(super) fn expects(&self) -> bool {
        self.asked.values().any(|pending| !pending.refused)
    }

    /// What the target refused, by source topic.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (&Arc<str>, &Error)> {
        self.asked.iter().filter_map(|(topic, pending)| Some((topic, pending.error.as_ref()?)))
    }

    fn new_topic(&self, create: &Create, settings: &[Setting]) -> NewTopic {
        let mut configs = topics::settings_for_target(settings);
        if let Some(pending) = self.asked.get(&create.topic) {
            configs.retain(|(name, _)| !pending.without.contains(name));
        }
        NewTopic {
            name: create.target.to_string(),
            partitions: create.partitions,
            replication_factor: self.link.replication_factor.unwrap_or(-1),
            configs,
        }
    }

    /// Takes an answer of the target's controller; true if it did what was asked.
    fn judge(&mut self, topic: &Arc<str>, asked: Asked, partitions: i32, answer: &Answer) -> bool {
        self.target.cluster().refresh();
        if !answer.code.is_error() {
            info!(link = %self.link.name, %topic, target = %answer.topic, partitions,
                "target topic {}", if asked == Asked::Create { "created" } else { "grown" });
            self.again(topic);
            if asked == Asked::Create {
                self.created_at = Some(self.env.now());
            }
            self.env.reached(Moment::TopicCreated);
            return true;
        }
        let brokers = self.target.cluster().map().brokers.len();
        let Answer { topic: target, code, detail } = answer;
        match topics::refusal(&self.link, asked, target, partitions, brokers, *code, detail) {
            Refusal::LookAgain => {
                // There again and again, and never seen: it is hidden from us, unless the metadata is behind.
                let lag_ends = self.created_at.map(|at| at + limits::CREATED_TOPICS_LAG);
                let may_lag = lag_ends.is_some_and(|end| self.env.now() < end);
                if asked == Asked::Create && self.pending(topic).tries >= 2 && !may_lag {
                    self.later(topic, reasons::hidden(&self.link, target));
                } else {
                    self.again(topic);
                }
            }
            Refusal::Soon(error) => self.soon(topic, &error),
            Refusal::Without(name) => {
                let error = reasons::unknown_setting(&self.link, target, &name);
                self.tell(&error);
                self.postpone(topic, Duration::ZERO, None);
                self.pending(topic).without.insert(name);
            }
            Refusal::Blocked(error) => self.later(topic, error),
        }
        false
    }

    fn is_due(&self, topic: &Arc<str>, now: Instant) -> bool {
        self.asked.get(topic).is_none_or(|pending| pending.due <= now)
    }

    fn pending(&mut self, topic: &Arc<str>) -> &mut Pending {
        let now = self.env.now();
        self.asked.entry(topic.clone()).or_insert_with(|| Pending {
            due: now,
            tries: 0,
            error: None,
            refused: false,
            without: BTreeSet::new(),
        })
    }

    fn ask(&mut self, topic: &Arc<str>) {
        let due = self.env.now() + limits::CREATED_TOPIC_LOOK;
        self.pending(topic).due = due;
    }

    fn postpone(&mut self, topic: &Arc<str>, wait: Duration, error: Option<Error>) {
        let due = self.env.now() + wait;
        let pending = self.pending(topic);
        pending.due = due;
        pending.tries = pending.tries.saturating_add(1);
        pending.error = error;
        pending.refused = false;
    }

    /// It may pass by itself.
    fn soon(&mut self, topic: &Arc<str>, error: &Error) {
        let (base, max) = limits::RECONNECT_BACKOFF;
        let tries = self.pending(topic).tries;
        let wait = self.env.backoff(base, max, tries);
        let error = Error { action: Action::Retry, ..error.clone() };
        self.postpone(topic, wait, Some(error));
    }

    /// Only the operator can help; asked again every now and then.
    fn later(&mut self, topic: &Arc<str>, error: Error) {
        self.postpone(topic, limits::REFUSED_TOPIC_RETRY, Some(error));
        self.pending(topic).refused = true;
    }

    /// It should show in the metadata soon.
    fn again(&mut self, topic: &Arc<str>) {
        self.postpone(topic, limits::CREATED_TOPIC_LOOK, None);
    }

    /// Tells a warning the first time.
    fn tell(&mut self, warning: &Error) {
        if self.told.len() >= limits::WARNINGS_REMEMBERED_MAX {
            self.told.clear();
        }
        if self.told.insert(warning.message.clone()) {
            warn!(link = %self.link.name, "{warning}");
        }
    }
}
