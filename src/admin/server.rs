//! The listener: HTTP/1.1, GET and HEAD only, one request a connection, everything bounded. Who may ask is the guard's affair.
//!
//! Runs on the control thread. Never reads a body, never keeps a connection that does not ask.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;

use super::guard::{Access, Current, Guard};
use super::served::{Asked, Served};
use super::texts::Texts;
use super::{Status, exposition, metrics};
use crate::config::resolved::Telemetry;
use crate::engine::stats::{Board, LinkState};
use crate::env::{Env, Listener, Stream};
use crate::error::{Action, Code, Error, Side};
use crate::limits;

const TEXT: &str = "text/plain; charset=utf-8";

/// The address is taken or not ours.
const LISTEN: Code = Code(8);

const INDEX: &str = "\
strait, read-only
/metrics  for Prometheus
/status   JSON, schema strait.status/1
/healthz  200 while the process lives
/readyz   200 while every link can run; 503 otherwise, with the reason
";

/// Serves the board as the configuration says until dropped; connections end with it.
///
/// # Errors
/// The address cannot be bound, or the certificate, its key or the token cannot be used.
pub async fn serve(
    env: Env,
    telemetry: &Telemetry,
    board: Arc<Board>,
) -> Result<(SocketAddr, impl Future<Output = ()> + use<>), Error> {
    let (guard, watch) = Guard::load(telemetry)?;
    let addr = telemetry.listen;
    let listener = env.world().listen(addr).await.map_err(|error| {
        let what = format!("telemetry cannot listen at {addr}: {error}");
        Error::new(LISTEN, Side::Local, Action::Stop, what)
            .fix("set another `telemetry.listen`, or `off`")
    })?;
    let bound = listener.local_addr();
    let site = Arc::new(Site::new(board, guard));
    let fresh = site.guard.clone().keep_fresh(env, site.board.clone(), watch);
    let serve = async move {
        join(accept(listener, site, Patience::LIMITS), fresh).await;
    };
    Ok((bound, serve))
}

/// Whether `serve` could use the files that the configuration names.
///
/// # Errors
/// The certificate, its key or the token cannot be used.
pub fn check(telemetry: &Telemetry) -> Result<(), Error> {
    Guard::load(telemetry).map(drop)
}

/// What is served, and to whom.
struct Site {
    board: Arc<Board>,
    guard: Arc<Guard>,
    metrics: Texts,
    status: Texts,
}

impl Site {
    fn new(board: Arc<Board>, guard: Guard) -> Self {
        let (metrics, status) = Default::default();
        Self { board, guard: Arc::new(guard), metrics, status }
    }
}

/// How long a peer may take.
#[derive(Clone, Copy)]
struct Patience {
    header: Duration,
    whole: Duration,
}

impl Patience {
    const LIMITS: Self = Self {
        header: limits::TELEMETRY_HEADER_TIMEOUT,
        whole: limits::TELEMETRY_CONNECTION_TIMEOUT,
    };
}

async fn accept(listener: Box<dyn Listener>, site: Arc<Site>, patience: Patience) {
    let mut served = Served::new(site.guard.now().tls.is_some());
    loop {
        served.room().await;
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let site = site.clone();
                    served.spawn(|asked| connection(stream, site, patience, asked));
                }
                // Out of file descriptors, most likely: the listener itself stays good.
                Err(error) => {
                    tracing::warn!(%error, "telemetry: accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            () = served.ended() => {}
        }
    }
}

/// What a peer does wrong is the peer's affair: nothing is logged that it could flood.
async fn connection(stream: Box<dyn Stream>, site: Arc<Site>, patience: Patience, asked: Asked) {
    let current = site.guard.now();
    let served = async {
        let stream: Box<dyn Stream> = match &current.tls {
            None => stream,
            Some(tls) => match timeout(patience.header, tls.accept(stream)).await {
                Ok(Ok(stream)) => Box::new(stream),
                _ => return,
            },
        };
        let service = service_fn(|request: Request<hyper::body::Incoming>| {
            asked.set();
            let response = answer(&site, &current, &request);
            async move { Ok::<_, Infallible>(response) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(patience.header)
            .keep_alive(false)
            .max_buf_size(limits::TELEMETRY_REQUEST_BYTES_MAX);
        let _ = http.serve_connection(TokioIo::new(stream), service).await;
    };
    let _ = timeout(patience.whole, served).await;
}

/// What a request is told.
fn answer<B>(site: &Site, current: &Current, request: &Request<B>) -> Response<Full<Bytes>> {
    if let Err((status, why)) = site.guard.admit(request) {
        return reply(status, TEXT, why);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    // A body is never read: a proxy before us and we cannot disagree on where one ends.
    let length = request.headers().get(CONTENT_LENGTH);
    if request.headers().contains_key(TRANSFER_ENCODING) || length.is_some_and(|n| n != "0") {
        return reply(StatusCode::BAD_REQUEST, TEXT, "no body\n");
    }
    let board = &site.board;
    match (request.uri().path(), current.access(request.headers())) {
        ("/healthz", _) => reply(StatusCode::OK, TEXT, "ok\n"),
        ("/readyz", access) => ready(board, access),
        (_, Access::Probe) => {
            let mut response = reply(StatusCode::UNAUTHORIZED, TEXT, "a token is wanted\n");
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
        ("/", Access::Full) => reply(StatusCode::OK, TEXT, INDEX),
        ("/metrics", Access::Full) => {
            let Ok(text) = site.metrics.text(|| Ok::<_, Infallible>(metrics(board)));
            reply(StatusCode::OK, exposition::CONTENT_TYPE, text)
        }
        ("/status", Access::Full) => {
            match site.status.text(|| serde_json::to_string(&Status::of(board))) {
                Ok(json) => reply(StatusCode::OK, "application/json", json),
                Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
            }
        }
        (_, Access::Full) => reply(StatusCode::NOT_FOUND, TEXT, INDEX),
    }
}

/// The reasons name links: who shows no token hears that there are some.
fn ready(board: &Board, access: Access) -> Response<Full<Bytes>> {
    let mut reasons = String::new();
    if board.draining() {
        reasons.push_str("draining\n");
    }
    for link in board.links() {
        if board.link_state(&link) == LinkState::Failed {
            reasons.push_str(&format!("link {} failed\n", link.name));
        }
    }
    match (reasons.is_empty(), access) {
        (true, _) => reply(StatusCode::OK, TEXT, "ok\n"),
        (false, Access::Full) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, reasons),
        (false, Access::Probe) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready\n"),
    }
}

fn reply(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        // Topic names are others' words: no browser is to make more of them than text.
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
#[path = "flood_tests.rs"]
mod flood_tests;
#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
