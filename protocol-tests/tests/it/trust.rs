//! Listeners that are not to be trusted: see `protocol_tests::trust`. `STRAIT_TRUST=words` plays the cases whose name holds
//! these words.

use protocol_tests::trust::{Pki, cases, openssl, play};
use strait::canary::{self, Canary};
use strait::error::Side;

const SIDES: [Side; 2] = [Side::Source, Side::Target];

/// What must not be, by case and side; and how many cases of each kind were played.
fn violations() -> (Vec<String>, [usize; 2]) {
    let words = std::env::var("STRAIT_TRUST").unwrap_or_default();
    let pki = Pki::default();
    let (tls, sasl) = cases();
    let counts = [tls.len(), sasl.len()];
    let mut wrong = Vec::new();
    for case in tls.iter().chain(&sasl).filter(|case| case.name.contains(&words)) {
        for side in SIDES {
            let told = play(case, side, &pki);
            wrong.extend(told.iter().map(|told| format!("{}, {side:?}: {told}", case.name)));
        }
    }
    (wrong, counts)
}

#[test]
fn no_listener_that_is_not_to_be_trusted_hears_a_secret_or_a_record() {
    let (wrong, [tls, sasl]) = violations();
    println!("{tls} cases of TLS and {sasl} of SASL on both sides, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_openssl_server_that_is_not_to_be_trusted_hears_anything() {
    let pki = Pki::default();
    let servers = openssl::servers();
    let wrong: Vec<String> = servers
        .iter()
        .flat_map(|server| {
            let told = openssl::play(server, &pki);
            told.into_iter().map(|told| format!("{}: {told}", server.name))
        })
        .collect();
    println!("{} servers of openssl on both sides, {} wrong", servers.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_planted_bug_of_trust_is_caught() {
    for bug in Canary::SECURITY {
        canary::plant(Some(bug));
        let (wrong, _) = violations();
        canary::plant(None);
        println!("{bug:?}: {} violations, such as {:?}", wrong.len(), wrong.first());
        assert!(!wrong.is_empty(), "{bug:?} is not caught");
        let is_heard = wrong.iter().any(|told| told.ends_with("the listener heard a secret"));
        assert_eq!(
            is_heard,
            bug == Canary::CertificateUnchecked || bug == Canary::HostNameUnchecked
        );
    }
}
