//! Frames of the block log: how one is written, and how a file of them is read up to its torn tail.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::EmbeddedError;

const HEADER_BYTES: u64 = 12;
/// A full block, and some.
const MAX_FRAME_BYTES: u32 = 32 * 1024 * 1024;

/// A payload with its length and checksums.
pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_le_bytes();
    let mut frame = length.to_vec();
    frame.extend_from_slice(&crc32fast::hash(&length).to_le_bytes());
    frame.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The payload's length and checksum, if the header's own checksum holds.
fn read_header(header: &[u8]) -> Option<(u32, u32)> {
    let (numbers, _) = header.as_chunks::<4>();
    let [length, length_sum, payload_sum] = numbers else {
        return None;
    };
    let number = u32::from_le_bytes(*length);
    let holds =
        crc32fast::hash(length) == u32::from_le_bytes(*length_sum) && number <= MAX_FRAME_BYTES;
    holds.then_some((number, u32::from_le_bytes(*payload_sum)))
}

/// What a last frame may be that has its full length.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LastFrame {
    /// Cut off in the middle of being written, although the file had grown already.
    MayLackPages,
    /// What was written.
    IsWhole,
}

/// Reads frames one by one.
pub(super) struct Frames<'a> {
    path: &'a Path,
    file: BufReader<&'a File>,
    /// The end of the last whole frame.
    offset: u64,
    length: u64,
    last: LastFrame,
}

impl<'a> Frames<'a> {
    pub(super) fn new(
        (path, file): (&'a Path, &'a File),
        last: LastFrame,
    ) -> Result<Self, EmbeddedError> {
        let metadata = file.metadata();
        let metadata = metadata.map_err(|source| EmbeddedError::Storage {
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

    /// Goes on where an earlier reader found a frame to end.
    pub(super) fn start_at(&mut self, offset: u64) -> Result<(), EmbeddedError> {
        let moved = self.file.seek(SeekFrom::Start(offset));
        self.offset = moved.map_err(|source| EmbeddedError::Storage {
            path: self.path.to_owned(),
            source,
        })?;
        Ok(())
    }

    /// The end of the last whole frame.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn damaged(&self, offset: u64, problem: impl Into<String>) -> EmbeddedError {
        EmbeddedError::Damaged {
            path: self.path.to_owned(),
            offset,
            problem: problem.into(),
        }
    }

    /// The next whole frame and where it starts; nothing at the end or at a torn tail.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, EmbeddedError> {
        let start = self.offset;
        if self.length - start < HEADER_BYTES {
            return Ok(self.torn());
        }
        let header = self.read(HEADER_BYTES as usize)?;
        let Some((length, payload_sum)) = read_header(&header) else {
            return if self.may_be_unwritten(&header) && self.rest_is_zero()? {
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

    /// Whether a header that does not hold may never have been written: not at all, or, where two pages meet
    /// in it, only up to there.
    fn may_be_unwritten(&self, header: &[u8]) -> bool {
        match self.last {
            LastFrame::MayLackPages => header.ends_with(&[0]),
            LastFrame::IsWhole => header.iter().all(|byte| *byte == 0),
        }
    }

    /// Ends the reading here: what follows was never completely written.
    fn torn(&mut self) -> Option<(u64, Vec<u8>)> {
        self.length = self.offset;
        None
    }

    fn read(&mut self, count: usize) -> Result<Vec<u8>, EmbeddedError> {
        let mut bytes = vec![0; count];
        let read = self.file.read_exact(&mut bytes);
        read.map_err(|source| EmbeddedError::Storage {
            path: self.path.to_owned(),
            source,
        })?;
        Ok(bytes)
    }

    fn rest_is_zero(&mut self) -> Result<bool, EmbeddedError> {
        let mut chunk = [0; 4096];
        loop {
            match self.file.read(&mut chunk) {
                Ok(0) => return Ok(true),
                Ok(count) if chunk[..count].iter().any(|byte| *byte != 0) => return Ok(false),
                Ok(_) => {}
                Err(source) => {
                    return Err(EmbeddedError::Storage {
                        path: self.path.to_owned(),
                        source,
                    });
                }
            }
        }
    }
}
