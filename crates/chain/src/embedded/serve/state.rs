//! `state_*`: keys and values as of a block, and what the runtime says of itself.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::failure::Failure;
use super::params::{Params, bytes_of};
use super::room::Room;
use crate::embedded::EmbeddedChain;
use crate::embedded::execute::SPEC_NAME;
use crate::embedded::extrinsic::{SPEC_VERSION, TRANSACTION_VERSION};
use crate::embedded::store::View;
use crate::hash::{blake2_64, blake2_256};
use crate::hex_text;

/// Keys in one page, as in a real node.
const MAX_PAGE: u64 = 1_000;
/// Keys in one question for values.
pub(super) const MAX_KEYS: usize = 4_096;

/// Runtime interfaces and their versions, as tools look for them.
const APIS: [(&str, u32); 8] = [
    ("Core", 5),
    ("Metadata", 2),
    ("AccountNonceApi", 1),
    ("TransactionPaymentApi", 4),
    ("NeuronInfoRuntimeApi", 1),
    ("SubnetInfoRuntimeApi", 1),
    ("StakeInfoRuntimeApi", 1),
    ("SubnetRegistrationRuntimeApi", 1),
];

impl EmbeddedChain {
    /// Reads the state after a block, or after the newest.
    pub(super) fn read<T>(
        &self,
        at: Option<[u8; 32]>,
        read: impl FnOnce(View<'_>) -> T,
    ) -> Result<T, Failure> {
        let history = self.history();
        let Some(hash) = at else {
            return Ok(read(history.store().head()));
        };
        let view = history.find(&hash).and_then(|block| history.state(block));
        view.map(read)
            .map_err(|unreadable| Failure::unreadable(unreadable, &hash))
    }

    fn value<T>(
        &self,
        mut params: Params,
        show: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, Failure> {
        let key = params.bytes("key")?;
        let at = params.at()?;
        params.end()?;
        self.read(at, |state| state.value(&key).map(show))
    }

    pub(super) fn get_storage(&self, params: Params) -> Result<Value, Failure> {
        self.value(params, hex_text::encode)
            .map(|value| json!(value))
    }

    pub(super) fn get_storage_hash(&self, params: Params) -> Result<Value, Failure> {
        let hash = |value: &[u8]| hex_text::encode(&blake2_256(value));
        self.value(params, hash).map(|value| json!(value))
    }

    pub(super) fn get_storage_size(&self, params: Params) -> Result<Value, Failure> {
        self.value(params, <[u8]>::len).map(|value| json!(value))
    }

    pub(super) fn query_storage(&self, mut params: Params) -> Result<Value, Failure> {
        let keys = read_keys(&mut params)?;
        let at = params.at()?;
        params.end()?;
        let block = self.block_at(at)?;
        let changes = self.read(Some(block.hash), |state| {
            let mut room = Room::default();
            let told = keys.iter().map(|key| {
                let value = state.value(key).map(|value| room.hex(value));
                Ok((room.hex(key)?, value.transpose()?))
            });
            told.collect::<Result<Vec<_>, Failure>>()
        })??;
        Ok(json!([{ "block": hex_text::encode(&block.hash), "changes": changes }]))
    }

    pub(super) fn get_keys_paged(&self, mut params: Params) -> Result<Value, Failure> {
        let prefix = params.optional_bytes("prefix")?.unwrap_or_default();
        let count: u64 = params.next("count")?;
        let start = params.optional_bytes("start key")?;
        let at = params.at()?;
        params.end()?;
        if count > MAX_PAGE {
            return Err(Failure::too_many(count, MAX_PAGE));
        }
        let keys: Vec<String> = self.read(at, |state| {
            let keys = state.keys(&prefix, start.as_deref());
            keys.take(count as usize)
                .map(|(key, _)| hex_text::encode(key))
                .collect()
        })?;
        Ok(json!(keys))
    }

    pub(super) fn runtime_version(&self, mut params: Params) -> Result<Value, Failure> {
        let at = params.at()?;
        params.end()?;
        self.block_at(at)?;
        Ok(version())
    }

    pub(super) fn get_metadata(&self, mut params: Params) -> Result<Value, Failure> {
        let at = params.at()?;
        params.end()?;
        self.block_at(at)?;
        let metadata = self.described.metadata(self.identity.block_time_ms)?;
        Ok(json!(hex_text::encode(metadata)))
    }

    pub(super) fn call_runtime(&self, mut params: Params) -> Result<Value, Failure> {
        let method: String = params.next("method")?;
        let data = params.bytes("data")?;
        let at = params.at()?;
        params.end()?;
        let block = self.block_at(at)?;
        let answer = self.read(Some(block.hash), |state| {
            let block_time = self.identity.block_time_ms;
            self.described.call(&state, block_time, (&method, &data))
        })??;
        Ok(json!(hex_text::encode(&answer)))
    }
}

/// Keys in a list. One that stands there twice is read once, where it stands first, as in a real node.
pub(super) fn read_keys(params: &mut Params) -> Result<Vec<Vec<u8>>, Failure> {
    let texts: Vec<String> = params.next("keys")?;
    if texts.len() > MAX_KEYS {
        return Err(Failure::too_many(texts.len() as u64, MAX_KEYS as u64));
    }
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let mut seen = BTreeSet::new();
    for text in &texts {
        let key = bytes_of(text, "key")?;
        if seen.insert(key.clone()) {
            keys.push(key);
        }
    }
    Ok(keys)
}

/// The runtime's version, as JSON.
pub(super) fn version() -> Value {
    let apis: Vec<(String, u32)> = apis()
        .map(|(id, version)| (hex_text::encode(&id), version))
        .collect();
    json!({
        "specName": SPEC_NAME,
        "implName": SPEC_NAME,
        "authoringVersion": 1,
        "specVersion": SPEC_VERSION,
        "implVersion": 1,
        "apis": apis,
        "transactionVersion": TRANSACTION_VERSION,
        "systemVersion": 1,
        "stateVersion": 1,
    })
}

/// The runtime interfaces: the hash of each name, and its version.
pub(super) fn apis() -> impl Iterator<Item = ([u8; 8], u32)> {
    APIS.into_iter()
        .map(|(name, version)| (blake2_64(name.as_bytes()), version))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Identifiers every Substrate node shows.
    #[test]
    fn interfaces_are_named_as_on_every_node() {
        let ids: Vec<String> = apis().take(3).map(|(id, _)| hex::encode(id)).collect();
        assert_eq!(
            ids,
            ["df6acb689907609b", "37e397fc7c91f5e4", "bc9d89904f5b923f"]
        );
    }
}
