//! TLS against listeners that are right, wrong, and not there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::version::{TLS12, TLS13};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::TlsAcceptor;

use super::super::tests_support::{
    Authority, Identity, Script, address, answer, file, greet, on_a_lane, open_against,
    read_request, security,
};
use super::super::{Connection, Security};
use crate::config::resolved::{self, Address, Cluster};
use crate::env::Env;
use crate::error::{Action, Code, Error, Side};
use crate::wire::ApiKey;

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];
const HOST: &str = "kafka-1.example";

/// The CA that the client trusts, in a file.
struct Trust {
    authority: Authority,
    dir: TempDir,
}

impl Trust {
    fn new() -> Self {
        Self { authority: Authority::new("east CA"), dir: tempfile::tempdir().unwrap() }
    }

    fn tls(&self) -> resolved::Tls {
        let ca = Some(file(&self.dir, "ca.pem", &self.authority.pem));
        resolved::Tls { ca, ..Default::default() }
    }

    /// The same with a client certificate of `signer`.
    fn tls_with_identity(&self, signer: &Authority) -> resolved::Tls {
        let client = signer.issue(&["strait"], |_| {});
        let certificate = file(&self.dir, "client.pem", &client.certificate.pem());
        let key = file(&self.dir, "client.key", &client.key.serialize_pem());
        resolved::Tls { identity: Some((certificate, key)), ..self.tls() }
    }

    fn broker(&self) -> Identity {
        self.authority.issue(&[HOST, "kafka.example"], |_| {})
    }
}

/// A TLS listener that greets and then echoes, and says which server name it was asked for.
async fn broker(stream: DuplexStream, acceptor: TlsAcceptor, sni: Option<&'static str>) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    assert_eq!(stream.get_ref().1.server_name(), sni);
    greet(&mut stream).await;
    while let Some(request) = read_request(&mut stream).await {
        stream.write_all(&answer(&request, &request.body)).await.unwrap();
        stream.flush().await.unwrap();
    }
}

async fn open(tls: resolved::Tls, acceptor: TlsAcceptor) -> Result<Connection, Error> {
    let security = security(Some(tls), None);
    open_against(&security, |stream| broker(stream, acceptor, Some(HOST))).await
}

/// Opens against a listener and expects this code.
async fn fails(code: u16, tls: resolved::Tls, acceptor: TlsAcceptor) -> Error {
    let error = open(tls, acceptor).await.unwrap_err();
    assert_eq!(error.code, Code(code), "{error}");
    error
}

async fn echoes(connection: &Connection) {
    for len in [0, 1, 100, 300_000] {
        let body: Vec<u8> = (0..len).map(|i| (i % 253) as u8).collect();
        let sent = vec![Bytes::from(body.clone())];
        let deadline = Duration::from_secs(5);
        let echo = connection.send(ApiKey::Produce, 9, sent, deadline).unwrap().await.unwrap();
        assert_eq!(echo, body);
    }
}

#[test]
fn both_versions_carry_requests_both_ways() {
    on_a_lane(async {
        let trust = Trust::new();
        let cases = [(BOTH, "TLSv1.3"), (&[&TLS12], "TLSv1.2"), (&[&TLS13], "TLSv1.3")];
        for (versions, agreed) in cases {
            let acceptor = trust.broker().acceptor(versions, None);
            let connection = open(trust.tls(), acceptor).await.unwrap();
            assert_eq!(connection.tls_version(), Some(agreed));
            echoes(&connection).await;
        }
    });
}

#[test]
fn only_1_3_where_the_operator_wants_that() {
    on_a_lane(async {
        let trust = Trust::new();
        let strict = || resolved::Tls { tls13_only: true, ..trust.tls() };
        echoes(&open(strict(), trust.broker().acceptor(BOTH, None)).await.unwrap()).await;
        let error = fails(21, strict(), trust.broker().acceptor(&[&TLS12], None)).await;
        assert!(error.message.contains("no common TLS version"), "{error}");
    });
}

#[test]
fn a_broker_of_another_authority_is_refused() {
    on_a_lane(async {
        let trust = Trust::new();
        let stranger = Authority::new("another CA").issue(&[HOST], |_| {});
        for versions in [&[&TLS12], &[&TLS13]] {
            let error = fails(17, trust.tls(), stranger.acceptor(versions, None)).await;
            assert!(error.fix.contains("tls.ca"), "{error}");
        }
    });
}

#[test]
fn a_certificate_for_another_name_is_refused_with_the_names_it_has() {
    on_a_lane(async {
        let trust = Trust::new();
        let other = trust.authority.issue(&["kafka-2.example", "*.west.example"], |_| {});
        let error = fails(18, trust.tls(), other.acceptor(BOTH, None)).await;
        assert!(error.message.contains(HOST), "{error}");
        assert!(error.message.ends_with("only for kafka-2.example, *.west.example"), "{error}");

        let name_only = trust.authority.issue(&[], |params| {
            params.distinguished_name.push(rcgen::DnType::CommonName, HOST);
        });
        let error = fails(18, trust.tls(), name_only.acceptor(BOTH, None)).await;
        assert!(error.message.contains("common name alone"), "{error}");
    });
}

#[test]
fn a_configured_server_name_is_what_is_sent_and_checked() {
    on_a_lane(async {
        let trust = Trust::new();
        let tls = resolved::Tls { server_name: Some("kafka.example".to_owned()), ..trust.tls() };
        let security = security(Some(tls), None);
        let acceptor = trust.broker().acceptor(BOTH, None);
        let open =
            open_against(&security, |stream| broker(stream, acceptor, Some("kafka.example")));
        echoes(&open.await.unwrap()).await;
    });
}

#[test]
fn an_ip_address_is_checked_against_the_ip_addresses_of_the_certificate() {
    on_a_lane(async {
        let trust = Trust::new();
        let security = security(Some(trust.tls()), None);
        for (names, fits) in [(&["10.1.2.3"][..], true), (&[HOST, "10.1.2.4"], false)] {
            let (script, mut accepted) = Script::new();
            let env = Env::of(Arc::new(script));
            let acceptor = trust.authority.issue(names, |_| {}).acceptor(BOTH, None);
            tokio::task::spawn_local(async move {
                broker(accepted.recv().await.unwrap(), acceptor, None).await;
            });
            let at = Address { host: "10.1.2.3".to_owned(), port: 9093 };
            let opened = Connection::open(&env, &at, &security, Side::Source).await;
            match opened {
                Ok(connection) => {
                    assert!(fits);
                    echoes(&connection).await;
                }
                Err(error) => {
                    assert!(!fits, "{error}");
                    assert_eq!(error.code, Code(18), "{error}");
                }
            }
        }
    });
}

#[test]
fn certificates_out_of_date_or_of_the_wrong_kind_are_refused() {
    on_a_lane(async {
        let trust = Trust::new();
        let issue = |change: fn(&mut rcgen::CertificateParams)| {
            trust.authority.issue(&[HOST], change).acceptor(BOTH, None)
        };
        let expired = issue(|params| params.not_after = rcgen::date_time_ymd(2001, 1, 1));
        let error = fails(19, trust.tls(), expired).await;
        assert!(error.message.contains("expired"), "{error}");
        let early = issue(|params| params.not_before = rcgen::date_time_ymd(3000, 1, 1));
        let error = fails(19, trust.tls(), early).await;
        assert!(error.message.contains("not valid yet"), "{error}");
        let client_only = issue(|params| {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        });
        fails(17, trust.tls(), client_only).await;
        let authority = issue(|params| {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        });
        fails(17, trust.tls(), authority).await;
    });
}

#[test]
fn a_client_certificate_is_shown_and_its_lack_or_refusal_is_named() {
    on_a_lane(async {
        let trust = Trust::new();
        for versions in [&[&TLS12], &[&TLS13]] {
            let acceptor = || trust.broker().acceptor(versions, Some(&trust.authority));
            let identity = trust.tls_with_identity(&trust.authority);
            echoes(&open(identity, acceptor()).await.unwrap()).await;

            let error = fails(20, trust.tls(), acceptor()).await;
            assert!(error.message.contains("wants a client certificate"), "{error}");

            let stranger = trust.tls_with_identity(&Authority::new("another CA"));
            let error = fails(20, stranger, acceptor()).await;
            assert!(error.message.contains("refused our client certificate"), "{error}");
        }
    });
}

#[test]
fn tls_to_a_port_without_tls_is_named() {
    on_a_lane(async {
        let trust = Trust::new();
        let security = security(Some(trust.tls()), None);
        // Kafka takes the hello for a request of 369 MB and closes.
        let hangs_up = |mut stream: DuplexStream| async move {
            stream.read_u8().await.unwrap();
        };
        let error = open_against(&security, hangs_up).await.unwrap_err();
        assert_eq!(error.code, Code(13), "{error}");
        assert!(error.fix.contains("remove `tls:` for cluster west"), "{error}");

        let http = |mut stream: DuplexStream| async move {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            std::future::pending().await
        };
        let error = open_against(&security, http).await.unwrap_err();
        assert_eq!(error.code, Code(13), "{error}");

        let silent = |stream: DuplexStream| async move {
            let _held = stream;
            std::future::pending().await
        };
        let error = open_against(&security, silent).await.unwrap_err();
        assert_eq!(error.code, Code(16), "{error}");
        assert!(error.message.contains("TLS handshake"), "{error}");
    });
}

#[test]
fn an_end_without_close_notify_is_a_lost_connection() {
    on_a_lane(async {
        let trust = Trust::new();
        let acceptor = trust.broker().acceptor(BOTH, None);
        let security = security(Some(trust.tls()), None);
        let cuts = |stream| async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            greet(&mut stream).await;
            let first = read_request(&mut stream).await.unwrap();
            stream.write_all(&answer(&first, b"")).await.unwrap();
            stream.flush().await.unwrap();
            read_request(&mut stream).await.unwrap();
        };
        let connection = open_against(&security, cuts).await.unwrap();
        let deadline = Duration::from_secs(5);
        connection.send(ApiKey::Heartbeat, 4, vec![], deadline).unwrap().await.unwrap();
        let pending = connection.send(ApiKey::Heartbeat, 4, vec![], deadline).unwrap();
        let error = connection.error_of(&pending.await.unwrap_err());
        assert_eq!((error.code, error.action), (Code(27), Action::Reconnect), "{error}");
    });
}

fn load_error(tls: &resolved::Tls) -> Error {
    let cluster = Cluster {
        name: "west".to_owned(),
        bootstrap: vec![address()],
        tls: Some(tls.clone()),
        sasl: None,
        advertised: Default::default(),
    };
    let error = Security::load(&cluster).err().unwrap();
    assert_eq!((error.code, error.side, error.action), (Code(29), Side::Local, Action::Stop));
    assert!(!error.to_string().contains("canary"), "{error}");
    error
}

#[test]
fn files_that_are_not_what_they_should_be_are_named_with_what_they_are() {
    let trust = Trust::new();
    let dir = &trust.dir;
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let broken = "-----BEGIN CERTIFICATE-----\ncanary*!\n-----END CERTIFICATE-----\n";
    let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (name, text, says) in [
        ("empty.pem", "", "is empty"),
        ("text.pem", "canary", "holds no PEM block"),
        ("key.pem", &key, "holds a private key and no certificate"),
        ("broken.pem", broken, "broken PEM"),
        ("not-der.pem", not_der, "certificate 1 cannot be a trust anchor"),
    ] {
        let ca = Some(file(dir, name, text));
        let error = load_error(&resolved::Tls { ca, ..Default::default() });
        assert!(error.message.contains(name) && error.message.contains(says), "{error}");
    }
    for (name, bytes, says) in [
        ("store.jks", &[0xfe, 0xed, 0xfe, 0xed, 0, 0][..], "a Java keystore"),
        ("store.p12", &[0x30, 0x82, 1, 2], "DER or PKCS#12"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = load_error(&resolved::Tls { ca: Some(path), ..Default::default() });
        assert!(error.message.contains(says), "{error}");
    }
    let ca = Some(dir.path().join("nowhere.pem"));
    let error = load_error(&resolved::Tls { ca, ..Default::default() });
    assert!(error.message.contains("nowhere.pem: cannot be read"), "{error}");

    let client = trust.authority.issue(&["strait"], |_| {});
    let certificate = file(dir, "client.pem", &client.certificate.pem());
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\ncanary\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let broken = "-----BEGIN PRIVATE KEY-----\ncanary*!\n-----END PRIVATE KEY-----\n";
    for (name, text, says) in [
        ("encrypted.key", encrypted, "encrypted private key"),
        ("certificate.key", &*client.certificate.pem(), "holds a certificate and no private key"),
        ("broken.key", broken, "broken PEM"),
        ("other.key", &*key, "does not belong to the first certificate in"),
    ] {
        let identity = Some((certificate.clone(), file(dir, name, text)));
        let error = load_error(&resolved::Tls { identity, ..trust.tls() });
        assert!(error.message.contains(name) && error.message.contains(says), "{error}");
    }
    let tls = resolved::Tls { server_name: Some("not a name".to_owned()), ..trust.tls() };
    assert!(load_error(&tls).message.contains("not a host name"));
}

#[test]
fn errors_of_files_name_the_cluster() {
    let tls = resolved::Tls { ca: Some("/nowhere/ca.pem".into()), ..Default::default() };
    let bootstrap = vec![address()];
    let cluster = resolved::Cluster {
        name: "west".to_owned(),
        bootstrap,
        tls: Some(tls),
        sasl: None,
        advertised: Default::default(),
    };
    let error = Security::load(&cluster).unwrap_err();
    assert!(error.to_string().starts_with("ST-029 cluster west: /nowhere/ca.pem"), "{error}");
}
