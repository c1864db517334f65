//! A stored blob opened for verified reading, one mebibyte at a time, or in pieces of 64 KiB.
//!
//! Whoever waits for somebody else between two reads takes pieces, and holds no more than one meanwhile:
//! a mebibyte is read once to verify it, which leaves a hash of each piece, and then piece by piece.
//!
//! The file stays open, so a blob that is removed meanwhile can still be read to its end. Bytes that
//! do not verify are never returned; the blob is set aside.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use connito_protocol::ids::BlobId;

use super::folder::{Folder, io};
use super::outline::hasher_at;
use super::{BlobError, Outline};

/// Bytes of a piece, but for a subtree's last one.
const PIECE_BYTES: u64 = 64 << 10;

/// A verified subtree that is still to be read.
#[derive(Debug)]
pub struct Pieces {
    /// Where what is left lies in the blob.
    range: Range<u64>,
    hashes: VecDeque<blake3::Hash>,
}

/// An open blob.
#[derive(Debug)]
pub struct BlobReader {
    folder: Arc<Folder>,
    id: BlobId,
    file: File,
    outline: Outline,
}

impl BlobReader {
    pub(super) fn new(folder: Arc<Folder>, id: BlobId, file: File, outline: Outline) -> Self {
        Self {
            folder,
            id,
            file,
            outline,
        }
    }

    /// The blob's outline, verified against its name.
    #[must_use]
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// Verifies subtree `index`, holding no more than a piece of it.
    ///
    /// # Errors
    /// `Damaged` when it does not verify any more, or the disk's refusal.
    pub fn pieces(&mut self, index: usize) -> Result<Pieces, BlobError> {
        let range = self.outline.range(index);
        let mut hasher = hasher_at(index);
        let mut pieces = Pieces {
            range: range.clone(),
            hashes: VecDeque::new(),
        };
        let mut position = range.start;
        while position < range.end {
            let bytes = self.read(position..range.end)?;
            if bytes.is_empty() {
                break;
            }
            hasher.update(&bytes);
            pieces.hashes.push_back(blake3::hash(&bytes));
            position += bytes.len() as u64;
        }
        if self.outline.ends_in(index, &hasher) {
            Ok(pieces)
        } else {
            Err(self.folder.set_aside(&self.id))
        }
    }

    /// The next of a subtree's pieces; none behind the last one.
    ///
    /// # Errors
    /// `Damaged` when it is not what was verified any more, or the disk's refusal.
    pub fn piece(&mut self, pieces: &mut Pieces) -> Result<Option<Vec<u8>>, BlobError> {
        let Some(expected) = pieces.hashes.pop_front() else {
            return Ok(None);
        };
        let bytes = self.read(pieces.range.clone())?;
        if blake3::hash(&bytes) != expected {
            return Err(self.folder.set_aside(&self.id));
        }
        pieces.range.start += bytes.len() as u64;
        Ok(Some(bytes))
    }

    /// What lies at the beginning of a range, at most a piece.
    fn read(&mut self, range: Range<u64>) -> Result<Vec<u8>, BlobError> {
        let length = (range.end - range.start).min(PIECE_BYTES);
        let end = range.start + length;
        read_range(&mut self.file, range.start..end)
            .map_err(io(&self.folder.blob(&self.id), "read"))
    }

    /// The bytes of subtree `index`; none behind the last one.
    ///
    /// # Errors
    /// `Damaged` when they do not verify any more, or the disk's refusal.
    pub fn subtree(&mut self, index: usize) -> Result<Vec<u8>, BlobError> {
        if index >= self.outline.subtrees().len() {
            return Ok(Vec::new());
        }
        let bytes = read_subtree(&mut self.file, &self.outline, index)
            .map_err(io(&self.folder.blob(&self.id), "read"))?;
        if self.outline.holds(index, &bytes) {
            Ok(bytes)
        } else {
            Err(self.folder.set_aside(&self.id))
        }
    }
}

/// One subtree as it lies on disk, unverified; shorter than it should be when the file was cut.
pub(super) fn read_subtree(
    file: &mut File,
    outline: &Outline,
    index: usize,
) -> std::io::Result<Vec<u8>> {
    read_range(file, outline.range(index))
}

fn read_range(file: &mut File, range: Range<u64>) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(range.start))?;
    let mut bytes = Vec::new();
    file.take(range.end - range.start).read_to_end(&mut bytes)?;
    Ok(bytes)
}
