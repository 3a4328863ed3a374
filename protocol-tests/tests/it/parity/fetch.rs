//! Where a Fetch begins and ends.

use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, OffsetCommitRequest,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
};
use kafka_protocol::protocol::StrBytes;
use protocol_tests::lab::Version;
use protocol_tests::raw::batch::now_ms;
use protocol_tests::raw::client::topic_name;
use protocol_tests::raw::{Batch, Codec};

use super::{Bench, Case, OFFSET_OUT_OF_RANGE, OK, packed};

pub const CASES: &[Case] = &[
    ("a batch is given whole", a_batch_is_given_whole),
    ("the last batch may be cut", the_last_batch_may_be_cut),
    ("both ends of the log", both_ends_of_the_log),
    ("deleted records stay in their batch", deleted_records_stay_in_their_batch),
    ("a time inside a batch", a_time_inside_a_batch),
    ("deletion on a compacted topic", deletion_on_a_compacted_topic),
    ("what may be committed", what_may_be_committed),
];

fn filled(bench: &mut Bench) -> String {
    let topic = bench.topic(&[]);
    for _ in 0..4 {
        bench.produce(&topic, &packed(Batch::small(10), Codec::Gzip), OK);
    }
    topic
}

fn a_batch_is_given_whole(bench: &mut Bench) {
    let topic = filled(bench);
    for bytes in [1, 4 << 20] {
        let fetched = bench.client.fetch_bytes(&topic, 0, 17, false, bytes);
        bench.expect("error", fetched.error, OK);
        bench.expect("first batch", fetched.batches[0].base_offset, 10);
        bench.expect("its end", fetched.batches[0].last_offset(), 19);
    }
}

fn the_last_batch_may_be_cut(bench: &mut Bench) {
    let topic = filled(bench);
    let whole = bench.client.fetch(&topic, 0, 0, false).batches[0].bytes.len();
    let limit = i32::try_from(whole + 70).unwrap();
    let fetched = bench.client.fetch_bytes(&topic, 0, 0, false, limit);
    bench.expect("whole batches", fetched.batches.len(), 1);
    bench.expect("bytes of the cut one", fetched.cut, 70);
}

fn both_ends_of_the_log(bench: &mut Bench) {
    let topic = filled(bench);
    let at_end = bench.client.fetch(&topic, 0, 40, false);
    bench.expect("at the end", (at_end.error, at_end.batches.len()), (OK, 0));
    bench.expect("high watermark", at_end.high_watermark, 40);
    let beyond = bench.client.fetch(&topic, 0, 41, false).error;
    bench.expect("beyond the end", beyond, OFFSET_OUT_OF_RANGE);
}

fn deleted_records_stay_in_their_batch(bench: &mut Bench) {
    let topic = filled(bench);
    let error = bench.client.delete_records(&topic, 0, 25);
    bench.expect("DeleteRecords", error, OK);
    let fetched = bench.client.fetch(&topic, 0, 25, false);
    bench.expect("first batch", fetched.batches[0].base_offset, 20);
    bench.expect("records in it", fetched.batches[0].count, 10);
    bench.expect("log start", fetched.log_start, 25);
    let below = bench.client.fetch(&topic, 0, 24, false).error;
    bench.expect("below the start", below, OFFSET_OUT_OF_RANGE);
    let error = bench.client.delete_records(&topic, 0, 1000);
    bench.expect("beyond the end", error, OFFSET_OUT_OF_RANGE);
}

fn a_time_inside_a_batch(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    let base = now_ms() - 10_000;
    let spread = Batch::small(10).with(|b| {
        b.base_timestamp = base;
        for (at, record) in b.records.iter_mut().enumerate() {
            record.timestamp_delta = at as i64 * 100;
        }
    });
    bench.produce(&topic, &spread, OK);
    let offset = bench.client.list_offset(&topic, 0, base + 450);
    bench.expect("the record's offset, not the batch's", offset, 5);
}

fn deletion_on_a_compacted_topic(bench: &mut Bench) {
    let topic = bench.topic(&[("cleanup.policy", "compact")]);
    bench.produce(&topic, &Batch::small(5), OK);
    let error = bench.client.delete_records(&topic, 0, 3);
    bench.expect("POLICY_VIOLATION", error, 44);
}

fn what_may_be_committed(bench: &mut Bench) {
    let topic = filled(bench);
    let group = format!("parity-{:?}", bench.release == Version::V39);
    // Looking for the coordinator is what makes the offsets topic.
    let find = FindCoordinatorRequest::default()
        .with_coordinator_keys(vec![StrBytes::from_string(group.clone())]);
    protocol_tests::wait::wait_until("group coordinator", 30, || {
        bench.client.try_call_at(4, &find).unwrap().coordinators[0].error_code == OK
    });
    let mut commit = |topic: &str, partition, offset, metadata: String| {
        let part = OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(StrBytes::from_string(metadata)));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![part]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(group.clone())))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        // It loads for a moment.
        protocol_tests::wait::wait_for("group coordinator", 30, || {
            let answer =
                bench.client.try_call_at(8, &request).map_err(|error| error.to_string())?;
            let error = answer.topics[0].partitions[0].error_code;
            if [14, 15, 16].contains(&error) { Err(format!("error {error}")) } else { Ok(error) }
        })
    };
    let errors = [
        commit(&topic, 0, 7, String::new()),
        commit("parity-missing", 0, 7, String::new()),
        commit(&topic, 7, 7, String::new()),
        commit(&topic, 0, 1 << 62, String::new()),
        commit(&topic, 0, 1, "m".repeat(4096)),
        commit(&topic, 0, 1, "m".repeat(4097)),
    ];
    bench.expect("errors", errors, [OK, 3, 3, OK, OK, 12]);
}
