//! The front door: a configuration in, a running engine out. No global state, no signal handler, no exit: those are the
//! program's.
//!
//! ```text
//! Strait::builder(config).start()? ──▶ control thread: metadata, topics, telemetry
//!                                 └──▶ lanes: batches
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::admin;
use crate::cluster::{self, ClusterHandle};
use crate::config::resolved::{self, Config, OnFailure};
use crate::connection::Security;
use crate::engine::member::{MemberCell, Standing};
use crate::engine::rate_limit::RateLimit;
use crate::engine::share::LinkContext;
use crate::engine::stats::{Board, LinkEntry, MirrorState};
use crate::env::Env;
use crate::error::{Action, Code, Error, Side};
use crate::fleet::Identity;
use crate::lane::Lanes;
use crate::link;

/// Begins here: [`Strait::builder`].
#[derive(Debug)]
pub struct Strait;

impl Strait {
    /// An engine for this configuration, not started.
    pub fn builder(config: Config) -> Builder {
        Builder { config, env: Env::real(), identity: None }
    }
}

/// An engine that is not started.
#[derive(Debug)]
pub struct Builder {
    config: Config,
    env: Env,
    identity: Option<Identity>,
}

impl Builder {
    /// What tells this process from others and stays over its restarts: it takes over at once from its own former life,
    /// also from one that was killed. Without one, a new start waits until the sessions of such a life have ended.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Another clock, network and randomness than the operating system's.
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// Starts the threads. Clusters that cannot be reached are no error here: they are tried again, and the board says
    /// why a link waits.
    pub fn start(self) -> Result<Handle, Error> {
        let (engine, board) = (self.config.engine, Arc::new(Board::default()));
        let lanes = Lanes::start(&self.env, &engine, board.clone())?;
        let (mut handle, control, stopped) = self.assemble(board, lanes);
        let thread = std::thread::Builder::new().name("control".to_owned());
        let thread = thread.spawn(move || control.run(stopped)).map_err(|error| {
            let message = format!("cannot start the control thread: {error}");
            Error::new(Code(71), Side::Local, Action::Stop, message)
        })?;
        handle.control = Some(thread);
        Ok(handle)
    }

    /// Starts the same engine as tasks of the caller's `LocalSet` or `LocalRuntime`, without a thread: for simulation. To
    /// stop it at any point, as a crash would, drop that `LocalSet`.
    pub fn start_local(self) -> Handle {
        let (engine, board) = (self.config.engine, Arc::new(Board::default()));
        let lanes = Lanes::start_local(&self.env, &engine, board.clone());
        let (handle, control, stopped) = self.assemble(board, lanes);
        tokio::task::spawn_local(control.until(stopped));
        handle
    }

    fn assemble(self, board: Arc<Board>, lanes: Lanes) -> (Handle, Control, oneshot::Receiver<()>) {
        let Self { config, env, identity } = self;
        let lanes = Arc::new(lanes);
        // On the board before anything runs: whoever waits for the links must find them.
        let entries: Vec<_> = config.links.iter().map(|link| Arc::new(entry(link))).collect();
        entries.iter().for_each(|entry| board.add_link(entry.clone()));
        let (stop, stopped) = oneshot::channel();
        let member = |_: &Arc<resolved::Link>| Arc::new(MemberCell::new(Standing::Nobody));
        let members: Vec<_> = config.links.iter().map(member).collect();
        let control = Control {
            env: env.clone(),
            config,
            entries,
            members: members.clone(),
            identity,
            lanes: lanes.clone(),
            board: board.clone(),
        };
        (Handle { env, board, lanes, members, stop: Some(stop), control: None }, control, stopped)
    }
}

fn entry(link: &resolved::Link) -> LinkEntry {
    LinkEntry {
        stops_on_failure: link.policies.on_failure == OnFailure::Stop,
        ..LinkEntry::new(&link.name, &link.from.name, &link.to.name, link.to.tls.is_some())
    }
}

/// A running engine. Dropping it stops the threads without draining.
pub struct Handle {
    env: Env,
    board: Arc<Board>,
    lanes: Arc<Lanes>,
    members: Vec<Arc<MemberCell>>,
    stop: Option<oneshot::Sender<()>>,
    control: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainReport {
    /// Everything that was sent is acknowledged and committed.
    pub clean: bool,
}

/// What leaving the groups may take.
const GOODBYE: Duration = Duration::from_millis(800);
/// How often the board is looked at while waiting for it.
const BOARD_POLL: Duration = Duration::from_millis(50);

impl Handle {
    /// The figures of everything that runs.
    pub fn board(&self) -> Arc<Board> {
        self.board.clone()
    }

    /// Stops fetching, waits for the target's acks, commits; at most for `deadline`. Nothing is copied afterwards. Then
    /// the groups are left, so that others go on with the mirrors at once; that takes a moment more at most.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        let clean = self.lanes.drain(deadline).await;
        self.members.iter().for_each(|member| member.leave());
        let gone = futures_util::future::join_all(self.members.iter().map(|member| member.gone()));
        // A coordinator that does not answer lets our sessions end by themselves.
        drop(tokio::time::timeout(GOODBYE, gone).await);
        DrainReport { clean }
    }

    /// Waits until every mirror has reached the source end that was seen first. An error if what remains cannot go on
    /// without the operator.
    pub async fn caught_up(&self) -> Result<(), Error> {
        let mut goals: BTreeMap<(Arc<str>, Arc<str>, i32), i64> = BTreeMap::new();
        loop {
            if let Some(outcome) = self.look_for_goals(&mut goals) {
                return outcome;
            }
            tokio::time::sleep(BOARD_POLL).await;
        }
    }

    /// None while something still moves.
    fn look_for_goals(
        &self,
        goals: &mut BTreeMap<(Arc<str>, Arc<str>, i32), i64>,
    ) -> Option<Result<(), Error>> {
        let mut parked = None;
        for link in self.board.links() {
            if let Some(error) = link.fatal() {
                return Some(Err(error));
            }
            if !link.discovered.load(Relaxed) {
                return None;
            }
            parked = parked.or(link.first_blocked());
        }
        for mirror in self.board.mirrors() {
            let (end, acked) = (mirror.source_end.load(Relaxed), mirror.acked.load(Relaxed));
            if mirror.state() == MirrorState::Parked {
                parked = parked.or(mirror.error());
                continue;
            }
            if end < 0 {
                return None;
            }
            let key = (mirror.link.clone(), mirror.topic.clone(), mirror.partition);
            if acked < *goals.entry(key).or_insert(end) {
                return None;
            }
        }
        Some(parked.map_or(Ok(()), Err))
    }

    /// Waits until the engine shall end: every link failed for good, a lane did, or a link that stops at its first failure
    /// had one.
    pub async fn stopped(&self) -> Error {
        loop {
            if let Some(error) = self.board.failure() {
                return error;
            }
            if let Some(error) = self.board.stopping_failure() {
                return error;
            }
            let links = self.board.links();
            let failed: Vec<_> = links.iter().filter_map(|link| link.fatal()).collect();
            if !links.is_empty() && failed.len() == links.len() {
                return failed[0].clone();
            }
            tokio::time::sleep(BOARD_POLL).await;
        }
    }

    /// The clock, network and randomness that it runs on.
    pub fn env(&self) -> &Env {
        &self.env
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(control) = self.control.take() {
            let _ = control.join();
        }
        self.lanes.stop();
    }
}

/// The control thread: everything that is slow and small.
struct Control {
    env: Env,
    config: Config,
    entries: Vec<Arc<LinkEntry>>,
    members: Vec<Arc<MemberCell>>,
    identity: Option<Identity>,
    lanes: Arc<Lanes>,
    board: Arc<Board>,
}

impl Control {
    fn run(self, stopped: oneshot::Receiver<()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(Default::default());
        match runtime {
            Ok(runtime) => {
                runtime.block_on(self.until(stopped));
                runtime.shutdown_timeout(crate::limits::LANE_SHUTDOWN);
            }
            Err(error) => {
                let message = format!("the control thread has no runtime: {error}");
                self.board.fail(Error::new(Code(71), Side::Local, Action::Stop, message));
            }
        }
    }

    async fn until(self, stopped: oneshot::Receiver<()>) {
        tokio::select! {
            biased;
            // Dropped by the handle: nothing more is wanted.
            _ = stopped => {}
            () = self.work() => {}
        }
    }

    async fn work(self) {
        if let Some(telemetry) = &self.config.telemetry {
            match admin::serve(self.env.clone(), telemetry, self.board.clone()).await {
                Ok((address, serve)) => {
                    self.board.set_telemetry(address);
                    tokio::task::spawn_local(serve);
                }
                Err(error) => return self.board.fail(error),
            }
        }
        let mut watched = Watched { board: self.board.clone(), ..Watched::default() };
        let mut open = Vec::new();
        let entries = self.entries.into_iter().zip(self.members);
        for (link, (entry, member)) in self.config.links.iter().zip(entries) {
            let source = watched.cluster(&self.env, &link.from, Side::Source);
            let target = watched.cluster(&self.env, &link.to, Side::Target);
            let (source, target) = match (source, target) {
                (Ok(source), Ok(target)) => (source, target),
                (Err(error), _) | (_, Err(error)) => {
                    entry.fail(error);
                    member.set_gone();
                    continue;
                }
            };
            let mut failure = None;
            for origin in &link.forward.origins {
                failure = failure.or(watched.any(&self.env, origin).err());
            }
            match failure {
                Some(error) => {
                    entry.fail(error);
                    member.set_gone();
                }
                None => open.push((link, entry, member, source, target)),
            }
        }
        tokio::task::spawn_local(self.lanes.clone().keep_balance(self.env.clone()));
        let clusters: Vec<_> = watched.handles.values().cloned().collect();
        let mut links = Vec::new();
        for (link, entry, member, source, target) in open {
            let context = LinkContext {
                config: link.clone(),
                source: source.clone(),
                target: target.clone(),
                member: member.clone(),
                rate_limit: RateLimit::new(
                    link.bytes_per_second_max,
                    link.backfill.bytes_per_second_max,
                    self.env.now(),
                )
                .map(Arc::new),
            };
            let task = link::Context {
                env: self.env.clone(),
                link: link.clone(),
                entry: entry.clone(),
                source,
                target,
                clusters: clusters.clone(),
                clusters_count: self.config.clusters.len(),
                mirrors: self.lanes.open(&context),
                member,
                identity: self.identity.clone(),
            };
            links.push(async move { entry.fail(Box::pin(link::run(task)).await) });
        }
        futures_util::future::join_all(links).await;
        std::future::pending().await
    }
}

/// One watcher for each cluster and side, however many links use it; both sides have one security.
#[derive(Default)]
struct Watched {
    board: Arc<Board>,
    handles: BTreeMap<(String, bool), ClusterHandle>,
    securities: BTreeMap<String, Security>,
}

impl Watched {
    /// A cluster that may be watched for a link already.
    fn any(&mut self, env: &Env, cluster: &Arc<resolved::Cluster>) -> Result<ClusterHandle, Error> {
        let written = (cluster.name.clone(), false);
        let side = if self.handles.contains_key(&written) { Side::Target } else { Side::Source };
        self.cluster(env, cluster, side)
    }

    fn cluster(
        &mut self,
        env: &Env,
        cluster: &Arc<resolved::Cluster>,
        side: Side,
    ) -> Result<ClusterHandle, Error> {
        let key = (cluster.name.clone(), side == Side::Source);
        if let Some(handle) = self.handles.get(&key) {
            return Ok(handle.clone());
        }
        let security = self.security(env, cluster)?;
        let (handle, watch) = cluster::watch_unseen(env.clone(), cluster.clone(), security, side);
        tokio::task::spawn_local(watch);
        self.handles.insert(key, handle.clone());
        Ok(handle)
    }

    fn security(&mut self, env: &Env, cluster: &resolved::Cluster) -> Result<Security, Error> {
        if let Some(security) = self.securities.get(&cluster.name) {
            return Ok(security.clone());
        }
        let security = Security::load(cluster)?;
        self.board.add_security(security.cell());
        tokio::task::spawn_local(security.clone().keep_fresh(env.clone()));
        self.securities.insert(cluster.name.clone(), security.clone());
        Ok(security)
    }
}
