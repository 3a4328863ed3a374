//! The settings of a link that decide which records a mirror writes and what they hold: the anchor names those that it was
//! made under (R0). A later start that has others counts off under the old ones. PURE.

use std::fmt;
use std::sync::Arc;

use super::admit::Rules;
use super::anchor::Numbering;
use super::identity;
use super::route::{Forwarding, Route};
use crate::config::resolved::{Isolation, Timestamps};
use crate::wire;

/// What decides a batch's fate, besides the batch.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Settings {
    /// `isolation`.
    pub isolation: Isolation,
    /// `timestamps`.
    pub timestamps: Timestamps,
    /// `forward` names `local`.
    pub local: bool,
    /// The other clusters of `forward`, as a hash.
    pub origins: u32,
    /// The topic's name on the target (`naming`), as a hash.
    pub name: u32,
}

/// As a request asks for it.
impl From<Isolation> for wire::common::Isolation {
    fn from(isolation: Isolation) -> Self {
        match isolation {
            Isolation::ReadCommitted => Self::ReadCommitted,
            Isolation::ReadUncommitted => Self::ReadUncommitted,
        }
    }
}

impl Settings {
    /// What becomes of a batch under these, towards a target that takes batches of so many bytes.
    pub fn rules(&self, batch_bytes_max: usize) -> Rules {
        Rules { isolation: self.isolation, timestamps: self.timestamps, batch_bytes_max }
    }

    /// Of a mirror.
    pub fn new(
        isolation: Isolation,
        timestamps: Timestamps,
        forwarding: &Forwarding,
        target_topic: &str,
    ) -> Self {
        Self {
            isolation,
            timestamps,
            local: forwarding.local,
            origins: identity::hash_of_origins(&forwarding.origins),
            name: identity::hash_of_name(target_topic),
        }
    }

    /// The keys of the configuration that are not as they were.
    pub fn changed_since(&self, then: &Self) -> Vec<&'static str> {
        let forward = (self.local, self.origins) != (then.local, then.origins);
        let keys = [
            ("isolation", self.isolation != then.isolation),
            ("timestamps", self.timestamps != then.timestamps),
            ("forward", forward),
            ("naming", self.name != then.name),
        ];
        keys.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
    }

    /// The rule by which records were passed on under these settings, as far as the target can hold any: the numberings of
    /// that time tell the origins, for a numbering is on record before its first batch.
    pub fn route_then(&self, now: &Route, numberings: &[Numbering]) -> Route {
        let ids = numberings.iter().map(|of| of.producer_id);
        let brought = ids.filter(|id| *id != now.home_id()).filter_map(identity::origin_of);
        let forwarding = Forwarding {
            local: self.local,
            origins: brought.map(|(origin, _)| origin).collect(),
            // What was copied was near enough.
            copies_max: u8::MAX,
            ..now.forwarding().clone()
        };
        Route::new(now.writer(), Arc::new(forwarding))
    }

    /// As the anchor has them.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let isolation = match parts.next()? {
            "c" => Isolation::ReadCommitted,
            "u" => Isolation::ReadUncommitted,
            _ => return None,
        };
        let timestamps = match parts.next()? {
            "r" => Timestamps::AsRead,
            "p" => Timestamps::Producer,
            _ => return None,
        };
        let local = match parts.next()? {
            "l" => true,
            "-" => false,
            _ => return None,
        };
        let mut hash = || u32::from_str_radix(parts.next()?, 16).ok();
        let (origins, name) = (hash()?, hash()?);
        parts.next().is_none().then_some(Self { isolation, timestamps, local, origins, name })
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let isolation = match self.isolation {
            Isolation::ReadCommitted => 'c',
            Isolation::ReadUncommitted => 'u',
        };
        let timestamps = match self.timestamps {
            Timestamps::AsRead => 'r',
            Timestamps::Producer => 'p',
        };
        let local = if self.local { 'l' } else { '-' };
        write!(f, "{isolation}.{timestamps}.{local}.{:x}.{:x}", self.origins, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::identity::{Origin, Writer};
    use crate::engine::route::Passage;
    use uuid::Uuid;

    fn forwarding(local: bool, origins: &[&str]) -> Forwarding {
        let origins = origins.iter().map(|name| Origin::of_cluster(name)).collect();
        Forwarding { home: Origin::of_cluster("here"), local, origins, copies_max: 3 }
    }

    fn settings(local: bool, origins: &[&str]) -> Settings {
        let forwarding = forwarding(local, origins);
        Settings::new(Isolation::ReadCommitted, Timestamps::AsRead, &forwarding, "orders")
    }

    #[test]
    fn each_setting_that_decides_a_fate_is_told_by_its_key() {
        let now = settings(true, &["east", "west"]);
        assert_eq!(now.changed_since(&settings(true, &["west", "east"])), [""; 0], "no order");
        for other in [settings(false, &["east", "west"]), settings(true, &["east"])] {
            assert_eq!(now.changed_since(&other), ["forward"]);
        }
        let isolation = Settings { isolation: Isolation::ReadUncommitted, ..now };
        assert_eq!(now.changed_since(&isolation), ["isolation"]);
        let timestamps = Settings { timestamps: Timestamps::Producer, ..now };
        assert_eq!(now.changed_since(&timestamps), ["timestamps"]);
        let name = Settings { name: 1, ..now };
        assert_eq!(now.changed_since(&name), ["naming"]);
        for settings in [now, isolation, timestamps, name, settings(false, &[])] {
            assert_eq!(Settings::parse(&settings.to_string()), Some(settings));
        }
        for text in ["", "c", "c.r.l.1", "c.r.l.1.2.3", "x.r.l.1.2", "c.x.l.1.2", "c.r.x.1.2"] {
            assert_eq!(Settings::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_route_of_that_time_passes_on_what_was_on_record_then() {
        let now = Route::new(
            Writer::new("link", Uuid::from_u128(1), 3),
            Arc::new(forwarding(true, &["north"])),
        );
        let brought =
            |from| Writer::new("other", Uuid::from_u128(9), 3).id(Origin::of_cluster(from), 0);
        let id = |from| now.writer().id(Origin::of_cluster(from), 1);
        let numbering =
            |producer_id| Numbering { producer_id, producer_epoch: 0, next_sequence: 0 };
        let numberings = [numbering(now.home_id()), numbering(id("east"))];
        let then = settings(false, &["east"]).route_then(&now, &numberings);
        assert_eq!(then.judge(brought("east")), Passage::Write(id("east")));
        assert!(matches!(then.judge(-1), Passage::Skip(_)), "local was not copied");
        assert!(matches!(then.judge(brought("north")), Passage::Skip(_)));
    }
}
