//! Which waiting batches leave as one (merge). PURE.
//!
//! A request takes one batch a partition, so that batches of one record crawl over a long link, and cost a request each
//! on a short one. What waits when a request is built is joined: the longer the queue, the larger the batch, and a
//! partition that keeps up passes its batches on untouched. Only neighbours that are alike are joined: same codec, origin,
//! leader epoch and age (W2), and no hole between them, so that the joined batch is one stretch of the source.

use std::collections::VecDeque;

use bytes::Bytes;

use super::mirror::{Mirror, Outgoing};
use super::window;
use crate::limits;
use crate::wire::batch::{BatchHeader, Codec};
use crate::wire::merge::{cut, merge};

/// Whether a batch may be joined with its neighbours, or was.
#[derive(Clone, Debug, Default, Hash)]
pub enum Joining {
    /// It may.
    #[default]
    Free,
    /// It goes as it is: what it was joined to was refused, or it cannot be opened.
    Alone,
    /// It is made of these.
    Of(Vec<Part>),
}

/// What is remembered of a batch that was joined: its bytes are in the joined one, and are cut out of it should it be refused.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Part {
    records: i32,
    max_timestamp: i64,
}

impl Joining {
    /// Source batches in it.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Of(parts) => parts.len(),
            Self::Free | Self::Alone => 1,
        }
    }
}

impl Mirror {
    /// From now on small batches that wait leave as one of at most so many bytes.
    pub fn join_up_to(&mut self, bytes_max: usize) {
        self.joined_bytes_max = bytes_max;
    }

    /// What begins below this source offset goes as it is: a former life's transaction was refused for something there.
    pub fn keep_apart_below(&mut self, offset: i64) {
        self.apart_below = offset;
    }

    /// Makes one batch of those that wait at the head of the queue, as large as the window and the target take.
    pub(super) fn join_front(&mut self, wall_clock_ms: i64) {
        let bytes_max = self.window.room_bytes().min(self.joined_bytes_max);
        let bounds = Bounds {
            bytes_max: bytes_max.min(self.target.max_message_bytes()),
            // In a transaction nothing hangs on what the target remembers.
            oldest_trusted: match self.transaction {
                Some(_) => i64::MIN,
                None => window::oldest_trusted(&self.target, wall_clock_ms),
            },
            apart_below: self.apart_below,
        };
        let count = alike(&self.queue, bounds);
        if count > 1 {
            let before = bytes_of(&self.queue, count);
            let largest = self.target.max_message_bytes().min(2 * self.joined_bytes_max);
            if join(&mut self.queue, count, largest) {
                self.buffered_bytes = self.buffered_bytes + bytes_of(&self.queue, 1) - before;
            }
        }
    }

    /// Where the oldest queued batch ends in the source, if it is made of several.
    pub fn end_of_joined_front(&self) -> Option<i64> {
        let front = self.queue.front()?;
        matches!(front.joining, Joining::Of(_)).then_some(front.next_offset)
    }

    /// The oldest queued batch was refused: if it is made of several, they go one by one. Says whether it was.
    pub fn part_front(&mut self) -> bool {
        let Some(parts) = self.queue.front_mut().and_then(part) else { return false };
        self.replace_front(parts);
        true
    }
}

fn bytes_of(queue: &VecDeque<Outgoing>, count: usize) -> usize {
    queue.iter().take(count).map(|outgoing| outgoing.batch.len()).sum()
}

/// What bounds a joined batch.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Stored bytes of the window, and what the target takes.
    pub bytes_max: usize,
    /// The batch's age class by rule W2 is that of its neighbours: told by this.
    pub oldest_trusted: i64,
    /// What begins below this source offset stays alone.
    pub apart_below: i64,
}

/// How many of the queue's first batches can leave as one; 1 if the first goes by itself.
fn alike(queue: &VecDeque<Outgoing>, bounds: Bounds) -> usize {
    let may = |first: &&Outgoing| {
        is_small(first) && first.spans.start().is_some_and(|start| start >= bounds.apart_below)
    };
    let Some(first) = queue.front().filter(may) else { return 1 };
    let Some(codec_of_first) = codec(first) else { return 1 };
    let is_old = |outgoing: &Outgoing| outgoing.max_timestamp < bounds.oldest_trusted;
    let (mut bytes, mut last, mut count) = (first.batch.len(), first, 1);
    for next in queue.iter().skip(1).take(limits::JOINED_MAX - 1) {
        bytes += next.batch.len();
        let end = last.spans.start().map(|start| start.saturating_add(last.records.into()));
        let follows = next.spans.start() == end && next.leader_epoch == last.leader_epoch;
        let is_alike = next.producer_id == first.producer_id
            && is_old(next) == is_old(first)
            && codec(next) == Some(codec_of_first);
        if bytes > bounds.bytes_max || !is_small(next) || !follows || !is_alike {
            break;
        }
        (last, count) = (next, count + 1);
    }
    count
}

fn is_small(outgoing: &Outgoing) -> bool {
    matches!(outgoing.joining, Joining::Free)
        && outgoing.batch.len() <= limits::JOINED_PART_BYTES_MAX
        && outgoing.ends_place
        && outgoing.spans.start().is_some()
}

fn codec(outgoing: &Outgoing) -> Option<Codec> {
    BatchHeader::parse(&outgoing.batch).ok()?.codec().ok()
}

/// Joins the queue's first `count` batches in their place. What cannot be opened goes as it is from now on, and what its own
/// producer compressed so well that it would be larger than `largest`. Says whether they are one.
fn join(queue: &mut VecDeque<Outgoing>, count: usize, largest: usize) -> bool {
    let batches = queue.iter().take(count).map(|part| &part.batch);
    let merged = merge(batches, limits::JOINED_OPENED_BYTES_MAX).ok();
    let Some(batch) = merged.filter(|batch| batch.len() <= largest) else {
        queue.iter_mut().take(count).for_each(|part| part.joining = Joining::Alone);
        return false;
    };
    let parts: Vec<Outgoing> = queue.drain(..count).collect();
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return false };
    let joined = Outgoing {
        batch,
        next_offset: last.next_offset,
        leader_epoch: last.leader_epoch,
        records: parts.iter().map(|part| part.records).sum(),
        max_timestamp: parts.iter().map(|part| part.max_timestamp).max().unwrap_or(-1),
        fetched_at: first.fetched_at,
        ends_place: true,
        spans: first.spans.clone(),
        producer_id: first.producer_id,
        joining: Joining::Of(parts.iter().map(Part::of).collect()),
    };
    queue.push_front(joined);
    true
}

impl Part {
    fn of(outgoing: &Outgoing) -> Self {
        Self { records: outgoing.records, max_timestamp: outgoing.max_timestamp }
    }
}

/// The parts of a batch that was refused, each to be sent as it is; none if it was not joined.
fn part(joined: &mut Outgoing) -> Option<Vec<Outgoing>> {
    let Joining::Of(parts) = std::mem::replace(&mut joined.joining, Joining::Alone) else {
        return None;
    };
    let counts: Vec<i32> = parts.iter().map(|part| part.records).collect();
    // It was made here, so it can be opened; if not, it goes as it is.
    let batches = cut(&joined.batch, &counts, limits::RECODE_BYTES_MAX).ok()?;
    let mut next_offset = joined.spans.start()?;
    let one = |(part, batch): (&Part, Bytes)| {
        let spans = next_offset.into();
        next_offset = next_offset.saturating_add(part.records.into());
        let Part { records, max_timestamp } = *part;
        Outgoing { batch, next_offset, records, max_timestamp, spans, ..joined.clone() }
    };
    let mut parts: Vec<Outgoing> = parts.iter().zip(batches).map(one).collect();
    // What was stepped over behind it counts with its last part.
    parts.last_mut()?.next_offset = joined.next_offset;
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::batch::HEADER_BYTES;
    use crate::wire::records::BatchBuilder;
    use crate::wire::spans::{Span, Spans};
    use tokio::time::Instant;

    const OLDEST_TRUSTED: i64 = 1_000;
    const BOUNDS: Bounds =
        Bounds { bytes_max: 64 << 10, oldest_trusted: OLDEST_TRUSTED, apart_below: 0 };

    fn batch(codec: Codec, timestamp: i64, value_bytes: usize) -> Bytes {
        let mut builder = BatchBuilder::new(codec);
        builder.push(timestamp, None, Some(&vec![7; value_bytes]), &[]);
        builder.finish().expect("small")
    }

    fn outgoing(offset: i64) -> Outgoing {
        Outgoing {
            batch: batch(Codec::None, 2_000 + offset, 10),
            next_offset: offset + 1,
            leader_epoch: 1,
            records: 1,
            max_timestamp: 2_000 + offset,
            fetched_at: Instant::now(),
            ends_place: true,
            spans: offset.into(),
            producer_id: 1 << 62,
            joining: Joining::Free,
        }
    }

    fn holes() -> Spans {
        [Span::contiguous(3, 1), Span::contiguous(7, 1)].into_iter().collect()
    }

    fn queue(changed: impl FnOnce(&mut Outgoing)) -> VecDeque<Outgoing> {
        let mut queue: VecDeque<_> = (0..6).map(outgoing).collect();
        changed(&mut queue[3]);
        queue
    }

    #[test]
    fn neighbours_that_are_alike_leave_as_one() {
        assert_eq!(alike(&queue(|_| ()), BOUNDS), 6);
        assert_eq!(alike(&VecDeque::new(), BOUNDS), 1);
    }

    #[test]
    fn nothing_is_joined_across_a_difference() {
        type Change = fn(&mut Outgoing);
        let changes: [(&str, Change); 9] = [
            ("epoch", |o| o.leader_epoch = 2),
            ("origin", |o| o.producer_id += 1),
            ("a hole before it", |o| o.spans = 9.into()),
            ("its own holes", |o| o.spans = holes()),
            ("age", |o| o.max_timestamp = OLDEST_TRUSTED - 1),
            ("codec", |o| o.batch = batch(Codec::Lz4, 2_003, 10)),
            ("size", |o| o.batch = batch(Codec::None, 2_003, limits::JOINED_PART_BYTES_MAX)),
            ("a refusal", |o| o.joining = Joining::Alone),
            ("the inside of a batch", |o| o.ends_place = false),
        ];
        for (what, change) in changes {
            assert_eq!(alike(&queue(change), BOUNDS), 3, "{what}");
        }
        let mut stepped_over = queue(|o| o.next_offset += 5);
        stepped_over.iter_mut().skip(4).for_each(|o| {
            o.next_offset += 5;
            o.spans = (o.next_offset - 1).into();
        });
        assert_eq!(alike(&stepped_over, BOUNDS), 4, "a hole behind it, as markers leave it");
        let small = Bounds { bytes_max: 2 * outgoing(0).batch.len() + 1, ..BOUNDS };
        assert_eq!(alike(&queue(|_| ()), small), 2, "no more than the target takes");
        let apart = Bounds { apart_below: 1, ..BOUNDS };
        assert_eq!(alike(&queue(|_| ()), apart), 1, "it was refused with others");
    }

    #[test]
    fn what_is_joined_is_one_stretch_of_the_source() {
        let mut queue = queue(|_| ());
        join(&mut queue, 4, usize::MAX);
        assert_eq!(queue.len(), 3);
        let joined = &queue[0];
        let header = BatchHeader::parse(&joined.batch).expect("whole");
        assert_eq!((header.records_count, joined.records), (4, 4));
        assert_eq!((joined.next_offset, joined.spans.start()), (4, Some(0)));
        assert_eq!((header.max_timestamp, joined.max_timestamp), (2_003, 2_003));
        assert!(joined.ends_place);
    }

    #[test]
    fn what_cannot_be_opened_goes_as_it_is() {
        let mut queue = queue(|o| {
            let mut damaged = o.batch.to_vec();
            damaged[HEADER_BYTES] = 0x7e;
            o.batch = damaged.into();
        });
        join(&mut queue, 4, usize::MAX);
        assert_eq!(queue.len(), 6);
        assert_eq!(alike(&queue, BOUNDS), 1);
    }

    #[test]
    fn what_would_grow_beyond_what_the_target_takes_goes_as_it_is() {
        let mut queue = queue(|_| ());
        let stored = bytes_of(&queue, 4);
        assert!(!join(&mut queue, 4, stored / 4));
        assert_eq!((queue.len(), alike(&queue, BOUNDS)), (6, 1));
    }

    #[test]
    fn a_refused_one_is_taken_apart_for_good() {
        let mut queue = queue(|_| ());
        join(&mut queue, 4, usize::MAX);
        let joined = queue.front_mut().expect("joined");
        // Two offsets were stepped over behind it.
        joined.next_offset = 6;
        let parts = part(joined).expect("it was joined");
        assert_eq!(parts.iter().map(|p| p.next_offset).collect::<Vec<_>>(), [1, 2, 3, 6]);
        assert!(parts.iter().all(|p| matches!(p.joining, Joining::Alone)));
        for (part, offset) in parts.iter().zip(0..) {
            let whole = outgoing(offset);
            let header = |batch: &Bytes| BatchHeader::parse(batch).expect("whole");
            assert_eq!(header(&part.batch).max_timestamp, 2_000 + offset);
            assert_eq!((part.batch.len(), part.records), (whole.batch.len(), 1));
            assert_eq!((part.spans.start(), part.max_timestamp), (Some(offset), 2_000 + offset));
        }
        assert!(part(queue.back_mut().expect("a plain one")).is_none());
    }
}
