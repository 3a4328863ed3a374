use super::*;
use crate::config::resolved::Naming;
use crate::link::{codes, fixture};

/// A clock that is turned by hand.
fn at(seconds: u64) -> Instant {
    thread_local!(static START: Instant = Instant::now());
    START.with(|start| *start) + Duration::from_secs(seconds)
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// How a message shows an id.
fn shown(n: u128) -> String {
    reasons::Shown(id(n)).to_string()
}

/// `("orders", id, partitions)`.
fn view(topics: &[(&str, u128, i32)]) -> View {
    let seen = |(name, n, partitions): &(&str, u128, i32)| {
        (Arc::from(*name), Seen { id: id(*n), internal: false, partitions: *partitions })
    };
    View { topics: topics.iter().map(seen).collect(), unclear: BTreeSet::new() }
}

fn planner(include: &[&str]) -> Planner {
    Planner::new(Arc::new(fixture::link(include, &[])), BTreeSet::new())
}

fn named(naming: Naming) -> Planner {
    Planner::new(Arc::new(Link { naming, ..fixture::link(&[".*"], &[]) }), BTreeSet::new())
}

/// A planner whose topic `orders` (2 partitions, ids 1 and 11) is being copied since second 0.
fn copying() -> Planner {
    let mut planner = planner(&[".*"]);
    let plan = planner.look(&view(&[("orders", 1, 2)]), &view(&[("orders", 11, 2)]), at(0));
    assert_eq!(begun(&plan), [("orders", "orders", 0..2)]);
    planner
}

fn begun(plan: &Plan) -> Vec<(&str, &str, Range<i32>)> {
    plan.begin.iter().map(|b| (&*b.topic, &*b.target, b.partitions.clone())).collect()
}

fn ended(plan: &Plan) -> Vec<(&str, Range<i32>)> {
    plan.end.iter().map(|e| (&*e.topic, e.partitions.clone())).collect()
}

fn blocked(plan: &Plan) -> Vec<(&str, crate::error::Code)> {
    plan.blocked.iter().map(|(topic, error)| (&**topic, error.code)).collect()
}

fn idle(plan: &Plan) -> bool {
    plan.end.is_empty() && plan.create.is_empty() && plan.grow.is_empty() && plan.begin.is_empty()
}

#[test]
fn a_topic_is_made_then_copied_and_then_left_alone() {
    let mut planner = planner(&["orders"]);
    let source = view(&[("orders", 1, 3), ("other", 2, 1)]);
    let plan = planner.look(&source, &view(&[]), at(0));
    let wanted = Create { topic: "orders".into(), target: "orders".into(), partitions: 3 };
    assert_eq!(plan.create, [wanted]);
    assert!(plan.begin.is_empty() && plan.blocked.is_empty());

    let target = view(&[("orders", 11, 3)]);
    let plan = planner.look(&source, &target, at(1));
    assert_eq!(begun(&plan), [("orders", "orders", 0..3)]);
    assert_eq!((plan.begin[0].source_id, plan.begin[0].target_id), (id(1), id(11)));
    assert!(plan.create.is_empty());

    assert!(idle(&planner.look(&source, &target, at(2))), "the same views ask for nothing more");
}

#[test]
fn names_go_by_the_links_naming() {
    let mut planner = named(Naming::Prefix);
    let source = view(&[("a", 1, 1), ("west.b", 2, 1)]);
    let plan = planner.look(&source, &view(&[("east.a", 11, 1)]), at(0));
    assert_eq!(begun(&plan), [("a", "east.a", 0..1)]);
    assert!(plan.create.is_empty(), "an echo is not copied back");
    assert_eq!(plan.warnings.len(), 1);
    assert_eq!(plan.warnings[0].code, codes::ECHO);
    let again = planner.look(&source, &view(&[("east.a", 11, 1)]), at(1));
    assert!(again.warnings.is_empty(), "told once");
}

#[test]
fn an_echo_that_is_named_literally_is_copied() {
    let link = Link {
        naming: Naming::Template("{topic}_COPY".to_owned()),
        ..fixture::link(&["mine_COPY", ".*"], &[])
    };
    let mut planner = Planner::new(Arc::new(link), BTreeSet::new());
    let plan = planner.look(&view(&[("mine_COPY", 1, 1), ("x_COPY", 2, 1)]), &view(&[]), at(0));
    assert_eq!(plan.create.iter().map(|c| &*c.target).collect::<Vec<_>>(), ["mine_COPY_COPY"]);
}

#[test]
fn growth_of_the_source_grows_the_target_and_waits_for_it() {
    let mut planner = copying();
    let source = view(&[("orders", 1, 5)]);
    let plan = planner.look(&source, &view(&[("orders", 11, 2)]), at(1));
    let wanted = Grow { topic: "orders".into(), target: "orders".into(), from: 2, to: 5 };
    assert_eq!(plan.grow, [wanted]);
    assert!(plan.begin.is_empty() && plan.end.is_empty(), "what runs goes on, the rest waits");

    // The controller may show them one by one.
    let plan = planner.look(&source, &view(&[("orders", 11, 4)]), at(2));
    assert_eq!(begun(&plan), [("orders", "orders", 2..4)]);
    let plan = planner.look(&source, &view(&[("orders", 11, 5)]), at(3));
    assert_eq!(begun(&plan), [("orders", "orders", 4..5)]);
    assert!(plan.grow.is_empty());
}

#[test]
fn a_larger_target_is_fine() {
    let mut planner = planner(&[".*"]);
    let plan = planner.look(&view(&[("orders", 1, 2)]), &view(&[("orders", 11, 6)]), at(0));
    assert_eq!(begun(&plan), [("orders", "orders", 0..2)]);
    assert!(plan.grow.is_empty() && plan.blocked.is_empty());
}

#[test]
fn a_smaller_topic_of_somebody_else_is_in_the_way_and_its_neighbours_run() {
    let mut planner = planner(&[".*"]);
    let source = view(&[("a", 1, 1), ("orders", 2, 3), ("z", 3, 1)]);
    let target = view(&[("a", 11, 1), ("orders", 12, 2), ("z", 13, 1)]);
    let plan = planner.look(&source, &target, at(0));
    assert_eq!(begun(&plan), [("a", "a", 0..1), ("z", "z", 0..1)]);
    assert!(plan.grow.is_empty(), "nobody else's topic is changed");
    assert_eq!(blocked(&plan), [("orders", codes::IN_THE_WAY)]);
    let text = plan.blocked["orders"].to_string();
    assert!(text.contains("has 2 partitions") && text.contains("--partitions 3"), "{text}");

    // The operator grows it: nothing has to be restarted.
    let target = view(&[("a", 11, 1), ("orders", 12, 3), ("z", 13, 1)]);
    let plan = planner.look(&source, &target, at(1));
    assert_eq!(begun(&plan), [("orders", "orders", 0..3)]);
    assert!(plan.blocked.is_empty());
}

#[test]
fn a_smaller_topic_that_the_link_holds_a_position_of_is_grown() {
    let claimed = BTreeSet::from([Arc::from("orders")]);
    let mut planner = Planner::new(Arc::new(fixture::link(&[".*"], &[])), claimed);
    let plan = planner.look(&view(&[("orders", 1, 3)]), &view(&[("orders", 11, 2)]), at(0));
    assert_eq!((plan.grow.len(), plan.blocked.len()), (1, 0));
    assert_eq!(begun(&plan), [("orders", "orders", 0..2)]);
}

#[test]
fn a_smaller_topic_that_the_link_has_just_made_is_grown() {
    let mut planner = planner(&[".*"]);
    planner.created(&"orders".into());
    let plan = planner.look(&view(&[("orders", 1, 3)]), &view(&[("orders", 11, 2)]), at(0));
    assert_eq!((plan.grow.len(), plan.blocked.len()), (1, 0));
}

#[test]
fn a_deleted_source_topic_ends_its_mirrors_but_not_at_first_sight() {
    let mut planner = copying();
    let target = view(&[("orders", 11, 2)]);
    assert!(idle(&planner.look(&view(&[]), &target, at(10))));
    assert_eq!(planner.next_look(at(10)), Some(at(10) + ABSENCE));
    assert!(idle(&planner.look(&view(&[]), &target, at(10) + ABSENCE / 2)));
    let plan = planner.look(&view(&[]), &target, at(10) + ABSENCE);
    assert_eq!(ended(&plan), [("orders", 0..2)]);
    assert_eq!(plan.end[0].why, None, "a deletion is no error");
    assert!(plan.blocked.is_empty());
    assert!(idle(&planner.look(&view(&[]), &target, at(60))));
    assert_eq!(planner.next_look(at(60)), None, "nothing left to wait for");
}

#[test]
fn a_topic_that_was_missing_for_a_moment_goes_on() {
    let mut planner = copying();
    let (source, target) = (view(&[("orders", 1, 2)]), view(&[("orders", 11, 2)]));
    for second in (10..100).step_by(10) {
        assert!(idle(&planner.look(&view(&[]), &target, at(second))));
        assert!(idle(&planner.look(&source, &view(&[]), at(second + 5))));
    }
    assert!(idle(&planner.look(&source, &target, at(101))));
}

#[test]
fn an_error_on_a_topic_is_not_its_absence() {
    let mut planner = copying();
    let unclear = View { topics: BTreeMap::new(), unclear: BTreeSet::from(["orders".into()]) };
    let (source, target) = (view(&[("orders", 1, 2)]), view(&[("orders", 11, 2)]));
    assert!(idle(&planner.look(&unclear, &target, at(10))));
    assert!(idle(&planner.look(&unclear, &target, at(100))));
    assert!(idle(&planner.look(&source, &unclear, at(110))));
    assert!(idle(&planner.look(&source, &unclear, at(200))));
}

#[test]
fn an_unclear_target_is_not_made_anew() {
    let mut planner = planner(&[".*"]);
    let unclear = View { topics: BTreeMap::new(), unclear: BTreeSet::from(["orders".into()]) };
    assert!(idle(&planner.look(&view(&[("orders", 1, 2)]), &unclear, at(0))));
}

#[test]
fn a_recreated_source_topic_is_stopped_at_once_and_stays_stopped() {
    let mut planner = copying();
    let target = view(&[("orders", 11, 2)]);
    let plan = planner.look(&view(&[("orders", 2, 2)]), &target, at(1));
    assert_eq!(ended(&plan), [("orders", 0..2)]);
    assert_eq!(blocked(&plan), [("orders", codes::SOURCE_RECREATED)]);
    let text = plan.blocked["orders"].to_string();
    assert!(text.contains(&shown(1)) && text.contains(&shown(2)), "both ids: {text}");
    assert!(text.contains("strait reset east-to-west --topic orders"), "{text}");

    // A broker that is behind shows the old one again: that does not make it right.
    for (second, source_id) in [(2, 1), (3, 2), (100, 1)] {
        let plan = planner.look(&view(&[("orders", source_id, 2)]), &target, at(second));
        assert!(idle(&plan));
        assert_eq!(blocked(&plan), [("orders", codes::SOURCE_RECREATED)]);
    }
}

#[test]
fn a_recreated_source_topic_is_begun_anew_when_told_and_never_the_old_one_again() {
    let mut link = fixture::link(&[".*"], &[]);
    link.policies.on_recreate = OnRecreate::Restart;
    let mut planner = Planner::new(Arc::new(link), BTreeSet::new());
    let target = view(&[("orders", 11, 2)]);
    planner.look(&view(&[("orders", 1, 2)]), &target, at(0));
    let plan = planner.look(&view(&[("orders", 2, 2)]), &target, at(1));
    assert_eq!((ended(&plan), blocked(&plan).len()), (vec![("orders", 0..2)], 0));
    assert_eq!(begun(&plan), [("orders", "orders", 0..2)]);
    assert_eq!((plan.begin[0].source_id, plan.begin[0].replaces), (id(2), Some(id(1))));
    // A broker that is behind shows the old one again.
    assert!(idle(&planner.look(&view(&[("orders", 1, 2)]), &target, at(2))));
    assert!(idle(&planner.look(&view(&[("orders", 2, 2)]), &target, at(3))));
    // With another target too, nobody knows what is where.
    let plan = planner.look(&view(&[("orders", 3, 2)]), &view(&[("orders", 12, 2)]), at(4));
    assert_eq!(blocked(&plan), [("orders", codes::SOURCE_RECREATED)]);
}

#[test]
fn a_source_topic_deleted_and_made_again_later_is_not_mixed_with_the_old() {
    let mut planner = copying();
    let target = view(&[("orders", 11, 2)]);
    planner.look(&view(&[]), &target, at(10));
    assert_eq!(ended(&planner.look(&view(&[]), &target, at(30))), [("orders", 0..2)]);
    let plan = planner.look(&view(&[("orders", 2, 2)]), &target, at(3_000));
    assert!(idle(&plan));
    assert_eq!(blocked(&plan), [("orders", codes::SOURCE_RECREATED)]);
}

#[test]
fn the_same_source_topic_that_comes_back_goes_on() {
    // Describe was withdrawn and granted again: the id is the same.
    let mut planner = copying();
    let target = view(&[("orders", 11, 2)]);
    planner.look(&view(&[]), &target, at(10));
    assert_eq!(ended(&planner.look(&view(&[]), &target, at(30))), [("orders", 0..2)]);
    let plan = planner.look(&view(&[("orders", 1, 2)]), &target, at(40));
    assert_eq!(begun(&plan), [("orders", "orders", 0..2)]);
}

#[test]
fn when_both_topics_are_gone_a_new_pair_begins_afresh() {
    let mut planner = copying();
    planner.look(&view(&[]), &view(&[]), at(10));
    assert_eq!(ended(&planner.look(&view(&[]), &view(&[]), at(20))), [("orders", 0..2)]);
    planner.look(&view(&[]), &view(&[]), at(40));
    let plan = planner.look(&view(&[("orders", 2, 4)]), &view(&[]), at(50));
    assert_eq!((plan.create.len(), plan.blocked.len()), (1, 0));
    let plan = planner.look(&view(&[("orders", 2, 4)]), &view(&[("orders", 12, 4)]), at(51));
    assert_eq!(begun(&plan), [("orders", "orders", 0..4)]);
    assert_eq!((plan.begin[0].source_id, plan.begin[0].target_id), (id(2), id(12)));
}

#[test]
fn deleting_the_target_after_the_source_was_recreated_begins_afresh() {
    let mut planner = copying();
    let source = view(&[("orders", 2, 2)]);
    planner.look(&source, &view(&[("orders", 11, 2)]), at(1));
    let plan = planner.look(&source, &view(&[]), at(20));
    assert!(idle(&plan));
    assert_eq!(blocked(&plan), [("orders", codes::SOURCE_RECREATED)], "still, until it is sure");
    let plan = planner.look(&source, &view(&[]), at(40));
    assert_eq!((plan.create.len(), plan.blocked.len()), (1, 0));
}

#[test]
fn a_recreated_target_topic_is_stopped_and_named() {
    let mut planner = copying();
    let source = view(&[("orders", 1, 2)]);
    let plan = planner.look(&source, &view(&[("orders", 12, 2)]), at(1));
    assert_eq!(ended(&plan), [("orders", 0..2)]);
    assert_eq!(blocked(&plan), [("orders", codes::TARGET_RECREATED)]);
    let text = plan.blocked["orders"].to_string();
    assert!(text.contains(&shown(11)) && text.contains(&shown(12)), "{text}");
    assert_eq!(plan.end[0].why, plan.blocked.get("orders").cloned());
}

#[test]
fn a_deleted_target_topic_is_not_made_again_behind_the_operators_back() {
    let mut planner = copying();
    let source = view(&[("orders", 1, 2)]);
    assert!(idle(&planner.look(&source, &view(&[]), at(10))));
    let plan = planner.look(&source, &view(&[]), at(30));
    assert_eq!(ended(&plan), [("orders", 0..2)]);
    assert_eq!(blocked(&plan), [("orders", codes::TARGET_GONE)]);
    assert!(plan.create.is_empty(), "it would begin behind what is committed");
    let plan = planner.look(&source, &view(&[("orders", 12, 2)]), at(40));
    assert_eq!(blocked(&plan), [("orders", codes::TARGET_GONE)], "until the operator acts");
    assert!(idle(&plan));
}

#[test]
fn nil_ids_are_no_change() {
    let mut planner = planner(&[".*"]);
    planner.look(&view(&[("orders", 0, 1)]), &view(&[("orders", 0, 1)]), at(0));
    let plan = planner.look(&view(&[("orders", 5, 1)]), &view(&[("orders", 6, 1)]), at(1));
    assert!(idle(&plan) && plan.blocked.is_empty());
}

#[test]
fn two_topics_of_one_target_name_are_both_refused() {
    let mut planner = named(Naming::Template("all".to_owned()));
    let target = view(&[("all", 9, 1)]);
    let plan = planner.look(&view(&[("a", 1, 1)]), &target, at(0));
    assert_eq!(begun(&plan), [("a", "all", 0..1)]);
    let plan = planner.look(&view(&[("a", 1, 1), ("b", 2, 1)]), &target, at(1));
    assert_eq!(blocked(&plan), [("a", codes::SHARED_NAME), ("b", codes::SHARED_NAME)]);
    assert_eq!(ended(&plan), [("a", 0..1)]);
    assert!(plan.blocked["a"].message.contains("a, b"));
    // The clash is gone: no restart.
    let plan = planner.look(&view(&[("a", 1, 1)]), &target, at(2));
    assert_eq!(begun(&plan), [("a", "all", 0..1)]);
    assert!(plan.blocked.is_empty());
}

#[test]
fn an_illegal_name_blocks_its_topic_only() {
    let mut planner = named(Naming::Template(format!("{}{{topic}}", "x".repeat(240))));
    let source = view(&[("short", 1, 1), ("quite-long-name", 2, 1)]);
    let plan = planner.look(&source, &view(&[]), at(0));
    assert_eq!(blocked(&plan), [("quite-long-name", codes::TARGET_NAME)]);
    assert_eq!(plan.create.len(), 1);
}

#[test]
fn names_that_share_metrics_are_told_once_and_copied() {
    let mut planner = planner(&[".*"]);
    let source = view(&[("a.b", 1, 1)]);
    let target = view(&[("a.b", 11, 1), ("a_b", 12, 1), ("c.d", 13, 1), ("c_d", 14, 1)]);
    let plan = planner.look(&source, &target, at(0));
    assert_eq!(begun(&plan), [("a.b", "a.b", 0..1)]);
    let told: Vec<_> = plan.warnings.iter().map(|w| w.code).collect();
    assert_eq!(told, [codes::SHARED_METRICS], "c.d and c_d are not this link's affair");
    assert!(planner.look(&source, &target, at(1)).warnings.is_empty());
}

#[test]
fn internal_topics_stay_out() {
    let mut planner = planner(&[".*"]);
    let mut source = view(&[("__consumer_offsets", 1, 50), ("flagged", 2, 1)]);
    let flagged = source.topics.get_mut("flagged").unwrap();
    flagged.internal = true;
    let plan = planner.look(&source, &view(&[]), at(0));
    assert!(idle(&plan) && plan.selected.is_empty() && plan.blocked.is_empty());
}

#[test]
fn a_pattern_that_matches_nothing_is_told_with_the_nearest_names() {
    let mut planner = planner(&["orders", "paymnets"]);
    let source = view(&[("orders", 1, 1), ("payments", 2, 1), ("zzz", 3, 1)]);
    let plan = planner.look(&source, &view(&[]), at(0));
    assert_eq!(plan.warnings.len(), 1);
    let text = plan.warnings[0].to_string();
    assert_eq!(plan.warnings[0].code, codes::NO_MATCH);
    assert!(text.contains("no topic of east matches paymnets; nearest: payments"), "{text}");
    assert!(text.contains("--operation Read --topic paymnets"), "{text}");
    assert_eq!(plan.create.len(), 1, "the other pattern goes on");

    let nothing = self::planner(&["orders"]).look(&view(&[]), &view(&[]), at(0));
    assert!(nothing.warnings[0].message.contains("User:ANONYMOUS sees no topic there at all"));
}
