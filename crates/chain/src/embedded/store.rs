//! The state of every kept block: one list of versions per storage key.
//!
//! A version is the block that wrote it and the value, or that the key was removed. Reading at a block
//! finds the newest version not after it. What lies behind the horizon is dropped key by key, using the
//! record of which keys each block wrote, so that memory and time follow the changes, not the state.
//! Beside the versions stands the [`SetHash`] of the newest state.
//!
//! Which hash a block has and what its keys mean is not known here.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use super::set_hash::SetHash;
use super::storage::{Key, State};

/// What a block changes: the new value of a key, or that it has none any more.
pub(super) type Changes = BTreeMap<Key, Option<Vec<u8>>>;

/// One key's values, oldest first. The first may be older than the horizon, never the second.
type Versions = VecDeque<(u64, Option<Vec<u8>>)>;

/// The states of consecutive blocks.
#[derive(Debug)]
pub(super) struct Store {
    entries: BTreeMap<Key, Versions>,
    /// The keys written by each block after the oldest.
    written: VecDeque<Vec<Key>>,
    oldest: u64,
    hash: SetHash,
    kept: usize,
}

/// The state after one block.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    store: &'a Store,
    at: u64,
}

impl Store {
    /// The state of `block` alone, of which as many successors will be `kept`, itself included.
    pub(super) fn new(block: u64, state: BTreeMap<Key, Vec<u8>>, kept: usize) -> Self {
        let mut hash = SetHash::default();
        let mut entries = BTreeMap::new();
        for (key, value) in state {
            hash.add(&key, &value);
            entries.insert(key, Versions::from([(block, Some(value))]));
        }
        Self {
            entries,
            written: VecDeque::new(),
            oldest: block,
            hash,
            kept: kept.max(1),
        }
    }

    /// The oldest block that can be read.
    pub(super) fn oldest(&self) -> u64 {
        self.oldest
    }

    fn newest(&self) -> u64 {
        self.oldest + self.written.len() as u64
    }

    /// The state after a block, if it is kept.
    pub(super) fn at(&self, block: u64) -> Option<View<'_>> {
        let kept = (self.oldest..=self.newest()).contains(&block);
        kept.then_some(View {
            store: self,
            at: block,
        })
    }

    /// The newest state.
    pub(super) fn head(&self) -> View<'_> {
        View {
            store: self,
            at: self.newest(),
        }
    }

    /// The hash of the newest state once `changes` are made to it, and those of them that change
    /// anything.
    pub(super) fn with(&self, changes: Changes) -> (SetHash, Changes) {
        let head = self.head();
        let mut hash = self.hash.clone();
        let mut effective = Changes::new();
        for (key, new) in changes {
            let old = head.value(&key);
            if old == new.as_deref() {
                continue;
            }
            if let Some(old) = old {
                hash.remove(&key, old);
            }
            if let Some(new) = &new {
                hash.add(&key, new);
            }
            effective.insert(key, new);
        }
        (hash, effective)
    }

    /// Adds the next block, with what [`Self::with`] gave for it.
    pub(super) fn push(&mut self, hash: SetHash, changes: Changes) {
        let block = self.newest() + 1;
        let mut written = Vec::with_capacity(changes.len());
        for (key, value) in changes {
            written.push(key.clone());
            self.entries
                .entry(key)
                .or_default()
                .push_back((block, value));
        }
        self.written.push_back(written);
        self.hash = hash;
        while self.written.len() >= self.kept {
            self.prune();
        }
    }

    /// Forgets the oldest block: its versions that the next one has overwritten.
    fn prune(&mut self) {
        let Some(overwritten) = self.written.pop_front() else {
            return;
        };
        self.oldest += 1;
        for key in overwritten {
            let Some(versions) = self.entries.get_mut(&key) else {
                continue;
            };
            let superseded = versions.partition_point(|(block, _)| *block < self.oldest);
            versions.drain(..superseded);
            let is_gone = matches!(versions.front(), Some((block, None)) if *block <= self.oldest);
            if is_gone {
                versions.pop_front();
            }
            if versions.is_empty() {
                self.entries.remove(&key);
            }
        }
    }
}

impl<'a> View<'a> {
    /// The value under a key, borrowed.
    pub(super) fn value(&self, key: &[u8]) -> Option<&'a [u8]> {
        newest_until(self.store.entries.get(key)?, self.at)
    }

    /// Every key that has a value, from the first one after `after` (or equal to `prefix`) on, as long as it
    /// starts with `prefix`.
    pub(super) fn keys(
        &self,
        prefix: &'a [u8],
        after: Option<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a Key, &'a [u8])> + use<'a> {
        let at = self.at;
        self.store
            .entries
            .range::<[u8], _>((first_after(prefix, after), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .filter_map(move |(key, versions)| Some((key, newest_until(versions, at)?)))
    }
}

impl State for View<'_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.value(key).map(<[u8]>::to_vec)
    }

    fn next_key(&self, prefix: &[u8], after: Option<&[u8]>) -> Option<Key> {
        let mut from = self
            .store
            .entries
            .range::<[u8], _>((first_after(prefix, after), Bound::Unbounded));
        from.by_ref()
            .take_while(|(key, _)| key.starts_with(prefix))
            .find(|(_, versions)| newest_until(versions, self.at).is_some())
            .map(|(key, _)| key.clone())
    }
}

fn first_after<'a>(prefix: &'a [u8], after: Option<&'a [u8]>) -> Bound<&'a [u8]> {
    match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    }
}

fn newest_until(versions: &Versions, at: u64) -> Option<&[u8]> {
    let later = versions.partition_point(|(block, _)| *block <= at);
    versions.get(later.checked_sub(1)?)?.1.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Model = Vec<BTreeMap<Key, Vec<u8>>>;

    fn change() -> impl Strategy<Value = (Key, Option<Vec<u8>>)> {
        let key = proptest::collection::vec(0_u8..3, 1..4);
        (
            key,
            proptest::option::of(proptest::collection::vec(0_u8..3, 0..2)),
        )
    }

    fn changes() -> impl Strategy<Value = Vec<Changes>> {
        let block = proptest::collection::btree_map(
            change().prop_map(|c| c.0),
            change().prop_map(|c| c.1),
            0..6,
        );
        proptest::collection::vec(block, 0..20)
    }

    fn assert_reads_as(view: View<'_>, expected: &BTreeMap<Key, Vec<u8>>) {
        let read: BTreeMap<Key, Vec<u8>> = view
            .keys(&[], None)
            .map(|(key, value)| (key.clone(), value.to_vec()))
            .collect();
        assert_eq!(&read, expected);
        for prefix in [vec![], vec![0], vec![1], vec![1, 2], vec![2, 2, 2]] {
            let mut walked = Vec::new();
            let mut after = None;
            while let Some(key) = view.next_key(&prefix, after.as_deref()) {
                walked.push(key.clone());
                after = Some(key);
            }
            let expected: Vec<_> = expected
                .keys()
                .filter(|key| key.starts_with(&prefix))
                .cloned()
                .collect();
            assert_eq!(walked, expected, "prefix {prefix:?}");
        }
    }

    proptest! {
        /// Against a copy of the whole map for every block.
        #[test]
        fn every_kept_block_reads_as_a_copy_of_it_would(blocks in changes(), kept in 1_usize..6) {
            let genesis = BTreeMap::from([(vec![1], vec![7]), (vec![2, 2], vec![8])]);
            let mut model: Model = vec![genesis.clone()];
            let mut store = Store::new(0, genesis, kept);
            for changes in blocks {
                let mut next = model.last().unwrap().clone();
                for (key, value) in &changes {
                    match value {
                        Some(value) => next.insert(key.clone(), value.clone()),
                        None => next.remove(key),
                    };
                }
                let (hash, changes) = store.with(changes);
                store.push(hash, changes);
                model.push(next);
            }
            let newest = model.len() as u64 - 1;
            let oldest = (newest + 1).saturating_sub(kept as u64);
            prop_assert_eq!(store.oldest(), oldest);
            for (block, expected) in (0..).zip(&model) {
                match store.at(block) {
                    Some(view) => assert_reads_as(view, expected),
                    None => prop_assert!(block < oldest),
                }
            }
            prop_assert!(store.at(newest + 1).is_none());
            // The hash is that of the state, however it came about.
            let fresh = Store::new(9, model.pop().unwrap(), 1);
            prop_assert_eq!(fresh.hash.root(), store.hash.root());
        }

        /// What should not happen: memory that grows with the number of blocks.
        #[test]
        fn what_is_behind_the_horizon_is_forgotten(blocks in changes()) {
            let mut store = Store::new(0, BTreeMap::new(), 1);
            for changes in blocks {
                let (hash, changes) = store.with(changes);
                store.push(hash, changes);
            }
            prop_assert!(store.entries.values().all(|versions| versions.len() == 1));
            prop_assert!(store.entries.values().all(|versions| versions[0].1.is_some()));
        }
    }
}
