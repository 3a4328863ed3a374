//! What a reader gets: sizes, bounds, epochs, sessions, aborted transactions.

use std::time::Duration;

use kafka_protocol::messages::fetch_request::{
    FetchPartition, FetchRequest, FetchTopic, ForgottenTopic,
};
use kafka_protocol::messages::fetch_response::{FetchResponse, PartitionData};
use kafka_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId, TopicName};

use super::super::{Fault, Options, Order, Replica};
use super::kit::{Client, Craft, batch, cluster, now_ms, topic_name};
use crate::embedded::ApiKey;
use crate::wire::error_code::ErrorCode;

/// Partition and offset wanted of `t`, sessionless, no wait.
fn fetch(parts: &[(i32, i64)]) -> FetchRequest {
    let partitions = parts.iter().map(|(partition, offset)| {
        FetchPartition::default()
            .with_partition(*partition)
            .with_fetch_offset(*offset)
            .with_partition_max_bytes(1 << 20)
    });
    let topic =
        FetchTopic::default().with_topic(topic_name("t")).with_partitions(partitions.collect());
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic])
}

fn parts(response: FetchResponse) -> Vec<PartitionData> {
    response.responses.into_iter().flat_map(|topic| topic.partitions).collect()
}

async fn one(client: &mut Client, request: &FetchRequest) -> PartitionData {
    parts(client.call(12, request).await).remove(0)
}

fn len(part: &PartitionData) -> usize {
    part.records.as_ref().map_or(0, |records| records.len())
}

#[tokio::test]
async fn a_fetch_starts_with_the_whole_batch_that_holds_its_offset() {
    let cluster = cluster(Options::default(), &[]);
    let mut client = Client::to(&cluster).await;
    for _ in 0..3 {
        client.produce_one(batch(10)).await;
    }
    let part = one(&mut client, &fetch(&[(0, 17)])).await;
    let records = part.records.unwrap();
    assert_eq!(records[..8], 10i64.to_be_bytes());
    assert_eq!(records.len(), 2 * batch(10).len());
    assert_eq!((part.high_watermark, part.last_stable_offset, part.log_start_offset), (30, 30, 0));
}

#[tokio::test]
async fn the_first_batch_comes_whole_the_tail_is_cut_anywhere() {
    let cluster = cluster(Options::default(), &[]);
    let mut client = Client::to(&cluster).await;
    let size = batch(10).len();
    for partition in 0..2 {
        for _ in 0..2 {
            client.produce(&[(partition, batch(10))]).await;
        }
    }
    let with_limit = |limit: usize| {
        let limit = i32::try_from(limit).unwrap();
        let mut request = fetch(&[(0, 0), (1, 0)]);
        request.topics[0].partitions[0].partition_max_bytes = limit;
        request.topics[0].partitions[1].partition_max_bytes = limit;
        request
    };
    for (limit, first, second) in [
        (1, size, 0),
        (size - 1, size, 0),
        (size, size, size),
        (size + 20, size + 20, size + 20),
        (5 * size, 2 * size, 2 * size),
    ] {
        let parts = parts(client.call(12, &with_limit(limit)).await);
        assert_eq!((len(&parts[0]), len(&parts[1])), (first, second), "limit {limit}");
    }
    let whole = with_limit(5 * size).with_max_bytes(i32::try_from(2 * size + 7).unwrap());
    let parts = parts(client.call(12, &whole).await);
    assert_eq!((len(&parts[0]), len(&parts[1])), (2 * size, 0), "the response's own limit");
}

#[tokio::test]
async fn offsets_outside_the_log_are_error_1() {
    let cluster = cluster(Options::default(), &[]);
    let mut client = Client::to(&cluster).await;
    client.produce_one(batch(10)).await;
    client.produce_one(batch(10)).await;
    cluster.delete_records("t", 0, 15).unwrap();
    for (offset, code) in [(14, 1), (15, 0), (20, 0), (21, 1)] {
        let part = one(&mut client, &fetch(&[(0, offset)])).await;
        assert_eq!(part.error_code, code, "offset {offset}");
    }
    let part = one(&mut client, &fetch(&[(0, 15)])).await;
    assert_eq!(part.records.unwrap()[..8], 10i64.to_be_bytes(), "deleted records come along");
}

#[tokio::test]
async fn a_fetch_waits_for_data_and_no_longer() {
    let cluster = cluster(Options::default(), &[]);
    let (mut reader, mut writer) = (Client::to(&cluster).await, Client::to(&cluster).await);
    let patient = fetch(&[(0, 0)]).with_max_wait_ms(30_000);
    reader.send(12, &patient).await;
    writer.produce_one(batch(1)).await;
    let part = parts(reader.receive::<FetchRequest>(12).await.unwrap()).remove(0);
    assert_eq!(len(&part), batch(1).len());

    let started = std::time::Duration::from_millis(60);
    let clock = tokio::time::Instant::now();
    let hungry = fetch(&[(0, 0)]).with_max_wait_ms(60).with_min_bytes(1 << 20);
    let part = one(&mut reader, &hungry).await;
    assert!(clock.elapsed() >= started, "min_bytes was not reached");
    assert_eq!(len(&part), batch(1).len(), "and what is there comes all the same");
}

#[tokio::test]
async fn an_error_ends_the_wait() {
    let cluster = cluster(Options::default(), &[]);
    let mut client = Client::to(&cluster).await;
    let request = fetch(&[(0, 0), (9, 0)]).with_max_wait_ms(30_000);
    let call = client.call(12, &request);
    let parts = parts(tokio::time::timeout(Duration::from_secs(5), call).await.unwrap());
    assert_eq!(parts[1].error_code, 3);
}

#[tokio::test]
async fn leader_epochs_fence_and_leaders_are_pointed_to() {
    let cluster = cluster(Options { brokers: 2, ..Options::default() }, &[]);
    let mut client = Client::to(&cluster).await;
    let epoch = cluster.dump("t", 0).unwrap().leader_epoch;
    for (named, code) in [(epoch - 1, 74), (epoch, 0), (epoch + 1, 75), (-1, 0)] {
        let mut request = fetch(&[(0, 0)]);
        request.topics[0].partitions[0].current_leader_epoch = named;
        assert_eq!(one(&mut client, &request).await.error_code, code, "epoch {named}");
    }
    cluster.move_leader("t", 0, 2, Replica::InSync).unwrap();
    let mut request = fetch(&[(0, 0)]);
    request.topics[0].topic_id = cluster_topic_id(&mut client).await;
    let response = client.call(16, &request).await;
    assert_eq!(response.node_endpoints[0].node_id, BrokerId(2));
    let port = cluster.address(2).port();
    assert_eq!(response.node_endpoints[0].port, i32::from(port));
    let part = parts(response).remove(0);
    assert_eq!(part.error_code, 6);
    assert_eq!(part.current_leader.leader_id, BrokerId(2));
    assert_eq!(part.current_leader.leader_epoch, epoch + 1);
}

async fn cluster_topic_id(client: &mut Client) -> uuid::Uuid {
    use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name("t")));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    client.call(12, &request).await.topics[0].topic_id
}

#[tokio::test]
async fn a_truncated_log_shows_as_a_diverging_epoch() {
    let cluster = cluster(Options::default(), &[]);
    let mut client = Client::to(&cluster).await;
    for _ in 0..4 {
        client.produce_one(batch(10)).await;
    }
    let epoch = cluster.dump("t", 0).unwrap().leader_epoch;
    cluster.truncate("t", 0, 20).unwrap();
    client.produce_one(batch(5)).await;
    let mut request = fetch(&[(0, 25)]);
    request.topics[0].partitions[0].last_fetched_epoch = epoch;
    let part = one(&mut client, &request).await;
    assert_eq!((part.error_code, len(&part)), (0, 0));
    assert_eq!((part.diverging_epoch.epoch, part.diverging_epoch.end_offset), (epoch, 20));
    request.topics[0].partitions[0].last_fetched_epoch = epoch + 9;
    assert_eq!(one(&mut client, &request).await.error_code, 1, "an epoch that nobody knows");

    let ask = |leader_epoch| {
        let partition =
            OffsetForLeaderPartition::default().with_partition(0).with_leader_epoch(leader_epoch);
        let topic = OffsetForLeaderTopic::default()
            .with_topic(topic_name("t"))
            .with_partitions(vec![partition]);
        OffsetForLeaderEpochRequest::default().with_topics(vec![topic])
    };
    for (asked, found) in [(epoch, (epoch, 20)), (epoch + 1, (epoch + 1, 25)), (99, (-1, -1))] {
        let answer = client.call(4, &ask(asked)).await;
        let end = &answer.topics[0].partitions[0];
        assert_eq!((end.leader_epoch, end.end_offset), found, "epoch {asked}");
    }
}

#[tokio::test]
async fn topic_ids_keep_a_recreated_topic_apart() {
    let cluster = cluster(Options::default(), &[]);
    let mut client = Client::to(&cluster).await;
    client.produce_one(batch(1)).await;
    let mut request = fetch(&[(0, 0)]);
    request.topics[0].topic = TopicName::default();
    request.topics[0].topic_id = cluster_topic_id(&mut client).await;
    assert_eq!(parts(client.call(13, &request).await)[0].error_code, 0);
    cluster.recreate_topic("t").unwrap();
    assert_eq!(parts(client.call(13, &request).await)[0].error_code, 100);
}

#[tokio::test]
async fn a_session_answers_what_is_new() {
    let cluster = cluster(Options::default(), &[]);
    let mut client = Client::to(&cluster).await;
    client.produce(&[(0, batch(1)), (1, batch(1))]).await;
    let full = fetch(&[(0, 0), (1, 0)]).with_session_id(0).with_session_epoch(0);
    let begun = client.call(12, &full).await;
    let id = begun.session_id;
    assert_ne!(id, 0);
    assert_eq!(parts(begun).len(), 2);
    assert_eq!(cluster.fetch_sessions(1), 1);
    let next = |epoch, wanted: &[(i32, i64)]| {
        let mut request = fetch(wanted).with_session_id(id).with_session_epoch(epoch);
        request.topics.retain(|topic| !topic.partitions.is_empty());
        request
    };
    let part = parts(client.call(12, &next(1, &[(1, 1)])).await);
    assert_eq!(part.len(), 1, "0 is sent again, 1 has nothing new");
    assert_eq!((part[0].partition_index, len(&part[0])), (0, batch(1).len()));
    let forgotten = ForgottenTopic::default().with_topic(topic_name("t")).with_partitions(vec![0]);
    let quiet = next(2, &[]).with_forgotten_topics_data(vec![forgotten]);
    assert_eq!(parts(client.call(12, &quiet).await).len(), 0);
    client.produce(&[(1, batch(2))]).await;
    let part = parts(client.call(12, &next(3, &[])).await);
    assert_eq!((part[0].partition_index, part[0].high_watermark), (1, 3));

    assert_eq!(client.call(12, &next(9, &[])).await.error_code, 71);
    cluster.evict_fetch_sessions(1);
    assert_eq!(client.call(12, &next(4, &[])).await.error_code, 70);
}

#[tokio::test]
async fn ordered_faults_of_partition_and_session() {
    let cluster = cluster(Options::default(), &[]);
    let mut client = Client::to(&cluster).await;
    let gone = Fault::Refuse(ErrorCode::KAFKA_STORAGE_ERROR);
    let id = cluster.fault(Order::next(ApiKey::Fetch, gone).at("t", 1));
    let answer = parts(client.call(12, &fetch(&[(0, 0), (1, 0)])).await);
    assert_eq!([answer[0].error_code, answer[1].error_code], [0, 56]);
    assert_eq!(cluster.fault_struck(id), 1);
    let mixed = Fault::Refuse(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
    cluster.fault(Order::next(ApiKey::Fetch, mixed));
    let answer = client.call(12, &fetch(&[(0, 0)])).await;
    assert_eq!((answer.error_code, answer.responses.len()), (106, 0));
}

#[tokio::test]
async fn a_throttled_answer_is_empty_and_says_so() {
    let cluster = cluster(Options::default(), &[]);
    let mut client = Client::to(&cluster).await;
    client.produce_one(batch(1)).await;
    let time = Duration::from_millis(70);
    cluster.fault(Order::next(ApiKey::Fetch, Fault::Throttle(time)));
    let clock = tokio::time::Instant::now();
    let answer = client.call(12, &fetch(&[(0, 0)])).await;
    assert_eq!((answer.throttle_time_ms, answer.responses.len()), (70, 0));
    assert_eq!(len(&one(&mut client, &fetch(&[(0, 0)])).await), batch(1).len());
    assert!(clock.elapsed() >= time, "the connection was not read meanwhile");
}

#[tokio::test]
async fn list_offsets_by_every_kind() {
    let cluster = cluster(Options::default(), &[]);
    let mut client = Client::to(&cluster).await;
    let then = now_ms() - 10_000;
    for i in 0..3 {
        client.produce_one(Craft::records(10).at(then + i * 1000).build()).await;
    }
    cluster.delete_records("t", 0, 5).unwrap();
    cluster.freeze("t", 0, true).unwrap();
    client.produce_one(batch(1)).await;
    let ask = |timestamp, replica| {
        let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
        let topic =
            ListOffsetsTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
        ListOffsetsRequest::default().with_replica_id(BrokerId(replica)).with_topics(vec![topic])
    };
    for (timestamp, replica, offset) in [
        (-1, -1, 30),
        (-1, i32::MAX, 31),
        (-2, -1, 5),
        (-4, -1, 5),
        (then, -1, 5),
        (then + 1, -1, 10),
        (then + 2000, -1, 20),
        (now_ms() + 1, -1, -1),
    ] {
        let answer = client.call(9, &ask(timestamp, replica)).await;
        let found = answer.topics[0].partitions[0].offset;
        assert_eq!(found, offset, "timestamp {timestamp}, replica {replica}");
    }
}
