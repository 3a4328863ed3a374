//! One run of a case: a connection is opened, on a clock that stands still while anything moves, and what became of it is
//! held against the case.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use strait::config::resolved::Address;
use strait::connection::{Connection, Security};
use strait::env::{BoxFuture, Env, Listener, Stream, World};
use strait::error::{Error, Side};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::peer::Line;
use super::{Case, Heard, Hears, Pki, Wants};

/// Password and token of the client. It must never be seen, but for PLAIN behind a trusted certificate.
pub const PASSWORD: &str = "canary-7f3a-Passw0rd";
/// Bytes that the pipe holds each way.
const PIPE_BYTES: usize = 64 << 10;

/// A network of one listener.
struct Pipes(mpsc::UnboundedSender<DuplexStream>);

impl World for Pipes {
    fn resolve<'a>(&'a self, _: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))]) })
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async {
            let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
            self.0.send(theirs).map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(ours) as Box<dyn Stream>)
        })
    }

    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn wall_clock_ms(&self) -> i64 {
        Env::real().wall_clock_ms()
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        Env::real().world().fill_random(buffer);
    }
}

/// All of the log, of this thread.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub(super) fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What is logged on this thread goes here, to the last detail.
    pub(super) fn of_this_thread(&self) -> tracing::subscriber::DefaultGuard {
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }
}

/// Plays a case on a side. What must not be, in words; nothing if all is well.
pub fn play(case: &Case, side: Side, pki: &Pki) -> Vec<String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let (log, heard) = (Log::default(), Heard::default());
    let _telling = log.of_this_thread();
    let opening = open(case, side, pki, heard.clone());
    let opened = tokio::task::LocalSet::new().block_on(&runtime, opening);
    judge(case, side, &opened, &heard, &log.text(), &pki.secrets())
}

async fn open(case: &Case, side: Side, pki: &Pki, heard: Heard) -> Result<(), Error> {
    let (sender, mut accepted) = mpsc::unbounded_channel();
    let env = Env::of(Arc::new(Pipes(sender)));
    let address = Address { host: case.host.to_owned(), port: 9093 };
    let security = Security::load(&(case.client)(pki))?;
    let opening = Connection::open(&env, &address, &security, side);
    let listening = async {
        let stream = accepted.recv().await?;
        tokio::task::spawn_local((case.listener)(pki, Line::new(stream, heard)));
        Some(())
    };
    let (opened, _) = tokio::join!(opening, async {
        // What is refused before it is dialled never comes.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(60), listening).await;
    });
    let connection = opened?;
    // What the listener says beside it is to be heard too.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    match connection.closed() {
        Some(error) => Err((*error).clone()),
        None => Ok(()),
    }
}

pub(super) fn judge(
    case: &Case,
    side: Side,
    opened: &Result<(), Error>,
    heard: &Heard,
    log: &str,
    keys: &[String],
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut told = String::new();
    match (opened, case.wants) {
        (Ok(()), Wants::Opens) => {}
        (Ok(()), Wants::Error(..)) => wrong.push("it was connected".to_owned()),
        (Err(error), Wants::Opens) => wrong.push(format!("not connected: {error}")),
        (Err(error), Wants::Error(code, says)) => {
            told = format!("{error} {error:?}");
            if error.code.0 != code || !error.to_string().contains(says) {
                wrong.push(format!("not ST-{code:03} {says:?}: {error}"));
            }
            let is_local = error.side == Side::Local;
            let broker = error.place.broker.as_deref().unwrap_or_default();
            if !is_local && (error.side != side || !broker.contains(case.host)) {
                wrong.push(format!("another place: {error:?}"));
            }
            if error.place.cluster.as_deref() != Some("west") || error.message.len() > 1500 {
                wrong.push(format!("no cluster, or no end: {error:?}"));
            }
            if told.chars().any(|c| c.is_control()) {
                wrong.push(format!("control characters: {error:?}"));
            }
        }
    }
    let apis = heard.apis();
    let logins = apis.iter().filter(|api| **api == 36).count();
    let (apis_max, logins_max): (&[i16], usize) = match case.hears {
        Hears::Nothing => (&[], 0),
        Hears::Greeting => (&[18], 0),
        Hears::Login(messages) => (&[18, 17, 36], messages),
        Hears::Password => (&[18, 17, 36], 1),
    };
    let is_more = matches!(case.hears, Hears::Nothing) && !heard.plain().is_empty();
    if is_more || logins > logins_max || apis.iter().any(|api| !apis_max.contains(api)) {
        wrong.push(format!("the listener heard {apis:?}, {} bytes", heard.plain().len()));
    }
    let secrets = keys.iter().map(String::as_str).chain([PASSWORD]);
    for secret in secrets {
        let is_meant = secret == PASSWORD && matches!(case.hears, Hears::Password);
        if !is_meant && heard.holds(secret.as_bytes()) {
            wrong.push("the listener heard a secret".to_owned());
        }
        if told.contains(secret) || log.contains(secret) {
            wrong.push("a secret is told".to_owned());
        }
    }
    wrong
}
