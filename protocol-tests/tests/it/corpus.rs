//! The fuzzers' corpus, replayed: what was once found stays found. What is checked of each input is in `fuzz/src/entries`.

use std::fs;
use std::path::Path;

use bytes::Bytes;

#[path = "../../../fuzz/src/entries/mod.rs"]
#[allow(dead_code, reason = "the fuzzers and their seeds use the rest")]
mod entries;

#[test]
fn every_input_of_the_corpus_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let mut folders: Vec<_> = fs::read_dir(&corpus)
        .unwrap()
        .map(|folder| folder.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut names: Vec<_> = entries::ENTRIES.iter().map(|entry| entry.name.to_owned()).collect();
    folders.sort();
    names.sort();
    assert_eq!(folders, names, "a target without a corpus, or a corpus without a target");
    for entry in entries::ENTRIES {
        for input in fs::read_dir(corpus.join(entry.name)).unwrap() {
            let path = input.unwrap().path();
            println!("{}", path.display()); // shown if it fails
            (entry.run)(&Bytes::from(fs::read(&path).unwrap()));
        }
    }
}
