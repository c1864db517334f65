//! Blocks: the header in SCALE, its hash, and what every block contains of itself.
//!
//! ```text
//! header = parent[32] ‖ compact(number) ‖ state root[32] ‖ extrinsics root[32] ‖ digest
//! hash   = blake2_256(header)
//! digest = one item, PreRuntime("aura", slot u64); none in block 0
//! ```
//!
//! The extrinsics root is `blake2_256` of the list with every signature's bytes zero: sr25519 signatures
//! are randomised and shall not decide a hash that others draw their randomness from. The first
//! extrinsic of every block but the genesis sets the time, as a block's author does on a real chain.

use connito_protocol::ids::{Block as Number, BlockHash};
use parity_scale_codec::{Compact, Decode, Encode, Error, Input};
use serde_json::{Value, json};

use super::extrinsic;
use crate::chain::BlockRef;
use crate::hash::blake2_256;
use crate::hex_text;

/// `PreRuntime`, from the engine `aura`, with eight bytes.
const SLOT_ITEM: [u8; 6] = *b"\x06aura\x20";
/// `Timestamp.set` as an extrinsic without a signature (version 5, as the runtime itself writes them).
const SET_TIME: [u8; 3] = [5, 2, 0];

/// A block's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) parent: [u8; 32],
    pub(super) number: u64,
    pub(super) state_root: [u8; 32],
    pub(super) extrinsics_root: [u8; 32],
    /// The block's time in block times, absent in block 0.
    pub(super) slot: Option<u64>,
}

impl Encode for Header {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.parent.to_vec();
        Compact(self.number).encode_to(&mut bytes);
        bytes.extend_from_slice(&self.state_root);
        bytes.extend_from_slice(&self.extrinsics_root);
        bytes.extend_from_slice(&self.digest());
        bytes
    }
}

impl Decode for Header {
    fn decode<I: Input>(input: &mut I) -> Result<Self, Error> {
        let parent = Decode::decode(input)?;
        let Compact(number) = <Compact<u64>>::decode(input)?;
        let state_root = Decode::decode(input)?;
        let extrinsics_root = Decode::decode(input)?;
        let slot = match <Compact<u32>>::decode(input)?.0 {
            0 => None,
            1 if <[u8; 6]>::decode(input)? == SLOT_ITEM => Some(u64::decode(input)?),
            _ => return Err(Error::from("a digest that no header of this chain has")),
        };
        Ok(Self {
            parent,
            number,
            state_root,
            extrinsics_root,
            slot,
        })
    }
}

impl Header {
    /// The block's name.
    pub(super) fn hash(&self) -> [u8; 32] {
        blake2_256(&self.encode())
    }

    /// The digest as `System.Digest` holds it.
    pub(super) fn digest(&self) -> Vec<u8> {
        digest(self.slot)
    }

    /// What a node answers for this header.
    pub(super) fn to_json(&self) -> Value {
        let logs: Vec<String> = self
            .slot
            .map(|slot| hex_text::encode(&slot_item(slot)))
            .into_iter()
            .collect();
        json!({
            "parentHash": hex_text::encode(&self.parent),
            "number": format!("{:#x}", self.number),
            "stateRoot": hex_text::encode(&self.state_root),
            "extrinsicsRoot": hex_text::encode(&self.extrinsics_root),
            "digest": { "logs": logs },
        })
    }
}

/// The digest of a block in this slot.
pub(super) fn digest(slot: Option<u64>) -> Vec<u8> {
    let items: Vec<[u8; 14]> = slot.map(slot_item).into_iter().collect();
    let mut bytes = Compact(items.len() as u32).encode();
    bytes.extend_from_slice(&items.concat());
    bytes
}

fn slot_item(slot: u64) -> [u8; 14] {
    let mut item = [0; 14];
    item[..6].copy_from_slice(&SLOT_ITEM);
    item[6..].copy_from_slice(&slot.to_le_bytes());
    item
}

/// The extrinsic that says what time it is.
pub(super) fn set_time(time_ms: u64) -> Vec<u8> {
    let mut body = SET_TIME.to_vec();
    Compact(time_ms).encode_to(&mut body);
    body.encode()
}

/// The hash over a block's extrinsics, each with its length.
pub(super) fn extrinsics_root(extrinsics: &[Vec<u8>]) -> [u8; 32] {
    let mut bytes = Compact(extrinsics.len() as u32).encode();
    for extrinsic in extrinsics {
        bytes.extend_from_slice(&extrinsic::without_signature(extrinsic));
    }
    blake2_256(&bytes)
}

/// A block that was made: what others are shown of it.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    pub(super) header: Header,
    pub(super) hash: [u8; 32],
    pub(super) time_ms: u64,
    /// Each with its length in front, the first being [`set_time`].
    pub(super) extrinsics: Vec<Vec<u8>>,
    /// Hashes of extrinsics that waited for this block and can never be included.
    pub(super) dropped: Vec<[u8; 32]>,
}

impl Sealed {
    /// The block in the chain's own words.
    pub(super) fn reference(&self) -> BlockRef {
        BlockRef {
            number: Number(self.header.number),
            hash: BlockHash(self.hash),
            parent: BlockHash(self.header.parent),
            timestamp_ms: Some(self.time_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(slot: Option<u64>) -> Header {
        Header {
            parent: [1; 32],
            number: 67,
            state_root: [2; 32],
            extrinsics_root: [3; 32],
            slot,
        }
    }

    #[test]
    fn a_header_is_read_back_and_is_shown_as_a_node_shows_it() {
        for slot in [None, Some(7_158_064_875)] {
            let bytes = header(slot).encode();
            assert_eq!(Header::decode(&mut bytes.as_slice()), Ok(header(slot)));
        }
        let shown = header(Some(7_158_064_875)).to_json();
        assert_eq!(shown["number"], "0x43");
        // A log of a public node's block 67.
        assert_eq!(shown["digest"]["logs"][0], "0x066175726120eb66a7aa01000000");
    }

    /// The first extrinsic of a public node's block.
    #[test]
    fn the_time_is_set_in_the_bytes_of_a_real_block() {
        assert_eq!(
            hex::encode(set_time(1_789_516_218_750)),
            "280502000b7e817aa7a001"
        );
    }
}
