//! The part of the target's log that must be looked at before a position behind it is committed. PURE.

use super::anchor::Numbering;

/// Offsets of the target among which others' batches were appended, or late ones of ours that no producer state kept out:
/// from an acked prefix to behind the last batch that did not follow the one before it, which may itself be the repetition.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Unseen {
    /// First target offset.
    pub from: i64,
    /// The numberings as they were there.
    pub numberings: Vec<Numbering>,
    /// The target offset after the last.
    pub to: i64,
}

impl Unseen {
    /// An ack at the end of `from..to` did not follow the one before it.
    pub fn grow(unseen: &mut Option<Self>, from: i64, numberings: &[Numbering], to: i64) {
        let new = || Self { from, numberings: numberings.to_vec(), to };
        unseen.get_or_insert_with(new).to = to;
    }

    /// Everything below the beginning of `end` was looked at.
    pub fn shrink(unseen: &mut Option<Self>, end: Self) {
        *unseen = unseen
            .take()
            .filter(|unseen| unseen.to > end.from)
            .map(|Self { to, .. }| Self { to, ..end });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_while_it_was_looked_at_is_left_to_look_at() {
        let numbering =
            |next_sequence| Numbering { producer_id: 1, producer_epoch: 0, next_sequence };
        let at =
            |offset, next| Unseen { from: offset, numberings: vec![numbering(next)], to: offset };
        let mut unseen = None;
        Unseen::grow(&mut unseen, 10, &[numbering(3)], 15);
        Unseen::grow(&mut unseen, 20, &[numbering(5)], 25);
        let both = Unseen { from: 10, numberings: vec![numbering(3)], to: 25 };
        assert_eq!(unseen, Some(both));
        Unseen::shrink(&mut unseen, at(18, 4));
        assert_eq!(unseen, Some(Unseen { from: 18, numberings: vec![numbering(4)], to: 25 }));
        Unseen::shrink(&mut unseen, at(25, 7));
        assert_eq!(unseen, None);
    }
}
