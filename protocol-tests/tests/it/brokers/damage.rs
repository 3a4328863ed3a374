//! A disk that is full, and bits that flip on the way to a real broker.

use protocol_tests::chaos::Proxy;
use protocol_tests::compare::assert_same_digest;
use protocol_tests::copying::wait_committed;
use protocol_tests::lab::Version::{V39, V43};
use protocol_tests::lab::{Cluster, Listener, pool};
use protocol_tests::load::say;
use protocol_tests::strait::{Config, Strait};
use protocol_tests::wait::wait_until;
use serde_json::json;

#[test]
fn a_target_whose_disk_is_full_holds_each_record_once_when_it_has_room_again() {
    let source = pool::shared(V39, "source");
    let mut target = Cluster::start(V43);
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("full", 2, json!({}));
    // No file may grow beyond 12 MiB: to the broker a write that fails is a disk that fails.
    let node = &mut target.nodes[0];
    node.stop();
    node.limit_files(Some(12 << 10));
    target.restart(1);
    let config =
        Config::new("full", (&source, Listener::Plain), (&target, Listener::Tls), &["full"]);
    let mut strait = Strait::start(&config);
    strait.expect_in_log("WARN");
    strait.expect_in_log("ST-");
    let props = json!({ "linger.ms": "5" });
    let load = json!({ "count": 40_000, "size": 1000, "partitions": [0, 1], "props": props });
    here.produce("full", load);
    wait_until("the end of a broker whose disk is full", 120, || {
        target.nodes[0].exit_code().is_some()
    });
    let log = target.nodes[0].log();
    assert!(
        log.contains("File too large"),
        "{}",
        protocol_tests::process::tail(&target.nodes[0].log_file(), 30)
    );
    target.nodes[0].kill();
    target.nodes[0].limit_files(None);
    target.restart(1);
    wait_committed(&here, &config.group(), "full", 120);
    assert_same_digest(&here.summary("full"), &there.summary("full"));
    say("disk full: the broker ended by it, 40,000 records are there once");
    strait.assert_clean_log();
}

/// A bit flips inside a large batch on the way to the target: its checksum is the producer's own, so the broker refuses it.
/// With TLS any bit may flip: the record's seal breaks, and the connection ends.
#[test]
fn rule_15_a_bit_flipped_on_the_way_to_the_target_never_arrives() {
    for (name, listener) in [("plainly", Listener::ProxiedPlain), ("sealed", Listener::ProxiedTls)]
    {
        let proxy = Proxy::listen();
        let source = pool::shared(V43, "source");
        let target = Cluster::builder(V43).advertise(1, listener, &proxy.address()).start();
        proxy.forward_to(&target.nodes[0].address(listener));
        let (here, there) = (source.admin(), target.admin());
        let topic = format!("flipped-{name}");
        here.create_topic(&topic, 1, json!({}));
        let config =
            Config::new(&topic, (&source, Listener::Plain), (&target, listener), &[&topic]);
        let mut strait = Strait::start(&config);
        strait.expect_in_log("WARN");
        strait.expect_in_log("ERROR");
        let props =
            json!({ "batch.size": "262144", "linger.ms": "50", "buffer.memory": "8388608" });
        for round in 0..6 {
            let errors = || strait.metric("strait_request_errors_total", &["side=\"target\""]);
            let (before, accepted) = (errors(), proxy.accepted());
            proxy.to_server().flip_after(100_000 + round * 33_333);
            here.produce(
                &topic,
                json!({ "count": 3000, "from": round * 3000, "size": 500, "props": props }),
            );
            wait_until("the flip", 60, || proxy.to_server().flipped() == round + 1);
            wait_committed(&here, &config.group(), &topic, 60);
            assert!(
                errors() > before || proxy.accepted() > accepted,
                "round {round}: neither was a batch refused nor a connection closed"
            );
        }
        assert_same_digest(&here.summary(&topic), &there.summary(&topic));
        assert_eq!(there.ends(&topic), [18_000]);
        say(&format!("bits flipped on the way to the target, {name}: 6, none arrived"));
        strait.assert_clean_log();
    }
}
