//! Lanes: one thread each, with a runtime, connections and mirrors of its own. Nothing is shared on the hot path; what a
//! lane is told comes through its mailbox.
//!
//! Owns the threads and the decision which lane carries a mirror. Never looks at a batch.

mod mailbox;
mod pin;
mod placement;
mod thread;

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::config::resolved::{Arrangement, Engine};
use crate::engine::budget::Budget;
use crate::engine::reader;
use crate::engine::share::LinkContext;
use crate::engine::spec::{Leave, Left, MirrorId, MirrorSpec, Mirrors};
use crate::engine::stats::{Board, LaneStats, MirrorStats};
use crate::env::Env;
use crate::error::{Action, Code, Error, Side};
use mailbox::Sender;
use placement::Placement;
use thread::{Command, Lane};

/// All lanes of a process.
pub struct Lanes {
    board: Arc<Board>,
    mailboxes: Vec<Sender>,
    threads: Mutex<Vec<JoinHandle<()>>>,
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
        let mut mailboxes = Vec::with_capacity(lanes);
        let mut threads = Vec::with_capacity(lanes);
        for index in 0..lanes {
            let (sender, mailbox) = mailbox::mailbox();
            let lane = Lane {
                index,
                env: env.clone(),
                arrangement: engine.arrangement,
                budget_bytes: memory_bytes / lanes,
                cores: [index, lanes + index].map(|index| pin::core_of(&cores, index)),
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
        }
        let placement = Mutex::new(Placement::new(lanes));
        Ok(Self { board, mailboxes, threads: Mutex::new(threads), placement })
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
