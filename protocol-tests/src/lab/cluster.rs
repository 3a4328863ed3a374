//! A cluster of real brokers.

use std::collections::HashMap;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use tempfile::TempDir;

use super::{Listener, Node, PASSWORD, USERS, Version, pool};
use crate::certs::Authority;
use crate::process::tail;
use crate::{agent, ports};

/// What a cluster will be; see [`Cluster::builder`].
#[derive(Debug)]
pub struct ClusterBuilder {
    version: Version,
    nodes: usize,
    properties: Vec<(String, String)>,
    advertised: HashMap<(i32, Listener), String>,
    hosts: HashMap<Listener, String>,
    authorizer: bool,
    for_speed: bool,
}

/// A running cluster. Dropping it ends its brokers.
#[derive(Debug)]
pub struct Cluster {
    /// The release.
    pub version: Version,
    /// Its brokers, ids from 1.
    pub nodes: Vec<Node>,
    /// Who signed the brokers' certificates.
    pub authority: Authority,
    /// The cluster id.
    pub id: String,
    advertised: HashMap<(i32, Listener), String>,
    folder: TempDir,
    _permits: pool::Permits,
}

impl Cluster {
    /// A cluster to be; one node unless told otherwise.
    pub fn builder(version: Version) -> ClusterBuilder {
        ClusterBuilder {
            version,
            nodes: 1,
            properties: Vec::new(),
            advertised: HashMap::new(),
            hosts: HashMap::new(),
            authorizer: false,
            for_speed: false,
        }
    }

    /// One node with defaults.
    pub fn start(version: Version) -> Self {
        Self::builder(version).start()
    }

    /// The broker with this id.
    pub fn node(&mut self, id: i32) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == id).expect("no such node")
    }

    /// `host:port,...` of all brokers.
    pub fn bootstrap(&self, listener: Listener) -> String {
        let address = |node: &Node| match self.advertised.get(&(node.id, listener)) {
            Some(advertised) => advertised.clone(),
            None => node.address(listener),
        };
        self.nodes.iter().map(address).collect::<Vec<_>>().join(",")
    }

    /// Operator's calls and Java clients on the plain listener.
    pub fn admin(&self) -> agent::Admin {
        agent::Admin::new(self.bootstrap(Listener::Plain))
    }

    /// Starts a node again and waits until it is back in the cluster.
    pub fn restart(&mut self, id: i32) {
        let brokers = self.nodes.len();
        let node = self.node(id);
        node.start();
        node.wait_ready(brokers);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("--- broker {} of {}, last lines:", node.id, self.version.number());
                eprintln!("{}", tail(&node.log_file(), 15));
            }
        }
    }
}

impl ClusterBuilder {
    /// How many brokers; each is also a controller.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// A broker property, over the lab's own.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.properties.push((key.into(), value.into()));
        self
    }

    /// What a node says its address on `listener` is; the port to forward to is [`Node::address`].
    #[must_use]
    pub fn advertise(mut self, node: i32, listener: Listener, address: &str) -> Self {
        self.advertised.insert((node, listener), address.into());
        self
    }

    /// Binds a listener to this address of the machine instead of loopback's, and advertises it there.
    #[must_use]
    pub fn bind(mut self, listener: Listener, host: &str) -> Self {
        self.hosts.insert(listener, host.into());
        self
    }

    /// Access control on: the plain listener (anonymous) and `admin` may everything, the others nothing yet.
    #[must_use]
    pub fn authorizer(mut self) -> Self {
        self.authorizer = true;
        self
    }

    /// Brokers to be measured against: heap, compilers, collector and threads of a server, and sockets that hold 1 MiB.
    #[must_use]
    pub fn for_speed(mut self) -> Self {
        self.for_speed = true;
        self.set("num.network.threads", "3")
            .set("num.io.threads", "8")
            .set("socket.send.buffer.bytes", "1048576")
            .set("socket.receive.buffer.bytes", "1048576")
            .set("socket.request.max.bytes", "209715200")
    }

    /// Starts the brokers and waits until all of them are in the cluster.
    pub fn start(self) -> Cluster {
        let permits = pool::Permits::take(self.nodes);
        self.start_with(permits)
    }

    /// Starts two clusters. Their permits are taken together: two tests that hold one cluster each and wait for a second
    /// would wait for ever.
    pub fn start_both(self, other: Self) -> (Cluster, Cluster) {
        let mut first = pool::Permits::take(self.nodes + other.nodes);
        let second = first.split(other.nodes);
        let thread = std::thread::spawn(move || other.start_with(second));
        let first = self.start_with(first);
        match thread.join() {
            Ok(second) => (first, second),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn start_with(mut self, permits: pool::Permits) -> Cluster {
        sweep();
        let prefix = format!("strait-lab-{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        let authority = Authority::new("lab");
        let mut names = vec!["localhost", "127.0.0.1"];
        names.extend(self.hosts.values().map(String::as_str));
        let certificate = authority.server(&names);
        let id = cluster_id();
        let controllers: Vec<u16> = (0..self.nodes).map(|_| ports::free()).collect();
        let voters: Vec<String> =
            (1..).zip(&controllers).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
        let mut nodes = Vec::new();
        for (node_id, controller) in (1..).zip(&controllers) {
            let node_folder = folder.path().join(node_id.to_string());
            fs::create_dir_all(&node_folder).unwrap();
            let ports: HashMap<_, _> = Listener::ALL.map(|l| (l, ports::free())).into();
            for (listener, host) in &self.hosts {
                let address = format!("{host}:{}", ports[listener]);
                self.advertised.insert((node_id, *listener), address);
            }
            let mut lines = self.common_properties();
            lines.push(format!("node.id={node_id}"));
            lines.push(format!("controller.quorum.voters={}", voters.join(",")));
            lines.push(format!("log.dirs={}", node_folder.join("data").display()));
            lines.extend(self.listeners(node_id, &ports, *controller));
            for listener in Listener::ALL {
                lines.extend(listener.properties(&certificate, &authority.ca()));
            }
            lines.extend(self.properties.iter().map(|(key, value)| format!("{key}={value}")));
            fs::write(node_folder.join("server.properties"), lines.join("\n")).unwrap();
            format_storage(self.version, &node_folder, node_id, &id);
            nodes.push(Node::new(node_id, self.version, node_folder, ports, self.for_speed));
        }
        nodes.iter_mut().for_each(Node::start);
        nodes.iter_mut().for_each(|node| node.wait_ready(self.nodes));
        nodes[0].wait_coordinator();
        let advertised = self.advertised;
        Cluster {
            version: self.version,
            nodes,
            authority,
            id,
            advertised,
            folder,
            _permits: permits,
        }
    }

    fn listeners(&self, id: i32, ports: &HashMap<Listener, u16>, controller: u16) -> Vec<String> {
        let each = |format: &dyn Fn(Listener) -> String| Listener::ALL.map(format).join(",");
        let bound = each(&|l| {
            let host = self.hosts.get(&l).map_or("127.0.0.1", String::as_str);
            format!("{}://{host}:{}", l.name(), ports[&l])
        });
        let advertised = each(&|l| {
            let address = self.advertised.get(&(id, l));
            let own = format!("localhost:{}", ports[&l]);
            format!("{}://{}", l.name(), address.unwrap_or(&own))
        });
        let protocols = each(&|l| format!("{}:{}", l.name(), l.protocol()));
        vec![
            format!("listeners={bound},CONTROLLER://127.0.0.1:{controller}"),
            format!("advertised.listeners={advertised}"),
            format!("listener.security.protocol.map={protocols},CONTROLLER:PLAINTEXT"),
            "inter.broker.listener.name=PLAIN".into(),
            "controller.listener.names=CONTROLLER".into(),
        ]
    }

    fn common_properties(&self) -> Vec<String> {
        let replicas = self.nodes.min(3).to_string();
        let mut lines: Vec<String> = [
            "process.roles=broker,controller",
            // Nothing waits for a human's idea of a good moment.
            "group.initial.rebalance.delay.ms=0",
            "auto.create.topics.enable=false",
            "auto.leader.rebalance.enable=false",
            "log.cleaner.backoff.ms=500",
            "log.initial.task.delay.ms=500",
            "log.retention.check.interval.ms=1000",
            "log.segment.delete.delay.ms=500",
            "producer.id.expiration.check.interval.ms=1000",
            "broker.session.timeout.ms=4000",
            "broker.heartbeat.interval.ms=500",
            "replica.lag.time.max.ms=4000",
            // Few threads and small topics: many brokers share a machine.
            "num.network.threads=1",
            "num.io.threads=4",
            "offsets.topic.num.partitions=2",
            "transaction.state.log.num.partitions=2",
            "log.cleaner.dedupe.buffer.size=2097152",
            "log.index.size.max.bytes=1048576",
        ]
        .map(String::from)
        .into();
        lines.push(format!("offsets.topic.replication.factor={replicas}"));
        lines.push(format!("transaction.state.log.replication.factor={replicas}"));
        lines.push("transaction.state.log.min.isr=1".into());
        if self.authorizer {
            lines.extend([
                "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer"
                    .into(),
                "super.users=User:ANONYMOUS;User:admin".into(),
            ]);
        }
        lines
    }
}

/// Removes the folders of test processes that are gone: shared clusters live to the end, where nothing is dropped.
fn sweep() {
    for entry in fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let owner = name.strip_prefix("strait-lab-").and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// 16 random bytes as Kafka writes them: 22 characters of URL-safe base64, the last with four zero bits. Without dashes:
/// Kafka's tools take a leading one for an option.
fn cluster_id() -> String {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef";
    let random = || RandomState::new().build_hasher().finish();
    let digits = (0..21).map(|_| char::from(DIGITS[usize::try_from(random() % 32).unwrap()]));
    digits.chain(['A']).collect()
}

/// What `StorageTool` wrote for a release, users included: the same for every node but for the ids.
static FORMATTED: Mutex<Option<HashMap<Version, Vec<u8>>>> = Mutex::new(None);

/// Formats a node's folder. The tool runs once per release; it takes two seconds of a core.
fn format_storage(version: Version, folder: &Path, node: i32, cluster: &str) {
    let mut formatted = FORMATTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let formatted = formatted.get_or_insert_default();
    let data = folder.join("data");
    if let Some(bootstrap) = formatted.get(&version) {
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("bootstrap.checkpoint"), bootstrap).unwrap();
        let directory = cluster_id();
        let meta =
            format!("version=1\ncluster.id={cluster}\nnode.id={node}\ndirectory.id={directory}\n");
        fs::write(data.join("meta.properties"), meta).unwrap();
        return;
    }
    let mut tool = Command::new("java");
    tool.args(["-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]);
    tool.args(["-cp", &version.class_path()]);
    tool.args(["kafka.tools.StorageTool", "format", "-t", cluster, "-c"]);
    tool.arg(folder.join("server.properties"));
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        for user in USERS {
            tool.args(["--add-scram", &format!("{mechanism}=[name={user},password={PASSWORD}]")]);
        }
    }
    let output = tool.output().expect("java");
    assert!(
        output.status.success(),
        "StorageTool: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    formatted.insert(version, fs::read(data.join("bootstrap.checkpoint")).unwrap());
}

impl Cluster {
    /// The folder of all its nodes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
