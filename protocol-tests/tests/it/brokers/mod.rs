//! Suites on real Kafka.

mod copy;
mod kit;
mod parity;
mod poison;
mod topics;
