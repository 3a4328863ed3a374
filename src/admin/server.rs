//! The listener: HTTP/1.1, GET and HEAD only, one request a connection, everything bounded.
//!
//! Runs on the control thread. Never reads a body, never keeps a connection that does not ask.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Status, exposition, metrics};
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

/// Serves the board at an address until dropped; connections end with it.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(
    env: Env,
    addr: SocketAddr,
    board: Arc<Board>,
) -> Result<(SocketAddr, impl Future<Output = ()>), Error> {
    let listener = env.world().listen(addr).await.map_err(|error| {
        let what = format!("telemetry cannot listen at {addr}: {error}");
        Error::new(LISTEN, Side::Local, Action::Stop, what)
            .fix("set another `telemetry.listen`, or `off`")
    })?;
    let bound = listener.local_addr();
    Ok((bound, accept(listener, board, Patience::LIMITS)))
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

async fn accept(listener: Box<dyn Listener>, board: Arc<Board>, patience: Patience) {
    let mut connections = JoinSet::new();
    loop {
        // At the bound the next peer waits for one of these to end, which each does within its timeout.
        while connections.len() >= limits::TELEMETRY_CONNECTIONS_MAX {
            connections.join_next().await;
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, board.clone(), patience));
                }
                // Out of file descriptors, most likely: the listener itself stays good.
                Err(error) => {
                    tracing::warn!(%error, "telemetry: accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: Box<dyn Stream>, board: Arc<Board>, patience: Patience) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let response = answer(&board, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(patience.header)
        .keep_alive(false)
        .max_buf_size(limits::TELEMETRY_REQUEST_BYTES_MAX);
    let served = http.serve_connection(TokioIo::new(stream), service);
    // What a peer does wrong is the peer's affair: nothing is logged that it could flood.
    let _ = timeout(patience.whole, served).await;
}

/// What a request is told.
fn answer<B>(board: &Board, request: &Request<B>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".into());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    // A body is never read: a proxy before us and we cannot disagree on where one ends.
    let length = request.headers().get(CONTENT_LENGTH);
    if request.headers().contains_key(TRANSFER_ENCODING) || length.is_some_and(|n| n != "0") {
        return reply(StatusCode::BAD_REQUEST, TEXT, "no body\n".into());
    }
    match request.uri().path() {
        "/" => reply(StatusCode::OK, TEXT, INDEX.into()),
        "/metrics" => reply(StatusCode::OK, exposition::CONTENT_TYPE, metrics(board)),
        "/status" => match serde_json::to_string(&Status::of(board)) {
            Ok(json) => reply(StatusCode::OK, "application/json", json),
            Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
        },
        "/healthz" => reply(StatusCode::OK, TEXT, "ok\n".into()),
        "/readyz" => ready(board),
        _ => reply(StatusCode::NOT_FOUND, TEXT, INDEX.into()),
    }
}

fn ready(board: &Board) -> Response<Full<Bytes>> {
    let mut reasons = String::new();
    if board.draining() {
        reasons.push_str("draining\n");
    }
    for link in board.links() {
        if board.link_state(&link) == LinkState::Failed {
            reasons.push_str(&format!("link {} failed\n", link.name));
        }
    }
    if reasons.is_empty() {
        reply(StatusCode::OK, TEXT, "ok\n".into())
    } else {
        reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, reasons)
    }
}

fn reply(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
