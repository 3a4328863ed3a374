//! Why a topic is not copied, or what an operator should know of it, in words: one function for each rule of `plan.rs`.

use std::fmt;

use uuid::Uuid;

use super::codes;
use crate::cluster::rights::{self, Need};
use crate::config::resolved::Link;
use crate::error::{Action, Code, Error, Side};
use crate::wire::ErrorCode;

fn error(link: &Link, code: Code, side: Side, message: String) -> Error {
    let cluster = if side == Side::Source { &link.from } else { &link.to };
    Error::new(code, side, Action::Park, message).cluster(cluster.name.clone())
}

/// The link's two clusters are one.
pub(crate) fn same_cluster(link: &Link, cluster_id: &str) -> Error {
    let why = format!(
        "{} and {} are one cluster (id {cluster_id}): link {} would copy its own copies for ever",
        link.from.name, link.to.name, link.name
    );
    let mut error = error(link, codes::SAME_CLUSTER, Side::Local, why);
    error.action = Action::Stop;
    error.fix("correct `bootstrap` of one of the two")
}

/// Two clusters whose records cannot be told apart.
pub(crate) fn origin_clash(link: &Link, a: &str, b: &str) -> Error {
    let why =
        format!("the ids of {a} and {b} give the same origin: their records cannot be told apart");
    let mut error = error(link, codes::ORIGIN, Side::Local, why);
    error.action = Action::Stop;
    error.fix("keep the two clusters in configurations that no records pass between")
}

/// `forward` names the cluster that is written to, under another name.
pub(crate) fn back_to_origin(link: &Link, name: &str, cluster_id: &str) -> Error {
    let why = format!(
        "`forward` names {name}, which is {} (id {cluster_id}): its records would come back to it",
        link.to.name
    );
    let mut error = error(link, codes::ORIGIN, Side::Local, why);
    error.action = Action::Stop;
    error.fix("leave the cluster that is written to out of `forward`")
}

/// The name on the target cannot be; `why` follows on the topic's name.
pub(super) fn target_name(link: &Link, topic: &str, why: &str) -> Error {
    error(link, codes::TARGET_NAME, Side::Local, format!("topic {topic} {why}"))
        .fix("exclude the topic, or change the link's naming")
}

/// Several source topics would have one name on the target.
pub(super) fn shared_name(link: &Link, topics: &str, target: &str) -> Error {
    let why = format!("{topics} would all be called {target} on the target");
    error(link, codes::SHARED_NAME, Side::Local, why)
        .fix("let the naming template hold {topic}, or exclude all but one")
}

/// Left out: the reverse link's work.
pub(super) fn echo(link: &Link, topic: &str) -> Error {
    let why = format!(
        "topic {topic} is left out: its name is what the way back from {} makes",
        link.to.name
    );
    error(link, codes::ECHO, Side::Source, why)
        .fix("include it by its very name if it is a topic of its own")
}

/// Include patterns that match nothing.
pub(super) fn no_match(link: &Link, patterns: &[&str], near: &[&str], any_topic: bool) -> Error {
    let from = &link.from;
    let shown = match near {
        [] if any_topic => String::new(),
        [] => format!("; {} sees no topic there at all", rights::principal(from)),
        near => format!("; nearest: {}", near.join(", ")),
    };
    let why = format!("no topic of {} matches {}{shown}", from.name, patterns.join(", "));
    let fix = format!(
        "correct the pattern; if the topic is there, it is hidden for want of Describe: {}",
        Need::ReadSource.grant(link, patterns.first().unwrap_or(&"*"))
    );
    error(link, codes::NO_MATCH, Side::Source, why).fix(fix)
}

/// Names that Kafka's metrics cannot tell apart.
pub(super) fn shared_metrics(link: &Link, names: &str) -> Error {
    let why = format!(
        "topics {names} share their metrics on the target, and a KRaft controller refuses to create the second"
    );
    error(link, codes::SHARED_METRICS, Side::Target, why)
}

/// A smaller topic on the target that the link has never copied to.
pub(super) fn in_the_way(
    link: &Link,
    (topic, wanted): (&str, i32),
    (target, partitions): (&str, i32),
) -> Error {
    let why = format!(
        "topic {target} on the target has {partitions} partitions, {topic} on the source has {wanted}, and link {} \
         has never copied to it",
        link.name
    );
    let fix = format!(
        "if it is meant for this link: kafka-topics.sh --bootstrap-server {} --alter --topic {target} --partitions \
         {wanted}; if not: another naming",
        rights::dialled(&link.to)
    );
    error(link, codes::IN_THE_WAY, Side::Target, why).fix(fix)
}

/// The source topic is another one than was copied.
pub(super) fn source_recreated(link: &Link, topic: &str, old: Uuid, new: Uuid) -> Error {
    let (old, new) = (Shown(old), Shown(new));
    let why = format!(
        "topic {topic} was re-created on the source: the id that was copied is {old}, the new one is {new}"
    );
    error(link, codes::SOURCE_RECREATED, Side::Source, why).fix(start_over(link, topic))
}

/// The target topic is another one than was written.
pub(super) fn target_recreated(
    link: &Link,
    topic: &str,
    target: &str,
    old: Uuid,
    new: Uuid,
) -> Error {
    let (old, new) = (Shown(old), Shown(new));
    let why = format!(
        "topic {target} was re-created on the target: the id that was written is {old}, the new one is {new}"
    );
    error(link, codes::TARGET_RECREATED, Side::Target, why).fix(start_over(link, topic))
}

/// The target topic went away.
pub(super) fn target_gone(link: &Link, topic: &str, target: &str) -> Error {
    let why = format!(
        "topic {target} is gone from the target's metadata while it was being written: deleted, or Describe on it was \
         withdrawn"
    );
    error(link, codes::TARGET_GONE, Side::Target, why).fix(start_over(link, topic))
}

/// The settings of a source topic cannot be read, so its mirror cannot be made like it.
pub(super) fn source_settings(link: &Link, topic: &str, code: ErrorCode) -> Error {
    let why = format!(
        "the settings of topic {topic} cannot be read, so {} gets no topic like it: {code}",
        link.to.name
    );
    let mut error = error(link, codes::SETTINGS_UNKNOWN, Side::Source, why);
    error.action = Action::Retry;
    if code == ErrorCode::TOPIC_AUTHORIZATION_FAILED {
        error.code = codes::NOT_ALLOWED;
        error.fix = Need::DescribeSourceSettings.grant(link, topic);
    }
    error
}

/// The settings of a target topic cannot be read.
pub(super) fn settings_unknown(link: &Link, target: &str, code: ErrorCode) -> Error {
    let why = format!(
        "the settings of topic {target} on the target cannot be read ({code}): a stock broker's are assumed"
    );
    let error = error(link, codes::SETTINGS_UNKNOWN, Side::Target, why);
    if code == ErrorCode::TOPIC_AUTHORIZATION_FAILED {
        return error.fix(Need::DescribeTargetSettings.grant(link, target));
    }
    error
}

/// A target topic is there and never shows in the metadata.
pub(super) fn hidden(link: &Link, target: &str) -> Error {
    let why = format!(
        "topic {target} exists on the target and is hidden from {}",
        rights::principal(&link.to)
    );
    let mut error = error(link, codes::NOT_ALLOWED, Side::Target, why);
    error.action = Action::Retry;
    error.fix(Need::WriteTarget.grant(link, target))
}

/// The target's Kafka knows no such setting.
pub(super) fn unknown_setting(link: &Link, target: &str, setting: &str) -> Error {
    let why =
        format!("topic {target} is made without {setting}, which the target's Kafka does not know");
    error(link, codes::TOPIC_CONFIG, Side::Target, why)
}

/// The target puts its own times on records.
pub(super) fn append_time(link: &Link, target: &str) -> Error {
    let why = format!(
        "topic {target} on the target has message.timestamp.type=LogAppendTime: records get the time of their copying"
    );
    error(link, codes::APPEND_TIME, Side::Target, why).fix(format!(
        "kafka-configs.sh --bootstrap-server {} --alter --topic {target} --add-config \
         message.timestamp.type=CreateTime",
        rights::dialled(&link.to)
    ))
}

/// The target compacts what the source does not.
pub(super) fn compacted(link: &Link, target: &str) -> Error {
    let why = format!(
        "topic {target} is compacted on the target and not on the source: records without a key are refused there, and \
         older ones of a key disappear"
    );
    error(link, codes::COMPACTED, Side::Target, why)
        .fix(format!("set cleanup.policy of {target} as on the source, or choose another naming"))
}

fn start_over(link: &Link, topic: &str) -> String {
    format!(
        "to copy the topic anew from the start: stop Strait, delete the target topic, `strait reset {} --topic {topic} \
         --to earliest`, start Strait",
        link.name
    )
}

/// A topic id as Kafka's tools print it: URL-safe base64 without padding.
#[derive(Clone, Copy)]
pub(super) struct Shown(pub(super) Uuid);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use base64::Engine as _;
        f.write_str(&base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(self.0.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_shown_as_kafkas_tools_do() {
        // Uuid.METADATA_TOPIC_ID of org.apache.kafka.common is (0, 1).
        assert_eq!(Shown(Uuid::from_u128(1)).to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
    }
}
