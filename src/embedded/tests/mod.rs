//! The broker as its clients see it, over real sockets: one test for each rule.

mod answers;
mod cluster;
mod fetch;
mod kit;
mod login;
mod produce;
mod topics;
mod transactions;
