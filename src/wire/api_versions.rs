//! ApiVersions (key 18), v3-4: which versions the broker speaks. The first request on every connection.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as kafka;

use super::write::{text, write};
use super::{ApiKey, ErrorCode, Reader, Request, WireError};

/// Asks for all versions.
#[derive(Clone, Debug)]
pub struct ApiVersionsRequest {
    /// The name that the broker's metrics show for this client.
    pub software_name: String,
    /// And its version.
    pub software_version: String,
}

/// What the broker speaks.
#[derive(Clone, Debug, Default)]
pub struct ApiVersionsResponse {
    /// UNSUPPORTED_VERSION when the request's own version was too new; `ranges` still says what is known.
    pub error: ErrorCode,
    /// By API key.
    pub ranges: Vec<VersionRange>,
    /// How long the broker mutes the connection.
    pub throttle_time_ms: i32,
    /// Cluster-wide features and the level that is in force, such as `transaction.version`.
    pub finalized_features: Vec<(String, i16)>,
}

/// The versions of one API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    /// Kafka's api_key; maybe none that Strait knows.
    pub api: i16,
    /// The lowest.
    pub min: i16,
    /// The highest.
    pub max: i16,
}

impl ApiVersionsResponse {
    /// The highest version of `R` that both sides speak.
    ///
    /// The lower end of Produce is not to be trusted (Kafka 4.x claims 0 and closes below 3); ours lies far above it.
    pub fn common<R: Request>(&self) -> Option<i16> {
        let theirs = self.ranges.iter().find(|range| range.api == R::API as i16)?;
        let highest = theirs.max.min(*R::VERSIONS.end());
        (highest >= theirs.min.max(*R::VERSIONS.start())).then_some(highest)
    }

    fn read_ranges(reader: &mut Reader<'_>) -> Result<Vec<VersionRange>, WireError> {
        reader.array(7, "api versions", |reader| {
            let range = VersionRange::read(reader)?;
            reader.skip_tags("api version")?;
            Ok(range)
        })
    }

    /// The answer to a version that the broker does not know: always v0, which has no tags and the old arrays (KIP-511).
    fn read_v0(error: ErrorCode, mut reader: Reader<'_>) -> Result<Self, WireError> {
        let ranges = reader.classic_array(6, "api versions", VersionRange::read)?;
        reader.finish("api versions response")?;
        Ok(Self { error, ranges, ..Self::default() })
    }
}

impl VersionRange {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            api: reader.i16("api key")?,
            min: reader.i16("min version")?,
            max: reader.i16("max version")?,
        })
    }
}

impl Request for ApiVersionsRequest {
    const API: ApiKey = ApiKey::ApiVersions;
    const VERSIONS: RangeInclusive<i16> = 3..=4;
    type Response = ApiVersionsResponse;

    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), WireError> {
        let message = kafka::ApiVersionsRequest::default()
            .with_client_software_name(text(&self.software_name))
            .with_client_software_version(text(&self.software_version));
        write(&message, version, out, "api versions request")
    }

    fn decode(_version: i16, body: &Bytes) -> Result<ApiVersionsResponse, WireError> {
        let mut reader = Reader::new(body);
        let error = reader.error_code("api versions error")?;
        if error == ErrorCode::UNSUPPORTED_VERSION {
            return ApiVersionsResponse::read_v0(error, reader);
        }
        let mut response = ApiVersionsResponse {
            error,
            ranges: ApiVersionsResponse::read_ranges(&mut reader)?,
            throttle_time_ms: reader.i32("throttle time")?,
            finalized_features: Vec::new(),
        };
        reader.tags("api versions response", |tag, field| {
            if tag == 2 {
                response.finalized_features = field.array(6, "finalized features", |reader| {
                    let name = reader.owned("feature name")?;
                    let level = reader.i16("feature max level")?;
                    reader.i16("feature min level")?;
                    reader.skip_tags("finalized feature")?;
                    Ok((name, level))
                })?;
            }
            Ok(())
        })?;
        reader.finish("api versions response")?;
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fetch::FetchRequest;
    use super::super::tests_support::{crate_bytes, survives_cuts, survives_damage, written};
    use super::*;
    use kafka_protocol::messages::api_versions_response as kafka_response;

    #[test]
    fn request() {
        let request = ApiVersionsRequest {
            software_name: "strait".to_owned(),
            software_version: "1.2".to_owned(),
        };
        for version in ApiVersionsRequest::VERSIONS {
            let read: kafka::ApiVersionsRequest = written(&request, version);
            assert_eq!(&*read.client_software_name, "strait");
            assert_eq!(&*read.client_software_version, "1.2");
        }
    }

    #[test]
    fn reads_every_field_in_every_version() {
        for version in ApiVersionsRequest::VERSIONS {
            let range = kafka_response::ApiVersion::default();
            let ranges = vec![
                range.clone().with_api_key(1).with_min_version(4).with_max_version(18),
                range.with_api_key(999).with_min_version(0).with_max_version(1),
            ];
            let feature = kafka_response::FinalizedFeatureKey::default()
                .with_name(text("group.version"))
                .with_max_version_level(1);
            let supported = kafka_response::SupportedFeatureKey::default()
                .with_name(text("x"))
                .with_max_version(2);
            let message = kafka::ApiVersionsResponse::default()
                .with_api_keys(ranges)
                .with_throttle_time_ms(5)
                .with_supported_features(vec![supported])
                .with_finalized_features_epoch(9)
                .with_finalized_features(vec![feature]);
            let read =
                survives_cuts::<ApiVersionsRequest>(version, &crate_bytes(&message, version));
            assert_eq!(read.error, ErrorCode::NONE);
            assert_eq!(read.ranges[0], VersionRange { api: 1, min: 4, max: 18 });
            assert_eq!(read.ranges[1].api, 999);
            assert_eq!(read.throttle_time_ms, 5);
            assert_eq!(read.finalized_features, [("group.version".to_owned(), 1)]);
        }
    }

    #[test]
    fn a_version_too_new_is_answered_in_v0() {
        let range = kafka_response::ApiVersion::default().with_api_key(18).with_max_version(2);
        let message =
            kafka::ApiVersionsResponse::default().with_error_code(35).with_api_keys(vec![range]);
        let body = crate_bytes(&message, 0);
        for version in ApiVersionsRequest::VERSIONS {
            let read = survives_cuts::<ApiVersionsRequest>(version, &body);
            assert_eq!(read.error, ErrorCode::UNSUPPORTED_VERSION);
            assert_eq!(read.ranges, [VersionRange { api: 18, min: 0, max: 2 }]);
        }
        survives_damage::<ApiVersionsRequest>(4, &body);
    }

    #[test]
    fn common_version() {
        let with = |min, max| {
            let ranges = vec![VersionRange { api: ApiKey::Fetch as i16, min, max }];
            ApiVersionsResponse { ranges, ..Default::default() }.common::<FetchRequest>()
        };
        assert_eq!(with(0, 17), Some(17));
        assert_eq!(with(4, 18), Some(17));
        assert_eq!(with(0, 12), Some(12));
        assert_eq!(with(0, 11), None);
        assert_eq!(with(18, 20), None);
        assert_eq!(with(16, 13), None, "a range turned round");
        assert_eq!(ApiVersionsResponse::default().common::<FetchRequest>(), None);
    }
}
