//! The `ST-` codes of the control plane of a link.

use crate::error::Code;

/// A right is missing.
pub const NOT_ALLOWED: Code = Code(30);
/// The target topic's settings cannot be read.
pub const SETTINGS_UNKNOWN: Code = Code(31);
/// The link's two clusters are one.
pub const SAME_CLUSTER: Code = Code(40);
/// No topic of the source matches.
pub const NO_MATCH: Code = Code(41);
/// The name on the target would not be legal.
pub const TARGET_NAME: Code = Code(42);
/// Several source topics would have one name on the target.
pub const SHARED_NAME: Code = Code(43);
/// Left out: the name is what the way back makes.
pub const ECHO: Code = Code(44);
/// Names that Kafka's metrics cannot tell apart.
pub const SHARED_METRICS: Code = Code(45);
/// A target topic with fewer partitions that the link has never copied to.
pub const IN_THE_WAY: Code = Code(46);
/// The source topic's id changed.
pub const SOURCE_RECREATED: Code = Code(47);
/// The target topic's id changed.
pub const TARGET_RECREATED: Code = Code(48);
/// The target topic went away.
pub const TARGET_GONE: Code = Code(49);
/// The target's policy refused the topic.
pub const POLICY: Code = Code(50);
/// The replication factor cannot be met.
pub const REPLICATION_FACTOR: Code = Code(51);
/// The target refused the number of partitions.
pub const PARTITIONS: Code = Code(52);
/// The target refused a setting of the topic.
pub const TOPIC_CONFIG: Code = Code(53);
/// The target refused the name.
pub const TOPIC_REFUSED: Code = Code(54);
/// The target could not make or grow the topic now.
pub const TOPIC_RETRY: Code = Code(55);
/// The target puts its own times on records.
pub const APPEND_TIME: Code = Code(56);
/// The target compacts what the source does not.
pub const COMPACTED: Code = Code(57);
/// Records of two clusters cannot be told apart, or would come back to where they were written.
pub const ORIGIN: Code = Code(73);
/// The link's position in its group cannot be read.
pub const POSITION_UNREADABLE: Code = Code(58);
