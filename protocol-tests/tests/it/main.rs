//! One binary; modules by promise. What needs real brokers is under `brokers`: `./protocol-tests/run fast` skips it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail the test")]

mod bounds;
mod brokers;
mod cli;
mod conformance;
mod copies;
mod corpus;
mod crashes;
mod doubles;
mod embedded_parity;
mod engine;
mod fleet;
mod frames;
mod hostile;
mod lanes;
mod loops;
mod model;
mod offsets;
mod pace;
mod parity;
mod poisons;
mod policies;
mod scenes;
mod scenes_classes;
mod scenes_delivery;
mod scenes_dials;
mod security;
mod simulation;
mod stage;
mod starts;
mod tails;
mod takeovers;
mod telemetry;
mod tidy;
mod transactional;
mod trust;
