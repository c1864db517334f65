//! The newest blocks with their states, and the hashes of all.
//!
//! As many blocks are kept as a real node keeps block hashes in its state. What is older is *discarded*,
//! which is another answer than *unknown*: callers shall meet that difference here and not in production.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::block::Sealed;
use super::execute::Made;
use super::storage::Key;
use super::store::{Store, View};

/// Blocks that can be read, the newest included.
pub const KEPT_BLOCKS: usize = 2_400;

/// Why a block cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// There is no such block.
    Unknown,
    /// It was there once.
    Discarded([u8; 32]),
}

/// The blocks of a chain.
#[derive(Debug)]
pub(super) struct History {
    /// The hash of every block, by height.
    hashes: Vec<[u8; 32]>,
    /// The height of every block, by hash: whoever asks for what there is not waits for no search.
    heights: HashMap<[u8; 32], u64>,
    /// The kept blocks, oldest first. Never empty.
    blocks: VecDeque<Arc<Sealed>>,
    store: Store,
    kept: usize,
    head: Arc<Sealed>,
}

impl History {
    /// A history that begins with a block and its state, knowing the hashes of those before it. It will
    /// keep the newest `kept` blocks.
    pub(super) fn new(
        before: Vec<[u8; 32]>,
        first: Sealed,
        state: BTreeMap<Key, Vec<u8>>,
        kept: usize,
    ) -> Self {
        let mut hashes = before;
        let number = first.header.number;
        let first = Arc::new(first);
        hashes.push(first.hash);
        Self {
            heights: hashes.iter().copied().zip(0..).collect(),
            hashes,
            store: Store::new(number, state, kept),
            blocks: VecDeque::from([Arc::clone(&first)]),
            kept,
            head: first,
        }
    }

    /// The newest block.
    pub(super) fn head(&self) -> &Arc<Sealed> {
        &self.head
    }

    /// The states, the newest of which is the newest block's.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Adds a block made on the newest.
    pub(super) fn push(&mut self, made: Made) {
        let Made {
            block,
            changes,
            hash,
            ..
        } = made;
        let block = Arc::new(block);
        self.store.push(hash, changes);
        self.heights.insert(block.hash, self.hashes.len() as u64);
        self.hashes.push(block.hash);
        self.head = Arc::clone(&block);
        self.blocks.push_back(block);
        if self.blocks.len() > self.kept {
            self.blocks.pop_front();
        }
    }

    /// The hash of the block at a height, if there is one.
    pub(super) fn hash(&self, number: u64) -> Option<[u8; 32]> {
        self.hashes.get(usize::try_from(number).ok()?).copied()
    }

    /// The block at a height.
    pub(super) fn at(&self, number: u64) -> Result<&Arc<Sealed>, Unreadable> {
        let hash = self.hash(number).ok_or(Unreadable::Unknown)?;
        let behind = self.head.header.number - number;
        let place = usize::try_from(behind)
            .ok()
            .and_then(|behind| self.blocks.len().checked_sub(behind)?.checked_sub(1));
        place
            .and_then(|place| self.blocks.get(place))
            .ok_or(Unreadable::Discarded(hash))
    }

    /// The block with a hash.
    pub(super) fn find(&self, hash: &[u8; 32]) -> Result<&Arc<Sealed>, Unreadable> {
        let height = self.heights.get(hash).ok_or(Unreadable::Unknown)?;
        self.at(*height)
    }

    /// The state after a block.
    pub(super) fn state(&self, block: &Sealed) -> Result<View<'_>, Unreadable> {
        let view = self.store.at(block.header.number);
        view.ok_or(Unreadable::Discarded(block.hash))
    }
}
