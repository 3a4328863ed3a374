//! `strait reset`: the operator's word on where a link goes on. Writes the position to the source group, with a mark that
//! lets the next start begin there whatever the two logs say.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::{Common, Exit, Failure, Output, OutputArg, Screen, load, net};
use crate::cluster::ClusterHandle;
use crate::cluster::admin::{self, Connections};
use crate::config::resolved::Link;
use crate::config::values::parse_time;
use crate::engine::named::Named;
use crate::env::Env;
use crate::error::{Action, Code, Error, Side};
use crate::limits;
use crate::link::codes;
use crate::link::plan::{Planner, View};
use crate::wire::common::TopicPartitions;
use crate::wire::error_code::ErrorCode;
use crate::wire::list_offsets::{EARLIEST, LATEST};
use crate::wire::offset_commit::OffsetToCommit;

/// Which partitions, and where to.
#[derive(Clone, Debug, Args)]
pub struct ResetArgs {
    /// The link; it must not be running
    pub link: String,
    /// One topic on the source; without it, every topic of the link
    #[arg(long)]
    pub topic: Option<String>,
    /// One partition of it; without it, all
    #[arg(long, requires = "topic", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// earliest, latest, a source offset, or a time such as 2026-01-01T00:00:00Z
    #[arg(long)]
    pub to: Place,
    /// Show it, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub output: OutputArg,
}

/// A place in a source log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The log start.
    Earliest,
    /// The end that the link's readers see.
    Latest,
    /// This offset.
    Offset(i64),
    /// The first record at or after this time, milliseconds since 1970; the end if there is none.
    Time(i64),
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ => match text.parse() {
                Ok(offset) if offset >= 0 => Ok(Self::Offset(offset)),
                _ => parse_time(text).map(Self::Time).ok_or(
                    "write earliest, latest, an offset, or a time such as 2026-01-01T00:00:00Z",
                ),
            },
        }
    }
}

/// One partition.
#[derive(Debug, serde::Serialize)]
struct Row {
    topic: String,
    partition: i32,
    /// Where the link stood.
    from_offset: Option<i64>,
    /// Where it goes on.
    to_offset: Option<i64>,
    /// Why nothing was changed.
    error: Option<String>,
    #[serde(skip)]
    named: Named,
}

pub(super) fn main(
    args: &ResetArgs,
    common: &Common,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let loaded = load(common, screen)?;
    let links = net::links(&loaded.config, Some(&args.link))?;
    let Some(link) = links.first().copied() else { return Ok(Exit::Usage) };
    let rows = net::block_on(reset(&Env::real(), link, args))?;
    let failed = rows.iter().any(|row| row.error.is_some());
    match args.output.output {
        Output::Json => screen.json(
            "strait.reset/1",
            json!({ "link": link.name, "group": group(link), "dry_run": args.dry_run, "partitions": rows }),
        )?,
        Output::Table => print(&rows, args.dry_run, screen)?,
    }
    Ok(if failed { Exit::Failed } else { Exit::Ok })
}

fn group(link: &Link) -> String {
    format!("strait.{}", link.name)
}

async fn reset(env: &Env, link: &Arc<Link>, args: &ResetArgs) -> Result<Vec<Row>, Failure> {
    let cluster = net::open(env, &link.from, Side::Source).await?;
    let partitions = chosen(env, link, &cluster, args)?;
    let mut rows = places(env, link, &cluster, args.to, partitions).await;
    let coordinator = cluster.coordinator(env, &group(link)).await?;
    let stored = admin::offset_fetch(&coordinator, &group(link), None).await?;
    if stored.error.is_error() {
        let what = format!("position of group {}: {}", group(link), stored.error);
        return Err(coordinator.error(codes::POSITION_UNREADABLE, what).into());
    }
    let stored: BTreeMap<_, _> = TopicPartitions::flat(&stored.topics)
        .map(|(topic, stored)| ((topic, stored.index), stored))
        .collect();
    for row in &mut rows {
        let Some(stored) = stored.get(&(row.topic.as_str(), row.partition)) else { continue };
        if stored.error.is_error() {
            // Which numbering it speaks of must be known: a new one begins behind it.
            row.error.get_or_insert(stored.error.name().to_owned());
        } else if stored.offset >= 0 {
            row.from_offset = Some(stored.offset);
            row.named = Named::after(&stored.metadata, stored.offset);
        }
    }
    if args.dry_run {
        return Ok(rows);
    }
    let mut good: Vec<_> = rows.iter_mut().filter(|row| row.error.is_none()).collect();
    for some in good.chunks_mut(limits::COMMITS_PER_REQUEST_MAX) {
        let commits = some.iter().map(|row| {
            let offset = row.to_offset.unwrap_or(0);
            let metadata = row.named.to_string();
            let to = OffsetToCommit { index: row.partition, offset, leader_epoch: -1, metadata };
            (row.topic.as_str(), to)
        });
        let topics = TopicPartitions::gather(commits);
        let answer = admin::offset_commit(&coordinator, &group(link), topics).await?;
        let answer: BTreeMap<_, _> = TopicPartitions::flat(&answer)
            .map(|(topic, (index, error))| ((topic, *index), *error))
            .collect();
        for row in some.iter_mut() {
            let code = answer.get(&(row.topic.as_str(), row.partition)).copied();
            match code.unwrap_or(ErrorCode::UNKNOWN_SERVER_ERROR) {
                ErrorCode::NONE => {}
                ErrorCode::UNKNOWN_MEMBER_ID
                | ErrorCode::ILLEGAL_GENERATION
                | ErrorCode::STALE_MEMBER_EPOCH
                | ErrorCode::REBALANCE_IN_PROGRESS => return Err(running(link).into()),
                error => row.error = Some(error.name().to_owned()),
            }
        }
    }
    Ok(rows)
}

/// An instance is a member of the group while it runs; from outside only a group without members may be set.
fn running(link: &Link) -> Error {
    let message = format!("group {} has members: link {} is running", group(link), link.name);
    Error::new(Code(59), Side::Source, Action::Stop, message)
        .cluster(link.from.name.clone())
        .fix("stop every instance of the link, then reset, then start")
}

/// The partitions that are meant.
fn chosen(
    env: &Env,
    link: &Arc<Link>,
    cluster: &ClusterHandle,
    args: &ResetArgs,
) -> Result<Vec<(String, i32)>, Failure> {
    let source = View::from(&*cluster.map());
    let plan =
        Planner::new(link.clone(), BTreeSet::new()).look(&source, &View::default(), env.now());
    if let Some(topic) = &args.topic
        && !plan.selected.contains_key(topic.as_str())
    {
        let what = format!("link {} copies no topic {topic} of {}", link.name, link.from.name);
        return Err(Failure::Usage(what));
    }
    let wanted =
        plan.selected.keys().filter(|topic| args.topic.as_deref().is_none_or(|t| t == &***topic));
    let mut partitions = Vec::new();
    for topic in wanted {
        let count = source.topics.get(topic).map_or(0, |seen| seen.partitions);
        partitions.extend((0..count).map(|partition| (topic.to_string(), partition)));
    }
    partitions.retain(|(_, partition)| args.partition.is_none_or(|wanted| wanted == *partition));
    if partitions.is_empty() {
        let what = match (&args.topic, args.partition) {
            (Some(topic), Some(partition)) => format!("topic {topic} has no partition {partition}"),
            _ => format!("link {} copies no topic of {}", link.name, link.from.name),
        };
        return Err(Failure::Usage(what));
    }
    Ok(partitions)
}

/// The offsets of a place, each within its log.
async fn places(
    env: &Env,
    link: &Link,
    cluster: &ClusterHandle,
    place: Place,
    partitions: Vec<(String, i32)>,
) -> Vec<Row> {
    let isolation = link.isolation.into();
    let connections = Connections::new(cluster.clone());
    let list = async |timestamp| {
        let wanted = partitions.iter().cloned();
        admin::list_offsets_by_leader(&connections, env, isolation, timestamp, wanted).await.offsets
    };
    let starts = list(EARLIEST).await;
    let ends = list(LATEST).await;
    let at_time = match place {
        Place::Time(ms) => list(ms).await,
        Place::Earliest | Place::Latest | Place::Offset(_) => BTreeMap::new(),
    };
    let row = |(topic, partition): &(String, i32)| {
        let key = (topic.clone(), *partition);
        let of = |offsets: &BTreeMap<(String, i32), crate::wire::list_offsets::ListedOffset>| {
            let found = offsets.get(&key).copied();
            let error = found.map_or(ErrorCode::UNKNOWN_SERVER_ERROR, |found| found.error);
            match (found, error) {
                (Some(found), ErrorCode::NONE) => Ok(found.offset),
                (_, error) => Err(error.name().to_owned()),
            }
        };
        let to = of(&starts).and_then(|start| {
            let end = of(&ends)?;
            match place {
                Place::Earliest => Ok(start),
                Place::Latest => Ok(end),
                Place::Time(_) => of(&at_time).map(|at| if at < 0 { end } else { at }),
                Place::Offset(offset) if (start..=end).contains(&offset) => Ok(offset),
                Place::Offset(offset) => {
                    Err(format!("offset {offset} is outside the log, which has {start} to {end}"))
                }
            }
        });
        let (to_offset, error) = match to {
            Ok(to) => (Some(to), None),
            Err(error) => (None, Some(error)),
        };
        let named = Named::default();
        let (topic, partition) = key;
        Row { topic, partition, from_offset: None, to_offset, error, named }
    };
    partitions.iter().map(row).collect()
}

fn print(rows: &[Row], dry_run: bool, screen: &mut Screen<'_>) -> std::io::Result<()> {
    let shown = |offset: Option<i64>| offset.map_or("-".to_owned(), |offset| offset.to_string());
    let lines = rows.iter().map(|row| {
        vec![
            format!("{}-{}", row.topic, row.partition),
            shown(row.from_offset),
            shown(row.to_offset),
            row.error.clone().unwrap_or_default(),
        ]
    });
    let lines = lines.collect::<Vec<_>>();
    screen.table(&["TOPIC-PARTITION", "FROM", "TO", ""], &[1, 2], &lines)?;
    let set = rows.iter().filter(|row| row.error.is_none()).count();
    let done = if dry_run {
        "would be set; nothing was changed"
    } else {
        "set; the next start begins there"
    };
    writeln!(screen.out, "{set} of {} positions {done}", rows.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_word_an_offset_or_a_time() {
        assert_eq!("earliest".parse(), Ok(Place::Earliest));
        assert_eq!("latest".parse(), Ok(Place::Latest));
        assert_eq!("42".parse(), Ok(Place::Offset(42)));
        assert_eq!("2026-01-01T00:00:00Z".parse(), Ok(Place::Time(1_767_225_600_000)));
        for text in ["-1", "end", "", "2026-13-01T00:00:00Z", "9223372036854775808"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
