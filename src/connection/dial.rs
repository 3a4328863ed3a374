//! From an address to a connection in use: resolve, TCP, TLS, ApiVersions, SASL, one deadline over all.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::timeout;

use super::diagnosis::{Peer, Stage};
use super::driver::Driver;
use super::pool::FramePool;
use super::security::{Security, SecurityCell};
use super::shared::Shared;
use super::transport::Transport;
use super::{Connection, Handle, sasl, versions};
use crate::env::{Env, Stream};
use crate::error::Error;
use crate::limits;
use crate::wire::api_versions::ApiVersionsResponse;

/// Whether an address may be dialled, and why not.
pub type Screen<'a> = dyn Fn(SocketAddr) -> Result<(), Error> + 'a;

pub(super) async fn open(
    env: &Env,
    security: &Security,
    peer: Peer,
    screen: &Screen<'_>,
) -> Result<Connection, Error> {
    let stage = Cell::new(Stage::Dns);
    match timeout(limits::CONNECT_TIMEOUT, connect(env, security, &peer, &stage, screen)).await {
        Ok(result) => result,
        Err(_) => Err(peer.timed_out(stage.get(), limits::CONNECT_TIMEOUT)),
    }
}

async fn connect(
    env: &Env,
    security: &Security,
    peer: &Peer,
    stage: &Cell<Stage>,
    screen: &Screen<'_>,
) -> Result<Connection, Error> {
    let stream = dial(env, peer, stage, screen).await?;
    let now = security.now();
    let transport = match &now.tls {
        None => Transport::Plain(stream),
        Some(tls) => {
            stage.set(Stage::Tls);
            Transport::Tls(Box::new(tls.handshake(peer, stream).await?))
        }
    };
    let cell = security.cell();
    if let Some(at) = transport.peer_expiry() {
        cell.saw(&peer.address, at);
    }
    stage.set(Stage::ApiVersions);
    let shared = Shared::new(peer.clone(), Stage::ApiVersions);
    // From here on a failure, or the deadline, drops the handle and so ends the task.
    let mut handle = Handle {
        shared: shared.clone(),
        tls_version: transport.tls_version(),
        tls_suite: transport.tls_suite(),
        offered: ApiVersionsResponse::default(),
        session: Arc::default(),
    };
    tokio::task::spawn_local(Driver::new(shared.clone(), transport, FramePool::of_this_thread()));
    handle.offered = versions::ask(&shared).await?;
    let mut lifetime = None;
    if let Some(sasl) = &now.sasl {
        stage.set(Stage::Sasl);
        shared.stage.set(Stage::Sasl);
        lifetime = sasl::log_in(env, &shared, &handle.offered, sasl).await?;
    }
    shared.stage.set(Stage::Ready);
    SecurityCell::count(&cell.connections);
    if let Some(lifetime) = lifetime {
        let begins = handle.session.begin(lifetime);
        let session = sasl::Session {
            env: env.clone(),
            shared,
            offered: handle.offered.clone(),
            security: security.clone(),
            end: handle.session.clone(),
        };
        tokio::task::spawn_local(session.keep(begins));
    }
    Ok(Connection(Rc::new(handle)))
}

/// The first of the name's addresses that takes the connection; each gets an equal share of the time.
async fn dial(
    env: &Env,
    peer: &Peer,
    stage: &Cell<Stage>,
    screen: &Screen<'_>,
) -> Result<Box<dyn Stream>, Error> {
    let resolved = env.world().resolve(&peer.address.host, peer.address.port).await;
    let mut addresses = resolved.map_err(|error| peer.unresolved(Some(&error)))?;
    // A name in metadata is a peer's word, and may resolve to what the name itself hides. What is judged here is what is
    // dialled: the name is not resolved again.
    let mut refused = None;
    addresses.retain(|address| screen(*address).map_err(|error| refused = Some(error)).is_ok());
    if let Some(error) = refused.filter(|_| addresses.is_empty()) {
        return Err(error);
    }
    addresses.truncate(limits::ADDRESSES_PER_NAME_MAX);
    stage.set(Stage::Tcp);
    let count = addresses.len();
    let mut last = None;
    for (index, address) in addresses.into_iter().enumerate() {
        let attempt = env.world().connect(address);
        let attempt = if index + 1 == count {
            // The deadline over all names the stage better.
            attempt.await
        } else {
            let share = limits::CONNECT_TIMEOUT / count as u32;
            timeout(share, attempt).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        match attempt {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) => peer.unreachable(count, &error),
        None => peer.unresolved(None),
    })
}

/// Addresses that are of this network segment only. No broker is advertised there, but the metadata services of clouds
/// answer there.
pub(crate) fn is_link_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
