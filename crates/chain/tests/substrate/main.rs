//! The embedded chain as a Substrate node: what goes in and out of it as bytes.
//!
//! Calls are composed and signed through the metadata that the chain itself hands out, as a client does.
//! Every test drives a manual clock or a paused one; nothing sleeps and no port is used.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod blocks;
mod extrinsics;
mod network;
mod persistence;
mod pool;
mod requests;
mod runtime_api;
mod session;
#[path = "../fixtures/subnet.rs"]
mod subnet;
