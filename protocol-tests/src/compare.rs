//! Equality of source and target, field by field.

use std::collections::BTreeMap;
use std::fmt;

/// A record as a foreign reader gave it. Bytes stay in hexadecimal, `null` is null.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// Partition.
    pub partition: i32,
    /// Offset: not compared.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// `CreateTime` or `LogAppendTime`.
    pub timestamp_type: String,
    /// Hexadecimal or `null`.
    pub key: String,
    /// Hexadecimal or `null`.
    pub value: String,
    /// In order, as `name=value,`, both in hexadecimal.
    pub headers: String,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |text: &str| text.chars().take(48).collect::<String>();
        write!(
            f,
            "{}@{} time {} {} key {} value {} ({} hex) headers {}",
            self.partition,
            self.offset,
            self.timestamp,
            self.timestamp_type,
            short(&self.key),
            short(&self.value),
            self.value.len(),
            short(&self.headers),
        )
    }
}

/// Reads the lines that the foreign readers write.
pub fn parse(lines: &str) -> Vec<Record> {
    let number = |field: Option<&str>| field.unwrap().parse::<i64>().unwrap();
    lines
        .lines()
        .map(|line| {
            let mut fields = line.split('\t');
            Record {
                partition: i32::try_from(number(fields.next())).unwrap(),
                offset: number(fields.next()),
                timestamp: number(fields.next()),
                timestamp_type: fields.next().unwrap().into(),
                key: fields.next().unwrap().into(),
                value: fields.next().unwrap().into(),
                headers: fields.next().unwrap().into(),
            }
        })
        .collect()
}

/// By partition, in the order read.
pub fn by_partition(records: &[Record]) -> BTreeMap<i32, Vec<&Record>> {
    let mut partitions: BTreeMap<i32, Vec<&Record>> = BTreeMap::new();
    for record in records {
        partitions.entry(record.partition).or_default().push(record);
    }
    partitions
}

/// The first difference between two reads: everything but the offset must be equal, in order, per partition.
pub fn difference(source: &[Record], target: &[Record]) -> Option<String> {
    let (source, target) = (by_partition(source), by_partition(target));
    let partitions: std::collections::BTreeSet<_> = source.keys().chain(target.keys()).collect();
    for partition in partitions {
        let none = Vec::new();
        let (s, t) =
            (source.get(partition).unwrap_or(&none), target.get(partition).unwrap_or(&none));
        let unlike = |(s, t): (&&Record, &&Record)| {
            (Record { offset: 0, ..(*s).clone() }) != (Record { offset: 0, ..(*t).clone() })
        };
        if let Some(at) = s.iter().zip(t).position(unlike) {
            return Some(format!("record {at}: source {:?}, target {:?}", s[at], t[at]));
        }
        if s.len() != t.len() {
            let more = if s.len() > t.len() { s[t.len()] } else { t[s.len()] };
            let sizes = format!("source has {}, target {}", s.len(), t.len());
            return Some(format!("partition {partition}: {sizes}; first of the rest {more:?}"));
        }
    }
    None
}

/// Panics with the first difference.
#[track_caller]
pub fn assert_equal(source: &[Record], target: &[Record]) {
    if let Some(difference) = difference(source, target) {
        panic!("target differs from source: {difference}");
    }
}

/// Counts and digests agree: the same records in the same order. For topics too big for [`assert_equal`].
#[track_caller]
pub fn assert_same_digest(source: &[crate::agent::Summary], target: &[crate::agent::Summary]) {
    assert_eq!(source.len(), target.len(), "partitions");
    for (s, t) in source.iter().zip(target) {
        assert_eq!((s.count, &s.digest), (t.count, &t.digest), "source {s:?}, target {t:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Vec<Record> {
        parse(&lines.join("\n"))
    }

    #[test]
    fn offsets_may_differ_and_nothing_else() {
        let source =
            read(&["0\t5\t1\tCreateTime\tnull\t00\t", "0\t6\t1\tCreateTime\t\t00\t61=null,"]);
        let same =
            read(&["0\t0\t1\tCreateTime\tnull\t00\t", "0\t1\t1\tCreateTime\t\t00\t61=null,"]);
        assert_eq!(difference(&source, &same), None);
        for changed in [
            "0\t0\t1\tCreateTime\t\t00\t",
            "0\t0\t1\tCreateTime\tnull\tnull\t",
            "0\t0\t2\tCreateTime\tnull\t00\t",
            "0\t0\t1\tLogAppendTime\tnull\t00\t",
            "0\t0\t1\tCreateTime\tnull\t00\t61=,",
            "1\t0\t1\tCreateTime\tnull\t00\t",
        ] {
            let mut target = same.clone();
            target[0] = read(&[changed]).remove(0);
            assert!(difference(&source, &target).is_some(), "{changed}");
        }
    }

    #[test]
    fn order_loss_and_repeats_are_differences() {
        let source = read(&["0\t0\t1\tCreateTime\t\t00\t", "0\t1\t1\tCreateTime\t\t01\t"]);
        let mut swapped = source.clone();
        swapped.reverse();
        assert!(difference(&source, &swapped).is_some());
        assert!(difference(&source, &source[..1]).is_some());
        let twice = [source.clone(), source.clone()].concat();
        assert!(difference(&source, &twice).is_some());
    }
}
