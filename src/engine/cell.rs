//! A mirror on its lane: the state machine, and everything around it that is not bytes. One thread, so plain cells.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::budget::Held;
use super::class::{Class, Standing, Way};
use super::coordination;
use super::doubles::Told;
use super::give_back::Patience;
use super::mirror::Mirror;
use super::session::SourcePartition;
use super::settings::Settings;
use super::spec::MirrorSpec;
use super::stats::{MirrorState, MirrorStats};
use super::step_over::{Anew, StepOver};
use super::transaction::{self, Producer};
use super::trouble;
use crate::config::resolved::Link;
use crate::env::Env;
use crate::error::Error;
use crate::limits;
use crate::wire::error_code::ErrorCode;

/// Moments of the source end that are remembered for the delay.
const ENDS_MAX: usize = 64;

/// What is in a mirror's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// Nothing.
    None,
    /// The recovery looks at it again at this time.
    Until(Instant),
    /// Nothing is sent until the operator acts.
    Parked,
}

/// The first refusal of a window: which batch, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Producer id of the batch.
    pub producer_id: i64,
    /// First sequence of the batch.
    pub sequence: i32,
    /// The target's answer.
    pub error: ErrorCode,
    /// The target's words.
    pub message: String,
}

/// Leader of a partition and its epoch; both -1 where none is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Broker id.
    pub broker: i32,
    /// Leader epoch.
    pub epoch: i32,
}

impl Leader {
    /// Nobody leads, or nobody knows.
    pub const NONE: Self = Self { broker: -1, epoch: -1 };
}

/// One mirror of a lane.
#[derive(Debug)]
pub struct MirrorCell {
    /// What is copied where.
    pub spec: MirrorSpec,
    /// What decides the fate of its batches.
    pub(super) settings: Settings,
    /// The settings of a former life whose last batches are counted off, where a new numbering follows them: for other
    /// settings, or because the leader counts on from a batch that came late. Nothing is sent behind them before it is there.
    pub(super) settings_then: Cell<Option<Settings>>,
    /// No former life left anything on its way.
    pub(super) came_clean: Cell<bool>,
    /// When a connection was lost with batches of it on their way.
    pub(super) lost_at: Cell<Option<Instant>>,
    /// Its position is to be found anew once its halt is over.
    pub(super) renews: Cell<bool>,
    /// Until then a request of a former life may come late; none before its position was read.
    pub(super) quiet_at: Cell<Option<Instant>>,
    /// Figures for the outside.
    pub stats: Arc<MirrorStats>,
    /// None until a position was found.
    pub mirror: RefCell<Option<Mirror>>,
    /// What is in its way.
    pub halt: Cell<Halt>,
    /// Recoveries without an ack in between.
    pub attempts: Cell<u32>,
    /// Positions found anew because the target refused our numbers, without an ack in between.
    pub restarts: Cell<u32>,
    /// Refusals with an error that says nothing, without an ack in between.
    pub(super) unknown_refusals: Cell<u32>,
    /// Batches that the target found damaged, without an ack in between.
    pub(super) damaged_sends: Cell<u32>,
    /// Set when the target refused a batch; the recovery decides once the window is drained.
    pub refused: RefCell<Option<Refused>>,
    /// Whom it is fetched from.
    pub source_leader: Cell<Leader>,
    /// Whom it is written to.
    pub target_leader: Cell<Leader>,
    /// The source answered that this offset is not in its log.
    pub out_of_range: Cell<Option<i64>>,
    /// For that it began anew, and nothing was acknowledged since.
    pub(super) looked_again: Cell<bool>,
    /// An error of the partition at the source: not fetched before this time.
    pub fetch_not_before: Cell<Option<Instant>>,
    /// Nothing more is fetched until the operator acts; what was fetched is still sent.
    pub fetch_parked: Cell<bool>,
    /// Damaged batches in a row at the source; the first is fetched again.
    pub corrupt_fetches: Cell<u32>,
    /// Offsets that are stepped over once everything before them is acknowledged; nothing is fetched until then.
    pub(super) step_over: RefCell<Option<StepOver>>,
    /// The step that its next beginning makes.
    pub(super) anew: RefCell<Option<Anew>>,
    /// Position in the topic that its own one replaces, where one was committed.
    pub(super) replaced_at: Cell<Option<i64>>,
    /// Parked, it is tried again at this time (`on_failure: retry`).
    pub(super) retry_at: Cell<Option<Instant>>,
    /// How often it was, without an ack in between.
    pub(super) retries: Cell<u32>,
    /// A recovery is looking at it.
    pub recovering: Cell<bool>,
    /// Doubled records of the target that are counted.
    pub(super) told: RefCell<Told>,
    /// The target is being looked at before a commit.
    pub(super) looking: Cell<bool>,
    /// Next source offset in the source group; -1 before one is known.
    pub committed: Cell<i64>,
    /// That commit says that nothing is on its way.
    pub(super) closed: Cell<bool>,
    /// When that was committed.
    pub committed_at: Cell<Option<Instant>>,
    /// When its position was found.
    pub(super) begun_at: Cell<Option<Instant>>,
    /// The pattern of `include` that names its topic.
    pub(super) rank: usize,
    /// Whether it follows its source's end or catches up.
    pub(super) standing: Cell<Standing>,
    /// Whom it is fetched and sent beside; changes where nothing asks for it.
    pub(super) class: Cell<Class>,
    /// It may catch up now.
    pub(super) has_turn: Cell<bool>,
    /// What its connection's room counts of it.
    pub(super) counted: Cell<Held>,
    /// Fetching waits for room.
    pub(super) held: Cell<bool>,
    /// Of those who wait for what it holds.
    pub(super) patience: Cell<Patience>,
    /// It stands in the list of those that wait for their connection's room.
    pub(super) is_listed: Cell<bool>,
    /// In which sender's queue it stands. An entry in another queue is void.
    pub(super) ready_at: Cell<Option<Way>>,
    /// In which fetcher's list it stands.
    pub(super) dirty_at: Cell<Option<Way>>,
    pub(super) removed: Cell<bool>,
    /// Rises whenever the mirror is given up: what an older life is about is not this one's.
    pub(super) life: Cell<u64>,
    /// What its fence gave it, for the next beginning.
    pub(super) producer: Cell<Option<Producer>>,
    /// The broker that coordinates its transactions; -1 if it is not known.
    pub(super) transaction_coordinator: Cell<i32>,
    /// The task of the open transaction is to look again.
    pub(super) transaction_wake: Notify,
    /// Why a transaction cannot be committed.
    pub(super) transaction_trouble: RefCell<Option<coordination::Refused>>,
    /// A batch that the target refuses for good, in front of which the next life stops; whether the policy may step over it.
    pub(super) poison: RefCell<Option<(StepOver, bool)>>,
    /// Batches above this were too large for the target.
    pub(super) batch_bytes_max: Cell<usize>,
    /// A batch that was joined of those below this source offset was refused, and a transaction with it.
    pub(super) apart_below: Cell<i64>,
    /// When the target's group last got its position.
    pub(super) target_committed_at: Cell<Option<Instant>>,
    /// Its last commit was refused.
    pub(super) commit_troubled: Cell<bool>,
    troubled: Cell<bool>,
    replay_waits_since: Cell<Option<Instant>>,
    /// When the source end was first seen at these offsets, oldest first.
    ends: RefCell<VecDeque<(Instant, i64)>>,
}

impl MirrorCell {
    /// A mirror without a position.
    pub fn new(spec: MirrorSpec, stats: Arc<MirrorStats>, link: &Link) -> Self {
        let forwarding = spec.route.forwarding();
        let (isolation, timestamps) = (link.isolation, link.timestamps);
        let names = |pattern: &regex::Regex| pattern.is_match(&spec.id.topic);
        let rank = link.topics.include.iter().position(names).unwrap_or(usize::MAX);
        let settings = Settings::new(isolation, timestamps, forwarding, &spec.target_topic);
        Self {
            spec,
            settings,
            settings_then: Cell::new(None),
            renews: Cell::new(false),
            came_clean: Cell::new(false),
            lost_at: Cell::new(None),
            quiet_at: Cell::new(None),
            closed: Cell::new(false),
            stats,
            mirror: RefCell::new(None),
            halt: Cell::new(Halt::None),
            attempts: Cell::new(0),
            restarts: Cell::new(0),
            unknown_refusals: Cell::new(0),
            damaged_sends: Cell::new(0),
            refused: RefCell::new(None),
            source_leader: Cell::new(Leader::NONE),
            target_leader: Cell::new(Leader::NONE),
            out_of_range: Cell::new(None),
            looked_again: Cell::new(false),
            fetch_not_before: Cell::new(None),
            fetch_parked: Cell::new(false),
            corrupt_fetches: Cell::new(0),
            step_over: RefCell::new(None),
            anew: RefCell::new(None),
            replaced_at: Cell::new(None),
            retry_at: Cell::new(None),
            retries: Cell::new(0),
            recovering: Cell::new(false),
            told: RefCell::default(),
            looking: Cell::new(false),
            committed: Cell::new(-1),
            committed_at: Cell::new(None),
            begun_at: Cell::new(None),
            rank,
            standing: Cell::default(),
            class: Cell::default(),
            has_turn: Cell::new(true),
            counted: Cell::default(),
            held: Cell::new(false),
            patience: Cell::default(),
            is_listed: Cell::new(false),
            ready_at: Cell::new(None),
            dirty_at: Cell::new(None),
            removed: Cell::new(false),
            life: Cell::new(0),
            producer: Cell::new(None),
            transaction_coordinator: Cell::new(-1),
            transaction_wake: Notify::new(),
            transaction_trouble: RefCell::new(None),
            poison: RefCell::new(None),
            batch_bytes_max: Cell::new(usize::MAX),
            apart_below: Cell::new(i64::MIN),
            target_committed_at: Cell::new(None),
            commit_troubled: Cell::new(false),
            troubled: Cell::new(false),
            replay_waits_since: Cell::new(None),
            ends: RefCell::new(VecDeque::new()),
        }
    }

    /// The partition as the fetch session names it.
    pub fn source_partition(&self) -> SourcePartition {
        let partition = self.spec.id.partition;
        SourcePartition { topic_id: self.spec.source_topic_id, partition }
    }

    /// Whose answers bring its records.
    pub(super) fn source_way(&self) -> Way {
        Way { broker: self.source_leader.get().broker, class: self.class.get() }
    }

    /// Over whose connection they leave.
    pub(super) fn target_way(&self) -> Way {
        Way { broker: self.target_leader.get().broker, class: self.class.get() }
    }

    /// Under which its transactions are coordinated.
    pub(super) fn transactional_id(&self) -> String {
        let id = &self.spec.id;
        transaction::transactional_id(&id.link, &id.topic, id.partition)
    }

    /// Whether transactions bring its records now.
    pub(super) fn has_transactions(&self) -> bool {
        self.mirror.borrow().as_ref().is_some_and(|mirror| mirror.transaction().is_some())
    }

    /// The mirror is given up: tasks of its life end.
    pub(super) fn end_life(&self) {
        self.life.set(self.life.get() + 1);
        self.transaction_wake.notify_one();
        drop(self.transaction_trouble.take());
        self.replay_waits_since.set(None);
    }

    /// Whether it was taken off this lane.
    pub fn is_removed(&self) -> bool {
        self.removed.get()
    }

    /// Whether the recovery must see to it, now or later: no position, a window that failed, an offset that is
    /// gone, a step whose turn has come.
    pub fn needs_recovery(&self) -> bool {
        !self.removed.get()
            && self.halt.get() != Halt::Parked
            && (self.out_of_range.get().is_some()
                || self.mirror.borrow().as_ref().is_none_or(Mirror::needs_recovery)
                || self.may_step_over()
                || self.renews.get()
                || self.may_take_new_settings())
    }

    /// Whether a step was ordered and everything before it is acknowledged.
    pub(super) fn may_step_over(&self) -> bool {
        let step = self.step_over.borrow();
        let Some(step) = &*step else { return false };
        let mirror = self.mirror.borrow();
        mirror.as_ref().is_some_and(|m| {
            let settled = m.is_drained() && m.counts_below() == step.from;
            settled && m.is_idle() && m.acked() == step.from && !m.needs_resync()
        })
    }

    /// Whether what was written under other settings, or under numbers of no more use, is counted off and on record.
    pub(super) fn may_take_new_settings(&self) -> bool {
        let mirror = self.mirror.borrow();
        let ready =
            |m: &Mirror| m.is_settled() && m.has_place() && m.acked() == self.committed.get();
        self.settings_then.get().is_some() && mirror.as_ref().is_some_and(ready)
    }

    /// Whether its next batch is not to be sent before a request of a former life can come no more.
    pub(super) fn waits_for_quiet(&self, now_ms: i64) -> bool {
        let mirror = self.mirror.borrow();
        mirror.as_ref().is_some_and(|m| m.is_drained() && m.waits_for_quiet(now_ms))
    }

    /// Whether nothing of it can be on its way, a late request of a lost connection included. Where transactions bring the
    /// records nobody asks: a fence ends what is on its way.
    pub(super) fn leaves_nothing(&self, mirror: &Mirror, now: Instant) -> bool {
        let settled = mirror.transaction().is_none() && mirror.is_settled();
        settled && !self.may_come_late(now) && self.is_quiet(now)
    }

    /// Whether what was on its way when a connection was lost may still come.
    fn may_come_late(&self, now: Instant) -> bool {
        self.lost_at.get().is_some_and(|at| now < at + limits::LATE_REQUEST)
    }

    /// Whether it may be given up for the memory that it holds: only a new look for its position can free that, as nobody can be
    /// asked what became of what it sent, or it waits inside a batch; and nothing of it can come late any more. Transactions are
    /// given up at once.
    pub(super) fn may_be_given_up(&self, now: Instant) -> bool {
        let mirror = self.mirror.borrow();
        let in_doubt = |m: &Mirror| m.needs_resync() && m.transaction().is_none();
        let stands = |m: &Mirror| in_doubt(m) || m.waits_within_batch();
        !self.may_come_late(now) && mirror.as_ref().is_some_and(stands)
    }

    /// Whether no request of a former life can come any more.
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        self.came_clean.get() || self.quiet_at.get().is_some_and(|at| at <= now)
    }

    /// Whether it waits for the operator, in whole or with its fetching.
    pub fn is_parked(&self) -> bool {
        self.halt.get() == Halt::Parked || self.fetch_parked.get()
    }

    /// Stops it until the operator acts.
    pub fn park(&self, error: Error) {
        if self.halt.replace(Halt::Parked) == Halt::Parked {
            return;
        }
        self.show_parked(error);
    }

    /// Fetches nothing more; what lies before the trouble is still copied.
    pub fn park_fetching(&self, error: Error) {
        if !self.fetch_parked.replace(true) {
            self.show_parked(error);
        }
    }

    /// Forgets why it was parked: its next beginning finds out whether anything is still in its way.
    pub(super) fn begin_again(&self) {
        self.halt.set(Halt::None);
        self.fetch_parked.set(false);
        self.corrupt_fetches.set(0);
        self.unknown_refusals.set(0);
        self.renews.set(false);
        self.out_of_range.set(None);
        self.fetch_not_before.set(None);
        drop(self.refused.take());
        drop(self.step_over.take());
        drop(self.anew.take());
        drop(self.poison.take());
        self.end_life();
        self.stats.set_state(MirrorState::Retrying);
    }

    fn show_parked(&self, error: Error) {
        tracing::error!(link = %self.stats.link, %error, "mirror parked");
        self.troubled.set(true);
        self.stats.set_error(Some(error));
        self.stats.set_state(MirrorState::Parked);
    }

    /// The recovery looks at it again after `wait`; the operator sees why.
    pub fn retry_after(&self, env: &Env, wait: Duration, error: Error) {
        if self.halt.get() != Halt::Parked {
            self.halt.set(Halt::Until(env.now() + wait));
            self.note_trouble(error);
        }
    }

    /// Shows an error that goes away by itself, or with the next ack.
    pub fn note_trouble(&self, error: Error) {
        if self.halt.get() == Halt::Parked || self.fetch_parked.get() {
            return;
        }
        tracing::debug!(link = %self.stats.link, %error, "mirror retries");
        self.troubled.set(true);
        self.stats.set_error(Some(error));
        self.stats.set_state(MirrorState::Retrying);
    }

    /// The trouble is over.
    pub fn clear_trouble(&self) {
        let parked = self.halt.get() == Halt::Parked || self.fetch_parked.get();
        if !parked && self.troubled.replace(false) {
            self.stats.set_error(None);
        }
    }

    /// Shows that what it is fetched over waits for memory, unless it shows something already.
    pub(super) fn note_room_wait(&self, error: Error) {
        if !self.troubled.get() && self.mirror.borrow().is_some() {
            self.note_trouble(error);
        }
    }

    /// That is over, or not its matter any more.
    pub(super) fn clear_room_wait(&self, now: Instant) {
        if self.stats.error().is_some_and(|error| error.code == trouble::NO_ROOM) {
            self.clear_trouble();
            self.note_progress(now);
        }
    }

    /// How long a replay has stood at the source's end.
    pub fn replay_waits_since(&self, now: Instant, waits: bool) -> Duration {
        let since = waits.then(|| self.replay_waits_since.get().unwrap_or(now));
        self.replay_waits_since.set(since);
        since.map_or(Duration::ZERO, |since| now - since)
    }

    /// Whether it stood there at the last answer.
    pub(super) fn replay_waits(&self) -> bool {
        self.replay_waits_since.get().is_some()
    }

    /// Notes the source end of an answer. A broker's word: below zero it is none.
    pub fn note_source_end(&self, now: Instant, end: i64) {
        let end = end.max(0);
        self.stats.source_end.store(end, Relaxed);
        let mut ends = self.ends.borrow_mut();
        if ends.back().is_none_or(|(_, last)| end > *last) {
            if ends.len() == ENDS_MAX {
                // Thin out: the oldest is the one that counts, the others only follow it.
                let kept: VecDeque<_> = ends.iter().step_by(2).copied().collect();
                *ends = kept;
            }
            ends.push_back((now, end));
        }
        drop(ends);
        self.note_progress(now);
    }

    /// Publishes what the mirror has reached.
    pub fn note_progress(&self, now: Instant) {
        let mirror = self.mirror.borrow();
        let Some(mirror) = &*mirror else { return };
        let acked = mirror.counts_below();
        self.stats.acked.store(acked, Relaxed);
        self.stats.buffered_bytes.store(mirror.buffered_bytes() as u64, Relaxed);
        let mut ends = self.ends.borrow_mut();
        while ends.front().is_some_and(|(_, end)| *end <= acked) {
            ends.pop_front();
        }
        let delay = ends.front().map_or(Duration::ZERO, |(since, _)| now - *since);
        self.stats.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Relaxed);
        if !self.troubled.get() {
            let end = self.stats.source_end.load(Relaxed);
            let caught_up = end >= 0 && acked >= end && !mirror.is_replaying();
            self.stats.set_state(if caught_up { MirrorState::Ok } else { MirrorState::CatchingUp });
        }
    }
}
