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
//! state; with [`mirror_readback`]), [`window`] (when the next batch may leave), [`joining`] (which leave as one), [`flow`]
//! (what a connection carries), [`class`] (tail or backlog), [`turns`], [`rate_limit`], [`session`], [`identity`],
//! [`route`], [`numberings`], [`anchor`], [`offset_map`], [`walk`], [`lineage`], [`overlap`], [`give_back`]. The other half moves bytes
//! between it and the network: [`fetcher`], [`sender`], [`recovery`] with [`position`] ([`decide`], [`source_log`],
//! [`target_log`], `gap`) and [`readback`], [`committer`]; [`room`] says how far ahead, `beyond` sees to batches that are
//! larger than that, `catching_up` moves mirrors between the classes. A [`reader`] fetches from a thread beside the lane's, where the engine is `split`.
//! With `delivery: transactional` the position goes into the target's own group, in the transaction that brings the
//! records: [`transaction`] and [`mirror_transaction`] decide, `transactions`, `fence` and `coordination` carry out.
//! A [`share`] ties them together for one link on one lane.

pub mod admit;
pub mod anchor;
mod beyond;
pub mod budget;
mod catching_up;
pub mod cell;
pub mod class;
pub mod committer;
mod coordination;
pub mod decide;
pub mod doubles;
mod fence;
pub mod fetcher;
pub mod flow;
mod gap;
pub mod give_back;
pub mod group;
pub mod handoff;
pub mod identity;
pub mod joining;
pub mod landed;
pub mod leaders;
pub mod lineage;
pub mod losses;
pub mod member;
pub mod mirror;
pub mod mirror_readback;
pub mod mirror_transaction;
pub mod named;
mod notes;
pub mod numberings;
pub mod offset_map;
pub mod offsets;
mod opening;
pub mod overlap;
pub mod position;
pub mod rate_limit;
pub mod readback;
pub mod reader;
pub mod recovery;
pub mod replay;
pub mod retry;
pub mod room;
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
mod tasks;
pub mod transaction;
mod transactions;
pub mod trouble;
pub mod turns;
pub mod unseen;
pub mod walk;
pub mod window;
