//! Suites on real Kafka.

mod both_ways;
mod conformance;
mod control_plane;
mod copy;
mod damage;
mod directed;
mod failures;
mod fleets;
mod frames;
mod kills;
mod kit;
mod leaders;
mod memory;
mod network;
mod parity;
mod poison;
mod resume;
mod rival;
mod security;
mod smuggled;
mod topics;
mod transactional;
mod trust;
