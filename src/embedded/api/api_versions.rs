//! ApiVersions (key 18): what this release offers, and whether transactions V2 are in force.

use bytes::BytesMut;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey,
};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::super::body::Body;
use super::super::connection::{Call, Close, Outcome};
use super::super::versions;
use crate::wire::error_code::ErrorCode;

pub(super) fn handle(call: &Call<'_>) -> Result<Outcome, Close> {
    let (generation, transactions_v2) = {
        let state = call.peer.shared.lock();
        (state.options.generation, state.options.has_transactions_v2())
    };
    let keys = versions::offered(generation).map(|(api, min, max)| {
        ApiVersion::default().with_api_key(api as i16).with_min_version(min).with_max_version(max)
    });
    let answer = ApiVersionsResponse::default().with_api_keys(keys.collect());
    if versions::serves(generation, ApiKey::ApiVersions, call.version) {
        let feature = FinalizedFeatureKey::default()
            .with_name(StrBytes::from_static_str("transaction.version"))
            .with_min_version_level(2)
            .with_max_version_level(2);
        return match call.version >= 3 && transactions_v2 {
            true => call.answer(
                &answer.with_finalized_features_epoch(1).with_finalized_features(vec![feature]),
            ),
            false => call.answer(&answer),
        };
    }
    // KIP-511: in version 0, so that any client can read which versions there are.
    let answer = answer.with_error_code(ErrorCode::UNSUPPORTED_VERSION.0);
    let mut bytes = BytesMut::new();
    answer.encode(&mut bytes, 0).map_err(|_| Close("an answer that cannot be written"))?;
    let mut body = Body::default();
    body.bytes(bytes.freeze());
    Ok(Outcome::Answer(body))
}
