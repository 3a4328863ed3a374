//! The byte stream below the protocol: plain or TLS. Owns nothing but the stream; a cheaper TLS reader is one variant more.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::ProtocolVersion;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use super::security::validity::Validity;
use crate::env::Stream;

/// One socket.
pub(super) enum Transport {
    Plain(Box<dyn Stream>),
    Tls(Box<TlsStream<Box<dyn Stream>>>),
}

impl Transport {
    /// As OpenSSL writes it.
    pub(super) fn tls_version(&self) -> Option<&'static str> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => match stream.get_ref().1.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => Some("TLSv1.2"),
                _ => Some("TLSv1.3"),
            },
        }
    }

    /// Until when the certificates are valid that the peer showed: the first of them to end.
    pub(super) fn peer_expiry(&self) -> Option<i64> {
        let Self::Tls(stream) = self else { return None };
        let shown = stream.get_ref().1.peer_certificates()?;
        shown.iter().filter_map(|der| Validity::of(der)).map(|validity| validity.not_after).min()
    }

    /// By its IANA name.
    pub(super) fn tls_suite(&self) -> Option<&'static str> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => {
                stream.get_ref().1.negotiated_cipher_suite().and_then(|s| s.suite().as_str())
            }
        }
    }
}

/// Copies of up to this stay out of `rep movsb`, which on common CPUs with common C libraries falls to a tenth of the
/// speed when the destination is not aligned; a frame's rarely is.
const COPY_BYTES: usize = 2 << 10;

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => {
                let mut stream = Pin::new(stream.as_mut());
                let plaintext = ready!(stream.as_mut().poll_fill_buf(cx))?;
                let len = plaintext.len().min(buffer.remaining());
                plaintext[..len].chunks(COPY_BYTES).for_each(|chunk| buffer.put_slice(chunk));
                stream.consume(len);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
