//! What is at the tail beside what catches up, in simulated time.

use std::time::Duration;

use protocol_tests::sim::scene::{Props, Scene, TOPIC, play};
use strait::embedded::{ApiKey, Fault, Order};
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);

/// Brokers that take a while for each request of a connection.
fn slow(scene: &Scene, fetch: Duration, produce: Duration) {
    let delay = |api, time| Order::next(api, Fault::Delay(time)).times(u32::MAX);
    scene.world.source.fault(delay(ApiKey::Fetch, fetch));
    scene.world.target.fault(delay(ApiKey::Produce, produce));
}

fn target_end(scene: &Scene, partition: i32) -> i64 {
    scene.world.target.ends(TOPIC, partition).map_or(0, |ends| ends.log_end)
}

/// What a record takes to partition 0 of the target, where only a copy writes.
async fn record_takes(scene: &Scene) -> Duration {
    let (end, began) = (target_end(scene, 0), Instant::now());
    scene.write(0, 1);
    while target_end(scene, 0) == end {
        sleep(MS).await;
    }
    began.elapsed()
}

#[test]
fn what_a_backlog_has_on_its_way_when_it_ends_does_not_stop_the_fetching_of_the_tail() {
    play(Props { partitions: 2, ..Props::default() }, async |scene| {
        scene.world.configure("connections_per_broker: 1");
        scene.world.window_of(8 << 20);
        // It comes no faster than it leaves, and so is on its way and not ahead.
        (0..10).for_each(|_| scene.write_sized(1, &[1_000; 1_000]));
        slow(scene, 300 * MS, 400 * MS);
        scene.world.start(0);
        scene.until("the copy to run", 20, || target_end(scene, 1) > 0).await;
        let mut took = Vec::new();
        while target_end(scene, 1) < 10_000 {
            took.push(record_takes(scene).await);
        }
        assert!(took.iter().all(|time| *time < 500 * MS), "{took:?}");
        scene.until_done(60).await;
    });
}

#[test]
fn a_turn_ends_near_the_end_of_what_piled_up() {
    play(Props { partitions: 2, ..Props::default() }, async |scene| {
        scene.world.configure("backfill: { order: in_turn, concurrent: 1 }");
        scene.world.window_of(8 << 20);
        (0..10).for_each(|_| scene.write_sized(0, &[600; 1_000]));
        (0..5).for_each(|_| scene.write_sized(1, &[1; 1_000]));
        slow(scene, 1_000 * MS, MS);
        scene.world.start(0);
        scene.until("the second one", 60, || target_end(scene, 1) > 0).await;
        let first = target_end(scene, 0);
        assert!((2_000..10_000).contains(&first), "the first one is at {first}");
        scene.until_done(60).await;
    });
}
