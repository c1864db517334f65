//! Ranges of weights files on their way to another file, a chunk at a time.
//!
//! Nothing is mapped and nothing is read whole, so that moving a model takes the memory of a chunk. Knows
//! nothing of what the bytes mean.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use super::error::CheckpointError;
use super::files::Files;

/// Bytes that are in memory at a time. Larger ones make copying no faster.
pub(super) const CHUNK: usize = 1 << 20;

/// How far reading and writing have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes dealt with.
    pub done: u64,
    /// Bytes to be dealt with.
    pub total: u64,
}

/// Counts bytes for whoever watches.
pub(super) struct Meter<'a> {
    progress: Progress,
    tell: &'a mut dyn FnMut(Progress),
}

impl<'a> Meter<'a> {
    pub(super) fn new(total: u64, tell: &'a mut dyn FnMut(Progress)) -> Self {
        let progress = Progress { done: 0, total };
        tell(progress);
        Self { progress, tell }
    }

    pub(super) fn advance(&mut self, bytes: usize) {
        self.progress.done = self.progress.done.saturating_add(bytes as u64);
        (self.tell)(self.progress);
    }
}

impl fmt::Debug for Meter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.progress.fmt(f)
    }
}

/// Reads ranges of a folder's weights files, of which one is open at a time.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    files: &'a Files,
    open: Option<(usize, File)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(files: &'a Files) -> Self {
        Self { files, open: None }
    }

    /// Fills `into` with the bytes of a file from `start` on.
    pub(super) fn read(
        &mut self,
        file: usize,
        start: usize,
        into: &mut [u8],
    ) -> Result<(), CheckpointError> {
        let path = &self.files.files[file].path;
        let unreadable = |source| CheckpointError::read(path, source);
        let opened = match self.open.take() {
            Some((number, opened)) if number == file => opened,
            _ => File::open(path).map_err(unreadable)?,
        };
        let (_, opened) = self.open.insert((file, opened));
        opened
            .seek(SeekFrom::Start(start as u64))
            .and_then(|_| opened.read_exact(into))
            .map_err(unreadable)
    }

    /// Passes a range of a file on, chunk by chunk.
    pub(super) fn each_chunk(
        &mut self,
        file: usize,
        range: Range<usize>,
        mut each: impl FnMut(&[u8]) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let mut buffer = vec![0; range.len().min(CHUNK)];
        for start in range.clone().step_by(CHUNK) {
            let chunk = &mut buffer[..CHUNK.min(range.end - start)];
            self.read(file, start, chunk)?;
            each(chunk)?;
        }
        Ok(())
    }
}
