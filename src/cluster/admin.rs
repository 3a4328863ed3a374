//! Administrative calls: one request each, an answer for each item, throttling obeyed. Never retries, never decides:
//! what an item's error means is the caller's.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ClusterHandle;
use crate::connection::Connection;
use crate::env::Env;
use crate::error::Error;
use crate::limits;
use crate::wire::ErrorCode;
use crate::wire::common::{Isolation, TopicPartitions};
use crate::wire::create_partitions::{CreatePartitionsRequest, GrownTopic};
use crate::wire::create_topics::{CreateTopicsRequest, CreatedTopic, NewTopic};
use crate::wire::delete_records::{DeleteRecordsRequest, DeletedRecords};
use crate::wire::delete_topics::{DeleteTopicsRequest, DeletedTopic};
use crate::wire::describe_cluster::{DescribeClusterRequest, DescribeClusterResponse};
use crate::wire::describe_configs::{ConfigsOf, DescribeConfigsRequest, DescribedConfigs};
use crate::wire::describe_producers::{DescribeProducersRequest, Producers};
use crate::wire::incremental_alter_configs::{
    AlteredConfigs, ConfigChanges, IncrementalAlterConfigsRequest,
};
use crate::wire::list_offsets::{CONSUMER, ListOffsetsPartition, ListOffsetsRequest, ListedOffset};
use crate::wire::offset_commit::{OffsetCommitRequest, OffsetToCommit};
use crate::wire::offset_fetch::{OffsetFetchRequest, OffsetFetchResponse};
use crate::wire::offset_for_leader_epoch::{
    EpochEndOffset, EpochQuery, OffsetForLeaderEpochRequest,
};

/// What a broker may take for its own work; below our own deadline, so that it is the broker who answers.
const BROKER_TIMEOUT_MS: i32 = 20_000;

/// Makes topics, in as many requests as a controller wants them in. Any broker takes it. An error is that of the first
/// request that failed: what those before it made shows in the metadata.
pub async fn create_topics(
    connection: &Connection,
    topics: Vec<NewTopic>,
    validate_only: bool,
) -> Result<Vec<CreatedTopic>, Error> {
    let records = |topic: &NewTopic| records_of(topic.partitions) + topic.configs.len();
    let mut made = Vec::new();
    for topics in runs(topics, records) {
        let request = CreateTopicsRequest { topics, timeout_ms: BROKER_TIMEOUT_MS, validate_only };
        let answer = connection.ask(&request).await?;
        pause(answer.throttle_time_ms).await;
        made.extend(answer.topics);
    }
    Ok(made)
}

/// Grows topics, each to the count beside it; otherwise like [`create_topics`].
pub async fn create_partitions(
    connection: &Connection,
    topics: Vec<(String, i32)>,
    validate_only: bool,
) -> Result<Vec<GrownTopic>, Error> {
    let mut grown = Vec::new();
    for topics in runs(topics, |(_, partitions)| records_of(*partitions)) {
        let request =
            CreatePartitionsRequest { topics, timeout_ms: BROKER_TIMEOUT_MS, validate_only };
        let answer = connection.ask(&request).await?;
        pause(answer.throttle_time_ms).await;
        grown.extend(answer.topics);
    }
    Ok(grown)
}

/// A topic's own record and one for each partition.
fn records_of(partitions: i32) -> usize {
    1 + usize::try_from(partitions).unwrap_or(1)
}

/// Runs of topics that one request may hold: a topic that is too large alone goes alone.
fn runs<T>(topics: Vec<T>, records: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut runs: Vec<Vec<T>> = Vec::new();
    let mut left = 0;
    for topic in topics {
        let needed = records(&topic);
        match runs.last_mut() {
            Some(run) if needed <= left => {
                left -= needed;
                run.push(topic);
            }
            _ => {
                left = limits::RECORDS_PER_ADMIN_REQUEST_MAX.saturating_sub(needed);
                runs.push(vec![topic]);
            }
        }
    }
    runs
}

/// Deletes topics. Any broker takes it.
pub async fn delete_topics(
    connection: &Connection,
    topics: Vec<String>,
) -> Result<Vec<DeletedTopic>, Error> {
    let request = DeleteTopicsRequest { topics, timeout_ms: BROKER_TIMEOUT_MS };
    let answer = connection.ask(&request).await?;
    pause(answer.throttle_time_ms).await;
    Ok(answer.topics)
}

/// What topics are set to. Any broker takes it; a broker's own settings only that broker.
pub async fn describe_configs(
    connection: &Connection,
    resources: Vec<ConfigsOf>,
) -> Result<Vec<DescribedConfigs>, Error> {
    let answer = connection.ask(&DescribeConfigsRequest { resources }).await?;
    pause(answer.throttle_time_ms).await;
    Ok(answer.resources)
}

/// Changes settings and leaves the others alone. Any broker takes it.
pub async fn incremental_alter_configs(
    connection: &Connection,
    resources: Vec<ConfigChanges>,
    validate_only: bool,
) -> Result<Vec<AlteredConfigs>, Error> {
    let request = IncrementalAlterConfigsRequest { resources, validate_only };
    let answer = connection.ask(&request).await?;
    pause(answer.throttle_time_ms).await;
    Ok(answer.resources)
}

/// The cluster's id and brokers.
pub async fn describe_cluster(connection: &Connection) -> Result<DescribeClusterResponse, Error> {
    let answer = connection.ask(&DescribeClusterRequest).await?;
    pause(answer.throttle_time_ms).await;
    Ok(answer)
}

/// Where a group stands; all that it has if no partitions are named. For its coordinator.
pub async fn offset_fetch(
    connection: &Connection,
    group: &str,
    topics: Option<Vec<TopicPartitions<i32>>>,
) -> Result<OffsetFetchResponse, Error> {
    let request = OffsetFetchRequest { group: group.to_owned(), topics, require_stable: true };
    let answer = connection.ask(&request).await?;
    pause(answer.throttle_time_ms).await;
    Ok(answer)
}

/// Sets where a group without members stands. For its coordinator.
pub async fn offset_commit(
    connection: &Connection,
    group: &str,
    topics: Vec<TopicPartitions<OffsetToCommit>>,
) -> Result<Vec<TopicPartitions<(i32, ErrorCode)>>, Error> {
    let answer = connection.ask(&OffsetCommitRequest::simple(group, topics)).await?;
    pause(answer.throttle_time_ms).await;
    Ok(answer.topics)
}

/// Moves the start of logs. For their leader.
pub async fn delete_records(
    connection: &Connection,
    topics: Vec<TopicPartitions<(i32, i64)>>,
) -> Result<Vec<TopicPartitions<DeletedRecords>>, Error> {
    let request = DeleteRecordsRequest { topics, timeout_ms: BROKER_TIMEOUT_MS };
    let answer = connection.ask(&request).await?;
    pause(answer.throttle_time_ms).await;
    Ok(answer.topics)
}

/// Where leader epochs ended. For the partitions' leader.
pub async fn offset_for_leader_epoch(
    connection: &Connection,
    topics: Vec<TopicPartitions<EpochQuery>>,
) -> Result<Vec<TopicPartitions<EpochEndOffset>>, Error> {
    let answer = connection.ask(&OffsetForLeaderEpochRequest { topics }).await?;
    pause(answer.throttle_time_ms).await;
    Ok(answer.topics)
}

/// What the partitions' leader remembers of producers. For that leader.
pub async fn describe_producers(
    connection: &Connection,
    topics: Vec<TopicPartitions<i32>>,
) -> Result<Vec<TopicPartitions<Producers>>, Error> {
    let answer = connection.ask(&DescribeProducersRequest { topics }).await?;
    pause(answer.throttle_time_ms).await;
    Ok(answer.topics)
}

/// Offsets by time, [`EARLIEST`](crate::wire::list_offsets::EARLIEST) or
/// [`LATEST`](crate::wire::list_offsets::LATEST), for partitions that this broker leads.
pub async fn list_offsets(
    connection: &Connection,
    isolation: Isolation,
    topics: Vec<TopicPartitions<ListOffsetsPartition>>,
) -> Result<Vec<TopicPartitions<ListedOffset>>, Error> {
    let timeout_ms = BROKER_TIMEOUT_MS;
    let request = ListOffsetsRequest { replica_id: CONSUMER, isolation, topics, timeout_ms };
    let answer = connection.ask(&request).await?;
    pause(answer.throttle_time_ms).await;
    Ok(answer.topics)
}

/// Offsets of partitions wherever they are led.
#[derive(Debug, Default)]
pub struct ListedByLeader {
    /// By topic and partition, in the order of both. LEADER_NOT_AVAILABLE where none is known, NETWORK_EXCEPTION where
    /// it could not be asked.
    pub offsets: BTreeMap<(String, i32), ListedOffset>,
    /// The brokers that could not be asked.
    pub errors: Vec<Error>,
}

/// The same, asking each partition's leader, all leaders at once.
pub async fn list_offsets_by_leader(
    connections: &Connections,
    env: &Env,
    isolation: Isolation,
    timestamp: i64,
    wanted: impl IntoIterator<Item = (String, i32)>,
) -> ListedByLeader {
    let map = connections.cluster.map();
    let mut listed = ListedByLeader::default();
    let mut by_leader: BTreeMap<i32, BTreeMap<String, Vec<ListOffsetsPartition>>> = BTreeMap::new();
    for (topic, index) in wanted {
        let known = map.topics.get(&topic).and_then(|topic| {
            usize::try_from(index).ok().and_then(|index| topic.partitions.get(index))
        });
        let missing = nowhere(index, ErrorCode::LEADER_NOT_AVAILABLE);
        listed.offsets.insert((topic.clone(), index), missing);
        let Some(partition) = known.filter(|partition| partition.leader >= 0) else { continue };
        let query =
            ListOffsetsPartition { index, current_leader_epoch: partition.leader_epoch, timestamp };
        by_leader.entry(partition.leader).or_default().entry(topic).or_default().push(query);
    }
    let asked = by_leader.into_iter().map(|(leader, topics)| async move {
        let topics: Vec<_> =
            topics.into_iter().map(|(topic, asked)| TopicPartitions::new(topic, asked)).collect();
        let answer = match connections.to(env, leader).await {
            Ok(connection) => list_offsets(&connection, isolation, topics.clone()).await,
            Err(error) => Err(error),
        };
        (topics, answer)
    });
    for (topics, answer) in futures_util::future::join_all(asked).await {
        match answer {
            Ok(found) => {
                let asked: BTreeSet<(&str, i32)> = TopicPartitions::flat(&topics)
                    .map(|(topic, asked)| (topic, asked.index))
                    .collect();
                for (topic, offset) in TopicPartitions::flat(&found) {
                    // What this broker was not asked is not taken from it.
                    if asked.contains(&(topic, offset.index)) {
                        listed.offsets.insert((topic.to_owned(), offset.index), *offset);
                    }
                }
            }
            Err(error) => {
                for (topic, query) in TopicPartitions::flat(&topics) {
                    let failed = nowhere(query.index, ErrorCode::NETWORK_EXCEPTION);
                    listed.offsets.insert((topic.to_owned(), query.index), failed);
                }
                listed.errors.push(error);
            }
        }
    }
    listed
}

fn nowhere(index: i32, error: ErrorCode) -> ListedOffset {
    ListedOffset { index, error, timestamp: -1, offset: -1, leader_epoch: -1 }
}

/// One connection to each broker, kept open between administrative calls. Belongs to one thread.
pub struct Connections {
    cluster: ClusterHandle,
    open: RefCell<BTreeMap<i32, Connection>>,
}

impl Connections {
    /// None yet.
    pub fn new(cluster: ClusterHandle) -> Self {
        Self { cluster, open: RefCell::default() }
    }

    /// The connection to a broker, opened if there is none.
    pub async fn to(&self, env: &Env, broker: i32) -> Result<Connection, Error> {
        let kept = self.open.borrow().get(&broker).cloned();
        if let Some(connection) = kept.filter(|kept| self.cluster.is_still(broker, kept)) {
            return Ok(connection);
        }
        let connection = self.cluster.connect(env, broker).await?;
        // A broker that is gone must not keep its entry for ever.
        let map = self.cluster.map();
        let mut open = self.open.borrow_mut();
        open.retain(|id, connection| map.brokers.contains_key(id) && !connection.is_ending());
        if map.brokers.contains_key(&broker) {
            open.insert(broker, connection.clone());
        }
        Ok(connection)
    }
}

/// Holds the next request back for as long as the broker asks (KIP-219).
async fn pause(throttle_time_ms: i32) {
    let asked = throttle(throttle_time_ms);
    if !asked.is_zero() {
        tokio::time::sleep(asked).await;
    }
}

/// A broker's `throttle_time_ms` as it is obeyed: up to [`limits::THROTTLE_MAX`].
pub fn throttle(throttle_time_ms: i32) -> Duration {
    let asked = Duration::from_millis(u64::try_from(throttle_time_ms).unwrap_or(0));
    asked.min(limits::THROTTLE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_makes_no_more_records_than_a_controller_takes() {
        let runs_of = |sizes: &[usize]| runs(sizes.to_vec(), |size| *size);
        let max = limits::RECORDS_PER_ADMIN_REQUEST_MAX;
        assert!(runs_of(&[]).is_empty());
        assert_eq!(runs_of(&[max - 1, 1, 1]), [vec![max - 1, 1], vec![1]]);
        assert_eq!(runs_of(&[1, 3 * max, 1]), [vec![1], vec![3 * max], vec![1]]);
        let many = runs_of(&[1001; 100]);
        assert!(many.iter().all(|run| run.iter().sum::<usize>() <= max));
        assert_eq!(many.concat().len(), 100);
    }
}
