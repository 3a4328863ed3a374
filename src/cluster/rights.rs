//! The rights that a link needs, and for each the command that grants it. An authorisation error without the command is
//! an hour of somebody's life.

use std::fmt;

use crate::config::resolved::{Cluster, Link, Sasl};
use crate::error::Side;

/// What a right is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On<'a> {
    /// A topic by name.
    Topic(&'a str),
    /// A consumer group by name.
    Group(&'a str),
    /// All transactional ids that begin so.
    TransactionalIds(&'a str),
    /// The cluster itself.
    Cluster,
}

/// Something that a link does and an authorizer may refuse. Operations are Kafka's, as `kafka-acls.sh` spells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Fetch, and find the topic in the metadata.
    ReadSource,
    /// Take over the settings of a source topic when its mirror is made.
    DescribeSourceSettings,
    /// Keep the position in the link's group.
    CommitPosition,
    /// Produce.
    WriteTarget,
    /// Read back what was written, to resume exactly.
    ReadTarget,
    /// Make a topic.
    CreateTarget,
    /// Add partitions.
    GrowTarget,
    /// Learn the largest batch and the timestamp type of a target topic.
    DescribeTargetSettings,
    /// Learn how long the target's brokers keep producer state.
    DescribeTargetBrokers,
    /// Bring records in transactions (`delivery: transactional`).
    WriteTransactions,
    /// Keep the position beside the records (`delivery: transactional`).
    CommitTargetPosition,
}

impl Need {
    /// All, in the order in which a link comes upon them.
    pub const ALL: [Self; 11] = [
        Self::ReadSource,
        Self::DescribeSourceSettings,
        Self::CommitPosition,
        Self::CreateTarget,
        Self::DescribeTargetSettings,
        Self::DescribeTargetBrokers,
        Self::WriteTarget,
        Self::ReadTarget,
        Self::GrowTarget,
        Self::WriteTransactions,
        Self::CommitTargetPosition,
    ];

    /// Which cluster must grant it.
    pub fn side(self) -> Side {
        match self {
            Self::ReadSource | Self::DescribeSourceSettings | Self::CommitPosition => Side::Source,
            Self::WriteTarget
            | Self::ReadTarget
            | Self::CreateTarget
            | Self::GrowTarget
            | Self::DescribeTargetSettings
            | Self::DescribeTargetBrokers
            | Self::WriteTransactions
            | Self::CommitTargetPosition => Side::Target,
        }
    }

    /// Whether a link can do without: it then goes by a stock broker's defaults.
    pub fn is_optional(self) -> bool {
        matches!(self, Self::DescribeTargetSettings | Self::DescribeTargetBrokers)
    }

    fn operation(self) -> &'static str {
        match self {
            // Read includes Describe (`AclOperation`), for groups too.
            Self::ReadSource
            | Self::CommitPosition
            | Self::ReadTarget
            | Self::CommitTargetPosition => "Read",
            Self::WriteTarget | Self::WriteTransactions => "Write",
            Self::CreateTarget => "Create",
            Self::GrowTarget => "Alter",
            Self::DescribeSourceSettings
            | Self::DescribeTargetSettings
            | Self::DescribeTargetBrokers => "DescribeConfigs",
        }
    }

    /// The command that grants it for a topic of the link: `topic` is the source's name for a right on the source, the
    /// target's for one on the target.
    pub fn grant(self, link: &Link, topic: &str) -> String {
        let group = format!("strait.{}", link.name);
        let transactions = format!("{group}.");
        let on = match self {
            Self::CommitPosition | Self::CommitTargetPosition => On::Group(&group),
            Self::WriteTransactions => On::TransactionalIds(&transactions),
            Self::DescribeTargetBrokers => On::Cluster,
            _ => On::Topic(topic),
        };
        let cluster = if self.side() == Side::Source { &link.from } else { &link.to };
        command(cluster, self.operation(), on)
    }
}

/// `kafka-acls.sh` with everything that is known filled in.
pub fn command(cluster: &Cluster, operation: &str, on: On<'_>) -> String {
    format!(
        "kafka-acls.sh --bootstrap-server {} --add --allow-principal \"{}\" --operation {operation} {on}",
        dialled(cluster),
        principal(cluster)
    )
}

/// What stands behind `--bootstrap-server` in a command for this cluster.
pub fn dialled(cluster: &Cluster) -> String {
    cluster.bootstrap.first().map_or_else(|| format!("<{}>", cluster.name), ToString::to_string)
}

impl fmt::Display for On<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            On::Topic(name) => write!(f, "--topic {name}"),
            On::Group(name) => write!(f, "--group {name}"),
            On::TransactionalIds(prefix) => {
                write!(f, "--transactional-id {prefix} --resource-pattern-type prefixed")
            }
            On::Cluster => f.write_str("--cluster"),
        }
    }
}

/// Who the cluster takes us for (`DefaultKafkaPrincipalBuilder`).
pub fn principal(cluster: &Cluster) -> String {
    let has_certificate = cluster.tls.as_ref().is_some_and(|tls| tls.identity.is_some());
    match &cluster.sasl {
        Some(Sasl::Plain { username, .. } | Sasl::Scram { username, .. }) => {
            format!("User:{username}")
        }
        Some(Sasl::OAuthBearer(_)) => "User:<the token's sub claim>".to_owned(),
        None if has_certificate => "User:<subject of the client certificate>".to_owned(),
        None => "User:ANONYMOUS".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolved::{Address, ScramHash, Secret, Tls};
    use crate::link::fixture;
    use std::sync::Arc;

    fn secured() -> Link {
        let mut link = fixture::link(&[".*"], &[]);
        link.to = Arc::new(Cluster {
            name: "west".to_owned(),
            bootstrap: vec![Address { host: "kafka.west".to_owned(), port: 9093 }],
            tls: Some(Tls::default()),
            sasl: Some(Sasl::Scram {
                hash: ScramHash::Sha512,
                username: "mirror".to_owned(),
                password: Secret::new("hunter2"),
            }),
            advertised: Default::default(),
        });
        link
    }

    #[test]
    fn a_grant_can_be_pasted() {
        assert_eq!(
            Need::CreateTarget.grant(&secured(), "orders"),
            "kafka-acls.sh --bootstrap-server kafka.west:9093 --add --allow-principal \"User:mirror\" \
             --operation Create --topic orders"
        );
        assert_eq!(
            Need::CommitPosition.grant(&secured(), "orders"),
            "kafka-acls.sh --bootstrap-server <east> --add --allow-principal \"User:ANONYMOUS\" \
             --operation Read --group strait.east-to-west"
        );
        assert!(Need::DescribeTargetBrokers.grant(&secured(), "orders").ends_with(" --cluster"));
        let transactions = Need::WriteTransactions.grant(&secured(), "orders");
        let prefix =
            "Write --transactional-id strait.east-to-west. --resource-pattern-type prefixed";
        assert!(transactions.ends_with(prefix), "{transactions}");
        let group = Need::CommitTargetPosition.grant(&secured(), "orders");
        assert!(group.contains("kafka.west:9093") && group.contains("--group strait.east-to-west"));
    }

    #[test]
    fn a_grant_holds_no_secret() {
        for need in Need::ALL {
            assert!(!need.grant(&secured(), "orders").contains("hunter2"), "{need:?}");
        }
    }

    #[test]
    fn the_principal_is_the_one_that_the_broker_sees() {
        assert_eq!(principal(&secured().from), "User:ANONYMOUS");
        assert_eq!(principal(&secured().to), "User:mirror");
        let mutual = Tls { identity: Some(("a".into(), "b".into())), ..Tls::default() };
        let mut cluster = Cluster::clone(&secured().from);
        cluster.tls = Some(mutual);
        assert!(principal(&cluster).contains("certificate"));
    }
}
