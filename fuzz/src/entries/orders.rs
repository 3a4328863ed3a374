//! What the source of a whole copying holds: records that are to arrive, and among them batches that are not.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use strait::embedded::Cluster;
use strait::wire::batch::{BatchHeader, Codec, HEADER_BYTES, attribute};
use strait::wire::records::BatchBuilder;

use super::batches::reseal;

pub(super) const TOPIC: &str = "orders";
/// The records' time, and the clusters' clock: young ones.
pub(super) const NOW_MS: i64 = 1_790_000_000_000;

/// Records of a batch.
const RECORDS: usize = 3;
/// The lowest producer id of a copy by some Strait.
const REPLICATED: i64 = 1 << 62;

/// The source's one partition.
pub(super) struct Orders {
    source: Cluster,
    batches: usize,
    /// Values to come.
    wanted: Vec<String>,
    /// Their offsets.
    offsets: Arc<Mutex<Vec<i64>>>,
}

impl Orders {
    /// A topic with a log that begins within a batch.
    pub(super) fn new(source: Cluster) -> Self {
        source.create_topic(TOPIC, 1, 1, &[]).expect("a legal topic");
        let offsets = Arc::new(Mutex::new(Vec::new()));
        let mut orders = Self { source, batches: 0, wanted: Vec::new(), offsets };
        orders.write(1);
        orders.source.delete_records(TOPIC, 0, 1).expect("it is there");
        orders.wanted.remove(0);
        orders.lock().remove(0);
        orders
    }

    /// Writes so many batches. No two neighbours are joined: they differ in their codec.
    pub(super) fn write(&mut self, batches: usize) {
        for _ in 0..batches {
            let nth = self.batches;
            self.batches += 1;
            let mut builder = BatchBuilder::new([Codec::None, Codec::Lz4][nth % 2]);
            let values: Vec<_> = (0..RECORDS).map(|record| format!("{nth}.{record}")).collect();
            for value in &values {
                builder.push(NOW_MS, None, Some(value.as_bytes()), &[]);
            }
            let batch = builder.finish().expect("small");
            let producer = nth as i64;
            match nth % 8 {
                3 => _ = self.append(&written_by(&batch, REPLICATED + producer, 0)),
                6 => {
                    self.append(&written_by(&batch, producer, attribute::TRANSACTIONAL));
                    let ended = self.source.end_transaction(TOPIC, 0, (producer, 0), false);
                    ended.expect("it takes the marker");
                }
                _ => {
                    let base = self.append(&batch);
                    self.lock().extend(base..base + RECORDS as i64);
                    self.wanted.extend(values);
                }
            }
        }
    }

    fn append(&self, batch: &Bytes) -> i64 {
        self.source.append(TOPIC, 0, batch).expect("it takes it")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<i64>> {
        self.offsets.lock().expect("one thread")
    }

    /// What readers of the target are to see, in this order.
    pub(super) fn wanted(&self) -> &[String] {
        &self.wanted
    }

    /// The position behind all of it.
    pub(super) fn end(&self) -> i64 {
        self.lock().last().map_or(0, |offset| offset + 1)
    }

    /// How many records must be on the target before a position may be committed.
    pub(super) fn owed(&self) -> impl Fn(i64) -> usize + Send + use<> {
        let offsets = Arc::clone(&self.offsets);
        move |position| {
            offsets.lock().expect("one thread").partition_point(|offset| *offset < position)
        }
    }
}

/// The batch as this producer would have written it.
fn written_by(batch: &Bytes, producer_id: i64, attributes: u16) -> Bytes {
    let mut header = BatchHeader::parse(batch).expect("it was just made");
    header.attributes |= attributes;
    (header.producer_id, header.producer_epoch, header.base_sequence) = (producer_id, 0, 0);
    let mut batch = [&header.to_bytes()[..], &batch[HEADER_BYTES..]].concat();
    reseal(&mut batch);
    batch.into()
}
