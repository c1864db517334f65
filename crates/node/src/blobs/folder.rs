//! Where things lie in a blob store's folder, and the few durable operations on it.
//!
//! A file becomes visible by one rename after it was synced, and the rename is synced too; that is
//! the whole of the store's consistency. Paths are built from parsed ids only, never from texts
//! . Knows nothing of hashing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use connito_protocol::ids::BlobId;

use super::BlobError;

/// A blob store's folder, locked for this process.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    /// Held, not read: the lock ends when the file is closed.
    _lock: File,
    next_temporary: AtomicU64,
}

impl Folder {
    pub(super) fn open(root: &Path) -> Result<Self, BlobError> {
        for folder in [
            root.to_path_buf(),
            root.join("partial"),
            root.join("damaged"),
        ] {
            std::fs::create_dir_all(&folder).map_err(io(&folder, "create"))?;
        }
        let lock = lock_file(&root.join("lock"))?;
        // Only after the lock is held: these could be the writes of a process that is alive.
        let temporary = root.join("temporary");
        if temporary.exists() {
            std::fs::remove_dir_all(&temporary).map_err(io(&temporary, "empty"))?;
        }
        std::fs::create_dir_all(&temporary).map_err(io(&temporary, "create"))?;
        Ok(Self {
            root: root.to_path_buf(),
            _lock: lock,
            next_temporary: AtomicU64::new(0),
        })
    }

    pub(super) fn blob(&self, id: &BlobId) -> PathBuf {
        blob_path(&self.root, id)
    }

    pub(super) fn outline(&self, id: &BlobId) -> PathBuf {
        self.blob(id).with_extension("outline")
    }

    pub(super) fn partial(&self, id: &BlobId) -> PathBuf {
        self.root.join("partial").join(id.to_string())
    }

    pub(super) fn partial_outline(&self, id: &BlobId) -> PathBuf {
        self.partial(id).with_extension("outline")
    }

    /// A new empty file that the next start removes if nobody renames it.
    pub(super) fn temporary(&self) -> Result<(PathBuf, File), BlobError> {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("temporary").join(number.to_string());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(io(&path, "create"))?;
        Ok((path, file))
    }

    /// Writes a small file so that it is there whole or not at all.
    pub(super) fn write_durably(&self, path: &Path, bytes: &[u8]) -> Result<(), BlobError> {
        let (temporary, mut file) = self.temporary()?;
        file.write_all(bytes).map_err(io(&temporary, "write"))?;
        self.reveal(&file, &temporary, path)
    }

    /// Gives a finished file its final name, durably.
    pub(super) fn reveal(&self, file: &File, from: &Path, to: &Path) -> Result<(), BlobError> {
        file.sync_all().map_err(io(from, "sync"))?;
        let folder = to.parent().unwrap_or(&self.root);
        if !folder.exists() {
            std::fs::create_dir_all(folder).map_err(io(folder, "create"))?;
            sync_folder(&self.root)?;
        }
        std::fs::rename(from, to).map_err(io(to, "rename a finished file to"))?;
        sync_folder(folder)
    }

    /// Moves a blob that no longer hashes to its name out of the way, and says so.
    pub(super) fn set_aside(&self, id: &BlobId) -> BlobError {
        let kept = self.root.join("damaged").join(id.to_string());
        let moved = std::fs::rename(self.blob(id), &kept);
        tracing::error!(target: "blobs", blob = %id, kept = %kept.display(), "blob is damaged");
        match moved {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                io(&self.blob(id), "set aside the damaged blob")(source)
            }
            _ => BlobError::Damaged { id: *id, kept },
        }
    }

    pub(super) fn free_bytes(&self) -> Result<u64, BlobError> {
        let found = rustix::fs::statvfs(&self.root)
            .map_err(|error| io(&self.root, "ask for the free space of")(error.into()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    pub(super) fn remove(&self, id: &BlobId) -> Result<(), BlobError> {
        remove_file(&self.blob(id))?;
        remove_file(&self.outline(id))
    }

    pub(super) fn ids(&self) -> Result<Vec<BlobId>, BlobError> {
        blob_ids(&self.root)
    }
}

/// Where a blob lies under a store's root.
pub(super) fn blob_path(root: &Path, id: &BlobId) -> PathBuf {
    let name = id.to_string();
    root.join(&name[..2]).join(name)
}

/// The names of all whole blobs under a store's root, in order.
pub(super) fn blob_ids(root: &Path) -> Result<Vec<BlobId>, BlobError> {
    let mut ids = Vec::new();
    for folder in entries(root)? {
        let is_prefix = folder
            .file_name()
            .is_some_and(|name| name.len() == 2 && name.to_str().is_some());
        if !is_prefix || !folder.is_dir() {
            continue;
        }
        let named = entries(&folder)?;
        ids.extend(
            named
                .iter()
                .filter_map(|path| path.file_name()?.to_str()?.parse::<BlobId>().ok()),
        );
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Opens a file for reading and writing, creating it if need be, and locks it against all others.
pub(super) fn lock_file(path: &Path) -> Result<File, BlobError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(io(path, "open"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BlobError::InUse {
            path: path.to_path_buf(),
        }),
        Err(TryLockError::Error(source)) => Err(io(path, "lock")(source)),
    }
}

/// Removes a file; one that is not there is removed already.
pub(super) fn remove_file(path: &Path) -> Result<(), BlobError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(io(path, "remove")(source))
        }
        _ => Ok(()),
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, BlobError> {
    std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(io(folder, "list"))
}

fn sync_folder(folder: &Path) -> Result<(), BlobError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io(folder, "sync"))
}

pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> BlobError {
    move |source| BlobError::Io {
        path: path.to_path_buf(),
        action,
        source,
    }
}
