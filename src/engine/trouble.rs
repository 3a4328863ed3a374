//! What goes wrong on the data path, as the operator reads it. Codes ST-060 to ST-079; the long texts are in
//! `error_codes.rs`.

use super::cell::MirrorCell;
use super::class::Way;
use super::share::Share;
use crate::cluster::ClusterHandle;
use crate::cluster::rights::Need;
use crate::connection::{CallError, Connection};
use crate::error::{Action, Code, Error, Side};
use crate::limits;
use crate::wire::codec::CodecError;
use crate::wire::error_code::ErrorCode;
use crate::wire::records::{OpenBatch, RecordsError};
use tokio::time::Instant;

/// What the target's refusal of a batch calls for, once the window is drained and the target was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Send it again: nothing is wrong with the batch.
    Again,
    /// Send it again, some times: its checksum was right when it left, so a bit flipped on the way.
    Resend,
    /// Cut it into smaller ones.
    Split,
    /// Nothing helps but the operator.
    Park,
    /// Ask for the right, and try again seldom.
    Authorize,
    /// The target lost our numbering: find the position anew.
    Restart,
    /// Another instance opened a newer numbering: find the position anew, which is under it.
    Yield,
}

/// By the broker's error (`LogValidator`, `ProducerAppendInfo`, `ReplicaManager`).
pub fn remedy(error: ErrorCode) -> Remedy {
    match error {
        ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => Remedy::Split,
        ErrorCode::CORRUPT_MESSAGE => Remedy::Resend,
        ErrorCode::INVALID_RECORD
        | ErrorCode::INVALID_REQUEST
        | ErrorCode::INVALID_REQUIRED_ACKS
        | ErrorCode::INVALID_TIMESTAMP
        | ErrorCode::INVALID_TOPIC_EXCEPTION
        | ErrorCode::POLICY_VIOLATION
        | ErrorCode::UNSUPPORTED_COMPRESSION_TYPE
        | ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT => Remedy::Park,
        // A newer numbering is in force, and on record: to open one in answer would only be the next round (R7).
        ErrorCode::INVALID_PRODUCER_EPOCH | ErrorCode::PRODUCER_FENCED => Remedy::Yield,
        ErrorCode::TOPIC_AUTHORIZATION_FAILED | ErrorCode::CLUSTER_AUTHORIZATION_FAILED => {
            Remedy::Authorize
        }
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER
        | ErrorCode::DUPLICATE_SEQUENCE_NUMBER
        | ErrorCode::UNKNOWN_PRODUCER_ID => Remedy::Restart,
        _ => Remedy::Again,
    }
}

/// Whether a refusal blames what is in the batch: another batch may be taken all the same.
fn blames_content(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::CORRUPT_MESSAGE
            | ErrorCode::INVALID_RECORD
            | ErrorCode::INVALID_TIMESTAMP
            | ErrorCode::MESSAGE_TOO_LARGE
            | ErrorCode::RECORD_LIST_TOO_LARGE
            | ErrorCode::UNSUPPORTED_COMPRESSION_TYPE
            | ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT
    )
}

/// Whether the parts of a joined batch go one by one after this refusal: which of them it was is not known, and the one that
/// is refused again is the cause.
pub fn takes_apart(cell: &MirrorCell, error: ErrorCode) -> bool {
    matches!(remedy(error), Remedy::Split | Remedy::Park)
        || error == ErrorCode::UNKNOWN_SERVER_ERROR
        || is_resent_enough(cell, error)
}

/// Whether a batch was refused as damaged so often that the damage is not of the way.
pub fn is_resent_enough(cell: &MirrorCell, error: ErrorCode) -> bool {
    remedy(error) == Remedy::Resend && cell.damaged_sends.get() >= limits::DAMAGED_SENDS_MAX
}

/// Whether a batch that was refused so often with UNKNOWN_SERVER_ERROR is the cause itself. One that nobody can read is believed
/// to be it sooner, but not at once: a broker in trouble says the same.
pub fn is_unknown_enough(cell: &MirrorCell, refusals: u32) -> bool {
    let damage = || damage(cell, ErrorCode::UNKNOWN_SERVER_ERROR);
    refusals >= limits::UNKNOWN_REFUSALS_MAX
        || refusals >= limits::UNKNOWN_REFUSALS_OF_DAMAGE_MAX && damage().is_some()
}

/// Whether a batch was refused for what is in it; what that is is added to `error` where it can be told.
pub fn blame(cell: &MirrorCell, refused: ErrorCode, error: &mut Error) -> bool {
    let damage = damage(cell, refused);
    if let Some(damage) = damage {
        error.message.push_str(&format!(": {damage}"));
    }
    blames_content(refused) || damage.is_some()
}

/// What is wrong with the records of the oldest queued batch, which was refused: a broker that cannot open them has no better
/// answer than UNKNOWN_SERVER_ERROR. None where they can be read, or are too many to look.
fn damage(cell: &MirrorCell, refused: ErrorCode) -> Option<RecordsError> {
    if refused != ErrorCode::UNKNOWN_SERVER_ERROR {
        return None;
    }
    let mirror = cell.mirror.borrow();
    let batch = &mirror.as_ref()?.front_of_queue()?.batch;
    let read = OpenBatch::open(batch, limits::RECODE_BYTES_MAX)
        .and_then(|opened| opened.records().try_for_each(|record| record.map(drop)));
    read.err().filter(|error| !matches!(error, RecordsError::Codec(CodecError::TooLarge { .. })))
}

/// Whether a batch may have been appended all the same (`DelayedProduce`; our own NETWORK_EXCEPTION for a lost answer; an
/// error that says nothing).
pub fn leaves_doubt(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NETWORK_EXCEPTION
            | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
            | ErrorCode::REQUEST_TIMED_OUT
            | ErrorCode::UNKNOWN_SERVER_ERROR
    )
}

/// Whether the metadata that sent us there is out of date.
pub fn is_leadership(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NOT_LEADER_OR_FOLLOWER
            | ErrorCode::LEADER_NOT_AVAILABLE
            | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            | ErrorCode::UNKNOWN_TOPIC_ID
            | ErrorCode::FENCED_LEADER_EPOCH
            | ErrorCode::UNKNOWN_LEADER_EPOCH
            | ErrorCode::KAFKA_STORAGE_ERROR
            | ErrorCode::NETWORK_EXCEPTION
    )
}

/// The group does not count this process as the member that it was.
pub const NOT_A_MEMBER: Code = Code(78);

/// Nothing can be committed until the control thread knows what we are to the group.
pub fn not_a_member(share: &Share, why: &str) -> Error {
    let message = format!("nothing can be committed to group {} now: {why}", share.group);
    Error::new(NOT_A_MEMBER, Side::Source, Action::Retry, message)
        .cluster(&share.link.config.from.name)
}

/// A request of a former life may still come.
pub const LATE_REQUESTS: Code = Code(80);

/// Nothing may be sent before that is over.
pub fn late_requests() -> Error {
    let message = "a request of the process before this one may still reach the target: it waits until none can".to_owned();
    Error::new(LATE_REQUESTS, Side::Target, Action::Retry, message)
}

/// A source connection waits for memory.
pub const NO_ROOM: Code = Code(89);

/// Its lane has none for a batch of so many bytes.
pub fn no_room(share: &Share, way: Way, bytes: usize) -> Error {
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    let message = format!(
        "a batch of {} MiB waits for memory, and the connection that it comes over with it: its lane has no room for it, and the \
         one place beyond `engine.memory` is taken",
        mib(bytes)
    );
    let fix = format!(
        "see to the partitions that stand with other troubles; an engine.memory of {} MiB for each lane has room for two such batches",
        mib(bytes.saturating_mul(5))
    );
    Error::new(NO_ROOM, Side::Local, Action::Retry, message)
        .cluster(&share.link.config.from.name)
        .broker(way.broker.to_string())
        .fix(fix)
}

/// The share stops: no error, but what ends a connection's loop.
pub fn stopped() -> Error {
    Error::new(Code(60), Side::Local, Action::Stop, "stopped")
}

/// A request without an answer that can be used.
pub fn call(side: Side, api: &str, error: &CallError) -> Error {
    match error {
        CallError::Closed(error) => (**error).clone(),
        error => Error::new(Code(60), side, Action::Reconnect, format!("{api}: {error}")),
    }
}

/// The same of a broker that is connected to: it is named.
pub fn call_to(connection: &Connection, side: Side, api: &str, error: &CallError) -> Error {
    let error = call(side, api, error);
    if error.place.broker.is_some() {
        return error;
    }
    error.broker(connection.address().to_string())
}

/// Why a connection that was closed with nothing on its way is to be dialled anew after a pause: it had only begun. None if
/// it had worked for a while, for a broker closes what is idle.
pub fn closed_early(share: &Share, began: Instant, closed: &Error) -> Option<Error> {
    (share.env.now() - began <= limits::RECONNECT_BACKOFF.1).then(|| closed.clone())
}

/// A broker without an API that the data path needs.
pub fn unsupported(side: Side, api: &str) -> Error {
    let message = format!("the broker offers no version of {api} that Strait speaks");
    Error::new(Code(60), side, Action::Retry, message)
        .fix("Kafka 3.1 or later is needed on both sides (topic ids)")
}

/// What no broker can mean.
pub fn lie(share: &Share, side: Side, way: Way, message: String) -> Error {
    let cluster = if side == Side::Source { &share.link.source } else { &share.link.target };
    let map = cluster.map();
    let broker = match map.brokers.get(&way.broker) {
        Some(known) => format!("{} ({})", way.broker, known.address),
        None => way.broker.to_string(),
    };
    let error = Error::new(Code(26), side, Action::Retry, message);
    error.cluster(cluster.config().name.clone()).broker(broker)
}

/// A broker that has another address by now.
pub fn elsewhere(cluster: &ClusterHandle, connection: &Connection) -> Error {
    cluster.refresh();
    connection.error(Code(27), "this is another broker's address by now")
}

/// A broker's error code in an answer.
pub fn answered(side: Side, api: &str, error: ErrorCode, detail: &str) -> Error {
    let space = if detail.is_empty() { "" } else { ": " };
    let message = format!("{api} answered {}{space}{detail}", error.name());
    Error::new(Code(69), side, Action::Retry, message)
}

/// An error that parks a mirror.
pub fn park(code: Code, side: Side, cell: &MirrorCell, offset: i64, message: String) -> Error {
    let id = &cell.spec.id;
    Error::new(code, side, Action::Park, message).mirror(&*id.topic, id.partition, Some(offset))
}

/// The command that names the position of a mirror anew.
pub fn reset_fix(link: &str, cell: &MirrorCell, to: &str) -> String {
    let id = &cell.spec.id;
    format!(
        "to go on from a position of your choice: stop Strait, `strait reset {link} --topic {} --partition {} --to {to}`, \
         start Strait",
        id.topic, id.partition
    )
}

/// The error at the place of a mirror.
pub fn at(cell: &MirrorCell, error: Error) -> Error {
    let id = &cell.spec.id;
    if error.place.mirror.is_some() { error } else { error.mirror(&*id.topic, id.partition, None) }
}

/// A missing right on a mirror's topic, with the command that grants it.
pub fn not_authorized(share: &Share, need: Need, cell: &MirrorCell) -> Error {
    let config = &share.link.config;
    let (cluster, topic) = match need.side() {
        Side::Target => (&config.to, &cell.spec.target_topic),
        Side::Local | Side::Source => (&config.from, &cell.spec.id.topic),
    };
    let message = format!("TOPIC_AUTHORIZATION_FAILED for topic {topic}");
    Error::new(Code(30), need.side(), Action::Retry, message)
        .cluster(&cluster.name)
        .mirror(&*cell.spec.id.topic, cell.spec.id.partition, None)
        .fix(need.grant(config, topic))
}

/// A missing right on the source group, with the command that grants it.
pub fn group_not_authorized(share: &Share) -> Error {
    let config = &share.link.config;
    let message = format!("GROUP_AUTHORIZATION_FAILED for group {}", share.group);
    Error::new(Code(30), Side::Source, Action::Retry, message)
        .cluster(&config.from.name)
        .fix(Need::CommitPosition.grant(config, ""))
}
