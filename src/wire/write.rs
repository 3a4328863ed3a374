//! How requests are handed to `kafka-protocol` for writing.

use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::WireError;

/// Appends `message` as `version` has it.
pub(super) fn write(
    message: &impl Encodable,
    version: i16,
    out: &mut Vec<u8>,
    what: &'static str,
) -> Result<(), WireError> {
    message.encode(out, version).map_err(|_| WireError::Encode { what })
}

/// A string as the crate holds it.
pub(super) fn text(string: &str) -> StrBytes {
    StrBytes::from_string(string.to_owned())
}

/// A topic's name as the crate holds it.
pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}
