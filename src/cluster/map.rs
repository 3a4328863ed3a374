//! What is known of a cluster at one moment, and how much of an answer is believed. Pure.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::advertised;
use crate::canary::{Canary, planted};
use crate::config::resolved::Address;
use crate::limits;
use crate::wire::metadata::{MetadataPartition, MetadataResponse, MetadataTopic};
use crate::wire::{ErrorCode, TOPIC_NAME_BYTES_MAX};

/// The newest metadata. Replaced as a whole, never changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterMap {
    /// The cluster's own id.
    pub cluster_id: Option<String>,
    /// By broker id: those that are alive.
    pub brokers: BTreeMap<i32, Broker>,
    /// By name.
    pub topics: HashMap<String, Topic>,
    /// Counts the maps that differ; 0 is none yet.
    pub generation: u64,
}

/// One broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// What it advertises.
    pub address: Address,
    /// Its rack, if it says.
    pub rack: Option<String>,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// All zero where the broker has none.
    pub id: Uuid,
    /// Kafka's own, such as `__consumer_offsets`.
    pub internal: bool,
    /// Why nothing is known of it, or NONE.
    pub error: ErrorCode,
    /// By index.
    pub partitions: Vec<Partition>,
}

/// One partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// A broker of the map; -1 is none.
    pub leader: i32,
    /// -1 is unknown.
    pub leader_epoch: i32,
    /// Why it has no leader, or NONE.
    pub error: ErrorCode,
}

impl ClusterMap {
    /// What is known of a partition.
    pub fn partition(&self, topic: &str, index: i32) -> Option<&Partition> {
        let index = usize::try_from(index).ok()?;
        self.topics.get(topic)?.partitions.get(index)
    }

    /// The map after this answer. An answer that no broker of this cluster can have meant is refused, with the reason.
    ///
    /// # Errors
    /// The reason, for the operator.
    pub fn after(&self, answer: MetadataResponse) -> Result<Self, String> {
        if let (Some(known), Some(now)) = (&self.cluster_id, &answer.cluster_id)
            && known != now
        {
            return Err(format!("the cluster id was {known:?} and is {now:?}: another cluster"));
        }
        if answer.brokers.is_empty() || answer.brokers.len() > limits::BROKERS_MAX {
            return Err(format!("lists {} brokers", answer.brokers.len()));
        }
        let mut brokers = BTreeMap::new();
        for broker in answer.brokers {
            let id = broker.id;
            // One broker's own mistake, or lie: the others are not left for it.
            let address = advertised::address(&broker.host, broker.port);
            let address = address.unwrap_or_else(advertised::no_address);
            let known = brokers.insert(id, Broker { address, rack: broker.rack });
            if id < 0 || known.is_some() {
                return Err(format!("lists a broker {id} that cannot be"));
            }
        }
        let partitions: usize = answer.topics.iter().map(|topic| topic.partitions.len()).sum();
        if partitions > limits::PARTITIONS_MAX {
            return Err(format!("lists {partitions} partitions"));
        }
        let mut topics = HashMap::with_capacity(answer.topics.len());
        for topic in answer.topics {
            if !is_topic_name(&topic.name) {
                return Err("lists a topic whose name is not legal".to_owned());
            }
            let name = topic.name.clone();
            let read = self.read_topic(topic, &brokers)?;
            if topics.insert(name, read).is_some() {
                return Err("lists a topic twice".to_owned());
            }
        }
        let cluster_id = answer.cluster_id.or_else(|| self.cluster_id.clone());
        let mut map = Self { cluster_id, brokers, topics, generation: self.generation };
        if map != *self {
            map.generation += 1;
        }
        Ok(map)
    }

    fn read_topic(
        &self,
        topic: MetadataTopic,
        brokers: &BTreeMap<i32, Broker>,
    ) -> Result<Topic, String> {
        let MetadataTopic { error, name, id, internal, partitions } = topic;
        let known = self.topics.get(&name).filter(|known| known.id == id);
        let mut by_index = vec![None; partitions.len()];
        for partition in partitions {
            let index = partition.index;
            let slot = usize::try_from(index).ok().and_then(|index| by_index.get_mut(index));
            let Some(slot @ None) = slot else {
                return Err(format!("lists a partition {name}-{index} that cannot be"));
            };
            let before = known.and_then(|known| known.partitions.get(index as usize));
            *slot = Some(Partition::read(&partition, before, brokers));
        }
        // Every slot is filled: as many distinct indexes below their number as there are slots.
        let partitions = by_index.into_iter().flatten().collect();
        Ok(Topic { id, internal, error, partitions })
    }
}

impl Partition {
    fn read(
        partition: &MetadataPartition,
        before: Option<&Self>,
        brokers: &BTreeMap<i32, Broker>,
    ) -> Self {
        // KIP-320: a broker that lags behind must not take back what another one said.
        if let Some(before) = before
            && partition.leader_epoch < before.leader_epoch
            && brokers.contains_key(&before.leader)
            && !planted(Canary::EpochTakenBack)
        {
            return *before;
        }
        let listed = brokers.contains_key(&partition.leader);
        Self {
            leader: if listed { partition.leader } else { -1 },
            leader_epoch: partition.leader_epoch.max(-1),
            error: partition.error,
        }
    }
}

/// `org.apache.kafka.common.internals.Topic.validate`.
fn is_topic_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fits = (1..=TOPIC_NAME_BYTES_MAX).contains(&name.len());
    fits && name != "." && name != ".." && name.chars().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::metadata::MetadataBroker;

    fn broker(id: i32) -> MetadataBroker {
        MetadataBroker { id, host: format!("b{id}"), port: 9092, rack: None }
    }

    fn partition(index: i32, leader: i32, leader_epoch: i32) -> MetadataPartition {
        let error = ErrorCode::NONE;
        MetadataPartition { error, index, leader, leader_epoch, replicas: vec![], in_sync: vec![] }
    }

    fn answer(partitions: Vec<MetadataPartition>) -> MetadataResponse {
        let topic = MetadataTopic {
            error: ErrorCode::NONE,
            name: "orders".to_owned(),
            id: Uuid::from_u128(1),
            internal: false,
            partitions,
        };
        MetadataResponse {
            throttle_time_ms: 0,
            brokers: vec![broker(1), broker(2)],
            cluster_id: Some("east".to_owned()),
            controller_id: 1,
            topics: vec![topic],
            error: ErrorCode::NONE,
        }
    }

    #[test]
    fn partitions_are_by_index_and_only_a_change_counts() {
        let first = answer(vec![partition(1, 2, 5), partition(0, 1, 3)]);
        let map = ClusterMap::default().after(first.clone()).unwrap();
        let leaders: Vec<i32> = map.topics["orders"].partitions.iter().map(|p| p.leader).collect();
        assert_eq!(leaders, [1, 2]);
        assert_eq!(map.generation, 1);
        assert_eq!(map.after(first).unwrap(), map);
        let moved = answer(vec![partition(0, 2, 4), partition(1, 2, 5)]);
        let map = map.after(moved).unwrap();
        assert_eq!((map.generation, map.topics["orders"].partitions[0].leader), (2, 2));
    }

    #[test]
    fn an_older_leader_epoch_is_not_believed_unless_the_topic_is_another_one() {
        let map = ClusterMap::default().after(answer(vec![partition(0, 1, 9)])).unwrap();
        let stale = map.after(answer(vec![partition(0, 2, 8)])).unwrap();
        assert_eq!(stale, map);
        let mut anew = answer(vec![partition(0, 2, 0)]);
        anew.topics[0].id = Uuid::from_u128(2);
        assert_eq!(map.after(anew).unwrap().topics["orders"].partitions[0].leader, 2);
        // The leader that we know is gone: then what is there has to do.
        let mut gone = answer(vec![partition(0, 2, 8)]);
        gone.brokers.remove(0);
        assert_eq!(map.after(gone).unwrap().topics["orders"].partitions[0].leader, 2);
    }

    #[test]
    fn a_leader_that_is_not_listed_is_none() {
        let map = ClusterMap::default().after(answer(vec![partition(0, 7, 9)])).unwrap();
        assert_eq!(map.topics["orders"].partitions[0].leader, -1);
    }

    #[test]
    fn a_broker_without_a_legal_address_costs_no_other() {
        let host = |host: &str, port| (host.to_owned(), port);
        for (host, port) in [host(&"x".repeat(65_536), 1), host("a\u{1b}[2J", 1), host("a", 70_000)]
        {
            let mut bad = answer(vec![partition(0, 1, 1), partition(1, 2, 1)]);
            (bad.brokers[0].host, bad.brokers[0].port) = (host, port);
            let map = ClusterMap::default().after(bad).unwrap();
            assert_eq!(map.brokers[&1].address, advertised::no_address());
            assert_eq!(map.brokers[&2].address.host, "b2");
            assert_eq!(map.topics["orders"].partitions[1].leader, 2);
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let known = ClusterMap::default().after(answer(vec![partition(0, 1, 1)])).unwrap();
        type Damage = fn(&mut MetadataResponse);
        let cases: [(&str, Damage); 9] = [
            ("another cluster", |a| a.cluster_id = Some("west".to_owned())),
            ("lists 0 brokers", |a| a.brokers.clear()),
            ("lists 10001 brokers", |a| a.brokers = (0..10_001).map(broker).collect()),
            ("broker 1 that cannot be", |a| a.brokers[1].id = 1),
            ("broker -1 that cannot be", |a| a.brokers[1].id = -1),
            ("not legal", |a| a.topics[0].name = "../x".to_owned()),
            ("twice", |a| a.topics.push(a.topics[0].clone())),
            ("orders--1 that cannot be", |a| a.topics[0].partitions[0].index = -1),
            ("orders-0 that cannot be", |a| a.topics[0].partitions.push(partition(0, 1, 1))),
        ];
        for (reason, damage) in cases {
            let mut bad = answer(vec![partition(0, 1, 1)]);
            damage(&mut bad);
            let error = known.after(bad).unwrap_err();
            assert!(error.contains(reason), "{reason}: {error}");
            assert!(error.len() < 200, "{reason}");
        }
        let mut far = answer(vec![partition(i32::MAX, 1, 1)]);
        assert!(known.after(far.clone()).is_err());
        far.topics[0].partitions[0].index = 1;
        assert!(known.after(far).is_err());
    }
}
