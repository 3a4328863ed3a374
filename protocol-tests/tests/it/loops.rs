//! Links in both directions, rings, meshes and chains: each cluster holds what was written anywhere once, nothing comes back
//! to where it was written, and no order is changed. The writers are everybody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use protocol_tests::raw::{Batch, parse};
use protocol_tests::strait::Strait;
use protocol_tests::wait::{holds_for, wait_for, wait_until};
use strait::embedded::{ApiKey, EmbeddedCluster, Fault, Options, Order};
use strait::engine::identity::{Origin, is_ours, origin_of};
use strait::env::Env;
use strait::wire::ErrorCode;

use crate::stage::seen;

/// Clusters by name.
struct Web {
    clusters: BTreeMap<&'static str, EmbeddedCluster>,
    written: BTreeMap<&'static str, u32>,
}

impl Web {
    fn new(names: &[&'static str]) -> Self {
        let cluster = |name: &&'static str| {
            let options = Options { auto_create_topics: false, ..Options::default() };
            (*name, EmbeddedCluster::start(Env::real(), options).unwrap())
        };
        let clusters: BTreeMap<_, _> = names.iter().map(cluster).collect();
        clusters.values().for_each(|cluster| {
            cluster.create_topic("topic", 1, -1, &[]).unwrap();
        });
        Self { clusters, written: BTreeMap::new() }
    }

    /// One process with these links, given as `from to further keys`, of all topics: what others bring is no exception.
    #[track_caller]
    fn start(&self, links: &[&str]) -> Strait {
        let mut yaml = "version: 1\nclusters:\n".to_owned();
        for (name, cluster) in &self.clusters {
            let bootstrap = cluster.bootstrap();
            yaml.push_str(&format!("  {name}: {{ bootstrap: [\"{bootstrap}\"] }}\n"));
        }
        yaml.push_str("links:\n");
        for link in links {
            let words: Vec<&str> = link.splitn(3, ' ').collect();
            let (from, to, rest) = (words[0], words[1], words.get(2).unwrap_or(&""));
            let topics = "topics: { include: [\".*\"] }";
            yaml.push_str(&format!(
                "  {from}-to-{to}: {{ from: {from}, to: {to}, {topics}, {rest} }}\n"
            ));
        }
        let telemetry = |port| format!("{yaml}telemetry: {{ listen: \"127.0.0.1:{port}\" }}\n");
        let mut strait = Strait::start_text(telemetry, &[]);
        strait.expect_in_log("WARN");
        strait.expect_in_log("ERROR");
        strait
    }

    /// So many records of a writer that is no Strait, a batch each: `<cluster>-<n>`.
    fn write(&mut self, name: &'static str, count: u32) {
        let next = self.written.entry(name).or_default();
        for n in *next..*next + count {
            let mut batch = Batch::small(1);
            batch.records[0].value = Some(format!("{name}-{n}").into_bytes());
            self.clusters[name].append("topic", 0, &Bytes::from(batch.bytes())).unwrap();
        }
        *next += count;
    }

    fn values(&self, name: &str, topic: &str) -> Vec<String> {
        let seen = seen(&self.clusters[name], topic, 0);
        seen.into_iter().map(|(_, value)| value.unwrap()).collect()
    }

    /// Waits until a topic of a cluster holds what was written in these, and no more: each once, each writer's in order.
    #[track_caller]
    fn wait_holds(&self, name: &str, topic: &str, writers: &[&'static str]) {
        let written = |writer: &&'static str| {
            let count = self.written.get(writer).copied().unwrap_or(0);
            (*writer, (0..count).map(|n| format!("{writer}-{n}")).collect::<Vec<_>>())
        };
        let expected: BTreeMap<_, _> = writers.iter().map(written).collect();
        let count: usize = expected.values().map(Vec::len).sum();
        wait_for(&format!("{topic} of {name}"), 60, || {
            let values = self.values(name, topic);
            if values.len() >= count { Ok(()) } else { Err(format!("{} of {count}", values.len())) }
        });
        let values = self.values(name, topic);
        for (writer, expected) in &expected {
            let of_writer = |value: &&String| value.starts_with(&format!("{writer}-"));
            let of_writer: Vec<_> = values.iter().filter(of_writer).cloned().collect();
            assert_eq!(&of_writer, expected, "{topic} of {name}");
        }
        assert_eq!(values.len(), count, "{topic} of {name}: {values:?}");
    }

    /// All clusters hold what was written anywhere, and nothing comes any more.
    #[track_caller]
    fn wait_union(&self) {
        let names: Vec<_> = self.clusters.keys().copied().collect();
        names.iter().for_each(|name| self.wait_holds(name, "topic", &names));
        let ends = || -> Vec<i64> {
            self.clusters.values().map(|c| c.ends("topic", 0).unwrap().log_end).collect()
        };
        let before = ends();
        holds_for("nothing returns", Duration::from_millis(700), || ends() == before);
    }

    /// Rounds of writers on all clusters; the process is killed with much appended and nothing committed.
    fn write_and_kill(&mut self, strait: &mut Strait, rounds: u32) {
        let names: Vec<_> = self.clusters.keys().copied().collect();
        for _ in 0..rounds {
            self.wait_union();
            let refuse = Fault::Refuse(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
            for cluster in self.clusters.values() {
                cluster.fault(Order::next(ApiKey::OffsetCommit, refuse).times(u32::MAX));
            }
            for count in [3, 1, 5] {
                names.iter().for_each(|name| self.write(name, count));
            }
            let names = names.clone();
            let enough = |name: &&str| {
                self.values(name, "topic").len() as u32 >= {
                    let own: u32 = self.written.values().sum();
                    own - 4
                }
            };
            wait_until("most of it everywhere", 30, || names.iter().all(enough));
            strait.kill();
            self.clusters.values().for_each(|cluster| cluster.clear_faults());
            names.iter().for_each(|name| self.write(name, 2));
            strait.restart();
        }
        self.wait_union();
    }
}

#[test]
fn two_clusters_write_one_topic_both_ways_and_hold_the_union() {
    let mut web = Web::new(&["east", "west"]);
    web.write("east", 20);
    web.write("west", 10);
    let mut strait = web.start(&["east west", "west east"]);
    web.write_and_kill(&mut strait, 3);
    strait.assert_clean_log();
}

#[test]
fn a_ring_of_three_passes_each_origin_to_the_end_and_no_further() {
    let mut web = Web::new(&["east", "north", "west"]);
    for name in ["east", "north", "west"] {
        web.write(name, 15);
    }
    let links = [
        "east north forward: [local, west]",
        "north west forward: [local, east]",
        "west east forward: [local, north]",
    ];
    let mut strait = web.start(&links);
    web.write_and_kill(&mut strait, 3);
    strait.assert_clean_log();
}

#[test]
fn a_mesh_of_three_writes_one_topic_everywhere() {
    let mut web = Web::new(&["east", "north", "west"]);
    for name in ["east", "north", "west"] {
        web.write(name, 15);
    }
    let links = ["east north", "north east", "east west", "west east", "north west", "west north"];
    let mut strait = web.start(&links);
    web.write_and_kill(&mut strait, 2);
    strait.assert_clean_log();
}

#[test]
fn a_chain_passes_on_what_it_names_in_the_order_that_it_came() {
    let mut web = Web::new(&["east", "north", "west"]);
    let mut strait = web.start(&["east north", "north west forward: [local, east]"]);
    for round in 0..30 {
        web.write("east", 1 + round % 3);
        web.write("north", 1 + round % 2);
        if round % 10 == 9 {
            web.wait_holds("west", "topic", &["east", "north"]);
        }
        if round == 15 {
            strait.kill_and_restart();
        }
    }
    web.wait_holds("west", "topic", &["east", "north"]);
    // Of several origins the order is that of the cluster in the middle (I2).
    assert_eq!(web.values("west", "topic"), web.values("north", "topic"));
    let origins: BTreeSet<_> = web.clusters["west"]
        .dump("topic", 0)
        .unwrap()
        .batches
        .iter()
        .flat_map(|bytes| parse(bytes).0)
        .map(|batch| origin_of(batch.producer_id))
        .collect();
    let of = |name: &str, hops| Some((Origin::of_cluster(&web.clusters[name].cluster_id()), hops));
    assert_eq!(origins, BTreeSet::from([of("east", 1), of("north", 0)]));
    strait.assert_clean_log();
}

#[test]
fn a_list_without_local_leaves_local_records_where_they_are() {
    let mut web = Web::new(&["east", "north", "west"]);
    web.write("north", 5);
    let mut strait = web.start(&["east north", "north west forward: [east]"]);
    web.write("east", 20);
    web.wait_holds("west", "topic", &["east"]);
    web.write("north", 5);
    web.write("east", 20);
    web.wait_holds("west", "topic", &["east"]);
    strait.kill_and_restart();
    web.write("east", 5);
    web.wait_holds("west", "topic", &["east"]);
    let skipped = ["link=\"north-to-west\"", "fate=\"skipped_local\""];
    assert!(
        strait.metric("strait_batches_total", &skipped) >= 1.0
            || web.values("west", "topic").len() == 45
    );
    strait.assert_clean_log();
}

#[test]
fn replicas_of_both_sides_stand_beside_what_they_are_of() {
    for (naming, of_east, of_west) in [
        ("naming: \"{topic}_REPLICA\"", "topic_REPLICA", "topic_REPLICA"),
        ("naming: prefix", "east.topic", "west.topic"),
    ] {
        let mut web = Web::new(&["east", "west"]);
        web.write("east", 20);
        web.write("west", 10);
        let strait = web.start(&[&format!("east west {naming}"), &format!("west east {naming}")]);
        for round in 0..2 {
            web.wait_holds("west", of_east, &["east"]);
            web.wait_holds("east", of_west, &["west"]);
            web.write("east", 5 + round);
            web.write("west", 5);
        }
        web.wait_holds("west", of_east, &["east"]);
        web.wait_holds("east", of_west, &["west"]);
        holds_for("nothing more is made", Duration::from_millis(700), || {
            web.clusters.values().all(|cluster| cluster.topics().len() == 2)
        });
        for (name, own) in [("east", ["east"]), ("west", ["west"])] {
            web.wait_holds(name, "topic", &own);
        }
        strait.assert_clean_log();
    }
}

#[test]
fn a_circle_that_no_process_can_see_ends_loudly() {
    let mut web = Web::new(&["east", "north", "west"]);
    web.write("east", 3);
    let first = web.start(&["east north", "north west forward: [local, east]"]);
    let second = web.start(&["west north forward: [local, east]"]);
    wait_for("the partition that stops", 60, || {
        let status = format!("{} {}", first.status(), second.status());
        if status.contains("ST-074") { Ok(()) } else { Err(status) }
    });
    let copies = |name: &str| {
        let values = self::seen(&web.clusters[name], "topic", 0);
        values.iter().filter(|(_, value)| value.as_deref() == Some("east-0")).count()
    };
    holds_for("an end of the circle", Duration::from_millis(700), || {
        copies("east") == 1 && copies("north") <= 2 && copies("west") <= 2
    });
    let batches = web.clusters["north"].dump("topic", 0).unwrap().batches;
    assert!(
        batches.iter().flat_map(|bytes| parse(bytes).0).all(|batch| is_ours(batch.producer_id))
    );
}

/// What a crash left behind its last commit was written under the old list: it is counted off under that one, and the new
/// one holds from there on.
#[test]
fn a_changed_forward_behind_a_crash_loses_and_doubles_nothing() {
    let mut web = Web::new(&["east", "north", "west"]);
    let first = web.start(&["east north"]);
    let write = |web: &mut Web, rounds: u32| {
        for round in 0..rounds {
            web.write("east", 1 + round % 2);
            web.write("north", 1 + round % 3);
        }
        web.wait_holds("north", "topic", &["east", "north"]);
    };
    write(&mut web, 6);
    let mut both = web.start(&["north west forward: [local, east]"]);
    web.wait_holds("west", "topic", &["east", "north"]);
    let refuse = Fault::Refuse(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
    web.clusters["north"].fault(Order::next(ApiKey::OffsetCommit, refuse).times(u32::MAX));
    write(&mut web, 5);
    web.wait_holds("west", "topic", &["east", "north"]);
    both.kill();
    web.clusters["north"].clear_faults();
    let before = web.values("west", "topic");
    write(&mut web, 4);

    let mut local = web.start(&["north west forward: [local]"]);
    let north_in = |values: &[String]| values.iter().filter(|v| v.starts_with("north-")).count();
    let written = web.written["north"] as usize;
    wait_until("north's records, and none of east's", 90, || {
        north_in(&web.values("west", "topic")) >= written
    });
    let after = web.values("west", "topic");
    assert_eq!(after[..before.len()], before, "nothing is written again");
    assert_eq!(north_in(&after), written);
    assert_eq!(after.len() - before.len(), north_in(&after) - north_in(&before), "{after:?}");

    // In order, there is nothing to settle.
    assert_eq!(local.terminate().0, 0);
    let east_before = web.written["east"];
    write(&mut web, 3);
    let again = web.start(&["north west forward: [local, east]"]);
    let news =
        (web.written["east"] - east_before) as usize + web.written["north"] as usize - written;
    let count = after.len() + news;
    wait_until("both again", 20, || web.values("west", "topic").len() >= count);
    let all = web.values("west", "topic");
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (count, count), "{all:?}");
    for strait in [&first, &both, &local, &again] {
        strait.assert_clean_log();
    }
}
