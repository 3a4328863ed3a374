//! Links, each judged by itself. What two links do to each other is judged where topics are selected and named.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;

use super::resolved::{
    Cluster, Isolation, Link, Membership, MembershipProtocol, Naming, OnFailure, OnGap, OnPoison,
    OnRecreate, Policies, Start, Timestamps, TopicSelection,
};
use super::values::parse_time;
use super::written::{Fields, Reading, Text, nearest};
use super::yaml::{At, Entry, Node, Value};
use super::{backfill, delivery, forward};
use crate::limits;

/// By name; none is one that is wrong.
pub(super) type Clusters = BTreeMap<String, Option<(At, Arc<Cluster>)>>;

/// Every link that is right, by name.
pub(super) fn read(
    reading: &mut Reading<'_>,
    node: &Node,
    clusters: &Clusters,
    memory_bytes: usize,
) -> Vec<Arc<Link>> {
    let Some(fields) = reading.fields(node, "links".into(), "links") else { return Vec::new() };
    if fields.entries().is_empty() {
        reading.error(node.at, "no links", "name a link with `from`, `to` and `topics`");
    }
    let mut links = Vec::new();
    let mut used = Vec::new();
    for entry in fields.entries() {
        reading.name(entry, "a link");
        reading.note(format!("links.{}", entry.key), entry.key_at);
        if let Some(link) = link(reading, entry, clusters, memory_bytes, &mut used) {
            links.push(Arc::new(link));
        }
    }
    for (name, cluster) in clusters {
        if let Some((at, _)) = cluster
            && !used.contains(name)
        {
            let what = format!("no link uses cluster `{name}`");
            reading.warning(*at, what, "remove it, or name it in a link");
        }
    }
    links.sort_by(|a, b| a.name.cmp(&b.name));
    links
}

fn link(
    reading: &mut Reading<'_>,
    entry: &Entry,
    clusters: &Clusters,
    memory_bytes: usize,
    used: &mut Vec<String>,
) -> Option<Link> {
    let path = format!("links.{}", entry.key);
    let mut fields = reading.fields(&entry.node, path, "a link")?;
    let from = end(reading, &mut fields, entry, "from", clusters, used);
    let to = end(reading, &mut fields, entry, "to", clusters, used);
    if let (Some((_, from)), Some((at, to))) = (&from, &to) {
        not_to_itself(reading, *at, from, to);
    }
    if let Some((at, to)) = &to
        && to.tls.is_none()
    {
        let what =
            format!("cluster `{}` is written to without TLS: records cross readable", to.name);
        reading.warning(*at, what, "add `tls` to the cluster");
    }
    let topics = match fields.get(reading, "topics") {
        Some(node) => selection(reading, node, fields.path_of("topics")),
        None => {
            let fix = "add `topics: { include: [\"orders\"] }`; \".*\" is every topic";
            reading.error(entry.key_at, "`topics` is missing", fix);
            None
        }
    };
    let naming = fields.text(reading, "naming");
    let naming = naming.and_then(|text| naming_of(reading, &text)).unwrap_or(Naming::Identity);
    let start = start_of(reading, &mut fields);
    let isolation = [
        ("read_committed", Isolation::ReadCommitted),
        ("read_uncommitted", Isolation::ReadUncommitted),
    ];
    let isolation = fields.choice(reading, "isolation", &isolation, &[]);
    let timestamps = [("as_read", Timestamps::AsRead), ("producer", Timestamps::Producer)];
    let timestamps = fields.choice(reading, "timestamps", &timestamps, &[]);
    let replication_factor = fields.number(reading, "replication_factor", 1..=i64::from(i16::MAX));
    let connections = fields.number(reading, "connections_per_broker", 1..=64).unwrap_or(2);
    // A window of more than the memory could never fill.
    let window = fields.size(reading, "window", 1 << 16..=memory_bytes as u64);
    let limit = fields.rate(reading, "limit", limits::RATE_LIMIT_MIN);
    let backfill = backfill::read(reading, &mut fields, limit);
    let merge = fields.choice(reading, "merge", &[("auto", true), ("off", false)], &[]);
    let membership = membership(reading, &mut fields);
    let ends = (from.as_ref().map(|(_, from)| from), to.as_ref().map(|(_, to)| to));
    let forward = forward::read(reading, &mut fields, ends.0, ends.1, clusters, used);
    let delivery = delivery::read(reading, &mut fields, &forward);
    let policies = policies(reading, &mut fields);
    fields.not_yet(reading, &["groups", "sync", "limits", "slo", "producer_id", "priority"]);
    fields.finish(reading);
    Some(Link {
        name: entry.key.clone(),
        from: from?.1,
        to: to?.1,
        topics: topics?,
        naming,
        start: start.unwrap_or(Start::Earliest),
        isolation: isolation.unwrap_or(Isolation::ReadCommitted),
        timestamps: timestamps.unwrap_or(Timestamps::AsRead),
        delivery,
        forward,
        replication_factor: replication_factor.and_then(|n| i16::try_from(n).ok()),
        connections_per_broker: usize::try_from(connections).unwrap_or(1),
        window_bytes_max: window.unwrap_or(limits::WINDOW_BYTES_DEFAULT.min(memory_bytes)),
        bytes_per_second_max: limit,
        backfill,
        merges: merge.unwrap_or(true),
        policies,
        membership,
    })
}

fn policies(reading: &mut Reading<'_>, link: &mut Fields<'_>) -> Policies {
    let on_gap = [("stop", OnGap::Stop), ("continue", OnGap::Continue)];
    let on_recreate = [("stop", OnRecreate::Stop), ("restart", OnRecreate::Restart)];
    let on_poison = [("park", OnPoison::Park), ("skip", OnPoison::Skip)];
    let on_failure =
        [("pause", OnFailure::Pause), ("retry", OnFailure::Retry), ("stop", OnFailure::Stop)];
    Policies {
        on_gap: link.choice(reading, "on_gap", &on_gap, &[]).unwrap_or_default(),
        on_recreate: link.choice(reading, "on_recreate", &on_recreate, &[]).unwrap_or_default(),
        on_poison: link.choice(reading, "on_poison", &on_poison, &[]).unwrap_or_default(),
        on_failure: link.choice(reading, "on_failure", &on_failure, &[]).unwrap_or_default(),
    }
}

/// The cluster at one end; none where it is missing, unknown, or broken (which was said at the cluster).
fn end(
    reading: &mut Reading<'_>,
    fields: &mut Fields<'_>,
    entry: &Entry,
    key: &'static str,
    clusters: &Clusters,
    used: &mut Vec<String>,
) -> Option<(At, Arc<Cluster>)> {
    let names = clusters.keys().map(String::as_str).collect::<Vec<_>>();
    let Some(node) = fields.get(reading, key) else {
        let fix = format!("name a cluster: {}", names.join(", "));
        reading.error(entry.key_at, format!("`{key}` is missing"), fix);
        return None;
    };
    let text = reading.text(node, &fields.path_of(key))?;
    used.push(text.value.clone());
    match clusters.get(&text.value) {
        Some(Some((_, cluster))) => Some((text.at, cluster.clone())),
        Some(None) => None,
        None => {
            let fix = match nearest(&text.value, &names) {
                Some(name) => format!("did you mean `{name}`?"),
                None if names.is_empty() => "name it under `clusters`".into(),
                None => format!("known: {}", names.join(", ")),
            };
            reading.error(text.at, format!("`{key}`: no cluster {}", text.quoted()), fix);
            None
        }
    }
}

fn not_to_itself(reading: &mut Reading<'_>, at: At, from: &Cluster, to: &Cluster) {
    let fix = "a link needs two clusters";
    if from.name == to.name {
        reading.error(at, format!("a link from cluster `{}` to itself", from.name), fix);
    } else if let Some(same) = from.bootstrap.iter().find(|address| to.bootstrap.contains(address))
    {
        let (a, b) = (&from.name, &to.name);
        let what = format!("a link to itself: `{a}` and `{b}` both have the broker {same}");
        reading.error(at, what, fix);
    }
}

fn selection(reading: &mut Reading<'_>, node: &Node, path: String) -> Option<TopicSelection> {
    if let Value::List(_) | Value::Text(_) = node.value {
        let what = format!("`topics` must be a mapping, this is {}", node.value.kind());
        reading.error(node.at, what, "write `topics: { include: [\"orders\"] }`");
        return None;
    }
    let mut fields = reading.fields(node, path, "topics")?;
    let include = fields.get(reading, "include");
    match include {
        None => {
            let fix = "add `include: [\"orders\"]`; \".*\" is every topic";
            reading.error(node.at, "`include` is missing: no topic would be copied", fix);
        }
        Some(Node { at, value: Value::List(list) }) if list.is_empty() => {
            let fix = "name at least one; \".*\" is every topic";
            reading.error(*at, "`include` is empty: no topic would be copied", fix);
        }
        Some(_) => {}
    }
    let include = patterns(reading, include, fields.path_of("include"));
    let exclude = fields.get(reading, "exclude");
    let exclude = patterns(reading, exclude, fields.path_of("exclude"));
    fields.not_yet(reading, &["match", "local_only"]);
    fields.finish(reading);
    let literal = include.iter().filter_map(|(_, written)| literal(written)).collect();
    Some(TopicSelection {
        include: include.into_iter().map(|(regex, _)| regex).collect(),
        exclude: exclude.into_iter().map(|(regex, _)| regex).collect(),
        literal,
    })
}

/// Patterns with what was written.
fn patterns(reading: &mut Reading<'_>, node: Option<&Node>, path: String) -> Vec<(Regex, String)> {
    let texts = node.map(|node| reading.texts(node, &path)).unwrap_or_default();
    texts.into_iter().filter_map(|text| Some((pattern(reading, &text)?, text.value))).collect()
}

/// An anchored pattern.
fn pattern(reading: &mut Reading<'_>, text: &Text) -> Option<Regex> {
    let written = &text.value;
    if written.is_empty() {
        reading.error(text.at, "an empty pattern matches no topic", "\".*\" is every topic");
        return None;
    }
    // As written first, so that the position in the message is the operator's.
    match Regex::new(written).and_then(|_| Regex::new(&format!("^(?:{written})$"))) {
        Ok(regex) => Some(regex),
        Err(error) => {
            let (position, reason) = regex_error(&error.to_string());
            let place = position.map_or(String::new(), |n| format!(" at character {n}"));
            let quoted = text.quoted();
            let what = format!("{quoted} is not a regular expression{place}: {reason}");
            let fix = if written.starts_with('*') {
                format!("these are regular expressions: write `.{written}`")
            } else {
                "these are regular expressions; a literal character is written `\\.`".into()
            };
            let fix = if text.referenced { String::new() } else { fix };
            reading.error(text.at, what, fix);
            None
        }
    }
}

/// The position (from 1) and the reason in a message of the regex crate, which draws a caret under the pattern.
fn regex_error(message: &str) -> (Option<usize>, String) {
    let caret = message.lines().find(|line| line.trim_start().starts_with('^'));
    let position = caret.and_then(|line| line.find('^')).map(|column| column.saturating_sub(4) + 1);
    let reason = message.lines().find_map(|line| line.strip_prefix("error: "));
    (position, reason.unwrap_or("too large").to_owned())
}

/// The one topic that a pattern names, when it names one.
fn literal(written: &str) -> Option<String> {
    let name = written.replace("\\.", ".").replace("\\-", "-");
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let bare = written.replace("\\.", "").replace("\\-", "");
    bare.chars().all(plain).then_some(name)
}

fn membership(reading: &mut Reading<'_>, link: &mut Fields<'_>) -> Membership {
    let mut membership = Membership::default();
    let Some(node) = link.get(reading, "membership") else { return membership };
    let path = link.path_of("membership");
    let Some(mut fields) = reading.fields(node, path, "membership") else { return membership };
    let protocols = [
        ("auto", MembershipProtocol::Auto),
        ("classic", MembershipProtocol::Classic),
        ("off", MembershipProtocol::Off),
    ];
    let protocol = fields.choice(reading, "protocol", &protocols, &[]);
    membership.protocol = protocol.unwrap_or_default();
    if let Some(text) = fields.text(reading, "instance_id") {
        // What brokers take (`Topic.validate`, which group.instance.id shares).
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let id = &text.value;
        if id.is_empty() || id.len() > 249 || !id.chars().all(legal) || [".", ".."].contains(&&**id)
        {
            let what = format!("`instance_id` is {}", text.quoted());
            reading.error(text.at, what, "use up to 249 of a-z A-Z 0-9 . _ -");
        } else if membership.protocol == MembershipProtocol::Off {
            let what = "`instance_id` has no meaning with `protocol: off`";
            reading.error(text.at, what, "remove one of the two");
        } else {
            membership.instance_id = Some(text.value);
        }
    }
    fields.finish(reading);
    membership
}

fn naming_of(reading: &mut Reading<'_>, text: &Text) -> Option<Naming> {
    match text.value.as_str() {
        "identity" => return Some(Naming::Identity),
        "prefix" => return Some(Naming::Prefix),
        _ => {}
    }
    let template = &text.value;
    if !template.contains(['{', '}']) {
        let what = format!("`naming` is {}", text.quoted());
        let fix = match nearest(template, &["identity", "prefix"]) {
            Some(word) => format!("did you mean `{word}`?"),
            None => "write identity, prefix, or a template such as \"{source}.{topic}\"".into(),
        };
        reading.error(text.at, what, fix);
        return None;
    }
    let filled = template.replace("{source}", "s").replace("{topic}", "t");
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !template.contains("{topic}") {
        let what = format!("`naming` is {}: all topics would become one", text.quoted());
        reading.error(text.at, what, "a template must have `{topic}`");
        None
    } else if filled.contains(['{', '}']) {
        let what = format!("`naming` is {}", text.quoted());
        reading.error(text.at, what, "a template knows `{source}` and `{topic}`");
        None
    } else if let Some(bad) = filled.chars().find(|c| !legal(*c)) {
        let what = format!("`naming` is {}: a topic's name cannot have {bad:?}", text.quoted());
        reading.error(text.at, what, "use a-z A-Z 0-9 . _ -");
        None
    } else {
        Some(Naming::Template(template.clone()))
    }
}

fn start_of(reading: &mut Reading<'_>, link: &mut Fields<'_>) -> Option<Start> {
    const FORMS: &str = "write earliest, latest, or { timestamp: 2026-01-01T00:00:00Z }";
    let node = link.get(reading, "start")?;
    if let Value::Map(_) = node.value {
        let mut fields = reading.fields(node, link.path_of("start"), "start")?;
        let text = fields.text(reading, "timestamp");
        if !fields.has("timestamp") {
            reading.error(node.at, "`start` has no `timestamp`", FORMS);
        }
        fields.finish(reading);
        let text = text?;
        let time = parse_time(&text.value);
        if time.is_none() {
            let what = format!("`timestamp` is {}", text.quoted());
            reading.error(text.at, what, "write RFC 3339, for instance 2026-01-01T00:00:00Z");
        }
        return time.map(Start::Timestamp);
    }
    let text = reading.text(node, &link.path_of("start"))?;
    match text.value.as_str() {
        "earliest" => Some(Start::Earliest),
        "latest" => Some(Start::Latest),
        _ => {
            reading.error(text.at, format!("`start` is {}", text.quoted()), FORMS);
            None
        }
    }
}
