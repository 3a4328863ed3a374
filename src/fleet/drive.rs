//! Keeps a membership, until it is to be left: picks the protocol, finds the coordinator, and says goodbye.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Context, Holder, alone, drive_classic, drive_kip848};
use crate::config::resolved::MembershipProtocol;
use crate::connection::Connection;
use crate::engine::member::{MemberCell, Standing};
use crate::engine::spec::Left;
use crate::error::Error;
use crate::limits;

/// A coordinator that is being made, or replaced, is no trouble before it was asked for so often.
const TRIES_QUIET: u32 = 4;
/// An answer of the coordinator, unless the request itself waits for others.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Marks the membership as over when it ends, however that comes.
pub(super) struct Token(Arc<MemberCell>);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.set_gone();
    }
}

/// Keeps the membership of a link; drop it to end it without a goodbye.
pub async fn run<H: Holder>(context: Context<H>) -> Infallible {
    let gone = Token(context.member.clone());
    let protocol = context.link.membership.protocol;
    match protocol {
        MembershipProtocol::Off => {
            drop(gone);
            alone::run(&context).await
        }
        MembershipProtocol::Classic => drive_classic::run(&context, gone).await,
        MembershipProtocol::Auto => {
            let gone = match drive_kip848::run(&context, gone).await {
                drive_kip848::End::Left => std::future::pending().await,
                drive_kip848::End::Unsupported(gone) => gone,
            };
            drive_classic::run(&context, gone).await
        }
    }
}

/// A membership's way to its coordinator.
pub(super) struct Desk<'a, H> {
    pub(super) context: &'a Context<H>,
    pub(super) group: String,
    connection: Option<Connection>,
    attempt: u32,
}

impl<'a, H: Holder> Desk<'a, H> {
    pub(super) fn new(context: &'a Context<H>) -> Self {
        let group = format!("strait.{}", context.link.name);
        Self { context, group, connection: None, attempt: 0 }
    }

    /// The connection to the coordinator, dialled until it is there.
    pub(super) async fn connection(&mut self) -> Connection {
        loop {
            if let Some(open) = self.connection.as_ref().filter(|open| !open.is_ending()) {
                return open.clone();
            }
            match self.context.source.coordinator(&self.context.env, &self.group).await {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => self.failed(error).await,
            }
        }
    }

    /// The connection as it is, for a goodbye.
    pub(super) fn open(&self) -> Option<Connection> {
        self.connection.clone().filter(|open| !open.is_closed())
    }

    /// It went well.
    pub(super) fn went_well(&mut self) {
        self.attempt = 0;
        self.context.interest.tell(None);
    }

    /// It did not: another coordinator next time, after a pause that grows. Told only if it lasts.
    pub(super) async fn failed(&mut self, error: Error) {
        self.connection = None;
        tracing::debug!(group = %self.group, %error, "membership");
        if self.attempt >= TRIES_QUIET {
            self.context.interest.tell(Some(error));
        }
        self.pause().await;
    }

    /// Only the operator can help: told at once.
    pub(super) async fn refused(&mut self, error: Error) {
        self.context.interest.tell(Some(error));
        self.attempt = self.attempt.max(TRIES_QUIET);
        self.pause().await;
    }

    /// The group counts somebody else as the member that we were.
    pub(super) async fn lost(&mut self, why: crate::wire::ErrorCode) {
        tracing::warn!(group = %self.group, %why, "membership lost: its mirrors are dropped, and it is asked for anew");
        self.context.member.set(Standing::Nobody);
        self.context.holder.lose();
        self.pause().await;
    }

    async fn pause(&mut self) {
        let (base, max) = limits::RECONNECT_BACKOFF;
        sleep(self.context.env.backoff(base, max, self.attempt)).await;
        self.attempt = self.attempt.saturating_add(1);
    }
}

/// Waits until all are let go, or for as long as the group allows.
pub(super) async fn all_left(left: Vec<Left>) {
    // What is not let go by then has stopped all the same; its acks may still come.
    drop(timeout(limits::RELEASE_TIMEOUT, futures_util::future::join_all(left)).await);
}
