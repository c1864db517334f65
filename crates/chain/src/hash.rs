//! The hash functions that a Substrate chain names things with.

use blake2::digest::consts::{U8, U16, U32};
use blake2::{Blake2b, Digest as _};

/// BLAKE2b with 32 bytes: blocks, extrinsics, signing payloads.
pub(crate) fn blake2_256(bytes: &[u8]) -> [u8; 32] {
    Blake2b::<U32>::digest(bytes).into()
}

/// BLAKE2b with 16 bytes: storage keys.
pub(crate) fn blake2_128(bytes: &[u8]) -> [u8; 16] {
    Blake2b::<U16>::digest(bytes).into()
}

/// BLAKE2b with 8 bytes: the names of runtime interfaces.
pub(crate) fn blake2_64(bytes: &[u8]) -> [u8; 8] {
    Blake2b::<U8>::digest(bytes).into()
}

/// xxHash64: storage keys.
pub(crate) fn twox64(bytes: &[u8], seed: u64) -> u64 {
    twox_hash::XxHash64::oneshot(seed, bytes)
}

/// xxHash64 with seeds 0 and 1: the names of pallets and items.
pub(crate) fn twox128(bytes: &[u8]) -> [u8; 16] {
    let mut hash = [0; 16];
    hash[..8].copy_from_slice(&twox64(bytes, 0).to_le_bytes());
    hash[8..].copy_from_slice(&twox64(bytes, 1).to_le_bytes());
    hash
}
