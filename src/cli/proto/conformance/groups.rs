//! Membership of groups: how instances share a link, and who may commit its position.

use bytes::Bytes;

use super::super::versions::Role;
use super::bench::{Bench, Place};
use super::positions::{coordinator, to_commit};
use super::rule::{Outcome, Rule, Why, expect, expect_error, expect_one_of, found};
use crate::connection::Connection;
use crate::wire::consumer_group_heartbeat::{ConsumerGroupHeartbeatRequest, JOIN, LEAVE};
use crate::wire::consumer_protocol::Subscription;
use crate::wire::error_code::ErrorCode;
use crate::wire::heartbeat::HeartbeatRequest;
use crate::wire::join_group::JoinGroupRequest;
use crate::wire::leave_group::LeaveGroupRequest;
use crate::wire::offset_commit::OffsetCommitRequest;
use crate::wire::sync_group::SyncGroupRequest;

const SOURCE: Role = Role::Source;
const PROTOCOL: &str = "cooperative-sticky";

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "group.classic",
        role: SOURCE,
        optional: true,
        states: "a classic group takes a member, hands its assignment through, and knows when it left",
        relies: "instances of one link share its partitions, where the broker has no KIP-848",
        source: "GroupCoordinator, KIP-394",
        otherwise: "`membership: { protocol: off }` and one instance",
        check: |bench| Box::pin(classic(bench)),
    },
    Rule {
        id: "group.classic_fencing",
        role: SOURCE,
        optional: true,
        states: "while a classic group has members, another generation's or a stranger's commit is refused",
        relies: "an instance that was replaced moves no position back",
        source: "ClassicGroup.validateOffsetCommit",
        otherwise: "of two instances the slower one may move positions back: records come twice",
        check: |bench| Box::pin(classic_fencing(bench)),
    },
    Rule {
        id: "group.kip848",
        role: SOURCE,
        optional: true,
        states: "ConsumerGroupHeartbeat takes a member and assigns it every partition of its topic",
        relies: "instances of one link share its partitions without stopping",
        source: "GroupMetadataManager.consumerGroupHeartbeat, KIP-848",
        otherwise: "`membership: { protocol: classic }`",
        check: |bench| Box::pin(kip848(bench)),
    },
    Rule {
        id: "group.kip848_fencing",
        role: SOURCE,
        optional: true,
        states: "a commit under a member epoch that never was, or by a stranger, is refused",
        relies: "an instance that was replaced moves no position back",
        source: "ConsumerGroup.validateOffsetCommit",
        otherwise: "of two instances the slower one may move positions back: records come twice",
        check: |bench| Box::pin(kip848_fencing(bench)),
    },
];

/// A member of a classic group, alone and so its leader.
struct Classic {
    group: String,
    member: String,
    generation: i32,
    connection: Connection,
}

impl Classic {
    /// Asks for an id, joins with it and hands in the assignment.
    async fn join(bench: &Bench<'_>, suffix: &str) -> Result<Self, Why> {
        let group = format!("{}{suffix}", bench.topic);
        let connection = coordinator(bench, &group).await?;
        let subscription = Subscription {
            topics: vec![bench.topic.clone()],
            user_data: Bytes::new(),
            owned: Vec::new(),
            generation: -1,
        };
        let metadata = subscription.encode().map_err(|error| Why::Differs(error.to_string()))?;
        let mut request = JoinGroupRequest {
            group: group.clone(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 10_000,
            member: String::new(),
            instance: None,
            protocol_type: "consumer".to_owned(),
            protocol: PROTOCOL.to_owned(),
            metadata,
            reason: "conformance".to_owned(),
        };
        let first = connection.ask(&request).await?;
        expect_error("JoinGroup without an id", first.error, ErrorCode::MEMBER_ID_REQUIRED)?;
        request.member = first.member;
        let joined = connection.ask(&request).await?;
        expect_error("JoinGroup", joined.error, ErrorCode::NONE)?;
        expect("the leader", joined.leader.as_str(), request.member.as_str())?;
        let (member, generation) = (request.member, joined.generation);
        Ok(Self { group, member, generation, connection })
    }

    async fn sync(&self) -> Outcome {
        let assignment = Bytes::from_static(b"the leader's own words");
        let request = SyncGroupRequest {
            group: self.group.clone(),
            generation: self.generation,
            member: self.member.clone(),
            instance: None,
            protocol_type: "consumer".to_owned(),
            protocol: PROTOCOL.to_owned(),
            assignments: vec![(self.member.clone(), assignment.clone())],
        };
        let answer = self.connection.ask(&request).await?;
        expect_error("SyncGroup", answer.error, ErrorCode::NONE)?;
        expect("the assignment", answer.assignment, assignment)
    }

    async fn heartbeat(&self) -> Result<ErrorCode, Why> {
        let request = HeartbeatRequest {
            group: self.group.clone(),
            generation: self.generation,
            member: self.member.clone(),
            instance: None,
        };
        Ok(self.connection.ask(&request).await?.error)
    }

    async fn leave(&self) -> Outcome {
        let request = LeaveGroupRequest {
            group: self.group.clone(),
            member: self.member.clone(),
            instance: None,
            reason: "conformance".to_owned(),
        };
        let answer = self.connection.ask(&request).await?;
        expect_error("LeaveGroup", answer.error, ErrorCode::NONE)
    }
}

/// Commits as a member says that it is; the partition's error.
async fn commit(
    connection: &Connection,
    place: &Place,
    group: &str,
    (member, generation): (&str, i32),
) -> Result<ErrorCode, Why> {
    let request = OffsetCommitRequest {
        group: group.to_owned(),
        generation,
        member: member.to_owned(),
        instance: None,
        topics: place.named(to_commit(place, 7, "")),
    };
    let answer = connection.ask(&request).await?;
    let errors = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
    Ok(found("the partition", errors)?.1)
}

async fn classic(bench: &mut Bench<'_>) -> Outcome {
    let member = Classic::join(bench, "-classic").await?;
    member.sync().await?;
    expect_error("Heartbeat", member.heartbeat().await?, ErrorCode::NONE)?;
    member.leave().await?;
    let after = member.heartbeat().await?;
    expect_error("Heartbeat after LeaveGroup", after, ErrorCode::UNKNOWN_MEMBER_ID)
}

async fn classic_fencing(bench: &mut Bench<'_>) -> Outcome {
    let place = bench.place_in("", 5).await?;
    let member = Classic::join(bench, "-classic-fencing").await?;
    member.sync().await?;
    let (group, id, generation) = (&member.group, &*member.member, member.generation);
    let by = async |who| commit(&member.connection, &place, group, who).await;
    expect_error("the member's commit", by((id, generation)).await?, ErrorCode::NONE)?;
    let other = by((id, generation + 1)).await?;
    expect_error("another generation's", other, ErrorCode::ILLEGAL_GENERATION)?;
    expect_error("a stranger's", by(("", -1)).await?, ErrorCode::UNKNOWN_MEMBER_ID)?;
    member.leave().await
}

/// A member of a KIP-848 group, alone in it.
struct Kip848 {
    group: String,
    member: String,
    epoch: i32,
    connection: Connection,
}

impl Kip848 {
    async fn join(bench: &Bench<'_>, suffix: &str) -> Result<Self, Why> {
        let group = format!("{}{suffix}", bench.topic);
        let connection = coordinator(bench, &group).await?;
        let random = u128::from(bench.env.random_u64()) << 64 | u128::from(bench.env.random_u64());
        let member = uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid().to_string();
        let mut joined = Self { group, member, epoch: JOIN, connection };
        let topics = Some(vec![bench.topic.clone()]);
        let answer = joined.beat(JOIN, topics).await?;
        if answer.error == ErrorCode::UNSUPPORTED_VERSION {
            return Err(Why::NotOffered("the group protocol is off (group.version)".to_owned()));
        }
        expect_error("ConsumerGroupHeartbeat", answer.error, ErrorCode::NONE)?;
        if let Some(given) = answer.member.filter(|given| !given.is_empty()) {
            joined.member = given;
        }
        joined.epoch = answer.epoch;
        let assigned = answer.assignment.iter().flatten().map(|of| of.partitions.len()).sum();
        let map = bench.cluster.map();
        let all = map.topics.get(&bench.topic).map_or(0, |topic| topic.partitions.len());
        // The topic has become known to the coordinator a moment ago.
        let assigned = match assigned {
            0 => joined.assigned(bench).await?,
            assigned => assigned,
        };
        expect("partitions assigned", assigned, all)?;
        Ok(joined)
    }

    /// Waits until something is assigned.
    async fn assigned(&mut self, bench: &Bench<'_>) -> Result<usize, Why> {
        let this = std::cell::RefCell::new(self);
        bench
            .settled("an assignment", async || {
                let (request, connection) = {
                    let this = this.borrow();
                    (this.request(this.epoch, None), this.connection.clone())
                };
                let answer = connection.ask(&request).await?;
                this.borrow_mut().epoch = answer.epoch;
                let named = answer.assignment.iter().flatten();
                let count = named.map(|of| of.partitions.len()).sum::<usize>();
                Ok((count > 0).then_some(count))
            })
            .await
    }

    fn request(&self, epoch: i32, topics: Option<Vec<String>>) -> ConsumerGroupHeartbeatRequest {
        let joins = epoch == JOIN;
        ConsumerGroupHeartbeatRequest {
            group: self.group.clone(),
            member: self.member.clone(),
            epoch,
            instance: None,
            rebalance_timeout_ms: joins.then_some(10_000),
            topics,
            held: joins.then(Vec::new),
        }
    }

    async fn beat(
        &self,
        epoch: i32,
        topics: Option<Vec<String>>,
    ) -> Result<crate::wire::consumer_group_heartbeat::ConsumerGroupHeartbeatResponse, Why> {
        Ok(self.connection.ask(&self.request(epoch, topics)).await?)
    }

    async fn leave(&self) -> Outcome {
        expect_error("the last heartbeat", self.beat(LEAVE, None).await?.error, ErrorCode::NONE)
    }
}

async fn kip848(bench: &mut Bench<'_>) -> Outcome {
    let member = Kip848::join(bench, "-kip848").await?;
    member.leave().await?;
    let after = member.beat(member.epoch, None).await?.error;
    // A group without members may be gone with its last one.
    let gone = [ErrorCode::UNKNOWN_MEMBER_ID, ErrorCode::GROUP_ID_NOT_FOUND];
    expect_one_of("a heartbeat after that", after, &gone)
}

async fn kip848_fencing(bench: &mut Bench<'_>) -> Outcome {
    let place = bench.place_in("", 6).await?;
    let member = Kip848::join(bench, "-kip848-fencing").await?;
    let (group, id, epoch) = (&member.group, &*member.member, member.epoch);
    let by = async |who| commit(&member.connection, &place, group, who).await;
    expect_error("the member's commit", by((id, epoch)).await?, ErrorCode::NONE)?;
    let other = by((id, epoch + 1)).await?;
    expect_error("an epoch to come", other, ErrorCode::STALE_MEMBER_EPOCH)?;
    expect_error("a stranger's", by(("", -1)).await?, ErrorCode::UNKNOWN_MEMBER_ID)?;
    member.leave().await
}
