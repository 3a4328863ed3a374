//! Follows the metadata of both clusters: which brokers a mirror of a share has to do with. Decides nothing else.

use std::rc::Rc;

use super::cell::Leader;
use super::share::Share;
use crate::cluster::ClusterHandle;
use crate::error::Side;
use crate::limits;

/// Who leads a partition, by the newest metadata.
pub fn leader(cluster: &ClusterHandle, topic: &str, partition: i32) -> Leader {
    let map = cluster.map();
    let found = map.partition(topic, partition);
    found.map_or(Leader::NONE, |p| Leader { broker: p.leader, epoch: p.leader_epoch })
}

/// Follows both clusters' metadata: a mirror whose leader moved goes to that leader's fetcher or sender.
pub(super) async fn follow(share: Rc<Share>) {
    let (mut source, mut target) = (share.link.source.clone(), share.link.target.clone());
    let mut greeted = false;
    while !share.is_stopped() {
        if !greeted && target.map().generation > 0 {
            greeted = true;
            greet(&share);
        }
        tokio::select! {
            biased;
            () = source.changed() => {}
            () = target.changed() => {}
        }
        for cell in share.mirrors() {
            let id = &cell.spec.id;
            let source_now = leader(&share.link.source, &id.topic, id.partition);
            let target_now = leader(&share.link.target, &cell.spec.target_topic, id.partition);
            if (source_now, target_now) != (cell.source_leader.get(), cell.target_leader.get()) {
                share.place(&cell);
            }
        }
    }
}

/// Dials the target's brokers before there are mirrors to ask about, unless they are many: the dial is some round trips of
/// the way to the first record.
fn greet(share: &Rc<Share>) {
    let map = share.link.target.map();
    for &broker in map.brokers.keys().take(limits::GREETED_BROKERS_MAX) {
        let own = share.clone();
        // Whoever asks next finds out why it failed.
        share.spawn(async move { drop(own.question(Side::Target, broker).await) });
    }
}
