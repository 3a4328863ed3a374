//! How many bytes one target connection may have on their way: twice what it delivers within its round trip (the model of
//! BBR; Cardwell, Cheng, Gunn, Yeganeh and Jacobson, 2016). More would carry nothing sooner: it would wait in our memory,
//! in the sockets and at the broker, which works on one request of a connection at a time. PURE.
//!
//! The rate is the best of the last seconds. While the estimate is too low every round trip doubles it; at a connection's
//! beginning, on a long way, every round trip makes it four times as much, until one brings little more. A burst of a quiet
//! connection begins at [`limits::FLOW_BYTES_MIN`]. A full connection hides its own round trip: behind the queue that it
//! keeps up, every answer looks late. So the round trip is measured by a request that is alone on its way, twice a minute
//! at least.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits;

/// How long a rate counts, twice at most.
const RATE_LIFE: Duration = Duration::from_secs(2);
/// How long a round trip is believed that no answer confirmed.
const ROUND_TRIP_LIFE: Duration = Duration::from_secs(30);
/// Below this a doubling takes no time that anybody would see.
const LONG_ROUND_TRIP: Duration = Duration::from_millis(10);
/// Parts of the least round trip by which an answer may be late and still confirm it: an eighth.
const ROUND_TRIP_SLACK: u32 = 8;

/// What is on its way over one connection, and what that connection has shown: by default nothing.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    in_flight_bytes: usize,
    delivered_bytes: u64,
    delivered_at: Option<Instant>,
    rate: Best,
    round_trip: Option<Duration>,
    confirmed_at: Option<Instant>,
    /// Nothing is sent beside the request that measures the round trip.
    probes: bool,
    beginning: Beginning,
}

/// A connection whose rate is not known yet: by round trips, what each has brought.
#[derive(Clone, Copy, Debug, Default)]
struct Beginning {
    is_over: bool,
    rate: u64,
    since: Option<Instant>,
}

/// A request that was sent, as it stood then.
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    bytes: usize,
    at: Instant,
    alone: bool,
    delivered_bytes: u64,
    delivered_at: Instant,
}

/// The largest of the last values, by halves of its life.
#[derive(Clone, Copy, Debug, Default)]
struct Best {
    now: u64,
    before: u64,
    since: Option<Instant>,
}

impl Best {
    fn note(&mut self, value: u64, at: Instant) {
        let since = *self.since.get_or_insert(at);
        let age = at.saturating_duration_since(since);
        if age >= RATE_LIFE {
            self.before = if age < RATE_LIFE * 2 { self.now } else { 0 };
            self.now = 0;
            self.since = Some(at);
        }
        self.now = self.now.max(value);
    }

    fn get(&self) -> u64 {
        self.now.max(self.before)
    }
}

impl Beginning {
    /// It is over once a round trip brought less than a quarter more than the one before it.
    fn note(&mut self, rate: u64, round_trip: Duration, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if self.is_over || now.saturating_duration_since(since) < round_trip {
            return;
        }
        *self = Self { is_over: rate < self.rate + self.rate / 4, rate, since: Some(now) };
    }
}

impl Flow {
    /// Whether one request more may go out. The first always may.
    pub fn has_room(&mut self, now: Instant) -> bool {
        let confirmed = self.confirmed_at.unwrap_or(now);
        if now.saturating_duration_since(confirmed) >= ROUND_TRIP_LIFE && !self.is_idle() {
            self.probes = true;
        }
        self.is_idle() || (!self.probes && self.in_flight_bytes < self.bytes_max())
    }

    /// Bytes that may be on their way; a request may go beyond by its size.
    pub fn bytes_max(&self) -> usize {
        let round_trip = self.round_trip.map_or(0, |time| time.as_micros());
        let product = u128::from(self.rate.get()) * round_trip / 1_000_000;
        let is_long = self.round_trip.is_some_and(|time| time >= LONG_ROUND_TRIP);
        let products = if is_long && !self.beginning.is_over { 4 } else { 2 };
        usize::try_from(products * product).unwrap_or(usize::MAX).max(limits::FLOW_BYTES_MIN)
    }

    fn is_idle(&self) -> bool {
        self.in_flight_bytes == 0
    }

    /// A request goes out.
    pub fn on_sent(&mut self, bytes: usize, now: Instant) -> Departure {
        let alone = self.is_idle();
        // What an idle connection did not deliver says nothing about it.
        let delivered_at = self.delivered_at.filter(|_| !alone).unwrap_or(now);
        self.in_flight_bytes += bytes;
        Departure { bytes, at: now, alone, delivered_bytes: self.delivered_bytes, delivered_at }
    }

    /// Its answer is here.
    pub fn on_answered(&mut self, sent: Departure, now: Instant) {
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(sent.bytes);
        self.delivered_bytes += sent.bytes as u64;
        self.delivered_at = Some(now);
        let delivered = u128::from(self.delivered_bytes - sent.delivered_bytes);
        let took = now.saturating_duration_since(sent.delivered_at).as_micros().max(1);
        self.rate.note(u64::try_from(delivered * 1_000_000 / took).unwrap_or(u64::MAX), now);
        self.measure(now.saturating_duration_since(sent.at), sent.alone, now);
        let round_trip = self.round_trip.unwrap_or_default();
        self.beginning.note(self.rate.get(), round_trip, now);
    }

    fn measure(&mut self, took: Duration, alone: bool, now: Instant) {
        let least = self.round_trip.unwrap_or(took);
        if took <= least + least / ROUND_TRIP_SLACK {
            self.round_trip = Some(least.min(took));
        } else if alone && self.probes {
            self.round_trip = Some(took);
        } else {
            return;
        }
        self.probes = false;
        self.confirmed_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const REQUEST: usize = 1 << 20;

    /// A connection that takes `rate` bytes a second, one request after the other, and answers half a round trip later.
    struct Link {
        flow: Flow,
        now: Instant,
        round_trip: Duration,
        rate: f64,
        free_at: Instant,
        answers: std::collections::VecDeque<(Instant, Departure)>,
        answered: usize,
        most: usize,
    }

    impl Link {
        fn new(rate: f64, round_trip: Duration) -> Self {
            let now = Instant::now();
            let flow = Flow::default();
            let answers = Default::default();
            Self { flow, now, round_trip, rate, free_at: now, answers, answered: 0, most: 0 }
        }

        /// Sends all that it may until `time` is over; gives the bytes that were answered.
        fn run(&mut self, time: Duration) -> usize {
            let (end, before) = (self.now + time, self.answered);
            self.most = 0;
            while self.now < end {
                while self.flow.has_room(self.now) {
                    let sent = self.flow.on_sent(REQUEST, self.now);
                    let there = self.now + self.round_trip / 2;
                    let work = Duration::from_secs_f64(REQUEST as f64 / self.rate);
                    self.free_at = self.free_at.max(there) + work;
                    self.answers.push_back((self.free_at + self.round_trip / 2, sent));
                    self.most = self.most.max(self.flow.in_flight_bytes);
                }
                let (at, sent) = self.answers.pop_front().expect("something is on its way");
                self.now = at;
                self.flow.on_answered(sent, at);
                self.answered += REQUEST;
            }
            self.answered - before
        }
    }

    #[test]
    fn a_long_link_is_filled_within_some_round_trips() {
        let mut link = Link::new(200e6, 100 * MS);
        link.run(600 * MS);
        let bytes = link.run(Duration::from_secs(5));
        assert!(bytes as f64 > 0.97 * 5.0 * 200e6, "{bytes}");
        link.run(Duration::from_secs(1));
        let product = (200e6 * 0.1) as usize;
        assert!(link.most < 3 * product, "{} on its way", link.most);
    }

    #[test]
    fn a_short_link_keeps_little_on_its_way() {
        let mut link = Link::new(300e6, MS / 5);
        let bytes = link.run(Duration::from_secs(2));
        assert!(bytes as f64 > 0.98 * 2.0 * 300e6, "{bytes}");
        assert!(link.most <= limits::FLOW_BYTES_MIN + REQUEST, "{} on its way", link.most);
    }

    #[test]
    fn hours_of_full_work_do_not_let_the_queue_grow() {
        let mut link = Link::new(200e6, 100 * MS);
        link.run(Duration::from_secs(300));
        let bytes = link.run(Duration::from_secs(60));
        assert!(link.most < 3 * 20_000_000, "{} on its way", link.most);
        assert!(bytes as f64 > 0.96 * 60.0 * 200e6, "the probes cost little: {bytes}");
    }

    #[test]
    fn a_route_that_became_longer_is_filled_again() {
        let mut link = Link::new(200e6, 10 * MS);
        link.run(Duration::from_secs(5));
        link.round_trip = 150 * MS;
        link.run(Duration::from_secs(40));
        let bytes = link.run(Duration::from_secs(10));
        assert!(bytes as f64 > 0.95 * 10.0 * 200e6, "{bytes}");
    }

    #[test]
    fn what_an_idle_hour_did_not_carry_is_no_rate() {
        let mut link = Link::new(200e6, 100 * MS);
        link.run(Duration::from_secs(3));
        while let Some((at, sent)) = link.answers.pop_front() {
            link.now = at;
            link.flow.on_answered(sent, at);
        }
        link.now += Duration::from_secs(3600);
        let bytes = link.run(Duration::from_secs(2));
        assert!(bytes as f64 > 0.6 * 2.0 * 200e6, "{bytes}");
    }

    #[test]
    fn a_request_that_is_larger_than_all_room_goes_out_alone() {
        let mut flow = Flow::default();
        let now = Instant::now();
        flow.on_sent(100 << 20, now);
        assert!(!flow.has_room(now));
        let flow = Flow::default();
        assert_eq!(flow.bytes_max(), limits::FLOW_BYTES_MIN);
    }
}
