//! One file per Kafka API; this one picks it.

mod api_versions;
mod consumer_group_heartbeat;
mod create_partitions;
mod create_topics;
mod delete_records;
mod delete_topics;
mod describe_acls;
mod describe_cluster;
mod describe_configs;
mod describe_producers;
mod fetch;
mod find_coordinator;
mod groups;
mod incremental_alter_configs;
mod init_producer_id;
mod list_offsets;
mod metadata;
mod offset_commit;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod sasl;
mod transactions;

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::StrBytes;

use super::connection::{Call, Close, Outcome};
use super::sasl::Login;

/// Does what the request asks.
pub(super) async fn handle(
    call: &Call<'_>,
    mut body: Bytes,
    login: &mut Option<Login>,
) -> Result<Outcome, Close> {
    /// Decodes, calls a handler that does not wait, encodes.
    macro_rules! at_once {
        ($handler:path) => {
            call.answer(&$handler(call, call.decode(&mut body)?))
        };
    }
    match call.api {
        ApiKey::Produce => produce::handle(call, call.decode(&mut body)?).await,
        ApiKey::Fetch => fetch::handle(call, call.decode(&mut body)?).await,
        ApiKey::JoinGroup => call.answer(&groups::join(call, call.decode(&mut body)?).await),
        ApiKey::SyncGroup => call.answer(&groups::sync(call, call.decode(&mut body)?).await),
        ApiKey::SaslHandshake => {
            call.answer(&sasl::handshake(call, call.decode(&mut body)?, login))
        }
        ApiKey::SaslAuthenticate => {
            call.answer(&sasl::authenticate(call, call.decode(&mut body)?, login))
        }
        ApiKey::ApiVersions => api_versions::handle(call),
        ApiKey::AddOffsetsToTxn => at_once!(transactions::add_offsets),
        ApiKey::AddPartitionsToTxn => at_once!(transactions::add_partitions),
        ApiKey::ConsumerGroupHeartbeat => at_once!(consumer_group_heartbeat::handle),
        ApiKey::CreatePartitions => at_once!(create_partitions::handle),
        ApiKey::CreateTopics => at_once!(create_topics::handle),
        ApiKey::DeleteGroups => at_once!(groups::delete),
        ApiKey::DeleteRecords => at_once!(delete_records::handle),
        ApiKey::DeleteTopics => at_once!(delete_topics::handle),
        ApiKey::DescribeAcls => at_once!(describe_acls::handle),
        ApiKey::DescribeCluster => at_once!(describe_cluster::handle),
        ApiKey::DescribeConfigs => at_once!(describe_configs::handle),
        ApiKey::DescribeGroups => at_once!(groups::describe),
        ApiKey::DescribeProducers => at_once!(describe_producers::handle),
        ApiKey::EndTxn => at_once!(transactions::end),
        ApiKey::FindCoordinator => at_once!(find_coordinator::handle),
        ApiKey::Heartbeat => at_once!(groups::heartbeat),
        ApiKey::IncrementalAlterConfigs => at_once!(incremental_alter_configs::handle),
        ApiKey::InitProducerId => at_once!(init_producer_id::handle),
        ApiKey::LeaveGroup => at_once!(groups::leave),
        ApiKey::ListGroups => at_once!(groups::list),
        ApiKey::ListOffsets => at_once!(list_offsets::handle),
        ApiKey::Metadata => at_once!(metadata::handle),
        ApiKey::OffsetCommit => at_once!(offset_commit::handle),
        ApiKey::OffsetFetch => at_once!(offset_fetch::handle),
        ApiKey::OffsetForLeaderEpoch => at_once!(offset_for_leader_epoch::handle),
        ApiKey::TxnOffsetCommit => at_once!(transactions::commit_offsets),
        _ => Err(Close("an API that is not served")),
    }
}

/// A string for an answer.
fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}
