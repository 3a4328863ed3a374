//! SASL sessions that real brokers end after three seconds (`connections.max.reauth.ms`).
#![allow(clippy::disallowed_methods, reason = "it runs for a time by the real clock")]

use std::time::{Duration, Instant};

use protocol_tests::copying::{sized, wait_committed};
use protocol_tests::lab::Version::{V39, V43};
use protocol_tests::lab::{Cluster, Listener, Version};
use protocol_tests::load::{Load, say};
use protocol_tests::strait::{Config, Strait};
use protocol_tests::tally::Tally;
use serde_json::json;

fn renews(from: Version, to: Version) {
    let limited = |version| Cluster::builder(version).set("connections.max.reauth.ms", "3000");
    let (source, target) = limited(from).start_both(limited(to));
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("renewed", 4, json!({}));
    let config = Config::new(
        "renewed",
        (&source, Listener::SaslTls),
        (&target, Listener::SaslTls),
        &["renewed"],
    );
    let strait = Strait::start(&config);
    let load = Load::new(sized(2000, 10_000), 4);
    let begin = Instant::now();
    load.run(&here, "renewed", |_| begin.elapsed() < Duration::from_secs(4));
    let opened = strait.metric("strait_connections_total", &[]);
    let least = Duration::from_secs(sized(12, 120));
    let more = Load { first: 1 << 30, ..load };
    more.run(&here, "renewed", |_| begin.elapsed() < least);
    wait_committed(&here, &config.group(), "renewed", sized(60, 300));
    let renewed = |result: &str| {
        strait.metric("strait_sasl_reauthentications_total", &[&format!("result=\"{result}\"")])
    };
    let (ok, failed) = (renewed("ok"), renewed("failed"));
    let connections = strait.metric("strait_connections_total", &[]);
    let tally = Tally::of(&here.held("renewed"), &there.held("renewed"));
    say(&format!(
        "sessions of 3 s, {} to {}, {} s: {} records, lost {}, doubled {}, reordered {}; {ok} renewals, {failed} failed, \
         {connections} connections",
        from.number(),
        to.number(),
        begin.elapsed().as_secs(),
        tally.source,
        tally.lost,
        tally.duplicated,
        tally.reordered,
    ));
    assert!(tally.is_exact(), "{tally:?}");
    assert_eq!(failed, 0.0);
    // A backlog has connections of its own, which a busy machine opens late; without renewals each would be opened anew
    // every 3 s. One that is lost warns.
    assert!(connections < 1.5 * opened, "{connections} connections, {opened} of them at first");
    assert!(ok >= connections, "{ok} renewals of {connections} connections");
    strait.assert_clean_log();
}

#[test]
fn sessions_are_renewed_under_load_from_3_9_to_4_3() {
    renews(V39, V43);
}

#[test]
fn sessions_are_renewed_under_load_from_4_3_to_3_9() {
    renews(V43, V39);
}
