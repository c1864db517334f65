//! The adapter over the embedded chain, whole and through transports that misbehave.

#![allow(
    clippy::unwrap_used,
    reason = "a test says by panicking that it failed"
)]

mod budget;
mod client;
mod endpoints;
mod faults;
mod forks;
mod heads;
mod http;
mod network;
mod requests;
#[path = "../fixtures/subnet.rs"]
mod subnet;
mod weights;
