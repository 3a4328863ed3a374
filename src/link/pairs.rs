//! What two links do to each other: each may be right alone, and together they write one topic or send records round in
//! a circle. Pure; judges what can be told without asking a cluster.

use super::naming;
use super::selection::{self, Verdict};
use crate::config::resolved::{Cluster, Link};

/// Why two links cannot both run, and what to do; none if nothing is known against it.
///
/// Patterns that overlap only in names that neither link spells out are not seen here.
pub fn conflict(a: &Link, b: &Link) -> Option<(String, &'static str)> {
    let (of_a, of_b) = (writes(a, b), writes(b, a));
    let both = of_a.iter().find(|topic| of_b.contains(topic));
    if same_cluster(&a.to, &b.to)
        && let Some(topic) = both
    {
        let (a, b, to) = (&a.name, &b.name, &a.to.name);
        let what = format!("links `{a}` and `{b}` both write topic `{topic}` of cluster `{to}`");
        return Some((what, "give one of them `naming: prefix`, or exclude the topic"));
    }
    if same_cluster(&a.from, &b.to) && same_cluster(&a.to, &b.from) {
        for (topics, there, back) in [(&of_a, a, b), (&of_b, b, a)] {
            if let Some(topic) = topics.iter().find(|topic| takes(back, topic)) {
                let (there, back) = (&there.name, &back.name);
                let what = format!(
                    "records would circle: link `{back}` carries back topic `{topic}`, which link \
                     `{there}` writes"
                );
                return Some((what, "give both links `naming: prefix`, or exclude the topic"));
            }
        }
    }
    None
}

/// Whether a link would copy a topic.
fn takes(link: &Link, topic: &str) -> bool {
    let named = selection::is_literal(&link.topics, topic);
    selection::judge(&link.topics, topic, false) == Verdict::Selected
        && (named || !naming::is_echo(link, topic))
}

/// Names that a link would write and that can be told without asking a cluster: those of the topics that either link
/// spells out, and of one that stands for all the others.
fn writes(link: &Link, other: &Link) -> Vec<String> {
    let topics = link.topics.literal.iter().chain(&other.topics.literal).map(String::as_str);
    let topics = topics.chain(["any-other-topic"]).filter(|topic| takes(link, topic));
    topics.filter_map(|topic| naming::target_name(link, topic).ok()).collect()
}

fn same_cluster(a: &Cluster, b: &Cluster) -> bool {
    a.name == b.name || a.bootstrap.iter().any(|address| b.bootstrap.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Surroundings, parse};

    fn of(a: &str, b: &str) -> Option<(String, &'static str)> {
        let text = format!(
            "version: 1
clusters:
  east: {{ bootstrap: [\"e:1\"] }}
  west: {{ bootstrap: [\"w:1\"] }}
  north: {{ bootstrap: [\"n:1\"] }}
links:
  a: {{ {a} }}
  b: {{ {b} }}
"
        );
        let around = Surroundings { directory: std::path::Path::new("."), variable: &|_| None };
        let config = parse(&text, "test", &around).unwrap_or_else(|e| panic!("{e}")).config;
        conflict(&config.links[0], &config.links[1])
    }

    #[test]
    fn links_that_hurt_each_other_are_found_and_others_are_not() {
        let orders = "topics: { include: [orders] }";
        let any = "topics: { include: [\".*\"] }";
        let one_prefix = "topics: { include: [\".*\", \"east\\\\.orders\"] }, naming: prefix";
        let there = |rest: &str| format!("from: east, to: west, {rest}");
        let back = |rest: &str| format!("from: west, to: east, {rest}");
        let north = |rest: &str| format!("from: north, to: west, {rest}");
        let prefix = |rest: &str| format!("{rest}, naming: prefix");
        for (a, b, words) in [
            (there(orders), north(any), "both write topic `orders`"),
            (there(any), north(any), "both write topic `any-other-topic`"),
            (there(orders), back(orders), "carries back topic `orders`"),
            (there(any), back(&prefix(any)), "records would circle"),
            (there(&prefix(orders)), back(one_prefix), "carries back topic `east.orders`"),
        ] {
            let what = of(&a, &b).unwrap_or_else(|| panic!("{a} {b}")).0;
            assert!(what.contains(words), "{what}");
        }
        for (a, b) in [
            (there(orders), back("topics: { include: [users] }")),
            (there(any), north("topics: { include: [\".*\"] }, naming: \"n-{topic}\"")),
            (there(&prefix(orders)), north(&prefix(orders))),
            (there(&prefix(any)), back(&prefix(any))),
        ] {
            assert_eq!(of(&a, &b), None);
        }
    }
}
