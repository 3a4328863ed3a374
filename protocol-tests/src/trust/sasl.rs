//! Logins, over TLS that is trusted unless a case says otherwise. Each message of the broker's that is not what one would
//! send that knows the password ends it before the next message of ours.

use std::rc::Rc;

use strait::config::resolved::{Cluster, Sasl, ScramHash, Secret};

use super::certificates::HOST;
use super::login::{Login, Says};
use super::peer::Line;
use super::{Case, Hears, Listening, PASSWORD, Pki, Wants};
use crate::trust::tls::{BOTH, cluster};

fn password() -> Secret {
    Secret::new(PASSWORD)
}

fn scram(pki: &Pki) -> Cluster {
    let (username, hash) = ("str=a,it".to_owned(), ScramHash::Sha256);
    let sasl = Sasl::Scram { hash, username, password: password() };
    cluster(Some(pki.tls()), Some(sasl))
}

fn plain(pki: &Pki) -> Cluster {
    let username = "strait".to_owned();
    let sasl = Sasl::Plain { username, password: password(), allow_plaintext: false };
    cluster(Some(pki.tls()), Some(sasl))
}

fn plain_in_clear(_: &Pki) -> Cluster {
    let username = "strait".to_owned();
    let sasl = Sasl::Plain { username, password: password(), allow_plaintext: false };
    cluster(None, Some(sasl))
}

/// The nonce in our first message.
fn nonce(message: &str) -> &str {
    message.split(",r=").nth(1).map_or("", |rest| rest.trim_end_matches('\0'))
}

/// The broker's first message of SCRAM: what follows our nonce in its own, salt and count.
fn first(message: &str, extension: &str, salt: &str, count: &str) -> Vec<u8> {
    format!("r={}{extension},s={salt},i={count}", nonce(message)).into_bytes()
}

fn challenge(message: &str) -> Vec<u8> {
    first(message, "BROKER", "c2FsdHNhbHQ=", "4096")
}

struct Table(Vec<Case>);

impl Table {
    fn add(
        &mut self,
        name: &str,
        client: fn(&Pki) -> Cluster,
        login: Login,
        wants: Wants,
        hears: Hears,
    ) {
        let listener = move |pki: &Pki, line: Line| -> Listening {
            let server = pki.broker().server(BOTH, None);
            let has_tls = client(pki).tls.is_some();
            Box::pin(async move {
                if has_tls {
                    line.broker(server, login).await;
                } else {
                    line.plain_broker(login).await;
                }
            })
        };
        let (name, listener) = (format!("SASL: {name}"), Rc::new(listener));
        self.0.push(Case { name, host: HOST, client, listener, wants, hears });
    }

    /// The offer is at fault: no login begins.
    fn offer(&mut self, name: &str, client: fn(&Pki) -> Cluster, login: Login, wants: Wants) {
        self.add(name, client, login, wants, Hears::Login(0));
    }

    /// The broker's first message is at fault: our proof is not sent.
    fn first(&mut self, name: &str, answers: fn(usize, &str) -> Says, says: &'static str) {
        let login = Login { answers, ..Login::default() };
        self.add(name, scram, login, Wants::Error(24, says), Hears::Login(1));
    }

    /// Its last is.
    fn last(
        &mut self,
        name: &str,
        answers: fn(usize, &str) -> Says,
        code: u16,
        says: &'static str,
    ) {
        let login = Login { answers, ..Login::default() };
        self.add(name, scram, login, Wants::Error(code, says), Hears::Login(2));
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut table = Table(Vec::new());
    offers(&mut table);
    firsts(&mut table);
    lasts(&mut table);
    passwords(&mut table);
    table.0
}

fn offers(table: &mut Table) {
    let offer = |code, names| Login { offer: (code, names), ..Login::default() };
    let raw = |bytes| Login { raw_offer: Some(bytes), ..Login::default() };
    let refused = Wants::Error(23, "is not enabled");
    table.offer("the mechanism is not known", scram, offer(33, &["GSSAPI"]), refused);
    table.offer("no mechanism at all", scram, offer(33, &[]), Wants::Error(23, "offers none"));
    // The password is not given to a listener that would rather have it whole.
    let names = Wants::Error(23, "the listener offers PLAIN");
    table.offer("from SCRAM down to PLAIN", scram, offer(33, &["PLAIN"]), names);
    table.offer(
        "PLAIN is asked for and not offered",
        plain,
        offer(33, &["SCRAM-SHA-512"]),
        refused,
    );
    table.offer("a listener without SASL", scram, offer(34, &[]), Wants::Error(23, "has no SASL"));
    table.offer("an error that does not exist", plain, offer(31_999, &[]), refused);
    table.offer("names with escape sequences", scram, offer(33, &["\u{1b}[2J\u{7}PLAIN"]), refused);
    let cannot = Wants::Error(26, "cannot be read");
    table.offer("two thousand million mechanisms", scram, raw(b"\0\0\x7f\xff\xff\xff"), cannot);
    table.offer("a count below zero", scram, raw(b"\0\0\xff\xff\xff\xf0"), cannot);
    table.offer("an answer of one byte", plain, raw(b"\0"), cannot);
    let early = Login { first: b"\0\0\0\x04abcd", ..Login::default() };
    let hears = Hears::Greeting;
    table.add("words before the first question", scram, early, Wants::Error(26, ""), hears);
}

fn firsts(table: &mut Table) {
    let count = "iterations, not between";
    table.first("no iterations", |_, m| Says::Message(first(m, "X", "c2FsdA==", "0")), count);
    table.first("one iteration", |_, m| Says::Message(first(m, "X", "c2FsdA==", "1")), count);
    table.first("4095 iterations", |_, m| Says::Message(first(m, "X", "c2FsdA==", "4095")), count);
    table.first(
        "100001 iterations",
        |_, m| Says::Message(first(m, "X", "c2FsdA==", "100001")),
        count,
    );
    table.first(
        "2^32-1 iterations",
        |_, m| Says::Message(first(m, "X", "c2FsdA==", "4294967295")),
        count,
    );
    let none = "that is no number";
    table.first(
        "2^32 iterations",
        |_, m| Says::Message(first(m, "X", "c2FsdA==", "4294967296")),
        none,
    );
    table.first(
        "a count below zero",
        |_, m| Says::Message(first(m, "X", "c2FsdA==", "-4096")),
        none,
    );
    table.first(
        "a count that is none",
        |_, m| Says::Message(first(m, "X", "c2FsdA==", "many")),
        none,
    );
    let nonce = "does not extend ours";
    table.first(
        "our nonce and nothing more",
        |_, m| Says::Message(first(m, "", "c2FsdA==", "4096")),
        nonce,
    );
    table.first(
        "a foreign nonce",
        |_, _| Says::Message(b"r=Zm9yZWlnbg,s=c2FsdA==,i=4096".to_vec()),
        nonce,
    );
    table.first(
        "a part of our nonce",
        |_, m| Says::Message(format!("r={},s=c2FsdA==,i=4096", &nonce_part(m)).into_bytes()),
        nonce,
    );
    table.first(
        "a salt that is no base64",
        |_, m| Says::Message(first(m, "X", "*salt*", "4096")),
        "not base64",
    );
    table.first(
        "an empty salt",
        |_, m| Says::Message(first(m, "X", "", "4096")),
        "a salt of 0 bytes",
    );
    table.first(
        "a salt of a thousand bytes",
        |_, m| Says::Message(first(m, "X", &"c2Fs".repeat(340), "4096")),
        "a salt of 1020 bytes",
    );
    table.first("nothing", |_, _| Says::Message(Vec::new()), "no nonce");
    table.first(
        "an extension that must be known",
        |_, m| Says::Message([b"m=x,".to_vec(), challenge(m)].concat()),
        "no nonce",
    );
    table.first("what is not text", |_, _| Says::Message(vec![0xff; 40]), "not UTF-8");
    table.first("5,000 bytes", |_, _| Says::Message(vec![b'r'; 5000]), "a message of 5000 bytes");
    table.first("success at once", |_, _| Says::Message(b"v=AAAA".to_vec()), "no nonce");
}

fn nonce_part(message: &str) -> String {
    nonce(message).chars().take(10).collect()
}

fn lasts(table: &mut Table) {
    fn then(turn: usize, message: &str, last: Says) -> Says {
        if turn == 0 { Says::Message(challenge(message)) } else { last }
    }
    let proof = "does not prove";
    let wrong = "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(wrong.len(), 46);
    table.last(
        "a wrong signature",
        |n, m| {
            then(n, m, Says::Message(b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_vec()))
        },
        24,
        proof,
    );
    table.last(
        "a short signature",
        |n, m| then(n, m, Says::Message(b"v=AAAA".to_vec())),
        24,
        proof,
    );
    table.last("no signature", |n, m| then(n, m, Says::Message(Vec::new())), 24, "no signature");
    table.last(
        "an error instead",
        |n, m| then(n, m, Says::Message(b"e=other-error".to_vec())),
        24,
        "an error",
    );
    table.last(
        "another challenge",
        |n, m| then(n, m, Says::Message(b"r=a,s=c2FsdA==,i=4096".to_vec())),
        24,
        "no signature",
    );
    table.last(
        "the wrong password",
        |n, m| then(n, m, Says::Error(58, format!("no, {PASSWORD}\u{1b}[2J\n"), Vec::new())),
        22,
        "SASL_AUTHENTICATION_FAILED",
    );
    table.last(
        "an error and a signature",
        |n, m| then(n, m, Says::Error(58, "no".to_owned(), b"v=AAAA".to_vec())),
        22,
        "SASL_AUTHENTICATION_FAILED",
    );
    table.last(
        "an error that does not exist",
        |n, m| then(n, m, Says::Error(31_999, String::new(), Vec::new())),
        22,
        "31999",
    );
    table.last(
        "the end",
        |n, m| then(n, m, Says::Close),
        22,
        "closed the connection during authentication",
    );
    table.last("silence", |n, m| then(n, m, Says::Silence), 16, "SASL");
    table.last(
        "a frame of 10 MB",
        |n, m| then(n, m, Says::Raw(vec![0, 0xa0, 0, 0])),
        26,
        "sent no answer",
    );
}

fn passwords(table: &mut Table) {
    let wants = Wants::Error(9, "clear text");
    table.add("PLAIN without TLS", plain_in_clear, Login::default(), wants, Hears::Nothing);
    table.add("PLAIN that is right", plain, Login::default(), Wants::Opens, Hears::Password);
    let wrong = Login {
        answers: |_, m| Says::Error(58, format!("unknown: {m}"), Vec::new()),
        ..Login::default()
    };
    let wants = Wants::Error(22, "SASL_AUTHENTICATION_FAILED");
    table.add("PLAIN with its message echoed", plain, wrong, wants, Hears::Password);
    let extra = Login { answers: |_, _| Says::Message(vec![b'x'; 5000]), ..Login::default() };
    let wants = Wants::Error(24, "a message of 5000 bytes");
    table.add("PLAIN with 5,000 bytes of success", plain, extra, wants, Hears::Password);
}
