//! What a cluster is reached with: trust, identity, credentials, read from files once. Owns the TLS settings; never
//! offers a way around the check of a broker's certificate.

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::diagnosis::{Peer, SECURITY_FILE, Stage};
use super::sasl::Sasl;
use super::sealing;
use crate::config::resolved::{self, Address, Cluster};
use crate::env::Stream;
use crate::error::{Action, Error, Side};
use crate::limits;

/// TLS and SASL towards one cluster, ready to use. A cheap handle.
#[derive(Clone)]
pub struct Security(Arc<Parts>);

struct Parts {
    cluster: Arc<str>,
    tls: Option<Tls>,
    sasl: Option<Sasl>,
}

/// TLS settings with their files read.
pub(super) struct Tls {
    connector: TlsConnector,
    /// Verified, and sent as SNI, instead of the dialled host.
    server_name: Option<String>,
    identity: bool,
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Security({})", self.0.cluster)
    }
}

impl Security {
    /// Reads the files that the configuration names. The errors are ST-029, and name the file and what is wrong in it;
    /// ST-009 for a password that would travel unencrypted.
    pub fn load(cluster: &Cluster) -> Result<Self, Error> {
        let at = |error: Error| error.cluster(cluster.name.clone());
        let tls = cluster.tls.as_ref().map(Tls::load).transpose().map_err(at)?;
        let sasl = cluster.sasl.as_ref().map(|sasl| Sasl::load(sasl, tls.is_some()));
        let sasl = sasl.transpose().map_err(at)?;
        Ok(Self(Arc::new(Parts { cluster: cluster.name.as_str().into(), tls, sasl })))
    }

    pub(super) fn tls(&self) -> Option<&Tls> {
        self.0.tls.as_ref()
    }

    pub(super) fn sasl(&self) -> Option<&Sasl> {
        self.0.sasl.as_ref()
    }

    pub(super) fn peer(&self, address: Address, broker: Option<i32>, side: Side) -> Peer {
        Peer {
            side,
            cluster: self.0.cluster.clone(),
            address,
            broker,
            tls: self.0.tls.is_some(),
            client_certificate: self.0.tls.as_ref().is_some_and(|tls| tls.identity),
        }
    }
}

impl Tls {
    /// Reads the files.
    pub(super) fn load(settings: &resolved::Tls) -> Result<Self, Error> {
        let roots = match &settings.ca {
            Some(path) => private_roots(path)?,
            None => public_roots()?,
        };
        // The provider is named here: what another library made the process default must not decide.
        let provider = Arc::new(sealing::provider());
        let versions: &[_] = if settings.tls13_only {
            &[&rustls::version::TLS13]
        } else {
            &[&rustls::version::TLS13, &rustls::version::TLS12]
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| unusable(format!("TLS cannot be set up: {error}")))?
            .with_root_certificates(roots);
        let config = match &settings.identity {
            None => builder.with_no_client_auth(),
            Some((chain_file, key_file)) => {
                let chain = certificates(chain_file)?;
                let key = private_key(key_file)?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    let (key, chain) = (key_file.display(), chain_file.display());
                    unusable(match error {
                        rustls::Error::InconsistentKeys(_) => {
                            format!("the key in {key} does not belong to the first certificate in {chain}")
                        }
                        other => format!("{chain} with {key}: {other}"),
                    })
                })?
            }
        };
        if let Some(name) = &settings.server_name {
            ServerName::try_from(name.as_str())
                .map_err(|_| unusable(format!("`tls.server_name` {name:?} is not a host name")))?;
        }
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            server_name: settings.server_name.clone(),
            identity: settings.identity.is_some(),
        })
    }

    /// The handshake, the certificate checked against the dialled host or the configured name.
    pub(super) async fn handshake(
        &self,
        peer: &Peer,
        stream: Box<dyn Stream>,
    ) -> Result<TlsStream<Box<dyn Stream>>, Error> {
        let host = self.server_name.as_ref().unwrap_or(&peer.address.host);
        let name = ServerName::try_from(host.clone()).map_err(|_| peer.not_a_server_name(host))?;
        self.connector
            .connect_with(name, stream, |tls| {
                tls.set_buffer_limit(Some(limits::TLS_BUFFER_BYTES));
            })
            .await
            .map_err(|error| peer.io(Stage::Tls, &error))
    }
}

fn unusable(message: String) -> Error {
    Error::new(SECURITY_FILE, Side::Local, Action::Stop, message)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let metadata = std::fs::metadata(path);
    match metadata.map(|metadata| metadata.len()) {
        Ok(len) if len > limits::SECURITY_FILE_BYTES_MAX => {
            Err(unusable(format!("{}: {len} bytes are too many", path.display())))
        }
        Ok(_) => std::fs::read(path)
            .map_err(|error| unusable(format!("{}: cannot be read: {error}", path.display()))),
        Err(error) => Err(unusable(format!("{}: cannot be read: {error}", path.display()))),
    }
}

/// What a file holds instead of what was wanted of it.
fn holds(bytes: &[u8]) -> &'static str {
    let has = |mark: &str| bytes.windows(mark.len()).any(|window| window == mark.as_bytes());
    match bytes {
        [] => "is empty",
        [0xfe, 0xed, 0xfe, 0xed, ..] => "is a Java keystore (JKS), not PEM",
        [0x30, 0x80..=0x84, ..] => "is DER or PKCS#12, not PEM",
        _ if has("ENCRYPTED") => "holds an encrypted private key: decrypt it (openssl pkey)",
        _ if has("PRIVATE KEY-----") => "holds a private key and no certificate",
        _ if has("BEGIN CERTIFICATE") => "holds a certificate and no private key",
        _ => "holds no PEM block",
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(path)?;
    let certificates = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(unusable(format!("{}: {}", path.display(), holds(&bytes))))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unusable(format!("{}: broken PEM: {error}", path.display()))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    use rustls::pki_types::pem::Error as Pem;
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        Pem::NoItemsFound => unusable(format!("{}: {}", path.display(), holds(&bytes))),
        // The parser's text may quote the line that it failed on, and this is a key.
        _ => unusable(format!("{}: broken PEM", path.display())),
    })
}

fn private_roots(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates(path)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| {
            let (path, number) = (path.display(), index + 1);
            unusable(format!("{path}: certificate {number} cannot be a trust anchor: {error}"))
        })?;
    }
    Ok(roots)
}

fn public_roots() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or(String::new(), |error| format!(": {error}"));
        return Err(unusable(format!("this system has no public root certificates{why}"))
            .fix("set `tls.ca`, or install the ca-certificates package"));
    }
    Ok(roots)
}
