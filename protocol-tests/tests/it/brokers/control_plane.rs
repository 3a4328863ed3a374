//! A link's control plane on real brokers: topics made like the source's across releases, and rights that are missing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use protocol_tests::lab::{Cluster, Listener, PASSWORD, Version, pool};
use protocol_tests::wait::wait_until;
use serde_json::{Value, json};
use strait::cluster::watch;
use strait::config::{Surroundings, parse};
use strait::engine::member::{MemberCell, Standing};
use strait::engine::spec::{Leave, Left, MirrorId, MirrorSpec, Mirrors};
use strait::engine::stats::LinkEntry;
use strait::env::Env;
use strait::error::{Error, Side};
use strait::link::{Context, run};
use tokio::sync::Notify;

/// The mirrors that a link asked for.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<BTreeMap<MirrorId, MirrorSpec>>>);

impl Mirrors for Recorder {
    fn add(&self, spec: MirrorSpec) {
        self.0.lock().unwrap().insert(spec.id.clone(), spec);
    }

    fn remove(&self, id: &MirrorId, _: Leave) -> Left {
        self.0.lock().unwrap().remove(id);
        tokio::sync::oneshot::channel().1
    }
}

/// A link's control plane on a thread of its own, without lanes.
struct Running {
    mirrors: Recorder,
    entry: Arc<LinkEntry>,
    end: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// The one link of a configuration.
    fn start(yaml: &str) -> Self {
        let around = Surroundings { directory: Path::new("."), variable: &|_| None };
        let link = parse(yaml, "strait.yaml", &around).unwrap().config.links.remove(0);
        let entry = Arc::new(LinkEntry::new(&link.name, &link.from.name, &link.to.name, false));
        let (mirrors, end) = (Recorder::default(), Arc::new(Notify::new()));
        let inside = (mirrors.clone(), entry.clone(), end.clone());
        let thread = std::thread::spawn(move || {
            let (mirrors, entry, end) = inside;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default());
            runtime.unwrap().block_on(async move {
                let env = Env::real();
                let (source, watching) =
                    watch(env.clone(), link.from.clone(), Side::Source).await.unwrap();
                tokio::task::spawn_local(watching);
                let (target, watching) =
                    watch(env.clone(), link.to.clone(), Side::Target).await.unwrap();
                tokio::task::spawn_local(watching);
                let member = Arc::new(MemberCell::new(Standing::Nobody));
                let context = Context {
                    clusters: vec![source.clone(), target.clone()],
                    clusters_count: 2,
                    env,
                    link,
                    entry,
                    source,
                    target,
                    mirrors,
                    member,
                    identity: None,
                };
                tokio::select! {
                    error = run(context) => panic!("{error}"),
                    () = end.notified() => (),
                }
            });
        });
        Self { mirrors, entry, end, thread: Some(thread) }
    }

    fn copied(&self, topic: &str) -> usize {
        self.mirrors.0.lock().unwrap().keys().filter(|id| *id.topic == *topic).count()
    }

    fn error(&self) -> Option<Error> {
        self.entry.error.lock().unwrap().clone()
    }

    fn blocked(&self, topic: &str) -> Option<Error> {
        self.entry.blocked_topics.lock().unwrap().get(topic).cloned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end.notify_one();
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Every setting that a topic of the release can be given (`LogConfig.configNames`), none at its default.
fn all_settings(version: Version) -> Value {
    let mut settings = json!({
        "cleanup.policy": "compact,delete",
        "compression.gzip.level": "4",
        "compression.lz4.level": "8",
        "compression.type": "zstd",
        "compression.zstd.level": "5",
        "delete.retention.ms": "86400001",
        "file.delete.delay.ms": "60001",
        "flush.messages": "1000000",
        "flush.ms": "1000000",
        "follower.replication.throttled.replicas": "0:1",
        "index.interval.bytes": "4097",
        "leader.replication.throttled.replicas": "0:1",
        "local.retention.bytes": "1000000",
        "local.retention.ms": "1000000",
        "max.compaction.lag.ms": "9000000000",
        "max.message.bytes": "2000000",
        "message.timestamp.after.max.ms": "3700000",
        "message.timestamp.before.max.ms": "9000000000",
        "message.timestamp.type": "LogAppendTime",
        "min.cleanable.dirty.ratio": "0.4",
        "min.compaction.lag.ms": "1",
        "min.insync.replicas": "2",
        "preallocate": "true",
        "retention.bytes": "1000000000",
        "retention.ms": "9000000000",
        "segment.bytes": "100000000",
        "segment.index.bytes": "1000000",
        "segment.jitter.ms": "1",
        "segment.ms": "600000000",
        "unclean.leader.election.enable": "true",
    });
    if version == Version::V39 {
        settings["message.downconversion.enable"] = json!("false");
        settings["message.timestamp.difference.max.ms"] = json!("9000000000");
        settings["message.format.version"] = json!("3.0");
    }
    settings
}

#[test]
fn a_topic_with_every_setting_is_made_on_the_other_release() {
    for (from, to) in [(Version::V39, Version::V43), (Version::V43, Version::V39)] {
        let (source, target) = pool::pair(from, to);
        let topic = format!("topics-settings-{}", from.number().replace('.', "-"));
        source.admin().create_topic(&topic, 3, all_settings(from));
        let running = Running::start(&format!(
            "version: 1
clusters:
  east: {{ bootstrap: ['{}'] }}
  west: {{ bootstrap: ['{}'] }}
links:
  settings:
    from: east
    to: west
    topics: {{ include: ['{topic}'] }}
    naming: '{{topic}}_COPY'
",
            source.bootstrap(Listener::Plain),
            target.bootstrap(Listener::Plain)
        ));
        wait_until("its mirrors begin", 30, || running.copied(&topic) == 3);
        assert_eq!(running.blocked(&topic), None);

        let copy = format!("{topic}_COPY");
        assert_eq!(target.admin().describe(&copy).len(), 3);
        let made = target.admin().call(json!({ "call": "topic_configs", "topic": copy }));
        let copied = [
            "cleanup.policy",
            "compression.type",
            "max.message.bytes",
            "retention.ms",
            "segment.bytes",
            "min.cleanable.dirty.ratio",
        ];
        for name in copied {
            assert_eq!(made[name], all_settings(from)[name], "{name} of {made}");
        }
        assert_eq!(made["message.timestamp.type"], "CreateTime", "{made}");
        assert_ne!(made["min.insync.replicas"], "2", "{made}");
        let mirrors = running.mirrors.0.lock().unwrap();
        let facts = &mirrors.values().next().unwrap().target;
        assert_eq!(facts.max_message_bytes(), 2_000_000);
        assert!(facts.compacted() && !facts.log_append_time());
    }
}

/// Every right that a link lacks is named with its command, one after the other, and granting it is enough: nothing is
/// restarted.
#[test]
fn missing_rights_are_named_and_granting_them_cures() {
    let (source, target) = Cluster::builder(Version::V43)
        .authorizer()
        .start_both(Cluster::builder(Version::V43).authorizer());
    source.admin().create_topic("orders", 2, json!({ "cleanup.policy": "compact" }));
    let sasl = |cluster: &Cluster| {
        format!(
            "{{ bootstrap: ['{}'], sasl: {{ mechanism: SCRAM-SHA-512, username: strait, password: '{PASSWORD}' }} }}",
            cluster.bootstrap(Listener::SaslPlain)
        )
    };
    let running = Running::start(&format!(
        "version: 1
clusters:
  east: {}
  west: {}
links:
  rights:
    from: east
    to: west
    topics: {{ include: ['orders'] }}
",
        sasl(&source),
        sasl(&target)
    ));
    let grant = |cluster: &Cluster, kind: &str, name: &str, operation: &str| {
        cluster.admin().allow("User:strait", kind, name, &[operation]);
    };
    let lacks = |error: Option<Error>, command: &str| {
        error.is_some_and(|error| {
            assert_eq!(error.code.0, 30, "{error}");
            error.fix.contains(command) && error.fix.contains("User:strait")
        })
    };

    wait_until("the group's right is missed", 30, || {
        lacks(running.error(), "--operation Read --group strait.rights")
    });
    grant(&source, "GROUP", "strait.rights", "READ");
    wait_until("the link looks around", 30, || {
        running.error().is_none()
            && running.entry.discovered.load(std::sync::atomic::Ordering::Relaxed)
    });
    assert_eq!(running.copied("orders"), 0, "it is hidden");

    grant(&source, "TOPIC", "orders", "READ");
    let command = "--operation DescribeConfigs --topic orders";
    wait_until("the settings' right is missed", 30, || lacks(running.blocked("orders"), command));
    grant(&source, "TOPIC", "orders", "DESCRIBE_CONFIGS");
    let command = "--operation Create --topic orders";
    wait_until("the right to create is missed", 40, || lacks(running.blocked("orders"), command));
    grant(&target, "TOPIC", "orders", "CREATE");
    let command = "--operation Write --topic orders";
    wait_until("the right to write is missed", 90, || lacks(running.blocked("orders"), command));
    assert_eq!(target.admin().describe("orders").len(), 2, "it was made");
    grant(&target, "TOPIC", "orders", "WRITE");
    wait_until("it is copied", 40, || running.copied("orders") == 2);
    wait_until("nothing is blocked", 10, || running.blocked("orders").is_none());
}
