//! What the links of a configuration do to each other: each may be right alone, and together they mix two topics, or bring a
//! record to one place twice. Pure; judges what can be told without asking a cluster.
//!
//! A record is followed from the cluster where it was first written: over the links that pass on what is local there, then
//! over those that name its origin in `forward`. It must reach each topic of each cluster at most once: per origin, the links
//! form a tree. So two clusters, a ring or a mesh may write topics of one name both ways.
//!
//! What comes by a transactional link cannot tell its origin: a coordinator gives the producer id. It counts as first written
//! where that link brought it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::naming;
use super::selection::{self, Verdict};
use crate::config::resolved::{Cluster, Link};

/// Why the links of a configuration cannot all run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The link to change.
    pub link: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: &'static str,
}

/// Copies of copies that a record may be: the hops in a producer id are four bits.
const HOPS_MAX: usize = 16;

/// Everything that is known against these links.
///
/// Patterns that overlap only in names that no link spells out are not seen here.
pub fn conflicts(links: &[Arc<Link>]) -> Vec<Conflict> {
    let mut found: Vec<Conflict> = Vec::new();
    let literal = links.iter().flat_map(|link| &link.topics.literal).map(String::as_str);
    let mut topics: Vec<&str> = literal.chain(["any-other-topic"]).collect();
    topics.sort_unstable();
    topics.dedup();
    let mut add = |conflict: Conflict| {
        if !found.iter().any(|known| known.link == conflict.link) {
            found.push(conflict);
        }
    };
    for (at, link) in links.iter().enumerate() {
        let seen_before = links[..at].iter().any(|before| same_cluster(&before.from, &link.from));
        if !seen_before {
            topics.iter().filter_map(|topic| follow(links, &link.from, topic)).for_each(&mut add);
        }
    }
    let written =
        |link: &Arc<Link>| topics.iter().filter_map(|topic| writes(link, topic)).collect();
    let written: Vec<BTreeSet<String>> = links.iter().map(written).collect();
    for (at, link) in links.iter().enumerate() {
        for (other, of_other) in links[..at].iter().zip(&written) {
            let both = written[at].intersection(of_other);
            both.filter_map(|topic| mixed(links, other, link, topic)).for_each(&mut add);
        }
    }
    found
}

/// A topic of a cluster that a record reached, and over which link.
struct Reached<'a> {
    cluster: &'a Cluster,
    topic: String,
    over: Option<&'a Link>,
    /// What the records there say.
    origin: &'a Cluster,
    /// Nothing there says that a Strait wrote them.
    local: bool,
    hops: usize,
}

/// Follows the records that are first written to a topic of `origin`.
fn follow(links: &[Arc<Link>], origin: &Cluster, topic: &str) -> Option<Conflict> {
    let topic = topic.to_owned();
    let start = Reached { cluster: origin, topic, over: None, origin, local: true, hops: 0 };
    let mut reached = vec![start];
    let mut at = 0;
    while at < reached.len() {
        let here = at;
        at += 1;
        for link in links {
            let from = &reached[here];
            if !same_cluster(&link.from, from.cluster)
                || !passes(link, from.origin, from.local)
                || !takes(link, &from.topic)
            {
                continue;
            }
            let Ok(name) = naming::target_name(link, &from.topic) else { continue };
            let hops = from.hops + 1;
            let local = link.delivery.transactions().is_some();
            let told = if local { &*link.to } else { from.origin };
            let there = |r: &&Reached<'_>| same_cluster(r.cluster, &link.to) && r.topic == name;
            match reached.iter().find(there) {
                None if hops < HOPS_MAX => {
                    reached.push(Reached {
                        cluster: &link.to,
                        topic: name,
                        over: Some(link),
                        origin: told,
                        local,
                        hops,
                    });
                }
                before => {
                    let (before, origin) = (before.and_then(|r| r.over), &origin.name);
                    let mut conflict = twice(link, before, origin, &name);
                    if reached.iter().any(|r| r.over.is_some() && r.local) || local {
                        conflict.fix = "what comes by `delivery: transactional` does not tell where it was first written: \
                                        use `delivery: exactly-once`, or `naming: prefix`";
                    }
                    return Some(conflict);
                }
            }
        }
    }
    None
}

fn twice(link: &Link, before: Option<&Link>, origin: &str, topic: &str) -> Conflict {
    let (name, to) = (&link.name, &link.to.name);
    let what = match before {
        Some(before) if before.name != *name => format!(
            "what is first written in `{origin}` would reach topic `{topic}` of cluster `{to}` twice: over \
             link `{}` and over link `{name}`",
            before.name
        ),
        _ => format!(
            "records would circle: link `{name}` brings topic `{topic}` of cluster `{to}` what was first \
             written in `{origin}` and was there before"
        ),
    };
    let fix = "let one way alone carry it: leave the origin out of one link's `forward`, or exclude the topic";
    Conflict { link: name.clone(), what, fix }
}

/// Two links from different clusters into one topic are meant where the topic also goes out from there: a ring, a mesh. Where
/// it does not, two topics that only have a name in common would be mixed.
fn mixed(links: &[Arc<Link>], a: &Link, b: &Link, topic: &str) -> Option<Conflict> {
    if !same_cluster(&a.to, &b.to) {
        return None;
    }
    let shared = links.iter().any(|link| same_cluster(&link.from, &a.to) && takes(link, topic));
    if shared && !same_cluster(&a.from, &b.from) {
        return None;
    }
    let (a, to, link) = (&a.name, &a.to.name, b.name.clone());
    let what = format!("links `{a}` and `{link}` both write topic `{topic}` of cluster `{to}`");
    Some(Conflict { link, what, fix: "give one of them `naming: prefix`, or exclude the topic" })
}

/// Whether a link passes on records of an origin; `first`: from the cluster where they were first written.
fn passes(link: &Link, origin: &Cluster, first: bool) -> bool {
    if first {
        link.forward.local
    } else {
        link.forward.origins.iter().any(|named| same_cluster(named, origin))
    }
}

/// Whether a link would copy a topic.
fn takes(link: &Link, topic: &str) -> bool {
    let named = selection::is_literal(&link.topics, topic);
    selection::judge(&link.topics, topic, false) == Verdict::Selected
        && (named || !naming::is_echo(link, topic))
}

/// The name that a link would write a topic to.
fn writes(link: &Link, topic: &str) -> Option<String> {
    takes(link, topic).then(|| naming::target_name(link, topic).ok()).flatten()
}

fn same_cluster(a: &Cluster, b: &Cluster) -> bool {
    a.name == b.name || a.bootstrap.iter().any(|address| b.bootstrap.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Surroundings, parse};

    /// The conflicts of links that are given as `from to rest`.
    fn of(links: &[&str]) -> Vec<String> {
        let mut text = "version: 1\nclusters:\n".to_owned();
        for name in ["east", "west", "north", "south"] {
            text.push_str(&format!("  {name}: {{ bootstrap: [\"{name}:1\"] }}\n"));
        }
        text.push_str("links:\n");
        for (n, link) in links.iter().enumerate() {
            let link = link.replacen(',', " ,", 1);
            let mut words = link.splitn(3, ' ');
            let mut word = || words.next().unwrap_or_default();
            let (from, to, rest) = (word(), word(), word());
            let rest = if rest.contains("topics:") {
                rest.to_owned()
            } else {
                format!("topics: {{ include: [orders] }}{rest}")
            };
            text.push_str(&format!("  l{n}: {{ from: {from}, to: {to}, {rest} }}\n"));
        }
        let around = Surroundings { directory: std::path::Path::new("."), variable: &|_| None };
        let config = parse(&text, "test", &around).unwrap_or_else(|e| panic!("{e}")).config;
        conflicts(&config.links).into_iter().map(|conflict| conflict.what).collect()
    }

    const ANY: &str = "topics: { include: [\".*\"] }";

    #[test]
    fn two_topics_that_only_share_a_name_are_not_mixed() {
        let north = format!("north west {ANY}");
        let n_orders = "north west topics: { include: [n-orders] }";
        for (links, words) in [
            (["east west", &*north], "both write topic `orders`"),
            ([&format!("east west {ANY}"), &north], "both write topic `any-other-topic`"),
            (["east west, naming: \"n-{topic}\"", n_orders], "both write topic `n-orders`"),
            (["east west", "east west"], "reach topic `orders` of cluster `west` twice"),
        ] {
            let found = of(&links);
            assert!(found.iter().any(|what| what.contains(words)), "{links:?}: {found:?}");
        }
        let prefix = ", naming: prefix";
        let named = "north west topics: { include: [\".*\"] }, naming: \"n-{topic}\"";
        for links in [
            vec!["east west", "west east topics: { include: [users] }"],
            vec!["east west", named],
            vec![&*format!("east west{prefix}"), &format!("north west{prefix}")],
        ] {
            assert_eq!(of(&links), [""; 0], "{links:?}");
        }
    }

    #[test]
    fn two_clusters_a_ring_and_a_mesh_may_write_one_topic() {
        let ring = |forward: [&str; 3]| {
            let [a, b, c] = forward.map(|names| format!(", forward: {names}"));
            [format!("east west{a}"), format!("west north{b}"), format!("north east{c}")]
        };
        let good = ring(["[local, north]", "[local, east]", "[local, west]"]);
        let good: Vec<&str> = good.iter().map(String::as_str).collect();
        let both = [&*format!("east west {ANY}"), &format!("west east {ANY}")];
        let mesh =
            ["east west", "east north", "west east", "west north", "north east", "north west"];
        let replica = ", naming: \"{topic}_REPLICA\"";
        let two = [format!("east west{replica}"), format!("west east{replica}")];
        let chain = ["east west", "west north, forward: [local, east]"];
        let prefixes = [
            "east west topics: { include: [\".*\"] }, naming: prefix",
            "west east topics: { include: [\".*\", \"east\\\\.orders\"] }, naming: prefix",
        ];
        let two = [&*two[0], &*two[1]];
        let by_transactions = [
            "east west, delivery: transactional, naming: prefix",
            "west east, delivery: transactional, naming: prefix",
            "west north",
        ];
        for links in [
            &good[..],
            &both,
            &["east west", "west east"],
            &mesh,
            &two,
            &chain,
            &prefixes,
            &by_transactions,
        ] {
            assert_eq!(of(links), [""; 0], "{links:?}");
        }
    }

    #[test]
    fn a_record_that_would_arrive_twice_or_circle_is_refused() {
        let mesh_with_a_list =
            ["east west", "east north", "west north, forward: [local, east]", "north east"];
        let ring_from_outside = [
            "south east",
            "east west, forward: [local, south]",
            "west north, forward: [local, south]",
            "north east, forward: [local, south]",
        ];
        let growing = [
            "south east, naming: prefix",
            "east west topics: { include: [\".*\"] }, naming: prefix, forward: [south]",
            "west north topics: { include: [\".*\"] }, naming: prefix, forward: [south]",
            "north east topics: { include: [\".*\"] }, naming: prefix, forward: [south]",
        ];
        for (links, words) in [
            (
                &mesh_with_a_list[..],
                "first written in `east` would reach topic `orders` of cluster `north`",
            ),
            (
                &ring_from_outside,
                "first written in `south` would reach topic `orders` of cluster `east`",
            ),
            (&growing, "records would circle"),
            (
                &["east west, delivery: transactional", "west east"],
                "link `l1` brings topic `orders` of cluster `east` what was first written in `east`",
            ),
            (
                &["east west, delivery: transactional", "west north", "east north"],
                "first written in `east` would reach topic `orders` of cluster `north` twice",
            ),
        ] {
            let found = of(links);
            assert!(found.iter().any(|what| what.contains(words)), "{links:?}: {found:?}");
        }
    }
}
