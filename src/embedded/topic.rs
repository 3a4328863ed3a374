//! Topics, their partitions and their settings.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use super::batch::Head;
use super::log::Log;
use super::options::Generation;
use crate::wire::TOPIC_NAME_BYTES_MAX;
use crate::wire::error_code::ErrorCode;

/// The settings that decide what is appended, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) max_message_bytes: usize,
    pub(super) compacted: bool,
    pub(super) log_append_time: bool,
    pub(super) timestamp_before_max_ms: i64,
    pub(super) timestamp_after_max_ms: i64,
    pub(super) min_isr: usize,
    /// What a partition may hold; None: anything.
    pub(super) retention_bytes: Option<usize>,
    /// The codec of every stored batch; None keeps the producer's.
    pub(super) codec: Option<i16>,
}

/// The codecs by number, as `compression.type` names them.
const CODECS: [&str; 5] = ["uncompressed", "gzip", "snappy", "lz4", "zstd"];

/// How a setting's value is checked, with its number in DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean = 1,
    Text = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// A topic setting and its default (`LogConfig`).
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) default: &'static str,
    pub(super) kind: Kind,
}

const fn setting(name: &'static str, default: &'static str, kind: Kind) -> Setting {
    Setting { name, default, kind }
}

const FOREVER: &str = "9223372036854775807";

/// Kafka's topic settings; those that mean nothing here are kept and shown all the same.
pub(super) const SETTINGS: &[Setting] = &[
    setting("cleanup.policy", "delete", Kind::List),
    setting("compression.gzip.level", "-1", Kind::Int),
    setting("compression.lz4.level", "9", Kind::Int),
    setting("compression.type", "producer", Kind::Text),
    setting("compression.zstd.level", "3", Kind::Int),
    setting("delete.retention.ms", "86400000", Kind::Long),
    setting("file.delete.delay.ms", "60000", Kind::Long),
    setting("flush.messages", FOREVER, Kind::Long),
    setting("flush.ms", FOREVER, Kind::Long),
    setting("follower.replication.throttled.replicas", "", Kind::List),
    setting("index.interval.bytes", "4096", Kind::Int),
    setting("leader.replication.throttled.replicas", "", Kind::List),
    setting("local.retention.bytes", "-2", Kind::Long),
    setting("local.retention.ms", "-2", Kind::Long),
    setting("max.compaction.lag.ms", FOREVER, Kind::Long),
    setting("max.message.bytes", "1048588", Kind::Int),
    setting("message.timestamp.after.max.ms", "3600000", Kind::Long),
    setting("message.timestamp.before.max.ms", FOREVER, Kind::Long),
    setting("message.timestamp.type", "CreateTime", Kind::Text),
    setting("min.cleanable.dirty.ratio", "0.5", Kind::Double),
    setting("min.compaction.lag.ms", "0", Kind::Long),
    setting("min.insync.replicas", "1", Kind::Int),
    setting("preallocate", "false", Kind::Boolean),
    setting("remote.storage.enable", "false", Kind::Boolean),
    setting("retention.bytes", "-1", Kind::Long),
    setting("retention.ms", "604800000", Kind::Long),
    setting("segment.bytes", "1073741824", Kind::Int),
    setting("segment.index.bytes", "10485760", Kind::Int),
    setting("segment.jitter.ms", "0", Kind::Long),
    setting("segment.ms", "604800000", Kind::Long),
    setting("unclean.leader.election.enable", "false", Kind::Boolean),
];

/// A setting's default in a release.
pub(super) fn default_of(setting: &Setting, generation: Generation) -> &'static str {
    match (setting.name, generation) {
        ("message.timestamp.after.max.ms", Generation::Kafka39) => FOREVER,
        _ => setting.default,
    }
}

/// Refuses an unknown name and a value of the wrong type.
pub(super) fn check_setting(name: &str, value: &str) -> Result<(), String> {
    let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
        return Err(format!("Unknown topic config name: {name}"));
    };
    let parses = match setting.kind {
        Kind::Boolean => value.parse::<bool>().is_ok(),
        Kind::Int => value.parse::<i32>().is_ok(),
        Kind::Long => value.parse::<i64>().is_ok(),
        Kind::Double => value.parse::<f64>().is_ok(),
        Kind::Text | Kind::List => true,
    };
    let legal = match name {
        "cleanup.policy" => value.split(',').all(|p| matches!(p.trim(), "compact" | "delete")),
        "message.timestamp.type" => matches!(value, "CreateTime" | "LogAppendTime"),
        "compression.type" => value == "producer" || CODECS.contains(&value),
        _ => true,
    };
    match parses && legal {
        true => Ok(()),
        false => Err(format!("Invalid value {value} for configuration {name}")),
    }
}

/// One partition: its log and who leads it.
#[derive(Default)]
pub(super) struct Partition {
    pub(super) log: Log,
    /// -1: nobody.
    pub(super) leader: i32,
    pub(super) leader_epoch: i32,
    pub(super) replicas: Vec<i32>,
    pub(super) isr: Vec<i32>,
    /// Followers do not follow: the high watermark stands still.
    pub(super) frozen: bool,
}

impl Partition {
    /// Appends what was admitted; returns its base offset.
    pub(super) fn append(&mut self, mut head: Head, payload: Bytes, min_isr: usize) -> i64 {
        head.base_offset = self.log.end;
        head.leader_epoch = self.leader_epoch;
        self.log.append(head, payload);
        self.advance(min_isr);
        head.base_offset
    }

    /// Fewer replicas are in sync than `min.insync.replicas`, of which no more count than there are replicas
    /// (`Partition.effectiveMinIsr`).
    pub(super) fn is_under(&self, min_isr: usize) -> bool {
        self.isr.len() < min_isr.min(self.replicas.len())
    }

    /// The high watermark follows the log end while enough replicas are in sync.
    pub(super) fn advance(&mut self, min_isr: usize) {
        if !self.frozen && !self.is_under(min_isr) {
            self.log.high_watermark = self.log.end;
        }
    }

    /// Hands the partition to `leader`, in a new epoch.
    pub(super) fn elect(&mut self, leader: i32) {
        self.leader = leader;
        self.leader_epoch += 1;
        if leader >= 0 {
            self.log.begin_epoch(self.leader_epoch);
            self.log.producers.lead(leader);
        }
    }

    /// Refuses a request that names another leader epoch than ours (KIP-320).
    pub(super) fn check_epoch(&self, named: i32) -> Result<(), ErrorCode> {
        match named {
            -1 => Ok(()),
            _ if named < self.leader_epoch => Err(ErrorCode::FENCED_LEADER_EPOCH),
            _ if named > self.leader_epoch => Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
            _ => Ok(()),
        }
    }
}

/// A topic.
pub(super) struct Topic {
    pub(super) id: Uuid,
    pub(super) partitions: Vec<Partition>,
    pub(super) replication_factor: usize,
    /// What was set on the topic itself.
    pub(super) overrides: BTreeMap<String, String>,
    pub(super) settings: Settings,
}

impl Topic {
    /// The partition of that index.
    pub(super) fn partition(&mut self, index: i32) -> Option<&mut Partition> {
        self.partitions.get_mut(usize::try_from(index).ok()?)
    }

    /// Nothing may be deleted by offset (`LogConfig.delete` is off).
    pub(super) fn is_only_compacted(&self) -> bool {
        let policy = self.overrides.get("cleanup.policy");
        policy.is_some_and(|policy| !policy.split(',').any(|p| p.trim() == "delete"))
    }

    /// Reads `settings` anew after a change of `overrides`.
    pub(super) fn reload(&mut self, defaults: &[(String, String)], generation: Generation) {
        self.settings = settings(&self.overrides, defaults, generation);
        for partition in &mut self.partitions {
            partition.advance(self.settings.min_isr);
        }
    }
}

/// The value in force of a setting.
pub(super) fn effective<'a>(
    setting: &'a Setting,
    overrides: &'a BTreeMap<String, String>,
    defaults: &'a [(String, String)],
    generation: Generation,
) -> &'a str {
    let of_broker = || defaults.iter().find(|(name, _)| name == setting.name).map(|(_, v)| v);
    match overrides.get(setting.name).or_else(of_broker) {
        Some(set) => set,
        None => default_of(setting, generation),
    }
}

/// Parses what decides over appends.
pub(super) fn settings(
    overrides: &BTreeMap<String, String>,
    defaults: &[(String, String)],
    generation: Generation,
) -> Settings {
    let text = |name: &str| {
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        setting.map_or("", |setting| effective(setting, overrides, defaults, generation))
    };
    let number = |name: &str| text(name).parse::<i64>().unwrap_or(i64::MAX);
    Settings {
        max_message_bytes: usize::try_from(number("max.message.bytes")).unwrap_or(0),
        compacted: text("cleanup.policy").split(',').any(|p| p.trim() == "compact"),
        log_append_time: text("message.timestamp.type") == "LogAppendTime",
        timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
        timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
        min_isr: usize::try_from(number("min.insync.replicas")).unwrap_or(1),
        retention_bytes: usize::try_from(number("retention.bytes")).ok(),
        codec: (0..).zip(CODECS).find(|(_, name)| *name == text("compression.type")).map(|c| c.0),
    }
}

/// Kafka's rule for topic names (`Topic.validate`).
pub(super) fn is_legal_name(name: &str) -> bool {
    let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    (1..=TOPIC_NAME_BYTES_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(legal)
}

/// Topics that clients may read but not write.
pub(super) fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}
