//! `/status`: the board as JSON, schema `strait.status/1`. Keys are stable; new ones may come.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

pub use super::clusters::{ClusterStatus, TelemetryStatus};
use super::{link_word, mirror_word};
use crate::engine::losses::{Loss, LossKind};
use crate::engine::stats::{
    Board, LaneLoad, LinkEntry, LinkState, MirrorState, MirrorStats, new_latency_histogram,
};
use crate::error::Error;
use crate::limits;

/// What runs in this process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `strait.status/1`.
    pub schema: String,
    /// Of the binary.
    pub version: String,
    /// The worst link's state (I9); `running` without any link.
    pub worst: String,
    /// Whether the process is on its way out.
    pub draining: bool,
    /// By name.
    pub links: Vec<LinkStatus>,
    /// By number.
    #[serde(default)]
    pub lanes: Vec<LaneStatus>,
    /// In the order in which links name them.
    #[serde(default)]
    pub clusters: Vec<ClusterStatus>,
    /// The listener that is asked.
    #[serde(default)]
    pub telemetry: TelemetryStatus,
}

/// One lane, with all links together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LaneStatus {
    /// Lane number.
    pub lane: usize,
    /// Part of the last seconds that its thread was busy.
    pub busy: f64,
    /// The same of its reader; null where the lane reads itself.
    pub reader_busy: Option<f64>,
    /// Partitions on it.
    pub partitions: usize,
    /// Partitions that it gave to other lanes because it ran hot.
    pub moves: u64,
}

impl From<&LaneLoad> for LaneStatus {
    fn from(load: &LaneLoad) -> Self {
        let part = |permille: &AtomicU64| permille.load(Relaxed) as f64 / 1000.0;
        Self {
            lane: load.lane,
            busy: part(&load.busy_permille),
            reader_busy: load.reader_busy_permille.as_ref().map(part),
            partitions: load.mirrors.load(Relaxed),
            moves: load.given.load(Relaxed),
        }
    }
}

/// One link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Its name in the configuration.
    pub link: String,
    /// `running`, `catching_up`, `starting`, `degraded`, `draining`, `failed`.
    pub state: String,
    /// The source cluster's name.
    pub source: String,
    /// The target cluster's name.
    pub target: String,
    /// Whether the target is reached over TLS.
    pub target_tls: bool,
    /// Partitions that are copied.
    pub partitions: usize,
    /// Of these, in each state that occurs.
    pub partition_states: BTreeMap<String, usize>,
    /// The largest of its partitions'.
    pub delay_seconds: f64,
    /// Over its partitions.
    pub lag_offsets: u64,
    /// The largest of its partitions'.
    pub max_partition_lag_offsets: u64,
    /// Since the start: bytes of batches read.
    pub fetched_bytes: u64,
    /// Since the start: bytes of batches acknowledged.
    pub acked_bytes: u64,
    /// Since the start: records acknowledged.
    pub acked_records: u64,
    /// Source offsets lost before they were copied.
    pub gap_offsets: u64,
    /// Source offsets that were copied and that the source has lost since.
    pub truncated_offsets: u64,
    /// Records in batches that were stepped over because they cannot be copied.
    pub skipped_poison_records: u64,
    /// Records that were found on the target a second time since the start: old ones, whose numbers it had forgotten.
    pub doubled_records: u64,
    /// What was lost or stepped over since the start, newest first; the newest only.
    pub losses: Vec<LossStatus>,
    /// Bytes of frames that are held.
    pub buffer_bytes: u64,
    /// Fetch answer to target's acknowledgement; none before the first.
    pub relay_p99_seconds: Option<f64>,
    /// Why the link itself cannot run.
    pub error: Option<ErrorStatus>,
    /// Why the position cannot be committed at the moment.
    pub group_error: Option<ErrorStatus>,
    /// Topics that match and cannot be copied.
    pub blocked_topics: BTreeMap<String, ErrorStatus>,
    /// Partitions that retry or are parked; the first of them only.
    pub troubled: Vec<MirrorTrouble>,
    /// How many there are.
    pub troubled_total: usize,
}

/// A partition that is not copied as it should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MirrorTrouble {
    /// Source topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// `retrying` or `parked`.
    pub state: String,
    /// Next source offset to be acknowledged; none while unknown.
    pub acked: Option<i64>,
    /// Why.
    pub error: Option<ErrorStatus>,
}

/// A stretch of source offsets that was not copied, or is no longer what was copied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossStatus {
    /// Source topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// `gap`, `truncated`, `recreated` or `poison`.
    pub kind: LossKind,
    /// First source offset; none where nobody can tell any more.
    pub from_offset: Option<i64>,
    /// The offset after the last; none where nobody can tell any more.
    pub to_offset: Option<i64>,
    /// Whether copying went on behind it.
    pub continued: bool,
    /// When it was found, milliseconds since 1970.
    pub at_ms: i64,
    /// In words.
    pub reason: String,
}

impl LossStatus {
    fn of(mirror: &MirrorStats, loss: Loss) -> Self {
        Self {
            topic: mirror.topic.to_string(),
            partition: mirror.partition,
            kind: loss.kind,
            from_offset: loss.from,
            to_offset: loss.to,
            continued: loss.continued,
            at_ms: loss.at_ms,
            reason: loss.reason,
        }
    }
}

/// An error as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorStatus {
    /// `ST-nnn`.
    pub code: String,
    /// `local`, `source` or `target`.
    pub side: String,
    /// `park`, `reconnect`, `retry` or `stop`.
    pub action: String,
    /// Cluster, broker, partition and offset, as far as they are known.
    pub place: String,
    /// What happened.
    pub message: String,
    /// What the operator can do.
    pub fix: String,
}

impl From<&Error> for ErrorStatus {
    fn from(error: &Error) -> Self {
        let word = |value: serde_json::Result<serde_json::Value>| {
            value.ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
        };
        Self {
            code: error.code.to_string(),
            side: word(serde_json::to_value(error.side)),
            action: word(serde_json::to_value(error.action)),
            place: error.place.to_string(),
            message: error.message.clone(),
            fix: error.fix.clone(),
        }
    }
}

impl Status {
    /// The schema of this version.
    pub const SCHEMA: &str = "strait.status/1";

    /// The board as it is now.
    pub fn of(board: &Board) -> Self {
        let mut links = board.links();
        links.sort_by(|a, b| a.name.cmp(&b.name));
        let states = links.iter().map(|link| board.link_state(link));
        let worst = states.max().unwrap_or(LinkState::Running);
        Self {
            schema: Self::SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            worst: link_word(worst).to_owned(),
            draining: board.draining(),
            links: links.iter().map(|link| LinkStatus::of(board, link)).collect(),
            lanes: board.loads().iter().map(|load| LaneStatus::from(&**load)).collect(),
            clusters: board.securities().iter().map(|cell| ClusterStatus::from(&**cell)).collect(),
            telemetry: board.telemetry_files().into(),
        }
    }

    /// Whether every link does what it should.
    pub fn healthy(&self) -> bool {
        !self.draining
            && self.links.iter().all(|link| !["degraded", "failed"].contains(&link.state.as_str()))
    }
}

impl LinkStatus {
    fn of(board: &Board, link: &LinkEntry) -> Self {
        let mut status = Self {
            link: link.name.to_string(),
            state: link_word(board.link_state(link)).to_owned(),
            source: link.source.clone(),
            target: link.target.clone(),
            target_tls: link.target_tls,
            error: link
                .error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
                .map(Into::into),
            ..Self::default()
        };
        let blocked = link.blocked_topics.lock().unwrap_or_else(PoisonError::into_inner);
        for (topic, error) in blocked.iter().take(limits::STATUS_TROUBLES_MAX) {
            status.blocked_topics.insert(topic.clone(), error.into());
        }
        drop(blocked);
        for mirror in board.mirrors().iter().filter(|mirror| mirror.link == link.name) {
            let state = mirror.state();
            status.partitions += 1;
            *status.partition_states.entry(mirror_word(state).to_owned()).or_default() += 1;
            let delay_seconds = mirror.delay_ms.load(Relaxed) as f64 / 1000.0;
            status.delay_seconds = status.delay_seconds.max(delay_seconds);
            let lag = mirror.lag_offsets();
            status.lag_offsets += lag;
            status.max_partition_lag_offsets = status.max_partition_lag_offsets.max(lag);
            status.fetched_bytes += mirror.fetched_bytes.load(Relaxed);
            status.acked_bytes += mirror.acked_bytes.load(Relaxed);
            status.acked_records += mirror.acked_records.load(Relaxed);
            status.gap_offsets += mirror.gap_offsets.load(Relaxed);
            status.truncated_offsets += mirror.truncated_offsets.load(Relaxed);
            status.skipped_poison_records += mirror.skipped_poison_records.load(Relaxed);
            status.doubled_records += mirror.doubled_records.load(Relaxed);
            let losses = mirror.losses.all().into_iter();
            status.losses.extend(losses.map(|loss| LossStatus::of(mirror, loss)));
            if matches!(state, MirrorState::Retrying | MirrorState::Parked) {
                status.troubled_total += 1;
                if status.troubled.len() < limits::STATUS_TROUBLES_MAX {
                    status.troubled.push(MirrorTrouble {
                        topic: mirror.topic.to_string(),
                        partition: mirror.partition,
                        state: mirror_word(state).to_owned(),
                        acked: Some(mirror.acked.load(Relaxed)).filter(|offset| *offset >= 0),
                        error: mirror.error().as_ref().map(Into::into),
                    });
                }
            }
        }
        status.losses.sort_by_key(|loss| std::cmp::Reverse(loss.at_ms));
        status.losses.truncate(limits::STATUS_TROUBLES_MAX);
        let mut relay = new_latency_histogram();
        for lane in board.lanes().iter().filter(|lane| lane.link == link.name) {
            status.buffer_bytes += lane.buffered_bytes.load(Relaxed);
            let group_error = lane.group_error.lock().unwrap_or_else(PoisonError::into_inner);
            status.group_error = status.group_error.or(group_error.as_ref().map(Into::into));
            // Both have the same bounds, so that nothing can fail to fit.
            let _ = relay.add(&*lane.relay_us.lock().unwrap_or_else(PoisonError::into_inner));
        }
        status.relay_p99_seconds =
            (!relay.is_empty()).then(|| relay.value_at_quantile(0.99) as f64 / 1e6);
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::stats::LaneStats;
    use crate::error::{Action, Code, Side};
    use std::sync::Arc;

    fn link(board: &Board, name: &str) -> Arc<LinkEntry> {
        let link = Arc::new(LinkEntry::new(name, "east", "west", true));
        link.discovered.store(true, Relaxed);
        board.add_link(link.clone());
        link
    }

    #[test]
    fn the_whole_is_never_better_than_its_worst_part() {
        let board = Board::default();
        assert_eq!(Status::of(&board).worst, "running");
        let a = link(&board, "a");
        link(&board, "b");
        let mirror = Arc::new(MirrorStats::new("a".into(), "t".into(), "t".into(), 4));
        board.add_mirror(mirror.clone());
        assert_eq!(Status::of(&board).worst, "starting");
        mirror.set_state(MirrorState::Parked);
        mirror.acked.store(17, Relaxed);
        let error =
            Error::new(Code(60), Side::Target, Action::Park, "MESSAGE_TOO_LARGE").fix("raise it");
        mirror.set_error(Some(error.clone()));
        let status = Status::of(&board);
        assert_eq!((status.worst.as_str(), status.healthy()), ("degraded", false));
        let trouble = &status.links[0].troubled[0];
        assert_eq!((trouble.topic.as_str(), trouble.partition, trouble.acked), ("t", 4, Some(17)));
        let shown = trouble.error.as_ref().unwrap();
        assert_eq!(
            (shown.code.as_str(), shown.side.as_str(), shown.action.as_str()),
            ("ST-060", "target", "park")
        );
        *a.error.lock().unwrap() = Some(error);
        assert_eq!(Status::of(&board).worst, "failed");
        assert_eq!(Status::of(&board).links[1].state, "running");
    }

    #[test]
    fn json_has_the_promised_keys_and_reads_back() {
        let board = Board::default();
        link(&board, "a");
        let lane = Arc::new(LaneStats::new("a".into(), 0));
        lane.relay_us.lock().unwrap().record(38_000).unwrap();
        board.add_lane(lane);
        let load = Arc::new(LaneLoad::new(0, false));
        load.busy_permille.store(123, Relaxed);
        board.add_load(load);
        let status = Status::of(&board);
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["schema"], "strait.status/1");
        for key in [
            "link",
            "state",
            "source",
            "target",
            "partitions",
            "delay_seconds",
            "lag_offsets",
            "max_partition_lag_offsets",
            "relay_p99_seconds",
            "error",
            "troubled",
        ] {
            assert!(json["links"][0].get(key).is_some(), "{key}: {json}");
        }
        let p99 = status.links[0].relay_p99_seconds.unwrap();
        let lane = serde_json::json!(
            { "lane": 0, "busy": 0.123, "reader_busy": null, "partitions": 0, "moves": 0 }
        );
        assert_eq!(json["lanes"], serde_json::json!([lane]));
        assert!((0.037..0.039).contains(&p99), "{p99}");
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
    }

    #[test]
    fn clusters_tell_what_they_are_reached_with() {
        let board = Board::default();
        let cluster = crate::config::resolved::Cluster {
            name: "west".to_owned(),
            bootstrap: Vec::new(),
            tls: None,
            sasl: None,
            advertised: Default::default(),
        };
        let cell = crate::connection::Security::load(&cluster).unwrap().cell();
        cell.files.reloads.store(3, Relaxed);
        cell.reauthentications_failed.store(2, Relaxed);
        board.add_security(cell);
        let status = Status::of(&board);
        let west = &status.clusters[0];
        assert_eq!((west.cluster.as_str(), west.reloads), ("west", 3));
        assert_eq!((west.client_certificate_expires_ms, &west.files_refused), (None, &None));
        let text = crate::admin::metrics::render(&board);
        for line in [
            "strait_security_reloads_total{cluster=\"west\",result=\"ok\"} 3",
            "strait_sasl_reauthentications_total{cluster=\"west\",result=\"failed\"} 2",
            "strait_security_files_refused{cluster=\"west\"} 0",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn losses_are_listed_newest_first_with_their_offsets() {
        let board = Board::default();
        link(&board, "a");
        let mirror = Arc::new(MirrorStats::new("a".into(), "t".into(), "t".into(), 4));
        board.add_mirror(mirror.clone());
        for at_ms in [1, 2] {
            mirror.note_loss(Loss {
                kind: LossKind::Gap,
                from: Some(at_ms * 100),
                to: Some(at_ms * 100 + 7),
                continued: true,
                at_ms,
                reason: "deleted".into(),
            });
        }
        let status = Status::of(&board);
        let newest = &status.links[0].losses[0];
        assert_eq!(
            (newest.from_offset, newest.to_offset, newest.partition),
            (Some(200), Some(207), 4)
        );
        assert_eq!((status.links[0].gap_offsets, status.links[0].losses.len()), (14, 2));
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["links"][0]["losses"][1]["kind"], "gap");
    }

    #[test]
    fn troubles_are_bounded_and_counted() {
        let board = Board::default();
        link(&board, "a");
        for partition in 0..=i32::try_from(limits::STATUS_TROUBLES_MAX).unwrap() {
            let mirror = MirrorStats::new("a".into(), "t".into(), "t".into(), partition);
            mirror.set_state(MirrorState::Retrying);
            board.add_mirror(Arc::new(mirror));
        }
        let status = Status::of(&board);
        assert_eq!(status.links[0].troubled.len(), limits::STATUS_TROUBLES_MAX);
        assert_eq!(status.links[0].troubled_total, limits::STATUS_TROUBLES_MAX + 1);
    }
}
