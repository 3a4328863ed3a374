//! The kit itself: what the other suites take for granted.

use protocol_tests::compare::{assert_equal, assert_same_digest};
use protocol_tests::lab::{Cluster, Listener, Version, pool};
use protocol_tests::raw::{Batch, RawClient, RawRecord};
use protocol_tests::wait::wait_until;
use serde_json::json;

#[test]
fn both_releases_take_what_three_kinds_of_clients_write() {
    for version in [Version::V39, Version::V43] {
        let cluster = pool::shared(version, "source");
        let admin = cluster.admin();
        admin.create_topic("kit-clients", 2, json!({}));
        let varied = json!({ "count": 500, "kind": "varied", "props": { "linger.ms": "5" } });
        assert_eq!(admin.produce("kit-clients", varied), 500);
        let from_librdkafka = json!({ "count": 500, "partitions": 2 });
        assert_eq!(admin.produce_librdkafka("kit-clients", from_librdkafka), 500);
        let mut raw = cluster.nodes[0].client();
        let produced = raw.produce("kit-clients", 1, Batch::small(7).bytes());
        assert_eq!(produced.error, 0, "{produced:?}");

        let java = admin.records("kit-clients");
        assert_eq!(java.len(), 1007);
        assert_equal(&java, &admin.records_librdkafka("kit-clients"));
        for expected in ["null", ""] {
            assert!(
                java.iter().any(|r| r.key == expected) && java.iter().any(|r| r.value == expected)
            );
        }
        assert!(java.iter().any(|r| r.headers.contains("=null,")), "a header without value");
        let summary = admin.summary("kit-clients");
        assert_eq!(summary.iter().map(|s| s.count).sum::<u64>(), 1007);
        assert_same_digest(&summary, &admin.summary("kit-clients"));
    }
}

#[test]
fn transactions_are_seen_as_readers_see_them() {
    let cluster = pool::shared(Version::V43, "source");
    let admin = cluster.admin();
    admin.create_topic("kit-transactions", 1, json!({}));
    let pattern = json!({ "count": 60, "transactions": ["commit:10", "abort:20"] });
    admin.produce("kit-transactions", pattern);
    assert_eq!(admin.records("kit-transactions").len(), 20);
    let mut raw = cluster.nodes[0].client();
    let fetched = raw.fetch("kit-transactions", 0, 0, true);
    assert_eq!(fetched.aborted.len(), 2, "{fetched:?}");
}

#[test]
fn three_brokers_survive_a_kill_and_move_their_leaders() {
    let mut cluster = Cluster::builder(Version::V43).nodes(3).start();
    let admin = cluster.admin();
    admin.create_assigned("kit-moves", &[&[2, 1, 3]], json!({}));
    assert_eq!(admin.describe("kit-moves")[0].leader, 2);
    admin.produce("kit-moves", json!({ "count": 100, "props": { "acks": "all" } }));
    cluster.node(2).kill();
    wait_until("another leader", 30, || ![2, -1].contains(&admin.describe("kit-moves")[0].leader));
    assert_eq!(admin.records("kit-moves").len(), 100);
    cluster.restart(2);
    wait_until("the first leader again", 30, || {
        admin.elect("kit-moves", 0).ok();
        admin.describe("kit-moves")[0].leader == 2
    });
    cluster.node(2).freeze();
    wait_until("a frozen leader is replaced", 30, || admin.describe("kit-moves")[0].leader != 2);
    cluster.node(2).thaw();
}

#[test]
fn a_tls_port_does_not_answer_plain_text() {
    let cluster = pool::shared(Version::V43, "source");
    let address = cluster.nodes[0].address(Listener::Tls);
    assert!(RawClient::try_connect(&address).is_err());
}

#[test]
fn a_broker_refuses_a_batch_with_holes() {
    let cluster = pool::shared(Version::V39, "source");
    cluster.admin().create_topic("kit-holes", 1, json!({}));
    let records = vec![RawRecord::at(1, "a"), RawRecord::at(4, "b")];
    let gappy = Batch::of(records).with(|b| b.last_offset_delta = Some(4));
    let produced = cluster.nodes[0].client().produce("kit-holes", 0, gappy.bytes());
    assert_eq!(produced.error, 87, "{produced:?}");
}
