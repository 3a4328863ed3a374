//! A link's control plane: which topics, under which names, with which mirrors.
//!
//! Owns the decision which mirrors exist, the topics that are made for them on the target, and the reasons why some do
//! not exist. Never moves a record, never commits an offset, and changes nothing on the source.
//!
//! The deciding half is [`plan`]: two views of clusters in, actions out, no clock and no socket.

mod calls;
pub mod codes;
#[cfg(test)]
pub(crate) mod fixture;
mod hands;
pub mod naming;
pub(crate) mod origins;
pub mod pairs;
pub mod plan;
pub(crate) mod reasons;
mod roster;

pub mod selection;
mod task;
pub mod topics;

pub use task::{Context, run};
