//! The rules of `strait proto conformance` on both real releases and on the embedded broker: three columns.

use ::strait::embedded::Generation;
use protocol_tests::lab::{Listener, Version, pool};

use crate::conformance::{NOT_IN_3_9, embedded, verdicts, wrong};

#[test]
fn both_releases_and_the_embedded_broker_keep_the_same_rules() {
    for (version, generation, lacking) in [
        (Version::V39, Generation::Kafka39, &NOT_IN_3_9[..]),
        (Version::V43, Generation::Kafka43, &[]),
    ] {
        let real = pool::shared(version, "source");
        let (code, of_real) = verdicts(&real.nodes[0].address(Listener::Plain), &[]);
        let imitation = embedded(generation);
        let (_, of_embedded) = verdicts(&imitation.bootstrap(), &[]);
        let (of_real, of_embedded) = (wrong(&of_real), wrong(&of_embedded));
        let ids = |wrong: &std::collections::BTreeMap<&str, &str>| {
            wrong.keys().map(|id| (*id).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&of_real), lacking, "{version:?}: {of_real:#?}");
        assert_eq!(ids(&of_embedded), lacking, "embedded as {version:?}: {of_embedded:#?}");
        assert_eq!(code, 0, "{of_real:#?}");
    }
}
