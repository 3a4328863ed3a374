//! The same with `openssl s_server`: versions, suites, keys and digests that no library of ours makes any more.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use strait::config::resolved::Address;
use strait::connection::{Connection, Security};
use strait::env::Env;
use strait::error::Side;

use super::run::{Log, judge};
use super::{Case, Heard, Hears, Listening, Pki, Wants};
use crate::ports;
use crate::process::Guarded;
use crate::wait::wait_for;

/// What `openssl` is told beside port and certificate, and what must come of it.
pub struct Server {
    /// In words.
    pub name: &'static str,
    /// Of its key, for `openssl genpkey`.
    pub key: &'static [&'static str],
    /// The digest that its certificate is signed with.
    pub digest: &'static str,
    /// For `s_server`.
    pub arguments: &'static [&'static str],
    /// What must come of it.
    pub wants: Wants,
}

const EC: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
const RSA_1024: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"];
const OLD: &str = "ALL:@SECLEVEL=0";

/// All of them.
pub fn servers() -> Vec<Server> {
    let none = Wants::Error(21, "no common TLS version or cipher");
    let server =
        |name, key, digest, arguments, wants| Server { name, key, digest, arguments, wants };
    vec![
        server("TLS 1.0 alone", RSA, "sha256", &["-tls1", "-cipher", OLD], none),
        server("TLS 1.1 alone", RSA, "sha256", &["-tls1_1", "-cipher", OLD], none),
        server(
            "RSA key exchange alone",
            RSA,
            "sha256",
            &["-tls1_2", "-cipher", "AES128-GCM-SHA256"],
            none,
        ),
        server(
            "finite-field Diffie-Hellman alone",
            RSA,
            "sha256",
            &["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"],
            none,
        ),
        server(
            "CBC suites alone",
            EC,
            "sha256",
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"],
            none,
        ),
        server(
            "nobody's suite: anonymous",
            RSA,
            "sha256",
            &["-tls1_2", "-cipher", "ADH-AES128-SHA256:@SECLEVEL=0"],
            none,
        ),
        server(
            "an RSA key of 1024 bits, 1.2",
            RSA_1024,
            "sha256",
            &["-tls1_2", "-cipher", "ALL:@SECLEVEL=0"],
            Wants::Error(17, ""),
        ),
        server(
            "an RSA key of 1024 bits, 1.3",
            RSA_1024,
            "sha256",
            &["-tls1_3", "-cipher", "ALL:@SECLEVEL=0"],
            Wants::Error(17, ""),
        ),
        server(
            "a certificate signed with SHA-1",
            EC,
            "sha1",
            &["-cipher", OLD],
            Wants::Error(17, ""),
        ),
        server(
            "a client certificate is asked for",
            EC,
            "sha256",
            &["-tls1_2", "-Verify", "2", "-verify_return_error"],
            Wants::Error(21, "if it wants a client certificate, set `tls.cert`"),
        ),
    ]
}

fn openssl(arguments: &[&str], folder: &Path) {
    let output =
        Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Starts one and dials it on both sides. What must not be, in words.
pub fn play(server: &Server, pki: &Pki) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("ca.pem"), pki.root.pem()).unwrap();
    fs::write(at.join("ca.key"), pki.root.key_pem()).unwrap();
    fs::write(at.join("names"), "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n")
        .unwrap();
    openssl(&[&["genpkey", "-out", "key.pem"], server.key].concat(), at);
    openssl(
        &["req", "-new", "-key", "key.pem", "-subj", "/CN=localhost", "-out", "request.pem"],
        at,
    );
    let digest = format!("-{}", server.digest);
    openssl(
        &[
            "x509",
            "-req",
            "-in",
            "request.pem",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-set_serial",
            "7",
            "-days",
            "2",
            &digest,
            "-extfile",
            "names",
            "-out",
            "cert.pem",
        ],
        at,
    );
    let port = ports::free();
    let mut command: Vec<String> =
        ["openssl", "s_server", "-quiet", "-accept"].map(String::from).into();
    command.push(format!("127.0.0.1:{port}"));
    for (flag, file) in [("-cert", "cert.pem"), ("-key", "key.pem"), ("-CAfile", "ca.pem")] {
        command.extend([flag.to_owned(), at.join(file).display().to_string()]);
    }
    command.extend(server.arguments.iter().map(ToString::to_string));
    let output = at.join("output");
    let _running = Guarded::start(&command, &output, &[]);
    wait_for("openssl s_server", 20, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|error| {
            format!("{error}; {}", fs::read_to_string(&output).unwrap_or_default())
        })
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let case = Case {
        name: format!("openssl: {}", server.name),
        host: "localhost",
        client: super::tls::trusting,
        listener: Rc::new(|_, _| -> Listening { Box::pin(async {}) }),
        wants: server.wants,
        hears: Hears::Nothing,
    };
    let mut wrong = Vec::new();
    for side in [Side::Source, Side::Target] {
        let log = Log::default();
        let _telling = log.of_this_thread();
        let address = Address { host: "localhost".to_owned(), port };
        let opening = async {
            let security = Security::load(&(case.client)(pki))?;
            Connection::open(&Env::real(), &address, &security, side).await.map(drop)
        };
        let opened = tokio::task::LocalSet::new().block_on(&runtime, opening);
        wrong.extend(judge(&case, side, &opened, &Heard::default(), &log.text(), &pki.secrets()));
    }
    // With `-quiet` it writes what it hears; a request of ours names its client.
    let said = fs::read_to_string(&output).unwrap_or_default();
    if said.contains("strait") {
        wrong.push(format!("it heard a request: {said:?}"));
    }
    wrong
}
