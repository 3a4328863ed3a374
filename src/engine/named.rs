//! A position that the operator named (`strait reset`), as its commit's metadata says it. It is no anchor: the next start
//! begins a new lineage there, and asks neither log whether it may (R7, R8). PURE.

use std::fmt;

use super::anchor::Anchor;
use crate::limits;

/// Version of the format.
const FORMAT: &str = "strait-reset1";

/// The operator's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Newest epoch that the position before it spoke of. The target's leader forgets ours after a day; an epoch that
    /// begins again could be taken for the old one.
    pub newest_epoch: Option<i16>,
}

impl Named {
    /// In the place of a commit with this metadata.
    pub fn after(metadata: &str, offset: i64) -> Self {
        let anchor = Anchor::parse(metadata, offset).ok();
        let epochs = anchor.iter().flat_map(|a| &a.numberings).map(|n| n.producer_epoch);
        // Named twice without a start in between.
        let earlier = Self::parse(metadata).and_then(|named| named.newest_epoch);
        Self { newest_epoch: epochs.max().max(earlier) }
    }

    /// From a commit's metadata; none if they are something else.
    pub fn parse(metadata: &str) -> Option<Self> {
        if metadata.len() > limits::COMMIT_METADATA_CHARS_MAX {
            return None;
        }
        let (format, epoch) = metadata.split_once(';')?;
        let epoch: i16 = epoch.parse().ok()?;
        (format == FORMAT).then_some(Self { newest_epoch: (epoch >= 0).then_some(epoch) })
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FORMAT};{}", self.newest_epoch.unwrap_or(-1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_epoch_survives_any_number_of_resets() {
        let anchor = "strait1;00000000000000000000000000000001;5;4000000000000001;7;3;\
                      00000000000000000000000000000002";
        let named = Named::after(anchor, 42);
        assert_eq!(named.newest_epoch, Some(7));
        assert_eq!(Named::parse(&named.to_string()), Some(named));
        assert_eq!(Named::after(&named.to_string(), 9), named);
        assert_eq!(Named::after("", 42), Named::default());
        assert_eq!(Named::parse(&Named::default().to_string()), Some(Named::default()));
    }

    #[test]
    fn other_metadata_are_no_word_of_the_operator() {
        for text in ["", "NO_METADATA", "strait-reset1", "strait-reset1;x", "strait-reset2;1"] {
            assert_eq!(Named::parse(text), None, "{text}");
        }
    }
}
