//! Suites on real Kafka.

mod control_plane;
mod copy;
mod directed;
mod failures;
mod kills;
mod kit;
mod leaders;
mod memory;
mod network;
mod parity;
mod poison;
mod resume;
mod rival;
mod topics;
