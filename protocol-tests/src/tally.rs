//! What a copy of numbered records lost, repeated and put out of order, for copies that need not be equal.

use std::collections::{BTreeMap, HashSet};
use std::io::BufRead;

/// The numbers of a topic's records, by partition, in the order read.
pub type Numbers = BTreeMap<i32, Vec<u64>>;

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
}

impl Tally {
    /// Counts.
    pub fn of(source: &Numbers, target: &Numbers) -> Self {
        let none = Vec::new();
        let mut tally = Self::default();
        let partitions: HashSet<i32> = source.keys().chain(target.keys()).copied().collect();
        for partition in partitions {
            tally.add(
                source.get(&partition).unwrap_or(&none),
                target.get(&partition).unwrap_or(&none),
            );
        }
        tally
    }

    /// Whether the copy holds each record once and in order.
    pub fn is_exact(&self) -> bool {
        self.source == self.target
            && self.lost + self.duplicated + self.reordered + self.foreign == 0
    }

    fn add(&mut self, source: &[u64], target: &[u64]) {
        self.source += source.len() as u64;
        self.target += target.len() as u64;
        // The producer numbers upwards, so that a source is its own order.
        assert!(source.is_sorted_by(|a, b| a < b), "the source's numbers do not rise");
        let mut seen = vec![false; source.len()];
        let mut furthest = 0;
        for number in target {
            match source.binary_search(number) {
                Err(_) => self.foreign += 1,
                Ok(at) if seen[at] => self.duplicated += 1,
                Ok(at) => {
                    seen[at] = true;
                    self.reordered += u64::from(at < furthest);
                    furthest = furthest.max(at);
                }
            }
        }
        self.lost += seen.iter().filter(|seen| !**seen).count() as u64;
    }
}

/// Reads lines of partition and number.
pub fn parse(lines: impl BufRead) -> Numbers {
    let mut numbers = Numbers::new();
    for line in lines.lines() {
        let line = line.unwrap();
        let (partition, number) = line.split_once('\t').unwrap();
        numbers.entry(partition.parse().unwrap()).or_default().push(number.parse().unwrap());
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(source: &[u64], target: &[u64]) -> Tally {
        let partition = |numbers: &[u64]| Numbers::from([(0, numbers.to_vec())]);
        Tally::of(&partition(source), &partition(target))
    }

    #[test]
    fn an_equal_copy_is_exact() {
        assert!(one(&[3, 5, 9], &[3, 5, 9]).is_exact());
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
        assert_eq!(counts(one(&[1, 2], &[1, 7, 2])), (0, 0, 0, 1));
    }

    #[test]
    fn a_record_in_another_partition_is_lost_and_foreign() {
        let source = parse("0\t1\n1\t2\n".as_bytes());
        let target = parse("0\t1\n0\t2\n".as_bytes());
        let tally = Tally::of(&source, &target);
        assert_eq!((tally.lost, tally.foreign), (1, 1));
    }
}
