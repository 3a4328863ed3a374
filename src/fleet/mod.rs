//! Membership of the source group `strait.<link>`: which mirrors are this process's, and under which name it commits.
//!
//! An instance is always a member, also when alone. Instances of one link share its mirrors by partition; the source's
//! group coordinator is the only thing that knows all of them. KIP-848 where the broker has it (`kip848.rs`), else the classic
//! cooperative protocol (`classic.rs`); without membership (`alone.rs`) everything is ours. The deciding half of both is pure;
//! `drive.rs` is the other: it talks to the coordinator, on the control thread, and never touches a batch.
//!
//! Duties, whichever protocol: partitions that go are let go (acks waited for, committed) before the group is told so;
//! when the membership is lost everything is dropped at once and nothing committed; a new membership begins under a new
//! id, except that a process which starts takes over from its own former life, by an id that is derived from its
//! [`Identity`].

mod alone;
mod assign;
mod classic;
mod drive;
mod drive_classic;
mod drive_kip848;
mod kip848;
mod reasons;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::cluster::ClusterHandle;
use crate::config::resolved::Link;
use crate::engine::member::MemberCell;
use crate::engine::spec::Left;
use crate::env::Env;
use crate::error::Error;

pub use drive::run;

/// Topic and partition on the source.
pub type Partition = (Arc<str>, i32);

/// What is given, with the id of its topic; nil where the group names topics only by name.
pub type Given = (Partition, Uuid);

/// Who holds the mirrors.
pub trait Holder {
    /// Everything is ours: there is no membership.
    fn take_all(&self);
    /// These are ours from now on, beside those that were.
    fn take(&self, given: &[Given]);
    /// These are ours no longer: each is let go with its acks committed.
    fn release(&self, partitions: &[Partition]) -> Vec<Left>;
    /// Nothing is ours any more, and others may have it already: dropped, nothing committed.
    fn lose(&self);
    /// The group has told what is ours, be it nothing.
    fn settled(&self);
}

/// What tells one running process from another and stays over its restarts: where it runs, not what it is. A process that
/// starts under an identity ends the membership of whoever had it before, so that nobody waits for the session of a
/// process that was killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity(Arc<str>);

impl Identity {
    /// By host name and the port of its telemetry, for instance.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// A member id for a group.
    fn id_in(&self, group: &str) -> Uuid {
        let text = format!("strait member {} {} {group}", self.0.len(), self.0);
        let mut bytes = [0; 16];
        let digest = digest(&SHA256, text.as_bytes());
        bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

/// The link's side of a membership: what it is interested in, and what is wrong.
#[derive(Debug, Default)]
pub struct Interest {
    topics: RefCell<BTreeSet<Arc<str>>>,
    changed: Notify,
    error: RefCell<Option<Error>>,
    /// Rings when [`Interest::error`] changes.
    told: Notify,
}

impl Interest {
    /// Notes the topics whose partitions are to be shared.
    pub fn set_topics(&self, topics: BTreeSet<Arc<str>>) {
        let news = *self.topics.borrow() != topics;
        if news {
            *self.topics.borrow_mut() = topics;
            self.changed.notify_one();
        }
    }

    /// Why there is no membership; none while there is, or may be soon.
    pub fn error(&self) -> Option<Error> {
        self.error.borrow().clone()
    }

    /// Waits until that changes.
    pub async fn told(&self) {
        self.told.notified().await;
    }

    fn tell(&self, error: Option<Error>) {
        let news = *self.error.borrow() != error;
        if news {
            if let Some(error) = &error {
                tracing::warn!("{error}");
            }
            *self.error.borrow_mut() = error;
            self.told.notify_one();
        }
    }

    fn topics(&self) -> Vec<String> {
        self.topics.borrow().iter().map(ToString::to_string).collect()
    }
}

/// What a membership works with.
pub struct Context<H> {
    /// Clock, network, randomness.
    pub env: Env,
    /// The link.
    pub link: Arc<Link>,
    /// Where its group is.
    pub source: ClusterHandle,
    /// Where the standing is told.
    pub member: Arc<MemberCell>,
    /// Who holds the mirrors.
    pub holder: H,
    /// What the link wants.
    pub interest: Rc<Interest>,
    /// Who we are from start to start; none to be somebody new each time.
    pub identity: Option<Identity>,
}
