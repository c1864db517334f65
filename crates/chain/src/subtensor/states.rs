//! What has been read of the states after the newest blocks, so that nothing is asked for twice.
//!
//! The state after a block never changes: what was read of it holds for whoever means the same hash.
//! And what is looked at in one block is mostly looked at in the next, so the first question about a
//! block asks for all of that at once ([`States::habits`]); a key at which nobody looks any more is
//! left out a few blocks later. Knows nothing of what the keys stand for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use connito_protocol::ids::BlockHash;
use tokio::sync::OnceCell;

use crate::runtime::{EventRecord, Runtime};

/// Blocks that are remembered: the newest, the one before, where an operation is being confirmed,
/// and as many on the other side of a fork.
const REMEMBERED_BLOCKS: usize = 4;

/// The value of a storage key; none where nothing was written.
type Stored = Option<Vec<u8>>;

/// The states after the newest blocks that were read, oldest first.
#[derive(Debug, Default)]
pub(super) struct States(Mutex<VecDeque<(BlockHash, Arc<State>)>>);

/// The state after one block, as far as it has been read.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The runtime by which it is read, found with the first question.
    pub(super) runtime: OnceCell<Runtime>,
    /// What happened in the block.
    pub(super) events: OnceCell<Arc<[EventRecord]>>,
    entries: Mutex<BTreeMap<Vec<u8>, Entry>>,
}

#[derive(Debug)]
struct Entry {
    value: Stored,
    looked_at: bool,
}

fn open<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl States {
    /// What has been read of the state after a block.
    pub(super) fn after(&self, block: BlockHash) -> Arc<State> {
        if let Some(state) = self.find(block) {
            return state;
        }
        let mut states = open(&self.0);
        let state = Arc::<State>::default();
        states.push_back((block, Arc::clone(&state)));
        if states.len() > REMEMBERED_BLOCKS {
            states.pop_front();
        }
        state
    }

    /// What has been read of the state after a block, if it is remembered.
    pub(super) fn find(&self, block: BlockHash) -> Option<Arc<State>> {
        let states = open(&self.0);
        let found = states.iter().find(|(hash, _)| *hash == block);
        found.map(|(_, state)| Arc::clone(state))
    }

    /// The keys that were looked at in the newest blocks. Not in the newest alone: whoever looks at one
    /// thing there first must not make the others forget what they always look at.
    pub(super) fn habits(&self) -> BTreeSet<Vec<u8>> {
        let states = open(&self.0);
        let mut keys = BTreeSet::new();
        for (_, state) in states.iter() {
            let entries = open(&state.entries);
            let looked_at = entries.iter().filter(|(_, entry)| entry.looked_at);
            keys.extend(looked_at.map(|(key, _)| key.clone()));
        }
        keys
    }
}

impl State {
    /// Those of these keys that have not been read.
    pub(super) fn unread<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let entries = open(&self.entries);
        keys.filter(|key| !entries.contains_key(*key))
            .map(<[u8]>::to_vec)
            .collect()
    }

    /// Remembers what was read.
    pub(super) fn remember(&self, values: BTreeMap<Vec<u8>, Stored>) {
        let mut entries = open(&self.entries);
        for (key, value) in values {
            let looked_at = false;
            entries.entry(key).or_insert(Entry { value, looked_at });
        }
    }

    /// The value of a key, if it has been read.
    pub(super) fn look_at(&self, key: &[u8]) -> Option<Stored> {
        let mut entries = open(&self.entries);
        let entry = entries.get_mut(key)?;
        entry.looked_at = true;
        Some(entry.value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(states: &States, block: u8, keys: &[&[u8]]) -> Arc<State> {
        let state = states.after(BlockHash([block; 32]));
        let value = |key: &&[u8]| (key.to_vec(), Some(vec![block]));
        state.remember(keys.iter().map(value).collect());
        state
    }

    /// What should not happen: that the questions grow with every neuron there ever was.
    #[test]
    fn only_what_was_looked_at_is_a_habit() {
        let states = States::default();
        assert!(states.habits().is_empty());
        let first = read(&states, 1, &[b"stays", b"goes"]);
        assert_eq!(first.look_at(b"stays"), Some(Some(vec![1])));
        assert_eq!(first.look_at(b"never asked for"), None);
        let habits = BTreeSet::from([b"stays".to_vec()]);
        assert_eq!(states.habits(), habits);
        for block in 2..=REMEMBERED_BLOCKS as u8 {
            read(&states, block, &[b"stays"]);
            assert_eq!(states.habits(), habits);
        }
        read(&states, 9, &[b"stays"]);
        assert!(states.habits().is_empty(), "nobody has looked for long");
    }

    #[test]
    fn what_was_read_of_one_block_says_nothing_of_another() {
        let states = States::default();
        read(&states, 1, &[b"key"]);
        let second = states.after(BlockHash([2; 32]));
        assert_eq!(second.look_at(b"key"), None);
        assert_eq!(second.unread([&b"key"[..]].into_iter()), [b"key"]);
        let again = states.after(BlockHash([1; 32]));
        assert_eq!(again.look_at(b"key"), Some(Some(vec![1])));
    }

    #[test]
    fn old_blocks_are_forgotten() {
        let states = States::default();
        for block in 0..=REMEMBERED_BLOCKS as u8 {
            read(&states, block, &[b"key"]);
        }
        assert_eq!(states.after(BlockHash([0; 32])).look_at(b"key"), None);
    }
}
