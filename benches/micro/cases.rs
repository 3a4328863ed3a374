//! The hot parts of the main path, each as a closure over data that is made beforehand.

use std::hint::black_box;

use bytes::Bytes;
use strait::wire::batch::{Batches, Codec, HEADER_BYTES, verify_crc};
use strait::wire::common::TopicRef;
use strait::wire::merge::merge;
use strait::wire::produce::{ProducePartition, ProduceRequest, ProduceTopic};
use strait::wire::records::BatchBuilder;
use strait::wire::stamp::{Stamp, stamp};
use uuid::Uuid;

/// One hot part.
pub struct Case {
    /// What the tables call it.
    pub name: &'static str,
    /// Makes its data, and gives what is measured.
    pub prepare: fn() -> Box<dyn FnMut()>,
}

/// All of them.
pub const CASES: [Case; 6] = [
    Case { name: "crc_256_kib", prepare: crc },
    Case { name: "walk_100_small_batches", prepare: walk },
    Case { name: "merge_100_small_batches", prepare: merged },
    Case { name: "stamp", prepare: stamped },
    Case { name: "produce_head_8_partitions", prepare: produce_head },
    Case { name: "produce_head_1000_small_batches", prepare: produce_head_small },
];

const STAMP: Stamp = Stamp {
    producer_id: 1 << 62,
    producer_epoch: 3,
    base_sequence: 1_000_000,
    transactional: false,
};

fn batch(records: usize, record_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    for at in 0..records {
        builder.push(
            1_700_000_000_000 + at as i64,
            Some(b"key"),
            Some(&vec![b'x'; record_bytes]),
            &[],
        );
    }
    builder.finish().expect("uncompressed")
}

fn crc() -> Box<dyn FnMut()> {
    let batch = batch(256, 1000);
    Box::new(move || verify_crc(black_box(&batch)).expect("right"))
}

fn walk() -> Box<dyn FnMut()> {
    let one = batch(1, 300);
    let mut answer = Vec::new();
    for offset in 0i64..100 {
        answer.extend(offset.to_be_bytes());
        answer.extend(&one[8..]);
    }
    let answer = Bytes::from(answer);
    Box::new(move || {
        let mut batches = Batches::new(black_box(&answer).clone());
        while let Some(next) = batches.next_upgraded() {
            black_box(next.expect("whole"));
        }
    })
}

fn stamped() -> Box<dyn FnMut()> {
    let batch = batch(256, 1000);
    Box::new(move || {
        black_box(stamp(black_box(&batch), STAMP).expect("whole"));
    })
}

fn merged() -> Box<dyn FnMut()> {
    let batches = vec![batch(1, 300); 100];
    Box::new(move || {
        black_box(merge(black_box(&batches).iter(), 1 << 20).expect("whole"));
    })
}

fn request(partitions: i32, batch: &Bytes) -> Vec<ProduceTopic> {
    let partition = |index| ProducePartition {
        index,
        head: stamp(batch, STAMP).expect("whole"),
        payload: batch.slice(HEADER_BYTES..),
    };
    let topic = TopicRef { id: Uuid::from_u128(7), name: "orders".into() };
    vec![ProduceTopic { topic, partitions: (0..partitions).map(partition).collect() }]
}

fn produce_head() -> Box<dyn FnMut()> {
    head_of(request(8, &batch(256, 1000)))
}

fn produce_head_small() -> Box<dyn FnMut()> {
    head_of(request(1000, &batch(1, 300)))
}

fn head_of(topics: Vec<ProduceTopic>) -> Box<dyn FnMut()> {
    Box::new(move || {
        let request = ProduceRequest {
            transactional_id: None,
            acks: -1,
            timeout_ms: 30_000,
            topics: black_box(&topics),
        };
        black_box(request.pieces(13).expect("short"));
    })
}
