//! SaslAuthenticate (key 36), v2: one message of the mechanism there and back.

use std::fmt;
use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;

use super::write::write;
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// A client's message of the SASL exchange.
#[derive(Clone)]
pub struct SaslAuthenticateRequest {
    /// Secret in most mechanisms.
    pub message: Bytes,
}

impl fmt::Debug for SaslAuthenticateRequest {
    /// Says nothing (I8).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaslAuthenticateRequest")
    }
}

/// The server's message of the SASL exchange.
#[derive(Clone)]
pub struct SaslAuthenticateResponse {
    /// SASL_AUTHENTICATION_FAILED above all.
    pub error: ErrorCode,
    /// The broker's words.
    pub error_message: Option<String>,
    /// The mechanism's message.
    pub message: Bytes,
    /// After this the broker closes the connection unless it authenticates again (KIP-368); 0 for never.
    pub session_lifetime_ms: i64,
}

impl fmt::Debug for SaslAuthenticateResponse {
    /// Leaves the message out (I8).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaslAuthenticateResponse")
            .field("error", &self.error)
            .field("error_message", &self.error_message)
            .field("session_lifetime_ms", &self.session_lifetime_ms)
            .finish_non_exhaustive()
    }
}

impl Request for SaslAuthenticateRequest {
    const API: ApiKey = ApiKey::SaslAuthenticate;
    const VERSIONS: RangeInclusive<i16> = 2..=2;
    type Response = SaslAuthenticateResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let message =
            kafka::SaslAuthenticateRequest::default().with_auth_bytes(self.message.clone());
        write(&message, version, out, "sasl authenticate request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<SaslAuthenticateResponse, WireError> {
        let mut reader = Reader::new(body);
        let response = SaslAuthenticateResponse {
            error: reader.error_code("sasl authenticate error")?,
            error_message: reader.nullable_owned("sasl error message")?,
            message: reader.nullable_bytes("sasl message")?.unwrap_or_default(),
            session_lifetime_ms: reader.i64("sasl session lifetime")?,
        };
        reader.skip_tags("sasl authenticate response")?;
        reader.finish("sasl authenticate response")?;
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::super::write::text;
    use super::*;

    #[test]
    fn request() {
        let request = SaslAuthenticateRequest { message: Bytes::from_static(b"\0me\0canary") };
        let read: kafka::SaslAuthenticateRequest = written(&request, 2);
        assert_eq!(read.auth_bytes, request.message);
        assert!(!format!("{request:?}").contains("canary"));
    }

    #[test]
    fn response() {
        let message = kafka::SaslAuthenticateResponse::default()
            .with_error_code(58)
            .with_error_message(Some(text("no")))
            .with_auth_bytes(Bytes::from_static(b"v=canary"))
            .with_session_lifetime_ms(3_600_000);
        let read = survives_cuts::<SaslAuthenticateRequest>(2, &crate_bytes(&message, 2));
        assert_eq!(read.error, ErrorCode::SASL_AUTHENTICATION_FAILED);
        assert_eq!(read.error_message.as_deref(), Some("no"));
        assert_eq!(read.message, &b"v=canary"[..]);
        assert_eq!(read.session_lifetime_ms, 3_600_000);
        assert!(!format!("{read:?}").contains("canary"));
    }
}
