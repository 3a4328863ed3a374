//! The connections that are served: so many and no more, whoever comes. Where there is no room, one goes that has had its
//! time, those first that have not asked: so a flood of silent peers does not keep out one that asks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::limits;

/// Those that are open, oldest first.
pub(super) struct Served {
    tasks: JoinSet<()>,
    open: VecDeque<Open>,
    /// How long a peer that has not asked keeps its place where there is no room.
    ask_grace: Duration,
}

struct Open {
    since: Instant,
    asked: Asked,
    task: AbortHandle,
}

/// Whether a peer's request is there, whole.
#[derive(Clone, Default)]
pub(super) struct Asked(Arc<AtomicBool>);

impl Asked {
    pub(super) fn set(&self) {
        self.0.store(true, Relaxed);
    }
}

impl Served {
    pub(super) fn new(over_tls: bool) -> Self {
        let ask_grace = match over_tls {
            true => limits::TELEMETRY_HANDSHAKE_GRACE,
            false => limits::TELEMETRY_ASK_GRACE,
        };
        Self { tasks: JoinSet::new(), open: VecDeque::new(), ask_grace }
    }

    pub(super) fn spawn<F>(&mut self, connection: impl FnOnce(Asked) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let asked = Asked::default();
        let task = self.tasks.spawn(connection(asked.clone()));
        self.open.push_back(Open { since: Instant::now(), asked, task });
    }

    /// Returns when there is room for one more.
    pub(super) async fn room(&mut self) {
        while self.tasks.len() >= limits::TELEMETRY_CONNECTIONS_MAX {
            let (victim, until) = self.victim();
            if until > Instant::now() {
                // Meanwhile one may end, or ask: then it is another's turn.
                tokio::select! {
                    biased;
                    () = self.ended() => {}
                    () = sleep_until(until) => {}
                }
            } else {
                if let Some(open) = self.open.remove(victim) {
                    open.task.abort();
                }
                self.ended().await;
            }
        }
    }

    /// Which one goes next, and when its time is over: while a quarter has not asked, the oldest of these; else whose time
    /// is over first.
    fn victim(&self) -> (usize, Instant) {
        let of = |asked: bool, grace: Duration| {
            let mut all = self.open.iter().enumerate();
            let oldest = all.find(|(_, open)| open.asked.0.load(Relaxed) == asked);
            oldest.map(|(index, open)| (index, open.since + grace))
        };
        let silent = of(false, self.ask_grace);
        let asked = of(true, limits::TELEMETRY_READ_GRACE);
        let silent_count = self.open.iter().filter(|open| !open.asked.0.load(Relaxed)).count();
        let asked = asked.filter(|_| silent_count * 4 <= self.open.len());
        let first = silent.into_iter().chain(asked).min_by_key(|(_, until)| *until);
        first.unwrap_or_else(|| (0, Instant::now()))
    }

    /// Returns when one has ended; never, while there is none.
    pub(super) async fn ended(&mut self) {
        match self.tasks.join_next().await {
            Some(_) => self.open.retain(|open| !open.task.is_finished()),
            None => std::future::pending().await,
        }
    }
}
