//! `strait lag`: how far each partition's committed position is behind the source's end, asked from the source cluster
//! itself, so that it works without a running process, and shows what any Kafka lag tool shows.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde_json::json;

use super::screen::{Tone, show_count};
use super::{Common, Exit, Failure, Output, OutputArg, Screen, load, net};
use crate::cluster::admin::{self, Connections};
use crate::config::resolved::Link;
use crate::env::Env;
use crate::error::{Error, Side};
use crate::link::plan::{Planner, View};
use crate::wire::common::TopicPartitions;
use crate::wire::error_code::ErrorCode;
use crate::wire::list_offsets::LATEST;

/// Whose lag.
#[derive(Clone, Debug, Args)]
pub struct LagArgs {
    /// One link; without it, all
    pub link: Option<String>,
    /// Rows for each link, the largest lag first
    #[arg(long, default_value_t = 20)]
    pub top: usize,
    #[command(flatten)]
    pub output: OutputArg,
}

/// One partition.
#[derive(Debug, serde::Serialize)]
struct Row {
    topic: String,
    partition: i32,
    source_end_offset: Option<i64>,
    committed_offset: Option<i64>,
    lag_offsets: Option<u64>,
    error: Option<String>,
}

/// One link.
#[derive(Debug, Default, serde::Serialize)]
struct LinkLag {
    link: String,
    group: String,
    source: String,
    lag_offsets: u64,
    /// Partitions without a committed position.
    unknown: usize,
    error: Option<String>,
    partitions: Vec<Row>,
}

pub(super) fn main(
    args: &LagArgs,
    common: &Common,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let loaded = load(common, screen)?;
    let links = net::links(&loaded.config, args.link.as_deref())?;
    let env = Env::real();
    let lags = net::block_on(async {
        Ok(futures_util::future::join_all(links.into_iter().map(|link| of(&env, link))).await)
    })?;
    let failed = lags.iter().any(|lag| lag.error.is_some());
    match args.output.output {
        Output::Json => screen.json("strait.lag/1", json!({ "links": lags }))?,
        Output::Table => {
            for lag in &lags {
                print(lag, args.top, screen)?;
            }
        }
    }
    Ok(if failed { Exit::Failed } else { Exit::Ok })
}

async fn of(env: &Env, link: &std::sync::Arc<Link>) -> LinkLag {
    let mut lag = LinkLag {
        link: link.name.clone(),
        group: format!("strait.{}", link.name),
        source: link.from.name.clone(),
        ..LinkLag::default()
    };
    match rows(env, link, &lag.group).await {
        Ok(rows) => lag.partitions = rows,
        Err(error) => lag.error = Some(error.to_string()),
    }
    lag.lag_offsets = lag.partitions.iter().filter_map(|row| row.lag_offsets).sum();
    lag.unknown = lag.partitions.iter().filter(|row| row.lag_offsets.is_none()).count();
    lag
}

async fn rows(env: &Env, link: &std::sync::Arc<Link>, group: &str) -> Result<Vec<Row>, Error> {
    let cluster = net::open(env, &link.from, Side::Source).await?;
    let source = View::from(&*cluster.map());
    let plan =
        Planner::new(link.clone(), BTreeSet::new()).look(&source, &View::default(), env.now());
    let wanted = plan.selected.keys().flat_map(|topic| {
        let partitions = source.topics.get(topic).map_or(0, |seen| seen.partitions);
        (0..partitions).map(|partition| (topic.to_string(), partition))
    });
    let isolation = link.isolation.into();
    let connections = Connections::new(cluster.clone());
    let ends = admin::list_offsets_by_leader(&connections, env, isolation, LATEST, wanted).await;
    let coordinator = cluster.coordinator(env, group).await?;
    let positions = admin::offset_fetch(&coordinator, group, None).await?;
    if positions.error.is_error() {
        let what = format!("position of group {group}: {}", positions.error);
        return Err(coordinator.error(crate::link::codes::POSITION_UNREADABLE, what));
    }
    let committed = TopicPartitions::flat(&positions.topics)
        .filter(|(_, stored)| !stored.error.is_error() && stored.offset >= 0)
        .map(|(topic, stored)| ((topic.to_owned(), stored.index), stored.offset))
        .collect::<BTreeMap<_, _>>();
    let rows = ends.offsets.into_iter().map(|((topic, partition), end)| {
        let committed_offset = committed.get(&(topic.clone(), partition)).copied();
        let source_end_offset = (end.error == ErrorCode::NONE).then_some(end.offset);
        let lag = source_end_offset.zip(committed_offset).map(|(end, at)| end.saturating_sub(at));
        Row {
            topic,
            partition,
            source_end_offset,
            committed_offset,
            lag_offsets: lag.map(|lag| u64::try_from(lag).unwrap_or(0)),
            error: end.error.is_error().then(|| end.error.name().to_owned()),
        }
    });
    Ok(rows.collect())
}

fn print(lag: &LinkLag, top: usize, screen: &mut Screen<'_>) -> std::io::Result<()> {
    let total = show_count(lag.lag_offsets);
    let unknown = match lag.unknown {
        0 => String::new(),
        n => format!(", {n} partitions without a position"),
    };
    let group = screen.paint(Tone::Faint, &format!("group {} on {}", lag.group, lag.source));
    writeln!(screen.out, "{}  lag {total}{unknown}  {group}", lag.link)?;
    if let Some(error) = &lag.error {
        let line = screen.paint(Tone::Bad, &format!("  ! {error}"));
        return writeln!(screen.out, "{line}");
    }
    let mut rows = lag.partitions.iter().collect::<Vec<_>>();
    // Partitions without a figure first: they are the ones to look at.
    rows.sort_by_key(|row| std::cmp::Reverse(row.lag_offsets.unwrap_or(u64::MAX)));
    let count =
        |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).map_or("-".to_owned(), show_count);
    let shown = rows.iter().take(top).map(|row| {
        vec![
            format!("  {}-{}", row.topic, row.partition),
            count(row.source_end_offset),
            count(row.committed_offset),
            row.lag_offsets.map_or("-".to_owned(), show_count),
            row.error.clone().unwrap_or_default(),
        ]
    });
    let shown = shown.collect::<Vec<_>>();
    let heading = ["  TOPIC-PARTITION", "SRC END", "COMMITTED", "LAG", ""];
    screen.table(&heading, &[1, 2, 3], &shown)?;
    if rows.len() > top {
        let line = format!("  and {} more; --top {} shows all", rows.len() - top, rows.len());
        writeln!(screen.out, "{}", screen.paint(Tone::Faint, &line))?;
    }
    Ok(())
}
