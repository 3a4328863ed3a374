//! Real Kafka: KRaft brokers of two releases, started from Maven's jars.
//!
//! It owns the brokers' processes, ports and folders. A [`Cluster`] ends its brokers when it is dropped, also after a
//! panic, and the brokers die with the test process. [`pool`] bounds how many live at once and shares single-node
//! clusters between tests that do not disturb them.

pub mod cluster;
pub mod listener;
pub mod node;
pub mod pool;

use std::path::{Path, PathBuf};

pub use cluster::{Cluster, ClusterBuilder};
pub use listener::{Listener, PASSWORD, USERS};
pub use node::Node;

/// A release of Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// 3.9.2, the last line with ZooKeeper (not used here) and with classic groups only.
    V39,
    /// 4.3.1.
    V43,
}

/// Both releases as source and target.
pub const PAIRS: [(Version, Version); 4] = [
    (Version::V39, Version::V39),
    (Version::V39, Version::V43),
    (Version::V43, Version::V39),
    (Version::V43, Version::V43),
];

impl Version {
    /// As Maven names it.
    pub fn number(self) -> &'static str {
        match self {
            Self::V39 => "3.9.2",
            Self::V43 => "4.3.1",
        }
    }

    /// A Java class path of all its jars.
    ///
    /// Panics if `./protocol-tests/run` has not fetched them: a test that needs a broker is never skipped.
    pub fn class_path(self) -> String {
        let libs = folder().join(self.number()).join("libs");
        assert!(
            libs.join(".complete").exists(),
            "Kafka {} is not in {}: run ./protocol-tests/run",
            self.number(),
            libs.display(),
        );
        format!("{}/*", libs.display())
    }
}

/// `protocol-tests/.lab`, where `./run` puts what it fetches.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".lab")
}
