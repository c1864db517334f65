//! A download under way: a file of the blob's final length, filled in verified mebibytes.
//!
//! Which mebibytes are there is not written down anywhere: on resumption each is read and verified
//! against the outline, at the speed of BLAKE3. So there is no second record that a crash could
//! bring out of step with the data, and nothing needs syncing before the end. A hole reads as zeros
//! and does not verify, unless the blob has zeros there.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::Arc;

use connito_protocol::ids::BlobId;

use super::folder::{Folder, io, lock_file, remove_file};
use super::reader::read_subtree;
use super::{BlobError, Outline};

/// A blob of which some subtrees are here, verified. Locked: one task fills it at a time.
#[derive(Debug)]
pub struct PartialBlob {
    folder: Arc<Folder>,
    id: BlobId,
    file: File,
    outline: Outline,
    missing: BTreeSet<usize>,
}

impl PartialBlob {
    pub(super) fn begin(
        folder: Arc<Folder>,
        id: BlobId,
        outline: Outline,
        last: &[u8],
    ) -> Result<Self, BlobError> {
        let index = outline.subtrees().len() - 1;
        if outline.id() != id || !outline.holds(index, last) {
            return Err(BlobError::Unverified { id, index });
        }
        let path = folder.partial(&id);
        let file = lock_file(&path)?;
        file.set_len(outline.bytes())
            .map_err(io(&path, "set the length of"))?;
        folder.write_durably(&folder.partial_outline(&id), &outline.to_bytes())?;
        let missing = (0..outline.subtrees().len()).collect();
        let mut partial = Self {
            folder,
            id,
            file,
            outline,
            missing,
        };
        partial.store(index, last)?;
        Ok(partial)
    }

    pub(super) fn resume(folder: Arc<Folder>, id: BlobId) -> Result<Option<Self>, BlobError> {
        let path = folder.partial(&id);
        if !path.exists() {
            return Ok(None);
        }
        let mut file = lock_file(&path)?;
        let encoded = std::fs::read(folder.partial_outline(&id)).unwrap_or_default();
        let Ok(outline) = Outline::from_bytes(&id, &encoded) else {
            // The outline was written before anything else, so there is nothing worth keeping.
            remove_file(&path)?;
            return Ok(None);
        };
        file.set_len(outline.bytes())
            .map_err(io(&path, "set the length of"))?;
        let mut missing = BTreeSet::new();
        for index in 0..outline.subtrees().len() {
            let subtree = read_subtree(&mut file, &outline, index).map_err(io(&path, "read"))?;
            if !outline.holds(index, &subtree) {
                missing.insert(index);
            }
        }
        Ok(Some(Self {
            folder,
            id,
            file,
            outline,
            missing,
        }))
    }

    /// The blob's outline; its length is proven.
    #[must_use]
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// How many subtrees are missing.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// The first run of missing subtrees, at most `longest` of them; `None` when none is missing.
    #[must_use]
    pub fn next_missing(&self, longest: usize) -> Option<Range<usize>> {
        let first = *self.missing.first()?;
        let run = (first..)
            .take(longest.max(1))
            .take_while(|index| self.missing.contains(index))
            .count();
        Some(first..first + run)
    }

    /// Keeps one subtree, if it verifies. Keeping one again is not an error.
    ///
    /// # Errors
    /// `Unverified` when the bytes do not belong there, or the disk's refusal.
    pub fn store(&mut self, index: usize, bytes: &[u8]) -> Result<(), BlobError> {
        if !self.outline.holds(index, bytes) {
            return Err(BlobError::Unverified { id: self.id, index });
        }
        let start = self.outline.range(index).start;
        self.file
            .seek(SeekFrom::Start(start))
            .and_then(|_| self.file.write_all(bytes))
            .map_err(io(&self.folder.partial(&self.id), "write"))?;
        self.missing.remove(&index);
        Ok(())
    }

    /// Makes the blob visible, durably.
    ///
    /// # Errors
    /// `Incomplete` while subtrees are missing, or the disk's refusal; what is there is kept.
    pub fn finish(self) -> Result<BlobId, BlobError> {
        let (folder, id) = (&self.folder, &self.id);
        if !self.missing.is_empty() {
            return Err(BlobError::Incomplete {
                id: *id,
                missing: self.missing.len(),
            });
        }
        folder.reveal(&self.file, &folder.partial(id), &folder.blob(id))?;
        folder.write_durably(&folder.outline(id), &self.outline.to_bytes())?;
        remove_file(&folder.partial_outline(id))?;
        Ok(*id)
    }

    /// Gives the download up and removes what it brought.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn discard(self) -> Result<(), BlobError> {
        remove_file(&self.folder.partial_outline(&self.id))?;
        remove_file(&self.folder.partial(&self.id))
    }
}
