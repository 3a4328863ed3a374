//! What a copy of numbered records lost, repeated and put out of order, for copies that need not be equal. A bit for each
//! number and a checksum for each writer: memory does not grow with what the records hold.
//!
//! A number is a writer's name ([`WRITER_BITS`] from the top) and that writer's own count upwards, so that several writers
//! can be told apart in one topic: between them there is no order, only within each.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};

/// The lower bits of a number are the writer's count, those above its name.
pub const WRITER_BITS: u32 = 40;

/// A record as a reader gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Who wrote it, and the how-manyeth it was.
    pub number: u64,
    /// Over timestamp, its type, key, value and headers.
    pub sum: u32,
}

/// Offsets of one partition that hold nothing but records which were there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stretch {
    /// Partition.
    pub partition: i32,
    /// First offset.
    pub from: i64,
    /// The offset after the last.
    pub to: i64,
}

/// What a topic holds.
#[derive(Clone, Debug, Default)]
pub struct Held {
    strands: BTreeMap<(i32, u64), Strand>,
    /// Records, repeats included.
    pub records: u64,
    /// Records that had been there before.
    pub doubled: u64,
    /// Where those are, by partition and offset.
    pub doubles: Vec<Stretch>,
}

/// What one writer wrote to one partition.
#[derive(Clone, Debug, Default)]
struct Strand {
    seen: Vec<u64>,
    furthest: Option<u64>,
    reordered: u64,
    /// Over the sums of the records, each at its first time, in order.
    sum: u32,
}

impl Held {
    /// Of records in the order of their offsets.
    pub fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut held = Self::default();
        entries.into_iter().for_each(|entry| held.add(entry));
        held
    }

    /// Reads what Kafka's Java client wrote (see `java/Dump.java`).
    pub fn read(mut file: impl Read) -> Self {
        let mut held = Self::default();
        let mut bytes = [0; 24];
        loop {
            match file.read_exact(&mut bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return held,
                Err(error) => panic!("{error}"),
            }
            let number =
                |from: usize| u64::from_be_bytes(bytes[from..from + 8].try_into().unwrap());
            held.add(Entry {
                partition: i32::from_be_bytes(bytes[..4].try_into().unwrap()),
                offset: number(4).cast_signed(),
                number: number(12),
                sum: u32::from_be_bytes(bytes[20..].try_into().unwrap()),
            });
        }
    }

    fn add(&mut self, entry: Entry) {
        let Entry { partition, offset, number, sum } = entry;
        self.records += 1;
        let strand = self.strands.entry((partition, number >> WRITER_BITS)).or_default();
        if strand.note(number & ((1 << WRITER_BITS) - 1), sum) {
            return;
        }
        self.doubled += 1;
        let last = self.doubles.iter_mut().rev().find(|last| last.partition == partition);
        match last {
            Some(last) if last.to == offset => last.to += 1,
            _ => self.doubles.push(Stretch { partition, from: offset, to: offset + 1 }),
        }
    }

    /// How many of a writer's records are there, repeats left out.
    pub fn of_writer(&self, writer: u64) -> u64 {
        let strands = self.strands.iter().filter(|((_, of), _)| *of == writer);
        strands.map(|(_, strand)| strand.count()).sum()
    }

    fn reordered(&self) -> u64 {
        self.strands.values().map(|strand| strand.reordered).sum()
    }
}

impl Strand {
    /// Notes a record; says whether it is there for the first time.
    fn note(&mut self, count: u64, sum: u32) -> bool {
        let at = usize::try_from(count / 64).unwrap();
        if self.seen.len() <= at {
            self.seen.resize(at + 1, 0);
        }
        let bit = 1 << (count % 64);
        if self.seen[at] & bit != 0 {
            return false;
        }
        self.seen[at] |= bit;
        self.reordered += u64::from(self.furthest.is_some_and(|furthest| count < furthest));
        self.furthest = self.furthest.max(Some(count));
        self.sum = crc32c::crc32c_append(self.sum, &sum.to_be_bytes());
        true
    }

    fn count(&self) -> u64 {
        self.seen.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// How many of these the other has not.
    fn without(&self, other: Option<&Self>) -> u64 {
        let Some(other) = other else { return self.count() };
        let others = other.seen.iter().chain(std::iter::repeat(&0));
        self.seen
            .iter()
            .zip(others)
            .map(|(own, other)| u64::from((own & !other).count_ones()))
            .sum()
    }
}

/// The difference between a source and its copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records on the source.
    pub source: u64,
    /// Records on the target, repeats included.
    pub target: u64,
    /// On the source, and not on the target in the same partition.
    pub lost: u64,
    /// On the target once more than the first time.
    pub duplicated: u64,
    /// First seen on the target behind one that follows it on the source.
    pub reordered: u64,
    /// On the target, and not on the source in the same partition.
    pub foreign: u64,
    /// Writers and partitions whose records are all there, in order, and not all as they were.
    pub changed: u64,
}

impl Tally {
    /// Counts.
    pub fn of(source: &Held, target: &Held) -> Self {
        // The producers number upwards, so that a source is its own order.
        assert_eq!(source.reordered(), 0, "the source's numbers do not rise");
        assert_eq!(source.doubled, 0, "the source's own writer repeated itself");
        let mut tally = Self {
            source: source.records,
            target: target.records,
            duplicated: target.doubled,
            reordered: target.reordered(),
            ..Self::default()
        };
        for (place, strand) in &source.strands {
            let copy = target.strands.get(place);
            let lost = strand.without(copy);
            tally.lost += lost;
            let comparable = lost == 0 && copy.is_some_and(|copy| copy.reordered == 0);
            tally.changed +=
                u64::from(comparable && copy.is_some_and(|copy| copy.sum != strand.sum));
        }
        for (place, strand) in &target.strands {
            tally.foreign += strand.without(source.strands.get(place));
        }
        tally
    }

    /// Whether the copy holds each record once and in order.
    pub fn is_exact(&self) -> bool {
        self.duplicated == 0 && self.is_exact_but_for_doubles()
    }

    /// The same where records may be there more than once.
    pub fn is_exact_but_for_doubles(&self) -> bool {
        self.source + self.duplicated == self.target
            && self.lost + self.reordered + self.foreign + self.changed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(entries: &[(i32, u64, u32)]) -> Held {
        let mut offsets = BTreeMap::new();
        Held::of(entries.iter().map(|(partition, number, sum)| {
            let next = offsets.entry(*partition).or_insert(0);
            *next += 1;
            Entry { partition: *partition, offset: *next - 1, number: *number, sum: *sum }
        }))
    }

    fn one(source: &[u64], target: &[u64]) -> Tally {
        let side = |numbers: &[u64]| {
            held(&numbers.iter().map(|number| (0, *number, 7)).collect::<Vec<_>>())
        };
        Tally::of(&side(source), &side(target))
    }

    #[test]
    fn an_equal_copy_is_exact() {
        assert!(one(&[3, 5, 9], &[3, 5, 9]).is_exact());
        assert!(one(&[3, 5, 900], &[3, 5, 900]).is_exact());
        assert!(!one(&[3, 5, 9], &[3, 5]).is_exact());
        assert!(!one(&[], &[3]).is_exact());
    }

    #[test]
    fn each_fault_is_counted_as_itself() {
        let counts = |t: Tally| (t.lost, t.duplicated, t.reordered, t.foreign);
        assert_eq!(counts(one(&[1, 2, 3, 4], &[1, 4])), (2, 0, 0, 0));
        // A reader that went back: repeats are no reordering.
        assert_eq!(counts(one(&[1, 2, 3, 4], &[1, 2, 3, 1, 2, 3, 4])), (0, 3, 0, 0));
        assert_eq!(counts(one(&[1, 2, 3, 4], &[1, 4, 2, 3])), (0, 0, 2, 0));
        // What follows a stranger with a higher number counts as out of order, too.
        assert_eq!(counts(one(&[1, 2], &[1, 7, 2])), (0, 0, 1, 1));
        assert_eq!(counts(one(&[1, 200], &[1, 500])), (1, 0, 0, 1));
    }

    #[test]
    fn a_record_in_another_partition_is_lost_and_foreign() {
        let tally = Tally::of(&held(&[(0, 1, 0), (1, 2, 0)]), &held(&[(0, 1, 0), (0, 2, 0)]));
        assert_eq!((tally.lost, tally.foreign), (1, 1));
    }

    #[test]
    fn a_record_that_is_another_is_changed_and_a_repeat_does_not_hide_it() {
        let source = held(&[(0, 1, 5), (0, 2, 6)]);
        assert!(Tally::of(&source, &held(&[(0, 1, 5), (0, 2, 6)])).is_exact());
        assert_eq!(Tally::of(&source, &held(&[(0, 1, 5), (0, 2, 9)])).changed, 1);
        let twice = Tally::of(&source, &held(&[(0, 1, 5), (0, 1, 5), (0, 2, 6)]));
        assert_eq!((twice.changed, twice.duplicated), (0, 1));
        assert!(twice.is_exact_but_for_doubles() && !twice.is_exact());
    }

    #[test]
    fn writers_have_an_order_each_and_none_between_them() {
        let other = 1 << WRITER_BITS;
        let source = held(&[(0, 1, 5), (0, 2, 6), (0, other, 7), (0, other + 1, 8)]);
        let mixed = held(&[(0, other, 7), (0, 1, 5), (0, other + 1, 8), (0, 2, 6)]);
        assert!(Tally::of(&source, &mixed).is_exact());
        assert_eq!((mixed.of_writer(0), mixed.of_writer(1)), (2, 2));
        let turned = held(&[(0, other + 1, 8), (0, 1, 5), (0, other + 2, 7), (0, 2, 6)]);
        assert!(!Tally::of(&source, &turned).is_exact());
    }

    #[test]
    fn doubles_are_told_by_their_offsets() {
        let entries: Vec<_> = [1, 2, 3, 2, 3, 4, 1].map(|number| (0, number, 0)).into();
        let held = held(&entries);
        let at = |from, to| Stretch { partition: 0, from, to };
        assert_eq!((held.doubled, held.doubles), (3, vec![at(3, 5), at(6, 7)]));
    }

    #[test]
    fn entries_are_read_as_the_java_client_writes_them() {
        let mut bytes = Vec::new();
        for (partition, offset, number, sum) in [(2, 5_i64, 70_u64, 9_u32), (2, 6, 70, 9)] {
            bytes.extend(i32::to_be_bytes(partition));
            bytes.extend(offset.to_be_bytes());
            bytes.extend(number.to_be_bytes());
            bytes.extend(sum.to_be_bytes());
        }
        let held = Held::read(&bytes[..]);
        assert_eq!((held.records, held.doubled, held.of_writer(0)), (2, 1, 1));
        assert_eq!(held.doubles, [Stretch { partition: 2, from: 6, to: 7 }]);
    }
}
