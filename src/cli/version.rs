//! `strait version`.

use serde_json::json;

use super::{Exit, Failure, Output, OutputArg, Screen};

pub(super) fn main(args: OutputArg, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    // Set by the release's build; a plain `cargo build` has none.
    let revision = option_env!("STRAIT_REVISION").unwrap_or("unknown");
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    match args.output {
        Output::Table => writeln!(screen.out, "strait {version} ({revision}, {os} {arch})")?,
        Output::Json => {
            let target = format!("{arch}-{os}");
            let body = json!({"version": version, "revision": revision, "target": target});
            screen.json("strait.version/1", body)?;
        }
    }
    Ok(Exit::Ok)
}
