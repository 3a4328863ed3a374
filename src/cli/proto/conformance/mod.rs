//! `strait proto conformance`: the rules of a broker that Strait relies on, asked of any Kafka-compatible cluster in topics
//! of its own.
//!
//! A rule is a value in a table ([`rule::Rule`]), its check a function beside it; the tables are by what is asked:
//! `produce`, `sequences`, `fetch`, `positions`, `groups`, `topics`, `transactions`. Everything goes by the connections and
//! decoders that copying uses, so that what is checked is what Strait would see. Never changes what it has not made itself:
//! topics `strait.conformance.<random>*`, and the group and transactional ids of that name.

mod bench;
mod craft;
mod fetch;
mod groups;
mod positions;
mod produce;
mod report;
mod rule;
mod sequences;
mod topics;
mod transactions;

use clap::Args;

use super::super::run::Signals;
use super::super::{Common, Exit, Failure, OutputArg, Screen, net};
use super::Whom;
use super::versions::Role;
use crate::env::Env;
use crate::error::{Error, Side};
use bench::Bench;
use rule::{Rule, Verdict};

/// Which cluster, and which rules.
#[derive(Clone, Debug, Args)]
pub struct ConformanceArgs {
    #[command(flatten)]
    pub whom: Whom,
    /// What the cluster is to be: rules that concern the other side alone are left out
    #[arg(long = "as", value_enum, default_value_t)]
    pub role: Role,
    /// Only rules whose id begins so, such as `sequence.`
    #[arg(long, value_name = "ID")]
    pub only: Vec<String>,
    /// Show the rules and ask nothing
    #[arg(long)]
    pub list: bool,
    #[command(flatten)]
    pub output: OutputArg,
}

/// A rule, and what the cluster does about it.
struct Judged {
    rule: &'static Rule,
    verdict: Verdict,
}

/// All rules, in the order in which they are asked.
fn rules() -> impl Iterator<Item = &'static Rule> {
    let tables: [&'static [Rule]; 7] = [
        topics::RULES,
        produce::RULES,
        sequences::RULES,
        fetch::RULES,
        positions::RULES,
        groups::RULES,
        transactions::RULES,
    ];
    tables.into_iter().flatten()
}

pub(super) fn main(
    args: &ConformanceArgs,
    common: &Common,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let chosen = rules().filter(|rule| {
        let named = args.only.is_empty() || args.only.iter().any(|only| rule.id.starts_with(only));
        named && args.role.needs(rule.role)
    });
    let chosen = chosen.collect::<Vec<_>>();
    if chosen.is_empty() {
        return Err(Failure::Usage("no rule has such an id; --list shows them".to_owned()));
    }
    if args.list {
        report::listed(args, &chosen, screen)?;
        return Ok(Exit::Ok);
    }
    let cluster = args.whom.resolve(common, screen)?;
    net::block_on(Box::pin(async {
        let mut signals = Signals::install()?;
        let env = Env::real();
        let handle = net::open(&env, &cluster, Side::Target).await?;
        let mut bench = Bench::new(&env, &handle);
        // Whatever is dropped here half way is behind the removal.
        let judged = tokio::select! {
            judged = judge(&mut bench, &chosen, screen) => Some(judged),
            () = signals.next() => None,
        };
        screen.erase_line();
        let left = tokio::select! {
            left = bench.remove() => left,
            () = signals.next() => bench.left(),
        };
        for error in &left {
            writeln!(screen.err, "{error}")?;
        }
        let Some(judged) = judged else {
            let gone = if left.is_empty() { "; its topics are removed" } else { "" };
            writeln!(screen.err, "interrupted{gone}")?;
            return Ok(Exit::Failed);
        };
        let judged = judged?;
        let ok = !judged.iter().any(Judged::is_against);
        report::judged(args, &bench.topic, &judged, left.is_empty(), screen)?;
        Ok(match (ok, left.is_empty()) {
            (_, false) => Exit::Failed,
            (true, true) => Exit::Ok,
            (false, true) => Exit::NotTrue,
        })
    }))
}

/// Asks every rule. One that cannot be asked is one that does not hold; only without topics there is no verdict at all.
async fn judge(
    bench: &mut Bench<'_>,
    chosen: &[&'static Rule],
    screen: &mut Screen<'_>,
) -> Result<Vec<Judged>, Error> {
    tell(screen, &format!("making topics {}*", bench.topic));
    bench.make().await?;
    let mut judged = Vec::with_capacity(chosen.len());
    for rule in chosen {
        tell(screen, &format!("{} of {}: {}", judged.len() + 1, chosen.len(), rule.id));
        let outcome = bench.ask(rule).await;
        judged.push(Judged { rule, verdict: Verdict::of(outcome) });
    }
    Ok(judged)
}

fn tell(screen: &mut Screen<'_>, what: &str) {
    if screen.live {
        screen.replace_line(what);
    }
}

impl Judged {
    /// Whether it speaks against the cluster: a rule that does not hold, or one that copying needs and that is not offered.
    fn is_against(&self) -> bool {
        match self.verdict {
            Verdict::Holds => false,
            Verdict::NotOffered(_) => !self.rule.optional,
            Verdict::Fails(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_tables_are_sound() {
        let ids = rules().map(|rule| rule.id).collect::<Vec<_>>();
        assert!(ids.len() >= 25);
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an id twice");
        for rule in rules() {
            assert!(rule.id.contains('.') && !rule.states.ends_with('.'), "{}", rule.id);
            for text in [rule.states, rule.relies, rule.source, rule.otherwise] {
                assert!(!text.is_empty() && text.len() <= 160, "{}: {text}", rule.id);
            }
        }
    }
}
