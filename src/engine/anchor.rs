//! The anchor: what a commit in the source group says besides the offset, in its metadata string. With it a later
//! start knows where on the target the copy of that offset ended and under which numbering it was written. PURE.
//!
//! ```text
//! strait4;<target topic id>;<target offset>;<source topic id>;<source offset>;<numberings>;<map begins>;<runs>;<settings>;<end>;<era>
//! numberings  <producer id, hex>.<epoch>.<next sequence>,...
//! runs        <source gap>.<target gap>.<length>,...           newest first; a gap is that to the run before it in the list,
//!             <source gap>.<target gap>.<length>.<length>      of the first to the two offsets; two lengths: not exact
//! settings    see `settings.rs`; `-`: not told
//! end         `closed`: nothing was on its way when the mirror was left, or the era was left; `open`: neither
//! era         <id, hex>.<0 or 1>: the position is the target group's, and 1 that it holds one (`transaction.rs`)
//! ```
//!
//! `strait3` is without the era: each batch counts by itself. `strait1` had one numbering and no map, `strait2` no settings and
//! no end; all three are still read.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::identity::is_ours;
use super::mirror::Lineage;
use super::offset_map::{OffsetMap, Run};
use super::settings::Settings;
use super::transaction::Era;
use crate::limits;

/// The state of a mirror at a committed source offset (rule R0 of the resume rules, see the README's design notes).
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct Anchor {
    /// The topic that was written.
    pub target_topic_id: Uuid,
    /// Target offset after the copy of the last record below the committed offset.
    pub target_offset: i64,
    /// The topic that was read.
    pub source_topic_id: Uuid,
    /// The offset that it was committed with; with another one it says nothing.
    pub source_offset: i64,
    /// The numberings of this mirror.
    pub numberings: Vec<Numbering>,
    /// Where what lies below is.
    pub map: OffsetMap,
    /// What decided the fate of its batches; none if it is not told.
    pub settings: Option<Settings>,
    /// The mirror was left with nothing on its way: no late request of that life can come. In an era: it was left for the
    /// other delivery, which begins here.
    pub closed: bool,
    /// Set where transactions bring the records: the truth is in the target's group.
    pub era: Option<Era>,
}

/// A numbering and how far it is.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Numbering {
    /// Producer id.
    pub producer_id: i64,
    /// Its epoch: (id, epoch) names one numbering, a lineage.
    pub producer_epoch: i16,
    /// Sequence of the next record.
    pub next_sequence: i32,
}

impl Numbering {
    /// Its name.
    pub fn lineage(&self) -> Lineage {
        Lineage { producer_id: self.producer_id, producer_epoch: self.producer_epoch }
    }

    /// No format ever had an id that is not derived. Under one that a broker allocated, another producer's records would be
    /// taken for copies.
    fn is_legal(&self) -> bool {
        is_ours(self.producer_id) && self.producer_epoch >= 0 && self.next_sequence >= 0
    }
}

/// Version of the format; an unknown one is no anchor.
const FORMAT: &str = "strait4";
/// No era.
const FORMAT_3: &str = "strait3";
/// Neither settings nor end.
const FORMAT_2: &str = "strait2";
/// One numbering, no map.
const FORMAT_1: &str = "strait1";

impl Anchor {
    /// The oldest format that holds all of it.
    fn format(&self) -> &'static str {
        match (self.era, self.settings) {
            (Some(_), _) => FORMAT,
            (None, Some(_)) => FORMAT_3,
            (None, None) => FORMAT_2,
        }
    }
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbering =
            |n: &Numbering| format!("{:x}.{}.{}", n.producer_id, n.producer_epoch, n.next_sequence);
        let numberings: Vec<_> = self.numberings.iter().map(numbering).collect();
        write!(
            f,
            "{};{};{};{};{};{};{};{}",
            self.format(),
            self.target_topic_id.simple(),
            self.target_offset,
            self.source_topic_id.simple(),
            self.source_offset,
            numberings.join(","),
            self.map.begins(),
            self.runs(),
        )?;
        if self.format() == FORMAT_2 {
            return Ok(());
        }
        match self.settings {
            Some(settings) => write!(f, ";{settings}")?,
            None => write!(f, ";{UNTOLD}")?,
        }
        write!(f, ";{}", if self.closed { CLOSED } else { OPEN })?;
        match self.era {
            Some(Era { id, began }) => write!(f, ";{id:x}.{}", u8::from(began)),
            None => Ok(()),
        }
    }
}

impl Anchor {
    /// The runs that fit; the oldest of those that do not are one that is not exact.
    fn runs(&self) -> String {
        let mut text = String::new();
        let (mut source, mut target) = (self.source_offset, self.target_offset);
        let mut newest_first = self.map.runs().rev();
        while let Some(run) = newest_first.next() {
            let mut run = run.clone();
            // The last one may need four full numbers.
            if text.len() + 160 > limits::ANCHOR_RUNS_CHARS_MAX {
                newest_first.by_ref().for_each(|older| run.join(older));
            }
            let (gap, target_gap) = (source - run.source.end, target - run.target.end);
            let length = run.source.end - run.source.start;
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(&format!("{gap}.{target_gap}.{length}"));
            if !run.exact {
                text.push_str(&format!(".{}", run.target.end - run.target.start));
            }
            (source, target) = (run.source.start, run.target.start);
        }
        text
    }
}

const CLOSED: &str = "closed";
const OPEN: &str = "open";
/// In the place of settings.
const UNTOLD: &str = "-";

/// The metadata is not an anchor: a reset tool or another client committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnAnchor;

impl Anchor {
    /// From the metadata of a commit of `offset`.
    pub fn parse(text: &str, offset: i64) -> Result<Self, NotAnAnchor> {
        if text.len() > limits::COMMIT_METADATA_CHARS_MAX {
            return Err(NotAnAnchor);
        }
        let mut fields = text.split(';');
        let anchor = match fields.next() {
            Some(FORMAT) => Self::fourth(&mut fields)?,
            Some(FORMAT_3) => Self::third(&mut fields)?,
            Some(FORMAT_2) => Self::second(&mut fields)?,
            Some(FORMAT_1) => Self::first(&mut fields, offset)?,
            _ => return Err(NotAnAnchor),
        };
        let legal = anchor.target_offset >= 0
            && offset >= 0
            && anchor.source_offset == offset
            && anchor.numberings.len() <= limits::ORIGINS_MAX
            && anchor.numberings.iter().all(Numbering::is_legal)
            && fields.next().is_none();
        if legal { Ok(anchor) } else { Err(NotAnAnchor) }
    }

    fn first<'a>(
        fields: &mut impl Iterator<Item = &'a str>,
        offset: i64,
    ) -> Result<Self, NotAnAnchor> {
        let (target_topic_id, target_offset) = (next(fields)?, next(fields)?);
        let numbering = Numbering {
            producer_id: hex(fields.next().ok_or(NotAnAnchor)?)?,
            producer_epoch: next(fields)?,
            next_sequence: next(fields)?,
        };
        Ok(Self {
            target_topic_id,
            target_offset,
            source_topic_id: next(fields)?,
            source_offset: offset,
            numberings: vec![numbering],
            map: OffsetMap::new(offset),
            settings: None,
            closed: false,
            era: None,
        })
    }

    fn fourth<'a>(fields: &mut impl Iterator<Item = &'a str>) -> Result<Self, NotAnAnchor> {
        let anchor = Self::second(fields)?;
        let settings = match fields.next().ok_or(NotAnAnchor)? {
            UNTOLD => None,
            told => Some(settings(told)?),
        };
        let closed = is_closed(fields.next().ok_or(NotAnAnchor)?)?;
        let era = Some(era(fields.next().ok_or(NotAnAnchor)?)?);
        Ok(Self { settings, closed, era, ..anchor })
    }

    fn third<'a>(fields: &mut impl Iterator<Item = &'a str>) -> Result<Self, NotAnAnchor> {
        let anchor = Self::second(fields)?;
        let settings = Some(settings(fields.next().ok_or(NotAnAnchor)?)?);
        let closed = is_closed(fields.next().ok_or(NotAnAnchor)?)?;
        Ok(Self { settings, closed, ..anchor })
    }

    fn second<'a>(fields: &mut impl Iterator<Item = &'a str>) -> Result<Self, NotAnAnchor> {
        let (target_topic_id, target_offset) = (next(fields)?, next(fields)?);
        let (source_topic_id, source_offset) = (next(fields)?, next(fields)?);
        let numberings = list(fields.next().ok_or(NotAnAnchor)?);
        let numbering = |text: &str| {
            let mut parts = text.split('.');
            let numbering = Numbering {
                producer_id: hex(parts.next().ok_or(NotAnAnchor)?)?,
                producer_epoch: next(&mut parts)?,
                next_sequence: next(&mut parts)?,
            };
            if parts.next().is_none() { Ok(numbering) } else { Err(NotAnAnchor) }
        };
        let numberings = numberings.map(numbering).collect::<Result<_, _>>()?;
        let begins: i64 = next(fields)?;
        let (mut source, mut target) = (source_offset, target_offset);
        let mut runs = Vec::new();
        for text in list(fields.next().ok_or(NotAnAnchor)?) {
            let run = run(text, source, target)?;
            (source, target) = (run.source.start, run.target.start);
            runs.push(run);
        }
        if begins < 0 || begins > source {
            return Err(NotAnAnchor);
        }
        let map = OffsetMap::with(begins, runs.into_iter().rev());
        Ok(Self {
            target_topic_id,
            target_offset,
            source_topic_id,
            source_offset,
            numberings,
            map,
            settings: None,
            closed: false,
            era: None,
        })
    }
}

fn settings(text: &str) -> Result<Settings, NotAnAnchor> {
    Settings::parse(text).ok_or(NotAnAnchor)
}

fn is_closed(text: &str) -> Result<bool, NotAnAnchor> {
    match text {
        CLOSED => Ok(true),
        OPEN => Ok(false),
        _ => Err(NotAnAnchor),
    }
}

fn era(text: &str) -> Result<Era, NotAnAnchor> {
    let (id, began) = text.split_once('.').ok_or(NotAnAnchor)?;
    let id = u64::from_str_radix(id, 16).map_err(|_| NotAnAnchor)?;
    match began {
        "0" => Ok(Era { id, began: false }),
        "1" => Ok(Era { id, began: true }),
        _ => Err(NotAnAnchor),
    }
}

/// The run before these two offsets.
fn run(text: &str, source: i64, target: i64) -> Result<Run, NotAnAnchor> {
    let mut parts = text.split('.');
    let mut part = || match parts.next() {
        Some(text) => text.parse().map(Some).map_err(|_| NotAnAnchor),
        None => Ok(None),
    };
    let (gap, target_gap) = (part()?.ok_or(NotAnAnchor)?, part()?.ok_or(NotAnAnchor)?);
    let length = part()?.ok_or(NotAnAnchor)?;
    let target_length: Option<i64> = part()?;
    let back = |from: i64, by: i64| match from.checked_sub(by) {
        Some(to) if by >= 0 && to >= 0 => Ok(to),
        _ => Err(NotAnAnchor),
    };
    let source_end = back(source, gap)?;
    let target_end = back(target, target_gap)?;
    let source = back(source_end, length)?..source_end;
    let target = back(target_end, target_length.unwrap_or(length))?..target_end;
    if part()?.is_some() || source.is_empty() {
        return Err(NotAnAnchor);
    }
    Ok(Run { source, target, exact: target_length.is_none() })
}

fn next<'a, T: FromStr>(fields: &mut impl Iterator<Item = &'a str>) -> Result<T, NotAnAnchor> {
    fields.next().and_then(|field| field.parse().ok()).ok_or(NotAnAnchor)
}

fn hex(text: &str) -> Result<i64, NotAnAnchor> {
    i64::from_str_radix(text, 16).map_err(|_| NotAnAnchor)
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolved::{Isolation, Timestamps};
    use crate::limits::{COMMIT_METADATA_CHARS_MAX, OFFSET_RUNS_MAX, ORIGINS_MAX};

    const OFFSET: i64 = i64::MAX - 1;

    fn anchor(runs: impl IntoIterator<Item = Run>) -> Anchor {
        let numbering =
            Numbering { producer_id: i64::MAX, producer_epoch: i16::MAX, next_sequence: i32::MAX };
        Anchor {
            target_topic_id: Uuid::from_u128(1),
            target_offset: i64::MAX,
            source_topic_id: Uuid::from_u128(2),
            source_offset: OFFSET,
            numberings: vec![numbering; ORIGINS_MAX],
            map: OffsetMap::with(3, runs),
            settings: Some(SETTINGS),
            closed: true,
            era: Some(Era { id: u64::MAX, began: true }),
        }
    }

    const SETTINGS: Settings = Settings {
        isolation: Isolation::ReadCommitted,
        timestamps: Timestamps::AsRead,
        local: true,
        origins: u32::MAX,
        name: u32::MAX,
    };

    fn exact(source: i64, target: i64, length: i64) -> Run {
        Run { source: source..source + length, target: target..target + length, exact: true }
    }

    #[test]
    fn survives_the_round_trip_and_fits() {
        let joined = Run { source: 30..50, target: 12..18, exact: false };
        let small = anchor([exact(3, 0, 10), exact(20, 10, 2), joined, exact(60, 20, 1 << 50)]);
        assert!(small.to_string().starts_with("strait4;"));
        let open = Anchor { closed: false, ..small.clone() };
        let begins = Anchor { era: Some(Era { id: 0, began: false }), ..small.clone() };
        let untold = Anchor { settings: None, ..small.clone() };
        for anchor in [small.clone(), open, begins, untold] {
            let text = anchor.to_string();
            assert_eq!(Anchor::parse(&text, OFFSET), Ok(anchor));
            for wrong in ["", ".", ".2", "x.1", "1", "1.1.1"] {
                let (head, _) = text.rsplit_once(';').unwrap();
                assert!(Anchor::parse(&format!("{head};{wrong}"), OFFSET).is_err(), "{wrong}");
            }
        }
        for closed in [true, false] {
            let third = Anchor { era: None, closed, ..small.clone() };
            assert!(third.to_string().starts_with("strait3;"), "as it was written before");
            assert_eq!(Anchor::parse(&third.to_string(), OFFSET), Ok(third));
        }
        let second = Anchor { settings: None, closed: false, era: None, ..small };
        assert!(second.to_string().starts_with("strait2;"), "as it was written before");
        assert_eq!(Anchor::parse(&second.to_string(), OFFSET), Ok(second));
        // The largest numbers, and as many runs as there may be.
        let step = i64::MAX / (OFFSET_RUNS_MAX as i64 + 1);
        let many = (0..OFFSET_RUNS_MAX as i64).map(|n| exact(3 + n * step, n * step, step / 2));
        let large = anchor(many);
        let text = large.to_string();
        assert!(text.len() < COMMIT_METADATA_CHARS_MAX, "{}", text.len());
        let read = Anchor::parse(&text, OFFSET).unwrap();
        assert_eq!(read.numberings, large.numberings);
        let (read, all): (Vec<_>, Vec<_>) = (read.map.runs().collect(), large.map.runs().collect());
        let exact = read.len() - 1;
        assert!(exact > 8 && !read[0].exact);
        assert_eq!(read[1..], all[all.len() - exact..], "the newest are whole");
        assert_eq!(read[0].source, 3..all[all.len() - exact - 1].source.end, "nothing is dropped");
    }

    #[test]
    fn the_first_format_is_still_read() {
        let id = Uuid::from_u128(1).simple();
        let text = format!("strait1;{id};77;4000000000000001;5;900;{id}");
        let anchor = Anchor::parse(&text, 55).unwrap();
        let numbering =
            Numbering { producer_id: 0x4000_0000_0000_0001, producer_epoch: 5, next_sequence: 900 };
        assert_eq!((anchor.target_offset, &anchor.numberings[..]), (77, &[numbering][..]));
        assert_eq!((anchor.source_offset, anchor.map), (55, OffsetMap::new(55)));
        assert_eq!(Anchor::parse(&text, -55), Err(NotAnAnchor), "of no commit");
        let allocated = text.replace("4000000000000001", "4000000000001");
        assert_eq!(Anchor::parse(&allocated, 55), Err(NotAnAnchor));
    }

    #[test]
    fn foreign_metadata_is_no_anchor() {
        let good = anchor([exact(3, 0, 10)]).to_string();
        assert!(Anchor::parse(&good, OFFSET).is_ok());
        assert_eq!(Anchor::parse(&good, OFFSET - 1), Err(NotAnAnchor), "another offset's");
        let cut = good.rsplit_once(';').unwrap().0;
        let half = good.replace(";closed", ";half");
        let good2 =
            Anchor { settings: None, closed: false, era: None, ..anchor([exact(3, 0, 10)]) }
                .to_string();
        let long = format!("{good};1");
        let negative = good.replace(".32767.", ".-1.");
        // Allocated by a broker, the last before ours, of no producer, and what is never written.
        for id in ["f4240", "3fffffffffffffff", "-1", "-4000000000000001"] {
            let text = good.replacen("7fffffffffffffff", id, 1);
            assert_eq!(Anchor::parse(&text, OFFSET), Err(NotAnAnchor), "{text}");
        }
        let far = format!("{good2},0.0.{}", i64::MAX);
        let empty = format!("{good2},0.0.0");
        let huge = format!("{good2}{}", ",0.0.1.1".repeat(600));
        let texts =
            ["", "NO_METADATA", "strait2", "strait0;1;2", cut, &half, &long, &negative, &far];
        for text in texts.into_iter().chain([&*empty, &huge]) {
            assert_eq!(Anchor::parse(text, OFFSET), Err(NotAnAnchor), "{text}");
        }
    }
}
