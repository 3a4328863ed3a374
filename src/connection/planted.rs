//! The bugs that tests plant in what is trusted and told (see [`crate::canary`]). Not part of a release build, and without a
//! planted bug nothing here does anything.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::sasl::Sasl;
use super::sealing;
use crate::canary::{self, Canary};

/// A check that lets through what the planted bug lets through.
#[derive(Debug)]
struct Loose {
    strict: Arc<WebPkiServerVerifier>,
    is_blind: bool,
}

/// Takes a check away, if that is the planted bug.
pub(super) fn loosen(config: &mut ClientConfig, roots: RootCertStore) {
    let is_blind = canary::planted(Canary::CertificateUnchecked);
    if !is_blind && !canary::planted(Canary::HostNameUnchecked) {
        return;
    }
    let provider = Arc::new(sealing::provider());
    let strict = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    if let Ok(strict) = strict {
        config.dangerous().set_certificate_verifier(Arc::new(Loose { strict, is_blind }));
    }
}

/// Tells the log what it must not hold, if that is the planted bug.
pub(super) fn tell(sasl: &Sasl) {
    if canary::planted(Canary::SecretLogged)
        && let Some(password) = sasl.password()
    {
        tracing::debug!(password = password.expose(), "logging in");
    }
}

impl ServerCertVerifier for Loose {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        match self.strict.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }))
                if !self.is_blind =>
            {
                Ok(ServerCertVerified::assertion())
            }
            Err(_) if self.is_blind => Ok(ServerCertVerified::assertion()),
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}
