//! What comes through the source group, where any client may have put it: members' words to each other, and positions.

use bytes::Bytes;
use strait::engine::anchor::Anchor;
use strait::engine::identity::is_ours;
use strait::engine::named::Named;
use strait::wire::consumer_protocol::{Assignment, Subscription};

/// What is read is written again, and read as the same. Partitions are a set, written topic by topic.
pub(super) fn members(data: &Bytes) {
    if let Ok(mut read) = Subscription::decode(data)
        && let Ok(again) = read.encode()
    {
        let mut again = Subscription::decode(&again).expect("our own is read");
        again.owned.sort_unstable();
        read.owned.sort_unstable();
        assert_eq!(again, read);
    }
    if let Ok(mut read) = Assignment::decode(data)
        && let Ok(again) = read.encode()
    {
        let mut again = Assignment::decode(&again).expect("our own is read");
        again.partitions.sort_unstable();
        read.partitions.sort_unstable();
        assert_eq!(again, read);
    }
}

/// A commit's offset in eight bytes, then its metadata.
pub(super) fn position(data: &Bytes) {
    let Some((offset, metadata)) = data.split_first_chunk() else { return };
    let Ok(metadata) = std::str::from_utf8(metadata) else { return };
    let offset = i64::from_be_bytes(*offset);
    if let Ok(anchor) = Anchor::parse(metadata, offset) {
        assert!(anchor.source_offset == offset && anchor.target_offset >= 0);
        assert!(anchor.numberings.iter().all(|of| is_ours(of.producer_id)));
        // Old runs may be joined; all else stays.
        let again = Anchor::parse(&anchor.to_string(), offset).expect("our own is read");
        let rest = |anchor: &Anchor| {
            let numberings = anchor.numberings.clone();
            (numberings, anchor.settings, anchor.closed, anchor.era, anchor.map.begins())
        };
        assert_eq!(rest(&again), rest(&anchor));
    }
    let _ = (Named::parse(metadata), Named::after(metadata, offset));
}
