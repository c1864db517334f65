//! Headers that have been read: blocks by their hash, and the blocks below one.
//!
//! A hash names one header for ever, and a header names its parent, so both can be remembered whatever
//! fork they turn out to be of. The newest [`REMEMBERED_HEADERS`] to come in are; whoever follows a
//! chain block by block has everything that a window of the protocol looks back to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use connito_protocol::ids::{Block, BlockHash};

use crate::chain::BlockRef;

/// Twice as far as records are looked back to.
const REMEMBERED_HEADERS: usize = 1_024;

/// The headers, by hash and in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Headers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    blocks: BTreeMap<BlockHash, BlockRef>,
    order: VecDeque<BlockHash>,
}

impl Headers {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a header.
    pub(super) fn remember(&self, block: BlockRef) {
        let mut known = self.known();
        if known.blocks.insert(block.hash, block).is_some() {
            return;
        }
        known.order.push_back(block.hash);
        if known.order.len() > REMEMBERED_HEADERS
            && let Some(oldest) = known.order.pop_front()
        {
            known.blocks.remove(&oldest);
        }
    }

    /// The block with this hash.
    pub(super) fn get(&self, hash: BlockHash) -> Option<BlockRef> {
        self.known().blocks.get(&hash).copied()
    }

    /// The hashes of a block and of those below it, as far down as their headers are known.
    pub(super) fn line(&self, block: BlockRef) -> BTreeMap<Block, BlockHash> {
        let known = self.known();
        let mut line = BTreeMap::from([(block.number, block.hash)]);
        let mut lowest = block;
        while let Some(before) = lowest.number.0.checked_sub(1) {
            line.insert(Block(before), lowest.parent);
            match known.blocks.get(&lowest.parent) {
                // A header that names another number is no parent.
                Some(parent) if parent.number.0 == before => lowest = *parent,
                _ => break,
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: u64, side: u8, parent_side: u8) -> BlockRef {
        let hash = |number: u64, side| BlockHash([(number as u8).wrapping_mul(16) + side; 32]);
        BlockRef {
            number: Block(number),
            hash: hash(number, side),
            parent: hash(number.saturating_sub(1), parent_side),
            timestamp_ms: None,
        }
    }

    #[test]
    fn the_line_below_a_block_is_that_of_its_own_side_of_a_fork() {
        let headers = Headers::default();
        for header in [
            block(3, 1, 1),
            block(4, 1, 1),
            block(4, 2, 1),
            block(5, 2, 2),
        ] {
            headers.remember(header);
        }
        let line = headers.line(block(5, 2, 2));
        let numbers: Vec<u64> = line.keys().map(|number| number.0).collect();
        assert_eq!(
            numbers,
            [2, 3, 4, 5],
            "and the parent of the last known one"
        );
        assert_eq!(line[&Block(4)], block(4, 2, 1).hash);
    }

    /// Whoever is told nonsense keeps it no longer than anything else.
    #[test]
    fn the_oldest_to_come_in_goes_first_whatever_its_number() {
        let headers = Headers::default();
        let nonsense = block(u64::MAX, 1, 1);
        headers.remember(nonsense);
        for number in 0..REMEMBERED_HEADERS as u64 {
            headers.remember(BlockRef {
                hash: BlockHash(crate::hash::blake2_256(&number.to_le_bytes())),
                ..block(0, 0, 0)
            });
        }
        assert_eq!(headers.get(nonsense.hash), None);
    }
}
