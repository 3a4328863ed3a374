//! What an embedded cluster is started with.

use std::sync::Arc;
use std::time::Duration;

/// Which broker release is imitated: offered versions and changed defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// Kafka 3.9.
    Kafka39,
    /// Kafka 4.3.
    Kafka43,
}

/// A SASL mechanism of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// RFC 5802 with SHA-256.
    ScramSha256,
    /// RFC 5802 with SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// The name in SaslHandshake.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// A user that may log in.
#[derive(Clone)]
pub struct User {
    /// The user's name.
    pub name: String,
    /// In clear; never logged.
    pub password: String,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "User({})", self.name)
    }
}

/// One port of every broker.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// TLS, with client certificates if the configuration asks for them.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// A peer must log in first.
    pub sasl: bool,
}

impl Listener {
    /// No TLS, no login.
    pub fn plain() -> Self {
        Self::default()
    }

    /// TLS, no login.
    pub fn tls(config: Arc<rustls::ServerConfig>) -> Self {
        Self { tls: Some(config), sasl: false }
    }

    /// The same, but a peer must log in.
    #[must_use]
    pub fn with_sasl(mut self) -> Self {
        self.sasl = true;
        self
    }
}

/// What an embedded cluster is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Brokers, numbered from 1.
    pub brokers: usize,
    /// The cluster id; drawn at random when none is given.
    pub cluster_id: Option<String>,
    /// Which release is imitated.
    pub generation: Generation,
    /// The ports of every broker; the first is the bootstrap.
    pub listeners: Vec<Listener>,
    /// The host that is bound and advertised.
    pub host: String,
    /// The first port: listener l of broker b gets `port + (b - 1) * listeners + l`. 0: any that is free.
    pub port: u16,
    /// Who may log in on SASL listeners.
    pub users: Vec<User>,
    /// The mechanisms that SASL listeners offer.
    pub mechanisms: Vec<Mechanism>,
    /// Iterations of SCRAM's key derivation (Kafka stores 4096 or more).
    pub scram_iterations: u32,
    /// `connections.max.reauth.ms`: who does not log in again within it is disconnected. None is Kafka's 0.
    pub max_reauth: Option<Duration>,
    /// A topic that a client asks for appears (`auto.create.topics.enable`).
    pub auto_create_topics: bool,
    /// `num.partitions`.
    pub partitions: i32,
    /// `default.replication.factor`, cut to the number of brokers.
    pub replication_factor: i16,
    /// Topic settings that differ from Kafka's defaults, by topic config name.
    pub topic_defaults: Vec<(String, String)>,
    /// Produce is acknowledged at once, nothing is checked or kept: for benchmarks.
    pub null_target: bool,
    /// `producer.id.expiration.ms`.
    pub producer_expiry: Duration,
    /// `producer.id.expiration.check.interval.ms`.
    pub producer_expiry_check: Duration,
    /// How often sessions, transactions and retention are looked at for what has run out.
    pub tick: Duration,
    /// `group.initial.rebalance.delay.ms`; 3 s in Kafka, where it saves rebalances nobody has here.
    pub group_initial_delay: Duration,
    /// `group.consumer.session.timeout.ms`.
    pub consumer_session_timeout: Duration,
    /// `group.consumer.heartbeat.interval.ms`.
    pub consumer_heartbeat_interval: Duration,
    /// `max.incremental.fetch.session.cache.slots` of each broker.
    pub fetch_sessions: usize,
    /// `socket.receive.buffer.bytes` and `socket.send.buffer.bytes`, as DescribeConfigs tells them; no socket is set.
    pub socket_buffer_bytes: i32,
    /// `transaction.version` 2 is finalized (KIP-890 part 2), where the release knows it.
    pub transactions_v2: bool,
}

impl Options {
    /// Whether clients are told to use transactions V2.
    pub(super) fn has_transactions_v2(&self) -> bool {
        self.transactions_v2 && self.generation == Generation::Kafka43
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            brokers: 1,
            cluster_id: None,
            generation: Generation::Kafka43,
            listeners: vec![Listener::plain()],
            host: "127.0.0.1".into(),
            port: 0,
            users: Vec::new(),
            mechanisms: vec![Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512],
            scram_iterations: 4096,
            max_reauth: None,
            auto_create_topics: true,
            partitions: 1,
            replication_factor: 1,
            topic_defaults: Vec::new(),
            null_target: false,
            producer_expiry: Duration::from_secs(24 * 3600),
            producer_expiry_check: Duration::from_secs(600),
            tick: Duration::from_millis(50),
            group_initial_delay: Duration::ZERO,
            consumer_session_timeout: Duration::from_secs(45),
            consumer_heartbeat_interval: Duration::from_secs(5),
            fetch_sessions: 1000,
            socket_buffer_bytes: 102_400,
            transactions_v2: true,
        }
    }
}
