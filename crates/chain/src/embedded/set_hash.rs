//! The state root: a hash of the set of all (key, value) pairs that follows every change.
//!
//! ```text
//! lanes(key, value) = 1,024 numbers of 16 bits from BLAKE3's extendable output over
//!                     length of key u64 ‖ key ‖ value, in a context of its own
//! hash of a set     = Σ lanes, lane by lane modulo 2¹⁶
//! root              = blake2_256(hash of the set)
//! ```
//!
//! This is LtHash (Bellare and Micciancio 1997; Lewi and others 2019, with these parameters): finding two
//! sets with one hash is a short-vector problem with about 200 bits of security. Adding or removing a
//! pair costs two kilobytes of hashing, however large the state is; and the whole state read back from a
//! file can be checked against a header.
//!
//! A real node's root is that of a Merkle trie, so that light clients can be shown proofs. Nobody asks
//! this chain for proofs, and its tools never compute a root; what a root is for here is that equal states
//! have equal block hashes and different ones do not.

use std::fmt;

use crate::hash::blake2_256;

const LANES: usize = 1_024;
const CONTEXT: &str = "connito embedded chain 2026-11 state root lanes";

/// The hash of a set of pairs. The default is that of the empty set.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SetHash(Box<[u16; LANES]>);

impl Default for SetHash {
    fn default() -> Self {
        Self(Box::new([0; LANES]))
    }
}

impl SetHash {
    /// Puts a pair into the set.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.combine(key, value, u16::wrapping_add);
    }

    /// Takes a pair out that is in the set.
    pub(super) fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.combine(key, value, u16::wrapping_sub);
    }

    /// The root of the state with exactly these pairs.
    pub(super) fn root(&self) -> [u8; 32] {
        let bytes: Vec<u8> = self.0.iter().flat_map(|lane| lane.to_le_bytes()).collect();
        blake2_256(&bytes)
    }

    fn combine(&mut self, key: &[u8], value: &[u8], with: fn(u16, u16) -> u16) {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&(key.len() as u64).to_le_bytes());
        hasher.update(key);
        hasher.update(value);
        let mut expanded = [0; LANES * 2];
        hasher.finalize_xof().fill(&mut expanded);
        let (lanes, _) = expanded.as_chunks::<2>();
        for (lane, bytes) in self.0.iter_mut().zip(lanes) {
            *lane = with(*lane, u16::from_le_bytes(*bytes));
        }
    }
}

impl fmt::Debug for SetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SetHash({})", hex::encode(self.root()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(pairs: &[(&str, &str)]) -> [u8; 32] {
        let mut hash = SetHash::default();
        for (key, value) in pairs {
            hash.add(key.as_bytes(), value.as_bytes());
        }
        hash.root()
    }

    #[test]
    fn the_root_is_a_function_of_the_set_and_not_of_its_history() {
        assert_eq!(
            root(&[("a", "1"), ("b", "2")]),
            root(&[("b", "2"), ("a", "1")])
        );
        let mut detour = SetHash::default();
        detour.add(b"b", b"2");
        detour.add(b"c", b"3");
        detour.add(b"a", b"1");
        detour.remove(b"c", b"3");
        assert_eq!(detour.root(), root(&[("a", "1"), ("b", "2")]));
    }

    /// What should not happen: bytes moved between key and value, or values exchanged, unnoticed.
    #[test]
    fn different_sets_have_different_roots() {
        let roots = [
            root(&[]),
            root(&[("", "")]),
            root(&[("ab", "c")]),
            root(&[("a", "bc")]),
            root(&[("a", "1"), ("b", "2")]),
            root(&[("a", "2"), ("b", "1")]),
            root(&[("a", "1")]),
            root(&[("a", "1"), ("a", "1")]),
        ];
        for (at, one) in roots.iter().enumerate() {
            assert!(!roots[at + 1..].contains(one), "{at}");
        }
    }

    /// Recorded once: another value here means that no existing chain folder opens any more.
    #[test]
    fn the_root_of_a_small_set_is_the_recorded_one() {
        assert_eq!(hex::encode(root(&[("key", "value")])), RECORDED);
    }

    const RECORDED: &str = "909c9e45050fd312981ce852391af6f63baa6550373875f2148c4a142dd6d654";
}
