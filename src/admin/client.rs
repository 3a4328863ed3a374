//! The one HTTP request that the command line makes: GET of a running process's telemetry.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::config::resolved::{self, Address, Secret, Telemetry};
use crate::config::values::parse_address;
use crate::connection::{Files, Peer, Tls};
use crate::env::{Env, Stream};
use crate::error::{Action, Code, Error, Side};
use crate::limits;

/// No process answers there.
const NOT_RUNNING: Code = Code(7);
const PATIENCE: Duration = Duration::from_secs(5);

/// Where telemetry is, as it is typed: `host:port`, `http://host:port` or `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name or number, which is also what a certificate must be for.
    pub address: Address,
    /// Whether it speaks TLS.
    pub is_tls: bool,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (is_tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, rest) => (false, rest.unwrap_or(text)),
        };
        let address = parse_address(rest.trim_end_matches('/'));
        address.map(|address| Self { address, is_tls }).map_err(|(what, fix)| {
            format!("{what} ({fix})") // As everywhere: what is wrong, and what would be right.
        })
    }
}

/// `localhost` is this machine in every resolver that follows RFC 6761.
fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// A process's telemetry, and what is shown and wanted there.
pub struct Endpoint {
    peer: Peer,
    /// Where that is; none asks the name server.
    at: Option<SocketAddr>,
    tls: Option<Tls>,
    token: Option<Secret>,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.peer.address.fmt(f)
    }
}

impl Endpoint {
    /// That of a process on this machine with this configuration.
    ///
    /// # Errors
    /// ST-029: the CA cannot be used.
    pub fn of(telemetry: &Telemetry) -> Result<Self, Error> {
        let at = telemetry.from_here();
        let host = telemetry.hosts.first().cloned().unwrap_or_else(|| at.ip().to_string());
        let place =
            Place { address: Address { host, port: at.port() }, is_tls: telemetry.tls.is_some() };
        let ca = telemetry.tls.as_ref().and_then(|tls| tls.ca.as_deref());
        Ok(Self { at: Some(at), ..Self::at(place, ca, telemetry.token.clone())? })
    }

    /// One anywhere; without a CA its certificate must be one of the public roots'.
    ///
    /// # Errors
    /// ST-029: the CA cannot be used. ST-007: a token would cross the network in clear.
    pub fn at(place: Place, ca: Option<&Path>, token: Option<Secret>) -> Result<Self, Error> {
        let Place { address, is_tls } = place;
        if token.is_some() && !is_tls && !is_this_machine(&address.host) {
            let what = format!("{address}: a token is not sent over a network without TLS");
            let fix = format!("--telemetry https://{address}");
            return Err(Error::new(NOT_RUNNING, Side::Local, Action::Stop, what).fix(fix));
        }
        let settings = resolved::Tls { ca: ca.map(Path::to_owned), ..Default::default() };
        let files = Files::read(&settings.ca.iter().cloned().collect::<Vec<_>>());
        let tls = if is_tls { Some(Tls::load(&settings, &files)?) } else { None };
        let peer = Peer {
            side: Side::Local,
            cluster: Arc::from("telemetry"),
            address,
            broker: None,
            tls: is_tls,
            client_certificate: false,
        };
        Ok(Self { peer, at: None, tls, token })
    }

    fn refuse(&self, what: impl fmt::Display) -> Error {
        let text = format!("{self}: {what}");
        Error::new(NOT_RUNNING, Side::Local, Action::Stop, text).fix(
            "is `strait run` up, and is this its `telemetry.listen`? --telemetry names another; its TLS and token are those of \
             the configuration, or --telemetry https://..., --telemetry-ca and --telemetry-token-file",
        )
    }

    async fn exchange(&self, env: &Env, path: &str) -> Result<Vec<u8>, String> {
        let told = |error: io::Error| error.to_string();
        let Address { host, port } = &self.peer.address;
        let at = match self.at {
            Some(at) => at,
            None => {
                let found = env.world().resolve(host, *port).await.map_err(told)?;
                *found.first().ok_or("does not resolve")?
            }
        };
        let stream = env.world().connect(at).await.map_err(told)?;
        let mut stream: Box<dyn Stream> = match &self.tls {
            None => stream,
            Some(tls) => {
                let secured = tls.handshake(&self.peer, stream).await;
                Box::new(secured.map_err(|error| error.message)?)
            }
        };
        let token = self.token.iter().map(Secret::expose);
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\n{}Connection: close\r\n\r\n",
            self.peer.address,
            token.collect::<String>()
        );
        stream.write_all(request.as_bytes()).await.map_err(told)?;
        stream.flush().await.map_err(told)?;
        let mut answer = Vec::new();
        let limit = limits::STATUS_BYTES_MAX as u64;
        stream.take(limit).read_to_end(&mut answer).await.map_err(told)?;
        Ok(answer)
    }
}

/// The body of an answer with status 200.
///
/// # Errors
/// Nobody listens, it is not to be trusted, does not let us in, or is no telemetry of Strait.
pub async fn get(env: &Env, endpoint: &Endpoint, path: &str) -> Result<String, Error> {
    let answer = timeout(PATIENCE, endpoint.exchange(env, path)).await;
    let answer = answer.map_err(|_| endpoint.refuse("no answer in 5 s"))?;
    let answer = answer.map_err(|what| endpoint.refuse(what))?;
    let answer = String::from_utf8(answer).map_err(|_| endpoint.refuse("not text"))?;
    let split = answer.split_once("\r\n\r\n");
    let (head, body) = split.ok_or_else(|| endpoint.refuse("not HTTP"))?;
    match head.split(' ').nth(1).unwrap_or_default() {
        "200" => Ok(body.to_owned()),
        "401" => Err(endpoint.refuse("HTTP status 401: it wants another token")),
        status => Err(endpoint.refuse(format_args!("HTTP status {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_crosses_a_network_by_tls_alone() {
        let token = || Some(Secret::new("0123456789abcdef"));
        let at = |place: &str, token| Endpoint::at(place.parse().unwrap(), None, token);
        let refused = at("strait.example:9660", token()).map(drop).unwrap_err();
        assert!(refused.to_string().contains("without TLS"), "{refused}");
        assert!(at("http://10.0.0.1:9660", token()).is_err());
        for (place, token) in [
            ("https://strait.example:9660", token()),
            ("localhost:9660", token()),
            ("127.0.0.1:9660", token()),
            ("strait.example:9660", None),
        ] {
            assert!(at(place, token).is_ok(), "{place}");
        }
    }
}
