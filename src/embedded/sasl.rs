//! The server's half of a login: PLAIN (RFC 4616) and SCRAM (RFC 5802, RFC 7677), and of its renewal (KIP-368).

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kafka_protocol::messages::ApiKey;
use tokio::time::Instant;

use super::control::Cluster;
use super::options::{Mechanism, User};

/// A login may be renewed once a second; Kafka's own number.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

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
pub(super) struct Login {
    step: Step,
    /// Who logged in and how: a renewal changes neither.
    who: Option<(Mechanism, String)>,
    /// The mechanism of a renewal is another.
    is_other: bool,
    expires: Option<Instant>,
    renewal_began: Option<Instant>,
}

/// The login failed; the text is for the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) &'static str);

/// How logins went, over all brokers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Logins {
    /// Connections that were logged in.
    pub done: u64,
    /// Sessions that were renewed.
    pub renewed: u64,
    /// Logins and renewals that failed.
    pub refused: u64,
    /// Connections that were closed because their session had ended (`expired-connections-killed-count`).
    pub expired: u64,
}

/// Whether a request may come now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Yes,
    /// Not at this point of a login.
    No,
    /// The session has ended.
    Expired,
}

/// What SaslHandshake is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Agreed,
    NotOffered,
    /// There is a session already, which does not end or was renewed a moment ago.
    IllegalState,
}

/// What a login is held against.
pub(super) struct Rules<'a> {
    pub(super) users: &'a [User],
    pub(super) iterations: u32,
    /// Used for SCRAM's first answer.
    pub(super) nonce: [u8; 24],
    /// `connections.max.reauth.ms`.
    pub(super) max_reauth: Option<Duration>,
}

impl Login {
    pub(super) fn admits(&self, api: ApiKey, now: Instant) -> Admission {
        let is_handshake = api == ApiKey::SaslHandshake;
        let fits = match self.step {
            Step::Done if self.is_expired(now) && !is_handshake => return Admission::Expired,
            Step::Done => true,
            Step::Start => is_handshake || api == ApiKey::ApiVersions,
            Step::Chosen(_) | Step::Proof { .. } => api == ApiKey::SaslAuthenticate,
            Step::Failed => false,
        };
        if fits { Admission::Yes } else { Admission::No }
    }

    fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at < now)
    }

    /// The connection must end.
    pub(super) fn failed(&self) -> bool {
        matches!(self.step, Step::Failed)
    }

    /// SaslHandshake.
    pub(super) fn choose(&mut self, name: &str, offered: &[Mechanism], now: Instant) -> Choice {
        let chosen = offered.iter().find(|mechanism| mechanism.name() == name);
        if matches!(self.step, Step::Done) {
            let too_soon = self.renewal_began.is_some_and(|at| now - at < RENEWAL_INTERVAL);
            if self.expires.is_none() || too_soon {
                return Choice::IllegalState;
            }
            self.renewal_began = Some(now);
            let before = self.who.as_ref().map(|(mechanism, _)| *mechanism);
            self.is_other = chosen.is_some_and(|mechanism| Some(*mechanism) != before);
        }
        self.step = chosen.map_or(Step::Failed, |mechanism| Step::Chosen(*mechanism));
        if chosen.is_some() { Choice::Agreed } else { Choice::NotOffered }
    }

    /// SaslAuthenticate: the next message of the exchange, and how long the session lasts when it is done.
    pub(super) fn next(
        &mut self,
        message: &[u8],
        rules: &Rules<'_>,
        now: Instant,
    ) -> Result<(Vec<u8>, Duration), Refused> {
        let step = std::mem::replace(&mut self.step, Step::Failed);
        if self.is_other {
            return Err(Refused("SASL mechanism is not supported for re-authentication"));
        }
        let (next, answer, who) = match step {
            Step::Chosen(Mechanism::Plain) => {
                let user = plain(message, rules.users)?;
                (Step::Done, Vec::new(), Some((Mechanism::Plain, user)))
            }
            Step::Chosen(mechanism) => {
                let (step, answer) = scram_first(mechanism, message, rules)?;
                (step, answer, None)
            }
            Step::Proof { mechanism, transcript, user, salt } => {
                let keys = Keys::derive(mechanism, &user.password, &salt, rules.iterations);
                let answer = scram_final(mechanism, &keys, &transcript, message)?;
                (Step::Done, answer, Some((mechanism, user.name)))
            }
            Step::Start | Step::Done | Step::Failed => {
                return Err(Refused("SaslAuthenticate out of turn"));
            }
        };
        if let Some(who) = who {
            if self.who.as_ref().is_some_and(|before| *before != who) {
                return Err(Refused("Cannot change principals during re-authentication"));
            }
            self.who = Some(who);
            self.expires = rules.max_reauth.map(|lifetime| now + lifetime);
        }
        let is_done = matches!(next, Step::Done);
        let lifetime = rules.max_reauth.filter(|_| is_done).unwrap_or_default();
        self.step = next;
        Ok((answer, lifetime))
    }
}

/// The user's name.
fn plain(message: &[u8], users: &[User]) -> Result<String, Refused> {
    let text = std::str::from_utf8(message).map_err(|_| Refused("not UTF-8"))?;
    let parts: Vec<&str> = text.split('\0').collect();
    let [_, name, password] = parts[..] else { return Err(Refused("not a PLAIN message")) };
    let known = users.iter().find(|user| user.name == name && user.password == password);
    let known = known.ok_or(Refused("Authentication failed: Invalid username or password"))?;
    Ok(known.name.clone())
}

impl Logins {
    /// Behind each message of a login.
    pub(super) fn count(&mut self, login: &Login) {
        match (&login.step, login.renewal_began) {
            (Step::Done, None) => self.done += 1,
            (Step::Done, Some(_)) => self.renewed += 1,
            _ => {}
        }
    }
}

impl Cluster {
    /// How logins went so far.
    pub fn logins(&self) -> Logins {
        self.with(|state| state.logins)
    }

    /// Changes what a listener of every broker shows and asks for; connections go on.
    pub fn set_tls(&self, listener: usize, config: Arc<rustls::ServerConfig>) {
        self.with(|state| {
            if let Some(listener) = state.options.listeners.get_mut(listener) {
                listener.tls = Some(config);
            }
        });
    }

    /// Changes a user's password; sessions go on.
    pub fn set_password(&self, user: &str, password: &str) {
        self.with(|state| {
            let users = state.options.users.iter_mut().filter(|known| known.name == user);
            users.for_each(|user| user.password = password.to_owned());
        });
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
    rules: &Rules<'_>,
) -> Result<(Step, Vec<u8>), Refused> {
    let Rules { users, iterations, nonce, .. } = rules;
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
            let (mut login, now) = (Login::default(), Instant::now());
            assert_eq!(login.choose("PLAIN", &[Mechanism::Plain], now), Choice::Agreed);
            assert_eq!(login.next(message, &rules(&users(), None), now).is_ok(), good);
            assert_eq!(login.admits(ApiKey::Metadata, now) == Admission::Yes, good);
            assert_eq!(login.failed(), !good);
        }
    }

    fn rules(users: &[User], max_reauth: Option<Duration>) -> Rules<'_> {
        Rules { users, iterations: 4096, nonce: [0; 24], max_reauth }
    }

    #[test]
    fn a_session_is_renewed_by_the_same_user_in_the_same_way_or_ends() {
        let both = [Mechanism::Plain, Mechanism::ScramSha256];
        let mut users = users();
        users.push(User { name: "other".into(), password: "pencil".into() });
        let session = Duration::from_secs(5);
        let seconds = |n| Duration::from_secs(n);
        let logged_in = |max_reauth| {
            let (mut login, now) = (Login::default(), Instant::now());
            assert_eq!(login.admits(ApiKey::Metadata, now), Admission::No);
            login.choose("PLAIN", &both, now);
            assert_eq!(login.admits(ApiKey::ApiVersions, now), Admission::No, "amid a login");
            let (_, lifetime) =
                login.next(b"\0user\0pencil", &rules(&users, max_reauth), now).unwrap();
            assert_eq!(lifetime, max_reauth.unwrap_or_default());
            (login, now)
        };
        let (mut login, now) = logged_in(None);
        assert_eq!(login.choose("PLAIN", &both, now + seconds(9)), Choice::IllegalState);
        assert_eq!(login.admits(ApiKey::Metadata, now + seconds(99_999)), Admission::Yes);

        let (mut login, now) = logged_in(Some(session));
        assert_eq!(login.admits(ApiKey::Fetch, now + session), Admission::Yes);
        let late = now + seconds(6);
        assert_eq!(login.admits(ApiKey::Fetch, late), Admission::Expired);
        assert_eq!(login.admits(ApiKey::SaslHandshake, late), Admission::Yes);
        assert_eq!(login.choose("PLAIN", &both, late), Choice::Agreed);
        assert_eq!(login.admits(ApiKey::Fetch, late), Admission::No, "amid a renewal");
        let rules = rules(&users, Some(session));
        assert!(login.next(b"\0user\0pencil", &rules, late).is_ok());
        assert_eq!(login.admits(ApiKey::Fetch, late + seconds(4)), Admission::Yes);
        let soon = late + Duration::from_millis(900);
        assert_eq!(login.choose("PLAIN", &both, soon), Choice::IllegalState);
        assert_eq!(login.admits(ApiKey::Fetch, soon), Admission::Yes, "it is told, no more");

        login.choose("PLAIN", &both, late + seconds(2));
        let other = login.next(b"\0other\0pencil", &rules, late + seconds(2));
        assert!(other.is_err() && login.failed());
        let (mut login, now) = logged_in(Some(session));
        assert_eq!(login.choose("SCRAM-SHA-256", &both, now + seconds(2)), Choice::Agreed);
        assert!(login.next(b"n,,n=user,r=abc", &rules, now + seconds(2)).is_err());
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
