//! `embedded RELEASE [BROKERS]`: embedded brokers of a release (3.9, 4.3) for clients that are not ours. Prints their
//! bootstrap and serves until its standard input ends.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helper fails the test")]

use std::io::{self, Read};
use std::time::Duration;

use strait::embedded::{EmbeddedCluster, Generation, Options};
use strait::env::Env;

/// Kafka's own, which the suites of others count on.
const INITIAL_DELAY: Duration = Duration::from_secs(3);

fn main() {
    let mut args = std::env::args().skip(1);
    let generation = match args.next().as_deref() {
        Some("3.9") => Generation::Kafka39,
        Some("4.3") => Generation::Kafka43,
        other => panic!("{other:?} is no release that the embedded broker imitates: 3.9 or 4.3"),
    };
    let brokers = args.next().map_or(3, |count| count.parse().expect("a number of brokers"));
    let options = Options {
        generation,
        brokers,
        auto_create_topics: true,
        group_initial_delay: INITIAL_DELAY,
        ..Options::default()
    };
    let cluster = EmbeddedCluster::start(Env::real(), options).unwrap();
    println!("{}", cluster.bootstrap());
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}
