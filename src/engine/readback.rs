//! Reads the target back: what of a mirror's lineage is really in the log, replicated (rules R2, R3). Needs no producer
//! state and does not mind foreign writers.

use std::ops::{ControlFlow, Range};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join;

use super::anchor::Numbering;
use super::cell::MirrorCell;
use super::doubles::{self, Double};
use super::identity::advance;
use super::offsets::{self, Ask, Reader};
use super::overlap::Print;
use super::recovery::{QUESTION_DEADLINE, all_failed, refresh_on};
use super::share::Share;
use super::trouble;
use super::walk::{Hole, Seen, Walk};
use crate::cluster::rights::Need;
use crate::connection::Connection;
use crate::env::Moment;
use crate::error::{Code, Error, Side};
use crate::limits;
use crate::wire::batch::{BatchError, BatchHeader, Batches};
use crate::wire::common::{Isolation, TopicRef};
use crate::wire::error_code::ErrorCode;
use crate::wire::fetch::{FetchPartition, FetchRequest, FetchTopic, FetchedPartition};

/// How long the high watermark may take to reach the log end before the mirror backs off.
const REPLICATION_WAIT: Duration = Duration::from_secs(1);
/// Between two looks at the high watermark.
const REPLICATION_POLL: Duration = Duration::from_millis(20);

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
    let list = |reader| offsets::list(Side::Target, connection, &asks, reader);
    // Asked for together: it never goes back, so that one which covers the end covered it whichever was looked at first.
    let (ends, mut marks) = try_join(list(Reader::LogEnd), list(Reader::Consumer)).await?;
    let deadline = share.env.now() + REPLICATION_WAIT;
    loop {
        let pairs = || ends.iter().zip(&marks);
        let behind =
            pairs().any(|pair| matches!(pair, (Ok(end), Ok(mark)) if mark.offset < end.offset));
        if !behind || share.env.now() >= deadline {
            return Ok(pairs().map(|(end, mark)| replicated_end(share, *end, *mark)).collect());
        }
        tokio::time::sleep(REPLICATION_POLL).await;
        marks = list(Reader::Consumer).await?;
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
    offset: i64,
    from: &[Numbering],
    target_end: i64,
) -> Result<Seen, Error> {
    let mut walk = Walk::new(from, cell.spec.target.compacted(), target_end);
    let mut deleted_below = None;
    let hole = |found| ControlFlow::Break(hole(cell, found));
    let step = |step: Step<'_>| match step {
        Step::Batch(header, batch) => {
            walk.take(header, batch).map_or_else(hole, |_| ControlFlow::Continue(()))
        }
        Step::DeletedBelow(log_start) => {
            walk.deleted();
            deleted_below = Some(log_start);
            ControlFlow::Continue(())
        }
    };
    if let Some(hole) = each_batch(share, connection, cell, offset..target_end, step).await? {
        return Err(hole);
    }
    doubles::note(share, cell, walk.doubles());
    let seen = walk.finish();
    match (&seen.last, deleted_below) {
        // What was in flight may have been appended and deleted since: nothing tells.
        (None, Some(log_start)) => {
            let message = format!(
                "records below target offset {log_start} were deleted before they could be read back"
            );
            Err(trouble::park(Code(68), Side::Target, cell, log_start, message))
        }
        _ => Ok(seen),
    }
}

/// The records of these numberings between two offsets, up to where they are to `end`, by producer id. None if that cannot
/// be told, or they are too many to keep.
pub(super) async fn tail(
    share: &Rc<Share>,
    connection: &Connection,
    cell: &Rc<MirrorCell>,
    from: &[Numbering],
    ends: &[(i64, i32)],
    offsets: Range<i64>,
) -> Result<Option<Vec<Print>>, Error> {
    let mut walk = Walk::new(from, false, offsets.end);
    let times_differ = cell.spec.target.log_append_time();
    let mut prints = Vec::new();
    let step = |step: Step<'_>| {
        let Step::Batch(header, batch) = step else { return ControlFlow::Break(()) };
        let Ok(news) = walk.take(header, batch) else { return ControlFlow::Break(()) };
        let news = usize::try_from(news).unwrap_or(0);
        if news == 0 {
            return ControlFlow::Continue(());
        }
        if header.is_log_append_time() && !times_differ {
            return ControlFlow::Break(());
        }
        let batch = Bytes::copy_from_slice(batch);
        let Ok(all) = Print::all(header.producer_id, &batch, times_differ) else {
            return ControlFlow::Break(());
        };
        prints.extend(all.into_iter().rev().take(news).rev());
        match prints.len() > limits::OVERLAP_RECORDS_MAX {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    if each_batch(share, connection, cell, offsets, step).await?.is_some() {
        return Ok(None);
    }
    let seen = walk.finish();
    let ends_so = |(id, end): &(i64, i32)| match seen.last_sequences.get(id) {
        Some(last) => advance(*last, 1) == *end,
        None => from.iter().any(|of| of.producer_id == *id && of.next_sequence == *end),
    };
    Ok(ends.iter().all(ends_so).then_some(prints))
}

/// What between two offsets was there before, unless another instance went on there; `from` are the numberings at the first
/// of them.
pub(super) async fn doubles(
    share: &Rc<Share>,
    connection: &Connection,
    cell: &Rc<MirrorCell>,
    from: &[Numbering],
    offsets: Range<i64>,
) -> Result<Option<Vec<Double>>, Error> {
    let mut walk = Walk::new(from, cell.spec.target.compacted(), offsets.end);
    let hole = |found| ControlFlow::Break(hole(cell, found));
    let step = |step: Step<'_>| match step {
        Step::Batch(header, batch) => {
            walk.take(header, batch).map_or_else(hole, |_| ControlFlow::Continue(()))
        }
        Step::DeletedBelow(_) => {
            walk.deleted();
            ControlFlow::Continue(())
        }
    };
    match each_batch(share, connection, cell, offsets, step).await? {
        Some(hole) => Err(hole),
        None if walk.is_overtaken() => Ok(None),
        None => Ok(Some(walk.doubles().to_vec())),
    }
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
    offsets: Range<i64>,
    is_ours: impl Fn(i64) -> bool,
) -> Result<bool, Error> {
    let step = |step: Step<'_>| match step {
        Step::Batch(header, _) if is_ours(header.producer_id) => ControlFlow::Break(()),
        Step::Batch(..) | Step::DeletedBelow(_) => ControlFlow::Continue(()),
    };
    Ok(each_batch(share, connection, cell, offsets, step).await?.is_some())
}

/// What a walk over a log comes by.
enum Step<'a> {
    /// A batch that begins in the stretch.
    Batch(&'a BatchHeader, &'a [u8]),
    /// The log starts only here.
    DeletedBelow(i64),
}

/// Gives each batch that begins between two offsets of the target's log, until `step` breaks off with what it found.
async fn each_batch<T>(
    share: &Rc<Share>,
    connection: &Connection,
    cell: &Rc<MirrorCell>,
    offsets: Range<i64>,
    mut step: impl FnMut(Step<'_>) -> ControlFlow<T>,
) -> Result<Option<T>, Error> {
    let Range { start: mut offset, end } = offsets;
    while offset < end {
        let before = offset;
        match fetch(share, connection, cell, offset).await? {
            Fetched::Records(records) => {
                for batch in Batches::new(records) {
                    let (header, batch) = batch.map_err(|error| unreadable(&error))?;
                    offset = offset.max(header.next_offset());
                    if header.base_offset >= before
                        && let ControlFlow::Break(found) = step(Step::Batch(&header, &batch))
                    {
                        return Ok(Some(found));
                    }
                }
            }
            Fetched::DeletedBelow(log_start) if log_start > offset => {
                offset = log_start;
                if let ControlFlow::Break(found) = step(Step::DeletedBelow(log_start)) {
                    return Ok(Some(found));
                }
            }
            Fetched::DeletedBelow(log_start) => {
                let message = format!(
                    "the target log was truncated: {offset} lies outside, it starts at {log_start}"
                );
                return Err(trouble::park(Code(68), Side::Target, cell, offset, message));
            }
        }
        if offset <= before {
            let detail = format!("no progress at offset {offset} of {end}");
            return Err(trouble::answered(Side::Target, "Fetch", ErrorCode::NONE, &detail));
        }
    }
    Ok(None)
}

fn unreadable(error: &BatchError) -> Error {
    trouble::answered(Side::Target, "Fetch", ErrorCode::CORRUPT_MESSAGE, &error.to_string())
}

enum Fetched {
    Records(Bytes),
    /// The log starts only here.
    DeletedBelow(i64),
}

/// What one Fetch without a session answers for a partition.
pub(super) async fn plain_fetch(
    connection: &Connection,
    side: Side,
    topic: TopicRef,
    partition: i32,
    offset: i64,
    isolation: Isolation,
) -> Result<FetchedPartition, Error> {
    let request = plain_request(topic, partition, offset, isolation);
    let answer = connection
        .call(&request, QUESTION_DEADLINE)
        .await
        .map_err(|error| trouble::call(side, "Fetch", &error))?;
    let partition = answer.partitions.into_iter().next();
    partition.ok_or_else(|| trouble::answered(side, "Fetch", answer.error, "an empty answer"))
}

fn plain_request(
    topic: TopicRef,
    partition: i32,
    offset: i64,
    isolation: Isolation,
) -> FetchRequest {
    let partition = FetchPartition {
        index: partition,
        current_leader_epoch: -1,
        fetch_offset: offset,
        last_fetched_epoch: -1,
        max_bytes: limits::FETCH_BYTES as i32,
    };
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 0,
        max_bytes: limits::FETCH_BYTES as i32,
        isolation,
        session_id: 0,
        session_epoch: -1,
        topics: vec![FetchTopic { topic, partitions: vec![partition] }],
        forgotten: Vec::new(),
        rack: String::new(),
    }
}

async fn fetch(
    share: &Rc<Share>,
    connection: &Connection,
    cell: &Rc<MirrorCell>,
    offset: i64,
) -> Result<Fetched, Error> {
    let spec = &cell.spec;
    let topic = TopicRef::new(spec.target_topic.clone(), spec.target_topic_id);
    let (partition, isolation) = (spec.id.partition, Isolation::ReadUncommitted);
    let partition =
        plain_fetch(connection, Side::Target, topic, partition, offset, isolation).await?;
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

/// Only the cleaner of a compacted topic may take batches away from between.
fn hole(cell: &MirrorCell, Hole { expected, sequence, offset }: Hole) -> Error {
    let message = format!(
        "the target appended sequence {sequence} at its offset {offset} where {expected} had to follow: records are \
         missing before it"
    );
    trouble::park(Code(64), Side::Target, cell, offset, message)
}
