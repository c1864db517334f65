//! The state as a Substrate node holds it: storage keys to SCALE bytes.
//!
//! A key is the hash of the pallet's name, the hash of the item's name, and the item's own keys, each
//! hashed as its declaration says. [`Item`] is such a declaration with the types of its keys and its
//! value, so that the pallets read and write numbers and lists, and everybody else reads bytes. An
//! [`Overlay`] holds what a block has changed so far; a failed call's changes are taken back.
//!
//! What the items mean is the pallets' business, which block a state belongs to the history's.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Bound;

use parity_scale_codec::{Decode, Encode};

use crate::hash::{blake2_128, twox64, twox128};

/// A public key, as an account or a hotkey.
pub(super) type AccountId = [u8; 32];

/// A storage key.
pub(super) type Key = Vec<u8>;

/// The state after some block: something that can be read by key.
pub(super) trait State {
    /// The value under a key.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;

    /// The first key after `after` (or from `prefix` on) that starts with `prefix` and has a value.
    fn next_key(&self, prefix: &[u8], after: Option<&[u8]>) -> Option<Key>;
}

/// What an item does with one of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hasher {
    /// The key itself.
    Identity,
    /// xxHash64 of the key, then the key.
    Twox64Concat,
    /// BLAKE2b-128 of the key, then the key.
    Blake2_128Concat,
}

impl Hasher {
    fn append(self, key: &[u8], out: &mut Key) {
        match self {
            Self::Identity => {}
            Self::Twox64Concat => out.extend_from_slice(&twox64(key, 0).to_le_bytes()),
            Self::Blake2_128Concat => out.extend_from_slice(&blake2_128(key)),
        }
        out.extend_from_slice(key);
    }

    /// Bytes that stand before the key itself.
    fn prefix_bytes(self) -> usize {
        match self {
            Self::Identity => 0,
            Self::Twox64Concat => 8,
            Self::Blake2_128Concat => 16,
        }
    }
}

/// The keys of one entry, in the order of the item's hashers.
pub(super) trait Keys {
    /// Each key's SCALE bytes.
    fn encoded(&self) -> Vec<Vec<u8>>;
}

impl Keys for () {
    fn encoded(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
}

impl<A: Encode> Keys for (A,) {
    fn encoded(&self) -> Vec<Vec<u8>> {
        vec![self.0.encode()]
    }
}

impl<A: Encode, B: Encode> Keys for (A, B) {
    fn encoded(&self) -> Vec<Vec<u8>> {
        vec![self.0.encode(), self.1.encode()]
    }
}

impl<A: Encode, B: Encode, C: Encode> Keys for (A, B, C) {
    fn encoded(&self) -> Vec<Vec<u8>> {
        vec![self.0.encode(), self.1.encode(), self.2.encode()]
    }
}

/// One storage item: a value of type `V` for every `K`.
#[derive(Debug)]
pub(super) struct Item<K, V> {
    pallet: &'static str,
    name: &'static str,
    hashers: &'static [Hasher],
    types: PhantomData<fn(K) -> V>,
}

impl<K: Keys, V: Encode + Decode> Item<K, V> {
    /// Declares an item with one hasher for each key.
    pub(super) const fn new(
        pallet: &'static str,
        name: &'static str,
        hashers: &'static [Hasher],
    ) -> Self {
        Self {
            pallet,
            name,
            hashers,
            types: PhantomData,
        }
    }

    /// What every key of this item starts with.
    pub(super) fn prefix(&self) -> Key {
        let mut key = twox128(self.pallet.as_bytes()).to_vec();
        key.extend_from_slice(&twox128(self.name.as_bytes()));
        key
    }

    /// The storage key of one entry.
    pub(super) fn key(&self, keys: &K) -> Key {
        self.key_of_parts(&keys.encoded())
    }

    /// What the keys of all entries start with that share their first keys.
    pub(super) fn prefix_of<P: Keys>(&self, first: &P) -> Key {
        self.key_of_parts(&first.encoded())
    }

    fn key_of_parts(&self, parts: &[Vec<u8>]) -> Key {
        let mut key = self.prefix();
        for (hasher, part) in self.hashers.iter().zip(parts) {
            hasher.append(part, &mut key);
        }
        key
    }

    /// The entry, if it has a value.
    pub(super) fn get(&self, state: &impl State, keys: &K) -> Option<V> {
        let bytes = state.get(&self.key(keys))?;
        // Only this type writes under this key.
        V::decode(&mut bytes.as_slice()).ok()
    }

    /// The entry, or what the item holds where nothing was written.
    pub(super) fn get_or(&self, state: &impl State, keys: &K, default: V) -> V {
        self.get(state, keys).unwrap_or(default)
    }

    /// Writes the entry.
    pub(super) fn put(&self, state: &mut Overlay<'_>, keys: &K, value: &V) {
        state.set(self.key(keys), Some(value.encode()));
    }

    /// Removes the entry.
    pub(super) fn kill(&self, state: &mut Overlay<'_>, keys: &K) {
        state.set(self.key(keys), None);
    }

    /// Every entry whose first keys are `first`, in the order of storage keys, with the SCALE bytes of
    /// the last key. `first` has all keys but one.
    pub(super) fn entries<P: Keys, L: Decode>(&self, state: &impl State, first: &P) -> Vec<(L, V)> {
        let prefix = self.prefix_of(first);
        let hashed = self
            .hashers
            .last()
            .map_or(0, |hasher| hasher.prefix_bytes());
        let mut entries = Vec::new();
        let mut after: Option<Key> = None;
        while let Some(key) = state.next_key(&prefix, after.as_deref()) {
            let last = key.get(prefix.len() + hashed..).unwrap_or_default();
            let value = state.get(&key).unwrap_or_default();
            if let (Ok(last), Ok(value)) =
                (L::decode(&mut &*last), V::decode(&mut value.as_slice()))
            {
                entries.push((last, value));
            }
            after = Some(key);
        }
        entries
    }
}

/// What a block has changed so far, over the state of its parent.
#[derive(Debug)]
pub(super) struct Overlay<'a> {
    parent: &'a dyn DynState,
    changes: BTreeMap<Key, Option<Vec<u8>>>,
    /// What the running call has overwritten: the value before it, or that it was the parent's.
    undo: Option<BTreeMap<Key, Option<Option<Vec<u8>>>>>,
}

/// [`State`] behind a pointer.
pub(super) trait DynState: State + std::fmt::Debug + Sync {}

impl<S: State + std::fmt::Debug + Sync> DynState for S {}

impl<'a> Overlay<'a> {
    /// No changes yet.
    pub(super) fn new(parent: &'a dyn DynState) -> Self {
        Self {
            parent,
            changes: BTreeMap::new(),
            undo: None,
        }
    }

    /// Runs a call; if it fails, nothing of it remains, nor of the calls inside it that have succeeded.
    ///
    /// # Errors
    /// What the call fails with.
    pub(super) fn transact<T, E>(
        &mut self,
        call: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let around = self.undo.replace(BTreeMap::new());
        let result = call(self);
        let undo = std::mem::replace(&mut self.undo, around).unwrap_or_default();
        if result.is_err() {
            for (key, before) in undo {
                match before {
                    Some(change) => self.changes.insert(key, change),
                    None => self.changes.remove(&key),
                };
            }
        } else if let Some(around) = &mut self.undo {
            for (key, before) in undo {
                around.entry(key).or_insert(before);
            }
        }
        result
    }

    /// The changes, in the order of keys: the new value, or that there is none.
    pub(super) fn into_changes(self) -> BTreeMap<Key, Option<Vec<u8>>> {
        self.changes
    }

    fn set(&mut self, key: Key, value: Option<Vec<u8>>) {
        let before = self.changes.insert(key.clone(), value);
        if let Some(undo) = &mut self.undo {
            undo.entry(key).or_insert(before);
        }
    }
}

impl State for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        match self.changes.get(key) {
            Some(change) => change.clone(),
            None => self.parent.get(key),
        }
    }

    fn next_key(&self, prefix: &[u8], after: Option<&[u8]>) -> Option<Key> {
        let mut from = after.map(<[u8]>::to_vec);
        loop {
            let below = self.parent.next_key(prefix, from.as_deref());
            let bound = match from.as_deref() {
                Some(after) if after >= prefix => Bound::Excluded(after),
                _ => Bound::Included(prefix),
            };
            let changed = self
                .changes
                .range::<[u8], _>((bound, Bound::Unbounded))
                .next()
                .filter(|(key, _)| key.starts_with(prefix));
            let next = match (below, changed) {
                (Some(below), Some((key, _))) if below < *key => return Some(below),
                (_, Some((key, Some(_)))) => return Some(key.clone()),
                (_, Some((key, None))) => key.clone(),
                (below, None) => return below,
            };
            // Removed by this block: look on behind it.
            from = Some(next);
        }
    }
}

/// A state of one moment, without history, to test rules on.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct Memory(pub(super) BTreeMap<Key, Vec<u8>>);

#[cfg(test)]
impl State for Memory {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key).cloned()
    }

    fn next_key(&self, prefix: &[u8], after: Option<&[u8]>) -> Option<Key> {
        let bound = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut keys = self.0.range::<[u8], _>((bound, Bound::Unbounded));
        let (key, _) = keys.next()?;
        key.starts_with(prefix).then(|| key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPO: Item<(u16,), u16> = Item::new("SubtensorModule", "Tempo", &[Hasher::Identity]);
    const UIDS: Item<(u16, [u8; 32]), u16> = Item::new(
        "SubtensorModule",
        "Uids",
        &[Hasher::Identity, Hasher::Blake2_128Concat],
    );
    const COMMITMENT_OF: Item<(u16, [u8; 32]), u32> = Item::new(
        "Commitments",
        "CommitmentOf",
        &[Hasher::Identity, Hasher::Twox64Concat],
    );
    const ALICE: &str = "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d";

    fn alice() -> [u8; 32] {
        hex::decode(ALICE).unwrap().try_into().unwrap()
    }

    /// Keys that a public node gave for the same entries.
    #[test]
    fn keys_are_those_of_a_real_node() {
        assert_eq!(
            hex::encode(TEMPO.key(&(1,))),
            "658faa385070e074c85bf6b568cf05557641384bb339f3758acddfd7053d33170100"
        );
        let uids = "658faa385070e074c85bf6b568cf0555aab1b4e78e1ea8305462ee53b3686dc80300\
                    de1e86a9a8c739864cf3cc5ec2bea59f";
        assert_eq!(
            hex::encode(UIDS.key(&(3, alice()))),
            format!("{uids}{ALICE}")
        );
        let commitment = "ca407206ec1ab726b2636c4b145ac287419a60ae8b01e6dcaebd7317e43c69bf0300\
                          518366b5b1bc7c99";
        assert_eq!(
            hex::encode(COMMITMENT_OF.key(&(3, alice()))),
            format!("{commitment}{ALICE}")
        );
    }

    #[test]
    fn entries_show_what_the_block_changed_and_hide_what_it_removed() {
        let mut parent = Memory::default();
        for who in [1, 2, 3] {
            let key = UIDS.key(&(7, [who; 32]));
            parent.0.insert(key, u16::from(who).encode());
        }
        let mut overlay = Overlay::new(&parent);
        UIDS.kill(&mut overlay, &(7, [2; 32]));
        UIDS.put(&mut overlay, &(7, [4; 32]), &4);
        UIDS.put(&mut overlay, &(7, [1; 32]), &9);
        UIDS.put(&mut overlay, &(8, [5; 32]), &5);
        let mut entries: Vec<([u8; 32], u16)> = UIDS.entries(&overlay, &(7_u16,));
        entries.sort_unstable();
        assert_eq!(entries, [([1; 32], 9), ([3; 32], 3), ([4; 32], 4)]);
    }

    #[test]
    fn a_failed_call_leaves_what_was_there_before_it() {
        let parent = Memory::default();
        let mut overlay = Overlay::new(&parent);
        TEMPO.put(&mut overlay, &(1,), &10);
        let failed: Result<(), ()> = overlay.transact(|state| {
            TEMPO.put(state, &(1,), &11);
            TEMPO.put(state, &(1,), &12);
            TEMPO.put(state, &(2,), &13);
            Err(())
        });
        assert_eq!(failed, Err(()));
        assert_eq!(TEMPO.get(&overlay, &(1,)), Some(10));
        assert_eq!(TEMPO.get(&overlay, &(2,)), None);
        assert_eq!(overlay.into_changes().len(), 1);
    }
}
