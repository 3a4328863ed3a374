//! When files that are looked at again and again are believed. Pure.

use super::files::Print;

/// What was seen of some files up to now.
pub(crate) struct Watch {
    /// What is in use.
    used: Print,
    /// What was there at the last look.
    seen: Print,
    /// What was told to be no good.
    refused: Option<Print>,
}

/// What to do behind a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// They hold what is in use; whether something else was refused before.
    InUse { was_refused: bool },
    /// They may be in the middle of being written, or it was told already that they are no good.
    Leave,
    /// Two looks in a row saw the same: judge it.
    Judge,
}

impl Watch {
    /// What is in use is there.
    pub(crate) fn new(used: Print) -> Self {
        Self { used, seen: used, refused: None }
    }

    /// One look. Half a file may read like a whole one, and a pair is not written in one stroke: what is new is judged
    /// when it has not changed from one look to the next.
    pub(crate) fn look(&mut self, print: Print) -> Look {
        let before = std::mem::replace(&mut self.seen, print);
        if print == self.used {
            return Look::InUse { was_refused: self.refused.take().is_some() };
        }
        if before != print || self.refused == Some(print) { Look::Leave } else { Look::Judge }
    }

    /// What was seen last is in use now.
    pub(crate) fn took(&mut self) {
        (self.used, self.refused) = (self.seen, None);
    }

    /// What was seen last is no good.
    pub(crate) fn refused(&mut self) {
        self.refused = Some(self.seen);
    }
}
