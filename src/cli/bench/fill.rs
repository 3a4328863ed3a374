//! Writes a measurement's topic on the source: plain batches, all in-sync replicas, as fast as the leaders take them. Says
//! nothing of the link's speed.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::records::Made;
use super::topic;
use crate::cluster::ClusterHandle;
use crate::connection::Pending;
use crate::env::Env;
use crate::error::Error;
use crate::limits;
use crate::link::selection::BENCH_PREFIX;
use crate::wire::batch::HEADER_BYTES;
use crate::wire::common::TopicRef;
use crate::wire::error_code::ErrorCode;
use crate::wire::produce::{ProducePartition, ProduceRequest, ProduceTopic};
use crate::wire::{ApiKey, Request};

/// Requests on their way to one leader: its disk is busy with one while the others come.
const IN_FLIGHT: usize = 8;
/// A leader that is not ready yet, or changes, is asked again.
const PAUSE: Duration = Duration::from_millis(100);
const REFUSALS_MAX: u32 = 100;

/// When there is enough.
#[derive(Clone, Copy, Debug)]
pub(super) struct Enough {
    pub(super) bytes: u64,
    pub(super) after: Duration,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Filled {
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) took: Duration,
}

struct Progress {
    until: Instant,
    bytes_max: u64,
    /// Written, or on its way.
    sent_bytes: Cell<u64>,
    records: Cell<u64>,
    bytes: Cell<u64>,
}

impl Progress {
    fn is_over(&self, now: Instant) -> bool {
        now >= self.until || self.sent_bytes.get() >= self.bytes_max
    }
}

struct Sent {
    answer: Pending,
    version: i16,
    batches: BTreeMap<i32, (u64, u64)>,
}

pub(super) async fn fill(
    env: &Env,
    source: &ClusterHandle,
    topic: &str,
    batches: &[Made],
    enough: Enough,
) -> Result<Filled, Error> {
    let map = source.map();
    let mut by_leader: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let known = map.topics.get(topic);
    for (index, partition) in (0..).zip(known.into_iter().flat_map(|topic| &topic.partitions)) {
        by_leader.entry(partition.leader).or_default().push(index);
    }
    let of = TopicRef::new(topic, known.map(|topic| topic.id).unwrap_or_default());
    let began = env.now();
    let progress = Progress {
        until: began + enough.after,
        bytes_max: enough.bytes,
        sent_bytes: Cell::new(0),
        records: Cell::new(0),
        bytes: Cell::new(0),
    };
    let leaders = by_leader.iter().map(|(leader, partitions)| {
        write(env, source, (*leader, partitions), &of, batches, &progress)
    });
    try_join_all(leaders).await?;
    Ok(Filled {
        records: progress.records.get(),
        bytes: progress.bytes.get(),
        took: env.now() - began,
    })
}

/// Writes to one leader until there is enough.
async fn write(
    env: &Env,
    source: &ClusterHandle,
    (leader, partitions): (i32, &[i32]),
    topic: &TopicRef,
    batches: &[Made],
    progress: &Progress,
) -> Result<(), Error> {
    let connection = source.connect(env, leader).await?;
    let version = connection.require::<ProduceRequest<'_>>()?;
    let mut turns = partitions.iter().copied().cycle();
    let mut made = batches.iter().cycle();
    let mut in_flight = VecDeque::new();
    let mut refusals = 0;
    loop {
        while in_flight.len() < IN_FLIGHT && !progress.is_over(env.now()) {
            let (mut bytes, mut asked, mut of_partitions) = (0, BTreeMap::new(), Vec::new());
            while bytes < limits::PRODUCE_BYTES as u64 && asked.len() < partitions.len() {
                let (Some(index), Some(made)) = (turns.next(), made.next()) else { break };
                let Some(head) = made.batch.first_chunk::<HEADER_BYTES>() else { break };
                let payload = made.batch.slice(HEADER_BYTES..);
                of_partitions.push(ProducePartition { index, head: *head, payload });
                asked.insert(index, (made.records, made.batch.len() as u64));
                bytes += made.batch.len() as u64;
            }
            let topics = [ProduceTopic { topic: topic.clone(), partitions: of_partitions }];
            let timeout_ms = limits::ACK_TIMEOUT.as_millis() as i32;
            let request =
                ProduceRequest { transactional_id: None, acks: -1, timeout_ms, topics: &topics };
            let body = request.pieces(version).map_err(crate::connection::CallError::Wire);
            let body = body.map_err(|error| connection.error_of(&error))?;
            connection.ready().await.map_err(|error| connection.error_of(&error))?;
            let deadline = limits::ACK_TIMEOUT + limits::REQUEST_TIMEOUT;
            let answer = connection.send(ApiKey::Produce, version, body, deadline);
            let answer = answer.map_err(|error| connection.error_of(&error))?;
            progress.sent_bytes.set(progress.sent_bytes.get() + bytes);
            in_flight.push_back(Sent { answer, version, batches: asked });
        }
        let Some(sent) = in_flight.pop_front() else { return Ok(()) };
        let body = sent.answer.await.map_err(|error| connection.error_of(&error))?;
        let answer = ProduceRequest::decode(sent.version, &body);
        let answer = answer.map_err(|error| connection.error(topic::TROUBLE, error.to_string()))?;
        let mut refused = false;
        for partition in &answer.partitions {
            let Some((records, bytes)) = sent.batches.get(&partition.index).copied() else {
                continue;
            };
            match partition.error {
                ErrorCode::NONE => {
                    progress.records.set(progress.records.get() + records);
                    progress.bytes.set(progress.bytes.get() + bytes);
                }
                error if error.is_retriable() && refusals < REFUSALS_MAX => {
                    progress.sent_bytes.set(progress.sent_bytes.get().saturating_sub(bytes));
                    refused = true;
                }
                error => {
                    let detail = partition.error_message.as_deref();
                    return Err(topic::refused(
                        source,
                        "Write",
                        &topic.name,
                        error,
                        detail,
                        BENCH_PREFIX,
                    ));
                }
            }
        }
        if refused {
            refusals += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }
}
