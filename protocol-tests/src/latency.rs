//! How long records take from one embedded cluster to another.

use std::thread::sleep;
use std::time::{Duration, Instant};

use bytes::Bytes;
use strait::embedded::EmbeddedCluster;

use crate::raw::Batch;

/// How often the target is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// What the last record may take.
const WAIT: Duration = Duration::from_secs(60);

/// What records took, shortest first.
#[derive(Debug)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Appends `count` batches of one record to partition 0 of a topic of the source, one each `interval`, and waits for
    /// them on the target, where only a copy writes.
    #[track_caller]
    pub fn measure(
        (source, target): (&EmbeddedCluster, &EmbeddedCluster),
        topic: &str,
        count: usize,
        interval: Duration,
    ) -> Self {
        let first = source.ends(topic, 0).unwrap().log_end;
        let began = Instant::now();
        let mut appended: Vec<Instant> = Vec::with_capacity(count);
        let mut took = Vec::with_capacity(count);
        while took.len() < count {
            let due = interval * u32::try_from(appended.len()).unwrap();
            if appended.len() < count && began.elapsed() >= due {
                appended.push(Instant::now());
                source.append(topic, 0, &Bytes::from(Batch::small(1).bytes())).unwrap();
            }
            // The copy may have to make the topic first.
            let end = target.ends(topic, 0).map_or(first, |ends| ends.high_watermark);
            let arrived = usize::try_from(end - first).unwrap_or(0);
            took.extend(appended[..arrived][took.len()..].iter().map(Instant::elapsed));
            let waits = appended.get(took.len()).map_or(Duration::ZERO, Instant::elapsed);
            assert!(waits < WAIT, "record {} of {topic} did not arrive", took.len());
            sleep(LOOK);
        }
        took.sort();
        Self(took)
    }

    /// What so many of a hundred took at most.
    pub fn percentile(&self, of_a_hundred: usize) -> Duration {
        self.0[(self.0.len() * of_a_hundred / 100).min(self.0.len() - 1)]
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |of| self.percentile(of).as_secs_f64() * 1000.0;
        write!(f, "p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms", ms(50), ms(90), ms(99))
    }
}
