//! SaslHandshake (key 17), v1: names the mechanism. The one API here that is not flexible.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;

use super::write::{text, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Asks to authenticate by `mechanism`; SaslAuthenticate requests follow.
#[derive(Clone, Debug)]
pub struct SaslHandshakeRequest {
    /// Such as `SCRAM-SHA-512`.
    pub mechanism: String,
}

/// Whether it may.
#[derive(Clone, Debug)]
pub struct SaslHandshakeResponse {
    /// UNSUPPORTED_SASL_MECHANISM, or ILLEGAL_SASL_STATE from a listener without SASL.
    pub error: ErrorCode,
    /// What the listener offers.
    pub mechanisms: Vec<String>,
}

impl Request for SaslHandshakeRequest {
    const API: ApiKey = ApiKey::SaslHandshake;
    const VERSIONS: RangeInclusive<i16> = 1..=1;
    type Response = SaslHandshakeResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let message = kafka::SaslHandshakeRequest::default().with_mechanism(text(&self.mechanism));
        write(&message, version, out, "sasl handshake request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<SaslHandshakeResponse, WireError> {
        let mut reader = Reader::new(body);
        let error = reader.error_code("sasl handshake error")?;
        let mechanisms = reader.classic_array(2, "sasl mechanisms", |reader| {
            reader.classic_string("sasl mechanism").map(str::to_owned)
        })?;
        reader.finish("sasl handshake response")?;
        Ok(SaslHandshakeResponse { error, mechanisms })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{crate_bytes, survives_cuts, written};
    use super::*;

    #[test]
    fn request() {
        let request = SaslHandshakeRequest { mechanism: "PLAIN".to_owned() };
        let read: kafka::SaslHandshakeRequest = written(&request, 1);
        assert_eq!(&*read.mechanism, "PLAIN");
    }

    #[test]
    fn response() {
        let message = kafka::SaslHandshakeResponse::default()
            .with_error_code(33)
            .with_mechanisms(vec![text("SCRAM-SHA-256"), text("")]);
        let read = survives_cuts::<SaslHandshakeRequest>(1, &crate_bytes(&message, 1));
        assert_eq!(read.error, ErrorCode::UNSUPPORTED_SASL_MECHANISM);
        assert_eq!(read.mechanisms, ["SCRAM-SHA-256", ""]);
    }

    #[test]
    fn lengths_are_not_believed() {
        for count in [0x7fff_ffff_u32, 0xffff_ffff, 0x8000_0000, 4] {
            let body = [&[0, 0][..], &count.to_be_bytes(), &[0; 6]].concat();
            assert!(matches!(
                SaslHandshakeRequest::decode(1, &body.into()),
                Err(WireError::BadLength { .. })
            ));
        }
        let negative_string = [0, 0, 0, 0, 0, 1, 0xff, 0xff];
        assert!(SaslHandshakeRequest::decode(1, &negative_string.to_vec().into()).is_err());
    }
}
