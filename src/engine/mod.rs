//! The main path: batches of one topic-partition from a source broker to a target broker, acknowledged, committed.
//!
//! ```text
//!  fetcher ──▶ admit ──▶ mirror (queue, window, flight) ──▶ sender ──▶ target
//!     ▲                    ▲           │ acked
//!     │ session            │ recovery  ▼
//!   source            readback      committer ──▶ source group
//! ```
//!
//! The deciding half is pure, and is where the invariants live: [`admit`] (fate of a batch), [`mirror`] (one partition's
//! state), [`window`] (when the next batch may leave), [`session`], [`identity`], [`route`],
//! [`numberings`], [`anchor`], [`offset_map`], [`walk`], [`lineage`]. The other half moves bytes
//! between it and the network: [`fetcher`], [`sender`], [`recovery`] with [`position`] ([`decide`],
//! [`source_log`], [`target_log`]) and [`readback`], [`committer`].
//! A [`share`] ties them together for one link on one lane.

pub mod admit;
pub mod anchor;
pub mod budget;
pub mod cell;
pub mod committer;
pub mod decide;
pub mod doubles;
pub mod fetcher;
pub mod group;
pub mod identity;
pub mod landed;
pub mod lineage;
pub mod losses;
pub mod member;
pub mod mirror;
pub mod named;
pub mod numberings;
pub mod offset_map;
pub mod offsets;
mod opening;
pub mod position;
pub mod readback;
pub mod recovery;
pub mod replay;
pub mod retry;
pub mod route;
pub mod sender;
pub mod session;
pub mod settings;
pub mod share;
pub mod source_log;
pub mod spec;
pub mod stats;
pub mod step_over;
pub mod target_log;
pub mod trouble;
pub mod unseen;
pub mod walk;
pub mod window;
