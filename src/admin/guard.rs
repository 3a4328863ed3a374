//! Who may ask: TLS, the token, and the names that a request may be for. Owns what is refused before a request means
//! anything; never looks at a path, but for the two that tell whether the process is well.
//!
//! A page in an operator's browser can be led to any address by a name that its author owns (DNS rebinding), and then
//! reads what it is told. Such a request names that host, and that is how it is known. An address in its place cannot be led
//! anywhere.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::{constant_time, digest};
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::http::uri::Authority;
use hyper::{Request, StatusCode};
use tokio_rustls::TlsAcceptor;

use crate::config::resolved::Telemetry;
use crate::config::telemetry::unfit_token;
use crate::connection::{
    Files, InUse, Look, Told, Validity, Watch, Whose, acceptor, not_taken, read_again, unusable,
};
use crate::engine::stats::{Board, FilesCell};
use crate::env::Env;
use crate::error::Error;

/// What the listener demands.
pub(super) struct Guard {
    settings: Telemetry,
    files: Vec<PathBuf>,
    current: Mutex<Arc<Current>>,
}

/// What its files hold by now.
#[derive(Default)]
pub(super) struct Current {
    pub(super) tls: Option<TlsAcceptor>,
    /// Of the certificate.
    validity: Option<Validity>,
    token: Option<Token>,
}

/// A token by its hash, so that a comparison takes as long whatever its length.
struct Token([u8; 32]);

/// How far a request is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It shows the token, or there is none.
    Full,
    /// It shows none, or another: it may ask whether the process is well.
    Probe,
}

/// What a request is refused with.
pub(super) type Refusal = (StatusCode, &'static str);

impl Guard {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// ST-029: a file holds no certificate, key or token.
    pub(super) fn load(settings: &Telemetry) -> Result<(Self, Watch), Error> {
        let mut paths = Vec::new();
        if let Some(tls) = &settings.tls {
            paths.extend([tls.cert.clone(), tls.key.clone()]);
        }
        paths.extend(settings.token.iter().flat_map(read_again));
        let files = Files::read(&paths);
        let current = Current::load(settings, &files)?;
        let watch = Watch::new(files.print());
        let current = Mutex::new(Arc::new(current));
        Ok((Self { settings: settings.clone(), files: paths, current }, watch))
    }

    /// What a connection that begins now is held to.
    pub(super) fn now(&self) -> Arc<Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what its files hold anew and tells of its certificate's end, as for clusters; ends at once where there are none.
    pub(super) async fn keep_fresh(self: Arc<Self>, env: Env, board: Arc<Board>, mut watch: Watch) {
        let (cell, mut told) = (board.telemetry_files(), Told::default());
        cell.began(self.now().expiry());
        while !self.files.is_empty() {
            let files = Files::next_look(&self.files).await;
            let now = env.wall_clock_ms() / 1000;
            self.look(&files, &mut watch, cell, now);
            if let Some(own) = self.now().validity {
                let (whose, life) = (Whose::Telemetry, Some(own.life()));
                let in_use = InUse { whose, not_after: own.not_after, life };
                if let Some(error) = told.warning(&in_use, now) {
                    tracing::warn!(%error, "a certificate ends");
                }
            }
        }
    }

    /// One look.
    fn look(&self, files: &Files, watch: &mut Watch, cell: &FilesCell, now: i64) {
        match watch.look(files.print()) {
            Look::Leave => return,
            Look::InUse { was_refused } => {
                if was_refused {
                    tracing::info!("the telemetry files hold again what is in use");
                }
                return cell.are_in_use();
            }
            Look::Judge => {}
        }
        let new = Current::load(&self.settings, files);
        match new.and_then(|new| new.usable(&self.settings, now)) {
            Ok(new) => {
                let expiry = new.expiry();
                *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                watch.took();
                cell.took(expiry);
                tracing::info!("telemetry uses what its certificate or token files hold now");
            }
            Err(error) => {
                let error = not_taken(error);
                tracing::warn!(%error, "telemetry does not use a changed file");
                watch.refused();
                cell.refused(error);
            }
        }
    }

    /// Whether a request may be for us at all.
    pub(super) fn admit<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let headers = request.headers();
        let host = only(headers, &HOST).ok_or((StatusCode::BAD_REQUEST, "one Host header\n"))?;
        let named = request.uri().authority().map(Authority::as_str);
        let is_named = named.is_none_or(|named| named.eq_ignore_ascii_case(host));
        if !is_named || !self.is_ours(host) {
            let what = "not a name of this listener: see `telemetry.hosts`\n";
            return Err((StatusCode::MISDIRECTED_REQUEST, what));
        }
        if headers.contains_key(ORIGIN) && !only(headers, &ORIGIN).is_some_and(|o| is_same(o, host))
        {
            return Err((StatusCode::FORBIDDEN, "not from another origin\n"));
        }
        Ok(())
    }

    fn is_ours(&self, host: &str) -> bool {
        // What stands before an @ is no host.
        let Some(host) = Some(host).filter(|host| !host.contains('@')) else { return false };
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host();
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let bare = bare.strip_suffix('.').unwrap_or(bare);
        let listed = self.settings.hosts.iter().any(|host| host.eq_ignore_ascii_case(bare));
        let listen = self.settings.listen.ip();
        let is_address = |ip: IpAddr| {
            let ip = ip.to_canonical();
            ip.is_loopback() || listen.is_unspecified() || ip == listen.to_canonical()
        };
        listed || bare.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(is_address)
    }
}

impl Current {
    fn load(settings: &Telemetry, files: &Files) -> Result<Self, Error> {
        let tls = settings.tls.as_ref().map(|tls| acceptor(&tls.cert, &tls.key, files));
        let (tls, validity) = tls.transpose()?.unzip();
        let token = settings.token.as_ref().map(|token| {
            let token = files.again(token)?;
            match unfit_token(token.expose()) {
                Some(fix) => {
                    Err(unusable("`telemetry.token` is no token to go by".into()).fix(fix))
                }
                None => Ok(Token(hash(token.expose()))),
            }
        });
        Ok(Self { tls, validity: validity.flatten(), token: token.transpose()? })
    }

    fn expiry(&self) -> Option<i64> {
        self.validity.map(|validity| validity.not_after)
    }

    /// Whether it may take the place of what is in use, which works.
    fn usable(self, settings: &Telemetry, now: i64) -> Result<Self, Error> {
        if let Some((validity, tls)) = self.validity.zip(settings.tls.as_ref()) {
            validity.usable(&tls.cert, now)?;
        }
        Ok(self)
    }

    /// How far a request is let in by the token that it shows.
    pub(super) fn access(&self, headers: &HeaderMap) -> Access {
        let Some(Token(wanted)) = &self.token else { return Access::Full };
        let shown = only(headers, &AUTHORIZATION).and_then(|shown| shown.split_once(' '));
        match shown {
            Some((scheme, token))
                if scheme.eq_ignore_ascii_case("bearer")
                    && constant_time::verify_slices_are_equal(&hash(token), wanted).is_ok() =>
            {
                Access::Full
            }
            _ => Access::Probe,
        }
    }
}

fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

/// A header that stands there once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    if all.next().is_some() { None } else { first.to_str().ok() }
}

/// Whether a page of this origin comes from the host that it asks.
fn is_same(origin: &str, host: &str) -> bool {
    let scheme = ["http://", "https://"].iter().find_map(|scheme| origin.strip_prefix(scheme));
    scheme.is_some_and(|origin| origin.eq_ignore_ascii_case(host))
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
