//! The cases of [`crate::parity`] on both real releases: what they say is what the embedded broker must say.

use protocol_tests::lab::{Listener, Version, pool};

use crate::parity::check;

#[test]
fn kafka_3_9_answers_the_cases_as_written() {
    let cluster = pool::shared(Version::V39, "source");
    check(&cluster.nodes[0].address(Listener::Plain), Version::V39);
}

#[test]
fn kafka_4_3_answers_the_cases_as_written() {
    let cluster = pool::shared(Version::V43, "source");
    check(&cluster.nodes[0].address(Listener::Plain), Version::V43);
}
