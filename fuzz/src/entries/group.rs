//! What comes through the source group, where any client may have put it: members' words to each other, and positions.

use std::fmt::Debug;

use bytes::Bytes;
use strait::engine::anchor::Anchor;
use strait::engine::identity::is_ours;
use strait::engine::named::Named;
use strait::wire::WireError;
use strait::wire::consumer_protocol::{Assignment, Subscription, TopicPartition};

/// What members tell their leader, and what it tells them.
pub(super) fn members(data: &Bytes) {
    let (decode, encode) = (Subscription::decode, Subscription::encode);
    read_again(data, decode, encode, |subscription| &mut subscription.owned);
    let (decode, encode) = (Assignment::decode, Assignment::encode);
    read_again(data, decode, encode, |assignment| &mut assignment.partitions);
}

/// What is read is written again, and read as the same. Partitions are a set, written topic by topic.
fn read_again<T: PartialEq + Debug>(
    data: &Bytes,
    decode: fn(&Bytes) -> Result<T, WireError>,
    encode: fn(&T) -> Result<Bytes, WireError>,
    set: fn(&mut T) -> &mut Vec<TopicPartition>,
) {
    if let Ok(mut read) = decode(data)
        && let Ok(again) = encode(&read)
    {
        let mut again = decode(&again).expect("our own is read");
        set(&mut again).sort_unstable();
        set(&mut read).sort_unstable();
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
