//! Target topics: with which settings they are made, and what a refusal means. Pure; the calls are in `task.rs`.

use crate::config::resolved::Link;
use crate::engine::spec::TargetFacts;
use crate::error::{Action, Code, Error, Side};
use crate::wire::error_code::ErrorCode;

use super::codes;
use crate::cluster::rights::Need;

/// One setting of a topic as DescribeConfigs tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Kafka's name.
    pub name: String,
    /// None if it is sensitive, or null.
    pub value: Option<String>,
    /// Set on the topic itself (`ConfigSource` DYNAMIC_TOPIC_CONFIG), not a broker's default.
    pub on_topic: bool,
}

/// Settings that stay behind, each with the reason. The first eight are MirrorMaker 2's `config.properties.exclude`; its
/// two `log.message.timestamp...` are brokers' names that no topic has, so the topics' names stand here.
const NOT_COPIED: &[(&str, &str)] = &[
    ("follower.replication.throttled.replicas", "names brokers of the source"),
    ("leader.replication.throttled.replicas", "names brokers of the source"),
    // Kafka 4.0 knows this one no longer; 3.9 has it beside the two that replaced it.
    ("message.timestamp.difference.max.ms", JUDGES_PRODUCERS),
    ("message.timestamp.before.max.ms", JUDGES_PRODUCERS),
    ("message.timestamp.after.max.ms", JUDGES_PRODUCERS),
    ("message.timestamp.type", "the target must keep the records' own times"),
    ("unclean.leader.election.enable", "how much loss the target risks is the target's to decide"),
    ("min.insync.replicas", "goes with the replication factor, which is the target's"),
    ("message.format.version", REMOVED_IN_4),
    ("message.downconversion.enable", REMOVED_IN_4),
    ("remote.storage.enable", TIERED),
    ("remote.log.copy.disable", TIERED),
    ("remote.log.delete.on.disable", TIERED),
    ("local.retention.bytes", TIERED),
    ("local.retention.ms", TIERED),
];
const JUDGES_PRODUCERS: &str =
    "compares a record's time with the clock at its writing, and the target writes it later";
const REMOVED_IN_4: &str = "Kafka 4.0 refuses a topic that names it";
const TIERED: &str = "tiered storage is a property of the target cluster";

/// Why a setting is not copied; none if it is.
pub fn stays_behind(name: &str) -> Option<&'static str> {
    NOT_COPIED.iter().find(|(not_copied, _)| *not_copied == name).map(|(_, why)| *why)
}

/// The settings to make a target topic with: what was set on the source topic, less what [`stays_behind`], and the
/// records' own times whatever the target's default, or their copies would not be equal (I3).
pub fn settings_for_target(source: &[Setting]) -> Vec<(String, String)> {
    let copied = source
        .iter()
        .filter(|setting| setting.on_topic && stays_behind(&setting.name).is_none())
        .filter_map(|setting| Some((setting.name.clone(), setting.value.clone()?)));
    let own_times = ("message.timestamp.type".to_owned(), "CreateTime".to_owned());
    copied.chain([own_times]).collect()
}

/// The value of a setting, if it is among these and has one.
pub fn value<'a>(settings: &'a [Setting], name: &str) -> Option<&'a str> {
    settings.iter().find(|setting| setting.name == name)?.value.as_deref()
}

/// Whether a topic with these settings is compacted, alone or together with deletion.
pub fn is_compacted(settings: &[Setting]) -> bool {
    let policies = value(settings, "cleanup.policy").unwrap_or_default();
    policies.split(',').any(|policy| policy.trim() == "compact")
}

/// Takes over what a target topic's settings say; what they leave out stays as it was.
pub fn note_facts(facts: &TargetFacts, settings: &[Setting]) {
    let max_message_bytes =
        value(settings, "max.message.bytes").and_then(|bytes| bytes.parse().ok());
    let log_append_time =
        value(settings, "message.timestamp.type").map(|kind| kind == "LogAppendTime");
    let compacted = value(settings, "cleanup.policy").map(|_| is_compacted(settings));
    facts.set_topic(
        max_message_bytes.unwrap_or_else(|| facts.max_message_bytes()),
        log_append_time.unwrap_or_else(|| facts.log_append_time()),
        compacted.unwrap_or_else(|| facts.compacted()),
    );
}

/// What was asked of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A new topic.
    Create,
    /// More partitions.
    Grow,
}

/// What an error answer to it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody was faster: look at the metadata again.
    LookAgain,
    /// Ask again soon.
    Soon(Error),
    /// Ask again at once, without this setting: the target's Kafka does not know it.
    Without(String),
    /// Only the operator can help; asked again every now and then all the same, so that his cure needs no restart.
    Blocked(Error),
}

/// Judges an error answer to CreateTopics or CreatePartitions about `target`, a topic of `partitions` partitions on a
/// cluster of `brokers` brokers. `detail` is the broker's own text.
pub fn refusal(
    link: &Link,
    asked: Asked,
    target: &str,
    partitions: i32,
    brokers: usize,
    code: ErrorCode,
    detail: &str,
) -> Refusal {
    if code == ErrorCode::INVALID_CONFIG
        && let Some(name) = unknown_setting(detail)
    {
        return Refusal::Without(name.to_owned());
    }
    let verb = match asked {
        Asked::Create => format!("create topic {target} with {partitions} partitions"),
        Asked::Grow => format!("grow topic {target} to {partitions} partitions"),
    };
    let colon = if detail.is_empty() { "" } else { ": " };
    let error = |st: Code, action: Action, fix: String| {
        let message = format!("the target did not {verb}: {}{colon}{detail}", code.name());
        Error::new(st, Side::Target, action, message).cluster(link.to.name.clone()).fix(fix)
    };
    let blocked = |st: Code, fix: String| Refusal::Blocked(error(st, Action::Park, fix));
    let by_hand = format!("create topic {target} by hand");
    match code {
        ErrorCode::TOPIC_ALREADY_EXISTS => Refusal::LookAgain,
        // CreatePartitions answers so when the topic has that many already.
        ErrorCode::INVALID_PARTITIONS if asked == Asked::Grow => Refusal::LookAgain,
        ErrorCode::TOPIC_AUTHORIZATION_FAILED | ErrorCode::CLUSTER_AUTHORIZATION_FAILED => {
            let need = match asked {
                Asked::Create => Need::CreateTarget,
                Asked::Grow => Need::GrowTarget,
            };
            blocked(codes::NOT_ALLOWED, need.grant(link, target))
        }
        ErrorCode::POLICY_VIOLATION => {
            blocked(codes::POLICY, format!("satisfy the target's policy, or {by_hand}"))
        }
        ErrorCode::INVALID_REPLICATION_FACTOR => {
            let asked_for = link
                .replication_factor
                .map_or("the target's default".to_owned(), |factor| factor.to_string());
            let fix = format!(
                "the target has {brokers} broker(s) and {asked_for} was asked for: set \
                 `replication_factor` of link {} to {brokers} or less",
                link.name
            );
            blocked(codes::REPLICATION_FACTOR, fix)
        }
        ErrorCode::INVALID_PARTITIONS => blocked(codes::PARTITIONS, by_hand),
        ErrorCode::INVALID_CONFIG => {
            blocked(codes::TOPIC_CONFIG, format!("{by_hand}, without that setting"))
        }
        ErrorCode::INVALID_TOPIC_EXCEPTION => {
            blocked(codes::TOPIC_REFUSED, "exclude the topic, or change the link's naming".into())
        }
        code if code.is_retriable() || code == ErrorCode::REASSIGNMENT_IN_PROGRESS => {
            Refusal::Soon(error(codes::TOPIC_RETRY, Action::Retry, String::new()))
        }
        _ => blocked(codes::TOPIC_REFUSED, by_hand),
    }
}

/// The name in `LogConfig.validateNames`' complaint. Vendors add settings of their own, and Kafka drops old ones.
fn unknown_setting(detail: &str) -> Option<&str> {
    detail.strip_prefix("Unknown topic config name: ").filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::fixture;

    fn setting(name: &str, value: &str, on_topic: bool) -> Setting {
        Setting { name: name.to_owned(), value: Some(value.to_owned()), on_topic }
    }

    #[test]
    fn what_was_set_on_the_topic_is_copied_and_nothing_else() {
        let source = [
            setting("cleanup.policy", "compact", true),
            setting("max.message.bytes", "2097152", true),
            setting("compression.type", "zstd", true),
            setting("retention.ms", "604800000", false),
            setting("segment.bytes", "1073741824", false),
            Setting { value: None, ..setting("some.secret", "", true) },
        ];
        let wanted = [
            ("cleanup.policy", "compact"),
            ("max.message.bytes", "2097152"),
            ("compression.type", "zstd"),
            ("message.timestamp.type", "CreateTime"),
        ];
        let wanted: Vec<_> = wanted.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(settings_for_target(&source), wanted);
    }

    #[test]
    fn everything_on_the_list_stays_behind() {
        let source: Vec<_> = NOT_COPIED.iter().map(|(name, _)| setting(name, "1", true)).collect();
        let wanted = [("message.timestamp.type".to_owned(), "CreateTime".to_owned())];
        assert_eq!(settings_for_target(&source), wanted);
        // MirrorMaker 2's default list is a part of ours.
        for name in [
            "follower.replication.throttled.replicas",
            "leader.replication.throttled.replicas",
            "message.timestamp.difference.max.ms",
            "message.timestamp.type",
            "unclean.leader.election.enable",
            "min.insync.replicas",
        ] {
            assert!(stays_behind(name).is_some(), "{name}");
        }
    }

    #[test]
    fn the_append_time_of_the_source_does_not_become_the_targets() {
        let source = [setting("message.timestamp.type", "LogAppendTime", true)];
        let types: Vec<_> = settings_for_target(&source);
        assert_eq!(types, [("message.timestamp.type".to_owned(), "CreateTime".to_owned())]);
    }

    #[test]
    fn facts_come_from_the_settings_and_stay_where_they_are_silent() {
        let facts = TargetFacts::default();
        let told = [
            setting("max.message.bytes", "2097152", true),
            setting("message.timestamp.type", "LogAppendTime", false),
            setting("cleanup.policy", "delete, compact", true),
        ];
        note_facts(&facts, &told);
        let read = || (facts.max_message_bytes(), facts.log_append_time(), facts.compacted());
        assert_eq!(read(), (2_097_152, true, true));
        note_facts(&facts, &[setting("max.message.bytes", "not a number", true)]);
        assert_eq!(read(), (2_097_152, true, true));
        let told = [
            setting("cleanup.policy", "delete", true),
            setting("message.timestamp.type", "CreateTime", false),
        ];
        note_facts(&facts, &told);
        assert_eq!(read(), (2_097_152, false, false));
    }

    fn judged(asked: Asked, code: ErrorCode) -> Refusal {
        refusal(&fixture::link(&[".*"], &[]), asked, "orders", 6, 1, code, "the broker's words")
    }

    #[test]
    fn every_refusal_has_its_name() {
        use Asked::{Create, Grow};
        for (asked, code, wanted, fix) in [
            (
                Create,
                ErrorCode::TOPIC_AUTHORIZATION_FAILED,
                codes::NOT_ALLOWED,
                "Create --topic orders",
            ),
            (
                Create,
                ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
                codes::NOT_ALLOWED,
                "--operation Create",
            ),
            (
                Grow,
                ErrorCode::TOPIC_AUTHORIZATION_FAILED,
                codes::NOT_ALLOWED,
                "Alter --topic orders",
            ),
            (Create, ErrorCode::POLICY_VIOLATION, codes::POLICY, "policy"),
            (Grow, ErrorCode::POLICY_VIOLATION, codes::POLICY, "policy"),
            (
                Create,
                ErrorCode::INVALID_REPLICATION_FACTOR,
                codes::REPLICATION_FACTOR,
                "1 broker(s)",
            ),
            (Create, ErrorCode::INVALID_PARTITIONS, codes::PARTITIONS, "by hand"),
            (Create, ErrorCode::INVALID_TOPIC_EXCEPTION, codes::TOPIC_REFUSED, "naming"),
            (Create, ErrorCode::INVALID_CONFIG, codes::TOPIC_CONFIG, "setting"),
            (Create, ErrorCode::UNKNOWN_SERVER_ERROR, codes::TOPIC_REFUSED, "by hand"),
        ] {
            let Refusal::Blocked(error) = judged(asked, code) else { panic!("{code:?}") };
            assert_eq!(error.code, wanted, "{code:?}");
            assert!(error.fix.contains(fix), "{code:?}: {}", error.fix);
            assert!(error.message.contains(code.name()), "Kafka's own name: {}", error.message);
            assert!(error.message.contains("the broker's words"), "{}", error.message);
        }
    }

    #[test]
    fn a_setting_that_the_target_does_not_know_is_left_out() {
        let judged = |detail| {
            let link = fixture::link(&[".*"], &[]);
            refusal(&link, Asked::Create, "orders", 6, 1, ErrorCode::INVALID_CONFIG, detail)
        };
        let without = Refusal::Without("vendor.placement".to_owned());
        assert_eq!(judged("Unknown topic config name: vendor.placement"), without);
        assert!(matches!(judged("Unknown topic config name: "), Refusal::Blocked(_)));
        assert!(matches!(
            judged("Invalid value -7 for configuration retention.ms"),
            Refusal::Blocked(_)
        ));
    }

    #[test]
    fn a_race_that_was_lost_is_no_error() {
        assert_eq!(judged(Asked::Create, ErrorCode::TOPIC_ALREADY_EXISTS), Refusal::LookAgain);
        assert_eq!(judged(Asked::Grow, ErrorCode::INVALID_PARTITIONS), Refusal::LookAgain);
    }

    #[test]
    fn what_passes_is_asked_again_soon() {
        for code in [
            ErrorCode::NOT_CONTROLLER,
            ErrorCode::REQUEST_TIMED_OUT,
            ErrorCode::THROTTLING_QUOTA_EXCEEDED,
            ErrorCode::REASSIGNMENT_IN_PROGRESS,
        ] {
            assert!(matches!(judged(Asked::Grow, code), Refusal::Soon(_)), "{code:?}");
        }
    }
}
