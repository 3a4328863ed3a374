//! What a broker offers.

use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey};
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::hostile::answer::{Answer, Deed};
use crate::hostile::case::{Case, Where};

type Edit = fn(&mut ApiVersionsResponse);

fn without(answer: &mut ApiVersionsResponse, api: ApiKey) {
    answer.api_keys.retain(|range| range.api_key != api as i16);
}

fn each(answer: &mut ApiVersionsResponse, edit: fn(&mut ApiVersion)) {
    answer.api_keys.iter_mut().for_each(edit);
}

pub(super) fn cases() -> Vec<Case> {
    let apis = [ApiKey::ApiVersions];
    let edits: [(&str, Edit); 17] = [
        ("nothing", |a| a.api_keys.clear()),
        ("lowest above highest", |a| each(a, |range| range.min_version = range.max_version + 1)),
        ("versions below zero", |a| each(a, |r| (r.min_version, r.max_version) = (-5, -1))),
        ("versions of long ago", |a| each(a, |r| (r.min_version, r.max_version) = (0, 0))),
        ("versions of the far future", |a| {
            each(a, |r| (r.min_version, r.max_version) = (900, 901))
        }),
        ("highest below lowest of all", |a| {
            each(a, |r| (r.min_version, r.max_version) = (i16::MAX, i16::MIN));
        }),
        ("error 35 again and again", |a| a.error_code = 35),
        ("a refusal", |a| a.error_code = 31),
        ("an error that does not exist", |a| a.error_code = 31_999),
        ("error -1", |a| a.error_code = -1),
        ("no Metadata", |a| without(a, ApiKey::Metadata)),
        ("other APIs only", |a| each(a, |r| r.api_key += 1000)),
        ("negative APIs", |a| each(a, |r| r.api_key = -r.api_key - 1)),
        ("error 35 without a version", |a| {
            a.error_code = 35;
            a.api_keys.clear();
        }),
        ("no data API", |a| {
            without(a, ApiKey::Fetch);
            without(a, ApiKey::Produce);
        }),
        ("an old data API", |a| {
            each(a, |r| {
                if r.api_key <= 1 {
                    (r.min_version, r.max_version) = (0, 3)
                }
            });
        }),
        ("the lowest version of everything only", |a| each(a, |r| r.max_version = r.min_version)),
    ];
    let mut all: Vec<Case> = edits
        .into_iter()
        .map(|(what, edit)| {
            let case = Case::new(what, &apis, move |a: &Answer| a.edit(edit));
            // Metadata is asked of the first that can be dialled.
            if what == "no Metadata" { case.at_start() } else { case.anew() }
        })
        .collect();
    let mut add = |what: &str, deed: fn(&Answer) -> Deed| {
        all.push(Case::new(what, &apis, deed).anew());
    };
    add("two thousand million entries", |a| {
        Deed::Send(a.with(&[&[0, 0][..], &[0xff, 0xff, 0xff, 0xff, 7]].concat()))
    });
    add("54 million entries in six bytes", |a| Deed::Send(a.with(&[0, 0, 0x81, 0xf6, 0xdf, 0x19])));
    add("an answer cut in its middle", |a| Deed::Send(a.with(&a.body[..a.body.len() / 2])));
    let harmless: [(&str, Edit); 4] = [
        ("every version there will be", |a| {
            each(a, |r| (r.min_version, r.max_version) = (0, i16::MAX));
        }),
        ("every API a hundred times", |a| {
            a.api_keys = std::iter::repeat_n(a.api_keys.clone(), 100).flatten().collect();
        }),
        ("features that cannot be", |a| {
            let name = StrBytes::from_static_str("transaction.version");
            let feature = FinalizedFeatureKey::default().with_name(name);
            a.finalized_features.push(feature.with_max_version_level(-7).with_min_version_level(9));
            a.finalized_features_epoch = i64::MIN;
        }),
        ("a throttle of 24 days", |a| a.throttle_time_ms = i32::MAX),
    ];
    let harmless = harmless.into_iter();
    all.extend(harmless.map(|(what, edit)| {
        Case::new(what, &apis, move |a: &Answer| a.edit(edit)).anew().harmless()
    }));
    all.push(
        Case::new("another offer to every other connection", &apis, |a| {
            a.edit(|answer: &mut ApiVersionsResponse| {
                if a.connection % 2 == 0 {
                    without(answer, ApiKey::Fetch);
                    without(answer, ApiKey::Produce);
                }
            })
        })
        .anew()
        .harmless(),
    );
    all.push(
        Case::new("no commits", &apis, |a| {
            a.edit(|answer: &mut ApiVersionsResponse| without(answer, ApiKey::OffsetCommit))
        })
        .anew()
        .of_the_coordinator()
        .says("OffsetCommit"),
    );
    debug_assert!(all.iter().any(|case| case.sides.contains(&Where::Target)));
    all
}
