//! What a cluster is reached with: trust, identity, credentials. Read from files, and read again while it is in use: new
//! connections are made with what the files hold by then, those that are open go on with what they began with.
//!
//! Owns what of a changed file is believed: certificate and key are judged together, and what is no good leaves what was
//! there in use. Never offers a way around the check of a broker's certificate.

mod cell;
mod expiry;
pub(super) mod files;
#[cfg(test)]
mod tests;
pub(super) mod validity;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use cell::{Expiry, FilesCell, SecurityCell};

pub(crate) use self::expiry::{InUse, Told, Whose};
use self::files::{Files, named};
pub(crate) use self::validity::Validity;
pub(crate) use self::watch::{Look, Watch};
use super::diagnosis::Peer;
use super::sasl::Sasl;
use super::tls::Tls;
use crate::config::resolved::{Address, Cluster};
use crate::env::Env;
use crate::error::{Code, Error, Side};

/// A file has changed, and what it holds is not used.
const NOT_TAKEN: Code = Code(85);

/// TLS and SASL towards one cluster, ready to use. A cheap handle; all of a cluster's see the same.
#[derive(Clone)]
pub struct Security(Arc<Parts>);

struct Parts {
    settings: Cluster,
    files: Vec<PathBuf>,
    current: Mutex<Arc<Current>>,
    watch: Mutex<Watch>,
    told: Mutex<Told>,
    cell: Arc<SecurityCell>,
}

/// What new connections are made with.
pub(super) struct Current {
    pub(super) tls: Option<Tls>,
    pub(super) sasl: Option<Sasl>,
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Security({})", self.0.settings.name)
    }
}

impl Security {
    /// Reads the files that the configuration names. The errors are ST-029, and name the file and what is wrong in it;
    /// ST-009 for a password that would travel unencrypted.
    pub fn load(cluster: &Cluster) -> Result<Self, Error> {
        let paths = named(cluster);
        let files = Files::read(&paths);
        let current = Current::load(cluster, &files);
        let current = current.map_err(|error| error.cluster(cluster.name.clone()))?;
        let cell = Arc::new(SecurityCell::new(&cluster.name));
        cell.files.began(current.own_validity().map(|validity| validity.not_after));
        let watch = Watch::new(files.print());
        Ok(Self(Arc::new(Parts {
            settings: cluster.clone(),
            files: paths,
            current: Mutex::new(Arc::new(current)),
            watch: Mutex::new(watch),
            told: Mutex::default(),
            cell,
        })))
    }

    /// The figures.
    pub fn cell(&self) -> Arc<SecurityCell> {
        self.0.cell.clone()
    }

    /// What a connection that begins now is made with, from its first byte to its last.
    pub(super) fn now(&self) -> Arc<Current> {
        lock(&self.0.current).clone()
    }

    pub(super) fn peer(&self, address: Address, broker: Option<i32>, side: Side) -> Peer {
        let tls = self.0.settings.tls.as_ref();
        Peer {
            side,
            cluster: self.0.cell.cluster.clone(),
            address,
            broker,
            tls: tls.is_some(),
            client_certificate: tls.is_some_and(|tls| tls.identity.is_some()),
        }
    }

    /// Looks at the files and at the certificates' ends, now and again; ends at once where there is neither.
    pub async fn keep_fresh(self, env: Env) {
        while self.0.settings.tls.is_some() || !self.0.files.is_empty() {
            let files = Files::next_look(&self.0.files).await;
            let now = env.wall_clock_ms() / 1000;
            self.look(&files, now);
            self.warn_of_expiry(now);
        }
    }

    /// One look.
    fn look(&self, files: &Files, now: i64) {
        let Parts { settings, current, watch, cell, .. } = &*self.0;
        let mut watch = lock(watch);
        match watch.look(files.print()) {
            Look::Leave => return,
            Look::InUse { was_refused } => {
                if was_refused {
                    tracing::info!(cluster = %settings.name, "the security files hold again what is in use");
                }
                return cell.files.are_in_use();
            }
            Look::Judge => {}
        }
        match Current::load(settings, files).and_then(|new| new.usable(settings, files, now)) {
            Ok(new) => {
                let own = new.own_validity();
                *lock(current) = Arc::new(new);
                watch.took();
                cell.files.took(own.map(|validity| validity.not_after));
                tracing::info!(cluster = %settings.name, "the security files have changed: new connections use them");
            }
            Err(error) => {
                let error = not_taken(error).cluster(settings.name.clone());
                tracing::warn!(%error, "a changed security file is not used");
                watch.refused();
                cell.files.refused(error);
            }
        }
    }

    fn warn_of_expiry(&self, now: i64) {
        let Parts { settings, told, cell, .. } = &*self.0;
        let mut told = lock(told);
        let own = self.now().own_validity();
        let expiries = cell.expiries();
        for (whose, not_after) in &expiries {
            let life = own.filter(|_| *whose == Whose::Client).map(|own| own.life());
            let in_use = InUse { whose: whose.clone(), not_after: *not_after, life };
            if let Some(error) = told.warning(&in_use, now) {
                let error = error.cluster(settings.name.clone());
                tracing::warn!(%error, "a certificate ends");
            }
        }
        told.keep(|known| expiries.iter().any(|(whose, _)| whose == known));
    }
}

impl Current {
    fn load(cluster: &Cluster, files: &Files) -> Result<Self, Error> {
        let tls = cluster.tls.as_ref().map(|tls| Tls::load(tls, files)).transpose()?;
        let sasl = cluster.sasl.as_ref().map(|sasl| Sasl::load(sasl, files, tls.is_some()));
        Ok(Self { tls, sasl: sasl.transpose()? })
    }

    fn own_validity(&self) -> Option<Validity> {
        self.tls.as_ref()?.own_validity
    }

    /// Whether it may take the place of what is in use, which works.
    fn usable(self, cluster: &Cluster, files: &Files, now: i64) -> Result<Self, Error> {
        if let Some(sasl) = &cluster.sasl {
            Sasl::check_token(sasl, files)?;
        }
        let identity = cluster.tls.as_ref().and_then(|tls| tls.identity.as_ref());
        if let Some((own, (chain, _))) = self.own_validity().zip(identity) {
            own.usable(chain, now)?;
        }
        Ok(self)
    }
}

/// The same error of a file that was good before.
pub(crate) fn not_taken(mut error: Error) -> Error {
    error.code = NOT_TAKEN;
    error.message.push_str("; what was read before stays in use");
    if error.fix.is_empty() {
        error.fix =
            "write files that belong together; they are looked at again within 2 s".to_owned();
    }
    error
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
