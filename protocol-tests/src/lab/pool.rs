//! How many brokers live at once, and single-node clusters that several tests use.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Cluster, Version};
use crate::process::tail;

/// Brokers at once unless `STRAIT_LAB_BROKERS` says otherwise: 500 MB each.
const BROKERS_MAX: usize = 8;
/// Longer than any test holds its brokers.
const WAIT_MAX: Duration = Duration::from_secs(900);

/// The right to run some brokers; given back when dropped.
#[derive(Debug)]
pub struct Permits(usize);

#[derive(Default)]
struct Pool {
    taken: usize,
    shared: HashMap<(Version, &'static str), Arc<Cluster>>,
    starting: Vec<(Version, &'static str)>,
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();

fn max() -> usize {
    std::env::var("STRAIT_LAB_BROKERS").ok().map_or(BROKERS_MAX, |text| text.parse().unwrap())
}

fn lock() -> MutexGuard<'static, Option<Pool>> {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    pool.get_or_insert_default();
    pool
}

impl Permits {
    /// Waits until `count` more brokers may run. Ends shared clusters that nobody uses if that helps.
    pub fn take(count: usize) -> Self {
        assert!(count <= max(), "{count} brokers can never run at once");
        let deadline = Instant::now() + WAIT_MAX;
        let mut guard = lock();
        loop {
            assert!(Instant::now() < deadline, "no {count} broker permits in {WAIT_MAX:?}");
            let pool = guard.as_mut().unwrap();
            if pool.taken + count <= max() {
                pool.taken += count;
                return Self(count);
            }
            let idle = pool.shared.iter().find(|(_, c)| Arc::strong_count(c) == 1).map(|(k, _)| *k);
            if let Some(kind) = idle {
                let cluster = pool.shared.remove(&kind);
                drop(guard);
                drop(cluster);
                guard = lock();
            } else {
                // Users of a shared cluster do not tell when they are done, hence the time.
                let wait = Duration::from_millis(200);
                guard = CHANGED.wait_timeout(guard, wait).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

impl Permits {
    /// Splits `count` off.
    pub(super) fn split(&mut self, count: usize) -> Self {
        self.0 -= count;
        Self(count)
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        lock().as_mut().unwrap().taken -= self.0;
        CHANGED.notify_all();
    }
}

/// A single-node cluster that lives on for other tests. `role` tells two of the same release apart. Users name their
/// topics and groups for themselves and leave the broker alone.
pub fn shared(version: Version, role: &'static str) -> Arc<Cluster> {
    let kind = (version, role);
    let mut guard = lock();
    loop {
        let pool = guard.as_mut().unwrap();
        if let Some(cluster) = pool.shared.get(&kind) {
            return Arc::clone(cluster);
        }
        if !pool.starting.contains(&kind) {
            pool.starting.push(kind);
            break;
        }
        guard = CHANGED.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
    drop(guard);
    let started = std::panic::catch_unwind(|| Arc::new(Cluster::start(version)));
    let mut guard = lock();
    let pool = guard.as_mut().unwrap();
    pool.starting.retain(|other| *other != kind);
    CHANGED.notify_all();
    match started {
        Ok(cluster) => {
            pool.shared.insert(kind, Arc::clone(&cluster));
            cluster
        }
        Err(panic) => {
            drop(guard);
            std::panic::resume_unwind(panic)
        }
    }
}

/// Prints what the shared brokers logged last, for a test that fails: their own end comes too late for that.
pub fn print_logs() {
    for ((version, role), cluster) in &lock().as_ref().unwrap().shared {
        let log = tail(&cluster.nodes[0].log_file(), 12);
        eprintln!("--- shared {role} broker {}, last lines:\n{log}", version.number());
    }
}

/// The shared source and target of a pair of releases.
pub fn pair(source: Version, target: Version) -> (Arc<Cluster>, Arc<Cluster>) {
    (shared(source, "source"), shared(target, "target"))
}
