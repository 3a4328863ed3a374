//! Whose records a mirror passes on, told from the producer id of a batch alone, and the id that it writes them under. PURE.
//!
//! The id that a Strait writes under names the cluster where the records were first written and how many copies lie behind
//! (`identity.rs`). So no record is read to know where it comes from, and none is changed to say so. Records that no Strait
//! wrote are local to the cluster that they are read from.
//!
//! Per origin the links must form a tree; `link/pairs.rs` verifies it for the links of one configuration. Where several
//! processes together make a circle that none of them can see, the number of copies ends it.

use std::sync::Arc;

use super::identity::{self, Origin, Writer};
use super::stats::Fate;

/// What a link's `forward` means, once the clusters' ids are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// The source.
    pub home: Origin,
    /// Pass on what is local to it.
    pub local: bool,
    /// Pass on what a Strait brought to it from these.
    pub origins: Vec<Origin>,
    /// How many copies a record may be away from where it was first written.
    pub copies_max: u8,
}

/// The rule of one mirror.
#[derive(Clone, Debug)]
pub struct Route {
    writer: Writer,
    forwarding: Arc<Forwarding>,
}

/// What is done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Copy it under this id.
    Write(i64),
    /// Step over it.
    Skip(Fate),
    /// It was to be copied, and is so many copies away from its origin that it must have gone in a circle.
    TooFar(u8),
}

impl Route {
    /// Of a mirror.
    pub fn new(writer: Writer, forwarding: Arc<Forwarding>) -> Self {
        Self { writer, forwarding }
    }

    /// Whose ids the mirror writes under.
    pub fn writer(&self) -> Writer {
        self.writer
    }

    /// What the link's `forward` means.
    pub fn forwarding(&self) -> &Forwarding {
        &self.forwarding
    }

    /// The id of what is local to the source, passed on or not.
    pub fn home_id(&self) -> i64 {
        self.writer.id(self.forwarding.home, 0)
    }

    /// Whether it may write under this id of its writer's.
    pub fn writes(&self, producer_id: i64) -> bool {
        let origin = identity::origin_of(producer_id);
        producer_id == self.home_id()
            || origin.is_some_and(|(origin, _)| self.forwarding.origins.contains(&origin))
    }

    /// By the producer id of a source batch.
    pub fn judge(&self, producer_id: i64) -> Passage {
        let Some((origin, hops)) = identity::origin_of(producer_id) else {
            return if self.forwarding.local {
                Passage::Write(self.home_id())
            } else {
                Passage::Skip(Fate::SkippedLocal)
            };
        };
        if !self.forwarding.origins.contains(&origin) {
            return Passage::Skip(Fate::SkippedReplicated);
        }
        // It is its (hops + 1)th copy; ours would be the next.
        let copies = hops + 2;
        if copies > self.forwarding.copies_max || hops >= identity::HOPS_MAX {
            return Passage::TooFar(hops + 1);
        }
        Passage::Write(self.writer.id(origin, hops + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn origin(name: &str) -> Origin {
        Origin::of_cluster(name)
    }

    /// On the way from `here`.
    fn route(local: bool, origins: &[&str], copies_max: u8) -> Route {
        let origins = origins.iter().map(|name| origin(name)).collect();
        let forwarding = Forwarding { home: origin("here"), local, origins, copies_max };
        Route::new(Writer::new("link", Uuid::from_u128(1), 3), Arc::new(forwarding))
    }

    /// As another Strait writes.
    fn brought(from: &str, hops: u8) -> i64 {
        Writer::new("other", Uuid::from_u128(9), 3).id(origin(from), hops)
    }

    #[test]
    fn local_passes_on_what_no_strait_wrote_and_nothing_else() {
        let route = route(true, &[], 2);
        let own = route.writer().id(origin("here"), 0);
        // -1 has bit 62 set as well: the comparison is a signed one.
        for foreign in [-1, 0, 7, (1 << 62) - 1, i64::MIN] {
            assert_eq!(route.judge(foreign), Passage::Write(own), "{foreign}");
        }
        for from in ["east", "here"] {
            let skip = Passage::Skip(Fate::SkippedReplicated);
            assert_eq!(route.judge(brought(from, 0)), skip, "{from}");
        }
    }

    #[test]
    fn a_list_passes_on_what_it_names_with_its_origin_and_one_hop_more() {
        let route = route(false, &["east"], 3);
        let Passage::Write(id) = route.judge(brought("east", 0)) else { panic!("not passed on") };
        assert_eq!(identity::origin_of(id), Some((origin("east"), 1)));
        assert!(route.writer().wrote(id) && id != brought("east", 1));
        assert_eq!(route.judge(-1), Passage::Skip(Fate::SkippedLocal));
        assert_eq!(route.judge(brought("north", 0)), Passage::Skip(Fate::SkippedReplicated));
    }

    #[test]
    fn a_circle_that_nobody_sees_ends_at_the_copies_that_are_allowed() {
        let three = route(true, &["east"], 3);
        assert!(matches!(three.judge(brought("east", 1)), Passage::Write(_)));
        assert_eq!(three.judge(brought("east", 2)), Passage::TooFar(3));
        let most = route(true, &["east"], u8::MAX);
        assert!(matches!(most.judge(brought("east", 14)), Passage::Write(_)));
        assert_eq!(most.judge(brought("east", 15)), Passage::TooFar(16), "four bits are used up");
        // What is not passed on anyway is no circle.
        assert_eq!(three.judge(brought("north", 9)), Passage::Skip(Fate::SkippedReplicated));
    }
}
