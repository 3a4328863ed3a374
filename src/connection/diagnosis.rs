//! What a failing connection means, in the operator's words. Owns the naming of the first-hour failures; never retries,
//! never sees a secret.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::{AlertDescription as Alert, CertificateError, InvalidMessage};

use crate::config::resolved::Address;
use crate::error::{Action, Code, Error, Side};
use crate::wire::frame::FrameError;
use crate::wire::{ApiKey, WireError};

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Resolving the name.
    Dns,
    /// TCP connect.
    Tcp,
    /// TLS handshake.
    Tls,
    /// The first request.
    ApiVersions,
    /// Authentication.
    Sasl,
    /// In use.
    Ready,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Dns => "resolving the name",
            Self::Tcp => "the TCP connect",
            Self::Tls => "the TLS handshake",
            Self::ApiVersions => "the first answer (ApiVersions)",
            Self::Sasl => "SASL authentication",
            Self::Ready => "an answer",
        }
    }
}

/// Who is at the other end, for error texts.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Source or target.
    pub side: Side,
    /// The cluster's name in the configuration.
    pub cluster: Arc<str>,
    /// What is dialled.
    pub address: Address,
    /// The broker id, where metadata gave the address; none is a bootstrap address.
    pub broker: Option<i32>,
    /// Whether TLS is configured.
    pub tls: bool,
    /// Whether a client certificate is configured.
    pub client_certificate: bool,
}

const NAME: Code = Code(10);
const ADVERTISED: Code = Code(11);
const PLAINTEXT_TO_TLS: Code = Code(12);
const TLS_TO_PLAINTEXT: Code = Code(13);
const NOT_KAFKA: Code = Code(14);
const UNREACHABLE: Code = Code(15);
const TIMEOUT: Code = Code(16);
const UNTRUSTED: Code = Code(17);
const WRONG_HOST: Code = Code(18);
const EXPIRED: Code = Code(19);
const CLIENT_CERTIFICATE: Code = Code(20);
const TLS_NEGOTIATION: Code = Code(21);
pub(super) const CREDENTIALS: Code = Code(22);
pub(super) const MECHANISM: Code = Code(23);
pub(super) const SASL_DISTRUST: Code = Code(24);
pub(super) const TOO_OLD: Code = Code(25);
pub(crate) const PROTOCOL: Code = Code(26);
const LOST: Code = Code(27);
pub(super) const TOKEN: Code = Code(28);
pub(crate) const SECURITY_FILE: Code = Code(29);
pub(super) const PASSWORD_IN_CLEAR: Code = Code(9);

impl Peer {
    /// An error at this peer that another attempt may cure.
    pub(crate) fn error(&self, code: Code, message: impl Into<String>) -> Error {
        let broker = match self.broker {
            Some(id) => format!("{id} ({})", self.address),
            None => self.address.to_string(),
        };
        Error::new(code, self.side, Action::Retry, message)
            .cluster(self.cluster.to_string())
            .broker(broker)
    }

    pub(super) fn unresolved(&self, error: Option<&io::Error>) -> Error {
        let host = &self.address.host;
        let why = error.map_or("no address".to_owned(), ToString::to_string);
        match self.broker {
            None => self
                .error(NAME, format!("bootstrap host {host:?} does not resolve: {why}"))
                .fix("check the spelling in `bootstrap` and the name server of this machine"),
            Some(id) => self
                .error(
                    ADVERTISED,
                    format!(
                        "broker {id} advertises {}, which does not resolve from here: {why}",
                        self.address
                    ),
                )
                .fix(
                    "bootstrap worked, metadata points elsewhere: advertised.listeners of that \
                     broker is for another network; use a listener meant for clients out here",
                ),
        }
    }

    pub(super) fn unreachable(&self, addresses: usize, error: &io::Error) -> Error {
        let refused = error.kind() == io::ErrorKind::ConnectionRefused;
        let what = if refused { "connection refused".to_owned() } else { error.to_string() };
        let tried = match addresses {
            0 | 1 => String::new(),
            n => format!(" (the last of {n} addresses tried)"),
        };
        let Some(id) = self.broker else {
            let error = self.error(UNREACHABLE, format!("{what}{tried}"));
            return error.fix("is the broker up, the port right, and the way to it open?");
        };
        let text = format!("broker {id} advertises {}: {what}{tried}", self.address);
        if self.advertises_loopback() {
            self.error(ADVERTISED, text).fix(
                "it tells its clients to dial this machine: set advertised.listeners of that \
                 broker to a name that clients out here can reach",
            )
        } else {
            self.error(UNREACHABLE, text)
                .fix("is that broker up, and is its advertised listener reachable from here?")
        }
    }

    fn advertises_loopback(&self) -> bool {
        let host = &self.address.host;
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    pub(super) fn timed_out(&self, stage: Stage, after: std::time::Duration) -> Error {
        let text = format!("timed out in {} ({} s in all)", stage.name(), after.as_secs());
        let error = self.error(TIMEOUT, text);
        match stage {
            Stage::Dns => error.fix("the name server does not answer"),
            Stage::Tcp => {
                error.fix("nothing answers there: a firewall that drops, or a wrong host")
            }
            Stage::Tls => error.fix(
                "it took the connection and does not speak TLS: is this a plaintext listener?",
            ),
            Stage::ApiVersions if !self.tls => error
                .fix("it took the connection and does not answer: a TLS listener, or not Kafka"),
            _ => error.fix("the broker is overloaded, or something between holds the bytes"),
        }
    }

    /// What the first bytes of an answer are, if they are not Kafka's.
    fn foreign(&self, head: &[u8]) -> Option<Error> {
        match head {
            [0x15, 0x03, ..] => Some(
                self.error(
                    PLAINTEXT_TO_TLS,
                    "answered a plaintext request with a TLS alert (15 03)",
                )
                .fix(format!("set `tls:` for cluster {}", self.cluster)),
            ),
            [0x16, 0x03, ..] => Some(
                self.error(PLAINTEXT_TO_TLS, "answered a plaintext request with a TLS handshake")
                    .fix(format!("set `tls:` for cluster {}", self.cluster)),
            ),
            b"HTTP" | b"<htm" | b"<HTM" | b"<!DO" => Some(
                self.error(NOT_KAFKA, "speaks HTTP, not Kafka")
                    .fix("the port is a web server's (a proxy, Schema Registry, a console?)"),
            ),
            b"SSH-" => Some(self.error(NOT_KAFKA, "speaks SSH, not Kafka").fix("check the port")),
            _ => None,
        }
    }

    /// The peer closed between two frames; `head` is what came of the next one.
    pub(super) fn ended(&self, stage: Stage, head: &[u8]) -> Error {
        if let Some(error) = self.foreign(head) {
            return error;
        }
        match stage {
            Stage::ApiVersions if !self.tls => self
                .error(PLAINTEXT_TO_TLS, "closed the connection at the first plaintext request")
                .fix(format!(
                    "most often a TLS listener (set `tls:` for cluster {}); else a listener that \
                     speaks another protocol, or a broker that refuses this address",
                    self.cluster
                )),
            Stage::ApiVersions if !self.client_certificate => self
                .error(CLIENT_CERTIFICATE, "closed the connection right after the TLS handshake")
                .fix("most often it wants a client certificate: set `tls.cert` and `tls.key`"),
            Stage::Sasl => self
                .error(CREDENTIALS, "closed the connection during authentication")
                .fix("the broker's log has the reason"),
            _ => self.error(LOST, "closed the connection").reconnect(),
        }
    }

    /// The peer answered ApiVersions, which needs no authentication, and closed at what came next.
    pub(super) fn wants_sasl(&self) -> Error {
        self.error(MECHANISM, "closed the connection at the first request after ApiVersions")
            .fix(format!("most often a listener that wants SASL: set `sasl:` for {}", self.cluster))
            .reconnect()
    }

    pub(super) fn ended_within(&self, stage: Stage, filled: usize, size: usize) -> Error {
        let text =
            format!("closed the connection after {filled} of {size} bytes, in {}", stage.name());
        self.error(LOST, text).reconnect()
    }

    pub(super) fn unsolicited(&self, stage: Stage, head: [u8; 4]) -> Error {
        let text = format!("sent bytes that no request asked for, in {}", stage.name());
        self.foreign(&head).unwrap_or_else(|| self.error(PROTOCOL, text).reconnect())
    }

    pub(super) fn bad_frame(
        &self,
        stage: Stage,
        head: [u8; 4],
        api: ApiKey,
        error: FrameError,
    ) -> Error {
        self.foreign(&head).unwrap_or_else(|| {
            let text = format!("sent no answer to {api:?}, in {}: {error}", stage.name());
            self.error(PROTOCOL, text).reconnect()
        })
    }

    pub(super) fn wrong_correlation_id(&self, api: ApiKey, wanted: i32, got: i32) -> Error {
        let text = format!("answered {api:?} with correlation id {got}, not {wanted}");
        self.error(PROTOCOL, text).reconnect()
    }

    pub(crate) fn undecodable(&self, api: ApiKey, error: WireError) -> Error {
        self.error(PROTOCOL, format!("sent an answer to {api:?} that cannot be read: {error}"))
            .reconnect()
    }

    pub(super) fn overdue(
        &self,
        stage: Stage,
        api: ApiKey,
        arrived: Option<(usize, usize)>,
    ) -> Error {
        let progress = match arrived {
            Some((filled, size)) => format!(" ({filled} of {size} bytes of an answer came)"),
            None => String::new(),
        };
        let text = format!("no answer to {api:?} in time, in {}{progress}", stage.name());
        self.error(TIMEOUT, text).reconnect()
    }

    pub(super) fn closed_by_us(&self) -> Error {
        self.error(LOST, "the connection was closed on this side").reconnect()
    }

    /// An error of the socket or of TLS.
    pub(super) fn io(&self, stage: Stage, error: &io::Error) -> Error {
        if let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
            return self.tls(stage, tls);
        }
        let gone = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionAborted
        );
        match stage {
            Stage::Tls if gone => self
                .error(TLS_TO_PLAINTEXT, "closed the connection at the TLS hello")
                .fix(format!(
                    "most often a plaintext listener: remove `tls:` for cluster {}, or dial its TLS port",
                    self.cluster
                )),
            Stage::ApiVersions | Stage::Sasl if gone => self.ended(stage, &[]),
            _ => self
                .error(LOST, format!("connection lost in {}: {error}", stage.name()))
                .reconnect(),
        }
    }

    pub(super) fn not_a_server_name(&self, host: &str) -> Error {
        self.error(WRONG_HOST, format!("{host:?} is not a name that a certificate can be for"))
    }

    fn tls(&self, stage: Stage, error: &rustls::Error) -> Error {
        use rustls::Error as Tls;
        match error {
            Tls::InvalidCertificate(certificate) => self.certificate(certificate),
            Tls::AlertReceived(
                alert @ (Alert::CertificateRequired
                | Alert::BadCertificate
                | Alert::UnknownCA
                | Alert::CertificateUnknown
                | Alert::CertificateExpired
                | Alert::CertificateRevoked
                | Alert::UnsupportedCertificate
                | Alert::AccessDenied),
            ) => {
                let (text, fix) = if self.client_certificate {
                    ("refused our client certificate", "its truststore must hold the CA that signed it")
                } else {
                    ("wants a client certificate", "set `tls.cert` and `tls.key`")
                };
                self.error(CLIENT_CERTIFICATE, format!("{text} (alert {alert:?})")).fix(fix)
            }
            Tls::AlertReceived(Alert::UnrecognisedName) => self
                .error(WRONG_HOST, "does not know the server name that was sent (SNI)")
                .fix("set `tls.server_name`"),
            // By TLS 1.2 also what a listener says to whom it lacks a certificate of (RFC 5246, 7.4.6).
            Tls::AlertReceived(Alert::HandshakeFailure) => self
                .error(TLS_NEGOTIATION, "no common TLS version or cipher, or no client certificate that it takes (alert HandshakeFailure)")
                .fix(if self.client_certificate {
                    "the listener must offer TLS 1.2 with ECDHE, or TLS 1.3 (ssl.enabled.protocols), and trust the CA of `tls.cert`"
                } else {
                    "the listener must offer TLS 1.2 with ECDHE, or TLS 1.3 (ssl.enabled.protocols); if it wants a client certificate, set `tls.cert` and `tls.key`"
                }),
            Tls::AlertReceived(alert @ Alert::ProtocolVersion) => self
                .error(TLS_NEGOTIATION, format!("no common TLS version or cipher (alert {alert:?})"))
                .fix("the listener must offer TLS 1.2 with ECDHE, or TLS 1.3 (ssl.enabled.protocols)"),
            Tls::PeerIncompatible(why) => self
                .error(TLS_NEGOTIATION, format!("no common TLS version or cipher ({why:?})"))
                .fix("the listener must offer TLS 1.2 with ECDHE, or TLS 1.3 (ssl.enabled.protocols)"),
            Tls::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) if stage == Stage::Tls => self
                .error(TLS_TO_PLAINTEXT, "answered the TLS hello with something that is not TLS")
                .fix("a plaintext listener, or a web server's port"),
            other => {
                self.error(TLS_NEGOTIATION, format!("TLS failed in {}: {other}", stage.name()))
            }
        }
    }

    fn certificate(&self, error: &CertificateError) -> Error {
        match error {
            CertificateError::UnknownIssuer => self
                .error(UNTRUSTED, "its certificate is signed by a CA that is not trusted here")
                .fix("set `tls.ca` to the CA of this cluster (and let the broker send its intermediates)"),
            CertificateError::NotValidForName => self
                .error(WRONG_HOST, format!("its certificate is not for {:?}", self.address.host))
                .fix("dial a name that the certificate has, or set `tls.server_name`"),
            CertificateError::NotValidForNameContext { expected, presented } => {
                let names: Vec<String> =
                    presented.iter().take(10).map(|name| certificate_name(name)).collect();
                let names = if names.is_empty() {
                    "no subject alternative name (a common name alone does not count)".to_owned()
                } else {
                    format!("only for {}", names.join(", "))
                };
                let expected = expected.to_str();
                self.error(WRONG_HOST, format!("its certificate is not for {expected:?}: {names}"))
                    .fix("dial a name that the certificate has, or set `tls.server_name`")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => self
                .error(EXPIRED, "its certificate has expired")
                .fix("renew it on the broker; if it is valid, this machine's clock is wrong"),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => self
                .error(EXPIRED, "its certificate is not valid yet")
                .fix("this machine's clock is behind, or the certificate was issued ahead of time"),
            CertificateError::BadSignature => self
                .error(UNTRUSTED, "a signature of its certificate, or by it, is wrong (BadSignature)")
                .fix("its key does not belong to its certificate, or somebody between changes what it says"),
            other => self
                .error(UNTRUSTED, format!("its certificate cannot be accepted: {other}"))
                .fix("the broker needs an end-entity certificate with a subject alternative name"),
        }
    }
}

/// `DnsName("kafka-1")` as rustls has it, as `kafka-1`; short and printable.
fn certificate_name(presented: &str) -> String {
    let inner = presented.split_once('(').map_or(presented, |(_, inner)| inner);
    let name = inner.trim_end_matches(')').trim_matches('"');
    name.chars().filter(|c| !c.is_control()).take(255).collect()
}

impl Error {
    /// The same error, cured by a new connection.
    fn reconnect(mut self) -> Self {
        self.action = Action::Reconnect;
        self
    }
}
