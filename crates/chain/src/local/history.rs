//! The last blocks of the embedded chain with their states, and how a request finds one of them.
//!
//! As many blocks are kept as a real node keeps block hashes. An older block is `Pruned`, with the
//! oldest one that is still there, so that callers meet that error here and not in production.

use std::collections::VecDeque;
use std::sync::Arc;

use connito_protocol::ids::Block;

use super::execute::Outcome;
use super::state::State;
use crate::chain::{At, BlockRef};
use crate::error::ChainError;

/// Blocks whose state can be read.
pub const KEPT_BLOCKS: usize = 2_400;

/// One block and everything known after it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) block: BlockRef,
    pub(super) state: State,
    pub(super) outcomes: Arc<Vec<Outcome>>,
}

/// The newest blocks, oldest first. Never empty.
#[derive(Debug)]
pub(super) struct History {
    entries: VecDeque<Entry>,
    head: Entry,
    kept: usize,
}

impl History {
    /// A history of the newest `kept` blocks, the first of which is there.
    pub(super) fn new(genesis: Entry, kept: usize) -> Self {
        Self {
            entries: VecDeque::from([genesis.clone()]),
            head: genesis,
            kept,
        }
    }

    pub(super) fn head(&self) -> &Entry {
        &self.head
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.head = entry.clone();
        self.entries.push_back(entry);
        if self.entries.len() > self.kept {
            self.entries.pop_front();
        }
    }

    /// The block that `at` stands for.
    pub(super) fn find(&self, at: At) -> Result<&Entry, ChainError> {
        match at {
            At::Head | At::Finalized => Ok(&self.head),
            // Newest first: pinned reads ask for recent blocks.
            At::Hash(hash) => {
                let mut newest_first = self.entries.iter().rev();
                newest_first
                    .find(|entry| entry.block.hash == hash)
                    .ok_or(ChainError::UnknownBlock(at))
            }
            At::Number(wanted) => {
                let oldest = self
                    .entries
                    .front()
                    .map_or(Block(0), |entry| entry.block.number);
                let Some(position) = wanted.0.checked_sub(oldest.0) else {
                    return Err(ChainError::Pruned {
                        wanted,
                        oldest: Some(oldest),
                    });
                };
                let position = usize::try_from(position).unwrap_or(usize::MAX);
                self.entries
                    .get(position)
                    .ok_or(ChainError::UnknownBlock(at))
            }
        }
    }
}
