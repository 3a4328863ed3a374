//! `strait status`: what the running process says about itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::screen::{Tone, show_bytes, show_count, show_seconds};
use super::{Common, Exit, Failure, Output, OutputArg, Screen, load, net};
use crate::admin::{self, Endpoint, ErrorStatus, LinkStatus, Place, Status};
use crate::config::resolved::Secret;
use crate::config::secrets;
use crate::connection::unusable;
use crate::engine::losses::LossKind;
use crate::env::Env;
use crate::error::{Action, Code, Error, Side};

/// Whose status.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Where the process serves telemetry, host:port or https://host:port; without it, the configuration's `telemetry`
    #[arg(long, env = "STRAIT_TELEMETRY")]
    pub telemetry: Option<Place>,
    /// PEM file of the CA of the --telemetry that is https; without it, the public roots
    #[arg(long, requires = "telemetry")]
    pub telemetry_ca: Option<PathBuf>,
    /// File of the token for --telemetry
    #[arg(long, requires = "telemetry")]
    pub telemetry_token_file: Option<PathBuf>,
    #[command(flatten)]
    pub output: OutputArg,
}

/// Between the two looks that rates are made of.
const APART: Duration = Duration::from_secs(1);

pub(super) fn main(
    args: &StatusArgs,
    common: &Common,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let endpoint = match &args.telemetry {
        Some(place) => {
            let token = args.telemetry_token_file.as_deref().map(token_in).transpose()?;
            Endpoint::at(place.clone(), args.telemetry_ca.as_deref(), token)?
        }
        None => {
            let telemetry = load(common, screen)?.config.telemetry.ok_or_else(|| {
                let what = "the configuration has `telemetry: { listen: off }`";
                Error::new(Code(7), Side::Local, Action::Stop, what)
            })?;
            Endpoint::of(&telemetry)?
        }
    };
    let env = Env::real();
    let wants_rates = args.output.output == Output::Table;
    let (first, status, text) = net::block_on(async {
        let first = if wants_rates {
            let first = look(&env, &endpoint).await?.0;
            tokio::time::sleep(APART).await;
            Some(first)
        } else {
            None
        };
        let (status, text) = look(&env, &endpoint).await?;
        Ok((first, status, text))
    })?;
    match args.output.output {
        // As the process said it: a newer one may say more than this one knows.
        Output::Json => writeln!(screen.out, "{text}")?,
        Output::Table => print(&status, first.as_ref(), screen)?,
    }
    Ok(if status.healthy() { Exit::Ok } else { Exit::NotTrue })
}

fn token_in(path: &Path) -> Result<Secret, Error> {
    let token = secrets::read(path);
    token.map(Secret::new).map_err(|why| unusable(why.what).fix(why.fix))
}

async fn look(env: &Env, endpoint: &Endpoint) -> Result<(Status, String), Failure> {
    let text = admin::get(env, endpoint, "/status").await?;
    let status = serde_json::from_str(&text).map_err(|error| {
        let what = format!("{endpoint} answered, and not with {}: {error}", Status::SCHEMA);
        Error::new(Code(7), Side::Local, Action::Stop, what)
    })?;
    Ok((status, text))
}

fn print(status: &Status, first: Option<&Status>, screen: &mut Screen<'_>) -> std::io::Result<()> {
    let rows = status.links.iter().map(|link| {
        let before = first.and_then(|first| first.links.iter().find(|l| l.link == link.link));
        let rate = |now: u64, then: Option<u64>| {
            then.map_or("-".to_owned(), |then| show_bytes(now.saturating_sub(then) as f64))
        };
        let ok = link.partition_states.get("ok").copied().unwrap_or(0)
            + link.partition_states.get("catching_up").copied().unwrap_or(0);
        vec![
            link.link.clone(),
            format!(
                "{} → {}{}",
                link.source,
                link.target,
                if link.target_tls { " (TLS)" } else { "" }
            ),
            link.state.to_uppercase(),
            format!("{ok}/{}", link.partitions),
            show_seconds(link.delay_seconds),
            show_count(link.lag_offsets),
            rate(link.fetched_bytes, before.map(|b| b.fetched_bytes)),
            rate(link.acked_bytes, before.map(|b| b.acked_bytes)),
            link.relay_p99_seconds.map_or("-".to_owned(), |s| format!("{:.0} ms", s * 1000.0)),
        ]
    });
    let rows = rows.collect::<Vec<_>>();
    let heading =
        ["LINK", "SOURCE → TARGET", "STATE", "PARTS", "DELAY", "LAG", "IN/s", "OUT/s", "p99 RELAY"];
    screen.table(&heading, &[3, 4, 5, 6, 7, 8], &rows)?;
    for link in &status.links {
        troubles(link, screen)?;
        losses(link, screen)?;
    }
    let clusters = status.clusters.iter();
    let refused = clusters.map(|one| (format!("cluster {}", one.cluster), &one.files_refused));
    let own = ("telemetry".to_owned(), &status.telemetry.files_refused);
    for (whose, error) in refused.chain([own]) {
        if let Some(error) = error {
            let line = format!("  ! {whose}  FILES NOT USED  {}", one_line(error));
            writeln!(screen.out, "{}", screen.paint(Tone::Bad, &line))?;
        }
    }
    let tone = if status.healthy() { Tone::Good } else { Tone::Bad };
    let worst = screen.paint(tone, &status.worst.to_uppercase());
    let draining = if status.draining { " · draining" } else { "" };
    let links = status.links.len();
    writeln!(screen.out, "{links} links · worst {worst}{draining} · strait {}", status.version)
}

fn troubles(link: &LinkStatus, screen: &mut Screen<'_>) -> std::io::Result<()> {
    let mut lines = Vec::new();
    if let Some(error) = &link.error {
        lines.push((link.link.clone(), "FAILED".to_owned(), Some(error)));
    }
    if let Some(error) = &link.group_error {
        lines.push(("position".to_owned(), "NOT COMMITTED".to_owned(), Some(error)));
    }
    for (topic, error) in &link.blocked_topics {
        lines.push((topic.clone(), "BLOCKED".to_owned(), Some(error)));
    }
    for mirror in &link.troubled {
        let at = mirror.acked.map_or(String::new(), |offset| format!(" at offset {offset}"));
        let name = format!("{}-{}", mirror.topic, mirror.partition);
        lines.push((name, format!("{}{at}", mirror.state.to_uppercase()), mirror.error.as_ref()));
    }
    for (what, state, error) in lines {
        let why = error.map_or(String::new(), |error| format!("  {}", one_line(error)));
        let line = screen.paint(Tone::Bad, &format!("  ! {}  {what}  {state}{why}", link.link));
        writeln!(screen.out, "{line}")?;
    }
    let untold = link.troubled_total - link.troubled.len().min(link.troubled_total);
    if untold > 0 {
        writeln!(screen.out, "  ! {}  and {untold} more", link.link)?;
    }
    Ok(())
}

/// What was lost or stepped over, by its source offsets.
fn losses(link: &LinkStatus, screen: &mut Screen<'_>) -> std::io::Result<()> {
    for loss in &link.losses {
        let kind = match loss.kind {
            LossKind::Gap => "GAP",
            LossKind::Truncated => "TRUNCATED",
            LossKind::Recreated => "RE-CREATED",
            LossKind::Poison => "POISON",
        };
        let offset = |offset: Option<i64>| offset.map_or("?".to_owned(), |o| o.to_string());
        let last = loss.to_offset.map(|to| to - 1);
        let (from, to) = (offset(loss.from_offset), offset(last));
        let (tone, what) = match loss.continued {
            true => (Tone::Warn, "passed by"),
            false => (Tone::Bad, "stopped at"),
        };
        let (name, topic, partition, why) = (&link.link, &loss.topic, loss.partition, &loss.reason);
        let line = format!("  - {name}  {topic}-{partition}  {kind} {from} to {to} {what}  {why}");
        writeln!(screen.out, "{}", screen.paint(tone, &line))?;
    }
    Ok(())
}

fn one_line(error: &ErrorStatus) -> String {
    let place = if error.place.is_empty() { String::new() } else { format!("{}: ", error.place) };
    let fix = if error.fix.is_empty() { String::new() } else { format!("  fix: {}", error.fix) };
    format!("{} {place}{}{fix}", error.code, error.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::LossStatus;

    #[test]
    fn the_table_names_each_loss_by_its_offsets() {
        let loss = |kind, from, to, continued| LossStatus {
            topic: "orders".to_owned(),
            partition: 3,
            kind,
            from_offset: from,
            to_offset: to,
            continued,
            at_ms: 0,
            reason: "because".to_owned(),
        };
        let losses = vec![
            loss(LossKind::Gap, Some(10), Some(20), true),
            loss(LossKind::Truncated, Some(7), Some(9), false),
            loss(LossKind::Recreated, None, None, true),
        ];
        let link = LinkStatus { link: "east-to-west".to_owned(), losses, ..LinkStatus::default() };
        let status = Status { links: vec![link], ..Status::default() };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut screen =
            Screen { out: Box::new(&mut out), err: Box::new(&mut err), color: false, live: false };
        print(&status, None, &mut screen).unwrap();
        drop(screen);
        let table = String::from_utf8(out).unwrap();
        for line in [
            "  - east-to-west  orders-3  GAP 10 to 19 passed by  because\n",
            "  - east-to-west  orders-3  TRUNCATED 7 to 8 stopped at  because\n",
            "  - east-to-west  orders-3  RE-CREATED ? to ? passed by  because\n",
        ] {
            assert!(table.contains(line), "{table}");
        }
    }
}
