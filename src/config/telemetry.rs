//! The telemetry listener: where it listens, and who may ask it. Beyond this machine only with TLS and a token.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::secret::Secret;
use super::written::{Fields, Reading};
use super::yaml::Node;
use crate::limits;

/// Fewer characters of a token can be guessed by who may ask a million times.
const TOKEN_CHARS_MIN: usize = 16;

/// The telemetry listener.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Names by which it may be asked, besides its address and `localhost`; by the first one `strait status` checks its
    /// certificate.
    pub hosts: Vec<String>,
    /// None is plain HTTP.
    pub tls: Option<ListenerTls>,
    /// What who asks must show; none is nothing.
    pub token: Option<Secret>,
}

/// TLS of a listener of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// PEM file of its certificate chain.
    pub cert: PathBuf,
    /// PEM file of the certificate's key.
    pub key: PathBuf,
    /// PEM file of the private CA by which `strait status` trusts it; none is the public roots of the system.
    pub ca: Option<PathBuf>,
}

impl Telemetry {
    /// Plain HTTP without a token.
    pub fn plain(listen: SocketAddr) -> Self {
        Self { listen, hosts: Vec::new(), tls: None, token: None }
    }

    /// Where this machine itself reaches it.
    pub fn from_here(&self) -> SocketAddr {
        let ip = match self.listen.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        SocketAddr::new(ip, self.listen.port())
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::plain(SocketAddr::from(([127, 0, 0, 1], 9660)))
    }
}

/// Whether a token can be sent in a header as it is (RFC 6750's b64token) and not be guessed. The fix, if not.
pub(crate) fn unfit_token(token: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    if !token.chars().all(legal) {
        Some("use letters, digits and - . _ ~ + / = alone (openssl rand -hex 32)".to_owned())
    } else if token.len() < TOKEN_CHARS_MIN {
        Some(format!("use {TOKEN_CHARS_MIN} characters or more (openssl rand -hex 32)"))
    } else {
        None
    }
}

impl Reading<'_> {
    pub(super) fn telemetry(&mut self, node: Option<&Node>) -> Option<Telemetry> {
        let mut telemetry = Telemetry::default();
        let Some(mut fields) = node.and_then(|n| self.fields(n, "telemetry".into(), "telemetry"))
        else {
            return Some(telemetry);
        };
        let listen = fields.text(self, "listen");
        let tls = fields.get(self, "tls");
        telemetry.tls = tls.and_then(|node| self.listener_tls(node, fields.path_of("tls")));
        telemetry.token = self.telemetry_token(&mut fields);
        let has_token = fields.has("token") || fields.has("token_file");
        if let Some(node) = fields.get(self, "hosts") {
            telemetry.hosts = self.telemetry_hosts(node, &fields.path_of("hosts"));
        }
        fields.finish(self);
        let Some(listen) = listen else { return Some(telemetry) };
        if listen.value == "off" {
            return None;
        }
        match listen.value.replace("localhost:", "127.0.0.1:").parse::<SocketAddr>() {
            Ok(addr) => telemetry.listen = addr,
            Err(_) => {
                let what = format!("{} is not an address to listen at", listen.quoted());
                let fix = "write address:port, for instance 127.0.0.1:9660, or `off`";
                self.error(listen.at, what, fix);
            }
        }
        let (missing, fix) = match (tls.is_some(), has_token) {
            (true, true) => return Some(telemetry),
            (true, false) => ("a token", "add `token: \"${env:NAME}\"` or `token_file`"),
            (false, true) => ("TLS", "add `tls: { cert: server.pem, key: server.key }`"),
            (false, false) => (
                "TLS and a token",
                "add `tls: { cert: server.pem, key: server.key }` and `token: \"${env:NAME}\"`",
            ),
        };
        if !telemetry.listen.ip().to_canonical().is_loopback() {
            let addr = telemetry.listen;
            let what = format!("telemetry at {addr} is open to others without {missing}");
            self.error(listen.at, what, format!("{fix}, or listen at 127.0.0.1"));
        }
        Some(telemetry)
    }

    fn listener_tls(&mut self, node: &Node, path: String) -> Option<ListenerTls> {
        let mut fields = self.fields(node, path, "tls")?;
        let mut file = |reading: &mut Self, key| {
            let node = fields.get(reading, key);
            node.and_then(|node| reading.file(node, &fields.path_of(key)))
        };
        let (cert, key, ca) = (file(self, "cert"), file(self, "key"), file(self, "ca"));
        for key in ["cert", "key"] {
            if !fields.has(key) {
                let what = format!("`{key}` is missing in {}", fields.path);
                self.error(node.at, what, "name the listener's certificate and its key");
            }
        }
        fields.finish(self);
        Some(ListenerTls { cert: cert?, key: key?, ca })
    }

    fn telemetry_token(&mut self, fields: &mut Fields<'_>) -> Option<Secret> {
        if !fields.has("token") && !fields.has("token_file") {
            fields.know(&["token", "token_file"]);
            return None;
        }
        let key = if fields.has("token_file") { "token_file" } else { "token" };
        let token = fields.secret(self, "token", "token_file")?;
        if let Some(fix) = unfit_token(token.expose())
            && let Some(node) = fields.get(self, key)
        {
            self.error(node.at, format!("`{key}` is no token to go by"), fix);
        }
        Some(token)
    }

    fn telemetry_hosts(&mut self, node: &Node, path: &str) -> Vec<String> {
        let mut hosts = Vec::new();
        for text in self.texts(node, path) {
            let legal = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
            let is_name = text.value.chars().all(legal) || text.value.parse::<IpAddr>().is_ok();
            if is_name && (1..=limits::HOST_CHARS_MAX).contains(&text.value.len()) {
                hosts.push(text.value);
            } else {
                let what = format!("{} is not a host name", text.quoted());
                self.error(text.at, what, "write the name alone, without scheme and port");
            }
        }
        hosts
    }
}
