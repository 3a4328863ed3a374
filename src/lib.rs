//! Strait copies Kafka topics from one cluster to another over TLS, batch bytes untouched.
//!
//! It runs beside the source, keeps nothing on disk, and commits a source offset only after the target has acknowledged
//! everything below it. This crate is the product; the binary `strait` is a thin user of it: [`strait::Strait::builder`] takes a
//! configuration and gives a handle.
//!
//! # Reading order
//!
//! 1. [`strait`]: the front door. Starts the lanes and the control thread.
//! 2. [`engine`]: the main path, with a picture. In it [`engine::admit`] (what becomes of a batch), [`engine::mirror`] (one
//!    partition's state), [`engine::window`] (when the next batch may leave, and why so late).
//! 3. [`engine::fetcher`] and [`engine::sender`]: the two loops that move bytes.
//! 4. [`engine::recovery`], [`engine::readback`], [`engine::position`]: what happens when something went wrong, or begins.
//! 5. [`connection`]: one socket, pipelined; [`wire`]: the protocol, bounded and pure.
//! 6. [`link`]: which mirrors exist; [`cluster`]: who leads what; [`lane`]: threads.
//! 7. [`embedded`]: a Kafka-protocol broker in the process, for the demo and the tests.
//!
//! Imports go one way: `cli -> config -> link -> lane -> engine -> connection -> wire`, with `cluster` beside `connection`.
//! `wire` and the deciding half of `engine` are pure: no socket, clock, thread or log.
//!
//! # Invariants
//!
//! Code, tests and error texts refer to these by number.
//!
//! - **I1** A committed offset never passes the first source offset that is neither acknowledged by the target (acks=all) nor
//!   of a kind that is skipped by rule (control, aborted, empty, replicated).
//! - **I2** Records of one mirror reach the target in source order; a replay is one contiguous rewind. A batch is in flight
//!   beside another of its mirror only where the target is known to hold state for the producer id.
//! - **I3** Nothing reaches the target that the source did not hold; key, value, headers and timestamp of every record are
//!   equal. A stamped batch's CRC descends from the producer's own, so the target refuses a changed byte; recode checks the
//!   source's CRC first and makes a new one.
//! - **I4** No allocation is sized by a number from the wire before that many bytes exist. Every queue, buffer and loop has a
//!   bound in [`limits`].
//! - **I5** Memory stays under a figure that is printed at start, whatever the clusters do.
//! - **I6** Loss at the source (retention overtook us, truncation, re-created topic) is never silent: it is named with its
//!   offsets and counted, and the mirror stops.
//! - **I7** A fault of one mirror, broker or link does not slow the others.
//! - **I8** No secret in a log line, metric, error or status. No payload leaves before the peer is authenticated.
//! - **I9** State shown to the operator is never better than the worst of its parts.
//!
//! # What is not obvious
//!
//! - A broker checks a sequence number only while it holds state for the producer id. Without state it takes any: of two
//!   batches in flight the second can be appended although the first was refused. Hence the window of one until an ack has
//!   come on the very connection ([`engine::window`]).
//! - A Produce request takes one batch per partition. Of the same partition twice, the broker drops the first and answers
//!   success. Hence a mirror stands once in a sender's queue, and comes back only after the request is built.
//! - REQUEST_TIMED_OUT and NOT_ENOUGH_REPLICAS_AFTER_APPEND mean that the batch *is* in the log. They are doubts, not
//!   refusals.
//! - Duplicate detection compares numbers, never content. Two numberings under one (producer id, epoch) are silent loss, so
//!   every start opens an epoch of its own and commits it before the first batch.
//! - Patching `lastOffsetDelta` of a batch with holes is never right: brokers do not check offset deltas of uncompressed
//!   batches and would store overlapping offsets. Such batches are recoded.
//! - -1 as a producer id has bit 62 set. Whether a Strait wrote a batch is a signed comparison ([`engine::identity`]).
//! - A partition that is left out of an incremental Fetch is sent again; to pause it, it must be forgotten
//!   ([`engine::session`]).
//! - An answer to a Fetch may be older than the mirror's position: what was asked for is compared with what is wanted now,
//!   or the difference would become a hole.
//! - The first batch of an answer may begin below the offset that was asked for, and hold records that were deleted. Its
//!   records are read, and only those at or above are copied.
//! - An empty Fetch answer with a throttle time does not mean that the end was reached.
//! - A slice keeps its whole frame alive: memory is counted by the frame, not by the slice ([`connection::FramePool`]).

pub mod admin;
pub mod canary;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod embedded;
pub mod engine;
pub mod env;
pub mod error;
pub mod error_codes;
pub mod fleet;
pub mod lane;
pub mod limits;
pub mod link;
pub mod strait;
pub mod wire;
