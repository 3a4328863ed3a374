//! One mirror, its source, its target, and everything that can happen to them, one step at a time.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use protocol_tests::checker::{self, Original};
use strait::config::resolved::{Isolation, Timestamps};
use strait::engine::admit::{Rules, Step as Admitted, admit};
use strait::engine::anchor::{Anchor, Numbering};
use strait::engine::lineage::{self, State};
use strait::engine::mirror::{Beginning, Mirror};
use strait::engine::offset_map::OffsetMap;
use strait::engine::settings::Settings;
use strait::engine::trouble::{self, Remedy};
use strait::wire::error_code::ErrorCode;
use tokio::time::Instant;
use uuid::Uuid;

use super::Scenario;
use super::broker::Broker;

pub const SOURCE: Uuid = Uuid::from_u128(1);
pub const TARGET: Uuid = Uuid::from_u128(2);

const SETTINGS: Settings = Settings {
    isolation: Isolation::ReadCommitted,
    timestamps: Timestamps::AsRead,
    local: true,
    origins: 0,
    name: 0,
};

/// What may still go wrong.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub struct Faults {
    /// The process dies.
    pub crashes: u8,
    /// The connection to the target dies.
    pub cuts: u8,
    /// A batch is refused for no fault of its own.
    pub refusals: u8,
    /// A batch is appended, and the answer leaves it open.
    pub doubts: u8,
    /// Followers take their time, and one of them takes over.
    pub fail_overs: u8,
    /// The target forgets a producer whose last record is old.
    pub forgets: u8,
    /// The process leaves in order, and comes again.
    pub leaves: u8,
    /// Others wait for the memory of what it holds.
    pub gives_back: u8,
}

/// Of the process.
#[derive(Clone, Debug, Hash)]
pub enum Life {
    Down,
    /// The position and the leader's memory were read.
    Looked(Vec<State>),
    /// A new numbering is to be put on record.
    Decided(Box<(Beginning, Anchor)>),
    Runs(Box<Runs>),
}

#[derive(Clone, Debug, Hash)]
pub struct Runs {
    mirror: Mirror,
    /// The first refusal since the last read-back.
    refused: Option<ErrorCode>,
    committed: i64,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Step {
    /// The source group and DescribeProducers are read.
    Look,
    /// The target's end is known and its log read: it is decided where to begin.
    ReadBehind,
    /// A new numbering is put on record.
    Record,
    /// A source batch is fetched and admitted.
    Fetch,
    Send,
    /// The broker works on a request.
    Work,
    Refuse,
    AppendInDoubt,
    /// An answer comes.
    Answer,
    /// The window failed and all answers are in: the target is read back.
    Resync,
    Commit,
    /// So much time passes that no request of a former life can come any more.
    GrowQuiet,
    /// What was fetched is given up, for the target to be looked at again.
    Renew,
    /// What waits is forgotten, to be fetched again.
    GiveBack,
    /// All is, what nobody can be asked about too.
    GiveUp,
    Leave,
    Replicate,
    Crash,
    Cut,
    FailOver,
    Forget,
    /// The broker works on a request of a connection that is dead to us, or finds out that it is.
    WorkLate(usize),
    ForgetLate(usize),
}

/// The state of everything.
#[derive(Clone, Debug, Hash)]
#[allow(clippy::derived_hash_with_manual_eq, reason = "equal is what has an equal hash")]
pub struct World {
    pub broker: Broker,
    pub life: Life,
    pub left: Faults,
    /// Offset, leader epoch and metadata, as the source group holds them.
    pub group: Option<(i64, i32, String)>,
    pub life_number: u8,
    /// No request of a former life can come any more, or none was on its way when it left.
    pub quiet: bool,
    /// Connections that were cut so far while the process lived on.
    pub cuts: u8,
    /// What must not be.
    pub breach: Option<String>,
    /// Batches that are on the target twice.
    pub repeated: usize,
}

/// As the explorer tells states apart: by their hash.
impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        let hash = |world: &Self| {
            let mut hasher = DefaultHasher::new();
            world.hash(&mut hasher);
            hasher.finish()
        };
        hash(self) == hash(other)
    }
}

impl World {
    pub fn new(left: Faults) -> Self {
        Self {
            broker: Broker::default(),
            life: Life::Down,
            left,
            group: None,
            life_number: 0,
            quiet: true,
            cuts: 0,
            breach: None,
            repeated: 0,
        }
    }

    /// Everything that can happen next.
    pub fn steps(&self, scenario: &Scenario, steps: &mut Vec<Step>) {
        if self.breach.is_some() {
            return;
        }
        let mut may = |step, when: bool| {
            if when {
                steps.push(step);
            }
        };
        let (broker, left) = (&self.broker, &self.left);
        match &self.life {
            Life::Down => may(Step::Look, true),
            Life::Looked(_) => may(Step::ReadBehind, broker.is_replicated()),
            Life::Decided(_) => may(Step::Record, true),
            Life::Runs(runs) => {
                let mirror = &runs.mirror;
                let room = mirror.buffered_bytes() < scenario.window_bytes;
                may(Step::Fetch, room && scenario.batch_at(mirror.fetch_offset()).is_some());
                may(Step::Send, mirror.can_send(scenario.now));
                may(Step::Answer, broker.may_answer());
                may(Step::Resync, mirror.needs_resync() && broker.is_replicated());
                may(Step::Commit, mirror.has_place() && mirror.place() > runs.committed);
                may(Step::Cut, left.cuts > 0 && !mirror.is_answered());
                let waits = mirror.is_drained() && mirror.waits_for_quiet(scenario.now);
                may(Step::Renew, waits && self.quiet);
                let leaves = mirror.is_settled() && mirror.has_place();
                let leaves = leaves && self.quiet && !broker.has_late_of(self.life_number);
                may(Step::Leave, left.leaves > 0 && leaves);
                let gives_back = left.gives_back > 0;
                may(Step::GiveBack, gives_back && mirror.may_give_back());
                let lost = mirror.needs_resync() && !broker.has_late_of(self.life_number);
                may(Step::GiveUp, gives_back && lost);
            }
        }
        may(Step::GrowQuiet, !self.quiet);
        may(Step::Work, broker.has_request());
        may(Step::Refuse, left.refusals > 0 && broker.has_request());
        may(Step::AppendInDoubt, left.doubts > 0 && broker.has_request());
        may(Step::Replicate, !broker.is_replicated());
        may(Step::Crash, left.crashes > 0 && !matches!(self.life, Life::Down));
        may(Step::FailOver, left.fail_overs > 0 && !broker.is_replicated());
        may(Step::Forget, left.forgets > 0 && broker.may_forget(scenario.now - scenario.kept_ms));
        for at in 0..broker.dead_connections() {
            may(Step::WorkLate(at), true);
            may(Step::ForgetLate(at), true);
        }
    }

    /// Takes one of them.
    pub fn take(&mut self, scenario: &Scenario, step: Step) {
        let replicates = self.left.fail_overs == 0;
        match step {
            Step::Look => self.life = Life::Looked(self.broker.states(scenario.oldest_trusted())),
            Step::ReadBehind => self.read_behind(scenario),
            Step::Record => self.record(scenario),
            Step::Fetch => self.fetch(scenario),
            Step::Send => {
                let stamped = self.runs().and_then(|runs| runs.mirror.send(scenario.now));
                if let Some(stamped) = stamped {
                    let batch = [&stamped.head[..], &stamped.payload].concat();
                    self.broker.request(Bytes::from(batch));
                }
            }
            Step::Work => self.broker.work(replicates),
            Step::Refuse => {
                self.left.refusals -= 1;
                self.broker.work_badly(false, ErrorCode::NOT_ENOUGH_REPLICAS, replicates);
            }
            Step::AppendInDoubt => {
                self.left.doubts -= 1;
                self.broker.work_badly(true, ErrorCode::REQUEST_TIMED_OUT, replicates);
            }
            Step::Answer => self.answer(),
            Step::Resync => self.resync(),
            Step::Commit => self.commit(false),
            Step::GiveBack => {
                self.left.gives_back -= 1;
                if let Some(runs) = self.runs() {
                    runs.mirror.give_back();
                }
            }
            Step::GiveUp => {
                self.left.gives_back -= 1;
                self.life = Life::Down;
            }
            Step::GrowQuiet => {
                self.quiet = true;
                self.broker.grow_quiet(self.life_number);
            }
            Step::Renew => self.life = Life::Down,
            Step::Leave => {
                self.left.leaves -= 1;
                self.commit(true);
                self.end();
            }
            Step::Replicate => self.broker.replicate(),
            Step::Crash => {
                self.left.crashes -= 1;
                self.end();
            }
            Step::Cut => {
                self.left.cuts -= 1;
                self.cuts += 1;
                self.broker.cut(self.life_number);
                self.lost();
            }
            Step::FailOver => {
                self.left.fail_overs -= 1;
                self.broker.fail_over();
                self.lost();
            }
            Step::Forget => {
                self.left.forgets -= 1;
                self.broker.forget();
            }
            Step::WorkLate(at) => self.broker.work_late(at, replicates),
            Step::ForgetLate(at) => self.broker.forget_late(at),
        }
        let writes = matches!(
            step,
            Step::Work
                | Step::AppendInDoubt
                | Step::WorkLate(_)
                | Step::FailOver
                | Step::Commit
                | Step::Leave
                | Step::Record
        );
        if writes {
            self.judge(scenario);
        }
    }

    fn end(&mut self) {
        self.life = Life::Down;
        self.broker.cut(self.life_number);
        self.life_number += 1;
        self.quiet = false;
    }

    fn runs(&mut self) -> Option<&mut Runs> {
        match &mut self.life {
            Life::Runs(runs) => Some(runs),
            Life::Down | Life::Looked(_) | Life::Decided(_) => None,
        }
    }

    fn must_not_be(&mut self, what: impl Into<String>) {
        self.breach.get_or_insert(what.into());
    }

    fn read_behind(&mut self, scenario: &Scenario) {
        let Life::Looked(states) = std::mem::replace(&mut self.life, Life::Down) else { return };
        let Some((offset, leader_epoch, metadata)) = &self.group else {
            let id = scenario.route.home_id();
            let newest = lineage::newest_epoch(&states, id);
            let producer_epoch = lineage::epoch_after(newest).unwrap();
            let numbering = Numbering { producer_id: id, producer_epoch, next_sequence: 0 };
            let beginning = Beginning {
                source_offset: 0,
                leader_epoch: -1,
                target_offset: self.broker.end(),
                numberings: vec![numbering],
                replay: None,
                map: OffsetMap::new(0),
                late: false,
                transaction: None,
                switch: None,
            };
            self.life = decided(beginning, None);
            return;
        };
        let Ok(anchor) = Anchor::parse(metadata, *offset) else {
            return self.must_not_be("the commit's metadata are no anchor");
        };
        let (from, numberings) = (anchor.target_offset, &anchor.numberings);
        if from > self.broker.end() {
            return self.must_not_be("the target ends before the anchor");
        }
        let seen = match lineage::known(&anchor, &states, self.broker.end()) {
            Some(seen) => seen,
            None => match self.broker.read_back(from, numberings) {
                Ok(seen) if lineage::agree(numberings, &states, &seen).is_ok() => seen,
                Ok(seen) => {
                    let again = self.broker.states(scenario.oldest_trusted());
                    match lineage::put_back(numberings, &again, seen) {
                        Ok(seen) => seen,
                        Err(at_odds) => return self.must_not_be(format!("{at_odds:?}")),
                    }
                }
                Err(hole) => return self.must_not_be(format!("{hole:?}")),
            },
        };
        self.quiet |= anchor.closed;
        let quiet = self.quiet;
        match lineage::resume(&anchor, *leader_epoch, seen, &states, false) {
            // It waits until nothing can come late any more, and looks again.
            Ok((_, true)) if !quiet => {}
            Ok((beginning, is_new)) => {
                let beginning = Beginning { late: !quiet, ..beginning };
                if is_new {
                    self.life = decided(beginning, None);
                } else if anchor.closed {
                    self.life = decided(beginning, Some(Anchor { closed: false, ..anchor }));
                } else {
                    self.begin(scenario, beginning);
                }
            }
            Err(overtaken) => self.must_not_be(format!("{overtaken:?}")),
        }
    }

    fn record(&mut self, scenario: &Scenario) {
        let Life::Decided(decided) = std::mem::replace(&mut self.life, Life::Down) else { return };
        let (beginning, anchor) = *decided;
        self.group = Some((anchor.source_offset, beginning.leader_epoch, anchor.to_string()));
        self.begin(scenario, beginning);
    }

    fn begin(&mut self, scenario: &Scenario, beginning: Beginning) {
        let committed = beginning.source_offset;
        let mirror = Mirror::new(beginning, scenario.window_bytes, scenario.target.clone());
        self.life = Life::Runs(Box::new(Runs { mirror, refused: None, committed }));
    }

    fn fetch(&mut self, scenario: &Scenario) {
        let Some(runs) = self.runs() else { return };
        let mirror = &mut runs.mirror;
        let wanted = mirror.fetch_offset();
        let Some(batch) = scenario.batch_at(wanted) else { return };
        let mut agree = true;
        let step = |step| match step {
            Admitted::Take(outgoing, _) => agree &= mirror.take(outgoing).unwrap(),
            Admitted::Skip { next_offset, leader_epoch, .. } => {
                mirror.skip_to(next_offset, leader_epoch);
            }
        };
        let rules: &Rules = &scenario.rules;
        admit(batch, &[], wanted, rules, &scenario.route, scenario.started, step).unwrap();
        if !agree {
            self.must_not_be("the two logs are taken to differ");
        }
    }

    fn answer(&mut self) {
        let Some(answer) = self.broker.answer() else { return };
        let Some(runs) = self.runs() else { return };
        let outcome = match answer.error {
            ErrorCode::NONE => runs.mirror.on_success(answer.base_offset).map(drop),
            error => {
                runs.refused.get_or_insert(error);
                if trouble::leaves_doubt(error) {
                    runs.mirror.on_doubt()
                } else {
                    runs.mirror.on_refusal()
                }
            }
        };
        if let Err(violation) = outcome {
            self.must_not_be(format!("{violation:?}"));
        }
    }

    /// The connection is gone: every answer that was to come will not, and the next one has proved nothing.
    fn lost(&mut self) {
        let Some(runs) = self.runs() else { return };
        while !runs.mirror.is_answered() {
            runs.refused.get_or_insert(ErrorCode::NETWORK_EXCEPTION);
            runs.mirror.on_doubt().unwrap();
        }
        runs.mirror.on_moved();
    }

    fn resync(&mut self) {
        let Life::Runs(runs) = &mut self.life else { return };
        let mirror = &mut runs.mirror;
        let from = mirror.target_next();
        let refused = runs.refused.take();
        let seen = match self.broker.read_back(from, mirror.numberings()) {
            Ok(seen) => seen,
            Err(hole) => return self.must_not_be(format!("{hole:?}")),
        };
        if mirror.on_resynced(&seen.last_sequences, &seen.landed, seen.target_end).is_err() {
            self.life = Life::Down;
            return;
        }
        match refused.map_or(Remedy::Again, trouble::remedy) {
            Remedy::Again => {}
            Remedy::Restart => self.life = Life::Down,
            remedy => self.must_not_be(format!("{remedy:?} after {refused:?}")),
        }
    }

    fn commit(&mut self, closed: bool) {
        let Life::Runs(runs) = &mut self.life else { return };
        let mut anchor = runs.mirror.anchor(SOURCE, TARGET);
        anchor.closed = closed;
        anchor.settings = Some(SETTINGS);
        runs.committed = runs.mirror.place();
        self.group = Some((runs.committed, runs.mirror.acked_epoch(), anchor.to_string()));
    }

    /// The predicates of every copy, by the kit's own checker: C1 and I1, C2, C3, and repeats.
    fn judge(&mut self, scenario: &Scenario) {
        let committed = self.group.as_ref().map_or(0, |(offset, ..)| *offset);
        let originals: &[Original] = &scenario.originals;
        let verdict = checker::check(originals, &self.broker.copies(), committed);
        self.repeated = verdict.repeated_batches();
        if let Some(breach) = verdict.breaches.first() {
            self.must_not_be(breach.to_string());
        }
        let allowed = if scenario.is_old() { usize::from(self.cuts) } else { 0 };
        if self.repeated > allowed {
            self.must_not_be(format!("C4: {} batches twice, {allowed} allowed", self.repeated));
        }
    }

    /// Everything is copied and committed.
    pub fn is_done(&self, scenario: &Scenario) -> bool {
        let committed = self.group.as_ref().map_or(0, |(offset, ..)| *offset);
        self.breach.is_none() && committed == scenario.end()
    }
}

/// To be put on record: another place, or the anchor as it was but for its end.
fn decided(beginning: Beginning, reopened: Option<Anchor>) -> Life {
    let anchor = reopened.unwrap_or_else(|| Anchor {
        target_topic_id: TARGET,
        target_offset: beginning.target_offset,
        source_topic_id: SOURCE,
        source_offset: beginning.source_offset,
        numberings: beginning.numberings.clone(),
        map: beginning.map.clone(),
        settings: Some(SETTINGS),
        closed: false,
        era: None,
    });
    Life::Decided(Box::new((beginning, anchor)))
}

/// Fixed: no decision of the model depends on it.
pub fn any_moment() -> Instant {
    Instant::now()
}
