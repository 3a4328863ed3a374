//! Every check of a produce, each named for its rule: P before the log, L in it.

use bytes::Bytes;
use kafka_protocol::messages::produce_request::ProduceRequest;

use super::super::batch::{CONTROL, DELETE_HORIZON, LOG_APPEND_TIME, TRANSACTIONAL};
use super::super::{Cluster, EmbeddedCluster, Generation, Options};
use super::kit::{
    Client, Craft, batch, cluster, now_ms, partitions, produce, topic_name, transactional,
};
use crate::wire::error_code::ErrorCode as E;

fn plain() -> EmbeddedCluster {
    cluster(Options::default(), &[])
}

async fn code_of(cluster: &Cluster, craft: Craft) -> E {
    E(Client::to(cluster).await.produce_one(craft.build()).await.0)
}

fn log_end(cluster: &Cluster) -> i64 {
    cluster.dump("t", 0).unwrap().log_end
}

#[tokio::test]
async fn p1_a_transactional_batch_without_an_id_refuses_the_whole_request() {
    let cluster = plain();
    let bad = Craft::records(1).producer(5, 0, 0).with(|head| head.attributes |= TRANSACTIONAL);
    let parts = [(0, batch(1)), (1, bad.build())];
    let answers = Client::to(&cluster).await.produce(&parts).await;
    let codes: Vec<i16> = answers.iter().map(|answer| answer.error_code).collect();
    assert_eq!(codes, [53, 53]);
    assert_eq!(log_end(&cluster), 0);
}

#[tokio::test]
async fn p2_a_partition_that_is_not_there() {
    let cluster = cluster(Options { auto_create_topics: false, ..Options::default() }, &[]);
    let mut client = Client::to(&cluster).await;
    let answer = client.produce(&[(9, batch(1))]).await;
    assert_eq!(answer[0].error_code, 3);
    let answer = partitions(client.call(9, &produce("unknown", &[(0, batch(1))])).await);
    assert_eq!(answer[0].error_code, 3);
    let answer = partitions(client.call(13, &produce("", &[(0, batch(1))])).await);
    assert_eq!(answer[0].error_code, 100, "by topic id");
}

#[tokio::test]
async fn p3_exactly_one_batch_of_magic_2() {
    let cluster = plain();
    let mut client = Client::to(&cluster).await;
    let two = [batch(1), batch(1)].concat();
    assert_eq!(client.produce_one(Bytes::new()).await.0, 87);
    assert_eq!(client.produce_one(Bytes::from(two)).await.0, 87);
    for (magic, code) in [(0, 87), (1, 87), (3, 2)] {
        let odd = Craft::records(1).with(|head| head.magic = magic);
        assert_eq!(client.produce_one(odd.build()).await.0, code, "magic {magic}");
    }
    assert_eq!(log_end(&cluster), 0);
}

#[tokio::test]
async fn p3_zstd_needs_version_7() {
    let cluster = plain();
    let mut client = Client::to(&cluster).await;
    let zstd = Craft::records(1).with(|head| head.attributes = 4).build();
    for (version, code) in [(6, 76), (7, 0)] {
        let answer = client.call(version, &produce("t", &[(0, zstd.clone())])).await;
        assert_eq!(partitions(answer)[0].error_code, code, "version {version}");
    }
}

#[tokio::test]
async fn p4_of_a_partition_named_twice_the_last_entry_wins() {
    let cluster = plain();
    let mut client = Client::to(&cluster).await;
    let answers = client.produce(&[(0, batch(3)), (0, batch(1))]).await;
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].error_code, 0);
    assert_eq!((log_end(&cluster), cluster.dropped_batches()), (1, 1));
}

#[tokio::test]
async fn p5_a_partial_second_batch_is_dropped_in_silence() {
    let cluster = plain();
    let cut = [batch(2), batch(1).slice(..30)].concat();
    assert_eq!(Client::to(&cluster).await.produce_one(Bytes::from(cut)).await, (0, 0));
    assert_eq!(log_end(&cluster), 2);
}

#[tokio::test]
async fn p6_acks_are_minus_one_zero_or_one() {
    let cluster = plain();
    let mut client = Client::to(&cluster).await;
    for (acks, code) in [(2, 21), (1, 0)] {
        let request = produce("t", &[(0, batch(1))]).with_acks(acks);
        assert_eq!(partitions(client.call(9, &request).await)[0].error_code, code);
    }
}

#[tokio::test]
async fn acks_0_gets_no_answer_and_a_refusal_closes() {
    let cluster = plain();
    let mut client = Client::to(&cluster).await;
    let silent = |batch| produce("t", &[(0, batch)]).with_acks(0);
    client.send(9, &silent(batch(2))).await;
    assert_eq!(client.produce_one(batch(1)).await, (0, 2), "the next answer is the next request's");
    client.send(9, &silent(Bytes::new())).await;
    assert!(client.receive::<ProduceRequest>(9).await.is_none());
}

#[tokio::test]
async fn p7_internal_topics_are_not_written() {
    let cluster = plain();
    cluster.create_topic("__consumer_offsets", 1, 1, &[]).unwrap();
    let request = produce("__consumer_offsets", &[(0, batch(1))]);
    let answer = Client::to(&cluster).await.call(9, &request).await;
    assert_eq!(partitions(answer)[0].error_code, 17);
}

#[tokio::test]
async fn p8_two_producers_in_one_transactional_request() {
    let cluster = plain();
    let of = |id| {
        let craft = Craft::records(1).producer(id, 0, 0);
        craft.with(|head| head.attributes |= TRANSACTIONAL).build()
    };
    let request = transactional(produce("t", &[(0, of(1)), (1, of(2))]), "x");
    let answers = partitions(Client::to(&cluster).await.call(9, &request).await);
    assert!(answers.iter().all(|answer| answer.error_code == 49));
}

#[tokio::test]
async fn p9_too_few_in_sync_replicas_append_nothing() {
    let options = Options { brokers: 2, ..Options::default() };
    let cluster = cluster(options, &[("min.insync.replicas", "2")]);
    let mut client = Client::to(&cluster).await;
    cluster.set_isr("t", 0, &[1]).unwrap();
    assert_eq!(client.produce_one(batch(1)).await.0, 19);
    assert_eq!(log_end(&cluster), 0);
    let one = produce("t", &[(0, batch(1))]).with_acks(1);
    assert_eq!(partitions(client.call(9, &one).await)[0].error_code, 0, "acks=1 does not ask");
    let dump = cluster.dump("t", 0).unwrap();
    assert_eq!((dump.log_end, dump.high_watermark), (1, 0), "nobody sees it yet");
    cluster.set_isr("t", 0, &[1, 2]).unwrap();
    assert_eq!(client.produce_one(batch(1)).await.0, 0);
}

#[tokio::test]
async fn a_minimum_above_the_replicas_counts_as_all_of_them() {
    let cluster = cluster(Options::default(), &[("min.insync.replicas", "3")]);
    assert_eq!(Client::to(&cluster).await.produce_one(batch(1)).await.0, 0);
}

#[tokio::test]
async fn error_7_means_appended_maybe_not_replicated() {
    let cluster = plain();
    cluster.freeze("t", 0, true).unwrap();
    let mut client = Client::to(&cluster).await;
    assert_eq!(client.produce_one(Craft::records(1).producer(9, 0, 0).build()).await.0, 7);
    assert_eq!(log_end(&cluster), 1);
    cluster.freeze("t", 0, false).unwrap();
    let again = client.produce_one(Craft::records(1).producer(9, 0, 0).build()).await;
    assert_eq!(again, (0, 0), "a retry finds its batch");
}

#[tokio::test]
async fn an_acks_all_that_waits_ends_when_the_watermark_moves() {
    let cluster = plain();
    cluster.freeze("t", 0, true).unwrap();
    let mut client = Client::to(&cluster).await;
    let request = produce("t", &[(0, batch(1))]).with_timeout_ms(30_000);
    client.send(9, &request).await;
    while log_end(&cluster) == 0 {
        tokio::task::yield_now().await;
    }
    cluster.freeze("t", 0, false).unwrap();
    let answer = client.receive::<ProduceRequest>(9).await.unwrap();
    assert_eq!(partitions(answer)[0].error_code, 0);
}

#[tokio::test]
async fn l1_base_offset_is_zero() {
    let craft = Craft::records(1).with(|head| head.base_offset = 1);
    assert_eq!(code_of(&plain(), craft).await, E::INVALID_RECORD);
}

#[tokio::test]
async fn l2_the_batch_is_no_larger_than_the_topic_allows() {
    let len = batch(2).len().to_string();
    let cluster = cluster(Options::default(), &[("max.message.bytes", &len)]);
    assert_eq!(code_of(&cluster, Craft::records(2)).await, E::NONE);
    assert_eq!(code_of(&cluster, Craft::records(3)).await, E::MESSAGE_TOO_LARGE);
}

#[tokio::test]
async fn l3_the_checksum_holds_and_the_batch_is_whole() {
    let cluster = plain();
    let craft = Craft { broken_crc: true, ..Craft::records(1) };
    assert_eq!(code_of(&cluster, craft).await, E::CORRUPT_MESSAGE);
    let mut short = batch(1)[..60].to_vec();
    short[8..12].copy_from_slice(&48i32.to_be_bytes());
    assert_eq!(Client::to(&cluster).await.produce_one(Bytes::from(short)).await.0, 2);
}

#[tokio::test]
async fn l4_an_unknown_codec_is_a_server_error() {
    for codec in 5..8 {
        let craft = Craft::records(1).with(|head| head.attributes = codec);
        assert_eq!(code_of(&plain(), craft).await, E::UNKNOWN_SERVER_ERROR, "codec {codec}");
    }
}

#[tokio::test]
async fn l5_to_l8_what_a_header_may_not_say() {
    let cluster = plain();
    let cases: [(&str, Craft); 6] = [
        ("empty", Craft::of(&[]).with(|head| head.last_offset_delta = 0)),
        ("empty range", Craft::records(1).with(|head| head.last_offset_delta = -1)),
        ("gappy", Craft::records(2).with(|head| head.last_offset_delta = 5)),
        ("gappy, zstd", {
            let craft = Craft::records(2).with(|head| head.attributes = 4);
            craft.with(|head| head.last_offset_delta = 5)
        }),
        ("control", Craft::records(1).with(|head| head.attributes = CONTROL)),
        ("no sequence", Craft::records(1).producer(3, 0, -1)),
    ];
    for (name, craft) in cases {
        assert_eq!(code_of(&cluster, craft).await, E::INVALID_RECORD, "{name}");
    }
    assert_eq!(log_end(&cluster), 0);
    let stray = Craft::records(1).producer(-1, 7, 42);
    assert_eq!(code_of(&cluster, stray).await, E::NONE, "stray epoch and sequence without an id");
}

fn strided() -> Craft {
    let record = |delta| (delta, Some("k".to_owned()), None);
    Craft::of(&[record(0), record(3), record(8)])
}

#[tokio::test]
async fn l9_compressed_records_count_from_zero() {
    for codec in 1..5 {
        let craft = strided().with(|head| head.attributes = codec);
        assert_eq!(code_of(&plain(), craft).await, E::UNKNOWN_SERVER_ERROR, "codec {codec}");
    }
}

#[tokio::test]
async fn l10_uncompressed_deltas_are_not_looked_at() {
    let cluster = plain();
    assert_eq!(code_of(&cluster, strided()).await, E::NONE);
    assert_eq!(log_end(&cluster), 3, "the log holds offsets 0, 3, 8 under an end of 3");
}

#[tokio::test]
async fn l11_the_count_matches_the_records() {
    for codec in 0..5 {
        for count in [1, 3] {
            let craft = Craft::records(2).with(|head| {
                head.attributes = codec;
                (head.count, head.last_offset_delta) = (count, count - 1);
            });
            let code = code_of(&plain(), craft).await;
            assert_eq!(code, E::INVALID_RECORD, "codec {codec}, count {count}");
        }
    }
}

#[tokio::test]
async fn l12_a_compacted_topic_wants_keys() {
    let cluster = cluster(Options::default(), &[("cleanup.policy", "compact")]);
    let keyed = |key: Option<&str>| (0, key.map(str::to_owned), None);
    let mixed = [keyed(Some("a")), (1, None, None)];
    let answer = Client::to(&cluster).await.produce(&[(0, Craft::of(&mixed).build())]).await;
    assert_eq!(answer[0].error_code, 87);
    let bad: Vec<i32> = answer[0].record_errors.iter().map(|error| error.batch_index).collect();
    assert_eq!(bad, [1]);
    assert_eq!(code_of(&cluster, Craft::of(&[keyed(Some(""))])).await, E::NONE, "empty is a key");
}

#[tokio::test]
async fn l13_timestamps_have_bounds_and_the_default_differs() {
    let soon = now_ms() + 2 * 3600 * 1000;
    for (generation, code) in
        [(Generation::Kafka39, E::NONE), (Generation::Kafka43, E::INVALID_TIMESTAMP)]
    {
        let cluster = cluster(Options { generation, ..Options::default() }, &[]);
        assert_eq!(code_of(&cluster, Craft::records(1).at(soon)).await, code, "{generation:?}");
    }
    let old = cluster(Options::default(), &[("message.timestamp.before.max.ms", "1000")]);
    let answer = Client::to(&old).await.produce(&[(0, Craft::records(2).at(5).build())]).await;
    assert_eq!(answer[0].error_code, 32);
    assert_eq!(answer[0].record_errors.len(), 2);
    assert_eq!(code_of(&old, Craft::records(1).at(-1)).await, E::NONE, "no timestamp, no bound");
}

#[tokio::test]
async fn l14_l15_log_append_time() {
    let marked = || Craft::records(1).at(77).with(|head| head.attributes = LOG_APPEND_TIME);
    let append = cluster(Options::default(), &[("message.timestamp.type", "LogAppendTime")]);
    assert_eq!(code_of(&append, marked()).await, E::INVALID_TIMESTAMP);
    let answer = Client::to(&append).await.produce(&[(0, Craft::records(1).at(77).build())]).await;
    assert!(answer[0].log_append_time_ms > 77);
    let stored = super::super::batch::Head::read(&append.dump("t", 0).unwrap().batches[0]).unwrap();
    assert!(stored.has(LOG_APPEND_TIME));
    assert_eq!(stored.max_timestamp, answer[0].log_append_time_ms);

    let create = plain();
    let odd = marked().with(|head| head.max_timestamp = 99);
    assert_eq!(code_of(&create, odd).await, E::NONE);
    let stored = super::super::batch::Head::read(&create.dump("t", 0).unwrap().batches[0]).unwrap();
    assert!(!stored.has(LOG_APPEND_TIME), "the bit is cleared");
    assert_eq!((stored.base_timestamp, stored.max_timestamp), (77, 99), "the times are kept");
}

#[tokio::test]
async fn l16_a_topic_with_a_codec_of_its_own_encodes_again() {
    for (name, codec) in [("uncompressed", 0), ("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4)]
    {
        let cluster = cluster(Options::default(), &[("compression.type", name)]);
        for source in 0..5 {
            let craft = Craft::records(50).with(|head| head.attributes = source);
            let (sent, block) = (craft.clone().build(), craft.block.clone());
            assert_eq!(code_of(&cluster, craft).await, E::NONE, "{source} to {name}");
            let stored = cluster.dump("t", 0).unwrap().batches.pop().unwrap();
            let head = super::super::batch::Head::read(&stored).unwrap();
            assert_eq!(head.codec(), codec);
            assert!(super::super::batch::crc_holds(&stored, &head));
            let payload = stored.slice(61..);
            assert_eq!(super::super::records::decompress(&head, &payload).unwrap(), block);
            assert_eq!(stored[61..] == sent[61..], source == codec, "{source} to {name}");
        }
        let code = code_of(&cluster, strided().with(|head| head.attributes = 1)).await;
        let refused = if codec == 1 { E::UNKNOWN_SERVER_ERROR } else { E::NONE };
        assert_eq!(code, refused, "a rebuild renumbers");
    }
}

#[tokio::test]
async fn what_is_not_checked_is_stored_as_sent() {
    let cluster = plain();
    let odd = 0x80 | DELETE_HORIZON;
    let craft = Craft::records(2).with(|head| head.attributes = odd).with(|h| h.leader_epoch = 42);
    let sent = craft.clone().build();
    assert_eq!(code_of(&cluster, craft).await, E::NONE);
    let stored = cluster.dump("t", 0).unwrap().batches.remove(0);
    assert_eq!(stored[16..], sent[16..], "from the magic on");
    let epoch = cluster.dump("t", 0).unwrap().leader_epoch;
    assert_eq!(stored[12..16], epoch.to_be_bytes(), "the leader's own epoch");

    let wrong = Craft::records(1).with(|head| (head.attributes, head.max_timestamp) = (odd, 1));
    let right = wrong.head.base_timestamp;
    assert_eq!(code_of(&cluster, wrong).await, E::NONE);
    let stored = cluster.dump("t", 0).unwrap().batches.remove(1);
    let head = super::super::batch::Head::read(&stored).unwrap();
    assert_eq!(head.max_timestamp, right, "a wrong maximum is put right");
    assert_eq!(head.attributes, DELETE_HORIZON, "and unknown bits are lost with it");
    assert!(super::super::batch::crc_holds(&stored, &head));
}

#[tokio::test]
async fn every_codec_is_taken_and_kept_byte_for_byte() {
    let cluster = plain();
    for codec in 0..5i16 {
        let sent = Craft::records(50).with(|head| head.attributes = codec).build();
        let (code, base) = Client::to(&cluster).await.produce_one(sent.clone()).await;
        assert_eq!((code, base), (0, i64::from(codec) * 50), "codec {codec}");
        let stored = cluster.dump("t", 0).unwrap().batches.pop().unwrap();
        assert_eq!(stored[16..], sent[16..], "codec {codec}");
    }
}

#[tokio::test]
async fn producer_state_over_the_wire() {
    let cluster = plain();
    let mut client = Client::to(&cluster).await;
    let of = |epoch, sequence, count| Craft::records(count).producer(7, epoch, sequence).build();
    assert_eq!(client.produce_one(of(0, 500, 3)).await, (0, 0), "any first sequence");
    assert_eq!(client.produce_one(of(0, 504, 1)).await.0, 45);
    assert_eq!(client.produce_one(of(0, 503, 1)).await, (0, 3));
    assert_eq!(client.produce_one(of(0, 500, 3)).await, (0, 0), "the original offsets");
    assert_eq!(client.produce_one(of(1, 1, 1)).await.0, 45, "a new epoch starts at 0");
    assert_eq!(client.produce_one(of(1, 0, 1)).await, (0, 4));
    assert_eq!(client.produce_one(of(0, 504, 1)).await.0, 47);
    cluster.drop_producer_state("t", 0).unwrap();
    assert_eq!(client.produce_one(of(0, 9, 1)).await, (0, 5), "without state, anything");
}

#[tokio::test]
async fn old_records_lose_their_state_at_the_next_scan() {
    let cluster = plain();
    let mut client = Client::to(&cluster).await;
    let old = now_ms() - 25 * 3600 * 1000;
    let of = |at, sequence| Craft::records(1).producer(7, 0, sequence).at(at).build();
    client.produce_one(of(old, 0)).await;
    assert_eq!(client.produce_one(of(old, 5)).await.0, 45);
    cluster.expire_producers();
    assert_eq!(client.produce_one(of(old, 5)).await, (0, 1));
    client.produce_one(of(now_ms(), 6)).await;
    cluster.expire_producers();
    assert_eq!(client.produce_one(of(old, 5)).await.0, 0, "a duplicate again: state was kept");
    assert_eq!(log_end(&cluster), 3);
}

#[tokio::test]
async fn a_null_target_acks_and_keeps_nothing() {
    let cluster = cluster(Options { null_target: true, ..Options::default() }, &[]);
    let mut client = Client::to(&cluster).await;
    assert_eq!(client.produce_one(batch(3)).await, (0, 0));
    assert_eq!(client.produce_one(batch(1)).await, (0, 3));
    let dump = cluster.dump("t", 0).unwrap();
    assert_eq!((dump.log_start, dump.log_end, dump.batches.len()), (4, 4, 0));
}

#[tokio::test]
async fn a_topic_name_makes_no_difference_to_its_id() {
    let cluster = plain();
    let id = cluster.create_topic("by-id", 1, 1, &[]).unwrap();
    let mut request = produce("", &[(0, batch(2))]);
    request.topic_data[0].topic_id = id;
    request.topic_data[0].name = topic_name("");
    let answer = Client::to(&cluster).await.call(13, &request).await;
    assert_eq!(answer.responses[0].topic_id, id);
    assert_eq!(partitions(answer)[0].error_code, 0);
    assert_eq!(cluster.dump("by-id", 0).unwrap().log_end, 2);
}
