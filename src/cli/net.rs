//! What verbs that dial share: a runtime for the length of the verb, and clusters that are looked at once.

use std::sync::Arc;

use tokio::runtime::{Builder, LocalOptions};

use super::Failure;
use crate::cluster::{self, ClusterHandle};
use crate::config::resolved::{Cluster, Config, Link};
use crate::env::Env;
use crate::error::{Action, Code, Error, Side};

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
        let nothing = || Error::new(Code(15), side, Action::Retry, "no metadata");
        return Err(handle.last_error().unwrap_or_else(nothing).cluster(cluster.name.clone()));
    }
    tokio::task::spawn_local(watcher);
    Ok(handle)
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
