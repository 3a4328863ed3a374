//! ApiVersions (key 18): what this release offers; no finalized features, so clients use the classic protocols.

use bytes::BytesMut;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::api_versions_response::{ApiVersion, ApiVersionsResponse};
use kafka_protocol::protocol::Encodable;

use super::super::body::Body;
use super::super::connection::{Call, Close, Outcome};
use super::super::versions;
use crate::wire::error_code::ErrorCode;

pub(super) fn handle(call: &Call<'_>) -> Result<Outcome, Close> {
    let generation = call.peer.shared.lock().options.generation;
    let keys = versions::offered(generation).map(|(api, min, max)| {
        ApiVersion::default().with_api_key(api as i16).with_min_version(min).with_max_version(max)
    });
    let answer = ApiVersionsResponse::default().with_api_keys(keys.collect());
    if versions::serves(generation, ApiKey::ApiVersions, call.version) {
        return call.answer(&answer);
    }
    // KIP-511: in version 0, so that any client can read which versions there are.
    let answer = answer.with_error_code(ErrorCode::UNSUPPORTED_VERSION.0);
    let mut bytes = BytesMut::new();
    answer.encode(&mut bytes, 0).map_err(|_| Close("an answer that cannot be written"))?;
    let mut body = Body::default();
    body.bytes(bytes.freeze());
    Ok(Outcome::Answer(body))
}
