//! What telemetry tells of connections and of what they, and its own listener, are secured with. Holds no secret (I8).

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::expiry::Whose;
use crate::config::resolved::Address;
use crate::error::Error;
use crate::limits;

/// The figures of one cluster, for any thread.
#[derive(Debug)]
pub struct SecurityCell {
    /// The cluster's name in the configuration.
    pub cluster: Arc<str>,
    /// Connections that were opened, login and all.
    pub connections: AtomicU64,
    /// SASL sessions that were renewed on their connection.
    pub reauthentications: AtomicU64,
    /// Renewals that the broker refused, or that could not be tried in time.
    pub reauthentications_failed: AtomicU64,
    /// Its files.
    pub files: FilesCell,
    brokers: Mutex<BTreeMap<Address, i64>>,
}

/// The figures of files that are read again and again, and of our own certificate among them.
#[derive(Debug, Default)]
pub struct FilesCell {
    /// Times that they were taken anew.
    pub reloads: AtomicU64,
    /// Times that they had changed and were not taken.
    pub reloads_refused: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    own_expiry: Option<i64>,
    refusal: Option<Error>,
}

/// When a broker's certificate ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The broker that showed it.
    pub broker: String,
    /// Seconds since 1970.
    pub at: i64,
}

impl SecurityCell {
    pub(super) fn new(cluster: &str) -> Self {
        Self {
            cluster: cluster.into(),
            connections: AtomicU64::new(0),
            reauthentications: AtomicU64::new(0),
            reauthentications_failed: AtomicU64::new(0),
            files: FilesCell::default(),
            brokers: Mutex::default(),
        }
    }

    fn brokers(&self) -> MutexGuard<'_, BTreeMap<Address, i64>> {
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of the certificates that brokers showed last, the one that ends first.
    pub fn broker_expiry(&self) -> Option<Expiry> {
        let brokers = self.brokers();
        let (broker, at) = brokers.iter().min_by_key(|(_, at)| **at)?;
        Some(Expiry { broker: broker.to_string(), at: *at })
    }

    /// Our own certificate's end, and each broker's.
    pub(super) fn expiries(&self) -> Vec<(Whose, i64)> {
        let own = self.files.own_expiry().map(|at| (Whose::Client, at));
        let brokers = self.brokers();
        let brokers = brokers.iter().map(|(broker, at)| (Whose::Broker(broker.to_string()), *at));
        own.into_iter().chain(brokers).collect()
    }

    /// A broker showed a certificate.
    pub(crate) fn saw(&self, broker: &Address, expiry: i64) {
        let mut brokers = self.brokers();
        if brokers.len() >= limits::CERTIFICATES_SEEN_MAX && !brokers.contains_key(broker) {
            brokers.pop_first();
        }
        brokers.insert(broker.clone(), expiry);
    }

    /// Forgets the certificates of all brokers but these.
    pub(crate) fn keep_brokers(&self, is_there: impl Fn(&Address) -> bool) {
        self.brokers().retain(|broker, _| is_there(broker));
    }

    pub(in super::super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}

impl FilesCell {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When our own certificate ends, seconds since 1970; none without one.
    pub fn own_expiry(&self) -> Option<i64> {
        self.lock().own_expiry
    }

    /// Why what the files hold now is not used; none while it is.
    pub fn refusal(&self) -> Option<Error> {
        self.lock().refusal.clone()
    }

    /// What they held at the start is in use.
    pub(crate) fn began(&self, own_expiry: Option<i64>) {
        self.lock().own_expiry = own_expiry;
    }

    /// What they hold by now is in use.
    pub(crate) fn took(&self, own_expiry: Option<i64>) {
        *self.lock() = State { own_expiry, refusal: None };
        self.reloads.fetch_add(1, Relaxed);
    }

    /// What they hold by now is not used.
    pub(crate) fn refused(&self, error: Error) {
        self.lock().refusal = Some(error);
        self.reloads_refused.fetch_add(1, Relaxed);
    }

    /// They hold again what is in use.
    pub(crate) fn are_in_use(&self) {
        self.lock().refusal = None;
    }
}
