//! Suites on real Kafka.

mod kit;
