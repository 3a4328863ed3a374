//! The Kafka protocol as Strait speaks it. PURE: bytes in, values out; no socket, clock, thread or log.
//!
//! Reading is ours and bounded: every count is checked against the bytes that are left before anything is reserved
//! (I4), because a peer that has not been authenticated may send anything. Writing small requests is
//! `kafka-protocol`'s; Produce, whose records must not be copied, is written here and compared with the crate's bytes in
//! tests. One file per Kafka API.
//!
//! Only flexible versions (KIP-482) are spoken: Kafka 2.8 is the oldest broker that offers them all.

pub mod add_offsets_to_txn;
pub mod add_partitions_to_txn;
pub mod api_versions;
pub mod batch;
pub mod codec;
pub mod common;
pub mod consumer_group_heartbeat;
pub mod consumer_protocol;
pub mod crc;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_producers;
pub mod end_txn;
pub mod error_code;
pub mod fetch;
pub mod find_coordinator;
pub mod frame;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_offsets;
mod lz4;
pub mod merge;
pub mod metadata;
pub mod offset_commit;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod old_message_set;
pub mod primitives;
pub mod produce;
pub mod recode;
pub mod records;
pub mod sasl_authenticate;
pub mod sasl_handshake;
pub mod spans;
pub mod stamp;
pub mod sync_group;
#[cfg(test)]
#[allow(dead_code, reason = "for the decoders' tests")]
pub(crate) mod tests_support;
pub mod txn_offset_commit;
mod write;

use std::ops::RangeInclusive;

use bytes::Bytes;

pub use error_code::ErrorCode;
pub use primitives::{Reader, WireError};

/// The longest topic name that Kafka takes (`Topic.MAX_NAME_LENGTH`: a file name of 255 less `-` and the partition).
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// The APIs that Strait calls. The number is Kafka's `api_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i16)]
#[allow(missing_docs, reason = "the names are Kafka's")]
pub enum ApiKey {
    Produce = 0,
    Fetch = 1,
    ListOffsets = 2,
    Metadata = 3,
    OffsetCommit = 8,
    OffsetFetch = 9,
    FindCoordinator = 10,
    JoinGroup = 11,
    Heartbeat = 12,
    LeaveGroup = 13,
    SyncGroup = 14,
    DescribeGroups = 15,
    ListGroups = 16,
    SaslHandshake = 17,
    ApiVersions = 18,
    CreateTopics = 19,
    DeleteTopics = 20,
    DeleteRecords = 21,
    InitProducerId = 22,
    OffsetForLeaderEpoch = 23,
    AddPartitionsToTxn = 24,
    AddOffsetsToTxn = 25,
    EndTxn = 26,
    TxnOffsetCommit = 28,
    DescribeAcls = 29,
    DescribeConfigs = 32,
    SaslAuthenticate = 36,
    CreatePartitions = 37,
    IncrementalAlterConfigs = 44,
    DescribeCluster = 60,
    DescribeProducers = 61,
    ConsumerGroupHeartbeat = 68,
}

/// One request kind: how it is written, and how its answer is read.
pub trait Request {
    /// Kafka's api_key.
    const API: ApiKey;
    /// The versions that are implemented here; the highest that the broker also has is used.
    const VERSIONS: RangeInclusive<i16>;
    /// What comes back.
    type Response;

    /// Appends the request body (not the header).
    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError>;

    /// Reads a response body (not the header). Slices of `body` may be kept; they keep the whole frame alive.
    fn decode(version: i16, body: &Bytes) -> Result<Self::Response, WireError>;
}
