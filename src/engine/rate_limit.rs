//! A link's limits in bytes per second, shared by all its lanes (the generic cell rate algorithm, ITU-T I.371 annex A). PURE.
//!
//! What is sent at the tail counts against the link's limit and waits for its own bytes alone; what fills up a backlog waits
//! for all. So the tail goes first, and what it takes is taken from the backlog.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::class::Class;

/// What a link that was idle may send at once: the bytes of this time. Longer than a lane is ever busy with other work, so
/// that no part of the rate is lost.
const BURST: Duration = Duration::from_millis(50);

/// The limits of a link.
#[derive(Debug)]
pub struct RateLimit {
    began: Instant,
    /// The link's limit: all that was sent, and what of it was sent at the tail.
    link: Option<(Sent, Sent)>,
    /// The backlogs' own limit.
    backfill: Option<Sent>,
}

/// What was sent, as the time that it takes at a rate.
#[derive(Debug)]
struct Sent {
    bytes_per_second: u64,
    /// Nanoseconds after the beginning at which everything that was sent has had its time.
    through_at: AtomicU64,
}

impl RateLimit {
    /// Nothing was sent yet. Limits of all, and of what fills up; none without any.
    pub fn new(link: Option<u64>, backfill: Option<u64>, now: Instant) -> Option<Self> {
        let sent =
            |rate: u64| Sent { bytes_per_second: rate.max(1), through_at: AtomicU64::new(0) };
        let any = link.is_some() || backfill.is_some();
        let link = link.map(|rate| (sent(rate), sent(rate)));
        any.then(|| Self { began: now, link, backfill: backfill.map(sent) })
    }

    /// How long the next request of a class has to wait; none if it may go out.
    pub fn wait(&self, class: Class, now: Instant) -> Option<Duration> {
        let now = now.saturating_duration_since(self.began);
        let link = self.link.as_ref();
        match class {
            Class::Tail => link.and_then(|(_, tail)| tail.wait(now)),
            Class::Backfill => {
                let own = self.backfill.as_ref().and_then(|own| own.wait(now));
                own.max(link.and_then(|(all, _)| all.wait(now)))
            }
        }
    }

    /// Counts a request that goes out.
    pub fn on_sent(&self, class: Class, bytes: usize, now: Instant) {
        let now = now.saturating_duration_since(self.began);
        let (all, tail) = self.link.as_ref().map(|(all, tail)| (all, tail)).unzip();
        let own = if class == Class::Tail { tail } else { self.backfill.as_ref() };
        all.into_iter().chain(own).for_each(|sent| sent.note(bytes, now));
    }
}

impl Sent {
    fn wait(&self, now: Duration) -> Option<Duration> {
        let through_at = Duration::from_nanos(self.through_at.load(Ordering::Relaxed));
        let ahead = through_at.saturating_sub(now);
        (ahead > BURST).then(|| ahead - BURST)
    }

    fn note(&self, bytes: usize, now: Duration) {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
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

    fn limit(now: Instant) -> RateLimit {
        RateLimit::new(Some(RATE), None, now).expect("a limit")
    }

    #[test]
    fn a_second_carries_its_bytes_and_no_more() {
        let mut now = Instant::now();
        let (limit, end) = (limit(now), now + Duration::from_secs(60));
        let mut sent = 0;
        while now < end {
            match limit.wait(Class::Backfill, now) {
                Some(wait) => now += wait,
                None => {
                    limit.on_sent(Class::Backfill, 300_000, now);
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
        let limit = limit(now);
        now += Duration::from_secs(3600);
        let mut sent = 0;
        while limit.wait(Class::Backfill, now).is_none() {
            limit.on_sent(Class::Backfill, 100_000, now);
            sent += 100_000;
        }
        assert!(sent <= 600_000, "{sent} at once");
    }

    #[test]
    fn a_request_of_more_than_a_second_has_its_time() {
        let now = Instant::now();
        let limit = limit(now);
        limit.on_sent(Class::Backfill, 100_000_000, now);
        assert_eq!(limit.wait(Class::Backfill, now), Some(Duration::from_secs(10) - BURST));
        limit.on_sent(Class::Backfill, usize::MAX, now);
        assert!(limit.wait(Class::Backfill, now).is_some(), "no wrap");
    }

    #[test]
    fn the_tail_goes_first_and_takes_from_the_backlog() {
        let mut now = Instant::now();
        let (limit, end) = (limit(now), now + Duration::from_secs(60));
        let (mut backlog, mut tail) = (0, 0);
        while now < end {
            while limit.wait(Class::Backfill, now).is_none() {
                limit.on_sent(Class::Backfill, 1_000_000, now);
                backlog += 1_000_000;
            }
            // A fifth of the rate, in small requests.
            assert_eq!(limit.wait(Class::Tail, now), None);
            limit.on_sent(Class::Tail, 20_000, now);
            tail += 20_000;
            now += Duration::from_millis(10);
        }
        let (all, rate) = (f64::from(backlog + tail), 60.0 * RATE as f64);
        assert!((0.99 * rate..=1.001 * rate + 1_500_000.0).contains(&all), "{all} of {rate}");
        limit.on_sent(Class::Tail, 1_000_000, now);
        assert!(limit.wait(Class::Tail, now).is_some(), "the tail has the same limit");
    }

    #[test]
    fn backlogs_have_a_limit_of_their_own() {
        let now = Instant::now();
        assert!(RateLimit::new(None, None, now).is_none());
        for link in [None, Some(2 * RATE)] {
            let limit = RateLimit::new(link, Some(RATE), now).expect("a limit");
            limit.on_sent(Class::Backfill, RATE as usize, now);
            let wait = Duration::from_secs(1) - BURST;
            assert_eq!(limit.wait(Class::Backfill, now), Some(wait));
            assert_eq!(limit.wait(Class::Tail, now), None);
            assert_eq!(limit.wait(Class::Backfill, now + wait), None);
        }
    }
}
