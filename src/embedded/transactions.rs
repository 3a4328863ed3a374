//! The transaction coordinator (KIP-98, protocol without the verification of KIP-890 part 2): ids, epochs, and which
//! partitions a transaction has touched. Markers are written at once, so "prepare" states do not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::state::State;
use crate::wire::error_code::ErrorCode;

/// `transaction.max.timeout.ms`.
const TIMEOUT_MAX_MS: i32 = 900_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Empty,
    Open { until: Instant },
    Ended { committed: bool },
}

/// One transactional id.
pub(super) struct Transaction {
    pub(super) producer_id: i64,
    pub(super) epoch: i16,
    timeout: Duration,
    phase: Phase,
    pub(super) partitions: BTreeSet<(String, i32)>,
    groups: BTreeSet<String>,
}

/// All of them, and the producer ids that are still free.
#[derive(Default)]
pub(super) struct Transactions {
    ids: BTreeMap<String, Transaction>,
    next_producer_id: i64,
}

impl Transactions {
    /// A producer id that nobody has.
    pub(super) fn allocate(&mut self) -> i64 {
        self.next_producer_id += 1;
        self.next_producer_id - 1
    }

    pub(super) fn forget_topic(&mut self, topic: &str) {
        for transaction in self.ids.values_mut() {
            transaction.partitions.retain(|(name, _)| name != topic);
        }
    }

    /// The transaction of `id`, if this producer may speak for it.
    fn of(&mut self, id: &str, producer: (i64, i16)) -> Result<&mut Transaction, ErrorCode> {
        let transaction = self.ids.get_mut(id).ok_or(ErrorCode::INVALID_PRODUCER_ID_MAPPING)?;
        if transaction.producer_id != producer.0 {
            return Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING);
        }
        match transaction.epoch == producer.1 {
            true => Ok(transaction),
            false => Err(ErrorCode::PRODUCER_FENCED),
        }
    }

    /// Adds to the transaction, which begins with it.
    fn add(
        &mut self,
        id: &str,
        producer: (i64, i16),
        now: Instant,
    ) -> Result<&mut Transaction, ErrorCode> {
        let transaction = self.of(id, producer)?;
        if !matches!(transaction.phase, Phase::Open { .. }) {
            transaction.phase = Phase::Open { until: now + transaction.timeout };
        }
        Ok(transaction)
    }

    /// AddPartitionsToTxn.
    pub(super) fn add_partitions(
        &mut self,
        id: &str,
        producer: (i64, i16),
        partitions: impl Iterator<Item = (String, i32)>,
        now: Instant,
    ) -> Result<(), ErrorCode> {
        self.add(id, producer, now)?.partitions.extend(partitions);
        Ok(())
    }

    /// AddOffsetsToTxn.
    pub(super) fn add_group(
        &mut self,
        id: &str,
        producer: (i64, i16),
        group: &str,
        now: Instant,
    ) -> Result<(), ErrorCode> {
        self.add(id, producer, now)?.groups.insert(group.to_owned());
        Ok(())
    }

    /// Whether the producer's open transaction holds this partition (KIP-890's verification).
    pub(super) fn verify(
        &self,
        producer: (i64, i16),
        partition: &(String, i32),
        answer: ErrorCode,
    ) -> Result<(), ErrorCode> {
        let mine = self.ids.values().find(|t| t.producer_id == producer.0);
        let Some(mine) = mine else { return Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING) };
        if mine.epoch != producer.1 {
            return Err(ErrorCode::INVALID_PRODUCER_EPOCH);
        }
        let open = matches!(mine.phase, Phase::Open { .. });
        if open && mine.partitions.contains(partition) { Ok(()) } else { Err(answer) }
    }

    /// Whether offsets of this group may be put into the producer's transaction.
    pub(super) fn verify_group(
        &self,
        id: &str,
        producer: (i64, i16),
        group: &str,
    ) -> Result<(), ErrorCode> {
        let mine = self.ids.get(id).ok_or(ErrorCode::INVALID_PRODUCER_ID_MAPPING)?;
        if mine.producer_id != producer.0 {
            return Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING);
        }
        if mine.epoch != producer.1 {
            return Err(ErrorCode::INVALID_PRODUCER_EPOCH);
        }
        let open = matches!(mine.phase, Phase::Open { .. });
        match open && mine.groups.contains(group) {
            true => Ok(()),
            false => Err(ErrorCode::INVALID_TXN_STATE),
        }
    }
}

impl State {
    /// InitProducerId for a transactional id. An open transaction is aborted and the answer is 51, as the real
    /// coordinator gives it while it writes the markers.
    pub(super) fn init_transactional(
        &mut self,
        id: &str,
        timeout_ms: i32,
        claimed: (i64, i16),
        now_ms: i64,
    ) -> Result<(i64, i16), ErrorCode> {
        if id.is_empty() {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        if !(1..=TIMEOUT_MAX_MS).contains(&timeout_ms) {
            return Err(ErrorCode::INVALID_TRANSACTION_TIMEOUT);
        }
        let timeout = Duration::from_millis(timeout_ms.unsigned_abs().into());
        let Some(known) = self.transactions.ids.get_mut(id) else {
            let producer_id = self.transactions.allocate();
            let fresh = Transaction {
                producer_id,
                epoch: 0,
                timeout,
                phase: Phase::Empty,
                partitions: BTreeSet::new(),
                groups: BTreeSet::new(),
            };
            self.transactions.ids.insert(id.to_owned(), fresh);
            return Ok((producer_id, 0));
        };
        if claimed.0 >= 0 && claimed != (known.producer_id, known.epoch) {
            return Err(ErrorCode::PRODUCER_FENCED);
        }
        known.timeout = timeout;
        let open = matches!(known.phase, Phase::Open { .. });
        if known.epoch >= i16::MAX - 1 && !open {
            let producer_id = self.transactions.allocate();
            if let Some(known) = self.transactions.ids.get_mut(id) {
                (known.producer_id, known.epoch) = (producer_id, 0);
            }
            return Ok((producer_id, 0));
        }
        known.epoch += 1;
        let producer = (known.producer_id, known.epoch);
        if open {
            self.write_markers(id, false, now_ms);
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
        }
        Ok(producer)
    }

    /// EndTxn. Asked again for what is done, it says so again.
    pub(super) fn end_transaction(
        &mut self,
        id: &str,
        producer: (i64, i16),
        committed: bool,
        now_ms: i64,
    ) -> Result<(), ErrorCode> {
        match self.transactions.of(id, producer)?.phase {
            Phase::Open { .. } => {
                self.write_markers(id, committed, now_ms);
                Ok(())
            }
            Phase::Ended { committed: done } if done == committed => Ok(()),
            Phase::Empty | Phase::Ended { .. } => Err(ErrorCode::INVALID_TXN_STATE),
        }
    }

    /// Aborts what is older than its timeout, with a newer epoch; true when there was any.
    pub(super) fn abort_timed_out(&mut self, now: Instant, now_ms: i64) -> bool {
        let late = |t: &Transaction| matches!(t.phase, Phase::Open { until } if until <= now);
        let ids: Vec<String> = self
            .transactions
            .ids
            .iter()
            .filter(|(_, transaction)| late(transaction))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &ids {
            if let Some(transaction) = self.transactions.ids.get_mut(id) {
                transaction.epoch += 1;
            }
            self.write_markers(id, false, now_ms);
        }
        !ids.is_empty()
    }

    fn write_markers(&mut self, id: &str, committed: bool, now_ms: i64) {
        let Some(transaction) = self.transactions.ids.get_mut(id) else { return };
        let (producer_id, epoch) = (transaction.producer_id, transaction.epoch);
        transaction.phase = Phase::Ended { committed };
        let partitions = std::mem::take(&mut transaction.partitions);
        let groups = std::mem::take(&mut transaction.groups);
        for (name, index) in partitions {
            let Some(topic) = self.topics.get_mut(&name) else { continue };
            let min_isr = topic.settings.min_isr;
            let Some(partition) = topic.partition(index) else { continue };
            let leader_epoch = partition.leader_epoch;
            partition.log.append_marker(producer_id, epoch, committed, leader_epoch, now_ms);
            partition.advance(min_isr);
        }
        for group in groups {
            if let Some(group) = self.groups.get_mut(&group) {
                group.end_transaction(producer_id, committed);
            }
        }
    }
}
