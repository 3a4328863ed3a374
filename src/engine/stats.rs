//! What the engine tells the outside: plain cells with one writer (the lane) and any number of readers (telemetry,
//! status, the progress line). No lock and no shared cache line on the hot path.

use std::collections::BTreeMap;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed,
};
use std::sync::{Arc, Mutex, PoisonError};

use hdrhistogram::Histogram;

use super::losses::{Loss, LossKind, Losses};
pub use crate::connection::{FilesCell, SecurityCell};
use crate::error::{Action, Error};

/// Where a mirror is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum MirrorState {
    /// Finding its position.
    Starting = 0,
    /// Everything that was readable at the last answer is acknowledged.
    Ok = 1,
    /// Copying what piled up.
    CatchingUp = 2,
    /// Waiting before it tries again.
    Retrying = 3,
    /// Stopped until the operator acts; `error` says why.
    Parked = 4,
}

/// What became of a source batch (design 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(usize)]
pub enum Fate {
    /// Header rewritten, payload untouched.
    Stamped = 0,
    /// Decoded and encoded again.
    Recoded = 1,
    /// A control batch: a transaction marker.
    SkippedControl = 2,
    /// Of an aborted transaction.
    SkippedAborted = 3,
    /// Without a record that counts.
    SkippedEmpty = 4,
    /// Written by a Strait: it came from another cluster, and `forward` does not name its origin.
    SkippedReplicated = 5,
    /// It cannot be copied for what is in it, and `on_poison: skip` steps over such batches.
    SkippedPoison = 6,
    /// Written by no Strait, on a link that passes on other origins only.
    SkippedLocal = 7,
}

impl Fate {
    /// Every fate, in the order of its number.
    pub const ALL: [Self; 8] = [
        Self::Stamped,
        Self::Recoded,
        Self::SkippedControl,
        Self::SkippedAborted,
        Self::SkippedEmpty,
        Self::SkippedReplicated,
        Self::SkippedPoison,
        Self::SkippedLocal,
    ];

    /// The value of the metric label `fate`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Stamped => "stamped",
            Self::Recoded => "recoded",
            Self::SkippedControl => "skipped_control",
            Self::SkippedAborted => "skipped_aborted",
            Self::SkippedEmpty => "skipped_empty",
            Self::SkippedReplicated => "skipped_replicated",
            Self::SkippedPoison => "skipped_poison",
            Self::SkippedLocal => "skipped_local",
        }
    }
}

/// One mirror's figures.
#[derive(Debug)]
pub struct MirrorStats {
    /// The link's name.
    pub link: Arc<str>,
    /// Source topic.
    pub topic: Arc<str>,
    /// The topic's name on the target.
    pub target_topic: Arc<str>,
    /// Partition, the same on both sides.
    pub partition: i32,
    /// The lane that carries it.
    pub lane: AtomicUsize,
    /// It catches up in its turn, or waits for that: on another lane it would stand behind those that wait there.
    pub in_turn: AtomicBool,
    state: AtomicU8,
    /// High watermark, or last stable offset when only committed records count; -1 before the first answer.
    pub source_end: AtomicI64,
    /// Next source offset to be acknowledged; -1 before a position is known.
    pub acked: AtomicI64,
    /// Next source offset in the source group; -1 before one is known.
    pub committed: AtomicI64,
    /// Bytes of batches as stored on the source.
    pub fetched_bytes: AtomicU64,
    /// Records in them, by their headers.
    pub fetched_records: AtomicU64,
    /// Bytes of batches that the target acknowledged.
    pub acked_bytes: AtomicU64,
    /// Records in them.
    pub acked_records: AtomicU64,
    /// Batches by [`Fate`].
    pub batches: [AtomicU64; Fate::ALL.len()],
    /// Source batches that left as one with their neighbours; each batch of [`MirrorStats::batches`] that did counts.
    pub merged_batches: AtomicU64,
    /// Times that the mirror drained, read the target back and went on.
    pub resyncs: AtomicU64,
    /// Source offsets that were lost before they were copied (I6).
    pub gap_offsets: AtomicU64,
    /// Source offsets that were copied and that the source has lost since (I6).
    pub truncated_offsets: AtomicU64,
    /// Records in batches that were stepped over because they cannot be copied, by their headers.
    pub skipped_poison_records: AtomicU64,
    /// Records that the target holds once more than the source: old ones, appended when it had forgotten their numbers.
    pub doubled_records: AtomicU64,
    /// Times that the source topic was found to be another one, and was copied from its beginning.
    pub recreations: AtomicU64,
    /// The newest of all these, with their offsets.
    pub losses: Losses,
    /// How long the oldest unacknowledged record has been readable, milliseconds; 0 when caught up.
    pub delay_ms: AtomicU64,
    /// Bytes queued and in flight.
    pub buffered_bytes: AtomicU64,
    error: Mutex<Option<Error>>,
}

impl MirrorStats {
    /// All zero, starting.
    pub fn new(link: Arc<str>, topic: Arc<str>, target_topic: Arc<str>, partition: i32) -> Self {
        Self {
            link,
            topic,
            target_topic,
            partition,
            lane: AtomicUsize::new(0),
            in_turn: AtomicBool::new(false),
            state: AtomicU8::new(MirrorState::Starting as u8),
            source_end: AtomicI64::new(-1),
            acked: AtomicI64::new(-1),
            committed: AtomicI64::new(-1),
            fetched_bytes: AtomicU64::new(0),
            fetched_records: AtomicU64::new(0),
            acked_bytes: AtomicU64::new(0),
            acked_records: AtomicU64::new(0),
            batches: Default::default(),
            merged_batches: AtomicU64::new(0),
            resyncs: AtomicU64::new(0),
            gap_offsets: AtomicU64::new(0),
            truncated_offsets: AtomicU64::new(0),
            skipped_poison_records: AtomicU64::new(0),
            doubled_records: AtomicU64::new(0),
            recreations: AtomicU64::new(0),
            losses: Losses::default(),
            delay_ms: AtomicU64::new(0),
            buffered_bytes: AtomicU64::new(0),
            error: Mutex::new(None),
        }
    }

    /// Adds to a cell that only this thread writes: no locked instruction.
    pub fn add(cell: &AtomicU64, n: u64) {
        cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Remembers a loss and counts what is new of it.
    pub fn note_loss(&self, loss: Loss) {
        let (kind, continued) = (loss.kind, loss.continued);
        let offsets = self.losses.note(loss);
        match kind {
            LossKind::Gap => Self::add(&self.gap_offsets, offsets),
            LossKind::Truncated => Self::add(&self.truncated_offsets, offsets),
            LossKind::Recreated => Self::add(&self.recreations, continued.into()),
            // Its records are counted by whoever stepped over them.
            LossKind::Poison => {}
        }
    }

    /// The state.
    pub fn state(&self) -> MirrorState {
        match self.state.load(Relaxed) {
            0 => MirrorState::Starting,
            1 => MirrorState::Ok,
            2 => MirrorState::CatchingUp,
            3 => MirrorState::Retrying,
            _ => MirrorState::Parked,
        }
    }

    /// Sets the state.
    pub fn set_state(&self, state: MirrorState) {
        self.state.store(state as u8, Relaxed);
    }

    /// Source end minus acked, in offsets; 0 when either is unknown.
    pub fn lag_offsets(&self) -> u64 {
        let (end, acked) = (self.source_end.load(Relaxed), self.acked.load(Relaxed));
        if end < 0 || acked < 0 { 0 } else { u64::try_from(end - acked).unwrap_or(0) }
    }

    /// Why it is retrying or parked.
    pub fn error(&self) -> Option<Error> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes why it is retrying or parked, or that it no longer is.
    pub fn set_error(&self, error: Option<Error>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

/// What is counted per link and lane rather than per mirror.
#[derive(Debug)]
pub struct LaneStats {
    /// The link's name.
    pub link: Arc<str>,
    /// Lane number.
    pub lane: usize,
    /// Fetch answer read to target's ack, microseconds.
    pub relay_us: Mutex<Histogram<u64>>,
    /// Answers with an error, by side, api and Kafka's error name.
    pub request_errors: Mutex<BTreeMap<(&'static str, &'static str, String), u64>>,
    /// Bytes queued and in flight.
    pub buffered_bytes: AtomicU64,
    /// What the lane may hold, for all its links together.
    pub buffered_bytes_limit: AtomicU64,
    /// Sum of the brokers' `throttle_time_ms`.
    pub throttle_ms: AtomicU64,
    /// How long Fetch requests were on their way, of all source brokers together, microseconds.
    pub fetch_wait_us: AtomicU64,
    /// Why offsets cannot be committed; none while they can.
    pub group_error: Mutex<Option<Error>>,
}

impl LaneStats {
    /// All zero.
    pub fn new(link: Arc<str>, lane: usize) -> Self {
        Self {
            link,
            lane,
            relay_us: Mutex::new(new_latency_histogram()),
            request_errors: Mutex::default(),
            buffered_bytes: AtomicU64::new(0),
            buffered_bytes_limit: AtomicU64::new(0),
            throttle_ms: AtomicU64::new(0),
            fetch_wait_us: AtomicU64::new(0),
            group_error: Mutex::new(None),
        }
    }

    /// Counts an error answer.
    pub fn count_error(&self, side: &'static str, api: &'static str, name: &str) {
        let mut errors = self.request_errors.lock().unwrap_or_else(PoisonError::into_inner);
        *errors.entry((side, api, name.to_owned())).or_default() += 1;
    }
}

/// How busy a lane is, with all its links together. Written by the control thread.
#[derive(Debug)]
pub struct LaneLoad {
    /// Lane number.
    pub lane: usize,
    /// Thousandths of the last seconds that its thread was busy.
    pub busy_permille: AtomicU64,
    /// The same of its reader's thread, if it has one.
    pub reader_busy_permille: Option<AtomicU64>,
    /// Mirrors that it carries.
    pub mirrors: AtomicUsize,
    /// Mirrors that it gave to other lanes because it ran hot.
    pub given: AtomicU64,
}

impl LaneLoad {
    /// All zero.
    pub fn new(lane: usize, has_reader: bool) -> Self {
        Self {
            lane,
            busy_permille: AtomicU64::new(0),
            reader_busy_permille: has_reader.then(|| AtomicU64::new(0)),
            mirrors: AtomicUsize::new(0),
            given: AtomicU64::new(0),
        }
    }
}

/// Microseconds, 1 us to 1 h, two digits.
pub fn new_latency_histogram() -> Histogram<u64> {
    let mut histogram = match Histogram::new_with_bounds(1, 3_600_000_000, 2) {
        Ok(histogram) => histogram,
        Err(_) => unreachable!("the bounds are constants that hdrhistogram accepts"),
    };
    histogram.auto(false);
    histogram
}

/// Where a link is: never better than the worst of its mirrors (I9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Mirrors caught up, or no topic matches yet.
    Running,
    /// Some mirror copies what piled up.
    CatchingUp,
    /// Some mirror, or the link itself, has not begun.
    Starting,
    /// Some mirror retries or is parked.
    Degraded,
    /// Stopping: waiting for acks.
    Draining,
    /// The link itself cannot run; its `error` says why.
    Failed,
}

/// One link, as the control thread sees it.
#[derive(Debug)]
pub struct LinkEntry {
    /// The link's name.
    pub name: Arc<str>,
    /// Names of the clusters.
    pub source: String,
    /// Names of the clusters.
    pub target: String,
    /// The TLS towards the target, for display.
    pub target_tls: bool,
    /// One parked mirror or blocked topic ends the engine (`on_failure: stop`).
    pub stops_on_failure: bool,
    /// Set by the control thread; none while all is well.
    pub error: Mutex<Option<Error>>,
    /// Why the link can never run; set once.
    pub fatal: Mutex<Option<Error>>,
    /// Topics that were matched but cannot be copied, with the reason: no mirror exists for them.
    pub blocked_topics: Mutex<BTreeMap<String, Error>>,
    /// Set once every matched topic of the first look has its mirrors, or a reason why not.
    pub discovered: AtomicBool,
}

impl LinkEntry {
    /// A link that has not begun.
    pub fn new(name: &str, source: &str, target: &str, target_tls: bool) -> Self {
        Self {
            name: name.into(),
            source: source.to_owned(),
            target: target.to_owned(),
            target_tls,
            stops_on_failure: false,
            error: Mutex::new(None),
            fatal: Mutex::new(None),
            blocked_topics: Mutex::default(),
            discovered: AtomicBool::new(false),
        }
    }

    /// Why the link can never run.
    pub fn fatal(&self) -> Option<Error> {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The link can never run.
    pub fn fail(&self, error: Error) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        *self.fatal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// The first topic's reason, if some topic cannot be copied.
    pub fn first_blocked(&self) -> Option<Error> {
        let blocked = self.blocked_topics.lock().unwrap_or_else(PoisonError::into_inner);
        blocked.values().next().cloned()
    }
}

/// The register of what lives: readers walk it at scrape, so that a removed mirror leaves no series behind.
#[derive(Debug, Default)]
pub struct Board {
    links: Mutex<Vec<Arc<LinkEntry>>>,
    mirrors: Mutex<Vec<Arc<MirrorStats>>>,
    lanes: Mutex<Vec<Arc<LaneStats>>>,
    loads: Mutex<Vec<Arc<LaneLoad>>>,
    securities: Mutex<Vec<Arc<SecurityCell>>>,
    draining: AtomicBool,
    failure: Mutex<Option<Error>>,
    telemetry: Mutex<Option<std::net::SocketAddr>>,
    telemetry_files: FilesCell,
}

macro_rules! register {
    ($add:ident, $list:ident, $field:ident, $type:ty, $what:literal) => {
        #[doc = concat!("Registers ", $what, ".")]
        pub fn $add(&self, entry: Arc<$type>) {
            self.$field.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        }
        #[doc = concat!("What is registered now: ", $what, ".")]
        pub fn $list(&self) -> Vec<Arc<$type>> {
            self.$field.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }
    };
}

impl Board {
    register!(add_link, links, links, LinkEntry, "a link");
    register!(add_mirror, mirrors, mirrors, MirrorStats, "a mirror");
    register!(add_lane, lanes, lanes, LaneStats, "a lane's share of a link");
    register!(add_load, loads, loads, LaneLoad, "how busy a lane is");
    register!(add_security, securities, securities, SecurityCell, "a cluster's security");

    /// Forgets a mirror.
    pub fn remove_mirror(&self, mirror: &Arc<MirrorStats>) {
        let mut mirrors = self.mirrors.lock().unwrap_or_else(PoisonError::into_inner);
        mirrors.retain(|entry| !Arc::ptr_eq(entry, mirror));
    }

    /// Where telemetry listens, with the port that the system chose; none before it does.
    pub fn telemetry(&self) -> Option<std::net::SocketAddr> {
        *self.telemetry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes where telemetry listens.
    pub fn set_telemetry(&self, address: std::net::SocketAddr) {
        *self.telemetry.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    /// The certificate and the files of the telemetry listener.
    pub fn telemetry_files(&self) -> &FilesCell {
        &self.telemetry_files
    }

    /// Why the engine as a whole can no longer run.
    pub fn failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The engine as a whole can no longer run; the first reason counts.
    pub fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// The first trouble of a link whose policy is to stop at one.
    pub fn stopping_failure(&self) -> Option<Error> {
        let links = self.links();
        let stops = |name: &Arc<str>| links.iter().any(|l| l.stops_on_failure && l.name == *name);
        if !links.iter().any(|link| link.stops_on_failure) {
            return None;
        }
        let blocked = links.iter().filter(|link| link.stops_on_failure);
        let mut blocked = blocked.filter_map(|link| link.first_blocked());
        if let Some(error) = blocked.find(|error| error.action == Action::Park) {
            return Some(error);
        }
        let mirrors = self.mirrors();
        let mut parked = mirrors.iter().filter(|mirror| mirror.state() == MirrorState::Parked);
        parked.find(|mirror| stops(&mirror.link)).and_then(|mirror| mirror.error())
    }

    /// Whether the process is on its way out.
    pub fn draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Marks the process as on its way out.
    pub fn set_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    /// A link's state, never better than the worst of its parts (I9).
    pub fn link_state(&self, link: &LinkEntry) -> LinkState {
        if link.error.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return LinkState::Failed;
        }
        if self.draining() {
            return LinkState::Draining;
        }
        let blocked = link.blocked_topics.lock().unwrap_or_else(PoisonError::into_inner);
        let mut worst = if blocked.is_empty() { LinkState::Running } else { LinkState::Degraded };
        if !link.discovered.load(Relaxed) {
            worst = worst.max(LinkState::Starting);
        }
        let group_error = |lane: &Arc<LaneStats>| {
            lane.link == link.name
                && lane.group_error.lock().unwrap_or_else(PoisonError::into_inner).is_some()
        };
        if self.lanes().iter().any(group_error) {
            worst = worst.max(LinkState::Degraded);
        }
        for mirror in self.mirrors().iter().filter(|m| m.link == link.name) {
            worst = worst.max(match mirror.state() {
                MirrorState::Ok => LinkState::Running,
                MirrorState::CatchingUp => LinkState::CatchingUp,
                MirrorState::Starting => LinkState::Starting,
                MirrorState::Retrying | MirrorState::Parked => LinkState::Degraded,
            });
        }
        worst
    }
}
