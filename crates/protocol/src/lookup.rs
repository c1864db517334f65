//! A table that is only looked up in: it cannot be listed, so the order that its entries do not have
//! decides nothing.
//!
//! For tables of thousands that are asked thousands of times. Keys are hashes already, or public keys
//! that are spread as evenly: a few of their bytes are as good as another hash of all of them. Whoever
//! grinds names that collide makes as many as it has hotkeys, one a cycle, and looking through those
//! takes no time.

use std::collections::BTreeSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};

#[expect(
    clippy::disallowed_types,
    reason = "never listed: the order of its entries cannot matter"
)]
type Table<Key, Value> = std::collections::HashMap<Key, Value, BuildHasherDefault<NameHasher>>;

/// Odd, and near 2⁶⁴ divided by the golden ratio: consecutive numbers land far apart.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Takes the first eight bytes of a name as its hash.
#[derive(Debug, Default)]
pub struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    /// Numbers that were given out one after the other.
    fn write_u64(&mut self, number: u64) {
        self.0 ^= number.wrapping_mul(SPREAD);
    }

    /// How long a name is does not tell it from others.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Values by key.
#[derive(Debug, Clone)]
pub(crate) struct Lookup<Key, Value>(Table<Key, Value>);

impl<Key: Eq + Hash, Value> Lookup<Key, Value> {
    pub(crate) fn get(&self, key: &Key) -> Option<&Value> {
        self.0.get(key)
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    /// Takes out everything that is not among these; gives the keys, in their order.
    pub(crate) fn keep_only(&mut self, these: &BTreeSet<Key>) -> Vec<Key>
    where
        Key: Ord,
    {
        let others = self.0.extract_if(|key, _| !these.contains(key));
        let mut keys: Vec<Key> = others.map(|(key, _)| key).collect();
        keys.sort_unstable();
        self.0.shrink_to_fit();
        keys
    }

    /// Enters a value, in the place of an earlier one.
    pub(crate) fn insert(&mut self, key: Key, value: Value) {
        self.0.insert(key, value);
    }
}

impl<Key, Value> Default for Lookup<Key, Value> {
    fn default() -> Self {
        Self(Table::default())
    }
}

impl<Key: Eq + Hash, Value> FromIterator<(Key, Value)> for Lookup<Key, Value> {
    fn from_iter<I: IntoIterator<Item = (Key, Value)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}
