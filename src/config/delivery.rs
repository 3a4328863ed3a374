//! `links.<name>.delivery` and `transaction`: how readers of the target get to see what is copied.

use std::time::Duration;

use super::resolved::{Delivery, Forward, Transactions};
use super::values::parse_duration;
use super::written::{Fields, Reading};

/// The interval of transactions, at least and at most. The coordinator aborts what stays open longer than
/// `transaction.max.timeout.ms` (15 min), and the last acks are waited for within it.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(300));

/// What was written, or the default.
pub(super) fn read(
    reading: &mut Reading<'_>,
    link: &mut Fields<'_>,
    forward: &Forward,
) -> Delivery {
    let words = [("exactly-once", false), ("transactional", true)];
    let transactional = link.choice(reading, "delivery", &words, &["at-least-once"]);
    let at = link.get(reading, "delivery").map(|node| node.at);
    let is_transactional = transactional.unwrap_or(false);
    let mut transactions = Transactions::default();
    if let Some(node) = link.get(reading, "transaction") {
        if !is_transactional {
            let what = "`transaction` has no meaning without `delivery: transactional`";
            reading.error(node.at, what, "remove it, or add `delivery: transactional`");
        }
        let path = link.path_of("transaction");
        if let Some(mut fields) = reading.fields(node, path, "transaction") {
            if let Some(interval) = interval(reading, &mut fields) {
                transactions.interval = interval;
            }
            if let Some(bytes) = fields.size(reading, "bytes", 1 << 16..=1 << 36) {
                transactions.bytes_max = bytes;
            }
            fields.finish(reading);
        }
    }
    if let Some(at) = at.filter(|_| is_transactional && !forward.origins.is_empty()) {
        // A coordinator gives the producer id, so the copy cannot tell where it was first written.
        let what =
            "`delivery: transactional` cannot pass on the origin of records, which `forward` names";
        reading.error(at, what, "write `forward: local`, or `delivery: exactly-once`");
    }
    if is_transactional { Delivery::Transactional(transactions) } else { Delivery::ExactlyOnce }
}

fn interval(reading: &mut Reading<'_>, fields: &mut Fields<'_>) -> Option<Duration> {
    let text = fields.text(reading, "interval")?;
    let (least, most) = INTERVAL;
    match parse_duration(&text.value) {
        Ok(interval) if (least..=most).contains(&interval) => Some(interval),
        Ok(_) => {
            let what = format!("`interval` is {}", text.quoted());
            reading.error(text.at, what, "write 10ms to 300s");
            None
        }
        Err(accepted) => {
            reading.error(text.at, format!("`interval` is {}", text.quoted()), accepted);
            None
        }
    }
}
