//! How a chain is reached: JSON-RPC 2.0 over whatever carries bytes.
//!
//! | method | parameters | answer |
//! |---|---|---|
//! | `chain_identity` | – | [`ChainId`](crate::ChainId) |
//! | `chain_block` | [`AtParams`] | [`BlockRef`] |
//! | `chain_metagraph` | [`AtParams`] | pinned [`Metagraph`](crate::Metagraph) |
//! | `chain_commitments` | [`AtParams`] | pinned list of [`CommitmentRecord`](crate::CommitmentRecord) |
//! | `chain_weights` | [`AtParams`] | pinned list of [`WeightRow`](crate::WeightRow) |
//! | `chain_outcomes` | [`AtParams`] | pinned list of [`Outcome`](crate::local::Outcome) |
//! | `chain_account` | [`AccountParams`] | [`Account`] |
//! | `chain_submit` | [`SubmitParams`] | [`OperationId`](crate::OperationId) |
//! | `chain_wait` | [`WaitParams`] | [`Awaited`] |
//!
//! Parameters are named. A body holds one request or a batch of at most [`MAX_BATCH`]. Errors carry
//! the codes and texts of a Substrate node where it has one for the case, so that a client meets the
//! real ones. [`RpcChain`] is the client; a transport is a function from bytes to bytes.

mod client;
mod http;
mod preflight;
pub(crate) mod refusal;
mod writer;

use std::future::Future;
use std::sync::Arc;

use connito_protocol::ids::{Block, Hotkey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::chain::{At, BlockRef};
use crate::error::TransportError;
use crate::hex_text;
use crate::local::LocalChain;

pub use client::RpcChain;
pub use http::{HttpTransport, check_address};

/// Requests in one batch.
pub const MAX_BATCH: usize = 64;
/// Bytes in one request body.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// The longest a `chain_wait` is held open, in milliseconds.
pub const MAX_WAIT_MS: u64 = 10_000;

pub(crate) const IDENTITY: &str = "chain_identity";
pub(crate) const BLOCK: &str = "chain_block";
pub(crate) const METAGRAPH: &str = "chain_metagraph";
pub(crate) const COMMITMENTS: &str = "chain_commitments";
pub(crate) const WEIGHTS: &str = "chain_weights";
pub(crate) const OUTCOMES: &str = "chain_outcomes";
pub(crate) const ACCOUNT: &str = "chain_account";
pub(crate) const SUBMIT: &str = "chain_submit";
pub(crate) const WAIT: &str = "chain_wait";

/// Which block to read at.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtParams {
    /// The block.
    pub at: At,
}

/// Whose account to read, and where.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountParams {
    /// The account.
    pub account: Hotkey,
    /// The block at which the used space is read.
    pub at: At,
}

/// What a writer needs to know about its own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The nonce of its next operation, counting those that wait in the pool right now.
    pub nonce: u64,
    /// Commitment bytes written in the epoch of the block asked for.
    pub used_space: u64,
}

/// An operation to take in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitParams {
    /// The signed operation's bytes.
    #[serde(with = "hex_text")]
    pub operation: Vec<u8>,
}

/// A block to wait for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitParams {
    /// The block before the one wanted.
    pub after: Block,
    /// How long the answer may be held back, in milliseconds; capped at [`MAX_WAIT_MS`].
    pub timeout_ms: u64,
}

/// The answer to a wait, given no later than its timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    /// The newest block at the time of the answer.
    pub head: Block,
    /// The block wanted, if it exists.
    pub block: Option<BlockRef>,
}

/// A JSON-RPC error object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RpcError {
    /// Which kind of error.
    pub code: i64,
    /// For people.
    pub message: String,
    /// For programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

/// Carries one request body to a chain and its answer back.
///
/// An error means that no answer was received, which does not mean that the request had no effect.
/// Dropping the future may or may not have sent the request.
pub trait RpcTransport: Send + Sync {
    /// Where requests go, for error messages.
    fn endpoint(&self) -> &str;

    /// One request body, one answer body.
    fn call(&self, body: Vec<u8>) -> impl Future<Output = Result<Vec<u8>, TransportError>> + Send;
}

/// The embedded chain in the same process: the same bytes, no sockets.
impl RpcTransport for Arc<LocalChain> {
    fn endpoint(&self) -> &str {
        "in this process"
    }

    async fn call(&self, body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        Ok(self.handle_async(&body).await)
    }
}
