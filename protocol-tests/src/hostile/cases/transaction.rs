//! What the coordinator of a transaction on the target says.

use kafka_protocol::messages::{
    AddOffsetsToTxnResponse, AddPartitionsToTxnResponse, ApiKey, EndTxnResponse,
    InitProducerIdResponse, ProducerId, TxnOffsetCommitResponse,
};

use crate::hostile::answer::{Answer, Deed};
use crate::hostile::case::Case;

const CODES: [(i16, &str); 10] = [
    (-1, "UNKNOWN_SERVER_ERROR"),
    (14, "COORDINATOR_LOAD_IN_PROGRESS"),
    (16, "NOT_COORDINATOR"),
    (47, "INVALID_PRODUCER_EPOCH"),
    (48, "INVALID_TXN_STATE"),
    (49, "INVALID_PRODUCER_ID_MAPPING"),
    (51, "CONCURRENT_TRANSACTIONS"),
    (53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"),
    (90, "PRODUCER_FENCED"),
    (31_999, "an error that does not exist"),
];

fn coded(a: &Answer, code: i16) -> Deed {
    match a.api {
        ApiKey::InitProducerId => a.edit(|r: &mut InitProducerIdResponse| r.error_code = code),
        ApiKey::AddOffsetsToTxn => a.edit(|r: &mut AddOffsetsToTxnResponse| r.error_code = code),
        ApiKey::EndTxn => a.edit(|r: &mut EndTxnResponse| r.error_code = code),
        ApiKey::AddPartitionsToTxn => a.edit(|r: &mut AddPartitionsToTxnResponse| {
            let topics = r.results_by_topic_v3_and_below.iter_mut();
            topics
                .flat_map(|topic| &mut topic.results_by_partition)
                .for_each(|partition| partition.partition_error_code = code);
        }),
        ApiKey::TxnOffsetCommit => a.edit(|r: &mut TxnOffsetCommitResponse| {
            let topics = r.topics.iter_mut();
            topics.flat_map(|t| &mut t.partitions).for_each(|p| p.error_code = code);
        }),
        _ => Deed::Send(a.frame()),
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (api, what) in [(ApiKey::EndTxn, "an end"), (ApiKey::TxnOffsetCommit, "a position")] {
        for (code, name) in CODES {
            let deed = move |a: &Answer| coded(a, code);
            let case = Case::new(format!("{what} answered {name} and done"), &[api], deed);
            all.push(case.in_transactions());
        }
    }
    for (code, name) in CODES {
        let apis = [ApiKey::InitProducerId, ApiKey::EndTxn];
        // A mirror whose transaction cannot be ended begins anew.
        let deed = move |a: &Answer| match a.api {
            ApiKey::EndTxn => coded(a, 47),
            _ => coded(a, code),
        };
        all.push(Case::new(format!("a beginning answered {name}"), &apis, deed).in_transactions());
    }
    let ids: [super::Named<InitProducerIdResponse>; 4] = [
        ("-1", |r| r.producer_id = ProducerId(-1)),
        ("that is the least", |r| r.producer_id = ProducerId(i64::MIN)),
        ("with an epoch below zero", |r| r.producer_epoch = -1),
        ("of another", |r| r.producer_id = ProducerId(r.producer_id.0 + 1)),
    ];
    for (what, edit) in ids {
        let deed = move |a: &Answer| match a.api {
            ApiKey::EndTxn => coded(a, 47),
            _ => a.edit(edit),
        };
        let apis = [ApiKey::InitProducerId, ApiKey::EndTxn];
        all.push(Case::new(format!("a producer id {what}"), &apis, deed).in_transactions());
    }
    let mut raw = |what: &str, api: ApiKey, deed: fn(&Answer) -> Deed| {
        all.push(Case::new(what, &[api], deed).in_transactions());
    };
    raw("ends that are never answered", ApiKey::EndTxn, |_| Deed::Stall(Vec::new()));
    raw("ends that close the connection", ApiKey::EndTxn, |_| Deed::Close(Vec::new()));
    raw(
        "positions that close the connection",
        ApiKey::TxnOffsetCommit,
        |_| Deed::Close(Vec::new()),
    );
    raw("two thousand million topics", ApiKey::TxnOffsetCommit, |a| {
        Deed::Send(a.with(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 7]))
    });
    raw("an end without a body", ApiKey::EndTxn, |a| Deed::Send(a.with(&[])));
    for case in &mut all {
        (case.counts, case.slow) =
            (true, case.name.contains("ends") || case.name.contains("close"));
        case.slow |= case.name.contains("topics") || case.name.contains("without a body");
        case.parks.extend([64, 65, 81]);
        // The coordinator of the position is the liar for all partitions.
        case.whole |= case.concerns(ApiKey::TxnOffsetCommit);
    }
    all
}
