//! The HTTP server and client among strangers who do not keep to anything.
//!
//! A real server on a loopback port is spoken to over raw TCP, so that every byte of a request is free
//! to be wrong. What every route must withstand is in `every_route.rs`, one test for each route and
//! abuse; what only one of them must, in the file of that route. `mirrors.rs` turns it around: an honest
//! client among servers that lie. Rules P-50 to P-57, abuses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod blobs;
mod chain_rpc;
mod chain_socket;
mod connections;
mod every_route;
mod health;
mod loopback;
mod mirrors;
mod receipts;
mod state;
mod uploads;
