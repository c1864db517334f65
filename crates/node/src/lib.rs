//! Everything between the pure role machines and the world: storage, transport, the driver.
//!
//! What is kept on disk is kept in three ways, each with one rule. The [`journal`] holds what
//! happened, a line per event, and returns from a write only when the line is durable: persist, then
//! act. The [`blobs`] store holds bytes under their BLAKE3 name and never changes them. The
//! [`receipts`] hold what a participant was told.
//!
//! What travels is checked where it arrives. The [`server`] refuses in the order of cost, streams
//! uploads to disk while hashing them and acknowledges only what the driver has journalled. The
//! [`client`] believes no mirror: every mebibyte is verified against the name of the blob before it
//! is kept, so a transfer can be cut anywhere and resumed from anyone.
//!
//! Nothing here decides protocol questions. Whether a window is open, who is registered and what an
//! upload means is told to this crate through watched values and channels.
#![forbid(unsafe_code)]

pub mod blobs;
pub mod chain_link;
pub mod client;
mod clock;
mod compute;
pub mod driver;
pub mod journal;
mod pace;
pub mod receipts;
pub mod refusal;
pub mod role;
pub mod server;
pub mod upload;
