//! OAuth 2's client credentials grant (RFC 6749 section 4.4): one POST over TLS, its answer bounded. Just enough
//! HTTP/1.1 for that: no redirects (the secret goes where the operator said), no keep-alive.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::super::diagnosis::{Peer, TOKEN};
use super::super::security::files::Files;
use super::super::tls::Tls;
use super::shown;
use crate::config::resolved::{self, Address, Secret};
use crate::env::Env;
use crate::error::{Action, Error, Side};
use crate::limits;

/// Where tokens are given, and what for.
pub(super) struct TokenEndpoint {
    peer: Peer,
    /// Path and query.
    target: String,
    tls: Tls,
    client: (String, Secret),
    scope: Option<String>,
}

/// What the endpoint gave.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) token: Secret,
    pub(super) lifetime: Duration,
}

impl TokenEndpoint {
    pub(super) fn load(
        url: &str,
        client: (String, Secret),
        scope: Option<String>,
        ca: Option<&Path>,
        files: &Files,
    ) -> Result<Self, Error> {
        let (address, target) = parse(url).ok_or_else(|| {
            let text = format!("token endpoint {url:?} is not https://host[:port]/path");
            Error::new(TOKEN, Side::Local, Action::Stop, text)
        })?;
        let settings = resolved::Tls { ca: ca.map(Path::to_owned), ..Default::default() };
        let tls = Tls::load(&settings, files)?;
        let cluster = Arc::from("token endpoint");
        let peer = Peer {
            side: Side::Local,
            cluster,
            address,
            broker: None,
            tls: true,
            client_certificate: false,
        };
        Ok(Self { peer, target, tls, client, scope })
    }

    /// Asks for a token. The error says where and why, without the secret.
    pub(super) async fn ask(&self, env: &Env) -> Result<Granted, String> {
        let at = |why: String| format!("token endpoint {}: {why}", self.peer.address);
        match tokio::time::timeout(limits::TOKEN_TIMEOUT, self.exchange(env)).await {
            Ok(answer) => answer.and_then(|answer| self.granted(&answer)).map_err(at),
            Err(_) => Err(at(format!("no answer in {} s", limits::TOKEN_TIMEOUT.as_secs()))),
        }
    }

    async fn exchange(&self, env: &Env) -> Result<Vec<u8>, String> {
        let Address { host, port } = &self.peer.address;
        let addresses = env.world().resolve(host, *port).await;
        let addresses = addresses.map_err(|error| format!("does not resolve: {error}"))?;
        let first = addresses.first().ok_or("does not resolve")?;
        let stream = env.world().connect(*first).await.map_err(|error| error.to_string())?;
        let stream = self.tls.handshake(&self.peer, stream).await;
        let mut stream = stream.map_err(|error| error.message)?;
        stream.write_all(self.request().as_bytes()).await.map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())?;
        read_answer(&mut stream).await
    }

    fn request(&self) -> String {
        let (id, secret) = &self.client;
        // RFC 6749 section 2.3.1: form-encoded before they are joined.
        let basic = format!("{}:{}", form_encoded(id), form_encoded(secret.expose()));
        let basic = BASE64_STANDARD.encode(basic);
        let mut body = "grant_type=client_credentials".to_owned();
        if let Some(scope) = &self.scope {
            body.push_str("&scope=");
            body.push_str(&form_encoded(scope));
        }
        format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {basic}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nAccept: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.target,
            self.peer.address,
            body.len(),
        )
    }

    fn granted(&self, answer: &[u8]) -> Result<Granted, String> {
        #[derive(serde::Deserialize)]
        struct Answer {
            access_token: Option<String>,
            expires_in: Option<u64>,
            error: Option<String>,
            error_description: Option<String>,
        }
        let (status, body) = split(answer)?;
        let json = serde_json::from_slice::<Answer>(&body);
        let (least, most) = limits::TOKEN_LIFETIME;
        match json {
            Ok(Answer { access_token: Some(token), expires_in, .. }) if status == 200 => {
                let lifetime = expires_in.map_or(least, Duration::from_secs).min(most);
                Ok(Granted { token: Secret::new(token), lifetime })
            }
            Ok(Answer { error: Some(error), error_description, .. }) => {
                let words = format!("{error} {}", error_description.unwrap_or_default());
                let words: String = shown(words.trim(), self.client.1.expose()).collect();
                Err(format!("HTTP {status}: {words}"))
            }
            _ if status == 200 => Err("HTTP 200 without an access_token".to_owned()),
            _ => Err(format!("HTTP {status}")),
        }
    }
}

/// `https://host[:port][/path][?query]`
fn parse(url: &str) -> Option<(Address, String)> {
    let rest = url.strip_prefix("https://")?;
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(at);
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, port) = v6.split_once(']')?;
            (host, port.strip_prefix(':').map_or(Some(443), |port| port.parse().ok())?)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, 443),
        },
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    let slash = if target.starts_with('/') { "" } else { "/" };
    let target = format!("{slash}{target}");
    let fits =
        !host.is_empty() && host.chars().all(legal) && target.chars().all(|c| c.is_ascii_graphic());
    fits.then(|| (Address { host: host.to_owned(), port }, target))
}

fn form_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Reads to the end that the peer makes, or that the answer's own length says.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, String> {
    let mut answer = Vec::new();
    let mut chunk = [0; 8 << 10];
    while !is_whole(&answer) {
        if answer.len() > limits::TOKEN_ANSWER_BYTES_MAX {
            return Err("the answer is too large".to_owned());
        }
        match stream.read(&mut chunk).await {
            Ok(0) => break,
            Ok(len) => answer.extend_from_slice(&chunk[..len]),
            // A server that ends TLS without close_notify: what came decides.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(answer)
}

fn is_whole(answer: &[u8]) -> bool {
    split(answer).is_ok()
}

/// Status and body, if all of it is there.
fn split(answer: &[u8]) -> Result<(u16, Vec<u8>), String> {
    let short = || "the answer ends early".to_owned();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(short)?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| "not HTTP")?;
    let mut body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")).ok_or("not HTTP")?;
    let status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("not HTTP")?;
    let header = |name: &str| {
        lines.clone().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        let mut whole = Vec::new();
        loop {
            let end = body.windows(2).position(|window| window == b"\r\n").ok_or_else(short)?;
            let size = std::str::from_utf8(&body[..end])
                .ok()
                .and_then(|line| usize::from_str_radix(line.split(';').next()?.trim(), 16).ok());
            let size = size.ok_or("broken chunks")?;
            body = &body[end + 2..];
            if size == 0 {
                return Ok((status, whole));
            }
            let chunk = body.get(..size).ok_or_else(short)?;
            whole.extend_from_slice(chunk);
            body = body.get(size + 2..).ok_or_else(short)?;
        }
    }
    let length = header("content-length").ok_or("neither Content-Length nor chunks")?;
    let length: usize = length.parse().map_err(|_| "a Content-Length that is none")?;
    let body = body.get(..length).ok_or_else(short)?;
    Ok((status, body.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_urls_are_taken() {
        let parsed = |url: &str| parse(url).map(|(at, target)| format!("{at} {target}"));
        assert_eq!(parsed("https://idp").unwrap(), "idp:443 /");
        assert_eq!(parsed("https://idp:8443/a/b?c=d").unwrap(), "idp:8443 /a/b?c=d");
        assert_eq!(parsed("https://idp?c").unwrap(), "idp:443 /?c");
        assert_eq!(parsed("https://[::1]:1/t").unwrap(), "[::1]:1 /t");
        for bad in [
            "http://idp/",
            "idp",
            "https://",
            "https://:1/",
            "https://i:x/",
            "https://i/\r\nX: y",
            "https://u@idp/",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn answers_are_cut_by_length_or_chunks() {
        let plain = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}more";
        assert_eq!(split(plain).unwrap(), (200, b"{}".to_vec()));
        let chunked =
            b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\n{\r\n1\r\n}\r\n0\r\n\r\n";
        assert_eq!(split(chunked).unwrap(), (401, b"{}".to_vec()));
        for cut in 0..chunked.len() - 2 {
            assert!(split(&chunked[..cut]).is_err(), "{cut}");
        }
        for bad in [
            &b"SSH-2.0-x\r\n\r\n\r\n"[..],
            b"HTTP/1.1 ok\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ] {
            assert!(split(bad).is_err());
        }
    }

    #[test]
    fn what_is_joined_is_encoded_first() {
        assert_eq!(form_encoded("a b:c&d=ü-._~"), "a%20b%3Ac%26d%3D%C3%BC-._~");
    }
}
