//! Bounds of one process, whatever its surroundings do: memory, files, its log, its clocks, and CPU when there is
//! nothing to do. The real binary, between embedded clusters.

mod cgroup;
mod clocks;
mod files;
mod output;
mod queues;
mod sizes;
