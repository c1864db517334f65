//! A small subnet to test against, and the shortest way to have a call carried out.

use std::collections::BTreeMap;
use std::sync::Arc;

use connito_chain::PoolError;
use connito_chain::embedded::EmbeddedChain;
use connito_chain::keys::Signer as _;
use connito_chain::runtime::{
    BUNDLED_VERSION, Era, EventRecord, Runtime, SigningTerms, Value, bundled,
};
use serde_json::{Value as Json, json};

pub(crate) use crate::subnet::*;

pub(crate) fn account(seed: u8) -> Value {
    pair(seed).hotkey().into()
}

/// What the chain's own metadata says.
pub(crate) fn runtime() -> Runtime {
    Runtime::from_metadata(bundled(), BUNDLED_VERSION).unwrap()
}

/// A chain and the nonces of everyone who has used it.
pub(crate) struct Network {
    pub(crate) chain: Arc<EmbeddedChain>,
    pub(crate) runtime: Runtime,
    nonces: BTreeMap<u8, u64>,
}

impl Network {
    pub(crate) fn new() -> Self {
        Self::on(EmbeddedChain::in_memory(spec()).unwrap())
    }

    pub(crate) fn on(chain: Arc<EmbeddedChain>) -> Self {
        Self {
            chain,
            runtime: runtime(),
            nonces: BTreeMap::new(),
        }
    }

    pub(crate) fn terms(&self, nonce: u64) -> SigningTerms {
        let head = self.chain.head();
        SigningTerms {
            genesis: self.chain.identity().genesis.0,
            nonce,
            tip: 0,
            era: Era::Mortal {
                period: 8,
                current: head.number.0,
                hash: head.hash.0,
            },
        }
    }

    pub(crate) fn signed(&self, seed: u8, nonce: u64, call: &[u8]) -> Vec<u8> {
        self.signed_on(seed, call, &self.terms(nonce))
    }

    pub(crate) fn signed_on(&self, seed: u8, call: &[u8], terms: &SigningTerms) -> Vec<u8> {
        self.runtime.sign(&pair(seed), call, terms).unwrap().bytes
    }

    /// Puts a call into the pool under its sender's next nonce.
    pub(crate) fn send(&mut self, seed: u8, call: &[u8]) -> Result<[u8; 32], PoolError> {
        let nonce = self.nonces.get(&seed).copied().unwrap_or(0);
        let hash = self.chain.submit(&self.signed(seed, nonce, call))?;
        self.nonces.insert(seed, nonce + 1);
        Ok(hash)
    }

    /// Puts a call into the next block: the name of its failure, or `ok`.
    pub(crate) fn run(&mut self, seed: u8, call: &[u8]) -> String {
        self.send(seed, call).unwrap();
        self.chain.advance(1).unwrap();
        self.outcomes().pop().unwrap()
    }

    /// Waits for the next block of a chain that is running.
    pub(crate) async fn next_block(&self) {
        let head = self.chain.head().number.0;
        let params = json!([head, 10_000]);
        let wait =
            json!({ "jsonrpc": "2.0", "id": 7, "method": "connito_waitBlock", "params": params });
        let answer = self.chain.handle_async(wait.to_string().as_bytes()).await;
        let answer: Json = serde_json::from_slice(&answer).unwrap();
        assert!(answer["result"].is_object(), "{answer}");
    }

    /// What became of each signed extrinsic of the newest block: the name of its failure, or `ok`.
    pub(crate) fn outcomes(&self) -> Vec<String> {
        let mut outcomes = Vec::new();
        for event in self.events() {
            match (event.name.as_str(), event.extrinsic) {
                ("ExtrinsicSuccess", Some(1..)) => outcomes.push("ok".to_owned()),
                ("ExtrinsicFailed", Some(_)) => {
                    let error = event.fields.field("dispatch_error").unwrap();
                    outcomes.push(self.runtime.dispatch_error(error).name);
                }
                _ => {}
            }
        }
        outcomes
    }

    pub(crate) fn events(&self) -> Vec<EventRecord> {
        let key = self.runtime.storage_key("System", "Events", &[]).unwrap();
        let bytes = self.storage(&key, None).unwrap();
        self.runtime.events(&bytes).unwrap()
    }

    /// The bytes under a key.
    pub(crate) fn storage(&self, key: &[u8], at: Option<&str>) -> Option<Vec<u8>> {
        let answer = self.result("state_getStorage", json!([hex(key), at]));
        answer.as_str().map(unhex)
    }

    /// A storage value by name, at the head.
    pub(crate) fn value(&self, pallet: &str, item: &str, keys: &[Value]) -> Option<Value> {
        let key = self.runtime.storage_key(pallet, item, keys).unwrap();
        let bytes = self.storage(&key, None);
        let value = self.runtime.storage_value(pallet, item, bytes.as_deref());
        value.unwrap()
    }

    pub(crate) fn result(&self, method: &str, params: Json) -> Json {
        self.ask(method, params).unwrap()
    }

    pub(crate) fn ask(&self, method: &str, params: Json) -> Result<Json, Json> {
        let request = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        let answer = self.chain.handle(request.to_string().as_bytes());
        let mut answer: Json = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["id"], 7);
        match answer.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(answer["result"].take()),
        }
    }
}

/// A commitment of one field.
pub(crate) fn commit(text: &str) -> Vec<u8> {
    let field = Value::variant_of(
        &format!("Raw{}", text.len()),
        [Value::from(text.as_bytes())],
    );
    let info = Value::record([("fields", Value::List(vec![field]))]);
    let arguments = [("netuid", NETUID.into()), ("info", info)];
    runtime()
        .call("Commitments", "set_commitment", &arguments)
        .unwrap()
}

/// Plain weights: pairs of uid and weight.
pub(crate) fn weigh(weights: &[(u16, u16)]) -> Vec<u8> {
    let uids = Value::list(weights.iter().map(|(uid, _)| *uid));
    let values = Value::list(weights.iter().map(|(_, weight)| *weight));
    let arguments = [
        ("netuid", NETUID.into()),
        ("dests", uids),
        ("weights", values),
        ("version_key", 0_u64.into()),
    ];
    runtime()
        .call("SubtensorModule", "set_weights", &arguments)
        .unwrap()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text.strip_prefix("0x").unwrap()).unwrap()
}
