//! Two real clusters of two releases that copy to each other, with writers on both that know of no Strait.
#![allow(clippy::disallowed_methods, reason = "it runs for a time by the real clock")]

use std::time::{Duration, Instant};

use protocol_tests::copying::{assert_copied_as, sized, wait_committed};
use protocol_tests::lab::Version::{V39, V43};
use protocol_tests::lab::{Cluster, Listener, pool};
use protocol_tests::load::{Load, say};
use protocol_tests::strait::{Strait, cluster_yaml};
use protocol_tests::tally::Tally;
use protocol_tests::wait::{holds_for, wait_until};
use serde_json::json;

/// A process with one link from one of two clusters to the other, and further lines of it.
fn link(
    name: &str,
    (from, source): (&str, &Cluster),
    (to, target): (&str, &Cluster),
    topics: &str,
    more: &str,
) -> Strait {
    let (source, target) =
        (cluster_yaml(source, Listener::Plain), cluster_yaml(target, Listener::Tls));
    let text = |telemetry| {
        format!(
            "version: 1\nclusters:\n  {from}: {source}\n  {to}: {target}\nlinks:\n  {name}:\n    from: {from}\n    \
             to: {to}\n    start: earliest\n    topics: {{ include: ['{topics}'] }}\n{more}telemetry: {{ listen: \
             \"127.0.0.1:{telemetry}\" }}\n"
        )
    };
    Strait::start_text(text, &[])
}

#[test]
fn two_real_clusters_write_one_topic_both_ways_and_hold_the_union() {
    let (east, west) = Cluster::builder(V39).start_both(Cluster::builder(V43));
    let (here, there) = (east.admin(), west.admin());
    for side in [&here, &there] {
        side.create_topic("both", 4, json!({}));
    }
    let eastward = link("eastward", ("west", &west), ("east", &east), "both", "");
    let westward = link("westward", ("east", &east), ("west", &west), "both", "");
    let begin = Instant::now();
    let least = Duration::from_secs(sized(15, 600));
    let goes_on = |_| begin.elapsed() < least;
    let written = std::thread::scope(|scope| {
        let writers = [(1, false), (2, true), (3, false), (4, true)].map(|(writer, librdkafka)| {
            // Two on each side: the Java producer, and librdkafka.
            let side = if writer <= 2 { &here } else { &there };
            let load = Load { writer, librdkafka, ..Load::new(sized(500, 2500), 4) };
            scope.spawn(move || load.run(side, "both", goes_on))
        });
        writers.map(|writer| writer.join().unwrap())
    });
    for (admin, group) in [(&here, "strait.westward"), (&there, "strait.eastward")] {
        wait_committed(admin, group, "both", sized(120, 600));
    }
    let ends = || (here.ends("both"), there.ends("both"));
    let before = ends();
    holds_for("nothing returns", Duration::from_secs(2), || ends() == before);
    let (on_east, on_west) = (here.held("both"), there.held("both"));
    let tally = Tally::of(&on_east, &on_west);
    let Tally { source, target, lost, duplicated, reordered, foreign, changed } = tally;
    say(&format!(
        "both ways on one topic, {} s: written {written:?}, east holds {source}, west {target}; west lacks {lost}, \
         {duplicated} doubled, {reordered} reordered, {foreign} only in the west, {changed} changed",
        begin.elapsed().as_secs(),
    ));
    assert!(tally.is_exact(), "{tally:?}");
    assert_eq!(source, written.iter().sum::<u64>());
    for (writer, count) in (1..).zip(written) {
        // On both sides with the same sums, headers among them: nothing was added on the way.
        assert_eq!((on_east.of_writer(writer), on_west.of_writer(writer)), (count, count));
    }
    [eastward, westward].iter().for_each(Strait::assert_clean_log);
}

/// Each side writes one name, and reads that and its replica of the other's.
#[test]
fn replicas_of_two_real_clusters_stand_beside_what_they_are_of() {
    let (east, west) = pool::pair(V43, V39);
    let (here, there) = (east.admin(), west.admin());
    let naming = "    naming: '{topic}_REPLICA'\n";
    for (side, from) in [(&here, 0), (&there, 10_000)] {
        side.create_topic("orders", 2, json!({}));
        side.produce("orders", json!({ "count": 1000, "from": from, "partitions": [0, 1] }));
    }
    let pattern = "orders.*";
    let mut eastward = link("replica-east", ("west", &west), ("east", &east), pattern, naming);
    let mut westward = link("replica-west", ("east", &east), ("west", &west), pattern, naming);
    for strait in [&mut eastward, &mut westward] {
        strait.expect_in_log("ST-044");
    }
    for (side, from) in [(&here, 1000), (&there, 11_000)] {
        side.produce("orders", json!({ "count": 500, "from": from, "partitions": [0, 1] }));
    }
    wait_committed(&here, "strait.replica-west", "orders", 60);
    wait_committed(&there, "strait.replica-east", "orders", 60);
    assert_copied_as(&here, "orders", &there, "orders_REPLICA");
    assert_copied_as(&there, "orders", &here, "orders_REPLICA");
    for side in [&here, &there] {
        assert_eq!(side.ends("orders").iter().sum::<i64>(), 1500);
        assert_eq!(side.ends("orders_REPLICA").iter().sum::<i64>(), 1500);
    }
    // A replica's name matches, too: it is what the way back makes, so it is left out, and that is said.
    wait_until("the replicas left out", 60, || {
        [&eastward, &westward].iter().all(|strait| strait.log().contains("ST-044"))
    });
    for side in [&here, &there] {
        assert!(!side.exists("orders_REPLICA_REPLICA"));
    }
    [eastward, westward].iter().for_each(Strait::assert_clean_log);
}
