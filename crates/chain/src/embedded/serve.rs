//! The embedded chain's JSON-RPC: bytes in, bytes out.
//!
//! The methods, their positional parameters, their answers and their errors are those of a Substrate node;
//! one method is our own: `connito_waitBlock [after, timeout_ms]` answers with the block after a height as
//! soon as it is there (`{"hash", "header"}`), or with null. There are no unsafe methods.
//!
//! Bodies, batches, lists and waits are bounded before anything is done with them. Whatever the bytes are,
//! the answer is a JSON-RPC answer (or nothing, to a notification). Waiting is separated from answering:
//! the asynchronous variant first waits for the block a single `connito_waitBlock` asks for, then answers
//! like the synchronous one, which never waits.

mod author;
mod blocks;
mod failure;
mod params;
mod runtime_api;
mod session;
mod stakes;
mod state;
mod subnets;
mod system;

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::EmbeddedChain;
use failure::Failure;
use params::Params;

pub(super) use runtime_api::Described;
pub use session::Session;

/// Requests in one batch.
const MAX_BATCH: usize = 64;
/// Bytes in one request body.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// The longest a `connito_waitBlock` is held open, in milliseconds.
const MAX_WAIT_MS: u64 = 10_000;

/// What [`EmbeddedChain::handle`] answers, in the order of names.
const METHODS: [&str; 36] = [
    "account_nextIndex",
    "author_pendingExtrinsics",
    "author_submitExtrinsic",
    "chain_getBlock",
    "chain_getBlockHash",
    "chain_getFinalisedHead",
    "chain_getFinalizedHead",
    "chain_getHead",
    "chain_getHeader",
    "chain_getRuntimeVersion",
    "connito_waitBlock",
    "payment_queryInfo",
    "rpc_methods",
    "state_call",
    "state_callAt",
    "state_getKeysPaged",
    "state_getKeysPagedAt",
    "state_getMetadata",
    "state_getRuntimeVersion",
    "state_getStorage",
    "state_getStorageAt",
    "state_getStorageHash",
    "state_getStorageHashAt",
    "state_getStorageSize",
    "state_getStorageSizeAt",
    "state_queryStorageAt",
    "system_accountNextIndex",
    "system_chain",
    "system_chainType",
    "system_health",
    "system_name",
    "system_nodeRoles",
    "system_peers",
    "system_properties",
    "system_syncState",
    "system_version",
];

#[derive(Deserialize)]
struct Request {
    jsonrpc: String,
    method: String,
    #[serde(default)]
    params: Value,
    // A present null is an id; an absent one makes a notification.
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl EmbeddedChain {
    /// Answers a request body at once: a `connito_waitBlock` says what is there already.
    #[must_use]
    pub fn handle(&self, body: &[u8]) -> Vec<u8> {
        answer(body, |method, params| self.dispatch(method, params))
    }

    /// Answers a request body; a single `connito_waitBlock` is answered when its block is there or its
    /// timeout has passed. Cancel-safe.
    pub async fn handle_async(&self, body: &[u8]) -> Vec<u8> {
        if let Some((after, timeout_ms)) = single_wait(body) {
            let limit = Duration::from_millis(timeout_ms.min(MAX_WAIT_MS));
            let mut head = self.head.subscribe();
            // Both ways of ending are fine: the answer says what is there.
            let _ = timeout(limit, head.wait_for(|head| head.0 > after)).await;
        }
        self.handle(body)
    }

    fn dispatch(&self, method: &str, params: Params) -> Result<Value, Failure> {
        match method {
            "chain_getBlock" => self.get_block(params),
            "chain_getBlockHash" | "chain_getHead" => self.get_block_hash(params),
            "chain_getFinalizedHead" | "chain_getFinalisedHead" => {
                params.end()?;
                self.get_block_hash(Params::none())
            }
            "chain_getHeader" => self.get_header(params),
            "connito_waitBlock" => self.wait_block(params),
            "state_getStorage" | "state_getStorageAt" => self.get_storage(params),
            "state_getStorageHash" | "state_getStorageHashAt" => self.get_storage_hash(params),
            "state_getStorageSize" | "state_getStorageSizeAt" => self.get_storage_size(params),
            "state_queryStorageAt" => self.query_storage(params),
            "state_getKeysPaged" | "state_getKeysPagedAt" => self.get_keys_paged(params),
            "state_getRuntimeVersion" | "chain_getRuntimeVersion" => self.runtime_version(params),
            "state_getMetadata" => self.get_metadata(params),
            "state_call" | "state_callAt" => self.call_runtime(params),
            "author_submitExtrinsic" => self.submit_extrinsic(params),
            "author_pendingExtrinsics" => self.pending_extrinsics(params),
            "system_accountNextIndex" | "account_nextIndex" => self.next_index(params),
            "payment_queryInfo" => self.query_info(params),
            "rpc_methods" => Ok(json!({ "methods": METHODS.as_slice() })),
            _ => self.about_node(method),
        }
    }
}

/// Answers a body with one request or a batch, each of which `dispatch` answers.
fn answer(
    body: &[u8],
    mut dispatch: impl FnMut(&str, Params) -> Result<Value, Failure>,
) -> Vec<u8> {
    let answer = match parse(body) {
        Err(failure) => Some(failed(&Value::Null, &failure)),
        Ok(Value::Array(batch)) => {
            let answers: Vec<_> = batch
                .into_iter()
                .filter_map(|one| reply(one, &mut dispatch))
                .collect();
            (!answers.is_empty()).then_some(Value::Array(answers))
        }
        Ok(single) => reply(single, &mut dispatch),
    };
    answer
        .map(|answer| answer.to_string().into_bytes())
        .unwrap_or_default()
}

fn reply(
    request: Value,
    dispatch: &mut impl FnMut(&str, Params) -> Result<Value, Failure>,
) -> Option<Value> {
    let request = match serde_json::from_value::<Request>(request) {
        Ok(request) if request.jsonrpc == "2.0" => request,
        _ => {
            let failure = Failure::invalid_request("not a JSON-RPC 2.0 request");
            return Some(failed(&Value::Null, &failure));
        }
    };
    let params = Params::new(request.params);
    let result = params.and_then(|params| dispatch(&request.method, params));
    let id = request.id?;
    Some(match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(failure) => failed(&id, &failure),
    })
}

fn parse(body: &[u8]) -> Result<Value, Failure> {
    if body.len() > MAX_BODY_BYTES {
        return Err(Failure::invalid_request("body too large"));
    }
    let parsed: Value = serde_json::from_slice(body).map_err(|error| Failure::parse(&error))?;
    match parsed.as_array().map_or(1, Vec::len) {
        0 => Err(Failure::invalid_request("empty batch")),
        1..=MAX_BATCH => Ok(parsed),
        _ => Err(Failure::invalid_request("batch too large")),
    }
}

fn single_wait(body: &[u8]) -> Option<(u64, u64)> {
    if body.len() > MAX_BODY_BYTES {
        return None;
    }
    let request: Request = serde_json::from_slice(body).ok()?;
    let wait = (request.method == "connito_waitBlock").then(|| Params::new(request.params).ok())?;
    blocks::wait_params(wait?).ok()
}

fn failed(id: &Value, failure: &Failure) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": failure })
}
