//! Brokers that are far, cannot be reached, or have closed a connection that nothing was on its way over: in simulated time.

use std::time::Duration;

use protocol_tests::sim::scene::{Props, Scene, TOPIC, play};
use strait::embedded::{ApiKey, Fault, Order, Replica};
use tokio::time::{Instant, sleep};

use crate::scenes::seconds;

const MS: Duration = Duration::from_millis(1);

/// Writes one record: what it takes to the target, where only a copy writes.
async fn record_takes(scene: &Scene) -> Duration {
    let end = || scene.world.target.ends(TOPIC, 0).map_or(0, |ends| ends.log_end);
    let (before, began) = (end(), Instant::now());
    scene.write(0, 1);
    while end() == before {
        sleep(MS).await;
    }
    began.elapsed()
}

#[test]
fn those_who_wait_for_a_dial_that_fails_do_not_dial_one_after_another() {
    play(Props { brokers: [2, 3], partitions: 3, ..Props::default() }, async |scene| {
        // Three groups of mirrors, one for each target broker, ask one source broker where to begin.
        for partition in 0..3 {
            scene.write(partition, 5);
            scene.world.source.move_leader(TOPIC, partition, 2, Replica::InSync).unwrap();
        }
        scene.world.source.move_coordinator(&scene.world.group(), 1);
        let late = Fault::Delay(Duration::from_secs(3));
        scene.world.source.fault(Order::next(ApiKey::OffsetFetch, late).times(u32::MAX));
        scene.world.start(0);
        scene.until("the topic", 20, || scene.world.target.ends(TOPIC, 0).is_ok()).await;
        seconds(1).await;
        let (here, there) = (scene.world.ip_of(0), scene.world.source.address(2));
        scene.world.network.block(here, there);
        let told = |what: &String| what.contains("ST-");
        let all_told = || scene.world.ailments().iter().filter(|what| told(what)).count() == 3;
        // A dial is given up after ten seconds.
        scene.until("an error of each mirror", 16, all_told).await;
        scene.world.network.unblock(here, there);
        scene.until_done(60).await;
    });
}

#[test]
fn the_ends_of_those_that_wait_for_their_turn_are_told_by_a_source_that_is_far() {
    play(Props { partitions: 2, ..Props::default() }, async |scene| {
        scene.world.configure("backfill: { order: in_turn, concurrent: 1 }");
        (0..2).for_each(|partition| scene.write(partition, 1));
        scene.world.start(0);
        scene.until_done(20).await;
        scene.world.kill(0).await;
        (0..40).for_each(|batch| scene.write_sized(batch % 2, &[500; 1000]));
        let far = Fault::Delay(Duration::from_secs(2));
        scene.world.source.fault(Order::next(ApiKey::ApiVersions, far).times(u32::MAX));
        let slow = Fault::Delay(Duration::from_secs(2));
        let slow = scene.world.source.fault(Order::next(ApiKey::Fetch, slow).times(u32::MAX));
        scene.world.start(0);
        scene.until("the copy to run", 60, || scene.world.source.fault_struck(slow) > 3).await;
        scene.write(1, 1);
        let told = |what: &String| what.contains("-1 ") && what.contains(" of 20002");
        scene.until("the end", 15, || scene.world.ailments().iter().any(told)).await;
        scene.world.source.clear_faults();
        scene.until_done(60).await;
    });
}

#[test]
fn a_connection_that_was_closed_while_it_was_idle_costs_no_recovery() {
    play(Props::default(), async |scene| {
        scene.write(0, 5);
        scene.world.start(0);
        scene.until_done(20).await;
        for _ in 0..10 {
            seconds(30).await;
            scene.world.target.kill_broker(1);
            scene.world.target.restart_broker(1);
            seconds(1).await;
            let took = record_takes(scene).await;
            assert_eq!(scene.world.resyncs(), 0, "after {took:?}");
        }
        scene.until_done(20).await;
    });
}

#[test]
fn a_topic_that_shows_late_in_the_target_s_metadata_is_not_taken_for_hidden() {
    play(Props::default(), async |scene| {
        scene.write(0, 5);
        let late = Fault::DelayAnswer(Duration::from_secs(14));
        scene.world.target.fault(Order::next(ApiKey::Metadata, late).times(u32::MAX));
        scene.world.start(0);
        let is_there = || scene.world.target.ends(TOPIC, 0).is_ok();
        scene.until("the topic", 60, is_there).await;
        while target_is_empty(scene) {
            let ailments = scene.world.ailments();
            assert!(!ailments.iter().any(|what| what.contains("ST-030")), "{ailments:?}");
            sleep(500 * MS).await;
        }
        scene.world.target.clear_faults();
        scene.until_done(60).await;
    });
}

fn target_is_empty(scene: &Scene) -> bool {
    scene.world.target.ends(TOPIC, 0).is_ok_and(|ends| ends.log_end == 0)
}
