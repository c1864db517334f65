//! `author_*`, nonces and fees: what who writes to the chain asks.

use connito_protocol::ids::Hotkey;
use serde_json::{Value, json};

use super::failure::Failure;
use super::params::Params;
use super::room::Room;
use crate::embedded::{EmbeddedChain, system};
use crate::hex_text;

/// Waiting extrinsics that are shown.
const MAX_PENDING: usize = 1_024;

impl EmbeddedChain {
    pub(super) fn submit_extrinsic(&self, mut params: Params) -> Result<Value, Failure> {
        let message = params.bytes("extrinsic")?;
        params.end()?;
        let hash = self.admit(&message)?;
        Ok(json!(hex_text::encode(&hash)))
    }

    pub(super) fn pending_extrinsics(&self, params: Params) -> Result<Value, Failure> {
        params.end()?;
        let pool = self.pool();
        let mut room = Room::default();
        let pending: Result<Vec<String>, Failure> = pool
            .pending()
            .take(MAX_PENDING)
            .map(|message| room.hex(message))
            .collect();
        Ok(json!(pending?))
    }

    /// The nonce of an account's next extrinsic, counting those that wait.
    pub(super) fn next_index(&self, mut params: Params) -> Result<Value, Failure> {
        let address: String = params.next("account")?;
        params.end()?;
        let Hotkey(account) = address
            .parse()
            .map_err(|_| Failure::invalid_params("account is not an ss58 address"))?;
        let pool = self.pool();
        let used = system::nonce(&self.history().store().head(), account);
        Ok(json!(pool.next_nonce(account, used)))
    }

    /// Nothing costs anything.
    pub(super) fn query_info(&self, mut params: Params) -> Result<Value, Failure> {
        params.bytes("extrinsic")?;
        let at = params.at()?;
        params.end()?;
        self.block_at(at)?;
        let (ref_time, proof_size) = crate::embedded::execute::WEIGHT;
        Ok(json!({
            "weight": { "ref_time": ref_time, "proof_size": proof_size },
            "class": "normal",
            "partialFee": "0",
        }))
    }
}
