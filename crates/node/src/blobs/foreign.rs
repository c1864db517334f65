//! A blob store's folder that belongs to somebody else: read, and never changed.
//!
//! Nothing is locked, moved or written, so a folder may be in use, or not writable at all. A blob whose
//! bytes do not hash to its name is an error that says so and leaves it where it is. What is written here
//! is only named: whoever computes results to compare them needs no room for them.

use std::path::{Path, PathBuf};

use connito_learning::store::{Blob, BlobSink, BlobStore, HashSink, MappedFile, StoreError};
use connito_protocol::ids::BlobId;

use super::folder::{blob_ids, blob_path, io};
use super::{BlobError, absent_or_io, name_of};
use crate::chain_link::sentence;

/// The folder of a [`super::DiskBlobs`], for reading.
#[derive(Debug, Clone)]
pub struct ForeignBlobs {
    root: PathBuf,
}

impl ForeignBlobs {
    /// The store at `root`.
    ///
    /// # Errors
    /// There is no folder.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, BlobError> {
        let root = root.as_ref();
        std::fs::read_dir(root).map_err(io(root, "read"))?;
        Ok(Self {
            root: root.to_path_buf(),
        })
    }

    /// The whole blob, verified now, to be read where it lies.
    ///
    /// # Errors
    /// `Absent`; `OtherBytes` when its bytes do not hash to `id`; or the disk's refusal.
    pub fn map(&self, id: &BlobId) -> Result<MappedFile, BlobError> {
        let path = blob_path(&self.root, id);
        let file = MappedFile::open(&path).map_err(absent_or_io(id, &path))?;
        let found = name_of(&file);
        if found == *id {
            Ok(file)
        } else {
            Err(BlobError::OtherBytes { named: *id, found })
        }
    }

    /// The names of all whole blobs, in order.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn ids(&self) -> Result<Vec<BlobId>, BlobError> {
        blob_ids(&self.root)
    }
}

impl BlobStore for ForeignBlobs {
    fn has(&self, id: BlobId) -> bool {
        blob_path(&self.root, &id).is_file()
    }

    fn read(&self, id: BlobId) -> Result<Vec<u8>, StoreError> {
        self.open(id).map(|blob| blob.to_vec())
    }

    fn open(&self, id: BlobId) -> Result<Blob, StoreError> {
        let mapped = self.map(&id);
        mapped
            .map(Blob::from)
            .map_err(|error| StoreError(sentence(&error)))
    }

    fn write(&self, bytes: &[u8]) -> Result<BlobId, StoreError> {
        Ok(BlobId::of(bytes))
    }

    fn create(&self) -> Result<Box<dyn BlobSink + '_>, StoreError> {
        Ok(Box::<HashSink>::default())
    }
}

#[cfg(test)]
mod tests {
    use super::super::DiskBlobs;
    use super::*;

    /// What should not happen: that reading moves, locks or repairs anything.
    #[test]
    fn a_damaged_blob_is_refused_by_name_and_stays_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let id = DiskBlobs::open(folder.path())
            .unwrap()
            .put(b"whole")
            .unwrap();
        let blobs = ForeignBlobs::open(folder.path()).unwrap();
        assert_eq!(blobs.read(id).unwrap(), b"whole");
        let path = blob_path(folder.path(), &id);
        std::fs::write(&path, b"spoilt").unwrap();
        let refused = blobs.map(&id).unwrap_err();
        assert!(matches!(refused, BlobError::OtherBytes { named, .. } if named == id));
        assert_eq!(std::fs::read(&path).unwrap(), b"spoilt");
        assert_eq!(blobs.ids().unwrap(), [id]);
    }

    #[test]
    fn what_is_written_is_named_and_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = ForeignBlobs::open(folder.path()).unwrap();
        let id = blobs.write(b"result").unwrap();
        let mut sink = blobs.create().unwrap();
        sink.write(b"res").unwrap();
        sink.write(b"ult").unwrap();
        assert_eq!(sink.finish().unwrap(), id);
        assert!(!blobs.has(id));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
