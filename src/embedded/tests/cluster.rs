//! Several brokers, and what a test does behind the clients' backs.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    BrokerId, FindCoordinatorRequest, GroupId, HeartbeatRequest, MetadataRequest, ProduceRequest,
};

use super::super::batch::{DELETE_HORIZON, Head, TRANSACTIONAL};
use super::super::{ApiKey, Cluster, Fault, Options, Order, Replica, records};
use super::kit::{Client, Craft, batch, cluster, now_ms, partitions, produce, text, topic_name};
use crate::wire::error_code::ErrorCode;

fn three() -> Options {
    Options { brokers: 3, ..Options::default() }
}

async fn leader_says(cluster: &Cluster, broker: i32, batch: Bytes) -> i16 {
    Client::at(cluster, broker).await.produce_one(batch).await.0
}

#[tokio::test]
async fn a_leader_that_moved_points_to_the_new_one() {
    let cluster = cluster(three(), &[]);
    let mut client = Client::to(&cluster).await;
    client.produce_one(batch(1)).await;
    cluster.move_leader("t", 0, 2, Replica::InSync).unwrap();
    let answer = client.call(10, &produce("t", &[(0, batch(1))])).await;
    assert_eq!(answer.node_endpoints[0].port, i32::from(cluster.address(2).port()));
    let part = partitions(answer).remove(0);
    assert_eq!((part.error_code, part.current_leader.leader_id.0), (6, 2));
    assert_eq!(leader_says(&cluster, 2, batch(1)).await, 0);
    assert_eq!(cluster.dump("t", 0).unwrap().log_end, 2);
}

#[tokio::test]
async fn a_replica_knows_the_producers_unless_it_has_lost_them() {
    let cluster = cluster(three(), &[]);
    let of = |sequence| Craft::records(1).producer(7, 0, sequence).build();
    assert_eq!(leader_says(&cluster, 1, of(0)).await, 0);
    cluster.move_leader("t", 0, 2, Replica::InSync).unwrap();
    assert_eq!(leader_says(&cluster, 2, of(5)).await, 45);
    cluster.move_leader("t", 0, 3, Replica::WithoutProducerState).unwrap();
    assert_eq!(leader_says(&cluster, 3, of(5)).await, 0, "a hole, as the real one leaves it");
    cluster.move_leader("t", 0, 1, Replica::InSync).unwrap();
    assert_eq!(leader_says(&cluster, 1, of(7)).await, 45, "what is lost is one replica's alone");
    assert_eq!(leader_says(&cluster, 1, of(6)).await, 0, "who followed knows what came since");
    cluster.move_leader("t", 0, 3, Replica::InSync).unwrap();
    assert_eq!(leader_says(&cluster, 3, of(8)).await, 45, "and so does the other");
}

#[tokio::test]
async fn a_waiting_produce_is_told_that_its_leader_went() {
    let cluster = cluster(three(), &[]);
    cluster.freeze("t", 0, true).unwrap();
    let mut client = Client::to(&cluster).await;
    client.send(9, &produce("t", &[(0, batch(1))]).with_timeout_ms(30_000)).await;
    while cluster.dump("t", 0).unwrap().log_end == 0 {
        tokio::task::yield_now().await;
    }
    cluster.move_leader("t", 0, 2, Replica::InSync).unwrap();
    let answer = client.receive::<ProduceRequest>(9).await.unwrap();
    assert_eq!(partitions(answer)[0].error_code, 6);
}

#[tokio::test]
async fn a_killed_broker_is_gone_and_comes_back_where_it_was() {
    let cluster = cluster(three(), &[]);
    let mut client = Client::to(&cluster).await;
    client.produce_one(batch(1)).await;
    let at = cluster.address(1);
    cluster.kill_broker(1);
    assert!(client.try_call(9, &produce("t", &[(0, batch(1))])).await.is_none());
    let dump = cluster.dump("t", 0).unwrap();
    assert_eq!(dump.leader, 2, "the other replica");
    assert_eq!(leader_says(&cluster, 2, batch(1)).await, 0);
    let mut other = Client::at(&cluster, 2).await;
    let metadata = other.call(12, &MetadataRequest::default().with_topics(None)).await;
    assert_eq!(metadata.brokers.len(), 2);
    let partition = &metadata.topics[0].partitions[0];
    assert_eq!(partition.isr_nodes, [BrokerId(2), BrokerId(3)]);
    assert_eq!(partition.offline_replicas, [BrokerId(1)]);

    cluster.restart_broker(1);
    let env = crate::env::Env::real();
    let clock = tokio::time::Instant::now();
    while env.world().connect(at).await.is_err() {
        assert!(clock.elapsed() < Duration::from_secs(10), "never came back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(leader_says(&cluster, 1, batch(1)).await, 6);
}

#[tokio::test]
async fn a_partition_without_replicas_has_no_leader_and_an_emptied_one_forgets() {
    let cluster = cluster(Options { brokers: 2, ..Options::default() }, &[]);
    cluster.create_topic("single", 1, 1, &[]).unwrap();
    cluster.move_leader("single", 0, 2, Replica::InSync).unwrap();
    cluster.set_isr("single", 0, &[2]).unwrap();
    let of =
        |sequence| produce("single", &[(0, Craft::records(1).producer(7, 0, sequence).build())]);
    let mut second = Client::at(&cluster, 2).await;
    assert_eq!(partitions(second.call(9, &of(0)).await)[0].error_code, 0);
    cluster.delete_records("single", 0, 1).unwrap();
    assert_eq!(cluster.dump("single", 0).unwrap().producers.len(), 1, "DeleteRecords keeps them");
    cluster.kill_broker(2);
    assert_eq!(cluster.dump("single", 0).unwrap().leader, -1);
    let mut first = Client::to(&cluster).await;
    let metadata = first.call(12, &MetadataRequest::default().with_topics(None)).await;
    let single = metadata.topics.iter().find(|t| t.name == Some(topic_name("single"))).unwrap();
    assert_eq!(single.partitions[0].error_code, 5);
    cluster.restart_broker(2);
    assert_eq!(cluster.dump("single", 0).unwrap().leader, 2);
    assert!(cluster.dump("single", 0).unwrap().producers.is_empty(), "a restart does not");
}

fn commit(group: &str, partition: i32, metadata: &str) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(-5)
        .with_committed_leader_epoch(3)
        .with_committed_metadata(Some(text(metadata)));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name("t"))
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

#[tokio::test]
async fn commits_need_the_partition_and_short_metadata_and_die_with_the_topic() {
    let cluster = cluster(Options::default(), &[]);
    let mut client = Client::to(&cluster).await;
    let long = "ü".repeat(4096);
    for (partition, metadata, code) in
        [(0, "anchor", 0), (9, "", 3), (0, &format!("{long}x")[..], 12), (1, &long[..], 0)]
    {
        let answer = client.call(8, &commit("g", partition, metadata)).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, code, "{partition}");
    }
    let found = cluster.committed("g");
    assert_eq!(found[&("t".to_owned(), 0)].offset, -5, "the value is free");
    assert_eq!(found[&("t".to_owned(), 0)].leader_epoch, 3);
    assert_eq!(found[&("t".to_owned(), 1)].metadata, long);
    cluster.recreate_topic("t").unwrap();
    assert!(cluster.committed("g").is_empty());
}

#[tokio::test]
async fn a_group_has_one_coordinator_that_can_move() {
    let cluster = cluster(three(), &[]);
    cluster.move_coordinator("g", 2);
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
    let answer = Client::to(&cluster).await.call(4, &request).await;
    assert_eq!(answer.coordinators[0].node_id.0, 2);
    let beat = HeartbeatRequest::default().with_group_id(GroupId(text("g")));
    assert_eq!(Client::to(&cluster).await.call(4, &beat).await.error_code, 16);
    assert_eq!(Client::at(&cluster, 2).await.call(4, &beat).await.error_code, 25);
    let mut second = Client::at(&cluster, 2).await;
    assert_eq!(second.call(8, &commit("g", 0, "")).await.topics[0].partitions[0].error_code, 0);
}

#[tokio::test]
async fn compaction_leaves_gaps_empty_shells_and_bounds() {
    for codec in 0..5 {
        let cluster = cluster(Options::default(), &[("cleanup.policy", "compact")]);
        let mut client = Client::to(&cluster).await;
        let key = |delta: i32, key: &str| (delta, Some(key.to_owned()), Some([1; 20]));
        let send = |keys: &[&str], id| {
            let records: Vec<_> = (0..).zip(keys).map(|(delta, k)| key(delta, k)).collect();
            Craft::of(&records).producer(id, 0, 0).with(|head| head.attributes = codec).build()
        };
        for (keys, id) in [(&["a", "b", "c"][..], 1), (&["a", "c"], 2), (&["b"], 3), (&["z"], 4)] {
            assert_eq!(client.produce_one(send(keys, id)).await.0, 0);
        }
        cluster.compact("t", 0, None).unwrap();
        let batches = cluster.dump("t", 0).unwrap().batches;
        let heads: Vec<Head> = batches.iter().map(|batch| Head::read(batch).unwrap()).collect();
        let shapes: Vec<_> =
            heads.iter().map(|h| (h.base_offset, h.last_offset_delta, h.count)).collect();
        assert_eq!(shapes, [(0, 2, 0), (3, 1, 2), (5, 0, 1), (6, 0, 1)], "codec {codec}");
        assert!(batches.iter().zip(&heads).all(|(b, h)| super::super::batch::crc_holds(b, h)));
    }
}

#[tokio::test]
async fn a_tombstone_gets_its_horizon_and_times_stay() {
    let cluster = cluster(Options::default(), &[("cleanup.policy", "compact")]);
    let tombstone = (1, Some("b".to_owned()), None);
    let batch = Craft::of(&[(0, Some("a".into()), Some([1; 20])), tombstone]).at(5_000);
    Client::to(&cluster).await.produce_one(batch.build()).await;
    Client::to(&cluster).await.produce_one(super::kit::batch(1)).await;
    cluster.compact("t", 0, Some(90_000)).unwrap();
    let stored = cluster.dump("t", 0).unwrap().batches.remove(0);
    let head = Head::read(&stored).unwrap();
    assert!(head.has(DELETE_HORIZON));
    assert_eq!((head.base_timestamp, head.max_timestamp, head.count), (90_000, 5_000, 2));
    let mut times = Vec::new();
    records::walk(&stored[61..], 2, |_, record| {
        times.push(head.base_timestamp + record.timestamp_delta);
        Ok(())
    })
    .unwrap();
    assert_eq!(times, [5_000, 5_000]);
}

#[tokio::test]
async fn the_cleaner_leaves_the_active_part_and_takes_what_was_aborted() {
    let cluster = cluster(Options::default(), &[("cleanup.policy", "compact")]);
    let put = |records: &[(&str, Option<[u8; 20]>)], id, attributes| {
        let of =
            |(delta, (key, value)): (i32, &(&str, _))| (delta, Some((*key).to_owned()), *value);
        let records: Vec<_> = (0..).zip(records).map(of).collect();
        let craft =
            Craft::of(&records).producer(id, 0, 0).with(|head| head.attributes = attributes);
        cluster.append("t", 0, &craft.build()).unwrap();
    };
    let shapes = || {
        let batches = cluster.dump("t", 0).unwrap().batches;
        let heads = batches.iter().map(|batch| Head::read(batch).unwrap());
        heads.map(|h| (h.base_offset, h.last_offset_delta, h.count)).collect::<Vec<_>>()
    };
    let some = Some([1; 20]);
    put(&[("a", some), ("b", some)], 1, 0);
    put(&[("a", some)], 2, TRANSACTIONAL);
    cluster.end_transaction("t", 0, (2, 0), false).unwrap();
    put(&[("b", None)], 3, 0);
    put(&[("c", some)], 4, 0);
    put(&[("a", some)], 5, 0);
    let clean = || cluster.clean("t", 0, 6, 0).unwrap();
    clean();
    // What was aborted outdates nothing, nor does the active part; what a producer wrote last leaves its shell.
    assert_eq!(shapes(), [(0, 1, 1), (2, 0, 0), (3, 0, 1), (4, 0, 1), (5, 0, 1), (6, 0, 1)]);
    clean();
    assert_eq!(shapes()[3], (4, 0, 0), "the tombstone's time is over");
    cluster.drop_producer_state("t", 0).unwrap();
    clean();
    assert_eq!(shapes(), [(0, 1, 1), (3, 0, 1), (5, 0, 1), (6, 0, 1)]);
    // The marker outlives its transaction by the retention.
    clean();
    assert_eq!(shapes().len(), 4);
    clean();
    assert_eq!(shapes(), [(0, 1, 1), (5, 0, 1), (6, 0, 1)]);
    assert!(cluster.dump("t", 0).unwrap().aborted.is_empty());
}

#[tokio::test]
async fn the_cleaner_leaves_what_it_cannot_read() {
    let cluster = cluster(Options::default(), &[("cleanup.policy", "compact")]);
    let some = |key: &str| (Some(key.to_owned()), Some([1; 20]));
    let put = |keys: [&str; 2]| {
        let records: Vec<_> = (0..).zip(keys.map(some)).map(|(at, (k, v))| (at, k, v)).collect();
        Craft::of(&records).build()
    };
    // The second record says that it is longer by one: the first can be read, and is outdated by the next batch.
    let mut lies = put(["a", "b"]).to_vec();
    let second = 61 + (lies.len() - 61) / 2;
    lies[second] += 2;
    cluster.append("t", 0, &lies.clone().into()).unwrap();
    cluster.append("t", 0, &put(["a", "c"])).unwrap();
    cluster.append("t", 0, &put(["d", "d"])).unwrap();
    cluster.clean("t", 0, 4, 0).unwrap();
    assert_eq!(cluster.dump("t", 0).unwrap().batches[0][61..], lies[61..]);
}

#[tokio::test]
async fn anything_can_be_put_into_a_log() {
    let cluster = cluster(Options::default(), &[]);
    let gappy = Craft::records(2).with(|head| head.last_offset_delta = 9).build();
    assert_eq!(cluster.append("t", 0, &gappy), Ok(0));
    let far = Craft::records(1).with(|head| head.base_offset = 50).build();
    assert_eq!(cluster.append("t", 0, &far), Ok(50));
    let mut old = vec![0; 34];
    old[16] = 1;
    assert_eq!(cluster.append("t", 0, &Bytes::from(old)), Ok(51));
    assert_eq!(cluster.dump("t", 0).unwrap().log_end, 52);
    assert_eq!(cluster.append("t", 9, &gappy), Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
}

#[tokio::test]
async fn faults_strike_requests_and_answers() {
    let cluster = cluster(Options::default(), &[]);
    let request = produce("t", &[(0, batch(1))]);
    let order = |fault| cluster.fault(Order::next(ApiKey::Produce, fault));

    order(Fault::CloseBefore);
    assert!(Client::to(&cluster).await.try_call(9, &request).await.is_none());
    assert_eq!(cluster.dump("t", 0).unwrap().log_end, 0);
    let id = order(Fault::CloseAfter);
    assert!(Client::to(&cluster).await.try_call(9, &request).await.is_none());
    assert_eq!(cluster.dump("t", 0).unwrap().log_end, 1, "done, and nobody was told");
    assert_eq!(cluster.fault_struck(id), 1);
    order(Fault::AnswerWith(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND));
    let mut client = Client::to(&cluster).await;
    assert_eq!(client.produce_one(batch(1)).await.0, 20);
    assert_eq!(cluster.dump("t", 0).unwrap().log_end, 2);
    order(Fault::Refuse(ErrorCode::NOT_ENOUGH_REPLICAS));
    assert_eq!(client.produce_one(batch(1)).await.0, 19);
    assert_eq!(cluster.dump("t", 0).unwrap().log_end, 2);
    let delay = Duration::from_millis(80);
    order(Fault::DelayAnswer(delay));
    let clock = tokio::time::Instant::now();
    assert_eq!(client.produce_one(batch(1)).await.0, 0);
    assert!(clock.elapsed() >= delay);
    order(Fault::Silence);
    client.send(9, &request).await;
    let answer = client.receive::<ProduceRequest>(9);
    assert!(tokio::time::timeout(delay, answer).await.is_err());
    let refuse = Fault::Refuse(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    cluster.fault(Order::next(ApiKey::Produce, refuse).times(5));
    cluster.clear_faults();
    assert_eq!(Client::to(&cluster).await.produce_one(batch(1)).await.0, 0);
}

#[tokio::test]
async fn truncation_takes_producer_state_back() {
    let cluster = cluster(Options::default(), &[]);
    let mut client = Client::to(&cluster).await;
    let of = |sequence| Craft::records(1).producer(7, 0, sequence).at(now_ms()).build();
    for sequence in 0..3 {
        client.produce_one(of(sequence)).await;
    }
    cluster.truncate("t", 0, 1).unwrap();
    let dump = cluster.dump("t", 0).unwrap();
    assert_eq!((dump.log_end, dump.producers[0].last_sequence), (1, 0));
    assert_eq!(client.produce_one(of(1)).await, (0, 1));
}
