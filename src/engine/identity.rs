//! Producer identity that is derived, not allocated: brokers accept any id from any client, so every instance of a link
//! continues the same numbering without storing anything, and an id tells every other Strait where a batch was written
//! first. PURE.
//!
//! Layout of an id, as a signed number >= 2^62 (allocated ids count up from 0; -1 is a producer without an id):
//! bit 62 set | 4 bits hops | 28 bits origin | 30 bits mirror.

use aws_lc_rs::digest::{SHA256, digest};
use uuid::Uuid;

const OURS: i64 = 1 << 62;
const MIRROR_BITS: u32 = 30;
const ORIGIN_BITS: u32 = 28;
/// What four bits hold.
pub const HOPS_MAX: u8 = 15;

/// The cluster where a record was first written, as 28 bits of its cluster id's hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin(u32);

impl Origin {
    /// Of a cluster, by the id that its brokers report.
    pub fn of_cluster(cluster_id: &str) -> Self {
        Self(hash(&[b"origin", cluster_id.as_bytes()]) & ((1 << ORIGIN_BITS) - 1))
    }
}

/// Whether any Strait wrote under this producer id. A signed comparison: -1 has bit 62 set too, and taking every
/// non-idempotent producer for one of ours would withhold its records silently.
pub fn is_ours(producer_id: i64) -> bool {
    producer_id >= OURS
}

/// Where a batch of this producer id was first written, and how often a copy was copied again; none if no Strait wrote it.
pub fn origin_of(producer_id: i64) -> Option<(Origin, u8)> {
    let origin = (producer_id >> MIRROR_BITS) & ((1 << ORIGIN_BITS) - 1);
    let hops = (producer_id >> (MIRROR_BITS + ORIGIN_BITS)) & i64::from(HOPS_MAX);
    is_ours(producer_id).then_some((Origin(origin as u32), hops as u8))
}

/// The mirror that writes: 30 bits of link, source topic and partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer(u32);

impl Writer {
    /// The mirror of a partition.
    pub fn new(link: &str, source_topic_id: Uuid, partition: i32) -> Self {
        let topic = source_topic_id.as_bytes();
        let mirror = hash(&[b"mirror", link.as_bytes(), topic, &partition.to_be_bytes()]);
        Self(mirror & ((1 << MIRROR_BITS) - 1))
    }

    /// The id for records that were first written at `origin`, and whose copy was copied again `hops` times (at most
    /// [`HOPS_MAX`]).
    pub fn id(self, origin: Origin, hops: u8) -> i64 {
        let hops = i64::from(hops.min(HOPS_MAX)) << (MIRROR_BITS + ORIGIN_BITS);
        OURS | hops | i64::from(origin.0) << MIRROR_BITS | i64::from(self.0)
    }

    /// Whether it is one of this mirror's ids, of any origin.
    pub fn wrote(self, producer_id: i64) -> bool {
        is_ours(producer_id) && producer_id & ((1 << MIRROR_BITS) - 1) == i64::from(self.0)
    }
}

/// Whether an id is of a direct copy from the same cluster as `ours`, by another mirror: another link's, or that of a
/// source topic which was deleted since.
pub fn is_elder(id: i64, ours: i64) -> bool {
    is_ours(id) && id != ours && id >> MIRROR_BITS == ours >> MIRROR_BITS
}

/// Of a list of origins, in whatever order.
pub fn hash_of_origins(origins: &[Origin]) -> u32 {
    let mut all: Vec<_> = origins.iter().map(|origin| origin.0.to_be_bytes()).collect();
    all.sort_unstable();
    hash(&[b"origins", all.as_flattened()])
}

/// Of a topic's name.
pub fn hash_of_name(topic: &str) -> u32 {
    hash(&[b"name", topic.as_bytes()])
}

/// 32 bits of SHA-256 over the parts, each preceded by its length so that no two lists of parts are alike.
fn hash(parts: &[&[u8]]) -> u32 {
    let mut input = Vec::with_capacity(128);
    for part in parts {
        input.extend_from_slice(&(part.len() as u64).to_be_bytes());
        input.extend_from_slice(part);
    }
    let digest = digest(&SHA256, &input);
    digest.as_ref().iter().take(4).fold(0, |word, byte| word << 8 | u32::from(*byte))
}

/// `sequence + records`, in the numbering of Kafka's producers: 2147483647 is followed by 0.
pub fn advance(sequence: i32, records: i32) -> i32 {
    ((i64::from(sequence) + i64::from(records)) & i64::from(i32::MAX)) as i32
}

/// How far `to` lies behind `from` in that numbering.
pub fn distance(from: i32, to: i32) -> i32 {
    ((i64::from(to) - i64::from(from)) & i64::from(i32::MAX)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable_distinct_and_recognised() {
        let origin = Origin::of_cluster("east-id");
        let topic = Uuid::from_u128(7);
        let writer = Writer::new("east-to-west", topic, 3);
        let id = writer.id(origin, 0);
        assert_eq!(id, Writer::new("east-to-west", topic, 3).id(origin, 0));
        assert_ne!(id, Writer::new("east-to-west", topic, 4).id(origin, 0));
        assert_ne!(id, Writer::new("other", topic, 3).id(origin, 0));
        let west = Origin::of_cluster("west-id");
        assert_ne!(id, writer.id(west, 0));
        assert!(is_ours(id) && id > 0);
        let elder = Writer::new("east-to-west", Uuid::from_u128(8), 3);
        assert!(is_elder(elder.id(origin, 0), id) && !is_elder(id, id));
        assert!(!is_elder(writer.id(west, 0), id) && !is_elder(elder.id(origin, 1), id));
        assert!(!is_elder(-1, id) && !is_elder(5, id));
        for (origin, hops) in [(origin, 0), (west, 9), (west, HOPS_MAX)] {
            let id = writer.id(origin, hops);
            assert!(is_ours(id) && writer.wrote(id));
            assert!(!Writer::new("other", topic, 3).wrote(id));
            assert_eq!(origin_of(id), Some((origin, hops)));
        }
    }

    #[test]
    fn foreign_producers_are_not_ours() {
        for id in [-1, 0, 1, 1_000_000, (1 << 62) - 1, i64::MIN] {
            assert!(!is_ours(id), "{id}");
            assert_eq!(origin_of(id), None);
            assert!(!Writer(id as u32 & ((1 << MIRROR_BITS) - 1)).wrote(id), "{id}");
        }
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(advance(0, 5), 5);
        assert_eq!(advance(i32::MAX, 1), 0);
        assert_eq!(advance(i32::MAX - 1, 5), 3);
    }
}
