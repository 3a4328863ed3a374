//! What Produce refuses, and what it lets through.

use kafka_protocol::messages::ProduceRequest;
use protocol_tests::lab::Version;
use protocol_tests::raw::batch::now_ms;
use protocol_tests::raw::{Batch, Codec, RawClient, RawRecord};

use super::{
    Bench, CORRUPT, Case, INVALID_ACKS, INVALID_RECORD, INVALID_TIMESTAMP, INVALID_TOPIC, OK,
    TOO_LARGE, TRANSACTIONAL_ID_AUTHORIZATION, UNKNOWN, UNSUPPORTED_COMPRESSION, packed,
};

pub const CASES: &[Case] = &[
    ("one batch per partition", one_batch_per_partition),
    ("a partition listed twice", a_partition_listed_twice),
    ("base offset and leader epoch", base_offset_and_leader_epoch),
    ("checksum and magic", checksum_and_magic),
    ("batches with holes", batches_with_holes),
    ("deltas that lie", deltas_that_lie),
    ("counts that lie", counts_that_lie),
    ("lengths that lie", lengths_that_lie),
    ("attribute bits", attribute_bits),
    ("codecs that do not exist", codecs_that_do_not_exist),
    ("every codec", every_codec),
    ("timestamps of both kinds", timestamps_of_both_kinds),
    ("timestamps out of range", timestamps_out_of_range),
    ("null keys on a compacted topic", null_keys_on_a_compacted_topic),
    ("sizes", sizes),
    ("compression.type of the topic", compression_type_of_the_topic),
    ("zstd on an old version", zstd_on_an_old_version),
    ("internal topics and acks", internal_topics_and_acks),
    ("transactional batches", transactional_batches),
];

fn one_batch_per_partition(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    let (three, two) = (Batch::small(3).bytes(), Batch::small(2).bytes());
    let produced = bench.produce_bytes(&topic, three.clone(), OK);
    bench.expect("base offset", produced.base_offset, 0);
    bench.produce_bytes(&topic, [three.clone(), two.clone()].concat(), INVALID_RECORD);
    // A cut second batch is dropped in silence: never leave a fetch's tail in the buffer.
    let produced = bench.produce_bytes(&topic, [three, two[..30].to_vec()].concat(), OK);
    bench.expect("base offset", produced.base_offset, 3);
    let end = bench.end(&topic);
    bench.expect("end", end, 6);
}

fn a_partition_listed_twice(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    let parts =
        [(topic.as_str(), 0, Batch::small(3).bytes()), (&topic, 0, Batch::small(5).bytes())];
    let request = RawClient::produce_request(&parts);
    let answer = bench.client.try_call_at(11, &request).unwrap();
    let produced = RawClient::produced(answer);
    let errors: Vec<_> = produced.iter().map(|p| p.error).collect();
    bench.expect("answers", errors, vec![OK]);
    let end = bench.end(&topic);
    bench.expect("only the last batch is in the log", end, 5);
}

fn base_offset_and_leader_epoch(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    for base in [100, -1] {
        bench.produce(&topic, &Batch::small(3).with(|b| b.base_offset = base), INVALID_RECORD);
    }
    bench.produce(&topic, &Batch::small(3).with(|b| b.leader_epoch = 77), OK);
    let epoch = bench.newest(&topic).leader_epoch;
    bench.expect("the leader's epoch is stored", epoch, 0);
}

fn checksum_and_magic(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    bench.produce(&topic, &Batch::small(3).with(|b| b.bad_crc = true), CORRUPT);
    bench.produce(&topic, &Batch::small(3).with(|b| b.magic = 3), CORRUPT);
    let end = bench.end(&topic);
    bench.expect("end", end, 0);
}

fn gappy() -> Batch {
    let records = [1, 4, 9].map(|at| RawRecord::at(at, "v")).to_vec();
    Batch::of(records).with(|b| b.last_offset_delta = Some(9))
}

fn batches_with_holes(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    for codec in Codec::ALL {
        bench.produce(&topic, &packed(gappy(), codec), INVALID_RECORD);
    }
}

fn deltas_that_lie(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    // The header says three in a row, the records do not: refused only where the broker unpacks them.
    let patched = |codec| packed(gappy().with(|b| b.last_offset_delta = None), codec);
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        bench.produce(&topic, &patched(codec), UNKNOWN);
    }
    let shifted = [5, 6, 7].map(|at| RawRecord::at(at, "v")).to_vec();
    bench.produce(&topic, &packed(Batch::of(shifted), Codec::Gzip), UNKNOWN);
    bench.produce(&topic, &patched(Codec::None), OK);
    let deltas: Vec<_> = bench.newest(&topic).records().iter().map(|r| r.offset_delta).collect();
    bench.expect("a corrupt log: offsets outside the batch", deltas, vec![1, 4, 9]);
    let end = bench.end(&topic);
    bench.expect("end", end, 3);
}

fn counts_that_lie(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    for last in [-1, 0] {
        let empty = Batch::of(vec![]).with(|b| b.last_offset_delta = Some(last));
        bench.produce(&topic, &empty, INVALID_RECORD);
    }
    for count in [2, 4] {
        for codec in [Codec::None, Codec::Gzip] {
            let wrong = packed(Batch::small(3).with(|b| b.count = Some(count)), codec);
            bench.produce(&topic, &wrong, INVALID_RECORD);
        }
    }
}

/// Other bytes in the place of the length of the second of three records, 10 bytes each.
fn lengths_that_lie(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    for codec in Codec::ALL {
        let lie = |at: std::ops::Range<usize>, bytes: &[u8]| {
            let mut plain = Batch::small(3).plain();
            assert_eq!(plain.len(), 30);
            plain.splice(at, bytes.iter().copied());
            packed(Batch::small(3), codec).with(|b| b.packed = Some(codec.compress(plain)))
        };
        // A compressed batch is walked by the fields of its records alone, and kept.
        let passes = if codec == Codec::None { INVALID_RECORD } else { OK };
        for (what, length) in [
            ("longer than the batch", 0x7e),
            ("longer by one", 20),
            ("shorter by one", 16),
            ("nought", 0),
            ("-1", 1),
        ] {
            let produced = bench.client.produce(&topic, 0, lie(10..11, &[length]).bytes());
            bench.expect(&format!("{codec:?}, {what}"), produced.error, passes);
        }
        for (what, batch) in [
            ("a key longer than the batch", lie(14..15, &[0x7e])),
            ("headers below nought", lie(19..20, &[1])),
            ("bytes behind the last record", lie(30..30, &[0])),
            ("cut in the last record", lie(28..30, &[])),
            ("a header without a name", lie(19..20, &[2, 1, 1])),
        ] {
            let produced = bench.client.produce(&topic, 0, batch.bytes());
            bench.expect(&format!("{codec:?}, {what}"), produced.error, INVALID_RECORD);
        }
        // Brokers that read the record itself have no name for it.
        let refuses = if codec == Codec::None { UNKNOWN } else { INVALID_RECORD };
        let six = lie(10..11, &[0x92, 0x80, 0x80, 0x80, 0x80, 0]);
        let produced = bench.client.produce(&topic, 0, six.bytes());
        bench.expect(&format!("{codec:?}, a length of six bytes"), produced.error, refuses);
        // What a fifth byte has beyond 32 bits is dropped.
        let produced =
            bench.client.produce(&topic, 0, lie(10..11, &[0x92, 0x80, 0x80, 0x80, 0x70]).bytes());
        bench.expect(&format!("{codec:?}, a length of 35 bits"), produced.error, OK);
        // What is to be compressed otherwise is read whole.
        let other = if codec == Codec::Lz4 { "gzip" } else { "lz4" };
        let other = bench.topic(&[("compression.type", other)]);
        let produced = bench.client.produce(&other, 0, lie(10..11, &[0]).bytes());
        bench.expect(&format!("{codec:?}, to be recoded"), produced.error, INVALID_RECORD);
    }
}

fn attribute_bits(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    bench.produce(&topic, &Batch::small(1).with(|b| b.attributes = 0x20), INVALID_RECORD);
    bench.produce(&topic, &Batch::small(2).with(|b| b.attributes = 0x40), OK);
    let stored = bench.newest(&topic).attributes;
    bench.expect("the delete horizon bit stays", stored, 0x40);
    bench.produce(&topic, &Batch::small(2).with(|b| b.attributes = -128), OK);
    let stored = bench.newest(&topic).attributes;
    bench.expect("unused bits stay", stored, -128);
    let wrong_max = Batch::small(2).with(|b| {
        b.attributes = -128;
        b.max_timestamp = Some(1);
    });
    bench.produce(&topic, &wrong_max, OK);
    let stored = bench.newest(&topic);
    bench.expect("a corrected maximum drops them", stored.attributes, 0);
    bench.expect("the maximum is corrected", stored.max_timestamp, wrong_max.base_timestamp);
    bench.expect("with a valid checksum", stored.crc_valid, true);
    let odd = Batch::small(1).with(|b| b.records[0].attributes = 0x7f);
    bench.produce(&topic, &odd, OK);
}

fn codecs_that_do_not_exist(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    for codec in [5, 7] {
        bench.produce(&topic, &Batch::small(1).with(|b| b.attributes = codec), UNKNOWN);
    }
}

fn every_codec(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    for codec in Codec::ALL {
        let batch = packed(Batch::small(20), codec);
        bench.produce(&topic, &batch, OK);
        let stored = bench.newest(&topic);
        bench.expect("codec", stored.attributes, codec as i16);
        bench.expect("records", stored.records(), batch.records.clone());
        bench.expect("bytes after the offset and epoch", &stored.bytes[16..], &batch.bytes()[16..]);
    }
}

fn timestamps_of_both_kinds(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    let old = now_ms() - 100_000;
    let from_append_time = Batch::small(2).with(|b| {
        b.attributes = 8;
        b.base_timestamp = old;
        b.max_timestamp = Some(old + 95_000);
    });
    bench.produce(&topic, &from_append_time, OK);
    let stored = bench.newest(&topic);
    bench.expect("the LogAppendTime bit goes", stored.attributes, 0);
    bench.expect("base", stored.base_timestamp, old);
    let appended = bench.topic(&[("message.timestamp.type", "LogAppendTime")]);
    bench.produce(&appended, &Batch::small(2).with(|b| b.attributes = 8), INVALID_TIMESTAMP);
    bench.produce(&appended, &Batch::small(2).with(|b| b.base_timestamp = old), OK);
    let stored = bench.newest(&appended);
    bench.expect("the bit is set", stored.attributes, 8);
    bench.expect("the append time is recent", stored.max_timestamp > old + 50_000, true);
}

fn timestamps_out_of_range(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    let at = |time: i64| Batch::small(1).with(|b| b.base_timestamp = time);
    let two_hours_ahead = if bench.release == Version::V39 { OK } else { INVALID_TIMESTAMP };
    bench.produce(&topic, &at(now_ms() + 7_200_000), two_hours_ahead);
    for time in [now_ms() - 315_360_000_000, -1, -2] {
        bench.produce(&topic, &at(time), OK);
    }
    let strict = bench.topic(&[
        ("message.timestamp.before.max.ms", "1000"),
        ("message.timestamp.after.max.ms", "1000"),
    ]);
    for time in [now_ms() - 60_000, now_ms() + 60_000] {
        let produced = bench.produce(&strict, &at(time), INVALID_TIMESTAMP);
        bench.expect("records at fault", produced.records_at_fault, vec![0]);
    }
    bench.produce(&strict, &at(-1), OK);
}

fn null_keys_on_a_compacted_topic(bench: &mut Bench) {
    let topic = bench.topic(&[("cleanup.policy", "compact")]);
    for codec in [Codec::None, Codec::Gzip] {
        let second = packed(Batch::small(2).with(|b| b.records[1].key = None), codec);
        let produced = bench.produce(&topic, &second, INVALID_RECORD);
        bench.expect("records at fault", produced.records_at_fault, vec![1]);
    }
    bench.produce(&topic, &Batch::small(1).with(|b| b.records[0].key = Some(vec![])), OK);
}

fn sizes(bench: &mut Bench) {
    let topic = bench.topic(&[("max.message.bytes", "2000")]);
    let sized = |size: usize| {
        let around = Batch::of(vec![RawRecord::at(0, &"x".repeat(1900))]).bytes().len() - 1900;
        let batch = Batch::of(vec![RawRecord::at(0, &"x".repeat(size - around))]);
        assert_eq!(batch.bytes().len(), size);
        batch
    };
    bench.produce(&topic, &sized(2001), TOO_LARGE);
    bench.produce(&topic, &sized(2000), OK);
}

fn compression_type_of_the_topic(bench: &mut Bench) {
    for (name, codec) in [("gzip", 1), ("zstd", 4), ("uncompressed", 0)] {
        let topic = bench.topic(&[("compression.type", name)]);
        for sent in [Codec::None, Codec::Gzip, Codec::Zstd] {
            let batch = packed(Batch::small(20), sent).sequenced(1 << 62, 0);
            // A new topic has no state for the id, the second batch of it would be out of sequence.
            let batch = batch.with(|b| b.producer_id += sent as i64);
            bench.produce(&topic, &batch, OK);
            let stored = bench.newest(&topic);
            bench.expect("stored codec", stored.attributes & 7, codec);
            bench.expect("records", stored.records(), batch.records.clone());
            bench.expect("the id stays", stored.producer_id, batch.producer_id);
        }
    }
}

fn zstd_on_an_old_version(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    let batch = packed(Batch::small(2), Codec::Zstd).bytes();
    let request = RawClient::produce_request(&[(&topic, 0, batch)]);
    let answer = bench.client.try_call_at(6, &request).unwrap();
    let error = RawClient::produced(answer)[0].error;
    bench.expect("Produce v6", error, UNSUPPORTED_COMPRESSION);
}

fn internal_topics_and_acks(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    let batch = Batch::small(1).bytes();
    let produced = bench.client.produce("__consumer_offsets", 0, batch.clone());
    let refused = [INVALID_TOPIC, 3].contains(&produced.error);
    bench.expect("an internal topic is refused", refused, true);
    let request: ProduceRequest = RawClient::produce_request(&[(&topic, 0, batch)]).with_acks(2);
    let answer = bench.client.try_call_at(11, &request).unwrap();
    let error = RawClient::produced(answer)[0].error;
    bench.expect("acks=2", error, INVALID_ACKS);
    bench.client.send_produce("parity-missing", 0, Batch::small(1).bytes());
    let error = bench.client.receive_produce().error;
    bench.expect("no such topic", error, 3);
}

fn transactional_batches(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    let batch = Batch::small(1).sequenced(5, 0).with(|b| b.attributes = 0x10);
    let good = Batch::small(1);
    let parts = [(topic.as_str(), 0, batch.bytes()), ("parity-1", 0, good.bytes())];
    let answer = bench.client.try_call_at(11, &RawClient::produce_request(&parts)).unwrap();
    let errors: Vec<_> = RawClient::produced(answer).iter().map(|p| p.error).collect();
    let want = vec![TRANSACTIONAL_ID_AUTHORIZATION; 2];
    bench.expect("the whole request is refused", errors, want);
    bench.produce(&topic, &batch, TRANSACTIONAL_ID_AUTHORIZATION);
}
