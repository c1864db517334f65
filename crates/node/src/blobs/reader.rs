//! A stored blob opened for verified reading, one mebibyte at a time.
//!
//! The file stays open, so a blob that is removed meanwhile can still be read to its end. Bytes that
//! do not verify are never returned; the blob is set aside.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use connito_protocol::ids::BlobId;

use super::folder::{Folder, io};
use super::{BlobError, Outline};

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
    let range = outline.range(index);
    file.seek(SeekFrom::Start(range.start))?;
    let mut bytes = Vec::new();
    file.take(range.end - range.start).read_to_end(&mut bytes)?;
    Ok(bytes)
}
