//! Where rules are asked: a topic that is made for it and removed whatever happens, connections to its leaders, and the
//! requests that checks share.

use std::time::Duration;

use bytes::Bytes;

use super::super::super::bench::topic as of_bench;
use super::craft::Craft;
use super::rule::{Outcome, Rule, Why, found};
use crate::cluster::admin::{self, Connections};
use crate::cluster::{ClusterHandle, Topic};
use crate::connection::Connection;
use crate::env::Env;
use crate::error::{Action, Error};
use crate::limits::REQUEST_TIMEOUT;
use crate::link::codes;
use crate::link::selection::CONFORMANCE_PREFIX;
use crate::wire::batch::{BatchHeader, Batches, HEADER_BYTES};
use crate::wire::common::{Isolation, TopicPartitions, TopicRef};
use crate::wire::create_topics::NewTopic;
use crate::wire::error_code::ErrorCode;
use crate::wire::fetch::{FetchPartition, FetchRequest, FetchTopic, FetchedPartition};
use crate::wire::list_offsets::{
    CONSUMER, LATEST, ListOffsetsPartition, ListOffsetsRequest, ListedOffset,
};
use crate::wire::produce::{ProducePartition, ProduceRequest, ProduceTopic, ProducedPartition};

/// Checks that need a log of their own take one each. Too few would show at once: the last rules would not hold.
pub(super) const PARTITIONS: i32 = 48;
/// `max.message.bytes` of the topic: small, so that a batch that is too large is cheap.
pub(super) const MESSAGE_BYTES_MAX: usize = 100_000;
/// Should a topic stay, its records do not.
const RETENTION_MS: &str = "3600000";
/// By then partitions have leaders, and groups and transactions their coordinators.
const READY: Duration = Duration::from_secs(40);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// One check.
const CHECK: Duration = Duration::from_secs(60);
/// Removing is tried so often.
const TRIES: u32 = 3;

/// The cluster under the rules.
pub(super) struct Bench<'c> {
    pub(super) env: &'c Env,
    pub(super) cluster: &'c ClusterHandle,
    connections: Connections,
    /// The topic; also the name of the group and of the transactional id.
    pub(super) topic: String,
    /// All that was asked for.
    asked: Vec<String>,
    taken: i32,
    ids: i64,
}

/// A partition, and the connection to its leader.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) topic: TopicRef,
    pub(super) partition: i32,
    pub(super) leader_epoch: i32,
    pub(super) connection: Connection,
}

impl<'c> Bench<'c> {
    pub(super) fn new(env: &'c Env, cluster: &'c ClusterHandle) -> Self {
        let topic = format!("{CONFORMANCE_PREFIX}{:016x}", env.random_u64());
        let ids = (1 << 62) | (env.random_u64() >> 3).cast_signed();
        let connections = Connections::new(cluster.clone());
        Self { env, cluster, connections, topic, asked: Vec::new(), taken: 0, ids }
    }

    /// Makes the topic.
    pub(super) async fn make(&mut self) -> Result<(), Error> {
        let limit = MESSAGE_BYTES_MAX.to_string();
        self.make_topic("", PARTITIONS, &[("max.message.bytes", &limit)]).await
    }

    /// Makes a topic whose name goes on so, and waits until every partition's leader answers.
    pub(super) async fn make_topic(
        &mut self,
        suffix: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<(), Error> {
        let name = format!("{}{suffix}", self.topic);
        let all = configs.iter().chain(&[("retention.ms", RETENTION_MS)]);
        let configs = all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let new = NewTopic { name: name.clone(), partitions, replication_factor: -1, configs };
        let connection = self.cluster.connect_any(self.env).await?;
        self.asked.push(name.clone());
        let made = admin::create_topics(&connection, vec![new], false).await?.into_iter().next();
        let code = made.as_ref().map_or(ErrorCode::UNKNOWN_SERVER_ERROR, |made| made.error);
        if code.is_error() {
            let detail = made.and_then(|made| made.error_message);
            return Err(of_bench::refused(
                self.cluster,
                "Create",
                &name,
                code,
                detail.as_deref(),
                CONFORMANCE_PREFIX,
            ));
        }
        self.wait_for(&name, partitions).await
    }

    async fn wait_for(&self, topic: &str, partitions: i32) -> Result<(), Error> {
        let started = self.env.now();
        loop {
            let wanted = (0..partitions).map(|partition| (topic.to_owned(), partition));
            let isolation = Isolation::ReadUncommitted;
            let listed = admin::list_offsets_by_leader(
                &self.connections,
                self.env,
                isolation,
                LATEST,
                wanted,
            );
            let listed = listed.await.offsets;
            if listed.values().all(|listed| !listed.error.is_error()) {
                return Ok(());
            }
            if self.env.now() - started > READY {
                let what = format!("topic {topic} has no leaders after {} s", READY.as_secs());
                return Err(self.trouble(what));
            }
            self.cluster.refresh();
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) fn trouble(&self, what: impl Into<String>) -> Error {
        let error = Error::new(of_bench::TROUBLE, self.cluster.side(), Action::Stop, what);
        error.cluster(self.cluster.config().name.clone())
    }

    /// Asks one rule.
    pub(super) async fn ask(&mut self, rule: &Rule) -> Outcome {
        let late = || Why::Differs(format!("no end after {} s", CHECK.as_secs()));
        tokio::time::timeout(CHECK, (rule.check)(self)).await.unwrap_or_else(|_| Err(late()))
    }

    /// A partition of the topic that no other check has.
    pub(super) async fn place(&mut self) -> Result<Place, Why> {
        let partition = self.taken;
        self.taken += 1;
        self.place_in("", partition).await
    }

    /// A partition of a topic that was made.
    pub(super) async fn place_in(&self, suffix: &str, partition: i32) -> Result<Place, Why> {
        let name = format!("{}{suffix}", self.topic);
        let map = self.cluster.map();
        let Topic { id, .. } = found("the topic", map.topics.get(&name))?;
        let known = found("the partition", map.partition(&name, partition))?;
        let connection = self.connections.to(self.env, known.leader).await?;
        let topic = TopicRef::new(name, *id);
        Ok(Place { topic, partition, leader_epoch: known.leader_epoch, connection })
    }

    /// Another connection to the same leader.
    pub(super) async fn another(&self, place: &Place) -> Result<Connection, Why> {
        let map = self.cluster.map();
        let known = map.partition(&place.topic.name, place.partition);
        let leader = found("the partition", known)?.leader;
        Ok(self.cluster.connect(self.env, leader).await?)
    }

    /// A producer id as Strait derives them, and that nobody has.
    pub(super) fn id(&mut self) -> i64 {
        self.ids += 1;
        self.ids
    }

    pub(super) fn small(&self, count: usize) -> Craft {
        Craft::small(count, self.env.wall_clock_ms())
    }

    /// Tries again while `ask` says that it is too early.
    pub(super) async fn settled<T>(
        &self,
        what: &str,
        mut ask: impl AsyncFnMut() -> Result<Option<T>, Error>,
    ) -> Result<T, Why> {
        let started = self.env.now();
        loop {
            let answer = ask().await;
            let last = match answer {
                Ok(Some(settled)) => return Ok(settled),
                Ok(None) => "not yet".to_owned(),
                Err(error) if error.code.0 == 15 => error.to_string(),
                Err(error) => return Err(error.into()),
            };
            if self.env.now() - started > READY {
                return Err(Why::Differs(format!("{what}: {last} for {} s", READY.as_secs())));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Removes all that was asked for; what is left, with the command that removes it.
    pub(super) async fn remove(&self) -> Vec<Error> {
        let mut left = Vec::new();
        for topic in &self.asked {
            let mut tries = 1;
            while let Err(error) = self.remove_topic(topic).await {
                if tries == TRIES || error.code == codes::NOT_ALLOWED {
                    left.push(error.fix(of_bench::command(self.cluster.config(), topic)));
                    break;
                }
                tries += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        left
    }

    async fn remove_topic(&self, topic: &str) -> Result<(), Error> {
        let connection = self.cluster.connect_any(self.env).await?;
        let deleted = admin::delete_topics(&connection, vec![topic.to_owned()]).await?;
        let code = deleted.first().map_or(ErrorCode::UNKNOWN_SERVER_ERROR, |deleted| deleted.error);
        match code {
            // It was refused when it was to be made.
            ErrorCode::NONE | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => Ok(()),
            code => {
                let detail = deleted.first().and_then(|deleted| deleted.error_message.as_deref());
                let cluster = self.cluster;
                Err(of_bench::refused(cluster, "Delete", topic, code, detail, CONFORMANCE_PREFIX))
            }
        }
    }

    /// What would be left by an end at once.
    pub(super) fn left(&self) -> Vec<Error> {
        let left = self.asked.iter().map(|topic| {
            let error = self.trouble(format!("topic {topic} was not removed"));
            error.fix(of_bench::command(self.cluster.config(), topic))
        });
        left.collect()
    }
}

impl Place {
    /// Writes one batch, or whatever the bytes are; at least a header.
    pub(super) async fn produce(&self, batch: Bytes) -> Result<ProducedPartition, Why> {
        let mut produced = self.produce_all(&[(self, batch)]).await?;
        found("the partition", produced.pop())
    }

    /// Writes to several partitions of one leader in one request; the answers in the broker's order.
    pub(super) async fn produce_all(
        &self,
        parts: &[(&Place, Bytes)],
    ) -> Result<Vec<ProducedPartition>, Why> {
        let parts = parts.iter().map(|(place, batch)| place.part(batch.clone()));
        let topics = parts.collect::<Result<Vec<_>, _>>()?;
        let request = ProduceRequest {
            transactional_id: None,
            acks: -1,
            timeout_ms: 15_000,
            topics: &topics,
        };
        Ok(self.connection.ask(&request).await?.partitions)
    }

    /// The batch as a request has it.
    pub(super) fn part(&self, batch: Bytes) -> Result<ProduceTopic, Why> {
        let head = found("a header", batch.first_chunk::<HEADER_BYTES>())?;
        let payload = batch.slice(HEADER_BYTES..);
        let partition = ProducePartition { index: self.partition, head: *head, payload };
        Ok(ProduceTopic { topic: self.topic.clone(), partitions: vec![partition] })
    }

    /// Writes all of them before the first answer is read; the answers in order.
    pub(super) async fn pipeline(
        &self,
        batches: Vec<Bytes>,
    ) -> Result<Vec<ProducedPartition>, Why> {
        use crate::wire::Request;
        let version = self.connection.require::<ProduceRequest<'_>>()?;
        let wire = |error: &dyn std::fmt::Display| Why::Differs(error.to_string());
        let mut pending = Vec::with_capacity(batches.len());
        for batch in batches {
            let topics = [self.part(batch)?];
            let request = ProduceRequest {
                transactional_id: None,
                acks: -1,
                timeout_ms: 15_000,
                topics: &topics,
            };
            let pieces = request.pieces(version).map_err(|error| wire(&error))?;
            self.connection.ready().await.map_err(|error| wire(&error))?;
            let api = ProduceRequest::API;
            let sent = self.connection.send(api, version, pieces, REQUEST_TIMEOUT);
            pending.push(sent.map_err(|error| wire(&error))?);
        }
        let mut produced = Vec::with_capacity(pending.len());
        for answer in pending {
            let body = answer.await.map_err(|error| wire(&error))?;
            let answer = ProduceRequest::decode(version, &body).map_err(|error| wire(&error))?;
            produced.push(found("the partition", answer.partitions.into_iter().next())?);
        }
        Ok(produced)
    }

    /// A Fetch of this partition at an offset, without a session.
    pub(super) fn fetch_request(&self, offset: i64) -> FetchRequest {
        let partition = FetchPartition {
            index: self.partition,
            current_leader_epoch: -1,
            fetch_offset: offset,
            last_fetched_epoch: -1,
            max_bytes: 1 << 20,
        };
        FetchRequest {
            max_wait_ms: 100,
            min_bytes: 1,
            max_bytes: 8 << 20,
            isolation: Isolation::ReadUncommitted,
            session_id: 0,
            session_epoch: -1,
            topics: vec![FetchTopic { topic: self.topic.clone(), partitions: vec![partition] }],
            forgotten: Vec::new(),
            rack: String::new(),
        }
    }

    /// The same with a change, and its answer.
    pub(super) async fn fetch_with(
        &self,
        offset: i64,
        change: impl FnOnce(&mut FetchRequest, &mut FetchPartition),
    ) -> Result<FetchedPartition, Why> {
        let mut request = self.fetch_request(offset);
        let first = request.topics.first().and_then(|topic| topic.partitions.first().copied());
        if let Some(mut partition) = first {
            change(&mut request, &mut partition);
            request.topics.iter_mut().for_each(|topic| topic.partitions = vec![partition]);
        }
        let answer = self.connection.ask(&request).await?;
        match answer.partitions.into_iter().next() {
            Some(partition) => Ok(partition),
            None => Err(Why::Differs(format!("Fetch: {} and no partition", answer.error.name()))),
        }
    }

    pub(super) async fn fetch(&self, offset: i64) -> Result<FetchedPartition, Why> {
        self.fetch_with(offset, |_, _| ()).await
    }

    /// The whole batches from an offset on.
    pub(super) async fn batches(&self, offset: i64) -> Result<Vec<(BatchHeader, Bytes)>, Why> {
        batches(&self.fetch(offset).await?)
    }

    /// An offset by time, or one of the ends.
    pub(super) async fn list(&self, replica_id: i32, timestamp: i64) -> Result<ListedOffset, Why> {
        let index = self.partition;
        let query = ListOffsetsPartition { index, current_leader_epoch: -1, timestamp };
        let topics = vec![TopicPartitions::new(&*self.topic.name, vec![query])];
        let isolation = Isolation::ReadUncommitted;
        let request = ListOffsetsRequest { replica_id, isolation, topics, timeout_ms: 15_000 };
        let answer = self.connection.ask(&request).await?;
        found("the partition", TopicPartitions::flat(&answer.topics).next().map(|(_, at)| *at))
    }

    /// The log's end.
    pub(super) async fn end(&self) -> Result<i64, Why> {
        Ok(self.list(CONSUMER, LATEST).await?.offset)
    }

    /// For requests that name partitions by topic.
    pub(super) fn named<P>(&self, partition: P) -> Vec<TopicPartitions<P>> {
        vec![TopicPartitions::new(&*self.topic.name, vec![partition])]
    }
}

/// The whole batches of an answer.
pub(super) fn batches(fetched: &FetchedPartition) -> Result<Vec<(BatchHeader, Bytes)>, Why> {
    super::rule::expect_error("Fetch", fetched.error, ErrorCode::NONE)?;
    let walked = Batches::new(fetched.records.clone()).collect::<Result<Vec<_>, _>>();
    walked.map_err(|error| Why::Differs(format!("a batch that cannot be read: {error}")))
}
