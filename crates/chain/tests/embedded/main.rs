//! The embedded chain seen from outside: blocks, rules, pool, log, JSON-RPC, client.
//!
//! Every test drives the public interface with a manual clock or a paused one; nothing sleeps and
//! no fixed port is used.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod blocks;
mod client;
mod faults;
mod http;
mod network;
mod persistence;
mod pool;
mod requests;
mod rules;
