//! `links.<name>.backfill`: how partitions that are behind catch up.

use super::resolved::Backfill;
use super::written::{Fields, Reading};
use crate::limits;

/// What was written, or the default. `limit` is the link's own.
pub(super) fn read(
    reading: &mut Reading<'_>,
    link: &mut Fields<'_>,
    limit: Option<u64>,
) -> Backfill {
    let Some(node) = link.get(reading, "backfill") else { return Backfill::default() };
    let path = link.path_of("backfill");
    let Some(mut fields) = reading.fields(node, path, "backfill") else {
        return Backfill::default();
    };
    let orders = [("even", false), ("in_turn", true)];
    let in_turn = fields.choice(reading, "order", &orders, &[]).unwrap_or(false);
    let concurrent = fields.number(reading, "concurrent", 1..=10_000);
    if !in_turn && let Some(node) = fields.get(reading, "concurrent") {
        let what = "`concurrent` has no meaning without `order: in_turn`";
        reading.error(node.at, what, "remove it, or add `order: in_turn`");
    }
    let rate = fields.rate(reading, "limit", limits::RATE_LIMIT_MIN);
    if rate.zip(limit).is_some_and(|(own, all)| own > all)
        && let Some(node) = fields.get(reading, "limit")
    {
        let what = "`backfill.limit` is more than the link's `limit`";
        reading.error(node.at, what, "the link's holds for all: write less, or remove it");
    }
    fields.finish(reading);
    let concurrent = concurrent.and_then(|n| usize::try_from(n).ok());
    Backfill {
        at_once_max: in_turn.then(|| concurrent.unwrap_or(Backfill::AT_ONCE_DEFAULT)),
        bytes_per_second_max: rate,
    }
}
