//! What a mirror is told when it is put on a lane, and by whom it is put there. Plain data: the link decides, the lane
//! carries out, and neither needs to know the other.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::Relaxed};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::route::Route;
use crate::limits;

/// Names a mirror for as long as its link exists.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MirrorId {
    /// The link's name.
    pub link: Arc<str>,
    /// Source topic.
    pub topic: Arc<str>,
    /// Partition, the same on both sides.
    pub partition: i32,
}

impl fmt::Display for MirrorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}-{}", self.link, self.topic, self.partition)
    }
}

/// Everything that the data path needs to begin.
#[derive(Clone, Debug)]
pub struct MirrorSpec {
    /// Which mirror.
    pub id: MirrorId,
    /// The source topic that was meant; one of the same name and another id is another topic.
    pub source_topic_id: Uuid,
    /// The source topic of the same name whose place it takes, if this run copied that one and goes on with this one.
    pub replaces: Option<Uuid>,
    /// The topic's name on the target.
    pub target_topic: Arc<str>,
    /// The target topic that was meant.
    pub target_topic_id: Uuid,
    /// Whose records are copied, and under which ids.
    pub route: Route,
    /// What the target does with batches; kept fresh while the mirror lives.
    pub target: Arc<TargetFacts>,
}

/// The target topic's settings that decide a batch's fate. One writer (the link's task), any number of readers; a
/// reader that is a minute behind is told by the broker's error.
#[derive(Debug)]
pub struct TargetFacts {
    max_message_bytes: AtomicUsize,
    log_append_time: AtomicBool,
    compacted: AtomicBool,
    producer_state_trusted_ms: AtomicI64,
}

impl Default for TargetFacts {
    /// A stock broker's defaults.
    fn default() -> Self {
        Self {
            max_message_bytes: AtomicUsize::new(limits::MAX_MESSAGE_BYTES_DEFAULT),
            log_append_time: AtomicBool::new(false),
            compacted: AtomicBool::new(false),
            producer_state_trusted_ms: AtomicI64::new(limits::PRODUCER_STATE_TRUSTED_MS),
        }
    }
}

/// As they are at the moment: what a mirror would decide by.
impl Hash for TargetFacts {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let flags = (self.log_append_time(), self.compacted());
        (self.max_message_bytes(), flags, self.producer_state_trusted_ms()).hash(state);
    }
}

impl TargetFacts {
    /// `max.message.bytes`: the largest batch, with its 12 bytes of offset and length, that the topic takes.
    pub fn max_message_bytes(&self) -> usize {
        self.max_message_bytes.load(Relaxed)
    }

    /// `message.timestamp.type=LogAppendTime`: the target replaces the records' times.
    pub fn log_append_time(&self) -> bool {
        self.log_append_time.load(Relaxed)
    }

    /// `cleanup.policy` contains `compact`: a record without a key is refused.
    pub fn compacted(&self) -> bool {
        self.compacted.load(Relaxed)
    }

    /// Half of the broker's `producer.id.expiration.ms`: a batch older than this may find no producer state (rule W2).
    pub fn producer_state_trusted_ms(&self) -> i64 {
        self.producer_state_trusted_ms.load(Relaxed)
    }

    /// Notes what the target topic's configuration says.
    pub fn set_topic(&self, max_message_bytes: usize, log_append_time: bool, compacted: bool) {
        self.max_message_bytes.store(max_message_bytes, Relaxed);
        self.log_append_time.store(log_append_time, Relaxed);
        self.compacted.store(compacted, Relaxed);
    }

    /// Notes how long the target keeps producer state, from its `producer.id.expiration.ms`.
    pub fn set_producer_expiration_ms(&self, expiration_ms: i64) {
        let trusted = (expiration_ms / 2).clamp(0, limits::PRODUCER_STATE_TRUSTED_MS);
        self.producer_state_trusted_ms.store(trusted, Relaxed);
    }
}

/// How a mirror goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Its acks are waited for and committed.
    Settled,
    /// It belongs to somebody else by now: nothing is committed.
    AtOnce,
}

/// Hears when a mirror is let go; an error is as good, its lane is gone.
pub type Left = oneshot::Receiver<()>;

/// Where mirrors are put. Both calls only ask: they return before the lane has acted, and are carried out in order.
pub trait Mirrors {
    /// Starts a mirror. It must not be there already.
    fn add(&self, spec: MirrorSpec);
    /// Ends a mirror and forgets it.
    fn remove(&self, id: &MirrorId, leave: Leave) -> Left;
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::engine::identity::Writer;
    use crate::engine::route::Forwarding;

    /// A partition of topic `topic`.
    pub(crate) fn spec(partition: i32) -> MirrorSpec {
        let topic: Arc<str> = "topic".into();
        let writer = Writer::new("link", Uuid::nil(), partition);
        MirrorSpec {
            id: MirrorId { link: "link".into(), topic: topic.clone(), partition },
            source_topic_id: Uuid::nil(),
            replaces: None,
            target_topic: topic,
            target_topic_id: Uuid::nil(),
            route: Route::new(writer, Arc::new(Forwarding::default())),
            target: Arc::default(),
        }
    }

    #[test]
    fn a_shorter_producer_expiry_shortens_the_trust_and_a_longer_one_does_not_stretch_it() {
        let facts = TargetFacts::default();
        facts.set_producer_expiration_ms(60_000);
        assert_eq!(facts.producer_state_trusted_ms(), 30_000);
        facts.set_producer_expiration_ms(i64::MAX);
        assert_eq!(facts.producer_state_trusted_ms(), limits::PRODUCER_STATE_TRUSTED_MS);
        facts.set_producer_expiration_ms(-5);
        assert_eq!(facts.producer_state_trusted_ms(), 0);
    }
}
