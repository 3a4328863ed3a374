//! A member of a group whose broker assigns (KIP-848): what its next heartbeat says, and what an answer means. PURE.
//!
//! The member holds partitions; the broker names what it shall hold. What is held and not named is let go and then no
//! longer listed in a heartbeat, which is how the broker hears of it; what is named and not held is free, and is taken.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::wire::ErrorCode;
use crate::wire::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, IdPartitions, JOIN, LEAVE,
    LEAVE_FOR_A_WHILE,
};

/// A partition, as this protocol names it.
pub(super) type IdPartition = (Uuid, i32);

/// A membership.
#[derive(Debug)]
pub(super) struct Member {
    group: String,
    /// The member's id.
    pub(super) id: String,
    /// `group.instance.id`, if the operator gave one.
    pub(super) instance: Option<String>,
    /// 0 until the broker took us in.
    pub(super) epoch: i32,
    /// What is held, by our own count: the broker hears of it.
    held: BTreeSet<IdPartition>,
    /// What shall be held; none until the broker said so.
    named: Option<BTreeSet<IdPartition>>,
    /// The broker may not know what we said last: say everything.
    say_all: bool,
    topics_said: Option<Vec<String>>,
    held_said: Option<BTreeSet<IdPartition>>,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The membership stands. Whether something of it is new.
    Stands { news: bool },
    /// It is lost: everything held is somebody else's now.
    Lost(ErrorCode),
    /// The broker does not have this protocol, or not for this group.
    Unsupported(ErrorCode),
    /// Somebody else is to be asked, or the same one later.
    Elsewhere(ErrorCode),
    /// Only the operator can help.
    Refused(ErrorCode),
}

impl Member {
    /// Of nobody's yet.
    pub(super) fn new(group: &str, id: String, instance: Option<String>) -> Self {
        Self {
            group: group.to_owned(),
            id,
            instance,
            epoch: JOIN,
            held: BTreeSet::new(),
            named: None,
            say_all: true,
            topics_said: None,
            held_said: None,
        }
    }

    /// Whether the broker took us in.
    pub(super) fn is_in(&self) -> bool {
        self.epoch > 0
    }

    /// The next heartbeat; what has not changed since the last is left out.
    pub(super) fn heartbeat(
        &mut self,
        topics: Vec<String>,
        rebalance_timeout_ms: i32,
    ) -> ConsumerGroupHeartbeatRequest {
        let all = self.say_all || !self.is_in();
        let topics_are_new = self.topics_said.as_ref() != Some(&topics);
        let held_is_new = self.held_said.as_ref() != Some(&self.held);
        let request = ConsumerGroupHeartbeatRequest {
            group: self.group.clone(),
            member: self.id.clone(),
            epoch: self.epoch,
            instance: self.instance.clone(),
            rebalance_timeout_ms: all.then_some(rebalance_timeout_ms),
            topics: (all || topics_are_new).then(|| topics.clone()),
            held: (all || held_is_new).then(|| by_topic(&self.held)),
        };
        self.topics_said = Some(topics);
        self.held_said = Some(self.held.clone());
        // Until an answer says otherwise.
        self.say_all = true;
        request
    }

    /// Whether a heartbeat now would bring the broker something new.
    pub(super) fn has_news(&self, topics: &[String]) -> bool {
        self.topics_said.as_deref() != Some(topics) || self.held_said.as_ref() != Some(&self.held)
    }

    /// The last one: a static member says that it will be back.
    pub(super) fn goodbye(&self) -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest {
            group: self.group.clone(),
            member: self.id.clone(),
            epoch: if self.instance.is_some() { LEAVE_FOR_A_WHILE } else { LEAVE },
            instance: self.instance.clone(),
            rebalance_timeout_ms: None,
            topics: None,
            held: None,
        }
    }

    /// Takes an answer.
    pub(super) fn answered(&mut self, answer: ConsumerGroupHeartbeatResponse) -> Verdict {
        match answer.error {
            ErrorCode::NONE => {}
            ErrorCode::UNKNOWN_MEMBER_ID
            | ErrorCode::FENCED_MEMBER_EPOCH
            | ErrorCode::FENCED_INSTANCE_ID => return Verdict::Lost(answer.error),
            ErrorCode::UNSUPPORTED_VERSION | ErrorCode::GROUP_ID_NOT_FOUND => {
                return Verdict::Unsupported(answer.error);
            }
            ErrorCode::NOT_COORDINATOR
            | ErrorCode::COORDINATOR_NOT_AVAILABLE
            | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => return Verdict::Elsewhere(answer.error),
            error => return Verdict::Refused(error),
        }
        self.say_all = false;
        if let Some(id) = answer.member.filter(|id| !id.is_empty()) {
            self.id = id;
        }
        let mut news = self.epoch != answer.epoch;
        self.epoch = answer.epoch;
        if let Some(named) = answer.assignment {
            let named = named.into_iter().flat_map(|of| {
                of.partitions.into_iter().map(move |partition| (of.topic_id, partition))
            });
            let named = Some(named.collect());
            news |= self.named != named;
            self.named = named;
        }
        Verdict::Stands { news }
    }

    /// Whether the broker has named anything, be it nothing.
    pub(super) fn is_named(&self) -> bool {
        self.named.is_some()
    }

    /// Whether it named nothing, or nothing yet.
    pub(super) fn has_nothing(&self) -> bool {
        self.named.as_ref().is_none_or(BTreeSet::is_empty)
    }

    /// Held, and not to be held any more.
    pub(super) fn to_release(&self) -> Vec<IdPartition> {
        let Some(named) = &self.named else { return Vec::new() };
        self.held.difference(named).copied().collect()
    }

    /// To be held, and not held.
    pub(super) fn to_take(&self) -> Vec<IdPartition> {
        let Some(named) = &self.named else { return Vec::new() };
        named.difference(&self.held).copied().collect()
    }

    /// These are let go.
    pub(super) fn released(&mut self, partitions: &[IdPartition]) {
        for partition in partitions {
            self.held.remove(partition);
        }
    }

    /// These are held from now on.
    pub(super) fn taken(&mut self, partitions: &[IdPartition]) {
        self.held.extend(partitions);
    }
}

fn by_topic(held: &BTreeSet<IdPartition>) -> Vec<IdPartitions> {
    let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
    for (topic_id, partition) in held {
        topics.entry(*topic_id).or_default().push(*partition);
    }
    topics.into_iter().map(|(topic_id, partitions)| IdPartitions { topic_id, partitions }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: Uuid = Uuid::from_u128(7);

    fn member() -> Member {
        Member::new("g", "m".to_owned(), None)
    }

    fn answer(epoch: i32, assigned: Option<&[i32]>) -> ConsumerGroupHeartbeatResponse {
        ConsumerGroupHeartbeatResponse {
            throttle_time_ms: 0,
            error: ErrorCode::NONE,
            error_message: None,
            member: Some("m".to_owned()),
            epoch,
            heartbeat_interval_ms: 5000,
            assignment: assigned.map(|partitions| {
                vec![IdPartitions { topic_id: TOPIC, partitions: partitions.to_vec() }]
            }),
        }
    }

    fn ids(partitions: &[i32]) -> Vec<IdPartition> {
        partitions.iter().map(|partition| (TOPIC, *partition)).collect()
    }

    fn topics() -> Vec<String> {
        vec!["t".to_owned()]
    }

    #[test]
    fn says_everything_to_join_and_after_trouble_and_only_news_otherwise() {
        let mut member = member();
        let join = member.heartbeat(topics(), 30_000);
        assert_eq!((join.epoch, join.topics, join.held), (0, Some(topics()), Some(vec![])));
        assert_eq!(join.rebalance_timeout_ms, Some(30_000));
        assert_eq!(member.answered(answer(3, Some(&[0, 1]))), Verdict::Stands { news: true });

        member.taken(&ids(&[0, 1]));
        assert!(member.has_news(&topics()));
        let beat = member.heartbeat(topics(), 30_000);
        assert_eq!((beat.epoch, &beat.topics, beat.rebalance_timeout_ms), (3, &None, None));
        assert_eq!(beat.held.unwrap()[0].partitions, [0, 1]);
        // No answer: the next one says all of it again.
        let again = member.heartbeat(topics(), 30_000);
        assert!(again.topics.is_some() && again.held.is_some());
        assert_eq!(member.answered(answer(3, None)), Verdict::Stands { news: false });
        let beat = member.heartbeat(topics(), 30_000);
        assert_eq!((beat.topics, beat.held), (None, None));
        assert!(!member.has_news(&topics()));
    }

    #[test]
    fn lets_go_of_what_is_not_named_and_says_so_only_then() {
        let mut member = member();
        member.heartbeat(topics(), 1);
        member.answered(answer(3, Some(&[0, 1])));
        assert_eq!((member.to_take(), member.to_release()), (ids(&[0, 1]), vec![]));
        member.taken(&ids(&[0, 1]));
        member.heartbeat(topics(), 1);
        member.answered(answer(3, Some(&[1])));
        assert_eq!((member.to_take(), member.to_release()), (vec![], ids(&[0])));
        // Not before it is let go.
        assert_eq!(member.heartbeat(topics(), 1).held, None);
        member.answered(answer(3, None));
        member.released(&ids(&[0]));
        assert_eq!(member.heartbeat(topics(), 1).held.unwrap()[0].partitions, [1]);
        assert_eq!(member.answered(answer(4, None)), Verdict::Stands { news: true });
        assert_eq!(member.epoch, 4);
    }

    #[test]
    fn errors_are_told_apart() {
        let verdict = |error: ErrorCode| {
            member().answered(ConsumerGroupHeartbeatResponse { error, ..answer(0, None) })
        };
        for error in [ErrorCode::UNKNOWN_MEMBER_ID, ErrorCode::FENCED_MEMBER_EPOCH] {
            assert_eq!(verdict(error), Verdict::Lost(error));
        }
        let error = ErrorCode::UNSUPPORTED_VERSION;
        assert_eq!(verdict(error), Verdict::Unsupported(error));
        let error = ErrorCode::NOT_COORDINATOR;
        assert_eq!(verdict(error), Verdict::Elsewhere(error));
        let error = ErrorCode::GROUP_AUTHORIZATION_FAILED;
        assert_eq!(verdict(error), Verdict::Refused(error));
    }

    #[test]
    fn a_static_member_says_that_it_will_be_back() {
        assert_eq!(member().goodbye().epoch, LEAVE);
        let fixed = Member::new("g", "m".to_owned(), Some("i".to_owned()));
        assert_eq!((fixed.goodbye().epoch, fixed.goodbye().instance), (-2, Some("i".to_owned())));
    }
}
