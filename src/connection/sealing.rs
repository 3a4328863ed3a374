//! The AES-GCM suites of TLS 1.3 with one difference: a record is encrypted from where its plaintext lies.
//!
//! rustls copies each 16 KiB into the record and encrypts them there. The copy reads frames that have left the first
//! cache and was a tenth of all that a byte costs on its way to the target. Keys, nonces, limits, the handshake and
//! everything that comes in stay rustls' own.

use std::sync::LazyLock;

use aws_lc_rs::aead::{self, Aad, Algorithm, TlsProtocolId, TlsRecordSealingKey};
use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{
    AeadKey, Iv, MessageDecrypter, MessageEncrypter, Nonce, OutboundChunks, OutboundOpaqueMessage,
    OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm, UnsupportedOperationError,
    make_tls13_aad,
};
use rustls::{
    CipherSuite, CipherSuiteCommon, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion,
    SupportedCipherSuite, Tls13CipherSuite,
};

/// rustls' provider on aws-lc, its AES-GCM suites of TLS 1.3 replaced in their places.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    for suite in &mut provider.cipher_suites {
        if let Some(sealing) = SUITES.iter().find(|sealing| sealing.common.suite == suite.suite()) {
            *suite = SupportedCipherSuite::Tls13(sealing);
        }
    }
    provider
}

static SUITES: LazyLock<Vec<Tls13CipherSuite>> = LazyLock::new(|| {
    let suites = rustls::crypto::aws_lc_rs::DEFAULT_CIPHER_SUITES;
    suites.iter().filter_map(|suite| sealing(suite.tls13()?)).collect()
});

fn sealing(suite: &'static Tls13CipherSuite) -> Option<Tls13CipherSuite> {
    let CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit } = suite.common;
    let algorithm = match name {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => &aead::AES_128_GCM,
        CipherSuite::TLS13_AES_256_GCM_SHA384 => &aead::AES_256_GCM,
        _ => return None,
    };
    Some(Tls13CipherSuite {
        common: CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit },
        hkdf_provider: suite.hkdf_provider,
        // Once for each suite, which lives as long as the process.
        aead_alg: Box::leak(Box::new(Sealing { rustls: suite.aead_alg, algorithm })),
        quic: None,
    })
}

struct Sealing {
    rustls: &'static dyn Tls13AeadAlgorithm,
    algorithm: &'static Algorithm,
}

impl Tls13AeadAlgorithm for Sealing {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        match TlsRecordSealingKey::new(self.algorithm, TlsProtocolId::TLS13, key.as_ref()) {
            Ok(key) => Box::new(Sealer { key, iv }),
            // Not of the suite's length: rustls' own to refuse.
            Err(_) => self.rustls.encrypter(key, iv),
        }
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.rustls.decrypter(key, iv)
    }

    fn key_len(&self) -> usize {
        self.rustls.key_len()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.rustls.extract_keys(key, iv)
    }

    fn fips(&self) -> bool {
        false
    }
}

struct Sealer {
    /// Refuses a nonce that does not follow the last one.
    key: TlsRecordSealingKey,
    iv: Iv,
}

impl MessageEncrypter for Sealer {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        sequence: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let len = message.payload.len();
        let sealed_len = self.encrypted_payload_len(len);
        let nonce = aead::Nonce::assume_unique_for_key(Nonce::new(&self.iv, sequence).0);
        let aad = Aad::from(make_tls13_aad(sealed_len));
        let content_type = [u8::from(message.typ)];
        let mut record = PrefixedPayload::with_capacity(sealed_len);
        match in_one_piece(&message.payload) {
            Some(plaintext) => {
                record.extend(std::iter::repeat_n(&0, sealed_len));
                let (ciphertext, end) = record.as_mut().split_at_mut(len);
                self.key.seal_out_of_place_scatter(
                    nonce,
                    aad,
                    plaintext,
                    ciphertext,
                    &content_type,
                    end,
                )
            }
            None => {
                record.extend_from_chunks(&message.payload);
                record.extend_from_slice(&content_type);
                self.key.seal_in_place_append_tag(nonce, aad, &mut record)
            }
        }
        .map_err(|_| Error::EncryptError)?;
        let (outer, version) = (ContentType::ApplicationData, ProtocolVersion::TLSv1_2);
        Ok(OutboundOpaqueMessage::new(outer, version, record))
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        payload_len + 1 + self.key.algorithm().tag_len()
    }
}

/// The payload where it lies, unless it spans two pieces of a vectored write.
fn in_one_piece<'a>(payload: &OutboundChunks<'a>) -> Option<&'a [u8]> {
    let (chunks, start, end) = match *payload {
        OutboundChunks::Single(chunk) => return Some(chunk),
        OutboundChunks::Multiple { chunks, start, end } => (chunks, start, end),
    };
    let mut before = 0;
    for chunk in chunks {
        if start < before + chunk.len() {
            return chunk.get(start - before..end - before);
        }
        before += chunk.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAINTEXT: &[u8] = &[0x5a; 16 << 10];

    fn encrypters() -> [Box<dyn MessageEncrypter>; 2] {
        let named = |provider: CryptoProvider| {
            let name = CipherSuite::TLS13_AES_256_GCM_SHA384;
            let suite = provider.cipher_suites.into_iter().find(|suite| suite.suite() == name);
            suite.and_then(|suite| suite.tls13()).expect("rustls has the suite")
        };
        [provider(), rustls::crypto::aws_lc_rs::default_provider()]
            .map(|provider| named(provider).aead_alg.encrypter([7; 32].into(), Iv::new([9; 12])))
    }

    fn message(payload: OutboundChunks<'_>) -> OutboundPlainMessage<'_> {
        let (typ, version) = (ContentType::ApplicationData, ProtocolVersion::TLSv1_3);
        OutboundPlainMessage { typ, version, payload }
    }

    #[test]
    fn each_record_is_the_one_that_rustls_makes() {
        let [mut ours, mut rustls] = encrypters();
        let pieces: [&[u8]; 4] =
            [&PLAINTEXT[..61], &[], &PLAINTEXT[61..9_000], &PLAINTEXT[9_000..]];
        let ranges = [
            (0, 0),
            (0, 61),
            (60, 62),
            (61, 9_000),
            (100, 8_000),
            (9_000, 16 << 10),
            (0, 16 << 10),
        ];
        let whole = std::iter::once(OutboundChunks::Single(PLAINTEXT));
        let parts =
            ranges.map(|(start, end)| OutboundChunks::Multiple { chunks: &pieces, start, end });
        for (sequence, payload) in whole.chain(parts).enumerate() {
            let seal = |by: &mut Box<dyn MessageEncrypter>| {
                by.encrypt(message(payload.clone()), sequence as u64).expect("in turn").encode()
            };
            assert_eq!(seal(&mut ours), seal(&mut rustls), "record {sequence}");
        }
    }

    #[test]
    fn a_number_is_not_used_twice() {
        let [mut ours, _] = encrypters();
        assert!(ours.encrypt(message(OutboundChunks::Single(b"a")), 3).is_ok());
        assert!(ours.encrypt(message(OutboundChunks::Single(b"b")), 3).is_err());
    }

    #[test]
    fn only_what_lies_in_one_piece_is_sealed_from_there() {
        let chunks: [&[u8]; 3] = [b"ab", b"", b"cde"];
        let part =
            |start, end| in_one_piece(&OutboundChunks::Multiple { chunks: &chunks, start, end });
        assert_eq!(part(0, 2), Some(&b"ab"[..]));
        assert_eq!(part(2, 5), Some(&b"cde"[..]));
        assert_eq!(part(3, 4), Some(&b"d"[..]));
        assert_eq!((part(1, 3), part(5, 5)), (None, None));
    }

    #[test]
    fn the_suites_keep_their_order() {
        let names = |provider: CryptoProvider| {
            provider.cipher_suites.iter().map(|suite| suite.suite()).collect::<Vec<_>>()
        };
        assert_eq!(names(provider()), names(rustls::crypto::aws_lc_rs::default_provider()));
        assert_eq!(SUITES.len(), 2);
    }
}
