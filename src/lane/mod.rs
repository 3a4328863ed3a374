//! Lanes: one thread each, with a runtime, connections and mirrors of its own. Nothing is shared on the hot path; what a
//! lane is told comes through its mailbox.
//!
//! Owns the threads and the decision which lane carries a mirror. Never looks at a batch.

mod mailbox;
mod placement;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::engine::budget::Budget;
use crate::engine::share::{LinkContext, Share};
use crate::engine::spec::{Leave, Left, MirrorId, MirrorSpec, Mirrors};
use crate::engine::stats::{Board, LaneStats, MirrorStats};
use crate::env::Env;
use crate::error::{Action, Code, Error, Side};
use crate::limits;
use mailbox::{Mailbox, Sender};
use placement::Placement;

/// How often a draining lane looks whether it is done.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// What a lane is told.
enum Command {
    /// Take part in a link.
    Join(LinkContext, Arc<LaneStats>),
    /// Copy a topic-partition.
    Add(MirrorSpec, Arc<MirrorStats>),
    /// Copy it no longer.
    Remove(MirrorId, Leave, oneshot::Sender<()>),
    /// Stop fetching, wait for acks, commit; then say so.
    Drain(oneshot::Sender<()>),
    /// End.
    Stop,
}

/// All lanes of a process.
pub struct Lanes {
    board: Arc<Board>,
    mailboxes: Vec<Sender>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    placement: Mutex<Placement>,
}

impl Lanes {
    /// Starts the threads. `memory_bytes` is what all of them together may hold in frames.
    pub fn start(
        env: &Env,
        lanes: usize,
        memory_bytes: usize,
        board: Arc<Board>,
    ) -> Result<Self, Error> {
        let lanes = lanes.max(1);
        let mut mailboxes = Vec::with_capacity(lanes);
        let mut threads = Vec::with_capacity(lanes);
        for index in 0..lanes {
            let (sender, mailbox) = mailbox::mailbox();
            let (env, budget_bytes, board) = (env.clone(), memory_bytes / lanes, board.clone());
            let name = format!("lane-{index}");
            let thread = std::thread::Builder::new().name(name);
            let thread = thread.spawn(move || run(index, env, budget_bytes, mailbox, &board));
            let thread = thread.map_err(|error| {
                let message = format!("cannot start the thread of lane {index}: {error}");
                Error::new(Code(71), Side::Local, Action::Stop, message)
            })?;
            mailboxes.push(sender);
            threads.push(thread);
        }
        let placement = Mutex::new(Placement::new(lanes));
        Ok(Self { board, mailboxes, threads: Mutex::new(threads), placement })
    }

    /// The same without threads: the lanes are tasks of the caller's `LocalSet` or `LocalRuntime` and end with it.
    pub fn start_local(env: &Env, lanes: usize, memory_bytes: usize, board: Arc<Board>) -> Self {
        let lanes = lanes.max(1);
        let start = |_| {
            let (sender, mailbox) = mailbox::mailbox();
            let budget = Rc::new(Budget::of_this_thread(memory_bytes / lanes));
            let (env, board) = (env.clone(), board.clone());
            tokio::task::spawn_local(async move { serve(env, budget, mailbox, &board).await });
            sender
        };
        let mailboxes = (0..lanes).map(start).collect();
        let placement = Mutex::new(Placement::new(lanes));
        Self { board, mailboxes, threads: Mutex::default(), placement }
    }

    /// Opens a link on every lane.
    pub fn open(self: &Arc<Self>, link: &LinkContext) -> LinkMirrors {
        let name: Arc<str> = link.config.name.as_str().into();
        for (index, mailbox) in self.mailboxes.iter().enumerate() {
            let stats = Arc::new(LaneStats::new(name.clone(), index));
            self.board.add_lane(stats.clone());
            mailbox.send(Command::Join(link.clone(), stats));
        }
        LinkMirrors { lanes: self.clone() }
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
        let all = futures_util::future::join_all(waits);
        tokio::time::timeout(deadline, all).await.is_ok_and(|done| done.iter().all(Result::is_ok))
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
}

impl Mirrors for LinkMirrors {
    fn add(&self, spec: MirrorSpec) {
        let lanes = &self.lanes;
        let id = spec.id.clone();
        let stats = MirrorStats::new(
            id.link.clone(),
            id.topic.clone(),
            spec.target_topic.clone(),
            id.partition,
        );
        let stats = Arc::new(stats);
        let mut placement = lanes.placement.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = placement.add(id, stats.clone());
        stats.lane.store(lane, std::sync::atomic::Ordering::Relaxed);
        lanes.board.add_mirror(stats.clone());
        lanes.mailboxes[lane].send(Command::Add(spec, stats));
    }

    fn remove(&self, id: &MirrorId, leave: Leave) -> Left {
        let (done, left) = oneshot::channel();
        let lanes = &self.lanes;
        let mut placement = lanes.placement.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((lane, stats)) = placement.remove(id) {
            lanes.mailboxes[lane].send(Command::Remove(id.clone(), leave, done));
            lanes.board.remove_mirror(&stats);
        }
        left
    }
}

/// A lane's thread.
fn run(index: usize, env: Env, budget_bytes: usize, mailbox: Mailbox, board: &Arc<Board>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let message = format!("lane {index} has no runtime: {error}");
            board.fail(Error::new(Code(71), Side::Local, Action::Stop, message));
            return;
        }
    };
    runtime.block_on(serve(env, Rc::new(Budget::of_this_thread(budget_bytes)), mailbox, board));
    // Tasks that still wait on the network are dropped with the runtime.
    runtime.shutdown_timeout(limits::LANE_SHUTDOWN);
}

async fn serve(env: Env, budget: Rc<Budget>, mailbox: Mailbox, board: &Arc<Board>) {
    let mut shares: BTreeMap<Arc<str>, Rc<Share>> = BTreeMap::new();
    loop {
        match mailbox.next().await {
            Command::Join(link, stats) => {
                let name = stats.link.clone();
                let share = Share::start(env.clone(), link, board.clone(), stats, budget.clone());
                shares.insert(name, share);
            }
            Command::Add(spec, stats) => match shares.get(&spec.id.link) {
                Some(share) => share.add(spec, stats),
                None => board.remove_mirror(&stats),
            },
            Command::Remove(id, leave, left) => {
                if let Some(share) = shares.get(&id.link) {
                    share.remove(&id, leave, left);
                }
            }
            Command::Drain(done) => {
                shares.values().for_each(Share::drain);
                let shares: Vec<_> = shares.values().cloned().collect();
                tokio::task::spawn_local(async move {
                    while !shares.iter().all(|share| share.is_drained()) {
                        tokio::time::sleep(DRAIN_POLL).await;
                    }
                    // Nobody may wait for it any more.
                    let _ = done.send(());
                });
            }
            Command::Stop => {
                shares.values().for_each(|share| share.stop());
                return;
            }
        }
    }
}
