//! `strait offsets`: where a source offset is on the target, from the anchor that the link committed with its position in
//! the source group. Asks the source cluster alone, and needs no running process.

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Common, Exit, Failure, Output, OutputArg, Screen, load, net};
use crate::cluster::admin;
use crate::config::resolved::Link;
use crate::engine::anchor::Anchor;
use crate::engine::offset_map::Place;
use crate::env::Env;
use crate::error::{Error, Side};
use crate::link::{codes, naming};
use crate::wire::common::TopicPartitions;

/// Which offset.
#[derive(Clone, Debug, Args)]
pub struct OffsetsArgs {
    /// The link
    pub link: String,
    /// Topic on the source
    pub topic: String,
    /// Partition
    #[arg(value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: i32,
    /// Source offset
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    pub offset: i64,
    #[command(flatten)]
    pub output: OutputArg,
}

/// What is known.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer {
    /// By the anchor.
    Known(Place),
    /// Why there is no map.
    Unknown {
        /// `no_position` or `no_map`.
        kind: &'static str,
    },
}

pub(super) fn main(
    args: &OffsetsArgs,
    common: &Common,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let loaded = load(common, screen)?;
    let links = net::links(&loaded.config, Some(&args.link))?;
    let Some(link) = links.first() else { return Ok(Exit::Usage) };
    let target_topic = naming::target_name(link, &args.topic)
        .map_err(|why| Failure::Usage(format!("topic {} {why}", args.topic)))?;
    let answer = net::block_on(async { Ok(ask(&Env::real(), link, args).await?) })?;
    match args.output.output {
        Output::Json => screen.json(
            "strait.offsets/1",
            json!({
                "link": link.name, "topic": args.topic, "partition": args.partition,
                "offset": args.offset, "target": link.to.name, "target_topic": target_topic,
                "answer": answer,
            }),
        )?,
        Output::Table => {
            let (topic, partition, offset) = (&args.topic, args.partition, args.offset);
            let words = words(&answer, &link.name);
            writeln!(
                screen.out,
                "{topic}-{partition} offset {offset} on {}: {words} ({target_topic}-{partition} on {})",
                link.from.name, link.to.name
            )?;
        }
    }
    Ok(match answer {
        Answer::Known(Place::Exact { .. } | Place::Between { .. } | Place::Skipped { .. }) => {
            Exit::Ok
        }
        Answer::Known(Place::NotYet { .. } | Place::Older { .. }) | Answer::Unknown { .. } => {
            Exit::NotTrue
        }
    })
}

async fn ask(env: &Env, link: &std::sync::Arc<Link>, args: &OffsetsArgs) -> Result<Answer, Error> {
    let group = format!("strait.{}", link.name);
    let cluster = net::open(env, &link.from, Side::Source).await?;
    let coordinator = cluster.coordinator(env, &group).await?;
    let asked = TopicPartitions::gather([(args.topic.as_str(), args.partition)]);
    let stored = admin::offset_fetch(&coordinator, &group, Some(asked)).await?;
    let refused = |error| {
        let what = format!("position of group {group}: {error}");
        coordinator.error(codes::POSITION_UNREADABLE, what)
    };
    if stored.error.is_error() {
        return Err(refused(stored.error));
    }
    let found = TopicPartitions::flat(&stored.topics).next().map(|(_, stored)| stored);
    let Some(stored) = found.filter(|stored| stored.offset >= 0 || stored.error.is_error()) else {
        return Ok(Answer::Unknown { kind: "no_position" });
    };
    if stored.error.is_error() {
        return Err(refused(stored.error));
    }
    Ok(match Anchor::parse(&stored.metadata, stored.offset) {
        Ok(anchor) => {
            Answer::Known(anchor.map.place(args.offset, stored.offset, anchor.target_offset))
        }
        Err(_) if args.offset >= stored.offset => {
            Answer::Known(Place::NotYet { committed_offset: stored.offset })
        }
        Err(_) => Answer::Unknown { kind: "no_map" },
    })
}

fn words(answer: &Answer, link: &str) -> String {
    match answer {
        Answer::Known(Place::Exact { target_offset }) => {
            format!("target offset {target_offset}, exactly")
        }
        Answer::Known(Place::Between { target_offset_first: first, target_offset_last: last }) => {
            format!(
                "between target offsets {first} and {last}; the map keeps no more of what is so old"
            )
        }
        Answer::Known(Place::Skipped { next_source_offset, next_target_offset: next }) => {
            match next_source_offset {
                Some(source) => format!(
                    "not copied, by rule; the next copied is source offset {source}, at target offset {next}"
                ),
                None => format!(
                    "not copied, by rule, and nothing behind it yet; the next copy will be at target offset \
                     {next} or later"
                ),
            }
        }
        Answer::Known(Place::NotYet { committed_offset }) => {
            format!("not copied and committed yet; all below {committed_offset} is")
        }
        Answer::Known(Place::Older { known_from }) => format!(
            "not known: the map begins at {known_from}, where this link's present position was named"
        ),
        Answer::Unknown { kind: "no_position" } => {
            format!("not copied: group strait.{link} holds no position of this partition")
        }
        Answer::Unknown { .. } => format!(
            "not known: the position of group strait.{link} was set by another tool and has no map"
        ),
    }
}
