//! The test kit: real Kafka clusters, Kafka's own client and librdkafka as readers and writers, a raw client for
//! crafted batches, a faulty network, certificates, the real `strait` process, and MirrorMaker 2 beside it.
//!
//! It owns everything that a suite in `tests/it` needs from the outside world. It never imports the code under test to
//! judge it: batches are crafted and parsed here by code of its own, and the reader of record is Kafka's.
//! Nothing sleeps to wait for an outcome; everything waits for a condition ([`wait`]).
//!
//! `./protocol-tests/run` fetches what the kit starts (Kafka's jars, librdkafka) into `protocol-tests/.lab`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a failure of the kit fails the test, and the kit is the real world that env.rs stands for"
)]

pub mod agent;
pub mod bounds;
pub mod certs;
pub mod cgroup;
pub mod chaos;
pub mod checker;
pub mod compare;
pub mod copying;
pub mod hostile;
pub mod lab;
pub mod latency;
pub mod load;
pub mod mirror_maker;
pub mod poisons;
pub mod ports;
pub mod process;
pub mod raw;
pub mod sim;
pub mod strait;
pub mod tally;
pub mod trust;
pub mod wait;
pub mod wall_clock;
