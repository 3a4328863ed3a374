//! The cleaner of compacted topics, on both sides of a run: when it comes and how far it goes.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::oracle::Key;
use super::rng::Rng;
use super::world::{SOURCE, Side, TARGET, World};
use crate::raw::parse;

/// `delete.retention.ms`, and what the cleaner of a run does.
#[derive(Clone, Debug)]
pub struct Cleaning {
    /// How long tombstones and markers outlive what they outdated.
    pub retention_ms: i64,
    /// It goes on into what was copied and is not on record yet: a start may find less than it has to count off.
    pub is_close: bool,
    /// The target's cleaner runs too.
    pub target_too: bool,
    /// It comes this often, at most.
    pub wait_ms: u64,
}

impl Cleaning {
    /// What this seed asks for.
    pub fn draw(rng: &mut Rng) -> Self {
        Self {
            retention_ms: *rng.pick(&[0, 2_000, 86_400_000]),
            is_close: rng.chance(40),
            target_too: rng.chance(60),
            wait_ms: *rng.pick(&[400, 3_000, 10_000]),
        }
    }
}

/// Cleans at random moments for a while.
pub async fn run(world: &World, cleaning: &Cleaning, mut rng: Rng, time: Duration) {
    let until = Instant::now() + time;
    loop {
        sleep(rng.wait_ms(20, cleaning.wait_ms)).await;
        if Instant::now() >= until {
            return;
        }
        let key = world.partition(&mut rng);
        let is_compacted = world.topics().iter().any(|topic| topic.name == key.0 && topic.cleaned);
        if !is_compacted {
            continue;
        }
        let side = if cleaning.target_too && rng.chance(40) { TARGET } else { SOURCE };
        world.note("clean", &[side as u64]);
        clean(world, cleaning, &key, side, &mut rng);
    }
}

fn clean(world: &World, cleaning: &Cleaning, key: &Key, side: Side, rng: &mut Rng) {
    let Ok(dump) = world.cluster(side).dump(&key.0, key.1) else { return };
    let active = if cleaning.is_close && rng.chance(50) {
        rng.between(dump.log_start, dump.last_stable)
    } else {
        dump.last_stable
    };
    let settled = match side {
        SOURCE => world.oracle().position(key).unwrap_or(i64::MAX),
        _ => world.oracle().settled_on_target(key),
    };
    let upto = if cleaning.is_close { active } else { active.min(settled) };
    let _ = world.cluster(side).clean(&key.0, key.1, upto, cleaning.retention_ms);
    if side == SOURCE {
        let left = offsets(world, key);
        world.oracle().cleaned(key, upto, &left);
    } else if upto > settled {
        world.oracle().target_shifted(key);
    }
}

/// Of the records that the source holds.
fn offsets(world: &World, key: &Key) -> HashSet<i64> {
    let batches = world.source.batches_from(&key.0, key.1, 0).map(|(_, batches)| batches);
    let batches = batches.unwrap_or_default();
    let batches = batches.iter().flat_map(|bytes| parse(bytes).0);
    let of = |batch: crate::raw::Parsed| {
        let base = batch.base_offset;
        batch.records().into_iter().map(move |record| base + record.offset_delta)
    };
    batches.flat_map(of).collect()
}
