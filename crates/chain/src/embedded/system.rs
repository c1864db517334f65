//! What the chain itself writes into the state: the block, its time, its events and the nonces.

use parity_scale_codec::{Decode, Encode};

use super::storage::{AccountId, Hasher, Item, State};

/// The height of the block.
pub(super) const NUMBER: Item<(), u32> = Item::new("System", "Number", &[]);
/// The hash of the block before it.
pub(super) const PARENT_HASH: Item<(), [u8; 32]> = Item::new("System", "ParentHash", &[]);
/// The hashes of the last 2,400 blocks before it.
pub(super) const BLOCK_HASH: Item<(u32,), [u8; 32]> =
    Item::new("System", "BlockHash", &[Hasher::Twox64Concat]);
/// An account's nonce, references and coins.
pub(super) const ACCOUNT: Item<(AccountId,), AccountInfo> =
    Item::new("System", "Account", &[Hasher::Blake2_128Concat]);
/// What happened in the block.
pub(super) const EVENTS: Item<(), Opaque> = Item::new("System", "Events", &[]);
/// How much happened.
pub(super) const EVENT_COUNT: Item<(), u32> = Item::new("System", "EventCount", &[]);
/// The block's digest, as its header has it.
pub(super) const DIGEST: Item<(), Opaque> = Item::new("System", "Digest", &[]);
/// The runtime's version and name since the last upgrade.
pub(super) const LAST_RUNTIME_UPGRADE: Item<(), (parity_scale_codec::Compact<u32>, String)> =
    Item::new("System", "LastRuntimeUpgrade", &[]);
/// The block's time in milliseconds since 1970.
pub(super) const NOW: Item<(), u64> = Item::new("Timestamp", "Now", &[]);

/// How many block hashes the state holds.
pub(super) const BLOCK_HASHES: u64 = 2_400;

/// An account as the runtime stores it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct AccountInfo {
    pub(super) nonce: u32,
    pub(super) consumers: u32,
    pub(super) providers: u32,
    pub(super) sufficients: u32,
    pub(super) free: u64,
    pub(super) reserved: u64,
    pub(super) frozen: u64,
    pub(super) flags: u128,
}

impl Default for AccountInfo {
    fn default() -> Self {
        Self {
            nonce: 0,
            consumers: 0,
            providers: 0,
            sufficients: 0,
            free: 0,
            reserved: 0,
            frozen: 0,
            // The runtime's mark of an account that needs no migration.
            flags: 1 << 127,
        }
    }
}

/// The nonce of an account's next extrinsic.
pub(super) fn nonce(state: &impl State, account: AccountId) -> u32 {
    ACCOUNT
        .get(state, &(account,))
        .map_or(0, |account| account.nonce)
}

/// Bytes that stand as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opaque(pub(super) Vec<u8>);

impl Encode for Opaque {
    fn encode(&self) -> Vec<u8> {
        self.0.clone()
    }
}

impl Decode for Opaque {
    fn decode<I: parity_scale_codec::Input>(
        input: &mut I,
    ) -> Result<Self, parity_scale_codec::Error> {
        let mut bytes = vec![0; input.remaining_len()?.unwrap_or(0)];
        input.read(&mut bytes)?;
        Ok(Self(bytes))
    }
}
