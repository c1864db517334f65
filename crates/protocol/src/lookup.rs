//! A table that is only looked up in: it cannot be listed, so the order that its entries do not have
//! decides nothing.
//!
//! For tables of thousands that are asked thousands of times. Keys are hashed without a secret, for
//! nothing here is random: whoever grinds names that collide makes as many as it has hotkeys, one a
//! cycle, and looking through those takes no time.

use std::hash::{BuildHasherDefault, DefaultHasher, Hash};

#[expect(
    clippy::disallowed_types,
    reason = "never listed: the order of its entries cannot matter"
)]
type Table<Key, Value> = std::collections::HashMap<Key, Value, BuildHasherDefault<DefaultHasher>>;

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
