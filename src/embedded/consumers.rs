//! Consumer groups whose broker assigns (KIP-848; `ConsumerGroup`, `CurrentAssignmentBuilder`, `UniformAssignor`): epochs,
//! who shall hold what, and the way there, in which a partition has one holder at any moment.
//!
//! Time is handed in. Not here: regular expressions, the `range` assignor, and groups that change their protocol while they
//! have members.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::wire::error_code::ErrorCode;

/// A partition, as this protocol names it.
pub(super) type IdPartition = (Uuid, i32);

/// A member.
#[derive(Clone, Debug)]
pub(super) struct Consumer {
    instance: Option<String>,
    topics: BTreeSet<String>,
    epoch: i32,
    previous_epoch: i32,
    assigned: BTreeSet<IdPartition>,
    /// To be let go; nobody else gets it before the member said that it has.
    revoking: BTreeSet<IdPartition>,
    /// Some of what it shall hold is not free yet.
    waits: bool,
    rebalance_timeout: Duration,
    revoke_until: Option<Instant>,
    /// It is gone when it says nothing until then.
    expires: Instant,
}

/// What a heartbeat brings.
#[derive(Clone, Debug)]
pub(super) struct Beat {
    pub(super) member: String,
    pub(super) epoch: i32,
    pub(super) instance: Option<String>,
    pub(super) rebalance_timeout: Option<Duration>,
    pub(super) topics: Option<BTreeSet<String>>,
    pub(super) held: Option<BTreeSet<IdPartition>>,
}

/// What it is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Beaten {
    pub(super) epoch: i32,
    pub(super) assignment: Option<BTreeSet<IdPartition>>,
}

/// The members of a group, and who shall hold what.
#[derive(Clone, Debug, Default)]
pub(super) struct Consumers {
    epoch: i32,
    members: BTreeMap<String, Consumer>,
    target: BTreeMap<String, BTreeSet<IdPartition>>,
    /// Topics by name, as they were when that was decided.
    counted: BTreeMap<String, (Uuid, i32)>,
}

impl Consumers {
    /// No member.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many members.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Every member's session ends now.
    pub(super) fn throw_out(&mut self) {
        self.members.clear();
        self.assign();
    }

    /// Takes a heartbeat. `topic` gives id and partitions of a topic.
    pub(super) fn heartbeat(
        &mut self,
        beat: Beat,
        session: Duration,
        topic: impl Fn(&str) -> Option<(Uuid, i32)>,
        now: Instant,
    ) -> Result<Beaten, ErrorCode> {
        if beat.epoch < 0 {
            return self.leave(&beat, now + session);
        }
        let joins = beat.epoch == 0;
        if joins {
            self.join(&beat, now)?;
        }
        self.check_epoch(&beat)?;
        let Some(member) = self.members.get_mut(&beat.member) else {
            return Err(ErrorCode::UNKNOWN_MEMBER_ID);
        };
        member.expires = now + session;
        if let Some(timeout) = beat.rebalance_timeout {
            member.rebalance_timeout = timeout;
        }
        let mut news = joins;
        if let Some(topics) = &beat.topics {
            news |= member.topics != *topics;
            member.topics.clone_from(topics);
        }
        let names: BTreeSet<&String> = self.members.values().flat_map(|m| &m.topics).collect();
        let counted: BTreeMap<String, (Uuid, i32)> =
            names.into_iter().filter_map(|name| Some((name.clone(), topic(name)?))).collect();
        if news || counted != self.counted {
            self.counted = counted;
            self.assign();
        }
        let changed = self.reconcile(&beat.member, beat.held.as_ref(), now);
        let Some(member) = self.members.get(&beat.member) else {
            return Err(ErrorCode::UNKNOWN_MEMBER_ID);
        };
        let said_all =
            beat.rebalance_timeout.is_some() && beat.topics.is_some() && beat.held.is_some();
        let assignment = (changed || said_all).then(|| member.assigned.clone());
        Ok(Beaten { epoch: member.epoch, assignment })
    }

    fn join(&mut self, beat: &Beat, now: Instant) -> Result<(), ErrorCode> {
        let wants = beat.topics.as_ref().is_some_and(|topics| !topics.is_empty());
        let holds_nothing = beat.held.as_ref().is_some_and(BTreeSet::is_empty);
        if !wants || !holds_nothing || beat.rebalance_timeout.is_none() {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        if let Some(instance) = &beat.instance {
            let known = self.members.iter().find(|(_, m)| m.instance.as_ref() == Some(instance));
            if let Some((id, member)) = known.map(|(id, m)| (id.clone(), m.clone()))
                && id != beat.member
            {
                if member.epoch != -2 {
                    return Err(ErrorCode::UNRELEASED_INSTANCE_ID);
                }
                self.members.remove(&id);
                let target = self.target.remove(&id).unwrap_or_default();
                self.target.insert(beat.member.clone(), target);
                self.members.insert(beat.member.clone(), Consumer { epoch: 0, ..member });
            }
        }
        let fresh = || Consumer {
            instance: beat.instance.clone(),
            topics: BTreeSet::new(),
            epoch: 0,
            previous_epoch: -1,
            assigned: BTreeSet::new(),
            revoking: BTreeSet::new(),
            waits: false,
            rebalance_timeout: Duration::ZERO,
            revoke_until: None,
            expires: now,
        };
        self.members.entry(beat.member.clone()).or_insert_with(fresh);
        Ok(())
    }

    fn check_epoch(&self, beat: &Beat) -> Result<(), ErrorCode> {
        let member = self.members.get(&beat.member).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        // One that did not change since the last heartbeat need not be said (KIP-848).
        if beat.instance.is_some() && member.instance != beat.instance {
            return Err(ErrorCode::FENCED_INSTANCE_ID);
        }
        let holds_less = beat.held.as_ref().is_some_and(|held| held.is_subset(&member.assigned));
        let late = beat.epoch == member.previous_epoch && holds_less;
        if beat.epoch == member.epoch || late {
            Ok(())
        } else {
            Err(ErrorCode::FENCED_MEMBER_EPOCH)
        }
    }

    fn leave(&mut self, beat: &Beat, expires: Instant) -> Result<Beaten, ErrorCode> {
        let member = self.members.get_mut(&beat.member).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        if beat.epoch == -2 {
            // Back soon: its partitions stay its own until the session ends.
            member.epoch = -2;
            member.expires = expires;
        } else {
            self.members.remove(&beat.member);
            self.assign();
        }
        Ok(Beaten { epoch: beat.epoch, assignment: None })
    }

    /// Decides anew who shall hold what: balanced, and what is held stays.
    fn assign(&mut self) {
        self.epoch += 1;
        let old = std::mem::take(&mut self.target);
        let takers = |name: &str| {
            let members = self.members.iter().filter(move |(_, m)| m.topics.contains(name));
            members.map(|(id, _)| id.clone()).collect::<Vec<_>>()
        };
        let all: Vec<(IdPartition, Vec<String>)> = self
            .counted
            .iter()
            .flat_map(|(name, (id, count))| {
                let takers = takers(name);
                (0..*count).map(move |index| ((*id, index), takers.clone()))
            })
            .collect();
        let quota = all.len().div_ceil(self.members.len().max(1));
        let mut target: BTreeMap<String, BTreeSet<IdPartition>> =
            self.members.keys().map(|id| (id.clone(), BTreeSet::new())).collect();
        let mut free = Vec::new();
        for (partition, takers) in all {
            let holder = takers.iter().find(|id| {
                let held = old.get(*id).is_some_and(|held| held.contains(&partition));
                held && target.get(*id).is_some_and(|held| held.len() < quota)
            });
            match holder.and_then(|holder| target.get_mut(holder)) {
                Some(held) => drop(held.insert(partition)),
                None => free.push((partition, takers)),
            }
        }
        for (partition, takers) in free {
            let least = target
                .iter_mut()
                .filter(|(id, _)| takers.contains(id))
                .min_by_key(|(_, held)| held.len());
            if let Some((_, held)) = least {
                held.insert(partition);
            }
        }
        self.target = target;
    }

    /// One step of a member towards what it shall hold. True: what it is assigned has changed.
    fn reconcile(&mut self, id: &str, held: Option<&BTreeSet<IdPartition>>, now: Instant) -> bool {
        let taken: BTreeSet<IdPartition> = self
            .members
            .iter()
            .filter(|(other, _)| *other != id)
            .flat_map(|(_, m)| m.assigned.union(&m.revoking).copied().collect::<Vec<_>>())
            .collect();
        let target = self.target.get(id).cloned().unwrap_or_default();
        let Some(member) = self.members.get_mut(id) else { return false };
        if !member.revoking.is_empty() {
            let let_go = held.is_some_and(|held| held.is_disjoint(&member.revoking));
            if !let_go {
                return false;
            }
            member.revoking.clear();
            member.revoke_until = None;
        } else if member.epoch == self.epoch && !member.waits {
            return false;
        }
        let kept: BTreeSet<_> = member.assigned.intersection(&target).copied().collect();
        let given_up: BTreeSet<_> = member.assigned.difference(&target).copied().collect();
        let before = member.assigned.clone();
        let owns = held.is_none_or(|held| !held.is_disjoint(&given_up));
        if !given_up.is_empty() && owns {
            member.assigned = kept;
            member.revoking = given_up;
            member.revoke_until = Some(now + member.rebalance_timeout);
        } else {
            let wanted = target.difference(&kept).copied().collect::<BTreeSet<_>>();
            member.waits = !wanted.is_disjoint(&taken);
            member.assigned = kept;
            member.assigned.extend(wanted.difference(&taken));
            if member.epoch != self.epoch {
                member.previous_epoch = member.epoch;
                member.epoch = self.epoch;
            }
        }
        member.assigned != before
    }

    /// Lets time pass; true when somebody is gone.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        let count = self.members.len();
        self.members.retain(|_, member| {
            member.expires > now && member.revoke_until.is_none_or(|until| until > now)
        });
        let changed = self.members.len() != count;
        if changed {
            self.assign();
        }
        changed
    }

    /// Whether a member may commit (`ConsumerGroup.validateOffsetCommit`). Stricter than 4.3, which takes an older epoch
    /// for a partition that the member has held since.
    pub(super) fn check_commit(&self, member: &str, epoch: i32) -> Result<(), ErrorCode> {
        let member = self.members.get(member).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        if member.epoch == epoch { Ok(()) } else { Err(ErrorCode::STALE_MEMBER_EPOCH) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: Uuid = Uuid::from_u128(7);
    const SESSION: Duration = Duration::from_secs(45);

    fn topic(count: i32) -> impl Fn(&str) -> Option<(Uuid, i32)> {
        move |name| (name == "t").then_some((TOPIC, count))
    }

    fn ids(indexes: &[i32]) -> BTreeSet<IdPartition> {
        indexes.iter().map(|index| (TOPIC, *index)).collect()
    }

    fn join(member: &str) -> Beat {
        Beat {
            member: member.into(),
            epoch: 0,
            instance: None,
            rebalance_timeout: Some(SESSION),
            topics: Some(["t".to_owned()].into()),
            held: Some(BTreeSet::new()),
        }
    }

    fn beat(member: &str, epoch: i32, held: Option<&[i32]>) -> Beat {
        let held = held.map(ids);
        Beat { epoch, held, topics: None, rebalance_timeout: None, ..join(member) }
    }

    struct Rig(Consumers, Instant);

    impl Rig {
        fn take(&mut self, beat: Beat) -> Result<(i32, Option<BTreeSet<IdPartition>>), ErrorCode> {
            let Beaten { epoch, assignment } = self.0.heartbeat(beat, SESSION, topic(4), self.1)?;
            Ok((epoch, assignment))
        }
    }

    fn rig() -> Rig {
        let mut rig = Rig(Consumers::default(), Instant::now());
        assert_eq!(rig.take(join("a")), Ok((1, Some(ids(&[0, 1, 2, 3])))));
        rig
    }

    #[tokio::test]
    async fn a_partition_moves_only_once_it_was_let_go() {
        let mut rig = rig();
        assert_eq!(rig.take(join("b")), Ok((2, Some(ids(&[])))));
        let (epoch, assigned) = rig.take(beat("a", 1, None)).unwrap();
        let kept = assigned.unwrap();
        assert_eq!((epoch, kept.len()), (1, 2), "the old epoch until it has let go");
        assert_eq!(rig.take(beat("b", 2, None)), Ok((2, None)), "nothing is free");
        assert_eq!(rig.take(beat("a", 1, None)), Ok((1, None)), "silence lets go of nothing");
        let kept: Vec<i32> = kept.iter().map(|(_, index)| *index).collect();
        assert_eq!(rig.take(beat("a", 1, Some(&kept))), Ok((2, None)));
        let (_, assigned) = rig.take(beat("b", 2, None)).unwrap();
        assert_eq!(assigned.map(|assigned| assigned.len()), Some(2));
        assert_eq!(rig.0.check_commit("a", 1), Err(ErrorCode::STALE_MEMBER_EPOCH));
        assert_eq!(rig.0.check_commit("a", 2), Ok(()));
        assert_eq!(rig.0.check_commit("", -1), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    }

    #[tokio::test]
    async fn who_leaves_or_falls_silent_is_inherited_and_unknown_from_then_on() {
        let mut rig = rig();
        rig.take(join("b")).unwrap();
        assert_eq!(rig.take(beat("b", -1, None)), Ok((-1, None)));
        assert_eq!(rig.take(beat("b", 2, None)), Err(ErrorCode::UNKNOWN_MEMBER_ID));
        rig.take(join("c")).unwrap();
        rig.1 += SESSION / 2;
        let (epoch, _) = rig.take(beat("c", 4, None)).unwrap();
        rig.1 += SESSION / 2;
        assert!(rig.0.tick(rig.1) && !rig.0.tick(rig.1));
        assert_eq!(rig.take(beat("a", 1, None)), Err(ErrorCode::UNKNOWN_MEMBER_ID));
        let (_, assigned) = rig.take(beat("c", epoch, None)).unwrap();
        assert_eq!(assigned, Some(ids(&[0, 1, 2, 3])));
    }

    #[tokio::test]
    async fn other_epochs_are_fenced_and_half_a_join_is_refused() {
        let mut rig = rig();
        assert_eq!(rig.take(beat("a", 5, None)), Err(ErrorCode::FENCED_MEMBER_EPOCH));
        let again = rig.take(join("a")).map(|(epoch, _)| epoch);
        assert_eq!(again, Ok(2), "whose answer was lost joins again");
        rig.take(join("b")).unwrap();
        rig.take(beat("a", 2, Some(&[]))).unwrap();
        assert_eq!(rig.take(join("a")), Err(ErrorCode::FENCED_MEMBER_EPOCH), "others leave first");
        let nothing = Beat { topics: Some(BTreeSet::new()), ..join("c") };
        assert_eq!(rig.take(nothing), Err(ErrorCode::INVALID_REQUEST));
        let holds = Beat { held: None, ..join("c") };
        assert_eq!(rig.take(holds), Err(ErrorCode::INVALID_REQUEST));
    }

    #[tokio::test]
    async fn a_static_member_comes_back_to_what_it_held() {
        let mut rig = Rig(Consumers::default(), Instant::now());
        let fixed =
            |member: &str, epoch| Beat { instance: Some("i".into()), epoch, ..join(member) };
        rig.take(fixed("a", 0)).unwrap();
        assert_eq!(rig.take(fixed("b", 0)), Err(ErrorCode::UNRELEASED_INSTANCE_ID));
        rig.take(fixed("a", -2)).unwrap();
        let (epoch, assigned) = rig.take(fixed("b", 0)).unwrap();
        assert_eq!(assigned, Some(ids(&[0, 1, 2, 3])));
        assert_eq!(rig.take(beat("b", epoch, None)), Ok((epoch, None)), "its name is known");
        let other = Beat { instance: Some("j".into()), ..beat("b", epoch, None) };
        assert_eq!(rig.take(other), Err(ErrorCode::FENCED_INSTANCE_ID));
    }

    #[tokio::test]
    async fn growth_is_assigned_at_the_next_heartbeat() {
        let mut rig = rig();
        let grown = rig.0.heartbeat(beat("a", 1, None), SESSION, topic(6), rig.1).unwrap();
        assert_eq!(grown.assignment.map(|assigned| assigned.len()), Some(6));
        let gone = rig.0.heartbeat(beat("a", 2, None), SESSION, |_| None, rig.1).unwrap();
        assert_eq!(gone.assignment, Some(BTreeSet::new()), "a topic that was deleted");
    }
}
