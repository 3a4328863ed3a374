//! The anchor: what a commit in the source group says besides the offset, in its metadata string. With it a later
//! start knows where on the target the copy of that offset ended and under which numbering it was written. PURE.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The state of a mirror at a committed source offset (rule R0 of the resume rules, see the README's design notes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The topic that was written.
    pub target_topic_id: Uuid,
    /// Target offset after the copy of the last record below the committed offset.
    pub target_offset: i64,
    /// Producer id of this mirror.
    pub producer_id: i64,
    /// Its epoch: (id, epoch) names one numbering, a lineage.
    pub producer_epoch: i16,
    /// Sequence of the next record.
    pub next_sequence: i32,
    /// The topic that was read.
    pub source_topic_id: Uuid,
}

/// Version of the format; an unknown one is no anchor.
const FORMAT: &str = "strait1";

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{FORMAT};{};{};{:x};{};{};{}",
            self.target_topic_id.simple(),
            self.target_offset,
            self.producer_id,
            self.producer_epoch,
            self.next_sequence,
            self.source_topic_id.simple()
        )
    }
}

/// The metadata is not an anchor: a reset tool or another client committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnAnchor;

impl FromStr for Anchor {
    type Err = NotAnAnchor;

    fn from_str(text: &str) -> Result<Self, NotAnAnchor> {
        let mut fields = text.split(';');
        let mut field = || fields.next().ok_or(NotAnAnchor);
        if field()? != FORMAT {
            return Err(NotAnAnchor);
        }
        let anchor = Self {
            target_topic_id: field()?.parse().map_err(|_| NotAnAnchor)?,
            target_offset: field()?.parse().map_err(|_| NotAnAnchor)?,
            producer_id: i64::from_str_radix(field()?, 16).map_err(|_| NotAnAnchor)?,
            producer_epoch: field()?.parse().map_err(|_| NotAnAnchor)?,
            next_sequence: field()?.parse().map_err(|_| NotAnAnchor)?,
            source_topic_id: field()?.parse().map_err(|_| NotAnAnchor)?,
        };
        let legal = anchor.target_offset >= 0
            && anchor.producer_epoch >= 0
            && anchor.next_sequence >= 0
            && fields.next().is_none();
        if legal { Ok(anchor) } else { Err(NotAnAnchor) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::COMMIT_METADATA_CHARS_MAX;

    fn anchor() -> Anchor {
        Anchor {
            target_topic_id: Uuid::from_u128(1),
            target_offset: i64::MAX,
            producer_id: i64::MAX,
            producer_epoch: i16::MAX,
            next_sequence: i32::MAX,
            source_topic_id: Uuid::from_u128(2),
        }
    }

    #[test]
    fn survives_the_round_trip_and_fits() {
        let text = anchor().to_string();
        assert_eq!(text.parse(), Ok(anchor()));
        assert!(text.len() < COMMIT_METADATA_CHARS_MAX);
    }

    #[test]
    fn foreign_metadata_is_no_anchor() {
        let good = anchor().to_string();
        let cut = &good[..good.len() - 3];
        let long = format!("{good};1");
        let negative = good.replace(";32767;", ";-1;");
        for text in ["", "NO_METADATA", "strait1", "strait0;1;2", cut, &long, &negative] {
            assert_eq!(text.parse::<Anchor>(), Err(NotAnAnchor), "{text}");
        }
    }
}
