//! Following a journal that another process, or another task, is writing.
//!
//! The reader takes whole lines only, checks them like everybody else, and never writes or locks.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::{JournalError, decode, io};

/// A place in a journal up to which it has been read.
#[derive(Debug)]
pub struct JournalTail {
    path: PathBuf,
    offset: u64,
    lines: u64,
}

impl JournalTail {
    /// Begins before the header. The file need not exist yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            offset: 0,
            lines: 0,
        }
    }

    /// The records that have been added since the last call; the header is skipped.
    ///
    /// # Errors
    /// A line is damaged, or the file cannot be read.
    pub fn poll<Record: DeserializeOwned>(&mut self) -> Result<Vec<Record>, JournalError> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened.map_err(io(&self.path, "open"))?,
        };
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.offset))
            .and_then(|_| file.read_to_end(&mut bytes))
            .map_err(io(&self.path, "read"))?;
        let mut records = Vec::new();
        // What follows the last line feed is still being written.
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(text) = line.strip_suffix(b"\n") else {
                break;
            };
            self.lines += 1;
            self.offset += line.len() as u64;
            let json = decode(text).map_err(|what| JournalError::Damaged {
                path: self.path.clone(),
                line: self.lines,
                what,
            })?;
            if self.lines > 1 {
                let record =
                    serde_json::from_slice(json).map_err(|source| JournalError::Unreadable {
                        path: self.path.clone(),
                        line: self.lines,
                        source,
                    })?;
                records.push(record);
            }
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;

    #[test]
    fn each_record_is_seen_once_and_a_half_written_one_not_yet() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut tail = JournalTail::new(&path);
        assert!(
            tail.poll::<u32>().unwrap().is_empty(),
            "there is no file yet"
        );
        let (mut journal, _) =
            Journal::create_or_open::<String, u32>(&path, &"head".to_owned()).unwrap();
        journal.append(&1).unwrap();
        journal.append(&2).unwrap();
        assert_eq!(tail.poll::<u32>().unwrap(), [1, 2]);
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [whole.as_slice(), b"0000"].concat()).unwrap();
        assert!(tail.poll::<u32>().unwrap().is_empty());
    }
}
