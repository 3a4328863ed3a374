pub mod spec;
pub mod stats;
