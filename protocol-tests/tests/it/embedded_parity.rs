//! The embedded broker under the cases that both real releases answer as written: as strict as the real one.

use protocol_tests::lab::Version;
use strait::embedded::{EmbeddedCluster, Generation, Options};
use strait::env::Env;

use crate::parity::check_but;

fn embedded(generation: Generation, release: Version) {
    let options = Options { generation, auto_create_topics: false, ..Options::default() };
    let cluster = EmbeddedCluster::start(Env::real(), options).unwrap();
    // Re-encoding by the broker is not built: such a topic is refused when it is created.
    check_but(&cluster.bootstrap(), release, &["compression.type of the topic"]);
}

#[test]
fn the_embedded_broker_answers_as_kafka_3_9() {
    embedded(Generation::Kafka39, Version::V39);
}

#[test]
fn the_embedded_broker_answers_as_kafka_4_3() {
    embedded(Generation::Kafka43, Version::V43);
}
