//! `chain_*` and `connito_waitBlock`: heights, hashes, headers and bodies.

use std::sync::Arc;

use serde_json::{Value, json};

use super::failure::Failure;
use super::params::Params;
use crate::embedded::EmbeddedChain;
use crate::embedded::block::Sealed;
use crate::embedded::history::Unreadable;
use crate::hex_text;

/// Heights in one question for hashes.
const MAX_HEIGHTS: usize = 1_024;

impl EmbeddedChain {
    /// The block with a hash, or the newest.
    pub(super) fn block_at(&self, at: Option<[u8; 32]>) -> Result<Arc<Sealed>, Failure> {
        let history = self.history();
        match at {
            None => Ok(Arc::clone(history.head())),
            Some(hash) => history
                .find(&hash)
                .map(Arc::clone)
                .map_err(|unreadable| Failure::unreadable(unreadable, &hash)),
        }
    }

    /// The same, with nothing for a block that does not exist.
    fn known_block(&self, at: Option<[u8; 32]>) -> Result<Option<Arc<Sealed>>, Failure> {
        let Some(hash) = at else {
            return self.block_at(None).map(Some);
        };
        match self.history().find(&hash) {
            Ok(block) => Ok(Some(Arc::clone(block))),
            Err(Unreadable::Unknown) => Ok(None),
            Err(discarded) => Err(Failure::unreadable(discarded, &hash)),
        }
    }

    pub(super) fn get_header(&self, mut params: Params) -> Result<Value, Failure> {
        let at = params.at()?;
        params.end()?;
        let block = self.known_block(at)?;
        Ok(block.map_or(Value::Null, |block| block.header.to_json()))
    }

    pub(super) fn get_block(&self, mut params: Params) -> Result<Value, Failure> {
        let at = params.at()?;
        params.end()?;
        let Some(block) = self.known_block(at)? else {
            return Ok(Value::Null);
        };
        let extrinsics: Vec<String> = block
            .extrinsics
            .iter()
            .map(|bytes| hex_text::encode(bytes))
            .collect();
        let header = block.header.to_json();
        Ok(
            json!({ "block": { "header": header, "extrinsics": extrinsics }, "justifications": null }),
        )
    }

    pub(super) fn get_block_hash(&self, mut params: Params) -> Result<Value, Failure> {
        let wanted: Value = params.next("height")?;
        params.end()?;
        match wanted {
            Value::Null => Ok(json!(hex_text::encode(&self.history().head().hash))),
            Value::Array(heights) if heights.len() > MAX_HEIGHTS => {
                Err(Failure::too_many(heights.len() as u64, MAX_HEIGHTS as u64))
            }
            Value::Array(heights) => heights.iter().map(|one| self.hash_at(one)).collect(),
            one => self.hash_at(&one),
        }
    }

    fn hash_at(&self, height: &Value) -> Result<Value, Failure> {
        let number = match height {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text
                .strip_prefix("0x")
                .filter(|digits| !digits.starts_with('+'))
                .and_then(|digits| u64::from_str_radix(digits, 16).ok()),
            _ => None,
        };
        let number = number.ok_or_else(|| {
            Failure::invalid_params("a height is a number or 0x and hexadecimal digits")
        })?;
        let hash = self.history().hash(number);
        Ok(hash.map_or(Value::Null, |hash| json!(hex_text::encode(&hash))))
    }

    /// What is there already of the block after a height.
    pub(super) fn wait_block(&self, params: Params) -> Result<Value, Failure> {
        let (after, _) = wait_params(params)?;
        let Some(wanted) = after.checked_add(1) else {
            return Ok(Value::Null);
        };
        match self.history().at(wanted) {
            Ok(block) => {
                let hash = hex_text::encode(&block.hash);
                Ok(json!({ "hash": hash, "header": block.header.to_json() }))
            }
            Err(Unreadable::Unknown) => Ok(Value::Null),
            Err(discarded @ Unreadable::Discarded(hash)) => {
                Err(Failure::unreadable(discarded, &hash))
            }
        }
    }
}

/// The height to wait beyond, and for how many milliseconds at most.
pub(super) fn wait_params(mut params: Params) -> Result<(u64, u64), Failure> {
    let after = params.next("after")?;
    let timeout_ms = params.next::<Option<u64>>("timeout_ms")?.unwrap_or(0);
    params.end()?;
    Ok((after, timeout_ms))
}
