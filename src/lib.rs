//! Strait copies Kafka topics from one cluster to another over TLS, batch bytes untouched.
#![allow(missing_docs, reason = "skeleton")]
pub mod admin;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod embedded;
pub mod engine;
pub mod env;
pub mod error;
pub mod error_codes;
pub mod lane;
pub mod limits;
pub mod link;
pub mod strait;
pub mod wire;
