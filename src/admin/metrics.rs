//! `/metrics`, from the board as it is at this moment.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::exposition::{Exposition, Labels};
use super::{LINK_STATES, MIRROR_STATES, clusters, process};
use crate::engine::stats::{Board, Fate, MirrorStats};
use crate::limits;

/// Upper bounds of the latency buckets, microseconds: 1 ms doubled up to over a minute.
const LATENCY_BOUNDS_US: [u64; 17] = {
    let mut bounds = [1000; 17];
    let mut i = 1;
    while i < bounds.len() {
        bounds[i] = bounds[i - 1] * 2;
        i += 1;
    }
    bounds
};

/// How finely mirrors are told apart. What is too many for Prometheus becomes coarser instead of being cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grain {
    Link,
    Topic,
    Partition,
}

/// What several mirrors are together, under one set of labels.
#[derive(Default)]
struct Sum {
    delay_ms: u64,
    lag_offsets: u64,
    offsets: Option<[i64; 3]>,
}

/// Counters that exist per link and topic.
#[derive(Clone, Default)]
struct Totals {
    fetched: [u64; 2],
    acked: [u64; 2],
    batches: [u64; Fate::ALL.len()],
    merged_batches: u64,
    resyncs: u64,
    gap_offsets: u64,
    truncated_offsets: u64,
    skipped_poison_records: u64,
    doubled_records: u64,
    recreations: u64,
}

/// Link, topic and partition; the last two empty where the grain is coarser.
type Key = (String, String, String);

/// The text that Prometheus reads.
pub fn render(board: &Board) -> String {
    render_within(board, limits::METRIC_MIRRORS_MAX, limits::METRIC_TOPICS_MAX)
}

fn render_within(board: &Board, mirrors_max: usize, topics_max: usize) -> String {
    let mut exposition = Exposition::default();
    let version = env!("CARGO_PKG_VERSION");
    exposition
        .gauge("strait_build_info", "Which version runs; always 1.")
        .sample(&[("version", version), ("tls_provider", "aws-lc-rs")], 1);
    links(&mut exposition, board);
    mirrors(&mut exposition, &board.mirrors(), mirrors_max, topics_max);
    lanes(&mut exposition, board);
    clusters::write(&mut exposition, board);
    process::write(&mut exposition);
    exposition.finish()
}

fn links(exposition: &mut Exposition, board: &Board) {
    let links = board.links();
    let mut family = exposition
        .gauge("strait_link_state", "1 for the state that the link is in, worst of its parts.");
    for link in &links {
        let now = board.link_state(link);
        for (state, word) in LINK_STATES {
            family.sample(&[("link", &link.name), ("state", word)], u8::from(state == now));
        }
    }
    let mirrors = board.mirrors();
    let mut family =
        exposition.gauge("strait_partitions", "Partitions that are copied, by their state.");
    for link in &links {
        let mut counts = [0u64; MIRROR_STATES.len()];
        for mirror in mirrors.iter().filter(|mirror| mirror.link == link.name) {
            counts[mirror.state() as usize] += 1;
        }
        for (state, word) in MIRROR_STATES {
            family.sample(&[("link", &link.name), ("state", word)], counts[state as usize]);
        }
    }
    let mut family = exposition
        .gauge("strait_blocked_topics", "Topics that match and cannot be copied; see /status.");
    for link in &links {
        let blocked = link.blocked_topics.lock().unwrap_or_else(PoisonError::into_inner).len();
        family.sample(&[("link", &link.name)], blocked);
    }
}

fn mirrors(
    exposition: &mut Exposition,
    mirrors: &[std::sync::Arc<MirrorStats>],
    mirrors_max: usize,
    topics_max: usize,
) {
    let mut totals = BTreeMap::<Key, Totals>::new();
    for mirror in mirrors {
        let key = (mirror.link.to_string(), mirror.topic.to_string(), String::new());
        totals.entry(key).or_default().add(mirror);
    }
    let grain = match (mirrors.len() <= mirrors_max, totals.len() <= topics_max) {
        (true, true) => Grain::Partition,
        (false, true) => Grain::Topic,
        (_, false) => Grain::Link,
    };
    if grain == Grain::Link {
        let mut by_link = BTreeMap::<Key, Totals>::new();
        for ((link, ..), sum) in &totals {
            let key = (link.clone(), String::new(), String::new());
            by_link.entry(key).or_default().merge(sum);
        }
        totals = by_link;
    }
    exposition
        .gauge(
            "strait_metrics_granularity_reduced",
            "1 when there are too many partitions, and series are per topic or per link.",
        )
        .sample(&[], u8::from(grain < Grain::Partition));
    positions(exposition, mirrors, grain);
    counters(exposition, &totals);
}

fn positions(exposition: &mut Exposition, mirrors: &[std::sync::Arc<MirrorStats>], grain: Grain) {
    let mut sums = BTreeMap::<Key, Sum>::new();
    for mirror in mirrors {
        let topic = if grain >= Grain::Topic { mirror.topic.to_string() } else { String::new() };
        let partition =
            if grain == Grain::Partition { mirror.partition.to_string() } else { String::new() };
        let sum = sums.entry((mirror.link.to_string(), topic, partition)).or_default();
        sum.delay_ms = sum.delay_ms.max(mirror.delay_ms.load(Relaxed));
        sum.lag_offsets += mirror.lag_offsets();
        if grain == Grain::Partition {
            let cells = [&mirror.source_end, &mirror.acked, &mirror.committed];
            sum.offsets = Some(cells.map(|cell| cell.load(Relaxed)));
        }
    }
    let mut family = exposition.gauge(
        "strait_delay_seconds",
        "How long the oldest record that the target has not acknowledged has been readable.",
    );
    for (key, sum) in &sums {
        with_labels(key, |labels| family.sample(labels, sum.delay_ms as f64 / 1000.0));
    }
    let mut family = exposition.gauge(
        "strait_lag_offsets",
        "Source end minus acknowledged, in offsets rather than records.",
    );
    for (key, sum) in &sums {
        with_labels(key, |labels| family.sample(labels, sum.lag_offsets));
    }
    let names = [
        (
            "strait_source_end_offset",
            "High watermark, or last stable offset when only committed records count.",
        ),
        ("strait_acked_offset", "Next source offset to be acknowledged by the target."),
        ("strait_committed_offset", "Next source offset in the source group."),
    ];
    for (i, (name, help)) in names.into_iter().enumerate() {
        let mut family = exposition.gauge(name, help);
        for (key, sum) in &sums {
            // -1 stands for not known yet: no sample rather than a wrong one.
            if let Some(offset) =
                sum.offsets.map(|offsets| offsets[i]).filter(|offset| *offset >= 0)
            {
                with_labels(key, |labels| family.sample(labels, offset));
            }
        }
    }
}

fn with_labels(key: &Key, sample: impl FnOnce(Labels<'_>)) {
    let (link, topic, partition) = key;
    let all = [("link", link.as_str()), ("topic", topic), ("partition", partition)];
    let given = if topic.is_empty() {
        1
    } else if partition.is_empty() {
        2
    } else {
        3
    };
    sample(&all[..given]);
}

fn counters(exposition: &mut Exposition, totals: &BTreeMap<Key, Totals>) {
    type Pick = fn(&Totals) -> u64;
    let plain: [(&'static str, &str, Pick); 11] = [
        ("strait_fetched_bytes_total", "Bytes of batches read, as stored on the source.", |t| {
            t.fetched[0]
        }),
        ("strait_fetched_records_total", "Records read, by their batches' headers.", |t| {
            t.fetched[1]
        }),
        ("strait_acked_bytes_total", "Bytes of batches that the target acknowledged.", |t| {
            t.acked[0]
        }),
        ("strait_acked_records_total", "Records that the target acknowledged.", |t| t.acked[1]),
        (
            "strait_merged_batches_total",
            "Source batches that were sent as one with their neighbours.",
            |t| t.merged_batches,
        ),
        (
            "strait_resyncs_total",
            "Times that a mirror stopped, read the target back and went on.",
            |t| t.resyncs,
        ),
        (
            "strait_gap_offsets_total",
            "Source offsets that were gone before they were copied: possible loss.",
            |t| t.gap_offsets,
        ),
        (
            "strait_truncated_offsets_total",
            "Source offsets that were copied and that the source has lost since.",
            |t| t.truncated_offsets,
        ),
        (
            "strait_skipped_poison_records_total",
            "Records in batches that were stepped over because they cannot be copied.",
            |t| t.skipped_poison_records,
        ),
        (
            "strait_doubled_records_total",
            "Old records that the target holds a second time: it had forgotten their numbers.",
            |t| t.doubled_records,
        ),
        (
            "strait_source_recreations_total",
            "Times that a partition of a re-created source topic was begun anew.",
            |t| t.recreations,
        ),
    ];
    for (name, help, pick) in plain {
        let mut family = exposition.counter(name, help);
        for (key, sum) in totals {
            with_labels(key, |labels| family.sample(labels, pick(sum)));
        }
    }
    let mut family =
        exposition.counter("strait_batches_total", "Source batches by what became of them.");
    for (key, sum) in totals {
        with_labels(key, |labels| {
            for fate in Fate::ALL {
                let labels = [labels, &[("fate", fate.label())]].concat();
                family.sample(&labels, sum.batches[fate as usize]);
            }
        });
    }
}

impl Totals {
    fn add(&mut self, mirror: &MirrorStats) {
        let get = |cell: &AtomicU64| cell.load(Relaxed);
        self.merge(&Self {
            fetched: [get(&mirror.fetched_bytes), get(&mirror.fetched_records)],
            acked: [get(&mirror.acked_bytes), get(&mirror.acked_records)],
            batches: std::array::from_fn(|fate| get(&mirror.batches[fate])),
            merged_batches: get(&mirror.merged_batches),
            resyncs: get(&mirror.resyncs),
            gap_offsets: get(&mirror.gap_offsets),
            truncated_offsets: get(&mirror.truncated_offsets),
            skipped_poison_records: get(&mirror.skipped_poison_records),
            doubled_records: get(&mirror.doubled_records),
            recreations: get(&mirror.recreations),
        });
    }

    fn merge(&mut self, other: &Self) {
        let pairs = self.fetched.iter_mut().zip(other.fetched);
        let pairs = pairs.chain(self.acked.iter_mut().zip(other.acked));
        for (mine, theirs) in pairs.chain(self.batches.iter_mut().zip(other.batches)) {
            *mine += theirs;
        }
        self.merged_batches += other.merged_batches;
        self.resyncs += other.resyncs;
        self.gap_offsets += other.gap_offsets;
        self.truncated_offsets += other.truncated_offsets;
        self.skipped_poison_records += other.skipped_poison_records;
        self.doubled_records += other.doubled_records;
        self.recreations += other.recreations;
    }
}

fn lanes(exposition: &mut Exposition, board: &Board) {
    let lanes = board.lanes();
    let mut errors = BTreeMap::<(String, &str, &str, String), u64>::new();
    let mut throttle_ms = BTreeMap::<String, u64>::new();
    let mut latencies = BTreeMap::<String, ([u64; LATENCY_BOUNDS_US.len()], u64, f64)>::new();
    let (mut bytes, mut limit) = (BTreeMap::new(), BTreeMap::new());
    for lane in &lanes {
        let link = lane.link.to_string();
        for ((side, api, name), count) in
            lane.request_errors.lock().unwrap_or_else(PoisonError::into_inner).iter()
        {
            *errors.entry((link.clone(), side, api, name.clone())).or_default() += count;
        }
        *throttle_ms.entry(link.clone()).or_default() += lane.throttle_ms.load(Relaxed);
        *bytes.entry(link.clone()).or_insert(0) += lane.buffered_bytes.load(Relaxed);
        *limit.entry(link.clone()).or_insert(0) += lane.buffered_bytes_limit.load(Relaxed);
        let relay = lane.relay_us.lock().unwrap_or_else(PoisonError::into_inner);
        let (counts, total, sum) = latencies.entry(link).or_default();
        for value in relay.iter_recorded() {
            let us = value.value_iterated_to();
            let count = value.count_at_value();
            *total += count;
            *sum += us as f64 * count as f64 / 1e6;
            if let Some(bucket) = LATENCY_BOUNDS_US.iter().position(|bound| us <= *bound) {
                counts[bucket] += count;
            }
        }
    }
    let mut family = exposition
        .counter("strait_request_errors_total", "Answers with an error, by Kafka's name for it.");
    for ((link, side, api, error), count) in &errors {
        family.sample(&[("link", link), ("side", side), ("api", api), ("error", error)], count);
    }
    let mut family = exposition
        .counter("strait_throttle_seconds_total", "Time that brokers asked to wait (quotas).");
    for (link, ms) in &throttle_ms {
        family.sample(&[("link", link)], *ms as f64 / 1000.0);
    }
    let mut family = exposition.gauge("strait_buffer_bytes", "Bytes of frames that are held.");
    for (link, bytes) in &bytes {
        family.sample(&[("link", link)], bytes);
    }
    let mut family =
        exposition.gauge("strait_buffer_limit_bytes", "The bound of strait_buffer_bytes.");
    for (link, limit) in &limit {
        family.sample(&[("link", link)], limit);
    }
    loads(exposition, board);
    let mut family = exposition.histogram(
        "strait_relay_latency_seconds",
        "From a fetch answer that was read to the target's acknowledgement.",
    );
    let bounds = LATENCY_BOUNDS_US.map(|us| us as f64 / 1e6);
    for (link, (counts, total, sum)) in &latencies {
        family.buckets(&[("link", link)], &bounds, counts, *total, *sum);
    }
}

fn loads(exposition: &mut Exposition, board: &Board) {
    let loads = board.loads();
    let mut family = exposition
        .gauge("strait_lane_busy", "Part of the last seconds that a lane's thread was busy.");
    for load in &loads {
        let lane = load.lane.to_string();
        let mut sample = |thread: &str, permille: &AtomicU64| {
            let part = permille.load(Relaxed) as f64 / 1000.0;
            family.sample(&[("lane", &lane), ("thread", thread)], part);
        };
        sample("lane", &load.busy_permille);
        load.reader_busy_permille.iter().for_each(|permille| sample("reader", permille));
    }
    let mut family = exposition.gauge("strait_lane_partitions", "Partitions on a lane.");
    for load in &loads {
        family.sample(&[("lane", &load.lane.to_string())], load.mirrors.load(Relaxed));
    }
    let mut family = exposition
        .counter("strait_lane_moves_total", "Partitions that a hot lane gave to another.");
    for load in &loads {
        family.sample(&[("lane", &load.lane.to_string())], load.given.load(Relaxed));
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
