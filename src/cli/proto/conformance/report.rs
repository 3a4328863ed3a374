//! How rules and verdicts are told: in words, or as JSON with stable keys.

use serde_json::{Value, json};

use super::super::super::screen::Tone;
use super::super::super::{Output, Screen};
use super::super::versions::Role;
use super::rule::{Rule, Verdict};
use super::{ConformanceArgs, Judged};

fn role(rule: &Rule) -> &'static str {
    match rule.role {
        Role::Both => "both",
        Role::Source => "source",
        Role::Target => "target",
    }
}

fn document(rule: &Rule) -> Value {
    json!({
        "id": rule.id, "states": rule.states, "relies": rule.relies, "source": rule.source,
        "otherwise": rule.otherwise, "role": role(rule), "optional": rule.optional,
    })
}

/// The rules alone.
pub(super) fn listed(
    args: &ConformanceArgs,
    rules: &[&'static Rule],
    screen: &mut Screen<'_>,
) -> std::io::Result<()> {
    if args.output.output == Output::Json {
        let rules = rules.iter().map(|rule| document(rule)).collect::<Vec<_>>();
        return screen.json("strait.proto.rules/1", json!({ "rules": rules }));
    }
    for rule in rules {
        told(rule, screen)?;
    }
    Ok(())
}

fn told(rule: &Rule, screen: &mut Screen<'_>) -> std::io::Result<()> {
    let option = if rule.optional { ", optional" } else { "" };
    let out = &mut screen.out;
    writeln!(out, "{} ({}{option})", rule.id, role(rule))?;
    writeln!(out, "    {}", rule.states)?;
    writeln!(out, "    for:       {}", rule.relies)?;
    writeln!(out, "    source:    {}", rule.source)?;
    writeln!(out, "    otherwise: {}", rule.otherwise)
}

/// What was found.
pub(super) fn judged(
    args: &ConformanceArgs,
    topic: &str,
    judged: &[Judged],
    removed: bool,
    screen: &mut Screen<'_>,
) -> std::io::Result<()> {
    let ok = !judged.iter().any(Judged::is_against);
    if args.output.output == Output::Json {
        let rules = judged.iter().map(|Judged { rule, verdict }| {
            let mut document = document(rule);
            document["verdict"] = verdict.word().into();
            document["seen"] = match verdict {
                Verdict::Holds => Value::Null,
                Verdict::Fails(what) | Verdict::NotOffered(what) => what.as_str().into(),
            };
            document
        });
        let rules = rules.collect::<Vec<_>>();
        let body = json!({ "ok": ok, "topic": topic, "removed": removed, "rules": rules });
        return screen.json("strait.proto.conformance/1", body);
    }
    let width = judged.iter().map(|judged| judged.rule.id.len()).max().unwrap_or(0);
    for one in judged {
        let Judged { rule, verdict } = one;
        let (tone, mark) = match verdict {
            Verdict::Holds => (Tone::Good, "✓"),
            Verdict::NotOffered(_) if rule.optional => (Tone::Faint, "-"),
            Verdict::NotOffered(_) | Verdict::Fails(_) => (Tone::Bad, "✗"),
        };
        let mark = screen.paint(tone, mark);
        writeln!(screen.out, "{mark} {:width$}  {}", rule.id, rule.states)?;
        match verdict {
            Verdict::Holds => continue,
            Verdict::Fails(what) => writeln!(screen.out, "    does not hold: {what}")?,
            Verdict::NotOffered(what) => writeln!(screen.out, "    not offered: {what}")?,
        }
        writeln!(screen.out, "    Strait relies on it for: {}", rule.relies)?;
        writeln!(screen.out, "    source: {}", rule.source)?;
        writeln!(screen.out, "    so: {}", rule.otherwise)?;
    }
    let count = |is: fn(&Verdict) -> bool| judged.iter().filter(|one| is(&one.verdict)).count();
    writeln!(
        screen.out,
        "{} rules hold, {} do not, {} are not offered",
        count(|verdict| matches!(verdict, Verdict::Holds)),
        count(|verdict| matches!(verdict, Verdict::Fails(_))),
        count(|verdict| matches!(verdict, Verdict::NotOffered(_))),
    )
}
