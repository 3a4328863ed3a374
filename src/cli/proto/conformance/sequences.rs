//! What a leader makes of producer ids, epochs and sequence numbers: the compare-and-append that exactness stands on.

use super::super::versions::Role;
use super::bench::{Bench, Place};
use super::rule::{Outcome, Rule, Why, expect, expect_error, found};
use crate::cluster::admin;
use crate::connection::Connection;
use crate::wire::error_code::ErrorCode;
use crate::wire::produce::ProducedPartition;

const TARGET: Role = Role::Target;
const ORDER: ErrorCode = ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;
/// More than the five that a leader remembers.
const IN_FLIGHT: i32 = 20;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "sequence.derived_id",
        role: TARGET,
        optional: false,
        states: "a producer id that no broker gave out, of 2^62 or more, is taken",
        relies: "ids are derived from link, topic and partition, so that each life goes on with the same numbering",
        source: "UnifiedLog.analyzeAndValidateProducerState",
        otherwise: "not a target for exactly-once; `producer_id: allocated` is not built",
        check: |bench| Box::pin(derived_id(bench)),
    },
    Rule {
        id: "sequence.any_first",
        role: TARGET,
        optional: false,
        states: "of an id that it does not know, the leader takes any first sequence number",
        relies: "a numbering goes on after the leader has forgotten it: old records, an emptied log",
        source: "ProducerAppendInfo.checkSequence",
        otherwise: "mirrors stop once the target forgets them; the window of one at the start is then needless",
        check: |bench| Box::pin(any_first(bench)),
    },
    Rule {
        id: "sequence.duplicate",
        role: TARGET,
        optional: false,
        states: "each of the last five batches, sent again, is answered with its old offset and not stored",
        relies: "a batch whose answer was lost is sent again, and is there once",
        source: "ProducerStateEntry.findDuplicateBatch",
        otherwise: "every lost answer may double a batch: not a target for exactly-once",
        check: |bench| Box::pin(duplicate(bench)),
    },
    Rule {
        id: "sequence.older",
        role: TARGET,
        optional: false,
        states: "a batch from before the last five, or with other bounds, is refused with OUT_OF_ORDER_SEQUENCE_NUMBER",
        relies: "a late request of a former life, or one merged otherwise, is never stored a second time",
        source: "ProducerAppendInfo.checkSequence",
        otherwise: "late requests double records: not a target for exactly-once",
        check: |bench| Box::pin(older(bench)),
    },
    Rule {
        id: "sequence.gap",
        role: TARGET,
        optional: false,
        states: "a sequence number that is not the next is refused with OUT_OF_ORDER_SEQUENCE_NUMBER",
        relies: "a batch that was refused leaves no hole, however many are on their way behind it",
        source: "ProducerAppendInfo.checkSequence",
        otherwise: "holes: not a target",
        check: |bench| Box::pin(gap(bench)),
    },
    Rule {
        id: "sequence.wrap",
        role: TARGET,
        optional: false,
        states: "after 2147483647 comes 0",
        relies: "a mirror goes on beyond 2^31 records",
        source: "DefaultRecordBatch.incrementSequence",
        otherwise: "a partition stops after 2,147,483,648 records",
        check: |bench| Box::pin(wrap(bench)),
    },
    Rule {
        id: "sequence.old_epoch",
        role: TARGET,
        optional: false,
        states: "an older epoch of an id is refused with INVALID_PRODUCER_EPOCH",
        relies: "an older life of a link writes nothing beside its successor",
        source: "ProducerAppendInfo.checkProducerEpoch",
        otherwise: "two instances may write the same records: not a target for exactly-once",
        check: |bench| Box::pin(old_epoch(bench)),
    },
    Rule {
        id: "sequence.new_epoch",
        role: TARGET,
        optional: false,
        states: "a newer epoch begins at sequence 0; any other first number is refused",
        relies: "a new numbering begins where it says that it begins",
        source: "ProducerAppendInfo.checkSequence",
        otherwise: "the first batches of a new numbering may be missing unseen",
        check: |bench| Box::pin(new_epoch(bench)),
    },
    Rule {
        id: "sequence.in_flight",
        role: TARGET,
        optional: false,
        states: "twenty numbered batches sent without waiting are stored and answered in their order",
        relies: "the window is sized by bandwidth and delay, not by five",
        source: "SocketServer.Processor, UnifiedLog.append",
        otherwise: "throughput is one batch per round trip, or records are out of order: not a target",
        check: |bench| Box::pin(in_flight(bench)),
    },
    Rule {
        id: "sequence.in_flight_refused",
        role: TARGET,
        optional: false,
        states: "where the leader knows the id, nothing is stored behind a batch that it refused",
        relies: "the window opens by proof (rule W1): what follows a refusal is refused",
        source: "ProducerAppendInfo.checkSequence",
        otherwise: "holes after any refusal: not a target",
        check: |bench| Box::pin(in_flight_refused(bench)),
    },
    Rule {
        id: "sequence.any_connection",
        role: TARGET,
        optional: false,
        states: "an id belongs to no connection: another one goes on with its numbers, and is told of duplicates",
        relies: "after a broken connection the next one goes on",
        source: "UnifiedLog.analyzeAndValidateProducerState",
        otherwise: "each reconnect is a new numbering: not a target for exactly-once",
        check: |bench| Box::pin(any_connection(bench)),
    },
    Rule {
        id: "sequence.described",
        role: TARGET,
        optional: false,
        states: "DescribeProducers tells the epoch and the last sequence number of an id",
        relies: "a start compares what the leader expects with what it read back (rule R3)",
        source: "KafkaApis.handleDescribeProducersRequest, KIP-664",
        otherwise: "not a target: resuming needs it",
        check: |bench| Box::pin(described(bench)),
    },
];

/// Writes one batch under these numbers.
async fn put(
    bench: &Bench<'_>,
    place: &Place,
    count: usize,
    numbers: (i64, i16, i32),
) -> Result<ProducedPartition, Why> {
    let (id, epoch, sequence) = numbers;
    place.produce(bench.small(count).numbered(id, epoch, sequence).bytes()?).await
}

/// The same, and it must be taken at this offset.
async fn take(
    bench: &Bench<'_>,
    place: &Place,
    count: usize,
    numbers: (i64, i16, i32),
    offset: i64,
) -> Outcome {
    let produced = put(bench, place, count, numbers).await?;
    let what = format!("epoch {}, sequence {}", numbers.1, numbers.2);
    expect_error(&what, produced.error, ErrorCode::NONE)?;
    expect(&what, produced.base_offset, offset)
}

/// The same, and it must be refused.
async fn refuse(
    bench: &Bench<'_>,
    place: &Place,
    count: usize,
    numbers: (i64, i16, i32),
    with: ErrorCode,
) -> Outcome {
    let produced = put(bench, place, count, numbers).await?;
    expect_error(&format!("epoch {}, sequence {}", numbers.1, numbers.2), produced.error, with)
}

async fn derived_id(bench: &mut Bench<'_>) -> Outcome {
    let (place, id) = (bench.place().await?, bench.id());
    take(bench, &place, 2, (id, 0, 0), 0).await?;
    take(bench, &place, 2, (id, 0, 2), 2).await?;
    let stored = place.batches(0).await?;
    expect("the id in the log", stored.first().map(|(header, _)| header.producer_id), Some(id))
}

async fn any_first(bench: &mut Bench<'_>) -> Outcome {
    let (place, id) = (bench.place().await?, bench.id());
    take(bench, &place, 2, (id, 3, 12_345), 0).await?;
    take(bench, &place, 1, (id, 3, 12_347), 2).await
}

async fn duplicate(bench: &mut Bench<'_>) -> Outcome {
    let (place, id) = (bench.place().await?, bench.id());
    for sequence in 0..5 {
        take(bench, &place, 1, (id, 0, sequence), sequence.into()).await?;
    }
    for sequence in 0..5 {
        take(bench, &place, 1, (id, 0, sequence), sequence.into()).await?;
    }
    expect("the log's end", place.end().await?, 5)
}

async fn older(bench: &mut Bench<'_>) -> Outcome {
    let (place, id) = (bench.place().await?, bench.id());
    for sequence in 0..7 {
        take(bench, &place, 1, (id, 0, sequence), sequence.into()).await?;
    }
    refuse(bench, &place, 1, (id, 0, 0), ORDER).await?;
    refuse(bench, &place, 2, (id, 0, 5), ORDER).await?;
    expect("the log's end", place.end().await?, 7)
}

async fn gap(bench: &mut Bench<'_>) -> Outcome {
    let (place, id) = (bench.place().await?, bench.id());
    take(bench, &place, 2, (id, 0, 0), 0).await?;
    refuse(bench, &place, 2, (id, 0, 3), ORDER).await?;
    take(bench, &place, 2, (id, 0, 2), 2).await?;
    expect("the log's end", place.end().await?, 4)
}

async fn wrap(bench: &mut Bench<'_>) -> Outcome {
    let (place, id) = (bench.place().await?, bench.id());
    take(bench, &place, 10, (id, 0, i32::MAX - 7), 0).await?;
    take(bench, &place, 10, (id, 0, 2), 10).await?;
    take(bench, &place, 10, (id, 0, 2), 10).await
}

async fn old_epoch(bench: &mut Bench<'_>) -> Outcome {
    let (place, id) = (bench.place().await?, bench.id());
    take(bench, &place, 1, (id, 4, 0), 0).await?;
    refuse(bench, &place, 1, (id, 3, 0), ErrorCode::INVALID_PRODUCER_EPOCH).await?;
    refuse(bench, &place, 1, (id, 3, 1), ErrorCode::INVALID_PRODUCER_EPOCH).await?;
    expect("the log's end", place.end().await?, 1)
}

async fn new_epoch(bench: &mut Bench<'_>) -> Outcome {
    let (place, id) = (bench.place().await?, bench.id());
    take(bench, &place, 1, (id, 0, 0), 0).await?;
    refuse(bench, &place, 1, (id, 1, 1), ORDER).await?;
    take(bench, &place, 1, (id, 1, 0), 1).await
}

async fn in_flight(bench: &mut Bench<'_>) -> Outcome {
    let (place, id) = (bench.place().await?, bench.id());
    let batches = (0..IN_FLIGHT).map(|n| bench.small(1).numbered(id, 0, n).bytes());
    let produced = place.pipeline(batches.collect::<Result<_, _>>()?).await?;
    for (offset, produced) in (0..).zip(&produced) {
        expect_error(&format!("batch {offset}"), produced.error, ErrorCode::NONE)?;
        expect("base offset", produced.base_offset, offset)?;
    }
    Ok(())
}

async fn in_flight_refused(bench: &mut Bench<'_>) -> Outcome {
    let (place, id) = (bench.place().await?, bench.id());
    take(bench, &place, 1, (id, 0, 0), 0).await?;
    let batches = (1..IN_FLIGHT).map(|n| {
        let batch = bench.small(1).numbered(id, 0, n);
        if n == 1 { batch.with(|header| header.base_offset = 7).bytes() } else { batch.bytes() }
    });
    let produced = place.pipeline(batches.collect::<Result<_, _>>()?).await?;
    for (index, produced) in (1..).zip(&produced) {
        let want = if index == 1 { ErrorCode::INVALID_RECORD } else { ORDER };
        expect_error(&format!("batch {index}"), produced.error, want)?;
    }
    expect("the log's end", place.end().await?, 1)
}

async fn any_connection(bench: &mut Bench<'_>) -> Outcome {
    let (place, id) = (bench.place().await?, bench.id());
    take(bench, &place, 1, (id, 0, 0), 0).await?;
    let connection: Connection = bench.another(&place).await?;
    let other = Place { connection, ..place.clone() };
    take(bench, &other, 1, (id, 0, 0), 0).await?;
    take(bench, &other, 1, (id, 0, 1), 1).await?;
    take(bench, &place, 1, (id, 0, 2), 2).await
}

async fn described(bench: &mut Bench<'_>) -> Outcome {
    let (place, id) = (bench.place().await?, bench.id());
    take(bench, &place, 5, (id, 2, 0), 0).await?;
    take(bench, &place, 3, (id, 2, 5), 5).await?;
    let topics = place.named(place.partition);
    let answer = admin::describe_producers(&place.connection, topics).await?;
    let partition = answer.iter().flat_map(|topic| &topic.partitions).next();
    let partition = found("the partition", partition)?;
    expect_error("DescribeProducers", partition.error, ErrorCode::NONE)?;
    let state = found("the id", partition.producers.iter().find(|state| state.id == id))?;
    expect("epoch and last sequence", (state.epoch, state.last_sequence), (2, 7))
}
