//! The port to stored bytes: what a learner reads its inputs from and writes its results to.
//!
//! Small things are read and written whole. What has the size of a shard is opened where it lies and
//! written as a stream, so that no one needs memory for it.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use connito_engine::MappedFile;
use connito_protocol::ids::BlobId;

/// Why a blob could not be read or written. One sentence that names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// Bytes named by their BLAKE3 hash, on this machine. Calls may block.
pub trait BlobStore: Send + Sync {
    /// Whether the whole blob is here.
    fn has(&self, id: BlobId) -> bool;

    /// The blob's length in bytes, without its bytes being read where the store can tell.
    ///
    /// # Errors
    /// It is not here, or cannot be read.
    fn len(&self, id: BlobId) -> Result<u64, StoreError> {
        self.open(id).map(|blob| blob.len() as u64)
    }

    /// The whole blob; its bytes match its name.
    ///
    /// # Errors
    /// It is not here, or cannot be read.
    fn read(&self, id: BlobId) -> Result<Vec<u8>, StoreError>;

    /// The whole blob, to be read where it lies; its bytes matched its name when it was opened.
    ///
    /// # Errors
    /// It is not here, or cannot be read.
    fn open(&self, id: BlobId) -> Result<Blob, StoreError> {
        self.read(id).map(Blob::from)
    }

    /// Stores bytes durably. Storing the same bytes again is not an error.
    ///
    /// # Errors
    /// The bytes cannot be written.
    fn write(&self, bytes: &[u8]) -> Result<BlobId, StoreError>;

    /// Begins a blob whose bytes come in pieces. Nothing is visible before it is finished; dropped
    /// before that, it leaves nothing.
    ///
    /// # Errors
    /// There is no room to begin it.
    fn create(&self) -> Result<Box<dyn BlobSink + '_>, StoreError>;
}

/// A blob under way.
pub trait BlobSink {
    /// The next bytes.
    ///
    /// # Errors
    /// The bytes cannot be written.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// Stores what was written, durably, and names it.
    ///
    /// # Errors
    /// The bytes cannot be written.
    fn finish(self: Box<Self>) -> Result<BlobId, StoreError>;
}

/// The bytes of a stored blob.
#[derive(Debug)]
pub struct Blob(Held);

#[derive(Debug)]
enum Held {
    Owned(Vec<u8>),
    Shared(Arc<Vec<u8>>),
    Mapped(MappedFile),
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Owned(bytes) => bytes,
            Held::Shared(bytes) => bytes,
            Held::Mapped(file) => file.bytes(),
        }
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Held::Owned(bytes))
    }
}

impl From<Arc<Vec<u8>>> for Blob {
    fn from(bytes: Arc<Vec<u8>>) -> Self {
        Self(Held::Shared(bytes))
    }
}

impl From<MappedFile> for Blob {
    /// A file whose bytes have been verified and which nobody will change.
    fn from(file: MappedFile) -> Self {
        Self(Held::Mapped(file))
    }
}

impl Blob {
    /// Gives back the memory that reading a mapped file took; nothing is lost by it.
    pub fn release(&self) {
        match &self.0 {
            Held::Mapped(file) => file.release(),
            Held::Owned(_) | Held::Shared(_) => {}
        }
    }
}

/// A sink that keeps nothing: it only says what the blob would be called.
#[derive(Debug, Default)]
pub struct HashSink(blake3::Hasher);

impl BlobSink for HashSink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.0.update(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<BlobId, StoreError> {
        Ok(BlobId(*self.0.finalize().as_bytes()))
    }
}

/// A store in memory, for tests and simulations.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<BTreeMap<BlobId, Arc<Vec<u8>>>>);

impl MemoryStore {
    /// Forgets a blob, as when its file is deleted.
    pub fn remove(&self, id: BlobId) {
        self.blobs().remove(&id);
    }

    /// How many blobs there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.blobs().len()
    }

    fn blobs(&self) -> MutexGuard<'_, BTreeMap<BlobId, Arc<Vec<u8>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: BlobId) -> Result<Arc<Vec<u8>>, StoreError> {
        let found = self.blobs().get(&id).cloned();
        found.ok_or_else(|| StoreError(format!("blob {id} is not in the store")))
    }

    fn keep(&self, bytes: Vec<u8>) -> BlobId {
        let id = BlobId::of(&bytes);
        self.blobs().insert(id, Arc::new(bytes));
        id
    }
}

impl BlobStore for MemoryStore {
    fn has(&self, id: BlobId) -> bool {
        self.blobs().contains_key(&id)
    }

    fn read(&self, id: BlobId) -> Result<Vec<u8>, StoreError> {
        self.find(id).map(|bytes| bytes.as_ref().clone())
    }

    fn open(&self, id: BlobId) -> Result<Blob, StoreError> {
        self.find(id).map(Blob::from)
    }

    fn write(&self, bytes: &[u8]) -> Result<BlobId, StoreError> {
        Ok(self.keep(bytes.to_vec()))
    }

    fn create(&self) -> Result<Box<dyn BlobSink + '_>, StoreError> {
        Ok(Box::new(MemorySink {
            store: self,
            bytes: Vec::new(),
        }))
    }
}

struct MemorySink<'a> {
    store: &'a MemoryStore,
    bytes: Vec<u8>,
}

impl BlobSink for MemorySink<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<BlobId, StoreError> {
        Ok(self.store.keep(self.bytes))
    }
}

impl<S: BlobStore + ?Sized> BlobStore for Arc<S> {
    fn has(&self, id: BlobId) -> bool {
        (**self).has(id)
    }

    fn len(&self, id: BlobId) -> Result<u64, StoreError> {
        (**self).len(id)
    }

    fn read(&self, id: BlobId) -> Result<Vec<u8>, StoreError> {
        (**self).read(id)
    }

    fn open(&self, id: BlobId) -> Result<Blob, StoreError> {
        (**self).open(id)
    }

    fn write(&self, bytes: &[u8]) -> Result<BlobId, StoreError> {
        (**self).write(bytes)
    }

    fn create(&self) -> Result<Box<dyn BlobSink + '_>, StoreError> {
        (**self).create()
    }
}
