//! SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677), the client's half, without channel binding.
//!
//! Kafka's brokers compare user names and passwords as raw UTF-8, so there is no SASLprep. The broker proves that it
//! knows the password too; its iteration count is bounded both ways, since too few give the password away to whoever
//! recorded the exchange and too many burn our CPU.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::Exchange;
use crate::canary::{self, Canary};
use crate::config::resolved::{ScramHash, Secret};
use crate::env::Env;
use crate::error::Error;
use crate::limits;
use crate::wire::sasl_authenticate::SaslAuthenticateResponse;

/// GS2 header "no channel binding, no authorization id", and its base64.
const GS2_HEADER: &str = "n,,";
const GS2_HEADER_BASE64: &str = "biws";

/// A user's password for one hash.
pub(super) struct Credentials {
    hash: ScramHash,
    username: String,
    password: Secret,
    /// The newest salted password: brokers of a cluster share salt and count, so connections after the first need no PBKDF2.
    salted: Mutex<Option<Arc<Salted>>>,
}

/// What PBKDF2 makes of the password.
struct Salted {
    salt: Vec<u8>,
    iterations: u32,
    password: Vec<u8>,
}

/// The server's first message.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    nonce: String,
    salt: Vec<u8>,
    iterations: u32,
}

impl Credentials {
    pub(super) fn new(hash: ScramHash, username: String, password: Secret) -> Self {
        Self { hash, username, password, salted: Mutex::new(None) }
    }

    #[cfg(debug_assertions)]
    pub(super) fn password(&self) -> &Secret {
        &self.password
    }

    pub(super) fn mechanism(&self) -> &'static str {
        match self.hash {
            ScramHash::Sha256 => "SCRAM-SHA-256",
            ScramHash::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// `n=user,r=nonce`
    fn client_first_bare(&self, nonce: &str) -> String {
        let username = self.username.replace('=', "=3D").replace(',', "=2C");
        format!("n={username},r={nonce}")
    }

    /// PBKDF2, on a thread where it stalls nobody, or what it gave the last time.
    async fn salted(&self, challenge: &Challenge) -> Option<Arc<Salted>> {
        let matches = |salted: &Arc<Salted>| {
            salted.salt == challenge.salt && salted.iterations == challenge.iterations
        };
        let known = self.lock().clone();
        if let Some(known) = known.filter(matches) {
            return Some(known);
        }
        let (hash, password) = (self.hash, self.password.clone());
        let (salt, iterations) = (challenge.salt.clone(), challenge.iterations);
        let work = move || salt_password(hash, &password, salt, iterations);
        // What a run of the fuzzers covers is not to hang on how threads take turns.
        let salted = match cfg!(fuzzing) {
            true => work(),
            false => tokio::task::spawn_blocking(work).await.ok()?,
        };
        let salted = Arc::new(salted?);
        *self.lock() = Some(salted.clone());
        Some(salted)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Salted>>> {
        self.salted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn authenticate(
    env: &Env,
    exchange: &Exchange<'_>,
    credentials: &Credentials,
) -> Result<SaslAuthenticateResponse, Error> {
    let secret = credentials.password.expose();
    let mut random = [0; 24];
    env.world().fill_random(&mut random);
    let nonce = BASE64_STANDARD.encode(random);

    let client_first = credentials.client_first_bare(&nonce);
    let answer = exchange.send(format!("{GS2_HEADER}{client_first}"), secret).await?;
    let server_first = text(&answer).map_err(|what| exchange.distrusted(what))?;
    let challenge =
        Challenge::read(server_first, &nonce).map_err(|what| exchange.distrusted(what))?;
    let salted = credentials.salted(&challenge).await;
    let salted = salted.ok_or_else(|| exchange.distrusted("the password cannot be salted"))?;

    let without_proof = format!("c={GS2_HEADER_BASE64},r={}", challenge.nonce);
    let signed = format!("{client_first},{server_first},{without_proof}");
    let proof = client_proof(credentials.hash, &salted.password, &signed);
    let client_final = format!("{without_proof},p={}", BASE64_STANDARD.encode(proof));
    let answer = exchange.send(client_final, secret).await?;
    let server_final = text(&answer).map_err(|what| exchange.distrusted(what))?;
    let proven = verify_server(credentials.hash, &salted.password, &signed, server_final);
    if !canary::planted(Canary::ServerUnproven) {
        proven.map_err(|what| exchange.distrusted(what))?;
    }
    Ok(answer)
}

fn text(answer: &SaslAuthenticateResponse) -> Result<&str, &'static str> {
    std::str::from_utf8(&answer.message).map_err(|_| "a message that is not UTF-8")
}

impl Challenge {
    /// `r=nonce,s=salt,i=iterations`, extensions after it ignored as RFC 5802 wants.
    fn read(message: &str, client_nonce: &str) -> Result<Self, String> {
        let mut fields = message.split(',');
        let mut field = |name: &str, what: &str| {
            let field = fields.next().and_then(|field| field.strip_prefix(name));
            field.ok_or_else(|| format!("no {what} in its first message"))
        };
        let nonce = field("r=", "nonce")?;
        let salt = field("s=", "salt")?;
        let iterations = field("i=", "iteration count")?;

        let is_checked = !canary::planted(Canary::ChallengeUnchecked);
        let ours = nonce.strip_prefix(client_nonce);
        if is_checked && ours.is_none_or(str::is_empty) {
            return Err("a nonce that does not extend ours".to_owned());
        }
        let salt = BASE64_STANDARD.decode(salt).map_err(|_| "a salt that is not base64")?;
        if salt.is_empty() || salt.len() > limits::SCRAM_SALT_BYTES_MAX {
            return Err(format!("a salt of {} bytes", salt.len()));
        }
        let iterations = iterations.parse().map_err(|_| "an iteration count that is no number")?;
        let is_checked = is_checked || iterations > *limits::SCRAM_ITERATIONS.end();
        if is_checked && !limits::SCRAM_ITERATIONS.contains(&iterations) {
            let (low, high) = limits::SCRAM_ITERATIONS.into_inner();
            return Err(format!("{iterations} iterations, not between {low} and {high}"));
        }
        Ok(Self { nonce: nonce.to_owned(), salt, iterations })
    }
}

fn hmac_of(hash: ScramHash) -> hmac::Algorithm {
    match hash {
        ScramHash::Sha256 => hmac::HMAC_SHA256,
        ScramHash::Sha512 => hmac::HMAC_SHA512,
    }
}

fn sign(hash: ScramHash, key: &[u8], data: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac_of(hash), key), data)
}

/// SaltedPassword := Hi(password, salt, i)
fn salt_password(
    hash: ScramHash,
    password: &Secret,
    salt: Vec<u8>,
    iterations: u32,
) -> Option<Salted> {
    let algorithm = match hash {
        ScramHash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        ScramHash::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
    };
    let mut salted = vec![0; hmac_of(hash).tag_len()];
    let count = NonZeroU32::new(iterations)?;
    pbkdf2::derive(algorithm, count, &salt, password.expose().as_bytes(), &mut salted);
    Some(Salted { salt, iterations, password: salted })
}

/// ClientProof := ClientKey XOR HMAC(H(ClientKey), AuthMessage)
fn client_proof(hash: ScramHash, salted: &[u8], signed: &str) -> Vec<u8> {
    let client_key = sign(hash, salted, b"Client Key");
    let stored_key = digest::digest(hmac_of(hash).digest_algorithm(), client_key.as_ref());
    let signature = sign(hash, stored_key.as_ref(), signed.as_bytes());
    client_key.as_ref().iter().zip(signature.as_ref()).map(|(key, sign)| key ^ sign).collect()
}

/// The server's signature over both sides' messages, compared in constant time.
fn verify_server(
    hash: ScramHash,
    salted: &[u8],
    signed: &str,
    server_final: &str,
) -> Result<(), &'static str> {
    if server_final.starts_with("e=") {
        return Err("an error in its last message");
    }
    let signature = server_final.strip_prefix("v=").and_then(|rest| rest.split(',').next());
    let signature = signature.ok_or("no signature in its last message")?;
    let signature =
        BASE64_STANDARD.decode(signature).map_err(|_| "a signature that is not base64")?;
    let server_key = sign(hash, salted, b"Server Key");
    let key = hmac::Key::new(hmac_of(hash), server_key.as_ref());
    hmac::verify(&key, signed.as_bytes(), &signature)
        .map_err(|_| "it does not prove that it knows the password")
}

/// The server's half, for a scripted broker.
#[cfg(test)]
pub(super) struct ServerHalf(ScramHash, Salted);

#[cfg(test)]
impl ServerHalf {
    pub(super) fn new(hash: ScramHash, password: &Secret, salt: &[u8], iterations: u32) -> Self {
        Self(hash, salt_password(hash, password, salt.to_vec(), iterations).unwrap())
    }

    /// The client's proof and the server's signature over `signed`.
    pub(super) fn proofs(&self, signed: &str) -> (String, String) {
        let Self(hash, salted) = self;
        let proof = client_proof(*hash, &salted.password, signed);
        let server_key = sign(*hash, &salted.password, b"Server Key");
        let signature = sign(*hash, server_key.as_ref(), signed.as_bytes());
        (BASE64_STANDARD.encode(proof), BASE64_STANDARD.encode(signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    /// RFC 7677 section 3.
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn credentials(username: &str) -> Credentials {
        Credentials::new(ScramHash::Sha256, username.to_owned(), Secret::new("pencil"))
    }

    #[test]
    fn rfc_7677_section_3() {
        let first = credentials("user").client_first_bare(NONCE);
        assert_eq!(first, "n=user,r=rOprNGfwEbeRWgbNEkqO");
        let challenge = Challenge::read(SERVER_FIRST, NONCE).unwrap();
        let hash = ScramHash::Sha256;
        let password = Secret::new("pencil");
        let salted = salt_password(hash, &password, challenge.salt, challenge.iterations).unwrap();
        let without_proof = format!("c=biws,r={}", challenge.nonce);
        let signed = format!("{first},{SERVER_FIRST},{without_proof}");
        let proof = client_proof(hash, &salted.password, &signed);
        assert_eq!(BASE64_STANDARD.encode(proof), "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let server_final = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(verify_server(hash, &salted.password, &signed, server_final), Ok(()));
        for wrong in [
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=",
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=x",
            "v=AAAA",
            "v=",
            "v",
            "",
            "e=other-error",
        ] {
            assert!(verify_server(hash, &salted.password, &signed, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_escaped_and_otherwise_raw() {
        let first = credentials("a=b,c ü").client_first_bare("x");
        assert_eq!(first, "n=a=3Db=2Cc ü,r=x");
    }

    #[test]
    fn challenges_out_of_form_are_refused() {
        assert!(Challenge::read("r=abX,s=AAAA,i=4096,m=later", "ab").is_ok());
        for (message, reason) in [
            ("", "no nonce"),
            ("m=must,r=abX,s=AAAA,i=4096", "no nonce"),
            ("r=abX,i=4096,s=AAAA", "no salt"),
            ("r=abX,s=AAAA", "no iteration count"),
            ("r=ab,s=AAAA,i=4096", "does not extend"),
            ("r=a,s=AAAA,i=4096", "does not extend"),
            ("r=Xab,s=AAAA,i=4096", "does not extend"),
            ("r=abX,s=,i=4096", "a salt of 0"),
            ("r=abX,s=*,i=4096", "not base64"),
            ("r=abX,s=AAAA,i=0", "0 iterations"),
            ("r=abX,s=AAAA,i=1", "1 iterations"),
            ("r=abX,s=AAAA,i=4095", "4095 iterations"),
            ("r=abX,s=AAAA,i=100001", "100001 iterations"),
            ("r=abX,s=AAAA,i=4294967295", "4294967295 iterations"),
            ("r=abX,s=AAAA,i=4294967296", "no number"),
            ("r=abX,s=AAAA,i=-1", "no number"),
        ] {
            let error = Challenge::read(message, "ab").unwrap_err();
            assert!(error.contains(reason), "{message}: {error}");
        }
        let long = format!("r=abX,s={},i=4096", BASE64_STANDARD.encode([1; 65]));
        assert!(Challenge::read(&long, "ab").unwrap_err().contains("65 bytes"));
    }
}
