//! The embedded chain's JSON-RPC: bytes in, bytes out.
//!
//! Bodies, batches and waits are bounded before anything is done with them. Whatever the bytes are,
//! the answer is a JSON-RPC answer (or nothing, to a notification). The methods are listed in
//! `rpc.rs`; there are no unsafe ones. Waiting is separated from answering: the asynchronous
//! variant first waits for the block a single `chain_wait` asks for, then answers like the
//! synchronous one.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::LocalChain;
use super::history::Entry;
use crate::chain::{At, Pinned};
use crate::envelope::SignedOp;
use crate::error::{ChainError, PoolError};
use crate::rpc::refusal::{INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR};
use crate::rpc::{
    self, Account, AccountParams, AtParams, Awaited, RpcError, SubmitParams, WaitParams,
};

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

impl LocalChain {
    /// Answers a request body at once: a `chain_wait` says what is there already.
    #[must_use]
    pub fn handle(&self, body: &[u8]) -> Vec<u8> {
        let answer = match parse(body) {
            Err(error) => Some(failure(&Value::Null, &error)),
            Ok(Value::Array(batch)) => {
                let answers: Vec<_> = batch
                    .into_iter()
                    .filter_map(|one| self.reply(one))
                    .collect();
                (!answers.is_empty()).then_some(Value::Array(answers))
            }
            Ok(single) => self.reply(single),
        };
        answer
            .map(|answer| answer.to_string().into_bytes())
            .unwrap_or_default()
    }

    /// Answers a request body; a single `chain_wait` is answered when its block is there or its
    /// timeout has passed. Cancel-safe.
    pub async fn handle_async(&self, body: &[u8]) -> Vec<u8> {
        if let Some(wait) = single_wait(body) {
            let limit = Duration::from_millis(wait.timeout_ms.min(rpc::MAX_WAIT_MS));
            let mut head = self.head.subscribe();
            // Both ways of ending are fine: the answer says what is there.
            let _ = timeout(limit, head.wait_for(|head| *head > wait.after)).await;
        }
        self.handle(body)
    }

    fn reply(&self, request: Value) -> Option<Value> {
        let request = match serde_json::from_value::<Request>(request) {
            Ok(request) if request.jsonrpc == "2.0" => request,
            _ => {
                let error = RpcError::new(INVALID_REQUEST, "not a JSON-RPC 2.0 request");
                return Some(failure(&Value::Null, &error));
            }
        };
        let result = self.dispatch(&request.method, request.params);
        let id = request.id?;
        Some(match result {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err(error) => failure(&id, &error),
        })
    }

    fn dispatch(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        match method {
            rpc::IDENTITY => to_value(self.identity()),
            rpc::BLOCK => self.at(params, |entry| entry.block),
            rpc::METAGRAPH => self.pinned(params, |entry| entry.state.metagraph()),
            rpc::COMMITMENTS => self.pinned(params, |entry| entry.state.commitment_records()),
            rpc::WEIGHTS => self.pinned(params, |entry| entry.state.weight_rows()),
            rpc::OUTCOMES => self.pinned(params, |entry| entry.outcomes.to_vec()),
            rpc::ACCOUNT => self.account(from_value(params)?),
            rpc::SUBMIT => self.submit_bytes(&from_value(params)?),
            rpc::WAIT => self.awaited(from_value(params)?),
            _ => Err(RpcError::new(METHOD_NOT_FOUND, "method not found")),
        }
    }

    fn at<T: Serialize>(&self, params: Value, read: fn(&Entry) -> T) -> Result<Value, RpcError> {
        let AtParams { at } = from_value(params)?;
        let entry = self.entry(at)?;
        to_value(&read(&entry))
    }

    fn pinned<T: Serialize>(
        &self,
        params: Value,
        read: fn(&Entry) -> T,
    ) -> Result<Value, RpcError> {
        let AtParams { at } = from_value(params)?;
        let entry = self.entry(at)?;
        to_value(&Pinned {
            at: entry.block,
            value: read(&entry),
        })
    }

    /// A copy is a handful of pointers, so nothing is written out under the lock.
    fn entry(&self, at: At) -> Result<Entry, RpcError> {
        self.inner()
            .history
            .find(at)
            .cloned()
            .map_err(|error| RpcError::unreadable(&error))
    }

    fn account(&self, AccountParams { account, at }: AccountParams) -> Result<Value, RpcError> {
        let inner = self.inner();
        let entry = inner
            .history
            .find(at)
            .map_err(|error| RpcError::unreadable(&error))?;
        to_value(&Account {
            nonce: inner.pool.next_nonce(account, inner.history.head()),
            used_space: entry.state.used_space(account),
        })
    }

    fn submit_bytes(&self, params: &SubmitParams) -> Result<Value, RpcError> {
        let undecodable = |problem: String| PoolError::Undecodable(problem);
        let operation = if params.operation.len() > super::log::MAX_OPERATION_BYTES {
            Err(undecodable("too long".to_owned()))
        } else {
            SignedOp::from_bytes(&params.operation).map_err(|error| undecodable(error.to_string()))
        };
        let submitted = operation.and_then(|operation| self.submit(operation));
        submitted
            .map_err(|error| RpcError::refused(&error))
            .and_then(|id| to_value(&id))
    }

    fn awaited(&self, wait: WaitParams) -> Result<Value, RpcError> {
        let inner = self.inner();
        let head = inner.history.head().block.number;
        let wanted = wait
            .after
            .0
            .checked_add(1)
            .map(connito_protocol::ids::Block);
        let found = wanted.map(|wanted| inner.history.find(At::Number(wanted)));
        let block = match found {
            Some(Ok(entry)) => Some(entry.block),
            Some(Err(error @ ChainError::Pruned { .. })) => {
                return Err(RpcError::unreadable(&error));
            }
            Some(Err(_)) | None => None,
        };
        to_value(&Awaited { head, block })
    }
}

fn parse(body: &[u8]) -> Result<Value, RpcError> {
    if body.len() > rpc::MAX_BODY_BYTES {
        return Err(RpcError::new(INVALID_REQUEST, "body too large"));
    }
    let parsed: Value = serde_json::from_slice(body)
        .map_err(|error| RpcError::new(PARSE_ERROR, error.to_string()))?;
    match parsed.as_array().map_or(1, Vec::len) {
        0 => Err(RpcError::new(INVALID_REQUEST, "empty batch")),
        1..=rpc::MAX_BATCH => Ok(parsed),
        _ => Err(RpcError::new(INVALID_REQUEST, "batch too large")),
    }
}

fn single_wait(body: &[u8]) -> Option<WaitParams> {
    if body.len() > rpc::MAX_BODY_BYTES {
        return None;
    }
    let request: Request = serde_json::from_slice(body).ok()?;
    (request.method == rpc::WAIT).then(|| from_value(request.params).ok())?
}

fn from_value<T: DeserializeOwned>(params: Value) -> Result<T, RpcError> {
    serde_json::from_value(params).map_err(|error| RpcError::new(INVALID_PARAMS, error.to_string()))
}

fn to_value(value: &impl Serialize) -> Result<Value, RpcError> {
    // Only a type that JSON cannot express fails here, and none of the answers is one.
    serde_json::to_value(value).map_err(|error| RpcError::new(INVALID_REQUEST, error.to_string()))
}

fn failure(id: &Value, error: &RpcError) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": error })
}
