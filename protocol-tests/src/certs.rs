//! A private certificate authority in a folder of its own, and leaves of every needed kind.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

/// A certificate authority; its files go with it.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate alone.
    pub cert: PathBuf,
    /// Its key, PKCS#8.
    pub key: PathBuf,
    /// Key, certificate and authority in one file, as Kafka's `ssl.keystore.location` wants it.
    pub bundle: PathBuf,
}

impl Leaf {
    /// A server of ours with this certificate, TLS 1.2 and 1.3, no client certificates.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let chain = CertificateDer::pem_file_iter(&self.cert).unwrap().map(Result::unwrap);
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.collect(), key);
        Arc::new(config.unwrap())
    }
}

impl Leaf {
    /// The same, for clients with a certificate of this authority alone.
    pub fn server_config_for(&self, clients: &Authority) -> Arc<ServerConfig> {
        let chain = CertificateDer::pem_file_iter(&self.cert).unwrap().map(Result::unwrap);
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(clients.ca()).unwrap()).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            provider.clone(),
        );
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain.collect(), key);
        Arc::new(config.unwrap())
    }
}

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let ca_pem = params.self_signed(&key).unwrap().pem();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), &ca_pem).unwrap();
        Self { folder, issuer: Issuer::new(params, key), ca_pem }
    }

    /// The authority's own certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A server's certificate for these names (DNS names or addresses).
    pub fn server(&self, names: &[&str]) -> Leaf {
        self.leaf(names, &format!("server-{}", names.join("-")), |_| ())
    }

    /// A client's certificate; brokers see the principal `User:CN=<name>`.
    pub fn client(&self, name: &str) -> Leaf {
        self.leaf(&[], name, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    /// A leaf whose parameters the caller changes: validity, usages, names.
    pub fn leaf(
        &self,
        names: &[&str],
        common_name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        let path = |suffix: &str| self.folder.path().join(format!("{common_name}{suffix}.pem"));
        let leaf = Leaf { cert: path(""), key: path("-key"), bundle: path("-bundle") };
        fs::write(&leaf.cert, &cert).unwrap();
        fs::write(&leaf.key, key.serialize_pem()).unwrap();
        fs::write(&leaf.bundle, [key.serialize_pem(), cert, self.ca_pem.clone()].concat()).unwrap();
        leaf
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
