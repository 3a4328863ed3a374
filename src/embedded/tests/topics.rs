//! Topics and their settings, as an administrator changes them.

use kafka_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use kafka_protocol::messages::describe_configs_request::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use std::time::Duration;

use super::super::Options;
use super::kit::{Client, batch, cluster, text, topic_name};

async fn create(
    client: &mut Client,
    name: &str,
    count: i32,
    factor: i16,
    configs: &[(&str, &str)],
) -> i16 {
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    });
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(count)
        .with_replication_factor(factor)
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    client.call(7, &request).await.topics[0].error_code
}

#[tokio::test]
async fn a_request_for_more_than_a_controller_writes_at_once_makes_nothing() {
    let cluster = cluster(Options::default(), &[]);
    let mut client = Client::to(&cluster).await;
    let topics = |count: i32, partitions: i32| {
        let topic = |n: i32| {
            let name = topic_name(&format!("new-{n}"));
            let topic = CreatableTopic::default().with_name(name);
            topic.with_num_partitions(partitions).with_replication_factor(1)
        };
        CreateTopicsRequest::default().with_topics((0..count).map(topic).collect())
    };
    for (count, partitions, code) in [(10, 1000, 44), (1, 10_000, 44), (10, 999, 0)] {
        let answer = client.call(7, &topics(count, partitions)).await;
        assert!(answer.topics.iter().all(|topic| topic.error_code == code), "{count}");
    }
    assert_eq!(cluster.topics().len(), 11);
}

#[tokio::test]
async fn what_a_new_topic_may_be() {
    let cluster = cluster(Options::default(), &[]);
    let mut client = Client::to(&cluster).await;
    let long = "x".repeat(250);
    for (name, count, factor, configs, code) in [
        ("new", 3, 1, &[("cleanup.policy", "compact,delete")][..], 0),
        ("new", 3, 1, &[], 36),
        ("a.b", -1, -1, &[], 0),
        ("a_b", -1, -1, &[], 17),
        ("no spaces", 1, 1, &[], 17),
        ("..", 1, 1, &[], 17),
        (&long, 1, 1, &[], 17),
        ("none", 0, 1, &[], 37),
        ("wide", 1, 2, &[], 38),
        ("odd", 1, 1, &[("retention.mss", "1")], 40),
        ("odd", 1, 1, &[("retention.ms", "soon")], 40),
        ("odd", 1, 1, &[("cleanup.policy", "shred")], 40),
    ] {
        assert_eq!(create(&mut client, name, count, factor, configs).await, code, "{name}");
    }
    assert_eq!(cluster.topics(), ["a.b", "new", "t"]);
}

#[tokio::test]
async fn settings_are_changed_one_by_one_and_shown_with_their_source() {
    let cluster = cluster(Options::default(), &[("retention.ms", "5")]);
    let mut client = Client::to(&cluster).await;
    let mut alter = async |name: &str, operation: i8, value: &str| {
        let config = AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(operation)
            .with_value(Some(text(value)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("t"))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        client.call(1, &request).await.responses[0].error_code
    };
    assert_eq!(alter("cleanup.policy", 2, "compact").await, 0);
    assert_eq!(alter("cleanup.policy", 3, "delete").await, 0);
    assert_eq!(alter("retention.ms", 1, "").await, 0);
    assert_eq!(alter("retention.ms", 2, "7").await, 40, "not a list");
    assert_eq!(alter("max.message.bytes", 0, "100").await, 0);
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = client.call(4, &request).await;
    let shown = |name: &str| {
        let configs = answer.results[0].configs.iter();
        let config = configs.clone().find(|config| config.name.as_str() == name).unwrap();
        (config.value.clone().unwrap().to_string(), config.config_source)
    };
    assert_eq!(shown("cleanup.policy"), ("compact".into(), 1));
    assert_eq!(shown("retention.ms"), ("604800000".into(), 5));
    assert_eq!(client.produce_one(batch(2)).await.0, 10, "and they count");
}

#[tokio::test]
async fn retention_by_size_drops_the_oldest_batches() {
    let keep = 3 * batch(1).len();
    let cluster = cluster(Options::default(), &[("retention.bytes", &keep.to_string())]);
    let mut client = Client::to(&cluster).await;
    for _ in 0..10 {
        client.produce_one(batch(1)).await;
    }
    let clock = tokio::time::Instant::now();
    while cluster.dump("t", 0).unwrap().log_start != 7 {
        assert!(clock.elapsed() < Duration::from_secs(10), "nothing was dropped");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(cluster.dump("t", 0).unwrap().batches.len(), 3);
}
