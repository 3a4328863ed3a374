//! The wall clock jumps, and time passes that the process does not see: nothing is lost, nothing comes twice.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol_tests::bounds::assert_rests;
use protocol_tests::copying::sized;
use protocol_tests::strait::Strait;
use protocol_tests::wait::{holds_for, wait_until};
use protocol_tests::wall_clock::WallClock;
use strait::embedded::{Mechanism, Options, User};

use crate::stage::Stage;

const DAY: i64 = 86_400;

/// Copies through a stage while its process's clock goes to each of these, with lost connections at each.
fn jumps(name: &str, link: &[&str]) {
    let mut stage = Stage::new(name);
    for line in link {
        stage.config = stage.config.clone().link(line);
    }
    let clock = WallClock::new();
    let mut strait = Strait::start_under(&stage.config, &clock.shell(), &[]);
    strait.expect_in_log("WARN");
    let mut written = 0;
    for ahead in [0, DAY, 0, -DAY, 365 * DAY, -365 * DAY, 0] {
        clock.set(ahead);
        let told = clock.told();
        for cut in [false, true] {
            if cut {
                stage.target.kill_broker(1);
                stage.target.restart_broker(1);
            }
            stage.append_many(written..written + 50);
            written += 50;
            stage.wait_committed(&strait, 60);
        }
        assert!(ahead == 0 || clock.told() > told, "the clock was not looked at");
    }
    let numbers = stage.arrived_numbers();
    let mut counts = BTreeMap::new();
    numbers.iter().for_each(|number| *counts.entry(number).or_insert(0) += 1);
    let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    assert_eq!(numbers, (0..written).collect::<Vec<_>>());
    println!("{} looks at a wrong clock", clock.told());
    assert_rests(&strait);
    assert_eq!(strait.terminate().0, 0, "{}", strait.log());
    strait.assert_clean_log();
}

#[test]
fn the_wall_clock_jumps_days_and_nothing_is_lost_or_doubled() {
    jumps("jumps", &[]);
}

#[test]
fn the_wall_clock_jumps_days_in_transactions() {
    jumps("jumps-transactions", &["delivery: transactional", "transaction: { interval: 20ms }"]);
}

#[test]
fn sasl_sessions_are_renewed_by_a_clock_that_does_not_jump() {
    let lifetime = Duration::from_secs(6);
    let mut source = Options {
        users: vec![User { name: "strait".into(), password: "canary".into() }],
        mechanisms: vec![Mechanism::ScramSha256],
        max_reauth: Some(lifetime),
        ..Options::default()
    };
    source.listeners = source.listeners.iter().cloned().map(|l| l.with_sasl()).collect();
    let mut stage = Stage::with("sessions", source, Options::default());
    let sasl = "sasl: { mechanism: SCRAM-SHA-256, username: strait, password: canary }";
    stage.config.source = stage.config.source.replacen(" }", &format!(", {sasl} }}"), 1);
    let clock = WallClock::new();
    let strait = Strait::start_under(&stage.config, &clock.shell(), &[]);
    let mut written = 0;
    for ahead in [DAY, -DAY] {
        clock.set(ahead);
        let before = stage.source.logins();
        holds_for("it copies", lifetime + Duration::from_millis(500), || {
            stage.append_many(written..written + 1);
            written += 1;
            true
        });
        stage.wait_committed(&strait, 30);
        let after = stage.source.logins();
        println!("{before:?} to {after:?}");
        assert!(after.renewed > before.renewed, "no session was renewed");
        assert_eq!(after.expired, before.expired, "a session ran out");
    }
    assert!(clock.told() > 0);
    assert_eq!(stage.arrived_numbers(), (0..written).collect::<Vec<_>>());
    assert_rests(&strait);
    strait.assert_clean_log();
}

#[test]
fn frozen_past_every_time_out_with_requests_on_their_way_it_repeats_nothing() {
    let stage = Stage::new("frozen");
    let strait = stage.start();
    let mut written = 0;
    for round in 0..sized(3, 5) {
        stage.append_many(written..written + 400);
        written += 400;
        let arrived = stage.arrived().len();
        wait_until("some to arrive", 30, || stage.arrived().len() > arrived);
        strait.signal("STOP");
        // At full size past the longest wait for an answer, and in each round both ends find their connections dead or not.
        holds_for("time passes", Duration::from_secs(sized(1, 70)), || true);
        if round % 2 == 0 {
            stage.source.kill_broker(1);
            stage.target.kill_broker(1);
            stage.source.restart_broker(1);
            stage.target.restart_broker(1);
        }
        strait.signal("CONT");
        stage.wait_committed(&strait, 60);
    }
    assert_eq!(stage.arrived_numbers(), (0..written).collect::<Vec<_>>());
    assert_rests(&strait);
    strait.assert_clean_log();
}
