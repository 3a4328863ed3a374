//! What a source topic is called on the target. Owns legality of names; never talks to a cluster.

use crate::config::resolved::{Link, Naming};
use crate::wire::TOPIC_NAME_BYTES_MAX;

/// Topics that a broker lets nobody but itself write (`Topic.INTERNAL_TOPICS`, and the metadata log).
const BROKERS_OWN: [&str; 4] =
    ["__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata"];

/// The topic's name on the target, or why it cannot be one.
pub fn target_name(link: &Link, topic: &str) -> Result<String, String> {
    let name = apply(&link.naming, &link.from.name, topic);
    match illegal(&name) {
        Some(why) => Err(format!("would be called \"{name}\" on the target, which {why}")),
        None => Ok(name),
    }
}

/// Whether the topic looks like what the reverse link of the same naming would have made here out of a topic of the
/// target. Two links `{topic}_REPLICA`, one each way, would otherwise add a suffix to each other's topics for ever.
pub fn is_echo(link: &Link, topic: &str) -> bool {
    let frame = match &link.naming {
        Naming::Identity => return false,
        Naming::Prefix => format!("{}.{{topic}}", link.to.name),
        Naming::Template(template) => template.replace("{source}", &link.to.name),
    };
    let Some((before, after)) = frame.split_once("{topic}") else { return false };
    let framed = !before.is_empty() || !after.is_empty();
    // Strictly longer: something must stand where `{topic}` stood.
    framed
        && topic.len() > before.len() + after.len()
        && topic.starts_with(before)
        && topic.ends_with(after)
}

/// Why a name cannot be a topic of the target's; none if it can (`org.apache.kafka.common.internals.Topic.validate`).
pub fn illegal(name: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() {
        Some("is empty".to_owned())
    } else if name == "." || name == ".." {
        Some("Kafka reserves".to_owned())
    } else if let Some(c) = name.chars().find(|c| !legal(*c)) {
        Some(format!("has {c:?} in it; Kafka takes letters, digits, '.', '_' and '-'"))
    } else if name.len() > TOPIC_NAME_BYTES_MAX {
        Some(format!("has {} characters; Kafka takes {TOPIC_NAME_BYTES_MAX}", name.len()))
    } else if BROKERS_OWN.contains(&name) {
        Some("only the target's brokers may write".to_owned())
    } else {
        None
    }
}

/// The name as it stands in metrics, where Kafka writes `.` as `_`: topics that are equal in this form share metrics,
/// and a KRaft controller refuses to create the second (`Topic.hasCollision`).
pub fn metric_form(name: &str) -> String {
    name.replace('.', "_")
}

/// Whether any Kafka could have a topic of this name.
pub fn is_legal(name: &str) -> bool {
    BROKERS_OWN.contains(&name) || illegal(name).is_none()
}

fn apply(naming: &Naming, source: &str, topic: &str) -> String {
    match naming {
        Naming::Identity => topic.to_owned(),
        Naming::Prefix => format!("{source}.{topic}"),
        // Topic last: a topic name cannot hold a brace, a cluster's name could.
        Naming::Template(template) => {
            template.replace("{source}", source).replace("{topic}", topic)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::fixture;

    fn link(naming: Naming) -> Link {
        Link { naming, ..fixture::link(&[".*"], &[]) }
    }

    #[test]
    fn each_naming() {
        let template = |t: &str| Naming::Template(t.to_owned());
        for (naming, wanted) in [
            (Naming::Identity, "orders"),
            (Naming::Prefix, "east.orders"),
            (template("{source}.{topic}"), "east.orders"),
            (template("{topic}_REPLICA"), "orders_REPLICA"),
            (template("dr-{source}-{topic}-{source}"), "dr-east-orders-east"),
        ] {
            assert_eq!(target_name(&link(naming.clone()), "orders").unwrap(), wanted, "{naming:?}");
        }
    }

    #[test]
    fn legality_is_kafkas() {
        for name in ["a", "A.b_c-9", "...", &"x".repeat(249)] {
            assert_eq!(illegal(name), None, "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "a:b", "\u{e9}t\u{e9}", &"x".repeat(250)] {
            assert!(illegal(name).is_some(), "{name}");
        }
        assert!(illegal("__consumer_offsets").unwrap().contains("brokers"));
        assert_eq!(illegal("__mine"), None);
    }

    #[test]
    fn the_refusal_names_the_name_that_would_have_been() {
        let long = link(Naming::Prefix);
        let why = target_name(&long, &"x".repeat(245)).unwrap_err();
        assert!(why.contains("east.xxx") && why.contains("250 characters"), "{why}");
    }

    #[test]
    fn an_image_made_by_the_reverse_link_is_an_echo() {
        let template = |t: &str| link(Naming::Template(t.to_owned()));
        for (link, topic, echo) in [
            (link(Naming::Identity), "west.orders", false),
            (link(Naming::Prefix), "west.orders", true),
            (link(Naming::Prefix), "west.east.orders", true),
            (link(Naming::Prefix), "east.orders", false),
            (link(Naming::Prefix), "west.", false),
            (link(Naming::Prefix), "westorders", false),
            (template("{topic}_REPLICA"), "orders_REPLICA", true),
            (template("{topic}_REPLICA"), "_REPLICA", false),
            (template("{topic}_REPLICA"), "REPLICA_orders", false),
            (template("{source}-{topic}"), "west-orders", true),
            (template("{source}-{topic}"), "east-orders", false),
            (template("{topic}"), "orders", false),
        ] {
            assert_eq!(is_echo(&link, topic), echo, "{:?} {topic}", link.naming);
        }
    }
}
