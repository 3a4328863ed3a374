//! What the tests of this module begin from.

use std::sync::Arc;

use crate::config::resolved::{
    Backfill, Cluster, Delivery, Forward, Isolation, Link, Membership, Naming, Policies, Start,
    Timestamps,
};

/// A cluster that nobody dials.
pub(crate) fn cluster(name: &str) -> Arc<Cluster> {
    Arc::new(Cluster {
        name: name.to_owned(),
        bootstrap: vec![],
        tls: None,
        sasl: None,
        advertised: Default::default(),
    })
}

/// A link east to west, named as on the source.
pub(crate) fn link(include: &[&str], exclude: &[&str]) -> Link {
    Link {
        name: "east-to-west".to_owned(),
        from: cluster("east"),
        to: cluster("west"),
        topics: super::selection::tests::selection(include, exclude),
        naming: Naming::Identity,
        start: Start::Earliest,
        isolation: Isolation::ReadCommitted,
        timestamps: Timestamps::AsRead,
        delivery: Delivery::default(),
        forward: Forward::default(),
        replication_factor: None,
        connections_per_broker: 1,
        window_bytes_max: 1 << 20,
        bytes_per_second_max: None,
        backfill: Backfill::default(),
        merges: true,
        policies: Policies::default(),
        membership: Membership::default(),
    }
}
