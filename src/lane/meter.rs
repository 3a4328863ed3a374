//! How busy a lane's threads are, as their runtimes count it: a lane does nothing for it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::RuntimeMetrics;

use crate::engine::stats::LaneLoad;

/// What a thread's runtime counts, from the moment that it runs.
pub(super) type Gauge = Arc<OnceLock<RuntimeMetrics>>;

/// One lane's threads.
pub(super) struct Meter {
    pub(super) lane: Gauge,
    pub(super) reader: Gauge,
    pub(super) load: Arc<LaneLoad>,
}

/// How long both threads have been busy, since they began.
#[derive(Clone, Copy, Default)]
pub(super) struct Busy {
    lane: Duration,
    reader: Duration,
}

impl Meter {
    pub(super) fn new(lane: usize, has_reader: bool) -> Self {
        let load = Arc::new(LaneLoad::new(lane, has_reader));
        Self { lane: Gauge::default(), reader: Gauge::default(), load }
    }

    /// Up to now.
    pub(super) fn busy(&self) -> Busy {
        let busy = |gauge: &Gauge| {
            gauge.get().map_or(Duration::ZERO, |metrics| metrics.worker_total_busy_duration(0))
        };
        Busy { lane: busy(&self.lane), reader: busy(&self.reader) }
    }

    /// Publishes the part of `time` in which the threads were busy, and gives that of the busier one.
    pub(super) fn note(&self, before: Busy, now: Busy, time: Duration) -> f64 {
        let lane = part(now.lane.saturating_sub(before.lane), time);
        let reader = part(now.reader.saturating_sub(before.reader), time);
        self.load.busy_permille.store(permille(lane), Relaxed);
        if let Some(cell) = &self.load.reader_busy_permille {
            cell.store(permille(reader), Relaxed);
        }
        lane.max(reader)
    }
}

/// What a thread did before the last look may have been counted only since: never more than all of the time.
fn part(busy: Duration, time: Duration) -> f64 {
    (busy.as_secs_f64() / time.as_secs_f64().max(1e-3)).min(1.0)
}

fn permille(part: f64) -> u64 {
    (part * 1000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_as_busy_as_the_busier_of_its_threads() {
        let meter = Meter::new(3, true);
        let busy = |lane, reader| Busy {
            lane: Duration::from_millis(lane),
            reader: Duration::from_millis(reader),
        };
        let time = Duration::from_secs(2);
        assert_eq!(meter.note(busy(1000, 1000), busy(1500, 2800), time), 0.9);
        assert_eq!(meter.load.busy_permille.load(Relaxed), 250);
        let reader = meter.load.reader_busy_permille.as_ref().unwrap();
        assert_eq!(reader.load(Relaxed), 900);
        assert_eq!(meter.note(busy(0, 0), busy(9000, 0), time), 1.0, "not more than all of it");
        assert_eq!(meter.busy().lane, Duration::ZERO, "no runtime yet");
    }

    #[test]
    fn what_a_runtime_does_is_counted_and_its_waiting_is_not() {
        let meter = Meter::new(0, false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        meter.lane.set(runtime.metrics()).ok().unwrap();
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(200)).await });
        let waited = meter.busy().lane;
        assert!(waited < Duration::from_millis(100), "{waited:?}");
        runtime.block_on(async {
            let work = tokio::spawn(async {
                let mut sum = 0_u64;
                (0..3_000_000_u64).for_each(|n| sum = std::hint::black_box(sum ^ n));
            });
            work.await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        });
        assert!(meter.busy().lane > waited);
    }
}
