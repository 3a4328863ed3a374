//! TLS that is not spoken as it should be, by the listener or by somebody in between; and the table of all its cases.

use std::rc::Rc;

use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use strait::config::resolved::{self, Cluster, Sasl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::certificates::{HOST, Own, Pki};
use super::identity;
use super::login::Login;
use super::peer::Line;
use super::{Case, Hears, Listening, Wants};

pub(super) type Versions = &'static [&'static SupportedProtocolVersion];

pub(super) const BOTH: Versions = &[&TLS13, &TLS12];
pub(super) const V12: Versions = &[&TLS12];
pub(super) const V13: Versions = &[&TLS13];

pub(super) fn cluster(tls: Option<resolved::Tls>, sasl: Option<Sasl>) -> Cluster {
    let (name, bootstrap) = ("west".to_owned(), Vec::new());
    Cluster { name, bootstrap, tls, sasl, advertised: Default::default() }
}

/// With the credentials of a login, which must wait for trust.
pub(super) fn trusting(pki: &Pki) -> Cluster {
    with_login(pki.tls())
}

pub(super) fn with_login(tls: resolved::Tls) -> Cluster {
    let (username, password) = ("strait".to_owned(), resolved::Secret::new(super::PASSWORD));
    cluster(Some(tls), Some(Sasl::Plain { username, password, allow_plaintext: false }))
}

pub(super) struct Table(pub(super) Vec<Case>);

impl Table {
    fn add(
        &mut self,
        name: &str,
        client: fn(&Pki) -> Cluster,
        listener: impl Fn(&Pki, Line) -> Listening + 'static,
        wants: Wants,
    ) {
        let hears = match wants {
            Wants::Opens => Hears::Password,
            Wants::Error(..) => Hears::Nothing,
        };
        let (name, listener) = (format!("TLS: {name}"), Rc::new(listener));
        self.0.push(Case { name, host: HOST, client, listener, wants, hears });
    }

    /// A listener that shows this, whichever version is spoken.
    pub(super) fn shows(&mut self, name: &str, own: fn(&Pki) -> Own, wants: Wants) {
        for (version, versions) in [("1.2", V12), ("1.3", V13)] {
            let name = format!("{name}, {version}");
            self.serves(&name, trusting, move |pki| own(pki).server(versions, None), wants);
        }
    }

    /// A listener with these settings.
    pub(super) fn serves(
        &mut self,
        name: &str,
        client: fn(&Pki) -> Cluster,
        server: impl Fn(&Pki) -> ServerConfig + 'static,
        wants: Wants,
    ) {
        let listener = move |pki: &Pki, line: Line| -> Listening {
            Box::pin(line.broker(server(pki), Login::default()))
        };
        self.add(name, client, listener, wants);
    }

    /// A listener that answers the hello with these bytes, and then hears the client out.
    fn says(&mut self, name: &str, bytes: Vec<u8>, wants: Wants) {
        let listener = move |_: &Pki, line: Line| -> Listening {
            let bytes = bytes.clone();
            Box::pin(async move { line.says(&bytes).await })
        };
        self.add(name, trusting, listener, wants);
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut table = Table(Vec::new());
    identity::add_to(&mut table);
    streams(&mut table);
    edited(&mut table);
    table.0
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3][..], &(body.len() as u16).to_be_bytes(), body].concat()
}

fn streams(table: &mut Table) {
    let not_tls = Wants::Error(13, "something that is not TLS");
    let failed = Wants::Error(21, "");
    table.says("the answer of a web server", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), not_tls);
    table.says("the greeting of SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), not_tls);
    table.says(
        "a Kafka answer in clear",
        b"\0\0\0\x10\0\0\0\0\0\0\0\0\0\x01\0\x12\0\0\0\x04".to_vec(),
        not_tls,
    );
    table.says("SSL 2", vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10, 1, 0, 0x80], not_tls);
    table.says("a record of SSL 3 longer than any", vec![22, 3, 0, 0xff, 0xff, 2, 0, 0, 0], failed);
    let mut large = vec![2, 0xa0, 0, 0];
    large.resize(16_000, 0);
    table.says("a hello of 10 MB", record(22, &large), failed);
    table.says(
        "an alert: handshake failure",
        record(21, &[2, 40]),
        Wants::Error(21, "no common TLS version"),
    );
    table.says(
        "an alert: protocol version",
        record(21, &[2, 70]),
        Wants::Error(21, "no common TLS version"),
    );
    table.says(
        "an alert: unrecognised name",
        record(21, &[2, 112]),
        Wants::Error(18, "does not know the server name"),
    );
    table.says("an alert: internal error", record(21, &[2, 80]), failed);
    table.says("a thousand warnings", record(21, &[1, 90]).repeat(1000), failed);
    table.says("four thousand empty records", record(22, &[]).repeat(4000), failed);
    table.says("data before a hello", record(23, b"\0\0\0\x04abcd"), failed);
    table.says("a change of cipher before a hello", record(20, &[1]).repeat(40), failed);
    table.says("a request for a hello", record(22, &[0, 0, 0, 0]), failed);
    table.says("noise", (0..2000_u32).map(|n| ((n * 37) >> 1) as u8 | 0x80).collect(), not_tls);
    let closes = |_: &Pki, mut line: Line| -> Listening {
        Box::pin(async move {
            let _ = line.read_u8().await;
        })
    };
    table.add("the end at the hello", trusting, closes, Wants::Error(13, "at the TLS hello"));
    let silent = |_: &Pki, mut line: Line| -> Listening {
        Box::pin(async move {
            let _ = line.read_to_end(&mut Vec::new()).await;
        })
    };
    table.add("silence", trusting, silent, Wants::Error(16, "TLS handshake"));
    let drips = |_: &Pki, mut line: Line| -> Listening {
        Box::pin(async move {
            for byte in record(22, &[2; 1000]) {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                if line.write_u8(byte).await.is_err() {
                    return;
                }
            }
        })
    };
    table.add("a byte each 100 ms", trusting, drips, Wants::Error(16, "TLS handshake"));
}

/// What a man in the middle makes of one direction: the bytes so far, and what of them goes on.
type Edit = fn(&mut Vec<u8>);

/// A right listener behind somebody who edits the first flight of either side.
async fn between(line: Line, server: ServerConfig, hello: Edit, answer: Edit) {
    let (ours, theirs) = tokio::io::duplex(256 << 10);
    let heard = line.heard.clone();
    let broker = Line::new(theirs, heard).broker(server, Login::default());
    let relay = async move {
        let ((mut from, mut to), (mut back, mut on)) =
            (tokio::io::split(line), tokio::io::split(ours));
        let upwards = async {
            carry(&mut from, &mut on, hello).await;
            let _ = on.shutdown().await;
        };
        let downwards = async {
            carry(&mut back, &mut to, answer).await;
            let _ = to.shutdown().await;
        };
        tokio::join!(upwards, downwards)
    };
    tokio::join!(broker, relay);
}

async fn carry(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    edit: Edit,
) {
    let mut is_first = true;
    loop {
        let mut bytes = vec![0; 64 << 10];
        let Ok(len @ 1..) = from.read(&mut bytes).await else { return };
        bytes.truncate(len);
        if std::mem::take(&mut is_first) {
            edit(&mut bytes);
        }
        if bytes.is_empty() || to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// `supported_versions` of a hello without 1.3.
#[allow(clippy::ptr_arg, reason = "an `Edit` like the others")]
fn without_13(hello: &mut Vec<u8>) {
    let wanted = [0, 0x2b, 0, 5, 4, 3, 4, 3, 3];
    if let Some(at) = hello.windows(wanted.len()).position(|window| window == wanted) {
        hello[at + 6] = 3;
    }
}

fn leave(_: &mut Vec<u8>) {}

fn edited(table: &mut Table) {
    let mut add = |name: &str, versions: Versions, hello: Edit, answer: Edit, wants| {
        let listener = move |pki: &Pki, line: Line| -> Listening {
            Box::pin(between(line, pki.broker().server(versions, None), hello, answer))
        };
        table.add(name, trusting, listener, wants);
    };
    let failed = Wants::Error(21, "");
    add("nobody in between", BOTH, leave, leave, Wants::Opens);
    add("1.3 taken out of our hello", BOTH, without_13, leave, failed);
    add(
        "another random in the answer, 1.2",
        V12,
        leave,
        |a| a[20] ^= 1,
        Wants::Error(17, "BadSignature"),
    );
    add("another random in the answer, 1.3", V13, leave, |a| a[20] ^= 1, failed);
    add(
        "a suite that was not offered",
        V12,
        leave,
        |a| {
            // Behind the session id: TLS_RSA_WITH_AES_128_CBC_SHA.
            let at = 44 + usize::from(a[43]);
            a[at..at + 2].copy_from_slice(&[0, 0x2f]);
        },
        failed,
    );
    add(
        "compression",
        V12,
        leave,
        |a| {
            let at = 46 + usize::from(a[43]);
            a[at] = 1;
        },
        failed,
    );
    add("1.1 in the answer", V12, leave, |a| a[10] = 2, failed);
    add(
        "a bit of the certificate",
        V12,
        leave,
        |a| {
            let at = a.len() / 2;
            a[at] ^= 0x10;
        },
        Wants::Error(17, "BadSignature"),
    );
    add(
        "a bit of what is encrypted",
        V13,
        leave,
        |a| {
            let at = a.len() - 100;
            a[at] ^= 0x10;
        },
        failed,
    );
    for (name, version) in
        [("the answer cut in half, 1.2", V12), ("the answer cut in half, 1.3", V13)]
    {
        add(name, version, leave, |a| a.truncate(a.len() / 2), Wants::Error(16, "TLS handshake"));
    }
    add("nothing of the answer", BOTH, leave, Vec::clear, Wants::Error(13, "at the TLS hello"));
}
