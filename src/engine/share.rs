//! A lane's share of a link: its mirrors, the brokers they talk to, and who must look at what next. One thread, so plain
//! cells; the fetchers, senders, the recovery and the committer all work on it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::budget::{Budget, Held};
use super::cell::{Halt, Leader, MirrorCell};
use super::class::{Class, Way};
use super::member::MemberCell;
use super::mirror::{Mirror, Settled};
use super::rate_limit::RateLimit;
use super::reader::Reader;
use super::room::Room;
use super::session::SourcePartition;
use super::settings::Settings;
use super::spec::{Leave, MirrorId, MirrorSpec};
use super::stats::{Board, LaneStats, MirrorStats};
use super::turns::Turns;
use super::{
    beyond, catching_up, committer, fetcher, leaders, recovery, retry, sender, tasks, transactions,
};
use crate::cluster::ClusterHandle;
use crate::config::resolved::Link;
use crate::connection::Connection;
use crate::env::{Env, Moment};
use crate::error::{Error, Side};
use crate::limits;
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared};
use tokio::sync::{Mutex, Notify, oneshot};
use tokio::time::Instant;

/// What a link is to every lane.
#[derive(Clone)]
pub struct LinkContext {
    /// As configured.
    pub config: Arc<Link>,
    /// Read from.
    pub source: ClusterHandle,
    /// Written to.
    pub target: ClusterHandle,
    /// Who commits.
    pub member: Arc<MemberCell>,
    /// How fast it may send, if that is limited.
    pub rate_limit: Option<Arc<RateLimit>>,
}

/// The mirrors of one target connection that have something to send.
#[derive(Debug, Default)]
pub struct SendQueue {
    pub(super) ready: RefCell<VecDeque<Rc<MirrorCell>>>,
    pub(super) wake: Notify,
    /// What they hold of the lane's memory.
    pub(super) room: Room,
}

/// What a fetcher must look at before its next request.
#[derive(Debug, Default)]
pub struct FetchQueue {
    dirty: RefCell<Vec<Rc<MirrorCell>>>,
    pub(super) wake: Notify,
}

impl FetchQueue {
    /// Mirrors whose wish may have changed since the last call.
    pub(super) fn take_dirty(&self, way: Way) -> Vec<Rc<MirrorCell>> {
        let dirty = self.dirty.take();
        dirty
            .iter()
            .filter(|cell| cell.dirty_at.get() == Some(way))
            .for_each(|cell| cell.dirty_at.set(None));
        dirty
    }
}

/// A connection to ask over, or the dial that is to bring one: all who ask meanwhile share what comes of it.
type Question = Shared<LocalBoxFuture<'static, Result<Connection, Error>>>;

/// A lane's share of a link.
pub struct Share {
    pub(super) env: Env,
    pub(super) link: LinkContext,
    /// The source group: `strait.<link>`.
    pub(super) group: String,
    board: Arc<Board>,
    pub(super) stats: Arc<LaneStats>,
    pub(super) budget: Rc<Budget>,
    /// Who reads from the source, if not the lane itself.
    pub(super) reader: Option<Reader>,
    mirrors: RefCell<BTreeMap<MirrorId, Rc<MirrorCell>>>,
    by_source: RefCell<HashMap<SourcePartition, Rc<MirrorCell>>>,
    senders: RefCell<BTreeMap<(Way, usize), Rc<SendQueue>>>,
    fetchers: RefCell<BTreeMap<Way, Rc<FetchQueue>>>,
    /// Who may catch up, where that is not everyone.
    pub(super) turns: Option<RefCell<Turns<catching_up::Key>>>,
    pub(super) recovery_wake: Notify,
    pub(super) commit_wake: Notify,
    /// Held from the making of a commit to its answer: an older anchor never follows a newer one.
    pub(super) commit_turn: Mutex<()>,
    /// The broker that coordinates the group on the target; -1 if it is not known.
    pub(super) target_coordinator: Cell<i32>,
    /// Connections to the target's coordinators, while they last.
    pub(super) coordinations: RefCell<BTreeMap<(i32, usize), Connection>>,
    /// Connection to the group's coordinator, while it lasts.
    pub(super) coordinator: RefCell<Option<Connection>>,
    /// For the recovery's questions, apart from the data's connections.
    questions: RefCell<BTreeMap<(bool, i32), Question>>,
    /// Mirrors whose fetching waits for room, by class.
    pub(super) held: [Cell<usize>; Class::ALL.len()],
    /// When they were looked at last.
    pub(super) held_looked_at: Cell<Option<Instant>>,
    /// What all mirrors hold that have a connection.
    pub(super) held_bytes: Cell<Held>,
    /// Mirrors that count off under settings of a former life.
    settings_then: Cell<usize>,
    draining: Cell<bool>,
    stopped: Cell<bool>,
}

impl Share {
    /// A share without mirrors; its recovery, committer and router run until [`Share::stop`].
    pub fn start(
        env: Env,
        link: LinkContext,
        board: Arc<Board>,
        stats: Arc<LaneStats>,
        budget: Rc<Budget>,
        reader: Option<Reader>,
    ) -> Rc<Self> {
        stats.buffered_bytes_limit.store(budget.limit_bytes() as u64, Relaxed);
        let turns = link.config.backfill.at_once_max.map(|most| RefCell::new(Turns::new(most)));
        let share = Rc::new(Self {
            env,
            group: format!("strait.{}", link.config.name),
            link,
            board,
            stats,
            budget,
            reader,
            mirrors: RefCell::default(),
            by_source: RefCell::default(),
            senders: RefCell::default(),
            fetchers: RefCell::default(),
            turns,
            recovery_wake: Notify::new(),
            commit_wake: Notify::new(),
            commit_turn: Mutex::new(()),
            target_coordinator: Cell::new(-1),
            coordinations: RefCell::default(),
            coordinator: RefCell::default(),
            questions: RefCell::default(),
            held: Default::default(),
            held_looked_at: Cell::new(None),
            held_bytes: Cell::default(),
            settings_then: Cell::new(0),
            draining: Cell::new(false),
            stopped: Cell::new(false),
        });
        share.spawn(leaders::follow(share.clone()));
        share.spawn(recovery::run(share.clone()));
        share.spawn(committer::run(share.clone()));
        share.spawn(beyond::watch(share.clone()));
        if share.turns.is_some() {
            share.spawn(catching_up::take_turns(share.clone()));
        }
        if share.is_transactional() {
            share.spawn(transactions::keep_alive(share.clone()));
        }
        share
    }

    /// Runs a task of this share on the lane. A panic in it ends the engine.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        tasks::spawn(&self.board, format!("link {}", self.link.config.name), task);
    }

    /// Begins to copy a topic-partition.
    pub fn add(self: &Rc<Self>, spec: MirrorSpec, stats: Arc<MirrorStats>) {
        let cell = Rc::new(MirrorCell::new(spec, stats, &self.link.config));
        self.by_source.borrow_mut().insert(cell.source_partition(), cell.clone());
        self.mirrors.borrow_mut().insert(cell.spec.id.clone(), cell.clone());
        self.place(&cell);
        self.recovery_wake.notify_one();
    }

    /// Stops copying a topic-partition; `left` hears when it is let go.
    pub fn remove(self: &Rc<Self>, id: &MirrorId, leave: Leave, left: oneshot::Sender<()>) {
        let Some(cell) = self.mirrors.borrow_mut().remove(id) else { return };
        cell.removed.set(true);
        let partition = cell.source_partition();
        let mut by_source = self.by_source.borrow_mut();
        if by_source.get(&partition).is_some_and(|current| Rc::ptr_eq(current, &cell)) {
            by_source.remove(&partition);
        }
        drop(by_source);
        if let Some(mirror) = &mut *cell.mirror.borrow_mut() {
            self.add_buffered(&cell, mirror, Mirror::drop_queue);
        }
        self.set_held(&cell, false);
        self.end_turn(&cell);
        self.set_settings_then(&cell, None);
        self.touch_fetch(&cell);
        cell.transaction_wake.notify_one();
        match leave {
            Leave::Settled => self.spawn(committer::last_commit(self.clone(), cell, left)),
            Leave::AtOnce => {
                self.forget(&cell);
                // Nobody may wait for it any more.
                let _ = left.send(());
            }
        }
    }

    /// Gives back what a mirror holds that left, or that begins anew: nobody resyncs it. Answers that are still to come find
    /// nothing.
    pub(super) fn forget(self: &Rc<Self>, cell: &MirrorCell) {
        let mut mirror = cell.mirror.borrow_mut();
        if let Some(mirror) = &mut *mirror {
            self.add_buffered(cell, mirror, Mirror::drop_all);
        }
        *mirror = None;
        cell.end_life();
    }

    /// Whether a mirror of this name is on the lane.
    pub(super) fn has(&self, id: &MirrorId) -> bool {
        self.mirrors.borrow().contains_key(id)
    }

    /// Whether any mirror is fetched this way.
    pub(super) fn reads_from(&self, way: Way) -> bool {
        self.mirrors.borrow().values().any(|cell| cell.source_way() == way)
    }

    /// Whether any mirror is sent this way.
    pub(super) fn writes_to(&self, way: Way) -> bool {
        self.mirrors.borrow().values().any(|cell| cell.target_way() == way)
    }

    /// The mirror of this name.
    pub(super) fn mirror(&self, id: &MirrorId) -> Option<Rc<MirrorCell>> {
        self.mirrors.borrow().get(id).cloned()
    }

    /// Every mirror of this lane.
    pub fn mirrors(&self) -> Vec<Rc<MirrorCell>> {
        self.mirrors.borrow().values().cloned().collect()
    }

    /// How many those are.
    pub(super) fn mirrors_count(&self) -> usize {
        self.mirrors.borrow().len()
    }

    /// The queues of all target connections.
    pub(super) fn send_queues(&self) -> Vec<Rc<SendQueue>> {
        self.senders.borrow().values().cloned().collect()
    }

    /// The mirror that a Fetch answer speaks of.
    pub(super) fn by_source(&self, partition: SourcePartition) -> Option<Rc<MirrorCell>> {
        self.by_source.borrow().get(&partition).cloned()
    }

    /// No more fetching; what was fetched and not sent is dropped.
    pub fn drain(self: &Rc<Self>) {
        self.draining.set(true);
        for cell in self.mirrors() {
            if let Some(mirror) = &mut *cell.mirror.borrow_mut() {
                self.add_buffered(&cell, mirror, Mirror::drop_queue);
            }
            self.touch_fetch(&cell);
            cell.transaction_wake.notify_one();
        }
        self.commit_wake.notify_one();
        self.env.reached(Moment::Draining);
    }

    /// Whether it was told to drain.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether everything sent is answered and everything acknowledged is committed.
    pub fn is_drained(&self) -> bool {
        self.mirrors().iter().all(|cell| {
            let mirror = cell.mirror.borrow();
            let Some(mirror) = &*mirror else { return true };
            let settled = mirror.is_drained() || cell.halt.get() == Halt::Parked;
            let now = self.env.now();
            // That nothing is left is worth a commit, and no waiting for a group that takes none.
            let may_close = self.group_takes_commits() && cell.leaves_nothing(mirror, now);
            let is_closed = cell.closed.get() || !may_close;
            let on_record = |offset| cell.committed.get() >= offset && is_closed;
            settled && mirror.committable().is_none_or(on_record)
        })
    }

    /// Ends every task.
    pub fn stop(&self) {
        self.stopped.set(true);
        self.recovery_wake.notify_one();
        self.commit_wake.notify_one();
        self.senders.borrow().values().for_each(|queue| queue.wake.notify_one());
        self.fetchers.borrow().values().for_each(|queue| queue.wake.notify_one());
    }

    /// Whether the tasks shall end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Looks up the leaders of a mirror and hands it to their fetcher and sender.
    pub(super) fn place(self: &Rc<Self>, cell: &Rc<MirrorCell>) {
        let id = &cell.spec.id;
        let source = leaders::leader(&self.link.source, &id.topic, id.partition);
        let target = leaders::leader(&self.link.target, &cell.spec.target_topic, id.partition);
        self.settle(cell, source, target, cell.class.get());
    }

    /// Hands a mirror to the fetcher and the sender of these leaders and this class.
    pub(super) fn settle(
        self: &Rc<Self>,
        cell: &Rc<MirrorCell>,
        source: Leader,
        target: Leader,
        class: Class,
    ) {
        let (source_before, target_before) = (cell.source_way(), cell.target_way());
        if source_before != (Way { broker: source.broker, class }) {
            self.set_held(cell, false);
        }
        cell.source_leader.set(source);
        cell.target_leader.set(target);
        cell.class.set(class);
        if cell.source_way() != source_before {
            cell.clear_room_wait(self.env.now());
            cell.dirty_at.set(None);
            self.touch_fetcher(source_before, cell);
            cell.dirty_at.set(None);
        }
        if cell.target_way() != target_before
            && let Some(mirror) = &mut *cell.mirror.borrow_mut()
        {
            self.count(target_before, cell, Held::default());
            self.count(cell.target_way(), cell, mirror.held());
            mirror.on_moved();
        }
        self.touch_fetch(cell);
        self.touch_send(cell);
        if cell.mirror.borrow().is_none() {
            // Dialled while its position is looked for, which tells its class.
            for class in Class::ALL {
                self.send_queue(Way { broker: target.broker, class }, cell);
            }
        }
    }

    /// The queue of the connection that `cell` is pinned to; starts its sender when it is the first.
    pub(super) fn send_queue(
        self: &Rc<Self>,
        way: Way,
        cell: &MirrorCell,
    ) -> Option<Rc<SendQueue>> {
        if way.broker < 0 {
            return None;
        }
        let index =
            cell.spec.id.partition as usize % self.link.config.connections_per_broker.max(1);
        let mut senders = self.senders.borrow_mut();
        let queue = senders.entry((way, index)).or_insert_with(|| {
            let queue = Rc::new(SendQueue::default());
            self.spawn(sender::run(self.clone(), way, queue.clone()));
            queue
        });
        Some(queue.clone())
    }

    /// Puts the mirror where its sender sees it, if it can send.
    pub(super) fn touch_send(self: &Rc<Self>, cell: &Rc<MirrorCell>) {
        let now_ms = self.env.wall_clock_ms();
        if self.is_transactional()
            && cell.is_quiet(self.env.now())
            && let Some(mirror) = &mut *cell.mirror.borrow_mut()
        {
            mirror.note_quiet();
        }
        let can_send = cell.mirror.borrow().as_ref().is_some_and(|m| m.can_send(now_ms));
        if !can_send && cell.halt.get() == Halt::None && cell.waits_for_quiet(now_ms) {
            recovery::wait_for_quiet(self, cell);
        }
        if !can_send && cell.needs_recovery() {
            self.recovery_wake.notify_one();
        }
        if !can_send && self.is_transactional() {
            transactions::open(self, cell);
        }
        let way = cell.target_way();
        let queued = cell.ready_at.get() == Some(way);
        if !can_send || queued || cell.removed.get() || cell.halt.get() != Halt::None {
            return;
        }
        if let Some(queue) = self.send_queue(way, cell) {
            cell.ready_at.set(Some(way));
            queue.ready.borrow_mut().push_back(cell.clone());
            queue.wake.notify_one();
        }
    }

    /// The next mirror that this queue can take a batch of.
    pub(super) fn next_ready(&self, way: Way, queue: &SendQueue) -> Option<Rc<MirrorCell>> {
        loop {
            let cell = queue.ready.borrow_mut().pop_front()?;
            // An entry of before a move is void, and so is the older of two: a partition stands once in a request (P4).
            if cell.ready_at.get() != Some(way) {
                continue;
            }
            cell.ready_at.set(None);
            let here = cell.target_way() == way;
            if here && !cell.removed.get() && cell.halt.get() == Halt::None {
                return Some(cell);
            }
        }
    }

    /// Tells the fetcher of this mirror's leader that its wish may have changed.
    pub(super) fn touch_fetch(self: &Rc<Self>, cell: &Rc<MirrorCell>) {
        self.touch_fetcher(cell.source_way(), cell);
    }

    fn touch_fetcher(self: &Rc<Self>, way: Way, cell: &Rc<MirrorCell>) {
        if way.broker < 0 || cell.dirty_at.replace(Some(way)) == Some(way) {
            return;
        }
        let mut fetchers = self.fetchers.borrow_mut();
        let queue = fetchers.entry(way).or_insert_with(|| {
            let queue = Rc::new(FetchQueue::default());
            self.spawn(fetcher::run(self.clone(), way, queue.clone()));
            queue
        });
        queue.dirty.borrow_mut().push(cell.clone());
        queue.wake.notify_one();
    }

    /// Stops a mirror until the operator acts, and gives back what it holds. Answers that are still to come find nothing.
    pub(super) fn park(self: &Rc<Self>, cell: &Rc<MirrorCell>, error: Error) {
        cell.park(error);
        transactions::on_parked(self, cell);
        if let Some(mirror) = &mut *cell.mirror.borrow_mut() {
            self.add_buffered(cell, mirror, Mirror::drop_all);
        }
        self.touch_fetch(cell);
        retry::on_parked(self, cell);
    }

    /// Fetches nothing more for a mirror until the operator acts; what lies before the trouble is still copied.
    pub(super) fn park_fetching(self: &Rc<Self>, cell: &Rc<MirrorCell>, error: Error) {
        cell.park_fetching(error);
        self.touch_fetch(cell);
        retry::on_parked(self, cell);
    }

    /// Counts what the target acknowledged, lets the fetcher and the sender go on.
    pub(super) fn on_settled(self: &Rc<Self>, cell: &Rc<MirrorCell>, settled: &[Settled]) {
        let now = self.env.now();
        let mut relay = self.stats.relay_us.lock().unwrap_or_else(PoisonError::into_inner);
        for batch in settled {
            MirrorStats::add(&cell.stats.acked_bytes, batch.bytes as u64);
            MirrorStats::add(&cell.stats.acked_records, batch.records.unsigned_abs().into());
            let micros = u64::try_from((now - batch.fetched_at).as_micros()).unwrap_or(u64::MAX);
            relay.saturating_record(micros);
        }
        drop(relay);
        if !settled.is_empty() {
            // Whether by an ack or by the read-back: without this, what was settled last would wait for the next batch.
            self.commit_wake.notify_one();
            cell.attempts.set(0);
            cell.restarts.set(0);
            cell.unknown_refusals.set(0);
            cell.damaged_sends.set(0);
            cell.retries.set(0);
            cell.looked_again.set(false);
            cell.clear_trouble();
        }
        if cell.may_step_over() {
            self.recovery_wake.notify_one();
        }
        cell.note_progress(now);
        self.budget.freed();
        self.touch_send(cell);
        if cell.held.get() {
            self.touch_fetch(cell);
        }
    }

    /// Notes under which settings a mirror counts off what a former life wrote, if under others than its own.
    pub(super) fn set_settings_then(&self, cell: &MirrorCell, then: Option<Settings>) {
        let count = self.settings_then.get() + usize::from(then.is_some());
        let before = cell.settings_then.replace(then);
        self.settings_then.set(count - usize::from(before.is_some()));
    }

    /// Whether any mirror does so.
    pub(super) fn any_settings_then(&self) -> bool {
        self.settings_then.get() > 0
    }

    /// A connection was opened anew: it has proved nothing to the mirrors that are pinned to it (W1).
    pub(super) fn restart_windows(self: &Rc<Self>, way: Way, queue: &Rc<SendQueue>) {
        for cell in self.mirrors() {
            let here = cell.target_way() == way
                && self.send_queue(way, &cell).is_some_and(|own| Rc::ptr_eq(&own, queue));
            if here && let Some(mirror) = &mut *cell.mirror.borrow_mut() {
                mirror.on_moved();
            }
        }
    }

    /// Shows why mirrors with something to send wait.
    pub(super) fn note_target_trouble(&self, way: Way, error: &Error) {
        for cell in self.mirrors() {
            let waits = cell.mirror.borrow().as_ref().is_some_and(|mirror| !mirror.is_idle());
            if waits && cell.target_way() == way {
                cell.note_trouble(error.clone());
            }
        }
    }

    /// Shows why nothing is committed, or that it is again.
    pub(super) fn note_group_trouble(&self, error: Option<Error>) {
        *self.stats.group_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    fn group_takes_commits(&self) -> bool {
        self.stats.group_error.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// A connection for the recovery's questions to a broker. Whoever asks no more ends no dial that others may wait for, or
    /// that the next question needs.
    pub(super) async fn question(&self, side: Side, broker: i32) -> Result<Connection, Error> {
        let key = (side == Side::Source, broker);
        let source = side == Side::Source;
        let cluster = if source { &self.link.source } else { &self.link.target }.clone();
        let works = |question: &Question| match question.peek() {
            None => true,
            Some(dialled) => dialled.as_ref().is_ok_and(|open| cluster.is_still(broker, open)),
        };
        let known = self.questions.borrow().get(&key).cloned().filter(works);
        let question = known.unwrap_or_else(|| {
            let cluster = cluster.clone();
            let env = self.env.clone();
            let dial = async move {
                cluster.connect(&env, broker).await.inspect_err(|_| cluster.refresh())
            };
            let question = dial.boxed_local().shared();
            self.questions.borrow_mut().insert(key, question.clone());
            self.spawn(question.clone().map(drop));
            question
        });
        question.await
    }

    /// Obeys a broker's throttle time (KIP-219: the broker counts on it), within reason.
    pub(super) async fn throttle(&self, time: Duration) {
        if !time.is_zero() {
            let time = time.min(limits::THROTTLE_MAX);
            MirrorStats::add(&self.stats.throttle_ms, time.as_millis() as u64);
            tokio::time::sleep(time).await;
        }
    }
}
