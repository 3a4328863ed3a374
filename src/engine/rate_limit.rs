//! A link's limit in bytes per second, shared by all its lanes (the generic cell rate algorithm, ITU-T I.371 annex A). PURE.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// What a link that was idle may send at once: the bytes of this time. Longer than a lane is ever busy with other work, so
/// that no part of the rate is lost.
const BURST: Duration = Duration::from_millis(50);

/// What was sent, as the time that it takes at the limit.
#[derive(Debug)]
pub struct RateLimit {
    bytes_per_second: u64,
    began: Instant,
    /// Nanoseconds after `began` at which everything that was sent has had its time.
    through_at: AtomicU64,
}

impl RateLimit {
    /// Nothing was sent yet.
    pub fn new(bytes_per_second: u64, now: Instant) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            began: now,
            through_at: AtomicU64::new(0),
        }
    }

    /// How long the next request has to wait; none if it may go out.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let through_at = Duration::from_nanos(self.through_at.load(Ordering::Relaxed));
        let ahead = through_at.saturating_sub(now.saturating_duration_since(self.began));
        (ahead > BURST).then(|| ahead - BURST)
    }

    /// Counts a request that goes out.
    pub fn on_sent(&self, bytes: usize, now: Instant) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let now = nanos(now.saturating_duration_since(self.began));
        let takes = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_second);
        let takes = u64::try_from(takes).unwrap_or(u64::MAX);
        let through = |through_at: u64| Some(through_at.max(now).saturating_add(takes));
        // The closure always gives a value.
        let _ = self.through_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, through);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 10_000_000;

    #[test]
    fn a_second_carries_its_bytes_and_no_more() {
        let mut now = Instant::now();
        let (limit, end) = (RateLimit::new(RATE, now), now + Duration::from_secs(60));
        let mut sent = 0;
        while now < end {
            match limit.wait(now) {
                Some(wait) => now += wait,
                None => {
                    limit.on_sent(300_000, now);
                    sent += 300_000;
                }
            }
        }
        let most = 60.05 * RATE as f64 + 300_000.0;
        assert!((0.999 * 60.0 * RATE as f64..=most).contains(&f64::from(sent)), "{sent}");
    }

    #[test]
    fn an_idle_hour_is_not_saved_up() {
        let mut now = Instant::now();
        let limit = RateLimit::new(RATE, now);
        now += Duration::from_secs(3600);
        let mut sent = 0;
        while limit.wait(now).is_none() {
            limit.on_sent(100_000, now);
            sent += 100_000;
        }
        assert!(sent <= 600_000, "{sent} at once");
    }

    #[test]
    fn a_request_of_more_than_a_second_has_its_time() {
        let now = Instant::now();
        let limit = RateLimit::new(RATE, now);
        limit.on_sent(100_000_000, now);
        assert_eq!(limit.wait(now), Some(Duration::from_secs(10) - BURST));
        limit.on_sent(usize::MAX, now);
        assert!(limit.wait(now).is_some(), "no wrap");
    }
}
