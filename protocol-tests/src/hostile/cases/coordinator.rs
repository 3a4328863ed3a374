//! What the coordinator of the source's group says: of itself, of members, of positions.

use kafka_protocol::messages::{
    ApiKey, ConsumerGroupHeartbeatResponse, FindCoordinatorResponse, OffsetCommitResponse,
    OffsetFetchResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::hostile::answer::{Answer, Deed};
use crate::hostile::case::{Case, Where};

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let finds: [super::Named<FindCoordinatorResponse>; 9] = [
        ("nobody", |a| a.coordinators.clear()),
        ("for another key", |a| a.coordinators.iter_mut().for_each(|c| c.key = text("another"))),
        ("at 127.0.0.1", |a| a.coordinators.iter_mut().for_each(|c| c.host = text("127.0.0.1"))),
        ("at a cloud's metadata", |a| {
            a.coordinators.iter_mut().for_each(|c| c.host = text("169.254.169.254"));
        }),
        ("at no host", |a| a.coordinators.iter_mut().for_each(|c| c.host = text(""))),
        ("at port -1", |a| a.coordinators.iter_mut().for_each(|c| c.port = -1)),
        ("not available, for ever", |a| a.coordinators.iter_mut().for_each(|c| c.error_code = 15)),
        ("not allowed", |a| a.coordinators.iter_mut().for_each(|c| c.error_code = 30)),
        ("an error that does not exist", |a| {
            a.coordinators.iter_mut().for_each(|c| c.error_code = 31_999);
        }),
    ];
    for (what, edit) in finds {
        let deed = move |a: &Answer| match a.api {
            ApiKey::FindCoordinator => a.edit(edit),
            // Whoever knows the coordinator asks for it anew.
            ApiKey::OffsetCommit => a.edit(|answer: &mut OffsetCommitResponse| refuse(answer, 16)),
            ApiKey::ConsumerGroupHeartbeat => {
                a.edit(|answer: &mut ConsumerGroupHeartbeatResponse| answer.error_code = 16)
            }
            _ => Deed::Send(a.frame()),
        };
        let apis = [ApiKey::FindCoordinator, ApiKey::OffsetCommit, ApiKey::ConsumerGroupHeartbeat];
        let case = Case::new(format!("the coordinator is {what}"), &apis, deed);
        all.push(case.of_the_coordinator().of_the_cluster().harmless());
    }
    for (code, name) in [
        (-1, "UNKNOWN_SERVER_ERROR"),
        (14, "COORDINATOR_LOAD_IN_PROGRESS"),
        (15, "COORDINATOR_NOT_AVAILABLE"),
        (16, "NOT_COORDINATOR"),
        (25, "UNKNOWN_MEMBER_ID"),
        (30, "GROUP_AUTHORIZATION_FAILED"),
        (110, "FENCED_MEMBER_EPOCH"),
        (111, "UNRELEASED_INSTANCE_ID"),
        (31_999, "an error that does not exist"),
    ] {
        let case = Case::new(
            format!("a heartbeat answered {name}"),
            &[ApiKey::ConsumerGroupHeartbeat],
            move |a| a.edit(|answer: &mut ConsumerGroupHeartbeatResponse| answer.error_code = code),
        );
        all.push(case.of_the_coordinator().of_the_cluster().harmless());
    }
    for (code, name) in [
        (-1, "UNKNOWN_SERVER_ERROR"),
        (12, "OFFSET_METADATA_TOO_LARGE"),
        (14, "COORDINATOR_LOAD_IN_PROGRESS"),
        (16, "NOT_COORDINATOR"),
        (22, "ILLEGAL_GENERATION"),
        (25, "UNKNOWN_MEMBER_ID"),
        (30, "GROUP_AUTHORIZATION_FAILED"),
        (113, "STALE_MEMBER_EPOCH"),
        (31_999, "an error that does not exist"),
    ] {
        let case = Case::new(
            format!("a commit answered {name} and kept"),
            &[ApiKey::OffsetCommit],
            move |a| a.edit(|answer: &mut OffsetCommitResponse| refuse(answer, code)),
        );
        all.push(case.of_the_coordinator().harmless());
    }
    let commits: [super::Named<OffsetCommitResponse>; 3] = [
        ("a commit answered for nothing", |a| a.topics.clear()),
        ("a commit answered for other partitions", |a| {
            a.topics
                .iter_mut()
                .flat_map(|t| &mut t.partitions)
                .for_each(|p| p.partition_index += 9);
        }),
        ("a commit throttled for 24 days", |a| a.throttle_time_ms = i32::MAX),
    ];
    for (what, edit) in commits {
        let case = Case::new(what, &[ApiKey::OffsetCommit], move |a: &Answer| a.edit(edit));
        all.push(case.of_the_coordinator().harmless());
    }
    let members: [super::Named<ConsumerGroupHeartbeatResponse>; 5] = [
        ("an assignment of other topics", |a| {
            if let Some(assignment) = a.assignment.as_mut() {
                let topics = assignment.topic_partitions.iter_mut();
                topics.for_each(|t| t.topic_id = uuid::Uuid::from_u128(4711));
            }
        }),
        ("an assignment of partitions that cannot be", |a| {
            if let Some(assignment) = a.assignment.as_mut() {
                let topics = assignment.topic_partitions.iter_mut();
                topics.for_each(|t| t.partitions = vec![-1, i32::MAX, 500]);
            }
        }),
        ("a heartbeat interval of -1", |a| a.heartbeat_interval_ms = -1),
        ("a heartbeat interval of 0", |a| a.heartbeat_interval_ms = 0),
        ("a member epoch that goes back", |a| a.member_epoch = i32::MIN),
    ];
    for (what, edit) in members {
        let case =
            Case::new(what, &[ApiKey::ConsumerGroupHeartbeat], move |a: &Answer| a.edit(edit));
        all.push(case.of_the_coordinator().of_the_cluster().harmless());
    }
    let positions: [super::Named<OffsetFetchResponse>; 6] = [
        ("no group", |a| a.groups.clear()),
        ("no topics", |a| a.groups.iter_mut().for_each(|g| g.topics.clear())),
        ("below zero", |a| offsets(a, |offset, _| *offset = i64::MIN)),
        ("far ahead", |a| offsets(a, |offset, _| *offset = i64::MAX)),
        ("with metadata of noise", |a| {
            offsets(a, |_, metadata| *metadata = Some(text(&"\u{7}\u{1b}[2J".repeat(900))));
        }),
        ("without its metadata", |a| offsets(a, |_, metadata| *metadata = None)),
    ];
    for (what, edit) in positions {
        let deed = move |a: &Answer| a.edit(edit);
        let case = Case::new(format!("a position {what}"), &[ApiKey::OffsetFetch], deed).at_start();
        let case = case.of_the_coordinator().of_the_cluster().harmless().parks(&[63, 64, 65, 66]);
        // The position is the source's to keep: that it is another than was committed, nobody but it knows.
        all.push(if what == "far ahead" { case.denying() } else { case });
    }
    let mut raw = |what: &str, api: ApiKey, deed: fn(&Answer) -> Deed| {
        let case = Case::new(what, &[api], deed).of_the_coordinator();
        all.push(case.of_the_cluster().harmless());
    };
    let huge = |a: &Answer| Deed::Send(a.with(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 7]));
    raw("two thousand million topics committed", ApiKey::OffsetCommit, huge);
    raw("commits that are never answered", ApiKey::OffsetCommit, |_| Deed::Stall(Vec::new()));
    raw("heartbeats that are never answered", ApiKey::ConsumerGroupHeartbeat, |_| {
        Deed::Stall(Vec::new())
    });
    for (what, api) in [
        ("two thousand million positions", ApiKey::OffsetFetch),
        ("two thousand million coordinators", ApiKey::FindCoordinator),
    ] {
        let case = Case::new(what, &[api], huge).of_the_coordinator().of_the_cluster();
        all.push(case.at_start().harmless());
    }
    debug_assert!(all.iter().all(|case| case.sides == [Where::Source]));
    all
}

fn refuse(answer: &mut OffsetCommitResponse, code: i16) {
    answer.topics.iter_mut().flat_map(|t| &mut t.partitions).for_each(|p| p.error_code = code);
}

fn offsets(answer: &mut OffsetFetchResponse, edit: fn(&mut i64, &mut Option<StrBytes>)) {
    let groups = answer.groups.iter_mut();
    for partition in groups.flat_map(|g| &mut g.topics).flat_map(|t| &mut t.partitions) {
        edit(&mut partition.committed_offset, &mut partition.metadata);
    }
}
