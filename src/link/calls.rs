//! The administrative calls of a link, each with its deadline, over one connection to any broker of a cluster. Owns no
//! decision: what an answer means is `topics.rs`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join;
use tokio::task::{JoinHandle, spawn_local};

use super::topics::Setting;
use super::{codes, topics};
use crate::cluster::rights::Need;
use crate::cluster::{ClusterHandle, admin};
use crate::config::resolved::Link;
use crate::connection::Connection;
use crate::env::Env;
use crate::error::{Action, Error};
use crate::limits;
use crate::wire::ErrorCode;
use crate::wire::create_topics::NewTopic;
use crate::wire::describe_configs::{ConfigsOf, DescribedConfig, DescribedConfigs, ResourceKind};

/// One cluster, as the control plane asks it.
pub(super) struct Caller {
    env: Env,
    cluster: ClusterHandle,
    open: Option<Connection>,
    /// Was begun before anything was to be asked.
    dialling: Option<JoinHandle<Result<Connection, Error>>>,
}

/// What became of one topic that was to be made or grown.
pub(super) struct Answer {
    pub(super) topic: String,
    pub(super) code: ErrorCode,
    /// The broker's own words.
    pub(super) detail: String,
}

/// The settings of topics, or the code that hides them.
pub(super) type Settings = BTreeMap<Arc<str>, Result<Vec<Setting>, ErrorCode>>;

impl Caller {
    pub(super) fn new(env: Env, cluster: ClusterHandle) -> Self {
        Self { env, cluster, open: None, dialling: None }
    }

    /// Begins to dial: over a long way that takes some round trips, which the first question need not wait for.
    pub(super) fn dial(&mut self) {
        let (env, cluster) = (self.env.clone(), self.cluster.clone());
        let dial = async move { cluster.connect_any(&env).await };
        self.dialling = Some(spawn_local(dial));
    }

    pub(super) fn cluster(&self) -> &ClusterHandle {
        &self.cluster
    }

    async fn any(&mut self) -> Result<Connection, Error> {
        if let Some(dialling) = self.dialling.take() {
            // If it failed, the next attempt says why.
            self.open = dialling.await.ok().and_then(Result::ok);
        }
        let connection = match self.open.take().filter(|open| !open.is_closed()) {
            Some(open) => open,
            None => self.cluster.connect_any(&self.env).await?,
        };
        self.open = Some(connection.clone());
        Ok(connection)
    }

    /// The settings of some topics, or only those of them that are named in `keys`.
    pub(super) async fn settings(
        &mut self,
        topics: impl Iterator<Item = &Arc<str>>,
        keys: Option<&[&str]>,
    ) -> Result<Settings, Error> {
        settings(&self.any().await?, topics, keys).await
    }

    /// The settings of some topics that are named in `keys`, and how long a producer is remembered there (see
    /// [`Caller::producer_expiration_ms`]): both are asked at once, over a long way.
    pub(super) async fn facts(
        &mut self,
        topics: impl Iterator<Item = &Arc<str>>,
        keys: &[&str],
    ) -> Result<(Settings, Result<Option<i64>, Error>), Error> {
        let any = self.any().await?;
        let settings = settings(&any, topics, Some(keys));
        let (settings, expiration_ms) = join(settings, self.producer_expiration_ms(&any)).await;
        Ok((settings?, expiration_ms))
    }

    /// `producer.id.expiration.ms` of a broker; it is a cluster-wide setting. None where it may not be read.
    async fn producer_expiration_ms(&self, any: &Connection) -> Result<Option<i64>, Error> {
        const KEY: &str = "producer.id.expiration.ms";
        let map = self.cluster.map();
        // Only the broker itself answers for its settings: the one that is spoken to already, if it is known which.
        let here = map.brokers.iter().find(|(_, broker)| broker.address == *any.address());
        let Some((&broker, _)) = here.or(map.brokers.iter().next()) else { return Ok(None) };
        let of = ConfigsOf {
            kind: ResourceKind::Broker,
            name: broker.to_string(),
            keys: Some(vec![KEY.to_owned()]),
        };
        let connection = match here {
            Some(_) => any.clone(),
            None => self.cluster.connect(&self.env, broker).await?,
        };
        let answer = admin::describe_configs(&connection, vec![of]).await?;
        let settings = answer.into_iter().map(read).find_map(Result::ok);
        Ok(settings.and_then(|settings| topics::value(&settings, KEY)?.parse().ok()))
    }

    /// Makes topics.
    pub(super) async fn create(&mut self, topics: Vec<NewTopic>) -> Result<Vec<Answer>, Error> {
        let answers = admin::create_topics(&self.any().await?, topics, false).await?;
        let answers = answers.into_iter().map(|made| Answer {
            topic: made.name,
            code: made.error,
            detail: made.error_message.unwrap_or_default(),
        });
        Ok(answers.collect())
    }

    /// Grows topics to the counts beside their names.
    pub(super) async fn grow(&mut self, topics: Vec<(String, i32)>) -> Result<Vec<Answer>, Error> {
        let answers = admin::create_partitions(&self.any().await?, topics, false).await?;
        let answers = answers.into_iter().map(|grown| Answer {
            topic: grown.name,
            code: grown.error,
            detail: grown.error_message.unwrap_or_default(),
        });
        Ok(answers.collect())
    }

    /// The topics that the link's group holds a position of.
    pub(super) async fn positions(&mut self, link: &Link) -> Result<BTreeSet<Arc<str>>, Error> {
        let group = format!("strait.{}", link.name);
        let grant = || Need::CommitPosition.grant(link, "");
        let found = self.cluster.coordinator(&self.env, &group).await;
        let coordinator = found.map_err(|error| match error.code {
            codes::NOT_ALLOWED => error.fix(grant()),
            _ => error,
        })?;
        let answer = admin::offset_fetch(&coordinator, &group, None).await?;
        match answer.error {
            ErrorCode::NONE => {
                Ok(answer.topics.iter().map(|of| of.topic.as_str().into()).collect())
            }
            code => {
                let message = format!("the position of link {} cannot be read: {code}", link.name);
                let mut error = Error::new(
                    codes::POSITION_UNREADABLE,
                    self.cluster.side(),
                    Action::Retry,
                    message,
                );
                if code == ErrorCode::GROUP_AUTHORIZATION_FAILED {
                    error.code = codes::NOT_ALLOWED;
                    error.fix = grant();
                }
                Err(error.cluster(link.from.name.clone()))
            }
        }
    }
}

async fn settings(
    connection: &Connection,
    topics: impl Iterator<Item = &Arc<str>>,
    keys: Option<&[&str]>,
) -> Result<Settings, Error> {
    let keys: Option<Vec<String>> =
        keys.map(|keys| keys.iter().map(|&key| key.to_owned()).collect());
    let topics: BTreeSet<&Arc<str>> = topics.collect();
    let topics: Vec<&Arc<str>> = topics.into_iter().collect();
    let mut settings = Settings::new();
    for some in topics.chunks(limits::TOPICS_PER_ADMIN_REQUEST_MAX) {
        let of = |topic: &&Arc<str>| ConfigsOf {
            kind: ResourceKind::Topic,
            name: topic.to_string(),
            keys: keys.clone(),
        };
        let resources = some.iter().map(of).collect();
        for described in admin::describe_configs(connection, resources).await? {
            settings.insert(described.name.as_str().into(), read(described));
        }
    }
    Ok(settings)
}

fn read(described: DescribedConfigs) -> Result<Vec<Setting>, ErrorCode> {
    if described.error.is_error() {
        return Err(described.error);
    }
    let setting = |config: DescribedConfig| Setting {
        on_topic: config.is_set_on_topic(),
        name: config.name,
        value: config.value,
    };
    Ok(described.configs.into_iter().map(setting).collect())
}
