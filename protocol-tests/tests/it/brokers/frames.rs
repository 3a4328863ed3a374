//! Kafka's own classes over the answers that our decoders are compared on: the third opinion.

use std::collections::BTreeMap;

use protocol_tests::agent::read_answers;

use crate::frames::{answers, generated::Leaf, per_version};

#[test]
fn every_valid_answer_is_read_by_kafka_s_own_classes_as_its_definition_has_it() {
    let (mut frames, mut expected) = (Vec::new(), Vec::new());
    answers(per_version(), |name, version, body, leaves| {
        frames.push((name, version, body));
        expected.push(leaves);
    });
    let read = read_answers(&frames);
    assert_eq!(read.len(), frames.len());
    let (mut wrong, mut values) = (Vec::new(), 0);
    for ((line, expected), (name, version, _)) in read.iter().zip(&expected).zip(&frames) {
        let mut theirs = by_path(line.split(' ').map(|leaf| leaf.split_once('=').unwrap()));
        assert_eq!(theirs.remove("left").as_deref(), Some(&["0"][..]), "{name} v{version}: {line}");
        let plain = |leaf: &Leaf| (leaf.path.clone(), leaf.plain.clone());
        let expected: Vec<_> = expected.iter().map(plain).collect();
        let ours = by_path(expected.iter().map(|(path, plain)| (&**path, &**plain)));
        values += expected.len();
        for (path, shown) in &ours {
            if theirs.get(path) != Some(shown) {
                wrong.push(format!(
                    "{name} v{version} {path}: {shown:?}, Kafka {:?}",
                    theirs.get(path)
                ));
            }
        }
    }
    println!("{} answers, {values} values", frames.len());
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
}

fn by_path<'a>(
    leaves: impl Iterator<Item = (&'a str, &'a str)>,
) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut by_path: BTreeMap<_, Vec<_>> = BTreeMap::new();
    leaves.for_each(|(path, value)| by_path.entry(path).or_default().push(value));
    by_path
}
