//! TLS and logins. SCRAM's arithmetic is held against the RFC in `sasl.rs`.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{
    MetadataRequest, SaslAuthenticateRequest, SaslHandshakeRequest, SaslHandshakeResponse,
};
use rustls::pki_types::{PrivateKeyDer, ServerName};

use super::super::{EmbeddedCluster, Listener, Mechanism, Options, User};
use super::kit::{Client, text};
use crate::env::Env;

/// A cluster that speaks TLS to who has logged in, and a client configuration that trusts it.
fn guarded() -> (EmbeddedCluster, Arc<rustls::ClientConfig>) {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![key.cert.der().clone()],
            PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into()),
        )
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(key.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let options = Options {
        listeners: vec![Listener::tls(Arc::new(server)).with_sasl(), Listener::plain()],
        host: "localhost".into(),
        users: vec![User { name: "ada".into(), password: "secret".into() }],
        mechanisms: vec![Mechanism::Plain, Mechanism::ScramSha512],
        ..Options::default()
    };
    (EmbeddedCluster::start(Env::real(), options).unwrap(), Arc::new(client))
}

async fn connect(cluster: &EmbeddedCluster, config: &Arc<rustls::ClientConfig>) -> Client {
    let stream = Env::real().world().connect(cluster.address(1)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    Client::over(Box::new(connector.connect(name, stream).await.unwrap()))
}

async fn choose(client: &mut Client, mechanism: &str) -> SaslHandshakeResponse {
    let request = SaslHandshakeRequest::default().with_mechanism(text(mechanism));
    client.call(1, &request).await
}

fn plain(password: &str) -> SaslAuthenticateRequest {
    let message = format!("\0ada\0{password}");
    SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(message))
}

#[tokio::test]
async fn who_has_logged_in_over_tls_is_served() {
    let (cluster, config) = guarded();
    let mut client = connect(&cluster, &config).await;
    assert_eq!(choose(&mut client, "PLAIN").await.error_code, 0);
    assert_eq!(client.call(2, &plain("secret")).await.error_code, 0);
    let metadata = client.call(12, &MetadataRequest::default().with_topics(None)).await;
    let broker = &metadata.brokers[0];
    assert_eq!(broker.host, text("localhost"));
    assert_eq!(broker.port, i32::from(cluster.address(1).port()), "of the same listener");
}

#[tokio::test]
async fn who_has_not_is_not() {
    let (cluster, config) = guarded();
    let mut client = connect(&cluster, &config).await;
    let request = MetadataRequest::default().with_topics(None);
    assert!(client.try_call(12, &request).await.is_none(), "before the login");

    let mut client = connect(&cluster, &config).await;
    choose(&mut client, "PLAIN").await;
    let refused = client.call(2, &plain("wrong")).await;
    assert_eq!(refused.error_code, 58);
    assert!(refused.error_message.is_some());
    assert!(client.try_call(12, &request).await.is_none(), "and is disconnected");

    let mut client = connect(&cluster, &config).await;
    let unknown = choose(&mut client, "SCRAM-SHA-256").await;
    assert_eq!(unknown.error_code, 33);
    assert_eq!(unknown.mechanisms, [text("PLAIN"), text("SCRAM-SHA-512")]);
}
