//! The block log: one append-only file from which the whole chain is replayed.
//!
//! ```text
//! frame   = length u32 ‖ crc32(length) u32 ‖ crc32(payload) u32 ‖ payload
//! first   = "connito-chain-log/1" ‖ genesis specification as JSON
//! others  = number u64 ‖ block hash[32] ‖ count ‖ operations, each preceded by its length
//! ```
//!
//! A frame is written and made durable before its block is shown to anyone. A process killed in
//! the middle of writing leaves a torn tail: an incomplete last frame, or zeros where the file system
//! had grown the file already. A torn tail is cut off; its block was never shown. Damage
//! anywhere else is an error with its offset, never skipped. The length has a checksum of its own:
//! without it a damaged length in the middle would look like a torn tail and cost every later block.
//!
//! The chain's own start also takes a last frame of full length for torn whose checksum fails, since a
//! power cut may leave pages of it unwritten. Who only reads the log cannot tell that from a change,
//! and calls it damage.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use connito_protocol::ids::{Block, BlockHash};

use super::LocalError;
use super::genesis::GenesisSpec;
use crate::codec::{DecodeError, Reader, put_bytes, put_count};
use crate::envelope::SignedOp;
use crate::local::pool::MAX_OPERATIONS;

const LOG_NAME: &str = "blocks.log";
const LOCK_NAME: &str = "lock";
const MAGIC: &[u8] = b"connito-chain-log/1";
const HEADER_BYTES: u64 = 12;
/// No operation is longer: weights for every uid, an envelope and a signature.
pub(super) const MAX_OPERATION_BYTES: usize = 20 * 1024;
/// A full block of the longest operations, and some.
const MAX_FRAME_BYTES: u32 = 32 * 1024 * 1024;

/// The open log, positioned at its end, and the lock on its folder.
#[derive(Debug)]
pub(super) struct BlockLog {
    path: PathBuf,
    file: File,
    length: u64,
    /// Set when a write failed: what the disk holds is not known any more.
    broken: bool,
    _lock: File,
}

/// One block as it was logged.
#[derive(Debug)]
pub(super) struct Logged {
    pub(super) number: Block,
    pub(super) hash: BlockHash,
    pub(super) operations: Vec<SignedOp>,
}

impl BlockLog {
    /// Locks the folder and opens its log, creating both where missing. Every block found is given
    /// to `replay` in order, which may refuse it with a reason. A torn tail is cut off.
    pub(super) fn open(
        folder: &Path,
        spec: &GenesisSpec,
        mut replay: impl FnMut(&Logged) -> Result<(), String>,
    ) -> Result<Self, LocalError> {
        let lock = lock(folder)?;
        let path = folder.join(LOG_NAME);
        let failed = |source| LocalError::Storage {
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
            Some((offset, payload)) if read_spec(&payload).is_none() => {
                return Err(frames.damaged(offset, "not a block log of this version"));
            }
            Some((_, payload)) if read_spec(&payload).as_ref() != Some(spec) => {
                return Err(LocalError::OtherGenesis { path });
            }
            Some(_) => false,
        };
        replay_frames(&mut frames, &mut replay)?;
        let length = frames.offset;
        file.set_len(length).map_err(failed)?;
        file.seek(SeekFrom::Start(length)).map_err(failed)?;

        let mut log = Self {
            path,
            file,
            length,
            broken: false,
            _lock: lock,
        };
        if is_new {
            log.append(&spec_frame(spec))?;
        }
        Ok(log)
    }

    /// Writes one block and makes it durable.
    pub(super) fn append_block(
        &mut self,
        number: Block,
        hash: BlockHash,
        operations: &[SignedOp],
    ) -> Result<(), LocalError> {
        let mut payload = number.0.to_le_bytes().to_vec();
        payload.extend_from_slice(&hash.0);
        put_count(&mut payload, operations.len());
        operations
            .iter()
            .for_each(|operation| put_bytes(&mut payload, &operation.to_bytes()));
        self.append(&payload)
    }

    fn append(&mut self, payload: &[u8]) -> Result<(), LocalError> {
        let failed = |source| LocalError::Storage {
            path: self.path.clone(),
            source,
        };
        if self.broken {
            return Err(failed(io::Error::other("an earlier write failed")));
        }
        let frame = frame(payload);
        if let Err(source) = self
            .file
            .write_all(&frame)
            .and_then(|()| self.file.sync_data())
        {
            self.broken = true;
            return Err(failed(source));
        }
        self.length += frame.len() as u64;
        Ok(())
    }
}

/// The genesis specification a folder's log was started with, if it holds one.
pub(super) fn stored_spec(folder: &Path) -> Result<Option<GenesisSpec>, LocalError> {
    let path = folder.join(LOG_NAME);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LocalError::Storage { path, source }),
    };
    let mut frames = Frames::new((&path, &file), LastFrame::MayLackPages)?;
    let Some((offset, payload)) = frames.next()? else {
        return Ok(None);
    };
    let unreadable = || frames.damaged(offset, "not a block log of this version");
    read_spec(&payload).ok_or_else(unreadable).map(Some)
}

/// Reads a folder's log without locking or changing anything: the specification, then every whole block
/// in order, as [`BlockLog::open`] does. A torn tail is left alone if it is shorter than its frame.
pub(super) fn read(
    folder: &Path,
    mut replay: impl FnMut(&Logged) -> Result<(), String>,
) -> Result<(), LocalError> {
    let path = folder.join(LOG_NAME);
    let file = File::open(&path).map_err(|source| LocalError::Storage {
        path: path.clone(),
        source,
    })?;
    let mut frames = Frames::new((&path, &file), LastFrame::IsWhole)?;
    // The specification, which the caller has read.
    frames.next()?;
    replay_frames(&mut frames, &mut replay)
}

fn replay_frames(
    frames: &mut Frames<'_>,
    replay: &mut impl FnMut(&Logged) -> Result<(), String>,
) -> Result<(), LocalError> {
    while let Some((offset, payload)) = frames.next()? {
        let logged =
            read_block(&payload).map_err(|error| frames.damaged(offset, error.to_string()))?;
        replay(&logged).map_err(|problem| frames.damaged(offset, problem))?;
    }
    Ok(())
}

/// One process at a time. The lock ends with the process, however that ends.
fn lock(folder: &Path) -> Result<File, LocalError> {
    let path = folder.join(LOCK_NAME);
    let failed = |source| LocalError::Storage {
        path: path.clone(),
        source,
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let file = File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LocalError::Locked {
            folder: folder.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_le_bytes();
    let mut frame = length.to_vec();
    frame.extend_from_slice(&crc32fast::hash(&length).to_le_bytes());
    frame.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The payload's length and checksum, if the header's own checksum holds.
fn read_header(header: &[u8]) -> Option<(u32, u32)> {
    let mut reader = Reader::new(header);
    let length = reader.u32().ok()?;
    let length_sum = reader.u32().ok()?;
    let payload_sum = reader.u32().ok()?;
    let holds = crc32fast::hash(&length.to_le_bytes()) == length_sum && length <= MAX_FRAME_BYTES;
    holds.then_some((length, payload_sum))
}

fn spec_frame(spec: &GenesisSpec) -> Vec<u8> {
    let mut payload = MAGIC.to_vec();
    // Serialising this type cannot fail: strings, integers and lists of the same.
    payload.extend_from_slice(&serde_json::to_vec(spec).unwrap_or_default());
    payload
}

fn read_spec(payload: &[u8]) -> Option<GenesisSpec> {
    serde_json::from_slice(payload.strip_prefix(MAGIC)?).ok()
}

fn read_block(payload: &[u8]) -> Result<Logged, DecodeError> {
    let mut reader = Reader::new(payload);
    let number = Block(reader.u64()?);
    let hash = BlockHash(reader.array()?);
    let operations = (0..reader.count(MAX_OPERATIONS)?)
        .map(|_| SignedOp::from_bytes(reader.bytes(MAX_OPERATION_BYTES)?))
        .collect::<Result<_, _>>()?;
    reader.finish()?;
    Ok(Logged {
        number,
        hash,
        operations,
    })
}

/// What a last frame may be that has its full length.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastFrame {
    /// Cut off in the middle of being written, although the file had grown already.
    MayLackPages,
    /// What was written.
    IsWhole,
}

/// Reads frames one by one. `offset` is the end of the last whole frame.
struct Frames<'a> {
    path: &'a Path,
    file: BufReader<&'a File>,
    offset: u64,
    length: u64,
    last: LastFrame,
}

impl<'a> Frames<'a> {
    fn new((path, file): (&'a Path, &'a File), last: LastFrame) -> Result<Self, LocalError> {
        let metadata = file.metadata();
        let metadata = metadata.map_err(|source| LocalError::Storage {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path,
            file: BufReader::new(file),
            offset: 0,
            length: metadata.len(),
            last,
        })
    }

    fn damaged(&self, offset: u64, problem: impl Into<String>) -> LocalError {
        LocalError::Damaged {
            path: self.path.to_owned(),
            offset,
            problem: problem.into(),
        }
    }

    /// The next whole frame and where it starts; nothing at the end or at a torn tail.
    fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, LocalError> {
        let start = self.offset;
        if self.length - start < HEADER_BYTES {
            return Ok(self.torn());
        }
        let header = self.read(HEADER_BYTES as usize)?;
        let Some((length, payload_sum)) = read_header(&header) else {
            let unwritten = header.iter().all(|byte| *byte == 0) && self.rest_is_zero()?;
            return if unwritten {
                Ok(self.torn())
            } else {
                Err(self.damaged(start, "header"))
            };
        };
        let end = start + HEADER_BYTES + u64::from(length);
        if end > self.length {
            return Ok(self.torn());
        }
        let payload = self.read(length as usize)?;
        if crc32fast::hash(&payload) != payload_sum {
            let may_be_torn = self.last == LastFrame::MayLackPages
                && (end == self.length || self.rest_is_zero()?);
            return if may_be_torn {
                Ok(self.torn())
            } else {
                Err(self.damaged(start, "checksum"))
            };
        }
        self.offset = end;
        Ok(Some((start, payload)))
    }

    /// Ends the reading here: what follows was never completely written.
    fn torn(&mut self) -> Option<(u64, Vec<u8>)> {
        self.length = self.offset;
        None
    }

    fn read(&mut self, count: usize) -> Result<Vec<u8>, LocalError> {
        let mut bytes = vec![0; count];
        let read = self.file.read_exact(&mut bytes);
        read.map_err(|source| LocalError::Storage {
            path: self.path.to_owned(),
            source,
        })?;
        Ok(bytes)
    }

    fn rest_is_zero(&mut self) -> Result<bool, LocalError> {
        let mut chunk = [0; 4096];
        loop {
            match self.file.read(&mut chunk) {
                Ok(0) => return Ok(true),
                Ok(count) if chunk[..count].iter().any(|byte| *byte != 0) => return Ok(false),
                Ok(_) => {}
                Err(source) => {
                    return Err(LocalError::Storage {
                        path: self.path.to_owned(),
                        source,
                    });
                }
            }
        }
    }
}
