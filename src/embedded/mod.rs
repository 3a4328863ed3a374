//! A Kafka-protocol broker in this process, in memory, as strict as the real one: the demo, the tests and the
//! simulator run on it.
//!
//! Owns: what a broker answers. A cluster is 1..n brokers over one state, so replication is instantaneous unless a
//! test freezes it. `api/` has a file per Kafka API; the rules of an append are in `validate` and `producer_state`,
//! the log in `log`, compaction in `cleaner`, sessions in `sessions`, groups in `groups`, transactions in `transactions`, what a test may do
//! in [`Cluster`] and [`Fault`]. Never: disk, an inter-broker protocol, ACLs, quotas of its own, KIP-848 and share
//! groups, transactions with KIP-890 part 2, expiry of committed offsets, retention by time.
//!
//! For trusted peers on loopback only: requests are decoded by `kafka-protocol`, whose decoders reserve what an array
//! claims to hold. Frames are bounded before they are read; lengths inside them are not.
//!
//! Start one with [`EmbeddedCluster::start`] (a thread of its own), or run [`open`]'s future on a local runtime that
//! is already there, as a simulator does. [`Cluster`] steers it from any thread.

mod api;
mod batch;
mod body;
mod cleaner;
mod connection;
mod consumers;
mod control;
mod faults;
mod groups;
mod log;
mod memories;
mod options;
mod producer_state;
mod records;
mod sasl;
mod server;
mod sessions;
mod state;
#[cfg(test)]
mod tests;
mod topic;
mod transactions;
mod validate;
mod versions;

pub use control::{Cluster, Dump, Ends, ProducerDump, Replica};
pub use faults::{Fault, FaultId, Order};
pub use groups::{CommitHook, Committed};
pub use kafka_protocol::messages::ApiKey;
pub use log::Aborted;
pub use options::{Generation, Listener, Mechanism, Options, User};
pub use producer_state::Producers;
pub use sasl::Logins;
pub use server::{EmbeddedCluster, open};
