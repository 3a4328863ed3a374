//! The server's half of a login: PLAIN (RFC 4616) and SCRAM (RFC 5802, RFC 7677).

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kafka_protocol::messages::ApiKey;

use super::options::{Mechanism, User};

/// How far a login is.
#[derive(Default)]
enum Step {
    #[default]
    Start,
    Chosen(Mechanism),
    /// The client's proof is awaited: the transcript so far, and the user.
    Proof {
        mechanism: Mechanism,
        transcript: String,
        user: User,
        salt: Vec<u8>,
    },
    Done,
    Failed,
}

/// One connection's login.
#[derive(Default)]
pub(super) struct Login(Step);

/// The login failed; the text is for the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) &'static str);

impl Login {
    /// Requests that may come now.
    pub(super) fn admits(&self, api: ApiKey) -> bool {
        let always =
            matches!(api, ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate);
        always || matches!(self.0, Step::Done)
    }

    /// The connection must end.
    pub(super) fn failed(&self) -> bool {
        matches!(self.0, Step::Failed)
    }

    /// SaslHandshake; false when the mechanism is not offered.
    pub(super) fn choose(&mut self, name: &str, offered: &[Mechanism]) -> bool {
        let chosen = offered.iter().find(|mechanism| mechanism.name() == name);
        self.0 = chosen.map_or(Step::Failed, |mechanism| Step::Chosen(*mechanism));
        chosen.is_some()
    }

    /// SaslAuthenticate: the next message of the exchange. `nonce` is used for SCRAM's first answer.
    pub(super) fn next(
        &mut self,
        message: &[u8],
        users: &[User],
        iterations: u32,
        nonce: [u8; 24],
    ) -> Result<Vec<u8>, Refused> {
        let step = std::mem::replace(&mut self.0, Step::Failed);
        let (next, answer) = match step {
            Step::Chosen(Mechanism::Plain) => (Step::Done, plain(message, users)?),
            Step::Chosen(mechanism) => scram_first(mechanism, message, users, iterations, nonce)?,
            Step::Proof { mechanism, transcript, user, salt } => {
                let keys = Keys::derive(mechanism, &user.password, &salt, iterations);
                (Step::Done, scram_final(mechanism, &keys, &transcript, message)?)
            }
            Step::Start | Step::Done | Step::Failed => {
                return Err(Refused("SaslAuthenticate out of turn"));
            }
        };
        self.0 = next;
        Ok(answer)
    }
}

fn plain(message: &[u8], users: &[User]) -> Result<Vec<u8>, Refused> {
    let text = std::str::from_utf8(message).map_err(|_| Refused("not UTF-8"))?;
    let parts: Vec<&str> = text.split('\0').collect();
    let [_, name, password] = parts[..] else { return Err(Refused("not a PLAIN message")) };
    let known = users.iter().find(|user| user.name == name);
    match known.is_some_and(|user| user.password == password) {
        true => Ok(Vec::new()),
        false => Err(Refused("Authentication failed: Invalid username or password")),
    }
}

fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

const INVALID: Refused = Refused(
    "Authentication failed during authentication due to invalid credentials with SASL \
             mechanism SCRAM",
);

fn scram_first(
    mechanism: Mechanism,
    message: &[u8],
    users: &[User],
    iterations: u32,
    nonce: [u8; 24],
) -> Result<(Step, Vec<u8>), Refused> {
    let text = std::str::from_utf8(message).map_err(|_| Refused("not UTF-8"))?;
    // gs2 header "n,authzid,": no channel binding.
    let bare = text.splitn(3, ',').nth(2).filter(|_| text.starts_with("n,"));
    let bare = bare.ok_or(Refused("not a SCRAM message"))?;
    let name = field(bare, "n").ok_or(Refused("no user in the SCRAM message"))?;
    let name = name.replace("=2C", ",").replace("=3D", "=");
    let theirs = field(bare, "r").ok_or(Refused("no nonce in the SCRAM message"))?;
    let user = users.iter().find(|user| user.name == name).ok_or(INVALID)?.clone();
    let salt = nonce[..16].to_vec();
    let ours = STANDARD.encode(&nonce[16..]);
    let salted = STANDARD.encode(&salt);
    let answer = format!("r={theirs}{ours},s={salted},i={iterations}");
    let transcript = format!("{bare},{answer}");
    Ok((Step::Proof { mechanism, transcript, user, salt }, answer.into_bytes()))
}

struct Keys {
    client: Vec<u8>,
    server: Vec<u8>,
}

impl Keys {
    fn derive(mechanism: Mechanism, password: &str, salt: &[u8], iterations: u32) -> Self {
        let (algorithm, mac, len) = match mechanism {
            Mechanism::ScramSha512 => (pbkdf2::PBKDF2_HMAC_SHA512, hmac::HMAC_SHA512, 64),
            _ => (pbkdf2::PBKDF2_HMAC_SHA256, hmac::HMAC_SHA256, 32),
        };
        let mut salted = vec![0; len];
        let rounds = std::num::NonZeroU32::new(iterations).unwrap_or(std::num::NonZeroU32::MIN);
        pbkdf2::derive(algorithm, rounds, salt, password.as_bytes(), &mut salted);
        let key = hmac::Key::new(mac, &salted);
        let sign = |text: &[u8]| hmac::sign(&key, text).as_ref().to_vec();
        Self { client: sign(b"Client Key"), server: sign(b"Server Key") }
    }
}

fn scram_final(
    mechanism: Mechanism,
    keys: &Keys,
    transcript: &str,
    message: &[u8],
) -> Result<Vec<u8>, Refused> {
    let (hash, mac) = match mechanism {
        Mechanism::ScramSha512 => (&digest::SHA512, hmac::HMAC_SHA512),
        _ => (&digest::SHA256, hmac::HMAC_SHA256),
    };
    let text = std::str::from_utf8(message).map_err(|_| Refused("not UTF-8"))?;
    let (without_proof, proof) = text.rsplit_once(",p=").ok_or(INVALID)?;
    let promised = transcript.split(',').rev().find_map(|part| part.strip_prefix("r="));
    if field(without_proof, "r") != promised {
        return Err(INVALID);
    }
    let transcript = format!("{transcript},{without_proof}");
    let stored = digest::digest(hash, &keys.client);
    let signature = hmac::sign(&hmac::Key::new(mac, stored.as_ref()), transcript.as_bytes());
    let wanted: Vec<u8> =
        keys.client.iter().zip(signature.as_ref()).map(|(key, sign)| key ^ sign).collect();
    if STANDARD.decode(proof).ok().as_deref() != Some(&wanted[..]) {
        return Err(INVALID);
    }
    let proof = hmac::sign(&hmac::Key::new(mac, &keys.server), transcript.as_bytes());
    Ok(format!("v={}", STANDARD.encode(proof)).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Vec<User> {
        vec![User { name: "user".into(), password: "pencil".into() }]
    }

    #[test]
    fn plain_knows_its_users() {
        for (message, good) in
            [(&b"\0user\0pencil"[..], true), (b"\0user\0pen", false), (b"x", false)]
        {
            let mut login = Login::default();
            assert!(login.choose("PLAIN", &[Mechanism::Plain]));
            assert_eq!(login.next(message, &users(), 4096, [0; 24]).is_ok(), good);
            assert_eq!(login.admits(ApiKey::Metadata), good);
            assert_eq!(login.failed(), !good);
        }
    }

    #[test]
    fn scram_sha_256_as_in_rfc_7677() {
        // The RFC's exchange, with its salt and nonces put in.
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = Keys::derive(Mechanism::ScramSha256, "pencil", &salt, 4096);
        let transcript = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
             r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let proof = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let answer = scram_final(Mechanism::ScramSha256, &keys, transcript, proof).unwrap();
        assert_eq!(answer, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let mut wrong = proof.to_vec();
        *wrong.iter_mut().rev().nth(3).unwrap() ^= 1;
        assert!(scram_final(Mechanism::ScramSha256, &keys, transcript, &wrong).is_err());
    }
}
