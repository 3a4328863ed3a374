//! The classic group protocol: JoinGroup (11), Heartbeat (12), LeaveGroup (13), SyncGroup (14), DescribeGroups (15),
//! ListGroups (16), DeleteGroups (42).

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest,
    SyncGroupResponse,
};

use super::super::connection::Call;
use super::super::groups::{Group, Join, Joined, Phase};
use super::super::state::State;
use super::text;
use crate::wire::error_code::ErrorCode;

/// `group.min.session.timeout.ms` and `group.max.session.timeout.ms`.
const SESSION_TIMEOUT_MS: std::ops::RangeInclusive<i32> = 6_000..=1_800_000;

/// The group's name, if this broker coordinates it.
pub(super) fn coordinated<'a>(
    state: &mut State,
    call: &Call<'_>,
    group: &'a str,
) -> Result<&'a str, ErrorCode> {
    if let Some(code) = state.faults.refusal(call.api, call.peer.broker) {
        return Err(code);
    }
    if group.is_empty() {
        return Err(ErrorCode::INVALID_GROUP_ID);
    }
    match state.coordinator(group) == Some(call.peer.broker) {
        true => Ok(group),
        false => Err(ErrorCode::NOT_COORDINATOR),
    }
}

fn known<'a>(
    state: &'a mut State,
    call: &Call<'_>,
    group: &str,
) -> Result<&'a mut Group, ErrorCode> {
    coordinated(state, call, group)?;
    state.groups.get_mut(group).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)
}

pub(super) async fn join(call: &Call<'_>, request: JoinGroupRequest) -> JoinGroupResponse {
    let shared = &call.peer.shared;
    let refused = |code: ErrorCode, member: String| {
        let protocol = (call.version < 7).then(|| text(""));
        JoinGroupResponse::default()
            .with_error_code(code.0)
            .with_generation_id(-1)
            .with_protocol_name(protocol)
            .with_member_id(text(member))
    };
    let group_id = request.group_id.to_string();
    let asked = request.member_id.to_string();
    let instance = request.group_instance_id.as_ref().map(ToString::to_string);
    let outcome = enter(&mut shared.lock(), call, request);
    shared.changed();
    let (member_id, unchanged) = match outcome {
        Err(code) => return refused(code, asked),
        Ok(Joined::TakeId(id)) => return refused(ErrorCode::MEMBER_ID_REQUIRED, id),
        Ok(Joined::Unchanged(id)) => (id, true),
        Ok(Joined::Wait(id)) => (id, false),
    };
    // The group's own deadline ends the wait: whoever does not join in time is left out.
    let forever = shared.env.now() + Duration::from_secs(24 * 3600);
    let joined = shared.wait_for(forever, |state| {
        let Some(group) = state.groups.get(&group_id) else {
            return Some(Err(ErrorCode::UNKNOWN_MEMBER_ID));
        };
        let Some(member) = group.members.get(&member_id) else {
            return Some(Err(group.without(&member_id, instance.as_deref())));
        };
        (!member.joining).then(|| Ok(generation(call, group, &member_id, unchanged)))
    });
    match joined.await {
        Some(Ok(response)) => response,
        Some(Err(code)) => refused(code, member_id),
        None => refused(ErrorCode::REBALANCE_IN_PROGRESS, member_id),
    }
}

fn enter(
    state: &mut State,
    call: &Call<'_>,
    request: JoinGroupRequest,
) -> Result<Joined, ErrorCode> {
    coordinated(state, call, &request.group_id)?;
    if !SESSION_TIMEOUT_MS.contains(&request.session_timeout_ms) {
        return Err(ErrorCode::INVALID_SESSION_TIMEOUT);
    }
    let env = &call.peer.shared.env;
    if request.protocol_type.is_empty() || request.protocols.is_empty() {
        return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    }
    let name = request.group_instance_id.as_deref().unwrap_or(&call.client_id);
    let fresh_id = format!("{name}-{:016x}{:016x}", env.random_u64(), env.random_u64());
    let ms = |ms: i32| Duration::from_millis(ms.max(0).unsigned_abs().into());
    let session_timeout = ms(request.session_timeout_ms);
    let join = Join {
        member_id: request.member_id.to_string(),
        instance: request.group_instance_id.map(|id| id.to_string()),
        client_id: call.client_id.clone(),
        host: format!("/{}", call.peer.from.ip()),
        protocol_type: request.protocol_type.to_string(),
        protocols: request
            .protocols
            .into_iter()
            .map(|protocol| (protocol.name.to_string(), protocol.metadata))
            .collect(),
        session_timeout,
        rebalance_timeout: match call.version >= 1 {
            true => ms(request.rebalance_timeout_ms),
            false => session_timeout,
        },
        id_required: call.version >= 4,
    };
    let delay = state.options.group_initial_delay;
    let group = state.groups.entry(request.group_id.to_string()).or_default();
    group.join(join, fresh_id, delay, env.now())
}

fn generation(
    call: &Call<'_>,
    group: &Group,
    member_id: &str,
    unchanged: bool,
) -> JoinGroupResponse {
    let protocol = group.protocol.clone().unwrap_or_default();
    let leads = group.leader.as_deref() == Some(member_id);
    // A static leader that came back must not assign again: from version 9 it is told so, before that it is told of
    // a leader that is not itself.
    let skip = unchanged && leads;
    let leader = match skip && call.version < 9 {
        true => String::new(),
        false => group.leader.clone().unwrap_or_default(),
    };
    let members = group.members.iter().filter(|_| leads).map(|(id, member)| {
        let of = member.protocols.iter().find(|(name, _)| *name == protocol);
        JoinGroupResponseMember::default()
            .with_member_id(text(id.clone()))
            .with_group_instance_id(member.instance.clone().map(text))
            .with_metadata(of.map(|(_, metadata)| metadata.clone()).unwrap_or_default())
    });
    let members = members.collect();
    let kind = group.protocol_type.clone().filter(|_| call.version >= 7);
    JoinGroupResponse::default()
        .with_generation_id(group.generation)
        .with_protocol_type(kind.map(text))
        .with_protocol_name(Some(text(protocol)))
        .with_leader(text(leader))
        .with_skip_assignment(skip && call.version >= 9)
        .with_member_id(text(member_id))
        .with_members(members)
}

pub(super) async fn sync(call: &Call<'_>, request: SyncGroupRequest) -> SyncGroupResponse {
    let shared = &call.peer.shared;
    let refused = |code: ErrorCode| SyncGroupResponse::default().with_error_code(code.0);
    let generation = request.generation_id;
    let member_id = request.member_id.to_string();
    let group_id = request.group_id.to_string();
    let instance = request.group_instance_id.as_ref().map(ToString::to_string);
    let begun = begin_sync(&mut shared.lock(), call, request);
    shared.changed();
    if let Err(code) = begun {
        return refused(code);
    }
    let forever = shared.env.now() + Duration::from_secs(24 * 3600);
    let synced = shared.wait_for(forever, |state| {
        let group = state.groups.get(&group_id)?;
        let Some(member) = group.members.get(&member_id) else {
            return Some(refused(group.without(&member_id, instance.as_deref())));
        };
        if group.generation != generation || group.phase == Phase::Preparing {
            return Some(refused(ErrorCode::REBALANCE_IN_PROGRESS));
        }
        let kind = group.protocol_type.clone().filter(|_| call.version >= 5);
        let name = group.protocol.clone().filter(|_| call.version >= 5);
        (group.phase == Phase::Stable).then(|| {
            SyncGroupResponse::default()
                .with_protocol_type(kind.map(text))
                .with_protocol_name(name.map(text))
                .with_assignment(member.assignment.clone())
        })
    });
    synced.await.unwrap_or_else(|| refused(ErrorCode::REBALANCE_IN_PROGRESS))
}

fn begin_sync(
    state: &mut State,
    call: &Call<'_>,
    request: SyncGroupRequest,
) -> Result<(), ErrorCode> {
    let now = call.peer.shared.env.now();
    let group = known(state, call, &request.group_id)?;
    let instance = request.group_instance_id.as_deref();
    group.check_member(&request.member_id, instance, request.generation_id)?;
    let differs = |said: &Option<kafka_protocol::protocol::StrBytes>, ours: &Option<String>| {
        said.as_deref().is_some_and(|said| ours.as_deref() != Some(said))
    };
    if differs(&request.protocol_type, &group.protocol_type)
        || differs(&request.protocol_name, &group.protocol)
    {
        return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    }
    group.heard_from(&request.member_id, now);
    match group.phase {
        Phase::Empty => return Err(ErrorCode::UNKNOWN_MEMBER_ID),
        Phase::Preparing => return Err(ErrorCode::REBALANCE_IN_PROGRESS),
        Phase::Stable => {}
        Phase::Completing => {
            if group.leader.as_deref() == Some(request.member_id.as_str()) {
                let assignments = request.assignments.into_iter();
                group
                    .assign(assignments.map(|a| (a.member_id.to_string(), a.assignment)).collect());
            }
        }
    }
    Ok(())
}

pub(super) fn heartbeat(call: &Call<'_>, request: HeartbeatRequest) -> HeartbeatResponse {
    let now = call.peer.shared.env.now();
    let mut state = call.peer.shared.lock();
    let beat = || {
        let group = known(&mut state, call, &request.group_id)?;
        let instance = request.group_instance_id.as_deref();
        group.check_member(&request.member_id, instance, request.generation_id)?;
        group.heard_from(&request.member_id, now);
        match group.phase {
            Phase::Preparing => Err(ErrorCode::REBALANCE_IN_PROGRESS),
            Phase::Empty => Err(ErrorCode::UNKNOWN_MEMBER_ID),
            Phase::Completing | Phase::Stable => Ok(()),
        }
    };
    let code = std::convert::identity(beat)().err().unwrap_or_default();
    HeartbeatResponse::default().with_error_code(code.0)
}

pub(super) fn leave(call: &Call<'_>, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let shared = &call.peer.shared;
    let mut state = shared.lock();
    let now = shared.env.now();
    let group = match known(&mut state, call, &request.group_id) {
        Ok(group) => group,
        Err(code) => return LeaveGroupResponse::default().with_error_code(code.0),
    };
    let response = if call.version < 3 {
        let left = group.leaving(&request.member_id, None).map(|id| group.remove(&id, now));
        let code = left.err().unwrap_or_default();
        LeaveGroupResponse::default().with_error_code(code.0)
    } else {
        let members = request.members.into_iter().map(|member| {
            let instance = member.group_instance_id.as_deref();
            let left = group.leaving(&member.member_id, instance);
            let code = left.map(|id| group.remove(&id, now)).err().unwrap_or_default();
            MemberResponse::default()
                .with_member_id(member.member_id)
                .with_group_instance_id(member.group_instance_id)
                .with_error_code(code.0)
        });
        LeaveGroupResponse::default().with_members(members.collect())
    };
    drop(state);
    shared.changed();
    response
}

pub(super) fn describe(call: &Call<'_>, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let mut state = call.peer.shared.lock();
    let groups = request.groups.into_iter().map(|id| {
        let answer = DescribedGroup::default().with_group_id(id.clone());
        if let Err(code) = coordinated(&mut state, call, &id) {
            return answer.with_error_code(code.0);
        }
        match state.groups.get(id.as_str()) {
            Some(group) if !group.has_consumers() => described(answer, group),
            // Version 6 says that there is none (KIP-1043); before, it is merely dead.
            _ if call.version >= 6 => answer
                .with_error_code(ErrorCode::GROUP_ID_NOT_FOUND.0)
                .with_error_message(Some(text("the group does not exist")))
                .with_group_state(text("Dead")),
            _ => answer.with_group_state(text("Dead")),
        }
    });
    let groups = groups.collect();
    DescribeGroupsResponse::default().with_groups(groups)
}

fn described(answer: DescribedGroup, group: &Group) -> DescribedGroup {
    let protocol = group.protocol.clone().unwrap_or_default();
    let members = group.members.iter().map(|(id, member)| {
        let of = member.protocols.iter().find(|(name, _)| *name == protocol);
        DescribedGroupMember::default()
            .with_member_id(text(id.clone()))
            .with_group_instance_id(member.instance.clone().map(text))
            .with_client_id(text(member.client_id.clone()))
            .with_client_host(text(member.host.clone()))
            .with_member_metadata(of.map(|(_, bytes)| bytes.clone()).unwrap_or_else(Bytes::new))
            .with_member_assignment(member.assignment.clone())
    });
    let members = members.collect();
    answer
        .with_group_state(text(group.phase.name()))
        .with_protocol_type(text(group.protocol_type.clone().unwrap_or_default()))
        .with_protocol_data(text(protocol))
        .with_members(members)
}

pub(super) fn list(call: &Call<'_>, request: ListGroupsRequest) -> ListGroupsResponse {
    let state = call.peer.shared.lock();
    let wanted = |filter: &[kafka_protocol::protocol::StrBytes], name: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
    };
    let here = |id: &str| state.coordinator(id) == Some(call.peer.broker);
    // Not told apart as a real broker does: assigning, reconciling, stable.
    let kind = |group: &Group| match group.has_consumers() {
        true => ("consumer", Phase::Stable.name()),
        false => ("classic", group.phase.name()),
    };
    let groups = state.groups.iter().filter(|(id, group)| {
        let (kind, phase) = kind(group);
        here(id) && wanted(&request.states_filter, phase) && wanted(&request.types_filter, kind)
    });
    let groups = groups.map(|(id, group)| {
        let listed = ListedGroup::default()
            .with_group_id(GroupId(text(id.clone())))
            .with_protocol_type(text(group.protocol_type.clone().unwrap_or_default()));
        match call.version {
            ..4 => listed,
            4 => listed.with_group_state(text(kind(group).1)),
            _ => listed.with_group_state(text(kind(group).1)).with_group_type(text(kind(group).0)),
        }
    });
    let groups = groups.collect();
    ListGroupsResponse::default().with_groups(groups)
}

pub(super) fn delete(call: &Call<'_>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut state = call.peer.shared.lock();
    let results = request.groups_names.into_iter().map(|id| {
        let code = match coordinated(&mut state, call, &id) {
            Err(code) => code,
            Ok(_) => match state.groups.get(id.as_str()) {
                None => ErrorCode::GROUP_ID_NOT_FOUND,
                Some(group) if group.phase == Phase::Empty && !group.has_consumers() => {
                    state.groups.remove(id.as_str());
                    ErrorCode::NONE
                }
                Some(_) => ErrorCode::NON_EMPTY_GROUP,
            },
        };
        DeletableGroupResult::default().with_group_id(id).with_error_code(code.0)
    });
    let results = results.collect();
    DeleteGroupsResponse::default().with_results(results)
}
