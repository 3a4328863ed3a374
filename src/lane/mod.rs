//! Lanes: one thread each, with a runtime, connections and mirrors of its own. Nothing is shared on the hot path; what a
//! lane is told comes through its mailbox.
//!
//! Owns the threads and the decision which lane carries a mirror. Never looks at a batch.

mod balance;
mod mailbox;
mod meter;
mod pin;
mod placement;
mod thread;

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::cluster::ClusterHandle;
use crate::config::resolved::{Arrangement, Engine};
use crate::connection::Beyond;
use crate::engine::budget::Budget;
use crate::engine::leaders;
use crate::engine::reader;
use crate::engine::share::LinkContext;
use crate::engine::spec::{Leave, Left, MirrorId, MirrorSpec, Mirrors};
use crate::engine::stats::{Board, LaneStats, MirrorState, MirrorStats};
use crate::env::Env;
use crate::error::{Action, Code, Error, Side};
use balance::{Balance, Figure};
use mailbox::Sender;
use meter::{Busy, Meter};
use placement::{Leaders, Placed, Placement};
use thread::{Command, Lane};

/// All lanes of a process.
pub struct Lanes {
    board: Arc<Board>,
    mailboxes: Vec<Sender>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// None without threads.
    meters: Vec<Meter>,
    placement: Mutex<Placement>,
}

impl Lanes {
    /// Starts the threads; together they hold no more in frames than `engine` says.
    pub fn start(env: &Env, engine: &Engine, board: Arc<Board>) -> Result<Self, Error> {
        let (lanes, memory_bytes) = (engine.lanes.max(1), engine.memory_bytes);
        let cores = if engine.pin {
            pin::allowed_cores(lanes * engine.arrangement.threads())
        } else {
            Vec::new()
        };
        let beyond = Beyond::default();
        let mut mailboxes = Vec::with_capacity(lanes);
        let mut threads = Vec::with_capacity(lanes);
        let mut meters = Vec::with_capacity(lanes);
        for index in 0..lanes {
            let (sender, mailbox) = mailbox::mailbox();
            let meter = Meter::new(index, engine.arrangement == Arrangement::Split);
            board.add_load(meter.load.clone());
            let lane = Lane {
                index,
                env: env.clone(),
                arrangement: engine.arrangement,
                budget_bytes: memory_bytes / lanes,
                beyond: beyond.clone(),
                cores: [index, lanes + index].map(|index| pin::core_of(&cores, index)),
                gauges: [meter.lane.clone(), meter.reader.clone()],
                mailbox,
                board: board.clone(),
            };
            let thread = std::thread::Builder::new().name(format!("lane-{index}"));
            let thread = thread.spawn(move || lane.run());
            let thread = thread.map_err(|error| {
                let message = format!("cannot start the thread of lane {index}: {error}");
                Error::new(Code(71), Side::Local, Action::Stop, message)
            })?;
            mailboxes.push(sender);
            threads.push(thread);
            meters.push(meter);
        }
        let placement = Mutex::new(Placement::new(lanes));
        Ok(Self { board, mailboxes, threads: Mutex::new(threads), meters, placement })
    }

    /// The same without threads: the lanes are tasks of the caller's `LocalSet` or `LocalRuntime` and end with it.
    pub fn start_local(env: &Env, engine: &Engine, board: Arc<Board>) -> Self {
        let (lanes, memory_bytes) = (engine.lanes.max(1), engine.memory_bytes);
        let start = |_| {
            let (sender, mailbox) = mailbox::mailbox();
            let budget = Rc::new(Budget::of_this_thread(memory_bytes / lanes));
            let (env, board) = (env.clone(), board.clone());
            let reader = (engine.arrangement == Arrangement::Split).then(|| {
                let (reader, dials) = reader::reader();
                tokio::task::spawn_local(reader::serve(env.clone(), board.clone(), dials));
                reader
            });
            tokio::task::spawn_local(async move {
                thread::serve(env, budget, reader, mailbox, &board).await;
            });
            sender
        };
        let mailboxes = (0..lanes).map(start).collect();
        let placement = Mutex::new(Placement::new(lanes));
        Self { board, mailboxes, threads: Mutex::default(), meters: Vec::new(), placement }
    }

    /// Opens a link on every lane.
    pub fn open(self: &Arc<Self>, link: &LinkContext) -> LinkMirrors {
        let name: Arc<str> = link.config.name.as_str().into();
        for (index, mailbox) in self.mailboxes.iter().enumerate() {
            let stats = Arc::new(LaneStats::new(name.clone(), index));
            self.board.add_lane(stats.clone());
            mailbox.send(Command::Join(link.clone(), stats));
        }
        let (source, target) = (link.source.clone(), link.target.clone());
        LinkMirrors { lanes: self.clone(), source, target }
    }

    /// Stops fetching everywhere, waits for acks, commits. Whether all of it was done before `deadline`.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.board.set_draining();
        let waits: Vec<_> = self
            .mailboxes
            .iter()
            .map(|mailbox| {
                let (done, wait) = oneshot::channel();
                mailbox.send(Command::Drain(done));
                wait
            })
            .collect();
        let all = async {
            // What is between two lanes is committed by the one that it leaves.
            while self.placement().is_moving() {
                tokio::time::sleep(thread::DRAIN_POLL).await;
            }
            futures_util::future::join_all(waits).await
        };
        tokio::time::timeout(deadline, all).await.is_ok_and(|done| done.iter().all(Result::is_ok))
    }

    /// Measures how busy the lanes are, and takes mirrors from one that runs hot; until it is dropped.
    pub async fn keep_balance(self: Arc<Self>, env: Env) {
        let mut balance = Balance::default();
        let (mut before, mut busy_before) = (env.now(), self.busy());
        while !self.meters.is_empty() && !self.board.draining() {
            tokio::time::sleep(balance::INTERVAL).await;
            let (now, busy_now) = (env.now(), self.busy());
            let meters = self.meters.iter().zip(busy_before.into_iter().zip(busy_now.clone()));
            let busy: Vec<f64> = meters
                .map(|(meter, (then, since))| meter.note(then, since, now - before))
                .collect();
            (before, busy_before) = (now, busy_now);
            let figures = self.figures();
            let Some((from, to)) = balance.look(now, &busy) else { continue };
            for id in balance.choose(now, &busy, (from, to), figures) {
                tracing::info!(mirror = %id, from, to, "a lane that runs hot gives a mirror away");
                tokio::task::spawn_local(self.clone().transfer(id, to, now));
            }
        }
    }

    fn busy(&self) -> Vec<Busy> {
        self.meters.iter().map(Meter::busy).collect()
    }

    /// What every mirror did since the last look.
    fn figures(&self) -> Vec<Figure> {
        let mut placement = self.placement();
        for (meter, count) in self.meters.iter().zip(placement.counts()) {
            meter.load.mirrors.store(count, Relaxed);
        }
        let figure = |(id, placed): (&MirrorId, &mut Placed)| {
            let acked_bytes = placed.stats.acked_bytes.load(Relaxed);
            let before = std::mem::replace(&mut placed.acked_bytes, acked_bytes);
            let copies = matches!(placed.stats.state(), MirrorState::Ok | MirrorState::CatchingUp)
                && !placed.stats.in_turn.load(Relaxed);
            Figure {
                id: id.clone(),
                lane: placed.lane,
                bytes: acked_bytes.saturating_sub(before),
                is_settled: copies && !placed.is_moving(),
                moved_at: placed.moved_at,
            }
        };
        placement.all().map(figure).collect()
    }

    /// Brings a mirror to another lane, which begins at what the first one has committed.
    async fn transfer(self: Arc<Self>, id: MirrorId, to: usize, now: Instant) {
        let (done, left) = oneshot::channel();
        let begun = self.placement().begin_move(&id, to, now);
        let Some((from, number)) = begun else { return };
        self.mailboxes[from].send(Command::Remove(id.clone(), Leave::Settled, done));
        // An error is as good: the lane is gone, or never saw it.
        drop(left.await);
        let mut placement = self.placement();
        let Some(placed) = placement.end_move(&id, number) else { return };
        if let Some(meter) = self.meters.get(from) {
            MirrorStats::add(&meter.load.given, 1);
        }
        placed.stats.lane.store(placed.lane, Relaxed);
        placed.stats.set_state(MirrorState::Starting);
        if !self.board.draining() {
            let (spec, stats) = (placed.spec.clone(), placed.stats.clone());
            self.mailboxes[placed.lane].send(Command::Add(spec, stats));
        }
    }

    fn placement(&self) -> MutexGuard<'_, Placement> {
        self.placement.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the threads and waits for them.
    pub fn stop(&self) {
        self.mailboxes.iter().for_each(|mailbox| mailbox.send(Command::Stop));
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a lane ended by a panic");
            }
        }
    }
}

/// A link's way to put mirrors on lanes.
pub struct LinkMirrors {
    lanes: Arc<Lanes>,
    source: ClusterHandle,
    target: ClusterHandle,
}

impl LinkMirrors {
    /// Who leads a mirror's partitions, as far as is known by now.
    fn leaders(&self, spec: &MirrorSpec) -> Leaders {
        let leader = |cluster: &ClusterHandle, topic: &str| {
            leaders::leader(cluster, topic, spec.id.partition).broker
        };
        let source = leader(&self.source, &spec.id.topic);
        Leaders { source, target: leader(&self.target, &spec.target_topic) }
    }
}

impl Mirrors for LinkMirrors {
    fn add(&self, spec: MirrorSpec) {
        let lanes = &self.lanes;
        let id = &spec.id;
        let stats = MirrorStats::new(
            id.link.clone(),
            id.topic.clone(),
            spec.target_topic.clone(),
            id.partition,
        );
        let stats = Arc::new(stats);
        let leaders = self.leaders(&spec);
        let mut placement = lanes.placement();
        let lane = placement.add(spec.clone(), leaders, stats.clone());
        stats.lane.store(lane, Relaxed);
        lanes.board.add_mirror(stats.clone());
        lanes.mailboxes[lane].send(Command::Add(spec, stats));
    }

    fn remove(&self, id: &MirrorId, leave: Leave) -> Left {
        let (done, left) = oneshot::channel();
        let lanes = &self.lanes;
        let mut placement = lanes.placement();
        let (placed, to_tell) = placement.remove(id, done);
        let Some(placed) = placed else { return left };
        if let Some(done) = to_tell {
            lanes.mailboxes[placed.lane].send(Command::Remove(id.clone(), leave, done));
        }
        lanes.board.remove_mirror(&placed.stats);
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::spec::tests::spec;

    #[test]
    fn a_mirror_that_catches_up_in_its_turn_is_not_given_away() {
        let (mut placement, spec) = (Placement::new(2), spec(0));
        let (link, topic) = (spec.id.link.clone(), spec.id.topic.clone());
        let stats = Arc::new(MirrorStats::new(link, topic.clone(), topic, 0));
        stats.set_state(MirrorState::CatchingUp);
        placement.add(spec, Leaders::default(), stats.clone());
        let (board, placement) = (Arc::default(), Mutex::new(placement));
        let lanes = Lanes {
            board,
            mailboxes: Vec::new(),
            threads: Mutex::default(),
            meters: Vec::new(),
            placement,
        };
        for in_turn in [false, true] {
            stats.in_turn.store(in_turn, Relaxed);
            assert_eq!(lanes.figures()[0].is_settled, !in_turn);
        }
    }
}
