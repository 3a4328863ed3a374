//! The line that says how a catch-up goes: how much is behind, how fast it shrinks, and when it will be done.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::screen::{show_bytes, show_count, show_seconds};
use crate::engine::stats::{Board, LinkState};

/// How fast old samples fade from the rates.
const MEMORY: Duration = Duration::from_secs(3);

/// Figures of the whole process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    pub(super) lag_offsets: u64,
    pub(super) acked_bytes: u64,
    pub(super) acked_records: u64,
    pub(super) delay_ms: u64,
    pub(super) mirrors: usize,
}

impl Sample {
    pub(super) fn of(board: &Board) -> Self {
        let mut sample = Self::default();
        for mirror in board.mirrors() {
            sample.lag_offsets += mirror.lag_offsets();
            sample.acked_bytes += mirror.acked_bytes.load(Relaxed);
            sample.acked_records += mirror.acked_records.load(Relaxed);
            sample.delay_ms = sample.delay_ms.max(mirror.delay_ms.load(Relaxed));
            sample.mirrors += 1;
        }
        sample
    }
}

/// Samples become rates.
#[derive(Debug, Default)]
pub(super) struct Progress {
    last: Option<(Instant, Sample)>,
    bytes_per_second: f64,
    /// How fast the lag shrinks; negative while the source grows faster.
    lag_per_second: f64,
}

impl Progress {
    pub(super) fn add(&mut self, now: Instant, sample: Sample) {
        if let Some((then, before)) = self.last {
            let seconds = now.saturating_duration_since(then).as_secs_f64();
            if seconds <= 0.0 {
                return;
            }
            let fresh = 1.0 - (-seconds / MEMORY.as_secs_f64()).exp();
            let blend = |old: &mut f64, change: f64| *old += (change / seconds - *old) * fresh;
            let bytes = sample.acked_bytes.saturating_sub(before.acked_bytes);
            blend(&mut self.bytes_per_second, bytes as f64);
            blend(&mut self.lag_per_second, before.lag_offsets as f64 - sample.lag_offsets as f64);
        }
        self.last = Some((now, sample));
    }

    /// When the lag is gone at this pace; none while it does not shrink.
    fn remaining_seconds(&self) -> Option<f64> {
        let lag = self.last?.1.lag_offsets as f64;
        (self.lag_per_second > 0.0).then(|| lag / self.lag_per_second)
    }

    pub(super) fn line(&self) -> String {
        let Some((_, sample)) = self.last else { return String::new() };
        let rate = show_bytes(self.bytes_per_second);
        let lag = show_count(sample.lag_offsets);
        let eta = match self.remaining_seconds() {
            Some(seconds) if sample.lag_offsets > 0 => format!(" · ETA {}", show_seconds(seconds)),
            _ => String::new(),
        };
        format!("catching up: {} partitions · {rate}/s · lag {lag}{eta}", sample.mirrors)
    }
}

/// Whether there is something to catch up with.
pub(super) fn behind(board: &Board) -> bool {
    board
        .links()
        .iter()
        .any(|link| matches!(board.link_state(link), LinkState::Starting | LinkState::CatchingUp))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(lag_offsets: u64, acked_bytes: u64) -> Sample {
        Sample { lag_offsets, acked_bytes, mirrors: 3, ..Sample::default() }
    }

    #[test]
    fn a_steady_pace_gives_its_rate_and_end() {
        let mut progress = Progress::default();
        let start = Instant::now();
        for second in 0..30 {
            let at = start + Duration::from_secs(second);
            progress.add(at, sample(10_000 - 100 * second, second * 1024 * 1024));
        }
        // 7,100 left at 100 a second.
        let line = progress.line();
        assert_eq!(
            line, "catching up: 3 partitions · 1.0 MiB/s · lag 7 100 · ETA 71.0 s",
            "{line}"
        );
    }

    #[test]
    fn a_growing_lag_has_no_end() {
        let mut progress = Progress::default();
        let start = Instant::now();
        progress.add(start, sample(10, 0));
        progress.add(start + Duration::from_secs(1), sample(20, 0));
        progress.add(start + Duration::from_secs(1), sample(20, 0));
        assert!(!progress.line().contains("ETA"), "{}", progress.line());
        assert_eq!(Progress::default().line(), "");
    }
}
