//! The task against two embedded clusters: what an operator does to topics, and what becomes of the mirrors.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_local};

use super::*;
use crate::cluster::{admin, watch};
use crate::config::resolved::{Address, Cluster as Configured, MembershipProtocol, Naming};
use crate::embedded::{ApiKey, Cluster, Fault, Options, Order, open};
use crate::engine::member::Standing;
use crate::engine::spec::{Leave, Left, MirrorId, MirrorSpec};
use crate::error::{Code, Side};
use crate::link::calls::Caller;
use crate::link::{codes, fixture};
use crate::wire::ErrorCode;
use crate::wire::common::TopicPartitions;
use crate::wire::offset_commit::OffsetToCommit;

/// Notes what it is told.
#[derive(Default)]
struct Recorder {
    running: RefCell<BTreeMap<MirrorId, MirrorSpec>>,
}

impl Mirrors for Rc<Recorder> {
    fn add(&self, spec: MirrorSpec) {
        let before = self.running.borrow_mut().insert(spec.id.clone(), spec);
        assert!(before.is_none(), "was there already: {before:?}");
    }

    fn remove(&self, id: &MirrorId, _: Leave) -> Left {
        assert!(self.running.borrow_mut().remove(id).is_some(), "was not there: {id}");
        tokio::sync::oneshot::channel().1
    }
}

/// A link between two embedded clusters.
struct Rig {
    source: Cluster,
    target: Cluster,
    entry: Arc<LinkEntry>,
    recorder: Rc<Recorder>,
    /// Handles of our own.
    handles: (ClusterHandle, ClusterHandle),
    task: JoinHandle<Error>,
}

fn local<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default());
    runtime.unwrap().block_on(test)
}

async fn serve(options: Options) -> Cluster {
    let (cluster, serving) = open(Env::real(), options).await.unwrap();
    spawn_local(serving);
    cluster
}

fn configured(name: &str, cluster: &Cluster) -> Arc<Configured> {
    let at = cluster.address(1);
    let bootstrap = vec![Address { host: at.ip().to_string(), port: at.port() }];
    Arc::new(Configured { bootstrap, ..Configured::clone(&fixture::cluster(name)) })
}

async fn handle(cluster: &Arc<Configured>, side: Side) -> ClusterHandle {
    let (handle, watching) = watch(Env::real(), cluster.clone(), side).await.unwrap();
    spawn_local(watching);
    handle
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(25);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Rig {
    async fn new(source: Cluster, target: Cluster, change: impl FnOnce(&mut Link)) -> Self {
        let mut link = fixture::link(&[".*"], &[]);
        link.from = configured("east", &source);
        link.to = configured("west", &target);
        change(&mut link);
        let link = Arc::new(link);
        let entry = Arc::new(LinkEntry::new(&link.name, &link.from.name, &link.to.name, false));
        let handles =
            (handle(&link.from, Side::Source).await, handle(&link.to, Side::Target).await);
        let recorder = Rc::new(Recorder::default());
        let task = spawn_local(run(Context {
            env: Env::real(),
            link,
            entry: entry.clone(),
            source: handles.0.clone(),
            target: handles.1.clone(),
            clusters: vec![handles.0.clone(), handles.1.clone()],
            clusters_count: 2,
            mirrors: recorder.clone(),
            member: Arc::new(MemberCell::new(Standing::Nobody)),
            identity: None,
        }));
        Self { source, target, entry, recorder, handles, task }
    }

    /// Looks at the metadata now rather than within 5 s.
    fn hurry(&self) {
        self.handles.0.refresh();
        self.handles.1.refresh();
    }

    fn running(&self, topic: &str) -> Vec<i32> {
        let running = self.recorder.running.borrow();
        running.keys().filter(|id| *id.topic == *topic).map(|id| id.partition).collect()
    }

    fn spec(&self, topic: &str) -> MirrorSpec {
        let running = self.recorder.running.borrow();
        running.values().find(|spec| *spec.id.topic == *topic).unwrap().clone()
    }

    fn blocked(&self) -> Vec<(String, Code)> {
        let blocked = self.entry.blocked_topics.lock().unwrap();
        blocked.iter().map(|(topic, error)| (topic.clone(), error.code)).collect()
    }

    fn is_blocked(&self, topic: &str, code: Code) -> bool {
        self.blocked() == [(topic.to_owned(), code)]
    }

    fn error(&self) -> Option<Error> {
        self.entry.error.lock().unwrap().clone()
    }

    /// The settings that were given to a target topic itself.
    async fn settings(&self, topic: &str) -> Vec<(String, String)> {
        let mut caller = Caller::new(Env::real(), self.handles.1.clone());
        let topic: Arc<str> = topic.into();
        let mut settings = caller.settings([&topic].into_iter(), None).await.unwrap();
        let settings = settings.remove(&topic).unwrap().unwrap();
        let mut own: Vec<_> = settings
            .into_iter()
            .filter(|setting| setting.on_topic)
            .map(|setting| (setting.name, setting.value.unwrap()))
            .collect();
        own.sort();
        own
    }
}

/// A link between two clusters whose source has `orders` with two partitions, as soon as it is copied.
async fn copying() -> Rig {
    let source = serve(Options::default()).await;
    source.create_topic("orders", 2, 1, &[]).unwrap();
    let rig = Rig::new(source, serve(Options::default()).await, |_| ()).await;
    until("orders is copied", || rig.running("orders") == [0, 1]).await;
    rig
}

#[test]
fn a_target_topic_is_made_like_the_source_topic_and_copied() {
    local(async {
        let source = serve(Options::default()).await;
        let configs = [
            ("cleanup.policy", "compact"),
            ("max.message.bytes", "2000000"),
            ("message.timestamp.type", "LogAppendTime"),
            ("min.insync.replicas", "1"),
        ];
        let source_id = source.create_topic("orders", 3, 1, &configs).unwrap();
        let expiry = Duration::from_secs(60);
        let target = serve(Options { producer_expiry: expiry, ..Options::default() }).await;
        let rig = Rig::new(source, target, |link| link.naming = Naming::Prefix).await;
        until("all partitions run", || rig.running("orders") == [0, 1, 2]).await;

        let made = [
            ("cleanup.policy", "compact"),
            ("max.message.bytes", "2000000"),
            ("message.timestamp.type", "CreateTime"),
        ];
        let made: Vec<_> = made.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(rig.settings("east.orders").await, made);
        assert_eq!(rig.target.topics(), ["east.orders"]);

        let spec = rig.spec("orders");
        assert_eq!((&*spec.target_topic, spec.source_topic_id), ("east.orders", source_id));
        assert_eq!(spec.target_topic_id, rig.handles.1.map().topics["east.orders"].id);
        assert_eq!(spec.target.max_message_bytes(), 2_000_000);
        assert!(spec.target.compacted() && !spec.target.log_append_time());
        assert_eq!(spec.target.producer_state_trusted_ms(), 30_000);
        until("the first look is over", || rig.entry.discovered.load(Relaxed)).await;
        assert_eq!((rig.error(), rig.blocked()), (None, vec![]));
    });
}

#[test]
fn new_topics_and_partitions_are_picked_up_within_seconds() {
    local(async {
        let rig = copying().await;
        let begun = tokio::time::Instant::now();
        rig.source.grow_topic("orders", 4);
        rig.source.create_topic("payments", 1, 1, &[]).unwrap();
        until("orders grew", || rig.running("orders") == [0, 1, 2, 3]).await;
        until("payments is copied", || rig.running("payments") == [0]).await;
        assert!(begun.elapsed() < Duration::from_secs(8), "nobody hurried it");
        assert!(rig.target.dump("orders", 3).is_ok(), "the target has grown");
        assert!(rig.blocked().is_empty());
    });
}

/// One test for all: an absence takes its time to be believed.
#[test]
fn what_is_deleted_or_made_again_stops_alone() {
    local(async {
        let (source, target) = (serve(Options::default()).await, serve(Options::default()).await);
        let topics = [
            "source-deleted",
            "source-made-again",
            "target-deleted",
            "target-made-again",
            "untouched",
        ];
        for topic in topics {
            source.create_topic(topic, 2, 1, &[]).unwrap();
        }
        // A group whose broker assigns takes back what is deleted at once; here the metadata alone tell.
        let alone = |link: &mut Link| link.membership.protocol = MembershipProtocol::Off;
        let rig = Rig::new(source, target, alone).await;
        until("all are copied", || topics.iter().all(|t| rig.running(t) == [0, 1])).await;

        rig.source.delete_topic("source-deleted").unwrap();
        rig.source.recreate_topic("source-made-again").unwrap();
        rig.target.delete_topic("target-deleted").unwrap();
        rig.target.recreate_topic("target-made-again").unwrap();
        rig.hurry();
        let at_once = [
            ("source-made-again".to_owned(), codes::SOURCE_RECREATED),
            ("target-made-again".to_owned(), codes::TARGET_RECREATED),
        ];
        until("new ids are seen at once", || rig.blocked() == at_once).await;
        assert_eq!(rig.running("source-deleted"), [0, 1], "not at first sight");
        assert_eq!(rig.running("target-deleted"), [0, 1], "not at first sight");

        let deleted = ("target-deleted".to_owned(), codes::TARGET_GONE);
        let [first, last] = at_once;
        until("the deletions are believed", || rig.running("source-deleted").is_empty()).await;
        until("all three are named", || {
            rig.blocked() == [first.clone(), deleted.clone(), last.clone()]
        })
        .await;
        let running: Vec<_> =
            topics.iter().filter(|topic| !rig.running(topic).is_empty()).collect();
        assert_eq!(running, [&"untouched"]);
        let kept = ["source-deleted", "source-made-again", "target-made-again", "untouched"];
        assert_eq!(rig.target.topics(), kept, "nothing was deleted there, and nothing made again");

        // The cure that the message tells, while the link runs.
        rig.target.delete_topic("source-made-again").unwrap();
        until("the new topic is copied", || rig.running("source-made-again") == [0, 1]).await;
        assert_eq!(rig.blocked(), [deleted, last]);
        assert!(rig.error().is_none());
    });
}

#[test]
fn a_smaller_topic_in_the_way_blocks_until_the_operator_grows_it() {
    local(async {
        let source = serve(Options::default()).await;
        source.create_topic("orders", 3, 1, &[]).unwrap();
        source.create_topic("payments", 1, 1, &[]).unwrap();
        let target = serve(Options::default()).await;
        target.create_topic("orders", 1, 1, &[]).unwrap();
        let rig = Rig::new(source, target, |_| ()).await;
        until("payments is copied", || rig.running("payments") == [0]).await;
        until("orders is blocked", || rig.is_blocked("orders", codes::IN_THE_WAY)).await;
        assert!(rig.running("orders").is_empty());
        assert!(rig.target.dump("orders", 1).is_err(), "it was not touched");
        rig.target.grow_topic("orders", 3);
        rig.hurry();
        until("orders is copied", || rig.running("orders") == [0, 1, 2]).await;
        assert!(rig.blocked().is_empty());
    });
}

#[test]
fn a_smaller_topic_that_the_group_has_a_position_of_is_grown() {
    local(async {
        let source = serve(Options::default()).await;
        source.create_topic("orders", 3, 1, &[]).unwrap();
        let target = serve(Options::default()).await;
        target.create_topic("orders", 1, 1, &[]).unwrap();
        let configured = configured("east", &source);
        let asked = handle(&configured, Side::Source).await;
        let coordinator = asked.coordinator(&Env::real(), "strait.east-to-west").await.unwrap();
        let position =
            OffsetToCommit { index: 0, offset: 0, leader_epoch: -1, metadata: String::new() };
        let positions = vec![TopicPartitions::new("orders", vec![position])];
        let answer = admin::offset_commit(&coordinator, "strait.east-to-west", positions).await;
        assert_eq!(answer.unwrap()[0].partitions, [(0, ErrorCode::NONE)]);

        let rig = Rig::new(source, target, |_| ()).await;
        until("orders is copied", || rig.running("orders") == [0, 1, 2]).await;
        assert!(rig.target.dump("orders", 2).is_ok());
    });
}

#[test]
fn a_refused_topic_is_named_with_the_command_and_its_neighbour_runs() {
    local(async {
        let source = serve(Options::default()).await;
        source.create_topic("a", 1, 1, &[]).unwrap();
        source.create_topic("b", 1, 1, &[]).unwrap();
        let target = serve(Options::default()).await;
        let fault = Fault::Refuse(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
        let order = Order::next(ApiKey::CreateTopics, fault).at("a", -1).times(u32::MAX);
        let id = target.fault(order);
        let rig = Rig::new(source, target, |_| ()).await;
        until("b is copied", || rig.running("b") == [0]).await;
        until("a is blocked", || rig.is_blocked("a", codes::NOT_ALLOWED)).await;
        until("the first look is over", || rig.entry.discovered.load(Relaxed)).await;
        let text = rig.entry.blocked_topics.lock().unwrap()["a"].to_string();
        let command = "--operation Create --topic a";
        assert!(text.contains(command) && text.contains("TOPIC_AUTHORIZATION_FAILED"), "{text}");
        assert_eq!(rig.target.fault_struck(id), 1, "asked once, not in a loop");
    });
}

#[test]
fn a_controller_that_is_away_is_asked_again() {
    local(async {
        let source = serve(Options::default()).await;
        source.create_topic("orders", 1, 1, &[]).unwrap();
        let target = serve(Options::default()).await;
        let fault = Fault::Refuse(ErrorCode::NOT_CONTROLLER);
        let id = target.fault(Order::next(ApiKey::CreateTopics, fault).at("orders", -1).times(3));
        let rig = Rig::new(source, target, |_| ()).await;
        until("orders is copied", || {
            let copied = rig.running("orders") == [0];
            assert!(copied || !rig.entry.discovered.load(Relaxed), "it is still expected");
            copied
        })
        .await;
        until("the first look is over", || rig.entry.discovered.load(Relaxed)).await;
        assert_eq!(rig.target.fault_struck(id), 3);
        until("nothing is blocked", || rig.blocked().is_empty()).await;
    });
}

#[test]
fn a_link_from_a_cluster_to_itself_is_refused() {
    local(async {
        let source = serve(Options::default()).await;
        source.create_topic("orders", 1, 1, &[]).unwrap();
        let rig = Rig::new(source.clone(), source, |link| link.naming = Naming::Prefix).await;
        until("the link failed", || rig.error().is_some()).await;
        assert_eq!(rig.error().unwrap().code, codes::SAME_CLUSTER);
        assert_eq!(rig.task.await.unwrap().code, codes::SAME_CLUSTER);
        assert_eq!(rig.source.topics(), ["orders"]);
    });
}

#[test]
fn a_cluster_out_of_reach_is_told_and_taken_back() {
    local(async {
        let rig = copying().await;
        rig.target.kill_broker(1);
        until("the link failed", || rig.error().is_some()).await;
        let error = rig.error().unwrap();
        assert_eq!((error.side, error.place.cluster.as_deref()), (Side::Target, Some("west")));
        assert_eq!(rig.running("orders"), [0, 1], "the lanes see for themselves");
        rig.target.restart_broker(1);
        until("the link is well", || rig.error().is_none()).await;
        rig.source.create_topic("payments", 1, 1, &[]).unwrap();
        rig.hurry();
        until("payments is copied", || rig.running("payments") == [0]).await;
    });
}

#[test]
fn unreadable_settings_of_the_target_are_assumed() {
    local(async {
        let source = serve(Options::default()).await;
        source.create_topic("orders", 1, 1, &[]).unwrap();
        let target = serve(Options::default()).await;
        let fault = Fault::Refuse(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
        target.fault(Order::next(ApiKey::DescribeConfigs, fault).times(u32::MAX));
        let rig = Rig::new(source, target, |_| ()).await;
        until("orders is copied", || rig.running("orders") == [0]).await;
        let assumed = limits::MAX_MESSAGE_BYTES_DEFAULT;
        assert_eq!(rig.spec("orders").target.max_message_bytes(), assumed);
        assert!(rig.blocked().is_empty());
    });
}

#[test]
fn unreadable_settings_of_the_source_block_what_would_be_made_wrong() {
    local(async {
        let source = serve(Options::default()).await;
        source.create_topic("orders", 1, 1, &[("cleanup.policy", "compact")]).unwrap();
        let fault = Fault::Refuse(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
        source.fault(Order::next(ApiKey::DescribeConfigs, fault).times(u32::MAX));
        let rig = Rig::new(source, serve(Options::default()).await, |_| ()).await;
        until("orders is blocked", || rig.is_blocked("orders", codes::NOT_ALLOWED)).await;
        assert!(rig.target.topics().is_empty(), "not made without its settings");
        let text = rig.entry.blocked_topics.lock().unwrap()["orders"].to_string();
        assert!(text.contains("--operation DescribeConfigs --topic orders"), "{text}");
    });
}
