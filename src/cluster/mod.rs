//! One cluster: its brokers, topics and leaders, kept fresh, and connections to them. Owns what metadata is believed;
//! never moves data.

pub mod admin;
mod advertised;
mod map;
pub mod rights;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch as channel};
use tokio::time::{Instant, timeout};

use crate::config::resolved::{self, Address};
use crate::connection::{Connection, Security};
use crate::env::Env;
use crate::error::{Action, Code, Error, Side};
use crate::limits;
use crate::wire::ErrorCode;
use crate::wire::find_coordinator::{CoordinatorKind, FindCoordinatorRequest};

use advertised::Refusal;
/// How long a failure to dial is remembered at least.
const FAILURES_KEPT: Duration = Duration::from_secs(60);
/// A right is missing.
const NOT_ALLOWED: Code = Code(30);

pub use map::{Broker, ClusterMap, Partition, Topic};
pub use watch::{watch, watch_unseen};

/// A cheap handle on a cluster, for any thread. Connections that it makes belong to the thread that asks.
#[derive(Clone)]
pub struct ClusterHandle {
    shared: Arc<Shared>,
    known: channel::Receiver<Known>,
}

struct Shared {
    config: Arc<resolved::Cluster>,
    security: Security,
    side: Side,
    asked: Notify,
    dials: Mutex<Dials>,
    /// Rings when there is another map or another error.
    news: Notify,
}

/// How dialling went.
#[derive(Default)]
struct Dials {
    /// By address: when the last dial that failed began, and why.
    failed: BTreeMap<Address, (Instant, Error)>,
    /// Whose answers were of no use last.
    distrusted: Option<Address>,
}

/// What the last look at the cluster brought.
#[derive(Clone, Debug, Default)]
struct Known {
    map: Arc<ClusterMap>,
    error: Option<Error>,
}

impl ClusterHandle {
    /// The configuration.
    pub fn config(&self) -> &Arc<resolved::Cluster> {
        &self.shared.config
    }

    /// Source or target.
    pub fn side(&self) -> Side {
        self.shared.side
    }

    /// The newest map; an older one stays while the cluster cannot be asked. Empty, with generation 0, before the first
    /// answer.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.known.borrow().map.clone()
    }

    /// Why the last look at the cluster failed; none if it did not.
    pub fn last_error(&self) -> Option<Error> {
        self.known.borrow().error.clone()
    }

    /// Waits until a look at the cluster has brought a new map, a new error, or the end of one.
    pub async fn changed(&mut self) {
        loop {
            // Those who wait are woken in the order in which they came, where the channel's own order is chance: a simulated
            // run is the same every time.
            let mut news = pin!(self.shared.news.notified());
            news.as_mut().enable();
            match self.known.has_changed() {
                Ok(true) => return self.known.mark_unchanged(),
                Ok(false) => news.await,
                // Nobody watches any more: nothing will change.
                Err(_) => std::future::pending::<()>().await,
            }
        }
    }

    /// Asks for a new look soon. Many calls become one.
    pub fn refresh(&self) {
        self.shared.asked.notify_one();
    }

    /// Whether a connection that was made to a broker is to be used further: it is open, and the broker where it leads.
    pub fn is_still(&self, broker: i32, connection: &Connection) -> bool {
        let moved = |known: &Broker| known.address != *connection.address();
        !connection.is_ending() && !self.map().brokers.get(&broker).is_some_and(moved)
    }

    /// A connection to a broker, at the address that it advertises. One that the map does not hold is away: a connection
    /// to another would be kept as this one's, and answer NOT_LEADER for ever.
    pub async fn connect(&self, env: &Env, broker: i32) -> Result<Connection, Error> {
        let map = self.map();
        match map.brokers.get(&broker) {
            Some(known) => self.shared.connect_to(env, broker, &known.address).await,
            None => {
                let text = format!("broker {broker} is not in the cluster's metadata: it is away");
                Err(Error::new(Code(15), self.side(), Action::Retry, text)
                    .cluster(self.shared.config.name.clone())
                    .broker(broker.to_string()))
            }
        }
    }

    /// A connection to whichever broker answers first: the bootstrap addresses in their order, then those that the
    /// cluster advertises. The error is that of the last bootstrap address.
    pub async fn connect_any(&self, env: &Env) -> Result<Connection, Error> {
        self.shared.connect_any(env, &self.map()).await
    }

    /// A connection to the coordinator of a group. While there is none (the offsets topic is being made, a broker is
    /// being replaced) the error is ST-015, to be tried again.
    pub async fn coordinator(&self, env: &Env, group: &str) -> Result<Connection, Error> {
        self.coordinator_of(env, CoordinatorKind::Group, group).await
    }

    /// The same of a transactional id.
    pub async fn transaction_coordinator(&self, env: &Env, id: &str) -> Result<Connection, Error> {
        self.coordinator_of(env, CoordinatorKind::Transaction, id).await
    }

    async fn coordinator_of(
        &self,
        env: &Env,
        kind: CoordinatorKind,
        key: &str,
    ) -> Result<Connection, Error> {
        let any = self.connect_any(env).await?;
        let found = self.coordinator_by(env, &any, kind, key).await;
        // Another broker may know better.
        found.inspect_err(|_| self.shared.distrust(any.address()))
    }

    async fn coordinator_by(
        &self,
        env: &Env,
        any: &Connection,
        kind: CoordinatorKind,
        key: &str,
    ) -> Result<Connection, Error> {
        let request = FindCoordinatorRequest { kind, keys: vec![key.to_owned()] };
        let answer = any.ask(&request).await?;
        let found = answer.coordinators.into_iter().find(|found| found.key == key);
        let found = found.ok_or_else(|| {
            any.error(Code(26), "named no coordinator for the key that was asked about")
        })?;
        match found.error {
            ErrorCode::NONE => {}
            error @ (ErrorCode::GROUP_AUTHORIZATION_FAILED
            | ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED) => {
                let (operation, on) = match kind {
                    CoordinatorKind::Group => ("Read", rights::On::Group(key)),
                    CoordinatorKind::Transaction => ("Write", rights::On::TransactionalIds(key)),
                };
                let text = format!("{} for {on}", error.name());
                let command = rights::command(self.config(), operation, on);
                return Err(any.error(NOT_ALLOWED, text).fix(command));
            }
            error => {
                let text = format!("no coordinator for {key}: {error}");
                return Err(any.error(Code(15), text));
            }
        }
        let address = advertised::address(&found.host, found.port).ok_or_else(|| {
            any.error(Code(26), "named a coordinator with no legal host and port")
        })?;
        self.shared.connect_to(env, found.id, &address).await
    }
}

impl Shared {
    async fn connect_any(&self, env: &Env, map: &ClusterMap) -> Result<Connection, Error> {
        let mut last = None;
        let distrusted = self.dials().distrusted.clone();
        let is_last = |address: &Address| distrusted.as_ref() == Some(address);
        for pass in [false, true] {
            for address in self.config.bootstrap.iter().filter(|at| is_last(at) == pass) {
                let open = Box::pin(Connection::open(env, address, &self.security, self.side));
                match self.dial(env, address, open).await {
                    Ok(connection) => return Ok(connection),
                    Err(error) => last = Some(error),
                }
            }
            for (id, broker) in map.brokers.iter().filter(|(_, at)| is_last(&at.address) == pass) {
                if self.config.bootstrap.contains(&broker.address) {
                    continue;
                }
                if let Ok(connection) = self.connect_to(env, *id, &broker.address).await {
                    return Ok(connection);
                }
            }
        }
        Err(last.unwrap_or_else(|| self.unusable("no bootstrap address")))
    }

    fn dials(&self) -> MutexGuard<'_, Dials> {
        self.dials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this broker said is of no use: any other is asked before it.
    fn distrust(&self, address: &Address) {
        self.dials().distrusted = Some(address.clone());
    }

    /// Dials, unless that failed a moment ago: however many mirrors want a broker, it is dialled once a second at most
    /// while it cannot be reached, and they all hear why.
    async fn dial(
        &self,
        env: &Env,
        address: &Address,
        open: impl Future<Output = Result<Connection, Error>>,
    ) -> Result<Connection, Error> {
        let now = env.now();
        if let Some((at, error)) = self.dials().failed.get(address)
            && now.saturating_duration_since(*at) < limits::REDIAL_INTERVAL_MIN
        {
            return Err(error.clone());
        }
        let opened = open.await;
        let failed = &mut self.dials().failed;
        match &opened {
            Ok(_) => drop(failed.remove(address)),
            Err(error) => {
                // What metadata named once and no more is not kept for ever.
                failed.retain(|_, (at, _)| now.saturating_duration_since(*at) < FAILURES_KEPT);
                failed.insert(address.clone(), (now, error.clone()));
            }
        }
        opened
    }

    async fn connect_to(
        &self,
        env: &Env,
        broker: i32,
        address: &Address,
    ) -> Result<Connection, Error> {
        let cluster = &*self.config;
        let refused = |refusal: &Refusal| self.refused(broker, address, None, refusal);
        advertised::by_name(address, cluster).map_err(|refusal| refused(&refusal))?;
        let foreign = self.foreign(env, address).await;
        let screen = |at: SocketAddr| {
            let judged = advertised::by_ip(at, address, cluster, &foreign);
            judged.map_err(|refusal| self.refused(broker, address, Some(at.ip()), &refusal))
        };
        let (security, side) = (&self.security, self.side);
        let open = Connection::open_advertised(env, address, broker, security, side, &screen);
        self.dial(env, address, Box::pin(open)).await
    }

    /// Where the other clusters' names lead that might be meant by this one. A name server that does not answer holds up
    /// nobody: what it would have said is not known then.
    async fn foreign(&self, env: &Env, address: &Address) -> Vec<(SocketAddr, String)> {
        let mut found = Vec::new();
        for (named, cluster) in advertised::foreign_names(address.port, &self.config) {
            let resolved = env.world().resolve(&named.host, named.port);
            if let Ok(Ok(places)) = timeout(limits::FOREIGN_NAME_TIMEOUT, resolved).await {
                found.extend(places.into_iter().map(|place| (place, cluster.clone())));
            }
        }
        found
    }

    fn refused(
        &self,
        broker: i32,
        address: &Address,
        ip: Option<IpAddr>,
        refusal: &Refusal,
    ) -> Error {
        let resolved = match ip.filter(|ip| address.host.parse() != Ok(*ip)) {
            Some(ip) => format!("{address}, which is {ip} from here, "),
            None => format!("{address}, which is "),
        };
        let text = format!("broker {broker} advertises {resolved}{refusal}: it is not dialled");
        let name = &self.config.name;
        let fix = match refusal {
            Refusal::Illegal => "set advertised.listeners of that broker".to_owned(),
            Refusal::Foreign(other) => format!(
                "set advertised.listeners of that broker to its own address; if {name} and {other} \
                 are one cluster, list the address in clusters.{name}.advertised.allow"
            ),
            Refusal::Kind(_) => format!(
                "set advertised.listeners of that broker to a name that clients out here can reach; \
                 if this address is meant, list it in clusters.{name}.advertised.allow"
            ),
        };
        self.unusable(text).broker(format!("{broker} ({address})")).fix(fix)
    }

    fn unusable(&self, message: impl Into<String>) -> Error {
        Error::new(advertised::CODE, self.side, Action::Retry, message)
            .cluster(self.config.name.clone())
    }
}
