//! The floor: bytes from a plain TCP socket into rustls, no Kafka. What a replicator cannot go below without fewer copies.
//!
//! The pump is a process of its own, so that its CPU is its own. Source and sink are threads here: the source writes one
//! hot buffer again and again, or the log segments that the contestants read (`sendfile`, as a broker does); the sink
//! decrypts and drops.

use std::fs::File;
use std::io::{Read, Write, copy};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use protocol_tests::certs::Authority;
use protocol_tests::process::{Guarded, usage};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection, StreamOwned};

use crate::measure::Measured;

/// What the pump reads and encrypts at a time.
const BLOCK: usize = 1 << 20;

/// What the source sends.
#[derive(Clone, Debug)]
pub enum Feed {
    /// One block from memory, so many bytes of it in all.
    Hot(u64),
    /// These files.
    Segments(Vec<PathBuf>),
}

/// Runs the pump once over `feed`, which stands for `value_bytes` of records.
pub fn run(feed: &Feed, value_bytes: u64) -> Result<Measured, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let authority = Authority::new("floor");
    let listen = || TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string());
    let (source, sink) = (listen()?, listen()?);
    let address = |listener: &TcpListener| listener.local_addr().map_err(|error| error.to_string());
    let (from, to) = (address(&source)?, address(&sink)?);
    let config = authority.server(&["localhost"]).server_config();
    let (sent, done) = channel();
    let feed = feed.clone();
    std::thread::spawn(move || serve(&source, &feed));
    std::thread::spawn(move || {
        let mut connection = ServerConnection::new(config).ok()?;
        let mut socket = sink.accept().ok()?.0;
        sent.send(drain(&mut connection, &mut socket)).ok()
    });
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let ca = authority.ca().display().to_string();
    let command = [own.display().to_string(), "pump".into(), from.to_string(), to.to_string(), ca];
    let started = Instant::now();
    let process = Guarded::start(&command, &folder.path().join("log"), &[]);
    wait(&done)?;
    let whole = started.elapsed();
    // The pump sleeps after its last byte until it is killed, so that its account can be read.
    let used = usage(process.pid);
    Ok(Measured {
        megabytes: value_bytes as f64 / 1e6,
        first_s: 0.0,
        whole_s: whole.as_secs_f64(),
        cpu_s: used.cpu.as_secs_f64(),
        warm_cpu_s: used.cpu.as_secs_f64(),
        warm_from: 0.0,
        half_s: 0.0,
        half_cpu_s: 0.0,
        half_from: 0.0,
        rss_mb: used.rss_peak_bytes as f64 / 1e6,
    })
}

fn wait(done: &Receiver<Result<(), String>>) -> Result<(), String> {
    done.recv().map_err(|_| "the pump's connection failed".to_owned())?
}

fn serve(listener: &TcpListener, feed: &Feed) -> Option<()> {
    let mut socket = listener.accept().ok()?.0;
    match feed {
        Feed::Hot(bytes) => {
            let block = vec![b'x'; BLOCK];
            let mut left = *bytes;
            while left > 0 {
                let part = left.min(BLOCK as u64);
                socket.write_all(&block[..usize::try_from(part).ok()?]).ok()?;
                left -= part;
            }
        }
        Feed::Segments(files) => {
            for file in files {
                copy(&mut File::open(file).ok()?, &mut socket).ok()?;
            }
        }
    }
    Some(())
}

/// Decrypts everything and drops it, until the pump says that it is done.
fn drain(connection: &mut ServerConnection, socket: &mut TcpStream) -> Result<(), String> {
    let mut block = vec![0; BLOCK];
    loop {
        if connection.read_tls(socket).map_err(|error| error.to_string())? == 0 {
            return Err("the pump closed without a word".to_owned());
        }
        let state = connection.process_new_packets().map_err(|error| error.to_string())?;
        while connection.wants_write() {
            connection.write_tls(socket).map_err(|error| error.to_string())?;
        }
        let mut left = state.plaintext_bytes_to_read();
        while left > 0 {
            left -= connection.reader().read(&mut block).map_err(|error| error.to_string())?;
        }
        if state.peer_has_closed() {
            return Ok(());
        }
    }
}

/// The pump's own process: reads plain, writes TLS, and sleeps when it is done.
pub fn pump(from: SocketAddr, to: SocketAddr, ca: &Path) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(ca).map_err(|error| text(&error))?;
    roots.add(ca).map_err(|error| text(&error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| text(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").map_err(|error| text(&error))?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(|e| text(&e))?;
    connection.set_buffer_limit(Some(BLOCK + (BLOCK >> 4)));
    let mut source = TcpStream::connect(from).map_err(|error| text(&error))?;
    let sink = TcpStream::connect(to).map_err(|error| text(&error))?;
    sink.set_nodelay(true).map_err(|error| text(&error))?;
    let mut tls = StreamOwned::new(connection, sink);
    let mut block = vec![0; BLOCK];
    loop {
        let mut filled = 0;
        while filled < BLOCK {
            match source.read(&mut block[filled..]).map_err(|error| text(&error))? {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            break;
        }
        tls.write_all(&block[..filled]).map_err(|error| text(&error))?;
        tls.flush().map_err(|error| text(&error))?;
    }
    tls.conn.send_close_notify();
    tls.flush().map_err(|error| text(&error))?;
    loop {
        std::thread::park();
    }
}
