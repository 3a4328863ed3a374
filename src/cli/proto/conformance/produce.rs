//! What Produce stores and refuses: the target's data path.

use bytes::Bytes;

use super::super::versions::Role;
use super::bench::{Bench, MESSAGE_BYTES_MAX};
use super::craft::Craft;
use super::rule::{Outcome, Rule, Why, expect, expect_error, expect_one_of, found};
use crate::wire::batch::{Codec, attribute};
use crate::wire::common::TopicRef;
use crate::wire::error_code::ErrorCode;
use crate::wire::produce::{ProduceRequest, TOPIC_IDS_SINCE};

const TARGET: Role = Role::Target;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "produce.base_offset",
        role: TARGET,
        optional: false,
        states: "acks=all is answered with the offset of the batch's first record; the next batch follows its last",
        relies: "the map from source to target offsets, and the check that nobody else writes",
        source: "ReplicaManager.appendRecords, PartitionProduceResponse.base_offset",
        otherwise: "not a target: offsets cannot be mapped and foreign writers are not noticed",
        check: |bench| Box::pin(base_offset(bench)),
    },
    Rule {
        id: "produce.unchanged",
        role: TARGET,
        optional: false,
        states: "a batch of any codec is stored byte for byte, but for base offset and leader epoch",
        relies: "the producer's checksum reaches the reader; compressed batches are not opened on the way",
        source: "LogValidator.assignOffsetsNonCompressed, validateMessagesAndAssignOffsetsCompressed",
        otherwise: "usable as a target, but what arrives is the broker's encoding and its own checksum",
        check: |bench| Box::pin(unchanged(bench)),
    },
    Rule {
        id: "produce.crc",
        role: TARGET,
        optional: false,
        states: "a batch whose checksum is wrong is refused with CORRUPT_MESSAGE and not stored",
        relies: "a byte that changes between the source's producer and the target is found (I3)",
        source: "UnifiedLog.analyzeAndValidateRecords",
        otherwise: "a changed byte on the way becomes a stored record: use it as a target only over TLS, if at all",
        check: |bench| Box::pin(crc(bench)),
    },
    Rule {
        id: "produce.one_batch",
        role: TARGET,
        optional: false,
        states: "two batches for one partition in one request are refused; nothing of them is stored",
        relies: "a batch is wholly there or not at all, and its answer is one offset",
        source: "ProduceRequest.validateRecords",
        otherwise: "no harm as such: Strait sends one batch per partition and request",
        check: |bench| Box::pin(one_batch(bench)),
    },
    Rule {
        id: "produce.apart",
        role: TARGET,
        optional: false,
        states: "a partition that is refused does not hinder the others of its request",
        relies: "a fault of one mirror does not slow the others (I7): many travel in one request",
        source: "ReplicaManager.appendToLocalLog",
        otherwise: "one poisoned partition stops all that share its leader",
        check: |bench| Box::pin(apart(bench)),
    },
    Rule {
        id: "produce.magic",
        role: TARGET,
        optional: false,
        states: "a batch of a format other than v2 is refused",
        relies: "a batch that is not understood cannot be stored as something else",
        source: "ProduceRequest.validateRecords",
        otherwise: "no harm as such: Strait sends v2 alone",
        check: |bench| Box::pin(magic(bench)),
    },
    Rule {
        id: "produce.holes",
        role: TARGET,
        optional: false,
        states: "a batch whose header counts fewer records than offsets is refused with INVALID_RECORD",
        relies: "what a compacted source left cannot slip through without being renumbered",
        source: "LogValidator.validateBatch",
        otherwise: "offsets on the target may have holes; the offset map counts on none",
        check: |bench| Box::pin(holes(bench)),
    },
    Rule {
        id: "produce.control",
        role: TARGET,
        optional: false,
        states: "control batches of a client are refused",
        relies: "a marker of the source can never end a transaction of the target",
        source: "LogValidator.validateBatch",
        otherwise: "no harm as such: Strait sends no control batch",
        check: |bench| Box::pin(control(bench)),
    },
    Rule {
        id: "produce.too_large",
        role: TARGET,
        optional: false,
        states: "a batch over the topic's max.message.bytes is refused with MESSAGE_TOO_LARGE",
        relies: "such a batch is split and sent again; any other code parks its partition",
        source: "UnifiedLog.analyzeAndValidateRecords",
        otherwise: "large batches park their partition instead of being split",
        check: |bench| Box::pin(too_large(bench)),
    },
    Rule {
        id: "produce.null_key",
        role: TARGET,
        optional: true,
        states: "a compacted topic refuses a record without key and names the record by its index",
        relies: "on_poison: skip leaves out the record that is named, and no other",
        source: "LogValidator.validateRecord, KIP-467",
        otherwise: "on_poison cannot tell the record at fault: the partition parks",
        check: |bench| Box::pin(null_key(bench)),
    },
    Rule {
        id: "produce.create_time",
        role: TARGET,
        optional: false,
        states: "message.timestamp.type=CreateTime keeps the records' own times",
        relies: "records keep their times, and offsets are found again by time",
        source: "LogValidator.validateTimestamp",
        otherwise: "times of the copy differ from the source's",
        check: |bench| Box::pin(create_time(bench)),
    },
    Rule {
        id: "produce.append_time",
        role: TARGET,
        optional: true,
        states: "message.timestamp.type=LogAppendTime stamps the batch, sets its bit, and tells the time in the answer",
        relies: "old records on such a topic count as young for the window's rule W2",
        source: "LogValidator, PartitionProduceResponse.log_append_time_ms",
        otherwise: "do not mirror into topics with LogAppendTime",
        check: |bench| Box::pin(append_time(bench)),
    },
    Rule {
        id: "produce.topic_id",
        role: TARGET,
        optional: true,
        states: "Produce by topic id (v13) refuses an id that is not the topic's with UNKNOWN_TOPIC_ID",
        relies: "nothing is written into a topic that was deleted and made again",
        source: "KafkaApis.handleProduceRequest, KIP-516",
        otherwise: "a re-created target topic is noticed by its metadata only, a moment later",
        check: |bench| Box::pin(topic_id(bench)),
    },
];

async fn base_offset(bench: &mut Bench<'_>) -> Outcome {
    let place = bench.place().await?;
    let mut next = 0;
    for count in [3, 1, 5] {
        let produced = place.produce(bench.small(count).bytes()?).await?;
        expect_error("Produce", produced.error, ErrorCode::NONE)?;
        expect("base offset", produced.base_offset, next)?;
        next += count as i64;
    }
    expect("the log's end", place.end().await?, next)
}

async fn unchanged(bench: &mut Bench<'_>) -> Outcome {
    let place = bench.place().await?;
    for (index, codec) in
        [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd].into_iter().enumerate()
    {
        let batch = bench.small(20).packed(codec).bytes()?;
        let produced = place.produce(batch.clone()).await?;
        expect_error(&format!("{codec:?}"), produced.error, ErrorCode::NONE)?;
        let stored = place.batches(20 * index as i64).await?;
        let (header, stored) = found("the batch", stored.first())?;
        expect("base offset", header.base_offset, produced.base_offset)?;
        let same = stored.get(16..) == batch.get(16..) && stored.get(8..12) == batch.get(8..12);
        expect(&format!("{codec:?}: the same bytes"), same, true)?;
    }
    Ok(())
}

/// Refused with one of these, and nothing in the log.
async fn refused(bench: &mut Bench<'_>, what: &str, batch: Bytes, with: &[ErrorCode]) -> Outcome {
    let place = bench.place().await?;
    let produced = place.produce(batch).await?;
    expect_one_of(what, produced.error, with)?;
    expect("the log's end", place.end().await?, 0)
}

async fn crc(bench: &mut Bench<'_>) -> Outcome {
    let batch = bench.small(3).with_bad_crc().bytes()?;
    refused(bench, "a wrong checksum", batch, &[ErrorCode::CORRUPT_MESSAGE]).await
}

async fn one_batch(bench: &mut Bench<'_>) -> Outcome {
    let batch = [bench.small(3).bytes()?, bench.small(2).bytes()?].concat();
    refused(bench, "two batches", batch.into(), &[ErrorCode::INVALID_RECORD]).await
}

async fn apart(bench: &mut Bench<'_>) -> Outcome {
    let (bad, good) = (bench.place().await?, bench.place().await?);
    if bad.connection.address() != good.connection.address() {
        // Two leaders: apart by nature.
        return Ok(());
    }
    let parts = [(&bad, bench.small(2).with_bad_crc().bytes()?), (&good, bench.small(2).bytes()?)];
    let produced = bad.produce_all(&parts).await?;
    expect("partitions in the answer", produced.len(), 2)?;
    for part in produced {
        let is_bad = part.index == bad.partition;
        let want = if is_bad { ErrorCode::CORRUPT_MESSAGE } else { ErrorCode::NONE };
        expect_error(&format!("partition {}", part.index), part.error, want)?;
    }
    expect("the good one's end", good.end().await?, 2)
}

async fn magic(bench: &mut Bench<'_>) -> Outcome {
    let with = [ErrorCode::INVALID_RECORD, ErrorCode::CORRUPT_MESSAGE];
    let batch = bench.small(3).with(|header| header.magic = 3).bytes()?;
    refused(bench, "magic 3", batch, &with).await
}

async fn holes(bench: &mut Bench<'_>) -> Outcome {
    for codec in [Codec::None, Codec::Zstd] {
        let batch = bench.small(3).packed(codec).with(|header| header.last_offset_delta = 9);
        let batch = batch.bytes()?;
        refused(bench, &format!("{codec:?}"), batch, &[ErrorCode::INVALID_RECORD]).await?;
    }
    Ok(())
}

async fn control(bench: &mut Bench<'_>) -> Outcome {
    let batch = bench.small(1).with(|header| header.attributes |= attribute::CONTROL).bytes()?;
    refused(bench, "a control batch", batch, &[ErrorCode::INVALID_RECORD]).await
}

async fn too_large(bench: &mut Bench<'_>) -> Outcome {
    let now = bench.env.wall_clock_ms();
    let record = |bytes| vec![(Some(&b"k"[..]), vec![b'x'; bytes], now)];
    let batch = Craft::of(record(MESSAGE_BYTES_MAX)).bytes()?;
    refused(bench, "a large batch", batch, &[ErrorCode::MESSAGE_TOO_LARGE]).await?;
    let place = bench.place().await?;
    let produced = place.produce(Craft::of(record(MESSAGE_BYTES_MAX - 200)).bytes()?).await?;
    expect_error("one that fits", produced.error, ErrorCode::NONE)
}

async fn null_key(bench: &mut Bench<'_>) -> Outcome {
    bench.make_topic("-compacted", 1, &[("cleanup.policy", "compact")]).await?;
    let place = bench.place_in("-compacted", 0).await?;
    let now = bench.env.wall_clock_ms();
    let record = |key: Option<&'static [u8]>| (key, b"v".to_vec(), now);
    let batch = Craft::of(vec![record(Some(b"a")), record(None), record(Some(b"c"))]).bytes()?;
    let produced = place.produce(batch).await?;
    expect_error("a record without key", produced.error, ErrorCode::INVALID_RECORD)?;
    let named = produced.record_errors.iter().map(|error| error.index).collect::<Vec<_>>();
    expect("records named", named, vec![1])?;
    expect("the log's end", place.end().await?, 0)
}

async fn create_time(bench: &mut Bench<'_>) -> Outcome {
    let place = bench.place().await?;
    let then = bench.env.wall_clock_ms() - 100_000;
    let produced = place.produce(Craft::small(3, then).bytes()?).await?;
    expect_error("Produce", produced.error, ErrorCode::NONE)?;
    expect("append time in the answer", produced.log_append_time_ms, -1)?;
    let stored = place.batches(0).await?;
    let (header, _) = found("the batch", stored.first())?;
    expect("times", (header.base_timestamp, header.max_timestamp), (then, then))?;
    expect("the bit of LogAppendTime", header.is_log_append_time(), false)
}

async fn append_time(bench: &mut Bench<'_>) -> Outcome {
    bench.make_topic("-stamped", 1, &[("message.timestamp.type", "LogAppendTime")]).await?;
    let place = bench.place_in("-stamped", 0).await?;
    let then = bench.env.wall_clock_ms() - 100_000_000;
    let produced = place.produce(Craft::small(3, then).bytes()?).await?;
    expect_error("Produce", produced.error, ErrorCode::NONE)?;
    expect("a time in the answer", produced.log_append_time_ms > then, true)?;
    let stored = place.batches(0).await?;
    let (header, _) = found("the batch", stored.first())?;
    expect("the bit of LogAppendTime", header.is_log_append_time(), true)?;
    expect("the batch's time", header.max_timestamp, produced.log_append_time_ms)
}

async fn topic_id(bench: &mut Bench<'_>) -> Outcome {
    let place = bench.place().await?;
    let version = place.connection.require::<ProduceRequest<'_>>()?;
    if version < TOPIC_IDS_SINCE {
        return Err(Why::NotOffered(format!("Produce ends at v{version}")));
    }
    let mut other = place.clone();
    let id = uuid::Uuid::from_u128(u128::from(bench.env.random_u64()) << 64 | 1);
    other.topic = TopicRef::new(place.topic.name.clone(), id);
    let produced = other.produce(bench.small(1).bytes()?).await?;
    expect_error("another id", produced.error, ErrorCode::UNKNOWN_TOPIC_ID)?;
    expect("the log's end", place.end().await?, 0)
}
