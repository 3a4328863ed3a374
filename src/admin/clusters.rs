//! What `/status` and `/metrics` tell of each cluster: its connections, SASL sessions, security files and certificates.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

use super::exposition::Exposition;
use super::status::ErrorStatus;
use crate::engine::stats::{Board, SecurityCell};

/// One cluster of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Its name in the configuration.
    pub cluster: String,
    /// Connections that were opened since the start.
    pub connections: u64,
    /// SASL sessions that were renewed on their connection.
    pub reauthentications: u64,
    /// Renewals that failed.
    pub reauthentications_failed: u64,
    /// Times that changed files were taken.
    pub reloads: u64,
    /// Times that they were not.
    pub reloads_refused: u64,
    /// Why what the files hold now is not used; null while it is.
    pub files_refused: Option<ErrorStatus>,
    /// When our own certificate ends, milliseconds since 1970; null without one.
    pub client_certificate_expires_ms: Option<i64>,
    /// The same of the brokers' certificates, as they were shown last: the first to end.
    pub broker_certificate_expires_ms: Option<i64>,
    /// Whose that is.
    pub broker_certificate: Option<String>,
}

impl From<&SecurityCell> for ClusterStatus {
    fn from(cell: &SecurityCell) -> Self {
        let broker = cell.broker_expiry();
        Self {
            cluster: cell.cluster.to_string(),
            connections: cell.connections.load(Relaxed),
            reauthentications: cell.reauthentications.load(Relaxed),
            reauthentications_failed: cell.reauthentications_failed.load(Relaxed),
            reloads: cell.reloads.load(Relaxed),
            reloads_refused: cell.reloads_refused.load(Relaxed),
            files_refused: cell.refusal().as_ref().map(Into::into),
            client_certificate_expires_ms: cell.client_expiry().map(|at| at * 1000),
            broker_certificate_expires_ms: broker.as_ref().map(|expiry| expiry.at * 1000),
            broker_certificate: broker.and_then(|expiry| expiry.broker),
        }
    }
}

/// The metrics of all of them.
pub(super) fn write(exposition: &mut Exposition, board: &Board) {
    let cells = board.securities();
    let mut family = exposition.gauge(
        "strait_certificate_expiry_timestamp_seconds",
        "When our own certificate ends, and the first of those that brokers showed last.",
    );
    for cell in &cells {
        let broker = cell.broker_expiry().map(|expiry| expiry.at);
        for (of, at) in [("client", cell.client_expiry()), ("broker", broker)] {
            if let Some(at) = at {
                family.sample(&[("cluster", &cell.cluster), ("of", of)], at);
            }
        }
    }
    let mut family = exposition.gauge(
        "strait_security_files_refused",
        "1 while certificate or secret files hold what is not used; see /status.",
    );
    for cell in &cells {
        family.sample(&[("cluster", &cell.cluster)], u8::from(cell.refusal().is_some()));
    }
    type Pick = fn(&SecurityCell) -> &AtomicU64;
    let pairs: [(&'static str, &str, [Pick; 2]); 2] = [
        (
            "strait_security_reloads_total",
            "Times that certificate or secret files had changed, by whether they were taken.",
            [|c| &c.reloads, |c| &c.reloads_refused],
        ),
        (
            "strait_sasl_reauthentications_total",
            "SASL sessions that were to be renewed on their connection, by whether they were.",
            [|c| &c.reauthentications, |c| &c.reauthentications_failed],
        ),
    ];
    for (name, help, picks) in pairs {
        let mut family = exposition.counter(name, help);
        for cell in &cells {
            for (result, pick) in ["ok", "failed"].into_iter().zip(picks) {
                let labels = [("cluster", &*cell.cluster), ("result", result)];
                family.sample(&labels, pick(cell).load(Relaxed));
            }
        }
    }
    let mut family = exposition
        .counter("strait_connections_total", "Connections that were opened, login and all.");
    for cell in &cells {
        family.sample(&[("cluster", &cell.cluster)], cell.connections.load(Relaxed));
    }
}
