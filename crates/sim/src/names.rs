//! Tables by names that are hashes already, or keys that are spread as evenly: a few of their bytes are
//! as good as another hash of all of them. The order in which such a table lists its entries is fixed,
//! and means nothing.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// Values by name.
pub(crate) type NameMap<Name, T> = HashMap<Name, T, BuildHasherDefault<NameHasher>>;

/// Names.
pub(crate) type NameSet<Name> = HashSet<Name, BuildHasherDefault<NameHasher>>;

/// Odd, and near 2⁶⁴ divided by the golden ratio: consecutive numbers land far apart.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Takes the first eight bytes of a name as its hash.
#[derive(Debug, Default)]
pub(crate) struct NameHasher(u64);

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
