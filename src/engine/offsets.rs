//! ListOffsets for many partitions of one leader at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cell::MirrorCell;
use super::recovery::QUESTION_DEADLINE;
use super::trouble;
use crate::connection::Connection;
use crate::error::{Error, Side};
use crate::wire::common::{Isolation, TopicPartitions};
use crate::wire::error_code::ErrorCode;
use crate::wire::list_offsets::{
    CONSUMER, LOG_END_READER, ListOffsetsPartition, ListOffsetsRequest,
};
pub use crate::wire::list_offsets::{EARLIEST, LATEST};

/// Who asks for the end: it decides which end is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The high watermark.
    Consumer,
    /// The last stable offset.
    CommittedConsumer,
    /// The log end, from the leader only: the debugging replica id of Kafka (`ListOffsetsRequest.DEBUGGING_REPLICA_ID`).
    LogEnd,
}

/// One question.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// [`LATEST`], [`EARLIEST`] or milliseconds since 1970.
    pub timestamp: i64,
}

impl Ask {
    /// Of the source partition of a mirror.
    pub fn source(cell: &MirrorCell, timestamp: i64) -> Self {
        let id = &cell.spec.id;
        Self { topic: id.topic.clone(), partition: id.partition, timestamp }
    }

    /// Of the target partition of a mirror.
    pub fn target(cell: &MirrorCell, timestamp: i64) -> Self {
        let spec = &cell.spec;
        Self { topic: spec.target_topic.clone(), partition: spec.id.partition, timestamp }
    }
}

/// An offset and the epoch of the leader that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// -1 if no record is that young.
    pub offset: i64,
    /// -1 if unknown.
    pub leader_epoch: i32,
}

/// One answer.
pub type Answer = Result<Found, ErrorCode>;

/// Asks a leader; the answers are in the order of the questions.
pub async fn list(
    side: Side,
    connection: &Connection,
    asks: &[Ask],
    reader: Reader,
) -> Result<Vec<Answer>, Error> {
    let topics = TopicPartitions::gather(asks.iter().map(|ask| {
        let (index, timestamp) = (ask.partition, ask.timestamp);
        (&*ask.topic, ListOffsetsPartition { index, current_leader_epoch: -1, timestamp })
    }));
    let request = ListOffsetsRequest {
        replica_id: if reader == Reader::LogEnd { LOG_END_READER } else { CONSUMER },
        isolation: match reader {
            Reader::CommittedConsumer => Isolation::ReadCommitted,
            Reader::Consumer | Reader::LogEnd => Isolation::ReadUncommitted,
        },
        topics,
        timeout_ms: QUESTION_DEADLINE.as_millis() as i32,
    };
    let answer = connection
        .call(&request, QUESTION_DEADLINE)
        .await
        .map_err(|error| trouble::call(side, "ListOffsets", &error))?;
    let mut found = BTreeMap::new();
    for (topic, partition) in TopicPartitions::flat(&answer.topics) {
        let answer = match partition.error {
            ErrorCode::NONE => {
                Ok(Found { offset: partition.offset, leader_epoch: partition.leader_epoch })
            }
            error => Err(error),
        };
        found.insert((topic, partition.index), answer);
    }
    let answer = |ask: &Ask| {
        let answer = found.get(&(&*ask.topic, ask.partition)).copied();
        answer.unwrap_or(Err(ErrorCode::UNKNOWN_SERVER_ERROR))
    };
    Ok(asks.iter().map(answer).collect())
}
