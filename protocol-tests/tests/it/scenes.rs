//! What the simulator's seeds found, played again by hand in simulated time: one cause each.

use std::time::Duration;

use bytes::Bytes;
use protocol_tests::checker::Wanted;
use protocol_tests::raw::{Batch, Parsed, parse};
use protocol_tests::sim::Delivery;
use protocol_tests::sim::fleet::{Fleet, Membership};
use protocol_tests::sim::oracle::FOREIGN;
use protocol_tests::sim::past::Policies;
use protocol_tests::sim::scene::{Props, Scene, TOPIC, play};
use strait::embedded::{ApiKey, Fault, Order};
use strait::env::Moment;
use strait::wire::ErrorCode;
use tokio::time::{sleep, timeout};

pub async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

pub fn batches(scene: &Scene, source: bool) -> Vec<Parsed> {
    let cluster = if source { &scene.world.source } else { &scene.world.target };
    let found = cluster.batches_from(TOPIC, 0, 0).unwrap().1;
    found.iter().flat_map(|bytes| parse(bytes).0).collect()
}

/// A request of a former life: the last batch of the source, under the numbers behind, or before, those of the target's last
/// one.
fn request(scene: &Scene, numbers_on: i32) -> Bytes {
    let last = batches(scene, false).into_iter().rfind(|batch| batch.producer_id > 0).unwrap();
    let next = batches(scene, true).pop().unwrap();
    let (sequence, time) = (last.base_sequence + last.count + numbers_on, next.base_timestamp);
    let late = Batch::of(next.records()).sequenced(last.producer_id, sequence).with(|batch| {
        batch.base_timestamp = time;
        batch.producer_epoch = last.producer_epoch;
    });
    Bytes::from(late.bytes())
}

/// Such a request reaches the target.
pub fn arrives_late(scene: &Scene, numbers_on: i32) {
    scene.world.target.append(TOPIC, 0, &request(scene, numbers_on)).unwrap();
}

fn foreign(scene: &Scene) {
    let mut batch = Batch::small(1);
    batch.records[0].key = Some(FOREIGN.to_vec());
    scene.world.target.append(TOPIC, 0, &Bytes::from(batch.bytes())).unwrap();
}

pub fn strangers() -> Props {
    Props { fleet: Fleet::strangers(), ..Props::default() }
}

#[test]
fn a_position_that_another_instance_makes_while_the_target_is_looked_at_parks_nothing() {
    play(strangers(), async |scene| {
        scene.write(0, 5);
        // The second asks for its position before there is one, and hears of it when the first has copied.
        let late = Fault::DelayAnswer(Duration::from_secs(5));
        scene.world.source.fault(Order::next(ApiKey::OffsetFetch, late).after(1));
        scene.world.start(1);
        seconds(2).await;
        scene.world.start(0);
        scene.until_done(20).await;
        seconds(10).await;
        scene.world.kill(0).await;
        scene.write(0, 5);
        scene.until_done(20).await;
    });
}

#[test]
fn a_refused_batch_that_another_instance_appended_leaves_no_hole_and_parks_nothing() {
    play(strangers(), async |scene| {
        scene.world.start(0);
        scene.world.start(1);
        let mut refused = 0;
        for _ in 0..40 {
            (0..4).for_each(|_| scene.write(0, 3));
            let few = Fault::Refuse(ErrorCode::NOT_ENOUGH_REPLICAS);
            let few = scene.world.target.fault(Order::next(ApiKey::Produce, few));
            scene.until_done(60).await;
            refused += scene.world.target.fault_struck(few);
        }
        assert!(refused > 30, "{refused}");
        scene.until("both well", 60, || scene.world.ailments().is_empty()).await;
    });
}

#[test]
fn a_late_request_between_two_looks_at_the_target_is_counted_off() {
    play(Props::default(), async |scene| {
        scene.write(0, 5);
        scene.world.start(0);
        scene.until_done(20).await;
        scene.world.kill(0).await;
        foreign(scene);
        scene.write(0, 5);
        // The leader has been asked what it remembers when it comes; its log's end is asked for behind it.
        let ends = Fault::Delay(Duration::from_secs(3));
        let ends = scene.world.target.fault(Order::next(ApiKey::ListOffsets, ends));
        scene.world.start(0);
        scene.until("question", 20, || scene.world.target.fault_struck(ends) > 0).await;
        seconds(1).await;
        arrives_late(scene, 0);
        foreign(scene);
        scene.until_done(20).await;
        scene.write(0, 5);
        scene.until_done(20).await;
    });
}

#[test]
fn the_last_commit_of_a_mirror_that_left_long_ago_does_not_set_the_position_back() {
    let fleet = Fleet { instances: 2, membership: Membership::Auto, ..Fleet::alone() };
    play(Props { fleet, partitions: 2, ..Props::default() }, async |scene| {
        scene.world.start(0);
        (0..2).for_each(|partition| scene.write(partition, 5));
        scene.until_done(20).await;
        // A commit without an answer holds up the next ones of this instance for half a minute.
        let silence = scene.world.source.fault(Order::next(ApiKey::OffsetCommit, Fault::Silence));
        (0..2).for_each(|partition| scene.write(partition, 5));
        scene.until("silence", 20, || scene.world.source.fault_struck(silence) > 0).await;
        (0..2).for_each(|partition| scene.write(partition, 5));
        seconds(1).await;
        scene.world.start(1);
        // The other takes one of the two, and goes on with it.
        seconds(20).await;
        (0..2).for_each(|partition| scene.write(partition, 5));
        scene.until_done(60).await;
        seconds(60).await;
        scene.world.unfinished().unwrap();
    });
}

#[test]
fn a_commit_of_a_former_life_that_comes_late_does_not_set_the_position_back_for_good() {
    play(Props::default(), async |scene| {
        scene.world.start(0);
        scene.write(0, 5);
        scene.until_done(20).await;
        let late = Fault::Delay(Duration::from_secs(20));
        let late = scene.world.source.fault(Order::next(ApiKey::OffsetCommit, late));
        scene.write(0, 5);
        scene.until("commit", 20, || scene.world.source.fault_struck(late) == 1).await;
        scene.world.kill(0).await;
        scene.write(0, 5);
        scene.world.start(0);
        scene.until_done(15).await;
        scene.until("an older position", 30, || scene.committed(0) == Some(10)).await;
        scene.until_done(120).await;
    });
}

#[test]
fn a_batch_too_large_for_a_target_that_hides_its_limit_is_cut_beside_its_largest_record() {
    play(Props::default(), async |scene| {
        let limit = [("max.message.bytes", "2000")];
        scene.world.target.create_topic(TOPIC, 1, -1, &limit).unwrap();
        let hidden = Order::next(ApiKey::DescribeConfigs, Fault::CloseBefore).times(u32::MAX);
        let hidden = scene.world.target.fault(hidden);
        scene.write_sized(0, &[1_400, 700]);
        scene.write_sized(0, &[100, 1_500, 1_800, 10, 10]);
        scene.world.start(0);
        scene.until_done(60).await;
        assert!(scene.world.target.fault_struck(hidden) > 0);
    });
}

#[test]
fn what_a_read_back_settled_is_committed_though_nothing_follows() {
    play(Props::default(), async |scene| {
        scene.world.start(0);
        scene.write(0, 5);
        scene.until_done(20).await;
        // Found out long after the last fetch and the last commit.
        let lost = scene.world.target.fault(Order::next(ApiKey::Produce, Fault::Silence));
        scene.write(0, 5);
        scene.until_done(120).await;
        assert_eq!(scene.world.target.fault_struck(lost), 1);
    });
}

#[test]
fn an_old_request_of_a_former_life_that_comes_late_parks_nothing() {
    for numbers_on in [-5, -10] {
        play(Props { hours: 30, ..Props::default() }, async |scene| {
            scene.world.start(0);
            (0..3).for_each(|_| scene.write(0, 5));
            scene.until_done(20).await;
            scene.world.kill(0).await;
            scene.world.target.expire_producers();
            arrives_late(scene, numbers_on);
            scene.write(0, 5);
            scene.world.start(0);
            // They are old: it waits until no other can come late.
            scene.until_done(60).await;
            scene.write(0, 5);
            scene.until_done(20).await;
        });
    }
}

#[test]
fn an_old_request_that_comes_late_while_the_former_life_is_counted_off_parks_nothing() {
    play(Props { hours: 13, ..Props::default() }, async |scene| {
        scene.world.start(0);
        scene.write(0, 5);
        scene.until_done(20).await;
        let refused = Order::next(ApiKey::OffsetCommit, Fault::CloseBefore).times(u32::MAX);
        let refused = scene.world.source.fault(refused);
        (0..2).for_each(|_| scene.write(0, 5));
        scene.until("copies", 20, || batches(scene, false).len() == 3).await;
        scene.until("refused", 20, || scene.world.source.fault_struck(refused) > 0).await;
        scene.world.kill(0).await;
        assert_eq!(scene.committed(0), Some(5));
        scene.world.source.clear_faults();
        // It is remembered for hours, and every number behind the log's end refused.
        scene.world.target.expire_producers();
        arrives_late(scene, -10);
        // Old ones would wait until everything before them is on record.
        scene.write_young();
        scene.write(0, 5);
        scene.world.start(0);
        scene.until_done(120).await;
        scene.write(0, 5);
        scene.until_done(20).await;
    });
}

#[test]
fn a_batch_that_turns_old_before_its_connection_is_there_is_not_forgotten() {
    for dial in 0..5 {
        play(Props { hours: 13, ..Props::default() }, async |scene| {
            scene.world.start(0);
            scene.write(0, 5);
            scene.until_done(20).await;
            scene.world.kill(0).await;
            scene.write(0, 5);
            let ip = scene.world.ip_of(0);
            scene.world.network.set_skew_ms(ip, -30 * 3_600_000);
            let slow = Order::next(ApiKey::ApiVersions, Fault::Delay(Duration::from_secs(8)));
            scene.world.target.fault(slow.after(dial));
            scene.world.start(0);
            seconds(6).await;
            scene.world.network.set_skew_ms(ip, 0);
            scene.until_done(120).await;
        });
    }
}

#[test]
fn a_hole_of_which_nobody_was_told_is_found_and_not_committed_past() {
    play(Props::default(), async |scene| {
        scene.world.start(0);
        scene.write(0, 5);
        scene.until_done(20).await;
        scene.world.kill(0).await;
        (0..2).for_each(|_| scene.write(0, 5));
        // Of two requests that were on their way the first was refused and the second appended, by a leader without state.
        scene.world.target.drop_producer_state(TOPIC, 0).unwrap();
        arrives_late(scene, 5);
        scene.world.start(0);
        let is_parked = || scene.world.parked().iter().any(|what| what.contains("ST-064"));
        scene.until("ST-064", 20, is_parked).await;
        seconds(60).await;
        assert_eq!(scene.committed(0), Some(5));
        // The judge would call it lost.
        scene.world.oracle().set_wanted(&(TOPIC.to_owned(), 0), 5, 15, MAY);
    });
}

const CONTINUES: Policies = Policies { continues: true, restarts: false };

/// Nothing of the source is read for a while, and what is written meanwhile is deleted before it is copied.
async fn overtake(scene: &Scene, records: i64, loses_an_answer: bool) {
    let refuse = Fault::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    let hold = scene.world.source.fault(Order::next(ApiKey::Fetch, refuse).times(u32::MAX));
    scene.until("no more reading", 20, || scene.world.source.fault_struck(hold) > 0).await;
    let end = scene.world.source.ends(TOPIC, 0).unwrap().log_end;
    scene.write(0, usize::try_from(records).unwrap());
    scene.write(0, 5);
    scene.world.delete_source(&(TOPIC.to_owned(), 0), end + records);
    scene.world.source.clear_faults();
    if loses_an_answer {
        scene.world.source.fault(Order::next(ApiKey::OffsetCommit, Fault::CloseAfter));
    }
}

#[test]
fn a_gap_is_named_before_the_position_behind_it_is_on_record() {
    play(Props::default(), async |scene| {
        scene.world.loses(CONTINUES);
        scene.world.start(0);
        scene.write(0, 5);
        scene.until_done(20).await;
        // Nobody hears of what a process names after its last commit.
        let ip = scene.world.ip_of(0);
        let died = scene.world.network.die_at(ip, Moment::AnchorCommitted, 0);
        overtake(scene, 10, false).await;
        timeout(Duration::from_secs(20), died.notified()).await.unwrap();
        scene.world.kill(0).await;
        assert_eq!(scene.committed(0), Some(15));
        scene.world.start(0);
        scene.until_done(60).await;
    });
}

#[test]
fn a_step_over_a_gap_whose_answer_is_lost_is_no_other_instance_s() {
    for delivery in [Delivery::ExactlyOnce, Delivery::Transactional] {
        play(Props { delivery, ..Props::default() }, async |scene| {
            scene.world.loses(CONTINUES);
            scene.world.start(0);
            scene.until("a position", 20, || scene.committed(0) == Some(0)).await;
            overtake(scene, 10, true).await;
            scene.until_done(60).await;
        });
    }
}

/// Where the log ends is asked by name, and another topic may have it by then.
#[test]
fn a_topic_made_again_is_no_truncation() {
    play(Props::default(), async |scene| {
        scene.world.loses(Policies { continues: true, restarts: true });
        scene.world.start(0);
        scene.write(0, 5);
        scene.until_done(20).await;
        let gone = Fault::Refuse(ErrorCode::OFFSET_OUT_OF_RANGE);
        let gone = scene.world.source.fault(Order::next(ApiKey::Fetch, gone));
        while scene.world.source.fault_struck(gone) == 0 {
            tokio::time::sleep(Duration::from_micros(50)).await;
        }
        scene.world.recreate_source(TOPIC);
        // While the new one is empty.
        seconds(1).await;
        scene.write(0, 5);
        let arrived = || scene.world.oracle().arrived(&(TOPIC.to_owned(), 0));
        scene.until("both", 60, || arrived() == 10).await;
        scene.until_done(60).await;
    });
}

/// Where a copy begins is asked by name too.
#[test]
fn a_topic_made_again_while_a_start_looks_for_its_position_gives_none_in_the_old_one() {
    play(Props::default(), async |scene| {
        let (world, key) = (&scene.world, (TOPIC.to_owned(), 0));
        world.loses(Policies { continues: true, restarts: true });
        world.start(0);
        scene.until("a position", 20, || scene.committed(0) == Some(0)).await;
        let away = Fault::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        world.source.fault(Order::next(ApiKey::Fetch, away).times(u32::MAX));
        scene.write(0, 5);
        seconds(1).await;
        world.kill(0).await;
        world.source.clear_faults();
        // The next life has seen the old topic, and has not asked for a position yet.
        let late = Fault::Delay(Duration::from_secs(1));
        let late = world.target.fault(Order::next(ApiKey::DescribeConfigs, late));
        world.start(0);
        scene.until("the look", 20, || world.target.fault_struck(late) > 0).await;
        world.recreate_source(TOPIC);
        scene.write(0, 5);
        world.delete_source(&key, 3);
        scene.until("the rest", 60, || world.oracle().arrived(&key) == 2).await;
        scene.until_done(60).await;
    });
}

#[test]
fn a_topic_made_again_is_copied_behind_the_old_one_by_transactions_too() {
    let props = Props { delivery: Delivery::Transactional, ..Props::default() };
    play(props, async |scene| {
        scene.world.loses(Policies { continues: true, restarts: true });
        scene.world.start(0);
        scene.write(0, 5);
        scene.until_done(20).await;
        scene.world.recreate_source(TOPIC);
        scene.write(0, 5);
        scene
            .until("both", 60, || scene.world.oracle().arrived(&(TOPIC.to_owned(), 0)) == 10)
            .await;
        scene.until_done(60).await;
    });
}

/// A life commits so many batches, copies so many more that it cannot commit, and is killed.
async fn dies_behind_its_commit(scene: &Scene, committed: usize, more: usize) {
    scene.world.start(0);
    (0..committed).for_each(|_| scene.write(0, 5));
    scene.until_done(20).await;
    let refused = Order::next(ApiKey::OffsetCommit, Fault::CloseBefore).times(u32::MAX);
    scene.world.source.fault(refused);
    (0..more).for_each(|_| scene.write(0, 5));
    scene.until("copies", 20, || batches(scene, false).len() == committed + more).await;
    scene.world.kill(0).await;
    scene.world.source.clear_faults();
}

#[test]
fn a_source_that_holds_less_than_is_counted_off_is_found_without_another_record() {
    play(Props::default(), async |scene| {
        scene.world.loses(CONTINUES);
        dies_behind_its_commit(scene, 1, 2).await;
        assert_eq!(scene.committed(0), Some(5));
        scene.world.truncate_source(&(TOPIC.to_owned(), 0), 10);
        scene.world.start(0);
        // A session answers for what is new only.
        let is_parked = || scene.world.parked().iter().any(|what| what.contains("ST-065"));
        scene.until("ST-065", 60, is_parked).await;
    });
}

const MAY: (Wanted, Wanted) = (Wanted::Yes, Wanted::May);

#[test]
fn a_refused_number_after_a_long_outage_is_no_reason_to_park() {
    play(Props::default(), async |scene| {
        scene.world.start(0);
        scene.write(0, 5);
        scene.until_done(20).await;
        let away = Fault::Refuse(ErrorCode::NOT_ENOUGH_REPLICAS);
        let away = scene.world.target.fault(Order::next(ApiKey::Produce, away).times(12));
        scene.write(0, 5);
        scene.until("outage", 200, || scene.world.target.fault_struck(away) == 12).await;
        let number = Fault::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        let number = scene.world.target.fault(Order::next(ApiKey::Produce, number));
        scene.until_done(60).await;
        assert_eq!(scene.world.target.fault_struck(number), 1);
    });
}

/// Brokers forget an offset that nobody commits for a week.
#[test]
fn the_position_of_an_idle_mirror_is_committed_by_transactions_each_day() {
    let props = Props { delivery: Delivery::Transactional, ..Props::default() };
    play(props, async |scene| {
        scene.world.start(0);
        scene.write(0, 5);
        scene.until_done(20).await;
        // It counts them.
        let counted = Order::next(ApiKey::TxnOffsetCommit, Fault::DelayAnswer(Duration::ZERO));
        let counted = scene.world.target.fault(counted.times(u32::MAX));
        seconds(60).await;
        assert_eq!(scene.world.target.fault_struck(counted), 0, "it is idle");
        // Brokers that take their time: two answers and forty looks a second for 25 hours would be most of the test's time.
        for cluster in [&scene.world.source, &scene.world.target] {
            cluster.set_tick(Duration::from_secs(1));
            for api in [ApiKey::Fetch, ApiKey::Metadata] {
                let slow = Fault::DelayAnswer(Duration::from_secs(20));
                cluster.fault(Order::next(api, slow).times(u32::MAX));
            }
        }
        seconds(25 * 3600).await;
        assert_eq!(scene.world.target.fault_struck(counted), 1);
        scene.world.source.clear_faults();
        scene.world.target.clear_faults();
        scene.write(0, 5);
        scene.until_done(20).await;
    });
}

/// Ten records are committed and ten more copied when it dies. What is deleted then, up to where it goes on, and whether by
/// which policy.
#[test]
fn a_gap_behind_a_crash_is_told_from_what_was_copied() {
    let nothing = 0..0;
    for (deleted, on_gap, lost) in [
        (14, "stop", nothing.clone()),
        (20, "stop", nothing.clone()),
        (14, "continue", nothing.clone()),
        (20, "continue", nothing),
        (21, "continue", 20..21),
        (37, "continue", 20..37),
    ] {
        play(Props::default(), async |scene| {
            scene.world.configure(&format!("on_gap: {on_gap}"));
            dies_behind_its_commit(scene, 2, 2).await;
            (0..4).for_each(|_| scene.write(0, 5));
            scene.world.source.delete_records(TOPIC, 0, deleted).unwrap();
            let key = (TOPIC.to_owned(), 0);
            scene.world.oracle().set_wanted(&key, lost.start, lost.end, NEVER);
            scene.world.start(0);
            scene.until_done(60).await;
            let told: Vec<_> = scene.world.losses();
            let wanted = (!lost.is_empty()).then_some((lost.start, lost.end));
            assert_eq!(told, wanted.into_iter().collect::<Vec<_>>(), "{deleted} {on_gap}");
            // What follows is counted from there.
            scene.world.kill(0).await;
            scene.write(0, 5);
            scene.world.start(0);
            scene.until_done(60).await;
        });
    }
}

/// Its look at what is left fails, when it was told again that its offset is gone: its wait ends with the look that does not.
#[test]
fn a_gap_behind_a_crash_that_is_looked_at_in_vain_at_first_is_passed_all_the_same() {
    for after in 0..6 {
        play(Props::default(), async |scene| {
            dies_behind_its_commit(scene, 2, 2).await;
            (0..4).for_each(|_| scene.write(0, 5));
            scene.world.source.delete_records(TOPIC, 0, 14).unwrap();
            let refuse = Fault::Refuse(ErrorCode::FENCED_LEADER_EPOCH);
            let refuse = Order::next(ApiKey::Fetch, refuse).at(TOPIC, 0);
            scene.world.source.fault(refuse.after(after));
            let slow = Fault::DelayAnswer(Duration::from_millis(500));
            scene.world.source.fault(Order::next(ApiKey::OffsetFetch, slow).times(u32::MAX));
            scene.world.start(0);
            scene.until_done(60).await;
        });
    }
}

/// Ten records are committed and ten more copied when it dies. Those ten are truncated, others take their offsets, and all of it
/// is deleted: nobody can tell that from a gap, and no number tells where it begins.
#[test]
fn a_truncation_under_a_gap_behind_a_crash_is_in_what_is_named() {
    play(Props::default(), async |scene| {
        scene.world.loses(CONTINUES);
        dies_behind_its_commit(scene, 2, 2).await;
        let key = (TOPIC.to_owned(), 0);
        scene.world.truncate_source(&key, 10);
        (0..6).for_each(|_| scene.write(0, 5));
        scene.world.delete_source(&key, 35);
        scene.world.start(0);
        scene.until_done(60).await;
        assert_eq!(scene.world.losses(), [(10, 35)]);
    });
}

/// The dead life had one more batch on its way, which the source deletes before it is there.
#[test]
fn what_comes_late_is_not_told_as_lost() {
    play(Props::default(), async |scene| {
        scene.world.configure("on_gap: continue");
        dies_behind_its_commit(scene, 1, 1).await;
        scene.write(0, 5);
        let late = request(scene, 0);
        (0..3).for_each(|_| scene.write(0, 5));
        scene.world.source.delete_records(TOPIC, 0, 27).unwrap();
        scene.world.oracle().set_wanted(&(TOPIC.to_owned(), 0), 15, 27, NEVER);
        scene.world.start(0);
        seconds(5).await;
        scene.world.target.append(TOPIC, 0, &late).unwrap();
        scene.world.oracle().set_wanted(&(TOPIC.to_owned(), 0), 10, 15, MAY);
        scene.until_done(60).await;
        assert_eq!(scene.world.losses(), [(15, 27)]);
    });
}

const NEVER: (Wanted, Wanted) = (Wanted::Yes, Wanted::Never);

/// The other one has copied what is deleted when it goes on, and its own commit sets the position back.
#[test]
fn an_instance_that_stood_still_goes_on_behind_what_another_copied_and_the_source_deleted() {
    for sets_back in [false, true] {
        play(strangers(), async |scene| {
            scene.world.start(0);
            scene.write(0, 5);
            scene.until_done(20).await;
            if sets_back {
                let refused = Order::next(ApiKey::OffsetCommit, Fault::CloseBefore);
                scene.world.source.fault(refused.times(u32::MAX));
                scene.write(0, 5);
                scene.until("a copy", 20, || batches(scene, false).len() == 2).await;
            }
            let frozen = scene.world.freeze(0).unwrap();
            scene.world.source.clear_faults();
            scene.world.start(1);
            // The first is in an answer that waits for it.
            for _ in 0..3 {
                scene.write(0, 5);
                scene.until_done(20).await;
            }
            let end = scene.committed(0).unwrap();
            scene.world.source.delete_records(TOPIC, 0, end).unwrap();
            seconds(20).await;
            frozen.thaw();
            scene.until("both well", 60, || scene.world.ailments().is_empty()).await;
            scene.write(0, 5);
            scene.until_done(60).await;
            scene.until("both well", 60, || scene.world.ailments().is_empty()).await;
        });
    }
}
