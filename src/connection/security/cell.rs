//! What telemetry tells of a cluster's connections and of what they are secured with. Holds no secret (I8).

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// Times that files were taken anew.
    pub reloads: AtomicU64,
    /// Times that files had changed and were not taken.
    pub reloads_refused: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    client: Option<i64>,
    brokers: BTreeMap<Address, i64>,
    refusal: Option<Error>,
}

/// When a certificate ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The broker that showed it; none is our own.
    pub broker: Option<String>,
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
            reloads: AtomicU64::new(0),
            reloads_refused: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When our own certificate ends; none without one.
    pub fn client_expiry(&self) -> Option<i64> {
        self.lock().client
    }

    /// Of the certificates that brokers showed last, the one that ends first.
    pub fn broker_expiry(&self) -> Option<Expiry> {
        let state = self.lock();
        let first = state.brokers.iter().min_by_key(|(_, at)| **at)?;
        Some(Expiry { broker: Some(first.0.to_string()), at: *first.1 })
    }

    /// Our own certificate's end, and each broker's.
    pub(super) fn expiries(&self) -> Vec<Expiry> {
        let state = self.lock();
        let own = state.client.iter().map(|at| Expiry { broker: None, at: *at });
        let brokers = state.brokers.iter();
        let brokers =
            brokers.map(|(broker, at)| Expiry { broker: Some(broker.to_string()), at: *at });
        own.chain(brokers).collect()
    }

    /// Why what the files hold now is not used; none while it is.
    pub fn refusal(&self) -> Option<Error> {
        self.lock().refusal.clone()
    }

    pub(super) fn set_client_expiry(&self, at: Option<i64>) {
        self.lock().client = at;
    }

    pub(super) fn set_refusal(&self, error: Option<Error>) {
        self.lock().refusal = error;
    }

    /// A broker showed a certificate.
    pub(crate) fn saw(&self, broker: &Address, expiry: i64) {
        let mut state = self.lock();
        if state.brokers.len() >= limits::CERTIFICATES_SEEN_MAX
            && !state.brokers.contains_key(broker)
        {
            state.brokers.pop_first();
        }
        state.brokers.insert(broker.clone(), expiry);
    }

    /// Forgets the certificates of all brokers but these.
    pub(crate) fn keep_brokers(&self, is_there: impl Fn(&Address) -> bool) {
        self.lock().brokers.retain(|broker, _| is_there(broker));
    }

    pub(in super::super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}
