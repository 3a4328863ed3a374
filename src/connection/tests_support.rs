//! A broker that says what a test wants it to, over an in-memory pipe.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use crate::config::resolved::{Address, Cluster, Sasl, Tls};
use crate::connection::{Connection, Security};
use crate::env::{BoxFuture, Env, Listener, Stream, World};
use crate::error::{Error, Side};

/// A world whose connections end in the test's hands.
pub(crate) struct Script {
    /// None: the name does not resolve.
    pub(crate) addresses: Option<Vec<SocketAddr>>,
    /// None: connections are refused.
    pub(crate) peers: Option<mpsc::Sender<DuplexStream>>,
    /// Bytes that the pipe holds each way.
    pub(crate) pipe_bytes: usize,
    random: AtomicU64,
}

impl Script {
    pub(crate) fn new() -> (Self, mpsc::Receiver<DuplexStream>) {
        let (peers, accepted) = mpsc::channel(64);
        let addresses = Some(vec![SocketAddr::from(([10, 0, 0, 1], 9092))]);
        let random = AtomicU64::new(1);
        (Self { addresses, peers: Some(peers), pipe_bytes: 64 << 10, random }, accepted)
    }
}

impl World for Script {
    fn resolve<'a>(
        &'a self,
        _host: &'a str,
        _port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let addresses = self.addresses.clone();
        Box::pin(async { addresses.ok_or_else(|| io::Error::other("no such host")) })
    }

    fn connect(&self, _to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async {
            let peers = self.peers.as_ref().ok_or(io::ErrorKind::ConnectionRefused)?;
            let (ours, theirs) = tokio::io::duplex(self.pipe_bytes);
            peers.send(theirs).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(ours) as Box<dyn Stream>)
        })
    }

    fn listen(&self, _at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn wall_clock_ms(&self) -> i64 {
        1_790_000_000_000
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        for byte in buffer {
            *byte = (self.random.fetch_add(0x9e37, Ordering::Relaxed) >> 3) as u8;
        }
    }
}

/// Runs a test as a lane runs: on one thread, with time that stands still unless everything waits.
pub(crate) fn on_a_lane<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    tokio::task::LocalSet::new().block_on(&runtime.unwrap(), test)
}

pub(crate) fn address() -> Address {
    Address { host: "kafka-1.example".to_owned(), port: 9093 }
}

pub(crate) fn security(tls: Option<Tls>, sasl: Option<Sasl>) -> Security {
    let bootstrap = vec![address()];
    Security::load(&Cluster {
        name: "west".to_owned(),
        bootstrap,
        tls,
        sasl,
        advertised: Default::default(),
    })
    .unwrap()
}

/// One side of `open`, the scripted broker the other.
pub(crate) async fn open_against<F>(
    security: &Security,
    broker: impl FnOnce(DuplexStream) -> F,
) -> Result<Connection, Error>
where
    F: Future<Output = ()> + 'static,
{
    let (script, mut accepted) = Script::new();
    let env = Env::of(Arc::new(script));
    let at = address();
    let open = Connection::open(&env, &at, security, Side::Target);
    let accept = async {
        tokio::task::spawn_local(broker(accepted.recv().await.unwrap()));
    };
    tokio::join!(open, accept).0
}

/// A request as the broker sees it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) api: i16,
    pub(crate) version: i16,
    pub(crate) id: i32,
    pub(crate) body: Bytes,
}

/// The next request, or None at the end of the stream.
pub(crate) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let size = stream.read_i32().await.ok()?;
    let mut frame = vec![0; size as usize];
    stream.read_exact(&mut frame).await.ok()?;
    let frame = Bytes::from(frame);
    let short = |at: usize| i16::from_be_bytes([frame[at], frame[at + 1]]);
    let (api, version) = (short(0), short(2));
    let id = i32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]);
    let client_id = short(8) as usize;
    assert_eq!(&frame[10..10 + client_id], b"strait");
    let flexible = api != 17;
    let body = frame.slice(10 + client_id + usize::from(flexible)..);
    Some(Seen { api, version, id, body })
}

/// An answer with the header that its API has.
pub(crate) fn answer(request: &Seen, body: &[u8]) -> Vec<u8> {
    let flexible = !matches!(request.api, 17 | 18);
    let mut frame = Vec::new();
    frame.extend_from_slice(&(4 + i32::from(flexible) + body.len() as i32).to_be_bytes());
    frame.extend_from_slice(&request.id.to_be_bytes());
    if flexible {
        frame.push(0);
    }
    frame.extend_from_slice(body);
    frame
}

/// An ApiVersions answer (v3, v4) that offers these.
pub(crate) fn offer(apis: &[(i16, i16, i16)]) -> Vec<u8> {
    let mut body = vec![0, 0, apis.len() as u8 + 1];
    for (key, min, max) in apis {
        for value in [key, min, max] {
            body.extend_from_slice(&value.to_be_bytes());
        }
        body.push(0);
    }
    body.extend_from_slice(&[0, 0, 0, 0, 0]);
    body
}

/// What a plain broker offers in these tests.
pub(crate) const OFFERED: &[(i16, i16, i16)] = &[
    (0, 0, 12),
    (1, 4, 17),
    (2, 1, 10),
    (3, 0, 13),
    (10, 0, 6),
    (12, 0, 4),
    (17, 0, 1),
    (18, 0, 4),
    (36, 0, 2),
];

/// Answers the first request as a broker of today does.
pub(crate) async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let request = read_request(stream).await.unwrap();
    assert_eq!((request.api, request.version), (18, 4));
    stream.write_all(&answer(&request, &offer(OFFERED))).await.unwrap();
    stream.flush().await.unwrap();
}

/// A certificate authority of the test's own.
pub(crate) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub(crate) pem: String,
}

/// A certificate with its key.
pub(crate) struct Identity {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: rcgen::KeyPair,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// A certificate for these names and IP addresses, after `change`.
    pub(crate) fn issue(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut rcgen::CertificateParams),
    ) -> Identity {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = rcgen::KeyPair::generate().unwrap();
        Identity { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }
}

impl Identity {
    /// A TLS listener that shows this certificate; with `clients`, it wants one that this authority signed.
    pub(crate) fn acceptor(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        clients: Option<&Authority>,
    ) -> tokio_rustls::TlsAcceptor {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = rustls::RootCertStore::empty();
                roots
                    .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
                    .unwrap();
                builder.with_client_cert_verifier(
                    rustls::server::WebPkiClientVerifier::builder_with_provider(
                        Arc::new(roots),
                        provider,
                    )
                    .build()
                    .unwrap(),
                )
            }
        };
        let key = PrivateKeyDer::from_pem_slice(self.key.serialize_pem().as_bytes()).unwrap();
        let config = builder.with_single_cert(vec![self.certificate.der().clone()], key).unwrap();
        Arc::new(config).into()
    }
}

/// A PEM file of the test's.
pub(crate) fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> std::path::PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}
