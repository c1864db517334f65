//! The rules, seen as a client sees them: by the names that the bundled metadata gives to events, errors
//! and storage items.
//!
//! [`Chain`] is a chain reduced to its rules: no signatures, no nonces, one call to a block unless a
//! test says otherwise.

mod batches;
mod endpoints;
mod epochs;
mod golden;
mod money;
mod open_weights;
mod owners;
mod records;
mod sealed;
mod slots;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use connito_protocol::ids::{Block as Number, Hotkey, Netuid};
use parity_scale_codec::{Compact, Encode};

use super::*;
use crate::embedded::genesis::GenesisNeuron;
use crate::embedded::storage::Memory;
use crate::runtime::{BUNDLED_VERSION, DispatchFailure, Runtime, Value, bundled};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Runtime::from_metadata(bundled(), BUNDLED_VERSION).unwrap());

/// The subnet of all tests.
const NETUID: u16 = 7;
/// A TAO in rao.
const TAO: u64 = 1_000_000_000;

/// Accounts. A neuron's coldkey is not its hotkey.
const OWNER: AccountId = [1; 32];
const OWNER_COLDKEY: AccountId = [101; 32];
const VALIDATOR: AccountId = [2; 32];
const SECOND_VALIDATOR: AccountId = [3; 32];
const MINER: AccountId = [4; 32];
const SECOND_MINER: AccountId = [5; 32];
const STRANGER: AccountId = [6; 32];
const RICH: AccountId = [200; 32];
const ROOT: AccountId = [201; 32];

/// Two validators of 200 and 100 TAO at uids 0 and 1, two miners at 2 and 3, no owner's neuron.
fn spec() -> GenesisSpec {
    let neuron = |hotkey: AccountId, stake: u64| {
        let mut coldkey = hotkey;
        coldkey[0] = 100;
        GenesisNeuron {
            hotkey: Hotkey(hotkey),
            coldkey: Some(Hotkey(coldkey)),
            stake_rao: stake * TAO,
            validator_permit: stake > 0,
        }
    };
    GenesisSpec {
        owner_coldkey: Some(Hotkey(OWNER_COLDKEY)),
        root: Hotkey(ROOT),
        faucet: Hotkey(RICH),
        neurons: vec![
            neuron(VALIDATOR, 200),
            neuron(SECOND_VALIDATOR, 100),
            neuron(MINER, 0),
            neuron(SECOND_MINER, 0),
        ],
        ..GenesisSpec::new(Netuid(NETUID), Hotkey(OWNER))
    }
}

impl Memory {
    fn change<T>(&mut self, make: impl FnOnce(&mut Overlay<'_>) -> T) -> T {
        let mut overlay = Overlay::new(self);
        let made = make(&mut overlay);
        for (key, value) in overlay.into_changes() {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
        made
    }
}

/// A chain reduced to its rules.
struct Chain {
    state: Memory,
    spec: GenesisSpec,
    number: u64,
    /// What happened when the newest block was opened or, if that was later, in the newest call.
    events: Vec<Event>,
}

impl Chain {
    fn new(spec: GenesisSpec) -> Self {
        spec.check().unwrap();
        let mut state = Memory::default();
        state.change(|state| genesis(&spec, state));
        Self {
            state,
            spec,
            number: 0,
            events: Vec::new(),
        }
    }

    fn with(change: impl FnOnce(&mut GenesisSpec)) -> Self {
        let mut spec = spec();
        change(&mut spec);
        Self::new(spec)
    }

    fn block(&self, number: u64) -> Block {
        Block {
            number,
            time_ms: self.spec.time_of(Number(number)),
        }
    }

    /// Opens the next block.
    fn next(&mut self) {
        self.number += 1;
        let block = self.block(self.number);
        self.events = self.state.change(|state| on_initialize(state, &block));
    }

    fn advance(&mut self, blocks: u64) {
        (0..blocks).for_each(|_| self.next());
    }

    fn advance_to(&mut self, number: u64) {
        self.advance(number - self.number);
    }

    /// What the pool says of a call for the next block: nothing, or its number.
    fn asks(&self, signer: AccountId, call: impl Into<Call>) -> Result<(), u8> {
        let block = self.block(self.number + 1);
        validate(&self.state, signer, &call.into(), &block)
    }

    /// Carries a call out in the block that is open: `ok`, or the failure by its name.
    fn include(&mut self, signer: AccountId, call: impl Into<Call>) -> String {
        let (call, block) = (call.into(), self.block(self.number));
        // A call travels as bytes.
        let call = Call::decode(&call.encode()).unwrap();
        let result = self
            .state
            .change(|state| state.transact(|state| dispatch(state, signer, call, &block)));
        match result {
            Ok(events) => {
                self.events = events;
                "ok".to_owned()
            }
            Err(error) => failure_name(error),
        }
    }

    /// Offers a call to the pool and, if it takes it, carries it out in the next block.
    fn call(&mut self, signer: AccountId, call: impl Into<Call>) -> String {
        let call = call.into();
        let asked = self.asks(signer, call.clone());
        self.next();
        match asked {
            Ok(()) => self.include(signer, call),
            Err(number) => format!("Custom {number}"),
        }
    }

    /// The names of what happened last.
    fn happened(&self) -> Vec<String> {
        let mut bytes = Compact(self.events.len() as u32).encode();
        for event in &self.events {
            bytes.push(2);
            bytes.extend(event.encode());
            bytes.push(0);
        }
        let records = RUNTIME.events(&bytes).unwrap();
        records.into_iter().map(|record| record.name).collect()
    }

    /// A storage item's value, by name.
    fn read(&self, pallet: &str, item: &str, keys: &[Value]) -> Value {
        let key = RUNTIME.storage_key(pallet, item, keys).unwrap();
        let bytes = self.state.get(&key);
        let value = RUNTIME.storage_value(pallet, item, bytes.as_deref());
        value.unwrap().unwrap_or(Value::List(Vec::new()))
    }

    /// A subnet's value of a subtensor item, by name.
    fn of_subnet(&self, item: &str) -> Value {
        self.read("SubtensorModule", item, &[number(NETUID)])
    }

    fn weights(&self, uid: u16) -> Vec<(u16, u16)> {
        neurons::WEIGHTS.get_or(&self.state, &(NETUID, uid), Vec::new())
    }

    fn incentive(&self) -> Vec<u16> {
        neurons::INCENTIVE.get_or(&self.state, &(NETUID,), Vec::new())
    }

    fn uid(&self, hotkey: AccountId) -> Option<u16> {
        neurons::uid(&self.state, NETUID, hotkey)
    }

    /// A free balance.
    fn free(&self, who: AccountId) -> u64 {
        balances::free(&self.state, who)
    }
}

fn number(number: impl Into<u128>) -> Value {
    Value::Unsigned(number.into())
}

/// The name that a client reads in the event of a failed extrinsic.
fn failure_name(error: DispatchError) -> String {
    let mut bytes = Compact(1_u32).encode();
    bytes.extend([2, 0, 1]);
    error.encode_to(&mut bytes);
    bytes.extend([0, 0, 0, 1, 0]);
    let records = RUNTIME.events(&bytes).unwrap();
    let error = records[0].fields.field("dispatch_error").unwrap();
    let DispatchFailure { name, .. } = RUNTIME.dispatch_error(error);
    name
}

impl From<call::Subtensor> for Call {
    fn from(call: call::Subtensor) -> Self {
        Self::Subtensor(call)
    }
}

impl From<call::Balances> for Call {
    fn from(call: call::Balances) -> Self {
        Self::Balances(call)
    }
}

impl From<call::AdminUtils> for Call {
    fn from(call: call::AdminUtils) -> Self {
        Self::AdminUtils(call)
    }
}

impl From<call::Commitments> for Call {
    fn from(call: call::Commitments) -> Self {
        Self::Commitments(call)
    }
}

fn list(weights: &[(u16, u16)]) -> call::Weights {
    call::Weights {
        uids: weights.iter().map(|(uid, _)| *uid).collect(),
        values: weights.iter().map(|(_, weight)| *weight).collect(),
    }
}

fn weigh(weights: &[(u16, u16)], version_key: u64) -> call::Subtensor {
    call::Subtensor::SetWeights {
        netuid: NETUID,
        weights: list(weights),
        version_key,
    }
}

fn register(hotkey: AccountId) -> call::Subtensor {
    call::Subtensor::BurnedRegister {
        netuid: NETUID,
        hotkey,
    }
}
