//! The transaction coordinator (KIP-98, KIP-890): ids, epochs, and which partitions a transaction has touched. An end is
//! prepared, then its markers are written; it is complete when all of them are replicated, and until then everything else
//! is told to come again.

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
    Preparing { committed: bool },
    Ended { committed: bool },
}

/// One transactional id.
pub(super) struct Transaction {
    pub(super) producer_id: i64,
    pub(super) epoch: i16,
    timeout: Duration,
    phase: Phase,
    /// Whose transaction was ended last, where that changed the epoch (transactions V2).
    before: Option<(i64, i16)>,
    pub(super) partitions: BTreeSet<(String, i32)>,
    /// Under which the markers of an end that is being prepared are written, and where they stand.
    marker: (i64, i16),
    markers: BTreeMap<(String, i32), Option<i64>>,
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

    /// Producers of transactions whose commit is decided and not complete.
    pub(super) fn being_committed(&self) -> BTreeSet<i64> {
        let preparing = Phase::Preparing { committed: true };
        self.ids.values().filter(|t| t.phase == preparing).map(|t| t.marker.0).collect()
    }

    pub(super) fn forget_topic(&mut self, topic: &str) {
        for transaction in self.ids.values_mut() {
            transaction.partitions.retain(|(name, _)| name != topic);
            transaction.markers.retain(|(name, _), _| name != topic);
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
        if matches!(transaction.phase, Phase::Preparing { .. }) {
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
        }
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

    /// Adds a partition that the producer writes to, as its leader does with transactions V2.
    pub(super) fn join(
        &mut self,
        id: &str,
        producer: (i64, i16),
        partition: (String, i32),
        now: Instant,
    ) -> Result<(), ErrorCode> {
        let joined = self.add_partitions(id, producer, std::iter::once(partition), now);
        joined.map_err(|code| match code {
            ErrorCode::PRODUCER_FENCED => ErrorCode::INVALID_PRODUCER_EPOCH,
            code => code,
        })
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
                before: None,
                partitions: BTreeSet::new(),
                marker: (producer_id, 0),
                markers: BTreeMap::new(),
                groups: BTreeSet::new(),
            };
            self.transactions.ids.insert(id.to_owned(), fresh);
            return Ok((producer_id, 0));
        };
        if claimed.0 >= 0 && claimed != (known.producer_id, known.epoch) {
            return Err(ErrorCode::PRODUCER_FENCED);
        }
        if matches!(known.phase, Phase::Preparing { .. }) {
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
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
        known.before = None;
        known.epoch += 1;
        let producer = (known.producer_id, known.epoch);
        if open {
            self.write_markers(id, false, now_ms);
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
        }
        Ok(producer)
    }

    /// EndTxn. Asked again for what is done, it says so again. With transactions V2 every end takes a new epoch, which the
    /// markers carry; it is given.
    pub(super) fn end_transaction(
        &mut self,
        id: &str,
        producer: (i64, i16),
        committed: bool,
        v2: bool,
        now_ms: i64,
    ) -> Result<Option<(i64, i16)>, ErrorCode> {
        if let Some(known) = self.transactions.ids.get(id).filter(|_| v2)
            && known.before == Some(producer)
        {
            return match known.phase {
                Phase::Ended { committed: done } if done == committed => {
                    Ok(Some((known.producer_id, known.epoch)))
                }
                Phase::Preparing { committed: done } if done == committed => {
                    Err(ErrorCode::CONCURRENT_TRANSACTIONS)
                }
                _ => Err(ErrorCode::INVALID_TXN_STATE),
            };
        }
        match self.transactions.of(id, producer)?.phase {
            Phase::Open { .. } => {
                if v2 {
                    self.bump(id, producer);
                }
                self.write_markers(id, committed, now_ms);
                Ok(v2.then(|| self.refresh(id)).flatten())
            }
            Phase::Preparing { committed: done } if done == committed => {
                Err(ErrorCode::CONCURRENT_TRANSACTIONS)
            }
            Phase::Preparing { .. } => Err(ErrorCode::INVALID_TXN_STATE),
            Phase::Ended { committed: done } if done == committed && !v2 => Ok(None),
            Phase::Empty | Phase::Ended { .. } if v2 && !committed => {
                self.bump(id, producer);
                Ok(self.refresh(id))
            }
            Phase::Empty | Phase::Ended { .. } => Err(ErrorCode::INVALID_TXN_STATE),
        }
    }

    fn bump(&mut self, id: &str, ended: (i64, i16)) {
        if let Some(known) = self.transactions.ids.get_mut(id) {
            known.before = Some(ended);
            known.epoch += 1;
        }
    }

    /// What the next transaction is written under: another producer id where the epochs are used up.
    fn refresh(&mut self, id: &str) -> Option<(i64, i16)> {
        let known = self.transactions.ids.get(id)?;
        if known.epoch < i16::MAX - 1 {
            return Some((known.producer_id, known.epoch));
        }
        let producer_id = self.transactions.allocate();
        let known = self.transactions.ids.get_mut(id)?;
        (known.producer_id, known.epoch) = (producer_id, 0);
        Some((producer_id, 0))
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
                transaction.before = None;
                transaction.epoch += 1;
            }
            self.write_markers(id, false, now_ms);
        }
        !ids.is_empty()
    }

    fn write_markers(&mut self, id: &str, committed: bool, now_ms: i64) {
        let Some(transaction) = self.transactions.ids.get_mut(id) else { return };
        transaction.marker = (transaction.producer_id, transaction.epoch);
        transaction.phase = Phase::Preparing { committed };
        let partitions = std::mem::take(&mut transaction.partitions);
        transaction.markers = partitions.into_iter().map(|key| (key, None)).collect();
        self.complete(id, now_ms);
    }

    /// Writes the markers that are missing, again where a truncation took them, and ends what has all of them; true where
    /// that was so.
    pub(super) fn complete_transactions(&mut self, now_ms: i64) -> bool {
        let preparing = |t: &Transaction| matches!(t.phase, Phase::Preparing { .. });
        let ids = self.transactions.ids.iter().filter(|(_, t)| preparing(t));
        let ids: Vec<String> = ids.map(|(id, _)| id.clone()).collect();
        ids.iter().filter(|id| self.complete(id, now_ms)).count() > 0
    }

    fn complete(&mut self, id: &str, now_ms: i64) -> bool {
        let Some(transaction) = self.transactions.ids.get_mut(id) else { return false };
        let Phase::Preparing { committed } = transaction.phase else { return false };
        let marker = transaction.marker;
        let mut markers = std::mem::take(&mut transaction.markers);
        markers.retain(|(name, index), at| {
            let Some(topic) = self.topics.get_mut(name) else { return false };
            let min_isr = topic.settings.min_isr;
            let Some(partition) = topic.partition(*index) else { return false };
            let there = at.filter(|at| partition.log.has_marker(*at, marker.0));
            if there.is_none() && partition.leader >= 0 {
                *at = Some(partition.log.end);
                let epoch = partition.leader_epoch;
                partition.log.append_marker(marker.0, marker.1, committed, epoch, now_ms);
                partition.advance(min_isr);
            }
            at.is_none_or(|at| partition.log.high_watermark <= at)
        });
        let Some(transaction) = self.transactions.ids.get_mut(id) else { return false };
        transaction.markers = markers;
        if !transaction.markers.is_empty() {
            return false;
        }
        transaction.phase = Phase::Ended { committed };
        for group in std::mem::take(&mut transaction.groups) {
            if let Some(group) = self.groups.get_mut(&group) {
                group.end_transaction(marker.0, committed);
            }
        }
        true
    }
}
