//! Transactions, as `delivery: transactional` uses them and as readers of a source meet them. The classic flow, which all
//! releases take, and what KIP-890 adds.

use super::super::versions::Role;
use super::bench::{Bench, Place, batches};
use super::positions::{coordinator, fetch_stored, stored, to_commit};
use super::rule::{Outcome, Rule, Why, expect, expect_error, expect_one_of, found};
use crate::connection::Connection;
use crate::limits::REQUEST_TIMEOUT;
use crate::wire::Request;
use crate::wire::add_offsets_to_txn::AddOffsetsToTxnRequest;
use crate::wire::add_partitions_to_txn::AddPartitionsToTxnRequest;
use crate::wire::batch::attribute;
use crate::wire::common::Isolation;
use crate::wire::end_txn::{EndTxnRequest, EndTxnResponse, NEXT_EPOCH_SINCE};
use crate::wire::error_code::ErrorCode;
use crate::wire::init_producer_id::InitProducerIdRequest;
use crate::wire::produce::{ProduceRequest, TRANSACTIONS_V2_SINCE};
use crate::wire::txn_offset_commit::TxnOffsetCommitRequest;

const TARGET: Role = Role::Target;
const OLD: [ErrorCode; 2] = [ErrorCode::INVALID_PRODUCER_EPOCH, ErrorCode::PRODUCER_FENCED];
/// The last version in which a client adds its offsets itself.
const TXN_OFFSET_COMMIT_V1: i16 = 4;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "transaction.committed",
        role: Role::Both,
        optional: true,
        states: "records of a transaction are seen by readers of committed records at its end, not before",
        relies: "delivery: transactional; a source's open transactions are waited for",
        source: "UnifiedLog.lastStableOffset",
        otherwise: "no `delivery: transactional`",
        check: |bench| Box::pin(committed(bench)),
    },
    Rule {
        id: "transaction.aborted",
        role: Role::Both,
        optional: true,
        states: "Fetch lists aborted transactions with their first offset, also for an offset in their middle",
        relies: "aborted records of the source are left out, after a restart in their midst too",
        source: "TransactionIndex.collectAbortedTxns",
        otherwise: "not a source of transactional topics: aborted records would be copied",
        check: |bench| Box::pin(aborted(bench)),
    },
    Rule {
        id: "transaction.fenced",
        role: TARGET,
        optional: true,
        states: "InitProducerId raises the epoch, ends what was open, and fences the one before",
        relies: "an older instance writes nothing beside its successor",
        source: "TransactionCoordinator.handleInitProducerId",
        otherwise: "no `delivery: transactional`",
        check: |bench| Box::pin(fenced(bench)),
    },
    Rule {
        id: "transaction.verified",
        role: TARGET,
        optional: true,
        states: "a transactional batch for a partition that is not in the transaction is refused",
        relies: "a late request of an ended transaction leaves none open for ever",
        source: "ReplicaManager.maybeSendPartitionsToTransactionCoordinator, KIP-890",
        otherwise: "a late request may leave a transaction open, which stops readers until it times out",
        check: |bench| Box::pin(verified(bench)),
    },
    Rule {
        id: "transaction.position",
        role: TARGET,
        optional: true,
        states: "a position in a transaction is unstable until its end, there after a commit, gone after an abort",
        relies: "records and position of a mirror are there together or not at all",
        source: "OffsetMetadataManager, KIP-447",
        otherwise: "no `delivery: transactional`",
        check: |bench| Box::pin(position(bench)),
    },
    Rule {
        id: "transaction.v2",
        role: TARGET,
        optional: true,
        states: "with transaction.version 2 the leader adds partitions itself, and EndTxn gives the next epoch",
        relies: "fewer requests for each transaction, and each has an epoch of its own",
        source: "KIP-890",
        otherwise: "transactions go the classic way; a broker that says 2 and does not do it is no target for them",
        check: |bench| Box::pin(v2(bench)),
    },
];

/// A transactional producer.
struct Producer {
    name: String,
    id: i64,
    epoch: i16,
    sequence: i32,
    connection: Connection,
}

/// Another try may help.
fn is_early(error: ErrorCode) -> bool {
    let codes = [
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode::COORDINATOR_NOT_AVAILABLE,
        ErrorCode::NOT_COORDINATOR,
        ErrorCode::CONCURRENT_TRANSACTIONS,
    ];
    codes.contains(&error)
}

impl Producer {
    /// The producer of a transactional id of the run's own.
    async fn new(bench: &Bench<'_>, suffix: &str) -> Result<Self, Why> {
        let name = format!("{}{suffix}", bench.topic);
        let (connection, answer) = bench
            .settled("InitProducerId", async || {
                let connection = bench.cluster.transaction_coordinator(bench.env, &name).await?;
                let transactional_id = name.clone();
                let request = InitProducerIdRequest { transactional_id, timeout_ms: 30_000 };
                let answer = connection.ask(&request).await?;
                Ok((!is_early(answer.error)).then_some((connection, answer)))
            })
            .await?;
        expect_error("InitProducerId", answer.error, ErrorCode::NONE)?;
        let (id, epoch) = (answer.producer_id, answer.producer_epoch);
        Ok(Self { name, id, epoch, sequence: 0, connection })
    }

    /// Adds a partition the classic way.
    async fn add(&self, bench: &Bench<'_>, place: &Place) -> Result<ErrorCode, Why> {
        let request = AddPartitionsToTxnRequest {
            transactional_id: self.name.clone(),
            producer_id: self.id,
            producer_epoch: self.epoch,
            topics: place.named(place.partition),
        };
        bench
            .settled("AddPartitionsToTxn", async || {
                let answer = self.connection.ask(&request).await?;
                let error = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
                let error = error.map_or(ErrorCode::UNKNOWN_SERVER_ERROR, |(_, error)| *error);
                Ok((!is_early(error)).then_some(error))
            })
            .await
    }

    /// Writes a batch of two in a version of at most `version_max`.
    async fn write(
        &mut self,
        bench: &Bench<'_>,
        place: &Place,
        version_max: i16,
    ) -> Result<ErrorCode, Why> {
        let batch = bench.small(2).numbered(self.id, self.epoch, self.sequence);
        let batch = batch.with(|header| header.attributes |= attribute::TRANSACTIONAL).bytes()?;
        let topics = [place.part(batch)?];
        let transactional_id = Some(self.name.as_str());
        let request =
            ProduceRequest { transactional_id, acks: -1, timeout_ms: 15_000, topics: &topics };
        let answer = up_to(&place.connection, version_max, &request).await?;
        let error = found("the partition", answer.partitions.first())?.error;
        self.sequence += if error.is_error() { 0 } else { 2 };
        Ok(error)
    }

    async fn end(
        &self,
        bench: &Bench<'_>,
        committed: bool,
        version_max: i16,
    ) -> Result<EndTxnResponse, Why> {
        let request = EndTxnRequest {
            transactional_id: self.name.clone(),
            producer_id: self.id,
            producer_epoch: self.epoch,
            committed,
        };
        bench
            .settled("EndTxn", async || {
                let answer = self.connection.call_up_to(version_max, &request, REQUEST_TIMEOUT);
                let answer = answer.await.map_err(|error| self.connection.error_of(&error))?;
                Ok((!is_early(answer.error)).then_some(answer))
            })
            .await
    }

    /// Adds the partition, writes to it and ends, all the classic way.
    async fn transact(&mut self, bench: &Bench<'_>, place: &Place, committed: bool) -> Outcome {
        expect_error("AddPartitionsToTxn", self.add(bench, place).await?, ErrorCode::NONE)?;
        let error = self.write(bench, place, TRANSACTIONS_V2_SINCE - 1).await?;
        expect_error("Produce", error, ErrorCode::NONE)?;
        let ended = self.end(bench, committed, NEXT_EPOCH_SINCE - 1).await?;
        expect_error("EndTxn", ended.error, ErrorCode::NONE)
    }
}

async fn up_to<R: Request>(
    connection: &Connection,
    version_max: i16,
    request: &R,
) -> Result<R::Response, Why> {
    connection.require::<R>()?;
    let answer = connection.call_up_to(version_max, request, REQUEST_TIMEOUT).await;
    answer.map_err(|error| connection.error_of(&error).into())
}

/// The last stable offset, once it is this: markers are written after the answer.
async fn stable(bench: &Bench<'_>, place: &Place, offset: i64) -> Outcome {
    bench
        .settled(&format!("last stable offset {offset}"), async || {
            let fetched = place.connection.ask(&place.fetch_request(0)).await?;
            let stable = fetched.partitions.first().map(|part| part.last_stable_offset);
            Ok((stable == Some(offset)).then_some(()))
        })
        .await
}

async fn committed(bench: &mut Bench<'_>) -> Outcome {
    let place = bench.place().await?;
    let mut producer = Producer::new(bench, "-committed").await?;
    expect_error("AddPartitionsToTxn", producer.add(bench, &place).await?, ErrorCode::NONE)?;
    let error = producer.write(bench, &place, TRANSACTIONS_V2_SINCE - 1).await?;
    expect_error("Produce", error, ErrorCode::NONE)?;
    let read = async || {
        place.fetch_with(0, |request, _| request.isolation = Isolation::ReadCommitted).await
    };
    let open = read().await?;
    let state = (open.records.len(), open.last_stable_offset, open.high_watermark);
    expect("bytes, last stable offset, high watermark while open", state, (0, 0, 2))?;
    let ended = producer.end(bench, true, NEXT_EPOCH_SINCE - 1).await?;
    expect_error("EndTxn", ended.error, ErrorCode::NONE)?;
    stable(bench, &place, 3).await?;
    let kinds = batches(&read().await?)?;
    let kinds = kinds.iter().map(|(header, _)| header.is_control()).collect::<Vec<_>>();
    expect("a batch, then a marker", kinds, vec![false, true])
}

async fn aborted(bench: &mut Bench<'_>) -> Outcome {
    let place = bench.place().await?;
    let mut producer = Producer::new(bench, "-aborted").await?;
    producer.transact(bench, &place, false).await?;
    stable(bench, &place, 3).await?;
    for offset in 0..2 {
        let read = place.fetch_with(offset, |request, _| {
            request.isolation = Isolation::ReadCommitted;
        });
        let listed = read.await?.aborted;
        let listed = listed.iter().map(|of| (of.producer_id, of.first_offset)).collect::<Vec<_>>();
        expect(&format!("aborted at offset {offset}"), listed, vec![(producer.id, 0)])?;
    }
    let uncommitted = place.fetch(0).await?.aborted.len();
    expect("aborted for readers of all records", uncommitted, 0)
}

async fn fenced(bench: &mut Bench<'_>) -> Outcome {
    let place = bench.place().await?;
    let mut old = Producer::new(bench, "-fenced").await?;
    expect_error("AddPartitionsToTxn", old.add(bench, &place).await?, ErrorCode::NONE)?;
    let error = old.write(bench, &place, TRANSACTIONS_V2_SINCE - 1).await?;
    expect_error("Produce", error, ErrorCode::NONE)?;
    let new = Producer::new(bench, "-fenced").await?;
    expect("the same id, a higher epoch", (new.id == old.id, new.epoch > old.epoch), (true, true))?;
    // What was open is aborted: records 0 and 1, marker 2.
    stable(bench, &place, 3).await?;
    let error = old.write(bench, &place, TRANSACTIONS_V2_SINCE - 1).await?;
    expect_one_of("the old one's Produce", error, &OLD)?;
    expect_one_of("the old one's AddPartitionsToTxn", old.add(bench, &place).await?, &OLD)?;
    let ended = old.end(bench, true, NEXT_EPOCH_SINCE - 1).await?;
    expect_one_of("the old one's EndTxn", ended.error, &OLD)
}

async fn verified(bench: &mut Bench<'_>) -> Outcome {
    let place = bench.place().await?;
    let mut producer = Producer::new(bench, "-verified").await?;
    let error = producer.write(bench, &place, TRANSACTIONS_V2_SINCE - 1).await?;
    let refusals = [ErrorCode::INVALID_TXN_STATE, ErrorCode::TRANSACTION_ABORTABLE];
    expect_one_of("Produce", error, &refusals)?;
    expect("the log's end", place.end().await?, 0)
}

async fn position(bench: &mut Bench<'_>) -> Outcome {
    let place = bench.place().await?;
    let group = format!("{}-position", bench.topic);
    let at_group = coordinator(bench, &group).await?;
    let producer = Producer::new(bench, "-position").await?;
    for committed in [false, true] {
        let request = AddOffsetsToTxnRequest {
            transactional_id: producer.name.clone(),
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            group: group.clone(),
        };
        let added = bench.settled("AddOffsetsToTxn", async || {
            let answer = producer.connection.ask(&request).await?;
            Ok((!is_early(answer.error)).then_some(answer.error))
        });
        expect_error("AddOffsetsToTxn", added.await?, ErrorCode::NONE)?;
        let request = TxnOffsetCommitRequest {
            transactional_id: producer.name.clone(),
            group: group.clone(),
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            topics: place.named(to_commit(&place, 17, "anchor")),
        };
        let answer = up_to(&at_group, TXN_OFFSET_COMMIT_V1, &request).await?;
        let error = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
        expect_error("TxnOffsetCommit", found("the partition", error)?.1, ErrorCode::NONE)?;
        let open = fetch_stored(&at_group, &group, &place).await?;
        expect_error("OffsetFetch while open", open.error, ErrorCode::UNSTABLE_OFFSET_COMMIT)?;
        let ended = producer.end(bench, committed, NEXT_EPOCH_SINCE - 1).await?;
        expect_error("EndTxn", ended.error, ErrorCode::NONE)?;
        bench
            .settled("a stable position", async || {
                let of = Some(place.named(place.partition));
                let answer = crate::cluster::admin::offset_fetch(&at_group, &group, of).await?;
                let mut errors = answer.topics.iter().flat_map(|topic| &topic.partitions);
                let unstable = errors.any(|of| of.error == ErrorCode::UNSTABLE_OFFSET_COMMIT);
                Ok((!unstable).then_some(()))
            })
            .await?;
        let kept = stored(&at_group, &group, &place).await?;
        expect("the position", kept.offset, if committed { 17 } else { -1 })?;
    }
    Ok(())
}

async fn v2(bench: &mut Bench<'_>) -> Outcome {
    let place = bench.place().await?;
    let mut producer = Producer::new(bench, "-v2").await?;
    if !producer.connection.has_transactions_v2() {
        return Err(Why::NotOffered("transaction.version is below 2".to_owned()));
    }
    let error = producer.write(bench, &place, i16::MAX).await?;
    expect_error("Produce without AddPartitionsToTxn", error, ErrorCode::NONE)?;
    let ended = producer.end(bench, true, i16::MAX).await?;
    expect_error("EndTxn", ended.error, ErrorCode::NONE)?;
    let (id, epoch) = found("the next epoch", ended.next)?;
    let is_next = id != producer.id || epoch > producer.epoch;
    expect("another epoch or id", is_next, true)?;
    stable(bench, &place, 3).await
}
