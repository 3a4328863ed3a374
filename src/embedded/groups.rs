//! Groups: the offsets that are committed to them, and the members of the classic protocol (`ClassicGroup`) with their
//! generations. Those of KIP-848 are in `consumers`.
//!
//! Time is handed in; whoever waits asks again after each change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::consumers::Consumers;
use crate::wire::error_code::ErrorCode;

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Empty,
    Preparing,
    Completing,
    Stable,
}

impl Phase {
    /// Kafka's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Preparing => "PreparingRebalance",
            Self::Completing => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A member.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) instance: Option<String>,
    pub(super) client_id: String,
    pub(super) host: String,
    session_timeout: Duration,
    rebalance_timeout: Duration,
    /// In the member's order of preference.
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    /// It is gone when it says nothing until then.
    expires: Instant,
    /// Its JoinGroup waits for the others.
    pub(super) joining: bool,
}

/// Hears of a commit: group, topic-partition, what was committed.
pub type CommitHook = Box<dyn Fn(&str, &(String, i32), &Committed) + Send>;

/// An offset that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: i64,
    /// -1 when it was not given.
    pub leader_epoch: i32,
    /// What the client put beside it.
    pub metadata: String,
}

/// What a JoinGroup brings.
pub(super) struct Join {
    pub(super) member_id: String,
    pub(super) instance: Option<String>,
    pub(super) client_id: String,
    pub(super) host: String,
    pub(super) protocol_type: String,
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    /// A new member has to come back with the id that it is given (v4).
    pub(super) id_required: bool,
}

/// What becomes of a JoinGroup.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// Come back with this id.
    TakeId(String),
    /// Wait under this id until the generation begins.
    Wait(String),
    /// A static member came back to a stable group: nothing changes.
    Unchanged(String),
}

/// A group.
pub(super) struct Group {
    pub(super) phase: Phase,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// Ids that were handed out and have not come back.
    awaited: BTreeMap<String, Instant>,
    /// Member ids by group.instance.id.
    instances: BTreeMap<String, String>,
    /// The generation begins without who has not joined by then.
    join_until: Option<Instant>,
    /// And not before this (`group.initial.rebalance.delay.ms`).
    join_from: Option<Instant>,
    /// Members of KIP-848; a group has those or the classic ones.
    consumers: Option<Consumers>,
    pub(super) offsets: BTreeMap<(String, i32), Committed>,
    /// Offsets of open transactions, by producer id.
    pub(super) pending: BTreeMap<i64, BTreeMap<(String, i32), Committed>>,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            phase: Phase::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            awaited: BTreeMap::new(),
            instances: BTreeMap::new(),
            join_until: None,
            join_from: None,
            consumers: None,
            offsets: BTreeMap::new(),
            pending: BTreeMap::new(),
        }
    }
}

impl Group {
    /// Takes a member in, or back. `fresh_id` is used where one has to be made.
    pub(super) fn join(
        &mut self,
        join: Join,
        fresh_id: String,
        initial_delay: Duration,
        now: Instant,
    ) -> Result<Joined, ErrorCode> {
        if self.has_consumers() {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        self.consumers = None;
        let fits = self.protocol_type.as_ref().is_none_or(|kind| *kind == join.protocol_type)
            && self.supports_any(&join.protocols);
        if !self.members.is_empty() && !fits {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        let mut member_id = join.member_id.clone();
        if let Some(known) = join.instance.as_ref().and_then(|i| self.instances.get(i)).cloned() {
            if !member_id.is_empty() && member_id != known {
                return Err(ErrorCode::FENCED_INSTANCE_ID);
            }
            if member_id.is_empty() {
                member_id = fresh_id;
                return Ok(self.replace_static(&known, member_id, join, now));
            }
        } else if member_id.is_empty() {
            if join.id_required && join.instance.is_none() {
                self.awaited.insert(fresh_id.clone(), now + join.session_timeout);
                return Ok(Joined::TakeId(fresh_id));
            }
            member_id = fresh_id;
        } else if self.awaited.remove(&member_id).is_none()
            && !self.members.contains_key(&member_id)
        {
            return Err(ErrorCode::UNKNOWN_MEMBER_ID);
        }
        if let Some(instance) = &join.instance {
            self.instances.insert(instance.clone(), member_id.clone());
        }
        let before = self.members.get(&member_id);
        let same = before.is_some_and(|m| m.protocols == join.protocols);
        let is_leader = self.leader.as_ref() == Some(&member_id);
        let assignment = before.map(|m| m.assignment.clone()).unwrap_or_default();
        let first = self.phase == Phase::Empty;
        self.protocol_type = Some(join.protocol_type.clone());
        self.members.insert(
            member_id.clone(),
            Member {
                instance: join.instance,
                client_id: join.client_id,
                host: join.host,
                session_timeout: join.session_timeout,
                rebalance_timeout: join.rebalance_timeout,
                protocols: join.protocols,
                assignment,
                expires: now + join.session_timeout,
                joining: true,
            },
        );
        match self.phase {
            // A follower that only lost its answer gets the same one again.
            Phase::Completing if same => self.finish_join_of(&member_id),
            Phase::Stable if same && !is_leader => self.finish_join_of(&member_id),
            _ => self.prepare(now, first.then_some(initial_delay)),
        }
        self.tick(now);
        Ok(Joined::Wait(member_id))
    }

    /// The members of KIP-848. A group with classic members is no group of that kind.
    pub(super) fn consumers(&mut self, joins: bool) -> Result<&mut Consumers, ErrorCode> {
        if self.phase != Phase::Empty || !(joins || self.consumers.is_some()) {
            return Err(ErrorCode::GROUP_ID_NOT_FOUND);
        }
        Ok(self.consumers.get_or_insert_default())
    }

    /// Members of either kind.
    pub(super) fn member_count(&self) -> usize {
        self.members.len() + self.consumers.as_ref().map_or(0, Consumers::len)
    }

    /// Every member's session ends now.
    pub(super) fn throw_out(&mut self, now: Instant) -> usize {
        let count = self.member_count();
        for id in self.members.keys().cloned().collect::<Vec<_>>() {
            self.remove(&id, now);
        }
        self.consumers.iter_mut().for_each(Consumers::throw_out);
        count
    }

    /// Whether it has members of KIP-848.
    pub(super) fn has_consumers(&self) -> bool {
        self.consumers.as_ref().is_some_and(|consumers| !consumers.is_empty())
    }

    fn finish_join_of(&mut self, member_id: &str) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.joining = false;
        }
    }

    fn supports_any(&self, protocols: &[(String, Bytes)]) -> bool {
        let all = |name: &String| {
            self.members.values().all(|m| m.protocols.iter().any(|(known, _)| known == name))
        };
        protocols.iter().any(|(name, _)| all(name))
    }

    /// A static member comes back under a new id (`updateStaticMemberThenRebalanceOrCompleteJoin`).
    fn replace_static(&mut self, old: &str, new: String, join: Join, now: Instant) -> Joined {
        if let Some(mut member) = self.members.remove(old) {
            member.protocols = join.protocols;
            member.session_timeout = join.session_timeout;
            member.rebalance_timeout = join.rebalance_timeout;
            member.expires = now + join.session_timeout;
            member.joining = true;
            self.members.insert(new.clone(), member);
        }
        if let Some(instance) = join.instance {
            self.instances.insert(instance, new.clone());
        }
        if self.leader.as_deref() == Some(old) {
            self.leader = Some(new.clone());
        }
        // What it subscribes to, and what it says that it holds, changes nothing: only another choice of protocol would.
        if self.phase == Phase::Stable && self.protocol == self.elect_protocol() {
            self.finish_join_of(&new);
            return Joined::Unchanged(new);
        }
        // The leader may have been told of the old id already, and would give the new one nothing.
        self.prepare(now, None);
        self.tick(now);
        Joined::Wait(new)
    }

    fn prepare(&mut self, now: Instant, initial_delay: Option<Duration>) {
        if self.phase == Phase::Preparing {
            return;
        }
        self.phase = Phase::Preparing;
        let longest = self.members.values().map(|m| m.rebalance_timeout).max();
        self.join_until = Some(now + longest.unwrap_or_default());
        self.join_from = initial_delay.map(|delay| now + delay);
    }

    /// Lets time pass; true when something changed.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        let gone: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| !member.joining && member.expires <= now)
            .map(|(id, _)| id.clone())
            .collect();
        let awaited = self.awaited.len();
        self.awaited.retain(|_, until| *until > now);
        let mut changed = !gone.is_empty() || awaited != self.awaited.len();
        changed |= self.consumers.as_mut().is_some_and(|consumers| consumers.tick(now));
        for id in gone {
            self.remove(&id, now);
        }
        if self.phase == Phase::Preparing {
            changed |= self.try_complete(now);
        }
        changed
    }

    fn try_complete(&mut self, now: Instant) -> bool {
        let late = self.join_until.is_some_and(|until| until <= now);
        let all = self.awaited.is_empty() && self.members.values().all(|member| member.joining);
        if self.join_from.is_some_and(|from| from > now) || !(all || late) {
            return false;
        }
        let lagging: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| !member.joining && member.instance.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in lagging {
            self.members.remove(&id);
        }
        // A leader that is silent, and stays for being static, would never assign (`maybeElectNewJoinedLeader`).
        let joined = |id: &String| self.members.get(id).is_some_and(|member| member.joining);
        if !self.leader.as_ref().is_some_and(joined) {
            let first = self.members.iter().find(|(_, member)| member.joining);
            self.leader = first.map(|(id, _)| id.clone());
        }
        if self.leader.is_none() && !self.members.is_empty() {
            let longest = self.members.values().map(|m| m.rebalance_timeout).max();
            self.join_until = Some(now + longest.unwrap_or_default());
            return false;
        }
        self.generation += 1;
        self.join_until = None;
        self.join_from = None;
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.leader = None;
            self.protocol = None;
            return true;
        }
        self.phase = Phase::Completing;
        self.protocol = self.elect_protocol();
        for member in self.members.values_mut() {
            member.joining = false;
            member.expires = now + member.session_timeout;
            member.assignment = Bytes::new();
        }
        true
    }

    /// The protocol that all know and most prefer.
    fn elect_protocol(&self) -> Option<String> {
        let known_by_all = |name: &str| {
            self.members.values().all(|m| m.protocols.iter().any(|(known, _)| known == name))
        };
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member.protocols.iter().find(|(name, _)| known_by_all(name));
            *votes.entry(&vote?.0).or_default() += 1;
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name.to_owned())
    }

    /// Why whoever waits under this id waits in vain: somebody else has its instance, or it was removed.
    pub(super) fn without(&self, member_id: &str, instance: Option<&str>) -> ErrorCode {
        match instance.and_then(|instance| self.instances.get(instance)) {
            Some(known) if known != member_id => ErrorCode::FENCED_INSTANCE_ID,
            _ => ErrorCode::UNKNOWN_MEMBER_ID,
        }
    }

    /// A member that may speak for itself in this generation.
    pub(super) fn check_member(
        &self,
        member_id: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), ErrorCode> {
        if !self.members.contains_key(member_id) {
            return Err(self.without(member_id, instance));
        }
        match generation == self.generation {
            true => Ok(()),
            false => Err(ErrorCode::ILLEGAL_GENERATION),
        }
    }

    /// The leader's assignments; the group is stable.
    pub(super) fn assign(&mut self, assignments: Vec<(String, Bytes)>) {
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        self.phase = Phase::Stable;
    }

    /// A sign of life.
    pub(super) fn heard_from(&mut self, member_id: &str, now: Instant) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.expires = now + member.session_timeout;
        }
    }

    /// The member id behind a leaving member, which may be named by its instance.
    pub(super) fn leaving(
        &self,
        member_id: &str,
        instance: Option<&str>,
    ) -> Result<String, ErrorCode> {
        match instance {
            None if self.members.contains_key(member_id)
                || self.awaited.contains_key(member_id) =>
            {
                Ok(member_id.to_owned())
            }
            None => Err(ErrorCode::UNKNOWN_MEMBER_ID),
            Some(instance) => match self.instances.get(instance) {
                None => Err(ErrorCode::UNKNOWN_MEMBER_ID),
                Some(known) if !member_id.is_empty() && known != member_id => {
                    Err(ErrorCode::FENCED_INSTANCE_ID)
                }
                Some(known) => Ok(known.clone()),
            },
        }
    }

    /// A member is gone; the others share anew.
    pub(super) fn remove(&mut self, member_id: &str, now: Instant) {
        self.awaited.remove(member_id);
        if let Some(member) = self.members.remove(member_id) {
            self.instances.retain(|_, id| id != member_id);
            if self.leader.as_deref() == Some(member_id) {
                self.leader = None;
            }
            drop(member);
            self.prepare(now, None);
        }
        if self.phase == Phase::Preparing {
            self.try_complete(now);
        }
    }

    /// Whether an offset may be committed (`ClassicGroup.validateOffsetCommit`).
    pub(super) fn check_commit(
        &mut self,
        member_id: &str,
        instance: Option<&str>,
        generation: i32,
        transactional: bool,
        now: Instant,
    ) -> Result<(), ErrorCode> {
        let outsider = generation < 0 && member_id.is_empty();
        if let Some(consumers) = self.consumers.as_ref().filter(|consumers| !consumers.is_empty()) {
            let allowed = transactional && outsider;
            return if allowed { Ok(()) } else { consumers.check_commit(member_id, generation) };
        }
        if generation < 0 && (self.phase == Phase::Empty || (transactional && outsider)) {
            return Ok(());
        }
        if self.members.is_empty() {
            return Err(if generation >= 0 {
                ErrorCode::ILLEGAL_GENERATION
            } else {
                ErrorCode::UNKNOWN_MEMBER_ID
            });
        }
        self.check_member(member_id, instance, generation)?;
        if self.phase == Phase::Completing && !transactional {
            return Err(ErrorCode::REBALANCE_IN_PROGRESS);
        }
        self.heard_from(member_id, now);
        Ok(())
    }

    /// A transaction ended: its offsets count, or never were.
    pub(super) fn end_transaction(&mut self, producer_id: i64, committed: bool) {
        if let Some(pending) = self.pending.remove(&producer_id)
            && committed
        {
            self.offsets.extend(pending);
        }
    }

    pub(super) fn is_pending(&self, key: &(String, i32)) -> bool {
        self.pending.values().any(|offsets| offsets.contains_key(key))
    }

    pub(super) fn forget_topic(&mut self, topic: &str) {
        self.offsets.retain(|(name, _), _| name != topic);
        for pending in self.pending.values_mut() {
            pending.retain(|(name, _), _| name != topic);
        }
    }

    /// Partitions with a committed offset, committed or pending.
    pub(super) fn partitions(&self) -> BTreeSet<(String, i32)> {
        let pending = self.pending.values().flat_map(|offsets| offsets.keys());
        self.offsets.keys().chain(pending).cloned().collect()
    }
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;
