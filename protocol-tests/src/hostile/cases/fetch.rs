//! What a source says that it holds.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, LeaderIdAndEpoch, PartitionData,
};
use kafka_protocol::messages::{ApiKey, BrokerId, FetchResponse, ProducerId};
use uuid::Uuid;

use crate::hostile::answer::{Answer, Deed};
use crate::hostile::case::{Case, Where};

type Edit = fn(&mut PartitionData);

fn each(answer: &mut FetchResponse, edit: Edit) {
    answer.responses.iter_mut().flat_map(|topic| &mut topic.partitions).for_each(edit);
}

/// The records with these bytes from `at` on, where there are so many.
fn patch(partition: &mut PartitionData, at: usize, bytes: &[u8]) {
    let Some(records) = partition.records.as_ref().filter(|r| r.len() >= at + bytes.len()) else {
        return;
    };
    let mut patched = BytesMut::from(&records[..]);
    patched[at..at + bytes.len()].copy_from_slice(bytes);
    partition.records = Some(patched.freeze());
}

fn has_records(partition: &PartitionData) -> bool {
    partition.records.as_ref().is_some_and(|records| records.len() > 60)
}

/// Records that claim a bomb's size in a batch's length.
fn length(partition: &mut PartitionData, len: i32) {
    patch(partition, 8, &len.to_be_bytes());
}

/// The batch header's CRC made right again, as the liar can.
fn seal(partition: &mut PartitionData) {
    let Some(records) = partition.records.as_ref().filter(|records| records.len() > 61) else {
        return;
    };
    let len = i32::from_be_bytes([records[8], records[9], records[10], records[11]]);
    let end = (12 + len.max(0) as usize).min(records.len());
    let crc = crc32c::crc32c(&records[21..end]).to_be_bytes();
    patch(partition, 17, &crc);
}

const CODES: [(i16, &str); 14] = [
    (-1, "UNKNOWN_SERVER_ERROR"),
    (1, "OFFSET_OUT_OF_RANGE"),
    (2, "CORRUPT_MESSAGE"),
    (3, "UNKNOWN_TOPIC_OR_PARTITION"),
    (6, "NOT_LEADER_OR_FOLLOWER"),
    (9, "REPLICA_NOT_AVAILABLE"),
    (29, "TOPIC_AUTHORIZATION_FAILED"),
    (56, "KAFKA_STORAGE_ERROR"),
    (74, "FENCED_LEADER_EPOCH"),
    (75, "UNKNOWN_LEADER_EPOCH"),
    (78, "OFFSET_NOT_AVAILABLE"),
    (100, "UNKNOWN_TOPIC_ID"),
    (103, "INCONSISTENT_TOPIC_ID"),
    (31_999, "an error that does not exist"),
];

pub(super) fn cases() -> Vec<Case> {
    let apis = [ApiKey::Fetch];
    let mut all = Vec::new();
    let mut add = |what: &str, edit: Edit| {
        let case = Case::new(what, &apis, move |a: &Answer| {
            a.edit(|answer: &mut FetchResponse| each(answer, edit))
        });
        all.push(case.only(Where::Source));
    };
    // Batches that cannot be.
    add("a batch of length -1", |p| length(p, -1));
    add("a batch of length 0", |p| length(p, 0));
    add("a batch of length 48", |p| length(p, 48));
    add("a batch whose length wraps", |p| length(p, i32::MAX));
    add("a batch of format 3", |p| patch(p, 16, &[3]));
    add("a batch of format -1", |p| patch(p, 16, &[0xff]));
    add("a wrong checksum", |p| patch(p, 17, &[1, 2, 3, 4]));
    add("a changed byte of a record", |p| patch(p, 70, &[0xee]));
    add("a codec that does not exist", |p| {
        patch(p, 21, &[0, 7]);
        seal(p);
    });
    add("a count of records below zero", |p| {
        patch(p, 57, &(-3i32).to_be_bytes());
        seal(p);
    });
    add("a count of two thousand million records", |p| {
        patch(p, 57, &i32::MAX.to_be_bytes());
        patch(p, 23, &(i32::MAX - 1).to_be_bytes());
        seal(p);
    });
    add("a last offset below the first", |p| {
        patch(p, 23, &(-9i32).to_be_bytes());
        seal(p);
    });
    add("records of noise", |p| {
        if has_records(p) {
            p.records = Some(Bytes::from_iter((0..5000u32).map(|n| ((n * 7) >> 2) as u8)));
        }
    });
    add("records of ones", |p| {
        if has_records(p) {
            p.records = Some(Bytes::from(vec![0xff; 500]));
        }
    });
    add("records of zeros", |p| {
        if has_records(p) {
            p.records = Some(Bytes::from(vec![0; 500]));
        }
    });
    for case in &mut all {
        case.parks.extend([61, 62, 63]);
    }
    let mut add = |what: &str, edit: Edit| {
        let case = Case::new(what, &apis, move |a: &Answer| {
            a.edit(|answer: &mut FetchResponse| each(answer, edit))
        });
        all.push(case.only(Where::Source).harmless());
    };
    // What is wrong of it cannot be seen, or does no harm.
    add("a batch that is cut", |p| {
        if has_records(p) {
            p.records = p.records.as_ref().map(|records| records.slice(..records.len() - 1));
        }
    });
    add("batches of before what was asked for", |p| patch(p, 0, &0i64.to_be_bytes()));
    add("a high watermark below zero", |p| p.high_watermark = -5);
    add("a high watermark below the log start", |p| {
        p.log_start_offset = p.high_watermark + 10;
    });
    add("the highest high watermark", |p| {
        (p.high_watermark, p.last_stable_offset) = (i64::MAX, i64::MAX);
    });
    add("the lowest offsets of all", |p| {
        p.high_watermark = i64::MIN;
        p.last_stable_offset = i64::MIN;
        p.log_start_offset = i64::MIN;
    });
    add("a stable offset above the high watermark", |p| {
        p.last_stable_offset = p.high_watermark + 1000;
    });
    add("a log that begins behind its end", |p| p.log_start_offset = i64::MAX);
    add("a replica nearby that is no broker", |p| p.preferred_read_replica = BrokerId(77));
    add("a leader that is no broker", |p| {
        let leader = LeaderIdAndEpoch::default().with_leader_id(BrokerId(i32::MIN));
        p.current_leader = leader.with_leader_epoch(i32::MAX);
    });
    add("aborted transactions of nobody", |p| {
        let nobody = AbortedTransaction::default().with_producer_id(ProducerId(i64::MIN));
        let many = (0..2000).map(|at| nobody.clone().with_first_offset(i64::MAX - at));
        p.aborted_transactions = Some(many.collect());
    });
    add("no records, at once", |p| p.records = Some(Bytes::new()));
    add("no records that are null", |p| p.records = None);
    add("offsets that jump", |p| {
        patch(p, 0, &(1i64 << 40).to_be_bytes());
    });
    add("the greatest offset", |p| patch(p, 0, &(i64::MAX - 1).to_be_bytes()));
    add("offsets below zero", |p| patch(p, 0, &(-10i64).to_be_bytes()));
    let jumps = [
        "batches of before",
        "offsets that jump",
        "the greatest offset",
        "aborted transactions",
        "below zero",
    ];
    for case in all.iter_mut().filter(|case| jumps.iter().any(|name| case.name.contains(name))) {
        case.denies = !case.name.contains("below zero");
        case.parks.extend([62, 63, 64, 65, 66]);
    }
    // Who is answered.
    let mut whole = |what: &str, edit: fn(&mut FetchResponse)| {
        let case = Case::new(what, &apis, move |a: &Answer| a.edit(edit));
        all.push(case.only(Where::Source).harmless());
    };
    whole("an answer for another topic", |a| {
        a.responses.iter_mut().for_each(|topic| topic.topic_id = Uuid::from_u128(99));
    });
    whole("an answer for no topic", |a| {
        a.responses.iter_mut().for_each(|topic| topic.topic_id = Uuid::nil());
    });
    whole("an answer for partition -1", |a| each(a, |p| p.partition_index = -1));
    whole("an answer for the greatest partition", |a| each(a, |p| p.partition_index = i32::MAX));
    whole("an answer for another broker's partition", |a| each(a, |p| p.partition_index = 1));
    whole("every partition twice", |a| {
        for topic in &mut a.responses {
            topic.partitions.extend(topic.partitions.clone());
        }
    });
    whole("an empty answer, at once", |a| a.responses.clear());
    whole("another session", |a| a.session_id = 77);
    whole("session -1", |a| a.session_id = -1);
    whole("no session", |a| a.session_id = 0);
    whole("a throttle of 24 days", |a| a.throttle_time_ms = i32::MAX);
    whole("a throttle below zero", |a| a.throttle_time_ms = i32::MIN);
    for (code, name) in [
        (70, "FETCH_SESSION_ID_NOT_FOUND"),
        (71, "INVALID_FETCH_SESSION_EPOCH"),
        (106, "FETCH_SESSION_TOPIC_ID_ERROR"),
        (31_999, "an error that does not exist"),
    ] {
        let case = Case::new(format!("the session ends: {name}"), &apis, move |a: &Answer| {
            a.edit(|answer: &mut FetchResponse| {
                answer.error_code = code;
                answer.responses.clear();
            })
        });
        all.push(case.only(Where::Source).harmless());
    }
    for (code, name) in CODES {
        let case = Case::new(format!("error {name}"), &apis, move |a: &Answer| {
            a.edit(|answer: &mut FetchResponse| {
                for partition in answer.responses.iter_mut().flat_map(|topic| &mut topic.partitions)
                {
                    partition.error_code = code;
                    partition.records = None;
                }
            })
        });
        all.push(case.only(Where::Source).harmless());
    }
    for (what, epoch, end) in [
        ("below what was read", 0, 1),
        ("at the beginning", 0, 0),
        ("below zero", -5, -5),
        ("far ahead", i32::MAX, i64::MAX),
    ] {
        let case = Case::new(format!("a log that diverges {what}"), &apis, move |a: &Answer| {
            a.edit(|answer: &mut FetchResponse| {
                for partition in answer.responses.iter_mut().flat_map(|topic| &mut topic.partitions)
                {
                    partition.diverging_epoch =
                        EpochEndOffset::default().with_epoch(epoch).with_end_offset(end);
                    partition.records = None;
                }
            })
        });
        all.push(case.only(Where::Source).harmless().parks(&[62, 63, 64, 65, 66, 67, 68]));
    }
    let mut raw = |what: &str, deed: fn(&Answer) -> Deed| {
        all.push(Case::new(what, &apis, deed).only(Where::Source));
    };
    raw("two thousand million topics", |a| {
        let mut body = BytesMut::from(&a.body[..10.min(a.body.len())]);
        body.put_slice(&[0xff, 0xff, 0xff, 0xff, 7]);
        Deed::Send(a.with(&body))
    });
    raw("54 million topics in four bytes", |a| {
        let mut body = BytesMut::from(&a.body[..10.min(a.body.len())]);
        body.put_slice(&[0x81, 0xf6, 0xdf, 0x19]);
        Deed::Send(a.with(&body))
    });
    raw("an answer cut in its middle", |a| Deed::Send(a.with(&a.body[..a.body.len() / 2])));
    raw("an answer without its last byte", |a| Deed::Send(a.with(&a.body[..a.body.len() - 1])));
    all
}
