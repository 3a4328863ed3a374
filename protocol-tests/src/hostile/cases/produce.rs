//! What a target says that it took.

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, PartitionProduceResponse,
};
use kafka_protocol::messages::{ApiKey, BrokerId, ProduceResponse};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::hostile::answer::{Answer, Deed};
use crate::hostile::case::{Case, Where};

type Edit = fn(&mut PartitionProduceResponse);

fn each(answer: &mut ProduceResponse, edit: Edit) {
    answer.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses).for_each(edit);
}

/// Refusals, though the records are in the log. Those that only the operator can cure park the mirror.
const CODES: [(i16, &str); 22] = [
    (-1, "UNKNOWN_SERVER_ERROR"),
    (2, "CORRUPT_MESSAGE"),
    (3, "UNKNOWN_TOPIC_OR_PARTITION"),
    (5, "LEADER_NOT_AVAILABLE"),
    (6, "NOT_LEADER_OR_FOLLOWER"),
    (7, "REQUEST_TIMED_OUT"),
    (10, "MESSAGE_TOO_LARGE"),
    (17, "INVALID_TOPIC_EXCEPTION"),
    (18, "RECORD_LIST_TOO_LARGE"),
    (19, "NOT_ENOUGH_REPLICAS"),
    (20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND"),
    (29, "TOPIC_AUTHORIZATION_FAILED"),
    (32, "INVALID_TIMESTAMP"),
    (45, "OUT_OF_ORDER_SEQUENCE_NUMBER"),
    (46, "DUPLICATE_SEQUENCE_NUMBER"),
    (47, "INVALID_PRODUCER_EPOCH"),
    (56, "KAFKA_STORAGE_ERROR"),
    (59, "UNKNOWN_PRODUCER_ID"),
    (76, "UNSUPPORTED_COMPRESSION_TYPE"),
    (87, "INVALID_RECORD"),
    (90, "PRODUCER_FENCED"),
    (31_999, "an error that does not exist"),
];

pub(super) fn cases() -> Vec<Case> {
    let apis = [ApiKey::Produce];
    let mut all = Vec::new();
    for (code, name) in CODES {
        let case =
            Case::new(format!("refused with {name} and appended"), &apis, move |a: &Answer| {
                a.edit(|answer: &mut ProduceResponse| {
                    for partition in
                        answer.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses)
                    {
                        (partition.error_code, partition.base_offset) = (code, -1);
                    }
                })
            });
        all.push(
            case.only(Where::Target).counted().parks(&[60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70]),
        );
    }
    let mut add = |what: &str, edit: Edit| {
        let case = Case::new(what, &apis, move |a: &Answer| {
            a.edit(|answer: &mut ProduceResponse| each(answer, edit))
        });
        all.push(case.only(Where::Target).counted().parks(&[64, 65]));
    };
    add("a base offset of -1", |p| p.base_offset = -1);
    add("the least base offset", |p| p.base_offset = i64::MIN);
    add("a base offset of 0", |p| p.base_offset = 0);
    add("the answer for partition -1", |p| p.index = -1);
    add("the answer for the greatest partition", |p| p.index = i32::MAX);
    add("the answer for another broker's partition", |p| p.index = 1);
    let mut add = |what: &str, edit: Edit| {
        let case = Case::new(what, &apis, move |a: &Answer| {
            a.edit(|answer: &mut ProduceResponse| each(answer, edit))
        });
        all.push(case.only(Where::Target).harmless().parks(&[64, 65]));
    };
    add("the greatest base offset", |p| p.base_offset = i64::MAX);
    add("a base offset far ahead", |p| p.base_offset += 1000);
    add("an append time below zero", |p| p.log_append_time_ms = i64::MIN);
    add("a log that begins behind its end", |p| p.log_start_offset = i64::MAX);
    add("success with an error's words", |p| {
        p.error_message = Some(StrBytes::from_string("\u{1b}[2Jrefused".repeat(100)));
        let error = BatchIndexAndErrorMessage::default().with_batch_index(i32::MIN);
        p.record_errors = vec![error; 100];
    });
    add("a leader that is no broker", |p| {
        let leader = LeaderIdAndEpoch::default().with_leader_id(BrokerId(i32::MIN));
        p.current_leader = leader.with_leader_epoch(i32::MAX);
    });
    let mut whole = |what: &str, edit: fn(&mut ProduceResponse)| {
        let case = Case::new(what, &apis, move |a: &Answer| a.edit(edit));
        all.push(case.only(Where::Target).counted().parks(&[64, 65]));
    };
    whole("the answer for another topic", |a| {
        a.responses.iter_mut().for_each(|topic| topic.topic_id = Uuid::from_u128(99));
        a.responses.iter_mut().for_each(|topic| topic.name = Default::default());
    });
    whole("an answer without a topic", |a| a.responses.clear());
    whole("an answer without a partition", |a| {
        a.responses.iter_mut().for_each(|topic| topic.partition_responses.clear());
    });
    let mut whole = |what: &str, edit: fn(&mut ProduceResponse)| {
        let case = Case::new(what, &apis, move |a: &Answer| a.edit(edit));
        all.push(case.only(Where::Target).harmless());
    };
    whole("every partition twice", |a| {
        for topic in &mut a.responses {
            topic.partition_responses.extend(topic.partition_responses.clone());
        }
    });
    whole("every partition twice, refused the second time", |a| {
        for topic in &mut a.responses {
            let mut again = topic.partition_responses.clone();
            again.iter_mut().for_each(|partition| partition.error_code = 6);
            topic.partition_responses.extend(again);
        }
    });
    whole("ten thousand partitions that were not sent", |a| {
        for topic in &mut a.responses {
            let one = topic.partition_responses[0].clone();
            let more = (10..10_010).map(|index| one.clone().with_index(index));
            topic.partition_responses.extend(more);
        }
    });
    whole("a throttle of 24 days", |a| a.throttle_time_ms = i32::MAX);
    whole("a throttle below zero", |a| a.throttle_time_ms = i32::MIN);
    let mut raw = |what: &str, deed: fn(&Answer) -> Deed| {
        let case = Case::new(what, &apis, deed).only(Where::Target);
        all.push(if what.contains("never") { case.slowly() } else { case });
    };
    raw("two thousand million topics", |a| Deed::Send(a.with(&[0xff, 0xff, 0xff, 0xff, 7])));
    raw("54 million topics in four bytes", |a| {
        let mut body = BytesMut::new();
        body.put_slice(&[0x81, 0xf6, 0xdf, 0x19]);
        Deed::Send(a.with(&body))
    });
    raw("an answer cut in its middle", |a| Deed::Send(a.with(&a.body[..a.body.len() / 2])));
    raw("an answer without its last byte", |a| Deed::Send(a.with(&a.body[..a.body.len() - 1])));
    raw("one answer and then never again", |a| {
        if a.nth == 0 { Deed::Send(a.frame()) } else { Deed::Stall(Vec::new()) }
    });
    all
}
