//! `strait proto`: the protocol itself, for whoever wants to know whether a cluster keeps its rules: what brokers offer
//! (`versions`), whether they do what Strait relies on (`conformance`),
//! and what a frame says (`decode`).

mod conformance;
mod decode;
mod versions;

use std::sync::Arc;

use clap::{Args, Subcommand};

use super::{Common, Exit, Failure, Screen, load};
use crate::config::resolved::{Address, Advertised, Cluster};
use crate::config::values::parse_address;

/// What is asked of the protocol.
#[derive(Debug, Subcommand)]
pub enum ProtoVerb {
    /// Show which versions brokers offer, and whether that is what Strait needs
    Versions(versions::VersionsArgs),
    /// Find out which of the rules that Strait relies on hold, in topics that are made for it and removed
    Conformance(conformance::ConformanceArgs),
    /// Show what frames of the protocol say, as JSON
    Decode(decode::DecodeArgs),
}

/// Which cluster.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Whom {
    /// Brokers to begin with, in plain text and without a login
    #[arg(long, value_name = "HOST:PORT", num_args = 1.., value_delimiter = ',', value_parser = parse)]
    pub bootstrap: Vec<Address>,
    /// A cluster of the configuration, with its TLS and SASL
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
}

fn parse(text: &str) -> Result<Address, String> {
    parse_address(text).map_err(|(what, fix)| format!("{what}: {fix}"))
}

impl Whom {
    /// The cluster. One that is given by its addresses is called `bootstrap`.
    ///
    /// # Errors
    /// The configuration is wrong, or has no cluster of that name.
    fn resolve(&self, common: &Common, screen: &mut Screen<'_>) -> Result<Arc<Cluster>, Failure> {
        let Some(name) = &self.cluster else {
            let (name, bootstrap) = ("bootstrap".to_owned(), self.bootstrap.clone());
            let advertised = Advertised::default();
            return Ok(Arc::new(Cluster { name, bootstrap, tls: None, sasl: None, advertised }));
        };
        let config = load(common, screen)?.config;
        config.clusters.get(name).cloned().ok_or_else(|| {
            let names = config.clusters.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            Failure::Usage(format!("no cluster {name:?}; the configuration has {names}"))
        })
    }
}

pub(super) fn main(
    verb: &ProtoVerb,
    common: &Common,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    match verb {
        ProtoVerb::Versions(args) => versions::main(args, common, screen),
        ProtoVerb::Conformance(args) => conformance::main(args, common, screen),
        ProtoVerb::Decode(args) => decode::main(args, screen),
    }
}
