//! The listeners that every broker of the lab has, one per way of speaking to Kafka.

use crate::certs::Leaf;

/// A way of speaking to a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listener {
    /// No TLS, no authentication.
    Plain,
    /// TLS 1.2 or 1.3, the broker alone has a certificate.
    Tls,
    /// TLS, both have one.
    MutualTls,
    /// SASL without TLS.
    SaslPlain,
    /// SASL over TLS.
    SaslTls,
    /// Like [`Listener::Plain`], advertised where the test says: at a faulty network's address.
    ProxiedPlain,
    /// Like [`Listener::Tls`], advertised where the test says.
    ProxiedTls,
}

/// SASL users of every cluster; `admin` is a super user where an authorizer is on, `limited` has no rights.
pub const USERS: [&str; 3] = ["admin", "strait", "limited"];
/// Their password. A canary: it must never show up in a log, metric, status or error.
pub const PASSWORD: &str = "canary-Passw0rd+42";

impl Listener {
    /// All of them, in the order of the ports of a node.
    pub const ALL: [Self; 7] = [
        Self::Plain,
        Self::Tls,
        Self::MutualTls,
        Self::SaslPlain,
        Self::SaslTls,
        Self::ProxiedPlain,
        Self::ProxiedTls,
    ];

    /// As `listeners` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Tls => "TLS",
            Self::MutualTls => "MTLS",
            Self::SaslPlain => "SASLPLAIN",
            Self::SaslTls => "SASLTLS",
            Self::ProxiedPlain => "PROXIEDPLAIN",
            Self::ProxiedTls => "PROXIEDTLS",
        }
    }

    /// As `listener.security.protocol.map` names it.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Plain | Self::ProxiedPlain => "PLAINTEXT",
            Self::Tls | Self::MutualTls | Self::ProxiedTls => "SSL",
            Self::SaslPlain => "SASL_PLAINTEXT",
            Self::SaslTls => "SASL_SSL",
        }
    }

    /// The properties of this listener alone.
    pub(super) fn properties(self, certificate: &Leaf, ca: &std::path::Path) -> Vec<String> {
        let prefix = format!("listener.name.{}", self.name().to_lowercase());
        let mut lines = Vec::new();
        if self.protocol().ends_with("SSL") {
            lines.extend([
                format!("{prefix}.ssl.keystore.type=PEM"),
                format!("{prefix}.ssl.keystore.location={}", certificate.bundle.display()),
                format!("{prefix}.ssl.truststore.type=PEM"),
                format!("{prefix}.ssl.truststore.location={}", ca.display()),
                format!("{prefix}.ssl.enabled.protocols=TLSv1.2,TLSv1.3"),
            ]);
        }
        if self == Self::MutualTls {
            lines.push(format!("{prefix}.ssl.client.auth=required"));
        }
        if self.protocol().starts_with("SASL") {
            let plain = USERS.map(|user| format!("user_{user}=\"{PASSWORD}\"")).join(" ");
            let module = "org.apache.kafka.common.security";
            lines.extend([
                format!("{prefix}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"),
                format!(
                    "{prefix}.plain.sasl.jaas.config={module}.plain.PlainLoginModule required {plain};"
                ),
            ]);
            lines.extend(["scram-sha-256", "scram-sha-512"].map(|mechanism| {
                format!("{prefix}.{mechanism}.sasl.jaas.config={module}.scram.ScramLoginModule required;")
            }));
        }
        lines
    }
}
