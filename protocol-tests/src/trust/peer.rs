//! The listener's end of a connection, and everything that it hears, before TLS and behind it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::login::Login;

/// What a listener has heard.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Bytes>>);

#[derive(Default)]
struct Bytes {
    wire: Vec<u8>,
    plain: Vec<u8>,
    name: Option<Option<String>>,
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether these bytes were among what came, encrypted or not.
    pub fn holds(&self, what: &[u8]) -> bool {
        let bytes = self.lock();
        let holds = |all: &[u8]| all.windows(what.len()).any(|window| window == what);
        holds(&bytes.wire) || holds(&bytes.plain)
    }

    /// Bytes behind TLS, or of a listener without it.
    pub fn plain(&self) -> Vec<u8> {
        self.lock().plain.clone()
    }

    /// Bytes on the wire.
    pub fn wire(&self) -> Vec<u8> {
        self.lock().wire.clone()
    }

    /// The API of each whole request.
    pub fn apis(&self) -> Vec<i16> {
        let plain = self.plain();
        let (mut rest, mut apis) = (&plain[..], Vec::new());
        while let Some((size, after)) = rest.split_first_chunk() {
            let size = i32::from_be_bytes(*size) as usize;
            let Some((frame, after)) = after.split_at_checked(size) else { break };
            apis.push(i16::from_be_bytes([frame[0], frame[1]]));
            rest = after;
        }
        apis
    }

    /// Takes down plaintext that another listener heard.
    pub fn add_plain(&self, bytes: &[u8]) {
        self.lock().plain.extend_from_slice(bytes);
    }

    /// The server name that was asked for; none where no hello was read.
    pub fn name(&self) -> Option<Option<String>> {
        self.lock().name.clone()
    }
}

/// A connection, listened in on.
pub struct Line {
    stream: DuplexStream,
    /// What comes over it.
    pub heard: Heard,
}

impl Line {
    /// The listener's end.
    pub fn new(stream: DuplexStream, heard: Heard) -> Self {
        Self { stream, heard }
    }

    /// TLS, if the client goes along.
    pub async fn tls(self, config: ServerConfig) -> Option<TlsStream<Self>> {
        let heard = self.heard.clone();
        let stream = TlsAcceptor::from(Arc::new(config)).accept(self).await.ok()?;
        let name = stream.get_ref().1.server_name().map(str::to_owned);
        heard.lock().name = Some(name);
        Some(stream)
    }

    /// A broker over TLS, until the client leaves.
    pub async fn broker(self, config: ServerConfig, login: Login) {
        let heard = self.heard.clone();
        if let Some(stream) = self.tls(config).await {
            login.serve(stream, &heard).await;
        }
    }

    /// One without TLS.
    pub async fn plain_broker(self, login: Login) {
        let heard = self.heard.clone();
        login.serve(self, &heard).await;
    }

    /// Reads the client's first flight, says this, and hears the client out.
    pub async fn says(mut self, bytes: &[u8]) {
        let mut hello = vec![0; 4096];
        let _ = self.read(&mut hello).await;
        if self.write_all(bytes).await.is_ok() {
            let _ = self.read_to_end(&mut hello).await;
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.heard.lock().wire.extend_from_slice(&buffer.filled()[before..]);
        read
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
