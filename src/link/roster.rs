//! Which mirrors run: those that the plan wants and the group gave us. Takes from both sides, at any moment, and keeps the
//! lanes in step.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::Notify;
use uuid::Uuid;

use super::plan::Begin;
use crate::engine::spec::{Leave, Left, MirrorId, MirrorSpec, Mirrors};
use crate::fleet::{Given, Holder, Partition};

/// What the group gave us.
#[derive(Debug, Default)]
enum Ours {
    /// It has not told.
    #[default]
    Unknown,
    All,
    /// With the ids of their topics; nil where none is told.
    These(BTreeMap<Partition, Uuid>),
}

#[derive(Debug, Default)]
struct State {
    ours: Ours,
    settled: bool,
    /// By topic and partition: the two topics that were meant.
    wanted: BTreeMap<Partition, Arc<Begin>>,
    running: BTreeSet<Partition>,
}

/// One link's mirrors.
pub(super) struct Roster<M> {
    link: Arc<str>,
    mirrors: M,
    state: RefCell<State>,
    /// Rings when something can begin.
    bell: Notify,
}

impl<M: Mirrors> Roster<M> {
    pub(super) fn new(link: &str, mirrors: M) -> Self {
        Self { link: link.into(), mirrors, state: RefCell::default(), bell: Notify::new() }
    }

    /// The plan wants these.
    pub(super) fn want(&self, begin: &Begin) {
        let mut state = self.state.borrow_mut();
        let shared = Arc::new(begin.clone());
        for partition in begin.partitions.clone() {
            state.wanted.insert((begin.topic.clone(), partition), shared.clone());
        }
    }

    /// The plan ends these.
    pub(super) fn end(&self, topic: &Arc<str>, partitions: std::ops::Range<i32>) {
        let mut state = self.state.borrow_mut();
        for partition in partitions {
            let partition = (topic.clone(), partition);
            state.wanted.remove(&partition);
            if state.running.remove(&partition) {
                drop(self.mirrors.remove(&self.id(&partition), Leave::Settled));
            }
        }
    }

    /// What is wanted and ours and does not run, in runs of partitions.
    pub(super) fn missing(&self) -> Vec<Begin> {
        let state = self.state.borrow();
        let mut missing: Vec<(Arc<Begin>, Begin)> = Vec::new();
        for (partition, of) in &state.wanted {
            if !state.is_ours(partition, of.source_id) || state.running.contains(partition) {
                continue;
            }
            match missing.last_mut() {
                Some((last, run)) if Arc::ptr_eq(last, of) && run.partitions.end == partition.1 => {
                    run.partitions.end += 1;
                }
                _ => {
                    let partitions = partition.1..partition.1 + 1;
                    missing.push((of.clone(), Begin { partitions, ..Begin::clone(of) }));
                }
            }
        }
        missing.into_iter().map(|(_, run)| run).collect()
    }

    /// Starts a mirror, if it still is to run.
    pub(super) fn begin(&self, spec: MirrorSpec) {
        let partition = (spec.id.topic.clone(), spec.id.partition);
        let mut state = self.state.borrow_mut();
        let meant = state.wanted.get(&partition).is_some_and(|of| {
            of.source_id == spec.source_topic_id && of.target_id == spec.target_topic_id
        });
        let source_id = spec.source_topic_id;
        if meant && state.is_ours(&partition, source_id) && state.running.insert(partition) {
            self.mirrors.add(spec);
        }
    }

    /// Topics that are wanted: also those that a look at the metadata happens not to show.
    pub(super) fn topics(&self) -> BTreeSet<Arc<str>> {
        self.state.borrow().wanted.keys().map(|(topic, _)| topic.clone()).collect()
    }

    /// Whether the group has told what is ours, or nothing is wanted: then there is no need to be told.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.state.borrow();
        state.settled || state.wanted.is_empty()
    }

    /// Waits until something can begin that could not before.
    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    fn id(&self, (topic, partition): &Partition) -> MirrorId {
        MirrorId { link: self.link.clone(), topic: topic.clone(), partition: *partition }
    }
}

impl State {
    /// Whether the group gave us this partition of this very topic: one that was made again under the same name is given by
    /// its new id before our metadata shows that it is new.
    fn is_ours(&self, partition: &Partition, source_id: Uuid) -> bool {
        match &self.ours {
            Ours::Unknown => false,
            Ours::All => true,
            Ours::These(these) => {
                these.get(partition).is_some_and(|id| id.is_nil() || *id == source_id)
            }
        }
    }
}

impl<M: Mirrors> Holder for std::rc::Rc<Roster<M>> {
    fn take_all(&self) {
        self.state.borrow_mut().ours = Ours::All;
        self.bell.notify_one();
    }

    fn take(&self, given: &[Given]) {
        let mut state = self.state.borrow_mut();
        if !matches!(state.ours, Ours::These(_)) {
            state.ours = Ours::These(BTreeMap::new());
        }
        if let Ours::These(these) = &mut state.ours {
            these.extend(given.iter().cloned());
        }
        if !given.is_empty() {
            let partitions: Vec<_> = given.iter().map(|(partition, _)| partition.clone()).collect();
            tracing::info!(link = %self.link, partitions = %shown(&partitions), "the group gave us");
        }
        self.bell.notify_one();
    }

    fn release(&self, partitions: &[Partition]) -> Vec<Left> {
        let mut state = self.state.borrow_mut();
        if let Ours::These(these) = &mut state.ours {
            for partition in partitions {
                these.remove(partition);
            }
        }
        tracing::info!(link = %self.link, partitions = %shown(partitions), "the group gives to another");
        let running = partitions.iter().filter(|partition| state.running.remove(partition));
        running.map(|partition| self.mirrors.remove(&self.id(partition), Leave::Settled)).collect()
    }

    fn lose(&self) {
        let mut state = self.state.borrow_mut();
        state.ours = Ours::Unknown;
        for partition in std::mem::take(&mut state.running) {
            drop(self.mirrors.remove(&self.id(&partition), Leave::AtOnce));
        }
    }

    fn settled(&self) {
        if !std::mem::replace(&mut self.state.borrow_mut().settled, true) {
            self.bell.notify_one();
        }
    }
}

/// The first few, and how many more.
fn shown(partitions: &[Partition]) -> String {
    const SHOWN: usize = 8;
    let first = partitions.iter().take(SHOWN).map(|(topic, index)| format!("{topic}-{index}"));
    let first = first.collect::<Vec<_>>().join(", ");
    match partitions.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::identity::Writer;
    use crate::engine::route::Route;
    use crate::engine::spec::TargetFacts;
    use std::rc::Rc;
    use tokio::sync::oneshot;
    use uuid::Uuid;

    #[derive(Default)]
    struct Log(RefCell<Vec<String>>);

    impl Mirrors for Rc<Log> {
        fn add(&self, spec: MirrorSpec) {
            self.0.borrow_mut().push(format!("add {}", spec.id.partition));
        }

        fn remove(&self, id: &MirrorId, leave: Leave) -> Left {
            self.0.borrow_mut().push(format!("remove {} {leave:?}", id.partition));
            oneshot::channel().1
        }
    }

    fn begin(partitions: std::ops::Range<i32>) -> Begin {
        Begin {
            topic: "t".into(),
            source_id: Uuid::from_u128(1),
            target: "t".into(),
            target_id: Uuid::from_u128(2),
            replaces: None,
            partitions,
        }
    }

    fn spec(partition: i32) -> MirrorSpec {
        MirrorSpec {
            id: MirrorId { link: "l".into(), topic: "t".into(), partition },
            source_topic_id: Uuid::from_u128(1),
            target_topic: "t".into(),
            target_topic_id: Uuid::from_u128(2),
            replaces: None,
            route: Route::new(Writer::new("link", Uuid::nil(), 0), Arc::default()),
            target: Arc::new(TargetFacts::default()),
        }
    }

    fn partitions(indexes: &[i32]) -> Vec<Partition> {
        indexes.iter().map(|index| ("t".into(), *index)).collect()
    }

    fn given(indexes: &[i32], id: Uuid) -> Vec<Given> {
        partitions(indexes).into_iter().map(|partition| (partition, id)).collect()
    }

    #[test]
    fn a_topic_that_was_made_again_does_not_begin_as_the_old_one() {
        let roster = Rc::new(Roster::new("l", Rc::new(Log::default())));
        roster.want(&begin(0..1));
        roster.take(&given(&[0], Uuid::from_u128(9)));
        assert!(roster.missing().is_empty(), "the metadata still show the old one");
        let new = Begin { source_id: Uuid::from_u128(9), ..begin(0..1) };
        roster.want(&new);
        assert_eq!(roster.missing(), [new]);
    }

    #[test]
    fn what_runs_is_what_is_wanted_and_ours() {
        let log = Rc::new(Log::default());
        let roster = Rc::new(Roster::new("l", log.clone()));
        let done = || std::mem::take(&mut *log.0.borrow_mut());
        roster.want(&begin(0..4));
        assert!(roster.missing().is_empty(), "the group has not told");
        roster.take(&given(&[0, 1, 3, 9], Uuid::nil()));
        assert_eq!(roster.missing(), [begin(0..2), begin(3..4)]);
        for index in [0, 1, 2, 3] {
            roster.begin(spec(index));
        }
        assert_eq!(done(), ["add 0", "add 1", "add 3"], "2 is somebody else's");
        roster.begin(spec(1));
        assert!(done().is_empty() && roster.missing().is_empty());

        assert_eq!(roster.release(&partitions(&[1, 9])).len(), 1);
        assert_eq!(done(), ["remove 1 Settled"]);
        roster.begin(spec(1));
        assert!(done().is_empty(), "given away while its specification was made");
        roster.end(&"t".into(), 0..1);
        assert_eq!(done(), ["remove 0 Settled"]);

        roster.lose();
        assert_eq!(done(), ["remove 3 AtOnce"]);
        assert!(roster.missing().is_empty());
        roster.take_all();
        assert_eq!(roster.missing(), [begin(1..4)], "0 is not wanted any more");
    }

    #[test]
    fn a_specification_of_a_topic_that_was_made_again_does_not_begin() {
        let log = Rc::new(Log::default());
        let roster = Rc::new(Roster::new("l", log.clone()));
        roster.take_all();
        roster.want(&begin(0..1));
        roster.begin(MirrorSpec { target_topic_id: Uuid::from_u128(3), ..spec(0) });
        assert!(log.0.borrow().is_empty());
    }
}
