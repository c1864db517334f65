//! What lets one mebibyte of a blob be verified without the rest: the BLAKE3 tree cut at 1 MiB.
//!
//! ```text
//!                 id = root
//!               /           \
//!           parent           \
//!          /      \           \
//!     subtree 0  subtree 1  subtree 2     chaining values of 1 MiB each, the last one shorter
//! ```
//!
//! A mebibyte is 1,024 chunks of BLAKE3, a power of two, so each is a subtree of its own (BLAKE3
//! paper, section 2.1) and the tree above them has the same shape over subtrees as over chunks. The
//! outline is the list of their chaining values; merging them gives the blob's name, so an outline
//! that does so is authentic. A blob of at most 1 MiB is its own only subtree, and its name the only
//! entry.
//!
//! The length that an outline states is proven only together with the last subtree's bytes: the
//! values of a deeper or shallower level would merge to the same root, but no bytes hash to them.
//! 32 bytes a mebibyte: the outline of a 50 MB update has 1.6 kB.

use std::ops::Range;

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use connito_protocol::ids::BlobId;

/// The unit of verification, transfer and resumption.
pub const SUBTREE_BYTES: u64 = 1 << 20;

/// Far above any blob there will be, and low enough that no position arithmetic can overflow.
const MAX_BLOB_BYTES: u64 = 1 << 50;

/// Why bytes are not the outline of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutlineError {
    /// The bytes are not a length followed by one 32-byte value for each subtree.
    #[error("an outline of {0} bytes does not fit the length that it states")]
    Shape(usize),
    /// The subtrees do not merge to the blob's name.
    #[error("the outline belongs to blob {0}")]
    OtherBlob(BlobId),
}

/// The chaining values of a blob's subtrees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    bytes: u64,
    subtrees: Vec<[u8; 32]>,
}

impl Outline {
    /// The outline of a blob of at most one subtree.
    #[must_use]
    pub fn of_small(id: BlobId, bytes: u64) -> Self {
        Self {
            bytes,
            subtrees: vec![id.0],
        }
    }

    /// The outline of bytes in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut outliner = Outliner::new();
        outliner.update(bytes);
        outliner.finish()
    }

    /// The blob's length in bytes, as stated.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The chaining value of each subtree; the blob's name if there is only one.
    #[must_use]
    pub fn subtrees(&self) -> &[[u8; 32]] {
        &self.subtrees
    }

    /// The name of the blob that this outline belongs to.
    #[must_use]
    pub fn id(&self) -> BlobId {
        BlobId(merge(&self.subtrees, Level::Root))
    }

    /// The bytes that subtree `index` covers; empty behind the last one.
    #[must_use]
    pub fn range(&self, index: usize) -> Range<u64> {
        let start = (index as u64).saturating_mul(SUBTREE_BYTES);
        start.min(self.bytes)..start.saturating_add(SUBTREE_BYTES).min(self.bytes)
    }

    /// Whether `bytes` are exactly subtree `index`.
    #[must_use]
    pub fn holds(&self, index: usize, bytes: &[u8]) -> bool {
        let mut hasher = hasher_at(index);
        hasher.update(bytes);
        self.ends_in(index, &hasher)
    }

    /// Whether exactly subtree `index` went into a hasher that [`hasher_at`] gave for it.
    pub(super) fn ends_in(&self, index: usize, hasher: &blake3::Hasher) -> bool {
        let range = self.range(index);
        let Some(expected) = self.subtrees.get(index) else {
            return false;
        };
        if hasher.count() != range.end - range.start {
            return false;
        }
        let found = if self.subtrees.len() == 1 {
            *hasher.finalize().as_bytes()
        } else {
            hasher.finalize_non_root()
        };
        found == *expected
    }

    /// As sent and stored: the length as eight little-endian bytes, then the values.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut encoded = self.bytes.to_le_bytes().to_vec();
        encoded.extend_from_slice(self.subtrees.as_flattened());
        encoded
    }

    /// Reads an outline and checks it against the blob's name.
    ///
    /// # Errors
    /// When the bytes have another shape, or are the outline of something else.
    pub fn from_bytes(id: &BlobId, encoded: &[u8]) -> Result<Self, OutlineError> {
        let shape = OutlineError::Shape(encoded.len());
        let (length, values) = encoded.split_first_chunk::<8>().ok_or(shape)?;
        let bytes = u64::from_le_bytes(*length);
        let (subtrees, rest) = values.as_chunks::<32>();
        if bytes > MAX_BLOB_BYTES
            || !rest.is_empty()
            || subtrees.len() as u64 != subtree_count(bytes)
        {
            return Err(shape);
        }
        let outline = Self {
            bytes,
            subtrees: subtrees.to_vec(),
        };
        match outline.id() {
            found if found == *id => Ok(outline),
            found => Err(OutlineError::OtherBlob(found)),
        }
    }

    /// How long the encoding of an outline can be for a blob of at most `bytes`.
    #[must_use]
    pub fn encoded_bytes(bytes: u64) -> u64 {
        subtree_count(bytes).saturating_mul(32).saturating_add(8)
    }
}

/// Computes an outline, and with it the blob's name, from bytes that arrive in pieces.
#[derive(Debug)]
pub struct Outliner {
    whole: Vec<[u8; 32]>,
    /// The subtree being filled. It is closed only when a byte behind it arrives, because a blob of
    /// one subtree is finished as a root and not as a subtree.
    current: blake3::Hasher,
    filled: u64,
}

impl Outliner {
    /// An outliner that has seen no bytes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            whole: Vec::new(),
            current: hasher_at(0),
            filled: 0,
        }
    }

    /// The next bytes of the blob, any number of them.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.filled == SUBTREE_BYTES {
                self.whole.push(self.current.finalize_non_root());
                self.current = hasher_at(self.whole.len());
                self.filled = 0;
            }
            // At most one mebibyte, so it fits.
            let room = (SUBTREE_BYTES - self.filled) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.current.update(now);
            self.filled += now.len() as u64;
            bytes = later;
        }
    }

    /// The outline of all bytes seen.
    #[must_use]
    pub fn finish(mut self) -> Outline {
        let bytes = self.whole.len() as u64 * SUBTREE_BYTES + self.filled;
        let last = if self.whole.is_empty() {
            *self.current.finalize().as_bytes()
        } else {
            self.current.finalize_non_root()
        };
        self.whole.push(last);
        Outline {
            bytes,
            subtrees: self.whole,
        }
    }
}

impl Default for Outliner {
    fn default() -> Self {
        Self::new()
    }
}

/// Which subtree a byte lies in.
pub(super) fn index_of(position: u64) -> usize {
    usize::try_from(position / SUBTREE_BYTES).unwrap_or(usize::MAX)
}

fn subtree_count(bytes: u64) -> u64 {
    bytes.div_ceil(SUBTREE_BYTES).max(1)
}

/// What subtree `index` is hashed with.
pub(super) fn hasher_at(index: usize) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    if index > 0 {
        hasher.set_input_offset(index as u64 * SUBTREE_BYTES);
    }
    hasher
}

enum Level {
    Root,
    Inner,
}

fn merge(subtrees: &[[u8; 32]], level: Level) -> [u8; 32] {
    if let [only] = subtrees {
        return *only;
    }
    // The left side is the largest power of two that leaves something for the right (paper, 2.1).
    let left = subtrees.len().next_power_of_two() / 2;
    let (left, right) = subtrees.split_at(left);
    let (left, right) = (merge(left, Level::Inner), merge(right, Level::Inner));
    match level {
        Level::Root => *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes(),
        Level::Inner => merge_subtrees_non_root(&left, &right, Mode::Hash),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|i| (i * 31 + i / 977) as u8).collect()
    }

    /// Lengths around every change of the tree's shape, and pieces that straddle the borders.
    #[test]
    fn an_outline_merges_to_the_hash_that_blake3_gives_whatever_the_length() {
        let mebibyte = 1 << 20;
        for length in [
            0,
            1,
            1024,
            mebibyte - 1,
            mebibyte,
            mebibyte + 1,
            2 * mebibyte,
            3 * mebibyte + 7,
            5 * mebibyte,
            9 * mebibyte + 1,
        ] {
            let bytes = blob(length);
            let mut outliner = Outliner::new();
            bytes
                .chunks(700_001)
                .for_each(|piece| outliner.update(piece));
            let outline = outliner.finish();
            assert_eq!(outline.id(), BlobId::of(&bytes), "{length} bytes");
            assert_eq!(outline.bytes(), length as u64);
            for index in 0..outline.subtrees().len() {
                let range = outline.range(index);
                let subtree = &bytes[range.start as usize..range.end as usize];
                assert!(outline.holds(index, subtree), "subtree {index} of {length}");
            }
            let encoded = outline.to_bytes();
            assert_eq!(encoded.len() as u64, Outline::encoded_bytes(length as u64));
            assert_eq!(Outline::from_bytes(&outline.id(), &encoded), Ok(outline));
        }
    }

    #[test]
    fn a_subtree_verifies_in_its_own_place_only() {
        let bytes = vec![7; 3 << 20];
        let outline = Outline::of(&bytes);
        assert!(outline.holds(1, &bytes[1 << 20..2 << 20]));
        let mut flipped = bytes[1 << 20..2 << 20].to_vec();
        flipped[500_000] ^= 1;
        assert!(!outline.holds(1, &flipped));
        assert!(!outline.holds(1, &bytes[..(1 << 20) - 1]), "too short");
        assert!(!outline.holds(3, &[]), "behind the end");
        let others = blob(3 << 20);
        assert!(!Outline::of(&others).holds(2, &others[..1 << 20]));
    }

    /// The values one level up merge to the same root, so the outline alone does not prove its
    /// length. What should happen: no bytes verify under it, the last subtree's least of all.
    #[test]
    fn an_outline_of_another_depth_is_betrayed_by_its_last_subtree() {
        let bytes = blob(4 << 20);
        let honest = Outline::of(&bytes);
        let lied = Outline {
            bytes: 2 << 20,
            subtrees: vec![
                merge(&honest.subtrees[..2], Level::Inner),
                merge(&honest.subtrees[2..], Level::Inner),
            ],
        };
        assert_eq!(lied.id(), honest.id());
        assert!(!lied.holds(1, &bytes[1 << 20..2 << 20]));
        assert!(!lied.holds(1, &bytes[3 << 20..]));
    }

    #[test]
    fn any_bytes_are_an_outline_or_an_error() {
        let id = BlobId::of(b"x");
        for length in 0..100 {
            assert!(Outline::from_bytes(&id, &vec![0xff; length]).is_err());
            assert!(Outline::from_bytes(&id, &vec![0; length]).is_err());
        }
    }
}
