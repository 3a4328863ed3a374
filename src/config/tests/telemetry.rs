//! The telemetry listener: open to others only with TLS and a token.

use super::*;

const TLS: &str = "tls: { cert: client.pem, key: client.key }";
const TOKEN: &str = "token: \"${env:PASSWORD}-0123456789\"";

fn with(telemetry: &str) -> String {
    minimal("tls: {}", "") + "telemetry: { " + telemetry + " }\n"
}

#[test]
fn beyond_this_machine_it_wants_tls_and_a_token() {
    let fix = "(add `tls: { cert: server.pem, key: server.key }` and `token: \"${env:NAME}\"`, or listen at 127.0.0.1)";
    for open in ["0.0.0.0:9660", "[::]:9660", "192.0.2.7:80", "[2001:db8::1]:9660"] {
        let none = format!("telemetry at {open} is open to others without TLS and a token {fix}");
        let (no_token, no_tls) = ("without a token (add `token", "without TLS (add `tls");
        let listen = format!("listen: \"{open}\"");
        expect(&with(&listen), &[("14:22", &none)]);
        expect(&with(&format!("{listen}, {TLS}")), &[("14:22", no_token)]);
        expect(&with(&format!("{listen}, {TOKEN}")), &[("14:22", no_tls)]);
        let telemetry =
            parsed(&with(&format!("{listen}, {TLS}, {TOKEN}"))).unwrap().config.telemetry;
        assert_eq!(telemetry.unwrap().listen.to_string(), open);
    }
    for own in ["127.0.0.1:9660", "localhost:9660", "[::1]:9660", "[::ffff:127.0.0.1]:9660", "off"]
    {
        assert!(parsed(&with(&format!("listen: \"{own}\""))).is_ok(), "{own}");
    }
}

#[test]
fn all_of_it_is_read_and_shown_without_the_token() {
    let hosts = "hosts: [strait.example, \"2001:db8::1\"]";
    let tls = "tls: { cert: client.pem, key: client.key, ca: ca.pem }";
    let text = with(&format!("listen: \"0.0.0.0:9660\", {tls}, {TOKEN}, {hosts}"));
    let loaded = parsed(&text).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let telemetry = loaded.config.telemetry.as_ref().unwrap();
    assert_eq!(telemetry.hosts, ["strait.example", "2001:db8::1"]);
    let files = telemetry.tls.as_ref().unwrap();
    assert!(files.cert.ends_with("client.pem") && files.key.ends_with("client.key"));
    assert!(files.ca.as_ref().unwrap().ends_with("ca.pem"));
    let token = telemetry.token.as_ref().unwrap();
    assert_eq!(token.expose(), "canary-variable-0123456789");
    assert_eq!(telemetry.from_here().to_string(), "127.0.0.1:9660");
    let shown = show::yaml(&loaded);
    assert!(!shown.contains("canary") && !format!("{telemetry:?}").contains("canary"), "{shown}");
    for key in ["listen:", "hosts: [\"strait.example\"", "cert:", "key:", "ca:", "token: \"***\""] {
        assert!(shown.contains(key), "{key}: {shown}");
    }
    // What is shown is no token to go by.
    let masked = text.replace("${env:PASSWORD}-0123456789", "***");
    expect(&masked, &[("14:101", "`token` is no token to go by")]);
}

#[test]
fn bad_keys_are_refused_with_place_and_cure() {
    let cases: &[(&str, Expected<'_>)] = &[
        ("tls: {}", &[("14:19", "`cert` is missing"), ("14:19", "`key` is missing")]),
        ("tls: { cert: client.pem }", &[("14:19", "`key` is missing in telemetry.tls")]),
        ("tls: { cert: no.pem, key: client.key }", &[("14:27", "`cert`")]),
        ("token: \"${env:PASSWORD}\"", &[("14:21", "use 16 characters or more")]),
        ("token: \"canary 0123456789\"", &[("14:21", "use letters, digits and")]),
        ("token_file: password", &[("14:26", "`token_file` is no token to go by")]),
        ("hosts: [\"https://strait.example\"]", &[("14:22", "write the name alone")]),
        ("hosts: [\"strait.example:9660\"]", &[("14:22", "is not a host name")]),
        ("hosts: [\"\"]", &[("14:22", "is not a host name")]),
        ("tokn: x", &[("14:14", "did you mean `token`?")]),
    ];
    for (keys, expected) in cases {
        expect(&with(keys), expected);
    }
}
