//! `strait config generate` and `strait config show`.

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::{Common, Exit, Failure, Output, OutputArg, Screen, load};
use crate::config::show;

/// Make or show a configuration.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigVerb {
    /// Print a commented file to begin with
    Generate {
        /// What the clusters are to each other
        #[arg(value_enum, default_value_t)]
        shape: Shape,
    },
    /// Print the effective configuration, where each value comes from, and no secret
    Show(OutputArg),
}

/// What the clusters are to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// One source, one target.
    #[default]
    OneWay,
    /// Two clusters, each the other's source.
    ActiveActive,
    /// Many sources, one target.
    FanIn,
}

impl Shape {
    fn text(self) -> &'static str {
        match self {
            Self::OneWay => include_str!("samples/one-way.yaml"),
            Self::ActiveActive => include_str!("samples/active-active.yaml"),
            Self::FanIn => include_str!("samples/fan-in.yaml"),
        }
    }
}

pub(super) fn main(
    verb: &ConfigVerb,
    common: &Common,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    match verb {
        ConfigVerb::Generate { shape } => write!(screen.out, "{}", shape.text())?,
        ConfigVerb::Show(args) => {
            let loaded = load(common, screen)?;
            match args.output {
                Output::Table => write!(screen.out, "{}", show::yaml(&loaded))?,
                Output::Json => {
                    let body = json!({ "values": show::values(&loaded) });
                    screen.json("strait.config/1", body)?;
                }
            }
        }
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Surroundings, parse};
    use std::path::Path;

    #[test]
    fn every_sample_is_right_without_a_warning() {
        for shape in Shape::value_variants() {
            let around = Surroundings { directory: Path::new("."), variable: &|_| None };
            let loaded = parse(shape.text(), "sample", &around).unwrap_or_else(|e| panic!("{e}"));
            assert!(loaded.warnings.is_empty(), "{shape:?}: {:?}", loaded.warnings);
            assert!(!loaded.config.links.is_empty());
        }
    }
}
