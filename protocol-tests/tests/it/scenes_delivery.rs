//! The two deliveries one behind the other, in simulated time: what one left on its way, the other does not bring again.

use std::time::Duration;

use protocol_tests::sim::Delivery;
use protocol_tests::sim::scene::{Props, play};
use strait::embedded::{ApiKey, Fault, Generation, Order};
use tokio::time::{Instant, sleep};

use crate::scenes::{arrives_late, batches, seconds, strangers};

/// Of two batches that were on their way when a life died one comes behind the first ack of the next life: under the old
/// numbers the leader takes it.
#[test]
fn what_a_dead_life_had_on_its_way_is_not_brought_by_a_transaction_again() {
    play(Props::default(), async |scene| {
        scene.world.start(0);
        scene.write(0, 5);
        scene.until_done(20).await;
        scene.world.kill(0).await;
        scene.world.deliver(Delivery::Transactional);
        scene.write(0, 5);
        scene.world.start(0);
        scene.until_done(20).await;
        scene.write(0, 5);
        arrives_late(scene, 0);
        scene.until_done(120).await;
        // None can come any more: by transactions from here on.
        seconds(60).await;
        (0..3).for_each(|_| scene.write(0, 5));
        scene.until_done(20).await;
        assert!(batches(scene, false).iter().any(|batch| batch.attributes & 32 != 0), "a marker");
    });
}

#[test]
fn an_instance_that_wakes_up_writes_nothing_beside_its_successor_s_transactions() {
    play(strangers(), async |scene| {
        scene.world.start(0);
        scene.write(0, 5);
        scene.until_done(20).await;
        let frozen = scene.world.freeze(0).unwrap();
        scene.world.deliver(Delivery::Transactional);
        scene.world.start(1);
        scene.write(0, 5);
        scene.until_done(20).await;
        seconds(60).await;
        for _ in 0..4 {
            scene.write(0, 5);
            scene.until_done(20).await;
        }
        assert!(batches(scene, false).iter().any(|batch| batch.attributes & 32 != 0), "a marker");
        // It holds what was written meanwhile for new, and its numbers for the next.
        frozen.thaw();
        sleep(Duration::from_millis(500)).await;
        scene.world.kill(0).await;
        scene.write(0, 5);
        scene.until_done(20).await;
    });
}

/// Of one that ends and one that goes over: it has read the target's position, and puts its own on record late.
#[test]
fn a_transaction_of_before_the_era_was_left_is_not_copied_again() {
    let props = Props { delivery: Delivery::Transactional, ..strangers() };
    play(props, async |scene| {
        scene.world.start(1);
        scene.write(0, 5);
        scene.until_done(20).await;
        let late = Order::next(ApiKey::OffsetCommit, Fault::Delay(Duration::from_secs(10)));
        let late = scene.world.source.fault(late);
        scene.world.deliver(Delivery::ExactlyOnce);
        scene.world.start(0);
        scene.until("anchor", 20, || scene.world.source.fault_struck(late) == 1).await;
        scene.write(0, 5);
        // Fenced, it begins anew in the era.
        scene.until("transaction", 8, || scene.committed(0) == Some(10)).await;
        scene.world.kill(1).await;
        scene.until("late", 20, || scene.committed(0) == Some(5)).await;
        scene.until_done(60).await;
        scene.write(0, 5);
        scene.until_done(20).await;
    });
}

/// Of one that comes and one that leaves the era: it knows the source's position, and fences late.
#[test]
fn an_era_that_was_left_before_the_fence_is_not_gone_on_with() {
    let props = Props { delivery: Delivery::Transactional, ..strangers() };
    play(props, async |scene| {
        scene.world.start(0);
        scene.write(0, 5);
        scene.until_done(20).await;
        scene.world.kill(0).await;
        let late = Order::next(ApiKey::InitProducerId, Fault::Delay(Duration::from_secs(10)));
        let late = scene.world.target.fault(late);
        scene.world.start(1);
        scene.until("fence", 20, || scene.world.target.fault_struck(late) == 1).await;
        scene.world.deliver(Delivery::ExactlyOnce);
        scene.world.start(0);
        scene.write(0, 5);
        scene.until_done(8).await;
        scene.world.kill(0).await;
        seconds(20).await;
        scene.write(0, 5);
        scene.until_done(60).await;
    });
}

/// Its connection is lost, so it is asked for again; the first asking comes amid the next transaction. Before Kafka 4 that has
/// the same epoch.
fn comes_late(api: ApiKey, end_takes: Duration) {
    let props = Props {
        delivery: Delivery::Transactional,
        target_release: Some(Generation::Kafka39),
        ..Props::default()
    };
    play(props, async |scene| {
        scene.world.start(0);
        scene.write(0, 5);
        scene.until_done(20).await;
        for wait in (500..3_000).step_by(50) {
            let wait = Duration::from_millis(wait);
            let late = scene.world.target.fault(Order::next(api, Fault::Delay(wait)));
            let ends = Order::next(ApiKey::EndTxn, Fault::Delay(end_takes)).after(1).times(100);
            scene.world.target.fault(ends);
            scene.write(0, 5);
            scene.until("the late one", 20, || scene.world.target.fault_struck(late) == 1).await;
            let comes = Instant::now() + wait;
            let network = &scene.world.network;
            network.connections().iter().for_each(|(id, _)| network.cut(*id));
            while Instant::now() < comes {
                scene.write(0, 1);
                sleep(Duration::from_millis(20)).await;
            }
            sleep(Duration::from_millis(20)).await;
            scene.world.kill(0).await;
            scene.world.target.clear_faults();
            scene.world.start(0);
            scene.until_done(60).await;
        }
    });
}

#[test]
fn an_end_that_comes_late_ends_no_other_transaction() {
    comes_late(ApiKey::EndTxn, Duration::ZERO);
}

#[test]
fn a_position_that_comes_late_is_in_no_other_transaction() {
    comes_late(ApiKey::TxnOffsetCommit, Duration::from_millis(200));
}
