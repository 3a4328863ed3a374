//! Which versions each release offers, as its own ApiVersions answer lists them (read from both releases' clients).
//!
//! A release may list versions that it closes on (4.3: Produce 0-2) or, for us, that `kafka-protocol` no longer
//! reads (3.9: what KIP-896 removed later): asking for those closes the connection.

use kafka_protocol::messages::ApiKey;

use super::options::Generation;

/// Lowest and highest version.
type Range = (i16, i16);

/// An API, and its lowest and highest version in 3.9 and in 4.3. 4.3's maxima are cut to `kafka-protocol`'s.
const OFFERED: &[(ApiKey, Range, Range)] = &[
    (ApiKey::Produce, (0, 11), (0, 13)),
    (ApiKey::Fetch, (0, 17), (4, 18)),
    (ApiKey::ListOffsets, (0, 9), (1, 10)),
    (ApiKey::Metadata, (0, 12), (0, 13)),
    (ApiKey::OffsetCommit, (0, 9), (2, 9)),
    (ApiKey::OffsetFetch, (0, 9), (1, 9)),
    (ApiKey::FindCoordinator, (0, 6), (0, 6)),
    (ApiKey::JoinGroup, (0, 9), (0, 9)),
    (ApiKey::Heartbeat, (0, 4), (0, 4)),
    (ApiKey::LeaveGroup, (0, 5), (0, 5)),
    (ApiKey::SyncGroup, (0, 5), (0, 5)),
    (ApiKey::DescribeGroups, (0, 5), (0, 6)),
    (ApiKey::ListGroups, (0, 5), (0, 5)),
    (ApiKey::SaslHandshake, (0, 1), (0, 1)),
    (ApiKey::ApiVersions, (0, 4), (0, 4)),
    (ApiKey::CreateTopics, (0, 7), (2, 7)),
    (ApiKey::DeleteTopics, (0, 6), (1, 6)),
    (ApiKey::DeleteRecords, (0, 2), (0, 2)),
    (ApiKey::InitProducerId, (0, 5), (0, 5)),
    (ApiKey::OffsetForLeaderEpoch, (0, 4), (2, 4)),
    (ApiKey::AddPartitionsToTxn, (0, 3), (0, 3)),
    (ApiKey::AddOffsetsToTxn, (0, 4), (0, 4)),
    (ApiKey::EndTxn, (0, 4), (0, 5)),
    (ApiKey::TxnOffsetCommit, (0, 4), (0, 5)),
    (ApiKey::DescribeAcls, (0, 3), (1, 3)),
    (ApiKey::DescribeConfigs, (0, 4), (1, 4)),
    (ApiKey::SaslAuthenticate, (0, 2), (0, 2)),
    (ApiKey::CreatePartitions, (0, 3), (0, 3)),
    (ApiKey::DeleteGroups, (0, 2), (0, 2)),
    (ApiKey::IncrementalAlterConfigs, (0, 1), (0, 1)),
    (ApiKey::DescribeCluster, (0, 1), (0, 2)),
    (ApiKey::DescribeProducers, (0, 0), (0, 0)),
    (ApiKey::ConsumerGroupHeartbeat, (0, 0), (0, 1)),
];

/// Every API with the versions it is offered in.
pub(super) fn offered(generation: Generation) -> impl Iterator<Item = (ApiKey, i16, i16)> {
    OFFERED.iter().map(move |(api, old, new)| {
        let (min, max) = match generation {
            Generation::Kafka39 => *old,
            Generation::Kafka43 => *new,
        };
        (*api, min, max)
    })
}

/// A request of this API and version can be read and answered.
pub(super) fn serves(generation: Generation, api: ApiKey, version: i16) -> bool {
    let readable = api.valid_versions();
    offered(generation).any(|(known, min, max)| {
        known == api && (min..=max).contains(&version) && version >= readable.min
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn produce_below_3_is_listed_and_not_served() {
        for generation in [Generation::Kafka39, Generation::Kafka43] {
            let listed = offered(generation).find(|(api, ..)| *api == ApiKey::Produce);
            assert_eq!(listed.map(|(_, min, _)| min), Some(0));
            assert!(!serves(generation, ApiKey::Produce, 2));
            assert!(serves(generation, ApiKey::Produce, 3));
        }
        assert!(!serves(Generation::Kafka39, ApiKey::Produce, 12));
    }

    #[test]
    fn nothing_is_listed_that_cannot_be_read() {
        for generation in [Generation::Kafka39, Generation::Kafka43] {
            for (api, _, max) in offered(generation) {
                assert!(max <= api.valid_versions().max, "{api:?}");
            }
        }
    }
}
