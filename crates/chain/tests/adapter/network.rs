//! A small subnet to test against: two validators, two miners, an owner without a slot, and a
//! stranger; and the shortest way to a client of its chain.

use std::future::pending;
use std::sync::Arc;

use connito_chain::embedded::{EmbeddedChain, GenesisSpec};
use connito_chain::keys::Signer as _;
use connito_chain::rpc::RpcTransport;
use connito_chain::subtensor::{Connection, SubtensorChain};
use connito_chain::{ChainError, Field, Op, Reject};
use connito_protocol::ids::Uid;
use serde_json::{Value, json};

pub(crate) use crate::subnet::*;

/// A chain that makes a block every second, and a client of it.
pub(crate) async fn running(spec: GenesisSpec) -> (Arc<EmbeddedChain>, Arc<Client>) {
    let chain = EmbeddedChain::in_memory(spec).unwrap();
    tokio::spawn(Arc::clone(&chain).run(pending()));
    let client = connect(Arc::clone(&chain)).await;
    (chain, Arc::new(client))
}

pub(crate) type Client = SubtensorChain<Arc<EmbeddedChain>>;

pub(crate) async fn connect<T: RpcTransport>(transport: T) -> SubtensorChain<T> {
    SubtensorChain::connect(transport, Connection::default())
        .await
        .unwrap()
}

/// How many operations of a participant have reached a block or wait for one.
pub(crate) fn nonce(chain: &EmbeddedChain, seed: u8) -> u64 {
    let account = pair(seed).hotkey().to_string();
    ask(chain, "system_accountNextIndex", json!([account]))
        .as_u64()
        .unwrap()
}

/// The answer to one question.
pub(crate) fn ask(chain: &EmbeddedChain, method: &str, params: Value) -> Value {
    let request = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
    let answer = chain.handle(request.to_string().as_bytes());
    let mut answer: Value = serde_json::from_slice(&answer).unwrap();
    assert!(answer.get("error").is_none(), "{answer}");
    answer["result"].take()
}

pub(crate) fn rejection<T: std::fmt::Debug>(result: Result<T, ChainError>) -> Reject {
    match result.unwrap_err() {
        ChainError::Rejected(reject) => reject,
        other => panic!("{other}"),
    }
}

pub(crate) fn commit(text: &str) -> Op {
    Op::Commit(vec![Field::Raw(text.as_bytes().to_vec())])
}

pub(crate) fn weigh(weights: &[(u16, u16)]) -> Op {
    let weights = weights
        .iter()
        .map(|(uid, weight)| (Uid(*uid), *weight))
        .collect();
    Op::SetWeights {
        weights,
        version_key: 0,
    }
}

pub(crate) fn register(seed: u8) -> Op {
    Op::Register {
        hotkey: pair(seed).hotkey(),
        max_burn_rao: None,
    }
}
