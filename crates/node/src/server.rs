//! The HTTP server: what it accepts from strangers, in the order of what it costs.
//!
//! ```text
//! accept ─▶ connection caps ─▶ head bounds ─▶ rate by address ─▶ method and path ─▶ route
//!  (connections.rs)              (guard.rs: no route sees a request that failed)     (routes.rs …)
//! ```
//!
//! A route that takes a body continues in the same spirit: declared length, signature, rate by
//! hotkey, window, and only then the body (attack catalogue, section 17). Every bound is in
//! [`Limits`] with its reason, so that a test can make it small instead of waiting.
//!
//! The server decides nothing about the protocol. It serves what it is shown through watched values
//! ([`Exposed`]) and hands uploads to the driver; no request waits for a lock that the driver holds.

mod blob_routes;
mod body;
mod chain_rpc;
mod chain_socket;
mod connections;
mod guard;
mod paced_stream;
mod rate;
mod routes;
mod upload_auth;
mod upload_intake;
mod upload_route;

use std::time::Duration;

pub use crate::pace::MinimumRate;
pub use chain_rpc::chain_router;
pub use connections::serve;
pub use rate::Rate;
pub use routes::{Exposed, Health, Served, StateManifest, health_router, routes};
pub use upload_route::Uploads;

/// The most bytes that one blob response carries: enough to amortise a round trip, little enough
/// that a response ends.
pub const MAX_RANGE_BYTES: u64 = 16 << 20;

/// What one client, and all of them together, may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// A request head that is not complete in this time is closed; so is an idle connection.
    pub head_timeout: Duration,
    /// Bytes of a request head: method, path and headers.
    pub head_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
    /// The slowest that a body may arrive, or a response be taken (A-129).
    pub minimum_rate: MinimumRate,
    /// Open connections. Each costs at most some 256 KiB: buffers, and a piece of a blob that waits to be
    /// taken.
    pub connections: usize,
    /// Open connections of one address (of one /64 for IPv6): one client needs a handful.
    pub connections_per_address: usize,
    /// The same for loopback, where all roles of a local network share one address.
    pub connections_loopback: usize,
    /// Requests of one address (A-150).
    pub requests: Rate,
    /// The same for loopback, where processes poll the embedded chain several times a second each.
    pub requests_loopback: Rate,
    /// Signed requests of one hotkey: an upload a cycle, and its retries.
    pub requests_per_hotkey: Rate,
    /// Free space of the disk that uploads leave to everything else: journal, receipts, states. What
    /// an upload declares is reserved of the rest before its body is read (A-140, A-149).
    pub disk_reserve: u64,
    /// Uploads under way: one for each slot of a subnet, so that nobody who sends slowly keeps anybody
    /// else from sending. Each costs some 500 KiB of buffers, so together at most 128 MiB.
    pub uploads_in_flight: usize,
    /// How long a shutdown waits for requests that are being answered.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(10),
            head_bytes: 16 << 10,
            headers: 64,
            minimum_rate: MinimumRate {
                bytes_per_second: 16 << 10,
                window: Duration::from_secs(10),
            },
            connections: 1024,
            connections_per_address: 64,
            connections_loopback: 768,
            requests: Rate {
                per_second: 50.0,
                burst: 200.0,
            },
            requests_loopback: Rate {
                per_second: 5_000.0,
                burst: 10_000.0,
            },
            requests_per_hotkey: Rate {
                per_second: 0.5,
                burst: 16.0,
            },
            disk_reserve: 1 << 30,
            uploads_in_flight: 256,
            drain: Duration::from_secs(5),
        }
    }
}
