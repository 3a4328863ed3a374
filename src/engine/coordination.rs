//! Questions to the target's coordinators, of transactions and of the group: found, kept, found again when they move, and
//! asked again while they say that it passes.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::cell::MirrorCell;
use super::share::Share;
use super::trouble;
use crate::cluster::rights::Need;
use crate::connection::Connection;
use crate::error::{Action, Code, Error, Side};
use crate::limits;
use crate::wire::error_code::ErrorCode;
use crate::wire::find_coordinator::{CoordinatorKind, FindCoordinatorRequest};
use crate::wire::{ApiKey, Request};

/// How long a coordinator may say that it passes: that of a move, or of markers that are written.
const PATIENCE: Duration = Duration::from_secs(15);
/// First and largest wait between two questions.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// The same where nothing was heard: a connection is dialled for each.
const BACKOFF_UNHEARD: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The target refuses the link's transactions.
pub(super) const TRANSACTIONS: Code = Code(81);

/// A question that got no good answer.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    /// What the coordinator said; none if nothing was heard.
    pub(super) code: Option<ErrorCode>,
    pub(super) error: Error,
}

/// Whose coordinator is asked.
#[derive(Clone, Copy)]
pub(super) enum Whose<'a> {
    /// The one of the mirror's transactions.
    Transactions(&'a MirrorCell),
    /// The one of the link's group on the target; of many connections to it, the one that the mirror has.
    Group(&'a MirrorCell),
}

impl<'a> Whose<'a> {
    fn cell(self) -> &'a MirrorCell {
        match self {
            Self::Transactions(cell) | Self::Group(cell) => cell,
        }
    }

    fn known<'b>(self, share: &'b Share) -> &'b Cell<i32>
    where
        'a: 'b,
    {
        match self {
            Self::Transactions(cell) => &cell.transaction_coordinator,
            Self::Group(_) => &share.target_coordinator,
        }
    }

    fn kind(self) -> CoordinatorKind {
        match self {
            Self::Transactions(_) => CoordinatorKind::Transaction,
            Self::Group(_) => CoordinatorKind::Group,
        }
    }

    fn key(self, share: &Share) -> String {
        match self {
            Self::Transactions(cell) => cell.transactional_id(),
            Self::Group(_) => share.group.clone(),
        }
    }
}

impl Share {
    /// Whether its batches are brought by transactions.
    pub(super) fn is_transactional(&self) -> bool {
        self.link.config.delivery.transactions().is_some()
    }

    /// One of the connections to a coordinator on the target.
    async fn coordination(&self, broker: i32, index: usize) -> Result<Connection, Error> {
        let known = self.coordinations.borrow().get(&(broker, index)).cloned();
        let target = &self.link.target;
        if let Some(connection) = known.filter(|known| target.is_still(broker, known)) {
            return Ok(connection);
        }
        let connection =
            target.connect(&self.env, broker).await.inspect_err(|_| target.refresh())?;
        self.coordinations.borrow_mut().insert((broker, index), connection.clone());
        Ok(connection)
    }
}

/// How a question is asked again.
#[derive(Clone, Copy)]
pub(super) struct Asking {
    /// For so long.
    pub(super) patience: Duration,
    /// Also where it may have been heard and no answer came. What was asked first may come late, and must mean the same then.
    pub(super) unheard: bool,
}

impl Default for Asking {
    fn default() -> Self {
        Self { patience: PATIENCE, unheard: true }
    }
}

/// Asks until there is an answer that does not pass. `code` reads it; an answer of several partitions has the first error.
pub(super) async fn ask<R: Request>(
    share: &Rc<Share>,
    whose: Whose<'_>,
    asking: Asking,
    version_max: i16,
    request: &R,
    code: impl Fn(&R::Response) -> ErrorCode,
) -> Result<R::Response, Refused> {
    let until = share.env.now() + asking.patience;
    let mut attempt = 0;
    loop {
        let mut may_repeat = true;
        let answer = match coordinator(share, whose).await {
            Ok(connection) => {
                may_repeat = asking.unheard;
                let answer = connection.call_up_to(version_max, request, limits::REQUEST_TIMEOUT);
                answer.await.map_err(|error| {
                    trouble::call_to(&connection, Side::Target, name(R::API), &error)
                })
            }
            Err(error) => Err(error),
        };
        let refused = match answer {
            Ok(answer) => match code(&answer) {
                ErrorCode::NONE => return Ok(answer),
                code => refused(share, whose, name(R::API), code),
            },
            Err(error) => {
                share.stats.count_error("target", name(R::API), &error.code.to_string());
                Refused { code: None, error }
            }
        };
        if refused.code.is_none_or(has_moved) {
            whose.known(share).set(-1);
        }
        let again = refused.code.map_or(may_repeat, passes);
        if !again || share.is_stopped() || share.env.now() >= until {
            return Err(refused);
        }
        let (base, max) = if refused.code.is_some() { BACKOFF } else { BACKOFF_UNHEARD };
        tokio::time::sleep(share.env.backoff(base, max, attempt)).await;
        attempt += 1;
    }
}

/// A connection to the coordinator.
pub(super) async fn coordinator(share: &Rc<Share>, whose: Whose<'_>) -> Result<Connection, Error> {
    if whose.known(share).get() < 0 {
        find(share, whose).await?;
    }
    let index = whose.cell().spec.id.partition.unsigned_abs() as usize;
    share.coordination(whose.known(share).get(), index % limits::COORDINATIONS_PER_BROKER).await
}

async fn find(share: &Rc<Share>, whose: Whose<'_>) -> Result<(), Error> {
    // Any broker knows; the partition's leader is talked to anyway.
    let leader = whose.cell().target_leader.get().broker;
    let connection = share.question(Side::Target, leader).await?;
    let key = whose.key(share);
    let request = FindCoordinatorRequest { kind: whose.kind(), keys: vec![key.clone()] };
    let answer = connection
        .call(&request, limits::REQUEST_TIMEOUT)
        .await
        .map_err(|error| trouble::call_to(&connection, Side::Target, "FindCoordinator", &error))?;
    let found = answer.coordinators.into_iter().find(|found| found.key == key);
    match found {
        Some(found) if !found.error.is_error() => {
            whose.known(share).set(found.id);
            Ok(())
        }
        Some(found) => Err(refused(share, whose, "FindCoordinator", found.error).error),
        None => Err(trouble::answered(
            Side::Target,
            "FindCoordinator",
            ErrorCode::COORDINATOR_NOT_AVAILABLE,
            "",
        )),
    }
}

fn name(api: ApiKey) -> &'static str {
    match api {
        ApiKey::InitProducerId => "InitProducerId",
        ApiKey::AddPartitionsToTxn => "AddPartitionsToTxn",
        ApiKey::AddOffsetsToTxn => "AddOffsetsToTxn",
        ApiKey::TxnOffsetCommit => "TxnOffsetCommit",
        ApiKey::EndTxn => "EndTxn",
        ApiKey::OffsetFetch => "OffsetFetch",
        _ => "coordinator",
    }
}

/// The broker that was asked is not the coordinator, or not yet, or no more.
fn has_moved(error: ErrorCode) -> bool {
    matches!(error, ErrorCode::COORDINATOR_NOT_AVAILABLE | ErrorCode::NOT_COORDINATOR)
}

/// Nothing was done, and the same question may find a better answer in a moment.
fn passes(error: ErrorCode) -> bool {
    has_moved(error)
        || matches!(
            error,
            ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
                | ErrorCode::CONCURRENT_TRANSACTIONS
                | ErrorCode::NETWORK_EXCEPTION
                | ErrorCode::REQUEST_TIMED_OUT
                | ErrorCode::UNSTABLE_OFFSET_COMMIT
        )
}

/// Whether another life of the mirror, or the coordinator's clock, has ended this one.
pub(super) fn is_fenced(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::INVALID_PRODUCER_EPOCH
            | ErrorCode::PRODUCER_FENCED
            | ErrorCode::TRANSACTION_COORDINATOR_FENCED
    )
}

fn refused(share: &Share, whose: Whose<'_>, api: &'static str, code: ErrorCode) -> Refused {
    share.stats.count_error("target", api, code.name());
    let config = &share.link.config;
    let named = |code: Code, action, message: String| {
        Error::new(code, Side::Target, action, message).cluster(&config.to.name)
    };
    let not_allowed = |need: Need| {
        let message = format!("{} ({api})", code.name());
        named(Code(30), Action::Retry, message)
            .fix(need.grant(config, &whose.cell().spec.target_topic))
    };
    let error = match code {
        ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED => not_allowed(Need::WriteTransactions),
        ErrorCode::GROUP_AUTHORIZATION_FAILED => not_allowed(Need::CommitTargetPosition),
        // Whoever commits offsets of a topic must be allowed to read it (`KafkaApis.handleTxnOffsetCommitRequest`).
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => not_allowed(Need::ReadTarget),
        ErrorCode::INVALID_TRANSACTION_TIMEOUT => named(
            TRANSACTIONS,
            Action::Park,
            format!("{api} answered {}: a transaction may not take so long", code.name()),
        )
        .fix(format!(
            "a transaction of this link may take {} s: raise transaction.max.timeout.ms of the target's brokers above it, \
             or lower `transaction.interval`",
            timeout(share).as_secs()
        )),
        ErrorCode::OFFSET_METADATA_TOO_LARGE => named(
            TRANSACTIONS,
            Action::Park,
            format!("{api} answered {}", code.name()),
        )
        .fix("raise offset.metadata.max.bytes of the target's brokers to 4096"),
        code => trouble::answered(Side::Target, api, code, "").cluster(&config.to.name),
    };
    Refused { code: Some(code), error }
}

/// What a transaction may take before its coordinator aborts it: the interval, then the last acks and its end.
pub(super) fn timeout(share: &Share) -> Duration {
    let interval = share.link.config.delivery.transactions().unwrap_or_default().interval;
    limits::TRANSACTION_TIMEOUT.max(2 * interval + limits::TRANSACTION_TIMEOUT / 2)
}
