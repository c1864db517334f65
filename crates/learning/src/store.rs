//! The port to stored bytes: what a learner reads its inputs from and writes its results to.

use connito_protocol::ids::BlobId;

/// Why a blob could not be read or written. One sentence that names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// Bytes named by their BLAKE3 hash, on this machine. Calls may block.
pub trait BlobStore: Send + Sync {
    /// The whole blob; its bytes match its name.
    ///
    /// # Errors
    /// It is not here, or cannot be read.
    fn read(&self, id: BlobId) -> Result<Vec<u8>, StoreError>;

    /// Stores bytes durably. Storing the same bytes again is not an error.
    ///
    /// # Errors
    /// The bytes cannot be written.
    fn write(&self, bytes: &[u8]) -> Result<BlobId, StoreError>;
}

/// A store in memory, for tests and simulations.
#[derive(Debug, Default)]
pub struct MemoryStore(std::sync::Mutex<std::collections::BTreeMap<BlobId, Vec<u8>>>);

impl MemoryStore {
    /// Forgets a blob, as when its file is deleted.
    pub fn remove(&self, id: BlobId) {
        let blobs = self.0.lock();
        let mut blobs = blobs.unwrap_or_else(std::sync::PoisonError::into_inner);
        blobs.remove(&id);
    }
}

impl BlobStore for MemoryStore {
    fn read(&self, id: BlobId) -> Result<Vec<u8>, StoreError> {
        let blobs = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        blobs
            .get(&id)
            .cloned()
            .ok_or_else(|| StoreError(format!("blob {id} is not in the store")))
    }

    fn write(&self, bytes: &[u8]) -> Result<BlobId, StoreError> {
        let id = BlobId::of(bytes);
        let mut blobs = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        blobs.insert(id, bytes.to_vec());
        Ok(id)
    }
}

impl<S: BlobStore + ?Sized> BlobStore for std::sync::Arc<S> {
    fn read(&self, id: BlobId) -> Result<Vec<u8>, StoreError> {
        (**self).read(id)
    }

    fn write(&self, bytes: &[u8]) -> Result<BlobId, StoreError> {
        (**self).write(bytes)
    }
}
