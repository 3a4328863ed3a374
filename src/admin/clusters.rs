//! What `/status` and `/metrics` tell of each cluster: its connections, SASL sessions, security files and certificates; and
//! of the files and the certificate of the listener that is asked.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

use super::exposition::{Exposition, Family};
use super::status::ErrorStatus;
use crate::engine::stats::{Board, FilesCell, SecurityCell};

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

/// The telemetry listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TelemetryStatus {
    /// Times that changed files were taken.
    pub reloads: u64,
    /// Times that they were not.
    pub reloads_refused: u64,
    /// Why what its files hold now is not used; null while it is.
    pub files_refused: Option<ErrorStatus>,
    /// When its certificate ends, milliseconds since 1970; null without one.
    pub certificate_expires_ms: Option<i64>,
}

impl From<&FilesCell> for TelemetryStatus {
    fn from(cell: &FilesCell) -> Self {
        Self {
            reloads: cell.reloads.load(Relaxed),
            reloads_refused: cell.reloads_refused.load(Relaxed),
            files_refused: cell.refusal().as_ref().map(Into::into),
            certificate_expires_ms: cell.own_expiry().map(|at| at * 1000),
        }
    }
}

impl From<&SecurityCell> for ClusterStatus {
    fn from(cell: &SecurityCell) -> Self {
        let broker = cell.broker_expiry();
        Self {
            cluster: cell.cluster.to_string(),
            connections: cell.connections.load(Relaxed),
            reauthentications: cell.reauthentications.load(Relaxed),
            reauthentications_failed: cell.reauthentications_failed.load(Relaxed),
            reloads: cell.files.reloads.load(Relaxed),
            reloads_refused: cell.files.reloads_refused.load(Relaxed),
            files_refused: cell.files.refusal().as_ref().map(Into::into),
            client_certificate_expires_ms: cell.files.own_expiry().map(|at| at * 1000),
            broker_certificate_expires_ms: broker.as_ref().map(|expiry| expiry.at * 1000),
            broker_certificate: broker.map(|expiry| expiry.broker),
        }
    }
}

/// The metrics of all of them. What is the listener's own has no cluster: `of` says so.
pub(super) fn write(exposition: &mut Exposition, board: &Board) {
    let cells = board.securities();
    let (telemetry, of_telemetry) = (board.telemetry_files(), ("of", "telemetry"));
    let mut family = exposition.gauge(
        "strait_certificate_expiry_timestamp_seconds",
        "When a certificate of our own ends, and the first of those that brokers showed last.",
    );
    for cell in &cells {
        let broker = cell.broker_expiry().map(|expiry| expiry.at);
        for (of, at) in [("client", cell.files.own_expiry()), ("broker", broker)] {
            if let Some(at) = at {
                family.sample(&[("cluster", &cell.cluster), ("of", of)], at);
            }
        }
    }
    if let Some(at) = telemetry.own_expiry() {
        family.sample(&[of_telemetry], at);
    }
    let mut family = exposition.gauge(
        "strait_security_files_refused",
        "1 while certificate or secret files hold what is not used; see /status.",
    );
    for cell in &cells {
        family.sample(&[("cluster", &cell.cluster)], u8::from(cell.files.refusal().is_some()));
    }
    family.sample(&[of_telemetry], u8::from(telemetry.refusal().is_some()));
    let mut family = exposition.counter(
        "strait_security_reloads_total",
        "Times that certificate or secret files had changed, by whether they were taken.",
    );
    for cell in &cells {
        both(
            &mut family,
            ("cluster", &cell.cluster),
            &cell.files.reloads,
            &cell.files.reloads_refused,
        );
    }
    both(&mut family, of_telemetry, &telemetry.reloads, &telemetry.reloads_refused);
    let mut family = exposition.counter(
        "strait_sasl_reauthentications_total",
        "SASL sessions that were to be renewed on their connection, by whether they were.",
    );
    for cell in &cells {
        let failed = &cell.reauthentications_failed;
        both(&mut family, ("cluster", &cell.cluster), &cell.reauthentications, failed);
    }
    let mut family = exposition
        .counter("strait_connections_total", "Connections that were opened, login and all.");
    for cell in &cells {
        family.sample(&[("cluster", &cell.cluster)], cell.connections.load(Relaxed));
    }
}

/// A counter of what was done and of what could not be.
fn both(family: &mut Family<'_>, whose: (&str, &str), ok: &AtomicU64, failed: &AtomicU64) {
    for (result, count) in [("ok", ok), ("failed", failed)] {
        family.sample(&[whose, ("result", result)], count.load(Relaxed));
    }
}
