//! The configuration as it is meant: defaults filled in, names resolved to what they name. What the rest of the crate
//! takes; `written.rs` is what the operator typed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;

pub use super::secret::{Secret, SecretPart};
pub use super::telemetry::{ListenerTls, Telemetry};

/// Everything that one process runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// By name.
    pub clusters: BTreeMap<String, Arc<Cluster>>,
    /// In the order of their names.
    pub links: Vec<Arc<Link>>,
    /// Lanes and memory.
    pub engine: Engine,
    /// The telemetry listener; none to switch it off.
    pub telemetry: Option<Telemetry>,
}

/// `host:port`; IPv6 hosts without their brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Name or number.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How a cluster is reached.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The name in the configuration.
    pub name: String,
    /// Tried in order until one answers.
    pub bootstrap: Vec<Address>,
    /// None is plaintext.
    pub tls: Option<Tls>,
    /// None is no SASL.
    pub sasl: Option<Sasl>,
    /// Which addresses its brokers may advertise.
    pub advertised: Advertised,
}

/// Which addresses brokers may advertise, besides those that are nobody's own.
#[derive(Clone, Debug, Default)]
pub struct Advertised {
    /// Listed by the operator, whatever else speaks against them.
    pub allow: Vec<Allowed>,
    /// The other clusters' bootstrap addresses, each with its cluster's name: not to be dialled as this one's. Clusters
    /// that share an address with this one are it by another name, and not among them.
    pub foreign: Vec<(Address, String)>,
}

/// An exception from what may not be advertised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Addresses that begin with so many bits of this one.
    Network(IpAddr, u8),
    /// This name or number, at this port.
    Address(Address),
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(ip, bits) => write!(f, "{ip}/{bits}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// TLS towards a cluster.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// PEM file of the private CA; none is the public roots of the system.
    pub ca: Option<PathBuf>,
    /// PEM files of our certificate chain and its key, for mutual TLS.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Name to verify instead of the dialled host (and to send as SNI).
    pub server_name: Option<String>,
    /// Refuse TLS 1.2.
    pub tls13_only: bool,
}

/// SASL towards a cluster.
#[derive(Clone, Debug)]
pub enum Sasl {
    /// OAUTHBEARER (RFC 7628, KIP-255).
    OAuthBearer(TokenSource),
    /// PLAIN (RFC 4616). Refused without TLS unless `allow_plaintext`.
    Plain {
        /// User.
        username: String,
        /// Password.
        password: Secret,
        /// Send the password over an unencrypted connection.
        allow_plaintext: bool,
    },
    /// SCRAM (RFC 5802, 7677).
    Scram {
        /// Hash.
        hash: ScramHash,
        /// User.
        username: String,
        /// Password.
        password: Secret,
    },
}

/// The hash of a SCRAM mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramHash {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

/// Where an OAUTHBEARER token comes from.
#[derive(Clone, Debug)]
pub enum TokenSource {
    /// OAuth 2 client credentials grant (RFC 6749 section 4.4).
    ClientCredentials {
        /// `https://host[:port]/path`.
        token_endpoint: String,
        /// Client id.
        client_id: String,
        /// Client secret.
        client_secret: Secret,
        /// Scope, if one is asked for.
        scope: Option<String>,
        /// PEM file of the endpoint's private CA; none is the public roots.
        ca: Option<PathBuf>,
    },
    /// A file that holds the token.
    File(PathBuf),
}

/// One source cluster to one target cluster.
#[derive(Clone, Debug)]
pub struct Link {
    /// The name in the configuration; the source group is `strait.<name>`.
    pub name: String,
    /// Read from.
    pub from: Arc<Cluster>,
    /// Written to.
    pub to: Arc<Cluster>,
    /// Which topics.
    pub topics: TopicSelection,
    /// What they are called on the target.
    pub naming: Naming,
    /// Where a mirror without a position begins.
    pub start: Start,
    /// Which source records count.
    pub isolation: Isolation,
    /// Which time a record of a LogAppendTime topic keeps.
    pub timestamps: Timestamps,
    /// How readers of the target get to see what is copied.
    pub delivery: Delivery,
    /// Whose records are copied.
    pub forward: Forward,
    /// For topics that Strait creates; none is the target broker's default.
    pub replication_factor: Option<i16>,
    /// Connections to each target broker, a mirror pinned to one.
    pub connections_per_broker: usize,
    /// Bytes sent and not yet acknowledged, per mirror.
    pub window_bytes_max: usize,
    /// Bytes of batches sent per second, all mirrors and lanes together; none is as fast as it goes.
    pub bytes_per_second_max: Option<u64>,
    /// How partitions that are behind catch up.
    pub backfill: Backfill,
    /// Small batches that wait are sent as one.
    pub merges: bool,
    /// What is done about what cannot be copied.
    pub policies: Policies,
    /// How it belongs to its group.
    pub membership: Membership,
}

/// How partitions that are behind catch up, beside those that are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backfill {
    /// So many at a time on each lane, in the order of `include`; none is all of them at once.
    pub at_once_max: Option<usize>,
    /// Bytes of batches sent per second for them, all lanes together; none is what the link may send.
    pub bytes_per_second_max: Option<u64>,
}

impl Backfill {
    /// `concurrent` unless it is written.
    pub const AT_ONCE_DEFAULT: usize = 4;
}

/// How readers of the target get to see what is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Each batch counts at once: an idempotent producer whose numbering is continued by every start.
    #[default]
    ExactlyOnce,
    /// Batches and position together, in transactions: for readers with `isolation.level=read_committed`.
    Transactional(Transactions),
}

impl Delivery {
    /// The bounds of transactions, if there are any.
    pub fn transactions(self) -> Option<Transactions> {
        match self {
            Self::ExactlyOnce => None,
            Self::Transactional(transactions) => Some(transactions),
        }
    }
}

/// When a transaction ends: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transactions {
    /// So long after it began.
    pub interval: Duration,
    /// With so many bytes acknowledged in it.
    pub bytes_max: usize,
}

impl Default for Transactions {
    /// A second: what a reader waits at most. 64 MiB: less than a second of most partitions.
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), bytes_max: 64 << 20 }
    }
}

/// How a link belongs to its source group, through which its instances share the mirrors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// By which protocol.
    pub protocol: MembershipProtocol,
    /// `group.instance.id`: an instance that leaves under it keeps its mirrors for the length of a session.
    pub instance_id: Option<String>,
}

/// The protocol of the membership.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MembershipProtocol {
    /// KIP-848 where the broker offers it, else the classic one.
    #[default]
    Auto,
    /// The classic one.
    Classic,
    /// None: this process copies everything, and shall be the only one.
    Off,
}

/// What a link does where a mirror cannot go on as it is. The defaults stop and name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// Source records were deleted before they were copied.
    pub on_gap: OnGap,
    /// The source topic is another one of the same name.
    pub on_recreate: OnRecreate,
    /// A batch cannot be read, or the target refuses what is in it.
    pub on_poison: OnPoison,
    /// A mirror is parked, for whichever reason.
    pub on_failure: OnFailure,
}

/// Retention or DeleteRecords overtook a mirror.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnGap {
    /// The mirror is parked in front of the gap.
    #[default]
    Stop,
    /// It is named and counted, and copying goes on at the log start.
    Continue,
}

/// A source topic was deleted and made again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRecreate {
    /// Nothing of the new topic is copied.
    #[default]
    Stop,
    /// The new topic is copied from its beginning, behind what the target holds of the old one.
    Restart,
}

/// A batch that cannot be copied, for what is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnPoison {
    /// The mirror is parked in front of the batch.
    #[default]
    Park,
    /// The batch is named, counted and stepped over.
    Skip,
}

/// What a parked mirror means for the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Nothing: the others go on.
    #[default]
    Pause,
    /// It is tried again by itself, ever more seldom.
    Retry,
    /// The engine ends, once everything that was sent is acknowledged and committed.
    Stop,
}

/// Whose records a link copies, by the cluster where they were first written.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Those that were first written on the source: no Strait brought them.
    pub local: bool,
    /// Those that a Strait brought to the source, by origin.
    pub origins: Vec<Arc<Cluster>>,
}

impl Default for Forward {
    fn default() -> Self {
        Self { local: true, origins: Vec::new() }
    }
}

/// Anchored patterns: each must match the whole name.
#[derive(Clone, Debug)]
pub struct TopicSelection {
    /// At least one must match.
    pub include: Vec<Regex>,
    /// None may match.
    pub exclude: Vec<Regex>,
    /// Include patterns without metacharacters: the only way in for internal topics (`__...`).
    pub literal: Vec<String>,
}

/// The name of a topic on the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// As on the source.
    Identity,
    /// `<source cluster>.<topic>`.
    Prefix,
    /// `{source}` and `{topic}` are replaced.
    Template(String),
}

/// Where a mirror without a position begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The log start.
    Earliest,
    /// The end at that moment.
    Latest,
    /// The first record at or after this time, milliseconds since 1970.
    Timestamp(i64),
}

/// Which source records count.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the last stable offset, aborted transactions skipped.
    ReadCommitted,
    /// Up to the high watermark, everything.
    ReadUncommitted,
}

/// Which time a record of a LogAppendTime source topic keeps.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Timestamps {
    /// The append time, as readers of the source see it (recode).
    AsRead,
    /// The producer's (stamp).
    Producer,
}

/// Who does a lane's work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrangement {
    /// The lane itself.
    #[default]
    Fused,
    /// The lane, and a second thread that reads from the source.
    Split,
}

impl Arrangement {
    /// Threads of a lane.
    pub fn threads(self) -> usize {
        match self {
            Self::Fused => 1,
            Self::Split => 2,
        }
    }

    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fused => "fused",
            Self::Split => "split",
        }
    }
}

/// Lanes and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Threads that move batches.
    pub lanes: usize,
    /// Which work they share out.
    pub arrangement: Arrangement,
    /// Each of them stays on a core of its own.
    pub pin: bool,
    /// Bytes of frames, over all lanes.
    pub memory_bytes: usize,
}

impl Engine {
    /// What the process takes beside the frames, bytes: code, stacks, TLS states, metadata of some ten thousand
    /// partitions (design section 11 holds the peak to the budget plus this).
    pub const FIXED_BYTES: usize = 32 << 20;

    /// The bound that is printed at start and that resident memory stays under (I5), but for one batch at a time that a lane
    /// has no room for.
    pub fn memory_bound_bytes(&self) -> usize {
        self.memory_bytes.saturating_add(Self::FIXED_BYTES)
    }
}
