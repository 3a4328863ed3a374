//! The frame around every message: a size, a header, the body.
//!
//! Every API spoken here is flexible but one, so requests have header v2 and answers v1; SaslHandshake has neither's tags, and
//! ApiVersions is answered with header v0, because the peer's versions are not known yet (KIP-511).

use std::fmt;

use bytes::Bytes;

use super::{ApiKey, Reader, WireError};

/// Bytes of the size in front of a frame.
pub const SIZE_BYTES: usize = 4;
/// The least a frame can hold: a correlation id.
const FRAME_BYTES_MIN: usize = 4;

/// Size and header of a request whose body takes `body_bytes`; the body follows as it is.
pub fn request_head(
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    client_id: &str,
    body_bytes: usize,
) -> Result<Vec<u8>, WireError> {
    const WHAT: &str = "request header";
    let flexible = api != ApiKey::SaslHandshake;
    let client_id_len =
        i16::try_from(client_id.len()).map_err(|_| WireError::Encode { what: WHAT })?;
    let header_bytes = 2 + 2 + 4 + 2 + client_id.len() + usize::from(flexible);
    let size =
        i32::try_from(header_bytes + body_bytes).map_err(|_| WireError::Encode { what: WHAT })?;
    let mut out = Vec::with_capacity(SIZE_BYTES + header_bytes);
    out.extend(size.to_be_bytes());
    out.extend((api as i16).to_be_bytes());
    out.extend(version.to_be_bytes());
    out.extend(correlation_id.to_be_bytes());
    out.extend(client_id_len.to_be_bytes()); // STRING even in header v2
    out.extend(client_id.as_bytes());
    if flexible {
        out.push(0);
    }
    Ok(out)
}

/// The correlation id at the start of `frame` (without its size).
pub fn correlation_id(frame: &Bytes) -> Result<i32, WireError> {
    Reader::new(frame).i32("correlation id")
}

/// The body of the answer `frame` (without its size) to a request of `api`.
pub fn response_body(api: ApiKey, frame: &Bytes) -> Result<Bytes, WireError> {
    let mut reader = Reader::new(frame);
    reader.i32("correlation id")?;
    if !matches!(api, ApiKey::ApiVersions | ApiKey::SaslHandshake) {
        reader.skip_tags("response header")?;
    }
    Ok(frame.slice(frame.len() - reader.left()..))
}

/// Why four bytes are not the size of a Kafka frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A TLS alert: a TLS listener was spoken to in plain text.
    TlsAlert,
    /// A TLS handshake: the peer takes us for a server.
    TlsHandshake,
    /// An HTTP server.
    Http,
    /// Less than a correlation id, or negative.
    TooSmall {
        /// The size.
        claimed: i32,
    },
    /// More than this API may answer with.
    TooLarge {
        /// The size.
        claimed: i32,
        /// The bound.
        max: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TlsAlert => f.write_str("the peer answers in TLS: this is a TLS listener"),
            Self::TlsHandshake => f.write_str("the peer opens TLS instead of answering"),
            Self::Http => f.write_str("the peer answers in HTTP: this is not a Kafka listener"),
            Self::TooSmall { claimed } => write!(f, "a frame of {claimed} bytes is not possible"),
            Self::TooLarge { claimed, max } => {
                write!(f, "a frame of {claimed} bytes, where at most {max} are expected")
            }
        }
    }
}

impl std::error::Error for FrameError {}

/// The size in front of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSize;

impl FrameSize {
    /// `claimed` as a size of at most `max`, before anything is reserved for it.
    pub fn check(claimed: i32, max: usize) -> Result<usize, FrameError> {
        // As sizes these are over 300 MB, but a large enough `max` must not hide what they say.
        match claimed.to_be_bytes() {
            [0x15, 0x03, 0..=4, _] => return Err(FrameError::TlsAlert),
            [0x16, 0x03, 0..=4, _] => return Err(FrameError::TlsHandshake),
            _ => {}
        }
        if matches!(&claimed.to_be_bytes(), b"HTTP" | b"GET " | b"<htm" | b"<!DO" | b"<HTM") {
            return Err(FrameError::Http);
        }
        match usize::try_from(claimed) {
            Ok(size) if size > max => Err(FrameError::TooLarge { claimed, max }),
            Ok(size) if size >= FRAME_BYTES_MIN => Ok(size),
            _ => Err(FrameError::TooSmall { claimed }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages as kafka;
    use kafka_protocol::protocol::{Encodable, StrBytes};

    #[test]
    fn request_head_equals_the_crates_bytes() {
        for (api, version) in [
            (ApiKey::Produce, 13),
            (ApiKey::Fetch, 12),
            (ApiKey::ApiVersions, 4),
            (ApiKey::SaslHandshake, 1),
            (ApiKey::SaslAuthenticate, 2),
        ] {
            let header_version =
                kafka::ApiKey::try_from(api as i16).unwrap().request_header_version(version);
            let mut expected = vec![0; 4];
            kafka::RequestHeader::default()
                .with_request_api_key(api as i16)
                .with_request_api_version(version)
                .with_correlation_id(-7)
                .with_client_id(Some(StrBytes::from_static_str("strait")))
                .encode(&mut expected, header_version)
                .unwrap();
            let size = (expected.len() - 4 + 1000) as i32;
            expected[..4].copy_from_slice(&size.to_be_bytes());
            assert_eq!(request_head(api, version, -7, "strait", 1000).unwrap(), expected);
        }
        assert!(request_head(ApiKey::Fetch, 12, 0, &"x".repeat(40_000), 0).is_err());
        assert!(request_head(ApiKey::Fetch, 12, 0, "x", 1 << 31).is_err());
    }

    #[test]
    fn response_header_versions() {
        let tagged = Bytes::from_static(&[0, 0, 0, 9, 1, 5, 2, 0xaa, 0xbb, 7, 8]);
        assert_eq!(correlation_id(&tagged), Ok(9));
        assert_eq!(response_body(ApiKey::Fetch, &tagged).unwrap(), &[7, 8][..]);
        for api in [ApiKey::ApiVersions, ApiKey::SaslHandshake] {
            assert_eq!(response_body(api, &tagged).unwrap(), &tagged[4..]);
        }
        for len in 0..9 {
            assert!(response_body(ApiKey::Fetch, &tagged.slice(..len)).is_err());
        }
        assert!(correlation_id(&tagged.slice(..3)).is_err());
    }

    #[test]
    fn sizes() {
        let check = |claimed: i32| FrameSize::check(claimed, 1000);
        assert_eq!(check(4), Ok(4));
        assert_eq!(check(1000), Ok(1000));
        assert_eq!(check(1001), Err(FrameError::TooLarge { claimed: 1001, max: 1000 }));
        for claimed in [3, 0, -1, i32::MIN] {
            assert_eq!(check(claimed), Err(FrameError::TooSmall { claimed }));
        }
        assert_eq!(check(i32::MAX), Err(FrameError::TooLarge { claimed: i32::MAX, max: 1000 }));
    }

    #[test]
    fn other_protocols_are_named_whatever_the_bound() {
        for (raw, error) in [
            ([0x15, 3, 3, 0], FrameError::TlsAlert),
            ([0x15, 3, 1, 0], FrameError::TlsAlert),
            ([0x16, 3, 1, 2], FrameError::TlsHandshake),
            (*b"HTTP", FrameError::Http),
            (*b"GET ", FrameError::Http),
        ] {
            for max in [1000, usize::MAX] {
                assert_eq!(FrameSize::check(i32::from_be_bytes(raw), max), Err(error));
            }
        }
    }
}
