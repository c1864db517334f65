//! A small subnet to test against: two validators, two miners, an owner without a slot, and a
//! stranger; and the shortest way to a client of its chain.

use std::future::pending;
use std::sync::Arc;

use connito_chain::embedded::{EmbeddedChain, GenesisNeuron, GenesisSpec};
use connito_chain::keys::{Keypair, Signer};
use connito_chain::rpc::RpcTransport;
use connito_chain::subtensor::{Connection, SubtensorChain};
use connito_chain::{ChainError, Field, Op, Reject};
use connito_protocol::ids::{Netuid, Uid};
use serde_json::{Value, json};

pub(crate) const OWNER: u8 = 9;
pub(crate) const VALIDATOR: u8 = 1;
pub(crate) const SECOND_VALIDATOR: u8 = 2;
pub(crate) const MINER: u8 = 3;
pub(crate) const SECOND_MINER: u8 = 4;
pub(crate) const STRANGER: u8 = 7;

/// The pair of a participant; the number is its seed.
pub(crate) fn pair(seed: u8) -> Keypair {
    Keypair::from_seed(&[seed; 32])
}

/// Uids 0 to 3 are the validators (stake 200 and 100) and the miners, in this order.
pub(crate) fn spec() -> GenesisSpec {
    let neuron = |(seed, stake_rao): (u8, u64)| GenesisNeuron {
        hotkey: pair(seed).hotkey(),
        coldkey: None,
        stake_rao,
        validator_permit: stake_rao > 0,
    };
    let neurons = [
        (VALIDATOR, 200),
        (SECOND_VALIDATOR, 100),
        (MINER, 0),
        (SECOND_MINER, 0),
    ];
    GenesisSpec {
        block_time_ms: 1_000,
        genesis_time_ms: 1_700_000_000_000,
        neurons: neurons.into_iter().map(neuron).collect(),
        ..GenesisSpec::new(Netuid(3), pair(OWNER).hotkey())
    }
}

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
