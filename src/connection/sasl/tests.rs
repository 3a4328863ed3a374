//! Authentication against a scripted broker: right, wrong, and lying. In all of them no error shows a secret.

mod session;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::super::tests_support::{
    Authority, Script, address, answer, file, greet, on_a_lane, open_against, read_request,
    security,
};
use super::super::{Connection, Security};
use super::scram::ServerHalf;
use crate::config::resolved::{Cluster, Sasl, ScramHash, Secret, TokenSource};
use crate::env::Env;
use crate::error::{Code, Error, Side};
use crate::limits;
use crate::wire::Reader;
use crate::wire::primitives::put_uvarint;

const PASSWORD: &str = "canary-7f3a,=";
const TOKEN: &str = "canary.7f3a.token";

fn handshake_answer(error: i16, mechanisms: &[&str]) -> Vec<u8> {
    let mut body = error.to_be_bytes().to_vec();
    body.extend((mechanisms.len() as i32).to_be_bytes());
    for name in mechanisms {
        body.extend((name.len() as i16).to_be_bytes());
        body.extend(name.as_bytes());
    }
    body
}

fn compact(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uvarint(out, bytes.len() as u32 + 1);
    out.extend(bytes);
}

fn authenticate_answer(error: i16, words: Option<&str>, message: &[u8], lifetime: i64) -> Vec<u8> {
    let mut body = error.to_be_bytes().to_vec();
    match words {
        None => body.push(0),
        Some(words) => compact(&mut body, words.as_bytes()),
    }
    compact(&mut body, message);
    body.extend(lifetime.to_be_bytes());
    body.push(0);
    body
}

/// The broker's end of an exchange.
struct Broker(DuplexStream);

impl Broker {
    /// Greets and agrees to the mechanism.
    async fn agrees(mut stream: DuplexStream, mechanism: &str) -> Self {
        greet(&mut stream).await;
        Self(stream).agreed(mechanism).await
    }

    /// Agrees to the mechanism, at the first login or at another.
    async fn agreed(self, mechanism: &str) -> Self {
        let Self(mut stream) = self;
        let request = read_request(&mut stream).await.unwrap();
        assert_eq!((request.api, request.version), (17, 1));
        assert_eq!(request.body, [&[0, mechanism.len() as u8], mechanism.as_bytes()].concat());
        let body = handshake_answer(0, &[mechanism]);
        stream.write_all(&answer(&request, &body)).await.unwrap();
        Self(stream)
    }

    /// The client's next message, answered with what `reply` makes of it. None when the client hung up.
    async fn turn(&mut self, reply: impl FnOnce(&str) -> Vec<u8>) -> Option<String> {
        let request = read_request(&mut self.0).await?;
        assert_eq!((request.api, request.version), (36, 2));
        let mut reader = Reader::new(&request.body);
        let message = reader.nullable_bytes("message").unwrap().unwrap();
        let message = String::from_utf8(message.to_vec()).unwrap();
        let body = reply(&message);
        self.0.write_all(&answer(&request, &body)).await.unwrap();
        Some(message)
    }

    /// Holds the connection until the client lets go.
    async fn rests(mut self) {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest).await;
    }
}

fn scram_security(hash: ScramHash) -> Security {
    let (username, password) = ("str=ait".to_owned(), Secret::new(PASSWORD));
    security(None, Some(Sasl::Scram { hash, username, password }))
}

/// What a SCRAM broker does wrong.
#[derive(Clone, Copy, Default)]
struct Lies {
    password: Option<&'static str>,
    nonce: Option<&'static str>,
    iterations: Option<u32>,
    signature: Option<&'static str>,
    skips_proof: bool,
}

/// A SCRAM broker by RFC 5802, but for its lies.
async fn scram_broker(stream: DuplexStream, hash: ScramHash, lies: Lies) {
    let name = if hash == ScramHash::Sha256 { "SCRAM-SHA-256" } else { "SCRAM-SHA-512" };
    let mut broker = Broker::agrees(stream, name).await;
    let iterations = lies.iterations.unwrap_or(4096);
    let mut server_first = String::new();
    let client_first = broker
        .turn(|message| {
            let nonce = message.split_once(",r=").unwrap().1;
            let nonce = lies.nonce.map_or(format!("{nonce}BROKER"), str::to_owned);
            server_first = format!("r={nonce},s={},i={iterations}", BASE64_STANDARD.encode("salt"));
            authenticate_answer(0, None, server_first.as_bytes(), 0)
        })
        .await
        .unwrap();
    let bare = client_first.strip_prefix("n,,").unwrap();
    assert!(bare.starts_with("n=str=3Dait,r="), "{bare}");
    let password = Secret::new(lies.password.unwrap_or(PASSWORD));
    let server = ServerHalf::new(hash, &password, b"salt", iterations);
    let reply = |message: &str| {
        let (without_proof, proof) = message.split_once(",p=").unwrap();
        let (right, signature) = server.proofs(&format!("{bare},{server_first},{without_proof}"));
        if proof != right && !lies.skips_proof {
            let words = "Authentication failed: invalid credentials";
            return authenticate_answer(58, Some(words), b"", 0);
        }
        let message = lies.signature.map_or(format!("v={signature}"), str::to_owned);
        authenticate_answer(0, None, message.as_bytes(), 60_000)
    };
    broker.turn(reply).await;
    broker.rests().await;
}

async fn scram(hash: ScramHash, lies: Lies) -> Result<Connection, Error> {
    open_against(&scram_security(hash), move |stream| scram_broker(stream, hash, lies)).await
}

fn shows_no_secret(error: &Error) {
    let text = format!("{error} {error:?}");
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn scram_both_ways_with_both_hashes() {
    on_a_lane(async {
        for hash in [ScramHash::Sha256, ScramHash::Sha512] {
            let connection = scram(hash, Lies::default()).await.unwrap();
            let left = connection.leave_at().unwrap() - Instant::now();
            assert_eq!(left, Duration::from_secs(60) - limits::SESSION_END_MARGIN);
            assert!(!connection.is_ending());
            tokio::time::advance(Duration::from_secs(51)).await;
            assert!(connection.is_ending() && !connection.is_closed());
        }
    });
}

#[test]
fn scram_refuses_a_broker_that_cannot_prove_itself_or_asks_for_too_much() {
    on_a_lane(async {
        let cases = [
            (Lies { signature: Some("v=AAAA"), ..Lies::default() }, "does not prove"),
            (Lies { signature: Some("e=other-error"), ..Lies::default() }, "an error"),
            (Lies { signature: Some(""), ..Lies::default() }, "no signature"),
            // A peer that lets anyone in, because it does not know the password either.
            (
                Lies { password: Some("guess"), skips_proof: true, ..Lies::default() },
                "does not prove",
            ),
            (Lies { iterations: Some(1), ..Lies::default() }, "1 iterations"),
            (Lies { iterations: Some(4095), ..Lies::default() }, "4095 iterations"),
            (Lies { iterations: Some(100_001), ..Lies::default() }, "100001 iterations"),
            (Lies { nonce: Some("x"), ..Lies::default() }, "does not extend"),
            (Lies { nonce: Some(""), ..Lies::default() }, "does not extend"),
        ];
        for (lies, reason) in cases {
            let error = scram(ScramHash::Sha256, lies).await.unwrap_err();
            assert_eq!(error.code, Code(24), "{reason}: {error}");
            assert!(error.message.contains(reason), "{reason}: {error}");
            shows_no_secret(&error);
        }
    });
}

#[test]
fn scram_with_the_wrong_password_is_the_brokers_refusal() {
    on_a_lane(async {
        let lies = Lies { password: Some("another"), ..Lies::default() };
        let error = scram(ScramHash::Sha512, lies).await.unwrap_err();
        assert_eq!(error.code, Code(22));
        let text = "SASL_AUTHENTICATION_FAILED (58) for SCRAM-SHA-512: Authentication failed: invalid credentials";
        assert_eq!(error.message, text);
        shows_no_secret(&error);
    });
}

#[test]
fn a_mechanism_that_is_not_enabled_is_named_with_those_that_are() {
    on_a_lane(async {
        for (error, mechanisms, says) in [
            (33, &["PLAIN", "GSSAPI\u{1b}[2J"][..], "offers PLAIN, GSSAPI [2J"),
            (33, &[][..], "offers none"),
            (34, &[][..], "has no SASL"),
        ] {
            let broker = move |mut stream: DuplexStream| async move {
                greet(&mut stream).await;
                let request = read_request(&mut stream).await.unwrap();
                let body = handshake_answer(error, mechanisms);
                stream.write_all(&answer(&request, &body)).await.unwrap();
                assert!(read_request(&mut stream).await.is_none(), "nothing may follow");
            };
            let security = scram_security(ScramHash::Sha256);
            let error = open_against(&security, broker).await.unwrap_err();
            assert_eq!(error.code, Code(23), "{error}");
            assert!(error.message.contains(says), "{error}");
        }
    });
}

fn plain(allow_plaintext: bool) -> Sasl {
    Sasl::Plain { username: "strait".to_owned(), password: Secret::new(PASSWORD), allow_plaintext }
}

#[test]
fn plain_goes_in_clear_text_only_where_the_operator_says_so() {
    let cluster = |sasl| Cluster {
        name: "west".to_owned(),
        bootstrap: vec![],
        tls: None,
        sasl: Some(sasl),
        advertised: Default::default(),
    };
    let error = Security::load(&cluster(plain(false))).unwrap_err();
    assert_eq!((error.code, error.side), (Code(9), Side::Local));
    shows_no_secret(&error);
    assert!(Security::load(&cluster(plain(true))).is_ok());
}

#[test]
fn plain_sends_what_rfc_4616_says_and_an_echo_of_the_password_is_not_shown() {
    on_a_lane(async {
        for right in [true, false] {
            let broker = move |stream| async move {
                let mut broker = Broker::agrees(stream, "PLAIN").await;
                let message = broker
                    .turn(|message| {
                        let words = format!("no user of {message:?}, {PASSWORD}!\u{7}");
                        let words = (!right).then_some(&*words);
                        authenticate_answer(if right { 0 } else { 58 }, words, b"", 0)
                    })
                    .await;
                assert_eq!(message.unwrap(), format!("\0strait\0{PASSWORD}"));
                broker.rests().await;
            };
            let opened = open_against(&security(None, Some(plain(true))), broker).await;
            if right {
                assert_eq!(opened.unwrap().leave_at(), None);
            } else {
                let error = opened.unwrap_err();
                assert_eq!(error.code, Code(22));
                assert!(error.message.contains("no user of"), "{error}");
                assert!(!error.message.contains('\u{7}'), "{error:?}");
                shows_no_secret(&error);
            }
        }
    });
}

#[test]
fn a_broker_that_hangs_up_or_falls_silent_or_floods_while_authenticating_is_named() {
    on_a_lane(async {
        let security = security(None, Some(plain(true)));
        let hangs_up = |stream| async {
            let _broker = Broker::agrees(stream, "PLAIN").await;
        };
        let error = open_against(&security, hangs_up).await.unwrap_err();
        assert_eq!(error.code, Code(22), "{error}");
        assert!(error.message.contains("during authentication"), "{error}");

        let silent = |stream| async {
            let _broker = Broker::agrees(stream, "PLAIN").await;
            std::future::pending().await
        };
        let error = open_against(&security, silent).await.unwrap_err();
        assert_eq!(error.code, Code(16), "{error}");
        assert!(error.message.contains("SASL"), "{error}");

        let floods = |stream| async {
            let mut broker = Broker::agrees(stream, "PLAIN").await;
            broker.turn(|_| authenticate_answer(0, None, &[b'x'; 5000], 0)).await;
            broker.rests().await;
        };
        let error = open_against(&security, floods).await.unwrap_err();
        assert_eq!(error.code, Code(24), "{error}");

        // A frame above the handshake's cap is not even read.
        let claims = |stream| async {
            let mut broker = Broker::agrees(stream, "PLAIN").await;
            broker.0.write_all(&(10i32 << 20).to_be_bytes()).await.unwrap();
            broker.rests().await;
        };
        let error = open_against(&security, claims).await.unwrap_err();
        assert_eq!(error.code, Code(26), "{error}");
    });
}

#[test]
fn oauthbearer_from_a_file_and_the_brokers_reason_when_it_refuses() {
    on_a_lane(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let source = TokenSource::File(path.clone());
        let security = security(None, Some(Sasl::OAuthBearer(source)));
        let no_file = open_against(&security, |mut stream| async move {
            greet(&mut stream).await;
            assert!(read_request(&mut stream).await.is_none(), "without a token nothing is begun");
        });
        let error = no_file.await.unwrap_err();
        assert_eq!(error.code, Code(28), "{error}");

        std::fs::write(&path, TOKEN).unwrap();
        let takes = |stream| async {
            let mut broker = Broker::agrees(stream, "OAUTHBEARER").await;
            let message = broker.turn(|_| authenticate_answer(0, None, b"", 0)).await;
            assert_eq!(message.unwrap(), format!("n,,\u{1}auth=Bearer {TOKEN}\u{1}\u{1}"));
            broker.rests().await;
        };
        open_against(&security, takes).await.unwrap();

        let refuses = |stream| async {
            let mut broker = Broker::agrees(stream, "OAUTHBEARER").await;
            let json = format!(r#"{{"status":"invalid_token","echo":"{TOKEN}"}}"#);
            broker.turn(|_| authenticate_answer(0, None, json.as_bytes(), 0)).await;
            let dummy = broker.turn(|_| authenticate_answer(58, Some("no"), b"", 0)).await;
            assert_eq!(dummy.unwrap(), "\u{1}");
            broker.rests().await;
        };
        let error = open_against(&security, refuses).await.unwrap_err();
        assert_eq!(error.code, Code(22), "{error}");
        assert!(error.message.contains(r#"{"status":"invalid_token","echo":"***"}"#), "{error}");
        shows_no_secret(&error);
    });
}

#[test]
fn oauthbearer_from_a_token_endpoint_asked_once_for_many_connections() {
    on_a_lane(async {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("idp CA");
        let source = TokenSource::ClientCredentials {
            token_endpoint: "https://idp.example/oauth/token".to_owned(),
            client_id: "strait@east".to_owned(),
            client_secret: Secret::new(PASSWORD),
            scope: Some("kafka write".to_owned()),
            ca: Some(file(&dir, "ca.pem", &authority.pem)),
        };
        let security = security(None, Some(Sasl::OAuthBearer(source)));
        let acceptor = authority.issue(&["idp.example"], |_| {}).acceptor(&[&TLS13], None);
        let (script, mut accepted) = Script::new();
        let env = Env::of(Arc::new(script));
        let broker = async move {
            // The broker is dialled first, then the endpoint; the second time the token is there.
            let mut first = accepted.recv().await.unwrap();
            greet(&mut first).await;
            let mut idp = acceptor.accept(accepted.recv().await.unwrap()).await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"scope=kafka%20write") {
                assert_ne!(idp.read_buf(&mut request).await.unwrap(), 0);
            }
            let request = String::from_utf8(request).unwrap();
            assert!(request.starts_with("POST /oauth/token HTTP/1.1\r\nHost: idp.example:443\r\n"));
            let basic = BASE64_STANDARD.encode("strait%40east:canary-7f3a%2C%3D");
            assert!(
                request.contains(&format!("\r\nAuthorization: Basic {basic}\r\n")),
                "{request}"
            );
            assert!(request.contains("\r\nContent-Length: 49\r\n"), "{request}");
            assert!(request.ends_with("\r\n\r\ngrant_type=client_credentials&scope=kafka%20write"));
            let json = format!(r#"{{"access_token":"{TOKEN}","expires_in":100}}"#);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", json.len());
            idp.write_all(format!("{head}{json}").as_bytes()).await.unwrap();
            idp.flush().await.unwrap();
            let ok = |message: &str| {
                assert!(message.contains(TOKEN));
                authenticate_answer(0, None, b"", 0)
            };
            let mut first = Broker(first).agreed("OAUTHBEARER").await;
            first.turn(ok).await.unwrap();
            let mut second = Broker::agrees(accepted.recv().await.unwrap(), "OAUTHBEARER").await;
            second.turn(ok).await.unwrap();
            // Later than four fifths of its life the token is asked for anew; this endpoint refuses then.
            let mut third = accepted.recv().await.unwrap();
            greet(&mut third).await;
            let mut idp = acceptor.accept(accepted.recv().await.unwrap()).await.unwrap();
            let json = format!(r#"{{"error":"invalid_client","error_description":"{PASSWORD}"}}"#);
            let head = format!("HTTP/1.1 401 No\r\nContent-Length: {}\r\n\r\n", json.len());
            idp.write_all(format!("{head}{json}").as_bytes()).await.unwrap();
            idp.flush().await.unwrap();
            idp.read_to_end(&mut Vec::new()).await
        };
        let served = tokio::task::spawn_local(broker);
        let at = address();
        let open = || Connection::open(&env, &at, &security, Side::Target);
        let _first = open().await.unwrap();
        let _second = open().await.unwrap();
        tokio::time::sleep(Duration::from_secs(81)).await;
        let error = open().await.unwrap_err();
        assert_eq!(error.code, Code(28), "{error}");
        let says = "token endpoint idp.example:443: HTTP 401: invalid_client ***";
        assert!(error.message.contains(says), "{error}");
        shows_no_secret(&error);
        let _ = served.await;
    });
}
