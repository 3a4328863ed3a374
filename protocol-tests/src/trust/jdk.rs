//! The same with the JDK's own TLS, which is what Kafka's brokers speak.

use std::fs;
use std::path::Path;
use std::rc::Rc;

use rcgen::{DnType, date_time_ymd};
use strait::config::resolved::{self, Address, Cluster};
use strait::connection::{Connection, Security};
use strait::env::Env;
use strait::error::Side;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

use super::certificates::{Own, Pki};
use super::login::Login;
use super::run::{Log, judge};
use super::tls::{trusting, with_login};
use super::{Case, Heard, Hears, Listening, Wants};
use crate::process::Guarded;
use crate::wait::wait_for;

const HOST: &str = "localhost";
const V12: &str = "TLSv1.2";
const V13: &str = "TLSv1.3";

type Shows = fn(&Pki) -> Own;
type Dials = fn(&Pki) -> Cluster;

/// What the JDK is told, who dials it, and what must come of it.
pub struct Server {
    /// In words.
    pub name: String,
    own: Shows,
    protocols: &'static str,
    /// Its cipher suites; `-` for the JDK's own choice.
    suites: &'static str,
    wants_clients: bool,
    client: Dials,
    wants: Wants,
}

fn own(pki: &Pki) -> Own {
    pki.root.issue(&[HOST], |_| ())
}

fn server(name: &str, protocols: &'static str, own: Shows, wants: Wants) -> Server {
    let name = format!("jdk: {name}");
    Server { name, own, protocols, suites: "-", wants_clients: false, client: trusting, wants }
}

/// All of them.
pub fn servers() -> Vec<Server> {
    let mut all = Vec::new();
    for version in [V12, V13] {
        all.extend(shown(version));
        all.extend(clients(version));
    }
    let none = Wants::Error(21, "no common TLS version or cipher");
    all.push(server("TLS 1.0 alone", "TLSv1", own, none));
    all.push(server("TLS 1.1 alone", "TLSv1.1", own, none));
    for (name, suites, own) in [
        ("RSA key exchange alone", "TLS_RSA_WITH_AES_128_GCM_SHA256", Pki::rsa_broker as Shows),
        (
            "finite-field Diffie-Hellman alone",
            "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256",
            Pki::rsa_broker,
        ),
        ("CBC suites alone", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", own),
        ("nobody's suite: anonymous", "TLS_ECDH_anon_WITH_AES_128_CBC_SHA", own),
    ] {
        all.push(Server { suites, ..server(name, V12, own, none) });
    }
    fn strict(pki: &Pki) -> Cluster {
        with_login(resolved::Tls { tls13_only: true, ..pki.tls() })
    }
    let wants = Wants::Error(21, "no common TLS version");
    all.push(Server { client: strict, ..server("1.2 where 1.3 is wanted", V12, own, wants) });
    all
}

/// Certificates, good and bad.
fn shown(version: &'static str) -> Vec<Server> {
    let foreign = Wants::Error(17, "signed by a CA that is not trusted here");
    let expired = Wants::Error(19, "has expired");
    let early = Wants::Error(19, "not valid yet");
    let name = Wants::Error(18, "its certificate is not for");
    let rows: [(&str, Shows, Wants); 10] = [
        ("what it should", own, Wants::Opens),
        (
            "an intermediate",
            |pki| pki.root.below("between", |_| ()).issue(&[HOST], |_| ()),
            Wants::Opens,
        ),
        (
            "no intermediate",
            |pki| pki.root.below("between", |_| ()).issue(&[HOST], |_| ()).unchained(),
            foreign,
        ),
        ("another authority's certificate", |pki| pki.stranger.issue(&[HOST], |_| ()), foreign),
        ("a certificate that signs itself", |_| Own::alone(&[HOST]), Wants::Error(17, "")),
        (
            "an expired certificate",
            |pki| pki.root.issue(&[HOST], |p| p.not_after = date_time_ymd(2020, 1, 1)),
            expired,
        ),
        (
            "a certificate of the future",
            |pki| pki.root.issue(&[HOST], |p| p.not_before = date_time_ymd(3000, 1, 1)),
            early,
        ),
        (
            "an authority that has expired",
            |pki| {
                let old = pki.root.below("old", |p| p.not_after = date_time_ymd(2020, 1, 1));
                old.issue(&[HOST], |_| ())
            },
            expired,
        ),
        (
            "a certificate for another host",
            |pki| pki.root.issue(&["kafka-2.example"], |_| ()),
            name,
        ),
        (
            "a common name alone",
            |pki| pki.root.issue(&[], |p| p.distinguished_name.push(DnType::CommonName, HOST)),
            Wants::Error(18, "a common name alone does not count"),
        ),
    ];
    let row = |(what, own, wants): (&str, _, _)| {
        server(&format!("{what}, {version}"), version, own, wants)
    };
    rows.into_iter().map(row).collect()
}

/// Listeners that want client certificates.
fn clients(version: &'static str) -> Vec<Server> {
    let refused = Wants::Error(20, "refused our client certificate");
    let rows: [(&str, Dials, Wants); 4] = [
        ("a client that it knows", |pki| with_login(pki.tls_as("own")), Wants::Opens),
        (
            "a client without a certificate",
            trusting,
            Wants::Error(20, "wants a client certificate"),
        ),
        ("a client of another authority", |pki| with_login(pki.tls_as("foreign")), refused),
        (
            "a client whose certificate has expired",
            |pki| with_login(pki.tls_as("expired")),
            refused,
        ),
    ];
    let row = |(what, client, wants): (&str, _, _)| Server {
        client,
        wants_clients: true,
        ..server(&format!("{what}, {version}"), version, own, wants)
    };
    rows.into_iter().map(row).collect()
}

/// Starts all of them in one JVM and dials each on both sides. What must not be, in words.
pub fn play(servers: &[Server], pki: &Pki) -> Vec<String> {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let behind: Vec<TcpListener> = servers
        .iter()
        .map(|_| runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap())
        .collect();
    let line = |(index, server): (usize, &Server)| {
        let at = folder.path().join(index.to_string());
        place(server, pki, &at);
        let port = behind[index].local_addr().unwrap().port();
        format!("{}\t{}\t{}\t{port}\n", at.display(), server.protocols, server.suites)
    };
    let list = folder.path().join("listeners");
    fs::write(&list, servers.iter().enumerate().map(line).collect::<String>()).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("java/TlsListeners.java");
    let command = ["java", "-XX:TieredStopAtLevel=1", "-Xmx128m"].map(String::from);
    let named = [source, list].map(|path| path.display().to_string());
    let output = folder.path().join("output");
    let _running = Guarded::start(&[&command[..], &named].concat(), &output, &[]);
    let ports: Vec<u16> = wait_for("the JDK's listeners", 60, || {
        let said = fs::read_to_string(&output).unwrap_or_default();
        let ports: Vec<u16> = said.lines().map_while(|line| line.parse().ok()).collect();
        if said.ends_with("ready\n") { Ok(ports) } else { Err(said) }
    });
    let mut wrong = Vec::new();
    for ((server, port), behind) in servers.iter().zip(ports).zip(&behind) {
        for side in [Side::Source, Side::Target] {
            let told = dial(server, side, pki, port, behind, &runtime);
            wrong.extend(told.iter().map(|told| format!("{}, {side:?}: {told}", server.name)));
        }
    }
    wrong
}

/// Its files, as `TlsListeners.java` reads them.
fn place(server: &Server, pki: &Pki, at: &Path) {
    let own = (server.own)(pki);
    fs::create_dir(at).unwrap();
    fs::write(at.join("chain"), own.chain.iter().flat_map(|one| one.to_vec()).collect::<Vec<u8>>())
        .unwrap();
    fs::write(at.join("key"), own.key.secret_der()).unwrap();
    if server.wants_clients {
        fs::write(at.join("clients"), pki.root.pem()).unwrap();
    }
}

fn dial(
    server: &Server,
    side: Side,
    pki: &Pki,
    port: u16,
    behind: &TcpListener,
    runtime: &Runtime,
) -> Vec<String> {
    let case = Case {
        name: server.name.clone(),
        host: HOST,
        client: server.client,
        listener: Rc::new(|_, _| -> Listening { Box::pin(async {}) }),
        wants: server.wants,
        hears: match server.wants {
            Wants::Opens => Hears::Password,
            Wants::Error(..) => Hears::Nothing,
        },
    };
    let (log, heard) = (Log::default(), Heard::default());
    let _telling = log.of_this_thread();
    let opening = async {
        let address = Address { host: HOST.to_owned(), port };
        let security = Security::load(&(case.client)(pki))?;
        let connection = Connection::open(&Env::real(), &address, &security, side).await?;
        // By 1.3 a client is refused behind its handshake.
        match connection.closed() {
            Some(error) => Err((*error).clone()),
            None => Ok(()),
        }
    };
    let listening = async {
        loop {
            let Ok((stream, _)) = behind.accept().await else { return };
            Login::default().serve(stream, &heard).await;
        }
    };
    let opened = LocalSet::new().block_on(runtime, async {
        tokio::select! {
            opened = opening => opened,
            () = listening => unreachable!("it listens until the end"),
        }
    });
    judge(&case, side, &opened, &heard, &log.text(), &pki.secrets())
}
