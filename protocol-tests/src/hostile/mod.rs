//! Hostile brokers: broker 1 of a cluster says what a script makes of its answers, while the whole engine copies between that
//! cluster and another on the simulated network and clock.
//!
//! Owns the script ([`case`], [`answer`]), what stands before the brokers ([`gate`]), the cases by family ([`cases`]), and
//! what must hold in every run ([`stage`]): nothing panics or spins, nothing is lost, changed, repeated or committed that the
//! target does not hold, the operator is told which broker did what, the partitions of the other broker go on, and all is
//! well when the broker is.

pub mod answer;
pub mod case;
pub mod cases;
pub mod gate;
pub mod stage;

pub use case::{Case, Where};
pub use stage::{Run, play};
