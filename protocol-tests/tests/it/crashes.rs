//! Death at every moment that could matter, again and again: nothing lost, nothing twice. The process dies by abort, like
//! SIGKILL: nothing is unwound or flushed.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use protocol_tests::copying::sized;
use protocol_tests::ports;
use protocol_tests::process::Guarded;
use protocol_tests::raw::Batch;
use protocol_tests::wait::{wait_for, wait_until};
use strait::embedded::{ApiKey, Fault, Order};
use strait::env::Moment;

use crate::stage::{Stage, seen};

/// Batches of one record that a life finds.
const WORK: u32 = 30;

struct Lives {
    stage: Stage,
    folder: tempfile::TempDir,
    deaths: usize,
}

impl Lives {
    fn begin(&self, moment: Moment, times: u32) -> Guarded {
        let command = [
            env!("CARGO_BIN_EXE_mortal").to_owned(),
            self.folder.path().join("strait.yaml").display().to_string(),
            format!("{moment:?}"),
            times.to_string(),
        ];
        Guarded::start(&command, &self.log(), &[])
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Waits for the death, which must be the one that was ordered.
    #[track_caller]
    fn end(&mut self, mut life: Guarded, moment: Moment) {
        wait_for(&format!("death at {moment:?}"), 30, || life.exit_code().ok_or("it lives"));
        self.deaths += 1;
        let log = fs::read_to_string(self.log()).unwrap();
        assert_eq!(log.matches("dies at ").count(), self.deaths, "{log}");
    }

    fn live(&mut self, moment: Moment, times: u32) {
        let life = self.begin(moment, times);
        self.end(life, moment);
    }
}

/// Lives that each find some work and die at `moment`; then one that lives. Every record must be there once, in order.
fn dies_at(moment: Moment) {
    dies_with(moment, &[]);
}

/// The same with transactions on the target, seen by a reader of committed records.
fn dies_in_transactions_at(moment: Moment) {
    dies_with(moment, &["delivery: transactional", "transaction: { interval: 20ms }"]);
}

fn dies_with(moment: Moment, link: &[&str]) {
    let kills = sized(3, 25) as u32;
    let mut stage = Stage::new("mortal");
    // Lives follow each other faster than the sessions of the dead end; taking over is `fleet`'s.
    stage.config = stage.config.clone().link("membership: { protocol: \"off\" }");
    for line in link {
        stage.config = stage.config.clone().link(line);
    }
    // Many requests, so that lives end in the middle of their work; joined batches die in the simulator.
    stage.config = stage.config.clone().link("merge: \"off\"");
    let folder = tempfile::Builder::new().prefix("strait-mortal-").tempdir().unwrap();
    fs::write(folder.path().join("strait.yaml"), stage.config.yaml(ports::free())).unwrap();
    let mut lives = Lives { stage, folder, deaths: 0 };
    for kill in 0..kills {
        lives.stage.append_many(kill * WORK..(kill + 1) * WORK);
        match moment {
            // These happen once in a topic's life.
            Moment::TopicCreated | Moment::AnchorCommitted => {
                let topic = format!("topic-{kill}");
                lives.stage.source.create_topic(&topic, 1, -1, &[]).unwrap();
                let batch = Bytes::from(Batch::small(10).bytes());
                lives.stage.source.append(&topic, 0, &batch).unwrap();
                lives.live(moment, 1);
            }
            // These need a doubt.
            Moment::LogEndKnown | Moment::ReadBack => {
                let lost = Order::next(ApiKey::Produce, Fault::CloseAfter).after(1);
                let fault = lives.stage.target.fault(lost);
                lives.live(moment, 1);
                assert_eq!(lives.stage.target.fault_struck(fault), 1);
            }
            // This needs a life before that settled what it did not commit.
            Moment::CountedOff => {
                lives.live(Moment::Settled, 2);
                lives.live(moment, 1);
            }
            Moment::Draining => {
                let life = lives.begin(moment, 1);
                let arrived = (kill * WORK) as usize;
                let stage = &lives.stage;
                wait_until("a record", 30, || stage.arrived().len() > arrived);
                life.signal("TERM");
                lives.end(life, moment);
            }
            Moment::PositionRead | Moment::Committing | Moment::Committed => lives.live(moment, 1),
            Moment::Fenced
            | Moment::TransactionOpened
            | Moment::PositionAdded
            | Moment::TransactionEnded => lives.live(moment, 1),
            Moment::Admitted | Moment::Sent | Moment::Answered | Moment::Settled => {
                lives.live(moment, 1 + kill * 7 % WORK);
            }
        }
    }
    let stage = &lives.stage;
    let strait = stage.start();
    stage.wait_committed(&strait, 60);
    assert_eq!(stage.arrived_numbers(), (0..kills * WORK).collect::<Vec<_>>());
    for topic in stage.source.topics().iter().filter(|topic| topic.starts_with("topic-")) {
        wait_until("the topics of one batch", 30, || seen(&stage.target, topic, 0).len() >= 10);
        assert_eq!(seen(&stage.target, topic, 0).len(), 10, "{topic}");
    }
    strait.assert_clean_log();
}

#[test]
fn death_when_a_topic_was_created() {
    dies_at(Moment::TopicCreated);
}

#[test]
fn death_when_the_position_was_read() {
    dies_at(Moment::PositionRead);
}

#[test]
fn death_when_an_anchor_was_committed() {
    dies_at(Moment::AnchorCommitted);
}

#[test]
fn death_when_a_batch_was_admitted() {
    dies_at(Moment::Admitted);
}

#[test]
fn death_when_a_batch_was_counted_off() {
    dies_at(Moment::CountedOff);
}

#[test]
fn death_when_a_request_was_sent() {
    dies_at(Moment::Sent);
}

#[test]
fn death_when_an_answer_came() {
    dies_at(Moment::Answered);
}

#[test]
fn death_when_a_batch_was_settled() {
    dies_at(Moment::Settled);
}

#[test]
fn death_before_a_commit() {
    dies_at(Moment::Committing);
}

#[test]
fn death_after_a_commit() {
    dies_at(Moment::Committed);
}

#[test]
fn death_when_the_target_s_end_is_known() {
    dies_at(Moment::LogEndKnown);
}

#[test]
fn death_when_the_target_was_read_back() {
    dies_at(Moment::ReadBack);
}

#[test]
fn death_while_draining() {
    dies_at(Moment::Draining);
}

#[test]
fn death_when_older_lives_are_fenced() {
    dies_in_transactions_at(Moment::Fenced);
}

#[test]
fn death_when_a_transaction_was_opened() {
    dies_in_transactions_at(Moment::TransactionOpened);
}

#[test]
fn death_when_the_position_was_added_to_a_transaction() {
    dies_in_transactions_at(Moment::PositionAdded);
}

#[test]
fn death_when_a_transaction_was_ended() {
    dies_in_transactions_at(Moment::TransactionEnded);
}

#[test]
fn death_in_a_transaction_at_what_both_deliveries_do() {
    for moment in [Moment::Sent, Moment::Settled, Moment::Committing, Moment::AnchorCommitted] {
        dies_in_transactions_at(moment);
    }
}

#[test]
fn every_moment_has_its_death() {
    let source = include_str!("crashes.rs");
    for moment in Moment::ALL {
        let named = ["dies_at", "dies_in_transactions_at"]
            .iter()
            .any(|how| source.contains(&format!("    {how}(Moment::{moment:?});")));
        assert!(named, "{moment:?}");
    }
}
