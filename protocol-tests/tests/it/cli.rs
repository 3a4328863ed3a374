//! What is wrong is said before a port opens or a broker is dialled, all at once, with exit code 78.

use protocol_tests::chaos::Proxy;
use protocol_tests::ports;
use protocol_tests::process::Guarded;
use protocol_tests::strait;
use protocol_tests::wait::wait_until;

use crate::stage::Stage;

const BAD: &str = "\
version: 1
clusters:
  east: { bootstrap: [\"127.0.0.1:PORT\"], bootsrap_timeout: 3 }
  west:
    bootstrap: 7
    tls: { ca: no-such-file.pem }
links:
  east-to-west:
    from: east
    to: nowhere
    topics: { include: [] }
  round:
    from: east
    to: east
    topics: { include: [\"orders[\"] }
telemetry: { listen: \"127.0.0.1:TELEMETRY\" }
";

#[test]
fn a_bad_configuration_is_refused_whole_before_anything_starts() {
    let broker = Proxy::listen();
    let text = BAD
        .replace("127.0.0.1:PORT", &broker.address())
        .replace("TELEMETRY", &ports::free().to_string());
    for verb in [&["run"][..], &["check"], &["check", "--offline"]] {
        let output = strait::run(&text, verb);
        assert_eq!(output.code, 78, "{verb:?}: {output:?}");
        let said = format!("{}{}", output.out, output.err);
        for words in ["bootsrap_timeout", "nowhere", "no-such-file.pem", "include", "orders["] {
            assert!(said.contains(words), "{verb:?} does not name {words}: {said}");
        }
        for place in [":3:", ":5:", ":6:", ":10:", ":11:", ":15:"] {
            assert!(said.contains(place), "{verb:?} gives no place {place}: {said}");
        }
    }
    assert_eq!(broker.accepted(), 0, "the broker was dialled");
}

#[test]
fn a_missing_file_and_an_unknown_verb_have_codes_of_their_own() {
    let mut command = std::process::Command::new(strait::binary());
    let output = command.args(["run", "-c", "no-such.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let mut command = std::process::Command::new(strait::binary());
    let output = command.args(["frobnicate"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn the_generated_configuration_is_right() {
    let mut command = std::process::Command::new(strait::binary());
    let output = command.args(["config", "generate", "one-way"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let output = strait::run(&text, &["check", "--offline"]);
    let said = format!("{}{}", output.out, output.err);
    // Files and variables that it names are not here; the rest must stand.
    assert!(
        output.code == 0 || said.contains("environment") || said.contains("No such file"),
        "{said}"
    );
}

#[test]
fn a_bench_that_is_interrupted_leaves_no_topic() {
    let stage = Stage::new("bench");
    let config = stage.config.clone();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("strait.yaml");
    std::fs::write(&file, config.yaml(ports::free())).unwrap();
    let is_bench = |topic: &String| topic.starts_with("strait.bench.");
    for side in ["source", "target"] {
        // Long enough to be in the middle of: of filling, and of copying.
        let mut command = vec![strait::binary().display().to_string()];
        command.extend(
            ["bench", "link", "bench", "--seconds", "60", "--bytes", "256MiB"].map(String::from),
        );
        command.extend(["-c".to_owned(), file.display().to_string()]);
        let log = folder.path().join(format!("{side}.log"));
        let mut bench = Guarded::start(&command, &log, &[]);
        wait_until("records of a measurement", 30, || {
            let cluster = if side == "source" { &stage.source } else { &stage.target };
            let topics = cluster.topics();
            let topic = topics.iter().find(|topic| is_bench(topic));
            topic.is_some_and(|topic| cluster.ends(topic, 0).is_ok_and(|ends| ends.log_end > 0))
        });
        bench.signal("INT");
        assert_eq!(bench.wait(30), 1, "{}", std::fs::read_to_string(&log).unwrap());
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(said.contains("interrupted; its topic is removed"), "{said}");
        let left = [stage.source.topics(), stage.target.topics()].concat();
        assert!(!left.iter().any(is_bench), "{left:?}");
    }
}
