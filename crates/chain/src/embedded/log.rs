//! The block log: one append-only file from which the whole chain can be made again.
//!
//! ```text
//! frame   = length u32 ‖ crc32(length) u32 ‖ crc32(payload) u32 ‖ payload
//! first   = "connito-chain-log/" ‖ version as decimal digits ‖ genesis specification as JSON
//! others  = SCALE (header, Vec<extrinsic>), the extrinsics being the signed ones with their lengths
//! ```
//!
//! The version is that of this format and of the rules by which blocks are carried out: what a block of
//! another version says gives other hashes here, although nothing is damaged. Such a folder is left alone.
//!
//! A frame is written and made durable before its block is shown to anyone. A process killed in
//! the middle of writing leaves a torn tail: an incomplete last frame, or zeros where the file system
//! had grown the file already. A torn tail is cut off; its block was never shown. Damage
//! anywhere else is an error with its offset, never skipped. The length has a checksum of its own:
//! without it a damaged length in the middle would look like a torn tail and cost every later block.
//!
//! The chain's own start also takes a last frame of full length for torn whose checksum fails, since a
//! power cut may leave pages of it unwritten; for the same reason a last header that does not hold, if
//! everything behind its written part is zero. Who only reads the log cannot tell that from a change, and
//! calls it damage.

mod frames;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use parity_scale_codec::{Decode, Encode};

use self::frames::{Frames, LastFrame, frame};
use super::EmbeddedError;
use super::block::{Header, Sealed};
use super::genesis::GenesisSpec;

const LOG_NAME: &str = "blocks.log";
const LOCK_NAME: &str = "lock";
const MAGIC: &[u8] = b"connito-chain-log/";
/// Goes up by one with every change of the format, of a pallet's rule, of the genesis specification or of
/// anything else that gives a block another hash.
pub(super) const VERSION: u32 = 3;

/// The open log, positioned at its end, and the lock on its folder.
#[derive(Debug)]
pub(super) struct BlockLog {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    /// Where the first block's frame begins.
    blocks_at: u64,
    /// Set when a write failed: what the disk holds is not known any more.
    broken: bool,
    _lock: File,
}

/// One block as it was logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Logged {
    pub(super) header: Header,
    /// The signed extrinsics, each with its length.
    pub(super) signed: Vec<Vec<u8>>,
}

/// What a reader of the log does with a block that ends at this offset: nothing, or why it cannot be.
pub(super) type Visit<'a> = dyn FnMut(Logged, u64) -> Result<(), String> + 'a;

impl BlockLog {
    /// Locks the folder and opens its log, creating both where missing. Every block found is given
    /// to `visit` in order, which may refuse it with a reason. A torn tail is cut off.
    pub(super) fn open(
        folder: &Path,
        spec: &GenesisSpec,
        visit: &mut Visit<'_>,
    ) -> Result<Self, EmbeddedError> {
        let lock = lock(folder)?;
        let path = folder.join(LOG_NAME);
        let failed = |source| EmbeddedError::Storage {
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)?;

        let mut frames = Frames::new((&path, &file), LastFrame::MayLackPages)?;
        let is_new = match frames.next()? {
            None => true,
            Some(first) if read_spec(folder, &frames, &first)? != *spec => {
                return Err(EmbeddedError::OtherGenesis { path });
            }
            Some(_) => false,
        };
        let blocks_at = frames.offset();
        visit_all(&mut frames, visit)?;
        let length = frames.offset();
        file.set_len(length).map_err(failed)?;
        file.seek(SeekFrom::Start(length)).map_err(failed)?;

        let mut log = Self {
            folder: folder.to_owned(),
            path,
            file,
            blocks_at,
            broken: false,
            _lock: lock,
        };
        if is_new {
            let payload = spec_payload(spec);
            log.append(&payload)?;
            log.blocks_at = frame(&payload).len() as u64;
        }
        Ok(log)
    }

    /// The folder, which is this log's alone.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Gives every block from an offset on, or from the first, to `visit`, which may refuse it with a reason.
    pub(super) fn replay(
        &self,
        from: Option<u64>,
        visit: &mut Visit<'_>,
    ) -> Result<(), EmbeddedError> {
        let file = open_for_reading(&self.path)?;
        let mut frames = Frames::new((&self.path, &file), LastFrame::IsWhole)?;
        frames.start_at(from.unwrap_or(self.blocks_at))?;
        visit_all(&mut frames, visit)
    }

    /// Writes one block and makes it durable.
    pub(super) fn append_block(&mut self, block: &Sealed) -> Result<(), EmbeddedError> {
        let mut payload = block.header.encode();
        // Without the extrinsic that sets the time: the height says it.
        block
            .extrinsics
            .get(1..)
            .unwrap_or_default()
            .encode_to(&mut payload);
        self.append(&payload)
    }

    fn append(&mut self, payload: &[u8]) -> Result<(), EmbeddedError> {
        let failed = |source| EmbeddedError::Storage {
            path: self.path.clone(),
            source,
        };
        if self.broken {
            return Err(failed(io::Error::other("an earlier write failed")));
        }
        if let Err(source) = self
            .file
            .write_all(&frame(payload))
            .and_then(|()| self.file.sync_data())
        {
            self.broken = true;
            return Err(failed(source));
        }
        Ok(())
    }
}

/// The genesis specification a folder's log was started with, if it holds one.
pub(super) fn stored_spec(folder: &Path) -> Result<Option<GenesisSpec>, EmbeddedError> {
    let path = folder.join(LOG_NAME);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(EmbeddedError::Storage { path, source }),
    };
    let mut frames = Frames::new((&path, &file), LastFrame::MayLackPages)?;
    let first = frames.next()?;
    first
        .map(|first| read_spec(folder, &frames, &first))
        .transpose()
}

/// Reads a folder's log without locking or changing anything: every whole block in order. A torn tail is
/// left alone if it is shorter than its frame.
pub(super) fn read(folder: &Path, visit: &mut Visit<'_>) -> Result<(), EmbeddedError> {
    let path = folder.join(LOG_NAME);
    let file = open_for_reading(&path)?;
    let mut frames = Frames::new((&path, &file), LastFrame::IsWhole)?;
    // The specification, which the caller has read.
    frames.next()?;
    visit_all(&mut frames, visit)
}

fn visit_all(frames: &mut Frames<'_>, visit: &mut Visit<'_>) -> Result<(), EmbeddedError> {
    while let Some((offset, payload)) = frames.next()? {
        let logged =
            read_block(&payload).map_err(|error| frames.damaged(offset, error.to_string()))?;
        visit(logged, frames.offset()).map_err(|problem| frames.damaged(offset, problem))?;
    }
    Ok(())
}

fn open_for_reading(path: &Path) -> Result<File, EmbeddedError> {
    File::open(path).map_err(|source| EmbeddedError::Storage {
        path: path.to_owned(),
        source,
    })
}

/// One process at a time. The lock ends with the process, however that ends.
fn lock(folder: &Path) -> Result<File, EmbeddedError> {
    let path = folder.join(LOCK_NAME);
    let failed = |source| EmbeddedError::Storage {
        path: path.clone(),
        source,
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let file = File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(EmbeddedError::Locked {
            folder: folder.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn spec_payload(spec: &GenesisSpec) -> Vec<u8> {
    let mut payload = MAGIC.to_vec();
    payload.extend_from_slice(VERSION.to_string().as_bytes());
    // Serialising this type cannot fail: strings, integers and lists of the same.
    payload.extend_from_slice(&serde_json::to_vec(spec).unwrap_or_default());
    payload
}

/// The specification in a folder's first frame.
fn read_spec(
    folder: &Path,
    frames: &Frames<'_>,
    (offset, payload): &(u64, Vec<u8>),
) -> Result<GenesisSpec, EmbeddedError> {
    let no_log = || frames.damaged(*offset, "not a block log");
    let content = payload.strip_prefix(MAGIC).ok_or_else(no_log)?;
    let digits = content.iter().take_while(|byte| byte.is_ascii_digit());
    let (version, spec) = content.split_at(digits.count());
    if version.is_empty() {
        return Err(no_log());
    }
    if version != VERSION.to_string().as_bytes() {
        return Err(EmbeddedError::OtherVersion {
            folder: folder.to_owned(),
            version: String::from_utf8_lossy(version).chars().take(20).collect(),
        });
    }
    serde_json::from_slice(spec).map_err(|_| frames.damaged(*offset, "no genesis specification"))
}

fn read_block(payload: &[u8]) -> Result<Logged, parity_scale_codec::Error> {
    let input = &mut &*payload;
    let header = Header::decode(input)?;
    let signed = Decode::decode(input)?;
    match input.is_empty() {
        true => Ok(Logged { header, signed }),
        false => Err("bytes are left over after the block".into()),
    }
}
