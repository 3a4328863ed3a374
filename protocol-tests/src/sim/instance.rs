//! One instance of the engine while it lives: it can be killed, frozen, told to leave.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use strait::config::resolved::Config;
use strait::engine::stats::Board;
use strait::env::Env;
use strait::fleet::Identity;
use strait::strait::Strait;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::timeout;

/// What a drain may take, as the program allows it.
const DRAIN: Duration = Duration::from_secs(10);

/// Holds a life still as SIGSTOP does: none of its tasks runs, while its timers fall due and its sockets fill.
#[derive(Default)]
struct Ice {
    frozen: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

thread_local! {
    static RUNNING: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The instance whose task runs now: for the log.
pub(super) fn running() -> Option<usize> {
    RUNNING.with(Cell::get)
}

/// What runs only while it is not frozen.
struct Freezable {
    index: usize,
    inside: Pin<Box<dyn Future<Output = ()>>>,
    ice: Rc<Ice>,
}

impl Future for Freezable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.ice.frozen.get() {
            *self.ice.waker.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        RUNNING.with(|running| running.set(Some(self.index)));
        let done = self.inside.as_mut().poll(cx);
        RUNNING.with(|running| running.set(None));
        done
    }
}

/// One instance of the engine, from its start to its end.
pub(super) struct Life {
    task: JoinHandle<()>,
    board: Arc<Board>,
    ice: Rc<Ice>,
    goodbye: Option<oneshot::Sender<()>>,
}

impl Life {
    /// Starts one.
    pub(super) fn begin(
        index: usize,
        config: Config,
        env: Env,
        identity: Option<Identity>,
    ) -> Self {
        let local = LocalSet::new();
        let handle = {
            let _inside = local.enter();
            let builder = Strait::builder(config).env(env);
            match identity {
                Some(identity) => builder.identity(identity),
                None => builder,
            }
            .start_local()
        };
        let board = handle.board();
        let (goodbye, leave) = oneshot::channel();
        let inside = local_life(local, async move {
            if leave.await.is_err() {
                std::future::pending::<()>().await;
            }
            handle.drain(DRAIN).await;
        });
        let ice = Rc::new(Ice::default());
        let task = Freezable { index, inside: Box::pin(inside), ice: ice.clone() };
        let task = spawn_local(task);
        Self { task, board, ice, goodbye: Some(goodbye) }
    }

    /// What it shows.
    pub(super) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Nothing of it runs until the thaw.
    pub(super) fn freeze(&self) -> Thaw {
        self.ice.frozen.set(true);
        Thaw(self.ice.clone())
    }

    /// Ends a freeze, if there is one.
    pub(super) fn thaw(&self) {
        Thaw(self.ice.clone()).thaw();
    }

    /// Whether it stands still.
    pub(super) fn is_frozen(&self) -> bool {
        self.ice.frozen.get()
    }

    /// SIGKILL: nothing of it runs again, what it wrote to its sockets is on its way.
    pub(super) async fn kill(self) {
        self.task.abort();
        // Cancelled is what was asked for.
        drop(self.task.await);
    }

    /// SIGTERM, and SIGKILL after a while.
    pub(super) async fn leave_at_most(mut self, time: Duration) {
        self.say_goodbye();
        if timeout(time, &mut self.task).await.is_err() {
            self.kill().await;
        }
    }

    fn say_goodbye(&mut self) {
        if let Some(goodbye) = self.goodbye.take() {
            // It may have ended.
            let _ = goodbye.send(());
        }
    }

    /// SIGTERM: it drains and leaves its group. It ends by itself, be it late.
    pub(super) async fn leave(mut self) {
        self.say_goodbye();
        drop(self.task.await);
    }
}

async fn local_life(local: LocalSet, life: impl Future<Output = ()>) {
    local.run_until(life).await;
}

/// Ends a freeze.
pub struct Thaw(Rc<Ice>);

impl Thaw {
    /// Everything that fell due meanwhile happens now.
    pub fn thaw(&self) {
        self.0.frozen.set(false);
        self.0.waker.take().into_iter().for_each(Waker::wake);
    }
}
