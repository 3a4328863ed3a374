//! Reads the target back: what of a mirror's lineage is really in the log, replicated (rules R2, R3). Needs no producer
//! state and does not mind foreign writers.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::anchor::Numbering;
use super::cell::MirrorCell;
use super::identity::advance;
use super::landed::Landed;
use super::offsets::{self, Ask, Reader};
use super::recovery::{QUESTION_DEADLINE, all_failed, refresh_on};
use super::share::Share;
use super::trouble;
use crate::cluster::rights::Need;
use crate::connection::Connection;
use crate::env::Moment;
use crate::error::{Code, Error, Side};
use crate::limits;
use crate::wire::batch::{BatchError, BatchHeader, Batches};
use crate::wire::common::{Isolation, TopicRef};
use crate::wire::error_code::ErrorCode;
use crate::wire::fetch::{FetchPartition, FetchRequest, FetchTopic};

/// How long the high watermark may take to reach the log end before the mirror backs off.
const REPLICATION_WAIT: Duration = Duration::from_secs(1);
/// Between two looks at the high watermark.
const REPLICATION_POLL: Duration = Duration::from_millis(20);

/// What the target holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Sequence of the last record of each of our lineages at or above where we began to read, by producer id.
    pub last_sequences: BTreeMap<i64, i32>,
    /// The last batch of them all, and its producer id.
    pub last: Option<(i64, Bytes)>,
    /// Where on the target its batches are.
    pub landed: Landed,
    /// Producer ids whose last batch in the log had been there before: the leader may count on from that one.
    pub ends_behind: BTreeSet<i64>,
    /// The log end that was read to; everything below is replicated.
    pub target_end: i64,
}

impl Seen {
    /// Nothing of ours up to this log end.
    pub(super) fn nothing(target_end: i64) -> Self {
        Self {
            last_sequences: BTreeMap::new(),
            last: None,
            landed: Landed::default(),
            ends_behind: BTreeSet::new(),
            target_end,
        }
    }
}

/// Reads back the mirrors led by one target broker.
pub async fn read_back(
    share: &Rc<Share>,
    broker: i32,
    cells: &[Rc<MirrorCell>],
) -> Vec<(Rc<MirrorCell>, Result<Seen, Error>)> {
    let connection = match share.question(Side::Target, broker).await {
        Ok(connection) => connection,
        Err(error) => return all_failed(cells, &error),
    };
    let ends = match replicated_ends(share, &connection, cells).await {
        Ok(ends) => ends,
        Err(error) => return all_failed(cells, &error),
    };
    share.env.reached(Moment::LogEndKnown);
    let mut seen = Vec::with_capacity(cells.len());
    for (cell, end) in cells.iter().zip(ends) {
        let outcome = match end {
            Ok(end) => read_from_acked(share, &connection, cell, end).await,
            Err(error) => Err(error),
        };
        seen.push((cell.clone(), outcome));
    }
    share.env.reached(Moment::ReadBack);
    seen
}

/// The log end of each partition, once the high watermark covers it: what is below cannot be lost by a clean leader
/// change, and nothing above can appear that was there before (R2).
pub(super) async fn replicated_ends(
    share: &Rc<Share>,
    connection: &Connection,
    cells: &[Rc<MirrorCell>],
) -> Result<Vec<Result<i64, Error>>, Error> {
    let asks: Vec<_> = cells.iter().map(|cell| Ask::target(cell, offsets::LATEST)).collect();
    let ends = offsets::list(Side::Target, connection, &asks, Reader::LogEnd).await?;
    let deadline = share.env.now() + REPLICATION_WAIT;
    loop {
        let marks = offsets::list(Side::Target, connection, &asks, Reader::Consumer).await?;
        let pairs = || ends.iter().zip(&marks);
        let behind =
            pairs().any(|pair| matches!(pair, (Ok(end), Ok(mark)) if mark.offset < end.offset));
        if !behind || share.env.now() >= deadline {
            return Ok(pairs().map(|(end, mark)| replicated_end(share, *end, *mark)).collect());
        }
        tokio::time::sleep(REPLICATION_POLL).await;
    }
}

fn replicated_end(
    share: &Share,
    end: offsets::Answer,
    mark: offsets::Answer,
) -> Result<i64, Error> {
    let failed =
        |error, detail: &str| Err(trouble::answered(Side::Target, "ListOffsets", error, detail));
    match (end, mark) {
        (Ok(end), Ok(mark)) if mark.offset >= end.offset => Ok(end.offset),
        (Ok(end), Ok(mark)) => {
            let detail =
                format!("high watermark {} stays below log end {}", mark.offset, end.offset);
            failed(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND, &detail)
        }
        (Err(error), _) | (_, Err(error)) => {
            refresh_on(share, Side::Target, error);
            failed(error, "")
        }
    }
}

async fn read_from_acked(
    share: &Rc<Share>,
    connection: &Connection,
    cell: &Rc<MirrorCell>,
    target_end: i64,
) -> Result<Seen, Error> {
    let (offset, from) = {
        let mirror = cell.mirror.borrow();
        let Some(mirror) = &*mirror else { return Err(trouble::stopped()) };
        (mirror.target_next(), mirror.numberings().to_vec())
    };
    read_to(share, connection, cell, offset, &from, target_end).await
}

/// Walks the batches from `offset` to the log end and keeps the last of each numbering, at or ahead of the sequence that is
/// next there.
pub(super) async fn read_to(
    share: &Rc<Share>,
    connection: &Connection,
    cell: &Rc<MirrorCell>,
    mut offset: i64,
    from: &[Numbering],
    target_end: i64,
) -> Result<Seen, Error> {
    let mut found = Found { seen: Seen::nothing(target_end), deleted: false, repeats: 0 };
    let mut deleted_below = None;
    while offset < target_end {
        match read_once(share, connection, cell, offset, from, &mut found).await? {
            Read::Next(next) if next > offset => offset = next,
            Read::Next(_) => {
                let detail = format!("no progress at offset {offset} of {target_end}");
                return Err(trouble::answered(Side::Target, "Fetch", ErrorCode::NONE, &detail));
            }
            Read::DeletedBelow(log_start) if log_start > offset => {
                deleted_below = Some(log_start);
                found.deleted = true;
                offset = log_start;
            }
            Read::DeletedBelow(log_start) => {
                let message = format!(
                    "the target log was truncated: {offset} lies outside, it starts at {log_start}"
                );
                return Err(trouble::park(Code(68), Side::Target, cell, offset, message));
            }
        }
    }
    if found.repeats > 0 {
        let (topic, partition) = (&cell.spec.target_topic, cell.spec.id.partition);
        tracing::warn!(link = %share.link.config.name, %topic, partition, batches = found.repeats,
            "old batches were appended twice: the target had forgotten their numbers");
    }
    match (&found.seen.last, deleted_below) {
        // What was in flight may have been appended and deleted since: nothing tells.
        (None, Some(log_start)) => {
            let message = format!(
                "records below target offset {log_start} were deleted before they could be read back"
            );
            Err(trouble::park(Code(68), Side::Target, cell, log_start, message))
        }
        _ => Ok(found.seen),
    }
}

/// What was found so far.
struct Found {
    seen: Seen,
    /// Something below was deleted: what comes first need not follow.
    deleted: bool,
    /// Batches of ours whose every record was there before.
    repeats: u32,
}

/// Whether a batch of our own stands among the newest of a log, looked for in steps that grow tenfold: behind foreign
/// writers it may lie deeper than anybody would read (R8).
pub(super) async fn tail_holds(
    share: &Rc<Share>,
    connection: &Connection,
    cell: &Rc<MirrorCell>,
    log_start: i64,
    log_end: i64,
    mut is_ours: impl FnMut(i64) -> bool,
) -> Result<bool, Error> {
    for distance in limits::TAIL_LOOKS {
        let offset = log_start.max(log_end - distance);
        if offset >= log_end {
            return Ok(false);
        }
        if let Fetched::Records(records) = fetch(share, connection, cell, offset).await? {
            for batch in Batches::new(records) {
                let (header, _) = batch.map_err(|error| unreadable(&error))?;
                if is_ours(header.producer_id) {
                    return Ok(true);
                }
            }
        }
        if offset == log_start {
            break;
        }
    }
    Ok(false)
}

/// Whether a batch of such an id stands between two offsets of the log.
pub(super) async fn holds(
    share: &Rc<Share>,
    connection: &Connection,
    cell: &Rc<MirrorCell>,
    mut offset: i64,
    log_end: i64,
    is_ours: impl Fn(i64) -> bool,
) -> Result<bool, Error> {
    while offset < log_end {
        let before = offset;
        match fetch(share, connection, cell, offset).await? {
            Fetched::Records(records) => {
                for batch in Batches::new(records) {
                    let (header, _) = batch.map_err(|error| unreadable(&error))?;
                    if header.base_offset >= offset && is_ours(header.producer_id) {
                        return Ok(true);
                    }
                    offset = offset.max(header.next_offset());
                }
            }
            Fetched::DeletedBelow(log_start) => offset = log_start,
        }
        if offset <= before {
            let detail = format!("no progress at offset {offset} of {log_end}");
            return Err(trouble::answered(Side::Target, "Fetch", ErrorCode::NONE, &detail));
        }
    }
    Ok(false)
}

enum Read {
    /// Go on from here.
    Next(i64),
    /// The log starts only here.
    DeletedBelow(i64),
}

/// One step of the walk; gives the offset to go on from.
async fn read_once(
    share: &Rc<Share>,
    connection: &Connection,
    cell: &Rc<MirrorCell>,
    offset: i64,
    from: &[Numbering],
    found: &mut Found,
) -> Result<Read, Error> {
    let records = match fetch(share, connection, cell, offset).await? {
        Fetched::Records(records) => records,
        Fetched::DeletedBelow(log_start) => return Ok(Read::DeletedBelow(log_start)),
    };
    let mut next = offset;
    for batch in Batches::new(records) {
        let (header, batch) = batch.map_err(|error| unreadable(&error))?;
        next = next.max(header.next_offset());
        let producer_id = header.producer_id;
        let of = from.iter().find(|of| {
            of.producer_id == producer_id
                && of.producer_epoch == header.producer_epoch
                && header.base_sequence >= 0
                && header.base_offset >= offset
        });
        let Some(Numbering { next_sequence, .. }) = of.copied() else { continue };
        let seen = &mut found.seen;
        let first = header.base_sequence;
        let sequence = advance(first, header.last_offset_delta);
        let last = seen.last_sequences.get(&producer_id);
        let expected = last.map_or(next_sequence, |last| advance(*last, 1));
        let jumps = first != expected && !is_behind(first, expected);
        if jumps && !found.deleted && !cell.spec.target.compacted() {
            return Err(hole(cell, expected, &header));
        }
        // A request of a former life that came late, to a broker that held no state any more: it says nothing about where
        // the numbering ends.
        if is_behind(sequence, next_sequence) {
            seen.ends_behind.insert(producer_id);
            found.repeats += 1;
            continue;
        }
        seen.ends_behind.remove(&producer_id);
        seen.last_sequences.insert(producer_id, sequence);
        // A copy: a slice would keep the whole frame alive.
        seen.last = Some((producer_id, Bytes::copy_from_slice(&batch)));
        let records = header.last_offset_delta.saturating_add(1);
        seen.landed.note(producer_id, first, records, header.base_offset);
    }
    Ok(Read::Next(next))
}

fn unreadable(error: &BatchError) -> Error {
    trouble::answered(Side::Target, "Fetch", ErrorCode::CORRUPT_MESSAGE, &error.to_string())
}

enum Fetched {
    Records(Bytes),
    /// The log starts only here.
    DeletedBelow(i64),
}

/// One Fetch without a session.
async fn fetch(
    share: &Rc<Share>,
    connection: &Connection,
    cell: &Rc<MirrorCell>,
    offset: i64,
) -> Result<Fetched, Error> {
    let spec = &cell.spec;
    let request = FetchRequest {
        max_wait_ms: 0,
        min_bytes: 0,
        max_bytes: limits::FETCH_BYTES as i32,
        isolation: Isolation::ReadUncommitted,
        session_id: 0,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: TopicRef::new(spec.target_topic.clone(), spec.target_topic_id),
            partitions: vec![FetchPartition {
                index: spec.id.partition,
                current_leader_epoch: -1,
                fetch_offset: offset,
                last_fetched_epoch: -1,
                max_bytes: limits::FETCH_BYTES as i32,
            }],
        }],
        forgotten: Vec::new(),
        rack: String::new(),
    };
    let answer = connection
        .call(&request, QUESTION_DEADLINE)
        .await
        .map_err(|error| trouble::call(Side::Target, "Fetch", &error))?;
    let Some(partition) = answer.partitions.into_iter().next() else {
        return Err(trouble::answered(Side::Target, "Fetch", answer.error, "an empty answer"));
    };
    match partition.error {
        ErrorCode::NONE => Ok(Fetched::Records(partition.records)),
        ErrorCode::OFFSET_OUT_OF_RANGE => {
            let ask = [Ask::target(cell, offsets::EARLIEST)];
            let start = offsets::list(Side::Target, connection, &ask, Reader::Consumer).await?;
            let start = start.first().and_then(|start| start.ok()).map_or(-1, |start| start.offset);
            Ok(Fetched::DeletedBelow(start))
        }
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => {
            Err(trouble::not_authorized(share, Need::ReadTarget, cell))
        }
        error => {
            refresh_on(share, Side::Target, error);
            Err(trouble::answered(Side::Target, "Fetch", error, ""))
        }
    }
}

/// Our numbers jump: the target appended a batch behind one that it had refused, and that answer was lost (W3). Only the
/// cleaner of a compacted topic may take batches away from between.
fn hole(cell: &MirrorCell, expected: i32, header: &BatchHeader) -> Error {
    let message = format!(
        "the target appended sequence {} at its offset {} where {expected} had to follow: records are missing before it",
        header.base_sequence, header.base_offset
    );
    trouble::park(Code(64), Side::Target, cell, header.base_offset, message)
}

/// Whether `sequence` comes before `next`, in a numbering that wraps: the nearer way round counts.
fn is_behind(sequence: i32, next: i32) -> bool {
    let ahead = (i64::from(sequence) - i64::from(next)) & i64::from(i32::MAX);
    ahead > i64::from(i32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_behind_when_it_is_nearer_that_way_round() {
        assert!(is_behind(19, 24) && is_behind(23, 24) && !is_behind(24, 24) && !is_behind(30, 24));
        assert!(is_behind(i32::MAX, 0) && !is_behind(0, i32::MAX) && !is_behind(3, i32::MAX - 2));
    }
}
