//! The first exchange on a connection: what the broker offers.

use std::rc::Rc;

use super::diagnosis::{PROTOCOL, TOO_OLD};
use super::shared::Shared;
use super::{CLIENT_ID, call};
use crate::error::Error;
use crate::limits;
use crate::wire::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use crate::wire::{ErrorCode, Request};

/// Asks in our highest version. KIP-511: a broker that does not know it answers with error 35 and the versions of this
/// API that it knows, and is asked again in one of those.
pub(super) async fn ask(shared: &Rc<Shared>) -> Result<ApiVersionsResponse, Error> {
    let request = ApiVersionsRequest {
        software_name: CLIENT_ID.to_owned(),
        software_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let version = *ApiVersionsRequest::VERSIONS.end();
    let mut answer = exchange(shared, &request, version).await?;
    if answer.error == ErrorCode::UNSUPPORTED_VERSION {
        let version = answer.common::<ApiVersionsRequest>();
        let version = version.ok_or_else(|| lacking::<ApiVersionsRequest>(shared, &answer))?;
        answer = exchange(shared, &request, version).await?;
    }
    if answer.error.is_error() {
        let text = format!("answered ApiVersions with {}", answer.error);
        return Err(shared.peer.error(PROTOCOL, text));
    }
    Ok(answer)
}

async fn exchange(
    shared: &Rc<Shared>,
    request: &ApiVersionsRequest,
    version: i16,
) -> Result<ApiVersionsResponse, Error> {
    let answer = call(shared, request, version, limits::CONNECT_TIMEOUT).await;
    answer.map_err(|error| shared.error_of(&error))
}

/// The broker has no version of `R` that is spoken here.
pub(super) fn lacking<R: Request>(shared: &Shared, offered: &ApiVersionsResponse) -> Error {
    let range = offered.ranges.iter().find(|range| range.api == R::API as i16);
    let offers = match range {
        None => "does not offer it".to_owned(),
        Some(range) => format!("offers {}-{}", range.min, range.max),
    };
    let (low, high) = R::VERSIONS.into_inner();
    let text = format!("Strait speaks {:?} {low}-{high}; the broker {offers}", R::API);
    shared.peer.error(TOO_OLD, text).fix("Kafka 2.8 or later; a listener that takes clients")
}
