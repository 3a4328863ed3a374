//! Which source topics a link copies. Owns the order of the rules; never talks to a cluster.
//!
//! An internal topic (the broker says so, or the name begins with `__`, [`BENCH_PREFIX`] or
//! [`CONFORMANCE_PREFIX`]) is copied only when an include
//! pattern is its very name: `.*` must not copy `__consumer_offsets`, whose records mean nothing on another cluster, nor
//! what a measurement writes and takes away again.

use crate::config::resolved::TopicSelection;

/// How the topics of `strait bench link` begin, on both sides.
pub const BENCH_PREFIX: &str = "strait.bench.";
/// How the topics of `strait proto conformance` begin.
pub const CONFORMANCE_PREFIX: &str = "strait.conformance.";

/// What the selection says about one topic, in the order in which the rules are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Copied.
    Selected,
    /// No include pattern matches.
    NotIncluded,
    /// An exclude pattern matches; stronger than any include.
    Excluded,
    /// Internal, and not named literally.
    Internal,
}

/// Judges one topic.
pub fn judge(selection: &TopicSelection, topic: &str, internal: bool) -> Verdict {
    if !selection.include.iter().any(|pattern| pattern.is_match(topic)) {
        Verdict::NotIncluded
    } else if selection.exclude.iter().any(|pattern| pattern.is_match(topic)) {
        Verdict::Excluded
    } else if (internal || is_internal_name(topic)) && !is_literal(selection, topic) {
        Verdict::Internal
    } else {
        Verdict::Selected
    }
}

/// Whether patterns pass over it whatever the broker says.
pub(super) fn is_internal_name(topic: &str) -> bool {
    ["__", BENCH_PREFIX, CONFORMANCE_PREFIX].iter().any(|prefix| topic.starts_with(prefix))
}

/// Whether an include pattern is the topic's very name.
pub fn is_literal(selection: &TopicSelection, topic: &str) -> bool {
    selection.literal.iter().any(|literal| literal == topic)
}

/// The include patterns, as typed, that none of `topics` matches: most often a typing mistake.
pub fn unmatched<'a>(selection: &'a TopicSelection, topics: &[&str]) -> Vec<&'a str> {
    selection
        .include
        .iter()
        .filter(|pattern| !topics.iter().any(|topic| pattern.is_match(topic)))
        .map(|pattern| as_typed(pattern.as_str()))
        .collect()
}

/// The up to `count` topics that look most like what an include pattern asks for, best first. For the message "no
/// topic matches": one wrong character in a pattern is otherwise found by reading it a tenth time.
pub fn nearest<'a>(selection: &TopicSelection, topics: &[&'a str], count: usize) -> Vec<&'a str> {
    let wanted: Vec<String> = selection.include.iter().map(|p| skeleton(p.as_str())).collect();
    let mut scored: Vec<(f64, &str)> = topics
        .iter()
        .filter(|topic| !is_internal_name(topic))
        .filter(|topic| judge(selection, topic, false) == Verdict::NotIncluded)
        .map(|topic| {
            let score = wanted.iter().map(|w| strsim::jaro_winkler(w, topic)).fold(0.0, f64::max);
            (score, *topic)
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.truncate(count);
    scored.into_iter().map(|(_, topic)| topic).collect()
}

/// A pattern without the anchors that the configuration puts around it.
fn as_typed(pattern: &str) -> &str {
    pattern.strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$")).unwrap_or(pattern)
}

/// A pattern without its metacharacters: near enough to a topic name to be compared with one.
fn skeleton(pattern: &str) -> String {
    as_typed(pattern).chars().filter(|c| !r"\.*+?^$()[]{}|".contains(*c)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use regex::Regex;

    /// A selection as the configuration would make it.
    pub(in crate::link) fn selection(include: &[&str], exclude: &[&str]) -> TopicSelection {
        let anchored = |p: &&str| Regex::new(&format!("^(?:{p})$")).unwrap();
        TopicSelection {
            include: include.iter().map(anchored).collect(),
            exclude: exclude.iter().map(anchored).collect(),
            literal: include
                .iter()
                .filter(|p| p.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-'))
                .map(|p| (*p).to_owned())
                .collect(),
        }
    }

    #[test]
    fn every_rule_in_its_order() {
        let some = selection(&["orders", "payments\\..*", "__named"], &[".*-tmp"]);
        let all = selection(&[".*"], &["secret.*"]);
        for (selection, topic, internal, wanted) in [
            (&some, "orders", false, Verdict::Selected),
            (&some, "orders-eu", false, Verdict::NotIncluded),
            (&some, "my-orders", false, Verdict::NotIncluded),
            (&some, "payments.eu", false, Verdict::Selected),
            (&some, "paymentsXeu", false, Verdict::NotIncluded),
            (&some, "payments.eu-tmp", false, Verdict::Excluded),
            (&some, "__named", true, Verdict::Selected),
            (&some, "__named", false, Verdict::Selected),
            (&some, "__other", true, Verdict::NotIncluded),
            (&all, "__consumer_offsets", true, Verdict::Internal),
            (&all, "__by_name_only", false, Verdict::Internal),
            (&all, "flagged", true, Verdict::Internal),
            (&all, "_one_underscore", false, Verdict::Selected),
            (&all, "strait.bench.00c0ffee", false, Verdict::Internal),
            (&all, "strait.benchmarks", false, Verdict::Selected),
            (&all, "strait.conformance.00c0ffee-grown", false, Verdict::Internal),
            (&all, "secret-orders", false, Verdict::Excluded),
        ] {
            assert_eq!(judge(selection, topic, internal), wanted, "{topic}");
        }
    }

    #[test]
    fn exclude_wins_over_a_literal_include() {
        let both = selection(&["orders"], &["ord.*"]);
        assert_eq!(judge(&both, "orders", false), Verdict::Excluded);
    }

    #[test]
    fn nothing_included_selects_nothing() {
        assert_eq!(judge(&selection(&[], &[]), "orders", false), Verdict::NotIncluded);
    }

    #[test]
    fn a_mistyped_name_finds_the_right_one_first() {
        let typo = selection(&["paymnets\\..*"], &[]);
        let topics = ["orders", "payments.eu", "audit", "payments.us", "__consumer_offsets"];
        assert_eq!(nearest(&typo, &topics, 2), ["payments.eu", "payments.us"]);
        assert_eq!(unmatched(&typo, &topics), ["paymnets\\..*"]);
        assert!(!nearest(&typo, &topics, 9).contains(&"__consumer_offsets"));
    }

    #[test]
    fn nearest_does_not_offer_what_is_selected_or_excluded() {
        let some = selection(&["orders.*"], &["orders-tmp"]);
        assert_eq!(nearest(&some, &["orders-1", "orders-tmp", "order"], 5), ["order"]);
        assert!(unmatched(&some, &["orders-1"]).is_empty());
    }
}
