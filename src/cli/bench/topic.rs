//! The topic of a measurement: made on both clusters under a name that nobody else has, and removed from both whatever
//! happened in between. Never touches a topic that it did not ask for.

use std::cell::Cell;
use std::time::Duration;

use crate::cluster::rights::{self, On};
use crate::cluster::{ClusterHandle, admin};
use crate::config::resolved::Cluster;
use crate::env::Env;
use crate::error::{Action, Code, Error, Side};
use crate::link::codes;
use crate::link::selection::BENCH_PREFIX;
use crate::wire::create_topics::NewTopic;
use crate::wire::error_code::ErrorCode;

/// Something went wrong with the topic.
pub(in super::super) const TROUBLE: Code = Code(82);
/// Removing is tried so often, with a pause in between.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// By then a topic that was made must have its leaders.
const READY: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);
/// Should a topic stay, its records do not.
const RETENTION_MS: &str = "3600000";

/// One name, on two clusters.
pub(super) struct Topic<'c> {
    pub(super) name: String,
    pub(super) partitions: i32,
    /// On the target; the source has its default.
    pub(super) replication_factor: Option<i16>,
    pub(super) source: &'c ClusterHandle,
    pub(super) target: &'c ClusterHandle,
    /// It was asked for on the source, on the target.
    asked: [Cell<bool>; 2],
}

/// What removing left behind.
#[derive(Clone, Debug, Default)]
pub(super) struct Removed {
    pub(super) source: Option<Error>,
    pub(super) target: Option<Error>,
}

impl<'c> Topic<'c> {
    pub(super) fn new(
        env: &Env,
        (source, target): (&'c ClusterHandle, &'c ClusterHandle),
        partitions: i32,
        replication_factor: Option<i16>,
    ) -> Self {
        let name = format!("{BENCH_PREFIX}{:016x}", env.random_u64());
        let asked = [Cell::new(false), Cell::new(false)];
        Self { name, partitions, replication_factor, source, target, asked }
    }

    /// Whether both clusters would make it: what they say against it.
    pub(super) async fn rehearse(&self, env: &Env) -> Vec<Error> {
        let source = self.ask(env, self.source, true).await.err();
        let target = self.ask(env, self.target, true).await.err();
        source.into_iter().chain(target).collect()
    }

    /// Makes it on both sides and waits until each partition has a leader.
    pub(super) async fn make(&self, env: &Env) -> Result<(), Error> {
        for (cluster, asked) in [self.source, self.target].into_iter().zip(&self.asked) {
            asked.set(true);
            if let Err(error) = self.ask(env, cluster, false).await {
                // A refusal is an answer; after a lost connection or a timeout nobody knows.
                asked.set(matches!(error.action, Action::Retry | Action::Reconnect));
                return Err(error);
            }
        }
        let started = env.now();
        while !(self.is_ready(self.source) && self.is_ready(self.target)) {
            if env.now() - started > READY {
                let what =
                    format!("topic {} has no leaders after {} s", self.name, READY.as_secs());
                return Err(Error::new(TROUBLE, Side::Local, Action::Stop, what));
            }
            self.source.refresh();
            self.target.refresh();
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    fn is_ready(&self, cluster: &ClusterHandle) -> bool {
        let map = cluster.map();
        map.topics.get(&self.name).is_some_and(|topic| {
            topic.partitions.len() as i64 == i64::from(self.partitions)
                && topic.partitions.iter().all(|partition| partition.leader >= 0)
        })
    }

    async fn ask(
        &self,
        env: &Env,
        cluster: &ClusterHandle,
        validate_only: bool,
    ) -> Result<(), Error> {
        let of_target = self.replication_factor.filter(|_| cluster.side() == Side::Target);
        let topic = NewTopic {
            name: self.name.clone(),
            partitions: self.partitions,
            replication_factor: of_target.unwrap_or(-1),
            configs: vec![("retention.ms".to_owned(), RETENTION_MS.to_owned())],
        };
        let connection = cluster.connect_any(env).await?;
        let answer = admin::create_topics(&connection, vec![topic], validate_only).await?;
        let (code, detail) = answer.into_iter().next().map_or_else(
            || (ErrorCode::UNKNOWN_SERVER_ERROR, None),
            |made| (made.error, made.error_message),
        );
        match code {
            ErrorCode::NONE => Ok(()),
            code => {
                Err(refused(cluster, "Create", &self.name, code, detail.as_deref(), BENCH_PREFIX))
            }
        }
    }

    /// Removes it where it was asked for.
    pub(super) async fn remove(&self, env: &Env) -> Removed {
        let remove = async |cluster, asked: &Cell<bool>| match asked.get() {
            true => self.remove_from(env, cluster).await.err(),
            false => None,
        };
        let [on_source, on_target] = &self.asked;
        let (source, target) =
            tokio::join!(remove(self.source, on_source), remove(self.target, on_target));
        Removed { source, target }
    }

    async fn remove_from(&self, env: &Env, cluster: &ClusterHandle) -> Result<(), Error> {
        let mut tries = 1;
        loop {
            let removed = self.remove_once(env, cluster).await;
            let is_final = |error: &Error| error.code == codes::NOT_ALLOWED || tries == TRIES;
            match removed {
                Err(error) if !is_final(&error) => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error.fix(command(cluster.config(), &self.name))),
                Ok(()) => return Ok(()),
            }
            tries += 1;
        }
    }

    async fn remove_once(&self, env: &Env, cluster: &ClusterHandle) -> Result<(), Error> {
        let connection = cluster.connect_any(env).await?;
        let answer = admin::delete_topics(&connection, vec![self.name.clone()]).await?;
        let gone = |code| code == ErrorCode::NONE || code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        match answer.into_iter().next() {
            Some(deleted) if gone(deleted.error) => Ok(()),
            Some(deleted) => {
                let detail = deleted.error_message.as_deref();
                Err(refused(cluster, "Delete", &self.name, deleted.error, detail, BENCH_PREFIX))
            }
            None => Err(refused(
                cluster,
                "Delete",
                &self.name,
                ErrorCode::UNKNOWN_SERVER_ERROR,
                None,
                BENCH_PREFIX,
            )),
        }
    }

    /// What would remove it, where it was asked for: for an end at once.
    pub(super) fn left(&self) -> Removed {
        let left = |cluster: &ClusterHandle, asked: &Cell<bool>| {
            let what = format!("topic {} was not removed", self.name);
            let error = Error::new(TROUBLE, cluster.side(), Action::Stop, what);
            let config = cluster.config();
            asked.get().then(|| error.cluster(config.name.clone()).fix(command(config, &self.name)))
        };
        let [source, target] = &self.asked;
        Removed { source: left(self.source, source), target: left(self.target, target) }
    }
}

/// The command that removes a topic.
pub(in super::super) fn command(cluster: &Cluster, topic: &str) -> String {
    format!(
        "kafka-topics.sh --bootstrap-server {} --delete --topic {topic}",
        rights::dialled(cluster)
    )
}

/// A cluster's no to an operation on a topic whose name begins with `prefix`.
pub(in super::super) fn refused(
    cluster: &ClusterHandle,
    operation: &str,
    topic: &str,
    code: ErrorCode,
    detail: Option<&str>,
    prefix: &str,
) -> Error {
    let detail = detail.filter(|detail| !detail.is_empty()).map(|detail| format!(": {detail}"));
    let what = format!("{operation} topic {topic}: {}{}", code.name(), detail.unwrap_or_default());
    let is_right = code == ErrorCode::TOPIC_AUTHORIZATION_FAILED
        || code == ErrorCode::CLUSTER_AUTHORIZATION_FAILED;
    let st = if is_right { codes::NOT_ALLOWED } else { TROUBLE };
    // After these it may have been done all the same.
    let is_vague = code.is_retriable() || code == ErrorCode::UNKNOWN_SERVER_ERROR;
    let action = if is_vague { Action::Retry } else { Action::Stop };
    let error = Error::new(st, cluster.side(), action, what);
    let error = error.cluster(cluster.config().name.clone());
    if !is_right {
        return error;
    }
    let command = rights::command(cluster.config(), operation, On::Topic(prefix));
    error.fix(format!("{command} --resource-pattern-type prefixed"))
}
