//! Groups of the classic protocol.

use super::*;

const SESSION: Duration = Duration::from_secs(10);

fn join(member_id: &str, instance: Option<&str>) -> Join {
    Join {
        member_id: member_id.into(),
        instance: instance.map(Into::into),
        client_id: "c".into(),
        host: "/127.0.0.1".into(),
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::from_static(b"topics"))],
        session_timeout: SESSION,
        rebalance_timeout: SESSION * 6,
        id_required: false,
    }
}

fn settled(ids: &[&str], now: Instant) -> Group {
    let mut group = Group::default();
    for id in ids {
        group.join(join("", None), (*id).into(), Duration::ZERO, now).unwrap();
    }
    for id in ids {
        group.join(join(id, None), "unused".into(), Duration::ZERO, now).unwrap();
    }
    assert_eq!(group.phase, Phase::Completing);
    group.assign(vec![]);
    group
}

#[tokio::test]
async fn two_members_settle_in_one_generation() {
    let group = settled(&["a", "b"], Instant::now());
    assert_eq!(group.members.len(), 2);
    assert_eq!(group.protocol.as_deref(), Some("range"));
    assert_eq!(group.leader.as_deref(), Some("a"));
}

#[tokio::test]
async fn a_silent_member_is_removed_and_the_rest_rebalance() {
    let now = Instant::now();
    let mut group = settled(&["a", "b"], now);
    group.heard_from("a", now + SESSION / 2);
    assert!(group.tick(now + SESSION));
    assert_eq!(group.phase, Phase::Preparing);
    assert_eq!(group.members.keys().collect::<Vec<_>>(), ["a"]);
}

#[tokio::test]
async fn commits_are_fenced_by_generation_and_membership() {
    let now = Instant::now();
    let mut group = settled(&["a"], now);
    let generation = group.generation;
    let mut commit = |id: &str, generation| group.check_commit(id, None, generation, false, now);
    assert_eq!(commit("a", generation), Ok(()));
    assert_eq!(commit("a", generation - 1), Err(ErrorCode::ILLEGAL_GENERATION));
    assert_eq!(commit("z", generation), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    assert_eq!(commit("", -1), Err(ErrorCode::UNKNOWN_MEMBER_ID), "not while it has members");
    assert_eq!(Group::default().check_commit("", None, -1, false, now), Ok(()));
}

#[tokio::test]
async fn a_static_member_returns_without_a_rebalance_and_fences_the_old() {
    let now = Instant::now();
    let mut group = Group::default();
    group.join(join("", Some("i")), "one".into(), Duration::ZERO, now).unwrap();
    group.assign(vec![("one".into(), Bytes::from_static(b"mine"))]);
    let back = group.join(join("", Some("i")), "two".into(), Duration::ZERO, now);
    assert_eq!(back, Ok(Joined::Unchanged("two".into())));
    assert_eq!(group.members["two"].assignment, "mine");
    let range = vec![("range".into(), Bytes::from_static(b"other topics"))];
    let other = Join { protocols: range, ..join("", Some("i")) };
    let back = group.join(other, "two".into(), Duration::ZERO, now);
    assert_eq!(back, Ok(Joined::Unchanged("two".into())), "only the protocol's name counts");
    let old = group.check_member("one", Some("i"), group.generation);
    assert_eq!(old, Err(ErrorCode::FENCED_INSTANCE_ID));
}

#[tokio::test]
async fn a_static_member_that_returns_while_the_leader_assigns_has_everybody_join_again() {
    let now = Instant::now();
    let mut group = settled(&["a"], now);
    group.join(join("", Some("i")), "one".into(), Duration::ZERO, now).unwrap();
    group.join(join("a", None), "unused".into(), Duration::ZERO, now).unwrap();
    assert_eq!((group.phase, group.leader.as_deref()), (Phase::Completing, Some("a")));
    let back = group.join(join("", Some("i")), "two".into(), Duration::ZERO, now);
    assert_eq!(back, Ok(Joined::Wait("two".into())));
    assert_eq!(group.phase, Phase::Preparing, "what the leader brings names the old id");
    assert_eq!(group.without("one", Some("i")), ErrorCode::FENCED_INSTANCE_ID);
    group.join(join("a", None), "unused".into(), Duration::ZERO, now).unwrap();
    assert_eq!(group.phase, Phase::Completing);
    assert_eq!(group.members.keys().collect::<Vec<_>>(), ["a", "two"]);
}

#[tokio::test]
async fn a_silent_static_leader_leads_no_new_generation() {
    let now = Instant::now();
    let mut group = Group::default();
    group.join(join("", Some("i")), "one".into(), Duration::ZERO, now).unwrap();
    group.assign(vec![]);
    group.join(join("", None), "a".into(), Duration::ZERO, now).unwrap();
    group.heard_from("one", now + SESSION * 6);
    assert!(group.tick(now + SESSION * 6));
    assert_eq!((group.phase, group.leader.as_deref()), (Phase::Completing, Some("a")));
    assert_eq!(group.members.len(), 2, "it stays until its session ends");
}

#[tokio::test]
async fn an_id_is_asked_back_where_the_version_says_so() {
    let now = Instant::now();
    let mut group = Group::default();
    let first = Join { id_required: true, ..join("", None) };
    let given = group.join(first, "id".into(), Duration::ZERO, now);
    assert_eq!(given, Ok(Joined::TakeId("id".into())));
    let unknown = group.join(join("other", None), "x".into(), Duration::ZERO, now);
    assert_eq!(unknown, Err(ErrorCode::UNKNOWN_MEMBER_ID));
    let known = group.join(join("id", None), "x".into(), Duration::ZERO, now);
    assert_eq!(known, Ok(Joined::Wait("id".into())));
}
