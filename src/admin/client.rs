//! The one HTTP request that the command line makes: GET of a running process's telemetry.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::env::Env;
use crate::error::{Action, Code, Error, Side};
use crate::limits;

/// No process answers there.
const NOT_RUNNING: Code = Code(7);

/// The body of an answer with status 200.
///
/// # Errors
/// Nobody listens, or what listens is not telemetry of Strait.
pub async fn get(env: &Env, addr: SocketAddr, path: &str) -> Result<String, Error> {
    let refuse = |what: String| {
        Error::new(NOT_RUNNING, Side::Local, Action::Stop, format!("{addr}: {what}")).fix(
            "is `strait run` up, and is this its `telemetry.listen`? --telemetry names another",
        )
    };
    let exchange = async {
        let mut stream = env.world().connect(addr).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(limits::STATUS_BYTES_MAX as u64).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(Duration::from_secs(5), exchange)
        .await
        .map_err(|_| refuse("no answer in 5 s".into()))?
        .map_err(|error| refuse(error.to_string()))?;
    let answer = String::from_utf8(answer).map_err(|_| refuse("not text".into()))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| refuse("not HTTP".into()))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        return Err(refuse(format!("HTTP status {status}")));
    }
    Ok(body.to_owned())
}
