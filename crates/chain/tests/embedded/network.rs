//! A small subnet to test against: two validators, two miners, an owner without a slot, and a
//! stranger; and the shortest way to have an operation carried out.

use std::collections::BTreeMap;
use std::sync::Arc;

use connito_chain::keys::{Keypair, Signer};
use connito_chain::local::{GenesisNeuron, GenesisSpec, LocalChain};
use connito_chain::{At, Field, Op, PoolError, SignedOp};
use connito_protocol::ids::{Block, Netuid, Uid};
use serde::de::DeserializeOwned;
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

/// A chain and the nonces of everyone who has used it.
pub(crate) struct Network {
    pub(crate) chain: Arc<LocalChain>,
    nonces: BTreeMap<u8, u64>,
}

impl Network {
    pub(crate) fn new(spec: GenesisSpec) -> Self {
        Self::on(LocalChain::in_memory(spec).unwrap())
    }

    pub(crate) fn on(chain: Arc<LocalChain>) -> Self {
        Self {
            chain,
            nonces: BTreeMap::new(),
        }
    }

    pub(crate) fn signed(&self, seed: u8, nonce: u64, op: &Op) -> SignedOp {
        let until = Block(self.chain.head().number.0 + 8);
        SignedOp::sign(&pair(seed), self.chain.identity(), op, nonce, until).unwrap()
    }

    /// Puts an operation into the pool.
    pub(crate) fn send(&mut self, seed: u8, op: &Op) -> Result<(), PoolError> {
        let nonce = self.nonces.get(&seed).copied().unwrap_or(0);
        self.chain.submit(self.signed(seed, nonce, op))?;
        self.nonces.insert(seed, nonce + 1);
        Ok(())
    }

    /// Puts an operation into the next block: the name of its failure, or `ok`.
    pub(crate) fn run(&mut self, seed: u8, op: &Op) -> String {
        self.send(seed, op).unwrap();
        self.chain.advance(1).unwrap();
        let outcomes = self.read("chain_outcomes", At::Head);
        let last = outcomes["value"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone();
        last["failure"]["name"].as_str().unwrap_or("ok").to_owned()
    }

    pub(crate) fn read(&self, method: &str, at: At) -> Value {
        self.ask(method, json!({ "at": at })).unwrap()
    }

    /// The value of a pinned read at the head.
    pub(crate) fn head<T: DeserializeOwned>(&self, method: &str) -> T {
        serde_json::from_value(self.read(method, At::Head)["value"].clone()).unwrap()
    }

    pub(crate) fn ask(&self, method: &str, params: Value) -> Result<Value, Value> {
        let request = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        let answer = self.chain.handle(request.to_string().as_bytes());
        let mut answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["id"], 7);
        match answer.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(answer["result"].take()),
        }
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
