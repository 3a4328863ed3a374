//! What is known of a cluster at one moment.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::config::resolved::Address;
use crate::wire::ErrorCode;

/// The newest metadata. Replaced as a whole, never changed.
#[derive(Clone, Debug, Default)]
pub struct ClusterMap {
    /// The cluster's own id.
    pub cluster_id: Option<String>,
    /// By broker id, with the address that each advertises.
    pub brokers: BTreeMap<i32, Broker>,
    /// By name.
    pub topics: HashMap<String, Topic>,
    /// Counts the maps.
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
    /// Broker id; -1 is none.
    pub leader: i32,
    /// -1 is unknown.
    pub leader_epoch: i32,
    /// Why it has no leader, or NONE.
    pub error: ErrorCode,
}
