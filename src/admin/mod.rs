//! Telemetry: what the board shows, as metrics, as JSON and as a health answer, over HTTP/1.1.
//!
//! Owns the read-only listener. Never changes anything, never blocks a lane: it reads cells that lanes write.

mod client;
mod clusters;
mod exposition;
mod guard;
mod metrics;
mod process;
mod served;
mod server;
mod status;
mod texts;

pub use client::{Endpoint, Place, get};
pub use metrics::render as metrics;
pub use server::{check, serve};
pub use status::{ErrorStatus, LinkStatus, LossStatus, MirrorTrouble, Status};

use crate::engine::stats::{LinkState, MirrorState};

/// Every state of a link with its word, in metrics and in JSON.
pub(crate) const LINK_STATES: [(LinkState, &str); 6] = [
    (LinkState::Running, "running"),
    (LinkState::CatchingUp, "catching_up"),
    (LinkState::Starting, "starting"),
    (LinkState::Degraded, "degraded"),
    (LinkState::Draining, "draining"),
    (LinkState::Failed, "failed"),
];

/// Every state of a mirror with its word.
pub(crate) const MIRROR_STATES: [(MirrorState, &str); 5] = [
    (MirrorState::Starting, "starting"),
    (MirrorState::Ok, "ok"),
    (MirrorState::CatchingUp, "catching_up"),
    (MirrorState::Retrying, "retrying"),
    (MirrorState::Parked, "parked"),
];

fn link_word(state: LinkState) -> &'static str {
    LINK_STATES.iter().find(|(s, _)| *s == state).map_or("unknown", |(_, word)| word)
}

fn mirror_word(state: MirrorState) -> &'static str {
    MIRROR_STATES.iter().find(|(s, _)| *s == state).map_or("unknown", |(_, word)| word)
}
