//! Authorities of several levels and what they sign, right or wrong, in memory and as the client's files.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, SupportedProtocolVersion};
use strait::config::resolved;
use tempfile::TempDir;

/// The host that is dialled, unless a case says otherwise.
pub const HOST: &str = "kafka-1.example";

/// Something that signs.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, and those above it but for the root.
    chain: Vec<CertificateDer<'static>>,
    pem: String,
    key_pem: String,
}

/// A certificate with its chain and key.
pub struct Own {
    /// As they are shown.
    pub chain: Vec<CertificateDer<'static>>,
    /// Of the first.
    pub key: PrivateKeyDer<'static>,
    pem: String,
    key_pem: String,
}

type Change = fn(&mut CertificateParams);

fn ca_params(name: &str, constraints: BasicConstraints) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Ca {
    /// A root.
    pub fn root(name: &str) -> Self {
        Self::changed_root(name, |_| ())
    }

    /// A root with other parameters.
    pub fn changed_root(name: &str, change: Change) -> Self {
        let mut params = ca_params(name, BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let key_pem = key.serialize_pem();
        Self { issuer: Issuer::new(params, key), chain: Vec::new(), pem, key_pem }
    }

    /// An authority below it.
    pub fn below(&self, name: &str, change: Change) -> Self {
        let mut params = ca_params(name, BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = [vec![certificate.der().clone()], self.chain.clone()].concat();
        let key_pem = key.serialize_pem();
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key), chain, key_pem }
    }

    /// A server's certificate, after `change`.
    pub fn issue(&self, names: &[&str], change: Change) -> Own {
        self.issue_for(names, change, &KeyPair::generate().unwrap())
    }

    fn issue_for(&self, names: &[&str], change: Change, key: &KeyPair) -> Own {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        let chain = [vec![certificate.der().clone()], self.chain.clone()].concat();
        Own::of(chain, certificate.pem(), key)
    }

    /// Its certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its key.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }
}

impl Own {
    fn of(chain: Vec<CertificateDer<'static>>, pem: String, key: &KeyPair) -> Self {
        let key_pem = key.serialize_pem();
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).unwrap();
        Self { chain, key, pem, key_pem }
    }

    /// Without those that its issuer has: a broker whose chain was forgotten.
    pub fn unchained(mut self) -> Self {
        self.chain.truncate(1);
        self
    }

    /// Signed by itself.
    pub fn alone(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        Self::of(vec![certificate.der().clone()], certificate.pem(), &key)
    }

    /// A listener's settings; with `clients`, it wants a certificate of theirs.
    pub fn server(
        self,
        versions: &[&'static SupportedProtocolVersion],
        clients: Option<&Ca>,
    ) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap()).unwrap();
                let roots = Arc::new(roots);
                let verifier =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        builder.with_single_cert(self.chain, self.key).unwrap()
    }
}

/// Whom the client trusts, who it is, and its files.
pub struct Pki {
    /// The one that it trusts.
    pub root: Ca,
    /// One that it does not.
    pub stranger: Ca,
    folder: TempDir,
}

impl Default for Pki {
    fn default() -> Self {
        let (root, stranger) = (Ca::root("trusted"), Ca::root("stranger"));
        let folder = tempfile::tempdir().unwrap();
        let pki = Self { root, stranger, folder };
        pki.write("ca.pem", &pki.root.pem);
        let client: Change = |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        };
        let expired: Change = |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.not_after = date_time_ymd(2020, 1, 1);
        };
        for (name, own) in [
            ("own", pki.root.issue(&["strait"], client)),
            ("foreign", pki.stranger.issue(&["strait"], client)),
            ("expired", pki.root.issue(&["strait"], expired)),
        ] {
            pki.write(&format!("{name}.pem"), &own.pem);
            pki.write(&format!("{name}.key"), &own.key_pem);
        }
        pki
    }
}

impl Pki {
    /// A file of the client's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Its settings, trust alone.
    pub fn tls(&self) -> resolved::Tls {
        resolved::Tls { ca: Some(self.path("ca.pem")), ..Default::default() }
    }

    /// The same with a client certificate.
    pub fn tls_as(&self, name: &str) -> resolved::Tls {
        let file = |kind: &str| self.path(&format!("{name}.{kind}"));
        resolved::Tls { identity: Some((file("pem"), file("key"))), ..self.tls() }
    }

    /// A broker as it should be.
    pub fn broker(&self) -> Own {
        self.root.issue(&[HOST], |_| ())
    }

    /// The same with an RSA key.
    pub fn rsa_broker(&self) -> Own {
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        self.root.issue_for(&["localhost"], |_| (), &key)
    }

    /// The line of the keys' text that must never be seen.
    pub fn secrets(&self) -> Vec<String> {
        let line = |name: &str| {
            let text = fs::read_to_string(self.path(name)).unwrap();
            text.lines().nth(1).unwrap().to_owned()
        };
        ["own.key", "foreign.key", "expired.key"].map(line).to_vec()
    }
}
