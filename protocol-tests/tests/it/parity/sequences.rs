//! Producer state: what makes a sequence right.

use protocol_tests::raw::Batch;
use protocol_tests::raw::batch::now_ms;

use super::{Bench, Case, INVALID_RECORD, OK, OUT_OF_ORDER_SEQUENCE, STALE_PRODUCER_EPOCH};

pub const CASES: &[Case] = &[
    ("without state any sequence is taken", without_state_any_sequence_is_taken),
    ("duplicates and gaps", duplicates_and_gaps),
    ("epochs", epochs),
    ("only the last five are known", only_the_last_five_are_known),
    ("sequences wrap", sequences_wrap),
    ("ids without sequence", ids_without_sequence),
    ("a duplicate is known by its numbers alone", a_duplicate_is_known_by_its_numbers_alone),
    ("a refused batch leaves no state", a_refused_batch_leaves_no_state),
    ("state is per partition", state_is_per_topic),
];

const ID: i64 = (1 << 62) + 12345;

fn without_state_any_sequence_is_taken(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    bench.produce(&topic, &Batch::small(2).sequenced(ID, 12_345), OK);
    bench.produce(&topic, &Batch::small(2).sequenced(ID, 12_347), OK);
}

fn duplicates_and_gaps(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    let first = bench.produce(&topic, &Batch::small(2).sequenced(ID, 0), OK);
    let second = bench.produce(&topic, &Batch::small(2).sequenced(ID, 2), OK);
    for (sequence, original) in [(0, first.base_offset), (2, second.base_offset)] {
        let again = bench.produce(&topic, &Batch::small(2).sequenced(ID, sequence), OK);
        bench.expect("a duplicate has the first offset", again.base_offset, original);
    }
    bench.produce(&topic, &Batch::small(3).sequenced(ID, 2), OUT_OF_ORDER_SEQUENCE);
    bench.produce(&topic, &Batch::small(2).sequenced(ID, 5), OUT_OF_ORDER_SEQUENCE);
    let end = bench.end(&topic);
    bench.expect("end", end, 4);
}

fn epochs(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    let with = |epoch, sequence| {
        Batch::small(1).sequenced(ID, sequence).with(|b| b.producer_epoch = epoch)
    };
    bench.produce(&topic, &with(0, 0), OK);
    bench.produce(&topic, &with(1, 5), OUT_OF_ORDER_SEQUENCE);
    bench.produce(&topic, &with(1, 0), OK);
    bench.produce(&topic, &with(0, 1), STALE_PRODUCER_EPOCH);
    bench.produce(&topic, &with(1, 1), OK);
}

fn only_the_last_five_are_known(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    for sequence in 0..7 {
        bench.produce(&topic, &Batch::small(1).sequenced(ID, sequence), OK);
    }
    bench.produce(&topic, &Batch::small(1).sequenced(ID, 1), OUT_OF_ORDER_SEQUENCE);
    let fifth = bench.produce(&topic, &Batch::small(1).sequenced(ID, 2), OK);
    bench.expect("fifth back", fifth.base_offset, 2);
}

fn sequences_wrap(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    bench.produce(&topic, &Batch::small(10).sequenced(ID, 2_147_483_640), OK);
    bench.produce(&topic, &Batch::small(10).sequenced(ID, 2), OK);
    let end = bench.end(&topic);
    bench.expect("end", end, 20);
}

fn ids_without_sequence(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    let negative = Batch::small(1).sequenced(6, -1);
    bench.produce(&topic, &negative, INVALID_RECORD);
    let stray = Batch::small(1).with(|b| {
        b.producer_epoch = 3;
        b.base_sequence = 4;
    });
    bench.produce(&topic, &stray, OK);
}

fn a_duplicate_is_known_by_its_numbers_alone(bench: &mut Bench) {
    let topic = bench.topic(&[]);
    bench.produce(&topic, &Batch::small(1).sequenced(ID, 0), OK);
    let other = Batch::small(1).sequenced(ID, 0).with(|b| b.records[0].value = None);
    bench.produce(&topic, &other, OK);
    let end = bench.end(&topic);
    bench.expect("the other record is nowhere", end, 1);
}

fn a_refused_batch_leaves_no_state(bench: &mut Bench) {
    // The hole that the window's rule W1 exists for: nothing orders the batches behind a refused first one.
    let topic = bench.topic(&[("max.message.bytes", "1000")]);
    let mut large = Batch::small(1).sequenced(ID, 0);
    large.records[0].value = Some(vec![0; 2000]);
    bench.client.send_produce(&topic, 0, large.bytes());
    for sequence in 1..50 {
        bench.client.send_produce(&topic, 0, Batch::small(1).sequenced(ID, sequence).bytes());
    }
    let errors: Vec<i16> = (0..50).map(|_| bench.client.receive_produce().error).collect();
    bench.expect("first", errors[0], 10);
    bench.expect("the others", errors[1..].iter().all(|error| *error == 0), true);
    // With state the same sequence of requests appends nothing.
    let topic = bench.topic(&[("max.message.bytes", "1000")]);
    bench.produce(&topic, &Batch::small(1).sequenced(ID, 0), OK);
    large.base_sequence = 1;
    bench.client.send_produce(&topic, 0, large.bytes());
    for sequence in 2..50 {
        bench.client.send_produce(&topic, 0, Batch::small(1).sequenced(ID, sequence).bytes());
    }
    let errors: Vec<i16> = (1..50).map(|_| bench.client.receive_produce().error).collect();
    bench.expect("first", errors[0], 10);
    let all = errors[1..].iter().all(|error| *error == OUT_OF_ORDER_SEQUENCE);
    bench.expect("the others", all, true);
}

fn state_is_per_topic(bench: &mut Bench) {
    let (one, two) = (bench.topic(&[]), bench.topic(&[]));
    bench.produce(&one, &Batch::small(1).sequenced(ID, 0), OK);
    bench.produce(&two, &Batch::small(1).sequenced(ID, 9), OK);
    bench.produce(&one, &Batch::small(1).sequenced(ID, 1), OK);
    // Old records count for the state at once; its expiry is the real brokers' suite's.
    let old = Batch::small(1).sequenced(ID, 2).with(|b| b.base_timestamp = now_ms() - 90_000_000);
    bench.produce(&one, &old, OK);
}
