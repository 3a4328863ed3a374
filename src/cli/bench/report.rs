//! How a measurement of a link is told: in words, or as JSON with stable keys.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::super::path::{self, Buffer, show_ms, show_rate};
use super::super::screen::{Tone, show_bytes, show_count, show_seconds};
use super::super::{Output, Screen};
use super::copy::per_cpu_second;
use super::hints;
use super::link::{LinkArgs, Measured, Seen, Tls};
use super::topic::{self, Removed};
use crate::config::resolved::Link;
use crate::error::{Error, Side};

/// A name that is drawn when it is made.
const RANDOM: &str = "strait.bench.<random>";

/// What would be done, and what speaks against it.
pub(super) fn rehearsed(
    args: &LinkArgs,
    link: &Link,
    problems: &[Error],
    screen: &mut Screen<'_>,
) -> std::io::Result<()> {
    let problems = problems.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (from, to, shape) = (&link.from.name, &link.to.name, &args.shape);
    if args.output.output == Output::Json {
        let body = json!({
            "link": link.name, "source": from, "target": to, "topic": RANDOM, "group": RANDOM,
            "replication_factor": link.replication_factor, "bytes_max": args.bytes, "shape": shape,
            "problems": problems,
        });
        return screen.json("strait.bench.plan/1", body);
    }
    let factor = link.replication_factor.map_or("the default".to_owned(), |n| n.to_string());
    let out = &mut screen.out;
    writeln!(
        out,
        "would make topic {RANDOM} on {from} and {to}: {} partitions, replication factor {factor} on {to}",
        shape.partitions
    )?;
    writeln!(
        out,
        "would write at most {} to it on {from}, for at most {} s",
        args.amount(),
        shape.seconds
    )?;
    writeln!(
        out,
        "would copy it for at most {} s under group {RANDOM}, and remove it from both",
        shape.seconds
    )?;
    for problem in &problems {
        let line = screen.paint(Tone::Bad, &format!("✗ {problem}"));
        writeln!(screen.out, "  {line}")?;
    }
    writeln!(screen.out, "nothing was changed")
}

/// What was measured.
pub(super) fn measured(
    args: &LinkArgs,
    link: &Link,
    topic: &str,
    measured: &Measured,
    removed: &Removed,
    screen: &mut Screen<'_>,
) -> std::io::Result<()> {
    match args.output.output {
        Output::Json => {
            screen.json("strait.bench.link/1", document(args, link, topic, measured, removed))
        }
        Output::Table => words(args, link, topic, measured, screen),
    }
}

fn document(
    args: &LinkArgs,
    link: &Link,
    topic: &str,
    measured: &Measured,
    removed: &Removed,
) -> Value {
    let Measured { filled, copied, facts, .. } = measured;
    let side = |name: &str, tls: Tls| json!({ "cluster": name, "tls_version": tls.version, "tls_suite": tls.suite });
    let hints = hints::hints(facts);
    let hints = hints.iter().map(|hint| json!({ "what": hint.what, "fix": hint.fix }));
    let others = measured.others.iter();
    let others = others.map(|(cluster, topic)| json!({ "cluster": cluster, "topic": topic }));
    json!({
        "link": link.name,
        "source": side(&link.from.name, measured.tls[0]),
        "target": side(&link.to.name, measured.tls[1]),
        "topic": topic,
        "shape": args.shape,
        "filled": { "records": filled.records, "bytes": filled.bytes, "seconds": filled.took.as_secs_f64() },
        "copied": {
            "records": copied.records, "bytes": copied.bytes, "seconds": copied.took.as_secs_f64(),
            "began_after_seconds": copied.began_after.as_secs_f64(),
            "bytes_per_second": copied.bytes_per_second(),
            "later_bytes_per_second": copied.later_bytes_per_second,
            "cpu_seconds": copied.cpu.process.map(|cpu| cpu.as_secs_f64()),
            "bytes_per_cpu_second": per_cpu_second(copied.bytes, copied.cpu.process),
        },
        "ack_seconds": ack_seconds(&copied.ack_us),
        "brokers": measured.brokers.iter().map(|seen| broker(seen, measured)).collect::<Vec<_>>(),
        "time": {
            "fetch_wait_share": facts.fetch_wait,
            "busiest_lane_share": facts.lane_busy,
            "window_full_share": facts.window_full,
            "throttled_seconds": copied.throttled.as_secs_f64(),
            "buffered_bytes_max": facts.buffered_bytes_max,
            "memory_bytes": facts.memory_bytes,
        },
        "bound": hints::bound(facts),
        "request_errors": measured.errors,
        "hints": hints.collect::<Vec<_>>(),
        "removed": { "source": removed.source.is_none(), "target": removed.target.is_none() },
        "other_topics": others.collect::<Vec<_>>(),
    })
}

/// Seconds to the acknowledgement; null where nothing was acknowledged.
pub(super) fn ack_seconds(ack_us: &Histogram<u64>) -> Value {
    let at = |quantile: f64| {
        (!ack_us.is_empty()).then(|| ack_us.value_at_quantile(quantile) as f64 / 1e6)
    };
    json!({ "p50": at(0.5), "p99": at(0.99), "p999": at(0.999) })
}

fn broker(seen: &Seen, measured: &Measured) -> Value {
    let Seen { side, way, tcp } = seen;
    let carried = measured.facts.targets.iter().find(|carried| carried.broker == way.broker);
    let carried = carried.filter(|_| *side == Side::Target);
    let buffer = match seen.buffer() {
        Some(Buffer::Fixed(bytes)) => Some(i64::from(bytes)),
        Some(Buffer::Auto) => Some(-1),
        Some(Buffer::Unknown(_)) | None => None,
    };
    json!({
        "side": side, "broker": way.broker, "tcp_seconds": tcp.map(|tcp| tcp.as_secs_f64()),
        "request_seconds": way.round_trip.as_secs_f64(), "socket_buffer_bytes": buffer,
        "connections": carried.map(|carried| carried.connections),
        "bytes_per_second": carried.map(|carried| carried.bytes_per_second),
    })
}

fn words(
    args: &LinkArgs,
    link: &Link,
    topic: &str,
    measured: &Measured,
    screen: &mut Screen<'_>,
) -> std::io::Result<()> {
    let Measured { filled, copied, facts, .. } = measured;
    let tls = |tls: Tls| match tls.version {
        None => "plaintext".to_owned(),
        Some(version) => {
            format!("{version} {}", tls.suite.unwrap_or_default()).trim_end().to_owned()
        }
    };
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let out = &mut screen.out;
    writeln!(
        out,
        "link {}  {} ({}) → {} ({})",
        link.name,
        link.from.name,
        tls(measured.tls[0]),
        link.to.name,
        tls(measured.tls[1])
    )?;
    let shape = &args.shape;
    writeln!(
        out,
        "  topic   {topic}: {} partitions, filled with {} records, {} in {}",
        shape.partitions,
        show_count(filled.records),
        show_bytes(filled.bytes as f64),
        show_seconds(filled.took.as_secs_f64()),
    )?;
    writeln!(
        out,
        "  copied  {} records, {} in {}, begun after {}",
        show_count(copied.records),
        show_bytes(copied.bytes as f64),
        show_seconds(copied.took.as_secs_f64()),
        show_ms(copied.began_after),
    )?;
    writeln!(
        out,
        "  rate    {}, in the second half {}; {}",
        show_rate(copied.bytes_per_second()),
        show_rate(copied.later_bytes_per_second),
        show_per_cpu_second(copied.bytes, copied.cpu.process, "this process"),
    )?;
    writeln!(
        out,
        "  ack     {} from the source's answer to the target's acknowledgement",
        show_acks(&copied.ack_us)
    )?;
    for seen in &measured.brokers {
        writeln!(out, "  way     {}", way(seen, measured))?;
    }
    let lane = facts
        .lane_busy
        .map_or(String::new(), |busy| format!("; busiest lane {} of a core", percent(busy)));
    writeln!(
        out,
        "  time    {} waiting for the source's answers{lane}; a window full {}; at most {} of {} memory",
        percent(facts.fetch_wait),
        percent(facts.window_full),
        show_bytes(facts.buffered_bytes_max as f64),
        show_bytes(facts.memory_bytes as f64),
    )?;
    for (error, count) in &measured.errors {
        writeln!(out, "  errors  {error}: {count}")?;
    }
    writeln!(out, "  bound   {}", hints::bound(facts).words())?;
    for hint in hints::hints(facts) {
        let mark = screen.paint(Tone::Warn, "!");
        writeln!(screen.out, "  {mark} {}\n      fix: {}", hint.what, hint.fix)?;
    }
    for (cluster, other) in &measured.others {
        let of = if *cluster == link.from.name { &link.from } else { &link.to };
        let command = topic::command(of, other);
        writeln!(
            screen.out,
            "  i {cluster} has {other} of another measurement; if none runs: {command}"
        )?;
    }
    Ok(())
}

fn way(seen: &Seen, measured: &Measured) -> String {
    let Seen { side, way, tcp } = seen;
    let word = if *side == Side::Source { "source" } else { "target" };
    let tcp = tcp.map_or(String::new(), |tcp| format!("TCP {}, ", show_ms(tcp)));
    let mut line =
        format!("{word} broker {}: {tcp}a request {}", way.broker, show_ms(way.round_trip));
    let key = path::setting(*side);
    match seen.buffer() {
        Some(Buffer::Fixed(bytes)) => line.push_str(&format!(", {key}={bytes}")),
        Some(Buffer::Auto) => line.push_str(&format!(", {key}=-1")),
        Some(Buffer::Unknown(code)) => {
            line.push_str(&format!(", {key} not told ({})", code.name()))
        }
        None => {}
    }
    let carried = measured.facts.targets.iter().find(|carried| carried.broker == way.broker);
    if let Some(carried) = carried.filter(|_| *side == Side::Target) {
        let rate = show_rate(carried.bytes_per_second);
        line.push_str(&format!(", {rate} over {} connections", carried.connections));
    }
    line
}

pub(super) fn show_acks(ack_us: &Histogram<u64>) -> String {
    if ack_us.is_empty() {
        return "none".to_owned();
    }
    let at = |quantile| show_ms(Duration::from_micros(ack_us.value_at_quantile(quantile)));
    format!("p50 {} · p99 {} · p99.9 {}", at(0.5), at(0.99), at(0.999))
}

pub(super) fn show_per_cpu_second(bytes: u64, cpu: Option<Duration>, of: &str) -> String {
    match per_cpu_second(bytes, cpu) {
        Some(rate) => format!("{:.0} MB per CPU-second of {of}", rate / 1e6),
        None => format!("too little CPU time of {of} to be told"),
    }
}
