//! What the figures of a measurement mean: what held it back, and which setting would change that. Pure.

use std::time::Duration;

use super::super::path::{self, Buffer, FAR, Note, show_ms, show_rate};
use super::super::screen::show_bytes;
use crate::error::Side;

/// What took less says nothing: connections are opened, and windows open.
const SECONDS_MIN: f64 = 1.0;
/// A share from which on something is said to have been full, or busy.
const MOST: f64 = 0.9;
/// A rate from which on it is said to be at its limit: the limit lets so much less through while the link fills up.
const AT_LIMIT: f64 = 0.9;
/// What one connection had on its way, in buffers, where the buffer held it back: 1.0 to 1.2 and 1.7 were measured.
const BUFFERS_ON_THE_WAY: std::ops::RangeInclusive<f64> = 0.7..=2.2;
/// The part of the kernel's largest send buffer that is on the way when it is full: the rest is the kernel's bookkeeping.
const KERNEL_ON_THE_WAY: std::ops::RangeInclusive<f64> = 0.25..=1.0;
/// `socket.receive.buffer.bytes` of a broker that nobody has set.
const BUFFER_BYTES_DEFAULT: u32 = 102_400;

/// What is known when a measurement is over.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) seconds: f64,
    /// Of the second half.
    pub(super) bytes_per_second: f64,
    pub(super) limit: Option<u64>,
    pub(super) throttled_share: f64,
    pub(super) window_full: f64,
    pub(super) window_bytes: u64,
    pub(super) buffered_bytes_max: u64,
    pub(super) memory_bytes: u64,
    pub(super) lane_busy: Option<f64>,
    pub(super) lanes: usize,
    pub(super) fetch_wait: f64,
    pub(super) targets: Vec<Carried>,
    /// The last figure of this host's `net.ipv4.tcp_wmem`.
    pub(super) send_buffer_bytes_max: Option<u64>,
}

/// What went to one target broker.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    pub(super) broker: i32,
    pub(super) round_trip: Duration,
    pub(super) buffer: Option<Buffer>,
    pub(super) connections: usize,
    pub(super) bytes_per_second: f64,
}

impl Carried {
    /// Bytes of one connection that were on their way.
    fn on_the_way(&self) -> f64 {
        self.bytes_per_second / self.connections.max(1) as f64 * self.round_trip.as_secs_f64()
    }

    /// The buffer that holds it back, and whether the broker told it.
    fn bound(&self) -> Option<(u32, bool)> {
        let (bytes, told) = match self.buffer? {
            Buffer::Auto => return None,
            Buffer::Fixed(bytes) => (bytes, true),
            Buffer::Unknown(_) => (BUFFER_BYTES_DEFAULT, false),
        };
        let fits = BUFFERS_ON_THE_WAY.contains(&(self.on_the_way() / f64::from(bytes.max(1))));
        (self.round_trip >= FAR && fits).then_some((bytes, told))
    }
}

/// What held the copying back, as far as this process can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    /// It was over before anything could be told.
    TooShort,
    /// The link's own `limit`.
    Limit,
    /// Brokers asked to wait.
    Quota,
    /// The link's `window`.
    Window,
    /// `engine.memory`.
    Memory,
    /// A lane had no more CPU time.
    Lane,
    /// Fetch requests were on their way nearly all the time.
    Source,
    /// The socket buffers of target brokers.
    SocketBuffer,
    /// What is left: the way to the target, and its acknowledgements.
    Target,
}

impl Bound {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::TooShort => "not told: it was over too soon",
            Self::Limit => "the link's `limit`",
            Self::Quota => "quotas: brokers asked to wait",
            Self::Window => "the link's `window`",
            Self::Memory => "`engine.memory`",
            Self::Lane => "the CPU of a lane",
            Self::Source => "the source: its answers were waited for",
            Self::SocketBuffer => "socket buffers of target brokers",
            Self::Target => "the target: the way to it, or its acknowledgements",
        }
    }
}

/// What held it back; the surest first.
pub(super) fn bound(facts: &Facts) -> Bound {
    let is_limited = |limit: u64| facts.bytes_per_second >= AT_LIMIT * limit as f64;
    if facts.seconds < SECONDS_MIN {
        Bound::TooShort
    } else if facts.limit.is_some_and(is_limited) {
        Bound::Limit
    } else if facts.throttled_share >= 0.1 {
        Bound::Quota
    } else if facts.targets.iter().any(|carried| carried.bound().is_some()) {
        Bound::SocketBuffer
    } else if facts.window_full >= 0.5 {
        Bound::Window
    } else if is_memory_full(facts) {
        Bound::Memory
    } else if facts.lane_busy.is_some_and(|busy| busy >= MOST) {
        Bound::Lane
    } else if facts.fetch_wait >= MOST {
        Bound::Source
    } else {
        Bound::Target
    }
}

/// Each of n connections takes 1/(n+1) of the lanes' memory at most, so that a stalled one leaves room.
fn is_memory_full(facts: &Facts) -> bool {
    let connections = facts.targets.iter().map(|carried| carried.connections).sum::<usize>() as f64;
    // Spread over the lanes, each with memory of its own.
    let on_lane = (connections / facts.lanes.max(1) as f64).max(1.0);
    let most = facts.memory_bytes as f64 * on_lane / (on_lane + 1.0);
    facts.memory_bytes > 0 && facts.buffered_bytes_max as f64 >= MOST * most
}

/// What to change.
pub(super) fn hints(facts: &Facts) -> Vec<Note> {
    let bound = bound(facts);
    let is_told = bound != Bound::TooShort;
    let targets = facts.targets.iter().filter(|_| is_told);
    let mut hints = targets.filter_map(socket).collect::<Vec<_>>();
    let note = |what: String, fix: &str| Some(Note { what, fix: fix.to_owned() });
    hints.extend(match bound {
        Bound::TooShort => note(
            format!("copied in {:.2} s, which is too short to judge by", facts.seconds),
            "raise `--bytes`",
        ),
        Bound::Limit => {
            let limit = show_rate(facts.limit.unwrap_or(0) as f64);
            note(format!("the link may send {limit}, and did"), "raise `limit` of the link")
        }
        Bound::Quota => note(
            format!("brokers asked to wait {:.0} % of the time", 100.0 * facts.throttled_share),
            "kafka-configs.sh --describe --entity-type users (and clients): a quota for this user",
        ),
        Bound::Window => note(
            format!("a partition had its {} on the way", show_bytes(facts.window_bytes as f64)),
            "raise `window` of the link",
        ),
        Bound::Memory => note(
            format!("{} of memory were full", show_bytes(facts.memory_bytes as f64)),
            "raise `engine.memory`",
        ),
        Bound::Lane => note(
            format!("{} lanes; the busiest had no time left", facts.lanes),
            "raise `engine.lanes` where there are cores and partitions for it",
        ),
        Bound::Source | Bound::SocketBuffer => None,
        Bound::Target => kernel(facts),
    });
    hints
}

fn socket(carried: &Carried) -> Option<Note> {
    let (bytes, told) = carried.bound()?;
    let key = path::setting(Side::Target);
    let each = show_rate(carried.bytes_per_second / carried.connections.max(1) as f64);
    let away = show_ms(carried.round_trip);
    let (broker, connections) = (carried.broker, carried.connections);
    let lets = match told {
        true => format!("what {key}={bytes} lets through"),
        false => format!(
            "what Kafka's default of {key}={bytes} lets through; the broker did not tell its own"
        ),
    };
    let what = match connections {
        1 => format!("the connection to broker {broker} carries {each} over {away}: {lets}"),
        n => {
            format!("each of {n} connections to broker {broker} carries {each} over {away}: {lets}")
        }
    };
    Some(Note { what, fix: path::cure(Side::Target) })
}

/// This host's own send buffers, where the broker's are left to its kernel.
fn kernel(facts: &Facts) -> Option<Note> {
    let most = facts.send_buffer_bytes_max.filter(|most| *most > 0)?;
    let fills = |carried: &&Carried| {
        let is_auto = carried.buffer == Some(Buffer::Auto) && carried.round_trip >= FAR;
        is_auto && KERNEL_ON_THE_WAY.contains(&(carried.on_the_way() / most as f64))
    };
    let carried = facts.targets.iter().find(fills)?;
    Some(Note {
        what: format!(
            "a connection to broker {} has about {} on the way over {}, as much as a kernel that keeps at most {} for it may",
            carried.broker,
            show_bytes(carried.on_the_way()),
            show_ms(carried.round_trip),
            show_bytes(most as f64),
        ),
        fix: "raise the last figure of net.ipv4.tcp_wmem here and of net.ipv4.tcp_rmem on the target's hosts; or \
              `connections_per_broker`"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::error_code::ErrorCode;

    fn to(ms: u64, buffer: Buffer, connections: usize, mb_per_second: f64) -> Facts {
        let bytes_per_second = mb_per_second * 1e6;
        let round_trip = Duration::from_millis(ms);
        let carried =
            Carried { broker: 1, round_trip, buffer: Some(buffer), connections, bytes_per_second };
        Facts {
            bytes_per_second,
            targets: vec![carried],
            lanes: 1,
            seconds: 10.0,
            ..Facts::default()
        }
    }

    /// Rates that were measured over 100 ms of real TCP.
    #[test]
    fn a_rate_that_is_a_buffer_each_round_trip_names_the_setting() {
        for (buffer, connections, rate) in [
            (102_400, 1, 1.2),
            (102_400, 1, 1.0),
            (102_400, 8, 8.0),
            (1_048_576, 1, 17.0),
            (1_048_576, 8, 129.0),
        ] {
            let facts = to(100, Buffer::Fixed(buffer), connections, rate);
            assert_eq!(bound(&facts), Bound::SocketBuffer, "{buffer} {rate}");
            let hint = &hints(&facts)[0];
            assert!(
                hint.what.contains(&format!("socket.receive.buffer.bytes={buffer}")),
                "{hint:?}"
            );
            assert!(hint.fix.contains("socket.receive.buffer.bytes=-1"), "{hint:?}");
        }
    }

    #[test]
    fn what_a_broker_does_not_tell_is_compared_with_the_default() {
        let hidden = Buffer::Unknown(ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
        let hint = &hints(&to(100, hidden, 2, 2.4))[0];
        assert!(
            hint.what.contains("each of 2 connections to broker 1 carries 1.2 MB/s over 100 ms"),
            "{hint:?}"
        );
        assert!(hint.what.contains("Kafka's default"), "{hint:?}");
    }

    #[test]
    fn other_rates_and_short_ways_name_no_buffer() {
        for facts in [
            to(100, Buffer::Fixed(102_400), 1, 0.3),
            to(100, Buffer::Fixed(102_400), 1, 30.0),
            to(1, Buffer::Fixed(102_400), 1, 110.0),
            to(100, Buffer::Auto, 1, 1.2),
        ] {
            assert_eq!(bound(&facts), Bound::Target, "{facts:?}");
            assert!(hints(&facts).is_empty(), "{facts:?}");
        }
    }

    #[test]
    fn a_kernel_s_buffer_is_named_where_the_broker_s_is_its_own() {
        let facts =
            Facts { send_buffer_bytes_max: Some(4 << 20), ..to(100, Buffer::Auto, 1, 15.0) };
        assert!(hints(&facts)[0].fix.contains("net.ipv4.tcp_wmem"), "{:?}", hints(&facts));
        let facts = Facts { send_buffer_bytes_max: Some(64 << 20), ..facts };
        assert!(hints(&facts).is_empty());
    }

    #[test]
    fn each_bound_has_its_sign() {
        let facts = to(1, Buffer::Auto, 2, 100.0);
        let with = |change: fn(&mut Facts)| {
            let mut facts = facts.clone();
            change(&mut facts);
            (bound(&facts), hints(&facts).len())
        };
        assert_eq!(with(|f| f.seconds = 0.4), (Bound::TooShort, 1));
        assert_eq!(with(|f| f.limit = Some(105_000_000)), (Bound::Limit, 1));
        assert_eq!(with(|f| f.limit = Some(200_000_000)), (Bound::Target, 0));
        assert_eq!(with(|f| f.throttled_share = 0.3), (Bound::Quota, 1));
        assert_eq!(with(|f| f.window_full = 0.8), (Bound::Window, 1));
        assert_eq!(with(|f| f.lane_busy = Some(0.97)), (Bound::Lane, 1));
        assert_eq!(with(|f| f.fetch_wait = 0.95), (Bound::Source, 0));
        // Two connections: two thirds are all that they may hold.
        let memory = |f: &mut Facts| (f.memory_bytes, f.buffered_bytes_max) = (90, 55);
        assert_eq!(with(memory), (Bound::Memory, 1));
        let room = |f: &mut Facts| (f.memory_bytes, f.buffered_bytes_max) = (90, 40);
        assert_eq!(with(room), (Bound::Target, 0));
    }
}
