//! Memory stays under the printed figure, a stalled target slows nobody else, and one that trickles costs no CPU.

use std::time::Duration;

use protocol_tests::agent::Admin;
use protocol_tests::bounds::{FIXED_BYTES, assert_rests};
use protocol_tests::chaos::Proxy;
use protocol_tests::compare::assert_same_digest;
use protocol_tests::copying::{sized, wait_committed};
use protocol_tests::lab::Version::{V39, V43};
use protocol_tests::lab::{Cluster, Listener, pool};
use protocol_tests::strait::{Config, Strait, cluster_yaml};
use protocol_tests::wait::{holds_for, wait_until};
use serde_json::json;

const BUDGET: u64 = 64 << 20;

/// A target of its own, with a faulty network in front.
fn proxied() -> (Proxy, Cluster) {
    let proxy = Proxy::listen();
    let target = Cluster::builder(V43).advertise(1, Listener::ProxiedTls, &proxy.address()).start();
    proxy.forward_to(&target.nodes[0].address(Listener::ProxiedTls));
    (proxy, target)
}

/// 300 MB in eight partitions: more than the memory and what a proxy has on its way.
fn fill(here: &Admin, topic: &str) {
    here.create_topic(topic, 8, json!({}));
    let props = json!({ "batch.size": "131072", "linger.ms": "10" });
    let eight = json!([0, 1, 2, 3, 4, 5, 6, 7]);
    here.produce(
        topic,
        json!({ "count": 150_000, "size": 2000, "partitions": eight, "props": props }),
    );
}

#[test]
fn a_target_that_stops_reading_costs_its_window_and_no_other_link() {
    let (proxy, stalled) = proxied();
    let (source, target) = pool::pair(V43, V39);
    let here = source.admin();
    fill(&here, "stalled");
    here.create_topic("flowing", 2, json!({}));

    let mut config = Config::new(
        "stalled",
        (&source, Listener::Plain),
        (&stalled, Listener::ProxiedTls),
        &["stalled"],
    );
    // A second link in the same process, to a healthy target.
    let healthy = cluster_yaml(&target, Listener::Tls);
    let flowing = "start: earliest\n  flowing:\n    from: source\n    to: healthy\n    \
                   topics: { include: [flowing] }\n    start: earliest";
    config.link = vec![flowing.into()];
    config.target = format!("{}\n  healthy: {healthy}", config.target);
    let config = config.top(&format!("engine: {{ lanes: 2, memory: {}MiB }}", BUDGET >> 20));

    let mut strait = Strait::start(&config);
    strait.expect_in_log("WARN");
    wait_until("the link to run", 60, || {
        strait.metric("strait_acked_bytes_total", &["topic=\"stalled\""]) > 0.0
    });
    proxy.to_server().stop_reading(true);
    wait_until("the stall", 10, || proxy.to_server().held() > 0);
    let bound = BUDGET + FIXED_BYTES;
    let rate = 500;
    let seconds = sized(15, 60);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            here.produce("flowing", json!({
                "duration_ms": seconds * 1000, "per_second": rate, "size": 1000, "partitions": [0, 1],
            }))
        });
        holds_for("memory", Duration::from_secs(seconds), || strait.usage().rss_bytes <= bound);
        load.join().unwrap();
    });
    let peak = strait.usage().rss_peak_bytes;
    println!("peak memory {} MiB, budget {} MiB", peak >> 20, BUDGET >> 20);
    assert!(peak <= bound, "peak {peak} over {bound}");
    wait_committed(&here, "strait.flowing", "flowing", 5);
    assert_same_digest(&here.summary("flowing"), &target.admin().summary("flowing"));
    proxy.to_server().stop_reading(false);
    wait_committed(&here, "strait.stalled", "stalled", 120);
    assert_same_digest(&here.summary("stalled"), &stalled.admin().summary("stalled"));
    strait.assert_clean_log();
}

#[test]
fn a_target_that_trickles_costs_its_window_and_no_cpu() {
    let (proxy, target) = proxied();
    let source = pool::shared(V43, "source");
    let here = source.admin();
    fill(&here, "trickled");
    let config = Config::new(
        "trickled",
        (&source, Listener::Plain),
        (&target, Listener::ProxiedTls),
        &["trickled"],
    );
    let config = config.top(&format!("engine: {{ lanes: 2, memory: {}MiB }}", BUDGET >> 20));
    // Slow enough that not all of it is there before the trickle begins.
    proxy.to_server().bandwidth(10 << 20);
    let mut strait = Strait::start(&config);
    strait.expect_in_log("WARN");
    let acked = || strait.metric("strait_acked_bytes_total", &["topic=\"trickled\""]);
    wait_until("the link to run", 60, || acked() > 0.0);
    // Of each connection, so many bytes a second; answers a byte at a time.
    proxy.to_server().slice(512);
    proxy.to_server().bandwidth(16 << 10);
    proxy.to_client().slice(1);
    proxy.to_client().bandwidth(100);
    let bound = BUDGET + FIXED_BYTES;
    let within = || strait.usage().rss_bytes <= bound;
    holds_for("memory", Duration::from_secs(sized(10, 60)), within);
    let before = proxy.to_server().bytes();
    let used = assert_rests(&strait);
    holds_for("memory", Duration::from_secs(1), within);
    assert!(proxy.to_server().bytes() > before, "it stands and does not trickle");
    assert!(acked() < 300e6, "everything was there before it trickled");
    println!("a target that trickles: {used:.3} cores");
    for direction in [proxy.to_server(), proxy.to_client()] {
        direction.slice(0);
        direction.bandwidth(0);
    }
    wait_committed(&here, "strait.trickled", "trickled", 120);
    assert_same_digest(&here.summary("trickled"), &target.admin().summary("trickled"));
    strait.assert_clean_log();
}
