//! The clusters where records are first written, by the ids that they report: what a link's `forward` means, and whether two
//! of them cannot be told apart.

use std::sync::Arc;

use super::reasons;
use crate::cluster::{ClusterHandle, ClusterMap};
use crate::config::resolved::Link;
use crate::engine::identity::Origin;
use crate::engine::route::Forwarding;
use crate::error::Error;

/// Of one link.
pub(super) struct Origins {
    link: Arc<Link>,
    /// Every cluster that the process watches.
    clusters: Vec<ClusterHandle>,
    /// How many copies a record may be away from its origin.
    copies_max: u8,
    forwarding: Arc<Forwarding>,
}

impl Origins {
    /// Nothing is known yet. `clusters_count` is how many the configuration has.
    pub(super) fn new(
        link: Arc<Link>,
        clusters: Vec<ClusterHandle>,
        clusters_count: usize,
    ) -> Self {
        // One copy for what is local; through a tree of n clusters, n - 1 copies, and one for clusters that are not named.
        let copies_max = match &link.forward.origins[..] {
            [] => 1,
            _ => u8::try_from(clusters_count.max(2)).unwrap_or(u8::MAX),
        };
        Self { link, clusters, copies_max, forwarding: Arc::default() }
    }

    fn named(&self) -> impl Iterator<Item = &ClusterHandle> {
        let origins = &self.link.forward.origins;
        let named = |handle: &&ClusterHandle| {
            origins.iter().any(|origin| origin.name == handle.config().name)
        };
        self.clusters.iter().filter(named)
    }

    /// Whether each origin that the link names has told its id.
    pub(super) fn are_known(&self) -> bool {
        self.named().all(|handle| handle.map().generation > 0)
    }

    /// Why not.
    pub(super) fn error(&self) -> Option<Error> {
        self.named().find_map(ClusterHandle::last_error)
    }

    /// Waits until one that is not known has something to say.
    pub(super) async fn changed(&mut self) {
        let unknown = self.named().find(|handle| handle.map().generation == 0).cloned();
        match unknown {
            Some(mut handle) => handle.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Takes the ids for what they are from now on.
    pub(super) fn settle(&mut self, source: &ClusterMap, target: &ClusterMap) -> Result<(), Error> {
        self.compare()?;
        let id = |map: &ClusterMap| map.cluster_id.clone().unwrap_or_default();
        let home = id(source);
        let mut forwarding = Forwarding {
            home: Origin::of_cluster(&home),
            local: self.link.forward.local,
            origins: Vec::new(),
            copies_max: self.copies_max,
        };
        for handle in self.named() {
            let origin = id(&handle.map());
            if origin == id(target) {
                let name = &handle.config().name;
                return Err(reasons::back_to_origin(&self.link, name, &origin));
            }
            if origin == home {
                forwarding.local = true;
            } else {
                forwarding.origins.push(Origin::of_cluster(&origin));
            }
        }
        self.forwarding = Arc::new(forwarding);
        Ok(())
    }

    /// Compares the ids that are known by now: an origin is 28 bits of one.
    pub(super) fn compare(&self) -> Result<(), Error> {
        let ids = self.clusters.iter().filter_map(|handle| {
            Some((handle.config().name.clone(), handle.map().cluster_id.clone()?))
        });
        let ids: Vec<(String, String)> = ids.collect();
        clash(&ids).map_or(Ok(()), |(a, b)| Err(reasons::origin_clash(&self.link, a, b)))
    }

    /// The rule for the link's mirrors.
    pub(super) fn forwarding(&self) -> &Arc<Forwarding> {
        &self.forwarding
    }
}

/// Two clusters, as (name, id), whose records cannot be told apart; one cluster under two names is none.
pub(crate) fn clash(ids: &[(String, String)]) -> Option<(&str, &str)> {
    let mut origins: Vec<(Origin, &str, &str)> =
        ids.iter().map(|(name, id)| (Origin::of_cluster(id), &**id, &**name)).collect();
    origins.sort_unstable();
    let clashes = |pair: &&[(Origin, &str, &str)]| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1;
    origins.windows(2).find(clashes).map(|pair| (pair[0].2, pair[1].2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_whose_ids_give_one_origin_are_found() {
        let id = |name: &str, id: &str| (name.to_owned(), id.to_owned());
        assert_eq!(clash(&[id("a", "x"), id("b", "y"), id("c", "x")]), None);
        // Found by search: 28 bits of SHA-256 that are alike.
        let (one, other) = ALIKE;
        assert_eq!(Origin::of_cluster(one), Origin::of_cluster(other));
        let ids = [id("a", one), id("b", "y"), id("c", other)];
        let found = clash(&ids).map(|(a, b)| if a < b { (a, b) } else { (b, a) });
        assert_eq!(found, Some(("a", "c")));
    }

    const ALIKE: (&str, &str) = ("cluster-18193", "cluster-24117");
}
