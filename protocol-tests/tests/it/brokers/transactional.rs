//! `delivery: transactional` on real brokers, as a reader of committed records sees it: the classic flow of Kafka 3.9, and
//! transactions V2 of 4.3.

use protocol_tests::copying::{full, wait_committed};
use protocol_tests::lab::Version::{V39, V43};
use protocol_tests::lab::{Cluster, Listener, Version};
use protocol_tests::strait::{Config, Strait};
use protocol_tests::tally::Tally;
use serde_json::json;

use super::kills::{killed_and_cut_amid_old_records, killed_at_random};

const LINK: [&str; 2] = ["delivery: transactional", "transaction: { interval: 200ms }"];

#[test]
fn killed_at_random_a_reader_of_committed_records_sees_each_once_on_4_3() {
    killed_at_random(V39, V43, &LINK);
    if full() {
        killed_at_random(V43, V43, &LINK);
    }
}

#[test]
fn killed_at_random_a_reader_of_committed_records_sees_each_once_on_3_9() {
    killed_at_random(if full() { V39 } else { V43 }, V39, &LINK);
}

/// Where a copy without transactions may have a batch of a partition twice for each lost connection: a fence keeps late
/// requests out, and an abort what was sent and is not known to be there.
#[test]
fn killed_and_cut_amid_old_records_a_reader_of_committed_records_sees_each_once() {
    for to in if full() { vec![V39, V43] } else { vec![V39] } {
        let old = killed_and_cut_amid_old_records(to, &LINK);
        assert!(old.tally.is_exact(), "{:?}", old.tally);
        assert_eq!(old.batches_told, 0);
    }
}

/// Kills, and starts with the other delivery, again and again: the place is kept.
fn changes_its_delivery(version: Version) {
    let (source, target) = Cluster::builder(V43).start_both(Cluster::builder(version));
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("either", 2, json!({}));
    let ends = ((&source, Listener::Plain), (&target, Listener::Tls));
    // Each life is another host's: the group would miss the dead one first.
    let plain = Config::new("either", ends.0, ends.1, &["either"])
        .link("membership: { protocol: \"off\" }");
    let mut transactional = plain.clone();
    transactional.link.extend(LINK.map(str::to_owned));
    let mut written = 0;
    for turn in 0..6 {
        let config = if turn % 2 == 0 { &plain } else { &transactional };
        let mut strait = Strait::start(config);
        strait.expect_in_log("WARN");
        for _ in 0..2 {
            written +=
                here.produce("either", json!({ "count": 2000, "from": written, "size": 100 }));
            wait_committed(&here, &config.group(), "either", 60);
        }
        here.produce("either", json!({ "count": 500, "from": written, "size": 100 }));
        written += 500;
        // Somewhere in the last ones.
        strait.kill();
        strait.assert_clean_log();
    }
    let strait = Strait::start(&plain);
    wait_committed(&here, &plain.group(), "either", 60);
    let tally = Tally::of(&here.held("either"), &there.held("either"));
    assert!(tally.is_exact(), "{tally:?}");
    assert_eq!(tally.source, written);
    strait.assert_clean_log();
}

#[test]
fn a_link_that_changes_its_delivery_keeps_its_place_on_both_releases() {
    changes_its_delivery(V43);
    changes_its_delivery(V39);
}
