//! What Fetch and ListOffsets hand out: the source's data path, and how a start reads the target back.

use bytes::Bytes;

use super::super::versions::Role;
use super::bench::{Bench, Place, batches};
use super::rule::{Outcome, Rule, Why, expect, expect_error, expect_one_of, found};
use crate::cluster::admin;
use crate::wire::batch::Codec;
use crate::wire::common::TopicRef;
use crate::wire::error_code::ErrorCode;
use crate::wire::fetch::{FetchRequest, TOPIC_IDS_SINCE};
use crate::wire::list_offsets::{CONSUMER, EARLIEST, LATEST, LOG_END_READER};

const BOTH: Role = Role::Both;
const SOURCE: Role = Role::Source;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "fetch.whole_batch",
        role: BOTH,
        optional: false,
        states: "an answer begins with the whole batch that holds the offset asked for",
        relies: "batches are copied as they are; what lies below the wanted offset is cut out",
        source: "FileRecords.searchForOffsetFromPosition",
        otherwise: "not a source: batches would have to be joined from parts",
        check: |bench| Box::pin(whole_batch(bench)),
    },
    Rule {
        id: "fetch.first_batch",
        role: BOTH,
        optional: false,
        states: "the first batch comes whole, however small the limits on bytes",
        relies: "a batch larger than the fetch size does not stop its partition",
        source: "ReplicaManager.readFromLog, KIP-74",
        otherwise: "a large batch stops its partition for ever",
        check: |bench| Box::pin(first_batch(bench)),
    },
    Rule {
        id: "fetch.limit",
        role: BOTH,
        optional: false,
        states: "behind the first batch, partition_max_bytes is kept",
        relies: "memory stays under the figure that is printed at start (I5)",
        source: "LogSegment.read",
        otherwise: "answers are larger than asked for; over the frame limit the connection is closed",
        check: |bench| Box::pin(limit(bench)),
    },
    Rule {
        id: "fetch.end",
        role: BOTH,
        optional: false,
        states: "at the log's end an answer is empty, without error, and tells the high watermark",
        relies: "lag, and `run --until-caught-up`",
        source: "ReplicaManager.readFromLog",
        otherwise: "not a source: the end is not known",
        check: |bench| Box::pin(end(bench)),
    },
    Rule {
        id: "fetch.out_of_range",
        role: BOTH,
        optional: false,
        states: "an offset past the end or below the log's start is refused with OFFSET_OUT_OF_RANGE",
        relies: "loss at the source is never silent (I6)",
        source: "UnifiedLog.read",
        otherwise: "not a source: lost records would not be noticed",
        check: |bench| Box::pin(out_of_range(bench)),
    },
    Rule {
        id: "fetch.deleted",
        role: SOURCE,
        optional: true,
        states: "after DeleteRecords the log's start is told, and a batch that holds deleted records comes whole",
        relies: "the log's start is what a gap is measured by; deleted records are cut out by offset",
        source: "UnifiedLog.maybeIncrementLogStartOffset",
        otherwise: "gaps that DeleteRecords leaves are named with wrong offsets",
        check: |bench| Box::pin(deleted(bench)),
    },
    Rule {
        id: "fetch.session",
        role: SOURCE,
        optional: false,
        states: "a fetch session answers with the partitions that have news, and with no others",
        relies: "thousands of idle partitions cost nothing",
        source: "FetchSession, KIP-227",
        otherwise: "many partitions cost much on both sides; a broker without sessions answers id 0",
        check: |bench| Box::pin(session(bench)),
    },
    Rule {
        id: "fetch.session_errors",
        role: SOURCE,
        optional: false,
        states: "a session that is not known, or an epoch that is not the next, is refused as a whole",
        relies: "the session is opened anew, and no partition is forgotten",
        source: "FetchManager.newContext, KIP-227",
        otherwise: "partitions may stand still unseen after a broker forgot a session",
        check: |bench| Box::pin(session_errors(bench)),
    },
    Rule {
        id: "fetch.forgotten",
        role: SOURCE,
        optional: false,
        states: "a partition that was forgotten leaves the session",
        relies: "a mirror that waits for room is not sent data that there is no room for",
        source: "FetchSession.update, KIP-227",
        otherwise: "a slow target makes the source send the same data again and again",
        check: |bench| Box::pin(forgotten(bench)),
    },
    Rule {
        id: "fetch.topic_id",
        role: SOURCE,
        optional: true,
        states: "Fetch by topic id (v13) refuses an id that is no topic's with UNKNOWN_TOPIC_ID",
        relies: "a topic that was deleted and made again is not taken for the old one",
        source: "KafkaApis.handleFetchRequest, KIP-516",
        otherwise: "a re-created topic is noticed by its metadata only, a moment later",
        check: |bench| Box::pin(topic_id(bench)),
    },
    Rule {
        id: "fetch.leader_epoch",
        role: BOTH,
        optional: false,
        states: "a leader epoch that the broker has not reached is refused with UNKNOWN_LEADER_EPOCH",
        relies: "a leader that was replaced does not serve what it lost",
        source: "Partition.checkCurrentLeaderEpoch, KIP-320",
        otherwise: "after an unclean change of leader records may be copied that the cluster no longer has",
        check: |bench| Box::pin(leader_epoch(bench)),
    },
    Rule {
        id: "fetch.diverging",
        role: SOURCE,
        optional: true,
        states: "last_fetched_epoch beyond that epoch's end is answered with where the epoch ends",
        relies: "a log that was cut below our position is found at once (I6)",
        source: "Partition.readRecords, KIP-595",
        otherwise: "a truncated source is noticed by OFFSET_OUT_OF_RANGE only",
        check: |bench| Box::pin(diverging(bench)),
    },
    Rule {
        id: "list.ends",
        role: BOTH,
        optional: false,
        states: "ListOffsets tells the first offset (-2) and the one after the last (-1)",
        relies: "where a first copy begins, lag, and how far the target is read back",
        source: "Partition.fetchOffsetForTimestamp",
        otherwise: "neither a source nor a target",
        check: |bench| Box::pin(ends(bench)),
    },
    Rule {
        id: "list.log_end",
        role: Role::Target,
        optional: false,
        states: "replica id 2147483647 is told the log's end, not the high watermark",
        relies: "a start waits until all that a former life wrote is replicated (rule R2)",
        source: "ReplicaManager.fetchOffset, ListOffsetsRequest.DEBUGGING_REPLICA_ID",
        otherwise: "after a change of leader a start may not see a former life's last batch",
        check: |bench| Box::pin(log_end(bench)),
    },
    Rule {
        id: "list.time",
        role: SOURCE,
        optional: false,
        states: "a time is answered with the first record of that time or later, inside a batch too",
        relies: "start: {timestamp: ...}",
        source: "LogSegment.findOffsetByTimestamp",
        otherwise: "do not start by time",
        check: |bench| Box::pin(time(bench)),
    },
];

/// A partition with four batches of ten.
async fn filled(bench: &mut Bench<'_>) -> Result<Place, Why> {
    let place = bench.place().await?;
    for _ in 0..4 {
        let produced = place.produce(bench.small(10).packed(Codec::Gzip).bytes()?).await?;
        expect_error("Produce", produced.error, ErrorCode::NONE)?;
    }
    Ok(place)
}

async fn whole_batch(bench: &mut Bench<'_>) -> Outcome {
    let place = filled(bench).await?;
    for offset in [10, 17, 19] {
        let got = place.batches(offset).await?;
        let (header, _) = found("a batch", got.first())?;
        expect(&format!("offset {offset}"), (header.base_offset, header.last_offset()), (10, 19))?;
    }
    Ok(())
}

async fn first_batch(bench: &mut Bench<'_>) -> Outcome {
    let place = filled(bench).await?;
    let small = place.fetch_with(17, |request, partition| {
        (request.max_bytes, partition.max_bytes) = (1, 1);
    });
    let got = batches(&small.await?)?;
    expect("whole batches", got.len(), 1)?;
    expect("the first of them", got.first().map(|(header, _)| header.base_offset), Some(10))
}

async fn limit(bench: &mut Bench<'_>) -> Outcome {
    let place = filled(bench).await?;
    let one = found("a batch", place.batches(0).await?.first().map(|(_, batch)| batch.len()))?;
    let max = i32::try_from(one + one / 2).unwrap_or(i32::MAX);
    let fetched = place.fetch_with(0, |_, partition| partition.max_bytes = max).await?;
    let most = one + one / 2;
    expect("bytes under the limit", fetched.records.len() <= most, true)?;
    expect("whole batches", batches(&fetched)?.len(), 1)
}

async fn end(bench: &mut Bench<'_>) -> Outcome {
    let place = filled(bench).await?;
    let at_end = place.fetch(40).await?;
    expect_error("at the end", at_end.error, ErrorCode::NONE)?;
    expect("bytes", at_end.records.len(), 0)?;
    expect("high watermark", at_end.high_watermark, 40)?;
    expect("last stable offset", at_end.last_stable_offset, 40)
}

async fn out_of_range(bench: &mut Bench<'_>) -> Outcome {
    let place = filled(bench).await?;
    expect_error("past the end", place.fetch(41).await?.error, ErrorCode::OFFSET_OUT_OF_RANGE)?;
    let deleted = delete(&place, 20).await?;
    if let Some(code) = deleted.filter(|code| code.is_error()) {
        return Err(Why::Differs(format!("DeleteRecords: {}", code.name())));
    }
    let below = place.fetch(deleted.map_or(-5, |_| 5)).await?;
    expect_error("below the start", below.error, ErrorCode::OFFSET_OUT_OF_RANGE)
}

/// None where the broker does not offer it.
async fn delete(place: &Place, before: i64) -> Result<Option<ErrorCode>, Why> {
    let topics = place.named((place.partition, before));
    match admin::delete_records(&place.connection, topics).await.map_err(Why::from) {
        Err(Why::NotOffered(_)) => Ok(None),
        Err(why) => Err(why),
        Ok(answer) => {
            let partition = answer.iter().flat_map(|topic| &topic.partitions).next();
            Ok(Some(found("the partition", partition)?.error))
        }
    }
}

async fn deleted(bench: &mut Bench<'_>) -> Outcome {
    let place = filled(bench).await?;
    let Some(code) = delete(&place, 25).await? else {
        return Err(Why::NotOffered("DeleteRecords".to_owned()));
    };
    expect_error("DeleteRecords", code, ErrorCode::NONE)?;
    let fetched = place.fetch(25).await?;
    expect("log start", fetched.log_start_offset, 25)?;
    let got = batches(&fetched)?;
    let (header, _) = found("a batch", got.first())?;
    expect("the first batch", (header.base_offset, header.records_count), (20, 10))?;
    expect("ListOffsets -2", place.list(CONSUMER, EARLIEST).await?.offset, 25)
}

/// A session over this partition; what the answer's partition holds.
async fn ask(
    place: &Place,
    session: (i32, i32),
    change: impl FnOnce(&mut FetchRequest),
) -> Result<(i32, ErrorCode, Vec<Bytes>), Why> {
    let mut request = place.fetch_request(0);
    (request.session_id, request.session_epoch) = session;
    (request.max_wait_ms, request.min_bytes) = (0, 0);
    change(&mut request);
    let answer = place.connection.ask(&request).await?;
    let records = answer.partitions.into_iter().map(|partition| partition.records);
    Ok((answer.session_id, answer.error, records.collect()))
}

/// Opens a session at the end of a filled partition.
async fn opened(bench: &mut Bench<'_>) -> Result<(Place, i32), Why> {
    let place = filled(bench).await?;
    let (id, error, partitions) = ask(&place, (0, 0), |request| {
        for partition in request.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.fetch_offset = 40;
        }
    })
    .await?;
    expect_error("the first Fetch", error, ErrorCode::NONE)?;
    expect("partitions in its answer", partitions.len(), 1)?;
    match id {
        0 => Err(Why::NotOffered("the broker opens no session".to_owned())),
        id => Ok((place, id)),
    }
}

async fn session(bench: &mut Bench<'_>) -> Outcome {
    let (place, id) = opened(bench).await?;
    let (_, error, partitions) = ask(&place, (id, 1), |request| request.topics.clear()).await?;
    expect_error("without news", error, ErrorCode::NONE)?;
    expect("partitions without news", partitions.len(), 0)?;
    place.produce(bench.small(1).bytes()?).await?;
    let (_, error, partitions) = ask(&place, (id, 2), |request| request.topics.clear()).await?;
    expect_error("with news", error, ErrorCode::NONE)?;
    expect("partitions with news", partitions.len(), 1)?;
    expect("bytes", partitions.first().is_some_and(|records| !records.is_empty()), true)
}

async fn session_errors(bench: &mut Bench<'_>) -> Outcome {
    let (place, id) = opened(bench).await?;
    let (_, error, _) = ask(&place, (id, 7), |request| request.topics.clear()).await?;
    expect_error("a wrong epoch", error, ErrorCode::INVALID_FETCH_SESSION_EPOCH)?;
    // A neighbour: Kafka 3.9.2 answers 2147483647 with UNKNOWN_SERVER_ERROR, having no shard for it.
    let unknown = if id > 1 { id - 1 } else { id + 1 };
    let (_, error, _) = ask(&place, (unknown, 1), |request| request.topics.clear()).await?;
    expect_error("an unknown session", error, ErrorCode::FETCH_SESSION_ID_NOT_FOUND)
}

async fn forgotten(bench: &mut Bench<'_>) -> Outcome {
    let (place, id) = opened(bench).await?;
    place.produce(bench.small(1).bytes()?).await?;
    let (_, error, partitions) = ask(&place, (id, 1), |request| {
        let partitions = vec![place.partition];
        request.topics.clear();
        let topic = place.topic.clone();
        request.forgotten = vec![crate::wire::fetch::ForgottenTopic { topic, partitions }];
    })
    .await?;
    // Its last partition gone, a broker may close the session instead.
    let none = [ErrorCode::NONE, ErrorCode::FETCH_SESSION_ID_NOT_FOUND];
    expect_one_of("Fetch", error, &none)?;
    expect("partitions", partitions.len(), 0)
}

async fn topic_id(bench: &mut Bench<'_>) -> Outcome {
    let place = filled(bench).await?;
    let version = place.connection.require::<FetchRequest>()?;
    if version < TOPIC_IDS_SINCE {
        return Err(Why::NotOffered(format!("Fetch ends at v{version}")));
    }
    let mut other = place.clone();
    let id = uuid::Uuid::from_u128(u128::from(bench.env.random_u64()) << 64 | 1);
    other.topic = TopicRef::new(place.topic.name.clone(), id);
    expect_error("another id", other.fetch(0).await?.error, ErrorCode::UNKNOWN_TOPIC_ID)
}

async fn leader_epoch(bench: &mut Bench<'_>) -> Outcome {
    let place = filled(bench).await?;
    let now = place.leader_epoch;
    let at = |epoch: i32| place.fetch_with(0, move |_, part| part.current_leader_epoch = epoch);
    expect_error("the epoch of now", at(now).await?.error, ErrorCode::NONE)?;
    expect_error("the next epoch", at(now + 1).await?.error, ErrorCode::UNKNOWN_LEADER_EPOCH)
}

async fn diverging(bench: &mut Bench<'_>) -> Outcome {
    let place = filled(bench).await?;
    let got = place.batches(0).await?;
    let epoch = found("a batch", got.first())?.0.partition_leader_epoch;
    let beyond = place.fetch_with(60, |_, part| part.last_fetched_epoch = epoch).await?;
    expect_error("Fetch", beyond.error, ErrorCode::NONE)?;
    let diverging = found("a diverging epoch", beyond.diverging)?;
    expect("epoch and its end", (diverging.epoch, diverging.end_offset), (epoch, 40))
}

async fn ends(bench: &mut Bench<'_>) -> Outcome {
    let place = filled(bench).await?;
    let (first, last) =
        (place.list(CONSUMER, EARLIEST).await?, place.list(CONSUMER, LATEST).await?);
    expect_error("-2", first.error, ErrorCode::NONE)?;
    expect_error("-1", last.error, ErrorCode::NONE)?;
    expect("the ends", (first.offset, last.offset), (0, 40))
}

async fn log_end(bench: &mut Bench<'_>) -> Outcome {
    let place = filled(bench).await?;
    let listed = place.list(LOG_END_READER, LATEST).await?;
    expect_error("ListOffsets", listed.error, ErrorCode::NONE)?;
    expect("the log's end", listed.offset, 40)
}

async fn time(bench: &mut Bench<'_>) -> Outcome {
    let place = bench.place().await?;
    let base = bench.env.wall_clock_ms() - 10_000;
    let record = |index: i64| (Some(&b"k"[..]), b"v".to_vec(), base + 100 * index);
    let batch = super::craft::Craft::of((0..10).map(record).collect()).bytes()?;
    expect_error("Produce", place.produce(batch).await?.error, ErrorCode::NONE)?;
    let found = place.list(CONSUMER, base + 450).await?;
    expect_error("ListOffsets", found.error, ErrorCode::NONE)?;
    expect("offset and time", (found.offset, found.timestamp), (5, base + 500))?;
    expect("of a time to come", place.list(CONSUMER, base + 1_000_000).await?.offset, -1)
}
