//! DescribeAcls (key 29): there is no authorizer.

use kafka_protocol::messages::{DescribeAclsRequest, DescribeAclsResponse};

use super::super::connection::Call;
use super::text;
use crate::wire::error_code::ErrorCode;

pub(super) fn handle(_: &Call<'_>, _: DescribeAclsRequest) -> DescribeAclsResponse {
    DescribeAclsResponse::default()
        .with_error_code(ErrorCode::SECURITY_DISABLED.0)
        .with_error_message(Some(text("No Authorizer is configured.")))
}
