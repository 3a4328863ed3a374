//! What a test may do to a cluster behind its clients' backs, from any thread.
//!
//! Every call takes effect at once; a code is Kafka's own for what is missing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::batch::{HEADER_BYTES, Head, Stored};
use super::cleaner::Pass;
use super::faults::{FaultId, Order};
use super::groups::{CommitHook, Committed};
use super::log::{Aborted, Log};
use super::state::{Shared, State};
use super::topic::{Partition, Topic};
use crate::wire::error_code::ErrorCode;

/// A handle on a running cluster.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

/// What kind of replica a partition moves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replica {
    /// One that followed: it knows the producers.
    InSync,
    /// One that holds the records and has lost what it knew of producers.
    WithoutProducerState,
}

/// What a leader knows of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerDump {
    /// The producer id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// -1: none.
    pub last_sequence: i32,
    /// Of the newest batch, in the records' time.
    pub last_timestamp: i64,
    /// Where its open transaction begins.
    pub open_since: Option<i64>,
}

/// Where a partition ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The next offset.
    pub log_end: i64,
    /// What consumers see.
    pub high_watermark: i64,
    /// What consumers of committed data see.
    pub last_stable: i64,
}

/// A partition as it is.
#[derive(Clone, Debug)]
pub struct Dump {
    /// The first offset that may be read.
    pub log_start: i64,
    /// The next offset.
    pub log_end: i64,
    /// What consumers see.
    pub high_watermark: i64,
    /// What consumers of committed data see.
    pub last_stable: i64,
    /// -1: nobody.
    pub leader: i32,
    /// The leader's term.
    pub leader_epoch: i32,
    /// The batches' bytes as stored, oldest first.
    pub batches: Vec<Bytes>,
    /// The producers that the leader knows.
    pub producers: Vec<ProducerDump>,
    /// Aborted transactions.
    pub aborted: Vec<Aborted>,
}

impl Cluster {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let done = act(&mut self.shared.lock());
        self.shared.changed();
        self.shared.wake();
        done
    }

    fn with_topic<T>(
        &self,
        topic: &str,
        act: impl FnOnce(&mut Topic) -> T,
    ) -> Result<T, ErrorCode> {
        let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        self.with(|state| state.topics.get_mut(topic).map(act).ok_or(unknown))
    }

    fn with_partition<T>(
        &self,
        topic: &str,
        partition: i32,
        act: impl FnOnce(&mut Partition) -> T,
    ) -> Result<T, ErrorCode> {
        let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        self.with(|state| state.partition(topic, partition).map(act).ok_or(unknown))
    }

    /// Looks at a partition's log. Rings no bell: for those who look often.
    fn look<T>(
        &self,
        topic: &str,
        partition: i32,
        look: impl FnOnce(&Log) -> T,
    ) -> Result<T, ErrorCode> {
        let mut state = self.shared.lock();
        let partition = state.partition(topic, partition);
        Ok(look(&partition.ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?.log))
    }

    /// Closes everything; the serving future ends.
    pub fn shut_down(&self) {
        self.with(|state| state.stopping = true);
    }

    /// `host:port` of every broker's first listener, separated by commas.
    pub fn bootstrap(&self) -> String {
        self.bootstrap_of(0)
    }

    /// The same of another listener, by its place in the options.
    pub fn bootstrap_of(&self, listener: usize) -> String {
        let state = self.shared.lock();
        let at = state.brokers.iter().filter_map(|broker| broker.addresses.get(listener));
        at.map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
    }

    /// The first listener of a broker.
    ///
    /// # Panics
    /// When there is no such broker.
    pub fn address(&self, broker: i32) -> SocketAddr {
        let mut state = self.shared.lock();
        let at = state.broker(broker).and_then(|broker| broker.addresses.first().copied());
        at.unwrap_or_else(|| panic!("there is no broker {broker}"))
    }

    /// The cluster id.
    pub fn cluster_id(&self) -> String {
        self.shared.lock().cluster_id.clone()
    }

    /// Topic names.
    pub fn topics(&self) -> Vec<String> {
        self.shared.lock().topics.keys().cloned().collect()
    }

    /// A new topic; -1 takes the cluster's default. Returns its id.
    pub fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        replication_factor: i16,
        configs: &[(&str, &str)],
    ) -> Result<Uuid, ErrorCode> {
        let mut overrides = BTreeMap::new();
        for (key, value) in configs {
            super::topic::check_setting(key, value).map_err(|_| ErrorCode::INVALID_CONFIG)?;
            overrides.insert((*key).to_owned(), (*value).to_owned());
        }
        let env = &self.shared.env;
        self.with(|state| {
            let topic = state.create_topic(env, name, partitions, replication_factor, overrides)?;
            Ok(topic.id)
        })
    }

    /// The topic and the offsets committed for it are gone.
    pub fn delete_topic(&self, name: &str) -> Result<(), ErrorCode> {
        let deleted = self.with(|state| state.delete_topic(name));
        deleted.then_some(()).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }

    /// Deletes the topic and makes it again, alike and empty; returns its new id.
    pub fn recreate_topic(&self, name: &str) -> Result<Uuid, ErrorCode> {
        let env = &self.shared.env;
        self.with(|state| {
            let old = state.topics.get(name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
            let count = i32::try_from(old.partitions.len()).unwrap_or(1);
            let factor = i16::try_from(old.replication_factor).unwrap_or(1);
            let overrides = old.overrides.clone();
            state.delete_topic(name);
            Ok(state.create_topic(env, name, count, factor, overrides)?.id)
        })
    }

    /// Adds partitions up to `count`.
    pub fn grow_topic(&self, name: &str, count: i32) {
        self.with(|state| state.grow_topic(name, count));
    }

    /// Another broker leads the partition, in a new epoch.
    pub fn move_leader(
        &self,
        topic: &str,
        partition: i32,
        to: i32,
        replica: Replica,
    ) -> Result<(), ErrorCode> {
        self.with_partition(topic, partition, |partition| {
            if !partition.replicas.contains(&to) {
                partition.replicas.push(to);
                partition.isr.push(to);
            }
            partition.elect(to);
            if replica == Replica::WithoutProducerState {
                partition.log.producers.lead_without(to);
            }
        })
    }

    /// Who is in sync. Fewer than `min.insync.replicas`: acks=all is refused with 19, and 20 for what waits.
    pub fn set_isr(&self, topic: &str, partition: i32, isr: &[i32]) -> Result<(), ErrorCode> {
        self.with_topic(topic, |topic| {
            let min_isr = topic.settings.min_isr;
            let partition = topic.partition(partition)?;
            partition.isr = isr.to_vec();
            partition.advance(min_isr);
            Some(())
        })?
        .ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }

    /// Followers stop following, or go on: while frozen the high watermark stands still, and acks=all waits until it
    /// times out with 7.
    pub fn freeze(&self, topic: &str, partition: i32, frozen: bool) -> Result<(), ErrorCode> {
        self.with_topic(topic, |topic| {
            let min_isr = topic.settings.min_isr;
            let partition = topic.partition(partition)?;
            partition.frozen = frozen;
            partition.advance(min_isr);
            Some(())
        })?
        .ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }

    /// A broker dies: its connections close, its partitions move to a replica in sync, or to nobody.
    pub fn kill_broker(&self, id: i32) {
        self.with(|state| {
            let Some(broker) = state.broker(id) else { return };
            broker.up = false;
            broker.life += 1;
            broker.sessions.clear();
            let live = state.live();
            for partition in state.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
                if partition.isr.len() > 1 {
                    partition.isr.retain(|member| *member != id);
                }
                if partition.leader == id {
                    let next = partition.isr.iter().find(|member| live.contains(member));
                    partition.elect(next.copied().unwrap_or(-1));
                }
            }
        });
    }

    /// A killed broker comes back, on the same ports, and leads what nobody leads. Of a log that is empty it has
    /// forgotten the producers, as the real one does.
    pub fn restart_broker(&self, id: i32) {
        self.with(|state| {
            let Some(broker) = state.broker(id) else { return };
            broker.up = true;
            for topic in state.topics.values_mut() {
                let min_isr = topic.settings.min_isr;
                for partition in &mut topic.partitions {
                    if !partition.replicas.contains(&id) {
                        continue;
                    }
                    if !partition.isr.contains(&id) {
                        partition.isr.push(id);
                    }
                    if partition.leader < 0 {
                        partition.elect(id);
                        if partition.log.start == partition.log.end {
                            partition.log.producers.forget();
                        }
                    }
                    partition.advance(min_isr);
                }
            }
        });
    }

    /// Who leads a partition; -1 is nobody.
    pub fn leader(&self, topic: &str, partition: i32) -> i32 {
        self.shared.lock().partition(topic, partition).map_or(-1, |partition| partition.leader)
    }

    /// Whether a broker is up.
    pub fn is_up(&self, id: i32) -> bool {
        self.shared.lock().broker(id).is_some_and(|broker| broker.up)
    }

    /// The leader forgets every producer of the partition, and so does every replica.
    pub fn drop_producer_state(&self, topic: &str, partition: i32) -> Result<(), ErrorCode> {
        self.with_partition(topic, partition, |partition| partition.log.producers.forget())
    }

    /// The scan for expired producer state, now.
    pub fn expire_producers(&self) {
        let now_ms = self.shared.env.wall_clock_ms();
        self.with(|state| state.expire_producers(now_ms));
    }

    /// Retention or DeleteRecords: nothing below `offset` may be read.
    pub fn delete_records(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), ErrorCode> {
        self.with_partition(topic, partition, |partition| partition.log.delete_before(offset))
    }

    /// The cleaner runs over all that is replicated: batches keep their bounds and lose outdated records. With
    /// `horizon_ms`, batches that hold tombstones get the delete horizon.
    pub fn compact(
        &self,
        topic: &str,
        partition: i32,
        horizon_ms: Option<i64>,
    ) -> Result<(), ErrorCode> {
        self.with_partition(topic, partition, |partition| {
            let upto = partition.log.high_watermark;
            partition.log.clean(&Pass { upto, horizon_ms, now_ms: i64::MIN });
        })
    }

    /// The cleaner runs over what lies wholly below `upto`, where the active part begins: it goes no further than the last
    /// stable offset. What aborted transactions wrote goes, and `retention_ms` later (`delete.retention.ms`) tombstones,
    /// and markers of transactions of which nothing is left.
    pub fn clean(
        &self,
        topic: &str,
        partition: i32,
        upto: i64,
        retention_ms: i64,
    ) -> Result<(), ErrorCode> {
        let now_ms = self.shared.env.wall_clock_ms();
        self.with_partition(topic, partition, |partition| {
            let upto = upto.min(partition.log.last_stable());
            let horizon_ms = Some(now_ms + retention_ms);
            partition.log.clean(&Pass { upto, horizon_ms, now_ms });
        })
    }

    /// An unclean election: what lies at and behind `offset` is lost, and a new epoch begins.
    pub fn truncate(&self, topic: &str, partition: i32, offset: i64) -> Result<(), ErrorCode> {
        self.with_partition(topic, partition, |partition| {
            partition.log.truncate(offset);
            partition.elect(partition.leader);
        })
    }

    /// Puts a batch at the log's end as it is, unchecked: what compaction, older brokers and other writers leave
    /// behind. Its base offset becomes the log end, or stays when it lies beyond. Magic 0 and 1 are taken as one
    /// message with one offset. Returns the base offset.
    pub fn append(&self, topic: &str, partition: i32, batch: &Bytes) -> Result<i64, ErrorCode> {
        if batch.len() < 17 {
            return Err(ErrorCode::CORRUPT_MESSAGE);
        }
        let mut padded = [0; HEADER_BYTES];
        let len = batch.len().min(HEADER_BYTES);
        padded[..len].copy_from_slice(&batch[..len]);
        let head = Head::read(&padded).ok_or(ErrorCode::CORRUPT_MESSAGE)?;
        self.with_topic(topic, |topic| {
            let min_isr = topic.settings.min_isr;
            let partition = topic.partition(partition)?;
            let base_offset = head.base_offset.max(partition.log.end);
            let stored = match head.magic {
                2 => {
                    let leader_epoch = partition.leader_epoch;
                    let head = Head { base_offset, leader_epoch, ..head };
                    Stored::new(head, batch.slice(HEADER_BYTES.min(batch.len())..))
                }
                _ => {
                    let blank =
                        Head { producer_id: -1, last_offset_delta: 0, attributes: 0, ..head };
                    Stored::old(Head { base_offset, max_timestamp: -1, ..blank }, batch)
                }
            };
            partition.log.push(stored);
            partition.advance(min_isr);
            Some(base_offset)
        })?
        .ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }

    /// Ends a transaction whose batches were put there by [`Self::append`]: its marker follows.
    pub fn end_transaction(
        &self,
        topic: &str,
        partition: i32,
        (producer_id, producer_epoch): (i64, i16),
        committed: bool,
    ) -> Result<(), ErrorCode> {
        let now_ms = self.shared.env.wall_clock_ms();
        self.with_topic(topic, |topic| {
            let min_isr = topic.settings.min_isr;
            let partition = topic.partition(partition)?;
            let epoch = partition.leader_epoch;
            partition.log.append_marker(producer_id, producer_epoch, committed, epoch, now_ms);
            partition.advance(min_isr);
            Some(())
        })?
        .ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }

    /// Where a partition ends: of what one may ask, what costs least. Rings no bell: for those who look often.
    pub fn ends(&self, topic: &str, partition: i32) -> Result<Ends, ErrorCode> {
        self.look(topic, partition, |log| Ends {
            log_end: log.end,
            high_watermark: log.high_watermark,
            last_stable: log.last_stable(),
        })
    }

    /// A partition as it is.
    pub fn dump(&self, topic: &str, partition: i32) -> Result<Dump, ErrorCode> {
        self.with_partition(topic, partition, |partition| {
            let log = &partition.log;
            let producers = log.producers.iter().map(|(id, entry)| ProducerDump {
                id,
                epoch: entry.epoch,
                last_sequence: entry.last_sequence(),
                last_timestamp: entry.last_timestamp,
                open_since: entry.open_since,
            });
            Dump {
                log_start: log.start,
                log_end: log.end,
                high_watermark: log.high_watermark,
                last_stable: log.last_stable(),
                leader: partition.leader,
                leader_epoch: partition.leader_epoch,
                batches: log.iter().map(Stored::to_bytes).collect(),
                producers: producers.collect(),
                aborted: log.aborted_between(0, i64::MAX),
            }
        })
    }

    /// The high watermark and the batches from `offset` on, as stored. Rings no bell: for those who look often.
    pub fn batches_from(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(i64, Vec<Bytes>), ErrorCode> {
        self.look(topic, partition, |log| {
            let new = log.iter().rev().take_while(|batch| batch.head.base_offset >= offset);
            let mut batches: Vec<Bytes> = new.map(Stored::to_bytes).collect();
            batches.reverse();
            (log.high_watermark, batches)
        })
    }

    /// The same for readers of committed records: the last stable offset, and what of the batches below it was not aborted.
    pub fn committed_from(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(i64, Vec<Bytes>), ErrorCode> {
        self.look(topic, partition, |log| {
            let stable = log.last_stable();
            let wanted = |batch: &&Stored| {
                let head = &batch.head;
                (offset..stable).contains(&head.base_offset) && !log.is_aborted(head)
            };
            (stable, log.iter().filter(wanted).map(Stored::to_bytes).collect())
        })
    }

    /// What readers of committed records will see, come what may: also what waits for a marker of a transaction whose
    /// commit was decided.
    pub fn decided(&self, topic: &str, partition: i32) -> Result<Vec<Bytes>, ErrorCode> {
        let mut state = self.shared.lock();
        let decided = state.transactions.being_committed();
        let partition = state.partition(topic, partition);
        let log = &partition.ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?.log;
        let wanted = |batch: &&Stored| {
            let head = &batch.head;
            let open = log.is_open(head) && !decided.contains(&head.producer_id);
            head.base_offset < log.high_watermark && !open && !log.is_aborted(head)
        };
        Ok(log.iter().filter(wanted).map(Stored::to_bytes).collect())
    }

    /// The offsets that a group has committed.
    pub fn committed(&self, group: &str) -> BTreeMap<(String, i32), Committed> {
        let state = self.shared.lock();
        state.groups.get(group).map(|group| group.offsets.clone()).unwrap_or_default()
    }

    /// Has `hook` hear of every OffsetCommit, before it is answered. It must not ask this cluster anything.
    pub fn on_commit(&self, hook: CommitHook) {
        self.with(|state| state.on_commit = Some(hook));
    }

    /// Batches that were dropped because their request held another one for the same partition, as a broker does without
    /// an error.
    pub fn dropped_batches(&self) -> u64 {
        self.shared.lock().dropped_batches
    }

    /// How many members a group has, of either protocol.
    pub fn group_members(&self, group: &str) -> usize {
        self.shared.lock().groups.get(group).map_or(0, |group| group.member_count())
    }

    /// A group forgets its members, as if all their sessions had ended; gives how many there were.
    pub fn throw_out(&self, group: &str) -> usize {
        let now = self.shared.env.now();
        self.with(|state| state.groups.get_mut(group).map_or(0, |group| group.throw_out(now)))
    }

    /// A group's offsets expire (`offsets.retention.minutes`, which is not watched otherwise).
    pub fn expire_offsets(&self, group: &str) {
        self.with(|state| {
            if let Some(group) = state.groups.get_mut(group) {
                group.offsets.clear();
            }
        });
    }

    /// How often it looks for what has run out, from now on ([`Options::tick`](super::Options::tick)).
    pub fn set_tick(&self, tick: std::time::Duration) {
        self.with(|state| state.options.tick = tick);
    }

    /// Every transaction that is open has taken too long, and is aborted.
    pub fn end_transactions(&self) {
        let now = self.shared.env.now() + std::time::Duration::from_secs(3600);
        let now_ms = self.shared.env.wall_clock_ms();
        self.with(|state| state.abort_timed_out(now, now_ms));
    }

    /// Another broker coordinates this group or transactional id.
    pub fn move_coordinator(&self, key: &str, broker: i32) {
        self.with(|state| state.coordinators.insert(key.to_owned(), broker));
    }

    /// A broker forgets its fetch sessions; readers get 70.
    pub fn evict_fetch_sessions(&self, broker: i32) {
        self.with(|state| {
            if let Some(broker) = state.broker(broker) {
                broker.sessions.clear();
            }
        });
    }

    /// Fetch sessions that a broker holds.
    pub fn fetch_sessions(&self, broker: i32) -> usize {
        self.shared.lock().broker(broker).map_or(0, |broker| broker.sessions.len())
    }

    /// Orders a fault.
    pub fn fault(&self, order: Order) -> FaultId {
        self.with(|state| state.faults.add(order))
    }

    /// How often a fault has struck.
    pub fn fault_struck(&self, id: FaultId) -> u32 {
        self.shared.lock().faults.struck(id)
    }

    /// No ordered fault strikes any more.
    pub fn clear_faults(&self) {
        self.with(|state| state.faults.clear());
    }
}
