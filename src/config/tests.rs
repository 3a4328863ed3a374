//! Bad files with the place and the words of each finding, and good ones.

mod telemetry;

use std::path::Path;

use super::resolved::*;
use super::*;

/// Parses in a directory that holds `ca.pem`, `client.pem`, `client.key` and `password`.
fn parsed(text: &str) -> Result<Loaded, Invalid> {
    let directory = tempfile::tempdir().unwrap();
    for name in ["ca.pem", "client.pem", "client.key"] {
        std::fs::write(directory.path().join(name), "PEM").unwrap();
    }
    std::fs::write(directory.path().join("password"), "canary-file\n").unwrap();
    let variable = |name: &str| (name == "PASSWORD").then(|| "canary-variable".to_owned());
    parse(text, "strait.yaml", &Surroundings { directory: directory.path(), variable: &variable })
}

/// The smallest file that is right, with a place for more keys of the target cluster and of the link.
fn minimal(cluster: &str, link: &str) -> String {
    format!(
        "version: 1
clusters:
  east:
    bootstrap: [\"kafka-1:9092\"]
  west:
    bootstrap: [\"kafka.west.example:9093\"]
    {cluster}
links:
  east-to-west:
    from: east
    to: west
    topics: {{ include: [\"orders\"] }}
    {link}
"
    )
}

#[test]
fn the_minimal_file_is_right() {
    let loaded = parsed(&minimal("tls: {}", "")).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let link = &loaded.config.links[0];
    assert_eq!((link.from.name.as_str(), link.to.name.as_str()), ("east", "west"));
    assert_eq!(link.naming, Naming::Identity);
    assert_eq!(link.start, Start::Earliest);
    assert_eq!(link.topics.literal, ["orders"]);
    assert!(link.topics.include[0].is_match("orders"));
    assert!(!link.topics.include[0].is_match("orders-2"), "anchored");
    assert_eq!(loaded.config.telemetry.unwrap().listen.to_string(), "127.0.0.1:9660");
}

#[test]
fn what_brokers_may_advertise_is_listed_and_other_clusters_are_told_apart() {
    let allow = |list: &str| parsed(&minimal(&format!("advertised: {{ allow: {list} }}"), ""));
    let config = allow("[10.0.0.0/8, \"::1\", \"[::1]:9092\"]").unwrap().config;
    let west = &config.clusters["west"].advertised;
    let shown: Vec<String> = west.allow.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.0/8", "::1/128", "[::1]:9092"]);
    let kafka_1 = Address { host: "kafka-1".into(), port: 9092 };
    assert_eq!(west.foreign, [(kafka_1, "east".to_owned())]);
    assert_eq!(config.clusters["east"].advertised.foreign[0].1, "west");
    for (list, what) in [
        ("[10.0.0.0/33]", "`10.0.0.0/33`: the network's bits are out of range"),
        ("[kafka-1]", "`kafka-1`: no port"),
        ("kafka-1:9092", "`allow` must be a list"),
    ] {
        let problems = allow(list).unwrap_err().to_string();
        assert!(problems.contains(what), "{problems}");
    }
    // Two names of one cluster are not told apart.
    let again = "  east-too: { bootstrap: [\"kafka-2:9092\", \"kafka-1:9092\"] }\nlinks:";
    let config = parsed(&minimal("", "").replace("links:", again)).unwrap().config;
    let foreign = |name: &str| config.clusters[name].advertised.foreign.iter().map(|f| &*f.1);
    assert!(foreign("east").eq(["west"]) && foreign("east-too").eq(["west"]));
    assert!(foreign("west").eq(["east", "east-too", "east-too"]));
}

#[test]
fn every_key_is_understood() {
    let text = r#"
version: 1
clusters:
  east:
    bootstrap: ["[::1]:9092", "kafka-2:9092"]
    sasl: { mechanism: PLAIN, username: u, password: "${env:PASSWORD}", allow_plaintext: true }
  west:
    bootstrap: ["kafka.west.example:9093"]
    tls: { ca: ca.pem, cert: client.pem, key: client.key, server_name: kafka.west, min_version: 1.3 }
    sasl: { mechanism: SCRAM-SHA-512, username: strait, password_file: password }
  north:
    bootstrap: ["kafka.north.example:9093"]
    tls: {}
    sasl:
      mechanism: OAUTHBEARER
      token_endpoint: https://login.example/token
      client_id: strait
      client_secret: "${file:password}"
      scope: kafka
      ca: ca.pem
    advertised: { allow: [10.1.2.3, "fd00::/8", "kafka-1:9092"] }
links:
  east-to-west:
    from: east
    to: west
    topics: { include: ["orders", "payments\\..*", "__internal\\.x"], exclude: [".*-tmp"] }
    naming: "{source}.{topic}"
    start: { timestamp: 2026-01-01T00:00:00Z }
    delivery: exactly-once
    isolation: read_uncommitted
    timestamps: producer
    forward: [north, east, north]
    replication_factor: 3
    connections_per_broker: 2
    window: 1MiB
    membership: { protocol: classic, instance_id: host-1 }
    on_gap: continue
    on_recreate: restart
    on_poison: skip
    on_failure: retry
  east-to-north:
    from: east
    to: north
    topics: { include: [".*"] }
    naming: prefix
    start: latest
engine: { lanes: 2, arrangement: split, pin: true, memory: 64MiB }
telemetry: { listen: off }
"#;
    let Config { clusters, links, engine, telemetry } = parsed(text).unwrap().config;
    assert_eq!(clusters["east"].bootstrap[0], Address { host: "::1".into(), port: 9092 });
    let tls = clusters["west"].tls.as_ref().unwrap();
    assert!(tls.tls13_only && tls.ca.as_ref().unwrap().ends_with("ca.pem"));
    assert!(tls.identity.is_some() && tls.server_name.as_deref() == Some("kafka.west"));
    match clusters["west"].sasl.as_ref().unwrap() {
        Sasl::Scram { hash: ScramHash::Sha512, username, password } => {
            assert_eq!((username.as_str(), password.expose()), ("strait", "canary-file"));
        }
        other => panic!("{other:?}"),
    }
    match clusters["north"].sasl.as_ref().unwrap() {
        Sasl::OAuthBearer(TokenSource::ClientCredentials { client_secret, scope, .. }) => {
            assert_eq!(client_secret.expose(), "canary-file");
            assert_eq!(scope.as_deref(), Some("kafka"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(links[0].name, "east-to-north");
    let link = &links[1];
    assert_eq!(link.naming, Naming::Template("{source}.{topic}".into()));
    assert_eq!(link.start, Start::Timestamp(1_767_225_600_000));
    assert_eq!(link.isolation, Isolation::ReadUncommitted);
    assert_eq!(link.timestamps, Timestamps::Producer);
    let origins: Vec<_> = link.forward.origins.iter().map(|origin| &*origin.name).collect();
    assert_eq!((link.forward.local, &origins[..]), (true, &["north"][..]), "the source is local");
    assert!(links[0].forward.local && links[0].forward.origins.is_empty());
    assert_eq!(link.topics.literal, ["orders", "__internal.x"]);
    assert_eq!((link.replication_factor, link.connections_per_broker), (Some(3), 2));
    assert_eq!(link.window_bytes_max, 1 << 20);
    let membership =
        Membership { protocol: MembershipProtocol::Classic, instance_id: Some("host-1".into()) };
    assert_eq!(link.membership, membership);
    let policies = Policies {
        on_gap: OnGap::Continue,
        on_recreate: OnRecreate::Restart,
        on_poison: OnPoison::Skip,
        on_failure: OnFailure::Retry,
    };
    assert_eq!((link.policies, links[0].policies), (policies, Policies::default()));
    let (arrangement, memory_bytes) = (Arrangement::Split, 64 << 20);
    assert_eq!(engine, Engine { lanes: 2, arrangement, pin: true, memory_bytes });
    assert_eq!(engine.memory_bound_bytes(), 96 << 20);
    assert!(telemetry.is_none());
}

/// `line:column`, words of the finding (or of its suggestion).
type Expected<'a> = &'a [(&'a str, &'a str)];

fn expect(text: &str, expected: Expected<'_>) {
    let invalid = match parsed(text) {
        Ok(loaded) => panic!("passed: {:?}\n{text}", loaded.config),
        Err(invalid) => invalid,
    };
    let errors = invalid.problems.iter().filter(|p| p.severity == Severity::Error);
    let lines = errors.map(|p| p.line_of("f")).collect::<Vec<_>>();
    assert_eq!(lines.len(), expected.len(), "{lines:#?}\n{text}");
    for (line, (place, words)) in lines.iter().zip(expected) {
        assert!(line.starts_with(&format!("f:{place}: ")), "wanted {place}: {line}\n{text}");
        assert!(line.contains(words), "wanted {words:?}: {line}\n{text}");
    }
}

#[test]
fn bad_files_are_refused_with_place_and_cure() {
    let cases: &[(&str, Expected<'_>)] = &[
        ("", &[("1:1", "the file is empty (make one: strait config generate")]),
        ("version: [1\n", &[("1:10", "not valid YAML")]),
        ("a: b: c\n", &[("1:5", "not valid YAML")]),
        ("- version\n", &[("1:1", "the file must be a mapping of keys, this is a list")]),
        ("just words\n", &[("1:1", "must be a mapping of keys, this is a single value")]),
        (
            "version: 2\nlinks: {}\n",
            &[
                ("1:1", "`clusters` is missing"),
                ("1:10", "`version` is `2` (write 1)"),
                ("2:8", "no links"),
            ],
        ),
        ("links: !x {}\n", &[("1:11", "tags")]),
        ("version: 1\n---\nversion: 1\n", &[("2:1", "a second document")]),
        (
            "clusters: []\nlinks: x\n",
            &[
                ("1:1", "`version` is missing (add `version: 1` at the top)"),
                ("1:11", "clusters must be a mapping of keys, this is a list"),
                ("2:8", "links must be a mapping of keys, this is a single value"),
            ],
        ),
        ("version: 1\nclusters:\n  <<: {a: b}\n", &[("3:3", "merge keys")]),
    ];
    for (text, expected) in cases {
        expect(text, expected);
    }
}

#[test]
fn bad_clusters_are_refused_with_place_and_cure() {
    // The key stands at 7:5.
    let cases: &[(&str, Expected<'_>)] = &[
        (
            "bootstap: x",
            &[("7:5", "unknown key `bootstap` in clusters.west (did you mean `bootstrap`?)")],
        ),
        (
            "bootstrap: [\"a:1\"]",
            &[("7:5", "`bootstrap` is already set on line 6 (keep one of the two)")],
        ),
        ("tls: true", &[("7:10", "`tls` must be a mapping")]),
        ("tls:", &[("7:5", "write `tls: {}`")]),
        ("tls: { ca: missing.pem }", &[("7:16", "missing.pem cannot be read")]),
        ("tls: { cert: client.pem }", &[("7:18", "`cert` without `key`")]),
        ("tls: { key: client.key }", &[("7:17", "`key` without `cert`")]),
        ("tls: { cert: no.pem, key: no.key }", &[("7:18", "`cert`: "), ("7:31", "`key`: ")]),
        ("tls: { min_version: 1.1 }", &[("7:25", "`min_version` is `1.1`")]),
        ("tls: { verify: false }", &[("7:12", "certificate checks cannot be switched off")]),
        ("tls: { ca: [ca.pem] }", &[("7:16", "`ca` must be a single value, this is a list")]),
        ("tls: { chiper: x }", &[("7:12", "known here: ca, cert, key, server_name, min_version")]),
        ("sasl: { username: u, password: p }", &[("7:11", "`mechanism` is missing")]),
        (
            "sasl: { mechanism: SCRAM-SHA-215, username: u, password: p }",
            &[("7:24", "did you mean `SCRAM-SHA-256`?")],
        ),
        ("sasl: { mechanism: GSSAPI }", &[("7:24", "`mechanism: GSSAPI` is not supported yet")]),
        (
            "sasl: { mechanism: SCRAM-SHA-256 }",
            &[
                ("7:11", "`username` is missing in clusters.west.sasl"),
                ("7:11", "`password` is missing"),
            ],
        ),
        (
            "sasl: { mechanism: PLAIN, username: u, password: \"${env:PASSWORD}\" }",
            &[("7:11", "PLAIN without `tls` sends the password readable")],
        ),
        (
            "sasl: { mechanism: SCRAM-SHA-512, username: u, password: \"${env:NONE}\" }",
            &[("7:62", "the environment variable NONE is not set (set it, or give a default")],
        ),
        (
            "sasl: { mechanism: SCRAM-SHA-512, username: u, password: \"${file:none}\" }",
            &[("7:62", "none cannot be read")],
        ),
        (
            "sasl: { mechanism: SCRAM-SHA-512, username: u, password: a, password_file: password }",
            &[("7:52", "both `password` and `password_file`")],
        ),
        ("sasl: { mechanism: OAUTHBEARER }", &[("7:11", "OAUTHBEARER without a token")]),
        ("sasl: { mechanism: OAUTHBEARER, token_file: nope }", &[("7:49", "`token_file`: ")]),
        (
            "sasl: { mechanism: OAUTHBEARER, token_endpoint: \"http://x\", client_id: a, client_secret: b }",
            &[("7:53", "write an https:// address")],
        ),
    ];
    for (cluster, expected) in cases {
        expect(&minimal(cluster, ""), expected);
    }
    for (bootstrap, expected) in [
        ("kafka-1:9092", "`bootstrap` must be a list, this is a single value"),
        ("[]", "no bootstrap brokers"),
    ] {
        let text = minimal("", "").replace("[\"kafka-1:9092\"]", bootstrap);
        expect(&text, &[("4:16", expected)]);
    }
    for (broker, expected) in [
        ("kafka-1", "`kafka-1`: no port (write kafka-1:9092 with the right port)"),
        ("kafka-1:99999", "the port is not a number"),
        ("SSL://kafka-1:9092", "a broker is host:port, without a protocol (write kafka-1:9092)"),
        ("::1:9092", "an IPv6 broker is [address]:port"),
        ("a:1,b:2", "more than one broker in one value"),
    ] {
        let text = minimal("", "").replace("kafka-1:9092", broker);
        expect(&text, &[("4:17", expected)]);
    }
}

#[test]
fn bad_links_are_refused_with_place_and_cure() {
    // The key stands at 13:5.
    let cases: &[(&str, Expected<'_>)] = &[
        (
            "nmaing: prefix",
            &[("13:5", "unknown key `nmaing` in links.east-to-west (did you mean `naming`?)")],
        ),
        ("naming: prefxi", &[("13:13", "did you mean `prefix`?")]),
        (
            "naming: suffix",
            &[("13:13", "`naming` is `suffix` (write identity, prefix, or a template")],
        ),
        ("naming: \"{source}\"", &[("13:13", "all topics would become one")]),
        ("naming: \"{topics}-{topic}\"", &[("13:13", "a template knows `{source}` and `{topic}`")]),
        ("naming: \"{topic} copy\"", &[("13:13", "a topic's name cannot have ' '")]),
        ("start: now", &[("13:12", "`start` is `now` (write earliest, latest, or")]),
        ("start: { timestamp: yesterday }", &[("13:25", "write RFC 3339")]),
        (
            "start: { time: 2026-01-01T00:00:00Z }",
            &[("13:12", "`start` has no `timestamp`"), ("13:14", "unknown key `time`")],
        ),
        (
            "delivery: at-least-once",
            &[(
                "13:15",
                "`delivery: at-least-once` is not supported yet (this version has exactly-once, transactional)",
            )],
        ),
        (
            "transaction: { interval: 1s }",
            &[("13:18", "`transaction` has no meaning without `delivery: transactional`")],
        ),
        (
            "delivery: transactional\n    transaction: { interval: 1h, bytes: 1 }",
            &[("14:30", "write 10ms to 300s"), ("14:41", "`bytes` is `1`")],
        ),
        ("delivery: exactly_once", &[("13:15", "did you mean `exactly-once`?")]),
        ("isolation: committed", &[("13:16", "write read_committed or read_uncommitted")]),
        ("replication_factor: 0", &[("13:25", "write a whole number from 1 to 32767")]),
        ("replication_factor: two", &[("13:25", "`replication_factor` is `two`")]),
        ("connections_per_broker: 1000", &[("13:29", "write a whole number from 1 to 64")]),
        ("forward: west", &[("13:14", "write local, or a list of clusters")]),
        ("forward: []", &[("13:14", "`forward` is empty: nothing would be copied")]),
        (
            "forward: [local, eats]",
            &[("13:22", "`forward`: no cluster `eats` (did you mean `east`?)")],
        ),
        ("forward: [west]", &[("13:15", "what was first written in west would come back to it")]),
        ("window: 64MB/s", &[("13:13", "a size is a whole number with KiB, MiB or GiB")]),
        ("limit: 200MiB", &[("13:12", "a rate is a size with /s, for instance 200MiB/s")]),
        ("limit: 1KiB/s", &[("13:12", "write 64KiB/s or more")]),
        ("backfill: even", &[("13:15", "backfill must be a mapping of keys")]),
        ("backfill: { order: newest }", &[("13:24", "write even or in_turn")]),
        ("backfill: { concurrent: 2 }", &[("13:29", "no meaning without `order: in_turn`")]),
        (
            "backfill: { order: in_turn, concurrent: 0 }",
            &[("13:45", "write a whole number from 1")],
        ),
        ("backfill: { share: 80% }", &[("13:17", "unknown key `share`")]),
        (
            "limit: 1MiB/s\n    backfill: { limit: 2MiB/s }",
            &[("14:24", "more than the link's `limit`")],
        ),
        ("window: 1GiB", &[("13:13", "write 64KiB to 256MiB")]),
        ("on_gap: skip", &[("13:13", "write stop or continue")]),
        ("on_failure: park", &[("13:17", "write pause or retry or stop")]),
        ("membership: { protocol: eager }", &[("13:29", "write auto or classic or off")]),
        (
            "membership: { instance_id: \"a b\" }",
            &[("13:32", "use up to 249 of a-z A-Z 0-9 . _ -")],
        ),
        ("membership: { protocol: \"off\", instance_id: a }", &[("13:49", "has no meaning")]),
        ("groups: {}", &[("13:5", "`groups` is not supported yet")]),
        ("groups: { include: [\"a\"] }", &[("13:5", "`groups` is not supported yet")]),
    ];
    for (link, expected) in cases {
        expect(&minimal("tls: {}", link), expected);
    }
    // The topics stand at 12:13.
    let cases: &[(&str, Expected<'_>)] = &[
        ("{ include: [] }", &[("12:24", "`include` is empty: no topic would be copied")]),
        ("{}", &[("12:13", "`include` is missing: no topic would be copied")]),
        ("{ exclude: [\"x\"] }", &[("12:13", "`include` is missing")]),
        ("[\"orders\"]", &[("12:13", "`topics` must be a mapping, this is a list")]),
        ("{ include: orders }", &[("12:24", "`include` must be a list, this is a single value")]),
        ("{ include: [\"\"] }", &[("12:25", "an empty pattern matches no topic")]),
        (
            "{ include: [\"a(b\"] }",
            &[("12:25", "not a regular expression at character 2: unclosed group")],
        ),
        (
            "{ include: [\"a\"], exclude: [\"*-tmp\"] }",
            &[(
                "12:41",
                "not a regular expression at character 1: repetition operator missing expression (these are regular expressions: write `.*-tmp`)",
            )],
        ),
        ("{ include: [\"a\"], match: glob }", &[("12:31", "`match` is not supported yet")]),
        (
            "{ incude: [\"a\"] }",
            &[("12:13", "`include` is missing"), ("12:15", "did you mean `include`?")],
        ),
    ];
    for (topics, expected) in cases {
        let text = minimal("tls: {}", "").replace("{ include: [\"orders\"] }", topics);
        expect(&text, expected);
    }
    for (from, to, expected) in [
        ("from: east", "from: west", &[("11:9", "a link from cluster `west` to itself")][..]),
        (
            "from: east",
            "from: eats",
            &[("10:11", "`from`: no cluster `eats` (did you mean `east`?)")],
        ),
        ("to: west", "to: south", &[("11:9", "`to`: no cluster `south` (known: east, west)")]),
        ("    to: west\n", "", &[("9:3", "`to` is missing (name a cluster: east, west)")]),
        (
            "kafka.west.example:9093",
            "kafka-1:9092",
            &[("11:9", "a link to itself: `east` and `west` both have the broker kafka-1:9092")],
        ),
        ("east-to-west:", "\"east west\":", &[("9:3", "`east west` is not a name for a link")]),
    ] {
        expect(&minimal("tls: {}", "").replace(from, to), expected);
    }
}

#[test]
fn bad_engine_and_telemetry_are_refused_with_place_and_cure() {
    let cases: &[(&str, Expected<'_>)] = &[
        ("engine: { lanes: 0 }", &[("14:18", "write a whole number from 1 to 256")]),
        ("engine: { lanes: all }", &[("14:18", "`lanes` is `all`")]),
        (
            "engine: { arrangement: splitt }",
            &[("14:24", "`arrangement` is `splitt` (did you mean `split`?)")],
        ),
        ("engine: { pin: yes }", &[("14:16", "`pin` is `yes` (write true or false)")]),
        ("engine: { memory: 1MiB }", &[("14:19", "write 16MiB to 1024GiB")]),
        ("engine: { threads: 2 }", &[("14:11", "unknown key `threads` in engine")]),
        ("telemetry: { listen: \":9660\" }", &[("14:22", "is not an address to listen at")]),
        ("admin: { socket: strait.sock }", &[("14:1", "`admin` is not supported yet (remove it)")]),
        ("engin: {}", &[("14:1", "unknown key `engin` at the top (did you mean `engine`?)")]),
    ];
    for (line, expected) in cases {
        expect(&(minimal("tls: {}", "") + line + "\n"), expected);
    }
}

#[test]
fn all_errors_come_at_once_in_order() {
    let text =
        minimal("tls: { ca: no.pem }\n    sasl: { mechanism: X }", "naming: x\n    window: y")
            .replace("[\"orders\"]", "[]")
            + "oops: 1\n";
    let invalid = parsed(&text).unwrap_err();
    let lines = invalid.problems.iter().map(|p| p.line).collect::<Vec<_>>();
    assert_eq!(lines, [7, 8, 13, 14, 15, 16], "{invalid}");
    assert!(invalid.to_string().ends_with("6 errors"), "{invalid}");
}

#[test]
fn a_broken_cluster_is_not_blamed_on_its_link() {
    expect(&minimal("tls: { ca: no.pem }", ""), &[("7:16", "cannot be read")]);
}

#[test]
fn warnings_do_not_stop() {
    let sasl = "sasl: { mechanism: SCRAM-SHA-512, username: u, password: canary-literal }";
    let text = minimal(sasl, "");
    let text = text.replace("links:", "  spare: { bootstrap: [\"s:1\"] }\nlinks:");
    let loaded = parsed(&text).unwrap();
    let lines = loaded.warnings.iter().map(|p| p.line_of("f")).collect::<Vec<_>>();
    for (line, words) in lines.iter().zip([
        "f:7:62: warning: `password` stands in the file",
        "f:8:3: warning: no link uses cluster `spare`",
        "f:12:9: warning: cluster `west` is written to without TLS",
    ]) {
        assert!(line.starts_with(words), "{lines:#?}");
    }
    assert_eq!(lines.len(), 3, "{lines:#?}");
}

#[test]
fn no_secret_is_ever_shown() {
    for password in
        ["password: canary-literal", "password: \"${env:PASSWORD}\"", "password_file: password"]
    {
        let sasl =
            format!("tls: {{}}\n    sasl: {{ mechanism: SCRAM-SHA-512, username: u, {password} }}");
        let loaded = parsed(&minimal(&sasl, "")).unwrap();
        let shown = [
            format!("{loaded:?}"),
            show::yaml(&loaded),
            format!("{:?}", show::values(&loaded)),
            loaded.warnings.iter().map(|p| p.line_of("f")).collect(),
        ];
        for text in shown {
            assert!(!text.contains("canary"), "{text}");
        }
    }
    // A secret that was put where it does not belong is not repeated either.
    for line in ["naming", "start", "delivery", "window", "replication_factor", "nonsense"] {
        for value in ["${env:PASSWORD}", "${file:password}"] {
            let text = minimal("tls: {}", &format!("{line}: \"{value}\""));
            let invalid = parsed(&text).unwrap_err();
            assert!(!format!("{invalid}{invalid:?}").contains("canary"), "{invalid}");
        }
    }
    for text in [
        minimal("tls: { ca: \"${env:PASSWORD}\" }", ""),
        minimal("", "").replace("kafka-1:9092", "${env:PASSWORD}"),
        minimal("", "").replace("from: east", "from: \"${env:PASSWORD}\""),
        minimal("", "").replace("\"orders\"", "\"(${env:PASSWORD}\""),
    ] {
        let invalid = parsed(&text).unwrap_err();
        assert!(!format!("{invalid}{invalid:?}").contains("canary"), "{invalid}");
    }
}

#[test]
fn what_is_shown_parses_again_to_the_same() {
    let text = minimal(
        "tls: { ca: ca.pem, min_version: 1.3 }",
        "naming: prefix\n    start: { timestamp: 2026-01-01T00:00:00Z }\n    window: 1MiB\n    limit: 200MiB/s\n    \
         backfill: { order: in_turn, concurrent: 2, limit: 20MiB/s }\n    \
         on_poison: skip\n    on_gap: continue\n    on_failure: stop\n    delivery: transactional\n    \
         transaction: { interval: 250ms, bytes: 1MiB }",
    );
    let loaded = parsed(&text).unwrap();
    let shown = show::yaml(&loaded);
    let around = Surroundings { directory: Path::new("."), variable: &|_| None };
    // The CA's directory is gone by now: that one line is left out.
    let again =
        shown.lines().filter(|line| !line.contains("ca.pem")).collect::<Vec<_>>().join("\n");
    let again = parse(&again, "shown", &around).unwrap();
    assert_eq!(
        format!("{:?}", again.config.links[0].topics),
        format!("{:?}", loaded.config.links[0].topics)
    );
    assert_eq!(again.config.links[0].start, loaded.config.links[0].start);
    assert_eq!(again.config.links[0].policies, loaded.config.links[0].policies);
    assert_eq!(again.config.links[0].delivery, loaded.config.links[0].delivery);
    assert_eq!(again.config.links[0].backfill, loaded.config.links[0].backfill);
    assert_eq!(again.config.links[0].backfill.at_once_max, Some(2));
    let limit = again.config.links[0].bytes_per_second_max;
    assert_eq!((limit, loaded.config.links[0].bytes_per_second_max), (Some(200 << 20), limit));
    assert_eq!(again.config.engine, loaded.config.engine);
    assert!(shown.contains("naming: prefix"), "{shown}");
    assert!(
        shown.lines().any(|l| l.contains("naming: prefix") && l.ends_with("# line 13")),
        "{shown}"
    );
    assert!(shown.lines().any(|l| l.contains("isolation") && l.ends_with("# default")), "{shown}");
}

#[test]
fn a_file_is_found_or_said_to_be_missing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("strait.yaml");
    let invalid = load(&path).unwrap_err();
    assert!(invalid.to_string().contains("cannot be read"), "{invalid}");
    std::fs::write(&path, minimal("tls: {}", "")).unwrap();
    assert!(load(&path).is_ok());
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("not UTF-8"));
}
