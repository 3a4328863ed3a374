//! TLS settings from what the files hold, and the handshake. Never offers a way around the check of a broker's certificate.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::diagnosis::{Peer, Stage};
use super::sealing;
use super::security::files::{Files, unusable};
use super::security::validity::Validity;
use crate::config::resolved;
use crate::env::Stream;
use crate::error::Error;
use crate::limits;

/// TLS settings with their files read.
pub(crate) struct Tls {
    connector: TlsConnector,
    /// Verified, and sent as SNI, instead of the dialled host.
    server_name: Option<String>,
    /// Of our own certificate.
    pub(super) own_validity: Option<Validity>,
}

impl Tls {
    /// Judges the files: what belongs together is judged together.
    pub(crate) fn load(settings: &resolved::Tls, files: &Files) -> Result<Self, Error> {
        let roots = match &settings.ca {
            Some(path) => private_roots(path, files)?,
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
            .with_root_certificates(roots.clone());
        let mut own_validity = None;
        #[cfg_attr(not(debug_assertions), allow(unused_mut))]
        let mut config = match &settings.identity {
            None => builder.with_no_client_auth(),
            Some((chain_file, key_file)) => {
                let chain = certificates(chain_file, files)?;
                let key = private_key(key_file, files)?;
                own_validity = chain.first().and_then(|own| Validity::of(own));
                let paired = builder.with_client_auth_cert(chain, key);
                paired.map_err(|error| no_pair(chain_file, key_file, &error))?
            }
        };
        #[cfg(debug_assertions)]
        super::planted::loosen(&mut config, roots);
        if let Some(name) = &settings.server_name {
            ServerName::try_from(name.as_str())
                .map_err(|_| unusable(format!("`tls.server_name` {name:?} is not a host name")))?;
        }
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            server_name: settings.server_name.clone(),
            own_validity,
        })
    }

    /// The handshake, the certificate checked against the dialled host or the configured name.
    pub(crate) async fn handshake(
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

/// What a listener of our own answers with, ALPN `http/1.1`, no client certificate asked for; and from when to when its
/// certificate is valid.
pub(crate) fn acceptor(
    cert: &Path,
    key: &Path,
    files: &Files,
) -> Result<(TlsAcceptor, Option<Validity>), Error> {
    let chain = certificates(cert, files)?;
    let validity = chain.first().and_then(|own| Validity::of(own));
    let private = private_key(key, files)?;
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    let mut config = ServerConfig::builder_with_provider(Arc::new(sealing::provider()))
        .with_protocol_versions(&versions)
        .map_err(|error| unusable(format!("TLS cannot be set up: {error}")))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| no_pair(cert, key, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((TlsAcceptor::from(Arc::new(config)), validity))
}

fn no_pair(chain: &Path, key: &Path, error: &rustls::Error) -> Error {
    let (key, chain) = (key.display(), chain.display());
    unusable(match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("the key in {key} does not belong to the first certificate in {chain}")
        }
        other => format!("{chain} with {key}: {other}"),
    })
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

fn certificates(path: &Path, files: &Files) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = files.get(path)?;
    let certificates = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(unusable(format!("{}: {}", path.display(), holds(bytes))))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unusable(format!("{}: broken PEM: {error}", path.display()))),
    }
}

fn private_key(path: &Path, files: &Files) -> Result<PrivateKeyDer<'static>, Error> {
    use rustls::pki_types::pem::Error as Pem;
    let bytes = files.get(path)?;
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        Pem::NoItemsFound => unusable(format!("{}: {}", path.display(), holds(bytes))),
        // The parser's text may quote the line that it failed on, and this is a key.
        _ => unusable(format!("{}: broken PEM", path.display())),
    })
}

fn private_roots(path: &Path, files: &Files) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates(path, files)?.into_iter().enumerate() {
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
