//! `strait proto versions`: what each broker offers by ApiVersions, held against what is spoken here and what for.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::super::screen::Tone;
use super::super::{Common, Exit, Failure, Output, OutputArg, Screen, net};
use super::Whom;
use crate::config::resolved::Cluster;
use crate::connection::{Connection, Security};
use crate::env::Env;
use crate::error::{Error, Side};
use crate::wire::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use crate::wire::{
    ApiKey, Request, add_offsets_to_txn, add_partitions_to_txn, consumer_group_heartbeat,
    create_partitions, create_topics, delete_topics, describe_configs, describe_producers, end_txn,
    fetch, find_coordinator, heartbeat, init_producer_id, join_group, leave_group, list_offsets,
    metadata, offset_commit, offset_fetch, produce, sasl_authenticate, sasl_handshake, sync_group,
    txn_offset_commit,
};

/// Whose versions.
#[derive(Clone, Debug, Args)]
pub struct VersionsArgs {
    #[command(flatten)]
    pub whom: Whom,
    /// What the cluster is to be: decides what counts as missing
    #[arg(long = "as", value_enum, default_value_t)]
    pub role: Role,
    #[command(flatten)]
    pub output: OutputArg,
}

/// What a cluster is to a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Of one link the source, of another the target.
    #[default]
    Both,
    /// Read from.
    Source,
    /// Written to.
    Target,
}

impl Role {
    /// Whether what is needed as `need` is needed of this cluster.
    pub(super) fn needs(self, need: Role) -> bool {
        self == Role::Both || need == Role::Both || self == need
    }
}

/// An API that Strait calls.
struct Need {
    api: ApiKey,
    min: i16,
    max: i16,
    /// Without it there is no copying; none: only what it is for is not there.
    role: Option<Role>,
    what: &'static str,
}

fn need<R: Request>(role: Option<Role>, what: &'static str) -> Need {
    let (min, max) = R::VERSIONS.into_inner();
    Need { api: R::API, min, max, role, what }
}

/// All of them, and what for.
fn needs() -> Vec<Need> {
    const BOTH: Option<Role> = Some(Role::Both);
    const SOURCE: Option<Role> = Some(Role::Source);
    const TARGET: Option<Role> = Some(Role::Target);
    const TRANSACTIONS: &str = "delivery: transactional";
    const CLASSIC: &str = "instances that share a link, classic protocol";
    vec![
        need::<produce::ProduceRequest<'_>>(TARGET, "writing"),
        need::<fetch::FetchRequest>(BOTH, "reading; reading back what a former life wrote"),
        need::<list_offsets::ListOffsetsRequest>(BOTH, "the ends of logs"),
        need::<metadata::MetadataRequest>(BOTH, "topics and their leaders"),
        need::<offset_commit::OffsetCommitRequest>(SOURCE, "committing the position"),
        need::<offset_fetch::OffsetFetchRequest>(SOURCE, "reading the position"),
        need::<find_coordinator::FindCoordinatorRequest>(SOURCE, "the position's broker"),
        need::<join_group::JoinGroupRequest>(None, CLASSIC),
        need::<heartbeat::HeartbeatRequest>(None, CLASSIC),
        need::<leave_group::LeaveGroupRequest>(None, CLASSIC),
        need::<sync_group::SyncGroupRequest>(None, CLASSIC),
        need::<sasl_handshake::SaslHandshakeRequest>(None, "SASL"),
        need::<ApiVersionsRequest>(BOTH, "this list"),
        need::<create_topics::CreateTopicsRequest>(None, "creating topics on the target"),
        need::<delete_topics::DeleteTopicsRequest>(None, "bench and proto conformance"),
        need::<init_producer_id::InitProducerIdRequest>(None, TRANSACTIONS),
        need::<add_partitions_to_txn::AddPartitionsToTxnRequest>(None, TRANSACTIONS),
        need::<add_offsets_to_txn::AddOffsetsToTxnRequest>(None, TRANSACTIONS),
        need::<end_txn::EndTxnRequest>(None, TRANSACTIONS),
        need::<txn_offset_commit::TxnOffsetCommitRequest>(None, TRANSACTIONS),
        need::<describe_configs::DescribeConfigsRequest>(None, "settings of the target's topics"),
        need::<sasl_authenticate::SaslAuthenticateRequest>(None, "SASL"),
        need::<create_partitions::CreatePartitionsRequest>(None, "growing topics on the target"),
        need::<describe_producers::DescribeProducersRequest>(
            TARGET,
            "the numbers that a leader expects next",
        ),
        need::<consumer_group_heartbeat::ConsumerGroupHeartbeatRequest>(
            None,
            "instances that share a link, KIP-848",
        ),
    ]
}

/// A broker's answer.
struct Asked {
    /// Its id and address.
    name: String,
    offered: Result<ApiVersionsResponse, Error>,
}

pub(super) fn main(
    args: &VersionsArgs,
    common: &Common,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let cluster = args.whom.resolve(common, screen)?;
    let env = Env::real();
    let asked = net::block_on(async { Ok(ask(&env, &cluster).await?) })?;
    let missing = asked.iter().any(|broker| {
        let offered = broker.offered.as_ref();
        offered.map_or(true, |offered| needs().iter().any(|need| need.is_missed(offered, args)))
    });
    match args.output.output {
        Output::Json => screen.json("strait.proto.versions/1", document(args, &asked, missing))?,
        Output::Table => words(args, &asked, screen)?,
    }
    Ok(if missing { Exit::NotTrue } else { Exit::Ok })
}

impl Need {
    /// The version that is used.
    fn used(&self, offered: &ApiVersionsResponse) -> Option<i16> {
        let range = offered.ranges.iter().find(|range| range.api == self.api as i16)?;
        let version = range.max.min(self.max);
        (version >= range.min.max(self.min)).then_some(version)
    }

    fn is_needed(&self, args: &VersionsArgs) -> bool {
        self.role.is_some_and(|role| args.role.needs(role))
    }

    fn is_missed(&self, offered: &ApiVersionsResponse, args: &VersionsArgs) -> bool {
        self.is_needed(args) && self.used(offered).is_none()
    }

    fn verdict(&self, offered: &ApiVersionsResponse, args: &VersionsArgs) -> &'static str {
        match self.used(offered) {
            Some(_) => "ok",
            None if self.is_needed(args) => "missing",
            None => "without",
        }
    }
}

/// Every broker that the cluster names; where its metadata cannot be read, the addresses that were given.
async fn ask(env: &Env, cluster: &Arc<Cluster>) -> Result<Vec<Asked>, Error> {
    let mut asked = Vec::new();
    if let Ok(handle) = net::open(env, cluster, Side::Target).await {
        for (id, broker) in &handle.map().brokers {
            let name = format!("broker {id} at {}", broker.address);
            let connection = handle.connect(env, *id).await;
            asked.push(Asked { name, offered: connection.map(|c| c.offered().clone()) });
        }
        return Ok(asked);
    }
    let security = Security::load(cluster)?;
    for address in &cluster.bootstrap {
        let connection = Connection::open(env, address, &security, Side::Target).await;
        let offered = connection.map(|c| c.offered().clone());
        asked.push(Asked { name: format!("broker at {address}"), offered });
    }
    match asked.iter().all(|broker| broker.offered.is_err()) {
        // Nobody was reached: that is no verdict on versions.
        true => match asked.into_iter().find_map(|broker| broker.offered.err()) {
            Some(error) => Err(error),
            None => Ok(Vec::new()),
        },
        false => Ok(asked),
    }
}

fn document(args: &VersionsArgs, asked: &[Asked], missing: bool) -> Value {
    let brokers = asked.iter().map(|broker| match &broker.offered {
        Err(error) => json!({ "broker": broker.name, "error": error.to_string() }),
        Ok(offered) => {
            let apis = needs().into_iter().map(|need| {
                let range = offered.ranges.iter().find(|range| range.api == need.api as i16);
                json!({
                    "api": format!("{:?}", need.api), "key": need.api as i16,
                    "offered": range.map(|range| [range.min, range.max]),
                    "spoken": [need.min, need.max], "used": need.used(offered), "for": need.what,
                    "needed": need.is_needed(args), "verdict": need.verdict(offered, args),
                })
            });
            let features: BTreeMap<_, _> = offered.finalized_features.iter().cloned().collect();
            json!({
                "broker": broker.name, "apis": apis.collect::<Vec<_>>(),
                "finalized_features": features,
            })
        }
    });
    json!({ "ok": !missing, "brokers": brokers.collect::<Vec<_>>() })
}

fn words(args: &VersionsArgs, asked: &[Asked], screen: &mut Screen<'_>) -> std::io::Result<()> {
    // Brokers that offer the same are told once.
    let mut alike: Vec<(Vec<&str>, &ApiVersionsResponse)> = Vec::new();
    for broker in asked {
        let offered = match &broker.offered {
            Ok(offered) => offered,
            Err(error) => {
                let line = screen.paint(Tone::Bad, &format!("✗ {}: {error}", broker.name));
                writeln!(screen.out, "{line}")?;
                continue;
            }
        };
        let same = |(_, other): &&mut (_, &ApiVersionsResponse)| {
            other.ranges == offered.ranges && other.finalized_features == offered.finalized_features
        };
        match alike.iter_mut().find(same) {
            Some((names, _)) => names.push(&broker.name),
            None => alike.push((vec![&broker.name], offered)),
        }
    }
    for (names, offered) in alike {
        let features = offered.finalized_features.iter();
        let features = features.map(|(name, level)| format!(", {name}={level}"));
        writeln!(screen.out, "{}{}", names.join(", "), features.collect::<String>())?;
        let rows = needs().into_iter().map(|need| {
            let range = offered.ranges.iter().find(|range| range.api == need.api as i16);
            vec![
                format!("  {:?}", need.api),
                range.map_or("-".to_owned(), |range| format!("{}-{}", range.min, range.max)),
                format!("{}-{}", need.min, need.max),
                need.used(offered).map_or("-".to_owned(), |version| version.to_string()),
                need.verdict(offered, args).to_owned(),
                need.what.to_owned(),
            ]
        });
        let heading = ["  API", "offered", "spoken", "used", "verdict", "for"];
        screen.table(&heading, &[], &rows.collect::<Vec<_>>())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::api_versions::VersionRange;

    fn args(role: Role) -> VersionsArgs {
        let whom = Whom { bootstrap: Vec::new(), cluster: None };
        VersionsArgs { whom, role, output: OutputArg { output: Output::Table } }
    }

    #[test]
    fn what_is_missing_depends_on_what_the_cluster_is_to_be() {
        let all = needs();
        let ranges = all.iter().map(|need| VersionRange { api: need.api as i16, min: 0, max: 20 });
        let mut offered = ApiVersionsResponse { ranges: ranges.collect(), ..Default::default() };
        let missed = |offered: &ApiVersionsResponse, role| {
            let args = args(role);
            let all = needs().into_iter();
            all.filter(|need| need.is_missed(offered, &args))
                .map(|need| need.api)
                .collect::<Vec<_>>()
        };
        for role in [Role::Both, Role::Source, Role::Target] {
            assert!(missed(&offered, role).is_empty());
        }
        // A broker whose Produce ends below ours, and one that has never heard of transactions.
        for range in &mut offered.ranges {
            if range.api == ApiKey::Produce as i16 {
                range.max = 8;
            }
        }
        offered.ranges.retain(|range| range.api != ApiKey::EndTxn as i16);
        assert_eq!(missed(&offered, Role::Both), [ApiKey::Produce]);
        assert_eq!(missed(&offered, Role::Target), [ApiKey::Produce]);
        assert!(missed(&offered, Role::Source).is_empty());
        let end = all.iter().find(|need| need.api == ApiKey::EndTxn).unwrap();
        assert_eq!(end.verdict(&offered, &args(Role::Both)), "without");
    }
}
