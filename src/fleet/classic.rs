//! A member of a classic group: what it tells the leader, what it does as the leader, and what an answer means. PURE.
//!
//! The assignor is called `cooperative-sticky`, and the bytes are those of Kafka's own clients, so that its tools show
//! them; who is a Strait is told by the user data.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::assign::{Seen, assign};
use crate::wire::consumer_protocol::{Assignment, Subscription, TopicPartition};
use crate::wire::heartbeat::HeartbeatRequest;
use crate::wire::join_group::{JoinGroupRequest, JoinGroupResponse};
use crate::wire::leave_group::LeaveGroupRequest;
use crate::wire::sync_group::SyncGroupRequest;
use crate::wire::{ErrorCode, WireError};

const PROTOCOL_TYPE: &str = "consumer";
const PROTOCOL: &str = "cooperative-sticky";
/// Marks subscriptions and assignments of ours.
const MARK: &[u8] = b"strait1";

/// What another member says that it holds is believed up to this.
const PARTITIONS_HELD_MAX: i32 = 100_000;

/// How long the broker waits for a sign of life, and for members to join again. The first decides how soon the mirrors of
/// a process that died are taken over; brokers allow no less than 6 s.
pub(super) const SESSION_TIMEOUT_MS: i32 = 10_000;
/// See [`SESSION_TIMEOUT_MS`].
pub(super) const REBALANCE_TIMEOUT_MS: i32 = 30_000;

/// A membership.
#[derive(Debug)]
pub(super) struct Member {
    group: String,
    /// Empty until the broker gave one.
    pub(super) id: String,
    /// `group.instance.id`: the operator's, or our own from start to start.
    pub(super) instance: Option<String>,
    /// -1 until the first was joined.
    pub(super) generation: i32,
    protocol: String,
    /// What is held.
    held: BTreeSet<TopicPartition>,
    /// What shall be held; none until the leader said so.
    named: Option<BTreeSet<TopicPartition>>,
    /// What was subscribed to in this generation.
    topics: Vec<String>,
}

/// What an error of the coordinator means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// None.
    Fine,
    /// Join again, with everything that is held.
    JoinAgain,
    /// The membership is lost: everything held is somebody else's now.
    Lost(ErrorCode),
    /// Somebody else is to be asked, or the same one later.
    Elsewhere(ErrorCode),
    /// Members that speak another language are in the group.
    Foreign(ErrorCode),
    /// Only the operator can help.
    Refused(ErrorCode),
}

/// By the coordinator's error.
pub(super) fn verdict(error: ErrorCode) -> Verdict {
    match error {
        ErrorCode::NONE => Verdict::Fine,
        ErrorCode::REBALANCE_IN_PROGRESS | ErrorCode::MEMBER_ID_REQUIRED => Verdict::JoinAgain,
        ErrorCode::UNKNOWN_MEMBER_ID
        | ErrorCode::ILLEGAL_GENERATION
        | ErrorCode::FENCED_INSTANCE_ID => Verdict::Lost(error),
        ErrorCode::NOT_COORDINATOR
        | ErrorCode::COORDINATOR_NOT_AVAILABLE
        | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => Verdict::Elsewhere(error),
        ErrorCode::INCONSISTENT_GROUP_PROTOCOL => Verdict::Foreign(error),
        error => Verdict::Refused(error),
    }
}

/// What the leader hands in, and who is in the group that is no Strait.
#[derive(Debug, Default)]
pub(super) struct Handed {
    /// Member and its part.
    pub(super) assignments: Vec<(String, Bytes)>,
    /// Member ids.
    pub(super) foreign: Vec<String>,
}

impl Member {
    /// Of nobody's yet.
    pub(super) fn new(group: &str, instance: Option<String>) -> Self {
        Self {
            group: group.to_owned(),
            id: String::new(),
            instance,
            generation: -1,
            protocol: PROTOCOL.to_owned(),
            held: BTreeSet::new(),
            named: None,
            topics: Vec::new(),
        }
    }

    /// Joins, or joins again.
    pub(super) fn join(
        &mut self,
        topics: Vec<String>,
        reason: &str,
    ) -> Result<JoinGroupRequest, WireError> {
        self.topics.clone_from(&topics);
        let subscription = Subscription {
            topics,
            user_data: Bytes::from_static(MARK),
            owned: self.held.iter().cloned().collect(),
            generation: self.generation,
        };
        Ok(JoinGroupRequest {
            group: self.group.clone(),
            session_timeout_ms: SESSION_TIMEOUT_MS,
            rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
            member: self.id.clone(),
            instance: self.instance.clone(),
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocol: PROTOCOL.to_owned(),
            metadata: subscription.encode()?,
            reason: reason.to_owned(),
        })
    }

    /// Takes the answer to a join. True: this member is the leader.
    pub(super) fn joined(&mut self, answer: &JoinGroupResponse) -> bool {
        self.id.clone_from(&answer.member);
        if answer.error.is_error() {
            return false;
        }
        self.generation = answer.generation;
        if let Some(protocol) = &answer.protocol {
            self.protocol.clone_from(protocol);
        }
        answer.leader == answer.member
    }

    /// What is asked after a join; the leader brings what it decided.
    pub(super) fn sync(&self, assignments: Vec<(String, Bytes)>) -> SyncGroupRequest {
        SyncGroupRequest {
            group: self.group.clone(),
            generation: self.generation,
            member: self.id.clone(),
            instance: self.instance.clone(),
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocol: self.protocol.clone(),
            assignments,
        }
    }

    /// Takes the part that the leader gave. False: the leader is no Strait.
    pub(super) fn named(&mut self, assignment: &Bytes) -> Result<bool, WireError> {
        let Assignment { partitions, user_data } = Assignment::decode(assignment)?;
        let of_ours = assignment.is_empty() || *user_data == *MARK;
        self.named = Some(partitions.into_iter().collect());
        Ok(of_ours)
    }

    /// A sign of life.
    pub(super) fn heartbeat(&self) -> HeartbeatRequest {
        HeartbeatRequest {
            group: self.group.clone(),
            generation: self.generation,
            member: self.id.clone(),
            instance: self.instance.clone(),
        }
    }

    /// The last request.
    pub(super) fn goodbye(&self) -> LeaveGroupRequest {
        LeaveGroupRequest {
            group: self.group.clone(),
            member: self.id.clone(),
            instance: self.instance.clone(),
            reason: "drained".to_owned(),
        }
    }

    /// Whether the generation was joined with other topics than these.
    pub(super) fn has_news(&self, topics: &[String]) -> bool {
        self.topics != topics
    }

    /// Held, and not to be held any more.
    pub(super) fn to_release(&self) -> Vec<TopicPartition> {
        let Some(named) = &self.named else { return Vec::new() };
        self.held.difference(named).cloned().collect()
    }

    /// To be held, and not held.
    pub(super) fn to_take(&self) -> Vec<TopicPartition> {
        let Some(named) = &self.named else { return Vec::new() };
        named.difference(&self.held).cloned().collect()
    }

    /// These are let go.
    pub(super) fn released(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.held.remove(partition);
        }
    }

    /// These are held from now on.
    pub(super) fn taken(&mut self, partitions: &[TopicPartition]) {
        self.held.extend(partitions.iter().cloned());
    }
}

/// What the leader gives each member: all to members that are Straits, nothing to others.
pub(super) fn hand_in(
    joined: &JoinGroupResponse,
    partitions: impl Fn(&str) -> i32,
) -> Result<Handed, WireError> {
    let mut handed = Handed::default();
    let mut ours = Vec::new();
    for member in &joined.members {
        match Subscription::decode(&member.metadata) {
            Ok(subscription) if *subscription.user_data == *MARK => ours.push(Seen {
                member: member.member.clone(),
                topics: subscription.topics.into_iter().collect(),
                owned: subscription.owned,
                generation: subscription.generation,
            }),
            _ => handed.foreign.push(member.member.clone()),
        }
    }
    // A topic that our metadata happens not to show is not taken from who holds it.
    let mut held: BTreeMap<&str, i32> = BTreeMap::new();
    for (topic, index) in ours.iter().flat_map(|member| &member.owned) {
        let count = held.entry(topic).or_default();
        *count = index.saturating_add(1).max(*count);
    }
    let shares = assign(&ours, |topic| match partitions(topic) {
        0 => held.get(topic).copied().unwrap_or(0).min(PARTITIONS_HELD_MAX),
        count => count,
    });
    let nothing = handed.foreign.iter().map(|member| (member.clone(), BTreeSet::new()));
    for (member, share) in shares.into_iter().chain(nothing) {
        let user_data = Bytes::from_static(MARK);
        let assignment = Assignment { partitions: share.into_iter().collect(), user_data };
        handed.assignments.push((member, assignment.encode()?));
    }
    Ok(handed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::join_group::JoinedMember;

    fn answer(members: &[(&str, Bytes)]) -> JoinGroupResponse {
        let member = |(id, metadata): &(&str, Bytes)| JoinedMember {
            member: (*id).to_owned(),
            metadata: metadata.clone(),
        };
        JoinGroupResponse {
            throttle_time_ms: 0,
            error: ErrorCode::NONE,
            generation: 4,
            protocol: Some(PROTOCOL.to_owned()),
            leader: "m1".to_owned(),
            skip_assignment: false,
            member: "m1".to_owned(),
            members: members.iter().map(member).collect(),
        }
    }

    fn metadata(topics: &[&str]) -> Bytes {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        Member::new("g", None).join(topics, "").unwrap().metadata
    }

    #[test]
    fn the_leader_shares_out_among_its_own_and_names_the_others() {
        let foreign = Subscription {
            topics: vec!["t".to_owned()],
            user_data: Bytes::from_static(&[0, 0, 0, 1]),
            owned: vec![],
            generation: -1,
        };
        let members =
            [("m1", metadata(&["t"])), ("m2", metadata(&["t"])), ("x", foreign.encode().unwrap())];
        let handed = hand_in(&answer(&members), |_| 4).unwrap();
        assert_eq!(handed.foreign, ["x"]);
        let shares: Vec<(String, usize)> = handed
            .assignments
            .iter()
            .map(|(member, part)| {
                (member.clone(), Assignment::decode(part).unwrap().partitions.len())
            })
            .collect();
        assert_eq!(shares, [("m1".into(), 2), ("m2".into(), 2), ("x".into(), 0)]);
    }

    #[test]
    fn what_is_held_is_told_with_the_generation_that_it_was_got_in() {
        let mut member = Member::new("g", None);
        assert!(member.joined(&answer(&[])));
        let part = hand_in(&answer(&[("m1", metadata(&["t"]))]), |_| 2).unwrap();
        assert_eq!(member.named(&part.assignments[0].1), Ok(true));
        let part = member.to_take();
        assert_eq!(part.len(), 2);
        member.taken(&part);
        let join = member.join(vec!["t".to_owned()], "").unwrap();
        let told = Subscription::decode(&join.metadata).unwrap();
        assert_eq!((told.owned, told.generation, join.member), (part, 4, "m1".to_owned()));
    }

    #[test]
    fn a_leader_that_is_no_strait_is_noticed() {
        let mut member = Member::new("g", None);
        let part = Assignment { partitions: vec![("t".into(), 0)], user_data: Bytes::new() };
        assert_eq!(member.named(&part.encode().unwrap()), Ok(false));
        assert_eq!(member.to_take().len(), 1);
        assert_eq!(member.named(&Bytes::new()), Ok(true), "left out, not foreign");
        assert!(member.named(&Bytes::from_static(b"x")).is_err());
    }
}
