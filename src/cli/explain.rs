//! `strait explain ST-031`: the long text of a code, without a network.

use clap::Args;
use serde_json::json;

use super::screen::Tone;
use super::{Exit, Failure, Output, OutputArg, Screen};
use crate::error::Code;
use crate::error_codes::{EXPLANATIONS, explain};

/// Which code.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// A code such as ST-031 or 31; without one, the list of all
    #[arg(value_parser = parse_code)]
    pub code: Option<Code>,
    #[command(flatten)]
    pub output: OutputArg,
}

fn parse_code(text: &str) -> Result<Code, String> {
    let digits = text.trim().to_ascii_uppercase();
    let digits = digits.strip_prefix("ST-").unwrap_or(&digits);
    digits.parse().map(Code).map_err(|_| "a code looks like ST-031".to_owned())
}

pub(super) fn main(args: &ExplainArgs, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let known = match args.code {
        Some(code) => match explain(code) {
            Some(explanation) => std::slice::from_ref(explanation),
            None => {
                writeln!(
                    screen.err,
                    "{code} is not a code of this version; strait explain lists all"
                )?;
                return Ok(Exit::NotTrue);
            }
        },
        None => EXPLANATIONS,
    };
    match args.output.output {
        Output::Json => {
            let codes = known.iter().map(
                |e| json!({"code": Code(e.code).to_string(), "title": e.title, "text": e.text}),
            );
            screen.json("strait.explain/1", json!({ "codes": codes.collect::<Vec<_>>() }))?;
        }
        Output::Table => {
            for explanation in known {
                let code = screen.paint(Tone::Warn, &Code(explanation.code).to_string());
                writeln!(screen.out, "{code}  {}", explanation.title)?;
                if args.code.is_some() {
                    writeln!(screen.out, "\n{}", explanation.text)?;
                }
            }
        }
    }
    Ok(Exit::Ok)
}
