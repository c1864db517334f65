//! The embedded chain's JSON-RPC: bytes in, bytes out.
//!
//! The methods, their positional parameters, their answers and their errors are those of a Substrate node;
//! one method is our own: `connito_waitBlock [after, timeout_ms]` answers with the block after a height as
//! soon as it is there (`{"hash", "header"}`), or with null. There are no unsafe methods.
//!
//! Bodies, batches, lists and waits are bounded before anything is done with them, and answers while they
//! are made: one of more than [`MAX_ANSWER_BYTES`], alone or with those before it in its batch, is an
//! error in the words of a real node. Whatever the bytes are, the answer is a JSON-RPC answer (or nothing, to
//! a notification). Waiting is separated from answering:
//! the asynchronous variant first waits for the block a single `connito_waitBlock` asks for, then answers
//! like the synchronous one, which never waits.

mod author;
mod blocks;
mod failure;
mod params;
mod room;
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
/// Bytes in the answer to one body, as in a real node. What reads the chain takes a little more than that.
pub(super) const MAX_ANSWER_BYTES: usize = 15 * 1024 * 1024;
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
        self.wait_as_asked(body).await;
        self.handle(body)
    }

    /// Waits for the block, or as long, as a request body asks that is a single `connito_waitBlock`, so that
    /// [`Self::handle`] has an answer. Cancel-safe.
    pub async fn wait_as_asked(&self, body: &[u8]) {
        if let Some((after, timeout_ms)) = single_wait(body) {
            let limit = Duration::from_millis(timeout_ms.min(MAX_WAIT_MS));
            let mut head = self.head.subscribe();
            // Both ways of ending are fine: the answer says what is there.
            let _ = timeout(limit, head.wait_for(|head| head.0 > after)).await;
        }
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
    match parse(body) {
        Err(failure) => failed(&Value::Null, &failure).into_bytes(),
        Ok(Value::Array(batch)) => answer_each(batch, &mut dispatch),
        Ok(single) => reply(single, &mut dispatch)
            .map(String::into_bytes)
            .unwrap_or_default(),
    }
}

/// Answers a batch, unless its answers together are too long.
fn answer_each(
    batch: Vec<Value>,
    dispatch: &mut impl FnMut(&str, Params) -> Result<Value, Failure>,
) -> Vec<u8> {
    let mut answers = Vec::new();
    for request in batch {
        let Some(reply) = reply(request, dispatch) else {
            continue;
        };
        if answers.len() + reply.len() > MAX_ANSWER_BYTES {
            return failed(&Value::Null, &Failure::batch_answer_too_big()).into_bytes();
        }
        answers.push(if answers.is_empty() { b'[' } else { b',' });
        answers.extend_from_slice(reply.as_bytes());
    }
    if !answers.is_empty() {
        answers.push(b']');
    }
    answers
}

fn reply(
    request: Value,
    dispatch: &mut impl FnMut(&str, Params) -> Result<Value, Failure>,
) -> Option<String> {
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
    let reply = match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string(),
        Err(failure) => failed(&id, &failure),
    };
    Some(match reply.len() {
        ..=MAX_ANSWER_BYTES => reply,
        _ => failed(&id, &Failure::answer_too_big()),
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

fn failed(id: &Value, failure: &Failure) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "error": failure }).to_string()
}
