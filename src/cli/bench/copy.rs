//! Watches an engine while it copies, by what its board shows, and sums it up. Never steers it.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use super::cpu::Cpu;
use crate::engine::stats::{Board, new_latency_histogram};
use crate::env::Env;
use crate::error::{Action, Code, Error, Side};

/// Time between two looks, at least.
const LOOK: Duration = Duration::from_millis(20);
/// The same until there is something to see.
const FIRST_LOOK: Duration = Duration::from_millis(5);
/// Looks of one measurement, at most.
const LOOKS_MAX: u32 = 2000;
/// By then the engine must have fetched something.
const BEGIN: Duration = Duration::from_secs(60);

/// How long is watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// What is copied before that does not count.
    pub(super) warm_up: Duration,
    pub(super) length: Duration,
    /// All that there is; none if it never ends.
    pub(super) records: Option<u64>,
    pub(super) window_bytes_max: usize,
}

/// The board at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Look {
    /// Since the engine was started.
    at: Duration,
    fetched_bytes: u64,
    acked_bytes: u64,
    acked_records: u64,
    buffered_bytes: u64,
    memory_bytes: u64,
    fullest_window_bytes: u64,
    fetch_wait_us: u64,
    throttle_ms: u64,
}

impl Look {
    fn of(board: &Board, at: Duration) -> Self {
        let mut look = Self { at, ..Self::default() };
        for mirror in board.mirrors() {
            look.fetched_bytes += mirror.fetched_bytes.load(Relaxed);
            look.acked_bytes += mirror.acked_bytes.load(Relaxed);
            look.acked_records += mirror.acked_records.load(Relaxed);
            let buffered = mirror.buffered_bytes.load(Relaxed);
            look.fullest_window_bytes = look.fullest_window_bytes.max(buffered);
        }
        let mut memory_by_lane = BTreeMap::new();
        for lane in board.lanes() {
            look.buffered_bytes += lane.buffered_bytes.load(Relaxed);
            memory_by_lane.insert(lane.lane, lane.buffered_bytes_limit.load(Relaxed));
            look.fetch_wait_us += lane.fetch_wait_us.load(Relaxed);
            look.throttle_ms += lane.throttle_ms.load(Relaxed);
        }
        look.memory_bytes = memory_by_lane.values().sum();
        look
    }
}

/// What a measurement saw.
#[derive(Clone, Debug)]
pub(super) struct Copied {
    /// From the start of the engine to the first answer with records.
    pub(super) began_after: Duration,
    pub(super) took: Duration,
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// Of the second half of the time: long ways are filled step by step.
    pub(super) later_bytes_per_second: f64,
    pub(super) cpu: Cpu,
    /// From a Fetch answer to the target's acknowledgement, microseconds.
    pub(super) ack_us: Histogram<u64>,
    /// Fetch requests were on their way, summed over source brokers and lanes.
    pub(super) fetch_wait: Duration,
    /// Parts of the looks at which some partition held its whole window.
    pub(super) window_full: f64,
    /// The most that was fetched and not acknowledged, and what may be.
    pub(super) buffered_bytes_max: u64,
    pub(super) memory_bytes: u64,
    /// Brokers asked to wait (quotas).
    pub(super) throttled: Duration,
}

impl Copied {
    pub(super) fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.took.as_secs_f64().max(1e-3)
    }

    /// The busiest lane's part of a core.
    pub(super) fn lane_busy(&self) -> Option<f64> {
        let busiest = self.cpu.lanes.values().max()?;
        Some(busiest.as_secs_f64() / self.took.as_secs_f64().max(1e-3))
    }
}

/// Bytes for each second of CPU; none where that is not known or too short to be.
pub(super) fn per_cpu_second(bytes: u64, cpu: Option<Duration>) -> Option<f64> {
    let cpu = cpu.filter(|cpu| *cpu >= Duration::from_millis(50))?;
    Some(bytes as f64 / cpu.as_secs_f64())
}

/// Looks until the span is over. Whoever runs it beside the engine's end hears of failures.
pub(super) async fn watch(
    env: &Env,
    board: &Board,
    span: &Span,
    mut tell: impl FnMut(f64),
) -> Result<Copied, Error> {
    let started = env.now();
    let pause = LOOK.max(span.length / LOOKS_MAX);
    let look = |now: Instant| Look::of(board, now - started);
    // The last look before anything came is where a measurement without a warm-up begins.
    let (mut before, mut cpu, mut acks) = (Look::default(), Cpu::now(), new_latency_histogram());
    let began_after = loop {
        tokio::time::sleep(FIRST_LOOK).await;
        let look = look(env.now());
        if look.fetched_bytes > 0 {
            break look.at;
        }
        if look.at > BEGIN {
            return Err(nothing_came(board));
        }
        (before, cpu) = (look, Cpu::now());
    };
    let is_all = |look: &Look| span.records.is_some_and(|all| look.acked_records >= all);
    if !span.warm_up.is_zero() {
        tokio::time::sleep(span.warm_up).await;
        (before, cpu, acks) = (look(env.now()), Cpu::now(), self::acks(board));
    }
    let first = before;
    let mut looks = vec![first];
    loop {
        let last = looks.last().copied().unwrap_or(first);
        if is_all(&last) || last.at - first.at >= span.length {
            break;
        }
        tokio::time::sleep(pause).await;
        let look = look(env.now());
        let seconds = (look.at - last.at).as_secs_f64().max(1e-3);
        tell(look.acked_bytes.saturating_sub(last.acked_bytes) as f64 / seconds);
        looks.push(look);
    }
    let cpu = Cpu::now().since(&cpu);
    let mut ack_us = self::acks(board);
    // All have the same bounds, and the older is a part of the newer.
    let _ = ack_us.subtract(&acks);
    let copied = sum_up(&looks, span, cpu, ack_us, began_after);
    if copied.records == 0 { Err(nothing_came(board)) } else { Ok(copied) }
}

fn acks(board: &Board) -> Histogram<u64> {
    let mut all = new_latency_histogram();
    for lane in board.lanes() {
        let _ = all.add(&*lane.relay_us.lock().unwrap_or_else(PoisonError::into_inner));
    }
    all
}

/// Answers with an error, as `side api name`.
pub(super) fn errors(board: &Board) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for lane in board.lanes() {
        let errors = lane.request_errors.lock().unwrap_or_else(PoisonError::into_inner);
        for ((side, api, name), count) in &*errors {
            *all.entry(format!("{side} {api} {name}")).or_default() += count;
        }
    }
    all
}

fn nothing_came(board: &Board) -> Error {
    let mirrors = board.mirrors();
    let reason = mirrors.iter().find_map(|mirror| mirror.error());
    let nothing = || {
        let seen = errors(board).into_keys().collect::<Vec<_>>().join(", ");
        let seen = if seen.is_empty() { seen } else { format!("; answers: {seen}") };
        let message = format!("nothing was copied{seen}");
        Error::new(Code(82), Side::Local, Action::Stop, message)
    };
    reason.unwrap_or_else(nothing)
}

fn sum_up(
    looks: &[Look],
    span: &Span,
    cpu: Cpu,
    ack_us: Histogram<u64>,
    began_after: Duration,
) -> Copied {
    let (first, last) = match (looks.first(), looks.last()) {
        (Some(first), Some(last)) => (*first, *last),
        _ => Default::default(),
    };
    let half = first.at + (last.at - first.at) / 2;
    let middle = looks.iter().find(|look| look.at >= half).copied().unwrap_or(first);
    // A handful of looks has no halves.
    let from = if looks.len() >= 10 && middle.at < last.at { middle } else { first };
    let seconds = (last.at - from.at).as_secs_f64().max(1e-3);
    let seen = looks.get(1..).unwrap_or_default();
    let full = |look: &&Look| look.fullest_window_bytes as usize >= span.window_bytes_max;
    Copied {
        began_after,
        took: last.at - first.at,
        records: last.acked_records.saturating_sub(first.acked_records),
        bytes: last.acked_bytes.saturating_sub(first.acked_bytes),
        later_bytes_per_second: last.acked_bytes.saturating_sub(from.acked_bytes) as f64 / seconds,
        cpu,
        ack_us,
        fetch_wait: Duration::from_micros(last.fetch_wait_us.saturating_sub(first.fetch_wait_us)),
        window_full: seen.iter().filter(full).count() as f64 / seen.len().max(1) as f64,
        buffered_bytes_max: looks.iter().map(|look| look.buffered_bytes).max().unwrap_or(0),
        memory_bytes: last.memory_bytes,
        throttled: Duration::from_millis(last.throttle_ms.saturating_sub(first.throttle_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span {
        warm_up: Duration::ZERO,
        length: Duration::from_secs(10),
        records: None,
        window_bytes_max: 1000,
    };

    #[test]
    fn the_second_half_is_told_apart_from_the_ramp() {
        // A megabyte a second for a second, then ten.
        let look = |n: u64| Look {
            at: Duration::from_millis(100 * n),
            acked_bytes: if n <= 10 { n * 100_000 } else { 1_000_000 + (n - 10) * 1_000_000 },
            acked_records: n,
            buffered_bytes: n,
            memory_bytes: 64,
            fullest_window_bytes: if n > 10 { 1000 } else { 10 },
            fetch_wait_us: 50_000 * n,
            ..Look::default()
        };
        let looks = (0..=20).map(look).collect::<Vec<_>>();
        let copied = sum_up(&looks, &SPAN, Cpu::default(), new_latency_histogram(), Duration::ZERO);
        assert_eq!((copied.took, copied.bytes), (Duration::from_secs(2), 11_000_000));
        assert_eq!((copied.bytes_per_second(), copied.later_bytes_per_second), (5.5e6, 1e7));
        assert_eq!((copied.window_full, copied.fetch_wait), (0.5, Duration::from_secs(1)));
        assert_eq!((copied.buffered_bytes_max, copied.memory_bytes), (20, 64));
        assert_eq!(copied.lane_busy(), None);
    }

    #[test]
    fn a_measurement_without_looks_is_nothing_and_no_panic() {
        let copied = sum_up(&[], &SPAN, Cpu::default(), new_latency_histogram(), Duration::ZERO);
        assert_eq!((copied.bytes, copied.bytes_per_second()), (0, 0.0));
        assert_eq!(per_cpu_second(1 << 30, Some(Duration::from_millis(10))), None);
    }
}
