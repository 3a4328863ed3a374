//! A lane's thread: its runtime, and the loop that carries out what the lane is told. Where the engine is `split`, a second
//! one beside it, which begins and ends with it.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::LocalRuntime;
use tokio::sync::oneshot;

use super::mailbox::Mailbox;
use super::meter::Gauge;
use super::pin;
use crate::config::resolved::Arrangement;
use crate::connection::{Beyond, FramePool};
use crate::engine::budget::Budget;
use crate::engine::reader::{self, Reader};
use crate::engine::share::{LinkContext, Share};
use crate::engine::spec::{Leave, MirrorId, MirrorSpec};
use crate::engine::stats::{Board, LaneStats, MirrorStats};
use crate::env::Env;
use crate::error::{Action, Code, Error, Side};
use crate::limits;

/// How often a draining lane looks whether it is done.
pub(super) const DRAIN_POLL: Duration = Duration::from_millis(10);

/// What a lane is told.
pub(super) enum Command {
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

/// What a lane begins with.
pub(super) struct Lane {
    pub(super) index: usize,
    pub(super) env: Env,
    pub(super) arrangement: Arrangement,
    pub(super) budget_bytes: usize,
    pub(super) beyond: Beyond,
    /// Of the lane, and of its reader.
    pub(super) cores: [Option<usize>; 2],
    /// Likewise.
    pub(super) gauges: [Gauge; 2],
    pub(super) mailbox: Mailbox,
    pub(super) board: Arc<Board>,
}

impl Lane {
    /// The thread, from its beginning to its end.
    pub(super) fn run(self) {
        let (index, board) = (self.index, self.board.clone());
        if let Err(error) = self.work() {
            let message = format!("lane {index} cannot run: {error}");
            board.fail(Error::new(Code(71), Side::Local, Action::Stop, message));
        }
    }

    fn work(self) -> std::io::Result<()> {
        let Self { index, env, arrangement, budget_bytes, beyond, cores, gauges, mailbox, board } =
            self;
        let [gauge, reader_gauge] = gauges;
        pin::stay_on(cores[0], &format!("lane-{index}"));
        let runtime = runtime(&gauge)?;
        let budget = Rc::new(Budget::of_this_thread(budget_bytes));
        budget.bind_frames(beyond);
        let (reader, thread) = match arrangement {
            Arrangement::Fused => (None, None),
            Arrangement::Split => {
                let (reader, thread) =
                    ReaderThread::start(index, &env, cores[1], reader_gauge, &board)?;
                (Some(reader), Some(thread))
            }
        };
        runtime.block_on(serve(env, budget, reader, mailbox, &board));
        // Tasks that still wait on the network are dropped with the runtime.
        runtime.shutdown_timeout(limits::LANE_SHUTDOWN);
        // After the lane: until then it may wait for an answer.
        drop(thread);
        Ok(())
    }
}

fn runtime(gauge: &Gauge) -> std::io::Result<LocalRuntime> {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build_local(Default::default())?;
    // Set once: a thread has one runtime.
    let _ = gauge.set(runtime.handle().metrics());
    Ok(runtime)
}

/// The reader's thread; dropping it ends that.
struct ReaderThread {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ReaderThread {
    fn start(
        index: usize,
        env: &Env,
        core: Option<usize>,
        gauge: Gauge,
        board: &Arc<Board>,
    ) -> std::io::Result<(Reader, Self)> {
        let (reader, dials) = reader::reader();
        let (end, ended) = oneshot::channel::<()>();
        let name = format!("reader-{index}");
        let (env, board, pool) = (env.clone(), board.clone(), FramePool::of_this_thread());
        let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
            pin::stay_on(core, &name);
            pool.serve_this_thread();
            let runtime = match runtime(&gauge) {
                Ok(runtime) => runtime,
                Err(error) => {
                    let message = format!("{name} has no runtime: {error}");
                    board.fail(Error::new(Code(71), Side::Local, Action::Stop, message));
                    return;
                }
            };
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = ended => {}
                    () = reader::serve(env, board, dials) => {}
                }
            });
            runtime.shutdown_timeout(limits::LANE_SHUTDOWN);
        })?;
        Ok((reader, Self { end: Some(end), thread: Some(thread) }))
    }
}

impl Drop for ReaderThread {
    fn drop(&mut self) {
        drop(self.end.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a reader ended by a panic");
        }
    }
}

/// Carries out what a lane is told, until it is to end.
pub(super) async fn serve(
    env: Env,
    budget: Rc<Budget>,
    reader: Option<Reader>,
    mailbox: Mailbox,
    board: &Arc<Board>,
) {
    let mut shares: BTreeMap<Arc<str>, Rc<Share>> = BTreeMap::new();
    loop {
        match mailbox.next().await {
            Command::Join(link, stats) => {
                let name = stats.link.clone();
                let (budget, reader) = (budget.clone(), reader.clone());
                let share = Share::start(env.clone(), link, board.clone(), stats, budget, reader);
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
