//! A file as a slice of bytes, read from disk page by page where it is touched.
//!
//! Weights are larger than memory; a mapping lets a slice of a model be read without the rest. Knows
//! nothing of what the bytes mean.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::{Advice, Mmap};

/// A mapped file that is only read.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps an ordinary file.
    ///
    /// # Errors
    /// There is none under this path, it is something else than a file, or the system cannot map it.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Before it is opened: opening a pipe waits for somebody to write to it.
        if !std::fs::metadata(path)?.is_file() {
            let message = "this is not an ordinary file";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let file = File::open(path)?;
        #[expect(
            unsafe_code,
            reason = "nothing short of the operating system can promise what a mapping needs"
        )]
        // SAFETY: the bytes are only ever read, through `bytes`, and every bit pattern is a valid byte.
        // That the file does not shrink or change meanwhile is the contract with whoever owns the folder:
        // finished weights are never written in place, here or by any other tool (they are written beside
        // and renamed, which leaves this mapping on the old file). Broken, it ends the process with a bus
        // error or yields other weights, as a file changed between two reads would.
        let map = unsafe { Mmap::map(&file)? };
        // A hint only: tensors are read once, from their first row to their last.
        #[cfg(unix)]
        let _ = map.advise(Advice::Sequential);
        Ok(Self(map))
    }

    /// Lets go of the pages that were read so far; they are read again where they are touched again.
    /// Without this a file that was read once counts as this process's memory to its end.
    pub fn release(&self) {
        #[cfg(unix)]
        #[expect(
            unsafe_code,
            reason = "the advice is unsafe for memory that can be written"
        )]
        // SAFETY: the mapping is shared with a file and never written, so dropping its pages loses
        // nothing: they come back with the same bytes.
        let _ = unsafe { self.0.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }

    /// The file's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_bytes_and_a_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for bytes in [&b""[..], b"weights"] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(MappedFile::open(&path).unwrap().bytes(), bytes);
        }
        assert!(MappedFile::open(folder.path()).is_err());
        assert!(MappedFile::open(&folder.path().join("absent")).is_err());
    }

    /// What should not happen: waiting for whoever might write to a pipe.
    #[cfg(unix)]
    #[test]
    fn what_has_no_end_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, zeros) = (folder.path().join("pipe"), folder.path().join("zeros"));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        std::os::unix::fs::symlink("/dev/zero", &zeros).unwrap();
        for path in [pipe, zeros] {
            let refused = MappedFile::open(&path).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
