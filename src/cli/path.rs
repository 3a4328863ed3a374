//! The way to a broker: how long a round trip takes, and how much its socket lets be on the way. Measured for `check` and
//! `bench link`; what it means is said by functions without a network.

use std::time::Duration;

use crate::cluster::admin;
use crate::cluster::rights::{self, On};
use crate::config::resolved::Cluster;
use crate::connection::Connection;
use crate::env::Env;
use crate::error::{Error, Side};
use crate::wire::api_versions::ApiVersionsRequest;
use crate::wire::describe_configs::{ConfigsOf, ResourceKind};
use crate::wire::error_code::ErrorCode;

/// From here on the size of a socket's buffer is felt: Kafka's default of 100 KiB carries 20 MB/s over it.
pub(super) const FAR: Duration = Duration::from_millis(10);
/// Round trips that are measured; the least of them counts.
const TRIES: usize = 3;

/// What a broker's socket buffer is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Buffer {
    /// The kernel decides, and follows what the way carries.
    Auto,
    /// So many bytes.
    Fixed(u32),
    /// The broker did not say.
    Unknown(ErrorCode),
}

/// One broker as seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) broker: i32,
    /// A request and its answer, without work in between.
    pub(super) round_trip: Duration,
    /// By the side that the broker is on; asked only of brokers that are [`FAR`].
    pub(super) buffers: Vec<(Side, Buffer)>,
}

/// What could be better, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) what: String,
    pub(super) fix: String,
}

/// The setting of a broker that bounds what is on its way to it, or from it.
pub(super) fn setting(side: Side) -> &'static str {
    match side {
        Side::Source => "socket.send.buffer.bytes",
        Side::Target | Side::Local => "socket.receive.buffer.bytes",
    }
}

/// The most that one connection carries, bytes a second: Linux doubles what a program asks for, and twice the buffer in a
/// round trip is what was measured at best.
pub(super) fn ceiling(buffer_bytes: u32, round_trip: Duration) -> f64 {
    2.0 * f64::from(buffer_bytes) / round_trip.as_secs_f64().max(1e-6)
}

/// Measures the way to a broker that is one of `sides`.
pub(super) async fn look(
    env: &Env,
    connection: &Connection,
    broker: i32,
    sides: &[Side],
) -> Result<Way, Error> {
    let mut round_trip = Duration::MAX;
    for _ in 0..TRIES {
        let request = ApiVersionsRequest {
            software_name: "strait".to_owned(),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let began = env.now();
        connection.ask(&request).await?;
        round_trip = round_trip.min(env.now() - began);
    }
    let mut buffers = Vec::new();
    if round_trip >= FAR {
        for side in sides {
            // What is not told is no trouble.
            let told = buffer(connection, broker, setting(*side)).await;
            buffers.push((*side, told.unwrap_or(Buffer::Unknown(ErrorCode::NETWORK_EXCEPTION))));
        }
    }
    Ok(Way { broker, round_trip, buffers })
}

/// A setting of a broker's socket, which only that broker tells.
async fn buffer(connection: &Connection, broker: i32, key: &str) -> Result<Buffer, Error> {
    let of = ConfigsOf {
        kind: ResourceKind::Broker,
        name: broker.to_string(),
        keys: Some(vec![key.to_owned()]),
    };
    let answer = admin::describe_configs(connection, vec![of]).await?;
    let Some(told) = answer.into_iter().next() else {
        return Ok(Buffer::Unknown(ErrorCode::UNKNOWN_SERVER_ERROR));
    };
    if told.error.is_error() {
        return Ok(Buffer::Unknown(told.error));
    }
    let value = told.configs.into_iter().find(|config| config.name == key);
    let value = value.and_then(|config| config.value?.parse::<i64>().ok());
    Ok(match value {
        None => Buffer::Unknown(ErrorCode::UNKNOWN_SERVER_ERROR),
        Some(bytes) => u32::try_from(bytes).map_or(Buffer::Auto, Buffer::Fixed),
    })
}

/// What is worth saying of the brokers of a cluster: those that are far and whose buffer is fixed, or not told.
pub(super) fn notes(cluster: &Cluster, ways: &[Way]) -> Vec<Note> {
    let mut notes = Vec::new();
    for side in [Side::Source, Side::Target] {
        let far = ways.iter().filter(|way| way.round_trip >= FAR);
        let far = far.filter_map(|way| {
            let found =
                way.buffers.iter().find(|(of, buffer)| *of == side && *buffer != Buffer::Auto);
            found.map(|(_, buffer)| (way, *buffer))
        });
        let far = far.collect::<Vec<_>>();
        let mut buffers = Vec::new();
        for (_, buffer) in &far {
            if !buffers.contains(buffer) {
                buffers.push(*buffer);
            }
        }
        notes.extend(buffers.into_iter().map(|buffer| {
            let alike = far.iter().filter(|(_, other)| *other == buffer).map(|(way, _)| *way);
            note(cluster, side, buffer, &alike.collect::<Vec<_>>())
        }));
    }
    notes
}

/// Of brokers that are alike.
fn note(cluster: &Cluster, side: Side, buffer: Buffer, far: &[&Way]) -> Note {
    let longest = far.iter().map(|way| way.round_trip).max().unwrap_or(FAR);
    let brokers = far.iter().map(|way| way.broker.to_string()).collect::<Vec<_>>().join(", ");
    let brokers = match far.len() {
        1 => format!("broker {brokers} is"),
        _ => format!("brokers {brokers} are"),
    };
    let (key, ms) = (setting(side), show_ms(longest));
    match buffer {
        Buffer::Fixed(bytes) => Note {
            what: format!(
                "{brokers} {ms} away with {key}={bytes}: one connection carries at most about {}",
                show_rate(ceiling(bytes, longest))
            ),
            fix: cure(side),
        },
        Buffer::Unknown(code) if is_refusal(code) => Note {
            what: format!("{brokers} {ms} away; {key} may not be read ({})", code.name()),
            fix: rights::command(cluster, "DescribeConfigs", On::Cluster),
        },
        Buffer::Unknown(_) | Buffer::Auto => {
            Note { what: format!("{brokers} {ms} away and did not tell {key}"), fix: cure(side) }
        }
    }
}

fn is_refusal(code: ErrorCode) -> bool {
    code == ErrorCode::CLUSTER_AUTHORIZATION_FAILED || code == ErrorCode::TOPIC_AUTHORIZATION_FAILED
}

/// The settings to change where a fixed buffer bounds a long way.
pub(super) fn cure(side: Side) -> String {
    match side {
        Side::Source => "socket.send.buffer.bytes=-1 on the source's brokers; on their hosts the last figure of \
                         net.ipv4.tcp_wmem, and of net.ipv4.tcp_rmem here, at least twice rate x round trip",
        Side::Target | Side::Local => {
            "socket.receive.buffer.bytes=-1 on the target's brokers; on their hosts the last figure of \
             net.ipv4.tcp_rmem, and of net.ipv4.tcp_wmem here, at least twice rate x round trip"
        }
    }
    .to_owned()
}

/// Milliseconds as a person says them.
pub(super) fn show_ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    match ms {
        ms if ms < 1.0 => format!("{ms:.2} ms"),
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.0} ms"),
    }
}

/// Bytes a second in units of 10^6, as network people count.
pub(super) fn show_rate(bytes_per_second: f64) -> String {
    let mb = bytes_per_second / 1e6;
    if mb < 10.0 { format!("{mb:.1} MB/s") } else { format!("{mb:.0} MB/s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolved::Address;

    fn cluster() -> Cluster {
        let bootstrap = vec![Address { host: "kafka.west".into(), port: 9093 }];
        Cluster {
            name: "west".into(),
            bootstrap,
            tls: None,
            sasl: None,
            advertised: Default::default(),
        }
    }

    fn way(broker: i32, ms: u64, buffer: Buffer) -> Way {
        let buffers = vec![(Side::Target, buffer)];
        Way { broker, round_trip: Duration::from_millis(ms), buffers }
    }

    #[test]
    fn a_fixed_buffer_over_a_long_way_is_named_with_what_it_carries() {
        let ways = [
            way(1, 80, Buffer::Fixed(102_400)),
            way(2, 100, Buffer::Fixed(102_400)),
            way(3, 90, Buffer::Auto),
            way(4, 1, Buffer::Fixed(102_400)),
        ];
        let notes = notes(&cluster(), &ways);
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert_eq!(
            notes[0].what,
            "brokers 1, 2 are 100 ms away with socket.receive.buffer.bytes=102400: one connection carries at most \
             about 2.0 MB/s"
        );
        for words in ["socket.receive.buffer.bytes=-1", "tcp_rmem", "tcp_wmem"] {
            assert!(notes[0].fix.contains(words), "{}", notes[0].fix);
        }
    }

    #[test]
    fn the_source_s_side_is_its_send_buffer() {
        let mut far = way(7, 40, Buffer::Fixed(102_400));
        far.buffers[0].0 = Side::Source;
        let notes = notes(&cluster(), &[far]);
        assert!(notes[0].what.contains("socket.send.buffer.bytes=102400"), "{notes:?}");
        assert!(notes[0].fix.starts_with("socket.send.buffer.bytes=-1"), "{notes:?}");
    }

    #[test]
    fn what_may_not_be_read_is_said_with_the_grant() {
        let hidden = Buffer::Unknown(ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
        let notes = notes(&cluster(), &[way(1, 30, hidden)]);
        assert!(
            notes[0].what.contains("may not be read (CLUSTER_AUTHORIZATION_FAILED)"),
            "{notes:?}"
        );
        assert!(notes[0].fix.contains("--operation DescribeConfigs --cluster"), "{notes:?}");
        assert!(super::notes(&cluster(), &[way(1, 9, hidden)]).is_empty());
    }

    #[test]
    fn twice_the_buffer_in_a_round_trip_is_the_ceiling() {
        assert_eq!(ceiling(1 << 20, Duration::from_millis(100)).round(), 20_971_520.0);
        assert_eq!(show_rate(1_200_000.0), "1.2 MB/s");
        assert_eq!(show_ms(Duration::from_micros(240)), "0.24 ms");
    }
}
