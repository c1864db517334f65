//! The one log of a role: what happened, in order, durable before anything is done about it.
//!
//! ```text
//! 5f3a09c1 {"role":"miner",...}        header: written once, must be the same at every start
//! 91bb02d4 {"Block":{"number":35,...}} one record a line: CRC-32 of the JSON, a space, the JSON
//! ```
//!
//! A record counts once its line feed is on disk. [`Journal::append`] returns only then, so a crash
//! can cost at most the line that nobody has acted upon yet: a last line without its line feed is cut
//! at the next start (A-141). A whole line that fails its checksum was once acknowledged; that is
//! damage, and it stops the reader with file and line rather than being guessed away.
//!
//! Knows nothing of events, effects or roles: header and record are any serialisable types.

mod tail;

pub use tail::JournalTail;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file could not be opened, read, written or synced.
    #[error("journal {path}: cannot {action}")]
    Io {
        /// The journal.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Another process holds the journal's lock (A-144).
    #[error("journal {path} is in use by another process")]
    InUse {
        /// The journal.
        path: PathBuf,
    },
    /// A line that was once durable is no longer what was written.
    #[error("journal {path}, line {line}: {what}")]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// The line, counted from 1; the header is line 1.
        line: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A line is intact but is not a record of the expected type.
    #[error("journal {path}, line {line}: not a record of this version")]
    Unreadable {
        /// The journal.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// Where the JSON differs.
        source: serde_json::Error,
    },
    /// The journal belongs to another hotkey, network or configuration.
    #[error("journal {path} was started with another header")]
    OtherHeader {
        /// The journal.
        path: PathBuf,
    },
    /// The file is empty or ends within its header, so there is nothing to read.
    #[error("journal {path} has no header")]
    NoHeader {
        /// The journal.
        path: PathBuf,
    },
    /// A record has no JSON form (a map with keys that are not texts, for example).
    #[error("journal {path}: a record cannot be written as JSON")]
    Unwritable {
        /// The journal.
        path: PathBuf,
        /// What serde_json objects to.
        source: serde_json::Error,
    },
    /// An earlier write failed in a way that leaves the file's end unknown. Restart to recover.
    #[error("journal {path} stopped accepting records after a failed write")]
    Stopped {
        /// The journal.
        path: PathBuf,
    },
}

/// An open journal: the only writer of its file while it lives.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes that are durable. Whatever lies behind is garbage of a failed write.
    end: u64,
    stopped: bool,
}

impl Journal {
    /// Opens the journal at `path`, or starts it with `header`, and returns the records it holds.
    ///
    /// A torn last line is cut from the file before this returns.
    ///
    /// # Errors
    /// When the file cannot be used, is locked by another process, is damaged before its last line,
    /// or was started with a header that differs from `header`.
    pub fn create_or_open<Header, Record>(
        path: impl AsRef<Path>,
        header: &Header,
    ) -> Result<(Self, Vec<Record>), JournalError>
    where
        Header: Serialize + DeserializeOwned + PartialEq,
        Record: DeserializeOwned,
    {
        let path = path.as_ref().to_path_buf();
        let file = open_locked(&path)?;
        let content = scan::<Header, Record>(&path, &file)?;
        if content.header.as_ref().is_some_and(|found| found != header) {
            return Err(JournalError::OtherHeader { path });
        }
        let mut journal = Self {
            path,
            file,
            end: content.whole_bytes,
            stopped: false,
        };
        if content.header.is_none() {
            journal.check_torn_header(header)?;
        }
        journal.cut_tail()?;
        if content.header.is_none() {
            journal.append(header)?;
            sync_folder(&journal.path)?;
        }
        Ok((journal, content.records))
    }

    /// Reads a journal without locking or changing it: for replay tools, also beside a running role.
    ///
    /// # Errors
    /// When the file cannot be read, has no header, or is damaged before its last line.
    pub fn read<Header, Record>(
        path: impl AsRef<Path>,
    ) -> Result<(Header, Vec<Record>), JournalError>
    where
        Header: DeserializeOwned,
        Record: DeserializeOwned,
    {
        let path = path.as_ref();
        let file = File::open(path).map_err(io(path, "open"))?;
        let content = scan::<Header, Record>(path, &file)?;
        match content.header {
            Some(header) => Ok((header, content.records)),
            None => Err(JournalError::NoHeader {
                path: path.to_path_buf(),
            }),
        }
    }

    /// Appends one record and returns when it is durable.
    ///
    /// # Errors
    /// When the record has no JSON form or the disk refuses it. A write that failed for lack of space
    /// is undone, so the next append may succeed; if it cannot be undone, or if syncing failed (after
    /// which the system no longer says what is on disk), every later append is refused.
    pub fn append<Record: Serialize>(&mut self, record: &Record) -> Result<(), JournalError> {
        if self.stopped {
            return Err(JournalError::Stopped {
                path: self.path.clone(),
            });
        }
        let line = self.encode(record)?;
        if let Err(error) = self.file.write_all(&line) {
            self.stopped = self.cut_tail().is_err();
            return Err(io(&self.path, "append to it")(error));
        }
        if let Err(error) = self.file.sync_data() {
            self.stopped = true;
            return Err(io(&self.path, "sync it")(error));
        }
        self.end += line.len() as u64;
        Ok(())
    }

    /// The journal's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file without a single whole line is cut to nothing only if it is what a crash leaves of
    /// this header. Anything else is someone's file, named by mistake.
    fn check_torn_header<Header: Serialize>(&self, header: &Header) -> Result<(), JournalError> {
        let line = self.encode(header)?;
        let found = std::fs::read(&self.path).map_err(io(&self.path, "read"))?;
        if line.starts_with(&found) {
            return Ok(());
        }
        Err(JournalError::Damaged {
            path: self.path.clone(),
            line: 1,
            what: "not a journal",
        })
    }

    fn encode<Record: Serialize>(&self, record: &Record) -> Result<Vec<u8>, JournalError> {
        encode(record).map_err(|source| JournalError::Unwritable {
            path: self.path.clone(),
            source,
        })
    }

    fn cut_tail(&mut self) -> Result<(), JournalError> {
        let length = self.file.metadata().map_err(io(&self.path, "inspect"))?;
        if length.len() == self.end {
            return Ok(());
        }
        self.file
            .set_len(self.end)
            .and_then(|()| self.file.sync_data())
            .map_err(io(&self.path, "cut the torn last line of"))
    }
}

fn open_locked(path: &Path) -> Result<File, JournalError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(io(path, "create the folder of"))?;
    }
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
        .map_err(io(path, "open"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse {
            path: path.to_path_buf(),
        }),
        Err(TryLockError::Error(source)) => Err(io(path, "lock")(source)),
    }
}

/// What a file holds up to its last line feed.
struct Content<Header, Record> {
    header: Option<Header>,
    records: Vec<Record>,
    whole_bytes: u64,
}

fn scan<Header: DeserializeOwned, Record: DeserializeOwned>(
    path: &Path,
    file: &File,
) -> Result<Content<Header, Record>, JournalError> {
    let mut content = Content {
        header: None,
        records: Vec::new(),
        whole_bytes: 0,
    };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        reader
            .read_until(b'\n', &mut line)
            .map_err(io(path, "read"))?;
        // Without its line feed the line is torn or absent: nothing was acknowledged.
        let Some(text) = line.strip_suffix(b"\n") else {
            break;
        };
        let json = decode(text).map_err(|what| JournalError::Damaged {
            path: path.to_path_buf(),
            line: number,
            what,
        })?;
        let unreadable = |source| JournalError::Unreadable {
            path: path.to_path_buf(),
            line: number,
            source,
        };
        if number == 1 {
            content.header = Some(serde_json::from_slice(json).map_err(unreadable)?);
        } else {
            let record = serde_json::from_slice(json).map_err(unreadable)?;
            content.records.push(record);
        }
        content.whole_bytes += line.len() as u64;
    }
    Ok(content)
}

const CHECKSUM_DIGITS: usize = 8;

fn encode<Record: Serialize>(record: &Record) -> Result<Vec<u8>, serde_json::Error> {
    let json = serde_json::to_vec(record)?;
    let mut line = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok(line)
}

/// The JSON of a line whose checksum holds.
fn decode(line: &[u8]) -> Result<&[u8], &'static str> {
    let (checksum, rest) = line
        .split_at_checked(CHECKSUM_DIGITS)
        .ok_or("too short for a checksum")?;
    let json = rest
        .strip_prefix(b" ")
        .ok_or("no space after the checksum")?;
    let mut stated = [0; 4];
    hex::decode_to_slice(checksum, &mut stated).map_err(|_| "the checksum is not hexadecimal")?;
    if u32::from_be_bytes(stated) == crc32fast::hash(json) {
        Ok(json)
    } else {
        Err("the checksum does not match")
    }
}

/// Makes the file's entry in its folder durable; without it a crash may lose the whole file.
fn sync_folder(path: &Path) -> Result<(), JournalError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io(path, "sync the folder of"))
}

fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> JournalError {
    move |source| JournalError::Io {
        path: path.to_path_buf(),
        action,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "miner one";

    fn written(records: &[&str]) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("miner.journal");
        let (mut journal, _) = open(&path).unwrap();
        for record in records {
            journal.append(record).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        (folder, path, bytes)
    }

    fn open(path: &Path) -> Result<(Journal, Vec<String>), JournalError> {
        Journal::create_or_open(path, &HEADER.to_owned())
    }

    /// What should happen: whatever length the file was cut to, exactly the records whose line feed
    /// is left come back, and the next record lands directly behind them.
    #[test]
    fn every_truncation_recovers_the_longest_whole_prefix() {
        let records = ["one", "two", "three\nwith a line feed", "four"];
        let (_folder, path, bytes) = written(&records);
        for length in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let whole_lines = bytes[..length].iter().filter(|b| **b == b'\n').count();
            let expected = &records[..whole_lines.saturating_sub(1)];

            let (mut journal, found) = open(&path).unwrap();
            assert_eq!(found, expected, "cut to {length} bytes");
            journal.append(&"next").unwrap();
            drop(journal);

            let (_, found) = open(&path).unwrap();
            assert_eq!(found.len(), expected.len() + 1, "cut to {length} bytes");
            assert_eq!(found.last().unwrap(), "next");
        }
    }

    /// What should not happen: a changed byte passing unnoticed, or being mistaken for a torn tail
    /// although its line feed is there.
    #[test]
    fn a_flipped_byte_in_a_whole_line_is_named_with_its_line() {
        let (_folder, path, bytes) = written(&["one", "two", "three"]);
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x01;
            if bytes[position] == b'\n' || damaged[position] == b'\n' {
                continue; // a changed line boundary: covered by the truncations or by its neighbour
            }
            std::fs::write(&path, &damaged).unwrap();
            let line = 1 + bytes[..position].iter().filter(|b| **b == b'\n').count() as u64;
            match open(&path) {
                Err(JournalError::Damaged { line: named, .. }) => assert_eq!(named, line),
                other => panic!("byte {position}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_lost_line_feed_between_two_records_is_damage_not_a_torn_tail() {
        let (_folder, path, bytes) = written(&["one", "two"]);
        let first_feed = bytes.iter().position(|b| *b == b'\n').unwrap();
        let mut damaged = bytes;
        damaged[first_feed] = b' ';
        std::fs::write(&path, &damaged).unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert!(error.contains("miner.journal, line 1:"), "{error}");
    }

    #[test]
    fn a_journal_of_another_header_is_refused_and_left_alone() {
        let (_folder, path, bytes) = written(&["one"]);
        let other = Journal::create_or_open::<_, String>(&path, &"miner two".to_owned());
        let error = other.unwrap_err();
        assert!(matches!(error, JournalError::OtherHeader { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    /// What should not happen: a path given by mistake costing the user a file.
    #[test]
    fn a_file_that_was_never_a_journal_is_refused_and_left_alone() {
        let (_folder, path, _) = written(&[]);
        for foreign in ["a text without a line feed", "a text\nof two lines\n"] {
            std::fs::write(&path, foreign).unwrap();
            let error = open(&path).unwrap_err();
            assert!(matches!(error, JournalError::Damaged { line: 1, .. }));
            assert_eq!(std::fs::read(&path).unwrap(), foreign.as_bytes());
        }
    }

    #[test]
    fn a_second_opener_is_told_that_the_journal_is_in_use() {
        let (_folder, path, _) = written(&[]);
        let (_journal, _) = open(&path).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, JournalError::InUse { .. }), "{error}");
    }

    /// A reader beside the running role sees every durable record and disturbs nothing.
    #[test]
    fn a_replay_tool_reads_a_live_journal_with_a_torn_tail() {
        let (_folder, path, mut bytes) = written(&["one", "two"]);
        bytes.truncate(bytes.len() - 3);
        std::fs::write(&path, &bytes).unwrap();
        let (header, records) = Journal::read::<String, String>(&path).unwrap();
        assert_eq!((header.as_str(), records), (HEADER, vec!["one".to_owned()]));
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "reading cuts nothing");
    }

    #[test]
    fn an_empty_file_has_no_header_to_replay() {
        let (_folder, path, _) = written(&[]);
        std::fs::write(&path, b"").unwrap();
        let error = Journal::read::<String, String>(&path).unwrap_err();
        assert!(matches!(error, JournalError::NoHeader { .. }), "{error}");
    }
}
