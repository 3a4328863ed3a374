//! A cluster watched through a scripted broker.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages as kafka;
use kafka_protocol::messages::metadata_response as metadata;
use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::admin::{Connections, list_offsets_by_leader};
use super::{ClusterHandle, watch};
use crate::config::resolved::{Address, Cluster};
use crate::connection::tests_support::{Script, answer, greet, on_a_lane, read_request};
use crate::env::Env;
use crate::error::{Action, Code, Side};
use crate::wire::ErrorCode;
use crate::wire::common::Isolation;
use crate::wire::list_offsets::LATEST;

fn config(bootstrap: &str) -> Arc<Cluster> {
    let bootstrap = vec![Address { host: bootstrap.to_owned(), port: 9092 }];
    Arc::new(Cluster {
        name: "east".to_owned(),
        bootstrap,
        tls: None,
        sasl: None,
        advertised: Default::default(),
    })
}

/// Metadata v13 with one topic of these leaders, all brokers at `host`.
fn metadata(host: &str, cluster_id: &str, throttle_ms: i32, leaders: &[i32]) -> Vec<u8> {
    let broker = |id| {
        metadata::MetadataResponseBroker::default()
            .with_node_id(BrokerId(id))
            .with_host(StrBytes::from_string(host.to_owned()))
            .with_port(9092)
    };
    let partition = |(index, leader): (usize, &i32)| {
        metadata::MetadataResponsePartition::default()
            .with_partition_index(index as i32)
            .with_leader_id(BrokerId(*leader))
    };
    let topic = metadata::MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_static_str("orders"))))
        .with_partitions(leaders.iter().enumerate().map(partition).collect());
    let mut out = Vec::new();
    kafka::MetadataResponse::default()
        .with_throttle_time_ms(throttle_ms)
        .with_cluster_id(Some(StrBytes::from_string(cluster_id.to_owned())))
        .with_brokers(vec![broker(1), broker(2)])
        .with_topics(vec![topic])
        .encode(&mut out, 13)
        .unwrap();
    out
}

/// A cluster that is watched, and the broker's end of what the watcher dials.
async fn watched(
    first: Vec<u8>,
) -> (ClusterHandle, Env, DuplexStream, mpsc::Receiver<DuplexStream>) {
    watched_where(first, [10, 0, 0, 1]).await
}

/// The same where every name resolves to this.
async fn watched_where(
    first: Vec<u8>,
    ip: [u8; 4],
) -> (ClusterHandle, Env, DuplexStream, mpsc::Receiver<DuplexStream>) {
    let (mut script, mut accepted) = Script::new();
    script.addresses = Some(vec![(ip, 9092).into()]);
    let env = Env::of(Arc::new(script));
    let broker = async {
        let mut stream = accepted.recv().await.unwrap();
        greet(&mut stream).await;
        replies(&mut stream, &first).await;
        stream
    };
    let (watching, stream) = tokio::join!(watch(env.clone(), config("b1"), Side::Source), broker);
    let (handle, looks) = watching.unwrap();
    tokio::task::spawn_local(looks);
    (handle, env, stream, accepted)
}

async fn replies(stream: &mut DuplexStream, body: &[u8]) {
    let request = read_request(stream).await.unwrap();
    stream.write_all(&answer(&request, body)).await.unwrap();
}

#[test]
fn a_look_every_five_seconds_and_when_asked() {
    on_a_lane(async {
        let (mut handle, _env, mut stream, _accepted) = watched(metadata("b", "e", 0, &[1])).await;
        let map = handle.map();
        assert_eq!((map.generation, map.cluster_id.as_deref()), (1, Some("e")));
        assert_eq!(handle.last_error(), None);

        let started = Instant::now();
        replies(&mut stream, &metadata("b", "e", 0, &[1])).await;
        assert_eq!(started.elapsed().as_secs(), 5);
        replies(&mut stream, &metadata("b", "e", 0, &[2, 1])).await;
        handle.changed().await;
        assert_eq!(started.elapsed().as_secs(), 10, "what has not changed is not news");
        assert_eq!(handle.map().topics["orders"].partitions.len(), 2);

        // Asked three times: one look, and not at once.
        let asked = Instant::now();
        (0..3).for_each(|_| handle.refresh());
        replies(&mut stream, &metadata("b", "e", 0, &[2, 1])).await;
        assert_eq!(asked.elapsed(), Duration::from_millis(250));
        replies(&mut stream, &metadata("b", "e", 7_000, &[2, 1])).await;
        assert_eq!(asked.elapsed().as_secs(), 5);
        // A broker that throttles is obeyed, refresh or not.
        handle.refresh();
        replies(&mut stream, &metadata("b", "e", 0, &[2, 1])).await;
        assert_eq!(asked.elapsed().as_secs(), 12);
    });
}

#[test]
fn certificates_of_brokers_that_are_gone_are_forgotten() {
    on_a_lane(async {
        let (handle, _env, mut stream, _accepted) = watched(metadata("b", "e", 0, &[1])).await;
        let cell = handle.shared.security.cell();
        for (host, end) in [("gone", 10), ("b", 20), ("b1", 30)] {
            cell.saw(&Address { host: host.to_owned(), port: 9092 }, end);
        }
        let first = || cell.broker_expiry().unwrap();
        assert_eq!(first().broker, "gone:9092");
        replies(&mut stream, &metadata("b", "e", 0, &[1])).await;
        // The next request: the answer before it was taken.
        let request = read_request(&mut stream).await.unwrap();
        assert_eq!((first().broker.as_str(), first().at), ("b:9092", 20));
        stream.write_all(&answer(&request, &metadata("c", "e", 0, &[1]))).await.unwrap();
        read_request(&mut stream).await.unwrap();
        // The name that the configuration has for the one that is asked stays.
        assert_eq!((first().broker.as_str(), first().at), ("b1:9092", 30));
    });
}

#[test]
fn a_broker_that_is_away_is_not_mistaken_for_another() {
    on_a_lane(async {
        let (handle, env, _stream, mut accepted) = watched(metadata("b", "e", 0, &[1])).await;
        let error = handle.connect(&env, 3).await.map(|_| ()).unwrap_err();
        assert_eq!((error.code, error.action), (Code(15), Action::Retry), "{error}");
        assert!(accepted.try_recv().is_err(), "nobody was dialled in its place");
    });
}

#[test]
fn the_old_map_stays_while_the_cluster_lies_or_is_away() {
    on_a_lane(async {
        let (mut handle, _env, mut stream, mut accepted) =
            watched(metadata("b", "e", 0, &[1])).await;
        replies(&mut stream, &metadata("b", "another", 0, &[2])).await;
        handle.changed().await;
        let error = handle.last_error().unwrap();
        assert_eq!(error.code, Code(26), "{error}");
        assert!(error.message.contains("another cluster"), "{error}");
        assert_eq!(handle.map().topics["orders"].partitions[0].leader, 1);

        // A refused answer costs the connection; the next is dialled after a back-off.
        let mut stream = accepted.recv().await.unwrap();
        greet(&mut stream).await;
        replies(&mut stream, &metadata("b", "e", 0, &[2])).await;
        handle.changed().await;
        assert_eq!(handle.last_error(), None);
        assert_eq!(handle.map().topics["orders"].partitions[0].leader, 2);

        // Gone: attempts get rarer, the map stays.
        drop(stream);
        let started = Instant::now();
        let mut attempts = 0;
        while started.elapsed() < Duration::from_secs(60) {
            // Bootstrap b1, then the two advertised addresses, which are one.
            drop(accepted.recv().await.unwrap());
            attempts += 1;
        }
        assert!((6..60).contains(&attempts), "{attempts}");
        assert!(handle.last_error().is_some());
        assert_eq!(handle.map().topics["orders"].partitions[0].leader, 2);
    });
}

#[test]
fn watching_ends_with_the_last_handle() {
    on_a_lane(async {
        let (handle, _env, mut stream, _accepted) = watched(metadata("b", "e", 0, &[1])).await;
        let clone = handle.clone();
        drop(handle);
        replies(&mut stream, &metadata("b", "e", 0, &[1])).await;
        drop(clone);
        assert!(read_request(&mut stream).await.is_none());
    });
}

#[test]
fn an_unreachable_cluster_is_watched_all_the_same() {
    on_a_lane(async {
        let (mut script, _accepted) = Script::new();
        script.peers = None;
        let env = Env::of(Arc::new(script));
        let (handle, _looks) = watch(env, config("b1"), Side::Target).await.unwrap();
        assert_eq!(handle.map().generation, 0);
        let error = handle.last_error().unwrap();
        assert_eq!((error.code, error.side), (Code(15), Side::Target));
    });
}

#[test]
fn a_broker_that_advertises_this_machine_is_not_dialled() {
    on_a_lane(async {
        let (handle, env, _stream, mut accepted) =
            watched(metadata("localhost", "e", 0, &[1])).await;
        let error = handle.connect(&env, 1).await.unwrap_err();
        assert_eq!(error.code, Code(11), "{error}");
        assert!(error.message.contains("localhost:9092, which is this machine"), "{error}");
        assert!(error.fix.contains("clusters.east.advertised.allow"), "{error}");
        assert!(accepted.try_recv().is_err(), "nothing was dialled");
    });
}

#[test]
fn a_broker_s_name_that_leads_to_this_machine_is_not_dialled() {
    on_a_lane(async {
        let metadata = metadata("kafka-7.east", "e", 0, &[1]);
        let (handle, env, _stream, mut accepted) = watched_where(metadata, [127, 0, 0, 1]).await;
        let error = handle.connect(&env, 1).await.unwrap_err();
        assert_eq!((error.code, error.side), (Code(11), Side::Source), "{error}");
        let named =
            "broker 1 advertises kafka-7.east:9092, which is 127.0.0.1 from here, this machine";
        assert!(error.message.contains(named), "{error}");
        assert!(error.fix.contains("clusters.east.advertised.allow"), "{error}");
        assert!(accepted.try_recv().is_err(), "nothing was dialled");
    });
}

#[test]
fn offsets_are_asked_of_each_leader_and_only_what_was_asked_is_taken() {
    on_a_lane(async {
        let leaders = [1, 2, -1];
        let (handle, env, _stream, mut accepted) = watched(metadata("b", "e", 0, &leaders)).await;
        let broker = tokio::task::spawn_local(async move {
            let mut held = Vec::new();
            for offset in [10i64, 20] {
                let mut stream = accepted.recv().await.unwrap();
                greet(&mut stream).await;
                let request = read_request(&mut stream).await.unwrap();
                assert_eq!(request.api, 2);
                // Answers for partitions 0 to 5, whatever was asked.
                let partition = |index| {
                    kafka::list_offsets_response::ListOffsetsPartitionResponse::default()
                        .with_partition_index(index)
                        .with_offset(offset + i64::from(index))
                };
                let topic = kafka::list_offsets_response::ListOffsetsTopicResponse::default()
                    .with_name(TopicName(StrBytes::from_static_str("orders")))
                    .with_partitions((0..6).map(partition).collect());
                let mut body = Vec::new();
                kafka::ListOffsetsResponse::default()
                    .with_topics(vec![topic])
                    .encode(&mut body, request.version)
                    .unwrap();
                stream.write_all(&answer(&request, &body)).await.unwrap();
                held.push(stream);
            }
            held
        });
        let connections = Connections::new(handle);
        let wanted = [0, 1, 2, 9].map(|index| ("orders".to_owned(), index));
        let committed = Isolation::ReadCommitted;
        let listed = list_offsets_by_leader(&connections, &env, committed, LATEST, wanted).await;
        assert!(listed.errors.is_empty(), "{:?}", listed.errors);
        let found: Vec<(i32, ErrorCode)> =
            listed.offsets.iter().map(|((_, index), listed)| (*index, listed.error)).collect();
        let none = ErrorCode::LEADER_NOT_AVAILABLE;
        let fine = ErrorCode::NONE;
        assert_eq!(found, [(0, fine), (1, fine), (2, none), (9, none)]);
        drop(broker.await);
    });
}
