//! One mirror's transactions on the target, as a state machine (`delivery: transactional`). PURE.
//!
//! ```text
//!  closed ──▶ opening ──▶ open ──▶ ending ──▶ closed
//!    ▲        partitions   batches   nothing is sent any more; the last acks, then the
//!    │        are added    are sent  position goes into the transaction, and it is ended
//!    └─────────────── anything but success: the mirror begins anew ───────────────┘
//! ```
//!
//! The position lives in the group `strait.<link>` of the *target*, and is committed by the transaction that brings the
//! records: both are there, or neither. So nothing is counted and nothing read back. After any doubt the mirror is given up
//! and begins anew: InitProducerId ends what is open (by a commit that was accepted, else by an abort), fences every other
//! life of the mirror, and the group's stable position says which of the two it was.
//!
//! A window that was refused needs no more care than that: what was appended behind a hole is aborted with it. Therefore a
//! transaction is committed only when every batch of it was acknowledged.
//!
//! A mirror that comes from the other delivery begins as that one does, and goes over in the stages of a [`Switch`].
//!
//! Which of two positions counts, the source group's or the target group's, is told by the [`Era`].

use aws_lc_rs::digest::{SHA256, digest};

use super::group::Committed;
use super::mirror::Settled;
use super::offset_map::OffsetMap;

/// What a coordinator gave a transactional id.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Producer {
    /// Producer id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// The cluster has transactions V2 (KIP-890): leaders add partitions, each end brings another epoch.
    pub v2: bool,
}

/// A stretch of a mirror's life in which the target group holds its position. It begins with a commit to the source group,
/// at a place that the other kind of delivery, or the operator, has left; every position of it has its name. So a position
/// that is left over from an earlier stretch is never taken for one of this.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Era {
    /// Drawn at random.
    pub id: u64,
    /// Whether a transaction of it was ever committed: the target group must hold a position then.
    pub began: bool,
}

/// A place that the mirror has for certain.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Place {
    /// Next source offset.
    pub offset: i64,
    /// Leader epoch of the last batch before it; -1 if unknown.
    pub leader_epoch: i32,
    /// Target offset after the last record before it.
    pub target_offset: i64,
    /// Where all of that is.
    pub map: OffsetMap,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Phase {
    Closed,
    Opening,
    Open,
    Ending,
}

/// The transactions of a mirror, from its beginning on.
#[derive(Clone, Debug, Hash)]
pub struct Transaction {
    producer: Producer,
    next_sequence: i32,
    era: Era,
    phase: Phase,
    stable: Place,
    /// Acknowledged in the open transaction.
    settled: Vec<Settled>,
    bytes: usize,
}

impl Transaction {
    /// Nothing is open, everything below `stable` is on the target, and the source group knows of the era.
    pub fn new(producer: Producer, era: Era, stable: Place) -> Self {
        Self {
            producer,
            next_sequence: 0,
            era,
            phase: Phase::Closed,
            stable,
            settled: Vec::new(),
            bytes: 0,
        }
    }

    /// Under which its batches are written.
    pub fn producer(&self) -> Producer {
        self.producer
    }

    /// Sequence of the next record.
    pub fn next_sequence(&self) -> i32 {
        self.next_sequence
    }

    /// The next record is numbered so: some were sent, or are to be sent again.
    pub fn set_next_sequence(&mut self, sequence: i32) {
        self.next_sequence = sequence;
    }

    /// As it is told in a position.
    pub fn era(&self) -> Era {
        self.era
    }

    /// What the target holds for certain.
    pub fn stable(&self) -> &Place {
        &self.stable
    }

    /// Without a transaction, what is stepped over by rule is stable at once.
    pub fn set_stable(&mut self, offset: i64, leader_epoch: i32) {
        if self.phase == Phase::Closed {
            self.stable.offset = offset;
            self.stable.leader_epoch = leader_epoch;
        }
    }

    /// Nothing is open.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Batches may be sent.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// No more batches; the last acks are waited for.
    pub fn is_ending(&self) -> bool {
        self.phase == Phase::Ending
    }

    /// It is being opened.
    pub fn begin(&mut self) {
        debug_assert!(self.is_closed(), "one transaction at a time");
        self.phase = Phase::Opening;
    }

    /// Its partition is in it, as far as it is for us to say so.
    pub fn opened(&mut self) {
        if self.phase == Phase::Opening {
            self.phase = Phase::Open;
        }
    }

    /// Nothing more goes into it.
    pub fn close(&mut self) {
        if !self.is_closed() {
            self.phase = Phase::Ending;
        }
    }

    /// Notes a batch that was acknowledged.
    pub fn note(&mut self, settled: Settled) {
        self.bytes += settled.bytes;
        match self.settled.last_mut() {
            // One a fetch answer: the time is the same.
            Some(last) if last.fetched_at == settled.fetched_at => {
                last.bytes += settled.bytes;
                last.records = last.records.saturating_add(settled.records);
            }
            _ => self.settled.push(settled),
        }
    }

    /// Acknowledged bytes in the open transaction.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a batch of it was acknowledged.
    pub fn has_written(&self) -> bool {
        !self.settled.is_empty()
    }

    /// It was committed with this place; gives what it brought. `next` is what the next one is written under, where that
    /// is another.
    pub fn ended(&mut self, place: Place, next: Option<Producer>) -> Vec<Settled> {
        self.phase = Phase::Closed;
        self.stable = place;
        self.era.began = true;
        self.bytes = 0;
        if let Some(next) = next.filter(|next| *next != self.producer) {
            self.producer = next;
            self.next_sequence = 0;
        }
        std::mem::take(&mut self.settled)
    }

    /// It was taken back with nothing in it.
    pub fn dropped(&mut self, next: Option<Producer>) {
        let place = self.stable.clone();
        let began = self.era.began;
        self.ended(place, next);
        self.era.began = began;
    }
}

/// A mirror that goes over to transactions once the other delivery is done with. A former life, or an instance that has not
/// heard yet that it lost the mirror, may have the next batch on its way, and under the old numbers the leader takes it:
/// what tells it from ours are those numbers. So they are kept as long as it may come, and then a batch of a newer numbering
/// ends them.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Switch {
    /// Under which its transactions will be.
    pub producer: Producer,
    /// Their era.
    pub era: Era,
    /// How far it is.
    pub stage: Stage,
}

/// How far a mirror is on its way to transactions.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Stage {
    /// A late request may come: it copies on under the old numbers.
    Late,
    /// None can: a new numbering is to be put on record for its next batch.
    Quiet,
    /// That is done. Behind the numbering's first batch the leader refuses the older ones, and the era may begin.
    Renumbered,
}

/// Where a mirror's position is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Not transactional before: by the source group, as it stands.
    Source,
    /// By transactions. `marked`: the source group speaks of the same era.
    Era {
        /// The position, and what it says.
        position: Committed,
        /// The source group knows of the era.
        marked: bool,
    },
    /// By the source group, at the place where an era ended.
    Left,
    /// Transactions were committed, and the target group holds no position of them: it expired, or was deleted.
    Lost,
}

/// Which position counts. `source` and `target` are what the two groups hold.
///
/// A mirror leaves an era with an anchor that still names it, and says that it is over (`closed`). Only then it fences those
/// once more that may have gone on in the era meanwhile, and looks where they came: what is behind the anchor counts.
///
/// The target group's is the truth of its era; one of another era, or beside a source group that speaks of none, is left
/// over. Alone it still counts: the source group's offsets expire earlier where the source's brokers say so.
pub fn find(source: Option<&Committed>, target: Option<&Committed>) -> Found {
    let era_of = |of: &Committed| of.anchor.as_ref().and_then(|anchor| anchor.era);
    let left = source.and_then(|source| source.anchor.as_ref()).is_some_and(|it| it.closed);
    let of_target = target.and_then(|target| Some((target, era_of(target)?)));
    match (source, source.and_then(era_of), of_target) {
        // What was stepped over by rule since is committed to the source group alone.
        (Some(source), Some(era), Some((target, theirs)))
            if theirs.id == era.id && (!left || target.offset > source.offset) =>
        {
            let newer = if source.offset > target.offset { source } else { target };
            Found::Era { position: newer.clone(), marked: true }
        }
        (Some(_), Some(_), _) if left => Found::Left,
        (Some(_), Some(era), _) if era.began => Found::Lost,
        // The era was to begin here, and nothing was committed yet.
        (Some(source), Some(_), _) => Found::Era { position: source.clone(), marked: true },
        (None, _, Some((target, _))) => Found::Era { position: target.clone(), marked: false },
        (Some(_), None, _) | (None, _, None) => Found::Source,
    }
}

/// The longest transactional id that is written out; a topic's name alone may have 249 characters.
const ID_CHARS_MAX: usize = 300;

/// `strait.<link>.<topic>.<partition>`: one a mirror, so that a fault or a fence is one mirror's; the same in every life.
///
/// Where two links could come to the same words, or the words are too long, a hash stands for the topic: `#` is in no
/// topic's name.
pub fn transactional_id(link: &str, topic: &str, partition: i32) -> String {
    let id = format!("strait.{link}.{topic}.{partition}");
    if !link.contains('.') && id.len() <= ID_CHARS_MAX {
        return id;
    }
    let hash = digest(&SHA256, format!("{link}/{topic}").as_bytes());
    let hex: String = hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("strait.{link}.#{hex}.{partition}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::anchor::Anchor;
    use tokio::time::Instant;
    use uuid::Uuid;

    const PRODUCER: Producer = Producer { id: 7, epoch: 2, v2: false };
    const ERA: Era = Era { id: 5, began: false };

    fn place(offset: i64) -> Place {
        Place { offset, leader_epoch: 1, target_offset: offset, map: OffsetMap::new(0) }
    }

    fn committed(offset: i64, era: Option<Era>) -> Committed {
        let anchor = Anchor {
            target_topic_id: Uuid::from_u128(1),
            target_offset: offset,
            source_topic_id: Uuid::from_u128(2),
            source_offset: offset,
            numberings: Vec::new(),
            map: OffsetMap::new(0),
            settings: None,
            closed: false,
            era,
        };
        Committed {
            offset,
            leader_epoch: 1,
            anchor: Some(anchor),
            named: None,
            at_source: Some(offset),
        }
    }

    #[test]
    fn a_transaction_goes_through_its_phases_and_its_place_counts_at_the_end() {
        let mut transaction = Transaction::new(PRODUCER, ERA, place(3));
        transaction.set_stable(6, 1);
        transaction.begin();
        assert!(!transaction.is_open() && !transaction.is_closed());
        transaction.opened();
        transaction.set_next_sequence(4);
        let fetched_at = Instant::now();
        for records in [1, 3] {
            transaction.note(Settled { bytes: 10, records, fetched_at });
        }
        transaction.set_stable(8, 1);
        assert_eq!((transaction.stable().offset, transaction.bytes()), (6, 20));
        transaction.close();
        transaction.opened();
        assert!(transaction.is_ending(), "it is not opened again");
        let brought = transaction.ended(place(10), None);
        assert_eq!(brought, [Settled { bytes: 20, records: 4, fetched_at }]);
        assert_eq!((transaction.stable().offset, transaction.next_sequence()), (10, 4));
        assert!(transaction.era().began && transaction.is_closed());
    }

    #[test]
    fn another_epoch_begins_at_sequence_zero() {
        let mut transaction = Transaction::new(PRODUCER, ERA, place(0));
        for (next, sequence) in [(PRODUCER, 4), (Producer { epoch: 3, ..PRODUCER }, 0)] {
            transaction.begin();
            transaction.set_next_sequence(4);
            transaction.ended(place(1), Some(next));
            assert_eq!((transaction.producer(), transaction.next_sequence()), (next, sequence));
        }
        let mut dropped = Transaction::new(PRODUCER, ERA, place(0));
        dropped.begin();
        dropped.dropped(None);
        assert!(dropped.is_closed() && !dropped.era().began);
    }

    #[test]
    fn the_target_s_position_counts_in_its_own_era_only() {
        let era = |id, began| Some(Era { id, began });
        let (old, new) = (committed(10, era(1, true)), committed(20, era(1, true)));
        let found =
            |position: &Committed, marked| Found::Era { position: position.clone(), marked };
        assert_eq!(find(Some(&old), Some(&new)), found(&new, true), "the source follows");
        assert_eq!(find(Some(&new), Some(&old)), found(&new, true), "only steps lie between");
        let settled = committed(15, era(2, false));
        assert_eq!(find(Some(&settled), Some(&new)), found(&settled, true), "another era's");
        assert_eq!(find(Some(&settled), None), found(&settled, true));
        let begun = committed(15, era(2, true));
        assert_eq!(find(Some(&begun), Some(&new)), Found::Lost);
        assert_eq!(find(Some(&begun), None), Found::Lost);
        assert_eq!(find(Some(&committed(30, None)), Some(&new)), Found::Source, "was set since");
        let mut left = committed(20, era(1, true));
        left.anchor = left.anchor.map(|anchor| Anchor { closed: true, ..anchor });
        let later = committed(25, era(1, true));
        assert_eq!(find(Some(&left), Some(&new)), Found::Left);
        assert_eq!(find(Some(&left), None), Found::Left, "it expires");
        assert_eq!(find(Some(&left), Some(&later)), found(&later, true), "it was not over yet");
        assert_eq!(find(None, Some(&new)), found(&new, false));
        assert_eq!(find(None, Some(&committed(30, None))), Found::Source, "no Strait's");
        assert_eq!(find(None, None), Found::Source);
    }

    #[test]
    fn transactional_ids_are_stable_and_no_two_mirrors_have_one() {
        assert_eq!(transactional_id("a", "b.c", 0), "strait.a.b.c.0");
        let dotted = transactional_id("a.b", "c", 0);
        assert!(dotted.starts_with("strait.a.b.#"), "{dotted}");
        assert_ne!(dotted, transactional_id("a.b", "c", 1));
        assert_ne!(dotted, transactional_id("a.b", "d", 0));
        let long = transactional_id(&"l".repeat(100), &"t".repeat(249), 12);
        assert!(long.len() < ID_CHARS_MAX && long.ends_with(".12"), "{long}");
    }
}
