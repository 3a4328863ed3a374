//! What verbs that dial share: a runtime for the length of the verb, and clusters that are looked at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};

use super::Failure;
use crate::cluster::{self, ClusterHandle, admin};
use crate::config::resolved::{Cluster, Config, Link};
use crate::connection::Connection;
use crate::env::Env;
use crate::error::{Action, Code, Error, Side};
use crate::wire::offset_fetch::OffsetFetchResponse;

/// A broker, or a coordinator, that cannot be reached now.
const NO_ANSWER: Code = Code(15);

/// Runs the part of a verb that waits for the network.
pub(super) fn block_on<T>(verb: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let options = LocalOptions::default();
    let runtime = Builder::new_current_thread().enable_all().build_local(options)?;
    let ended = runtime.block_on(verb);
    // A name that is being looked up on the blocking pool must not hold the process.
    runtime.shutdown_background();
    ended
}

/// A cluster with its map.
///
/// # Errors
/// It cannot be reached, or does not let us in.
pub(super) async fn open(
    env: &Env,
    cluster: &Arc<Cluster>,
    side: Side,
) -> Result<ClusterHandle, Error> {
    let (handle, watcher) = cluster::watch(env.clone(), cluster.clone(), side).await?;
    if handle.map().generation == 0 {
        let nothing = || Error::new(NO_ANSWER, side, Action::Retry, "no metadata");
        return Err(handle.last_error().unwrap_or_else(nothing).cluster(cluster.name.clone()));
    }
    tokio::task::spawn_local(watcher);
    Ok(handle)
}

/// How long a coordinator is waited for: on a new cluster the first question makes the offsets topic.
const COORDINATOR_PATIENCE: Duration = Duration::from_secs(5);

/// What a group has committed, with the coordinator that said so; the answer may be an error.
///
/// # Errors
/// No coordinator, or none that answers.
pub(super) async fn positions(
    env: &Env,
    cluster: &ClusterHandle,
    group: &str,
) -> Result<(Connection, OffsetFetchResponse), Error> {
    let deadline = env.now() + COORDINATOR_PATIENCE;
    loop {
        let asked = async {
            let coordinator = cluster.coordinator(env, group).await?;
            let answer = admin::offset_fetch(&coordinator, group, None).await?;
            Ok::<_, Error>((coordinator, answer))
        };
        let outcome = asked.await;
        let again = match &outcome {
            Ok((_, answer)) => answer.error.is_retriable(),
            Err(error) => error.code == NO_ANSWER,
        };
        if !again || env.now() >= deadline {
            return outcome;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The links that a verb is about: one by name, or all.
///
/// # Errors
/// The name is none of the configuration's.
pub(super) fn links<'c>(
    config: &'c Config,
    wanted: Option<&str>,
) -> Result<Vec<&'c Arc<Link>>, Failure> {
    let Some(wanted) = wanted else { return Ok(config.links.iter().collect()) };
    match config.links.iter().find(|link| link.name == wanted) {
        Some(link) => Ok(vec![link]),
        None => {
            let names = config.links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>();
            let what = format!("no link {wanted:?}; the configuration has {}", names.join(", "));
            Err(Failure::Usage(what))
        }
    }
}
