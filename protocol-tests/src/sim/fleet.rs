//! How many instances a run has, and what they know of each other.

use std::time::Duration;

use super::rng::Rng;

/// What the instances are to the source's group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// Nothing: each copies everything.
    Off,
    /// Members by the classic protocol.
    Classic,
    /// Members by KIP-848 where the source's release has it.
    Auto,
}

impl Membership {
    /// As the configuration has it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Classic => "classic",
            Self::Auto => "auto",
        }
    }
}

/// The instances of a run.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// How many there are at most at a time.
    pub instances: usize,
    /// What they are to the group.
    pub membership: Membership,
    /// A life takes over from the one before it on its machine at once.
    pub identities: bool,
    /// `group.consumer.session.timeout.ms`.
    pub session: Duration,
}

impl Fleet {
    /// One that copies alone and asks nobody.
    pub fn alone() -> Self {
        let session = Duration::from_secs(45);
        Self { instances: 1, membership: Membership::Off, identities: false, session }
    }

    /// Two that know nothing of each other and both copy everything.
    pub fn strangers() -> Self {
        Self { instances: 2, ..Self::alone() }
    }

    /// One to four members.
    pub fn draw(rng: &mut Rng) -> Self {
        Self {
            instances: *rng.pick(&[1, 2, 2, 3, 4]),
            membership: *rng.pick(&[Membership::Auto, Membership::Auto, Membership::Classic]),
            identities: rng.chance(50),
            session: Duration::from_secs(*rng.pick(&[6, 6, 12, 45])),
        }
    }
}
