//! What follows a login whose session ends (KIP-368): the same login again, on the same connection, before it does. What is
//! on its way is answered, what comes meanwhile waits behind it, and nobody above notices.
//!
//! A broker closes a connection at whatever it reads after the session's end, but for a login. What it reads between the
//! two halves of one it takes for a part of it; hence the driver holds back everything else.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::super::security::{Security, SecurityCell};
use super::super::shared::Shared;
use super::{authenticate, prepare};
use crate::env::Env;
use crate::error::Error;
use crate::limits;
use crate::wire::api_versions::ApiVersionsResponse;

/// When a connection is to be left, unless its session is renewed by then; for any thread.
#[derive(Debug)]
pub struct SessionEnd {
    from: Instant,
    /// Milliseconds after `from`; `u64::MAX` is never.
    leave_ms: AtomicU64,
}

impl Default for SessionEnd {
    fn default() -> Self {
        Self { from: Instant::now(), leave_ms: AtomicU64::new(u64::MAX) }
    }
}

impl SessionEnd {
    /// When no new work is begun any more.
    pub fn leave_at(&self) -> Option<Instant> {
        let leave_ms = Some(self.leave_ms.load(Relaxed)).filter(|ms| *ms != u64::MAX)?;
        Some(self.from + Duration::from_millis(leave_ms))
    }

    /// Whether that is now.
    pub fn is_near(&self) -> bool {
        self.leave_at().is_some_and(|at| at <= Instant::now())
    }

    /// Sets that; none is never.
    pub(crate) fn leave(&self, at: Option<Instant>) {
        let ms = |at: Instant| at.saturating_duration_since(self.from).as_millis();
        let ms = at.map_or(u64::MAX, |at| u64::try_from(ms(at)).unwrap_or(u64::MAX));
        self.leave_ms.store(ms, Relaxed);
    }

    /// A session of this length begins now. When it is to be renewed: with time for what is on its way, twice over, and for
    /// another try; half of a short one stays for work.
    pub(in super::super) fn begin(&self, lifetime: Duration) -> Instant {
        let end = Instant::now() + lifetime;
        self.leave(Some(end - limits::SESSION_END_MARGIN.min(lifetime / 4)));
        let before = (2 * limits::SESSION_END_MARGIN).max(lifetime * 3 / 20);
        end - before.min(lifetime / 2)
    }
}

/// A session to be renewed for as long as its connection lives.
pub(in super::super) struct Session {
    pub(in super::super) env: Env,
    pub(in super::super) shared: Rc<Shared>,
    pub(in super::super) offered: ApiVersionsResponse,
    pub(in super::super) security: Security,
    pub(in super::super) end: Arc<SessionEnd>,
}

/// Why a session was not renewed.
enum Failed {
    /// Nothing was sent: it may be tried again.
    Unready(Error),
    /// The broker closes the connection, or is not to be trusted.
    Refused(Error),
}

impl Session {
    pub(in super::super) async fn keep(self, mut at: Instant) {
        loop {
            tokio::select! {
                biased;
                () = self.shared.ended() => return,
                () = sleep_until(at) => {}
            }
            let cell = self.security.cell();
            match self.renew().await {
                Ok(lifetime) => {
                    SecurityCell::count(&cell.reauthentications);
                    match lifetime {
                        None => return self.end.leave(None),
                        // It would be renewed without end: another connection says why.
                        Some(short) if short < limits::SESSION_LIFETIME_MIN => {
                            return self.end.leave(Some(Instant::now()));
                        }
                        Some(lifetime) => at = self.end.begin(lifetime),
                    }
                }
                Err(Failed::Unready(error)) if !self.end.is_near() => {
                    tracing::debug!(%error, "the SASL session is renewed later");
                    sleep(limits::SESSION_RETRY).await;
                }
                Err(Failed::Unready(error)) => {
                    SecurityCell::count(&cell.reauthentications_failed);
                    return tracing::warn!(%error, "the SASL session cannot be renewed: its connection is left");
                }
                Err(Failed::Refused(error)) => {
                    if self.shared.closed().is_none() {
                        SecurityCell::count(&cell.reauthentications_failed);
                        self.shared.refuse(error);
                    }
                    return;
                }
            }
        }
    }

    /// Logs in anew with the credentials as they are by now. How long that lasts.
    async fn renew(&self) -> Result<Option<Duration>, Failed> {
        let now = self.security.now();
        let Some(sasl) = &now.sasl else { return Ok(None) };
        // What needs somebody else is done before anything is held up.
        let token = prepare(&self.env, &self.shared, sasl).await.map_err(Failed::Unready)?;
        self.shared.hold();
        let renewed = authenticate(&self.env, &self.shared, &self.offered, sasl, token).await;
        if renewed.is_ok() {
            self.shared.release();
        }
        renewed.map_err(Failed::Refused)
    }
}
