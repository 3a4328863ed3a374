//! The failures of the first hour: each is named, with its cure, and nothing is copied in the meantime.

use std::sync::{Mutex, PoisonError};

use protocol_tests::certs::Authority;
use protocol_tests::copying::assert_copied;
use protocol_tests::lab::Version::V43;
use protocol_tests::lab::{Cluster, Listener, PASSWORD, pool};
use protocol_tests::ports;
use protocol_tests::strait::{self, Config, cluster_yaml, sasl_yaml};
use serde_json::json;

/// `strait check` must fail and say all of this.
#[track_caller]
fn check_says(config: &Config, words: &[&str]) {
    let output = strait::run(&config.yaml(ports::free()), &["check"]);
    let said = format!("{}{}", output.out, output.err);
    assert_eq!(output.code, 3, "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
    assert!(!said.contains(PASSWORD), "the password is in: {said}");
}

fn base(topic: &str) -> Config {
    static CREATING: Mutex<()> = Mutex::new(());
    let (source, target) = pool::pair(V43, V43);
    let one_at_a_time = CREATING.lock().unwrap_or_else(PoisonError::into_inner);
    if !source.admin().exists(topic) {
        source.admin().create_topic(topic, 1, json!({}));
    }
    drop(one_at_a_time);
    Config::new(topic, (&source, Listener::Plain), (&target, Listener::Tls), &[topic])
}

fn with_target(target: String) -> Config {
    Config { target, ..base("failure") }
}

#[test]
fn a_good_configuration_passes() {
    let config = base("failure");
    let output = strait::run(&config.yaml(ports::free()), &["check"]);
    assert_eq!(output.code, 0, "{output:?}");
}

#[test]
fn plaintext_to_a_tls_port_is_named() {
    let target = pool::shared(V43, "target");
    let address = target.bootstrap(Listener::Tls);
    check_says(
        &with_target(format!("{{ bootstrap: [\"{address}\"] }}")),
        &["ST-012", &address, "tls"],
    );
}

#[test]
fn tls_to_a_plaintext_port_is_named() {
    let target = pool::shared(V43, "target");
    let address = target.bootstrap(Listener::Plain);
    let ca = target.authority.ca();
    let entry = format!("{{ bootstrap: [\"{address}\"], tls: {{ ca: \"{}\" }} }}", ca.display());
    check_says(&with_target(entry), &["ST-013", &address]);
}

#[test]
fn a_foreign_authority_is_named() {
    let target = pool::shared(V43, "target");
    let other = Authority::new("other");
    let entry = cluster_yaml(&target, Listener::Tls)
        .replace(target.authority.ca().to_str().unwrap(), other.ca().to_str().unwrap());
    check_says(&with_target(entry), &["ST-017", "tls.ca"]);
}

#[test]
fn a_wrong_host_name_is_named_with_the_right_ones() {
    let target = pool::shared(V43, "target");
    // 127.0.0.2 is this machine, and in no certificate.
    let entry = cluster_yaml(&target, Listener::Tls).replace("\"localhost:", "\"127.0.0.2:");
    let output = strait::run(&with_target(entry.clone()).yaml(ports::free()), &["check"]);
    if format!("{output:?}").contains("ST-015") {
        // The broker listens on 127.0.0.1 alone: ask for a name that is not in the certificate instead.
        let entry = cluster_yaml(&target, Listener::Tls)
            .replace("tls: { ", "tls: { server_name: kafka.example, ");
        check_says(&with_target(entry), &["ST-018", "localhost"]);
    } else {
        check_says(&with_target(entry), &["ST-018", "localhost"]);
    }
}

#[test]
fn a_missing_client_certificate_is_named() {
    let target = pool::shared(V43, "target");
    let ca = target.authority.ca();
    let address = target.bootstrap(Listener::MutualTls);
    let entry = format!("{{ bootstrap: [\"{address}\"], tls: {{ ca: \"{}\" }} }}", ca.display());
    check_says(&with_target(entry), &["ST-020", "tls.cert"]);
}

#[test]
fn a_wrong_password_is_named_and_not_shown() {
    let target = pool::shared(V43, "target");
    for mechanism in ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] {
        let entry = cluster_yaml(&target, Listener::SaslTls).replace(
            &sasl_yaml("SCRAM-SHA-512", "strait", PASSWORD),
            &sasl_yaml(mechanism, "strait", "wrong-canary"),
        );
        let config = with_target(entry);
        check_says(&config, &["ST-022", "SASL_AUTHENTICATION_FAILED"]);
        let output = strait::run(&config.yaml(ports::free()), &["check"]);
        assert!(!format!("{output:?}").contains("wrong-canary"));
    }
}

#[test]
fn a_mechanism_that_the_listener_lacks_is_named() {
    let target = pool::shared(V43, "target");
    let entry = cluster_yaml(&target, Listener::Tls)
        .replace(" } }", &format!(" }}, sasl: {} }}", sasl_yaml("PLAIN", "strait", PASSWORD)));
    check_says(&with_target(entry), &["ST-023"]);
}

#[test]
fn nobody_there_is_named() {
    let entry = format!("{{ bootstrap: [\"127.0.0.1:{}\"], tls: {{}} }}", ports::free());
    check_says(&with_target(entry), &["ST-015", "refused"]);
    let entry = "{ bootstrap: [\"no-such-host.invalid:9092\"], tls: {} }";
    check_says(&with_target(entry.into()), &["ST-010", "no-such-host.invalid"]);
}

#[test]
fn a_listener_advertised_for_another_network_is_named() {
    let target = Cluster::builder(V43)
        .advertise(1, Listener::ProxiedTls, "kafka.elsewhere.invalid:9093")
        .start();
    let bound = target.nodes[0].address(Listener::ProxiedTls);
    let ca = target.authority.ca();
    let entry = format!("{{ bootstrap: [\"{bound}\"], tls: {{ ca: \"{}\" }} }}", ca.display());
    check_says(&with_target(entry), &["ST-011", "kafka.elsewhere.invalid", "advertised.listeners"]);
}

#[test]
fn a_missing_right_is_named_with_the_command_that_grants_it() {
    let source = pool::shared(V43, "source");
    let target = Cluster::builder(V43).authorizer().start();
    let (here, there) = (source.admin(), target.admin());
    here.create_topic("rights", 1, json!({}));
    here.produce("rights", json!({ "count": 20 }));
    let config = Config::new(
        "rights",
        (&source, Listener::Plain),
        (&target, Listener::SaslTls),
        &["rights"],
    );
    check_says(&config, &["ST-030", "kafka-acls", "User:strait", "--add"]);
    // Granted one by one, as an operator would, until the check passes; then it copies.
    there.create_topic("rights", 1, json!({}));
    there.allow(
        "User:strait",
        "TOPIC",
        "rights",
        &["DESCRIBE", "WRITE", "READ", "DESCRIBE_CONFIGS"],
    );
    let output = strait::run(&config.yaml(ports::free()), &["run", "--until-caught-up"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert_copied(&here, &there, "rights");
}

#[test]
fn sasl_without_tls_carries_scram_and_refuses_plain() {
    let (source, target) = pool::pair(V43, V43);
    let config = base("failure");
    let scram = Config { source: cluster_yaml(&source, Listener::SaslPlain), ..config.clone() };
    let output = strait::run(&scram.yaml(ports::free()), &["check"]);
    assert_eq!(output.code, 0, "{output:?}");
    let plain = cluster_yaml(&target, Listener::SaslPlain).replace("SCRAM-SHA-512", "PLAIN");
    let plain = Config { target: plain, ..config };
    let output = strait::run(&plain.yaml(ports::free()), &["check"]);
    assert!([3, 78].contains(&output.code), "{output:?}");
    assert!(!format!("{output:?}").contains(PASSWORD));
}
