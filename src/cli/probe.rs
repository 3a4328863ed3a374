//! What `check` asks of the clusters: can each broker be reached and logged in to, are a link's ends two clusters, does
//! what it selects exist and fit, and are the rights there. Changes nothing: topics are created with `validate_only`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};

use super::net;
use super::path::{self, Note, Way};
use crate::cluster::ClusterHandle;
use crate::cluster::admin::{self, Connections};
use crate::cluster::rights::Need;
use crate::config::Severity;
use crate::config::resolved::{Cluster, Config, Link, Sasl, ScramHash};
use crate::connection::{Connection, Security};
use crate::env::Env;
use crate::error::{Action, Code, Error, Side};
use crate::link::plan::{Plan, Planner, View};
use crate::link::topics::{Asked, Refusal, refusal};
use crate::link::{codes, origins, reasons};
use crate::wire::common::{Isolation, TopicPartitions};
use crate::wire::create_topics::NewTopic;
use crate::wire::error_code::ErrorCode;
use crate::wire::list_offsets::LATEST;

/// Brokers dialled at a time.
const DIALLED_AT_ONCE: usize = 16;
/// Topics whose partitions are asked about, per link: rights and leaders are seldom a matter of one topic.
const TOPICS_PROBED_MAX: usize = 200;

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(super) struct Finding {
    /// A cluster or a link.
    pub(super) group: String,
    /// None is as it should be.
    pub(super) severity: Option<Severity>,
    /// `ST-nnn`.
    pub(super) code: Option<String>,
    pub(super) what: String,
    pub(super) fix: String,
}

/// Findings in the making, of one group.
struct Findings {
    group: String,
    list: Vec<Finding>,
}

impl Findings {
    fn good(&mut self, what: impl Into<String>) {
        let (group, what) = (self.group.clone(), what.into());
        self.list.push(Finding { group, severity: None, code: None, what, fix: String::new() });
    }

    fn told(&mut self, severity: Severity, error: &Error) {
        let place = error.place.to_string();
        let place = if place.is_empty() { place } else { format!("{place}: ") };
        self.list.push(Finding {
            group: self.group.clone(),
            severity: Some(severity),
            code: Some(error.code.to_string()),
            what: format!("{place}{}", error.message),
            fix: error.fix.clone(),
        });
    }

    fn note(&mut self, note: Note) {
        let (group, severity) = (self.group.clone(), Some(Severity::Note));
        self.list.push(Finding { group, severity, code: None, what: note.what, fix: note.fix });
    }

    fn bad(&mut self, error: &Error) {
        self.told(Severity::Error, error);
    }
}

/// Everything, clusters first, then links, each in the order of their names.
pub(super) async fn all(env: &Env, config: &Config) -> Vec<Finding> {
    let clusters = config.clusters.values().filter_map(|cluster| {
        let reads = config.links.iter().any(|link| link.from.name == cluster.name);
        let written = config.links.iter().any(|link| link.to.name == cluster.name);
        let named = |link: &Arc<Link>| link.forward.origins.iter().any(|o| o.name == cluster.name);
        let forwarded = config.links.iter().any(named);
        // A cluster that no link uses is a matter for the configuration, which warns.
        let sides = [(reads, Side::Source), (written, Side::Target)];
        let sides = sides.into_iter().filter_map(|(is, side)| is.then_some(side));
        (reads || written || forwarded).then_some((cluster, sides.collect::<Vec<_>>()))
    });
    let looked = join_all(clusters.map(|(cluster, sides)| probe(env, cluster, sides))).await;
    let mut findings = Vec::new();
    let mut handles = BTreeMap::new();
    for (of_cluster, handle) in looked {
        if let Some(handle) = handle {
            handles.insert(handle.config().name.clone(), handle);
        }
        findings.extend(of_cluster.list);
    }
    let id = |handle: &ClusterHandle| {
        Some((handle.config().name.clone(), handle.map().cluster_id.clone()?))
    };
    let ids: Vec<(String, String)> = handles.values().filter_map(id).collect();
    let links = config.links.iter().filter_map(|link| {
        let ends = (handles.get(&link.from.name)?, handles.get(&link.to.name)?);
        Some(probe_link(env, link, ends.0, ends.1, &ids))
    });
    if let Some(telemetry) = &config.telemetry
        && let Err(error) = crate::admin::check(telemetry)
    {
        let mut own = Findings { group: "telemetry".to_owned(), list: Vec::new() };
        own.bad(&error);
        findings.extend(own.list);
    }
    findings.extend(join_all(links).await.into_iter().flat_map(|of_link| of_link.list));
    findings
}

/// One cluster: every bootstrap address, then every broker that it advertises.
async fn probe(
    env: &Env,
    cluster: &Arc<Cluster>,
    sides: Vec<Side>,
) -> (Findings, Option<ClusterHandle>) {
    let side = sides.first().copied().unwrap_or(Side::Target);
    let group = format!("cluster {}", cluster.name);
    let mut findings = Findings { group, list: Vec::new() };
    let security = match Security::load(cluster) {
        Ok(security) => security,
        Err(error) => {
            findings.bad(&error);
            return (findings, None);
        }
    };
    let dialled = join_all(cluster.bootstrap.iter().map(|address| {
        let security = &security;
        async move { Connection::open(env, address, security, side).await }
    }))
    .await;
    let reached = dialled.iter().filter(|result| result.is_ok()).count();
    if reached > 0 {
        findings.good(format!("bootstrap {reached}/{}", dialled.len()));
    }
    // One broken address of several is a warning: the others stand in for it.
    let severity = if reached > 0 { Severity::Warning } else { Severity::Error };
    for error in dialled.iter().filter_map(|result| result.as_ref().err()) {
        findings.told(severity, error);
    }
    let version = match dialled.iter().find_map(|result| result.as_ref().ok()) {
        Some(connection) => connection.tls_version(),
        None => return (findings, None),
    };
    drop(dialled);
    findings.good(security_words(cluster, version));
    let handle = match net::open(env, cluster, side).await {
        Ok(handle) => handle,
        Err(error) => {
            findings.bad(&error);
            return (findings, None);
        }
    };
    let map = handle.map();
    let ids = map.brokers.keys().copied().collect::<Vec<_>>();
    let opened = stream::iter(ids.iter().map(|id| way(env, &handle, *id, &sides)))
        .buffered(DIALLED_AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let reached = opened.iter().filter(|result| result.is_ok()).count();
    if reached > 0 {
        findings.good(format!("brokers {reached}/{}", ids.len()));
    }
    let (ways, errors): (Vec<_>, Vec<_>) = opened.into_iter().partition(Result::is_ok);
    let ways = ways.into_iter().filter_map(Result::ok).collect::<Vec<Way>>();
    if let Some(longest) = ways.iter().map(|way| way.round_trip).max() {
        findings.good(format!("round trip {}", path::show_ms(longest)));
    }
    errors.into_iter().filter_map(Result::err).for_each(|error| findings.bad(&error));
    path::notes(cluster, &ways).into_iter().for_each(|note| findings.note(note));
    findings.good(format!("id {}", map.cluster_id.as_deref().unwrap_or("unknown")));
    (findings, Some(handle))
}

/// A broker that lets us in, and the way to it.
async fn way(env: &Env, cluster: &ClusterHandle, id: i32, sides: &[Side]) -> Result<Way, Error> {
    let connection = cluster.connect(env, id).await?;
    path::look(env, &connection, id, sides).await
}

fn security_words(cluster: &Cluster, version: Option<&str>) -> String {
    let tls = version.unwrap_or("plaintext").to_owned();
    let mutual = cluster.tls.as_ref().is_some_and(|tls| tls.identity.is_some());
    let tls = if mutual { format!("{tls} with a client certificate") } else { tls };
    let sasl = match &cluster.sasl {
        None => return tls,
        Some(Sasl::OAuthBearer(_)) => "OAUTHBEARER",
        Some(Sasl::Plain { .. }) => "PLAIN",
        Some(Sasl::Scram { hash: ScramHash::Sha256, .. }) => "SCRAM-SHA-256",
        Some(Sasl::Scram { hash: ScramHash::Sha512, .. }) => "SCRAM-SHA-512",
    };
    format!("{tls}, {sasl}")
}

async fn probe_link(
    env: &Env,
    link: &Arc<Link>,
    source: &ClusterHandle,
    target: &ClusterHandle,
    ids: &[(String, String)],
) -> Findings {
    let mut findings = Findings { group: format!("link {}", link.name), list: Vec::new() };
    let (from, to) = (source.map(), target.map());
    match (&from.cluster_id, &to.cluster_id) {
        (Some(a), Some(b)) if a == b => {
            findings.bad(&reasons::same_cluster(link, a));
            return findings;
        }
        (Some(_), Some(_)) => findings.good("cluster ids differ"),
        _ => {}
    }
    if let Some((a, b)) = origins::clash(ids) {
        findings.bad(&reasons::origin_clash(link, a, b));
    }
    for origin in &link.forward.origins {
        let id = ids.iter().find(|(name, _)| *name == origin.name).map(|(_, id)| id);
        if let Some(id) = id.filter(|id| to.cluster_id.as_ref() == Some(id)) {
            findings.bad(&reasons::back_to_origin(link, &origin.name, id));
        }
    }
    let (seen, there) = (View::from(&*from), View::from(&*to));
    let claimed = position(env, link, source, &mut findings).await;
    let plan = Planner::new(link.clone(), claimed).look(&seen, &there, env.now());
    let partitions: i32 =
        plan.selected.keys().filter_map(|t| seen.topics.get(t)).map(|topic| topic.partitions).sum();
    if !plan.selected.is_empty() {
        findings.good(format!("{} topics, {partitions} partitions", plan.selected.len()));
    }
    // A pattern without a match is for later, unless nothing is left to copy at all.
    for warning in &plan.warnings {
        let alone = plan.selected.is_empty() && warning.code == codes::NO_MATCH;
        findings.told(if alone { Severity::Error } else { Severity::Warning }, warning);
    }
    for (topic, error) in &plan.blocked {
        let error = Error { message: format!("topic {topic}: {}", error.message), ..error.clone() };
        findings.bad(&error);
    }
    read_source(env, link, source, &plan, &seen, &mut findings).await;
    read_target(env, link, target, &plan, &there, &mut findings).await;
    change_target(env, link, target, &plan, &mut findings).await;
    if link.delivery.transactions().is_some() {
        transactions(env, link, target, &mut findings).await;
    }
    findings
}

/// Whether the link may use transactions. That it may also write under its ids shows only by writing, so the right is named.
async fn transactions(env: &Env, link: &Link, target: &ClusterHandle, findings: &mut Findings) {
    let group = format!("strait.{}", link.name);
    match target.transaction_coordinator(env, &format!("{group}.")).await {
        Ok(coordinator) => findings.good(format!(
            "transactions V{} (needs Write on transactional ids {group}.*)",
            if coordinator.has_transactions_v2() { 2 } else { 1 }
        )),
        Err(error) if error.code == codes::NOT_ALLOWED => {
            findings.bad(&error.fix(Need::WriteTransactions.grant(link, "")));
        }
        Err(error) => findings.bad(&error),
    }
    let asked = async {
        let coordinator = target.coordinator(env, &group).await?;
        let answer = admin::offset_fetch(&coordinator, &group, None).await?;
        match answer.error {
            ErrorCode::NONE => Ok(()),
            ErrorCode::GROUP_AUTHORIZATION_FAILED => {
                let what = format!("target group {group}: {}", answer.error.name());
                let error = coordinator.error(codes::NOT_ALLOWED, what);
                Err(error.fix(Need::CommitTargetPosition.grant(link, "")))
            }
            error => {
                let what = format!("target group {group}: {}", error.name());
                Err(coordinator.error(codes::POSITION_UNREADABLE, what))
            }
        }
    };
    match asked.await {
        Ok(()) => findings.good(format!("position kept in target group {group}")),
        Err(error) => findings.bad(&error),
    }
}

/// The topics for which the link's group holds a position; whether it may be read is found out on the way.
async fn position(
    env: &Env,
    link: &Link,
    source: &ClusterHandle,
    findings: &mut Findings,
) -> BTreeSet<Arc<str>> {
    let group = format!("strait.{}", link.name);
    let asked = async {
        let coordinator = source.coordinator(env, &group).await?;
        let answer = admin::offset_fetch(&coordinator, &group, None).await?;
        match answer.error {
            ErrorCode::NONE => Ok(answer.topics),
            ErrorCode::GROUP_AUTHORIZATION_FAILED => {
                let what = format!("group {group}: {}", answer.error.name());
                let error = coordinator.error(codes::NOT_ALLOWED, what);
                Err(error.fix(Need::CommitPosition.grant(link, "")))
            }
            error => {
                let what = format!("group {group}: {}", error.name());
                Err(coordinator.error(codes::POSITION_UNREADABLE, what))
            }
        }
    };
    match asked.await {
        Ok(topics) => {
            let held = |t: &TopicPartitions<crate::wire::offset_fetch::StoredOffset>| {
                t.partitions.iter().any(|stored| stored.offset >= 0)
            };
            let topics = topics.iter().filter(|t| held(t)).map(|t| t.topic.as_str().into());
            let topics = topics.collect::<BTreeSet<_>>();
            findings.good(match topics.len() {
                0 => format!("group {group} has no position yet"),
                n => format!("group {group} has positions of {n} topics"),
            });
            topics
        }
        Err(error) => {
            findings.bad(&error);
            BTreeSet::new()
        }
    }
}

/// Whether every selected partition has a leader that lets us read.
async fn read_source(
    env: &Env,
    link: &Link,
    source: &ClusterHandle,
    plan: &Plan,
    seen: &View,
    findings: &mut Findings,
) {
    let topics = plan.selected.keys().take(TOPICS_PROBED_MAX);
    let wanted = topics.flat_map(|topic| {
        let partitions = seen.topics.get(topic).map_or(0, |seen| seen.partitions);
        (0..partitions).map(|partition| (topic.to_string(), partition))
    });
    let connections = Connections::new(source.clone());
    let isolation = Isolation::ReadUncommitted;
    let listed = admin::list_offsets_by_leader(&connections, env, isolation, LATEST, wanted).await;
    let mut refused = BTreeMap::<(String, ErrorCode), Vec<i32>>::new();
    let all = listed.offsets.len();
    for ((topic, partition), offset) in listed.offsets {
        if offset.error.is_error() {
            refused.entry((topic, offset.error)).or_default().push(partition);
        }
    }
    let bad = refused.values().map(Vec::len).sum::<usize>();
    if bad < all {
        findings.good(format!("{} of {all} partitions readable", all - bad));
    }
    for ((topic, code), partitions) in refused {
        let numbers = partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let what = format!("source topic {topic}, partitions {numbers}: {}", code.name());
        let denied = code == ErrorCode::TOPIC_AUTHORIZATION_FAILED;
        let st = if denied { codes::NOT_ALLOWED } else { Code(15) };
        let error = Error::new(st, Side::Source, Action::Park, what);
        findings.bad(&if denied { error.fix(Need::ReadSource.grant(link, &topic)) } else { error });
    }
}

/// Whether target topics that are there may be read back, which resuming needs.
async fn read_target(
    env: &Env,
    link: &Link,
    target: &ClusterHandle,
    plan: &Plan,
    there: &View,
    findings: &mut Findings,
) {
    let topics = plan.selected.values().filter(|name| there.topics.contains_key(*name));
    let wanted = topics.take(TOPICS_PROBED_MAX).map(|name| (name.to_string(), 0));
    let connections = Connections::new(target.clone());
    let isolation = Isolation::ReadUncommitted;
    let listed = admin::list_offsets_by_leader(&connections, env, isolation, LATEST, wanted).await;
    for ((topic, _), offset) in listed.offsets {
        if offset.error == ErrorCode::TOPIC_AUTHORIZATION_FAILED {
            let what = format!("target topic {topic}: {}", offset.error.name());
            let error = Error::new(codes::NOT_ALLOWED, Side::Target, Action::Park, what);
            findings.bad(&error.fix(Need::ReadTarget.grant(link, &topic)));
        }
    }
}

/// Whether the target would make and grow the topics that are missing or too small.
async fn change_target(
    env: &Env,
    link: &Link,
    target: &ClusterHandle,
    plan: &Plan,
    findings: &mut Findings,
) {
    if plan.create.is_empty() && plan.grow.is_empty() {
        return;
    }
    let brokers = target.map().brokers.len();
    let sizes = plan.create.iter().map(|c| (c.target.to_string(), c.partitions));
    let sizes = sizes.chain(plan.grow.iter().map(|g| (g.target.to_string(), g.to)));
    let sizes = sizes.collect::<BTreeMap<_, _>>();
    let answers = async {
        let connection = target.connect_any(env).await?;
        let new = plan.create.iter().take(TOPICS_PROBED_MAX).map(|create| NewTopic {
            name: create.target.to_string(),
            partitions: create.partitions,
            replication_factor: link.replication_factor.unwrap_or(-1),
            configs: Vec::new(),
        });
        let created = admin::create_topics(&connection, new.collect(), true).await?;
        let grow = plan.grow.iter().take(TOPICS_PROBED_MAX);
        let grow = grow.map(|grow| (grow.target.to_string(), grow.to)).collect::<Vec<_>>();
        let grown = admin::create_partitions(&connection, grow, true).await?;
        let created =
            created.into_iter().map(|t| (Asked::Create, t.name, t.error, t.error_message));
        let grown = grown.into_iter().map(|t| (Asked::Grow, t.name, t.error, t.error_message));
        Ok::<_, Error>(created.chain(grown).collect::<Vec<_>>())
    };
    match answers.await {
        Err(error) => findings.bad(&error),
        Ok(answers) => {
            let mut fine = 0;
            for (asked, name, code, detail) in answers {
                let partitions = sizes.get(&name).copied().unwrap_or(0);
                let detail = detail.unwrap_or_default();
                if !code.is_error() {
                    fine += 1;
                } else if let Refusal::Soon(error) | Refusal::Blocked(error) =
                    refusal(link, asked, &name, partitions, brokers, code, &detail)
                {
                    findings.bad(&error);
                }
            }
            if fine > 0 {
                findings.good(format!("{fine} topics would be created or grown"));
            }
        }
    }
}
