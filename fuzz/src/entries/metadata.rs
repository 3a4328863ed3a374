//! The map of a cluster, after answers that say anything.

use bytes::Bytes;
use strait::cluster::ClusterMap;
use strait::wire::Request;
use strait::wire::metadata::MetadataRequest;

/// The first byte is the version; then answers, two bytes of length in front of each. One map lives through all of them.
pub(super) fn run(data: &Bytes) {
    let Some(&version) = data.first() else { return };
    let (low, high) = (*MetadataRequest::VERSIONS.start(), *MetadataRequest::VERSIONS.end());
    let version = low + i16::from(version) % (high - low + 1);
    let mut map = ClusterMap::default();
    let mut at = 1;
    while let Some(len) = data.get(at..at + 2).and_then(<[u8]>::first_chunk) {
        let len = usize::from(u16::from_be_bytes(*len)).min(data.len() - at - 2);
        let body = data.slice(at + 2..at + 2 + len);
        at += 2 + len;
        let Ok(answer) = MetadataRequest::decode(version, &body) else { continue };
        match map.after(answer) {
            Ok(after) => {
                holds(&map, &after);
                map = after;
            }
            Err(reason) => assert!(!reason.is_empty()),
        }
    }
}

fn holds(before: &ClusterMap, after: &ClusterMap) {
    assert!(!after.brokers.is_empty() && after.brokers.keys().all(|id| *id >= 0));
    assert!(before.cluster_id.is_none() || before.cluster_id == after.cluster_id);
    let is_new = ClusterMap { generation: after.generation, ..before.clone() } != *after;
    assert_eq!(after.generation, before.generation + u64::from(is_new));
    for (name, topic) in &after.topics {
        assert!(!name.is_empty() && !name.contains(['/', '\0']));
        let known = before.topics.get(name).filter(|known| known.id == topic.id);
        for (index, partition) in topic.partitions.iter().enumerate() {
            let leader = partition.leader;
            assert!(leader == -1 || after.brokers.contains_key(&leader), "led by nobody we know");
            // KIP-320: nobody takes back what a newer epoch said while that leader lives.
            if let Some(known) = known.and_then(|known| known.partitions.get(index))
                && after.brokers.contains_key(&known.leader)
            {
                assert!(partition.leader_epoch >= known.leader_epoch);
            }
        }
    }
}
