//! The decoders of all answers.

use std::fmt::Debug;

use bytes::Bytes;
use strait::wire::add_offsets_to_txn::AddOffsetsToTxnRequest;
use strait::wire::add_partitions_to_txn::AddPartitionsToTxnRequest;
use strait::wire::api_versions::ApiVersionsRequest;
use strait::wire::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use strait::wire::create_partitions::CreatePartitionsRequest;
use strait::wire::create_topics::CreateTopicsRequest;
use strait::wire::delete_records::DeleteRecordsRequest;
use strait::wire::delete_topics::DeleteTopicsRequest;
use strait::wire::describe_cluster::DescribeClusterRequest;
use strait::wire::describe_configs::DescribeConfigsRequest;
use strait::wire::describe_producers::DescribeProducersRequest;
use strait::wire::end_txn::EndTxnRequest;
use strait::wire::fetch::FetchRequest;
use strait::wire::find_coordinator::FindCoordinatorRequest;
use strait::wire::heartbeat::HeartbeatRequest;
use strait::wire::incremental_alter_configs::IncrementalAlterConfigsRequest;
use strait::wire::init_producer_id::InitProducerIdRequest;
use strait::wire::join_group::JoinGroupRequest;
use strait::wire::leave_group::LeaveGroupRequest;
use strait::wire::list_offsets::ListOffsetsRequest;
use strait::wire::metadata::MetadataRequest;
use strait::wire::offset_commit::OffsetCommitRequest;
use strait::wire::offset_fetch::OffsetFetchRequest;
use strait::wire::offset_for_leader_epoch::OffsetForLeaderEpochRequest;
use strait::wire::produce::ProduceRequest;
use strait::wire::sasl_authenticate::SaslAuthenticateRequest;
use strait::wire::sasl_handshake::SaslHandshakeRequest;
use strait::wire::sync_group::SyncGroupRequest;
use strait::wire::txn_offset_commit::TxnOffsetCommitRequest;
use strait::wire::{ApiKey, Request, WireError};

/// What is decoded of one API's answers.
pub struct Decoder {
    /// Which API.
    pub api: ApiKey,
    /// The lowest and the highest version.
    pub versions: (i16, i16),
    /// Whether bytes are an answer.
    pub reads: fn(i16, &Bytes) -> bool,
    /// What they say, as `Debug` shows it.
    pub shows: fn(i16, &Bytes) -> Result<String, WireError>,
}

const fn decoder<R: Request<Response: Debug>>() -> Decoder {
    Decoder {
        api: R::API,
        versions: (*R::VERSIONS.start(), *R::VERSIONS.end()),
        reads: |version, body| R::decode(version, body).is_ok(),
        shows: |version, body| R::decode(version, body).map(|answer| format!("{answer:?}")),
    }
}

/// In the order of an input's first byte; new ones go to the end, or the corpus changes its meaning.
pub static DECODERS: [Decoder; 29] = [
    decoder::<ApiVersionsRequest>(),
    decoder::<MetadataRequest>(),
    decoder::<FetchRequest>(),
    decoder::<ProduceRequest<'_>>(),
    decoder::<ListOffsetsRequest>(),
    decoder::<OffsetCommitRequest>(),
    decoder::<OffsetFetchRequest>(),
    decoder::<FindCoordinatorRequest>(),
    decoder::<OffsetForLeaderEpochRequest>(),
    decoder::<SaslHandshakeRequest>(),
    decoder::<SaslAuthenticateRequest>(),
    decoder::<DescribeConfigsRequest>(),
    decoder::<DescribeProducersRequest>(),
    decoder::<DescribeClusterRequest>(),
    decoder::<CreateTopicsRequest>(),
    decoder::<CreatePartitionsRequest>(),
    decoder::<DeleteTopicsRequest>(),
    decoder::<DeleteRecordsRequest>(),
    decoder::<IncrementalAlterConfigsRequest>(),
    decoder::<JoinGroupRequest>(),
    decoder::<SyncGroupRequest>(),
    decoder::<HeartbeatRequest>(),
    decoder::<LeaveGroupRequest>(),
    decoder::<ConsumerGroupHeartbeatRequest>(),
    decoder::<InitProducerIdRequest>(),
    decoder::<AddPartitionsToTxnRequest>(),
    decoder::<AddOffsetsToTxnRequest>(),
    decoder::<TxnOffsetCommitRequest>(),
    decoder::<EndTxnRequest>(),
];

pub(super) fn run(data: &Bytes) {
    let Some(&[api, version]) = data.first_chunk() else { return };
    let decoder = &DECODERS[usize::from(api) % DECODERS.len()];
    let (low, high) = decoder.versions;
    let version = low + i16::from(version) % (high - low + 1);
    (decoder.reads)(version, &data.slice(2..));
}
