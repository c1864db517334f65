//! Bytes on disk under their BLAKE3 name, written once and never changed.
//!
//! ```text
//! root/ab/abcd…            a blob: appears whole and durable, or not at all
//! root/ab/abcd….outline    the hashes of its 1 MiB subtrees, so that a range is checked on its own
//! root/partial/abcd…       a download under way; invisible until its last range is verified
//! root/temporary/7         a write under way; removed at the next start (A-161)
//! root/damaged/abcd…       what was found not to hash to its name any more (A-143)
//! root/lock                one process per folder (A-144)
//! ```
//!
//! Every read is verified: a blob that rotted is set aside and reported, never returned. All calls
//! are synchronous and may be made from any thread; a clone names the same store.
//!
//! Knows nothing of what blobs mean, who may read them, or where else they exist.

mod folder;
mod foreign;
mod outline;
mod partial;
mod reader;
mod writer;

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use connito_learning::store::MappedFile;
use connito_protocol::ids::BlobId;

use folder::{Folder, io};
pub use foreign::ForeignBlobs;
pub use outline::{Outline, OutlineError, Outliner, SUBTREE_BYTES};
pub use partial::PartialBlob;
pub use reader::{BlobReader, Pieces};
pub use writer::BlobWriter;

/// Why a blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The store does not hold this blob.
    #[error("blob {id} is not here")]
    Absent {
        /// The blob asked for.
        id: BlobId,
    },
    /// The stored bytes no longer hash to their name. They were moved aside; fetch the blob again.
    #[error("blob {id} is damaged on disk, set aside as {kept}")]
    Damaged {
        /// The blob asked for.
        id: BlobId,
        /// Where the damaged bytes lie now.
        kept: PathBuf,
    },
    /// Bytes offered for a blob hash to something else.
    #[error("bytes offered as blob {named} hash to {found}")]
    OtherBytes {
        /// The name they were offered under.
        named: BlobId,
        /// What they hash to.
        found: BlobId,
    },
    /// Bytes offered for one subtree of a blob do not belong there.
    #[error("bytes offered as subtree {index} of blob {id} do not verify")]
    Unverified {
        /// The blob.
        id: BlobId,
        /// Which mebibyte, from 0.
        index: usize,
    },
    /// A range that leaves the blob.
    #[error("range {start}..{end} leaves blob {id} of {bytes} bytes")]
    OutOfRange {
        /// The blob.
        id: BlobId,
        /// First byte asked for.
        start: u64,
        /// First byte not asked for.
        end: u64,
        /// The blob's length.
        bytes: u64,
    },
    /// A download was declared complete while subtrees are missing.
    #[error("blob {id} lacks {missing} of its subtrees")]
    Incomplete {
        /// The blob.
        id: BlobId,
        /// How many subtrees are missing.
        missing: usize,
    },
    /// Another process uses the folder, or another task downloads the same blob.
    #[error("{path} is in use")]
    InUse {
        /// What is locked.
        path: PathBuf,
    },
    /// The disk refused.
    #[error("cannot {action} {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done to it.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// The content-addressed store of one process.
#[derive(Debug, Clone)]
pub struct DiskBlobs {
    folder: Arc<Folder>,
}

impl DiskBlobs {
    /// Opens the store at `root`, creating it if need be, and removes what writes under way at the
    /// last stop left behind. Unfinished downloads are kept.
    ///
    /// # Errors
    /// When the folder cannot be used, or another process uses it.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, BlobError> {
        Ok(Self {
            folder: Arc::new(Folder::open(root.as_ref())?),
        })
    }

    /// Stores bytes durably and returns their name. Storing the same bytes again is not an error.
    ///
    /// # Errors
    /// When the disk refuses; nothing is visible then.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobId, BlobError> {
        let id = BlobId::of(bytes);
        if self.has(&id) {
            return Ok(id);
        }
        let mut writer = self.writer()?;
        writer.write(bytes)?;
        writer.finish()
    }

    /// Stores a copy of a file, read in pieces.
    ///
    /// # Errors
    /// When the file cannot be read or the disk refuses.
    pub fn import(&self, path: impl AsRef<Path>) -> Result<BlobId, BlobError> {
        let path = path.as_ref();
        let mut file = File::open(path).map_err(io(path, "open"))?;
        let mut writer = self.writer()?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match file.read(&mut piece).map_err(io(path, "read"))? {
                0 => return writer.finish(),
                read => writer.write(&piece[..read])?,
            }
        }
    }

    /// Begins a blob whose bytes arrive in pieces.
    ///
    /// # Errors
    /// When no temporary file can be created.
    pub fn writer(&self) -> Result<BlobWriter, BlobError> {
        BlobWriter::new(Arc::clone(&self.folder))
    }

    /// The whole blob, verified. The caller knows that it fits into memory.
    ///
    /// # Errors
    /// `Absent`, or `Damaged` when the bytes no longer hash to `id`; they are set aside then.
    pub fn get(&self, id: &BlobId) -> Result<Vec<u8>, BlobError> {
        let path = self.folder.blob(id);
        let bytes = std::fs::read(&path).map_err(absent_or_io(id, &path))?;
        if BlobId::of(&bytes) == *id {
            Ok(bytes)
        } else {
            Err(self.folder.set_aside(id))
        }
    }

    /// The whole blob, verified now, to be read where it lies.
    ///
    /// Nobody changes a stored file, so what was verified is what will be read, but for a page that the
    /// system drops, the disk spoils and the system reads again. What is computed from a blob is
    /// therefore compared with others' results by hash, as states are.
    ///
    /// # Errors
    /// As for [`DiskBlobs::get`].
    pub fn map(&self, id: &BlobId) -> Result<MappedFile, BlobError> {
        let path = self.folder.blob(id);
        let file = MappedFile::open(&path).map_err(absent_or_io(id, &path))?;
        if name_of(&file) == *id {
            Ok(file)
        } else {
            Err(self.folder.set_aside(id))
        }
    }

    /// Whether the whole blob is here.
    #[must_use]
    pub fn has(&self, id: &BlobId) -> bool {
        self.folder.blob(id).is_file()
    }

    /// The blob's length in bytes.
    ///
    /// # Errors
    /// `Absent`, or the disk's refusal.
    pub fn len(&self, id: &BlobId) -> Result<u64, BlobError> {
        let path = self.folder.blob(id);
        let metadata = std::fs::metadata(&path).map_err(absent_or_io(id, &path))?;
        Ok(metadata.len())
    }

    /// Bytes `range` of the blob. Every mebibyte that the range touches is read and verified.
    ///
    /// # Errors
    /// `Absent`, `OutOfRange`, or `Damaged` as in [`DiskBlobs::get`].
    pub fn read_range(&self, id: &BlobId, range: Range<u64>) -> Result<Vec<u8>, BlobError> {
        let bytes = self.len(id)?;
        if range.start > range.end || range.end > bytes {
            return Err(BlobError::OutOfRange {
                id: *id,
                start: range.start,
                end: range.end,
                bytes,
            });
        }
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut reader = self.reader(id)?;
        let first = outline::index_of(range.start);
        let last = outline::index_of(range.end - 1);
        let mut read = Vec::new();
        for index in first..=last {
            let subtree = reader.subtree(index)?;
            read.extend_from_slice(overlap(&subtree, index, &range));
        }
        Ok(read)
    }

    /// Opens the blob for reading one verified mebibyte after the other.
    ///
    /// # Errors
    /// `Absent`, or as [`DiskBlobs::outline`].
    pub fn reader(&self, id: &BlobId) -> Result<BlobReader, BlobError> {
        let outline = self.outline(id)?;
        let path = self.folder.blob(id);
        let file = File::open(&path).map_err(absent_or_io(id, &path))?;
        Ok(BlobReader::new(
            Arc::clone(&self.folder),
            *id,
            file,
            outline,
        ))
    }

    /// The hashes of the blob's 1 MiB subtrees, verified against its name.
    ///
    /// # Errors
    /// `Absent`, or `Damaged` when the outline had to be computed again and the blob itself is bad.
    pub fn outline(&self, id: &BlobId) -> Result<Outline, BlobError> {
        let bytes = self.len(id)?;
        if bytes <= SUBTREE_BYTES {
            return Ok(Outline::of_small(*id, bytes));
        }
        // A missing or damaged outline costs one pass over the blob, never the blob.
        if let Ok(encoded) = std::fs::read(self.folder.outline(id))
            && let Ok(outline) = Outline::from_bytes(id, &encoded)
            && outline.bytes() == bytes
        {
            return Ok(outline);
        }
        let outline = self.compute_outline(id)?;
        if outline.id() != *id {
            return Err(self.folder.set_aside(id));
        }
        self.folder
            .write_durably(&self.folder.outline(id), &outline.to_bytes())?;
        Ok(outline)
    }

    /// Bytes that may still be written before the disk is full, as the file system counts for this user.
    ///
    /// # Errors
    /// When the file system does not say.
    pub fn free_bytes(&self) -> Result<u64, BlobError> {
        self.folder.free_bytes()
    }

    /// The names of all whole blobs, in order.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn ids(&self) -> Result<Vec<BlobId>, BlobError> {
        self.folder.ids()
    }

    /// Forgets a blob. Forgetting one that is not here is not an error.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove(&self, id: &BlobId) -> Result<(), BlobError> {
        self.folder.remove(id)
    }

    /// Begins a download. `last` is the blob's last subtree: it proves the outline's length, since
    /// BLAKE3 hashes the position of every kilobyte and the tree's shape follows from the length.
    ///
    /// # Errors
    /// `Unverified` when outline or `last` do not belong to `id`, `InUse` when another task is
    /// downloading the same blob, or the disk's refusal.
    pub fn begin_partial(
        &self,
        id: BlobId,
        outline: Outline,
        last: &[u8],
    ) -> Result<PartialBlob, BlobError> {
        PartialBlob::begin(Arc::clone(&self.folder), id, outline, last)
    }

    /// The download of `id` that an earlier call or process began, if there is one. Its ranges are
    /// verified again, because the record of what reached the disk is the disk itself.
    ///
    /// # Errors
    /// `InUse` when another task is downloading the same blob, or the disk's refusal.
    pub fn resume_partial(&self, id: BlobId) -> Result<Option<PartialBlob>, BlobError> {
        PartialBlob::resume(Arc::clone(&self.folder), id)
    }

    fn compute_outline(&self, id: &BlobId) -> Result<Outline, BlobError> {
        let path = self.folder.blob(id);
        let mut file = File::open(&path).map_err(absent_or_io(id, &path))?;
        let mut outliner = Outliner::new();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match file.read(&mut piece).map_err(io(&path, "read"))? {
                0 => return Ok(outliner.finish()),
                read => outliner.update(&piece[..read]),
            }
        }
    }
}

/// Large enough that BLAKE3 works at its full width, small enough to be no burden.
const PIECE_BYTES: usize = 1 << 18;

/// How much of a mapped blob is in memory at once while it is verified.
const MAPPED_PIECE_BYTES: usize = 16 << 20;

/// What the bytes of a mapped file hash to.
fn name_of(file: &MappedFile) -> BlobId {
    let mut hasher = blake3::Hasher::new();
    for piece in file.bytes().chunks(MAPPED_PIECE_BYTES) {
        hasher.update(piece);
        // Pages that were read need not stay in memory until they are used.
        file.release();
    }
    BlobId(*hasher.finalize().as_bytes())
}

fn absent_or_io<'a>(id: &BlobId, path: &'a Path) -> impl FnOnce(std::io::Error) -> BlobError + 'a {
    let id = *id;
    move |source| match source.kind() {
        std::io::ErrorKind::NotFound => BlobError::Absent { id },
        _ => io(path, "read")(source),
    }
}

/// The part of subtree `index` that lies in `range`, which touches it.
fn overlap<'a>(subtree: &'a [u8], index: usize, range: &Range<u64>) -> &'a [u8] {
    let start = index as u64 * SUBTREE_BYTES;
    let within = |position: u64| {
        // Clamped to the subtree's length, which is at most one mebibyte.
        position.saturating_sub(start).min(subtree.len() as u64) as usize
    };
    &subtree[within(range.start)..within(range.end)]
}

#[cfg(test)]
mod tests;
