//! A blob whose bytes arrive in pieces: written to a temporary file and hashed on the way.
//!
//! Hashing subtree by subtree gives the blob's outline and, by merging, its name, in one pass.
//! Nothing is visible until [`BlobWriter::finish`]; a writer that is dropped leaves nothing.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use connito_protocol::ids::BlobId;

use super::folder::{Folder, io, remove_file};
use super::outline::{Outliner, SUBTREE_BYTES};
use super::{BlobError, Outline};

/// A blob under way.
#[derive(Debug)]
pub struct BlobWriter {
    folder: Arc<Folder>,
    temporary: PathBuf,
    file: File,
    outliner: Outliner,
}

impl BlobWriter {
    pub(super) fn new(folder: Arc<Folder>) -> Result<Self, BlobError> {
        let (temporary, file) = folder.temporary()?;
        Ok(Self {
            folder,
            temporary,
            file,
            outliner: Outliner::new(),
        })
    }

    /// The next bytes of the blob.
    ///
    /// # Errors
    /// When the disk refuses, for example because it is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.file
            .write_all(bytes)
            .map_err(io(&self.temporary, "write"))?;
        self.outliner.update(bytes);
        Ok(())
    }

    /// Stores what was written, durably, and returns its name.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn finish(mut self) -> Result<BlobId, BlobError> {
        let outline = self.take_outline();
        self.store(&outline)
    }

    /// Stores what was written, durably, if it is the blob `named`.
    ///
    /// # Errors
    /// `OtherBytes` when it is not, and nothing is stored; or the disk's refusal.
    pub fn finish_as(mut self, named: &BlobId) -> Result<(), BlobError> {
        let outline = self.take_outline();
        let found = outline.id();
        if found != *named {
            return Err(BlobError::OtherBytes {
                named: *named,
                found,
            });
        }
        self.store(&outline).map(drop)
    }

    fn take_outline(&mut self) -> Outline {
        std::mem::take(&mut self.outliner).finish()
    }

    fn store(&self, outline: &Outline) -> Result<BlobId, BlobError> {
        let id = outline.id();
        self.folder
            .reveal(&self.file, &self.temporary, &self.folder.blob(&id))?;
        // Behind the blob: without it the outline is computed again, so no order can lose anything.
        if outline.bytes() > SUBTREE_BYTES {
            self.folder
                .write_durably(&self.folder.outline(&id), &outline.to_bytes())?;
        }
        Ok(id)
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // Gone already if the blob was stored. What cannot be removed now, the next start removes.
        let _ = remove_file(&self.temporary);
    }
}
