//! What the source loses in a run: records that nobody copied yet, the end of a log, a whole topic.

use std::time::Duration;

use strait::embedded::{ApiKey, Fault, Order};
use strait::wire::ErrorCode;
use tokio::time::{Instant, sleep};

use super::oracle::Key;
use super::past::Policies;
use super::rng::Rng;
use super::world::{SOURCE, World};

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Retention or DeleteRecords overtakes the mirror.
    Overtaken,
    /// An unclean election.
    Truncated,
    /// The topic is deleted and made again.
    Recreated,
}

/// The losses of a run and the link's policies for them.
#[derive(Clone, Debug)]
pub struct Losing {
    /// What may strike.
    pub kinds: Vec<Loss>,
    /// What the link is told to do then.
    pub policies: Policies,
    /// Between two strikes, at most.
    pub wait_ms: u64,
}

impl Losing {
    /// What this seed asks for.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut kinds = vec![Loss::Overtaken];
        kinds.extend([Loss::Truncated, Loss::Recreated].into_iter().filter(|_| rng.chance(35)));
        if kinds.len() > 1 && rng.chance(30) {
            kinds.remove(0);
        }
        Self {
            kinds,
            policies: Policies { continues: rng.chance(70), restarts: rng.chance(60) },
            wait_ms: *rng.pick(&[1_000, 6_000, 20_000]),
        }
    }

    pub(super) fn policies(&self) -> Policies {
        self.policies
    }
}

/// Strikes for a while.
pub async fn run(world: &World, losing: &Losing, mut rng: Rng, time: Duration) {
    let until = Instant::now() + time;
    loop {
        sleep(rng.wait_ms(100, losing.wait_ms)).await;
        if Instant::now() >= until {
            return;
        }
        let key = world.partition(&mut rng);
        if rng.chance(60) {
            hold(world, &key, &mut rng).await;
        }
        // A log without a leader is nobody's to change.
        if world.source.leader(&key.0, key.1) >= 0 {
            let kind = *rng.pick(&losing.kinds);
            world.note("loss", &[kind as u64]);
            strike(world, kind, &key, &mut rng);
        }
    }
}

/// The partition is not read for a moment: what is written meanwhile may be lost before it is copied.
async fn hold(world: &World, key: &Key, rng: &mut Rng) {
    let refuse = Fault::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    let times = 1 + rng.below(12) as u32;
    let order = Order::next(ApiKey::Fetch, refuse).at(&key.0, key.1).times(times);
    world.source.fault(order);
    sleep(rng.wait_ms(50, 3_000)).await;
}

fn strike(world: &World, kind: Loss, key: &Key, rng: &mut Rng) {
    let Ok(dump) = world.source.dump(&key.0, key.1) else { return };
    match kind {
        Loss::Overtaken if dump.log_start < dump.last_stable => {
            let position = world.oracle().position(key).unwrap_or(0).max(dump.log_start);
            let from = if rng.chance(70) { position } else { dump.log_start };
            if from < dump.last_stable {
                world.delete_source(key, rng.between(from + 1, dump.last_stable));
            }
        }
        Loss::Truncated if dump.log_start < dump.log_end => {
            let from = if rng.chance(70) { dump.log_end - 15 } else { dump.log_start };
            let end = rng.between(from.max(dump.log_start), dump.log_end - 1);
            world.truncate_source(key, end);
        }
        // With all brokers: it is made as it was.
        Loss::Recreated if world.brokers(SOURCE).iter().all(|id| world.source.is_up(*id)) => {
            world.recreate_source(&key.0);
        }
        Loss::Overtaken | Loss::Truncated | Loss::Recreated => {}
    }
}
