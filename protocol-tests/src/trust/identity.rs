//! Certificates that are not to be believed, and clients that a listener does not want.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    NameConstraints, date_time_ymd,
};
use rustls::ServerConfig;
use strait::config::resolved::{self, Cluster};

use super::Wants;
use super::certificates::{Ca, HOST, Own, Pki};
use super::tls::{BOTH, Table, V12, V13, Versions, trusting, with_login};

pub(super) fn add_to(table: &mut Table) {
    dates_and_names(table);
    issuers(table);
    versions_and_clients(table);
}

fn dates_and_names(table: &mut Table) {
    let expired = Wants::Error(19, "has expired");
    let early = Wants::Error(19, "not valid yet");
    let name = Wants::Error(18, "its certificate is not for");
    table.shows("what it should", Pki::broker, Wants::Opens);
    table.shows(
        "an expired certificate",
        |pki| pki.root.issue(&[HOST], |p| p.not_after = date_time_ymd(2020, 1, 1)),
        expired,
    );
    table.shows(
        "a certificate of the future",
        |pki| pki.root.issue(&[HOST], |p| p.not_before = date_time_ymd(3000, 1, 1)),
        early,
    );
    table.shows(
        "a certificate for another host",
        |pki| pki.root.issue(&["kafka-2.example"], |_| ()),
        name,
    );
    table.shows(
        "a common name alone",
        |pki| pki.root.issue(&[], |p| p.distinguished_name.push(DnType::CommonName, HOST)),
        Wants::Error(18, "a common name alone does not count"),
    );
    for (what, own) in [
        (
            "the wildcard of a level above",
            (|pki| pki.root.issue(&["*.kafka-1.example"], |_| ())) as fn(&Pki) -> Own,
        ),
        ("a wildcard for everything", |pki| pki.root.issue(&["*"], |_| ())),
        ("a wildcard for a top level", |pki| pki.root.issue(&["*.example"], |_| ())),
        ("two wildcards", |pki| pki.root.issue(&["*.*"], |_| ())),
        ("a part of a label as a wildcard", |pki| pki.root.issue(&["kafka-*.example"], |_| ())),
        ("a longer name that ends as ours", |pki| pki.root.issue(&["xkafka-1.example"], |_| ())),
        ("an address in place of a name", |pki| pki.root.issue(&["10.0.0.1"], |_| ())),
    ] {
        table.serves(what, trusting, move |pki| own(pki).server(BOTH, None), Wants::Error(18, ""));
    }
    table.serves(
        "a wildcard that fits",
        trusting,
        |pki| pki.root.issue(&["*.west.example"], |_| ()).server(BOTH, None),
        Wants::Opens,
    );
    if let Some(case) = table.0.last_mut() {
        case.host = "kafka-1.west.example";
    }
    let by_address = |table: &mut Table, what: &str, own: fn(&Pki) -> Own, wants| {
        table.serves(what, trusting, move |pki| own(pki).server(BOTH, None), wants);
        if let Some(case) = table.0.last_mut() {
            case.host = "10.0.0.1";
        }
    };
    by_address(
        table,
        "an address that it has",
        |pki| pki.root.issue(&["10.0.0.1"], |_| ()),
        Wants::Opens,
    );
    by_address(table, "an address that it lacks", Pki::broker, name);
    by_address(table, "another address", |pki| pki.root.issue(&["10.0.0.2"], |_| ()), name);
    fn renamed(pki: &Pki) -> Cluster {
        let server_name = Some("kafka-2.example".to_owned());
        with_login(resolved::Tls { server_name, ..pki.tls() })
    }
    table.serves(
        "the dialled name where another is wanted",
        renamed,
        |pki| pki.broker().server(BOTH, None),
        name,
    );
}

fn issuers(table: &mut Table) {
    let foreign = Wants::Error(17, "signed by a CA that is not trusted here");
    let bad = Wants::Error(17, "its certificate cannot be accepted");
    table.shows(
        "another authority's certificate",
        |pki| pki.stranger.issue(&[HOST], |_| ()),
        foreign,
    );
    table.shows("a certificate that signs itself", |_| Own::alone(&[HOST]), Wants::Error(17, ""));
    table.shows(
        "no intermediate",
        |pki| pki.root.below("between", |_| ()).issue(&[HOST], |_| ()).unchained(),
        foreign,
    );
    table.shows(
        "an intermediate",
        |pki| pki.root.below("between", |_| ()).issue(&[HOST], |_| ()),
        Wants::Opens,
    );
    table.shows(
        "an authority of the same name",
        |_| Ca::root("trusted").issue(&[HOST], |_| ()),
        Wants::Error(17, ""),
    );
    table.shows(
        "a client's certificate",
        |pki| {
            pki.root.issue(&[HOST], |p| {
                p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]
            })
        },
        bad,
    );
    table.shows(
        "an authority as a broker",
        |pki| pki.root.issue(&[HOST], |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        bad,
    );
    table.shows(
        "an issuer that is no authority",
        |pki| pki.root.below("leaf", |p| p.is_ca = IsCa::ExplicitNoCa).issue(&[HOST], |_| ()),
        Wants::Error(17, ""),
    );
    table.shows(
        "a path longer than allowed",
        |pki| {
            let short =
                |p: &mut CertificateParams| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            pki.root.below("short", short).below("one more", |_| ()).issue(&[HOST], |_| ())
        },
        Wants::Error(17, ""),
    );
    table.shows(
        "a name that its authority may not give",
        |pki| {
            let elsewhere = |p: &mut CertificateParams| {
                let permitted_subtrees =
                    vec![GeneralSubtree::DnsName("elsewhere.example".to_owned())];
                p.name_constraints =
                    Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
            };
            pki.root.below("elsewhere", elsewhere).issue(&[HOST], |_| ())
        },
        Wants::Error(17, ""),
    );
    table.shows(
        "an authority that has expired",
        |pki| {
            pki.root
                .below("old", |p| p.not_after = date_time_ymd(2020, 1, 1))
                .issue(&[HOST], |_| ())
        },
        Wants::Error(19, "has expired"),
    );
    table.shows(
        "a chain of two hundred",
        |pki| {
            let mut own = pki.broker();
            let more = pki.stranger.issue(&["more.example"], |_| ()).chain;
            own.chain.extend(more.iter().cycle().take(200).cloned());
            own
        },
        Wants::Error(21, ""),
    );
}

/// Signs with another key than the certificate's.
#[derive(Debug)]
struct Impostor(Arc<rustls::sign::CertifiedKey>);

impl rustls::server::ResolvesServerCert for Impostor {
    fn resolve(
        &self,
        _: rustls::server::ClientHello<'_>,
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }
}

fn impostor(pki: &Pki, versions: Versions) -> ServerConfig {
    let (chain, key) = (pki.broker().chain, pki.stranger.issue(&[HOST], |_| ()).key);
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certified = Arc::new(rustls::sign::CertifiedKey::new(chain, key));
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Impostor(certified)))
}

fn versions_and_clients(table: &mut Table) {
    for (version, versions) in [("1.2", V12), ("1.3", V13)] {
        let name = format!("the certificate of another, {version}");
        table.serves(&name, trusting, move |pki| impostor(pki, versions), Wants::Error(17, ""));
        fn as_one(pki: &Pki, name: &str) -> Cluster {
            with_login(pki.tls_as(name))
        }
        let asks = move |pki: &Pki| pki.broker().server(versions, Some(&pki.root));
        let refused = Wants::Error(20, "refused our client certificate");
        let wanted = Wants::Error(20, "wants a client certificate");
        let name = |what: &str| format!("{what}, {version}");
        table.serves(&name("a client that it knows"), |pki| as_one(pki, "own"), asks, Wants::Opens);
        table.serves(&name("a client without a certificate"), trusting, asks, wanted);
        table.serves(
            &name("a client of another authority"),
            |pki| as_one(pki, "foreign"),
            asks,
            refused,
        );
        table.serves(
            &name("a client whose certificate has expired"),
            |pki| as_one(pki, "expired"),
            asks,
            refused,
        );
    }
    fn mismatched(pki: &Pki) -> Cluster {
        let identity = Some((pki.path("own.pem"), pki.path("foreign.key")));
        with_login(resolved::Tls { identity, ..pki.tls() })
    }
    let wants = Wants::Error(29, "does not belong to the first certificate in");
    table.serves(
        "a client with the key of another",
        mismatched,
        |pki| pki.broker().server(BOTH, None),
        wants,
    );
    fn strict(pki: &Pki) -> Cluster {
        with_login(resolved::Tls { tls13_only: true, ..pki.tls() })
    }
    let wants = Wants::Error(21, "no common TLS version");
    table.serves("1.2 where 1.3 is wanted", strict, |pki| pki.broker().server(V12, None), wants);
}
