//! How topics are made, described and grown.

use super::super::versions::Role;
use super::bench::{Bench, MESSAGE_BYTES_MAX};
use super::rule::{Outcome, Rule, expect, expect_error, found};
use crate::cluster::admin;
use crate::wire::create_topics::NewTopic;
use crate::wire::describe_configs::{ConfigsOf, ResourceKind};
use crate::wire::error_code::ErrorCode;

const TARGET: Role = Role::Target;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "topic.id",
        role: Role::Both,
        optional: false,
        states: "Metadata gives each topic an id that is not nil",
        relies: "a topic that was deleted and made again is told from the old one; names in the position",
        source: "KIP-516",
        otherwise: "a re-created topic cannot be told from the old one",
        check: |bench| Box::pin(id(bench)),
    },
    Rule {
        id: "topic.configs",
        role: TARGET,
        optional: false,
        states: "CreateTopics sets what it is told to, and DescribeConfigs shows it",
        relies: "limits, compaction and retention of the source's topics hold on the target",
        source: "ConfigurationControlManager",
        otherwise: "make the target's topics by hand",
        check: |bench| Box::pin(configs(bench)),
    },
    Rule {
        id: "topic.validate_only",
        role: TARGET,
        optional: true,
        states: "CreateTopics with validate_only judges and makes nothing",
        relies: "`strait check` changes nothing",
        source: "ReplicationControlManager.createTopics",
        otherwise: "`strait check` may make topics",
        check: |bench| Box::pin(validate_only(bench)),
    },
    Rule {
        id: "topic.exists",
        role: TARGET,
        optional: false,
        states: "a topic that is there already is refused with TOPIC_ALREADY_EXISTS",
        relies: "two instances may want the same topic at once",
        source: "ReplicationControlManager.createTopics",
        otherwise: "two instances of a link may trouble each other when topics appear",
        check: |bench| Box::pin(exists(bench)),
    },
    Rule {
        id: "topic.grow",
        role: TARGET,
        optional: true,
        states: "CreatePartitions adds partitions",
        relies: "a source topic that grows grows on the target",
        source: "ReplicationControlManager.createPartitions",
        otherwise: "grow the target's topics by hand",
        check: |bench| Box::pin(grow(bench)),
    },
];

async fn id(bench: &mut Bench<'_>) -> Outcome {
    let map = bench.cluster.map();
    let topic = found("the topic", map.topics.get(&bench.topic))?;
    expect("an id", topic.id.is_nil(), false)
}

async fn configs(bench: &mut Bench<'_>) -> Outcome {
    let connection = bench.cluster.connect_any(bench.env).await?;
    let keys = Some(vec!["max.message.bytes".to_owned()]);
    let of = ConfigsOf { kind: ResourceKind::Topic, name: bench.topic.clone(), keys };
    let described = admin::describe_configs(&connection, vec![of]).await?;
    let described = found("the topic", described.first())?;
    expect_error("DescribeConfigs", described.error, ErrorCode::NONE)?;
    let value = described.configs.iter().find(|config| config.name == "max.message.bytes");
    let value = found("max.message.bytes", value)?;
    expect("max.message.bytes", value.value.clone(), Some(MESSAGE_BYTES_MAX.to_string()))?;
    expect("set on the topic", value.is_set_on_topic(), true)
}

fn new(bench: &Bench<'_>, suffix: &str) -> NewTopic {
    let name = format!("{}{suffix}", bench.topic);
    NewTopic { name, partitions: 1, replication_factor: -1, configs: Vec::new() }
}

async fn validate_only(bench: &mut Bench<'_>) -> Outcome {
    let connection = bench.cluster.connect_any(bench.env).await?;
    // Twice: the second would find what the first had made.
    for _ in 0..2 {
        let topics = vec![new(bench, "-rehearsed")];
        let made = admin::create_topics(&connection, topics, true).await?;
        let made = found("the topic", made.first())?;
        expect_error("CreateTopics", made.error, ErrorCode::NONE)?;
    }
    Ok(())
}

async fn exists(bench: &mut Bench<'_>) -> Outcome {
    let connection = bench.cluster.connect_any(bench.env).await?;
    let made = admin::create_topics(&connection, vec![new(bench, "")], false).await?;
    let made = found("the topic", made.first())?;
    expect_error("CreateTopics", made.error, ErrorCode::TOPIC_ALREADY_EXISTS)
}

async fn grow(bench: &mut Bench<'_>) -> Outcome {
    bench.make_topic("-grown", 1, &[]).await?;
    let connection = bench.cluster.connect_any(bench.env).await?;
    let name = format!("{}-grown", bench.topic);
    let grown = admin::create_partitions(&connection, vec![(name.clone(), 3)], false).await?;
    expect_error("CreatePartitions", found("the topic", grown.first())?.error, ErrorCode::NONE)?;
    bench
        .settled("three partitions", async || {
            bench.cluster.refresh();
            let map = bench.cluster.map();
            let partitions = map.topics.get(&name).map_or(0, |topic| topic.partitions.len());
            Ok((partitions == 3).then_some(()))
        })
        .await
}
